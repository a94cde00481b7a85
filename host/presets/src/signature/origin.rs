//! Where a component comes from, as far as that is known. Facts about it, never
//! a permission.

use countersign_core::names::{Digest, PublisherName};
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::SignatureError;
use super::keys::PublicKey;
use super::manifest::{Manifest, SignatureFile};

/// Largest note of a pull, in bytes.
pub(crate) const LARGEST_PULLED: u64 = 4 << 10;

/// How a component's signature was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureState {
    /// A publisher that the operator trusts signed it.
    Trusted,
    /// Somebody signed it whom the operator does not trust for it.
    Untrusted,
    /// Nobody signed it.
    Unsigned,
    /// The operator said not to look.
    Unchecked,
    /// It would be refused; only ever of a component that is just looked at.
    Refused,
}

impl SignatureState {
    /// As REST and the command line write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Untrusted => "untrusted",
            Self::Unsigned => "unsigned",
            Self::Unchecked => "unchecked",
            Self::Refused => "refused",
        }
    }
}

/// Who vouches for a component, and where it was pulled from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// How the signature was judged.
    pub signature: SignatureState,
    /// Who signed; in the signer's own words unless trusted.
    pub publisher: Option<PublisherName>,
    /// With which key.
    pub key: Option<PublicKey>,
    /// When, in the signer's words.
    pub signed_at: Option<Timestamp>,
    /// Why it is used although nobody trusted vouches for it.
    pub warning: Option<String>,
    /// Where `preset pull` got it, in the words of the file that it left.
    pub pulled: Option<Pulled>,
}

impl Origin {
    /// Nothing is known.
    #[must_use]
    pub fn unchecked() -> Self {
        Self {
            signature: SignatureState::Unchecked,
            publisher: None,
            key: None,
            signed_at: None,
            warning: None,
            pulled: None,
        }
    }

    /// It is only looked at; a catalog would refuse it.
    pub(crate) fn refused(why: &SignatureError) -> Self {
        Self {
            signature: SignatureState::Refused,
            warning: Some(why.to_string()),
            ..Self::unchecked()
        }
    }

    pub(crate) fn trusted(file: &SignatureFile) -> Self {
        Self::signed(file, SignatureState::Trusted)
    }

    /// Used in spite of `why`.
    pub(crate) fn tolerated(file: Option<&SignatureFile>, why: &SignatureError) -> Self {
        let this = match file {
            Some(file) => Self::signed(file, SignatureState::Untrusted),
            None => Self {
                signature: SignatureState::Unsigned,
                ..Self::unchecked()
            },
        };
        Self {
            warning: Some(why.to_string()),
            ..this
        }
    }

    fn signed(file: &SignatureFile, signature: SignatureState) -> Self {
        let Manifest {
            publisher, created, ..
        } = &file.manifest;
        Self {
            signature,
            publisher: Some(publisher.clone()),
            key: Some(file.key),
            signed_at: Some(*created),
            ..Self::unchecked()
        }
    }
}

impl std::fmt::Display for Origin {
    /// One line, for the log and the audit.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.signature, &self.publisher, &self.key, self.signed_at) {
            (SignatureState::Unchecked, ..) => f.write_str("signature not checked")?,
            (SignatureState::Refused, ..) => f.write_str("signature refused")?,
            (state, Some(publisher), Some(key), Some(at)) => {
                let doubt = match state {
                    SignatureState::Trusted => "",
                    _ => ", who is not trusted for it",
                };
                write!(f, "signed by {publisher} with {key} at {at}{doubt}")?;
            }
            _ => f.write_str("not signed")?,
        }
        match &self.pulled {
            Some(pulled) => write!(
                f,
                ", pulled from {} ({})",
                pulled.reference, pulled.manifest
            ),
            None => Ok(()),
        }
    }
}

/// What `preset pull` writes down beside a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pulled {
    /// The reference that was asked for (`registry.example.com/presets/github:1.0.0`), or a
    /// folder.
    pub reference: String,
    /// The digest of the manifest it stood for; of the component, if it was a folder.
    pub manifest: Digest,
    /// The digest of the component.
    pub component: Digest,
    /// When.
    pub at: Timestamp,
}

impl Pulled {
    /// Reads the note, if it is one and speaks of this component.
    pub(crate) fn parse(bytes: &[u8], component: Digest) -> Option<Self> {
        let this: Self = serde_json::from_slice(bytes).ok()?;
        (this.component == component).then_some(Self {
            reference: crate::faults::plain(&this.reference),
            ..this
        })
    }

    /// The file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}
