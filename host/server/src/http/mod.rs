//! One listener: MCP calls take the short way, everything else axum's.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use countersign_core::ports::StoreError;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use tower::ServiceExt as _;

use crate::wiring::App;

pub mod api;
pub mod connect;
pub mod connections;
pub mod mcp;

/// All routes but the MCP endpoints.
pub fn router(app: &Arc<App>) -> Router {
    let api = api::ApiState {
        world: app.world.clone(),
        registry: Arc::clone(&app.registry),
        identity: app.identity.clone(),
        oauth: Arc::clone(&app.oauth),
        audit: Arc::clone(&app.audit),
        public_url: app.public_url.clone(),
    };
    let pages = Router::new()
        .merge(connect::routes())
        .merge(connections::routes())
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Arc::clone(app));
    Router::new()
        .merge(countersign_identity::routes(app.identity.clone()))
        .merge(countersign_pages::assets())
        .merge(api::router(api))
        .merge(pages)
        .fallback(|| async {
            countersign_pages::message(
                StatusCode::NOT_FOUND,
                "Not found",
                "There is nothing at this address.",
            )
        })
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let missing = app.readiness();
    if missing.is_empty() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response()
    }
}

/// Answers one request.
///
/// # Errors
/// Never: every failure is an answer.
pub async fn answer(
    app: Arc<App>,
    router: Router,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<axum::body::Body>, Infallible> {
    if mcp::is_endpoint(request.uri().path()) {
        return Ok(mcp::answer(app, request).await.map(axum::body::Body::new));
    }
    request
        .extensions_mut()
        .insert(countersign_identity::ClientAddress(peer.ip()));
    router.oneshot(request.map(axum::body::Body::new)).await
}

/// The page for a store that does not answer.
pub(crate) fn store_failed(error: &StoreError) -> Response {
    tracing::error!(%error, "the store failed behind a page");
    failed("The store does not answer right now. Try again in a moment.")
}

/// The page for something that went wrong here.
pub(crate) fn failed(text: &str) -> Response {
    countersign_pages::message(
        StatusCode::SERVICE_UNAVAILABLE,
        "Something went wrong",
        text,
    )
}
