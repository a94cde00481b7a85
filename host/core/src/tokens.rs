//! The secret half of a connection.

use crate::secret::{Sealed, Secret};

/// The tokens of one credential.
pub struct CredentialTokens {
    /// A name from the preset's credentials (`default`, `bot`, `user`).
    pub credential: String,
    /// Sent upstream.
    pub access_token: Secret,
    /// Sent to the token endpoint only.
    pub refresh_token: Option<Secret>,
    /// Sent to sign-out endpoints only.
    pub id_token: Option<Secret>,
}

impl CredentialTokens {
    /// A copy for another attempt at storing it.
    pub(crate) fn duplicate(&self) -> Self {
        let copy = |secret: &Secret| Secret::new(secret.expose().to_vec());
        Self {
            credential: self.credential.clone(),
            access_token: copy(&self.access_token),
            refresh_token: self.refresh_token.as_ref().map(copy),
            id_token: self.id_token.as_ref().map(copy),
        }
    }
}

/// All tokens of a connection. It has no `Debug`, and leaves memory only as a
/// [`Secret`] on its way into the vault.
#[derive(Default)]
pub struct TokenSet {
    /// In the order of the connection's facts.
    pub credentials: Vec<CredentialTokens>,
}

/// The opened bytes are not a token set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored tokens cannot be read; the connection must be authorized again")]
pub struct TokensUnreadable;

const LAYOUT: u8 = 1;

impl TokenSet {
    /// Frames the tokens for the vault: a layout byte, then for each
    /// credential four length-prefixed fields (absent = `u32::MAX`).
    #[must_use]
    pub fn into_secret(self) -> Secret {
        self.framed()
    }

    /// [`Self::into_secret`], for a write that may have to be tried again.
    #[must_use]
    pub fn framed(&self) -> Secret {
        let size = self.credentials.iter().fold(1, |n, c| {
            n + 16
                + c.credential.len()
                + c.access_token.len()
                + c.refresh_token.as_ref().map_or(0, Secret::len)
                + c.id_token.as_ref().map_or(0, Secret::len)
        });
        // Exact capacity: a growing vector would leave copies behind.
        let mut out = Vec::with_capacity(size);
        out.push(LAYOUT);
        for c in &self.credentials {
            let fields = [
                Some(c.credential.as_bytes()),
                Some(c.access_token.expose()),
                c.refresh_token.as_ref().map(Secret::expose),
                c.id_token.as_ref().map(Secret::expose),
            ];
            for field in fields {
                let length = field.map_or(u32::MAX, |f| u32::try_from(f.len()).unwrap_or(u32::MAX));
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(field.unwrap_or_default());
            }
        }
        Secret::new(out)
    }

    /// The tokens of a connection as a secret of their own, for a record that
    /// outlives the connection until they are revoked.
    ///
    /// # Errors
    /// [`TokensUnreadable`] if they cannot be opened.
    pub fn copied(sealed: &Sealed) -> Result<Secret, TokensUnreadable> {
        Self::open(sealed).map(Self::into_secret)
    }

    /// Reads what the vault holds. Only this crate can: see
    /// [`crate::inject::Plan::fill`] and [`crate::request`].
    pub(crate) fn open(sealed: &Sealed) -> Result<Self, TokensUnreadable> {
        let secret = sealed.open().map_err(|_| TokensUnreadable)?;
        Self::read(&secret)
    }

    pub(crate) fn read(secret: &Secret) -> Result<Self, TokensUnreadable> {
        let (&layout, mut rest) = secret.expose().split_first().ok_or(TokensUnreadable)?;
        if layout != LAYOUT {
            return Err(TokensUnreadable);
        }
        let mut credentials = Vec::new();
        while !rest.is_empty() {
            let mut fields = [None, None, None, None];
            for field in &mut fields {
                let (length, tail) = rest.split_first_chunk::<4>().ok_or(TokensUnreadable)?;
                rest = tail;
                let length = u32::from_le_bytes(*length);
                if length == u32::MAX {
                    continue;
                }
                let (bytes, tail) = rest
                    .split_at_checked(length as usize)
                    .ok_or(TokensUnreadable)?;
                rest = tail;
                *field = Some(bytes);
            }
            let secret = |bytes: &[u8]| Secret::new(bytes.to_vec());
            let [name, access, refresh, id] = fields;
            credentials.push(CredentialTokens {
                credential: name
                    .and_then(|n| std::str::from_utf8(n).ok())
                    .ok_or(TokensUnreadable)?
                    .to_owned(),
                access_token: access.map(secret).ok_or(TokensUnreadable)?,
                refresh_token: refresh.map(secret),
                id_token: id.map(secret),
            });
        }
        Ok(Self { credentials })
    }

    /// The named credential's tokens, or the first.
    #[must_use]
    pub fn credential(&self, name: Option<&str>) -> Option<&CredentialTokens> {
        match name {
            Some(name) => self.credentials.iter().find(|c| c.credential == name),
            None => self.credentials.first(),
        }
    }

    /// Whether `text` is or holds a piece of any of these tokens.
    #[must_use]
    pub fn overlap(&self, text: &str) -> bool {
        self.credentials.iter().any(|c| {
            c.access_token.overlaps(text)
                || c.refresh_token.as_ref().is_some_and(|t| t.overlaps(text))
                || c.id_token.as_ref().is_some_and(|t| t.overlaps(text))
        })
    }
}

/// Tokens from the vault, to be stored in another place.
///
/// # Errors
/// [`TokensUnreadable`].
pub fn reopened(sealed: &Sealed) -> Result<TokenSet, TokensUnreadable> {
    TokenSet::open(sealed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_set_reads_back_as_it_was_framed(
            tokens in prop::collection::vec(("[a-z]{1,8}", ".{0,64}", prop::option::of(".{0,64}"), prop::option::of(".{0,64}")), 0..4)
        ) {
            let set = TokenSet {
                credentials: tokens.iter().map(|(name, access, refresh, id)| CredentialTokens {
                    credential: name.clone(),
                    access_token: Secret::from_text(access.clone()),
                    refresh_token: refresh.clone().map(Secret::from_text),
                    id_token: id.clone().map(Secret::from_text),
                }).collect(),
            };
            let back = TokenSet::read(&set.into_secret()).unwrap();
            prop_assert_eq!(back.credentials.len(), tokens.len());
            for (c, (name, access, refresh, id)) in back.credentials.iter().zip(&tokens) {
                prop_assert_eq!(&c.credential, name);
                prop_assert_eq!(c.access_token.expose(), access.as_bytes());
                prop_assert_eq!(c.refresh_token.as_ref().map(|s| s.expose().to_vec()), refresh.clone().map(String::into_bytes));
                prop_assert_eq!(c.id_token.as_ref().map(|s| s.expose().to_vec()), id.clone().map(String::into_bytes));
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = TokenSet::read(&Secret::new(bytes));
        }
    }
}
