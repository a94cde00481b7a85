//! Connections while nobody calls: renewed, warned of, revoked.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::connection::{ReauthReason, State, Status};
use countersign_core::names::ProviderName;
use countersign_core::ports::{Expect, Kind, RecordKey, Records as _, delete};
use countersign_core::preset::{Expiry, Rotation, TokenShape};
use countersign_core::scope::{Implications, ScopeSet};
use countersign_core::upkeep::{Care, reconnect_by};
use countersign_oauth::observe::Nobody;
use countersign_oauth::revoke::Revoked;
use countersign_oauth::upkeep::Parties;
use countersign_oauth::{Held, Oauth, Party};
use serde_json::json;
use url::Url;

use crate::support::{Scripted, Stage, parameter, stage, tokens};

const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

fn pass(stage: &Stage, secs: u64) {
    stage.clock.advance(Duration::from_secs(secs));
}

fn parties(stage: &Stage) -> Arc<dyn Parties> {
    let party = stage.party();
    Arc::new(move |_: &ProviderName| Some(Party::clone(&party)))
}

/// How much was due.
async fn round(stage: &Stage) -> usize {
    stage.oauth.do_round(&parties(stage)).await.unwrap()
}

async fn connected(stage: &Stage) {
    let answer = tokens("access-token-1", Some("refresh-token-1"), Some(HOUR));
    stage.connected("ana", answer).await;
}

/// Work that will ever fall due.
async fn appointments(stage: &Stage) -> Vec<String> {
    let ever = stage
        .world
        .clock
        .now()
        .plus(Duration::from_secs(4000 * DAY));
    let due = stage.records.due(ever, 99).await.unwrap();
    due.into_iter().map(|r| r.key.name).collect()
}

fn status(stage: &Stage, held: &Held) -> (Status, Option<ReauthReason>) {
    let (none, now) = (ScopeSet::default(), stage.world.clock.now());
    held.connection.status(now, &none, &Implications::default())
}

fn actions(stage: &Stage) -> Vec<String> {
    stage.audit.events().into_iter().map(|e| e.action).collect()
}

#[tokio::test]
async fn a_token_is_renewed_before_any_call_needs_it_and_nothing_is_done_before() {
    let stage = stage().await;
    connected(&stage).await;
    assert_eq!(round(&stage).await, 0);
    pass(&stage, HOUR - 601);
    assert_eq!(round(&stage).await, 0, "it is good for long");
    pass(&stage, 160);
    stage.script.token(tokens(
        "access-token-2",
        Some("refresh-token-2"),
        Some(HOUR),
    ));
    assert_eq!(round(&stage).await, 1);
    assert_eq!(stage.token_requests().len(), 2);
    let end = stage.world.clock.now().plus(Duration::from_secs(HOUR));
    let held = stage.held("ana").await;
    assert_eq!(held.connection.credentials[0].expires_at, Some(end));
    // The next appointment is the next renewal.
    assert_eq!(round(&stage).await, 0);
    assert_eq!(appointments(&stage).await.len(), 1);
}

#[tokio::test]
async fn what_ended_while_nothing_ran_is_due_if_it_can_be_renewed() {
    for (refresh, requests) in [(Some("refresh-token-1"), 2), (None, 1)] {
        let stage = stage().await;
        let answer = tokens("access-token-1", refresh, Some(HOUR));
        stage.connected("ana", answer).await;
        pass(&stage, DAY);
        stage
            .script
            .token(tokens("access-token-2", None, Some(HOUR)));
        round(&stage).await;
        assert_eq!(stage.token_requests().len(), requests, "{refresh:?}");
    }
}

