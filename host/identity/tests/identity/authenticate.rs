//! Bearer tokens at the door.

use std::collections::BTreeSet;

use countersign_identity::accounts::UserPatch;
use countersign_identity::tokens::{NewToken, TokenKind};
use countersign_identity::{Audience, AuthError, bearer};
use http::{HeaderMap, Method, StatusCode};

use crate::support::{HOST, House, REDIRECT, admin, alice, server, token, user};

#[tokio::test]
async fn a_token_opens_its_own_door_and_no_other() {
    let house = House::open().await;
    let (mut browser, principal) = alice(&house).await;
    let agent = house.agent(REDIRECT).await;
    let own = |resource: &str| format!("{HOST}{resource}");
    let mut tokens = Vec::new();
    for resource in ["/mcp", "/mcp/notes"] {
        let answer = house
            .tokens(&mut browser, &agent, REDIRECT, &own(resource))
            .await;
        tokens.push(answer["access_token"].as_str().unwrap().to_owned());
    }
    for kind in [TokenKind::Mcp, TokenKind::Api] {
        tokens.push(
            house
                .identity
                .create_token(&principal, token(kind))
                .await
                .unwrap()
                .1
                .reveal(),
        );
    }
    let limited = NewToken {
        servers: Some(BTreeSet::from([server("notes")])),
        ..token(TokenKind::Mcp)
    };
    tokens.push(
        house
            .identity
            .create_token(&principal, limited)
            .await
            .unwrap()
            .1
            .reveal(),
    );
    assert!(tokens[2].starts_with("cs_mcp_") && tokens[3].starts_with("cs_api_"));

    let doors = [
        Audience::McpAll,
        Audience::Mcp(server("notes")),
        Audience::Mcp(server("mail")),
        Audience::Api,
    ];
    let opens = [
        [true, false, false, false],
        [false, true, false, false],
        [true, true, true, false],
        [false, false, false, true],
        [true, true, false, false],
    ];
    for (token, expected) in tokens.iter().zip(opens) {
        for (door, expected) in doors.iter().zip(expected) {
            for _ in 0..2 {
                let opened = house.identity.authenticate(token, door).await;
                assert_eq!(opened.is_ok(), expected, "{} at {door:?}", &token[..7]);
            }
        }
    }
    let limited = house.identity.authenticate(&tokens[4], &doors[2]).await;
    assert_eq!(limited, Err(AuthError::InsufficientScope));
    let all = house
        .identity
        .authenticate(&tokens[4], &doors[0])
        .await
        .unwrap();
    assert_eq!(all.servers.as_ref().map(BTreeSet::len), Some(1));
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let house = House::open().await;
    let long = format!("cs_at_{}", "a".repeat(10_000));
    for bad in [
        "",
        "x",
        "cs_at_",
        "cs_at_unknown",
        "cs_bs_unknown",
        "cs_rt_x",
        "eyJhbGciOiJub25lIn0.e30.",
        &long,
    ] {
        assert_eq!(
            house.identity.authenticate(bad, &Audience::McpAll).await,
            Err(AuthError::Invalid),
            "{bad}"
        );
    }
    let headers = |lines: &[&str]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("authorization", line.parse().unwrap());
        }
        headers
    };
    assert_eq!(bearer(&headers(&["bearer abc"])), Ok("abc"));
    assert_eq!(bearer(&headers(&[])), Err(AuthError::Missing));
    for bad in [
        &["Bearer a", "Bearer b"][..],
        &["Basic YTpi"],
        &["Bearer "],
        &["abc"],
        &[""],
    ] {
        assert_eq!(bearer(&headers(bad)), Err(AuthError::Malformed), "{bad:?}");
    }
}

#[tokio::test]
async fn a_challenge_leads_to_the_resources_metadata() {
    let house = House::open().await;
    let notes = Audience::Mcp(server("notes"));
    let url =
        format!("resource_metadata=\"{HOST}/.well-known/oauth-protected-resource/mcp/notes\"");
    for (error, status, word) in [
        (AuthError::Missing, StatusCode::UNAUTHORIZED, ""),
        (
            AuthError::Invalid,
            StatusCode::UNAUTHORIZED,
            "error=\"invalid_token\"",
        ),
        (
            AuthError::Malformed,
            StatusCode::BAD_REQUEST,
            "error=\"invalid_request\"",
        ),
        (
            AuthError::InsufficientScope,
            StatusCode::FORBIDDEN,
            "error=\"insufficient_scope\", scope=\"mcp\"",
        ),
    ] {
        let response = house.identity.challenge(&error, &notes);
        assert_eq!(response.status(), status);
        let challenge = response.headers()["www-authenticate"].to_str().unwrap();
        assert!(
            challenge.starts_with("Bearer ")
                && challenge.contains(&url)
                && challenge.contains(word),
            "{challenge}"
        );
        assert_eq!(error == AuthError::Missing, !challenge.contains("error="));
    }
    let response = house.identity.challenge(&AuthError::Unavailable, &notes);
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!response.headers().contains_key("www-authenticate"));
}

