//! Client ID metadata documents.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use crate::browser::Browser;
use crate::support::{Documents, HOST, House, NOTES, WEB_REDIRECT, authorize_path};

const ID: &str = "https://agent.example/client.json";

async fn house(document: serde_json::Value) -> House {
    let documents = Documents::default();
    documents
        .0
        .lock()
        .unwrap()
        .insert(ID.into(), document.to_string().into_bytes());
    let house = House::build(HOST, Some(Arc::new(documents))).await;
    house.person("alice").await;
    house
}

#[tokio::test]
async fn an_agent_that_describes_itself_signs_in_without_registering() {
    let house = house(json!({
        "client_id": ID, "client_name": "Described", "redirect_uris": [WEB_REDIRECT],
        "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": "none",
    }))
    .await;
    let mut browser = Browser::signed_in(&house, "alice").await;
    let page = browser
        .get(&authorize_path(ID, WEB_REDIRECT, NOTES, &[]))
        .await;
    assert!(
        page.body.contains("Described") && page.body.contains("described by agent.example"),
        "{}",
        page.body
    );
    let tokens = house.tokens(&mut browser, ID, WEB_REDIRECT, NOTES).await;
    let refreshed = house
        .refresh(ID, tokens["refresh_token"].as_str().unwrap())
        .await;
    assert_eq!(refreshed.status, StatusCode::OK, "{}", refreshed.body);
}

#[tokio::test]
async fn a_document_that_does_not_fit_is_refused_on_a_page() {
    for (what, document) in [
        (
            "names another",
            json!({ "client_id": "https://other.example/c", "redirect_uris": [WEB_REDIRECT] }),
        ),
        (
            "another redirect",
            json!({ "client_id": ID, "redirect_uris": ["https://agent.example/other"] }),
        ),
        (
            "has a secret",
            json!({ "client_id": ID, "redirect_uris": [WEB_REDIRECT], "client_secret": "x" }),
        ),
        ("no document", json!("hello")),
    ] {
        let house = house(document).await;
        let mut browser = Browser::signed_in(&house, "alice").await;
        let answer = browser
            .get(&authorize_path(ID, WEB_REDIRECT, NOTES, &[]))
            .await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}");
    }
}

#[tokio::test]
async fn a_stranger_cannot_make_this_host_fetch_anything() {
    let house = house(json!("never read")).await;
    let answer = Browser::new(&house)
        .get(&authorize_path(ID, WEB_REDIRECT, NOTES, &[]))
        .await;
    assert_eq!(
        (answer.status, answer.location()),
        (StatusCode::SEE_OTHER, "/login")
    );
}
