//! The provider in a box: answers what the host asks it, in the process.
//!
//! It stands where the guarded HTTP client stands in the host, so that all that
//! is sent and read is the real thing. What it answers is made from the
//! description, or given by a scenario.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_core::ports::BoxFuture;
use countersign_core::request::{Outgoing, SendError, Sender};
use countersign_core::token_answer::Answer;
use serde_json::Value;
use url::Url;

/// A request as the provider saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) url: Url,
    pub(super) headers: http::HeaderMap,
    pub(super) content_type: String,
    pub(super) fields: Vec<(String, String)>,
}

impl Seen {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut all = self.fields.iter();
        all.find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn grant_type(&self) -> Option<&str> {
        self.field("grant_type")
    }
}

/// What the provider answers.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Http {
        status: u16,
        content_type: String,
        body: String,
    },
    Silence(SendError),
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    pub(super) fn text(status: u16, content_type: &str, body: impl Into<String>) -> Self {
        Self::Http {
            status,
            content_type: content_type.to_owned(),
            body: body.into(),
        }
    }

    pub(super) fn html(status: u16) -> Self {
        let body = "<!doctype html><html><body><h1>Something went wrong</h1></body></html>";
        Self::text(status, "text/html; charset=utf-8", body)
    }
}

/// Takes requests, remembers them, and answers in the order it was told.
#[derive(Default)]
pub(super) struct BoxProvider {
    replies: Mutex<VecDeque<Reply>>,
    seen: Mutex<Vec<Seen>>,
}

impl BoxProvider {
    /// What to answer next, after what was said before.
    pub(super) fn will_answer(&self, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.replies).extend(replies);
    }

    /// Requests since the last time; answers that nobody asked for are dropped.
    pub(super) fn take_seen(&self) -> Vec<Seen> {
        lock(&self.replies).clear();
        std::mem::take(&mut lock(&self.seen))
    }
}

impl Sender for BoxProvider {
    fn send(&self, request: Outgoing, _: Duration) -> BoxFuture<'_, Result<Answer, SendError>> {
        lock(&self.seen).push(seen(request));
        let reply = lock(&self.replies).pop_front();
        Box::pin(async move {
            match reply.unwrap_or(Reply::Silence(SendError::Unreachable)) {
                Reply::Http {
                    status,
                    content_type,
                    body,
                } => Ok(Answer::new(status, Some(&content_type), body.into_bytes())),
                Reply::Silence(error) => Err(error),
            }
        })
    }
}

fn seen(request: Outgoing) -> Seen {
    let parts = request.into_parts();
    let content_type = parts
        .headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let body = parts.body.as_deref().unwrap_or_default();
    let fields = if content_type == "application/json" {
        let object: serde_json::Map<String, Value> =
            serde_json::from_slice(body).unwrap_or_default();
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        object
            .into_iter()
            .map(|(name, value)| (name, text(value)))
            .collect()
    } else {
        url::form_urlencoded::parse(body).into_owned().collect()
    };
    Seen {
        method: parts.method.to_string(),
        url: parts.url,
        headers: parts.headers,
        content_type,
        fields,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