#[tokio::test]
async fn revoking_and_disabling_are_in_force_at_once() {
    let house = House::open().await;
    let (_, principal) = alice(&house).await;
    let all = Audience::McpAll;
    let (view, secret) = house
        .identity
        .create_token(&principal, token(TokenKind::Mcp))
        .await
        .unwrap();
    let secret = secret.reveal();
    assert!(house.identity.authenticate(&secret, &all).await.is_ok());
    assert_eq!(
        house
            .identity
            .tokens(&principal.caller, None)
            .await
            .unwrap(),
        std::slice::from_ref(&view)
    );
    house
        .identity
        .revoke_token(&principal.caller, None, &view.id)
        .await
        .unwrap();
    assert_eq!(
        house.identity.authenticate(&secret, &all).await,
        Err(AuthError::Invalid)
    );
    assert!(
        house
            .identity
            .tokens(&principal.caller, None)
            .await
            .unwrap()
            .is_empty()
    );

    let secret = house
        .identity
        .create_token(&principal, token(TokenKind::Mcp))
        .await
        .unwrap()
        .1
        .reveal();
    assert!(house.identity.authenticate(&secret, &all).await.is_ok());
    let off = UserPatch {
        enabled: Some(false),
        ..UserPatch::default()
    };
    house
        .identity
        .update_user(&admin(), &user("alice"), off)
        .await
        .unwrap();
    assert_eq!(
        house.identity.authenticate(&secret, &all).await,
        Err(AuthError::Invalid)
    );
    let on = UserPatch {
        enabled: Some(true),
        ..UserPatch::default()
    };
    house
        .identity
        .update_user(&admin(), &user("alice"), on)
        .await
        .unwrap();
    assert_eq!(
        house.identity.authenticate(&secret, &all).await,
        Err(AuthError::Invalid),
        "for good"
    );
}

#[tokio::test]
async fn a_change_of_roles_reaches_tokens_that_are_in_use() {
    let house = House::open().await;
    let (_, principal) = alice(&house).await;
    let secret = house
        .identity
        .create_token(&principal, token(TokenKind::Api))
        .await
        .unwrap()
        .1
        .reveal();
    assert!(
        !house
            .identity
            .authenticate(&secret, &Audience::Api)
            .await
            .unwrap()
            .permissions
            .allow("audit_read", None)
    );
    let roles = Some(BTreeSet::from(["auditor".parse().unwrap()]));
    let patch = UserPatch {
        roles,
        ..UserPatch::default()
    };
    house
        .identity
        .update_user(&admin(), &user("alice"), patch)
        .await
        .unwrap();
    assert!(
        house
            .identity
            .authenticate(&secret, &Audience::Api)
            .await
            .unwrap()
            .permissions
            .allow("audit_read", None)
    );
}

#[tokio::test]
async fn a_token_revoked_while_it_is_being_checked_is_not_remembered_as_good() {
    let house = House::open().await;
    let (_, principal) = alice(&house).await;
    let (identity, all) = (&house.identity, Audience::McpAll);
    let (view, secret) = identity
        .create_token(&principal, token(TokenKind::Mcp))
        .await
        .unwrap();
    let secret = secret.reveal();
    let (_, revoked) = tokio::join!(
        identity.authenticate(&secret, &all),
        identity.revoke_token(&principal.caller, None, &view.id)
    );
    revoked.unwrap();
    assert_eq!(
        identity.authenticate(&secret, &all).await,
        Err(AuthError::Invalid)
    );
}

#[tokio::test]
async fn a_store_that_fails_is_no_refusal_and_lets_nobody_in() {
    let house = House::open().await;
    let (mut browser, principal) = alice(&house).await;
    let secret = house
        .identity
        .create_token(&principal, token(TokenKind::Mcp))
        .await
        .unwrap()
        .1
        .reveal();
    house
        .records
        .broken
        .store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(
        house
            .identity
            .authenticate(&secret, &Audience::McpAll)
            .await,
        Err(AuthError::Unavailable)
    );
    let asked = house
        .identity
        .principal(&Method::GET, &browser.headers())
        .await
        .map(|_| ());
    assert_eq!(asked, Err(AuthError::Unavailable));
    for path in ["/login", "/logout", "/oauth2/authorize?client_id=x"] {
        let answer = browser.get(path).await;
        assert!(
            answer.status.is_server_error() || answer.status == StatusCode::BAD_REQUEST,
            "{path} {}",
            answer.status
        );
        assert!(!answer.body.contains("disk"), "{path}");
    }
    let answer = house.refresh("countersign-cli", "cs_rt_x").await;
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            &"temporarily_unavailable".into()
        )
    );
    house
        .records
        .broken
        .store(false, std::sync::atomic::Ordering::Relaxed);
    assert!(
        house
            .identity
            .authenticate(&secret, &Audience::McpAll)
            .await
            .is_ok(),
        "the next call works"
    );
}
