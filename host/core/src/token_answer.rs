//! What a provider's token endpoint answered, read as its preset describes it.
//!
//! The answer is full of secrets: it is kept in zeroizing memory, has no
//! `Debug`, and errors about it never repeat any of it but a known error code.

use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;
use zeroize::{Zeroize as _, Zeroizing};

use crate::connection::TokenFacts;
use crate::preset::{
    AnswerShape, Check, Description, Expiry, Pointer, Source, TimeFormat, TokenShape, ValueKind,
};
use crate::request::scope_parameters;
use crate::scope::{Scope, ScopeSet};
use crate::secret::{Sealed, Secret};
use crate::template::{check, scalar_text};
use crate::time::Timestamp;
use crate::tokens::{CredentialTokens, TokenSet};

/// An HTTP answer of a provider. It has no `Debug`.
pub struct Answer {
    status: u16,
    is_form: bool,
    body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// Takes an answer over.
    #[must_use]
    pub fn new(status: u16, content_type: Option<&str>, body: Vec<u8>) -> Self {
        let is_form = content_type
            .and_then(|t| t.split(';').next())
            .is_some_and(|t| t.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"));
        Self { status, is_form, body: Zeroizing::new(body) }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    fn tree(&self, may_be_form: bool) -> Option<Tree> {
        match serde_json::from_slice::<Strict>(&self.body) {
            Ok(Strict(value)) => Some(Tree(value)),
            Err(_) if self.is_form || may_be_form => self.form(),
            Err(_) => None,
        }
    }

    fn form(&self) -> Option<Tree> {
        // HTML and other prose is not a form.
        let text = std::str::from_utf8(&self.body).ok()?;
        if text.is_empty() || !text.contains('=') || text.contains(['<', '{', '\n', ' ']) {
            return None;
        }
        let mut members = serde_json::Map::new();
        for (name, value) in url::form_urlencoded::parse(&self.body) {
            members.insert(name.into_owned(), Value::String(value.into_owned()));
        }
        Some(Tree(Value::Object(members)))
    }
}

/// A parsed body, zeroized on drop.
struct Tree(Value);

impl Drop for Tree {
    fn drop(&mut self) {
        fn wipe(value: &mut Value) {
            match value {
                Value::String(text) => text.zeroize(),
                Value::Array(items) => items.iter_mut().for_each(wipe),
                Value::Object(members) => members.values_mut().for_each(wipe),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        wipe(&mut self.0);
    }
}

impl Tree {
    fn first(&self, pointers: &[Pointer]) -> Option<&Value> {
        pointers.iter().filter_map(|p| self.0.pointer(p)).find(|v| !v.is_null())
    }

    fn first_text(&self, pointers: &[Pointer]) -> Option<&str> {
        pointers
            .iter()
            .filter_map(|p| self.0.pointer(p))
            .filter_map(Value::as_str)
            .find(|text| !text.is_empty())
    }
}

/// A JSON value in which no object names a member twice.
struct Strict(Value);

impl<'de> serde::Deserialize<'de> for Strict {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Strict;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON without duplicate members")
            }
            fn visit_unit<E>(self) -> Result<Strict, E> {
                Ok(Strict(Value::Null))
            }
            fn visit_bool<E>(self, v: bool) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_str<E>(self, v: &str) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
                let mut items = Vec::new();
                while let Some(Strict(item)) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Strict(Value::Array(items)))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
                let mut members = serde_json::Map::new();
                while let Some((name, Strict(value))) = map.next_entry::<String, Strict>()? {
                    if members.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a member appears twice"));
                    }
                }
                Ok(Strict(Value::Object(members)))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Why an answer holds no tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The provider refused.
    #[error("the provider refused: {}", code.as_deref().unwrap_or("it gave no known error code"))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// An error code, if it is a known one or looks like one.
        code: Option<String>,
    },
    /// It is not what the preset describes.
    #[error("the provider's answer (HTTP status {status}) is not what its preset describes: {what}")]
    Unreadable {
        /// The HTTP status.
        status: u16,
        /// Which part, in the host's own words.
        what: String,
    },
}

/// What is needed to read an answer.
pub struct Reading<'a> {
    /// What the preset says.
    pub description: &'a Description,
    /// Token shapes found by the hook `token-answer`, in place of described
    /// ones.
    pub shapes: Option<&'a [TokenShape]>,
    /// What was asked: granted, if the answer does not say.
    pub asked: &'a ScopeSet,
    /// When the answer came.
    pub now: Timestamp,
    /// Nothing captured may be a piece of it.
    pub client_secret: Option<&'a Sealed>,
    /// In a refresh, the one credential renewed.
    pub only: Option<&'a str>,
}

