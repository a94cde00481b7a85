//! Signatures made with keys that never leave this crate.
//!
//! The hook `sign` is told about the final request and answers with a
//! [`Recipe`]: which HMACs to take of the credential, and in which headers they
//! go. It holds handles and no bytes; the HMACs are computed here, when the
//! request is filled. Signatures the field has standardised are [`sigv4`]'s.

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use url::Url;
use zeroize::Zeroizing;

use crate::inject::{is_forbidden_header, is_header_text};
use crate::preset::Slot;
use crate::template::{Slots, slot_name};
use crate::time::Timestamp;

pub(crate) mod sigv4;

pub use sigv4::OWN_HEADERS as AWS_SIGNATURE_HEADERS;

/// Most HMACs of one signature: chains are a handful long.
pub const MOST_STEPS: usize = 64;
/// Most bytes of all data of one signature's HMACs.
pub const MOST_DATA: usize = 256 << 10;

/// A request that is about to be signed, as a preset sees it: final, and
/// without anything secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsigned {
    /// The HTTP method.
    pub method: String,
    /// As the `Host` header has it: with a port that is not the default.
    pub host: String,
    /// As sent, percent-encoded.
    pub path: String,
    /// Decoded, in order.
    pub query: Vec<(String, String)>,
    /// Lower-case names. Neither those that carry a credential nor the session
    /// id are among them.
    pub headers: Vec<(String, String)>,
    /// Lower-case hexadecimal SHA-256 of the body.
    pub body_sha256: String,
    /// Seconds since the epoch.
    pub time: u64,
}

impl Unsigned {
    pub(crate) fn of(
        method: &http::Method,
        url: &Url,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Self {
        let shown = |(name, value): (&HeaderName, &HeaderValue)| {
            if value.is_sensitive() || name.as_str() == "mcp-session-id" {
                return None;
            }
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        };
        Self {
            method: method.as_str().to_owned(),
            host: authority(url),
            path: url.path().to_owned(),
            query: url.query_pairs().into_owned().collect(),
            headers: headers.iter().filter_map(shown).collect(),
            body_sha256: sha256_hex(body),
            time: u64::try_from(now.as_secs()).unwrap_or_default(),
        }
    }
}

/// The `Host` header of a request to this URL.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// The hash function under an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA-256.
    HmacSha256,
    /// HMAC-SHA-1, which some providers still want.
    HmacSha1,
    /// HMAC-SHA-512.
    HmacSha512,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureText {
    /// Lower-case hexadecimal.
    Hex,
    /// RFC 4648 §4, with padding.
    Base64,
    /// RFC 4648 §5, without padding.
    Base64Url,
}

/// A key that nobody outside sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The credential in use.
    Credential,
    /// What this step of the recipe makes.
    Made(usize),
}

/// One HMAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// With this key: the credential's, or an earlier step's.
    pub key: Key,
    /// Of this kind.
    pub algorithm: Algorithm,
    /// Over these bytes.
    pub data: Vec<u8>,
}

/// One piece of a signed header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedPart {
    /// Text, taken as it is.
    Literal(String),
    /// A secret the host fills in.
    Slot(Slot),
    /// What a step made.
    Signature(Key, SignatureText),
}

/// A header that carries a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Vec<SignedPart>,
}

/// How a request is to be signed: what the hook `sign` answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipe {
    /// In order: each may use those before it.
    pub steps: Vec<Step>,
    /// The headers to set.
    pub headers: Vec<SignedHeader>,
}

impl Recipe {
    /// Checks everything that can be checked without a key.
    ///
    /// # Errors
    /// What is wrong, in words for the preset's author.
    pub fn check(&self) -> Result<(), String> {
        let data: usize = self.steps.iter().map(|s| s.data.len()).sum();
        if self.steps.len() > MOST_STEPS || data > MOST_DATA {
            return Err(format!(
                "a signature takes more than {MOST_STEPS} HMACs or {MOST_DATA} bytes of data"
            ));
        }
        for (index, step) in self.steps.iter().enumerate() {
            if let Key::Made(other) = step.key
                && other >= index
            {
                return Err("a key is used before it is made".into());
            }
        }
        let mut names: Vec<HeaderName> = Vec::new();
        for header in &self.headers {
            let name = HeaderName::from_bytes(header.name.as_bytes())
                .map_err(|_| format!("{:?} is not a header name", header.name))?;
            if is_forbidden_header(name.as_str()) {
                return Err(format!("the header {name} may not be set"));
            }
            for part in &header.value {
                self.check_part(&name, part)?;
            }
            if names.contains(&name) {
                return Err(format!("the header {name} is signed twice"));
            }
            names.push(name);
        }
        Ok(())
    }

