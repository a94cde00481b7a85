//! AWS Signature Version 4 over a final request.
//!
//! The secret is one text: the JSON that `aws sts assume-role --query
//! Credentials` and `aws configure export-credentials` print, or
//! `ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]`.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::{Algorithm, authority, hex, hmac_of, sha256_hex};
use crate::template::percent_encode;
use crate::time::Timestamp;

/// Headers that the host sets itself where a credential is signed so; lower
/// case.
pub const OWN_HEADERS: [&str; 4] = [
    "authorization",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
];

/// Headers that proxies may change on the way, or that the transport writes.
const UNSIGNED: [&str; 18] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "baggage",
    "cache-control",
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-amzn-trace-id",
];

/// Access key, secret key and, of temporary credentials, the session token.
pub(crate) struct AwsKeys<'a> {
    id: &'a str,
    secret: &'a str,
    session: Option<&'a str>,
}

/// As the AWS command line prints them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed<'a> {
    #[serde(borrow)]
    access_key_id: &'a str,
    #[serde(borrow)]
    secret_access_key: &'a str,
    #[serde(borrow, default)]
    session_token: Option<&'a str>,
}

impl<'a> AwsKeys<'a> {
    /// Reads them without copying; none if the text is neither form.
    pub(crate) fn read(secret: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(secret).ok()?.trim();
        let (id, secret, session) = if text.starts_with('{') {
            let printed: Printed<'a> = serde_json::from_str(text).ok()?;
            (
                printed.access_key_id,
                printed.secret_access_key,
                printed.session_token.filter(|t| !t.is_empty()),
            )
        } else {
            let mut parts = text.splitn(3, ':');
            (parts.next()?, parts.next()?, parts.next())
        };
        let plain =
            |text: &str| !text.is_empty() && text.bytes().all(|b| (b'!'..=b'~').contains(&b));
        let good = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && plain(id)
            && plain(secret)
            && session.is_none_or(plain);
        good.then_some(Self {
            id,
            secret,
            session,
        })
    }
}

/// For which service and region it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    service: String,
    region: String,
}

impl Target {
    /// None if one of the two is not a lower-case name.
    pub(crate) fn new(service: String, region: String) -> Option<Self> {
        let good = |text: &str| {
            (1..=64).contains(&text.len())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        (good(&service) && good(&region)).then_some(Self { service, region })
    }

    fn scope(&self, day: &str) -> String {
        format!("{day}/{}/{}/aws4_request", self.region, self.service)
    }

    /// Puts the signature's headers into `headers`, over all that is sent.
    ///
    /// None if a header holds what no text can say.
    pub(crate) fn sign(
        &self,
        keys: &AwsKeys<'_>,
        method: &http::Method,
        url: &Url,
        headers: &mut HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Option<()> {
        let time = basic_time(now)?;
        let payload = sha256_hex(body);
        headers.insert("x-amz-date", HeaderValue::from_str(&time).ok()?);
        headers.insert(
            "x-amz-content-sha256",
            HeaderValue::from_str(&payload).ok()?,
        );
        if let Some(session) = keys.session {
            let mut value = HeaderValue::from_str(session).ok()?;
            value.set_sensitive(true);
            headers.insert("x-amz-security-token", value);
        }
        let host = authority(url);
        let mut signed: Vec<(&str, &str)> = vec![("host", &host)];
        for (name, value) in headers.iter() {
            if !UNSIGNED.contains(&name.as_str()) {
                signed.push((name.as_str(), value.to_str().ok()?));
            }
        }
        // S3 takes a path as it is sent; the others encode it once more.
        let path = if self.service == "s3" {
            url.path().to_owned()
        } else {
            canonical_path(url.path())
        };
        let query = canonical_query(url.query().unwrap_or_default());
        let (request, names) = canonical_request(method.as_str(), &path, &query, &signed, &payload);
        let request = Zeroizing::new(request);
        let signature = self.signature(keys.secret, &time, &request);
        let day = time.get(..8)?;
        let mut value = HeaderValue::from_str(&format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={names}, Signature={signature}",
            keys.id,
            self.scope(day),
        ))
        .ok()?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static("authorization"), value);
        Some(())
    }

