use countersign_core::preset::*;
use countersign_oauth::revoke::{Disconnected, Revoked};
use serde_json::json;
use url::Url;

use crate::support::{Scripted, Stage, any_answer, literal, stage, tokens, user};

async fn connect(stage: &Stage) {
    stage
        .connected(
            "ana",
            tokens("access-token-1", Some("refresh-token-1"), Some(3600)),
        )
        .await;
}

async fn disconnect(stage: &Stage) -> Revoked {
    let done = stage
        .oauth
        .disconnect(&stage.key("ana"), Some(&stage.party()))
        .await
        .unwrap();
    assert!(done.existed);
    assert_eq!(
        stage.oauth.list(&user("ana")).await.unwrap(),
        [],
        "it is gone in any case"
    );
    done.revoked
}

/// GitHub's way: Basic, `DELETE`, the token in a JSON body.
fn githubs(base: &str) -> Revocation {
    Revocation {
        request: Request {
            method: "DELETE".into(),
            url: literal(&format!("{base}/applications/client-1/grant")),
            headers: vec![],
            body: Body::Json(vec![Parameter {
                name: "access_token".into(),
                value: vec![Part::Slot(Slot::AccessToken)],
            }]),
            client_authentication: Some(ClientAuthentication::ClientSecretBasic),
            answer: AnswerShape {
                success_codes: vec![204],
                ..any_answer()
            },
        },
        effect: RevocationEffect::Grant,
        note: "The whole authorization is gone.".into(),
    }
}

#[tokio::test]
async fn a_preset_revokes_in_its_own_way() {
    let mut stage = stage().await;
    stage.description.revocation = vec![githubs(&stage.base)];
    connect(&stage).await;
    stage.script.then(
        "/applications/client-1/grant",
        Scripted::Raw(204, "text/plain", vec![]),
    );
    let note = "The whole authorization is gone.".to_owned();
    assert_eq!(disconnect(&stage).await, Revoked::Done { note });
    let request = stage.script.seen().pop().unwrap();
    assert_eq!(request.method, "DELETE");
    assert_eq!(request.body, r#"{"access_token":"access-token-1"}"#);
    assert!(
        request
            .header("authorization")
            .unwrap()
            .starts_with("Basic ")
    );
    assert!(stage.audited().contains("connection.disconnected"));
    assert!(!stage.audited().contains("access-token-1"));
}

#[tokio::test]
async fn an_endpoint_of_the_record_is_asked_by_rfc_7009() {
    let mut stage = stage().await;
    stage.provider.revocation_endpoint =
        Some(Url::parse(&format!("{}/revoke", stage.base)).unwrap());
    connect(&stage).await;
    stage
        .script
        .then("/revoke", Scripted::Raw(200, "text/plain", vec![]));
    assert_eq!(
        disconnect(&stage).await,
        Revoked::Done {
            note: String::new()
        }
    );
    let request = stage.script.seen().pop().unwrap();
    assert_eq!(request.field("token").as_deref(), Some("refresh-token-1"));
    assert_eq!(
        request.field("token_type_hint").as_deref(),
        Some("refresh_token")
    );
}

#[tokio::test]
async fn a_token_in_a_path_is_percent_encoded() {
    let mut stage = stage().await;
    let mut revocation = githubs(&stage.base);
    revocation.request.url = vec![
        Part::Literal(format!("{}/tokens/", stage.base)),
        Part::Slot(Slot::AccessToken),
    ];
    revocation.request.client_authentication = None;
    revocation.request.body = Body::None;
    stage.description.revocation = vec![revocation];
    stage.connected("ana", tokens("a/../b?c", None, None)).await;
    stage.script.then(
        "/tokens/a%2F..%2Fb%3Fc",
        Scripted::Raw(204, "text/plain", vec![]),
    );
    assert!(matches!(disconnect(&stage).await, Revoked::Done { .. }));
}

#[tokio::test]
async fn a_revocation_that_fails_deletes_all_the_same() {
    for (answer, is_asked_again) in [
        (
            Scripted::Raw(500, "text/html", b"<html>access-token-1</html>".to_vec()),
            true,
        ),
        (
            Scripted::Json(200, json!({"error": "invalid_token"})),
            false,
        ),
        (Scripted::Broken, true),
    ] {
        let mut stage = stage().await;
        stage.description.revocation = vec![githubs(&stage.base)];
        connect(&stage).await;
        stage.script.then("/applications/client-1/grant", answer);
        let (detail, again) = match disconnect(&stage).await {
            Revoked::Failed { detail } => (detail, false),
            Revoked::Later { detail } => (detail, true),
            other => panic!("{other:?}"),
        };
        assert_eq!(again, is_asked_again, "{detail}");
        assert!(!detail.contains("access-token-1"));
    }
}

#[tokio::test]
async fn a_provider_without_revocation_is_deleted_here_only() {
    let stage = stage().await;
    connect(&stage).await;
    let before = stage.script.seen().len();
    assert_eq!(disconnect(&stage).await, Revoked::NotPossible);
    assert_eq!(stage.script.seen().len(), before);
    let again = stage
        .oauth
        .disconnect(&stage.key("ana"), Some(&stage.party()))
        .await
        .unwrap();
    assert_eq!(
        again,
        Disconnected {
            existed: false,
            revoked: Revoked::NotPossible
        }
    );
}

#[tokio::test]
async fn a_moved_revocation_endpoint_gets_no_token() {
    let mut stage = stage().await;
    stage.description.revocation = vec![githubs(&stage.base)];
    connect(&stage).await;
    let before = stage.script.seen().len();
    let elsewhere = stage.base.replace("127.0.0.1", "localhost");
    stage.provider.revocation_endpoint = Some(Url::parse(&format!("{elsewhere}/revoke")).unwrap());
    assert!(matches!(disconnect(&stage).await, Revoked::Failed { .. }));
    assert_eq!(stage.script.seen().len(), before);
}

#[tokio::test]
async fn a_request_with_the_client_secret_stays_on_the_authorization_hosts() {
    let mut stage = stage().await;
    let mut revocation = githubs(&stage.base);
    revocation.request.url = literal("https://api.example.com/grant");
    stage.description.revocation = vec![revocation];
    connect(&stage).await;
    let Revoked::Failed { detail } = disconnect(&stage).await else {
        panic!("it did not fail")
    };
    assert!(detail.contains("authorization hosts"), "{detail}");
}
