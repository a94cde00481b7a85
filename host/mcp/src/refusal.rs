//! What is wrong with a request, and the answer that says so: JSON-RPC code,
//! HTTP status, and the request's own id where it could be read.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::revision::Revision;

/// Why a request is not taken. Whose fault: the client's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The body is larger than the cap.
    #[error("the message is larger than {limit} bytes; send less at once")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// The body is not UTF-8.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// The body is not JSON.
    #[error("the body is not JSON (line {line}, column {column})")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// Nested too deeply.
    #[error("the message is nested more than {limit} levels deep")]
    TooDeep {
        /// Levels.
        limit: usize,
    },
    /// An object has two members of one name.
    #[error("an object has two members of the same name; every name may occur once")]
    DuplicateMember,
    /// A name that some readers treat as a command.
    #[error("a member name that begins with $serde_json::private:: is not accepted")]
    ReservedMember,
    /// Not a JSON-RPC message of this protocol revision.
    #[error("not a valid message: {0}")]
    BadMessage(&'static str),
    /// A message whose parameters are of the wrong shape.
    #[error("invalid parameters: {0}")]
    BadParams(&'static str),
    /// A mirrored header is missing, malformed or differs from the body.
    #[error("header mismatch: {0}")]
    HeaderMismatch(&'static str),
    /// The client lacks a capability the answer needs.
    #[error("this request needs a client capability that was not declared")]
    MissingCapability {
        /// As `ClientCapabilities`.
        required: Value,
    },
    /// The protocol version is not spoken here.
    #[error("unsupported protocol version")]
    UnsupportedVersion {
        /// What was asked, cut to 64 characters.
        requested: String,
        /// What there is.
        supported: Vec<Revision>,
    },
    /// The method does not exist in this protocol revision.
    #[error("this protocol version has no such method")]
    MethodNotFound,
    /// `Accept` does not list what an answer may be.
    #[error("the client must accept both application/json and text/event-stream")]
    NotAcceptable,
    /// `Content-Type` is not JSON.
    #[error("the body must be application/json")]
    UnsupportedMediaType,
    /// GET or DELETE where the protocol revision has none.
    #[error("only POST is allowed here")]
    MethodNotAllowed,
    /// The `Origin` is a foreign site.
    #[error("requests from this origin are not allowed")]
    ForeignOrigin,
    /// The session does not exist, has ended, or is somebody else's.
    #[error("this session does not exist; begin a new one with initialize")]
    UnknownSession,
    /// A request of a session era without a session.
    #[error("the Mcp-Session-Id header is missing; begin with initialize")]
    SessionRequired,
    /// `requestState` or `inputResponses` cannot be used.
    #[error("requestState is not valid here ({0}); send the request again without it")]
    BadState(&'static str),
}

impl Refusal {
    pub(crate) fn not_json(error: &serde_json::Error) -> Self {
        Self::NotJson {
            line: error.line(),
            column: error.column(),
        }
    }

    /// The JSON-RPC error code.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::NotUtf8 | Self::NotJson { .. } => -32700,
            Self::BadParams(_) | Self::BadState(_) => -32602,
            Self::MethodNotFound => -32601,
            Self::HeaderMismatch(_) => -32020,
            Self::MissingCapability { .. } => -32021,
            Self::UnsupportedVersion { .. } => -32022,
            _ => -32600,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::ForeignOrigin => StatusCode::FORBIDDEN,
            Self::UnknownSession | Self::MethodNotFound => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn data(&self) -> Option<Value> {
        match self {
            Self::UnsupportedVersion {
                requested,
                supported,
            } => {
                let supported: Vec<_> = supported.iter().map(|r| r.as_str()).collect();
                Some(json!({ "supported": supported, "requested": requested }))
            }
            Self::MissingCapability { required } => {
                Some(json!({ "requiredCapabilities": required }))
            }
            _ => None,
        }
    }

    /// With the id of the request it answers, as raw JSON.
    #[must_use]
    pub fn of(self, id: Option<&str>) -> Refused {
        Refused {
            why: self,
            id: id.map(Into::into),
        }
    }
}

/// A refusal and the id of the request it answers, where that could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    /// Why.
    pub why: Refusal,
    /// Raw JSON.
    pub id: Option<Box<str>>,
}

impl From<Refusal> for Refused {
    fn from(why: Refusal) -> Self {
        why.of(None)
    }
}

impl Refused {
    /// The whole answer. An id that could not be read is left out, as MCP
    /// (unlike JSON-RPC) wants it.
    #[must_use]
    pub fn response(&self) -> Response<Bytes> {
        let body = error_body(
            self.id.as_deref(),
            self.why.code(),
            &self.why.to_string(),
            self.why.data(),
        );
        let mut response = json_response(self.why.status(), body);
        if self.why == Refusal::MethodNotAllowed {
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

/// A JSON-RPC error as text. `id` is raw JSON.
#[must_use]
pub fn error_body(id: Option<&str>, code: i32, message: &str, data: Option<Value>) -> Bytes {
    let mut error = json!({ "code": code, "message": message });
    if let (Some(data), Some(error)) = (data, error.as_object_mut()) {
        error.insert("data".into(), data);
    }
    match id {
        Some(id) => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#).into(),
        None => format!(r#"{{"jsonrpc":"2.0","error":{error}}}"#).into(),
    }
}

/// A JSON-RPC result as text. `id` and `result` are raw JSON.
#[must_use]
pub fn result_body(id: &str, result: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into()
}

/// An HTTP answer that carries JSON.
#[must_use]
pub fn json_response(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_the_code_and_status_of_the_specification() {
        let version = Refusal::UnsupportedVersion {
            requested: "x".into(),
            supported: vec![Revision::V2026_07_28],
        };
        let capability = Refusal::MissingCapability {
            required: json!({ "sampling": {} }),
        };
        let cases = [
            (Refusal::TooLarge { limit: 1 }, -32600, 413),
            (Refusal::NotUtf8, -32700, 400),
            (Refusal::NotJson { line: 1, column: 2 }, -32700, 400),
            (Refusal::DuplicateMember, -32600, 400),
            (Refusal::BadMessage("x"), -32600, 400),
            (Refusal::BadParams("x"), -32602, 400),
            (Refusal::BadState("x"), -32602, 400),
            (Refusal::HeaderMismatch("x"), -32020, 400),
            (capability, -32021, 400),
            (version, -32022, 400),
            (Refusal::MethodNotFound, -32601, 404),
            (Refusal::NotAcceptable, -32600, 406),
            (Refusal::UnsupportedMediaType, -32600, 415),
            (Refusal::MethodNotAllowed, -32600, 405),
            (Refusal::ForeignOrigin, -32600, 403),
            (Refusal::UnknownSession, -32600, 404),
            (Refusal::SessionRequired, -32600, 400),
        ];
        for (refusal, code, status) in cases {
            assert_eq!(
                (refusal.code(), refusal.status().as_u16()),
                (code, status),
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn an_unsupported_version_says_what_there_is_and_repeats_the_id_as_it_came() {
        let refused = Refusal::UnsupportedVersion {
            requested: "1900-01-01".into(),
            supported: vec![Revision::V2026_07_28],
        }
        .of(Some("\"a\\u0062\""));
        let response = refused.response();
        assert_eq!(
            std::str::from_utf8(response.body()).unwrap(),
            r#"{"jsonrpc":"2.0","id":"a\u0062","error":{"code":-32022,"message":"unsupported protocol version","data":{"supported":["2026-07-28"],"requested":"1900-01-01"}}}"#
        );
    }
}
