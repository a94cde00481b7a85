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
    /// A renewal did not move that end: it comes in any case.
    #[serde(default)]
    pub refresh_token_end_is_fixed: bool,
    /// The answer to a renewal was lost, and the provider takes a refresh token
    /// once: after this time (until then it forgives) it is not sent again.
    #[serde(default)]
    pub renewal_lost_at: Option<Timestamp>,
}

impl TokenFacts {
    /// Whether it should be renewed before use: less than `margin_percent` of
    /// its lifetime is left, or less than ten seconds.
    #[must_use]
    pub fn is_due(&self, now: Timestamp, margin_percent: u8) -> bool {
        self.expires_at.is_some_and(|expires_at| {
            now.plus(self.margin(expires_at, margin_percent)) >= expires_at
        })
    }

    pub(crate) fn margin(&self, expires_at: Timestamp, margin_percent: u8) -> Duration {
        let lifetime = expires_at.since(self.issued_at);
        (lifetime * u32::from(margin_percent.min(90)) / 100).clamp(
            Duration::from_secs(10).min(lifetime / 2),
            Duration::from_secs(300),
        )
    }

    /// Whether there is a refresh token that may be sent.
    #[must_use]
    pub fn can_renew(&self, now: Timestamp) -> bool {
        self.refresh_token_present
            && self.refresh_token_expires_at.is_none_or(|end| end > now)
            && self.renewal_lost_at.is_none_or(|until| until > now)
    }

    /// Why the user has to connect again when this has ended.
    #[must_use]
    pub fn why_ended(&self) -> ReauthReason {
        match self.renewal_lost_at {
            Some(_) => ReauthReason::ProviderError,
            None => ReauthReason::Expired,
        }
    }

    /// Whether the access token has ended.
    #[must_use]
    pub fn has_lapsed(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|t| t <= now)
    }

    /// Whether it may have ended for a server that refused it: servers count
    /// whole seconds (RFC 7519 §2, `NumericDate`), so up to one too early.
    #[must_use]
    pub fn may_have_lapsed(&self, now: Timestamp) -> bool {
        self.has_lapsed(now.plus(Duration::from_secs(1)))
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
    /// The end that the user was warned of.
    #[serde(default)]
    pub warned_of: Option<Timestamp>,
    /// Scopes that a scope upgrade asked for and that were not granted: calls
    /// do not ask for them again.
    #[serde(default)]
    pub withheld: ScopeSet,
}

/// What a connection is found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

    /// When it was last used, or connected since.
    #[must_use]
    pub fn used_at(&self) -> Timestamp {
        let consented = self.consented_at();
        self.last_used_at
            .map_or(consented, |used| used.max(consented))
    }

    /// When its user last agreed to it at the provider.
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
        let ended = |c: &TokenFacts| c.has_lapsed(now) && !c.can_renew(now);
        if self.credentials.iter().all(ended) {
            let why = self.credentials.first().map(TokenFacts::why_ended);
            let why = why.unwrap_or(ReauthReason::Expired);
            return (Status::NeedsReauth, Some(why));
        }
        if implications.missing(&self.scopes(), required).is_empty() {
            (Status::Connected, None)
        } else {
            (Status::NeedsScopes, None)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One with one credential that never ends.
    pub(crate) fn connection() -> Connection {
        Connection {
            id: ConnectionId::parse("con_1").unwrap(),
            user: UserName::parse("ana").unwrap(),
            team: TeamName::default_team(),
            provider: ProviderName::parse("notes").unwrap(),
            resource: None,
            account: None,
            credentials: vec![facts(0, None, false)],
            facts: vec![],
            origins: Origins {
                token: "https://auth.example.com".into(),
                revocation: None,
                audience: vec![],
                resource: None,
            },
            client_id: "client".into(),
            preset_digest: Digest::of(b"preset"),
            state: State::Connected,
            generation: 1,
            created_at: Timestamp::from_secs(0),
            updated_at: Timestamp::from_secs(0),
            last_used_at: None,
            consented_at: None,
            warned_of: None,
            withheld: ScopeSet::default(),
        }
    }

    fn facts(issued: i64, expires: Option<i64>, refresh: bool) -> TokenFacts {
        TokenFacts {
            credential: "default".into(),
            scopes: ScopeSet::default(),
            issued_at: Timestamp::from_secs(issued),
            expires_at: expires.map(Timestamp::from_secs),
            refresh_token_present: refresh,
            refresh_token_expires_at: None,
            refresh_token_end_is_fixed: false,
            renewal_lost_at: None,
        }
    }

    #[test]
    fn a_lapsed_access_token_with_a_live_refresh_token_is_connected() {
        let now = Timestamp::from_secs(100);
        let cases = [
            (facts(0, Some(50), true), None, (Status::Connected, None)),
            (
                facts(0, Some(50), false),
                None,
                (Status::NeedsReauth, Some(ReauthReason::Expired)),
            ),
            (facts(0, None, false), None, (Status::Connected, None)),
            // Its answer was lost: connected while the access token lives.
            (
                facts(0, Some(150), true),
                Some(60),
                (Status::Connected, None),
            ),
            (
                facts(0, Some(50), true),
                Some(60),
                (Status::NeedsReauth, Some(ReauthReason::ProviderError)),
            ),
            (
                facts(0, Some(50), true),
                Some(160),
                (Status::Connected, None),
            ),
        ];
        for (mut facts, lost, expected) in cases {
            facts.renewal_lost_at = lost.map(Timestamp::from_secs);
            let said = format!("{facts:?}");
            let connection = Connection {
                credentials: vec![facts],
                ..connection()
            };
            let status = connection.status(now, &ScopeSet::default(), &Implications::default());
            assert_eq!(status, expected, "{said}");
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
