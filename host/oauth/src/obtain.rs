//! Tokens that Countersign obtains by itself, without a consent: for a service
//! account (RFC 6749 §4.4, RFC 7523 §2.1), or for a user in exchange for the
//! host's own word about him, or for the token that his identity provider gave
//! his agent (RFC 8693, RFC 7523 §2.1).
//!
//! They are kept sealed until they end, each for exactly what it was asked for:
//! what is asked is what it is found by, so a changed provider or server finds
//! none. At most one request for one of them is under way at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::connection::{Connection, Origins, State, TokenFacts};
use countersign_core::error::CallError;
use countersign_core::issuer::CallerToken;
use countersign_core::names::{ConnectionId, Digest, ProviderName, TeamName, UserName};
use countersign_core::ports::{Expect, Kind, RecordKey, StoreError, delete, parse};
use countersign_core::provider::GrantType;
use countersign_core::refresh::{Need, need_again};
use countersign_core::request::Asking;
use countersign_core::scope::ScopeSet;
use countersign_core::time::Timestamp;
use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::refresh::{Flight, FreshError};
use crate::revoke::{Revoked, can_revoke};
use crate::service::{Held, Oauth, Party, lock};

mod ask;

/// After a failure nothing is asked again for so long.
const REST: Duration = Duration::from_secs(10);
/// An upstream's 401 makes a token be obtained anew once in this time.
const FORCE_WINDOW: Duration = Duration::from_secs(60);

/// Whose identity the token carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// One for all users.
    Service,
    /// The calling user's own.
    User,
}

/// What a token is obtained for.
#[derive(Debug, Clone)]
pub struct Purpose {
    /// Whose identity.
    pub identity: Identity,
    /// Who calls. A service account's token does not depend on it.
    pub user: UserName,
    /// In which team.
    pub team: TeamName,
    /// What it has to reach.
    pub scopes: ScopeSet,
    /// RFC 8707.
    pub resource: Option<Url>,
    /// RFC 8693, or a vendor's.
    pub audience: Option<String>,
    /// What the caller's own identity provider says of him: shown in place of
    /// the host's word where that provider's token endpoint is the one asked,
    /// and nowhere else.
    pub presented: Option<Arc<CallerToken>>,
}

/// How it is obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    ClientCredentials,
    TokenExchange,
    JwtBearer,
}

impl Way {
    /// The first that the provider is used with.
    fn of(identity: Identity, grants: &[GrantType]) -> Option<Self> {
        let ways = match identity {
            Identity::Service => [
                (GrantType::ClientCredentials, Self::ClientCredentials),
                (GrantType::JwtBearer, Self::JwtBearer),
            ],
            Identity::User => [
                (GrantType::TokenExchange, Self::TokenExchange),
                (GrantType::JwtBearer, Self::JwtBearer),
            ],
        };
        let usable = ways.into_iter().find(|(grant, _)| grants.contains(grant));
        usable.map(|(_, way)| way)
    }

    fn word(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::TokenExchange => "token_exchange",
            Self::JwtBearer => "jwt_bearer",
        }
    }
}

/// What was obtained: the public half of its record.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    /// Whose identity, if it is a user's.
    user: Option<UserName>,
    team: Option<TeamName>,
    credentials: Vec<TokenFacts>,
    facts: Vec<(String, String)>,
    origins: Origins,
    client_id: String,
    preset_digest: Digest,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// One token and all that it takes to obtain it.
#[derive(Clone)]
struct Errand {
    purpose: Purpose,
    party: Party,
    way: Way,
    key: RecordKey,
    /// When the token was issued that an upstream refused.
    refused: Option<Timestamp>,
}

/// What is going on with obtained tokens in this process.
#[derive(Default)]
pub(crate) struct Obtaining {
    flights: HashMap<RecordKey, Flight>,
    failed: HashMap<RecordKey, (Timestamp, FreshError)>,
    forced: HashMap<RecordKey, Timestamp>,
}

impl Errand {
    fn unavailable(&self, detail: impl Into<String>) -> FreshError {
        let provider = self.party.provider.display_name.clone();
        CallError::ProviderUnavailable {
            provider,
            detail: detail.into(),
        }
        .into()
    }

