//! What may be remembered of an answer: never a piece of a secret.

use serde_json::Value;

use super::body::Tree;
use crate::preset::{Description, ValueKind};
use crate::secret::{Sealed, Secret};
use crate::template::{check, scalar_text};
use crate::tokens::TokenSet;

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
        Self {
            tokens,
            client_secret: opened.ok().flatten(),
            blind,
        }
    }

    /// Whether the text may be kept and shown.
    #[must_use]
    pub fn admits(&self, text: &str) -> bool {
        !self.blind
            && !self.tokens.overlap(text)
            && !self
                .client_secret
                .as_ref()
                .is_some_and(|s| s.overlaps(text))
    }
}

/// A value that fits its kind and is no piece of a secret.
#[must_use]
pub fn checked_value(
    value: Option<&Value>,
    kind: &ValueKind,
    guard: &SecretGuard<'_>,
) -> Option<String> {
    let text = scalar_text(value?)?;
    // The kind first: it bounds the length, and comparing costs length times
    // length. Both see the text as it came.
    check(kind, &text).ok().filter(|_| guard.admits(&text))
}

/// A JSON scalar as text; none for null, arrays and objects.
#[must_use]
pub fn text_of(value: &Value) -> Option<String> {
    scalar_text(value)
}

pub(super) fn capture_metadata(
    tree: &Tree,
    description: &Description,
    guard: &SecretGuard<'_>,
) -> Vec<(String, String)> {
    let found = description.metadata.iter().filter_map(|m| {
        checked_value(tree.0.pointer(&m.pointer), &m.kind, guard)
            .map(|value| (m.name.clone(), value))
    });
    found.collect()
}