    fn signature(&self, secret: &str, time: &str, request: &str) -> String {
        let day = time.get(..8).unwrap_or_default();
        let mac = |key: &[u8], data: &str| hmac_of(Algorithm::HmacSha256, key, data.as_bytes());
        let start = Zeroizing::new(["AWS4".as_bytes(), secret.as_bytes()].concat());
        let mut key = mac(&start, day);
        for part in [self.region.as_str(), &self.service, "aws4_request"] {
            key = mac(&key, part);
        }
        hex(&mac(&key, &self.string_to_sign(time, request)))
    }

    fn string_to_sign(&self, time: &str, request: &str) -> String {
        let day = time.get(..8).unwrap_or_default();
        let digest = sha256_hex(request.as_bytes());
        format!("AWS4-HMAC-SHA256\n{time}\n{}\n{digest}", self.scope(day))
    }
}

/// `20150830T123600Z`.
fn basic_time(now: Timestamp) -> Option<String> {
    let text = now.to_string();
    let (date, rest) = text.split_once('T')?;
    let clock = rest.get(..8)?;
    let digits = |text: &str| {
        text.chars()
            .filter(char::is_ascii_digit)
            .collect::<String>()
    };
    Some(format!("{}T{}Z", digits(date), digits(clock)))
}

/// Empty and `.` segments are left out, `..` goes up, and what remains is
/// percent-encoded as it stands.
fn canonical_path(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut out = String::from("/");
    for (index, segment) in segments.iter().enumerate() {
        if index > 0 {
            out.push('/');
        }
        out.push_str(&encode(segment.as_bytes()));
    }
    let directory = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    if directory && !segments.is_empty() {
        out.push('/');
    }
    out
}

/// Decoded, encoded anew, in the order of names and values.
fn canonical_query(query: &str) -> String {
    let again = |text: &str| {
        let bytes: Vec<u8> = percent_decode(text.as_bytes());
        encode(&bytes)
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (again(name), again(value))
        })
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

fn encode(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&percent_encode(bytes)).into_owned()
}