#[tokio::test]
async fn an_unused_connection_is_left_alone_but_kept_from_dying() {
    let mut stage = stage().await;
    connected(&stage).await;
    pass(&stage, 8 * DAY);
    round(&stage).await;
    assert_eq!(stage.token_requests().len(), 1, "nobody used it for a week");
    assert!(
        appointments(&stage).await.is_empty(),
        "nothing will be done"
    );
    // Its first use makes it an active one.
    stage.oauth.touch(&stage.key("ana")).await.unwrap();
    stage
        .script
        .token(tokens("access-token-2", None, Some(HOUR)));
    assert_eq!(round(&stage).await, 1);
    assert_eq!(stage.token_requests().len(), 2);

    stage.description.refresh.idle_days = Some(60);
    stage
        .connect("ben", tokens("b-1", Some("b-refresh-1"), Some(HOUR)))
        .await;
    pass(&stage, 41 * DAY);
    let asked = stage.token_requests().len();
    stage.script.token(tokens("b-2", None, Some(HOUR)));
    stage.script.token(tokens("a-2", None, Some(HOUR)));
    // Looked at once when its token ended, and again when it is about to die.
    while round(&stage).await > 0 {}
    let used: Vec<_> = stage.token_requests()[asked..]
        .iter()
        .filter_map(|r| r.field("refresh_token"))
        .collect();
    assert!(used.contains(&"b-refresh-1".to_owned()), "{used:?}");
}

#[tokio::test]
async fn two_hosts_do_not_do_the_same_work() {
    let stage = stage().await;
    connected(&stage).await;
    let url = Url::parse("https://cs.example.com").unwrap();
    let other = Oauth::new(stage.world.clone(), Arc::new(stage.guard.clone()), url);
    pass(&stage, HOUR - 400);
    stage.script.token(tokens(
        "access-token-2",
        Some("refresh-token-2"),
        Some(HOUR),
    ));
    let parties = parties(&stage);
    let (a, b) = tokio::join!(stage.oauth.do_round(&parties), other.do_round(&parties));
    assert!(a.is_ok() && b.is_ok());
    assert_eq!(stage.token_requests().len(), 2);
}

#[tokio::test]
async fn a_provider_that_fails_is_left_alone_for_a_while_and_asked_again() {
    let stage = stage().await;
    connected(&stage).await;
    pass(&stage, HOUR - 400);
    stage
        .script
        .then("/token", Scripted::Raw(503, "text/plain", vec![]));
    round(&stage).await;
    assert_eq!(stage.token_requests().len(), 2);
    assert_eq!(round(&stage).await, 0, "not at once");
    pass(&stage, 100);
    stage
        .script
        .token(tokens("access-token-2", None, Some(HOUR)));
    assert_eq!(round(&stage).await, 1);
    assert_eq!(stage.token_requests().len(), 3);
    assert_eq!(stage.held("ana").await.connection.state, State::Connected);
}

#[tokio::test]
async fn a_provider_that_asks_to_be_left_alone_is_not_even_asked_by_calls() {
    let stage = stage().await;
    connected(&stage).await;
    pass(&stage, HOUR + 1);
    let fresh = async || {
        let held = stage.held("ana").await;
        stage
            .oauth
            .fresh(held, &stage.party(), None)
            .await
            .map(drop)
    };
    stage.script.then("/token", Scripted::Later("120"));
    assert!(fresh().await.is_err());
    let said = fresh().await.unwrap_err().to_string();
    assert!(said.contains("left alone for 1"), "{said}");
    assert_eq!(stage.token_requests().len(), 2);
    pass(&stage, 121);
    stage
        .script
        .token(tokens("access-token-2", None, Some(HOUR)));
    assert_eq!(fresh().await, Ok(()));
}

#[tokio::test]
async fn a_grant_that_ends_in_the_background_ends_its_appointment_too() {
    let stage = stage().await;
    connected(&stage).await;
    pass(&stage, HOUR - 400);
    let refusal = json!({"error": "invalid_grant"});
    stage.script.then("/token", Scripted::Json(400, refusal));
    round(&stage).await;
    let reason = ReauthReason::Revoked;
    let state = stage.held("ana").await.connection.state;
    assert_eq!(state, State::NeedsReauth { reason });
    assert!(appointments(&stage).await.is_empty());
    assert!(stage.audited().contains("connection.refresh_failed"));
}

#[tokio::test]
async fn a_disabled_provider_is_sent_nothing() {
    let mut stage = stage().await;
    connected(&stage).await;
    pass(&stage, HOUR - 400);
    stage.provider.enabled = false;
    assert_eq!(round(&stage).await, 1);
    assert_eq!(stage.token_requests().len(), 1);
    assert_eq!(appointments(&stage).await.len(), 1, "it waits");
}

