//! The protocol revisions, and which of them a request speaks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::envelope::{Incoming, Message};
use crate::headers::{Mirrored, single};
use crate::refusal::{Refusal, Refused};

/// A supported revision of MCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Revision {
    /// The first with streamable HTTP; the only one with batches.
    V2025_03_26,
    /// Brought the `MCP-Protocol-Version` header and elicitation.
    V2025_06_18,
    /// Brought URL elicitation.
    V2025_11_25,
    /// No sessions, no `initialize`, metadata on every request.
    V2026_07_28,
}

/// The two ways MCP has been spoken over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// 2025: `initialize`, session ids, GET streams.
    Sessions,
    /// 2026: each request stands for itself.
    PerRequest,
}

impl Revision {
    /// All, oldest first.
    pub const ALL: [Self; 4] = [
        Self::V2025_03_26,
        Self::V2025_06_18,
        Self::V2025_11_25,
        Self::V2026_07_28,
    ];
    /// The newest with sessions: what a handshake settles on when the client
    /// asks for something unknown.
    pub const NEWEST_WITH_SESSIONS: Self = Self::V2025_11_25;

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// From its name on the wire.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == text)
    }

    /// Its era.
    #[must_use]
    pub fn era(self) -> Era {
        if self == Self::V2026_07_28 {
            Era::PerRequest
        } else {
            Era::Sessions
        }
    }

    /// All revisions of an era, newest first: for `data.supported`.
    #[must_use]
    pub fn of_era(era: Era) -> Vec<Self> {
        Self::ALL
            .into_iter()
            .rev()
            .filter(|r| r.era() == era)
            .collect()
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Revision {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| "not a supported MCP revision".to_owned())
    }
}

impl From<Revision> for String {
    fn from(revision: Revision) -> Self {
        revision.as_str().to_owned()
    }
}

/// Which revision a POST speaks, after checking that header and body say the
/// same and that the message exists in it. `session` is the version of the
/// client's session, where it has one.
///
/// An `initialize` speaks the version it asks for, or the newest with sessions
/// if that is unknown: the negotiation is the upstream's.
///
/// # Errors
/// [`Refused`] with the status and code of the specification (2026-07-28,
/// "Server Validation"; 2025-11-25, "Protocol Version Header").
pub fn of_post(
    headers: &http::HeaderMap,
    incoming: &Incoming<'_>,
    session: Option<Revision>,
) -> Result<Revision, Refused> {
    let message = match incoming {
        Incoming::Single(message) => message,
        Incoming::Batch(_) => return of_batch(headers, session),
    };
    let id = message.id().map(|id| id.raw());
    of_message(headers, message, session).map_err(|why| why.of(id))
}

fn of_batch(headers: &http::HeaderMap, session: Option<Revision>) -> Result<Revision, Refused> {
    let named = match single(headers, &super::headers::PROTOCOL_VERSION)? {
        Some(text) => Some(Revision::parse(text).ok_or_else(|| unsupported(text))?),
        None => None,
    };
    match session.or(named).unwrap_or(Revision::V2025_03_26) {
        Revision::V2025_03_26 => Ok(Revision::V2025_03_26),
        _ => Err(Refusal::BadMessage("batches exist in protocol version 2025-03-26 only").into()),
    }
}

fn of_message(
    headers: &http::HeaderMap,
    message: &Message<'_>,
    session: Option<Revision>,
) -> Result<Revision, Refusal> {
    let named = single(headers, &super::headers::PROTOCOL_VERSION)?;
    let in_body = message
        .params()
        .and_then(|p| p.meta.protocol_version.as_deref());
    match (named, in_body) {
        (Some(header), Some(body)) if header != body => {
            return Err(Refusal::HeaderMismatch(
                "MCP-Protocol-Version differs from the body's _meta",
            ));
        }
        (None, Some(_)) => return Err(Refusal::HeaderMismatch("MCP-Protocol-Version is missing")),
        _ => {}
    }
    if let Message::Request(request) = message
        && request.method == "initialize"
        && in_body.is_none()
        && named
            .and_then(Revision::parse)
            .is_none_or(|r| r.era() == Era::Sessions)
    {
        let asked = request
            .params
            .protocol_version
            .as_deref()
            .and_then(Revision::parse);
        return Ok(asked
            .filter(|r| r.era() == Era::Sessions)
            .unwrap_or(Revision::NEWEST_WITH_SESSIONS));
    }
    let revision = match named {
        Some(text) => Revision::parse(text).ok_or_else(|| unsupported(text))?,
        None => session.unwrap_or(Revision::V2025_03_26),
    };
    match revision.era() {
        Era::PerRequest => per_request(headers, message)?,
        Era::Sessions if in_body.is_some() => {
            return Err(mismatch(revision, &[Revision::V2026_07_28]));
        }
        Era::Sessions => {}
    }
    Ok(revision)
}

fn per_request(headers: &http::HeaderMap, message: &Message<'_>) -> Result<(), Refusal> {
    match message {
        Message::Request(request) => {
            // Before anything is asked of its parameters: it has no form here.
            if request.method == "initialize" {
                return Err(Refusal::MethodNotFound);
            }
            let meta = &request.params.meta;
            if meta.protocol_version.is_none() {
                return Err(Refusal::BadParams(
                    "_meta lacks io.modelcontextprotocol/protocolVersion",
                ));
            }
            if meta.client_capabilities.is_none() {
                return Err(Refusal::BadParams(
                    "_meta lacks io.modelcontextprotocol/clientCapabilities",
                ));
            }
            Mirrored::check(
                headers,
                &request.method,
                request.mirrored_name(),
                request.may_ask_for_input(),
            )
        }
        Message::Notification(_) => Ok(()),
        Message::Response(_) => Err(Refusal::BadMessage(
            "clients of 2026-07-28 send no responses",
        )),
    }
}

fn unsupported(requested: &str) -> Refusal {
    let era = match Revision::parse(requested) {
        Some(revision) => revision.era(),
        // An unknown version in a per-request message is most likely a newer one.
        None => Era::PerRequest,
    };
    Refusal::UnsupportedVersion {
        requested: requested.chars().take(64).collect(),
        supported: match era {
            Era::PerRequest => vec![Revision::V2026_07_28],
            Era::Sessions => Revision::of_era(Era::Sessions),
        },
    }
}

/// The error for a client and an upstream of different eras: what the upstream
/// speaks is what is supported.
#[must_use]
pub fn mismatch(client: Revision, upstream: &[Revision]) -> Refusal {
    Refusal::UnsupportedVersion {
        requested: client.as_str().to_owned(),
        supported: upstream.to_vec(),
    }
}

/// Which revision a GET or DELETE speaks.
///
/// # Errors
/// [`Refusal::MethodNotAllowed`] in 2026-07-28, which has neither.
pub fn of_get_or_delete(
    headers: &http::HeaderMap,
    session: Option<Revision>,
) -> Result<Revision, Refusal> {
    let revision = match single(headers, &super::headers::PROTOCOL_VERSION)? {
        Some(text) => Revision::parse(text).ok_or_else(|| unsupported(text))?,
        None => session.unwrap_or(Revision::V2025_03_26),
    };
    match revision.era() {
        Era::Sessions => Ok(revision),
        Era::PerRequest => Err(Refusal::MethodNotAllowed),
    }
}
