//! How often a provider is asked while nobody has typed the code yet, and what
//! ends it. What a certified server makes of it is in the workspace's `tests`.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::names::ProviderName;
use countersign_core::provider::GrantType;
use countersign_oauth::device::Standing;
use countersign_oauth::upkeep::Parties;
use countersign_oauth::{Oauth, Party};
use serde_json::{Value, json};

use crate::support::{Scripted, Stage, stage, tokens, user};

async fn begun() -> (Stage, String) {
    let mut stage = stage().await;
    stage.provider.grant_types.push(GrantType::DeviceCode);
    let endpoint = format!("{}/revoke", stage.base).parse().unwrap();
    stage.provider.revocation_endpoint = Some(endpoint);
    let endpoint = format!("{}/device", stage.base).parse().unwrap();
    stage.provider.device_authorization_endpoint = Some(endpoint);
    let answer = json!({
        "device_code": "dev1ce-c0de-7890",
        "user_code": "WDJB-MJHT",
        "verification_uri": format!("{}/type", stage.base),
        "expires_in": 600,
        "interval": 5,
    });
    stage.script.then("/device", Scripted::Json(200, answer));
    let begin = stage.begin_as("ana");
    let (id, shown) = stage
        .oauth
        .begin_device(begin, &stage.party())
        .await
        .unwrap();
    assert_eq!(shown.user_code, "WDJB-MJHT");
    (stage, id)
}

async fn look(stage: &Stage, id: &str) -> Standing {
    let party: Party = stage.party();
    let oauth: &Oauth = &stage.oauth;
    oauth
        .look_device(id, &user("ana"), "ana-browser", |_| Some(party))
        .await
        .unwrap()
}

fn says(code: &str) -> Scripted {
    Scripted::Json(400, json!({ "error": code }))
}

#[tokio::test]
async fn the_provider_is_asked_as_often_as_it_wants_and_less_when_it_says_so() {
    let (stage, id) = begun().await;
    // Seconds until the look, what the provider answers if it is asked, and how
    // often it was asked by then.
    let steps: [(u64, Option<Scripted>, usize); 8] = [
        (0, None, 0),
        (4, None, 0),
        (1, Some(says("authorization_pending")), 1),
        (4, None, 1),
        (1, Some(says("slow_down")), 2),
        (9, None, 2),
        (1, Some(Scripted::Raw(503, "text/html", b"<p>".to_vec())), 3),
        (19, None, 3),
    ];
    for (i, (seconds, answer, asked)) in steps.into_iter().enumerate() {
        stage.clock.advance(Duration::from_secs(seconds));
        if let Some(answer) = answer {
            stage.script.then("/token", answer);
        }
        assert!(
            matches!(look(&stage, &id).await, Standing::Waiting(_)),
            "{i}"
        );
        assert_eq!(stage.token_requests().len(), asked, "step {i}");
    }
    let request = &stage.token_requests()[0];
    assert_eq!(
        request.field("device_code").as_deref(),
        Some("dev1ce-c0de-7890")
    );
    assert!(!stage.audited().contains("dev1ce"));
}

#[tokio::test]
async fn what_was_granted_waits_for_the_users_word_and_is_used_once() {
    let (stage, id) = begun().await;
    stage.clock.advance(Duration::from_secs(5));
    let granted = tokens("access-token-1", Some("refresh-token-1"), Some(3600));
    stage.script.token(granted);
    let account: Value = json!({"id": 7, "login": "octo"});
    stage.script.then("/user", Scripted::Json(200, account));
    let Standing::Found { account, .. } = look(&stage, &id).await else {
        panic!("nothing was found");
    };
    assert_eq!(account.unwrap().label, "octo");
    assert!(stage.oauth.load(&stage.key("ana")).await.unwrap().is_none());

    // Another session, another user: nothing to see and nothing to decide.
    for (name, session) in [("ana", "other"), ("bob", "ana-browser")] {
        let party = stage.party();
        let decided = stage
            .oauth
            .decide_device(&id, &user(name), session, true, |_| Some(party))
            .await
            .unwrap();
        assert!(
            matches!(decided, Err(Standing::Refused { .. })),
            "{name} {session}"
        );
    }
    let decide = async |is_mine| {
        let party = stage.party();
        let ana = user("ana");
        let decided = stage
            .oauth
            .decide_device(&id, &ana, "ana-browser", is_mine, |_| Some(party));
        decided.await.unwrap()
    };
    let connection = decide(true).await.unwrap();
    assert_eq!(connection.account.unwrap().id, "7");
    assert_eq!(stage.held("ana").await.connection.generation, 1);
    assert!(decide(true).await.is_err(), "it is good once");
}

