//! What a client gets when its call cannot go through: every carrier of the
//! object `countersign`, built from the error and nothing else.

use std::borrow::Cow;

use bytes::Bytes;
use countersign_core::error::{CallError, ErrorFacts};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::envelope::{Id, Request};
use crate::refusal::{error_body, json_response, result_body};
use crate::revision::{Era, Revision};

pub mod state;
pub mod synthetic;

/// Error code of 2025-11-25 for "a URL elicitation has to be completed first".
pub const URL_ELICITATION_REQUIRED: i32 = -32042;
/// Our key in `inputRequests` and `inputResponses`.
pub const INPUT_KEY: &str = "countersign";
/// How often a call asks its user again before it gives up.
pub const MAX_ROUNDS: u8 = 3;

/// How an error reaches this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// 2026-07-28: an `InputRequiredResult` with a URL elicitation.
    InputRequired,
    /// 2025-11-25: the call is held open and the elicitation goes out on its
    /// stream; after the wait, [`Carrier::UrlRequired`].
    Held,
    /// 2025-11-25: error −32042 with the elicitation.
    UrlRequired,
    /// A tool result with `isError`, for a model to pass on.
    ToolResult,
    /// A JSON-RPC error.
    RpcError,
}

/// What decides on the carrier.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// What it speaks.
    pub revision: Revision,
    /// Whether it declared `elicitation.url`.
    pub url_elicitation: bool,
    /// How often this call has asked its user already (2026-07-28).
    pub rounds: u8,
}

impl Client {
    /// Chooses. `has_url` says whether there is a page for the user to open.
    #[must_use]
    pub fn carrier(&self, error: &CallError, has_url: bool, request: &Request<'_>) -> Carrier {
        let plain = if request.method == "tools/call" {
            Carrier::ToolResult
        } else {
            Carrier::RpcError
        };
        if !error.wants_user() {
            return if error.denial().is_some() {
                plain
            } else {
                Carrier::RpcError
            };
        }
        match (self.revision, request.may_ask_for_input()) {
            _ if !has_url || !self.url_elicitation => plain,
            (Revision::V2026_07_28, true) if self.rounds < MAX_ROUNDS => Carrier::InputRequired,
            (Revision::V2025_11_25, true) => Carrier::Held,
            (Revision::V2025_11_25, false) => Carrier::UrlRequired,
            _ => plain,
        }
    }
}

/// An error on its way to one client, as the answer to one request.
#[derive(Debug, Clone, Copy)]
pub struct Trouble<'a> {
    /// The request's id as raw JSON.
    pub id: &'a str,
    /// What the client speaks.
    pub revision: Revision,
    /// What went wrong.
    pub error: &'a CallError,
    /// Its machine-readable form.
    pub facts: &'a ErrorFacts,
}

