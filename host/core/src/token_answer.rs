//! What a provider's token endpoint answered, read as its preset describes it.
//!
//! The answer is full of secrets: it is kept in zeroizing memory, has no
//! `Debug`, and errors about it never repeat any of it but a known error code.

use serde_json::Value;

use crate::connection::TokenFacts;
use crate::preset::{AnswerShape, Check, Description, Expiry, Pointer, Source, TokenShape};
use crate::request::scope_parameters;
use crate::scope::{Implications, Scope, ScopeSet};
use crate::secret::{Sealed, Secret};
use crate::template::scalar_text;
use crate::time::Timestamp;
use crate::tokens::{CredentialTokens, TokenSet};
use crate::veil::Veil;

mod body;
mod capture;
mod device;
mod expiry;

use body::Tree;
pub use body::{Answer, masked_body};
use capture::capture_metadata;
pub use capture::{SecretGuard, checked_value, text_of};
pub use device::{DeviceGrant, read_device_grant};
use expiry::ends;

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
    #[error(
        "the provider's answer (HTTP status {status}) is not what its preset describes: {what}"
    )]
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
    let unreadable = |what: &str| AnswerError::Unreadable {
        status: answer.status,
        what: what.to_owned(),
    };
    let tree = judge(answer, shape, &reading.description.known_codes())?;
    let shapes = shapes_to_try(reading);
    let asked = scope_parameters(reading.description, reading.asked);
    let mut tokens = TokenSet::default();
    let mut facts: Vec<TokenFacts> = Vec::new();
    let mut lacking = Vec::new();
    for shape in shapes
        .iter()
        .filter(|s| s.when.iter().all(|c| holds(c, &tree.0)))
    {
        if facts.iter().any(|f| f.credential == shape.credential) {
            continue;
        }
        let Some(access) = tree.first_text(&shape.access_token) else {
            if !shape.optional {
                lacking.push(&shape.credential);
            }
            continue;
        };
        let refresh = tree.first_text(&shape.refresh_token);
        let for_this = |credential: Option<&str>| credential.is_none_or(|c| c == shape.credential);
        let as_asked = || match reading.only {
            Some(_) => reading.asked.clone(),
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
            refresh_token_end_is_fixed: false,
            renewal_lost_at: None,
        });
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        tokens.credentials.push(CredentialTokens {
            credential: shape.credential.clone(),
            access_token: secret(access),
            refresh_token: refresh.map(secret),
            id_token: tree.first_text(&shape.id_token).map(secret),
        });
    }
    if let Some(credential) = lacking
        .iter()
        .find(|c| !facts.iter().any(|f| f.credential == ***c))
    {
        return Err(unreadable(&format!(
            "it holds no access token for {credential:?}"
        )));
    }
    if facts.is_empty() {
        return Err(unreadable("it holds no access token"));
    }
    let guard = SecretGuard::new(&tokens, reading.client_secret);
    let mut captured = capture_metadata(&tree, reading.description, &guard);
    if reading.only.is_none() {
        for variable in &reading.description.variables {
            let Source::TokenAnswer(pointer) = &variable.source else {
                continue;
            };
            match checked_value(tree.0.pointer(pointer), &variable.kind, &guard) {
                Some(value) => captured.push((variable.name.clone(), value)),
                None if variable.required && variable.default_value.is_none() => {
                    return Err(unreadable(&format!("it lacks a usable {}", variable.name)));
                }
                None => {}
            }
        }
    }
    Ok(Granted {
        tokens,
        facts,
        captured,
    })
}

/// The error code of an answer that refuses; empty if it gives no known one.
/// None for an answer that does not refuse.
#[must_use]
pub fn refusal_of(answer: &Answer, description: &Description) -> Option<String> {
    match judge(
        answer,
        &description.token_answer,
        &description.known_codes(),
    ) {
        Err(AnswerError::Refused { code, .. }) => Some(code.unwrap_or_default()),
        Ok(_) | Err(AnswerError::Unreadable { .. }) => None,
    }
}