/// Tokens whose refresh token ends, and that say so.
fn ending(stage: &mut Stage) {
    let pointer = |name: &str| vec![format!("/{name}")];
    stage.description.token_shapes = vec![TokenShape {
        credential: "default".into(),
        when: vec![],
        optional: false,
        access_token: pointer("access_token"),
        refresh_token: pointer("refresh_token"),
        id_token: vec![],
        expires: vec![Expiry::Lifetime("/expires_in".into())],
        refresh_expires: vec![Expiry::Lifetime("/refresh_expires_in".into())],
        scopes: pointer("scope"),
        scope_separators: vec![],
    }];
}

#[tokio::test]
async fn a_user_is_warned_once_before_a_refresh_token_lapses_that_nothing_prolongs() {
    let mut stage = stage().await;
    ending(&mut stage);
    let answer = |n: u32, left: u64| {
        let mut answer = tokens(
            &format!("access-{n}"),
            Some(&format!("refresh-token-{n}")),
            Some(HOUR),
        );
        answer["refresh_expires_in"] = left.into();
        answer
    };
    stage.connected("ana", answer(1, 30 * DAY)).await;
    // A renewal that does not move the end: it will come.
    pass(&stage, HOUR - 400);
    stage.script.token(answer(2, 30 * DAY - (HOUR - 400)));
    round(&stage).await;
    let held = stage.held("ana").await;
    assert!(held.connection.credentials[0].refresh_token_end_is_fixed);
    let care = *stage.oauth.care();
    let by = |held: &Held| reconnect_by(&held.connection, &care, stage.world.clock.now());
    assert_eq!(by(&held), None);
    pass(&stage, 27 * DAY + HOUR);
    while round(&stage).await > 0 {}
    let held = stage.held("ana").await;
    let end = held.connection.credentials[0].refresh_token_expires_at;
    assert_eq!(by(&held), end);
    let warnings = |stage: &Stage| {
        let all = actions(stage);
        all.iter().filter(|a| *a == "connection.ends_soon").count()
    };
    assert_eq!(warnings(&stage), 1);
    pass(&stage, DAY);
    while round(&stage).await > 0 {}
    assert_eq!(warnings(&stage), 1);
    assert_eq!(
        status(&stage, &held).0,
        Status::Connected,
        "until it has ended"
    );
}

#[tokio::test]
async fn connections_of_an_earlier_version_get_their_appointment_once() {
    let stage = stage().await;
    connected(&stage).await;
    let name = appointments(&stage).await.remove(0);
    let gone = delete(RecordKey::new(Kind::Due, name), Expect::Anything);
    stage.records.write(vec![gone]).await.unwrap();
    assert_eq!(stage.oauth.make_appointments().await, Ok(1));
    assert_eq!(appointments(&stage).await.len(), 1);
    assert_eq!(stage.oauth.make_appointments().await, Ok(0));
    // Switched off for a while, and on again.
    let off = Care {
        background: false,
        ..Care::default()
    };
    let (world, sender) = (stage.world.clone(), Arc::new(stage.guard.clone()));
    let url = Url::parse("https://cs.example.com").unwrap();
    let silent = Oauth::caring(world, sender, url, off, Arc::new(Nobody));
    assert_eq!(silent.make_appointments().await, Ok(0));
    assert_eq!(stage.oauth.make_appointments().await, Ok(1));
    pass(&stage, HOUR - 400);
    stage
        .script
        .token(tokens("access-token-2", None, Some(HOUR)));
    while round(&stage).await > 0 {}
    assert_eq!(stage.token_requests().len(), 2);
}

