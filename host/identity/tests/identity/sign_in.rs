//! Browser sign-in.

use std::time::Duration;

use countersign_identity::accounts::AccountKind;
use http::StatusCode;

use crate::browser::Browser;
use crate::support::{House, PASSWORD};

#[tokio::test]
async fn the_sign_in_page_has_the_names_that_scripts_rely_on() {
    let house = House::open().await;
    let page = house.get("/login").await;
    assert_eq!(page.status, StatusCode::OK);
    for needed in [
        ">Username</label>",
        ">Password</label>",
        "name=\"username\"",
        "name=\"password\"",
        ">Sign in</button>",
        "action=\"/login\"",
        "name=\"csrf\"",
    ] {
        assert!(page.body.contains(needed), "{needed} in {}", page.body);
    }
    assert!(!page.body.contains("<script"));
}

#[tokio::test]
async fn a_password_set_by_an_admin_works_once_for_choosing_a_new_one() {
    let house = House::open().await;
    house.account("alice", AccountKind::Human, "user").await;
    let mut browser = Browser::new(&house);
    let answer = browser.sign_in_with("alice", "handed-out-once").await;
    assert_eq!(answer.location(), "/login/new-password");
    assert!(
        house
            .identity
            .session(&browser.headers())
            .await
            .unwrap()
            .is_none(),
        "not signed in yet"
    );
    let page = browser.get("/login/new-password").await;
    assert!(
        page.body.contains("name=\"new_password\"")
            && page.body.contains("name=\"new_password_again\"")
    );

    let csrf = page.hidden("csrf");
    for (first, second, why) in [
        (PASSWORD, "something else", "differ"),
        ("short", "short", "too short"),
        (
            "handed-out-once",
            "handed-out-once",
            "password you were given",
        ),
    ] {
        let form = [
            ("csrf", csrf.as_str()),
            ("new_password", first),
            ("new_password_again", second),
        ];
        let answer = browser.post("/login/new-password", &form).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.body.contains(why), "{why}: {}", answer.body);
    }
    let replay = browser.cookies.clone();
    let answer = browser.choose_password(PASSWORD).await;
    assert_eq!(
        (answer.status, answer.location()),
        (StatusCode::SEE_OTHER, "/connections")
    );
    assert!(
        house
            .identity
            .session(&browser.headers())
            .await
            .unwrap()
            .is_some()
    );

    let mut thief = Browser::new(&house);
    assert_eq!(
        thief.sign_in_with("alice", "handed-out-once").await.status,
        StatusCode::UNAUTHORIZED
    );
    thief.cookies = replay;
    let form = [
        ("csrf", csrf.as_str()),
        ("new_password", "attacker's own"),
        ("new_password_again", "attacker's own"),
    ];
    assert_eq!(
        thief.post("/login/new-password", &form).await.status,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_are_told_the_same() {
    let house = House::open().await;
    house.person("alice").await;
    house.account("robot", AccountKind::Service, "user").await;
    let mut texts = Vec::new();
    for (name, password) in [
        ("alice", "wrong horse"),
        ("nobody", PASSWORD),
        ("robot", ""),
        ("not a name", "x"),
        ("", ""),
    ] {
        let answer = Browser::new(&house).sign_in_with(name, password).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{name}");
        texts.push(answer.body.contains("don't go together"));
    }
    assert_eq!(texts, [true; 5]);
    let failed = house
        .audit
        .events()
        .into_iter()
        .filter(|e| e.action == "sign_in" && e.user.is_none())
        .count();
    assert_eq!(failed, 5);
}

#[tokio::test]
async fn guessing_is_slowed_down_and_the_wait_is_said() {
    let house = House::open().await;
    house.person("alice").await;
    let mut browser = Browser::new(&house);
    for _ in 0..5 {
        assert_eq!(
            browser.sign_in_with("ALICE", "wrong horse").await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    let refused = browser.sign_in_with("alice", PASSWORD).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.body.contains("Wait 1 seconds"), "{}", refused.body);
    house.clock.advance(Duration::from_secs(1));
    assert_eq!(
        browser.sign_in_with("alice", PASSWORD).await.status,
        StatusCode::SEE_OTHER
    );
}

#[tokio::test]
async fn guessing_at_many_users_from_one_address_is_slowed_down() {
    let house = House::open().await;
    house.person("alice").await;
    let mut statuses = Vec::new();
    for n in 0..40 {
        statuses.push(
            Browser::new(&house)
                .sign_in_with(&format!("user{n}"), "x")
                .await
                .status,
        );
    }
    assert_eq!(statuses[0], StatusCode::UNAUTHORIZED);
    assert_eq!(statuses[39], StatusCode::TOO_MANY_REQUESTS);
}
