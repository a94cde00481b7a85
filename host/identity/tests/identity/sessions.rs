//! Browser sessions, their cookies and forms.

use std::time::Duration;

use countersign_core::caller::Permissions;
use countersign_identity::Password;
use countersign_identity::accounts::AccountKind;
use http::{StatusCode, Uri};

use crate::browser::Browser;
use crate::support::{HOST, House, PASSWORD, admin, user};

#[tokio::test]
async fn a_session_cookie_is_out_of_reach_of_scripts_and_other_sites() {
    for (host, name, secure) in [
        (HOST, "countersign=", false),
        ("https://cs.example.com", "__Host-countersign=", true),
    ] {
        let house = House::build(host, None).await;
        house.account("alice", AccountKind::Human, "user").await;
        let mut browser = Browser::new(&house);
        let csrf = browser.get("/login").await.hidden("csrf");
        let form = [
            ("csrf", csrf.as_str()),
            ("username", "alice"),
            ("password", "handed-out-once"),
        ];
        browser
            .post_from("/login", &form, &[("origin", host)])
            .await;
        let csrf = browser.get("/login/new-password").await.hidden("csrf");
        let form = [
            ("csrf", csrf.as_str()),
            ("new_password", PASSWORD),
            ("new_password_again", PASSWORD),
        ];
        let answer = browser
            .post_from("/login/new-password", &form, &[("origin", host)])
            .await;
        let cookies: Vec<&str> = answer
            .headers
            .get_all("set-cookie")
            .iter()
            .map(|v| v.to_str().unwrap())
            .collect();
        let session = cookies
            .iter()
            .find(|c| c.starts_with(name))
            .expect("a session cookie");
        for part in ["HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(session.contains(part), "{session}");
        }
        assert_eq!(session.contains("Secure"), secure, "{session}");
        assert!(!session.contains("Domain"), "{session}");
    }
}

