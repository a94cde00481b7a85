//! A user's authorization at a provider: the public half.
//!
//! Facts in here may be shown to their user and logged. The tokens are in a
//! [`crate::tokens::TokenSet`], sealed beside them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::names::{ConnectionId, Digest, ProviderName, TeamName, UserName};
use crate::scope::{Implications, ScopeSet};
use crate::time::Timestamp;

/// CONTRACT's five words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There is none.
    NotConnected,
    /// Calls go through.
    Connected,
    /// It lacks scopes.
    NeedsScopes,
    /// The user has to authorize again.
    NeedsReauth,
    /// Held until a fresh authorization returns the same account.
    Suspended,
}

/// Why a connection needs a new authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReauthReason {
    /// The provider says the grant was withdrawn.
    Revoked,
    /// The token ended and there is no way to renew it.
    Expired,
    /// It went unused for longer than the provider allows.
    Idle,
    /// The provider does not accept Countersign's client.
    ClientRejected,
    /// The provider refuses, and nothing says that it will pass.
    ProviderError,
    /// The provider's or server's origins were changed after consent.
    ProviderChanged,
    /// The upstream refused a token thought good, twice.
    UpstreamUnauthorized,
    /// Held back after the user's password was reset.
    Suspended,
    /// The caller is known by an external issuer only and has no browser
    /// sign-in here.
    NoBrowserIdentity,
}

impl ReauthReason {
    /// The word of CONTRACT.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Idle => "idle",
            Self::ClientRejected => "client_rejected",
            Self::ProviderError => "provider_error",
            Self::ProviderChanged => "provider_changed",
            Self::UpstreamUnauthorized => "upstream_unauthorized",
            Self::Suspended => "suspended",
            Self::NoBrowserIdentity => "no_browser_identity",
        }
    }
}

/// The stored state. What calls see is [`Connection::status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// Usable.
    Connected,
    /// Not usable until the user authorizes again.
    NeedsReauth {
        /// Why.
        reason: ReauthReason,
    },
    /// Held.
    Suspended,
}

/// The account at the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The provider's identifier.
    pub id: String,
    /// For people.
    pub label: String,
}

/// Public facts of one credential's tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenFacts {
    /// A name from the preset's credentials.
    pub credential: String,
    /// Granted scopes.
    pub scopes: ScopeSet,
    /// When the access token was obtained.
    pub issued_at: Timestamp,
    /// When it ends; absent if the provider does not say and does not end it.
    pub expires_at: Option<Timestamp>,
    /// Whether a refresh token is held.
    pub refresh_token_present: bool,
    /// When that ends, if known.
    pub refresh_token_expires_at: Option<Timestamp>,
}

impl TokenFacts {
    /// Whether it should be renewed before use: less than `margin_percent` of
    /// its lifetime is left, or less than ten seconds.
    #[must_use]
    pub fn is_due(&self, now: Timestamp, margin_percent: u8) -> bool {
        let Some(expires_at) = self.expires_at else {
            return false;
        };
        let lifetime = expires_at.since(self.issued_at);
        let margin = (lifetime * u32::from(margin_percent.min(90)) / 100).clamp(
            Duration::from_secs(10).min(lifetime / 2),
            Duration::from_secs(300),
        );
        now.plus(margin) >= expires_at
    }

    /// Whether the access token has ended.
    #[must_use]
    pub fn has_lapsed(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|t| t <= now)
    }
}

/// Where the connection's secrets may go, fixed at consent and sealed with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origins {
    /// Origin of the token endpoint.
    pub token: String,
    /// Origin of the revocation endpoint.
    pub revocation: Option<String>,
    /// Audience hosts, as approved when the user consented.
    pub audience: Vec<crate::hosts::HostPattern>,
    /// The RFC 8707 resource the tokens were asked for, and are renewed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Url>,
}

