//! What a token is for.

use countersign_core::names::ServerName;
use serde::{Deserialize, Serialize};

use crate::settings::PublicUrl;

/// The scope agents get.
pub const SCOPE_MCP: &str = "mcp";
/// The scope of the command line's `login`.
pub const SCOPE_API: &str = "api";

/// One protected resource of this host. Matched exactly: a token for `/mcp` is
/// no token for `/mcp/x`, nor the reverse.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// `/mcp`: all servers as one.
    McpAll,
    /// `/mcp/{server}`.
    Mcp(ServerName),
    /// The REST API.
    Api,
}

impl Audience {
    /// The resource indicator (RFC 8707 §2).
    #[must_use]
    pub fn resource(&self, public_url: &PublicUrl) -> String {
        let issuer = public_url.issuer();
        match self {
            Self::McpAll => format!("{issuer}/mcp"),
            Self::Mcp(server) => format!("{issuer}/mcp/{server}"),
            Self::Api => format!("{issuer}/api"),
        }
    }

    /// Reads a resource indicator, byte for byte; whether the server exists is
    /// not asked here.
    #[must_use]
    pub fn parse(resource: &str, public_url: &PublicUrl) -> Option<Self> {
        let path = resource.strip_prefix(public_url.issuer())?;
        match path {
            "/mcp" => Some(Self::McpAll),
            "/api" => Some(Self::Api),
            _ => ServerName::parse(path.strip_prefix("/mcp/")?)
                .ok()
                .map(Self::Mcp),
        }
    }

    /// The one scope a token for it can have.
    #[must_use]
    pub fn scope(&self) -> &'static str {
        match self {
            Self::McpAll | Self::Mcp(_) => SCOPE_MCP,
            Self::Api => SCOPE_API,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_matched_byte_for_byte() {
        let url = PublicUrl::parse("https://cs.example.com").unwrap();
        for text in [
            "https://cs.example.com/mcp",
            "https://cs.example.com/mcp/notes",
            "https://cs.example.com/api",
        ] {
            assert_eq!(
                Audience::parse(text, &url)
                    .map(|a| a.resource(&url))
                    .as_deref(),
                Some(text)
            );
        }
        for bad in [
            "",
            "https://cs.example.com",
            "https://cs.example.com/mcp/",
            "https://cs.example.com/mcp/a/b",
            "https://cs.example.com/mcp?x",
            "https://cs.example.com/mcp#x",
            "https://cs.example.com/MCP",
            "https://CS.example.com/mcp",
            "https://cs.example.com.evil.example/mcp",
            "http://cs.example.com/mcp",
            "https://cs.example.com/mcp/Notes",
            "https://cs.example.com/mcp/..",
        ] {
            assert!(Audience::parse(bad, &url).is_none(), "{bad}");
        }
    }
}
