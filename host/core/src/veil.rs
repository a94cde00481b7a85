//! What hides secrets from a guest that is shown somebody else's answer.
//!
//! A provider or an upstream may repeat a token in what it answers. Before a
//! preset reads such an answer, every piece of a secret in it becomes
//! asterisks, byte for byte, so that pointers and offsets stay true.

use std::borrow::Cow;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::inject::Vaulted;
use crate::secret::{SealBroken, Sealed, Secret};
use crate::tokens::TokenSet;

/// Pieces of this length are recognised. Shorter secrets only as a whole.
const PIECE: usize = 8;

/// The secrets that must not be seen.
#[derive(Default)]
pub struct Veil {
    /// Every piece of every secret, in order.
    pieces: Zeroizing<Vec<[u8; PIECE]>>,
    short: Vec<Secret>,
}

/// A secret stands where it cannot be hidden: in the name of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it repeats the credential as the name of a member, or is not JSON")]
pub struct Unveilable;

impl Veil {
    /// Hides what a call is made with.
    ///
    /// # Errors
    /// [`SealBroken`] if it cannot be opened: then nothing may be shown.
    pub fn of_call(vaulted: &Vaulted<'_>) -> Result<Self, SealBroken> {
        let mut this = Self::default();
        if let Some(tokens) = vaulted.tokens {
            this.hide_tokens(&TokenSet::open(tokens).map_err(|_| SealBroken)?);
        }
        if let Some(key) = vaulted.api_key {
            this.hide(&key.open()?);
        }
        Ok(this.ready())
    }

    /// Hides what a sign-in has just obtained.
    ///
    /// # Errors
    /// As [`Self::of_call`].
    pub fn of_sign_in(
        tokens: &TokenSet,
        client_secret: Option<&Sealed>,
    ) -> Result<Self, SealBroken> {
        let mut this = Self::default();
        this.hide_tokens(tokens);
        if let Some(secret) = client_secret {
            this.hide(&secret.open()?);
        }
        Ok(this.ready())
    }

    fn hide_tokens(&mut self, tokens: &TokenSet) {
        for c in &tokens.credentials {
            self.hide(&c.access_token);
            c.refresh_token.iter().for_each(|t| self.hide(t));
            c.id_token.iter().for_each(|t| self.hide(t));
        }
    }

    fn hide(&mut self, secret: &Secret) {
        let bytes = secret.expose();
        if bytes.len() < PIECE {
            if !bytes.is_empty() {
                self.short.push(Secret::new(bytes.to_vec()));
            }
            return;
        }
        // Exact capacity: a growing vector would leave copies behind.
        let mut all = Zeroizing::new(Vec::with_capacity(
            self.pieces.len() + bytes.len() - PIECE + 1,
        ));
        all.extend_from_slice(&self.pieces);
        all.extend(
            bytes
                .windows(PIECE)
                .filter_map(|w| w.first_chunk::<PIECE>()),
        );
        self.pieces = all;
    }

    fn ready(mut self) -> Self {
        self.pieces.sort_unstable();
        self
    }

    /// Whether the text holds a piece of a secret.
    #[must_use]
    pub fn touches(&self, text: &str) -> bool {
        self.cover(text).is_some()
    }

