//! Reading connections, and changing their state from outside a consent.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use countersign_core::connection::{Connection, ConnectionKey, ReauthReason, State};
use countersign_core::names::{ProviderName, UserName};
use countersign_core::ports::{
    Expect, Kind, Record, RecordKey, Reread, Revision, StoreError, Version, Write, parse, put,
};

use crate::service::{Held, Oauth};

/// How often the store is asked while somebody waits: another replica may have
/// finished the consent.
const POLL: Duration = Duration::from_secs(1);
/// How often a lost compare-and-set is tried again.
pub(crate) const ATTEMPTS: usize = 8;

pub(crate) fn record_key(key: &ConnectionKey) -> RecordKey {
    RecordKey::within(Kind::Connection, key.user.as_str(), key.record_name())
}

/// Connections that are remembered; when they are too many all are forgotten.
const REMEMBERED: usize = 16_384;

/// The facts of connections that were read lately, each with the version it
/// was read from. Never a token: those are opened anew for every call.
#[derive(Default)]
pub(crate) struct Remembered(RwLock<HashMap<ConnectionKey, Facts>>);

#[derive(Clone)]
struct Facts {
    version: Version,
    revision: Revision,
    connection: Arc<Connection>,
}

impl Remembered {
    fn get(&self, key: &ConnectionKey) -> Option<Facts> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(key).cloned()
    }

    /// What was read; nothing is remembered of a connection that is gone.
    fn note(
        &self,
        key: &ConnectionKey,
        record: Option<Record>,
    ) -> Result<Option<Held>, StoreError> {
        let lock = || self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = record else {
            lock().remove(key);
            return Ok(None);
        };
        let facts = Facts {
            version: record.version,
            revision: record.revision,
            connection: Arc::new(parse(&record)?),
        };
        let mut all = lock();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(key.clone(), facts.clone());
        drop(all);
        Ok(Some(Held {
            connection: facts.connection,
            revision: facts.revision,
            sealed: record.secret,
        }))
    }
}

/// One damaged record does not hide the others.
fn readable(records: &[Record]) -> impl Iterator<Item = Connection> {
    records.iter().filter_map(|record| {
        parse(record)
            .inspect_err(|error| tracing::error!(%error, "a connection cannot be read"))
            .ok()
    })
}

impl Oauth {
    /// Reads one connection: a single read of the store. Its facts are opened
    /// and parsed only when they are another version than the last time.
    ///
    /// # Errors
    /// The store's.
    pub async fn load(&self, key: &ConnectionKey) -> Result<Option<Held>, StoreError> {
        let (records, place) = (&self.world.records, record_key(key));
        let record = match self.remembered.get(key) {
            None => records.get(&place).await?,
            Some(facts) => match records.reread(&place, facts.version).await? {
                Reread::Other(record) => record,
                Reread::Same(sealed) => {
                    return Ok(Some(Held {
                        connection: facts.connection,
                        revision: facts.revision,
                        sealed,
                    }));
                }
            },
        };
        self.remembered.note(key, record)
    }

