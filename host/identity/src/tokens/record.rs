//! The stored side of tokens.

use std::collections::BTreeSet;

use countersign_core::names::{ClientId, ServerName, TeamName, UserName, hex};
use countersign_core::ports::{
    Expect, Kind, RecordKey, Revision, StoreError, Write, delete, load, parse, random_token,
};
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::api::TokenKind;
use crate::audience::Audience;
use crate::service::Identity;

/// Access tokens of the embedded authorization server.
pub(crate) const ACCESS: &str = "cs_at_";
/// Refresh tokens.
pub(crate) const REFRESH: &str = "cs_rt_";
/// Authorization codes.
pub(crate) const CODE: &str = "cs_ac_";
/// Browser sessions.
pub(crate) const SESSION: &str = "cs_bs_";

/// What tokens descend from. Listed by its user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    pub(crate) id: String,
    pub(crate) user: UserName,
    /// The user's epoch when it was given; void in another.
    pub(crate) epoch: String,
    pub(crate) team: TeamName,
    pub(crate) subject: GrantFor,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// Until when the sign-in behind it counts as fresh.
    pub(crate) fresh_until: Option<Timestamp>,
    /// Of an agent: its last refresh.
    pub(crate) last_used_at: Option<Timestamp>,
}

/// Who holds the tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GrantFor {
    /// An OAuth client.
    Agent {
        client: ClientId,
        client_name: String,
        audience: Audience,
    },
    /// Whoever was given the API token.
    ApiToken {
        name: String,
        kind: TokenKind,
        servers: Option<BTreeSet<ServerName>>,
        /// Record name of the token, to delete it with the grant.
        token: String,
    },
}

/// One token, found by its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    pub(crate) user: UserName,
    pub(crate) grant: String,
    pub(crate) state: TokenState,
    pub(crate) expires_at: Timestamp,
}

/// What the token is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenState {
    /// Calls with the grant's audience.
    Access,
    /// The next refresh.
    Refresh,
    /// Nothing any more; its use is the sign of a theft.
    SpentRefresh,
    /// Calls, as its kind says.
    Api(TokenKind),
}

/// Where a token, code or session with this fingerprint is stored.
pub(crate) fn record_key(kind: Kind, fingerprint: &[u8; 32]) -> RecordKey {
    RecordKey::new(kind, hex(fingerprint))
}

pub(crate) fn grant_key(user: &UserName, id: &str) -> RecordKey {
    RecordKey::within(Kind::Grant, user.as_str(), id)
}

impl Grant {
    /// The writes that end it. Access and refresh tokens need no write of
    /// their own: without the grant they are void, and they are swept later.
    pub(crate) fn removal(&self) -> Vec<Write> {
        let mut writes = vec![delete(grant_key(&self.user, &self.id), Expect::Anything)];
        if let GrantFor::ApiToken { token, .. } = &self.subject {
            writes.push(delete(
                RecordKey::new(Kind::Token, token.clone()),
                Expect::Anything,
            ));
        }
        writes
    }
}

impl Identity {
    /// A new random token; 32 bytes of entropy.
    pub(crate) fn new_token(&self, prefix: &str) -> String {
        format!("{prefix}{}", random_token::<32>(&*self.0.world.random))
    }

    pub(crate) async fn find_token(
        &self,
        token: &str,
    ) -> Result<Option<(TokenRecord, Revision)>, StoreError> {
        load(
            &*self.0.world.records,
            &record_key(Kind::Token, &self.fingerprint(token)),
        )
        .await
    }

    pub(crate) async fn find_grant(
        &self,
        user: &UserName,
        id: &str,
    ) -> Result<Option<(Grant, Revision)>, StoreError> {
        load(&*self.0.world.records, &grant_key(user, id)).await
    }

    /// All grants of the user that have not expired.
    pub(crate) async fn grants_of(&self, user: &UserName) -> Result<Vec<Grant>, StoreError> {
        let now = self.now();
        let records = self
            .0
            .world
            .records
            .list(Kind::Grant, Some(user.as_str()))
            .await?;
        let grants = records
            .iter()
            .map(parse::<Grant>)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(grants.into_iter().filter(|g| g.expires_at > now).collect())
    }

    /// Ends a grant if it is still there; whether it was.
    pub(crate) async fn end_grant(&self, user: &UserName, id: &str) -> Result<bool, StoreError> {
        let Some((grant, _)) = self.find_grant(user, id).await? else {
            return Ok(false);
        };
        self.0.world.records.write(grant.removal()).await?;
        self.0.cache.void();
        Ok(true)
    }
}
