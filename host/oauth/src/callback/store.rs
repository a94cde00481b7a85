//! Storing what was granted, over what was there.

use countersign_core::connection::{Account, Connection, Origins, State, TokenFacts};
use countersign_core::names::ConnectionId;
use countersign_core::ports::{Change, Expect, SecretChange, StoreError, Write, random_token};
use countersign_core::refresh::renewed;
use countersign_core::scope::ScopeSet;
use countersign_core::secret::Secret;
use countersign_core::token_answer::Granted;

use super::Stop;
use crate::connections::{ATTEMPTS, record_key};
use crate::consent::Flow;
use crate::service::{Held, Oauth, Party};

impl Oauth {
    /// Stores a new connection, or a new generation of the one there was (then
    /// `true`).
    pub(crate) async fn store(
        &self,
        flow: &Flow,
        party: &Party,
        granted: Granted,
        facts: Vec<(String, String)>,
        account: Option<Account>,
        origins: Origins,
    ) -> Result<(Connection, bool), Stop> {
        let key = flow.connection_key();
        let description = party.preset.description();
        for _ in 0..ATTEMPTS {
            let existing = self.load(&key).await?;
            let old = existing.as_ref().map(|h| &h.connection);
            if let Some(old) = old {
                check_account(old, account.as_ref())?;
            }
            let now = self.world.clock.now();
            let (tokens, credentials) = match &existing {
                Some(held) if prolongs(held, flow, account.as_ref(), &origins) => {
                    kept(held, &granted)
                }
                _ => (granted.tokens.framed(), granted.facts.clone()),
            };
            let id = match old {
                Some(old) => old.id.clone(),
                None => new_id(&random_token::<16>(&*self.world.random))?,
            };
            let mut connection = Connection {
                id,
                user: flow.user.clone(),
                team: flow.team.clone(),
                provider: flow.provider.clone(),
                resource: flow.resource.clone(),
                account: account.clone(),
                credentials,
                facts: facts.clone(),
                origins: origins.clone(),
                client_id: flow.client_id.clone(),
                preset_digest: party.preset.digest(),
                state: State::Connected,
                generation: old.map_or(1, |old| old.generation + 1),
                created_at: old.map_or(now, |old| old.created_at),
                updated_at: now,
                consented_at: Some(now),
                last_used_at: old.and_then(|old| old.last_used_at),
                warned_of: None,
                withheld: ScopeSet::default(),
            };
            if let Some(old) = old {
                // Asked for again, and not granted again.
                let asked = old.withheld.union(&flow.asked);
                let implications = description.implications();
                connection.withheld = implications.missing(&connection.scopes(), &asked);
            }
            let document =
                serde_json::to_vec(&connection).map_err(|e| StoreError::Damaged(e.to_string()))?;
            let write = Write {
                key: record_key(&key),
                expect: existing
                    .as_ref()
                    .map_or(Expect::Absent, |held| Expect::At(held.revision)),
                change: Some(Change {
                    document,
                    secret: SecretChange::Set(tokens),
                    expires_at: None,
                }),
            };
            let mut writes = vec![write];
            writes.push(self.appointment(&connection, &description.refresh)?);
            // Another account's tokens serve nobody any more.
            if let Some(held) = &existing
                && let (Some(was), Some(is)) = (&held.connection.account, &connection.account)
                && was.id != is.id
                && let Some(sealed) = &held.sealed
            {
                writes.extend(self.queue_revocation(&held.connection, sealed, now)?);
            }
            match self.world.records.write(writes).await {
                Ok(_) => return Ok((connection, existing.is_some())),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }
}

/// Whether a consent adds to the tokens that are held, so that what its answer
/// leaves out (as a rule the refresh token) is still good: same account, client
/// and provider.
fn prolongs(held: &Held, flow: &Flow, account: Option<&Account>, origins: &Origins) -> bool {
    let old = &held.connection;
    let same_account = match (&old.account, account) {
        (Some(old), Some(new)) => old.id == new.id,
        _ => false,
    };
    same_account
        && old.state == State::Connected
        && old.client_id == flow.client_id
        && old.origins.token == origins.token
}

/// The new tokens over the old ones: what the answer leaves out is kept.
fn kept(held: &Held, granted: &Granted) -> (Secret, Vec<TokenFacts>) {
    let fresh = || (granted.tokens.framed(), granted.facts.clone());
    let Some(sealed) = &held.sealed else {
        return fresh();
    };
    match renewed(sealed, &held.connection, granted) {
        Ok((tokens, mut facts)) => {
            for facts in &mut facts {
                // A consent begins anew.
                facts.refresh_token_end_is_fixed = false;
            }
            (tokens.into_secret(), facts)
        }
        Err(_) => fresh(),
    }
}

fn new_id(random: &str) -> Result<ConnectionId, StoreError> {
    ConnectionId::parse(&format!("con_{random}")).map_err(|e| StoreError::Damaged(e.to_string()))
}

/// A suspended connection comes back only with the same account.
fn check_account(old: &Connection, new: Option<&Account>) -> Result<(), Stop> {
    if old.state != State::Suspended {
        return Ok(());
    }
    match (&old.account, new) {
        (Some(old), Some(new)) if old.id == new.id => Ok(()),
        _ => Err(Stop::refused(
            "other_account",
            "This connection is on hold until you sign in with the same account as before. Use that account, or disconnect first.",
        )),
    }
}