/// A stray `%` stays one.
fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let digit = |b: &u8| char::from(*b).to_digit(16);
        let pair = match (first, tail) {
            (b'%', [a, b, ..]) => digit(a).zip(digit(b)),
            _ => None,
        };
        match pair {
            Some((high, low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

/// The canonical request, and the names of its signed headers.
fn canonical_request(
    method: &str,
    path: &str,
    query: &str,
    headers: &[(&str, &str)],
    payload: &str,
) -> (String, String) {
    let mut grouped: Vec<(String, Vec<String>)> = Vec::new();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        let value = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        match grouped.iter_mut().find(|(n, _)| *n == name) {
            Some((_, values)) => values.push(value),
            None => grouped.push((name, vec![value])),
        }
    }
    grouped.sort();
    let names: Vec<&str> = grouped.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let mut lines = String::new();
    for (name, values) in &grouped {
        lines.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    (
        format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}"),
        names,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AWS's published suite, but for one request with a folded header line,
    /// which HTTP no longer knows (RFC 9112 §5.2).
    #[test]
    fn every_vector_that_aws_published_comes_out_as_published() {
        let suite: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/sigv4_vectors.json")).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let target = Target::new(text(&suite["service"]), text(&suite["region"])).unwrap();
        let time = basic_time(Timestamp::parse(&text(&suite["time"])).unwrap()).unwrap();
        let vectors = suite["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 30);
        for vector in vectors {
            let name = text(&vector["name"]);
            let uri = text(&vector["uri"]);
            let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
            let headers: Vec<(&str, &str)> = vector["headers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|h| (h[0].as_str().unwrap(), h[1].as_str().unwrap()))
                .collect();
            let (request, names) = canonical_request(
                &text(&vector["method"]),
                &canonical_path(path),
                &canonical_query(query),
                &headers,
                &sha256_hex(text(&vector["body"]).as_bytes()),
            );
            assert_eq!(request, text(&vector["canonical_request"]), "{name}");
            assert_eq!(
                target.string_to_sign(&time, &request),
                text(&vector["string_to_sign"]),
                "{name}"
            );
            let secret = text(&suite["secret_access_key"]);
            let authorization = format!(
                "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={names}, Signature={}",
                text(&suite["access_key_id"]),
                target.scope(&time[..8]),
                target.signature(&secret, &time, &request)
            );
            assert_eq!(authorization, text(&vector["authorization"]), "{name}");
        }
    }

    #[test]
    fn keys_are_read_as_aws_prints_them_or_in_one_line() {
        let read = |text: &'static str| {
            AwsKeys::read(text.as_bytes()).map(|k| (k.id, k.secret, k.session))
        };
        let printed = r#"{"Version":1,"AccessKeyId":"AKID","SecretAccessKey":"se/cr+et","SessionToken":"to=ken","Expiration":"2026-01-01T00:00:00Z"}"#;
        assert_eq!(read(printed), Some(("AKID", "se/cr+et", Some("to=ken"))));
        assert_eq!(
            read(r#"{"AccessKeyId":"AKID","SecretAccessKey":"s","SessionToken":null}"#),
            Some(("AKID", "s", None))
        );
        assert_eq!(read("AKID:secret\n"), Some(("AKID", "secret", None)));
        assert_eq!(
            read("AKID:secret:to:ken"),
            Some(("AKID", "secret", Some("to:ken")))
        );
        for bad in [
            "",
            "AKID",
            "AKID:",
            ":secret",
            "AK ID:secret",
            "AKID:se cret",
            "{}",
            "[]",
            r#"{"AccessKeyId":"AKID"}"#,
            "AKID:secret:",
            "AK,ID:secret",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert_eq!(AwsKeys::read(&[0xff, b':', b'a']).map(|_| ()), None);
    }

    #[test]
    fn the_whole_request_is_signed_and_marked() {
        let keys = AwsKeys::read(b"AKID:secret:session").unwrap();
        let target = Target::new("execute-api".into(), "eu-west-1".into()).unwrap();
        let url = Url::parse("https://api.example.com/mcp%20x?b=2&a=1").unwrap();
        let now = Timestamp::parse("2026-11-21T09:30:05.900Z").unwrap();
        let sign = |body: &[u8], url: &Url| {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", HeaderValue::from_static("application/json"));
            headers.insert("accept", HeaderValue::from_static("application/json"));
            headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
            target
                .sign(&keys, &http::Method::POST, url, &mut headers, body, now)
                .unwrap();
            headers
        };
        let headers = sign(b"{}", &url);
        assert_eq!(headers["x-amz-date"], "20261121T093005Z");
        let authorization = headers["authorization"].to_str().unwrap();
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKID/20261121/eu-west-1/execute-api/aws4_request, SignedHeaders=content-type;host;mcp-method;x-amz-content-sha256;x-amz-date;x-amz-security-token, Signature="), "{authorization}");
        assert!(headers["authorization"].is_sensitive());
        assert!(headers["x-amz-security-token"].is_sensitive());
        // Another body, another path: another signature.
        assert_ne!(sign(b"[]", &url)["authorization"], headers["authorization"]);
        let other = Url::parse("https://api.example.com/mcp?b=2&a=1").unwrap();
        assert_ne!(
            sign(b"{}", &other)["authorization"],
            headers["authorization"]
        );
    }

    #[test]
    fn a_path_is_encoded_once_more_but_for_s3() {
        assert_eq!(canonical_path("/a%20b"), "/a%2520b");
        assert_eq!(canonical_query("b=%2B&a=x%20y&a=%"), "a=%25&a=x%20y&b=%2B");
        assert_eq!(Target::new("S3".into(), "us-east-1".into()), None);
        assert_eq!(Target::new("s3".into(), String::new()), None);
    }
}
