//! HTTP headers of MCP requests: what is demanded of the client's, which go
//! upstream, which come back.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::envelope::Message;
use crate::refusal::Refusal;
use crate::revision::{Era, Revision};

/// `MCP-Protocol-Version`.
pub static PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Session-Id`.
pub static SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// `Mcp-Method`.
pub static METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`.
pub static NAME: HeaderName = HeaderName::from_static("mcp-name");
/// `Last-Event-ID`.
pub static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
static ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const PARAM_PREFIX: &str = "mcp-param-";
const SENTINEL: (&str, &str) = ("=?base64?", "?=");

/// A header that may occur once, trimmed.
///
/// # Errors
/// [`Refusal::HeaderMismatch`] if it occurs twice or is not visible ASCII.
pub fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Refusal::HeaderMismatch(
            "an MCP header was sent more than once",
        ));
    }
    let text = value
        .to_str()
        .map_err(|_| Refusal::HeaderMismatch("an MCP header is not visible ASCII"))?;
    Ok(Some(text.trim_matches([' ', '\t'])))
}

fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    let wildcard = wanted.split_once('/').map_or("", |(kind, _)| kind);
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|item| {
            let item = item.split(';').next().unwrap_or_default().trim();
            item.eq_ignore_ascii_case(wanted)
                || item == "*/*"
                || item
                    .split_once('/')
                    .is_some_and(|(k, rest)| rest == "*" && k.eq_ignore_ascii_case(wildcard))
        })
}

/// Whether a content type is this one, parameters aside.
pub(crate) fn is_type(headers: &HeaderMap, wanted: &str) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|value| {
            value
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .eq_ignore_ascii_case(wanted)
        })
}

/// A POST must be JSON and must take both kinds of answer; wildcards count.
///
/// # Errors
/// [`Refusal::UnsupportedMediaType`] (415) and [`Refusal::NotAcceptable`] (406).
pub fn check_post(headers: &HeaderMap) -> Result<(), Refusal> {
    if !is_type(headers, "application/json") {
        return Err(Refusal::UnsupportedMediaType);
    }
    let both = lists(headers, &header::ACCEPT, "application/json")
        && lists(headers, &header::ACCEPT, "text/event-stream");
    if both {
        Ok(())
    } else {
        Err(Refusal::NotAcceptable)
    }
}

/// A GET must take an event stream.
///
/// # Errors
/// [`Refusal::NotAcceptable`] (406).
pub fn check_get(headers: &HeaderMap) -> Result<(), Refusal> {
    if lists(headers, &header::ACCEPT, "text/event-stream") {
        Ok(())
    } else {
        Err(Refusal::NotAcceptable)
    }
}

/// An `Origin` is only sent by browsers; it must be one of `allowed` (each as
/// `scheme://host[:port]`, lower case).
///
/// # Errors
/// [`Refusal::ForeignOrigin`] (403), also for `null` and for two of them.
pub fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), Refusal> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return Ok(());
    };
    let known = origin
        .to_str()
        .is_ok_and(|o| allowed.iter().any(|a| a.eq_ignore_ascii_case(o)));
    if known && origins.next().is_none() {
        Ok(())
    } else {
        Err(Refusal::ForeignOrigin)
    }
}

/// A name as `Mcp-Name` carries it (2026-07-28, "Value Encoding").
#[must_use]
pub fn encode_name(name: &str) -> HeaderValue {
    let is_sentinel = name.starts_with(SENTINEL.0) && name.ends_with(SENTINEL.1);
    let plain = !is_sentinel
        && !name.is_empty()
        && name.trim_matches(' ') == name
        && name.bytes().all(|b| (b' '..=b'~').contains(&b));
    let value = if plain {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(format!(
            "{}{}{}",
            SENTINEL.0,
            STANDARD.encode(name),
            SENTINEL.1
        ))
    };
    HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static(""))
}

/// The name that an `Mcp-Name` header stands for; none if its Base64 is broken.
#[must_use]
pub fn decode_name(value: &str) -> Option<Cow<'_, str>> {
    match value
        .strip_prefix(SENTINEL.0)
        .and_then(|rest| rest.strip_suffix(SENTINEL.1))
    {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?)
            .ok()
            .map(Cow::Owned),
        None => Some(Cow::Borrowed(value)),
    }
}

