//! Durable bytes under keys. The only thing a database has to offer the vault.

use std::collections::HashMap;

use countersign_core::ports::{BoxFuture, Kind, StoreError};
use tokio::sync::broadcast;

pub mod memory;
pub mod postgres;
pub mod sled;

/// The longest [`Row::body`] a store takes: a record of 8 KiB and what sealing
/// adds to it, far below the size where sled would put it into a file that it
/// never syncs.
pub const LONGEST_BODY: usize = 8 * 1024 + 512;

/// What is under a key. In SQL: three columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Compared and set.
    pub revision: u64,
    /// Milliseconds since the epoch after which it may be swept.
    pub expires_at: Option<i64>,
    /// Opaque to the store.
    pub body: Vec<u8>,
}

/// One part of an atomic batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Under which key.
    pub key: Vec<u8>,
    /// The revision that must be there; `None`: the key must be free.
    pub expect: Option<u64>,
    /// What is put there; `None` deletes.
    pub put: Option<Row>,
}

/// Some rows, in order of their keys.
#[derive(Debug, Default)]
pub struct Page {
    /// Key and row.
    pub rows: Vec<(Vec<u8>, Row)>,
    /// Where to go on; `None` at the end.
    pub next: Option<Vec<u8>>,
    /// Places that could not be read, in words.
    pub holes: Vec<String>,
}

/// Keys and revisions of expired rows.
pub type Due = Vec<(Vec<u8>, u64)>;

/// Commits a batch and ends the turn.
type Commit<'a> = dyn FnOnce(Vec<Op>) -> BoxFuture<'a, Result<(), StoreError>> + Send + 'a;

/// Rows as they are while nobody else can write, and the way to write them.
pub struct Turn<'a> {
    rows: HashMap<Vec<u8>, Result<Option<Row>, StoreError>>,
    commit: Box<Commit<'a>>,
}

impl<'a> Turn<'a> {
    /// A turn in which these rows were read.
    pub fn new(
        rows: HashMap<Vec<u8>, Result<Option<Row>, StoreError>>,
        commit: impl FnOnce(Vec<Op>) -> BoxFuture<'a, Result<(), StoreError>> + Send + 'a,
    ) -> Self {
        Self {
            rows,
            commit: Box::new(commit),
        }
    }

    /// One of the rows that the turn was begun for.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Row>, StoreError> {
        match self.rows.get(key) {
            Some(row) => row.clone(),
            None => Err(StoreError::Failed(
                "a row was not read before it was to be written".into(),
            )),
        }
    }

    /// As [`Store::commit`]; ends the turn. An empty batch writes nothing.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn commit(self, batch: Vec<Op>) -> Result<(), StoreError> {
        (self.commit)(batch).await
    }
}

/// All rows as they are at one moment.
pub trait View: Send + Sync {
    /// As [`Store::scan`].
    fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        from: &'a [u8],
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>>;
}

/// Of which kinds records were changed by another process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes([u64; 4]);

impl Changes {
    /// Of every kind, perhaps.
    #[must_use]
    pub fn all() -> Self {
        Self([u64::MAX; 4])
    }

    /// Whether there may be one of this kind.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        let byte = kind as u8;
        self.0
            .get(usize::from(byte / 64))
            .is_some_and(|word| word & (1 << (byte % 64)) != 0)
    }

    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// These too: first bytes of keys, which are kinds.
    pub fn add(&mut self, kinds: impl IntoIterator<Item = u8>) {
        for byte in kinds {
            if let Some(word) = self.0.get_mut(usize::from(byte / 64)) {
                *word |= 1 << (byte % 64);
            }
        }
    }

    /// Those of both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
        self
    }
}

/// Which rows are asked for, by the first byte of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that begin with this one.
    Only(u8),
    /// All others.
    AllBut(u8),
}

impl Which {
    /// Whether rows with this key are meant.
    #[must_use]
    pub fn holds(self, key: &[u8]) -> bool {
        let first = key.first().copied().unwrap_or_default();
        match self {
            Self::Only(wanted) => first == wanted,
            Self::AllBut(unwanted) => first != unwanted,
        }
    }
}

/// A database.
///
/// An implementation answers [`Store::get`] from memory where it can, without
/// waiting: it is called on every proxied call. Nothing is seen by `get`,
/// `scan` or `expired` before it is durable.
pub trait Store: Send + Sync {
    /// The row under this key.
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, StoreError>>;

    /// Up to `limit` rows (at least one, if there are any) whose keys begin
    /// with `prefix` and are not below `from`. What can't be read is a hole,
    /// not an error.
    fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        from: &'a [u8],
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>>;

    /// Keys and revisions of up to `limit` rows whose `expires_at` is not after
    /// `now` (milliseconds since the epoch); of those with one first byte the
    /// soonest come first. Costs what is found, not what is stored.
    fn expired(
        &self,
        which: Which,
        now: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Due, StoreError>>;

    /// Does all of it or nothing; returns when it is durable. Keys of one batch
    /// are distinct.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a revision differs, [`StoreError::TooLarge`],
    /// or [`StoreError::Failed`], after which an embedded store takes no more
    /// writes until it is opened again.
    fn commit(&self, batch: Vec<Op>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Whether writes are being taken.
    fn is_ready(&self) -> bool;

    /// Reads these rows for a batch, and keeps all other writers waiting until
    /// it is committed. A store that one process alone writes has none to wait
    /// for: there, whoever calls takes turns by himself.
    fn begin(&self, keys: Vec<Vec<u8>>) -> BoxFuture<'_, Result<Turn<'_>, StoreError>> {
        Box::pin(async move {
            let mut rows = HashMap::with_capacity(keys.len());
            for key in keys {
                let row = self.get(&key).await;
                rows.insert(key, row);
            }
            Ok(Turn::new(rows, move |batch| {
                if batch.is_empty() {
                    return Box::pin(std::future::ready(Ok(())));
                }
                self.commit(batch)
            }))
        })
    }

    /// All rows at one moment, for as long as the view is kept; writes go on
    /// meanwhile.
    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View + '_>, StoreError>>;

    /// What other processes change from now on; none if there can be no others.
    fn changes(&self) -> Option<broadcast::Receiver<Changes>> {
        None
    }

    /// Whether what other processes changed up to a moment ago is known here;
    /// where not, what was made of records is not to be relied on.
    fn is_current(&self) -> bool {
        true
    }

    /// What this process is called among those that share the store; none if
    /// there can be no others.
    fn process(&self) -> Option<String> {
        None
    }

    /// Whether a process that gave this name may still be running. One that
    /// has lost its connection for a moment may be thought not to.
    fn is_running<'a>(&'a self, process: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(std::future::ready(Ok(
            self.process().as_deref() == Some(process)
        )))
    }
}

/// Whether the batch fits, before anything is done.
fn check_size(batch: &[Op]) -> Result<(), StoreError> {
    let fits = |op: &Op| {
        op.put
            .as_ref()
            .is_none_or(|row| row.body.len() <= LONGEST_BODY)
    };
    if batch.iter().all(fits) {
        Ok(())
    } else {
        Err(StoreError::TooLarge {
            limit: LONGEST_BODY,
        })
    }
}
