//! Countersign's own client ID metadata document: what it says of itself to
//! authorization servers that take an address as client id.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use countersign_core::provider::{ClientKind, GrantType, TokenAuthMethod};
use countersign_core::registration::ClientMetadata;
use countersign_oauth::discovery::DOCUMENT_PATH;
use http::header::CACHE_CONTROL;

use crate::wiring::App;

/// `/.well-known/oauth-client`.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route(DOCUMENT_PATH, get(show))
}

/// The redirect URIs are those of the providers that know Countersign by this
/// document: one each, so that no provider can pass its answers off as
/// another's (RFC 9700 §4.4).
async fn show(State(app): State<Arc<App>>) -> Response {
    let snapshot = app.registry.current();
    let by_document = |kind: Option<ClientKind>| kind == Some(ClientKind::MetadataDocument);
    let mut redirect_uris: Vec<String> = snapshot
        .providers
        .values()
        .map(|stored| &stored.value)
        .filter(|p| by_document(p.registration.as_ref().map(|r| r.client)))
        .map(|p| app.oauth.callback_url(Some(p.name.as_str())))
        .collect();
    redirect_uris.sort();
    if redirect_uris.is_empty() {
        // A document without any is none; nobody is told of this one yet.
        redirect_uris.push(app.oauth.callback_url(None));
    }
    let metadata = ClientMetadata {
        client_name: "Countersign".into(),
        client_uri: app.public_url.clone(),
        redirect_uris,
        grant_types: vec![GrantType::AuthorizationCode, GrantType::RefreshToken],
        token_endpoint_auth_method: TokenAuthMethod::None,
    };
    let mut document = metadata.document();
    let own = app.public_url.join(DOCUMENT_PATH);
    document["client_id"] = own.map(|url| url.to_string()).unwrap_or_default().into();
    // Short: a provider that was just added is to be found in it.
    ([(CACHE_CONTROL, "public, max-age=60")], Json(document)).into_response()
}
