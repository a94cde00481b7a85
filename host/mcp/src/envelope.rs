//! One strict parse of what a client posts.
//!
//! The body is read once and refused unless every reader must understand it
//! the same way, so it can be forwarded byte for byte: what was judged is what
//! is sent. Nothing is copied; everything here borrows from the body.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed as _, Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::refusal::{Refusal, Refused};
use crate::strict::{self, Any, Walk};

mod read;
use read::Parts;

/// How much is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of the body, in bytes.
    pub max_bytes: usize,
    /// Levels of nesting; at most 127.
    pub max_depth: usize,
    /// Members of a batch.
    pub max_batch: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 4 << 20,
            max_depth: 100,
            max_batch: 50,
        }
    }
}

/// What a POST carries.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "boxing would cost an allocation on every call"
)]
pub enum Incoming<'a> {
    /// One message.
    Single(Message<'a>),
    /// Several (2025-03-26 only): only responses, or none; ids differ.
    Batch(Vec<Message<'a>>),
}

/// One JSON-RPC message.
#[derive(Debug, Clone)]
pub enum Message<'a> {
    /// Wants an answer.
    Request(Request<'a>),
    /// Wants none.
    Notification(Notification<'a>),
    /// Answers a request of the server.
    Response(Answered<'a>),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The whole message as it came.
    pub raw: &'a str,
    /// Its id.
    pub id: Id<'a>,
    /// Not empty.
    pub method: Cow<'a, str>,
    /// What is needed of its parameters.
    pub params: Params<'a>,
}

/// A notification.
#[derive(Debug, Clone)]
pub struct Notification<'a> {
    /// The whole message as it came.
    pub raw: &'a str,
    /// Not empty.
    pub method: Cow<'a, str>,
    /// What is needed of its parameters.
    pub params: Params<'a>,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Answered<'a> {
    /// The whole message as it came.
    pub raw: &'a str,
    /// Which request it answers.
    pub id: Id<'a>,
    /// The result as raw JSON, or else it is an error.
    pub result: Option<&'a str>,
}

/// A string or an integer, kept as it was written.
#[derive(Debug, Clone, Copy)]
pub struct Id<'a>(&'a str);

impl<'a> Id<'a> {
    fn parse(raw: &'a str) -> Option<Self> {
        let digits = raw.strip_prefix('-').unwrap_or(raw);
        let integer = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        (raw.len() <= 1024 && (raw.starts_with('"') || integer)).then_some(Self(raw))
    }

    /// As JSON, the way the sender wrote it.
    #[must_use]
    pub fn raw(&self) -> &'a str {
        self.0
    }

    /// The text of a string id.
    #[must_use]
    pub fn text(&self) -> Option<Cow<'a, str>> {
        let mut json = serde_json::Deserializer::from_str(self.0);
        strict::Text.deserialize(&mut json).ok()
    }
}

impl PartialEq for Id<'_> {
    /// Equal values, however they are written.
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
            || match (self.text(), other.text()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            }
    }
}

/// The members of `params` that anything depends on. The others are forwarded
/// unseen (but were walked).
#[derive(Debug, Clone, Default)]
pub struct Params<'a> {
    /// Whether there are any.
    pub present: bool,
    /// `name`, if it is a string.
    pub name: Option<Cow<'a, str>>,
    /// `uri`, if it is a string.
    pub uri: Option<Cow<'a, str>>,
    /// `taskId`, if it is a string.
    pub task_id: Option<Cow<'a, str>>,
    /// `arguments` as raw JSON.
    pub arguments: Option<&'a str>,
    /// `_meta`.
    pub meta: Meta<'a>,
    /// `inputResponses` as raw JSON: an object.
    pub input_responses: Option<&'a str>,
    /// `requestState`.
    pub request_state: Option<Cow<'a, str>>,
    /// `protocolVersion` of an `initialize`.
    pub protocol_version: Option<Cow<'a, str>>,
    /// `capabilities` of an `initialize`, as raw JSON.
    pub capabilities: Option<&'a str>,
    /// `clientInfo` of an `initialize`, as raw JSON.
    pub client_info: Option<&'a str>,
    wrong: Option<&'static str>,
}