#[tokio::test]
async fn a_code_that_ended_or_was_refused_or_whose_provider_moved_gives_nothing() {
    for code in ["access_denied", "expired_token"] {
        let (stage, id) = begun().await;
        stage.clock.advance(Duration::from_secs(5));
        stage.script.then("/token", says(code));
        let Standing::Refused { code: said, .. } = look(&stage, &id).await else {
            panic!("{code}");
        };
        assert_eq!(said, code);
        assert!(matches!(look(&stage, &id).await, Standing::Refused { .. }));
        assert_eq!(stage.token_requests().len(), 1);
    }
    let (stage, id) = begun().await;
    stage.clock.advance(Duration::from_secs(601));
    assert!(matches!(look(&stage, &id).await, Standing::Refused { .. }));
    assert_eq!(stage.token_requests().len(), 0);

    let (mut stage, id) = begun().await;
    stage.clock.advance(Duration::from_secs(5));
    let elsewhere = "https://elsewhere.example.com/token".parse().unwrap();
    stage.provider.token_endpoint = Some(elsewhere);
    let Standing::Refused { code, .. } = look(&stage, &id).await else {
        panic!("it was sent elsewhere");
    };
    assert_eq!(code, "provider_changed");
    assert_eq!(stage.token_requests().len(), 0);
}

/// Somebody has typed the code, and an account was found.
async fn found() -> (Stage, String) {
    let (stage, id) = begun().await;
    stage.clock.advance(Duration::from_secs(5));
    let granted = tokens("access-token-1", Some("refresh-token-1"), Some(3600));
    stage.script.token(granted);
    let account: Value = json!({"id": 7, "login": "octo"});
    stage.script.then("/user", Scripted::Json(200, account));
    let Standing::Found { .. } = look(&stage, &id).await else {
        panic!("nothing was found");
    };
    (stage, id)
}

/// One round of what is done in the background, some time later.
async fn later(stage: &Stage, seconds: u64) -> usize {
    stage.clock.advance(Duration::from_secs(seconds));
    let party = stage.party();
    let parties: Arc<dyn Parties> = Arc::new(move |_: &ProviderName| Some(party.clone()));
    stage.oauth.do_round(&parties).await.unwrap()
}

fn revocations(stage: &Stage) -> Vec<String> {
    let seen = stage.script.seen().into_iter();
    let revoked = seen.filter(|s| s.path == "/revoke");
    revoked.filter_map(|s| s.field("token")).collect()
}

async fn decide(stage: &Stage, id: &str, is_mine: bool) -> bool {
    let (party, ana) = (stage.party(), user("ana"));
    let oauth = &stage.oauth;
    let decided = oauth.decide_device(id, &ana, "ana-browser", is_mine, |_| Some(party));
    decided.await.unwrap().is_ok()
}

#[tokio::test]
async fn an_account_that_nobody_says_anything_about_is_given_back() {
    let (stage, id) = found().await;
    assert_eq!(later(&stage, 600).await, 0, "he may still decide");
    stage
        .script
        .then("/revoke", Scripted::Raw(200, "text/plain", vec![]));
    assert_eq!(later(&stage, 15).await, 1);
    assert_eq!(revocations(&stage), ["refresh-token-1"]);
    assert!(!decide(&stage, &id, true).await, "it is too late");
    assert_eq!(later(&stage, 86_400).await, 0);
}

#[tokio::test]
async fn what_is_mine_is_not_given_back_and_what_is_not_mine_is_until_it_is_done() {
    let (stage, id) = found().await;
    assert!(decide(&stage, &id, true).await);
    later(&stage, 86_400).await;
    assert_eq!(revocations(&stage), [""; 0]);

    // The provider does not work just then.
    let (stage, id) = found().await;
    stage
        .script
        .then("/revoke", Scripted::Raw(503, "text/html", vec![]));
    assert!(!decide(&stage, &id, false).await);
    stage
        .script
        .then("/revoke", Scripted::Raw(200, "text/plain", vec![]));
    later(&stage, 3600).await;
    assert_eq!(revocations(&stage), ["refresh-token-1"; 2]);
    assert_eq!(later(&stage, 86_400).await, 0);
}

#[tokio::test]
async fn an_account_that_is_connected_already_is_not_ended_by_an_abandoned_code() {
    let (stage, _) = begun().await;
    stage
        .connected(
            "ana",
            tokens("access-token-0", Some("refresh-token-0"), None),
        )
        .await;
    let answer = json!({
        "device_code": "another-dev1ce-c0de", "user_code": "AAAA-BBBB",
        "verification_uri": format!("{}/type", stage.base), "expires_in": 600,
    });
    stage.script.then("/device", Scripted::Json(200, answer));
    let begin = stage.begin_as("ana");
    let begun = stage.oauth.begin_device(begin, &stage.party()).await;
    let (id, _) = begun.unwrap();
    stage.clock.advance(Duration::from_secs(5));
    stage
        .script
        .token(tokens("access-token-1", Some("refresh-token-1"), None));
    let account: Value = json!({"id": 7, "login": "octo"});
    stage.script.then("/user", Scripted::Json(200, account));
    assert!(matches!(look(&stage, &id).await, Standing::Found { .. }));
    later(&stage, 86_400).await;
    assert_eq!(revocations(&stage), [""; 0]);
}
