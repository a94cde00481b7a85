//! `/oauth2/authorize`: the user's word.

use countersign_identity::Audience;
use countersign_identity::accounts::AdminError;
use http::StatusCode;

use crate::browser::Browser;
use crate::support::{
    HOST, House, NOTES, REDIRECT, WEB_REDIRECT, alice, authorize_path, server, user,
};

const ALL: &str = "http://127.0.0.1:8700/mcp";

#[tokio::test]
async fn the_user_sees_who_asks_for_what_and_may_say_no() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let path = authorize_path(&agent, REDIRECT, NOTES, &[]);
    let page = browser.get(&path).await;
    for needed in [
        "Test agent",
        "Notes",
        "/mcp/notes",
        "a program on this computer",
        ">Allow</button>",
        ">Deny</button>",
        "alice",
    ] {
        assert!(page.body.contains(needed), "{needed} in {}", page.body);
    }
    let csp = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        csp.contains("form-action 'self' http://127.0.0.1:4000"),
        "{csp}"
    );
    let answer = browser.answer_consent(&path, "deny").await;
    assert_eq!(answer.sent("error").as_deref(), Some("access_denied"));
    assert_eq!(answer.sent("iss").as_deref(), Some(HOST));
    assert_eq!(answer.sent("code"), None);
    assert!(house.actions().contains(&"consent.deny".to_owned()));
}

#[tokio::test]
async fn a_consent_form_is_good_for_its_own_session_only() {
    let house = House::open().await;
    house.person("alice").await;
    house.person("mallory").await;
    let agent = house.agent(REDIRECT).await;
    let path = authorize_path(&agent, REDIRECT, NOTES, &[]);
    let mut mallory = Browser::signed_in(&house, "mallory").await;
    let theirs = mallory.get(&path).await.hidden("request");
    let mut alice = Browser::signed_in(&house, "alice").await;
    let page = alice.get(&path).await;
    let (csrf, own) = (page.hidden("csrf"), page.hidden("request"));
    let send = |csrf: &str, request: &str| {
        [
            ("csrf", csrf.to_owned()),
            ("request", request.to_owned()),
            ("team", "default".to_owned()),
            ("decision", "allow".to_owned()),
        ]
    };
    for (what, csrf, request) in [
        ("another session's request", csrf.as_str(), theirs.as_str()),
        ("no request", csrf.as_str(), ""),
        ("tampered request", csrf.as_str(), &own[..own.len() - 2]),
        ("no csrf", "", own.as_str()),
        ("wrong csrf", "x", own.as_str()),
    ] {
        let form = send(csrf, request);
        let form: Vec<(&str, &str)> = form.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let answer = alice.post("/oauth2/authorize", &form).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}");
    }
    let form = send(&csrf, &own);
    let form: Vec<(&str, &str)> = form.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let answer = alice
        .post_from(
            "/oauth2/authorize",
            &form,
            &[("origin", "https://evil.example")],
        )
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    house.clock.advance(std::time::Duration::from_secs(16 * 60));
    assert_eq!(
        alice.post("/oauth2/authorize", &form).await.status,
        StatusCode::FORBIDDEN,
        "open too long"
    );
}

#[tokio::test]
async fn a_consent_is_remembered_for_the_same_request_at_an_https_redirect_only() {
    let house = House::open().await;
    house.person("alice").await;
    let web = house.agent(WEB_REDIRECT).await;
    let local = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    browser.code(&web, WEB_REDIRECT, NOTES).await;
    browser.code(&local, REDIRECT, NOTES).await;

    let again = browser
        .get(&authorize_path(&web, WEB_REDIRECT, NOTES, &[]))
        .await;
    assert_eq!(again.status, StatusCode::SEE_OTHER);
    assert!(again.sent("code").is_some() && again.sent("iss").is_some());
    for (what, path) in [
        (
            "a loopback redirect",
            authorize_path(&local, REDIRECT, NOTES, &[]),
        ),
        (
            "another resource",
            authorize_path(&web, WEB_REDIRECT, ALL, &[]),
        ),
    ] {
        assert_eq!(
            browser.get(&path).await.status,
            StatusCode::OK,
            "{what} is asked for again"
        );
    }
    house.person("bob").await;
    let mut bob = Browser::signed_in(&house, "bob").await;
    assert_eq!(
        bob.get(&authorize_path(&web, WEB_REDIRECT, NOTES, &[]))
            .await
            .status,
        StatusCode::OK,
        "another user"
    );

    let caller = house
        .identity
        .session(&browser.headers())
        .await
        .unwrap()
        .unwrap()
        .caller;
    let client = countersign_core::names::ClientId::parse(&web).unwrap();
    house.identity.revoke_agent(&caller, &client).await.unwrap();
    let path = authorize_path(&web, WEB_REDIRECT, NOTES, &[]);
    assert_eq!(
        browser.get(&path).await.status,
        StatusCode::OK,
        "forgotten with the agent"
    );
}

