//! `/oauth2/authorize`: every refusal.

use http::StatusCode;

use crate::browser::Browser;
use crate::support::{HOST, House, NOTES, PASSWORD, REDIRECT, WEB_REDIRECT, authorize_path};

/// Parameters of the good request that a case replaces.
type Changes<'a> = &'a [(&'a str, &'a str)];

#[tokio::test]
async fn what_is_wrong_before_client_and_redirect_are_known_is_told_to_the_user_only() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let cases: [(&str, Changes); 11] = [
        ("no client", &[("client_id", "")]),
        ("unknown client", &[("client_id", "cs_client_unknown")]),
        ("client id with a space", &[("client_id", "a b")]),
        (
            "document client, unsupported",
            &[("client_id", "https://agent.example/client.json")],
        ),
        ("no redirect", &[("redirect_uri", "")]),
        (
            "another path",
            &[("redirect_uri", "http://127.0.0.1:4000/other")],
        ),
        (
            "another host",
            &[("redirect_uri", "https://evil.example/callback")],
        ),
        (
            "a query more",
            &[("redirect_uri", "http://127.0.0.1:4000/callback?x=1")],
        ),
        (
            "localhost for 127.0.0.1",
            &[("redirect_uri", "http://localhost:4000/callback")],
        ),
        (
            "https for http",
            &[("redirect_uri", "https://127.0.0.1:4000/callback")],
        ),
        ("script", &[("redirect_uri", "javascript:alert(1)")]),
    ];
    for (what, changes) in cases {
        let answer = browser
            .get(&authorize_path(&agent, REDIRECT, NOTES, changes))
            .await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}");
        assert!(!answer.headers.contains_key("location"), "{what}");
    }
    let twice = format!(
        "{}&client_id={agent}",
        authorize_path(&agent, REDIRECT, NOTES, &[])
    );
    assert_eq!(browser.get(&twice).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn every_other_refusal_goes_to_the_users_agent_with_state_and_issuer() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    house.tokens(&mut browser, &agent, REDIRECT, NOTES).await;
    let plain = "a".repeat(42);
    let cases: [(&str, Changes, &str); 19] = [
        (
            "no response type",
            &[("response_type", "")],
            "invalid_request",
        ),
        (
            "token",
            &[("response_type", "token")],
            "unsupported_response_type",
        ),
        (
            "code id_token",
            &[("response_type", "code id_token")],
            "unsupported_response_type",
        ),
        (
            "no PKCE",
            &[("code_challenge", ""), ("code_challenge_method", "")],
            "invalid_request",
        ),
        (
            "plain PKCE",
            &[("code_challenge_method", "plain")],
            "invalid_request",
        ),
        (
            "PKCE without method",
            &[("code_challenge_method", "")],
            "invalid_request",
        ),
        (
            "short challenge",
            &[("code_challenge", &plain)],
            "invalid_request",
        ),
        (
            "fragment",
            &[("response_mode", "fragment")],
            "invalid_request",
        ),
        (
            "request object",
            &[("request", "ey")],
            "request_not_supported",
        ),
        (
            "request uri",
            &[("request_uri", "https://evil.example/r")],
            "request_uri_not_supported",
        ),
        ("no resource", &[("resource", "")], "invalid_target"),
        (
            "foreign resource",
            &[("resource", "https://evil.example/mcp")],
            "invalid_target",
        ),
        (
            "trailing slash",
            &[("resource", "http://127.0.0.1:8700/mcp/")],
            "invalid_target",
        ),
        (
            "host only",
            &[("resource", "http://127.0.0.1:8700")],
            "invalid_target",
        ),
        (
            "unknown server",
            &[("resource", "http://127.0.0.1:8700/mcp/nothing")],
            "invalid_target",
        ),
        (
            "REST for an agent",
            &[("resource", "http://127.0.0.1:8700/api"), ("scope", "api")],
            "invalid_target",
        ),
        ("unknown scope", &[("scope", "mcp admin")], "invalid_scope"),
        ("scope api", &[("scope", "api")], "invalid_scope"),
        (
            "a team's server",
            &[("resource", "http://127.0.0.1:8700/mcp/lab")],
            "access_denied",
        ),
    ];
    for (what, changes, expected) in cases {
        let answer = browser
            .get(&authorize_path(&agent, REDIRECT, NOTES, changes))
            .await;
        assert_eq!(
            answer.status,
            StatusCode::SEE_OTHER,
            "{what}: {}",
            answer.body
        );
        assert!(answer.location().starts_with(REDIRECT), "{what}");
        assert_eq!(answer.sent("error").as_deref(), Some(expected), "{what}");
        assert_eq!(answer.sent("state").as_deref(), Some("s t&te"), "{what}");
        assert_eq!(answer.sent("iss").as_deref(), Some(HOST), "{what}");
        assert_eq!(answer.sent("code"), None, "{what}");
    }
}

#[tokio::test]
async fn nobody_is_sent_on_to_an_agent_that_he_never_let_in() {
    let house = House::open().await;
    house.person("alice").await;
    house.person("bob").await;
    let agent = house.agent(WEB_REDIRECT).await;
    // That another user has let it in says nothing of this one.
    let mut bob = Browser::signed_in(&house, "bob").await;
    house.tokens(&mut bob, &agent, WEB_REDIRECT, NOTES).await;
    let mut alice = Browser::signed_in(&house, "alice").await;
    let cases: [Changes; 3] = [
        &[("response_type", "zz")],
        &[("scope", "all")],
        &[("resource", "http://127.0.0.1:8700/mcp/lab")],
    ];
    for changes in cases {
        let path = authorize_path(&agent, WEB_REDIRECT, NOTES, changes);
        let answer = alice.get(&path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{changes:?}");
        assert!(!answer.headers.contains_key("location"), "{changes:?}");
        assert!(answer.body.contains("can't be used"), "{}", answer.body);
        assert_eq!(bob.get(&path).await.status, StatusCode::SEE_OTHER);
    }
}

#[tokio::test]
async fn nobody_is_sent_on_before_he_is_signed_in_and_then_it_goes_on() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let path = authorize_path(&agent, REDIRECT, NOTES, &[]);
    let mut browser = Browser::new(&house);
    for changes in [&[][..], &[("scope", "bad")]] {
        let answer = browser
            .get(&authorize_path(&agent, REDIRECT, NOTES, changes))
            .await;
        assert_eq!(
            (answer.status, answer.location()),
            (StatusCode::SEE_OTHER, "/login")
        );
    }
    browser.get(&path).await;
    let answer = browser.sign_in_with("alice", PASSWORD).await;
    assert_eq!(answer.location(), path);
    let answer = browser.answer_consent(&path, "allow").await;
    assert!(answer.sent("code").is_some());
}

#[tokio::test]
async fn a_loopback_redirect_may_come_at_another_port() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent("http://127.0.0.1/callback").await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let redirect = "http://127.0.0.1:51234/callback";
    let tokens = house.tokens(&mut browser, &agent, redirect, NOTES).await;
    assert_eq!(tokens["token_type"], "Bearer");
}