impl Trouble<'_> {
    /// For the user, as a model would pass it on.
    #[must_use]
    pub fn text(&self) -> String {
        if let Some(code) = self.error.denial() {
            return format!("{} (code: {code})", self.error);
        }
        match (&self.facts.authorize_url, self.error) {
            (Some(url), CallError::ApprovalRequired { .. }) => format!(
                "{} Ask the user to open this address in a browser and to answer there:\n{url}\n\
                 Then call the tool again with exactly the same arguments: the answer is for no others.",
                self.error
            ),
            (Some(url), _) => format!(
                "{} Ask the user to open this address in a browser and to follow it to the end:\n{url}\n\
                 Then call the tool again.",
                self.error
            ),
            (None, _) if self.facts.reason.as_deref() == Some("no_browser_identity") => format!(
                "{} This account has no browser sign-in at Countersign; its operator can set one up.",
                self.error
            ),
            _ => self.error.to_string(),
        }
    }

    fn facts(&self) -> Value {
        serde_json::to_value(self.facts).unwrap_or(Value::Null)
    }

    /// For the user, beside a page to open.
    fn question(&self) -> String {
        format!("{} Open this page to go on.", self.error)
    }

    fn url(&self) -> &str {
        self.facts.authorize_url.as_deref().unwrap_or_default()
    }

    /// [`Carrier::ToolResult`].
    #[must_use]
    pub fn tool_result(&self) -> Response<Bytes> {
        self.tool_result_saying(&self.text())
    }

    fn tool_result_saying(&self, text: &str) -> Response<Bytes> {
        let mut result = json!({
            "content": [{ "type": "text", "text": text }],
            "isError": true,
            "_meta": { "countersign": self.facts() },
        });
        complete(&mut result, self.revision);
        json_response(StatusCode::OK, result_body(self.id, &result.to_string()))
    }

    /// The user declined or cancelled: a tool result, or an error where there
    /// are no tool results.
    #[must_use]
    pub fn turned_down(&self, action: Action, request: &Request<'_>) -> Response<Bytes> {
        let did = match action {
            Action::Decline => "declined to open the page",
            Action::Accept | Action::Cancel => "closed the question without an answer",
        };
        let text = format!("{} The user {did}, so the call was not made.", self.error);
        if request.method == "tools/call" {
            return self.tool_result_saying(&text);
        }
        let data = json!({ "countersign": self.facts() });
        json_response(
            StatusCode::OK,
            error_body(Some(self.id), self.error.code(), &text, Some(data)),
        )
    }

    /// [`Carrier::RpcError`], with HTTP status and `Retry-After`.
    #[must_use]
    pub fn rpc_error(&self) -> Response<Bytes> {
        let (status, retry_after) = self.error.http_status();
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        let mut response = json_response(status, self.rpc_error_body());
        if let Some(wait) = retry_after {
            // Rounded up: a client that waits exactly this long must not be too early.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }

    /// The body of [`Trouble::rpc_error`], for a stream or a batch.
    #[must_use]
    pub fn rpc_error_body(&self) -> Bytes {
        let data = json!({ "countersign": self.facts() });
        error_body(
            Some(self.id),
            self.error.code(),
            &self.error.to_string(),
            Some(data),
        )
    }

    /// The answer for [`Carrier::ToolResult`] and [`Carrier::RpcError`].
    #[must_use]
    pub fn plain(&self, request: &Request<'_>) -> Response<Bytes> {
        let tool = request.method == "tools/call"
            && (self.error.wants_user() || self.error.denial().is_some());
        if tool {
            self.tool_result()
        } else {
            self.rpc_error()
        }
    }

    /// [`Carrier::UrlRequired`]: the JSON-RPC error of 2025-11-25.
    #[must_use]
    pub fn url_required(&self, elicitation: &Elicitation) -> Bytes {
        let data = json!({
            "elicitations": [elicitation.params(self)],
            "countersign": self.facts(),
        });
        error_body(
            Some(self.id),
            URL_ELICITATION_REQUIRED,
            &self.error.to_string(),
            Some(data),
        )
    }

    /// [`Carrier::InputRequired`]; `state` is a sealed
    /// [`state::HostState`].
    #[must_use]
    pub fn input_required(&self, state: &str) -> Response<Bytes> {
        let result = json!({
            "resultType": "input_required",
            "inputRequests": { INPUT_KEY: {
                "method": "elicitation/create",
                "params": { "mode": "url", "url": self.url(), "message": self.question() },
            } },
            "requestState": state,
            "_meta": { "countersign": self.facts() },
        });
        json_response(StatusCode::OK, result_body(self.id, &result.to_string()))
    }
}

/// What 2026-07-28 wants in every final result.
fn complete(result: &mut Value, revision: Revision) {
    if revision.era() == Era::PerRequest
        && let Some(result) = result.as_object_mut()
    {
        result.insert("resultType".into(), "complete".into());
    }
}

/// A URL elicitation towards a client of 2025-11-25. The same id runs through
/// the request, the error and the notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elicitation(String);

/// Begins the ids of requests that the host itself sends to a client.
const REQUEST_PREFIX: &str = "countersign-";

impl Elicitation {
    /// With a fresh, unguessable id.
    #[must_use]
    pub fn new(random: &dyn countersign_core::ports::Random) -> Self {
        Self(countersign_core::ports::random_token::<16>(random))
    }

    /// The elicitation's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0
    }

    /// The elicitation that a response of the client answers, if it answers
    /// one of ours. Such a response never goes upstream.
    #[must_use]
    pub fn answered_by(id: &Id<'_>) -> Option<Self> {
        let text: Cow<'_, str> = id.text()?;
        text.strip_prefix(REQUEST_PREFIX)
            .map(|id| Self(id.to_owned()))
    }

    fn params(&self, trouble: &Trouble<'_>) -> Value {
        json!({
            "mode": "url",
            "elicitationId": self.0,
            "url": trouble.url(),
            "message": trouble.question(),
        })
    }

    /// The request that goes out on the held call's stream.
    #[must_use]
    pub fn request(&self, trouble: &Trouble<'_>) -> Bytes {
        let request = json!({
            "jsonrpc": "2.0",
            "id": format!("{REQUEST_PREFIX}{}", self.0),
            "method": "elicitation/create",
            "params": self.params(trouble),
        });
        request.to_string().into()
    }

    /// `notifications/elicitation/complete`.
    #[must_use]
    pub fn completed(&self) -> Bytes {
        let params = json!({ "elicitationId": self.0 });
        notification("notifications/elicitation/complete", params)
    }
}

fn notification(method: &str, params: Value) -> Bytes {
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
        .to_string()
        .into()
}

/// `notifications/progress` while a call is held. `progress` must grow.
#[must_use]
pub fn progress(token: &Id<'_>, progress: u64, message: &str) -> Bytes {
    let token: Value = serde_json::from_str(token.raw()).unwrap_or(Value::Null);
    let params = json!({ "progressToken": token, "progress": progress, "message": message });
    notification("notifications/progress", params)
}

/// `notifications/tools/list_changed`: an account was connected.
#[must_use]
pub fn tools_list_changed() -> Bytes {
    Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#)
}

/// What the user did with an elicitation. `Accept` only means that the page
/// was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Opened the page.
    Accept,
    /// Said no.
    Decline,
    /// Dismissed it.
    Cancel,
}

impl Action {
    /// From an `ElicitResult` as raw JSON; none if it is not one.
    #[must_use]
    pub fn read(result: &str) -> Option<Self> {
        let result: Value = serde_json::from_str(result).ok()?;
        match result["action"].as_str()? {
            "accept" => Some(Self::Accept),
            "decline" => Some(Self::Decline),
            "cancel" => Some(Self::Cancel),
            _ => None,
        }
    }
}
