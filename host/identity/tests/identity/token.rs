//! `/oauth2/token`: codes.

use std::time::Duration;

use axum::body::Body;
use countersign_identity::AuthError;
use http::{Request, StatusCode};

use crate::browser::Browser;
use crate::support::{
    House, NOTES, REDIRECT, VERIFIER, encode, notes, only_one_and_that_revoked, text,
};

#[tokio::test]
async fn a_code_becomes_tokens_for_its_user_team_client_and_resource() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let code = browser.code(&agent, REDIRECT, NOTES).await;
    let answer = house.exchange(&agent, REDIRECT, &code).await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["access-control-allow-origin"], "*");
    let tokens = answer.json();
    assert_eq!(
        (
            &tokens["token_type"],
            &tokens["scope"],
            &tokens["expires_in"]
        ),
        (&"Bearer".into(), &"mcp".into(), &900.into())
    );
    let caller = house
        .identity
        .authenticate(&text(&tokens, "access_token"), &notes())
        .await
        .unwrap();
    assert_eq!(
        (caller.user.as_str(), caller.team.as_str()),
        ("alice", "default")
    );
    assert_eq!(
        (caller.client.as_str(), caller.client_name.as_str()),
        (agent.as_str(), "Test agent")
    );
    assert_eq!(
        caller.servers.as_ref().map(|s| s.contains("notes")),
        Some(true)
    );
}

#[tokio::test]
async fn a_code_is_bound_to_client_redirect_proof_and_resource() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let other = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let code = browser.code(&agent, REDIRECT, NOTES).await;
    let wrong_verifier = "x".repeat(43);
    let good = [
        ("grant_type", "authorization_code"),
        ("client_id", agent.as_str()),
        ("code", code.as_str()),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    let cases: &[(&str, &str, &str, &str)] = &[
        ("another client", "client_id", &other, "invalid_grant"),
        ("no client", "client_id", "", "invalid_request"),
        ("unprintable client", "client_id", "a b", "invalid_client"),
        ("a client secret", "client_secret", "s", "invalid_client"),
        ("an assertion", "client_assertion", "s", "invalid_client"),
        (
            "another redirect",
            "redirect_uri",
            "http://127.0.0.1:4001/callback",
            "invalid_grant",
        ),
        ("no redirect", "redirect_uri", "", "invalid_request"),
        (
            "wrong verifier",
            "code_verifier",
            &wrong_verifier,
            "invalid_grant",
        ),
        ("short verifier", "code_verifier", "x", "invalid_grant"),
        ("no verifier", "code_verifier", "", "invalid_request"),
        ("unknown code", "code", "cs_ac_unknown", "invalid_grant"),
        ("no code", "code", "", "invalid_request"),
        (
            "another resource",
            "resource",
            "http://127.0.0.1:8700/mcp",
            "invalid_target",
        ),
        ("more scope", "scope", "mcp api", "invalid_scope"),
        ("no grant type", "grant_type", "", "invalid_request"),
        (
            "password grant",
            "grant_type",
            "password",
            "unsupported_grant_type",
        ),
        (
            "client credentials",
            "grant_type",
            "client_credentials",
            "unsupported_grant_type",
        ),
    ];
    for (what, name, value, expected) in cases {
        let mut form: Vec<(&str, &str)> = good.iter().copied().filter(|(n, _)| n != name).collect();
        form.push((name, value));
        let answer = house.post("/oauth2/token", &form).await;
        assert!(answer.status.is_client_error(), "{what}");
        assert_eq!(answer.json()["error"], *expected, "{what}: {}", answer.body);
        assert_eq!(answer.headers["cache-control"], "no-store", "{what}");
    }
    let basic = Request::post("/oauth2/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("authorization", "Basic YTpi");
    let answer = house
        .send(basic.body(Body::from(encode(&good))).unwrap())
        .await;
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (StatusCode::UNAUTHORIZED, &"invalid_client".into())
    );
    let json = house
        .post_json(
            "/oauth2/token",
            serde_json::json!({ "grant_type": "authorization_code" }),
        )
        .await;
    assert_eq!(json.json()["error"], "invalid_request");
    let mut twice = good.to_vec();
    twice.push(("code", &code));
    assert_eq!(
        house.post("/oauth2/token", &twice).await.json()["error"],
        "invalid_request"
    );

    assert_eq!(
        house.exchange(&agent, REDIRECT, &code).await.status,
        StatusCode::OK,
        "still good for its owner"
    );
}

#[tokio::test]
async fn a_code_lives_a_minute() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let code = browser.code(&agent, REDIRECT, NOTES).await;
    house.clock.advance(Duration::from_secs(60));
    assert_eq!(
        house.exchange(&agent, REDIRECT, &code).await.json()["error"],
        "invalid_grant"
    );
}

#[tokio::test]
async fn a_replayed_code_revokes_the_tokens_it_gave() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let code = browser.code(&agent, REDIRECT, NOTES).await;
    let tokens = house.exchange(&agent, REDIRECT, &code).await.json();
    let access = text(&tokens, "access_token");
    assert!(house.identity.authenticate(&access, &notes()).await.is_ok());
    assert_eq!(
        house.exchange(&agent, REDIRECT, &code).await.json()["error"],
        "invalid_grant"
    );
    assert_eq!(
        house.identity.authenticate(&access, &notes()).await,
        Err(AuthError::Invalid),
        "at once, cache or not"
    );
    assert_eq!(
        house
            .refresh(&agent, &text(&tokens, "refresh_token"))
            .await
            .json()["error"],
        "invalid_grant"
    );
    assert!(house.actions().contains(&"token.reuse".to_owned()));
}

#[tokio::test]
async fn a_code_exchanged_twice_at_the_same_moment_counts_as_replay() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let code = browser.code(&agent, REDIRECT, NOTES).await;
    let (one, two) = tokio::join!(
        house.exchange(&agent, REDIRECT, &code),
        house.exchange(&agent, REDIRECT, &code)
    );
    only_one_and_that_revoked(&house, [one, two]).await;
}

#[tokio::test]
async fn the_store_knows_tokens_codes_and_cookies_by_fingerprint_only() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let code = browser.code(&agent, REDIRECT, NOTES).await;
    let tokens = house.exchange(&agent, REDIRECT, &code).await.json();
    let stored = house.stored().await;
    let audit = format!("{:?}", house.audit.events());
    assert!(stored.contains("alice"), "the search itself works");
    let cookie = browser.cookies["countersign"].clone();
    for secret in [
        &code,
        &text(&tokens, "access_token"),
        &text(&tokens, "refresh_token"),
        &cookie,
        &crate::support::PASSWORD.to_owned(),
    ] {
        let bare = secret.rsplit('_').next().unwrap();
        for (place, held) in [("store", &stored), ("audit", &audit)] {
            assert!(!held.contains(bare), "{place}");
        }
    }
}
