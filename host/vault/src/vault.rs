//! The core's records, sealed in a store.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use countersign_core::ports::{
    BoxFuture, Kind, Random, Record, RecordKey, Records, Reread, Revision, StoreError, Version,
    Write,
};
use countersign_core::time::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::damage::{self, Damage};
use crate::error::OpenError;
use crate::keys::KeyRing;
use crate::seal::{Broken, Sealer, Unsealed};
use crate::store::{Changes, Row, Store, Which};

pub(crate) mod check;
mod commit;
pub(crate) mod open;
mod rotate;

pub use rotate::{KeyUse, Progress, RotateError, Rotated};

use commit::{Committer, Job};

/// The longest record: document and secret half together, in bytes.
pub const LONGEST_RECORD: usize = 8 * 1024;

/// Writes that may wait for the one being made durable; further ones wait
/// before they are queued.
const QUEUE: usize = 1024;
/// Rows read at a time.
const PAGE: usize = 512;

/// How to open.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Go on although records do not add up to the head, after an operator
    /// looked into it. The head is then made to fit what is there.
    pub accept_damage: bool,
}

/// An open vault. Reads happen in the caller's thread; writes are gathered into
/// batches, and one batch is under way at a time.
///
/// A write that has begun goes on when its caller stops waiting for it.
pub struct Vault {
    pub(crate) shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    committer: JoinHandle<()>,
}

pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    /// What this process is called.
    process: String,
    pub(crate) sealer: Arc<Sealer>,
    damaged: RwLock<BTreeMap<Vec<u8>, Damage>>,
    /// Damage that no record stands for.
    other: Vec<Damage>,
}

impl Vault {
    /// Opens the vault in this store, or makes one if the store is empty, and
    /// verifies every record. Needs a tokio runtime, on which it writes.
    ///
    /// # Errors
    /// [`OpenError`]; single damaged records are none, see [`Vault::damage`].
    pub async fn open(
        store: Arc<dyn Store>,
        ring: KeyRing,
        random: Arc<dyn Random>,
        options: OpenOptions,
    ) -> Result<Self, OpenError> {
        let shared = Arc::new(open::open(store, ring, random, options).await?);
        let (jobs, queue) = mpsc::channel(QUEUE);
        let committer = tokio::spawn(Committer::new(shared.clone()).run(queue));
        Ok(Self {
            shared,
            jobs,
            committer,
        })
    }

    /// What was found damaged, at open or since.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        let damaged = self
            .shared
            .damaged
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        self.shared
            .other
            .iter()
            .chain(damaged.values())
            .cloned()
            .collect()
    }

    /// What other processes change in the store from now on; none if there can
    /// be no others. A listener that falls behind has to take it for
    /// [`Changes::all`].
    #[must_use]
    pub fn changes(&self) -> Option<broadcast::Receiver<Changes>> {
        self.shared.store.changes()
    }

    /// Whether what other processes changed up to a moment ago is known.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.shared.store.is_current()
    }

    /// Waits for queued writes and lets go of the store. A vault that is merely
    /// dropped does so a little later, by itself.
    pub async fn close(self) {
        drop(self.jobs);
        // It ends by itself when its queue has; a panic in it was logged.
        let _ = self.committer.await;
    }

    async fn submit<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let closed = || StoreError::Failed("the vault is closed".into());
        let (done, outcome) = oneshot::channel();
        self.jobs.send(job(done)).await.map_err(|_| closed())?;
        outcome.await.map_err(|_| closed())?
    }
}

impl Shared {
    fn open_row(&self, place: &[u8], row: &Row) -> Result<Unsealed, StoreError> {
        // Its secret half alone may be what does not open.
        if self.is_damaged(place) {
            return Err(self.note(place, Broken::Seal));
        }
        self.sealer
            .open(place, row)
            .map_err(|cause| self.note(place, cause))
    }

