//! `[network]`: which private addresses administrators may use.

use countersign_core::address::PrivateAllowlist;
use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::Fault;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkRaw {
    #[serde(default)]
    allow_private_upstreams: Vec<Spanned<String>>,
}

/// `[network]`, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Private places that servers and providers registered by an
    /// administrator may use, as written. Never applies to addresses that come
    /// from agents, upstreams or metadata.
    pub allow_private_upstreams: Vec<String>,
    /// The same, parsed.
    pub allowed: PrivateAllowlist,
}

impl Network {
    /// Checks the patterns.
    ///
    /// # Errors
    /// The first that is none.
    pub fn of(patterns: &[&str]) -> Result<Self, countersign_core::address::InvalidAllowance> {
        let allowed = PrivateAllowlist::parse(patterns)?;
        Ok(Self {
            allow_private_upstreams: patterns.iter().map(ToString::to_string).collect(),
            allowed,
        })
    }

    /// Whether an administrator's URL may point to this private place.
    #[must_use]
    pub fn allows_private(&self, url: &Url) -> bool {
        self.allowed.allows(url)
    }
}

impl TryFrom<NetworkRaw> for Network {
    type Error = Fault;

    fn try_from(raw: NetworkRaw) -> Result<Self, Fault> {
        for pattern in &raw.allow_private_upstreams {
            PrivateAllowlist::parse(&[pattern.get_ref()]).map_err(|e| {
                Fault::at(
                    pattern,
                    e.to_string(),
                    "* stands for all ports of one host, never for a host.",
                )
            })?;
        }
        let patterns: Vec<_> = raw
            .allow_private_upstreams
            .iter()
            .map(|p| p.get_ref().as_str())
            .collect();
        // Each was just found good.
        Ok(Self::of(&patterns).unwrap_or_default())
    }
}
