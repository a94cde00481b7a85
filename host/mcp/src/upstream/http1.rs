//! The upstream client: HTTP/1.1, pooled, with rustls for https.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_core::ports::BoxFuture;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use thread_local::ThreadLocal;

use super::connect::{ConnectError, GuardedConnector};
use super::{Answer, Challenge, Expects, Guard, Kind, Outbound, Outcome, Upstream, UpstreamFault};
use crate::body::AnswerBody;
use crate::headers::{SESSION_ID, downstream, is_type};

/// A JSON body up to this length is read before the answer is passed on: it
/// costs nothing (it comes with the headers), and an upstream that breaks off
/// in it becomes a proper error.
const SHORT: u64 = 64 << 10;
/// Of an HTTP error's body, to see whether it is a JSON-RPC error.
const ERROR_BODY: usize = 64 << 10;

/// How to connect.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// For DNS and TCP together.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept. Shorter than the five seconds
    /// after which many servers close it, so that no request runs into that.
    pub idle_timeout: Duration,
    /// Unused connections kept per host and thread.
    pub max_idle_per_host: usize,
    /// TLS settings; the webpki roots when absent.
    pub tls: Option<rustls::ClientConfig>,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(4),
            max_idle_per_host: 256,
            tls: None,
        }
    }
}

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct TlsUnusable(#[from] rustls::Error);

/// The pooled client. Each thread that sends has a pool of its own, so that a
/// connection is served by the thread whose calls wait for it.
pub struct HttpUpstream {
    pools: ThreadLocal<Pool>,
    connector: HttpsConnector<GuardedConnector>,
    idle_timeout: Duration,
    max_idle_per_host: usize,
}

type Pool = Client<HttpsConnector<GuardedConnector>, Full<Bytes>>;

impl HttpUpstream {
    /// Builds the client. Every new connection asks `guard`.
    ///
    /// # Errors
    /// [`TlsUnusable`] if the crypto provider lacks what TLS needs.
    pub fn new(config: UpstreamConfig, guard: Arc<dyn Guard>) -> Result<Self, TlsUnusable> {
        let builder = HttpsConnectorBuilder::new();
        let builder = match config.tls {
            Some(tls) => builder.with_tls_config(tls),
            None => {
                builder.with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            }
        };
        let connector = builder
            .https_or_http()
            .enable_http1()
            .wrap_connector(GuardedConnector {
                guard,
                timeout: config.connect_timeout,
            });
        Ok(Self {
            pools: ThreadLocal::new(),
            connector,
            idle_timeout: config.idle_timeout,
            max_idle_per_host: config.max_idle_per_host,
        })
    }

    /// This thread's pool.
    fn pool(&self) -> &Pool {
        self.pools.get_or(|| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(self.idle_timeout)
                .pool_max_idle_per_host(self.max_idle_per_host)
                .build(self.connector.clone())
        })
    }

    async fn exchange(&self, outbound: Outbound) -> Result<Outcome, UpstreamFault> {
        let Outbound {
            method,
            uri,
            headers,
            body,
            expects,
            header_timeout,
        } = outbound;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let exchange = async {
            let response = self
                .pool()
                .request(request)
                .await
                .map_err(|error| fault(&error))?;
            classify(response, expects).await
        };
        tokio::time::timeout(header_timeout, exchange)
            .await
            .unwrap_or(Err(UpstreamFault::Timeout))
    }
}

impl Upstream for HttpUpstream {
    fn send(&self, request: Outbound) -> BoxFuture<'_, Result<Outcome, UpstreamFault>> {
        Box::pin(self.exchange(request))
    }
}

fn fault(error: &Error) -> UpstreamFault {
    let mut source = error.source();
    while let Some(cause) = source {
        match cause.downcast_ref::<ConnectError>() {
            Some(ConnectError::Forbidden) => return UpstreamFault::ForbiddenAddress,
            Some(ConnectError::Timeout) => return UpstreamFault::Timeout,
            _ => source = cause.source(),
        }
    }
    if error.is_connect() {
        UpstreamFault::Unreachable
    } else {
        UpstreamFault::BrokenOff
    }
}

async fn classify(
    response: Response<Incoming>,
    expects: Expects,
) -> Result<Outcome, UpstreamFault> {
    let (parts, body) = response.into_parts();
    let status = parts.status;
    if status == StatusCode::UNAUTHORIZED {
        return Ok(Outcome::Unauthorized(Challenge::read(&parts.headers)));
    }
    if status == StatusCode::FORBIDDEN {
        return Ok(Outcome::Forbidden(Challenge::read(&parts.headers)));
    }
    let coding = parts.headers.get(header::CONTENT_ENCODING);
    if coding.is_some_and(|c| !c.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(UpstreamFault::NotMcp(
            "its answer is encoded in a way that was not asked for",
        ));
    }
    if !status.is_success() {
        return refused(status, &parts.headers, body).await;
    }
    let kind = match expects {
        Expects::Acknowledgement | Expects::End => Kind::Empty,
        Expects::Answer if is_type(&parts.headers, "application/json") => Kind::Json,
        Expects::Answer | Expects::Stream if is_type(&parts.headers, "text/event-stream") => {
            Kind::Events
        }
        Expects::Answer | Expects::Stream => {
            return Err(UpstreamFault::NotMcp(
                "its answer is neither JSON nor an event stream",
            ));
        }
    };
    let mut status = status;
    let mut headers = downstream(&parts.headers, kind == Kind::Events);
    let body = match kind {
        Kind::Empty => {
            headers.remove(header::CONTENT_TYPE);
            if expects == Expects::Acknowledgement {
                status = StatusCode::ACCEPTED;
            }
            AnswerBody::from(Bytes::new())
        }
        Kind::Json
            if body
                .size_hint()
                .upper()
                .is_some_and(|length| length <= SHORT) =>
        {
            AnswerBody::from(AnswerBody::from(body).collect_up_to(SHORT as usize).await?)
        }
        Kind::Json | Kind::Events => AnswerBody::from(body),
    };
    let session = parts.headers.get(&SESSION_ID).cloned();
    Ok(Outcome::Answer(Answer {
        status,
        headers,
        session,
        kind,
        body,
    }))
}

/// An HTTP error: passed on if it says what MCP says, with its own body.
async fn refused(
    status: StatusCode,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Outcome, UpstreamFault> {
    if is_type(headers, "application/json")
        && let Ok(body) = AnswerBody::from(body).collect_up_to(ERROR_BODY).await
        && is_rpc_error(&body)
    {
        let headers = downstream(headers, false);
        let body = AnswerBody::from(body);
        return Ok(Outcome::Answer(Answer {
            status,
            headers,
            session: None,
            kind: Kind::Json,
            body,
        }));
    }
    if status.is_client_error() {
        Ok(Outcome::Status(status))
    } else {
        Err(UpstreamFault::Status(status.as_u16()))
    }
}

fn is_rpc_error(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        jsonrpc: std::borrow::Cow<'a, str>,
        #[expect(dead_code, reason = "its presence and shape are what is asked for")]
        error: Shape,
    }
    #[derive(serde::Deserialize)]
    struct Shape {
        #[expect(dead_code, reason = "its presence and type are what is asked for")]
        code: i64,
    }
    serde_json::from_slice::<Envelope<'_>>(body).is_ok_and(|e| e.jsonrpc == "2.0")
}
