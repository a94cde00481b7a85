//! Connects to addresses that the guard permits, and to no other.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::Guard;

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("the URL has no host")]
    NoHost,
    #[error("no permitted address")]
    Forbidden,
    #[error("connecting took too long")]
    Timeout,
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Resolves, asks the guard about every address (also about a literal one),
/// and connects to the first permitted one that answers.
#[derive(Clone)]
pub(super) struct GuardedConnector {
    pub(super) guard: Arc<dyn Guard>,
    pub(super) timeout: Duration,
}

impl GuardedConnector {
    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, ConnectError> {
        let host = uri.host().ok_or(ConnectError::NoHost)?;
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        let port = uri
            .port_u16()
            .unwrap_or(if uri.scheme_str() == Some("https") {
                443
            } else {
                80
            });
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
            .await?
            .filter(|address| self.guard.permits(host, *address))
            .collect();
        let mut outcome = Err(ConnectError::Forbidden);
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(TokioIo::new(stream));
                }
                Err(error) => outcome = Err(error.into()),
            }
        }
        outcome
    }
}

impl Service<Uri> for GuardedConnector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let timeout = self.timeout;
        let connecting = self.clone().connect(uri);
        Box::pin(async move {
            tokio::time::timeout(timeout, connecting)
                .await
                .unwrap_or(Err(ConnectError::Timeout))
        })
    }
}
