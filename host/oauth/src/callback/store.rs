//! Storing what was granted, over what was there.

use countersign_core::connection::{Account, Connection, Origins, State};
use countersign_core::names::ConnectionId;
use countersign_core::ports::{Change, Expect, SecretChange, StoreError, Write, random_token};
use countersign_core::token_answer::Granted;

use super::Stop;
use crate::connections::{ATTEMPTS, record_key};
use crate::consent::Flow;
use crate::service::{Oauth, Party};

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
        for _ in 0..ATTEMPTS {
            let existing = self.load(&key).await?;
            let old = existing.as_ref().map(|h| &h.connection);
            if let Some(old) = old {
                check_account(old, account.as_ref())?;
            }
            let now = self.world.clock.now();
            let id = match old {
                Some(old) => old.id.clone(),
                None => new_id(&random_token::<16>(&*self.world.random))?,
            };
            let connection = Connection {
                id,
                user: flow.user.clone(),
                team: flow.team.clone(),
                provider: flow.provider.clone(),
                resource: flow.resource.clone(),
                account: account.clone(),
                credentials: granted.facts.clone(),
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
            };
            let document =
                serde_json::to_vec(&connection).map_err(|e| StoreError::Damaged(e.to_string()))?;
            let write = Write {
                key: record_key(&key),
                expect: existing
                    .as_ref()
                    .map_or(Expect::Absent, |held| Expect::At(held.revision)),
                change: Some(Change {
                    document,
                    secret: SecretChange::Set(granted.tokens.framed()),
                    expires_at: None,
                }),
            };
            match self.world.records.write(vec![write]).await {
                Ok(_) => return Ok((connection, existing.is_some())),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
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