/// The members of `params._meta` that anything depends on.
#[derive(Debug, Clone, Default)]
pub struct Meta<'a> {
    /// `io.modelcontextprotocol/protocolVersion`.
    pub protocol_version: Option<Cow<'a, str>>,
    /// `io.modelcontextprotocol/clientCapabilities` as raw JSON: an object.
    pub client_capabilities: Option<&'a str>,
    /// `io.modelcontextprotocol/clientInfo` as raw JSON: an object.
    pub client_info: Option<&'a str>,
    /// `progressToken`: a string or an integer.
    pub progress_token: Option<Id<'a>>,
    wrong: Option<&'static str>,
}

impl<'a> Message<'a> {
    /// The whole message as it came.
    #[must_use]
    pub fn raw(&self) -> &'a str {
        match self {
            Self::Request(m) => m.raw,
            Self::Notification(m) => m.raw,
            Self::Response(m) => m.raw,
        }
    }

    /// The method of a request or notification.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::Request(m) => Some(&m.method),
            Self::Notification(m) => Some(&m.method),
            Self::Response(_) => None,
        }
    }

    /// The id of a request or response.
    #[must_use]
    pub fn id(&self) -> Option<Id<'a>> {
        match self {
            Self::Request(m) => Some(m.id),
            Self::Notification(_) => None,
            Self::Response(m) => Some(m.id),
        }
    }

    /// The parameters of a request or notification.
    #[must_use]
    pub fn params(&self) -> Option<&Params<'a>> {
        match self {
            Self::Request(m) => Some(&m.params),
            Self::Notification(m) => Some(&m.params),
            Self::Response(_) => None,
        }
    }
}

impl Request<'_> {
    /// `params.name` or `params.uri`: what is called, got or read.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.params.name.as_deref().or(self.params.uri.as_deref())
    }

    /// What `Mcp-Name` mirrors: whether the header must be there, and its
    /// value. The tasks extension mirrors `taskId`.
    #[must_use]
    pub fn mirrored_name(&self) -> Option<&str> {
        match &*self.method {
            "tools/call" | "prompts/get" => self.params.name.as_deref(),
            "resources/read" => self.params.uri.as_deref(),
            "tasks/get" | "tasks/update" | "tasks/cancel" => self.params.task_id.as_deref(),
            _ => None,
        }
    }

    /// Whether the answer may be an `InputRequiredResult` (2026-07-28), and
    /// whether the call is one that may be held open (2025-11-25).
    #[must_use]
    pub fn may_ask_for_input(&self) -> bool {
        matches!(
            &*self.method,
            "tools/call" | "prompts/get" | "resources/read"
        )
    }
}

/// Parses a POST's body.
///
/// # Errors
/// [`Refused`] says what is wrong, with the request's id where it could be read.
pub fn parse<'a>(body: &'a [u8], limits: &Limits) -> Result<Incoming<'a>, Refused> {
    if body.len() > limits.max_bytes {
        return Err(Refusal::TooLarge {
            limit: limits.max_bytes,
        }
        .into());
    }
    let text = std::str::from_utf8(body).map_err(|_| Refusal::NotUtf8)?;
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    match text.as_bytes().first() {
        Some(b'{') => message(text, limits, 0).map(Incoming::Single),
        Some(b'[') => batch(text, limits),
        _ => {
            strict::check(text, limits.max_depth)?;
            Err(Refusal::BadMessage("a message is a JSON object").into())
        }
    }
}

fn batch<'a>(text: &'a str, limits: &Limits) -> Result<Incoming<'a>, Refused> {
    struct Pieces(usize);
    impl<'de> Visitor<'de> for Pieces {
        type Value = Option<Vec<&'de str>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut pieces = Vec::new();
            while let Some(piece) = seq.next_element::<&'de RawValue>()? {
                if pieces.len() == self.0 {
                    while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                    return Ok(None);
                }
                pieces.push(piece.get());
            }
            Ok(Some(pieces))
        }
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let pieces = json
        .deserialize_seq(Pieces(limits.max_batch))
        .and_then(|pieces| json.end().map(|()| pieces))
        .map_err(|e| Refusal::not_json(&e))?
        .ok_or(Refusal::BadMessage("the batch has too many members"))?;
    let mut messages: Vec<Message<'a>> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        if !piece.starts_with('{') {
            strict::check(piece, limits.max_depth)?;
            return Err(Refusal::BadMessage("every member of a batch is a message").into());
        }
        let message = message(piece, limits, 1)?;
        if message.method() == Some("initialize") {
            return Err(Refusal::BadMessage("initialize cannot be part of a batch").into());
        }
        if let Some(id) = message.id()
            && messages.iter().any(|m| m.id() == Some(id))
        {
            return Err(Refusal::BadMessage("two members of the batch have the same id").into());
        }
        messages.push(message);
    }
    let responses = messages
        .iter()
        .filter(|m| matches!(m, Message::Response(_)))
        .count();
    if messages.is_empty() {
        return Err(Refusal::BadMessage("the batch is empty").into());
    }
    if responses != 0 && responses != messages.len() {
        return Err(Refusal::BadMessage("a batch has either responses only, or none").into());
    }
    Ok(Incoming::Batch(messages))
}

