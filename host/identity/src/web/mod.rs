//! What people see in a browser, and the routes of everything.

mod login;
mod new_password;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts};
use axum::routing::get;
use http::request::Parts;

use crate::oauth;
use crate::service::Identity;

/// Largest body taken, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// Where a request comes from. The server puts it into the request's
/// extensions when it knows better than the socket (behind a trusted proxy).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let given = parts.extensions.get::<Self>().copied();
        let socket = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|c| Self(c.0.ip()));
        Ok(given
            .or(socket)
            .unwrap_or(Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    }
}

/// All pages and endpoints of identity.
pub fn routes(identity: Identity) -> Router {
    Router::new()
        .route("/login", get(login::show).post(login::sign_in))
        .route(
            "/login/new-password",
            get(new_password::show).post(new_password::choose),
        )
        .route("/logout", get(login::ask_sign_out).post(login::sign_out))
        .merge(oauth::routes(&identity))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(identity)
}
