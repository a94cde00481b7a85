//! `[network]`: which private addresses administrators may use.

use std::fmt;

use serde::Deserialize;
use toml::Spanned;
use url::{Host, Url};

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
    /// administrator may use. Never applies to addresses that come from
    /// agents, upstreams or metadata.
    pub allow_private_upstreams: Vec<PrivateUpstream>,
}

/// A host with one port or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateUpstream {
    /// Lower case; a name or an address.
    pub host: Host<String>,
    /// None means every port (`:*`).
    pub port: Option<u16>,
}

/// The text is not `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host and a port")]
pub struct InvalidUpstream(pub String);

impl PrivateUpstream {
    /// Parses `host:port` or `host:*`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    /// [`InvalidUpstream`]; a wildcard host is one of its causes.
    pub fn parse(text: &str) -> Result<Self, InvalidUpstream> {
        let invalid = || InvalidUpstream(text.chars().take(80).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        if host.is_empty() || host.contains(['*', '/', '@', '?', '#']) {
            return Err(invalid());
        }
        let host = Host::parse(host).map_err(|_| invalid())?;
        let port = match port {
            "*" => None,
            digits => Some(digits.parse().ok().filter(|p| *p != 0).ok_or_else(invalid)?),
        };
        Ok(Self { host, port })
    }

    /// Whether the URL points there.
    #[must_use]
    pub fn covers(&self, url: &Url) -> bool {
        url.host().is_some_and(|h| h.to_owned() == self.host)
            && self.port.is_none_or(|p| url.port_or_known_default() == Some(p))
    }
}

impl fmt::Display for PrivateUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => write!(f, "{}:*", self.host),
        }
    }
}

impl Network {
    /// Whether an administrator's URL may point to this private place.
    #[must_use]
    pub fn allows_private(&self, url: &Url) -> bool {
        self.allow_private_upstreams.iter().any(|p| p.covers(url))
    }
}

impl TryFrom<NetworkRaw> for Network {
    type Error = Fault;

    fn try_from(raw: NetworkRaw) -> Result<Self, Fault> {
        let parse = |text: &Spanned<String>| {
            PrivateUpstream::parse(text.get_ref()).map_err(|e| {
                Fault::at(
                    text,
                    e.to_string(),
                    "Write a host and a port, or * for all ports of that host: \"127.0.0.1:*\", \"[::1]:9000\".",
                )
            })
        };
        let allow_private_upstreams =
            raw.allow_private_upstreams.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { allow_private_upstreams })
    }
}
