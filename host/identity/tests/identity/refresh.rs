//! `/oauth2/token`: refreshes; `/oauth2/revoke`.

use std::time::Duration;

use countersign_identity::{AuthError, Password};
use http::StatusCode;

use crate::browser::Browser;
use crate::support::{House, NOTES, REDIRECT, admin, notes, only_one_and_that_revoked, text, user};

#[tokio::test]
async fn a_refresh_token_is_used_once_and_its_reuse_revokes_the_family() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let first = house.tokens(&mut browser, &agent, REDIRECT, NOTES).await;
    let second = house
        .refresh(&agent, &text(&first, "refresh_token"))
        .await
        .json();
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert!(
        house
            .identity
            .authenticate(&text(&second, "access_token"), &notes())
            .await
            .is_ok()
    );
    let third = house
        .refresh(&agent, &text(&second, "refresh_token"))
        .await
        .json();

    let reuse = house.refresh(&agent, &text(&first, "refresh_token")).await;
    assert_eq!(reuse.json()["error"], "invalid_grant");
    for tokens in [&first, &second, &third] {
        let access = text(tokens, "access_token");
        assert_eq!(
            house.identity.authenticate(&access, &notes()).await,
            Err(AuthError::Invalid)
        );
    }
    assert_eq!(
        house
            .refresh(&agent, &text(&third, "refresh_token"))
            .await
            .json()["error"],
        "invalid_grant"
    );
}

#[tokio::test]
async fn a_refresh_at_the_same_moment_counts_as_reuse() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let tokens = house.tokens(&mut browser, &agent, REDIRECT, NOTES).await;
    let old = text(&tokens, "refresh_token");
    let (one, two) = tokio::join!(house.refresh(&agent, &old), house.refresh(&agent, &old));
    only_one_and_that_revoked(&house, [one, two]).await;
}

#[tokio::test]
async fn a_refresh_is_bound_like_the_code_was() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let other = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let tokens = house.tokens(&mut browser, &agent, REDIRECT, NOTES).await;
    let (refresh, access) = (
        text(&tokens, "refresh_token"),
        text(&tokens, "access_token"),
    );
    let good = [
        ("grant_type", "refresh_token"),
        ("client_id", agent.as_str()),
        ("refresh_token", refresh.as_str()),
    ];
    let cases: &[(&str, &str, &str, &str)] = &[
        ("another client", "client_id", &other, "invalid_grant"),
        (
            "another resource",
            "resource",
            "http://127.0.0.1:8700/mcp/mail",
            "invalid_target",
        ),
        ("more scope", "scope", "api", "invalid_scope"),
        ("an access token", "refresh_token", &access, "invalid_grant"),
        ("unknown", "refresh_token", "cs_rt_unknown", "invalid_grant"),
        ("none", "refresh_token", "", "invalid_request"),
    ];
    for (what, name, value, expected) in cases {
        let mut form: Vec<(&str, &str)> = good.iter().copied().filter(|(n, _)| n != name).collect();
        form.push((name, value));
        assert_eq!(
            house.post("/oauth2/token", &form).await.json()["error"],
            *expected,
            "{what}"
        );
    }
    assert_eq!(
        house.identity.authenticate(&refresh, &notes()).await,
        Err(AuthError::Invalid),
        "no access token"
    );
    assert_eq!(house.refresh(&agent, &refresh).await.status, StatusCode::OK);
}

#[tokio::test]
async fn tokens_expire_and_so_does_their_grant() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let mut tokens = house.tokens(&mut browser, &agent, REDIRECT, NOTES).await;
    let access = text(&tokens, "access_token");
    assert!(house.identity.authenticate(&access, &notes()).await.is_ok());
    house.clock.advance(Duration::from_secs(900));
    assert_eq!(
        house.identity.authenticate(&access, &notes()).await,
        Err(AuthError::Invalid)
    );
    let twenty_days = Duration::from_secs(20 * 24 * 3600);
    for _ in 0..8 {
        house.clock.advance(twenty_days);
        tokens = house
            .refresh(&agent, &text(&tokens, "refresh_token"))
            .await
            .json();
        assert!(tokens.get("error").is_none(), "{tokens}");
    }
    house.clock.advance(twenty_days);
    assert_eq!(
        house
            .refresh(&agent, &text(&tokens, "refresh_token"))
            .await
            .json()["error"],
        "invalid_grant"
    );
}

