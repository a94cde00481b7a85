//! An attached MCP server.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::{ProviderName, SecretName, ServerName, TeamName};
use crate::provider::duration_text;
use crate::scope::ScopeSet;
use crate::time::Timestamp;

/// Whose credential goes into the upstream request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthMode {
    /// None at all.
    None,
    /// A stored key.
    Static,
    /// One identity for all users, by OAuth client credentials.
    ServiceAccount,
    /// Each user's own connection.
    UserDelegated,
    /// RFC 8693.
    TokenExchange,
}

/// Replaces the preset's rule that carries the access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Injection {
    /// For example `X-Api-Key`.
    pub header_name: String,
    /// Put before the token; may be empty.
    #[serde(default)]
    pub header_prefix: String,
}

/// How calls to this server are authenticated upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerAuth {
    /// Whose credential.
    pub mode: AuthMode,
    /// The provider, for the OAuth modes; in mode `static`, the one whose preset
    /// says how the key is used, if any.
    #[serde(default)]
    pub provider: Option<ProviderName>,
    /// Scopes every connection needs for this server.
    #[serde(default)]
    pub required_scopes: ScopeSet,
    /// The key of mode `static`.
    #[serde(default)]
    pub secret_ref: Option<SecretName>,
    /// Replaces the preset's access-token rule.
    #[serde(default)]
    pub injection: Option<Injection>,
    /// In mode `static`: each user has a key of his own.
    #[serde(default, skip_serializing_if = "is_false")]
    pub per_user: bool,
    /// RFC 8707 `resource` of tokens that are obtained without a consent;
    /// overrides the provider's and the server's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<url::Url>,
    /// `audience` of tokens that are obtained without a consent; overrides the
    /// provider's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// The last change of mode: what was consented to before it counts no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<ModeChange>,
}

/// A change of whose credential a server uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeChange {
    /// What was used before.
    pub from: AuthMode,
    /// At which provider.
    #[serde(default)]
    pub provider: Option<ProviderName>,
    /// For which resource, if the server had connections of its own.
    #[serde(default)]
    pub resource: Option<url::Url>,
    /// When that ended.
    pub at: Timestamp,
}

impl ServerAuth {
    /// Of this mode, with nothing set.
    #[must_use]
    pub fn new(mode: AuthMode) -> Self {
        Self {
            mode,
            provider: None,
            required_scopes: ScopeSet::default(),
            secret_ref: None,
            injection: None,
            per_user: false,
            resource: None,
            audience: None,
            changed: None,
        }
    }

    /// Whether a user who consented then has to be asked again, because the
    /// server did not use his account in between.
    #[must_use]
    pub fn asks_again(&self, consented_at: Timestamp) -> bool {
        let changed = self.changed.as_ref();
        self.mode == AuthMode::UserDelegated && changed.is_some_and(|c| c.at >= consented_at)
    }

    /// Whether upstream sees another credential for each user.
    #[must_use]
    pub fn is_personal(&self) -> bool {
        match self.mode {
            AuthMode::UserDelegated | AuthMode::TokenExchange => true,
            AuthMode::Static => self.per_user,
            AuthMode::None | AuthMode::ServiceAccount => false,
        }
    }

    /// Whether Countersign obtains the credential by itself, without a consent.
    #[must_use]
    pub fn is_obtained(&self) -> bool {
        matches!(
            self.mode,
            AuthMode::ServiceAccount | AuthMode::TokenExchange
        )
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Which tools may be called: globs with `*`; `deny` wins; an empty `allow`
/// allows all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolFilter {
    /// Only these.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Never these.
    #[serde(default)]
    pub deny: Vec<String>,
}

impl ToolFilter {
    /// Whether the tool may be seen and called.
    #[must_use]
    pub fn allows(&self, tool: &str) -> bool {
        !self.deny.iter().any(|g| glob(g, tool))
            && (self.allow.is_empty() || self.allow.iter().any(|g| glob(g, tool)))
    }

    /// Whether it lets everything through.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

/// `*` stands for any run of characters; nothing else is special.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

/// Whether servers of one provider share a user's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionUse {
    /// One per user, team and provider.
    Shared,
    /// One per server: its resource is the server's URL.
    Dedicated,
}

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A streamable HTTP endpoint.
    Url(url::Url),
    /// An entry of `[stdio.allow]` in the operator's config.
    Command(String),
}

/// The stored record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Immutable; the path segment of `/mcp/{server}`.
    pub name: ServerName,
    /// For people.
    pub display_name: String,
    /// Where it is.
    #[serde(flatten)]
    pub target: Target,
    /// Upstream authentication.
    pub auth: ServerAuth,
    /// Shared or dedicated connections.
    pub connection: ConnectionUse,
    /// The RFC 8707 resource of dedicated connections, where it is not the
    /// provider's nor the address (RFC 9728 `resource`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<url::Url>,
    /// How long a call is held while the user acts.
    #[serde(with = "duration_text")]
    pub wait: Duration,
    /// How long it may take to begin its answer.
    #[serde(with = "duration_text", default = "usual_timeout")]
    pub timeout: Duration,
    /// Tools that may be seen and called.
    #[serde(default)]
    pub tools: ToolFilter,
    /// Teams that may use it; empty means everybody.
    #[serde(default)]
    pub teams: Vec<TeamName>,
    /// Whether what its calls are judged by is recorded, redacted, to try new
    /// versions of the preset on.
    #[serde(default)]
    pub record_decisions: bool,
    /// A disabled server answers nothing.
    pub enabled: bool,
    /// When it was attached.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// The default of [`Server::wait`]: official clients give up at 60 s.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(45);
/// The default of [`Server::timeout`]: some tools take minutes.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

fn usual_timeout() -> Duration {
    DEFAULT_TIMEOUT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_matches_the_whole_name() {
        let cases = [
            ("*", "anything", true),
            ("get_*", "get_issue", true),
            ("get_*", "forget_it", false),
            ("*_repo", "delete_repo", true),
            ("*_repo", "delete_repository", false),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXcYYb", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("a*a", "a", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn deny_wins_over_allow() {
        let filter = ToolFilter {
            allow: vec!["*".into()],
            deny: vec!["delete_*".into()],
        };
        assert!(filter.allows("get"));
        assert!(!filter.allows("delete_repo"));
    }
}