/// The headers of 2026-07-28 that repeat the body.
pub(crate) struct Mirrored;

impl Mirrored {
    /// Demands that they say what the body says.
    pub(crate) fn check(
        headers: &HeaderMap,
        method: &str,
        name: Option<&str>,
        name_is_required: bool,
    ) -> Result<(), Refusal> {
        match single(headers, &METHOD)? {
            None => return Err(Refusal::HeaderMismatch("Mcp-Method is missing")),
            Some(value) if value != method => {
                return Err(Refusal::HeaderMismatch(
                    "Mcp-Method differs from the body's method",
                ));
            }
            Some(_) => {}
        }
        if let Some(name) = name {
            match single(headers, &NAME)? {
                None if name_is_required => {
                    return Err(Refusal::HeaderMismatch("Mcp-Name is missing"));
                }
                Some(value) if decode_name(value).as_deref() != Some(name) => {
                    return Err(Refusal::HeaderMismatch(
                        "Mcp-Name differs from the body's name or uri",
                    ));
                }
                _ => {}
            }
        }
        let clean = |(name, value): (&HeaderName, &HeaderValue)| {
            !name.as_str().starts_with(PARAM_PREFIX) || value.to_str().is_ok()
        };
        if headers.iter().all(clean) {
            Ok(())
        } else {
            Err(Refusal::HeaderMismatch(
                "an Mcp-Param header is not visible ASCII",
            ))
        }
    }
}

/// The headers that go upstream: an allowlist of the client's, with MCP's own
/// written anew from what was judged. `message` is none for GET and DELETE;
/// `session` is the upstream's own session id. The credential is added later.
///
/// `Accept-Encoding` is never passed on: answers have to be readable here.
#[must_use]
pub fn upstream(
    client: &HeaderMap,
    revision: Revision,
    message: Option<&Message<'_>>,
    session: Option<&HeaderValue>,
) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(16);
    out.insert(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("countersign/", env!("CARGO_PKG_VERSION"))),
    );
    for (name, value) in client {
        let passes = *name == header::ACCEPT
            || *name == header::ACCEPT_LANGUAGE
            || matches!(name.as_str(), "traceparent" | "tracestate" | "baggage")
            || (revision.era() == Era::PerRequest && name.as_str().starts_with(PARAM_PREFIX))
            || (message.is_none() && *name == LAST_EVENT_ID);
        if passes && value.to_str().is_ok() {
            out.append(name.clone(), value.clone());
        }
    }
    if message.is_some() {
        out.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
    }
    let version = HeaderValue::from_static(revision.as_str());
    match revision.era() {
        Era::PerRequest => {
            out.insert(PROTOCOL_VERSION.clone(), version);
            if let Some(method) = message.and_then(Message::method) {
                out.insert(METHOD.clone(), encode_name(method));
            }
            if let Some(Message::Request(request)) = message
                && let Some(name) = request.mirrored_name()
            {
                out.insert(NAME.clone(), encode_name(name));
            }
        }
        Era::Sessions => {
            if client.contains_key(&PROTOCOL_VERSION) {
                out.insert(PROTOCOL_VERSION.clone(), version);
            }
            if let Some(session) = session {
                out.insert(SESSION_ID.clone(), session.clone());
            }
        }
    }
    out
}