#[tokio::test]
async fn an_idle_refresh_token_dies() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let tokens = house.tokens(&mut browser, &agent, REDIRECT, NOTES).await;
    house.clock.advance(Duration::from_secs(30 * 24 * 3600));
    assert_eq!(
        house
            .refresh(&agent, &text(&tokens, "refresh_token"))
            .await
            .json()["error"],
        "invalid_grant"
    );
}

#[tokio::test]
async fn an_agent_that_did_not_ask_for_refresh_tokens_gets_none() {
    let house = House::open().await;
    house.person("alice").await;
    let body = serde_json::json!({ "redirect_uris": [REDIRECT] });
    let agent = text(
        &house.post_json("/oauth2/register", body).await.json(),
        "client_id",
    );
    let mut browser = Browser::signed_in(&house, "alice").await;
    let tokens = house.tokens(&mut browser, &agent, REDIRECT, NOTES).await;
    assert!(tokens.get("refresh_token").is_none());
}

#[tokio::test]
async fn a_password_reset_ends_agents_codes_and_refreshes() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let tokens = house.tokens(&mut browser, &agent, REDIRECT, NOTES).await;
    let pending = browser.code(&agent, REDIRECT, NOTES).await;
    let access = text(&tokens, "access_token");
    assert!(house.identity.authenticate(&access, &notes()).await.is_ok());
    house
        .identity
        .reset_password(
            &admin(),
            &user("alice"),
            Password::new("handed-out-again".into()),
        )
        .await
        .unwrap();
    assert_eq!(
        house.identity.authenticate(&access, &notes()).await,
        Err(AuthError::Invalid)
    );
    assert_eq!(
        house
            .refresh(&agent, &text(&tokens, "refresh_token"))
            .await
            .json()["error"],
        "invalid_grant"
    );
    assert_eq!(
        house.exchange(&agent, REDIRECT, &pending).await.json()["error"],
        "invalid_grant"
    );
    assert!(
        house
            .identity
            .agents(&user("alice"))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn either_token_given_back_ends_both_and_only_by_its_own_client() {
    let house = House::open().await;
    house.person("alice").await;
    let agent = house.agent(REDIRECT).await;
    let other = house.agent(REDIRECT).await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    for which in ["access_token", "refresh_token"] {
        let tokens = house.tokens(&mut browser, &agent, REDIRECT, NOTES).await;
        let (token, access) = (text(&tokens, which), text(&tokens, "access_token"));
        let foreign = house
            .post(
                "/oauth2/revoke",
                &[("client_id", &other), ("token", &token)],
            )
            .await;
        assert_eq!(foreign.json()["error"], "invalid_grant");
        assert!(house.identity.authenticate(&access, &notes()).await.is_ok());
        for _ in 0..2 {
            let answer = house
                .post(
                    "/oauth2/revoke",
                    &[("client_id", &agent), ("token", &token)],
                )
                .await;
            assert_eq!(
                answer.status,
                StatusCode::OK,
                "an unknown token is revoked already"
            );
        }
        assert_eq!(
            house.identity.authenticate(&access, &notes()).await,
            Err(AuthError::Invalid)
        );
        assert_eq!(
            house
                .refresh(&agent, &text(&tokens, "refresh_token"))
                .await
                .json()["error"],
            "invalid_grant"
        );
    }
    for (form, expected) in [
        (&[("token", "x")][..], "invalid_request"),
        (&[("client_id", "x")], "invalid_request"),
    ] {
        assert_eq!(
            house.post("/oauth2/revoke", form).await.json()["error"],
            expected
        );
    }
}
