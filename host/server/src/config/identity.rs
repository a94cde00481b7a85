//! `[identity]`: who may sign in.

use serde::Deserialize;
use toml::Spanned;

use super::Fault;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityRaw {
    embedded: Option<Spanned<bool>>,
    issuer: Option<Spanned<toml::Value>>,
}

/// `[identity]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The built-in authorization server.
    pub embedded: bool,
}

impl TryFrom<IdentityRaw> for Identity {
    type Error = Fault;

    fn try_from(raw: IdentityRaw) -> Result<Self, Fault> {
        if let Some(issuer) = raw.issuer {
            return Err(Fault::at(
                &issuer,
                "this version of Countersign takes no tokens of external issuers",
                "Remove [[identity.issuer]]; users sign in at the built-in authorization server.",
            ));
        }
        match raw.embedded {
            Some(off) if !*off.get_ref() => Err(Fault::at(
                &off,
                "without the built-in authorization server nobody could sign in",
                "Write embedded = true, or leave the line out.",
            )),
            _ => Ok(Self { embedded: true }),
        }
    }
}
