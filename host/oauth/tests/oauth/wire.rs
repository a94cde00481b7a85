//! Token requests as they go over the wire.

use base64::Engine as _;
use countersign_core::ports::{Change, Expect, Kind, RecordKey, Records, SecretChange, Write};
use countersign_core::preset::*;
use countersign_core::provider::TokenAuthMethod;
use countersign_oauth::consent::Outcome;

use crate::support::{Seen, Stage, literal, refused, stage, tokens};

fn code_request() -> TokenRequest {
    TokenRequest {
        grant: Grant::AuthorizationCode,
        endpoint: None,
        body: BodyFormat::Form,
        client_authentication: vec![],
        headers: vec![],
        parameters: vec![],
        suppress: vec![],
        redirect_uri: RedirectUriUse::Always,
    }
}

async fn request(stage: &Stage) -> Seen {
    stage
        .connected("ana", tokens("access-token-1", None, None))
        .await;
    stage.token_requests().pop().unwrap()
}

#[tokio::test]
async fn a_json_body_and_constant_headers_are_sent() {
    let mut stage = stage().await;
    stage.description.token_requests = vec![TokenRequest {
        body: BodyFormat::Json,
        headers: vec![Header {
            name: "Notion-Version".into(),
            value: literal("2022-06-28"),
        }],
        parameters: vec![Parameter {
            name: "request".into(),
            value: literal("\"token\""),
        }],
        suppress: vec!["code_verifier".into()],
        redirect_uri: RedirectUriUse::Never,
        ..code_request()
    }];
    let seen = request(&stage).await;
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("notion-version"), Some("2022-06-28"));
    assert_eq!(
        seen.body,
        r#"{"grant_type":"authorization_code","code":"c0de-123456","request":"\"token\""}"#
    );
}

#[tokio::test]
async fn the_client_proves_itself_as_the_record_or_the_preset_says() {
    let id = |seen: &Seen| seen.field("client_id");
    let secret = |seen: &Seen| seen.field("client_secret");

    let mut stage = stage().await;
    stage.provider.token_endpoint_auth_method = Some(TokenAuthMethod::ClientSecretPost);
    let seen = request(&stage).await;
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(id(&seen).as_deref(), Some("client-1"));
    assert_eq!(secret(&seen).as_deref(), Some("s3cr3t/client"));

    stage.provider.token_endpoint_auth_method = None;
    stage.provider.client_secret_ref = None;
    let seen = request(&stage).await;
    assert_eq!(
        (
            id(&seen).as_deref(),
            secret(&seen),
            seen.header("authorization")
        ),
        (Some("client-1"), None, None)
    );
}

#[tokio::test]
async fn a_custom_credential_is_filled_in_the_core() {
    let mut stage = stage().await;
    let basic = Basic {
        user: Slot::ClientSecret,
        password: None,
    };
    let rule = Rule::SetHeader(Header {
        name: "Authorization".into(),
        value: vec![Part::Basic(basic)],
    });
    stage.description.token_requests = vec![TokenRequest {
        client_authentication: vec![ClientAuthentication::Custom(vec![rule])],
        ..code_request()
    }];
    let seen = request(&stage).await;
    let expected = base64::engine::general_purpose::STANDARD.encode("s3cr3t/client:");
    assert_eq!(
        seen.header("authorization"),
        Some(format!("Basic {expected}").as_str())
    );
}

#[tokio::test]
async fn a_preset_cannot_set_headers_of_the_transport() {
    for (name, value) in [
        ("Host", "evil.example.com"),
        ("Content-Length", "0"),
        ("X-A", "a\r\nb: c"),
        ("a b", "c"),
    ] {
        let mut stage = stage().await;
        stage.description.token_requests = vec![TokenRequest {
            headers: vec![Header {
                name: name.into(),
                value: literal(value),
            }],
            ..code_request()
        }];
        let state = crate::support::parameter(&stage.begin("ana").await, "state").unwrap();
        let query = format!("code=c&state={state}");
        let party = stage.party();
        let result = stage
            .oauth
            .finish(stage.callback("ana", &query), move |_| Some(party))
            .await;
        assert!(result.is_err(), "{name}");
        assert_eq!(stage.token_requests().len(), 0);
    }
}

#[tokio::test]
async fn a_bound_client_secret_goes_nowhere_else() {
    let stage = stage().await;
    let write = Write {
        key: RecordKey::new(Kind::Secret, "FAKE_SECRET"),
        expect: Expect::Anything,
        change: Some(Change {
            document: br#"{"hosts":["github.com"]}"#.to_vec(),
            secret: SecretChange::Keep,
            expires_at: None,
        }),
    };
    stage.records.write(vec![write]).await.unwrap();
    let state = crate::support::parameter(&stage.begin("ana").await, "state").unwrap();
    let query = format!("code=c&state={state}");
    let party = stage.party();
    let result = stage
        .oauth
        .finish(stage.callback("ana", &query), move |_| Some(party))
        .await;
    assert!(result.unwrap_err().to_string().contains("not bound"));
    assert_eq!(stage.token_requests().len(), 0);
}

#[tokio::test]
async fn a_token_endpoint_off_the_presets_hosts_is_refused() {
    let mut stage = stage().await;
    stage.description.token_endpoint = Some(literal("https://evil.example.com/token"));
    let state = crate::support::parameter(&stage.begin("ana").await, "state").unwrap();
    let query = format!("code=c&state={state}");
    let party = stage.party();
    let result = stage
        .oauth
        .finish(stage.callback("ana", &query), move |_| Some(party))
        .await;
    assert!(
        result
            .unwrap_err()
            .to_string()
            .contains("authorization hosts")
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let stage = stage().await;
    stage
        .script
        .then("/token", crate::support::Scripted::Redirect("/elsewhere"));
    let state = crate::support::parameter(&stage.begin("ana").await, "state").unwrap();
    let outcome: Outcome = stage
        .finish(stage.callback("ana", &format!("code=c&state={state}")))
        .await;
    assert_eq!(refused(outcome), "provider_error");
    assert_eq!(stage.script.seen().len(), 1);
}