    /// A user's own connections, by provider and resource. Never tokens.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self, user: &UserName) -> Result<Vec<Connection>, StoreError> {
        let records = self
            .world
            .records
            .list(Kind::Connection, Some(user.as_str()))
            .await?;
        let mut connections: Vec<Connection> = readable(&records).collect();
        connections.sort_by_cached_key(|c| c.key().record_name());
        Ok(connections)
    }

    /// How many connections a provider has, over all users.
    ///
    /// # Errors
    /// The store's.
    pub async fn count(&self, provider: &ProviderName) -> Result<usize, StoreError> {
        let records = self.world.records.list(Kind::Connection, None).await?;
        Ok(readable(&records)
            .filter(|c| c.provider == *provider)
            .count())
    }

    /// Holds all of a user's connections until a fresh authorization returns
    /// the same account. Returns how many there are.
    ///
    /// # Errors
    /// The store's.
    pub async fn suspend_all(&self, user: &UserName) -> Result<usize, StoreError> {
        let connections = self.list(user).await?;
        for connection in &connections {
            self.set_state(
                &connection.key(),
                |c| c.state != State::Suspended,
                State::Suspended,
            )
            .await?;
        }
        Ok(connections.len())
    }

    /// Says that the connection of this generation no longer works (the
    /// upstream refused a renewed token). A newer consent is left alone, and so
    /// is one whose token has ended meanwhile: an upstream has to refuse that.
    ///
    /// # Errors
    /// The store's.
    pub async fn reject(
        &self,
        key: &ConnectionKey,
        generation: u64,
        reason: ReauthReason,
    ) -> Result<(), StoreError> {
        let now = self.world.clock.now();
        let had_ended = |c: &Connection| {
            reason == ReauthReason::UpstreamUnauthorized
                && c.credentials.iter().any(|facts| facts.may_have_lapsed(now))
        };
        let same = |c: &Connection| {
            c.generation == generation && c.state == State::Connected && !had_ended(c)
        };
        self.set_state(key, same, State::NeedsReauth { reason })
            .await
    }

    /// The provider knows this client of its own no more, so what it issued to
    /// it can't be renewed: its connections need a new authorization. Returns
    /// how many there are.
    ///
    /// # Errors
    /// The store's.
    pub async fn reject_client(
        &self,
        provider: &ProviderName,
        client_id: &str,
    ) -> Result<usize, StoreError> {
        let records = self.world.records.list(Kind::Connection, None).await?;
        let reason = ReauthReason::ClientRejected;
        let mut count = 0;
        for connection in readable(&records) {
            if connection.provider != *provider || connection.client_id != client_id {
                continue;
            }
            let same = |c: &Connection| c.client_id == client_id && c.state == State::Connected;
            self.set_state(&connection.key(), same, State::NeedsReauth { reason })
                .await?;
            count += 1;
        }
        Ok(count)
    }

    async fn set_state(
        &self,
        key: &ConnectionKey,
        applies: impl Fn(&Connection) -> bool,
        state: State,
    ) -> Result<(), StoreError> {
        // What has ended has no appointment.
        let change = |c: &mut Connection| c.state = state;
        self.change(key, applies, change, |c| self.appointment_at(c, None))
            .await
            .map(drop)
    }

    /// Changes the facts of a connection for which this holds; says whether it
    /// did. The appointment goes with it.
    pub(crate) async fn change(
        &self,
        key: &ConnectionKey,
        applies: impl Fn(&Connection) -> bool,
        change: impl Fn(&mut Connection),
        appointment: impl Fn(&Connection) -> Result<Write, StoreError>,
    ) -> Result<bool, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(held) = self.load(key).await? else {
                return Ok(false);
            };
            if !applies(&held.connection) {
                return Ok(false);
            }
            let mut changed = Connection::clone(&held.connection);
            change(&mut changed);
            changed.updated_at = self.world.clock.now();
            let writes = vec![
                put(record_key(key), Expect::At(held.revision), &changed)?,
                appointment(&changed)?,
            ];
            match self.world.records.write(writes).await {
                Err(StoreError::Conflict) => {}
                done => return done.map(|_| true),
            }
        }
        Err(StoreError::Conflict)
    }

    /// Notes that a connection was used. Called rarely: at most once a minute
    /// for each connection, by whoever counts; a lost race is no loss.
    ///
    /// # Errors
    /// The store's, but for a lost race.
    pub async fn touch(&self, key: &ConnectionKey) -> Result<(), StoreError> {
        let Some(held) = self.load(key).await? else {
            return Ok(());
        };
        let now = self.world.clock.now();
        let was_idle = now.since(held.connection.used_at()) > self.care.active;
        let used = Connection {
            last_used_at: Some(now),
            ..Connection::clone(&held.connection)
        };
        let mut writes = vec![put(record_key(key), Expect::At(held.revision), &used)?];
        if was_idle {
            // From now on it is kept fresh again.
            writes.push(self.appointment_at(&used, Some(now))?);
        }
        match self.world.records.write(writes).await {
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Connections were changed by another process: whoever waits for one looks
    /// again.
    pub fn connections_changed(&self) {
        self.waiters.notify_all();
    }

    /// Waits until the connection is as wanted, or the time is over. Wakes at
    /// once for a consent in this process, within a second for another's.
    ///
    /// # Errors
    /// The store's.
    pub async fn wait_until(
        &self,
        key: &ConnectionKey,
        timeout: Duration,
        wanted: impl Fn(&Connection) -> bool,
    ) -> Result<Option<Held>, StoreError> {
        let deadline = tokio::time::sleep(timeout);
        tokio::pin!(deadline);
        // Subscribed before the first look, so that nothing falls between.
        let mut changes = self.waiters.subscribe(key);
        loop {
            if let Some(held) = self.load(key).await?
                && wanted(&held.connection)
            {
                return Ok(Some(held));
            }
            tokio::select! {
                () = &mut deadline => return Ok(None),
                _ = changes.changed() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}
