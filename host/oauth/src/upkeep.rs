//! Looking after connections in the background: what is due is renewed, whose
//! end is near is warned of, what was to be revoked is revoked.
//!
//! Every connection that will need something has one [`Kind::Due`] record that
//! expires when it does, written in the same batch as the connection. Whoever
//! takes such a record moves it on by the time the work may take: so no two
//! hosts do it, and a host that dies leaves it to the others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::connection::{Connection, ConnectionKey, State};
use countersign_core::names::{ConnectionId, ProviderName};
use countersign_core::ports::{
    Expect, Kind, Record, RecordKey, StoreError, Write, delete, load, parse, put, put_until,
    random_bytes,
};
use countersign_core::preset::Refresh;
use countersign_core::time::Timestamp;
use countersign_core::upkeep::{Jitter, chores};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde::{Deserialize, Serialize};

use crate::revoke::Pending;
use crate::service::{Oauth, Party, lock};

mod tend;

/// Records looked at in one round.
const ROUND: usize = 512;
/// How long what was taken may take before somebody else takes it.
const TAKEN_FOR: Duration = Duration::from_secs(180);
/// What finds its provider busy comes back after this time, spread over as much.
const LATER: Duration = Duration::from_secs(15);
/// What cannot be done for want of a provider or preset is looked at again.
const MUCH_LATER: Duration = Duration::from_secs(3600);
/// Connections of earlier versions are looked at within this time.
const AT_FIRST: Duration = Duration::from_secs(900);

/// Finds a provider and its preset as they are now.
pub trait Parties: Send + Sync {
    /// None if the provider is gone or its preset does not serve.
    fn party(&self, provider: &ProviderName) -> Option<Party>;
}

impl<F: Fn(&ProviderName) -> Option<Party> + Send + Sync> Parties for F {
    fn party(&self, provider: &ProviderName) -> Option<Party> {
        self(provider)
    }
}

/// What a due record is about. What it needs of secrets is its secret half.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "work")]
pub(crate) enum Work {
    /// A connection is to be looked after.
    Connection(Appointment),
    /// What is left of a connection is to be revoked at its provider.
    Revocation(Box<Pending>),
}

/// Which connection is to be looked after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Appointment {
    pub(crate) id: ConnectionId,
    pub(crate) key: ConnectionKey,
    /// Failures in a row.
    #[serde(default)]
    pub(crate) failures: u32,
}

impl Work {
    fn provider(&self) -> &ProviderName {
        match self {
            Self::Connection(appointment) => &appointment.key.provider,
            Self::Revocation(pending) => &pending.connection.provider,
        }
    }
}

/// A due record that this host has taken.
pub(crate) struct Taken {
    pub(crate) record: Record,
    pub(crate) work: Work,
}

pub(crate) fn due_key(id: &ConnectionId) -> RecordKey {
    RecordKey::new(Kind::Due, format!("connection/{id}"))
}

impl Oauth {
    pub(crate) fn jitter(&self) -> Jitter {
        let [byte] = random_bytes::<1>(&*self.world.random);
        Jitter(byte)
    }

    /// The write that makes, moves or removes the connection's appointment. It
    /// goes with the write of the connection.
    pub(crate) fn appointment(
        &self,
        connection: &Connection,
        refresh: &Refresh,
    ) -> Result<Write, StoreError> {
        let now = self.world.clock.now();
        let found = chores(connection, refresh, &self.care, now, self.jitter());
        let at = match found.renew.is_empty() && found.warn.is_none() {
            true => found.next,
            false => Some(now),
        };
        self.appointment_at(connection, at)
    }

    /// [`Self::appointment`] at this time; none removes it.
    pub(crate) fn appointment_at(
        &self,
        connection: &Connection,
        at: Option<Timestamp>,
    ) -> Result<Write, StoreError> {
        let key = due_key(&connection.id);
        let (State::Connected, Some(at)) = (connection.state, at) else {
            return Ok(delete(key, Expect::Anything));
        };
        let work = Work::Connection(Appointment {
            id: connection.id.clone(),
            key: connection.key(),
            failures: 0,
        });
        put_until(key, Expect::Anything, &work, Some(at))
    }

