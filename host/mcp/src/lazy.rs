//! Begins an upstream session late: for a client of 2025 whose own session
//! began before there was a connection, the host does the handshake with what
//! the client declared.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use crate::headers::{PROTOCOL_VERSION, SESSION_ID};
use crate::revision::{Era, Revision};
use crate::session::Capsule;
use crate::strict;
use crate::upstream::UpstreamFault;

/// The id of the host's own `initialize`, as raw JSON.
pub const INITIALIZE_ID: &str = "\"countersign-initialize\"";

/// The body of the `initialize` request in the client's name.
#[must_use]
pub fn initialize(capsule: &Capsule) -> Bytes {
    format!(
        r#"{{"jsonrpc":"2.0","id":{INITIALIZE_ID},"method":"initialize","params":{{"protocolVersion":"{}","capabilities":{},"clientInfo":{}}}}}"#,
        capsule.revision,
        capsule.capabilities.get(),
        capsule.client_info.get(),
    )
    .into()
}

/// The body of the `notifications/initialized` that follows.
#[must_use]
pub fn initialized() -> Bytes {
    Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
}

/// The headers of both: `negotiated` and `session` for the second only.
#[must_use]
pub fn headers(negotiated: Option<Revision>, session: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    let agent = HeaderValue::from_static(concat!("countersign/", env!("CARGO_PKG_VERSION")));
    headers.insert(header::USER_AGENT, agent);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(
        header::ACCEPT,
        HeaderValue::from_static("application/json, text/event-stream"),
    );
    if let Some(revision) = negotiated {
        headers.insert(
            PROTOCOL_VERSION.clone(),
            HeaderValue::from_static(revision.as_str()),
        );
    }
    if let Some(session) = session {
        headers.insert(SESSION_ID.clone(), session.clone());
    }
    headers
}

/// What the upstream answered to `initialize`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The version it settled on.
    pub revision: Revision,
    /// Its `capabilities`, as JSON.
    pub capabilities: String,
}

/// Reads the response to an `initialize`, the host's or a client's.
///
/// # Errors
/// [`UpstreamFault::NotMcp`] if it is an error, not a valid result, or settles
/// on a version that is not supported.
pub fn negotiated(response: &[u8]) -> Result<Negotiated, UpstreamFault> {
    const BAD: UpstreamFault = UpstreamFault::NotMcp("its answer to initialize is not valid");
    let text = std::str::from_utf8(response).map_err(|_| BAD)?;
    strict::check(text, 100).map_err(|_| BAD)?;
    let message: Value = serde_json::from_str(text).map_err(|_| BAD)?;
    if message["error"].is_object() {
        return Err(UpstreamFault::NotMcp("it refused to begin a session"));
    }
    let result = &message["result"];
    let version = result["protocolVersion"].as_str().ok_or(BAD)?;
    let revision = Revision::parse(version)
        .filter(|r| r.era() == Era::Sessions)
        .ok_or(UpstreamFault::NotMcp(
            "it speaks a protocol version that is not supported",
        ))?;
    Ok(Negotiated {
        revision,
        capabilities: result["capabilities"].to_string(),
    })
}

#[cfg(test)]
mod tests {
    use countersign_core::time::Timestamp;
    use serde_json::value::RawValue;

    use super::*;
    use crate::envelope::{Incoming, Limits, Message, parse};

    #[test]
    fn the_handshake_says_what_the_client_declared() {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        let capsule = Capsule {
            id: "x".into(),
            revision: Revision::V2025_06_18,
            capabilities: raw(r#"{"sampling":{}}"#),
            client_info: raw(r#"{"name":"a \"b\"","version":"1"}"#),
            expires_at: Timestamp::from_secs(1),
        };
        let body = initialize(&capsule);
        let Incoming::Single(Message::Request(request)) = parse(&body, &Limits::default()).unwrap()
        else {
            panic!()
        };
        assert_eq!(request.id.raw(), INITIALIZE_ID);
        assert_eq!(
            request.params.protocol_version.as_deref(),
            Some("2025-06-18")
        );
        assert_eq!(request.params.capabilities, Some(r#"{"sampling":{}}"#));
        assert_eq!(
            request.params.client_info,
            Some(r#"{"name":"a \"b\"","version":"1"}"#)
        );
        assert!(matches!(
            parse(&initialized(), &Limits::default()).unwrap(),
            Incoming::Single(Message::Notification(_))
        ));
        assert!(!headers(None, None).contains_key(&PROTOCOL_VERSION));
        let session = HeaderValue::from_static("s");
        let second = headers(Some(Revision::V2025_06_18), Some(&session));
        assert_eq!(
            (&second[&PROTOCOL_VERSION], &second[&SESSION_ID]),
            (&"2025-06-18".parse().unwrap(), &session)
        );
    }

    #[test]
    fn an_upstream_that_settles_on_an_unknown_version_is_refused() {
        let good = br#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}}}}"#;
        let read = negotiated(good).unwrap();
        assert_eq!(
            (read.revision, read.capabilities.as_str()),
            (Revision::V2025_06_18, r#"{"tools":{}}"#)
        );
        for bad in [
            &br#"{"result":{"protocolVersion":"2026-07-28"}}"#[..],
            br#"{"result":{"protocolVersion":"2024-11-05"}}"#,
            br#"{"result":{"protocolVersion":"2025-06-18","protocolVersion":"2025-11-25"}}"#,
            br#"{"result":{}}"#,
            br#"{"error":{"code":1,"message":"x"}}"#,
            b"<html>",
            b"",
        ] {
            assert!(negotiated(bad).is_err());
        }
    }
}