#[tokio::test]
async fn what_the_loss_of_an_answer_means_depends_on_how_often_a_token_may_be_sent() {
    let strict = Rotation::Always;
    // Rotation, grace, may be repeated, ended already; what comes of it, token
    // requests then, and what the next call gets.
    let cases = [
        (
            Rotation::Never,
            0,
            false,
            true,
            "provider_unavailable",
            2,
            "fresh",
        ),
        (
            Rotation::Sometimes,
            0,
            false,
            true,
            "provider_unavailable",
            2,
            "fresh",
        ),
        (
            strict.clone(),
            0,
            false,
            true,
            "provider_error",
            2,
            "provider_error",
        ),
        // The access token serves for as long as it lives.
        (strict.clone(), 0, false, false, "fresh", 2, "fresh"),
        // It forgives: asked again at once.
        (strict.clone(), 30, false, true, "fresh", 3, "fresh"),
        (strict, 0, true, true, "fresh", 3, "fresh"),
    ];
    for (rotation, grace, repeatable, ended, first, requests, second) in cases {
        let said = format!("{rotation:?} {grace} {repeatable} {ended}");
        let mut stage = stage().await;
        stage.provider.max_retries = 1;
        stage.description.refresh.rotation = rotation;
        stage.description.refresh.grace_seconds = grace;
        stage.description.refresh.retry_after_lost_answer = repeatable;
        connected(&stage).await;
        pass(&stage, if ended { HOUR + 1 } else { HOUR - 60 });
        stage.script.then("/token", Scripted::Broken);
        stage
            .script
            .token(tokens("access-token-2", None, Some(HOUR)));
        let fresh = async || {
            let held = stage.held("ana").await;
            let result = stage.oauth.fresh(held, &stage.party(), None).await;
            crate::refresh::reason(result)
        };
        assert_eq!(fresh().await, first, "{said}");
        assert_eq!(stage.token_requests().len(), requests, "{said}");
        assert_eq!(fresh().await, second, "{said}");
        let held = stage.held("ana").await;
        assert!(held.sealed.is_some(), "{said}: kept, to be revoked");
        assert_eq!(held.connection.state, State::Connected, "{said}");
        if second == "provider_error" {
            let expected = (Status::NeedsReauth, Some(ReauthReason::ProviderError));
            assert_eq!(status(&stage, &held), expected, "{said}");
            assert_eq!(stage.token_requests().len(), 2, "{said}: sent once");
            assert!(actions(&stage).contains(&"connection.renewal_lost".to_owned()));
            // A new consent mends it.
            connected(&stage).await;
            assert_eq!(fresh().await, "fresh", "{said}");
        }
    }
}

#[tokio::test]
async fn a_revocation_waits_for_a_provider_that_does_not_work() {
    let mut stage = stage().await;
    let endpoint = format!("{}/revoke", stage.base);
    stage.provider.revocation_endpoint = Some(Url::parse(&endpoint).unwrap());
    connected(&stage).await;
    stage
        .script
        .then("/revoke", Scripted::Raw(503, "text/plain", vec![]));
    let key = stage.key("ana");
    let done = stage.oauth.disconnect(&key, Some(&stage.party())).await;
    assert!(matches!(done.unwrap().revoked, Revoked::Later { .. }));
    assert!(
        stage.oauth.load(&key).await.unwrap().is_none(),
        "gone at once"
    );
    assert_eq!(round(&stage).await, 0);
    pass(&stage, 61);
    stage.script.then("/revoke", Scripted::Later("30"));
    assert_eq!(round(&stage).await, 1);
    pass(&stage, 200);
    stage
        .script
        .then("/revoke", Scripted::Raw(200, "text/plain", vec![]));
    assert_eq!(round(&stage).await, 1);
    let last = stage.script.seen().pop().unwrap();
    assert_eq!(last.field("token").as_deref(), Some("refresh-token-1"));
    assert!(
        appointments(&stage).await.is_empty(),
        "nothing is left of it"
    );
    assert!(actions(&stage).contains(&"connection.revoked".to_owned()));
    assert!(!stage.audited().contains("refresh-token-1"));
}

#[tokio::test]
async fn a_revocation_is_given_up_after_a_week() {
    let mut stage = stage().await;
    let endpoint = format!("{}/revoke", stage.base);
    stage.provider.revocation_endpoint = Some(Url::parse(&endpoint).unwrap());
    connected(&stage).await;
    // As when its user was deleted.
    let (key, party) = (stage.key("ana"), stage.party());
    assert_eq!(stage.oauth.retire(&key, Some(&party)).await, Ok(true));
    for _ in 0..40 {
        stage
            .script
            .then("/revoke", Scripted::Raw(500, "text/plain", vec![]));
        round(&stage).await;
        pass(&stage, 8 * HOUR);
    }
    assert!(appointments(&stage).await.is_empty());
    assert!(actions(&stage).contains(&"connection.revocation_given_up".to_owned()));
}

