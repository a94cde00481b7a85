//! Who may mint API tokens, and who asks the REST API.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_core::names::TeamName;
use countersign_identity::accounts::{AccountKind, AdminError};
use countersign_identity::tokens::{NewToken, TokenKind};
use countersign_identity::{Audience, Principal};
use http::{HeaderMap, Method, StatusCode};

use crate::browser::Browser;
use crate::support::{
    HOST, House, PASSWORD, actor, admin, alice, authorize_path, server, token, user,
};

#[tokio::test]
async fn a_token_for_oneself_needs_a_fresh_sign_in() {
    let house = House::open().await;
    let (_, principal) = alice(&house).await;
    let secret = house
        .identity
        .create_token(&principal, token(TokenKind::Api))
        .await
        .unwrap()
        .1
        .reveal();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {secret}").parse().unwrap());
    let by_token = house
        .identity
        .principal(&Method::POST, &headers)
        .await
        .unwrap();
    let refused = house
        .identity
        .create_token(&by_token, token(TokenKind::Mcp))
        .await;
    assert!(
        matches!(refused, Err(AdminError::NotFresh)),
        "a token begets no token"
    );
    house.clock.advance(Duration::from_secs(600));
    let refused = house
        .identity
        .create_token(&principal, token(TokenKind::Mcp))
        .await;
    assert!(matches!(refused, Err(AdminError::NotFresh)));
}

#[tokio::test]
async fn the_token_of_init_counts_as_fresh_for_an_hour() {
    let house = House::open().await;
    let mut headers = HeaderMap::new();
    headers.insert(
        "authorization",
        format!("Bearer {}", house.init_token).parse().unwrap(),
    );
    let root = house
        .identity
        .principal(&Method::POST, &headers)
        .await
        .unwrap();
    assert!(root.caller.permissions.allow("user_create", None));
    house.clock.advance(Duration::from_secs(3599));
    assert!(
        house
            .identity
            .create_token(&root, token(TokenKind::Mcp))
            .await
            .is_ok()
    );
    house.clock.advance(Duration::from_secs(1));
    let refused = house
        .identity
        .create_token(&root, token(TokenKind::Mcp))
        .await;
    assert!(matches!(refused, Err(AdminError::NotFresh)));
    assert!(
        house
            .identity
            .principal(&Method::POST, &headers)
            .await
            .is_ok(),
        "else it goes on"
    );
}

#[tokio::test]
async fn init_is_done_once() {
    let house = House::open().await;
    for name in ["root", "another"] {
        assert!(
            matches!(
                house.identity.bootstrap(user(name)).await,
                Err(AdminError::Exists { .. })
            ),
            "{name}"
        );
    }
    assert_eq!(
        house
            .actions()
            .iter()
            .filter(|a| *a == "user.create")
            .count(),
        1
    );
}

#[tokio::test]
async fn nobody_mints_a_token_for_another_person() {
    let house = House::open().await;
    house.person("alice").await;
    house.account("robot", AccountKind::Service, "user").await;
    house.account("strong", AccountKind::Service, "admin").await;
    let root = Principal {
        caller: std::sync::Arc::new(admin()),
        fresh_until: None,
    };
    let weak = Principal {
        caller: std::sync::Arc::new(actor("bob", "user")),
        fresh_until: None,
    };
    let for_user = |name: &str| NewToken {
        user: Some(user(name)),
        ..token(TokenKind::Mcp)
    };
    assert!(matches!(
        house.identity.create_token(&root, for_user("alice")).await,
        Err(AdminError::Beyond(_))
    ));
    assert!(matches!(
        house.identity.create_token(&root, for_user("ghost")).await,
        Err(AdminError::NotFound { .. })
    ));
    assert!(
        house
            .identity
            .create_token(&root, for_user("robot"))
            .await
            .is_ok()
    );
    let refused = house
        .identity
        .create_token(&weak, for_user("robot"))
        .await
        .map(|_| ());
    assert_eq!(
        refused.unwrap_err().missing_permission(),
        Some("token_create:robot")
    );
}