    fn refused(&self, detail: impl Into<String>) -> FreshError {
        let provider = self.party.provider.display_name.clone();
        CallError::ProviderRefused {
            provider,
            detail: detail.into(),
        }
        .into()
    }

    /// Names the token in audit events and leases.
    fn id(&self) -> Result<ConnectionId, FreshError> {
        let kind = match self.purpose.identity {
            Identity::Service => "svc",
            Identity::User => "exc",
        };
        let id = ConnectionId::parse(&format!("{kind}_{}", self.key.name));
        id.map_err(|e| StoreError::Damaged(e.to_string()).into())
    }

    fn need(&self, held: Option<&Held>, now: Timestamp) -> Need {
        let Some(facts) = held.and_then(|h| h.connection.credential(None)) else {
            return Need::Now;
        };
        if self.refused == Some(facts.issued_at) {
            return Need::Now;
        }
        need_again(facts, &self.party.preset.description().refresh, now)
    }
}

/// A name for exactly this: nothing that decides what a token is good for is
/// left out, and no two lists of parts read the same.
fn name_of<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_le_bytes());
        all.extend_from_slice(part.as_bytes());
    }
    countersign_core::names::hex(&Digest::of(&all).as_bytes()[..20])
}

impl Oauth {
    /// A token that is good to send, obtained if there is none.
    ///
    /// # Errors
    /// [`FreshError`]; nothing can be sent.
    pub async fn obtain(
        self: &Arc<Self>,
        purpose: &Purpose,
        party: &Party,
    ) -> Result<Held, FreshError> {
        let errand = self.errand(purpose, party, None)?;
        self.run(errand).await
    }

    /// After an upstream answered 401 to the token of `held`: obtains another,
    /// once in a while. The request may then be sent once more.
    ///
    /// # Errors
    /// [`FreshError`]; nothing can be sent.
    pub async fn obtain_again(
        self: &Arc<Self>,
        purpose: &Purpose,
        party: &Party,
        held: Held,
    ) -> Result<Held, FreshError> {
        let refused = held.connection.credential(None).map(|f| f.issued_at);
        let errand = self.errand(purpose, party, refused)?;
        let now = self.world.clock.now();
        let current = self.obtained(&errand).await?;
        if errand.need(current.as_ref(), now) != Need::Now {
            return current.ok_or_else(|| errand.unavailable("it was withdrawn"));
        }
        {
            let mut state = lock(&self.obtaining);
            state.forced.retain(|_, at| now.since(*at) < FORCE_WINDOW);
            if state.forced.insert(errand.key.clone(), now).is_some() {
                return Ok(held);
            }
        }
        self.run(errand).await
    }

    fn errand(
        &self,
        purpose: &Purpose,
        party: &Party,
        refused: Option<Timestamp>,
    ) -> Result<Errand, FreshError> {
        let provider = &party.provider;
        let mut errand = Errand {
            purpose: purpose.clone(),
            party: party.clone(),
            way: Way::ClientCredentials,
            key: RecordKey::within(Kind::Obtained, provider.name.as_str(), String::new()),
            refused,
        };
        errand.way = Way::of(purpose.identity, &provider.grant_types).ok_or_else(|| {
            errand.refused(match purpose.identity {
                Identity::Service => {
                    "its grant types name neither client_credentials nor jwt_bearer"
                }
                Identity::User => "its grant types name neither token_exchange nor jwt_bearer",
            })
        })?;
        let values = crate::obtain::ask::values(&errand)?;
        let asking = Asking {
            provider,
            description: party.preset.description(),
            values: &values,
            client_secret: None,
            client_key: None,
        };
        let endpoint = ask::endpoint(&errand, &asking)?;
        let presented = errand.purpose.presented.take();
        errand.purpose.presented = presented
            .filter(|own| purpose.identity == Identity::User && own.token_endpoint == endpoint);
        let word_of = match errand.purpose.presented {
            Some(_) => "issuer",
            None => "host",
        };
        let audience: Vec<String> = asking.audience().iter().map(ToString::to_string).collect();
        let (user, team) = match purpose.identity {
            Identity::Service => ("", ""),
            Identity::User => (purpose.user.as_str(), purpose.team.as_str()),
        };
        let scopes = purpose.scopes.join(" ");
        let hosts = audience.join(" ");
        errand.key.name = name_of([
            errand.way.word(),
            word_of,
            user,
            team,
            endpoint.as_str(),
            &provider.client_id,
            purpose.resource.as_ref().map_or("", Url::as_str),
            purpose.audience.as_deref().unwrap_or_default(),
            &scopes,
            &hosts,
        ]);
        Ok(errand)
    }

