//! The embedded authorization server: OAuth 2.1, authorization code with PKCE
//! (S256) for public clients, and RFC 8628 for the command line; nothing else.
//!
//! Its answers to what OAuth leaves open:
//! - An old refresh token ends the whole family, also when a client merely
//!   repeats a refresh whose answer it lost: the server can't tell that from a
//!   thief (OAuth 2.1 §4.3.1), and the user only has to sign in again.
//! - `resource` is required: a token is for one resource, and a default would
//!   be wrong for most.
//! - All clients are public. One that asks for a secret is registered with
//!   `token_endpoint_auth_method` `none` (RFC 7591 §3.2.1 allows replacing).
//! - A consent is remembered only where the redirect URI is `https`: elsewhere
//!   any program of the computer could stand in for the agent (RFC 8252 §8.6).

mod authorize;
mod client;
mod code;
pub(crate) mod consent;
pub(crate) mod device;
mod error;
mod metadata;
pub(crate) mod metadata_document;
mod redirect;
mod register;
mod revoke;
mod token;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL,
};
use http::{HeaderValue, Method, StatusCode};

use crate::service::Identity;
use crate::settings::Admission;

pub(crate) fn routes(identity: &Identity) -> Router<Identity> {
    let mut open = Router::new()
        .route(
            "/.well-known/oauth-authorization-server",
            get(metadata::authorization_server),
        )
        .route(
            "/.well-known/oauth-protected-resource/mcp",
            get(metadata::all_servers),
        )
        .route(
            "/.well-known/oauth-protected-resource/mcp/{server}",
            get(metadata::one_server),
        )
        .route("/oauth2/token", post(token::token))
        .route("/oauth2/device_authorization", post(device::begin))
        .route("/oauth2/revoke", post(revoke::revoke));
    if identity.settings().admission == Admission::Open {
        open = open.route("/oauth2/register", post(register::register));
    }
    Router::new()
        .route(
            "/oauth2/authorize",
            get(authorize::show).post(authorize::decide),
        )
        .route("/device", get(device::show).post(device::decide))
        .merge(open.layer(from_fn(cors)))
}

/// Agents that run in a browser read metadata, register and fetch tokens from
/// there. None of these endpoints looks at a cookie, so any origin may ask.
async fn cors(request: Request, next: Next) -> Response {
    let preflight = request.method() == Method::OPTIONS;
    let mut response = if preflight {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if preflight {
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, OPTIONS"),
        );
        let allowed =
            HeaderValue::from_static("authorization, content-type, accept, mcp-protocol-version");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}