/// What an answer granted.
pub struct Granted {
    /// The secrets.
    pub tokens: TokenSet,
    /// Their facts, in the same order.
    pub facts: Vec<TokenFacts>,
    /// Metadata and variables captured from the answer, checked.
    pub captured: Vec<(String, String)>,
}

/// Reads a token answer: error before status, then each credential's tokens.
///
/// # Errors
/// [`AnswerError`]; the answer is not repeated.
pub fn read(answer: &Answer, reading: &Reading<'_>) -> Result<Granted, AnswerError> {
    let shape = &reading.description.token_answer;
    let unreadable = |what: &str| AnswerError::Unreadable { status: answer.status, what: what.to_owned() };
    let tree = judge(answer, shape, &reading.description.known_codes())?;
    let default = [default_shape(reading.description)];
    let shapes = match reading.shapes.unwrap_or(&reading.description.token_shapes) {
        [] => &default[..],
        shapes => shapes,
    };
    let asked = scope_parameters(reading.description, reading.asked);
    let mut tokens = TokenSet::default();
    let mut facts = Vec::new();
    for shape in shapes.iter().filter(|s| reading.only.is_none_or(|only| s.credential == only)) {
        let taken = tokens.credentials.iter().any(|c| c.credential == shape.credential);
        if taken || !shape.when.iter().all(|check| holds(check, &tree.0)) {
            continue;
        }
        let mut pointers = shape.access_token.clone();
        let mut refresh_pointers = shape.refresh_token.clone();
        if reading.only.is_some() {
            // A refresh answers flat even where the first answer was nested.
            pointers.push("/access_token".into());
            refresh_pointers.push("/refresh_token".into());
        }
        let Some(access) = tree.first_text(&pointers) else {
            if shape.optional && reading.only.is_none() {
                continue;
            }
            return Err(unreadable(&format!("it holds no access token for {:?}", shape.credential)));
        };
        let refresh = tree.first_text(&refresh_pointers);
        let for_this = |credential: Option<&str>| credential.is_none_or(|c| c == shape.credential);
        let as_asked = || match reading.only {
            Some(_) => reading.asked.clone(),
            None if asked.is_empty() => ScopeSet::default(),
            None => asked
                .iter()
                .filter(|p| for_this(p.credential.as_deref()))
                .flat_map(|p| p.scopes.iter().cloned())
                .collect(),
        };
        facts.push(TokenFacts {
            credential: shape.credential.clone(),
            scopes: tree
                .first(&shape.scopes)
                .and_then(|v| granted_scopes(v, &shape.scope_separators))
                .unwrap_or_else(as_asked),
            issued_at: reading.now,
            expires_at: ends(&tree, &shape.expires, access, reading.now),
            refresh_token_present: refresh.is_some(),
            refresh_token_expires_at: refresh
                .and_then(|token| ends(&tree, &shape.refresh_expires, token, reading.now)),
        });
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        tokens.credentials.push(CredentialTokens {
            credential: shape.credential.clone(),
            access_token: secret(access),
            refresh_token: refresh.map(secret),
            id_token: tree.first_text(&shape.id_token).map(secret),
        });
    }
    if facts.is_empty() {
        return Err(unreadable("it holds no access token"));
    }
    let guard = SecretGuard::new(&tokens, reading.client_secret);
    let mut captured = capture_metadata(&tree, reading.description, &guard);
    if reading.only.is_none() {
        for variable in &reading.description.variables {
            let Source::TokenAnswer(pointer) = &variable.source else { continue };
            match checked_value(tree.0.pointer(pointer), &variable.kind, &guard) {
                Some(value) => captured.push((variable.name.clone(), value)),
                None if variable.required && variable.default_value.is_none() => {
                    return Err(unreadable(&format!("it lacks a usable {}", variable.name)));
                }
                None => {}
            }
        }
    }
    Ok(Granted { tokens, facts, captured })
}

/// Looks at the described checks and error codes, then at the status.
fn judge(answer: &Answer, shape: &AnswerShape, known: &[&str]) -> Result<Tree, AnswerError> {
    let status = answer.status;
    let Some(tree) = answer.tree(shape.may_be_form) else {
        return Err(AnswerError::Unreadable { status, what: "it is neither JSON nor a form".into() });
    };
    let default = ["/error".to_owned()];
    let pointers = if shape.error_code.is_empty() { &default[..] } else { &shape.error_code };
    let raw = tree.first_text(pointers);
    let checks_hold = shape.success_checks.iter().all(|c| holds(c, &tree.0));
    if raw.is_some() || !checks_hold || !is_good_status(shape, status) {
        let code = raw.and_then(|code| error_code(code, known));
        return Err(AnswerError::Refused { status, code });
    }
    Ok(tree)
}