    /// The text with every piece of a secret as asterisks; none if there is no
    /// such piece.
    #[must_use]
    pub fn cover(&self, text: &str) -> Option<String> {
        let bytes = text.as_bytes();
        let mut hidden: Vec<(usize, usize)> = Vec::new();
        if !self.pieces.is_empty() {
            for (at, window) in bytes.windows(PIECE).enumerate() {
                if let Some(window) = window.first_chunk::<PIECE>()
                    && self.pieces.binary_search(window).is_ok()
                {
                    hidden.push((at, at + PIECE));
                }
            }
        }
        for secret in &self.short {
            let secret = secret.expose();
            for (at, window) in bytes.windows(secret.len()).enumerate() {
                if window == secret {
                    hidden.push((at, at + secret.len()));
                }
            }
        }
        if hidden.is_empty() {
            return None;
        }
        hidden.sort_unstable();
        let mut hidden = hidden.into_iter().peekable();
        let mut until = 0;
        let mut out = String::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            let end = at + c.len_utf8();
            while let Some((_, to)) = hidden.next_if(|(from, _)| *from < end) {
                until = until.max(to);
            }
            if at < until {
                out.extend(std::iter::repeat_n('*', c.len_utf8()));
            } else {
                out.push(c);
            }
        }
        Some(out)
    }

    /// A JSON text whose strings are covered; unchanged if nothing had to be.
    ///
    /// # Errors
    /// [`Unveilable`]: it may not be shown at all.
    pub fn cover_json<'j>(&self, json: &'j str) -> Result<Cow<'j, str>, Unveilable> {
        let mut value: Value = serde_json::from_str(json).map_err(|_| Unveilable)?;
        if self.cover_value(&mut value)? {
            Ok(value.to_string().into())
        } else {
            Ok(json.into())
        }
    }

    /// Whether anything had to be covered.
    pub(crate) fn cover_value(&self, value: &mut Value) -> Result<bool, Unveilable> {
        match value {
            Value::String(text) => Ok(match self.cover(text) {
                Some(covered) => {
                    *text = covered;
                    true
                }
                None => false,
            }),
            Value::Array(items) => items
                .iter_mut()
                .try_fold(false, |any, item| Ok(self.cover_value(item)? | any)),
            Value::Object(members) => {
                if members.keys().any(|name| self.touches(name)) {
                    return Err(Unveilable);
                }
                members
                    .values_mut()
                    .try_fold(false, |any, member| Ok(self.cover_value(member)? | any))
            }
            Value::Number(number) => {
                if self.touches(&number.to_string()) {
                    *value = Value::Null;
                    return Ok(true);
                }
                Ok(false)
            }
            Value::Null | Value::Bool(_) => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn veil(secrets: &[&str]) -> Veil {
        let mut veil = Veil::default();
        for secret in secrets {
            veil.hide(&Secret::from_text((*secret).into()));
        }
        veil.ready()
    }

    #[test]
    fn every_piece_of_a_secret_becomes_asterisks_of_its_length() {
        let veil = veil(&["gho_0123456789abcdef", "pin"]);
        for (text, covered) in [
            ("nothing to see", None),
            ("x gho_0123456789abcdef y", Some("x ******************** y")),
            ("23456789", Some("********")),
            ("2345678", None),
            ("é gho_01234 é", Some("é ********* é")),
            ("my pin is", Some("my *** is")),
            ("", None),
        ] {
            assert_eq!(veil.cover(text).as_deref(), covered, "{text}");
        }
    }

    #[test]
    fn json_is_covered_where_it_can_be_and_else_not_shown() {
        let veil = veil(&["gho_0123456789abcdef"]);
        assert_eq!(
            veil.cover_json(r#"{ "a":[{"b":"\u0067ho_0123456789abcdef"}],"n":1}"#),
            Ok(r#"{"a":[{"b":"********************"}],"n":1}"#.into())
        );
        let clean = r#"{ "a" : 1e2 }"#;
        assert_eq!(veil.cover_json(clean), Ok(clean.into()));
        assert_eq!(
            veil.cover_json(r#"{"gho_0123456789abcdef":1}"#),
            Err(Unveilable)
        );
        assert_eq!(veil.cover_json("<html>"), Err(Unveilable));
    }

    proptest! {
        #[test]
        fn nothing_of_a_secret_is_left_wherever_it_stands(
            before in ".{0,20}", secret in "[a-zA-Z0-9_]{8,40}", after in ".{0,20}"
        ) {
            let veil = veil(&[&secret]);
            let text = format!("{before}{secret}{after}");
            let covered = veil.cover(&text).unwrap();
            prop_assert_eq!(covered.len(), text.len());
            for piece in secret.as_bytes().windows(8) {
                prop_assert!(!covered.as_bytes().windows(8).any(|w| w == piece));
            }
        }
    }
}
