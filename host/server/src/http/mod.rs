//! One listener: MCP calls take the short way, everything else axum's.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use countersign_core::ports::StoreError;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tower::ServiceExt as _;

use crate::wiring::App;

pub mod address;
pub mod admin;
pub mod api;
pub mod approve;
pub mod changes;
pub mod client_document;
pub mod connect;
pub mod connected;
pub mod connections;
pub mod device;
pub mod jwks;
pub mod keys;
pub mod mcp;
pub mod strangers;

/// Largest body that is read for anything but an MCP message, in bytes. Routes
/// take less, and say so in their own words.
const LONGEST_BODY: usize = 256 * 1024;
/// How long such a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// All routes but the MCP endpoints.
pub fn router(app: &Arc<App>) -> Router {
    let api = api::ApiState {
        world: app.world.clone(),
        registry: Arc::clone(&app.registry),
        trust: Arc::clone(&app.trust),
        identity: app.identity.clone(),
        oauth: Arc::clone(&app.oauth),
        keys: app.keys.clone(),
        discoveries: Arc::clone(&app.discoveries),
        recorder: Arc::clone(&app.recorder),
        audit: Arc::clone(&app.audit),
        sealing: Arc::clone(&app.sealing),
        public_url: app.public_url.clone(),
        strangers: Arc::clone(&app.strangers),
    };
    let pages = Router::new()
        .merge(connect::routes())
        .merge(connected::routes())
        .merge(approve::routes())
        .merge(connections::routes())
        .merge(device::routes())
        .merge(jwks::routes())
        .merge(keys::routes())
        .merge(changes::routes())
        .merge(admin::routes())
        .merge(client_document::routes())
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
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

async fn metrics(State(app): State<Arc<App>>) -> Response {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = app
        .metrics
        .text(app.readiness().is_empty(), app.audit.dropped());
    ([(http::header::CONTENT_TYPE, TYPE)], text).into_response()
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let missing = app.readiness();
    if missing.is_empty() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response()
    }
}

/// An answer under way. It is never an error: every failure is an answer.
pub type Answering =
    Pin<Box<dyn Future<Output = Result<Response<axum::body::Body>, Infallible>> + Send>>;

/// Answers one request.
///
/// The futures are large (a call may become a held one) and are moved by those
/// who poll them: they are on the heap from the start.
pub fn answer(
    app: Arc<App>,
    router: Router,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Answering {
    if !is_own_host(&app, request.headers()) {
        app.refused_stranger("wrong_host", peer.ip(), request.headers(), "host");
        let text = "This host is not called that. Use its public address.\n";
        let refusal = (StatusCode::MISDIRECTED_REQUEST, text).into_response();
        return Box::pin(std::future::ready(Ok(refusal)));
    }
    if mcp::is_endpoint(request.uri().path()) {
        return Box::pin(async move {
            let answer = mcp::answer(app, peer.ip(), request).await;
            Ok(answer.map(axum::body::Body::new))
        });
    }
    Box::pin(route(app, router, peer, request))
}

/// Everything but the MCP endpoints.
async fn route(
    app: Arc<App>,
    router: Router,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<axum::body::Body>, Infallible> {
    let address = app.client_address(peer.ip(), request.headers());
    request
        .extensions_mut()
        .insert(countersign_identity::ClientAddress(address));
    let (parts, body) = request.into_parts();
    match whole(body, BODY_TIMEOUT).await {
        Ok(body) => router.oneshot(Request::from_parts(parts, body)).await,
        Err(refusal) => Ok(refusal),
    }
}

/// The body of a form or of a REST request. Who sends it is not known yet, so
/// it is small and comes soon, or the connection is free for somebody else.
async fn whole<B>(body: B, patience: Duration) -> Result<axum::body::Body, Response>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let refuse = |status: StatusCode, text: &'static str| (status, text).into_response();
    match tokio::time::timeout(patience, Limited::new(body, LONGEST_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            "The body is too large.\n",
        )),
        Ok(Err(_)) => Err(refuse(StatusCode::BAD_REQUEST, "The body broke off.\n")),
        Err(_) => Err(refuse(
            StatusCode::REQUEST_TIMEOUT,
            "The body took too long.\n",
        )),
    }
}

/// Whether the request was meant for this host, by the name it used. A page
/// elsewhere that lets its own name resolve to this machine (DNS rebinding)
/// can't hide that name; an address or `localhost` is nobody's name.
fn is_own_host(app: &App, headers: &http::HeaderMap) -> bool {
    let mut hosts = headers.get_all(http::header::HOST).iter();
    let Some(host) = hosts.next() else {
        return true;
    };
    let authority = host
        .to_str()
        .ok()
        .and_then(|text| text.parse::<http::uri::Authority>().ok());
    let Some(authority) = authority.filter(|_| hosts.next().is_none()) else {
        return false;
    };
    let name = authority.host().trim_matches(['[', ']']);
    name.parse::<std::net::IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || app
            .public_url
            .host_str()
            .is_some_and(|own| own.eq_ignore_ascii_case(name))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_does_not_hold_its_connection() {
        let (_sender, never) = tokio::sync::oneshot::channel::<()>();
        let waits = futures_util::stream::once(async move {
            let _ = never.await;
            Ok::<_, std::io::Error>(Bytes::new())
        });
        let status = |body, patience| async move {
            let answer = whole(body, patience).await;
            answer.err().map(|refusal| refusal.status())
        };
        let never = axum::body::Body::from_stream(waits);
        assert_eq!(
            status(never, Duration::ZERO).await,
            Some(StatusCode::REQUEST_TIMEOUT)
        );
        let large = axum::body::Body::from(vec![b'x'; LONGEST_BODY + 1]);
        assert_eq!(
            status(large, BODY_TIMEOUT).await,
            Some(StatusCode::PAYLOAD_TOO_LARGE)
        );
        assert_eq!(
            status(axum::body::Body::from("a=b"), BODY_TIMEOUT).await,
            None
        );
    }
}