    fn check_part(&self, name: &HeaderName, part: &SignedPart) -> Result<(), String> {
        match part {
            SignedPart::Literal(text) if !is_header_text(text.as_bytes()) => Err(format!(
                "the header {name} holds a character that is not allowed"
            )),
            SignedPart::Slot(slot) if !matches!(slot, Slot::AccessToken | Slot::ApiKey) => {
                Err(format!(
                    "header {name}: the {} may not go to an MCP server",
                    slot_name(slot)
                ))
            }
            // The key itself is no signature.
            SignedPart::Signature(Key::Credential, _) => {
                Err(format!("the header {name} would carry the key itself"))
            }
            SignedPart::Signature(Key::Made(index), _) if *index >= self.steps.len() => {
                Err(format!("the header {name} carries a signature nobody made"))
            }
            _ => Ok(()),
        }
    }

    /// Computes the HMACs and writes the headers.
    ///
    /// # Errors
    /// The secret that is not there, or what [`Self::check`] says.
    pub(crate) fn fill(
        &self,
        key: &[u8],
        slots: &dyn Slots,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
        self.check().map_err(SignError::Recipe)?;
        let mut made: Vec<Zeroizing<Vec<u8>>> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let key = match step.key {
                Key::Credential => key,
                Key::Made(index) => made.get(index).map_or(&[][..], |k| k),
            };
            let bytes = hmac_of(step.algorithm, key, &step.data);
            made.push(bytes);
        }
        let value = |parts: &[SignedPart]| {
            let mut out = Zeroizing::new(Vec::with_capacity(8192));
            for part in parts {
                match part {
                    SignedPart::Literal(text) => out.extend_from_slice(text.as_bytes()),
                    SignedPart::Slot(slot) => out.extend_from_slice(
                        slots
                            .bytes(slot)
                            .ok_or(SignError::Missing(slot_name(slot)))?,
                    ),
                    SignedPart::Signature(Key::Made(index), text) => {
                        let bytes = made.get(*index).map_or(&[][..], |k| k);
                        out.extend_from_slice(written(bytes, *text).as_bytes());
                    }
                    SignedPart::Signature(Key::Credential, _) => {}
                }
            }
            if !is_header_text(&out) {
                return Err(SignError::Unusable);
            }
            let mut value = HeaderValue::from_bytes(&out).map_err(|_| SignError::Unusable)?;
            value.set_sensitive(true);
            Ok(value)
        };
        self.headers
            .iter()
            .map(|header| {
                let name = HeaderName::from_bytes(header.name.as_bytes())
                    .map_err(|_| SignError::Unusable)?;
                Ok((name, value(&header.value)?))
            })
            .collect()
    }
}

/// Why a signature could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignError {
    /// The preset's recipe is wrong.
    Recipe(String),
    /// A slot has nothing to fill it.
    Missing(&'static str),
    /// What comes out cannot stand in a header.
    Unusable,
}

fn hmac_of(algorithm: Algorithm, key: &[u8], data: &[u8]) -> Zeroizing<Vec<u8>> {
    fn with<M: Mac + KeyInit>(key: &[u8], data: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut mac = <M as KeyInit>::new_from_slice(key)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        mac.update(data);
        Zeroizing::new(mac.finalize().into_bytes().to_vec())
    }
    match algorithm {
        Algorithm::HmacSha256 => with::<Hmac<Sha256>>(key, data),
        Algorithm::HmacSha1 => with::<Hmac<Sha1>>(key, data),
        Algorithm::HmacSha512 => with::<Hmac<Sha512>>(key, data),
    }
}

