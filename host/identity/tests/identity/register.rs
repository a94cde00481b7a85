//! Metadata and registration.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::json;

use crate::support::{Documents, HOST, House, REDIRECT};

#[tokio::test]
async fn the_metadata_says_what_is_true() {
    let house = House::open().await;
    let answer = house.get("/.well-known/oauth-authorization-server").await;
    assert_eq!(answer.headers["access-control-allow-origin"], "*");
    let metadata = answer.json();
    assert_eq!(metadata["issuer"], HOST);
    for (field, path) in [
        ("authorization_endpoint", "/oauth2/authorize"),
        ("token_endpoint", "/oauth2/token"),
        ("registration_endpoint", "/oauth2/register"),
        ("revocation_endpoint", "/oauth2/revoke"),
    ] {
        assert_eq!(metadata[field], format!("{HOST}{path}"));
    }
    assert_eq!(
        metadata["code_challenge_methods_supported"],
        json!(["S256"])
    );
    assert_eq!(
        metadata["authorization_response_iss_parameter_supported"],
        true
    );
    assert_eq!(metadata["client_id_metadata_document_supported"], false);
    let with = House::build(HOST, Some(Arc::new(Documents::default()))).await;
    let metadata = with
        .get("/.well-known/oauth-authorization-server")
        .await
        .json();
    assert_eq!(metadata["client_id_metadata_document_supported"], true);
}

#[tokio::test]
async fn registration_is_closed_where_strangers_can_reach_it() {
    let house = House::build("https://cs.example.com", None).await;
    let metadata = house
        .get("/.well-known/oauth-authorization-server")
        .await
        .json();
    assert!(metadata.get("registration_endpoint").is_none());
    let answer = house
        .post_json("/oauth2/register", json!({ "redirect_uris": [REDIRECT] }))
        .await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn each_resource_has_its_own_metadata() {
    let house = House::open().await;
    for (path, resource) in [("/mcp", "/mcp"), ("/mcp/notes", "/mcp/notes")] {
        let metadata = house
            .get(&format!("/.well-known/oauth-protected-resource{path}"))
            .await
            .json();
        assert_eq!(metadata["resource"], format!("{HOST}{resource}"));
        assert_eq!(metadata["authorization_servers"], json!([HOST]));
        assert_eq!(metadata["scopes_supported"], json!(["mcp"]));
        assert_eq!(metadata["bearer_methods_supported"], json!(["header"]));
    }
    for unknown in ["nothing", "Notes", "..", "a%2Fb"] {
        let answer = house
            .get(&format!(
                "/.well-known/oauth-protected-resource/mcp/{unknown}"
            ))
            .await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{unknown}");
    }
}

#[tokio::test]
async fn an_agent_registers_as_a_public_client_whatever_it_asked_for() {
    let house = House::open().await;
    let body = json!({
        "client_name": "A", "redirect_uris": [REDIRECT], "token_endpoint_auth_method": "client_secret_basic",
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"], "scope": "mcp", "unknown": 1,
    });
    let answer = house.post_json("/oauth2/register", body).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let client = answer.json();
    assert_eq!(client["token_endpoint_auth_method"], "none");
    assert_eq!(client["redirect_uris"], json!([REDIRECT]));
    assert!(client.get("client_secret").is_none());
    assert!(house.actions().contains(&"client.register".to_owned()));
}

#[tokio::test]
async fn a_bad_registration_is_refused_in_the_words_of_the_rfc() {
    let house = House::open().await;
    let many: Vec<&str> = vec![REDIRECT; 11];
    let cases = [
        ("no redirect", json!({}), "invalid_client_metadata"),
        (
            "empty",
            json!({ "redirect_uris": [] }),
            "invalid_redirect_uri",
        ),
        (
            "too many",
            json!({ "redirect_uris": many }),
            "invalid_redirect_uri",
        ),
        (
            "plain http",
            json!({ "redirect_uris": ["http://agent.example/cb"] }),
            "invalid_redirect_uri",
        ),
        (
            "script",
            json!({ "redirect_uris": ["javascript:alert(1)"] }),
            "invalid_redirect_uri",
        ),
        (
            "data",
            json!({ "redirect_uris": ["data:text/html,x"] }),
            "invalid_redirect_uri",
        ),
        (
            "fragment",
            json!({ "redirect_uris": ["https://agent.example/cb#x"] }),
            "invalid_redirect_uri",
        ),
        (
            "one of two",
            json!({ "redirect_uris": [REDIRECT, "file:///x"] }),
            "invalid_redirect_uri",
        ),
        (
            "wrong type",
            json!({ "redirect_uris": REDIRECT }),
            "invalid_client_metadata",
        ),
        (
            "no code",
            json!({ "redirect_uris": [REDIRECT], "grant_types": ["implicit"] }),
            "invalid_client_metadata",
        ),
        (
            "token",
            json!({ "redirect_uris": [REDIRECT], "response_types": ["token"] }),
            "invalid_client_metadata",
        ),
        ("no object", json!([1]), "invalid_client_metadata"),
    ];
    for (what, body, expected) in cases {
        let answer = house.post_json("/oauth2/register", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}");
        assert_eq!(answer.json()["error"], expected, "{what}");
    }
    let huge = json!({ "redirect_uris": [REDIRECT], "client_name": "x".repeat(100_000) });
    assert_eq!(
        house.post_json("/oauth2/register", huge).await.status,
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

#[tokio::test]
async fn registrations_from_one_address_are_slowed_down() {
    let house = House::open().await;
    let mut last = StatusCode::OK;
    for _ in 0..602 {
        last = house
            .post_json("/oauth2/register", json!({ "redirect_uris": [REDIRECT] }))
            .await
            .status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn an_agent_in_a_browser_may_ask_from_any_origin_but_not_authorize() {
    let house = House::open().await;
    for (path, allowed) in [
        ("/oauth2/token", true),
        ("/oauth2/register", true),
        ("/oauth2/revoke", true),
        ("/.well-known/oauth-authorization-server", true),
        ("/.well-known/oauth-protected-resource/mcp/notes", true),
        ("/oauth2/authorize", false),
        ("/login", false),
    ] {
        let request = Request::options(path).header("origin", "https://inspector.example");
        let answer = house.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            answer.headers.contains_key("access-control-allow-origin"),
            allowed,
            "{path}"
        );
        if allowed {
            assert_eq!(answer.status, StatusCode::NO_CONTENT, "{path}");
        }
        assert!(
            !answer
                .headers
                .contains_key("access-control-allow-credentials")
        );
    }
}
