//! The body of an answer to the client: whole, passed through, looked at, or
//! written here event by event.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;

use crate::relay::Relay;
use crate::sse;
use crate::upstream::UpstreamFault;

/// The connection to the upstream broke in the middle of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's answer broke off")]
pub struct BrokenOff;

/// See the module.
#[derive(Debug)]
pub struct AnswerBody(Inner);

#[derive(Debug)]
enum Inner {
    Whole(Bytes),
    Upstream(hyper::body::Incoming),
    Relay(Box<Relay>),
    Channel(mpsc::Receiver<Bytes>),
}

impl From<Bytes> for AnswerBody {
    fn from(whole: Bytes) -> Self {
        Self(Inner::Whole(whole))
    }
}

impl From<hyper::body::Incoming> for AnswerBody {
    fn from(incoming: hyper::body::Incoming) -> Self {
        Self(Inner::Upstream(incoming))
    }
}

impl From<Relay> for AnswerBody {
    fn from(relay: Relay) -> Self {
        Self(Inner::Relay(Box::new(relay)))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut self.0 {
            Inner::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Inner::Upstream(incoming) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|_| BrokenOff)))
            }
            Inner::Relay(relay) => relay
                .poll_bytes(cx)
                .map(|bytes| bytes.map(|b| Ok(Frame::data(b)))),
            Inner::Channel(events) => events
                .poll_recv(cx)
                .map(|bytes| bytes.map(|b| Ok(Frame::data(b)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Whole(bytes) => bytes.is_empty(),
            Inner::Upstream(incoming) => incoming.is_end_stream(),
            Inner::Relay(_) | Inner::Channel(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Upstream(incoming) => incoming.size_hint(),
            Inner::Relay(_) | Inner::Channel(_) => SizeHint::default(),
        }
    }
}

impl AnswerBody {
    /// Reads it to its end.
    ///
    /// # Errors
    /// [`UpstreamFault::TooLarge`] beyond `limit` bytes,
    /// [`UpstreamFault::BrokenOff`] if it does not end properly.
    pub async fn collect_up_to(mut self, limit: usize) -> Result<Bytes, UpstreamFault> {
        if let Inner::Whole(bytes) = &mut self.0 {
            let bytes = std::mem::take(bytes);
            return if bytes.len() > limit {
                Err(UpstreamFault::TooLarge { limit })
            } else {
                Ok(bytes)
            };
        }
        let mut first = Bytes::new();
        let mut more = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let Ok(data) = frame.map_err(|_| UpstreamFault::BrokenOff)?.into_data() else {
                continue;
            };
            if first.len() + more.len() + data.len() > limit {
                return Err(UpstreamFault::TooLarge { limit });
            }
            if first.is_empty() {
                first = data;
            } else {
                more.extend_from_slice(&data);
            }
        }
        if more.is_empty() {
            return Ok(first);
        }
        let mut all = BytesMut::with_capacity(first.len() + more.len());
        all.extend_from_slice(&first);
        all.extend_from_slice(&more);
        Ok(all.freeze())
    }
}

/// The client has closed its stream: it no longer wants the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client has gone")]
pub struct ClientGone;

/// Writes the events of a stream that begins here: for held calls and batches.
#[derive(Debug, Clone)]
pub struct EventSender(mpsc::Sender<Bytes>);

/// A stream that is written here. It ends when every sender is dropped.
#[must_use]
pub fn channel() -> (EventSender, AnswerBody) {
    let (sender, receiver) = mpsc::channel(16);
    (EventSender(sender), AnswerBody(Inner::Channel(receiver)))
}

impl EventSender {
    /// Sends one JSON-RPC message.
    ///
    /// # Errors
    /// [`ClientGone`].
    pub async fn message(&self, json: &[u8]) -> Result<(), ClientGone> {
        self.0
            .send(sse::message(json))
            .await
            .map_err(|_| ClientGone)
    }

    /// Sends a comment, which keeps proxies from closing a quiet stream.
    ///
    /// # Errors
    /// [`ClientGone`].
    pub async fn keep_alive(&self) -> Result<(), ClientGone> {
        self.0
            .send(Bytes::from_static(b":\n\n"))
            .await
            .map_err(|_| ClientGone)
    }

    /// Passes an event stream on, or a JSON body as one event.
    ///
    /// # Errors
    /// [`ClientGone`]; a stream that breaks off has said so itself (see
    /// [`crate::relay`]).
    pub async fn forward(&self, is_stream: bool, mut body: AnswerBody) -> Result<(), ClientGone> {
        let mut whole = BytesMut::new();
        loop {
            // A quiet upstream must not hide that the client has hung up.
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = self.0.closed() => return Err(ClientGone),
            };
            let Some(Ok(frame)) = frame else {
                break;
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if is_stream {
                self.0.send(data).await.map_err(|_| ClientGone)?;
            } else {
                whole.extend_from_slice(&data);
            }
        }
        if whole.is_empty() {
            Ok(())
        } else {
            self.message(&whole).await
        }
    }

    /// Returns when the client has closed the stream.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// An HTTP answer that streams events.
#[must_use]
pub fn event_stream(body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// `202 Accepted` without a body: the answer to a notification or response.
#[must_use]
pub fn accepted() -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::from(Bytes::new()));
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_written_here_arrive_and_a_gone_client_is_noticed() {
        let (sender, body) = channel();
        sender.message(b"{}").await.unwrap();
        sender
            .forward(false, AnswerBody::from(Bytes::from_static(b"{\n}")))
            .await
            .unwrap();
        sender
            .forward(true, AnswerBody::from(Bytes::from_static(b"data: x\n\n")))
            .await
            .unwrap();
        sender.keep_alive().await.unwrap();
        let gone = sender.clone();
        drop(sender);
        drop(gone);
        let all = body.collect_up_to(1000).await.unwrap();
        assert_eq!(
            all,
            "event: message\ndata: {}\n\nevent: message\ndata: {\ndata: }\n\ndata: x\n\n:\n\n"
        );

        let (sender, body) = channel();
        drop(body);
        sender.closed().await;
        assert_eq!(sender.message(b"{}").await, Err(ClientGone));
    }

    #[tokio::test]
    async fn a_body_beyond_the_cap_is_refused() {
        let body = AnswerBody::from(Bytes::from_static(b"12345"));
        assert_eq!(
            body.collect_up_to(4).await,
            Err(UpstreamFault::TooLarge { limit: 4 })
        );
    }
}