/// The stored record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Stable for the connection's life.
    pub id: ConnectionId,
    /// Whose it is.
    pub user: UserName,
    /// In which team.
    pub team: TeamName,
    /// At which provider.
    pub provider: ProviderName,
    /// The server's URL for dedicated connections; absent for shared ones.
    pub resource: Option<Url>,
    /// Who the user is there.
    pub account: Option<Account>,
    /// One entry for each credential held.
    pub credentials: Vec<TokenFacts>,
    /// Metadata and captured variables, checked.
    pub facts: Vec<(String, String)>,
    /// Fixed at consent.
    pub origins: Origins,
    /// Client that obtained the tokens; a refresh with another is refused.
    pub client_id: String,
    /// Digest of the preset that was in force at consent.
    pub preset_digest: Digest,
    /// Stored state.
    pub state: State,
    /// Counts consents: upstream sessions of an older generation are void.
    pub generation: u64,
    /// First consent.
    pub created_at: Timestamp,
    /// Last consent; absent in records that are older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consented_at: Option<Timestamp>,
    /// Last change.
    pub updated_at: Timestamp,
    /// Last call.
    pub last_used_at: Option<Timestamp>,
}

/// What a connection is found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    /// Whose.
    pub user: UserName,
    /// In which team.
    pub team: TeamName,
    /// At which provider.
    pub provider: ProviderName,
    /// For which resource, if dedicated.
    pub resource: Option<Url>,
}

impl ConnectionKey {
    /// The record key within the user's partition. Unambiguous: names hold no
    /// slash.
    #[must_use]
    pub fn record_name(&self) -> String {
        let resource = self.resource.as_ref().map_or("", |r| r.as_str());
        format!("{}/{}/{resource}", self.team, self.provider)
    }
}

impl Connection {
    /// What it is found by.
    #[must_use]
    pub fn key(&self) -> ConnectionKey {
        ConnectionKey {
            user: self.user.clone(),
            team: self.team.clone(),
            provider: self.provider.clone(),
            resource: self.resource.clone(),
        }
    }

    /// Facts of the named credential, or of the first.
    #[must_use]
    pub fn credential(&self, name: Option<&str>) -> Option<&TokenFacts> {
        match name {
            Some(name) => self.credentials.iter().find(|c| c.credential == name),
            None => self.credentials.first(),
        }
    }

    /// When the user last authorized it.
    #[must_use]
    pub fn consented_at(&self) -> Timestamp {
        self.consented_at.unwrap_or(self.created_at)
    }

    /// All scopes of all credentials.
    #[must_use]
    pub fn scopes(&self) -> ScopeSet {
        self.credentials
            .iter()
            .flat_map(|c| c.scopes.iter().cloned())
            .collect()
    }

    /// Status towards calls that need `required`. A lapsed access token with a
    /// live refresh token is connected.
    #[must_use]
    pub fn status(
        &self,
        now: Timestamp,
        required: &ScopeSet,
        implications: &Implications,
    ) -> (Status, Option<ReauthReason>) {
        match self.state {
            State::Suspended => return (Status::Suspended, Some(ReauthReason::Suspended)),
            State::NeedsReauth { reason } => return (Status::NeedsReauth, Some(reason)),
            State::Connected => {}
        }
        let ended = |c: &TokenFacts| {
            c.has_lapsed(now)
                && (!c.refresh_token_present
                    || c.refresh_token_expires_at.is_some_and(|t| t <= now))
        };
        if self.credentials.is_empty() || self.credentials.iter().all(ended) {
            return (Status::NeedsReauth, Some(ReauthReason::Expired));
        }
        if implications.missing(&self.scopes(), required).is_empty() {
            (Status::Connected, None)
        } else {
            (Status::NeedsScopes, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(issued: i64, expires: Option<i64>, refresh: bool) -> TokenFacts {
        TokenFacts {
            credential: "default".into(),
            scopes: ScopeSet::default(),
            issued_at: Timestamp::from_secs(issued),
            expires_at: expires.map(Timestamp::from_secs),
            refresh_token_present: refresh,
            refresh_token_expires_at: None,
        }
    }

    #[test]
    fn the_refresh_margin_is_a_share_of_the_lifetime() {
        let hour = facts(0, Some(3600), true);
        assert!(!hour.is_due(Timestamp::from_secs(3200), 10));
        assert!(hour.is_due(Timestamp::from_secs(3301), 10));
        let short = facts(0, Some(10), true);
        assert!(!short.is_due(Timestamp::from_secs(4), 10));
        assert!(short.is_due(Timestamp::from_secs(5), 10));
        assert!(!facts(0, None, true).is_due(Timestamp::from_secs(i64::MAX / 1000), 10));
    }
}