fn message<'a>(raw: &'a str, limits: &Limits, depth: usize) -> Result<Message<'a>, Refused> {
    let mut walk = Walk::new(limits.max_depth.min(127));
    let mut parts = Parts::default();
    let mut json = serde_json::Deserializer::from_str(raw);
    let outcome = Any {
        walk: &mut walk,
        depth,
        take: &mut parts,
    }
    .deserialize(&mut json)
    .and_then(|()| json.end());
    let id = parts.id.and_then(Id::parse);
    let refuse = |why: Refusal| why.of(id.map(|id| id.raw()));
    outcome.map_err(|error| refuse(walk.fault.unwrap_or_else(|| Refusal::not_json(&error))))?;
    classify(raw, parts, id).map_err(refuse)
}

fn classify<'a>(
    raw: &'a str,
    parts: Parts<'a>,
    id: Option<Id<'a>>,
) -> Result<Message<'a>, Refusal> {
    if parts.jsonrpc.as_deref() != Some("2.0") {
        return Err(Refusal::BadMessage("jsonrpc must be \"2.0\""));
    }
    if parts.id.is_some() && id.is_none() {
        return Err(Refusal::BadMessage("id must be a string or an integer"));
    }
    if !parts.has_method {
        let id = id.ok_or(Refusal::BadMessage("there is neither a method nor an id"))?;
        return match (parts.result, parts.error) {
            (Some(result), None) if result.starts_with('{') => Ok(Message::Response(Answered {
                raw,
                id,
                result: Some(result),
            })),
            (None, Some(error)) if error.starts_with('{') => Ok(Message::Response(Answered {
                raw,
                id,
                result: None,
            })),
            _ => Err(Refusal::BadMessage(
                "a response has one of result and error, an object",
            )),
        };
    }
    if parts.result.is_some() || parts.error.is_some() {
        return Err(Refusal::BadMessage(
            "a message with a method has neither result nor error",
        ));
    }
    let method = parts
        .method
        .filter(|m| !m.is_empty() && m.len() <= 256)
        .ok_or(Refusal::BadMessage(
            "method must be a string of 1 to 256 bytes",
        ))?;
    let params = parts.params;
    if let Some(wrong) = params.wrong {
        return Err(Refusal::BadParams(wrong));
    }
    let Some(id) = id else {
        return Ok(Message::Notification(Notification {
            raw,
            method,
            params,
        }));
    };
    match &*method {
        "tools/call" | "prompts/get" if params.name.as_deref().is_none_or(str::is_empty) => {
            return Err(Refusal::BadParams("name must be a string"));
        }
        "resources/read" if params.uri.as_deref().is_none_or(str::is_empty) => {
            return Err(Refusal::BadParams("uri must be a string"));
        }
        "tools/call" | "prompts/get" if params.arguments.is_some_and(|a| !a.starts_with('{')) => {
            return Err(Refusal::BadParams("arguments must be an object"));
        }
        // One that carries its version in `_meta` is of a revision that has no
        // initialize: it is refused as such, not for what it lacks.
        "initialize" if params.meta.protocol_version.is_some() => {}
        "initialize" if params.protocol_version.is_none() => {
            return Err(Refusal::BadParams("protocolVersion must be a string"));
        }
        "initialize" if params.capabilities.is_none_or(|c| !c.starts_with('{')) => {
            return Err(Refusal::BadParams("capabilities must be an object"));
        }
        "initialize" if params.client_info.is_none_or(|c| !c.starts_with('{')) => {
            return Err(Refusal::BadParams("clientInfo must be an object"));
        }
        _ => {}
    }
    Ok(Message::Request(Request {
        raw,
        id,
        method,
        params,
    }))
}