/// The upstream's headers that may come back: an allowlist. Not among them:
/// its challenge, cookies, session id (ours replaces it), anything per hop.
#[must_use]
pub fn downstream(upstream: &HeaderMap, streams: bool) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(4);
    for name in [
        &header::CONTENT_TYPE,
        &header::CACHE_CONTROL,
        &header::CONTENT_LANGUAGE,
        &header::RETRY_AFTER,
        &header::ALLOW,
        &PROTOCOL_VERSION,
    ] {
        if let Some(value) = upstream.get(name) {
            out.insert(name.clone(), value.clone());
        }
    }
    if streams {
        out.insert(ACCEL_BUFFERING.clone(), HeaderValue::from_static("no"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        map
    }

    #[test]
    fn a_name_is_encoded_as_the_specification_shows() {
        let cases = [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
            ("file:///a/b.json", "file:///a/b.json"),
        ];
        for (name, header) in cases {
            assert_eq!(encode_name(name), header);
            assert_eq!(decode_name(header).unwrap(), name);
        }
        assert_eq!(decode_name("=?base64?!!?="), None);
        assert_eq!(decode_name("=?base64?/w==?="), None, "not UTF-8");
        assert_eq!(
            decode_name("=?base64?").unwrap(),
            "=?base64?",
            "a literal without the suffix"
        );
    }

    #[test]
    fn a_post_must_be_json_and_take_both_kinds_of_answer() {
        let cases = [
            (
                Some("application/json"),
                Some("application/json, text/event-stream"),
                None,
            ),
            (
                Some("Application/JSON; charset=utf-8"),
                Some("text/event-stream;q=0.5,application/json"),
                None,
            ),
            (Some("application/json"), Some("*/*"), None),
            (
                Some("application/json"),
                Some("application/json"),
                Some(406),
            ),
            (Some("application/json"), Some("text/html"), Some(406)),
            (Some("application/json"), None, Some(406)),
            (Some("text/plain"), Some("*/*"), Some(415)),
            (Some("application/jsonp"), Some("*/*"), Some(415)),
            (None, Some("*/*"), Some(415)),
        ];
        for (content, accept, status) in cases {
            let mut headers = HeaderMap::new();
            content.map(|c| headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(c)));
            accept.map(|a| headers.insert(header::ACCEPT, HeaderValue::from_static(a)));
            let got = check_post(&headers).err().map(|r| r.status().as_u16());
            assert_eq!(got, status, "{content:?} {accept:?}");
        }
    }

    #[test]
    fn a_foreign_origin_is_refused_and_none_is_fine() {
        let own = ["https://gate.example".to_owned()];
        assert!(check_origin(&map(&[]), &own).is_ok());
        assert!(check_origin(&map(&[("origin", "https://gate.example")]), &own).is_ok());
        for bad in [
            "https://evil.example",
            "null",
            "http://gate.example",
            "https://gate.example:444",
        ] {
            assert!(
                check_origin(&map(&[("origin", bad)]), &own).is_err(),
                "{bad}"
            );
        }
        let twice = map(&[
            ("origin", "https://gate.example"),
            ("origin", "https://evil.example"),
        ]);
        assert!(check_origin(&twice, &own).is_err());
    }

    #[test]
    fn only_the_allowlist_goes_upstream_and_mcp_headers_are_written_anew() {
        let client = map(&[
            ("authorization", "Bearer agent-token"),
            ("cookie", "a=b"),
            ("host", "gate"),
            ("x-forwarded-for", "1.2.3.4"),
            ("accept", "application/json, text/event-stream"),
            ("accept-encoding", "gzip"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
            ("mcp-param-region", "us-west1"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "lies"),
            ("mcp-session-id", "somebody-elses"),
            ("last-event-id", "7"),
        ]);
        let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"h\u00e9","_meta":{}}}"#;
        let incoming = crate::envelope::parse(body, &crate::envelope::Limits::default()).unwrap();
        let crate::envelope::Incoming::Single(message) = incoming else {
            panic!()
        };
        let out = upstream(&client, Revision::V2026_07_28, Some(&message), None);
        let mut names: Vec<_> = out
            .iter()
            .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "accept: application/json, text/event-stream",
                "content-type: application/json",
                "mcp-method: tools/call",
                "mcp-name: =?base64?aMOp?=",
                "mcp-param-region: us-west1",
                "mcp-protocol-version: 2026-07-28",
                "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "user-agent: countersign/0.1.0",
            ]
        );
        let session = HeaderValue::from_static("upstream-session");
        let out = upstream(&client, Revision::V2025_11_25, None, Some(&session));
        assert_eq!(out[&SESSION_ID], "upstream-session");
        assert_eq!(out[&LAST_EVENT_ID], "7");
        assert_eq!(out[&PROTOCOL_VERSION], "2025-11-25");
        assert!(!out.contains_key(&METHOD) && !out.contains_key("mcp-param-region"));
    }

    #[test]
    fn challenge_cookies_and_session_of_the_upstream_stay_here() {
        let back = downstream(
            &map(&[
                ("content-type", "application/json"),
                ("www-authenticate", "Bearer"),
                ("set-cookie", "a=b"),
                ("mcp-session-id", "x"),
                ("connection", "close"),
                ("server", "x"),
            ]),
            false,
        );
        assert_eq!(
            back.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["content-type"]
        );
    }
}