    fn note(&self, place: &[u8], cause: Broken) -> StoreError {
        // The record is sound: another replica rotates to a key that this one
        // has yet to fetch.
        if let Broken::NoKey(_) = cause {
            return StoreError::Failed(cause.to_string());
        }
        let mut damaged = self.damaged.write().unwrap_or_else(PoisonError::into_inner);
        let found = damaged.entry(place.to_vec()).or_insert_with(|| {
            let found = damage::record(place, cause);
            tracing::error!("{found}");
            found
        });
        StoreError::Damaged(found.to_string())
    }

    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        let place = self.sealer.store_key(key);
        let Some(row) = self.store.get(&place).await? else {
            return Ok(None);
        };
        let unsealed = self.open_row(&place, &row)?;
        if unsealed.name != key.name || unsealed.partition != key.partition {
            return Err(self.note(&place, Broken::Seal));
        }
        Ok(Some(record(key.kind, row.revision, unsealed)))
    }

    /// A row whose nonce is the known one is the known row, or its secret half
    /// does not open: both halves are tied to the nonce, place and revision.
    async fn reread(&self, key: &RecordKey, known: Version) -> Result<Reread, StoreError> {
        let place = self.sealer.store_key(key);
        let Some(row) = self.store.get(&place).await? else {
            return Ok(Reread::Other(None));
        };
        if self.is_damaged(&place) {
            return Err(self.note(&place, Broken::Seal));
        }
        match self.sealer.reopen(&place, &row, known) {
            Ok(Some(secret)) => return Ok(Reread::Same(secret)),
            Ok(None) => {}
            Err(cause) => return Err(self.note(&place, cause)),
        }
        let unsealed = self.open_row(&place, &row)?;
        if unsealed.name != key.name || unsealed.partition != key.partition {
            return Err(self.note(&place, Broken::Seal));
        }
        Ok(Reread::Other(Some(record(
            key.kind,
            row.revision,
            unsealed,
        ))))
    }

    async fn list(&self, kind: Kind, partition: Option<&str>) -> Result<Vec<Record>, StoreError> {
        // A policy that cannot be read may be one that denies.
        let must_be_whole = kind == Kind::Policy;
        let prefix = self.sealer.prefix(kind, partition);
        let mut found = Vec::new();
        let mut from = Some(prefix.clone());
        while let Some(at) = from {
            let page = self.store.scan(&prefix, &at, PAGE).await?;
            for (place, row) in &page.rows {
                match self.open_row(place, row) {
                    Ok(unsealed) => found.push(record(kind, row.revision, unsealed)),
                    Err(damaged) if must_be_whole => return Err(damaged),
                    Err(_) => {}
                }
            }
            for cause in page.holes {
                let hole = Damage::Hole { cause };
                tracing::error!("{hole}");
                if must_be_whole {
                    return Err(StoreError::Damaged(hole.to_string()));
                }
            }
            from = page.next;
        }
        Ok(found)
    }

    /// Due records, soonest first; damaged ones are left out.
    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Record>, StoreError> {
        let which = Which::Only(Kind::Due as u8);
        let due = self.store.expired(which, now.as_millis(), limit).await?;
        let mut found = Vec::with_capacity(due.len());
        for (place, revision) in due {
            let Some(row) = self.store.get(&place).await? else {
                continue;
            };
            // Another revision has another time.
            if row.revision == revision
                && let Ok(unsealed) = self.open_row(&place, &row)
            {
                found.push(record(Kind::Due, row.revision, unsealed));
            }
        }
        Ok(found)
    }

    fn is_damaged(&self, place: &[u8]) -> bool {
        let damaged = self.damaged.read().unwrap_or_else(PoisonError::into_inner);
        !damaged.is_empty() && damaged.contains_key(place)
    }
}

fn record(kind: Kind, revision: u64, unsealed: Unsealed) -> Record {
    let Unsealed {
        partition,
        name,
        version,
        document,
        secret,
    } = unsealed;
    let key = RecordKey {
        kind,
        partition,
        name,
    };
    Record {
        key,
        revision: Revision(revision),
        version,
        document,
        secret,
    }
}

impl Records for Vault {
    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(self.shared.get(key))
    }

    fn reread<'a>(
        &'a self,
        key: &'a RecordKey,
        known: Version,
    ) -> BoxFuture<'a, Result<Reread, StoreError>> {
        Box::pin(self.shared.reread(key, known))
    }

    fn write(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Revision>, StoreError>> {
        Box::pin(self.submit(|done| Job::Write { writes, done }))
    }

    fn list<'a>(
        &'a self,
        kind: Kind,
        partition: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(self.shared.list(kind, partition))
    }

    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(async move {
            let mut swept = 0;
            loop {
                // Damaged records stay, whatever expiry they seem to have.
                let kept = self
                    .shared
                    .damaged
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .len();
                let due = self
                    .shared
                    .store
                    .expired(Which::AllBut(Kind::Due as u8), now.as_millis(), PAGE + kept)
                    .await?;
                let removed = self.submit(|done| Job::Sweep { due, done }).await?;
                swept += removed;
                if removed == 0 {
                    return Ok(swept);
                }
            }
        })
    }

    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        Box::pin(self.shared.due(now, limit))
    }

    fn is_ready(&self) -> bool {
        self.shared.store.is_ready() && !self.jobs.is_closed()
    }

    fn process(&self) -> &str {
        &self.shared.process
    }

    fn is_running<'a>(&'a self, process: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        if process == self.shared.process {
            return Box::pin(std::future::ready(Ok(true)));
        }
        self.shared.store.is_running(process)
    }
}