fn written(bytes: &[u8], text: SignatureText) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    match text {
        SignatureText::Hex => hex(bytes),
        SignatureText::Base64 => STANDARD.encode(bytes),
        SignatureText::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
    }
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
            let _ = write!(out, "{b:02x}");
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Token;
    impl Slots for Token {
        fn bytes(&self, slot: &Slot) -> Option<&[u8]> {
            (*slot == Slot::AccessToken).then_some(b"token".as_slice())
        }
    }

    fn step(key: Key, algorithm: Algorithm, data: &[u8]) -> Step {
        Step {
            key,
            algorithm,
            data: data.to_vec(),
        }
    }

    fn header(name: &str, value: Vec<SignedPart>) -> SignedHeader {
        SignedHeader {
            name: name.into(),
            value,
        }
    }

    /// RFC 4231 §4.3 and RFC 2202 §3, test case 2.
    #[test]
    fn signatures_are_the_published_ones() {
        let data = b"what do ya want for nothing?";
        let cases = [
            (
                Algorithm::HmacSha256,
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                Algorithm::HmacSha1,
                "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
            ),
            (
                Algorithm::HmacSha512,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ];
        for (algorithm, expected) in cases {
            let recipe = Recipe {
                steps: vec![step(Key::Credential, algorithm, data)],
                headers: vec![header(
                    "x-signature",
                    vec![
                        SignedPart::Literal("v1=".into()),
                        SignedPart::Signature(Key::Made(0), SignatureText::Hex),
                    ],
                )],
            };
            let headers = recipe.fill(b"Jefe", &Token).unwrap();
            assert_eq!(headers[0].1, format!("v1={expected}"));
            assert!(headers[0].1.is_sensitive());
        }
    }

    #[test]
    fn a_signature_serves_as_the_next_key() {
        let recipe = Recipe {
            steps: vec![
                step(Key::Credential, Algorithm::HmacSha256, b"day"),
                step(Key::Made(0), Algorithm::HmacSha256, b"request"),
            ],
            headers: vec![header(
                "authorization",
                vec![
                    SignedPart::Slot(Slot::AccessToken),
                    SignedPart::Literal(":".into()),
                    SignedPart::Signature(Key::Made(1), SignatureText::Base64),
                ],
            )],
        };
        let day = hmac_of(Algorithm::HmacSha256, b"key", b"day");
        let expected = written(
            &hmac_of(Algorithm::HmacSha256, &day, b"request"),
            SignatureText::Base64,
        );
        let headers = recipe.fill(b"key", &Token).unwrap();
        assert_eq!(headers[0].1, format!("token:{expected}"));
    }

    #[test]
    fn a_recipe_that_would_send_a_key_or_break_a_request_is_refused() {
        let signature = |key| vec![SignedPart::Signature(key, SignatureText::Hex)];
        let literal = |text: &str| vec![SignedPart::Literal(text.into())];
        let good = step(Key::Credential, Algorithm::HmacSha256, b"x");
        let cases = [
            (
                vec![],
                header("x-a", signature(Key::Credential)),
                "the key itself",
            ),
            (
                vec![],
                header("x-a", signature(Key::Made(0))),
                "nobody made",
            ),
            (
                vec![step(Key::Made(0), Algorithm::HmacSha1, b"")],
                header("x-a", literal("b")),
                "before it is made",
            ),
            (
                vec![good.clone()],
                header("host", literal("b")),
                "may not be set",
            ),
            (
                vec![good.clone()],
                header("x a", literal("b")),
                "not a header name",
            ),
            (
                vec![good.clone()],
                header("x-a", literal("b\r\nc: d")),
                "not allowed",
            ),
            (
                vec![good.clone()],
                header("x-a", vec![SignedPart::Slot(Slot::ClientSecret)]),
                "client secret may not",
            ),
            (
                vec![good; MOST_STEPS + 1],
                header("x-a", literal("b")),
                "more than",
            ),
        ];
        for (steps, header, words) in cases {
            let recipe = Recipe {
                steps,
                headers: vec![header],
            };
            let why = recipe.check().unwrap_err();
            assert!(why.contains(words), "{why}");
            assert_eq!(recipe.fill(b"k", &Token), Err(SignError::Recipe(why)));
        }
        let twice = Recipe {
            steps: vec![],
            headers: vec![header("X-A", literal("b")), header("x-a", literal("c"))],
        };
        assert!(twice.check().unwrap_err().contains("twice"));
        let missing = Recipe {
            steps: vec![],
            headers: vec![header("x-a", vec![SignedPart::Slot(Slot::ApiKey)])],
        };
        assert_eq!(
            missing.fill(b"k", &Token),
            Err(SignError::Missing("API key"))
        );
    }

    #[test]
    fn what_a_preset_sees_of_a_request_holds_no_credential_and_no_session() {
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", HeaderValue::from_static("acme"));
        headers.insert("mcp-session-id", HeaderValue::from_static("s-1"));
        let mut secret = HeaderValue::from_static("hush");
        secret.set_sensitive(true);
        headers.insert("x-key", secret);
        let url = Url::parse("https://api.example.com:8443/a%20b?q=1&r=%2B").unwrap();
        let shown = Unsigned::of(
            &http::Method::POST,
            &url,
            &headers,
            b"",
            Timestamp::from_secs(7),
        );
        assert_eq!(
            shown,
            Unsigned {
                method: "POST".into(),
                host: "api.example.com:8443".into(),
                path: "/a%20b".into(),
                query: vec![("q".into(), "1".into()), ("r".into(), "+".into())],
                headers: vec![("x-tenant".into(), "acme".into())],
                body_sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
                    .into(),
                time: 7,
            }
        );
    }
}
