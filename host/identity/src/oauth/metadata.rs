//! What agents read first: RFC 8414 and RFC 9728.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use countersign_core::names::ServerName;
use http::StatusCode;
use serde_json::json;

use super::device;
use super::error::OAuthError;
use crate::audience::{Audience, SCOPE_MCP};
use crate::service::Identity;
use crate::settings::Admission;

/// `/.well-known/oauth-authorization-server` (RFC 8414 §3).
pub(super) async fn authorization_server(State(identity): State<Identity>) -> Response {
    let issuer = identity.issuer();
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/oauth2/authorize"),
        "token_endpoint": format!("{issuer}/oauth2/token"),
        "revocation_endpoint": format!("{issuer}/oauth2/revoke"),
        "scopes_supported": [SCOPE_MCP],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "device_authorization_endpoint": format!("{issuer}/oauth2/device_authorization"),
        "grant_types_supported": ["authorization_code", "refresh_token", device::GRANT_TYPE],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "client_id_metadata_document_supported": identity.0.metadata.is_some(),
    });
    if identity.settings().admission == Admission::Open {
        document["registration_endpoint"] = json!(format!("{issuer}/oauth2/register"));
    }
    Json(document).into_response()
}

/// `/.well-known/oauth-protected-resource/mcp`.
pub(super) async fn all_servers(State(identity): State<Identity>) -> Response {
    resource(
        &identity,
        &Audience::McpAll,
        "All MCP servers of this Countersign",
    )
}

/// `/.well-known/oauth-protected-resource/mcp/{server}`.
pub(super) async fn one_server(
    State(identity): State<Identity>,
    Path(server): Path<String>,
) -> Response {
    let missing = || {
        (
            StatusCode::NOT_FOUND,
            Json(json!({ "error": "not_found", "error_description": "there is no such server" })),
        )
            .into_response()
    };
    let Ok(name) = ServerName::parse(&server) else {
        return missing();
    };
    match identity.0.resources.server(&name).await {
        Ok(Some(facts)) => resource(&identity, &Audience::Mcp(name), &facts.display_name),
        Ok(None) => missing(),
        Err(error) => OAuthError::from(error).into_response(),
    }
}

/// A resource's metadata (RFC 9728 §2).
fn resource(identity: &Identity, audience: &Audience, name: &str) -> Response {
    let others = identity.settings().issuers.iter();
    let mut issuers = vec![identity.issuer()];
    issuers.extend(others.map(|other| other.issuer.as_str()));
    Json(json!({
        "resource": audience.resource(&identity.settings().public_url),
        "resource_name": name,
        "authorization_servers": issuers,
        "scopes_supported": [audience.scope()],
        "bearer_methods_supported": ["header"],
    }))
    .into_response()
}