    async fn run(self: &Arc<Self>, errand: Errand) -> Result<Held, FreshError> {
        let now = self.world.clock.now();
        let held = self.obtained(&errand).await?;
        let need = errand.need(held.as_ref(), now);
        let held = match (need, held) {
            (Need::Fresh, Some(held)) => return Ok(held),
            (_, held) => held,
        };
        let good = |held: Option<Held>| held.filter(|_| need == Need::Soon);
        let resting = {
            let mut state = lock(&self.obtaining);
            state.failed.retain(|_, (until, _)| *until > now);
            state
                .failed
                .get(&errand.key)
                .map(|(_, error)| error.clone())
        };
        if let Some(error) = resting {
            return good(held).ok_or(error);
        }
        // Seldom, and large: not in the future of every call.
        match Box::pin(self.fly_for(&errand)).await {
            Ok(()) => {
                let obtained = self.obtained(&errand).await?;
                obtained.ok_or_else(|| errand.unavailable("it was withdrawn"))
            }
            Err(error) => {
                let until = self.world.clock.now().plus(REST);
                lock(&self.obtaining)
                    .failed
                    .insert(errand.key.clone(), (until, error.clone()));
                good(held).ok_or(error)
            }
        }
    }

    /// Joins the request under way for this token, or starts it. It runs as a
    /// task of its own: a caller who goes away does not stop it.
    async fn fly_for(self: &Arc<Self>, errand: &Errand) -> Result<(), FreshError> {
        let flight = {
            let mut state = lock(&self.obtaining);
            match state.flights.get(&errand.key) {
                Some(flight) => flight.clone(),
                None => {
                    let flight = self.flight_for(errand.clone());
                    state.flights.insert(errand.key.clone(), flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    fn flight_for(self: &Arc<Self>, errand: Errand) -> Flight {
        let (this, key) = (self.clone(), errand.key.clone());
        let failed = errand.unavailable("the request was interrupted");
        let task = tokio::spawn(async move { this.obtain_once(&errand).await });
        let this = self.clone();
        let flight = async move {
            let result = task.await.unwrap_or(Err(failed));
            lock(&this.obtaining).flights.remove(&key);
            result
        };
        flight.boxed().shared()
    }

    /// What is stored for this errand, as the calling user's connection.
    async fn obtained(&self, errand: &Errand) -> Result<Option<Held>, FreshError> {
        let Some(record) = self.world.records.get(&errand.key).await? else {
            return Ok(None);
        };
        let row: Row = parse(&record)?;
        let purpose = &errand.purpose;
        let mut connection = row.connection(
            errand.id()?,
            purpose.user.clone(),
            purpose.team.clone(),
            errand.party.provider.name.clone(),
        );
        connection.resource = purpose.resource.clone();
        Ok(Some(Held {
            connection: Arc::new(connection),
            revision: record.revision,
            sealed: record.secret,
        }))
    }

    /// Erases what was obtained for a user (in one team) and leaves its
    /// revocation to the background. Returns how many there were.
    ///
    /// # Errors
    /// The store's.
    pub async fn retire_obtained(
        &self,
        user: &UserName,
        team: Option<&TeamName>,
        party: impl Fn(&ProviderName) -> Option<Party>,
    ) -> Result<usize, StoreError> {
        let mut erased = 0;
        for record in self.world.records.list(Kind::Obtained, None).await? {
            let row: Row = parse(&record)?;
            let his = row.user.as_ref() == Some(user);
            if !his || team.is_some_and(|team| row.team.as_ref() != Some(team)) {
                continue;
            }
            let mut writes = vec![delete(record.key.clone(), Expect::Anything)];
            if let (Some((connection, provider)), Some(sealed)) =
                (row.of_record(&record.key)?, &record.secret)
                && party(&provider).is_some_and(|party| can_revoke(&party))
            {
                let now = self.world.clock.now();
                writes.extend(self.queue_revocation(&connection, sealed, now)?);
            }
            self.world.records.write(writes).await?;
            erased += 1;
        }
        Ok(erased)
    }

    /// Revokes what was obtained at a provider, as far as it answers within
    /// `patience`; for a provider that will be gone afterwards. What is kept of
    /// it is the caller's to erase. Returns how many were revoked.
    ///
    /// # Errors
    /// The store's.
    pub async fn revoke_obtained(
        &self,
        party: &Party,
        patience: Duration,
    ) -> Result<usize, StoreError> {
        let name = party.provider.name.as_str();
        let records = self.world.records.list(Kind::Obtained, Some(name)).await?;
        let mut revoked = 0;
        let revoking = async {
            for record in records {
                let Ok(row) = parse::<Row>(&record) else {
                    continue;
                };
                let (Ok(Some((connection, _))), Some(sealed)) =
                    (row.of_record(&record.key), &record.secret)
                else {
                    continue;
                };
                let done = self.revoke(&connection, sealed, party).await;
                revoked += usize::from(matches!(done, Revoked::Done { .. }));
            }
        };
        // Those that were not reached end by themselves.
        let _ = tokio::time::timeout(patience, revoking).await;
        Ok(revoked)
    }
}

impl Row {
    /// As a connection of this user's, for whoever asks, sends or revokes.
    fn connection(
        self,
        id: ConnectionId,
        user: UserName,
        team: TeamName,
        provider: ProviderName,
    ) -> Connection {
        Connection {
            id,
            user,
            team,
            provider,
            resource: None,
            account: None,
            credentials: self.credentials,
            facts: self.facts,
            origins: self.origins,
            client_id: self.client_id,
            preset_digest: self.preset_digest,
            state: State::Connected,
            generation: 1,
            created_at: self.created_at,
            updated_at: self.updated_at,
            consented_at: None,
            last_used_at: None,
            warned_of: None,
            withheld: ScopeSet::default(),
        }
    }

    /// The same by its record; a service account's is nobody's, and named after
    /// what it is. None if the record's place names no provider.
    fn of_record(self, key: &RecordKey) -> Result<Option<(Connection, ProviderName)>, StoreError> {
        let damaged = |e: &dyn std::fmt::Display| StoreError::Damaged(e.to_string());
        let Ok(provider) = ProviderName::parse(&key.partition) else {
            return Ok(None);
        };
        let kind = if self.user.is_some() { "exc" } else { "svc" };
        let id = ConnectionId::parse(&format!("{kind}_{}", key.name)).map_err(|e| damaged(&e))?;
        let user = match self.user.clone() {
            Some(user) => user,
            None => UserName::parse("service-account").map_err(|e| damaged(&e))?,
        };
        let team = self.team.clone().unwrap_or_else(TeamName::default_team);
        let connection = self.connection(id, user, team, provider.clone());
        Ok(Some((connection, provider)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_purposes_share_a_name() {
        let all = [
            name_of(["a", "b"]),
            name_of(["ab", ""]),
            name_of(["", "ab"]),
            name_of(["a", "", "b"]),
            name_of(["ab"]),
        ];
        for (i, name) in all.iter().enumerate() {
            assert!(!all[..i].contains(name), "{i}");
        }
        assert_eq!(name_of(["a", "b"]), all[0]);
    }

    #[test]
    fn a_way_is_taken_only_if_the_provider_is_used_with_it() {
        use GrantType as G;
        let cases = [
            (
                Identity::Service,
                vec![G::ClientCredentials],
                Some("client_credentials"),
            ),
            (Identity::Service, vec![G::JwtBearer], Some("jwt_bearer")),
            (
                Identity::Service,
                vec![G::TokenExchange, G::AuthorizationCode],
                None,
            ),
            (
                Identity::User,
                vec![G::JwtBearer, G::TokenExchange],
                Some("token_exchange"),
            ),
            (Identity::User, vec![G::JwtBearer], Some("jwt_bearer")),
            (Identity::User, vec![G::ClientCredentials], None),
        ];
        for (identity, grants, expected) in cases {
            let way = Way::of(identity, &grants).map(Way::word);
            assert_eq!(way, expected, "{identity:?} {grants:?}");
        }
    }
}