#[tokio::test]
async fn a_token_that_makes_no_sense_is_refused() {
    let house = House::open().await;
    let (_, principal) = alice(&house).await;
    let base = token(TokenKind::Mcp);
    let cases = [
        (
            "no name",
            NewToken {
                name: String::new(),
                ..base.clone()
            },
        ),
        (
            "odd name",
            NewToken {
                name: "a b".into(),
                ..base.clone()
            },
        ),
        (
            "long life",
            NewToken {
                expires_in: Some(Duration::from_secs(367 * 24 * 3600)),
                ..base.clone()
            },
        ),
        (
            "no life",
            NewToken {
                expires_in: Some(Duration::ZERO),
                ..base.clone()
            },
        ),
        (
            "foreign team",
            NewToken {
                team: TeamName::parse("lab").ok(),
                ..base.clone()
            },
        ),
        (
            "no servers",
            NewToken {
                servers: Some(BTreeSet::new()),
                ..base.clone()
            },
        ),
        (
            "unknown server",
            NewToken {
                servers: Some(BTreeSet::from([server("ghost")])),
                ..base.clone()
            },
        ),
        (
            "servers for REST",
            NewToken {
                kind: TokenKind::Api,
                servers: Some(BTreeSet::from([server("notes")])),
                ..base
            },
        ),
    ];
    for (what, new) in cases {
        let status = house
            .identity
            .create_token(&principal, new)
            .await
            .map(|_| ())
            .unwrap_err()
            .status();
        assert!(status.is_client_error(), "{what}: {status}");
    }
}

#[tokio::test]
async fn a_browsers_rest_request_must_come_from_our_pages() {
    let house = House::open().await;
    let (browser, _) = alice(&house).await;
    let csrf = house
        .identity
        .session(&browser.headers())
        .await
        .unwrap()
        .unwrap()
        .csrf;
    let with = |lines: &[(&'static str, &str)]| {
        let mut headers = browser.headers();
        for (name, value) in lines {
            headers.insert(*name, value.parse().unwrap());
        }
        headers
    };
    for (method, headers, good) in [
        (Method::GET, with(&[]), true),
        (Method::POST, with(&[]), false),
        (Method::DELETE, with(&[("x-csrf-token", "x")]), false),
        (
            Method::POST,
            with(&[("x-csrf-token", &csrf), ("origin", "https://evil.example")]),
            false,
        ),
        (
            Method::POST,
            with(&[("x-csrf-token", &csrf), ("origin", HOST)]),
            true,
        ),
    ] {
        assert_eq!(
            house.identity.principal(&method, &headers).await.is_ok(),
            good,
            "{method} {headers:?}"
        );
    }
    let mut both = with(&[("x-csrf-token", &csrf)]);
    both.insert("authorization", "Bearer cs_api_unknown".parse().unwrap());
    assert!(
        house.identity.principal(&Method::GET, &both).await.is_err(),
        "a bad token is not made good by a cookie"
    );
}

#[tokio::test]
async fn the_command_line_signs_in_for_rest_and_for_nothing_else() {
    let house = House::open().await;
    house.person("alice").await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let redirect = "http://127.0.0.1:50505/callback";
    let api = format!("{HOST}/api");
    let path = authorize_path("countersign-cli", redirect, &api, &[("scope", "api")]);
    let answer = browser.answer_consent(&path, "allow").await;
    let code = answer.sent("code").unwrap();
    let tokens = house
        .exchange("countersign-cli", redirect, &code)
        .await
        .json();
    let access = tokens["access_token"].as_str().unwrap();
    assert!(
        house
            .identity
            .authenticate(access, &Audience::Api)
            .await
            .is_ok()
    );
    assert!(
        house
            .identity
            .authenticate(access, &Audience::McpAll)
            .await
            .is_err()
    );
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {access}").parse().unwrap());
    let principal = house
        .identity
        .principal(&Method::POST, &headers)
        .await
        .unwrap();
    assert!(
        house
            .identity
            .create_token(&principal, token(TokenKind::Mcp))
            .await
            .is_ok(),
        "a fresh sign-in"
    );

    let path = authorize_path("countersign-cli", redirect, &format!("{HOST}/mcp"), &[]);
    assert_eq!(
        browser.get(&path).await.sent("error").as_deref(),
        Some("invalid_target")
    );
}

#[tokio::test]
async fn the_command_lines_sign_in_is_a_fresh_one() {
    let house = House::open().await;
    house.person("alice").await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    house.clock.advance(Duration::from_secs(600));
    let redirect = "http://127.0.0.1:50505/callback";
    let path = authorize_path(
        "countersign-cli",
        redirect,
        &format!("{HOST}/api"),
        &[("scope", "api")],
    );
    assert_eq!(browser.get(&path).await.location(), "/login");
    assert_eq!(
        browser.get("/login").await.status,
        StatusCode::OK,
        "asked again although signed in"
    );
    assert_eq!(
        browser.sign_in_with("alice", PASSWORD).await.location(),
        path
    );
    assert!(
        browser
            .answer_consent(&path, "allow")
            .await
            .sent("code")
            .is_some()
    );
    assert_eq!(
        browser.get("/login").await.location(),
        "/connections",
        "and only this once"
    );
}