    /// Does one round: takes what is due and begins it. Providers that a round
    /// is still busy with are left out. Returns how much was due and the work
    /// that was begun.
    ///
    /// # Errors
    /// The store's.
    pub async fn begin_round(
        self: &Arc<Self>,
        parties: &Arc<dyn Parties>,
    ) -> Result<Round, StoreError> {
        let now = self.world.clock.now();
        let due = self.world.records.due(now, ROUND).await?;
        let found = due.len();
        let is_full = found == ROUND;
        let mut of_provider: HashMap<ProviderName, Vec<Taken>> = HashMap::new();
        let mut later = Vec::new();
        let mut unreadable = Vec::new();
        {
            let busy = lock(&self.busy);
            for record in due {
                let work: Work = match parse(&record) {
                    Ok(work) => work,
                    Err(error) => {
                        tracing::error!(%error, "a due record cannot be read and is removed");
                        unreadable.push(delete(record.key, Expect::At(record.revision)));
                        continue;
                    }
                };
                let provider = work.provider().clone();
                let taken = Taken { record, work };
                if !busy.contains(&provider) {
                    of_provider.entry(provider).or_default().push(taken);
                } else if is_full {
                    // It stands in the way of what lies behind it.
                    later.push(taken);
                }
            }
        }
        for write in unreadable {
            self.world.records.write(vec![write]).await?;
        }
        self.move_all(later, |this| now.plus(LATER).plus(this.jitter().of(LATER)))
            .await;
        let mut begun = Vec::new();
        for (provider, work) in of_provider {
            if let Some(until) = self.health.rests(&provider, now) {
                let spread = LATER;
                self.move_all(work, |this| until.plus(this.jitter().of(spread)))
                    .await;
                continue;
            }
            lock(&self.busy).insert(provider.clone());
            let work = self.move_all(work, |_| now.plus(TAKEN_FOR)).await;
            let (this, parties) = (Arc::clone(self), Arc::clone(parties));
            begun.push(tokio::spawn(async move {
                let guard = Busy(&this, &provider);
                this.work_off(&*parties, &provider, work).await;
                drop(guard);
            }));
        }
        self.observer.round(found, self.health.resting(now));
        Ok(Round {
            due: found,
            is_full,
            begun,
        })
    }

    /// [`Self::begin_round`], waiting until all of it is done: for tests and
    /// tools.
    ///
    /// # Errors
    /// The store's.
    pub async fn do_round(
        self: &Arc<Self>,
        parties: &Arc<dyn Parties>,
    ) -> Result<usize, StoreError> {
        let round = self.begin_round(parties).await?;
        for task in round.begun {
            // A panic in it was logged; its record falls due again.
            let _ = task.await;
        }
        Ok(round.due)
    }

    /// Moves records to another time; returns those that were still as read.
    async fn move_all(&self, work: Vec<Taken>, to: impl Fn(&Self) -> Timestamp) -> Vec<Taken> {
        let mut moves: FuturesUnordered<_> = work
            .into_iter()
            .map(|taken| {
                let at = to(self);
                async move { self.move_one(taken, at).await }
            })
            .collect();
        let mut moved = Vec::new();
        while let Some(done) = moves.next().await {
            match done {
                Ok(taken) => moved.extend(taken),
                Err(error) => tracing::warn!(%error, "background work could not be taken"),
            }
        }
        moved
    }

