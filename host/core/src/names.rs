//! Names and identifiers, parsed once and then trusted.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct InvalidName {
    /// The kind of name, for people (`provider name`).
    pub what: &'static str,
    /// What was given, cut to 80 characters.
    pub value: String,
    /// The rule in words, with the pattern.
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Parses the name.
            ///
            /// # Errors
            /// [`InvalidName`] says the rule.
            pub fn parse(value: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(value) {
                    Ok(Self(value.into()))
                } else {
                    Err(InvalidName {
                        what: $what,
                        value: value.chars().take(80).collect(),
                        rule: $rule,
                    })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, InvalidName> {
                Self::parse(&value)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, InvalidName> {
                Self::parse(value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_slug(value: &str, longest: usize) -> bool {
    let mut bytes = value.bytes();
    value.len() <= longest
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_id(value: &str) -> bool {
    (1..=200).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic())
}

name!(
    /// The name of a provider.
    ProviderName, "provider name",
    "lower-case letters, digits and hyphens, beginning with a letter, at most 63 (^[a-z][a-z0-9-]{0,62}$)",
    |v| is_slug(v, 63)
);
name!(
    /// The name of an attached MCP server; a path segment of its endpoint.
    ServerName, "server name",
    "lower-case letters, digits and hyphens, beginning with a letter, at most 63 (^[a-z][a-z0-9-]{0,62}$)",
    |v| is_slug(v, 63)
);
name!(
    /// The name of a preset.
    PresetName, "preset name",
    "lower-case letters, digits and hyphens, beginning with a letter, at most 63 (^[a-z][a-z0-9-]{0,62}$)",
    |v| is_slug(v, 63)
);
name!(
    /// Who signs presets.
    PublisherName, "publisher name",
    "lower-case letters, digits and hyphens, beginning with a letter, at most 63 (^[a-z][a-z0-9-]{0,62}$)",
    |v| is_slug(v, 63)
);
name!(
    /// The name of a team.
    TeamName, "team name",
    "lower-case letters, digits and hyphens, beginning with a letter, at most 63 (^[a-z][a-z0-9-]{0,62}$)",
    |v| is_slug(v, 63)
);
name!(
    /// The name of a role.
    RoleName, "role name",
    "lower-case letters, digits and hyphens, beginning with a letter, at most 63 (^[a-z][a-z0-9-]{0,62}$)",
    |v| is_slug(v, 63)
);
name!(
    /// The name of a policy.
    PolicyName, "policy name",
    "lower-case letters, digits and hyphens, beginning with a letter, at most 63 (^[a-z][a-z0-9-]{0,62}$)",
    |v| is_slug(v, 63)
);
name!(
    /// A reference to a stored secret. Never the secret itself.
    SecretName, "secret name",
    "upper-case letters, digits and underscores, beginning with a letter (^[A-Z][A-Z0-9_]*$)",
    |v| v.len() <= 128
        && v.starts_with(|c: char| c.is_ascii_uppercase())
        && v.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
);
name!(
    /// A user's name: what is typed at sign-in, and the key of all that is his.
    UserName, "user name",
    "letters, digits and . _ @ + -, at most 128 characters",
    |v| (1..=128).contains(&v.len())
        && v.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@+-".contains(&b))
);
name!(
    /// An OAuth client of the embedded authorization server (the agent).
    ClientId, "client id",
    "1 to 200 visible ASCII characters",
    is_id
);
name!(
    /// A connection's identifier.
    ConnectionId, "connection id",
    "1 to 200 visible ASCII characters",
    is_id
);
name!(
    /// One call's identifier, shown to the user and kept in the audit log.
    CallId, "call id",
    "1 to 200 visible ASCII characters",
    is_id
);

impl TeamName {
    /// The team that everybody belongs to when nothing else was said.
    #[must_use]
    pub fn default_team() -> Self {
        Self("default".into())
    }
}

/// A SHA-256 digest, shown as `sha256:` and hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The raw 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first twelve hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        hex(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        let mut out = String::with_capacity(7 + 64);
        out.push_str("sha256:");
        push_hex(&mut out, &digest.0);
        out
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidName;

    fn try_from(value: String) -> Result<Self, InvalidName> {
        let invalid = || InvalidName {
            what: "digest",
            value: value.chars().take(80).collect(),
            rule: "sha256: and 64 hexadecimal digits",
        };
        let digits = value.strip_prefix("sha256:").ok_or_else(invalid)?;
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| invalid())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
        }
        Ok(Self(bytes))
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    push_hex(&mut out, bytes);
    out
}

/// By table: every audit event holds two of these.
fn push_hex(out: &mut String, bytes: &[u8]) {
    let digit = |n: u8| char::from(if n < 10 { b'0' + n } else { b'a' + n - 10 });
    for byte in bytes {
        out.push(digit(byte >> 4));
        out.push(digit(byte & 15));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_name_is_a_slug() {
        for good in ["a", "github", "my-idp-2", &"a".repeat(63)] {
            assert!(ProviderName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "-a", "A", "a_b", "a b", "ä", &"a".repeat(64)] {
            assert!(ProviderName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_name_is_upper_snake_case() {
        for good in ["A", "GITHUB_SECRET", "A1_"] {
            assert!(SecretName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "_A", "1A", "A-B", "ghp_sometoken"] {
            assert!(SecretName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_reads_back_as_it_was_written() {
        let digest = Digest::of(b"countersign");
        assert_eq!(Digest::try_from(digest.to_string()), Ok(digest));
        assert!(Digest::try_from("sha256:zz".to_owned()).is_err());
        assert!(Digest::try_from(format!("sha256:{}", "+f".repeat(32))).is_err());
    }
}