#[tokio::test]
async fn a_form_from_elsewhere_does_nothing() {
    let house = House::open().await;
    house.person("alice").await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let csrf = browser.get("/logout").await.hidden("csrf");
    let other = Browser::signed_in(&house, "alice")
        .await
        .get("/logout")
        .await
        .hidden("csrf");
    assert_ne!(csrf, other, "bound to the session");
    for (token, headers) in [
        ("", &[("origin", HOST)][..]),
        ("wrong", &[("origin", HOST)]),
        (&other, &[("origin", HOST)]),
        (&csrf, &[("origin", "https://evil.example")]),
        (&csrf, &[("origin", "null")]),
        (&csrf, &[("sec-fetch-site", "cross-site")]),
        (&csrf, &[("sec-fetch-site", "same-site")]),
    ] {
        let answer = browser
            .post_from("/logout", &[("csrf", token)], headers)
            .await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{headers:?}");
        assert!(
            house
                .identity
                .session(&browser.headers())
                .await
                .unwrap()
                .is_some()
        );
    }
    let before = browser.headers();
    assert_eq!(
        browser.post("/logout", &[("csrf", &csrf)]).await.status,
        StatusCode::SEE_OTHER
    );
    assert!(
        house.identity.session(&before).await.unwrap().is_none(),
        "the old cookie is dead"
    );

    let mut stranger = Browser::new(&house);
    let form = [("username", "alice"), ("password", PASSWORD)];
    assert_eq!(
        stranger.post("/login", &form).await.status,
        StatusCode::FORBIDDEN,
        "no visit, no token"
    );
    let csrf = stranger.get("/login").await.hidden("csrf");
    let form = [
        ("csrf", csrf.as_str()),
        ("username", "alice"),
        ("password", PASSWORD),
    ];
    let answer = stranger
        .post_from("/login", &form, &[("origin", "https://evil.example")])
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_session_ends_when_idle_and_in_any_case_after_its_time() {
    let house = House::open().await;
    house.person("alice").await;
    let browser = Browser::signed_in(&house, "alice").await;
    house.clock.advance(Duration::from_secs(8 * 3600));
    assert!(
        house
            .identity
            .session(&browser.headers())
            .await
            .unwrap()
            .is_none(),
        "idle"
    );

    let browser = Browser::signed_in(&house, "alice").await;
    for hour in 1..=7 * 24 {
        house.clock.advance(Duration::from_secs(3600));
        let alive = house
            .identity
            .session(&browser.headers())
            .await
            .unwrap()
            .is_some();
        assert_eq!(alive, hour < 7 * 24, "hour {hour}");
    }
}

#[tokio::test]
async fn a_sign_in_comes_back_to_the_page_that_asked_for_it_and_to_no_parameter() {
    let house = House::open().await;
    house.person("alice").await;
    let mut browser = Browser::new(&house);
    let asked = house
        .identity
        .require_session(&browser.headers(), &Uri::from_static("/connect/github?x=1"))
        .await;
    let response = asked.err().expect("not signed in");
    assert_eq!(response.headers()["location"], "/login");
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    let (name, value) = cookie.split_once(';').unwrap().0.split_once('=').unwrap();
    browser.cookies.insert(name.into(), value.into());
    assert_eq!(
        browser.sign_in_with("alice", PASSWORD).await.location(),
        "/connect/github?x=1"
    );

    let mut lured = Browser::new(&house);
    let csrf = lured
        .get("/login?next=https://evil.example&return_to=//evil.example")
        .await
        .hidden("csrf");
    let form = [
        ("csrf", csrf.as_str()),
        ("username", "alice"),
        ("password", PASSWORD),
        ("next", "https://evil.example"),
    ];
    assert_eq!(lured.post("/login", &form).await.location(), "/connections");
}

#[tokio::test]
async fn a_page_asked_for_at_an_address_of_another_host_is_not_come_back_to() {
    let house = House::open().await;
    house.person("alice").await;
    for foreign in [
        "//evil.example/x",
        "//evil.example",
        "/\\evil.example",
        "https://evil.example/\\x",
    ] {
        let Ok(uri) = foreign.parse::<Uri>() else {
            continue;
        };
        let mut browser = Browser::new(&house);
        let response = house
            .identity
            .require_session(&browser.headers(), &uri)
            .await
            .err()
            .expect("not signed in");
        let cookie = response.headers()["set-cookie"].to_str().unwrap();
        let (name, value) = cookie.split_once(';').unwrap().0.split_once('=').unwrap();
        browser.cookies.insert(name.into(), value.into());
        assert_eq!(
            browser.sign_in_with("alice", PASSWORD).await.location(),
            "/connections",
            "{foreign}"
        );
    }
}

#[tokio::test]
async fn a_session_holds_what_the_users_roles_allow() {
    let house = House::open().await;
    house.account("boss", AccountKind::Human, "admin").await;
    let mut browser = Browser::new(&house);
    browser.sign_in_with("boss", "handed-out-once").await;
    browser.choose_password(PASSWORD).await;
    let session = house
        .identity
        .session(&browser.headers())
        .await
        .unwrap()
        .unwrap();
    assert!(session.caller.permissions.allow("user_create", None));
    assert!(session.caller.permissions != Permissions::default());
    house
        .identity
        .reset_password(&admin(), &user("boss"), Password::new("another one".into()))
        .await
        .unwrap();
    assert!(
        house
            .identity
            .session(&browser.headers())
            .await
            .unwrap()
            .is_none(),
        "a reset ends sessions"
    );
}

#[tokio::test]
async fn a_cookie_that_was_tampered_with_or_set_twice_is_nobody() {
    let house = House::open().await;
    house.person("alice").await;
    let browser = Browser::signed_in(&house, "alice").await;
    let good = browser.cookies["countersign"].clone();
    for line in [
        format!("countersign={good}x"),
        format!("countersign={good}; countersign={good}"),
        format!("countersign=cs_bs_{}", "A".repeat(43)),
        "countersign=".into(),
        format!("other={good}"),
        format!("__Host-countersign={good}"),
    ] {
        let mut headers = http::HeaderMap::new();
        headers.insert("cookie", line.parse().unwrap());
        assert!(
            house.identity.session(&headers).await.unwrap().is_none(),
            "{line}"
        );
    }
}