#[tokio::test]
async fn the_team_is_chosen_among_those_that_may_use_the_server() {
    let house = House::open().await;
    house.person("alice").await;
    let lab = countersign_core::names::TeamName::parse("lab").unwrap();
    let admin = crate::support::admin();
    house
        .identity
        .create_team(&admin, lab.clone(), "Lab".into())
        .await
        .unwrap();
    house
        .identity
        .add_member(&admin, &lab, &user("alice"))
        .await
        .unwrap();
    let agent = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let tokens = house
        .tokens(
            &mut browser,
            &agent,
            REDIRECT,
            "http://127.0.0.1:8700/mcp/lab",
        )
        .await;
    let audience = countersign_identity::Audience::Mcp(
        countersign_core::names::ServerName::parse("lab").unwrap(),
    );
    let bearer = tokens["access_token"].as_str().unwrap();
    assert_eq!(
        house
            .identity
            .authenticate(bearer, &audience)
            .await
            .unwrap()
            .team,
        lab
    );

    let page = browser
        .get(&authorize_path(&agent, REDIRECT, NOTES, &[]))
        .await;
    assert!(
        page.body.contains("<select id=\"team\" name=\"team\">"),
        "{}",
        page.body
    );
    let (csrf, request) = (page.hidden("csrf"), page.hidden("request"));
    for team in ["", "other"] {
        let form = [
            ("csrf", csrf.as_str()),
            ("request", request.as_str()),
            ("team", team),
            ("decision", "allow"),
        ];
        assert_eq!(
            browser.post("/oauth2/authorize", &form).await.status,
            StatusCode::FORBIDDEN,
            "{team:?}"
        );
    }
    house
        .identity
        .remove_member(&admin, &lab, &user("alice"))
        .await
        .unwrap();
    assert!(
        house
            .identity
            .authenticate(bearer, &audience)
            .await
            .is_err(),
        "left the team"
    );
}

#[tokio::test]
async fn an_agents_name_is_shown_as_text() {
    let house = House::open().await;
    house.person("alice").await;
    let body = serde_json::json!({ "client_name": "<script>alert(1)</script>\u{202e}", "redirect_uris": [REDIRECT] });
    let agent = house.post_json("/oauth2/register", body).await.json()["client_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut browser = Browser::signed_in(&house, "alice").await;
    let page = browser
        .get(&authorize_path(&agent, REDIRECT, NOTES, &[]))
        .await;
    assert!(
        !page.body.contains("<script") && !page.body.contains('\u{202e}'),
        "{}",
        page.body
    );
}

#[tokio::test]
async fn a_user_sees_his_agents_and_ends_one() {
    let house = House::open().await;
    let (mut browser, principal) = alice(&house).await;
    let (one, two) = (house.agent(REDIRECT).await, house.agent(REDIRECT).await);
    let notes = format!("{HOST}/mcp/notes");
    let first = house.tokens(&mut browser, &one, REDIRECT, &notes).await;
    house
        .tokens(&mut browser, &one, REDIRECT, &format!("{HOST}/mcp"))
        .await;
    let kept = house.tokens(&mut browser, &two, REDIRECT, &notes).await;
    let agents = house.identity.agents(&user("alice")).await.unwrap();
    assert_eq!(agents.len(), 2);
    assert_eq!(agents.iter().map(|a| a.resources.len()).sum::<usize>(), 3);
    let client = countersign_core::names::ClientId::parse(&one).unwrap();
    let audience = Audience::Mcp(server("notes"));
    assert!(
        house
            .identity
            .authenticate(first["access_token"].as_str().unwrap(), &audience)
            .await
            .is_ok()
    );
    house
        .identity
        .revoke_agent(&principal.caller, &client)
        .await
        .unwrap();
    assert!(
        house
            .identity
            .authenticate(first["access_token"].as_str().unwrap(), &audience)
            .await
            .is_err()
    );
    assert!(
        house
            .identity
            .authenticate(kept["access_token"].as_str().unwrap(), &audience)
            .await
            .is_ok()
    );
    let again = house
        .identity
        .revoke_agent(&principal.caller, &client)
        .await;
    assert!(matches!(again, Err(AdminError::NotFound { .. })));
}