#[tokio::test]
async fn a_retired_connection_is_gone_at_once_and_revoked_soon() {
    let mut stage = stage().await;
    let endpoint = format!("{}/revoke", stage.base);
    stage.provider.revocation_endpoint = Some(Url::parse(&endpoint).unwrap());
    connected(&stage).await;
    let before = stage.script.seen().len();
    let key = stage.key("ana");
    assert_eq!(
        stage.oauth.retire(&key, Some(&stage.party())).await,
        Ok(true)
    );
    assert_eq!(stage.script.seen().len(), before, "nobody waits for it");
    assert!(stage.oauth.load(&key).await.unwrap().is_none());
    stage
        .script
        .then("/revoke", Scripted::Raw(200, "text/plain", vec![]));
    assert_eq!(round(&stage).await, 1);
    assert!(appointments(&stage).await.is_empty());
    assert_eq!(stage.oauth.retire(&key, None).await, Ok(false));
}

#[tokio::test]
async fn a_scope_upgrade_asks_for_what_is_missing_where_the_preset_says_how() {
    for incremental in [true, false] {
        let mut stage = stage().await;
        if !incremental {
            let authorization = stage.description.authorization.as_mut().unwrap();
            authorization.incremental_parameters.clear();
        }
        connected(&stage).await;
        let mut begin = stage.begin_as("ana");
        begin.scopes = ScopeSet::split("read admin", &[]);
        let url = stage.oauth.begin(begin, &stage.party()).await.unwrap();
        let asked = parameter(&url, "scope").unwrap();
        let expected = if incremental {
            "admin"
        } else {
            "admin read write"
        };
        assert_eq!(asked, expected);
        // The provider adds to what it gave, and says nothing of scopes and
        // gives no new refresh token.
        stage
            .script
            .token(json!({"access_token": "access-token-2", "expires_in": 3600}));
        let account = Scripted::Json(200, json!({"id": 7, "login": "octo"}));
        stage.script.then("/user", account);
        let state = parameter(&url, "state").unwrap();
        let query = format!("code=c0de-123456&state={state}");
        stage.finish(stage.callback("ana", &query)).await;
        let connection = stage.held("ana").await.connection;
        assert_eq!(connection.generation, 2);
        assert_eq!(connection.scopes().join(" "), "admin read write");
        assert!(connection.withheld.is_empty());
        // The old refresh token is still what it is renewed with.
        assert!(connection.credentials[0].refresh_token_present);
        pass(&stage, HOUR + 1);
        stage
            .script
            .token(tokens("access-token-3", None, Some(HOUR)));
        let held = stage.held("ana").await;
        assert!(stage.oauth.fresh(held, &stage.party(), None).await.is_ok());
        let used = stage.token_requests().pop().unwrap();
        assert_eq!(
            used.field("refresh_token").as_deref(),
            Some("refresh-token-1")
        );
    }
}

#[tokio::test]
async fn what_an_upgrade_was_refused_is_kept_in_mind_until_it_is_granted() {
    let stage = stage().await;
    let granting = |scopes: &str| {
        let mut answer = tokens("access", Some("refresh"), Some(HOUR));
        answer["scope"] = scopes.into();
        answer
    };
    // A first consent that grants less may be asked for more, once.
    let first = stage.connected("ana", granting("read")).await;
    assert!(first.withheld.is_empty());
    let second = stage.connected("ana", granting("read renamed")).await;
    assert_eq!(second.withheld.join(" "), "write");
    assert_eq!(
        second.scopes().join(" "),
        "read renamed",
        "as it was granted"
    );
    let third = stage.connected("ana", granting("read write")).await;
    assert!(third.withheld.is_empty());
}

#[tokio::test]
async fn tokens_of_another_account_are_revoked_when_they_are_replaced() {
    let mut stage = stage().await;
    let endpoint = format!("{}/revoke", stage.base);
    stage.provider.revocation_endpoint = Some(Url::parse(&endpoint).unwrap());
    connected(&stage).await;
    stage.script.token(tokens(
        "access-token-2",
        Some("refresh-token-2"),
        Some(HOUR),
    ));
    let other = Scripted::Json(200, json!({"id": 8, "login": "another"}));
    stage.script.then("/user", other);
    let state = parameter(&stage.begin("ana").await, "state").unwrap();
    let query = format!("code=c0de-123456&state={state}");
    stage.finish(stage.callback("ana", &query)).await;
    stage
        .script
        .then("/revoke", Scripted::Raw(200, "text/plain", vec![]));
    assert_eq!(round(&stage).await, 1);
    let last = stage.script.seen().pop().unwrap();
    assert_eq!(last.field("token").as_deref(), Some("refresh-token-1"));
}