    /// Moves one record; none if somebody else has it by now.
    pub(crate) async fn move_one(
        &self,
        mut taken: Taken,
        at: Timestamp,
    ) -> Result<Option<Taken>, StoreError> {
        let expect = Expect::At(taken.record.revision);
        let write = put_until(taken.record.key.clone(), expect, &taken.work, Some(at))?;
        match self.world.records.write(vec![write]).await {
            Ok(revisions) => {
                if let Some(revision) = revisions.first() {
                    taken.record.revision = *revision;
                }
                Ok(Some(taken))
            }
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a record, if it is still as it was taken.
    pub(crate) async fn remove(&self, taken: &Taken) -> Result<(), StoreError> {
        let write = delete(taken.record.key.clone(), Expect::At(taken.record.revision));
        match self.world.records.write(vec![write]).await {
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn work_off(
        self: &Arc<Self>,
        parties: &dyn Parties,
        provider: &ProviderName,
        work: Vec<Taken>,
    ) {
        futures_util::stream::iter(work)
            .for_each_concurrent(self.care.concurrency.max(1), |taken| {
                let this = Arc::clone(self);
                let party = parties.party(provider);
                async move {
                    if let Err(error) = this.do_one(party, taken).await {
                        tracing::warn!(%error, "background work was not done; it is tried again");
                    }
                }
            })
            .await;
    }

    async fn do_one(
        self: &Arc<Self>,
        party: Option<Party>,
        taken: Taken,
    ) -> Result<(), StoreError> {
        let now = self.world.clock.now();
        // It began to fail while this waited for its turn.
        if let Some(until) = self.health.rests(taken.work.provider(), now) {
            let at = until.plus(self.jitter().of(LATER));
            return self.move_one(taken, at).await.map(drop);
        }
        match taken.work.clone() {
            Work::Connection(appointment) => self.tend(party, taken, &appointment).await,
            Work::Revocation(pending) => self.revoke_pending(party, taken, *pending).await,
        }
    }

    pub(crate) async fn much_later(&self, taken: Taken) -> Result<(), StoreError> {
        let now = self.world.clock.now();
        let at = now.plus(MUCH_LATER).plus(self.jitter().of(MUCH_LATER));
        self.move_one(taken, at).await.map(drop)
    }

    /// Makes appointments for connections that have none: of a version that made
    /// none, or of a time when nothing was renewed in the background. Done once
    /// for a store.
    ///
    /// # Errors
    /// The store's; it is tried again at the next start.
    pub async fn make_appointments(&self) -> Result<usize, StoreError> {
        const BATCH: usize = 100;
        let marker = RecordKey::new(Kind::Meta, "appointments");
        let records = &self.world.records;
        let found = load::<bool>(&**records, &marker).await?;
        let are_made = found.is_some_and(|(are_made, _)| are_made);
        if are_made == self.care.background {
            return Ok(0);
        }
        if !self.care.background {
            // Those that are looked at from now on lose theirs.
            let write = put(marker, Expect::Anything, &false)?;
            return records.write(vec![write]).await.map(|_| 0);
        }
        let now = self.world.clock.now();
        let mut writes = Vec::new();
        for record in records.list(Kind::Connection, None).await? {
            let Ok(connection) = parse::<Connection>(&record) else {
                continue;
            };
            if connection.state == State::Connected {
                let at = now.plus(self.jitter().of(AT_FIRST));
                writes.push(self.appointment_at(&connection, Some(at))?);
            }
        }
        let made = writes.len();
        let mut rest = writes.into_iter();
        loop {
            let batch: Vec<Write> = rest.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            records.write(batch).await?;
        }
        records
            .write(vec![put(marker, Expect::Anything, &true)?])
            .await?;
        Ok(made)
    }
}

/// One round of background work.
pub struct Round {
    /// Records that were due.
    pub due: usize,
    /// There may be more.
    pub is_full: bool,
    /// What was begun.
    pub begun: Vec<tokio::task::JoinHandle<()>>,
}

/// The provider is busy for as long as this is there.
struct Busy<'a>(&'a Oauth, &'a ProviderName);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(&self.0.busy).remove(self.1);
    }
}

/// Providers that a round is busy with.
pub(crate) type BusyWith = std::sync::Mutex<HashSet<ProviderName>>;