fn is_good_status(shape: &AnswerShape, status: u16) -> bool {
    if shape.success_codes.is_empty() {
        (200..300).contains(&status)
    } else {
        shape.success_codes.contains(&status)
    }
}

fn holds(check: &Check, tree: &Value) -> bool {
    let present = |pointer: &Pointer| tree.pointer(pointer).filter(|v| !v.is_null());
    match check {
        Check::Equals(pointer, text) => present(pointer).and_then(scalar_text).as_ref() == Some(text),
        Check::Present(pointer) => present(pointer).is_some(),
        Check::Absent(pointer) => present(pointer).is_none(),
    }
}

/// Error codes of RFC 6749 §4.1.2.1 and §5.2, RFC 7009, RFC 8628, RFC 8707 and
/// OpenID Connect.
const CODES: [&str; 22] = [
    "access_denied",
    "account_selection_required",
    "authorization_pending",
    "consent_required",
    "expired_token",
    "interaction_required",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "invalid_token",
    "login_required",
    "request_not_supported",
    "server_error",
    "slow_down",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_response_type",
    "unsupported_token_type",
    "insufficient_scope",
];

/// An error code of the provider, if it is a registered one, one the preset
/// names, or plain words: nothing else a provider writes is ever repeated.
#[must_use]
pub fn error_code(code: &str, known: &[&str]) -> Option<String> {
    let words = (3..=48).contains(&code.len())
        && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        && code.split('_').all(|word| (1..=16).contains(&word.len()));
    (CODES.contains(&code) || known.contains(&code) || words).then(|| code.to_owned())
}

impl Description {
    /// Error codes that the preset names.
    #[must_use]
    pub fn known_codes(&self) -> Vec<&str> {
        let advice = self.error_advice.iter().map(|a| &a.code);
        let refresh = self.refresh.permanent_errors.iter().chain(&self.refresh.transient_errors);
        advice.chain(refresh).map(String::as_str).collect()
    }

    /// The sentence for a person, if the preset has one for this code.
    #[must_use]
    pub fn advice(&self, code: &str) -> Option<&str> {
        self.error_advice.iter().find(|a| a.code == code).map(|a| a.advice.as_str())
    }
}

/// The shape of RFC 6749 §5.1, for the first credential.
fn default_shape(description: &Description) -> TokenShape {
    let credential = description.credentials.first().map_or("default", |c| &c.name);
    let pointer = |name: &str| vec![format!("/{name}")];
    TokenShape {
        credential: credential.to_owned(),
        when: vec![],
        optional: false,
        access_token: pointer("access_token"),
        refresh_token: pointer("refresh_token"),
        id_token: pointer("id_token"),
        expires: vec![Expiry::Lifetime("/expires_in".into())],
        refresh_expires: vec![],
        scopes: pointer("scope"),
        scope_separators: vec![],
    }
}

fn granted_scopes(value: &Value, separators: &[String]) -> Option<ScopeSet> {
    match value {
        Value::String(text) => Some(ScopeSet::split(text, separators)),
        Value::Array(items) => {
            Some(items.iter().filter_map(Value::as_str).filter_map(|s| Scope::parse(s).ok()).collect())
        }
        _ => None,
    }
}

/// The first source of an end that has a value. Ten years at most.
fn ends(tree: &Tree, sources: &[Expiry], token: &str, now: Timestamp) -> Option<Timestamp> {
    const LONGEST: u64 = 10 * 366 * 86_400;
    let after = |secs: u64| now.plus(Duration::from_secs(secs.min(LONGEST)));
    for source in sources {
        let found = match source {
            // Zero means "no end" where it occurs (Keycloak's offline tokens).
            Expiry::Lifetime(pointer) => {
                tree.0.pointer(pointer).and_then(number).filter(|n| *n >= 1.0).map(|n| after(n as u64))
            }
            Expiry::Absolute(pointer, format) => tree.0.pointer(pointer).and_then(|v| match format {
                TimeFormat::UnixSeconds => number(v).map(|n| Timestamp::from_secs(n as i64)),
                TimeFormat::UnixMilliseconds => number(v).map(|n| Timestamp::from_millis(n as i64)),
                TimeFormat::Rfc3339 => v.as_str().and_then(Timestamp::parse),
            }),
            Expiry::JwtClaim => jwt_end(token),
            // RFC 7662 introspection is not asked in this version: the token
            // counts as without a known end, and a 401 renews it.
            Expiry::Introspection => None,
            Expiry::Constant(secs) => Some(after(u64::from(*secs))),
            Expiry::Never => return None,
        };
        if let Some(end) = found {
            return Some(end.min(after(LONGEST)));
        }
    }
    None
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(n) => n.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (number.is_finite() && number > 0.0).then_some(number)
}

