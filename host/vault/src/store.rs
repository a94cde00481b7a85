//! Durable bytes under keys. The only thing a database has to offer the vault.

use countersign_core::ports::{BoxFuture, StoreError};

pub mod memory;
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
    /// `now` (milliseconds since the epoch).
    fn expired(&self, now: i64, limit: usize) -> BoxFuture<'_, Result<Due, StoreError>>;

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
