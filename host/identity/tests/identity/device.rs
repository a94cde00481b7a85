//! Signing a terminal in by a code (RFC 8628).

use std::time::Duration;

use countersign_identity::Audience;
use http::StatusCode;
use serde_json::Value;

use crate::browser::{Answer, Browser};
use crate::support::{HOST, House, REDIRECT, encode, text};

const CLI: &str = "countersign-cli";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
const BEGIN: &str = "/oauth2/device_authorization";

async fn begin(house: &House) -> (String, String) {
    let answer = post(house, BEGIN, &[("client_id", CLI), ("scope", "api")]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let begun = answer.json();
    assert_eq!(begun["verification_uri"], format!("{HOST}/device"));
    assert_eq!(begun["interval"], 5);
    (text(&begun, "device_code"), text(&begun, "user_code"))
}

async fn post(house: &House, path: &str, form: &[(&str, &str)]) -> Answer {
    let request = http::Request::post(path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(axum::body::Body::from(encode(form)))
        .unwrap();
    house.send(request).await
}

/// Asks once more, after the interval.
async fn poll(house: &House, device: &str) -> Value {
    house.clock.advance(Duration::from_secs(5));
    let form = [
        ("grant_type", GRANT),
        ("device_code", device),
        ("client_id", CLI),
    ];
    post(house, "/oauth2/token", &form).await.json()
}

async fn answer(browser: &mut Browser<'_>, code: &str, decision: &str) -> Answer {
    let page = browser.get(&format!("/device?user_code={code}")).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    assert!(page.body.contains(code), "what was typed is shown");
    let (csrf, request, team) = (
        page.hidden("csrf"),
        page.hidden("request"),
        page.hidden("team"),
    );
    let form = [
        ("csrf", &*csrf),
        ("request", &*request),
        ("team", &*team),
        ("decision", decision),
    ];
    browser.post("/device", &form).await
}

#[tokio::test]
async fn a_terminal_is_signed_in_by_the_user_who_types_its_code() {
    let house = House::open().await;
    house.person("alice").await;
    let (device, code) = begin(&house).await;
    assert_eq!(
        poll(&house, &device).await["error"],
        "authorization_pending"
    );
    let mut alice = Browser::signed_in(&house, "alice").await;
    let entry = alice.get("/device").await;
    assert!(entry.body.contains("name=\"user_code\""), "{}", entry.body);
    let done = answer(&mut alice, &code, "allow").await;
    assert!(done.body.contains("signed in"), "{}", done.body);
    let tokens = poll(&house, &device).await;
    let access = text(&tokens, "access_token");
    let caller = house
        .identity
        .authenticate(&access, &Audience::Api)
        .await
        .unwrap();
    assert_eq!(caller.user.as_str(), "alice");
    assert_eq!(tokens["scope"], "api");
    assert!(tokens["refresh_token"].is_string());
    let actions = house.actions();
    for action in ["consent.give", "token.issue"] {
        assert!(
            actions.contains(&action.to_owned()),
            "{action}: {actions:?}"
        );
    }
    // The code is used up for browsers, and its replay ends what it gave.
    let again = alice.get(&format!("/device?user_code={code}")).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    assert_eq!(poll(&house, &device).await["error"], "invalid_grant");
    assert!(
        house
            .identity
            .authenticate(&access, &Audience::Api)
            .await
            .is_err()
    );
    assert!(house.actions().contains(&"token.reuse".to_owned()));
}

#[tokio::test]
async fn who_says_no_or_nothing_gives_nothing() {
    let house = House::open().await;
    house.person("alice").await;
    let mut alice = Browser::signed_in(&house, "alice").await;
    let (device, code) = begin(&house).await;
    answer(&mut alice, &code, "deny").await;
    assert_eq!(poll(&house, &device).await["error"], "access_denied");
    let (device, code) = begin(&house).await;
    house.clock.advance(Duration::from_secs(600));
    assert_eq!(poll(&house, &device).await["error"], "expired_token");
    let mut alice = Browser::signed_in(&house, "alice").await;
    let late = alice.get(&format!("/device?user_code={code}")).await;
    assert_eq!(late.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_hasty_terminal_is_slowed_down_and_goes_on() {
    let house = House::open().await;
    let (device, _) = begin(&house).await;
    assert_eq!(
        poll(&house, &device).await["error"],
        "authorization_pending"
    );
    let form = [
        ("grant_type", GRANT),
        ("device_code", &*device),
        ("client_id", CLI),
    ];
    let hasty = post(&house, "/oauth2/token", &form).await;
    assert_eq!(hasty.status, StatusCode::BAD_REQUEST);
    assert_eq!(hasty.json()["error"], "slow_down");
    house.clock.advance(Duration::from_secs(10));
    assert_eq!(
        poll(&house, &device).await["error"],
        "authorization_pending"
    );
}

#[tokio::test]
async fn agents_have_no_device_flow() {
    let house = House::open().await;
    let agent = house.agent(REDIRECT).await;
    for client in [&*agent, "unknown"] {
        let refused = post(&house, BEGIN, &[("client_id", client)]).await;
        assert_eq!(refused.json()["error"], "unauthorized_client", "{client}");
    }
    let (device, _) = begin(&house).await;
    let form = [
        ("grant_type", GRANT),
        ("device_code", &*device),
        ("client_id", &*agent),
    ];
    let stolen = post(&house, "/oauth2/token", &form).await;
    assert_eq!(stolen.json()["error"], "invalid_grant");
    let elsewhere = [
        ("client_id", CLI),
        ("resource", "http://127.0.0.1:8700/mcp"),
    ];
    let refused = post(&house, BEGIN, &elsewhere).await;
    assert_eq!(refused.json()["error"], "invalid_target");
}

#[tokio::test]
async fn codes_are_not_guessed_and_no_other_page_answers() {
    let house = House::open().await;
    house.person("alice").await;
    house.person("mallory").await;
    let (device, code) = begin(&house).await;
    let mut mallory = Browser::signed_in(&house, "mallory").await;
    for _ in 0..10 {
        let wrong = mallory.get("/device?user_code=BCDF-BCDF").await;
        assert_eq!(wrong.status, StatusCode::NOT_FOUND);
    }
    let waits = mallory.get(&format!("/device?user_code={code}")).await;
    assert_eq!(waits.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(house.actions().contains(&"device.guess".to_owned()));

    // What alice is shown is hers to answer: another's form, or none, is not.
    let mut alice = Browser::signed_in(&house, "alice").await;
    let page = alice.get(&format!("/device?user_code={code}")).await;
    let (request, team) = (page.hidden("request"), page.hidden("team"));
    let theirs = mallory.get("/logout").await.hidden("csrf");
    let form = [
        ("csrf", &*theirs),
        ("request", &*request),
        ("team", &*team),
        ("decision", "allow"),
    ];
    let refused = mallory.post("/device", &form).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let csrf = page.hidden("csrf");
    let form = [
        ("csrf", &*csrf),
        ("request", &*request),
        ("team", &*team),
        ("decision", "allow"),
    ];
    let foreign = alice
        .post_from("/device", &form, &[("origin", "https://evil.example")])
        .await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    assert_eq!(
        poll(&house, &device).await["error"],
        "authorization_pending"
    );
}

#[tokio::test]
async fn nobody_begins_sign_ins_without_end() {
    let house = House::open().await;
    let mut slowed = false;
    for _ in 0..30 {
        let answer = post(&house, BEGIN, &[("client_id", CLI)]).await;
        slowed |= answer.status == StatusCode::TOO_MANY_REQUESTS;
    }
    assert!(slowed);
    let stored = house.stored().await;
    let (device, code) = {
        house.clock.advance(Duration::from_secs(3600));
        begin(&house).await
    };
    assert!(!stored.contains(&device) && !house.stored().await.contains(&device));
    assert!(!house.stored().await.contains(&code.replace('-', "")));
}
