//! The transport to upstream MCP servers.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use countersign_core::error::CallError;
use countersign_core::ports::BoxFuture;
use countersign_core::preset::PresetFault;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};

use crate::body::AnswerBody;
use crate::headers::SESSION_ID;

mod connect;
mod http1;

pub use countersign_core::challenge::Challenge;
pub use http1::{HttpUpstream, UpstreamConfig};

/// Sends requests to upstream servers.
pub trait Upstream: Send + Sync {
    /// Sends one request, once. Never follows a redirect, never tries again
    /// after anything was sent.
    ///
    /// # Errors
    /// [`UpstreamFault`] if there is no answer that MCP knows.
    fn send(&self, request: Outbound) -> BoxFuture<'_, Result<Outcome, UpstreamFault>>;
}

/// Decides which addresses may be connected to, after resolution.
pub trait Guard: Send + Sync {
    /// Whether `host` (as in the URL, without port) may be reached at `address`.
    fn permits(&self, host: &str, address: SocketAddr) -> bool;
}

/// A request that is ready to be sent, its credential filled in.
pub struct Outbound {
    /// POST, GET or DELETE.
    pub method: Method,
    /// Absolute.
    pub uri: Uri,
    /// All of them, with the credential; never logged.
    pub headers: HeaderMap,
    /// Empty but for POST.
    pub body: Bytes,
    /// What an MCP server answers to it.
    pub expects: Expects,
    /// How long the headers of the answer (and a short JSON body) may take.
    pub header_timeout: Duration,
}

impl fmt::Debug for Outbound {
    /// Without headers, body, path and query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.uri.host();
        f.debug_struct("Outbound")
            .field("method", &self.method)
            .field("host", &host)
            .finish_non_exhaustive()
    }
}

/// The URL as hyper takes it.
///
/// # Errors
/// [`UpstreamFault::Unreachable`] for what is not an http or https URL.
pub fn uri_of(url: &url::Url) -> Result<Uri, UpstreamFault> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UpstreamFault::Unreachable);
    }
    let (url, _fragment) = url.as_str().split_once('#').unwrap_or((url.as_str(), ""));
    Uri::try_from(url).map_err(|_| UpstreamFault::Unreachable)
}

/// What an MCP server answers to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expects {
    /// A POSTed request: JSON or an event stream.
    Answer,
    /// A POSTed notification or response: an acknowledgement without content.
    Acknowledgement,
    /// A GET: an event stream, or 405.
    Stream,
    /// A DELETE: any status.
    End,
}

/// What came back.
#[derive(Debug)]
pub enum Outcome {
    /// An MCP answer: success, or an HTTP error with a JSON-RPC error in it.
    Answer(Answer),
    /// HTTP 401: the credential is not accepted. Never shown to the client.
    Unauthorized(Challenge),
    /// HTTP 403, for example with `insufficient_scope`. Never shown either.
    Forbidden(Challenge),
    /// An HTTP 4xx without an MCP body: 404 of an unknown session, 405 of a GET.
    Status(StatusCode),
}

/// How an answer's body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One JSON message.
    Json,
    /// An event stream.
    Events,
    /// Nothing.
    Empty,
}

/// An MCP answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Only those that may go back to the client.
    pub headers: HeaderMap,
    /// The upstream's own session id, if it gave one.
    pub session: Option<HeaderValue>,
    /// How to read the body.
    pub kind: Kind,
    /// The body.
    pub body: AnswerBody,
}

impl Answer {
    /// As an answer to the client, under the client's own session id.
    #[must_use]
    pub fn into_response(self, session: Option<HeaderValue>) -> Response<AnswerBody> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if let Some(session) = session {
            response.headers_mut().insert(SESSION_ID.clone(), session);
        }
        response
    }
}

/// Why there is no MCP answer. Nothing in here was said by the upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamFault {
    /// No connection: DNS, TCP or TLS.
    #[error("it cannot be reached")]
    Unreachable,
    /// The guard refused every address it resolves to.
    #[error("its address is one that Countersign may not connect to")]
    ForbiddenAddress,
    /// No answer in time.
    #[error("it did not answer in time")]
    Timeout,
    /// The connection ended before the answer did.
    #[error("the connection broke off")]
    BrokenOff,
    /// An answer that is not MCP: HTML, another content type, not JSON-RPC.
    #[error("{0}")]
    NotMcp(&'static str),
    /// An HTTP status that means nothing in MCP: a redirect, a server error.
    #[error("it answered with HTTP status {0}")]
    Status(u16),
    /// An answer that has to be looked at is larger than the cap.
    #[error("its answer is larger than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// It asked the user to open an address that no user should open.
    #[error("it asked the user to open an address that is not a web address")]
    UnsafeUrl,
    /// The preset could not look through the answer, which nobody gets then.
    #[error("its answer is withheld: {0}")]
    Withheld(PresetFault),
}

impl From<UpstreamFault> for CallError {
    fn from(fault: UpstreamFault) -> Self {
        match fault {
            UpstreamFault::Timeout => Self::UpstreamTimeout,
            UpstreamFault::Withheld(fault) => Self::Withheld(fault),
            other => Self::UpstreamUnavailable {
                detail: other.to_string(),
            },
        }
    }
}