/// The hook's shapes, the described ones, or RFC 6749's. For a refresh those of
/// its credential, and the flat one: where the first answer was nested, that of
/// a refresh is flat.
fn shapes_to_try(reading: &Reading<'_>) -> Vec<TokenShape> {
    let description = reading.description;
    let mut shapes = reading.shapes.unwrap_or(&description.token_shapes).to_vec();
    if shapes.is_empty() {
        shapes.push(default_shape(description));
    }
    let Some(only) = reading.only else {
        return shapes;
    };
    shapes.retain(|s| s.credential == only);
    let mut flat = TokenShape {
        credential: only.to_owned(),
        ..default_shape(description)
    };
    for shape in &mut shapes {
        shape.optional = true;
        flat.expires.extend_from_slice(&shape.expires);
        flat.refresh_expires
            .extend_from_slice(&shape.refresh_expires);
        flat.scope_separators
            .extend_from_slice(&shape.scope_separators);
    }
    shapes.push(flat);
    shapes
}

/// Looks at the described checks and error codes, then at the status.
fn judge(answer: &Answer, shape: &AnswerShape, known: &[&str]) -> Result<Tree, AnswerError> {
    let status = answer.status;
    let Some(tree) = answer.tree(shape.may_be_form) else {
        return Err(AnswerError::Unreadable {
            status,
            what: "it is neither JSON nor a form".into(),
        });
    };
    let default = ["/error".to_owned()];
    let pointers = if shape.error_code.is_empty() {
        &default[..]
    } else {
        &shape.error_code
    };
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
        Check::Equals(pointer, text) => {
            present(pointer).and_then(scalar_text).as_ref() == Some(text)
        }
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
        let refresh = self
            .refresh
            .permanent_errors
            .iter()
            .chain(&self.refresh.transient_errors);
        advice.chain(refresh).map(String::as_str).collect()
    }

    /// Which scope includes which.
    #[must_use]
    pub fn implications(&self) -> Implications {
        let mut implications = Implications::default();
        for scope in &self.scopes {
            implications.add(&scope.name, scope.prefix, &scope.implies);
        }
        implications
    }

    /// The sentence for a person, if the preset has one for this code.
    #[must_use]
    pub fn advice(&self, code: &str) -> Option<&str> {
        self.error_advice
            .iter()
            .find(|a| a.code == code)
            .map(|a| a.advice.as_str())
    }
}

/// The shape of RFC 6749 §5.1, for the first credential.
fn default_shape(description: &Description) -> TokenShape {
    let credential = description
        .credentials
        .first()
        .map_or("default", |c| &c.name);
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
        Value::Array(items) => Some(
            items
                .iter()
                .filter_map(Value::as_str)
                .filter_map(|s| Scope::parse(s).ok())
                .collect(),
        ),
        _ => None,
    }
}

/// Reads a plain (identity or follow-up) answer: JSON that passes its shape's
/// checks.
///
/// # Errors
/// As [`read`].
pub fn read_plain(
    answer: &Answer,
    shape: &AnswerShape,
    known: &[&str],
) -> Result<PlainAnswer, AnswerError> {
    judge(answer, shape, known).map(PlainAnswer)
}

/// An identity answer as the hook `identity` may read it: the JSON (of a form,
/// an object), or the text that it is, with secrets covered.
///
/// # Errors
/// [`AnswerError`] if the answer is none, or cannot be shown.
pub fn covered_text(
    answer: &Answer,
    shape: &AnswerShape,
    known: &[&str],
    veil: &Veil,
) -> Result<String, AnswerError> {
    let status = answer.status;
    let unreadable = |what: &str| AnswerError::Unreadable {
        status,
        what: what.to_owned(),
    };
    match judge(answer, shape, known) {
        Ok(mut tree) => {
            let covered = veil.cover_value(&mut tree.0);
            covered.map_err(|_| unreadable("it repeats a secret as a name"))?;
            Ok(tree.0.to_string())
        }
        // Not every provider answers in JSON: that is what a hook is for.
        Err(AnswerError::Unreadable { .. })
            if shape.success_checks.is_empty() && is_good_status(shape, status) =>
        {
            let text = answer.text().ok_or_else(|| unreadable("it is no text"))?;
            Ok(veil.cover(text).unwrap_or_else(|| text.to_owned()))
        }
        Err(error) => Err(error),
    }
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