/// The `exp` claim, unverified: it only says when to renew (RFC 7519 §4.1.4).
fn jwt_end(token: &str) -> Option<Timestamp> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: f64,
    }
    let payload = token.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&Zeroizing::new(bytes)).ok()?;
    (claims.exp.is_finite() && claims.exp > 0.0).then(|| Timestamp::from_secs(claims.exp as i64))
}

/// The secrets that nothing captured may overlap.
pub struct SecretGuard<'a> {
    tokens: &'a TokenSet,
    client_secret: Option<Secret>,
    /// A client secret that cannot be opened cannot be compared either.
    blind: bool,
}

impl<'a> SecretGuard<'a> {
    /// Guards these tokens and the client secret.
    #[must_use]
    pub fn new(tokens: &'a TokenSet, client_secret: Option<&Sealed>) -> Self {
        let opened = client_secret.map(Sealed::open).transpose();
        let blind = opened.is_err();
        Self { tokens, client_secret: opened.ok().flatten(), blind }
    }

    /// Whether the text may be kept and shown.
    #[must_use]
    pub fn admits(&self, text: &str) -> bool {
        !self.blind
            && !self.tokens.overlap(text)
            && !self.client_secret.as_ref().is_some_and(|s| s.overlaps(text))
    }
}

/// A value that fits its kind and is no piece of a secret.
#[must_use]
pub fn checked_value(value: Option<&Value>, kind: &ValueKind, guard: &SecretGuard<'_>) -> Option<String> {
    let text = scalar_text(value?)?;
    guard.admits(&text).then(|| check(kind, &text).ok()).flatten()
}

/// A JSON scalar as text; none for null, arrays and objects.
#[must_use]
pub fn text_of(value: &Value) -> Option<String> {
    scalar_text(value)
}

fn capture_metadata(tree: &Tree, description: &Description, guard: &SecretGuard<'_>) -> Vec<(String, String)> {
    let found = description.metadata.iter().filter_map(|m| {
        checked_value(tree.0.pointer(&m.pointer), &m.kind, guard).map(|value| (m.name.clone(), value))
    });
    found.collect()
}

/// Reads a plain (identity or follow-up) answer: JSON that passes its shape's
/// checks.
///
/// # Errors
/// As [`read`].
pub fn read_plain(answer: &Answer, shape: &AnswerShape, known: &[&str]) -> Result<PlainAnswer, AnswerError> {
    judge(answer, shape, known).map(PlainAnswer)
}

/// Whether an answer that need not have a body (of a revocation) says that it
/// worked.
///
/// # Errors
/// As [`read`].
pub fn succeeded(answer: &Answer, shape: &AnswerShape, known: &[&str]) -> Result<(), AnswerError> {
    match judge(answer, shape, known) {
        Ok(_) => Ok(()),
        Err(AnswerError::Unreadable { status, .. })
            if shape.success_checks.is_empty() && is_good_status(shape, status) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// An answer that is not supposed to hold secrets, but might. No `Debug`.
pub struct PlainAnswer(Tree);

impl PlainAnswer {
    /// The value at a pointer.
    #[must_use]
    pub fn value(&self, pointer: &str) -> Option<&Value> {
        self.0.0.pointer(pointer)
    }
}

/// The body for a hook: every string leaf as `****` and its length, but for
/// those at `keep`. `{}` for what is neither JSON nor a form.
#[must_use]
pub fn masked_body(answer: &Answer, may_be_form: bool, keep: &[Pointer]) -> String {
    fn mask(value: &Value, path: &str, keep: &[Pointer]) -> Value {
        match value {
            Value::String(_) if keep.iter().any(|k| k == path) => value.clone(),
            Value::String(text) => format!("****{}", text.len()).into(),
            Value::Array(items) => {
                items.iter().enumerate().map(|(i, v)| mask(v, &format!("{path}/{i}"), keep)).collect()
            }
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(name, v)| {
                        let step = name.replace('~', "~0").replace('/', "~1");
                        (name.clone(), mask(v, &format!("{path}/{step}"), keep))
                    })
                    .collect(),
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
    answer.tree(may_be_form).map_or_else(|| "{}".to_owned(), |tree| mask(&tree.0, "", keep).to_string())
}
