//! Backups: everything in a store at one moment, in one sealed file that any
//! store can be made from again.
//!
//! Rows go into the file as they lie in the store: secrets stay under their
//! own data keys, and whoever has the file without the key-encryption key has
//! nothing. Around them is a second seal, chunk by chunk, that no chunk can be
//! taken out of, put into another order or cut off from unnoticed.
//!
//! | bytes | |
//! |---|---|
//! | 21 | `countersign-backup-1`, a line feed |
//! | 16 | the backup's id, random |
//! | 8 | when it was begun, milliseconds since the epoch, little endian |
//! | 8, 2, … | the key check record: revision, length, body |
//! | 4, 1, … | chunks: length of what follows, 1 in the last and else 0, sealed bytes |
//!
//! The chunks' key is derived from the root key and the id; each is bound to
//! the bytes before the first chunk, to its number and to whether it is the
//! last. The last one tells what must have been in the others.

use std::collections::BTreeMap;

use countersign_core::ports::StoreError;
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};

mod choose;
mod chunk;
mod read;
mod restore;
mod write;

pub use read::verify;
pub use restore::{Adjust, Adjusted, Mode, Old, Origin, Restored, restore};

/// What a backup holds, as its last chunk tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Of the backup, in hexadecimal.
    pub id: String,
    /// The moment it shows.
    pub created_at: Timestamp,
    /// All records.
    pub records: u64,
    /// Records by kind, in a word.
    pub kinds: BTreeMap<String, u64>,
    /// Records among them that were damaged already: they are in the file as
    /// they were.
    pub damaged: u64,
    /// Parts of the database that could not be read: what was there is not in
    /// the file.
    pub unreadable_parts: u64,
    /// Whether the records add up to the store's head: nothing is missing.
    pub is_complete: bool,
}

/// Why there is no backup, or no use in one.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Other bytes.
    #[error("this is no backup of Countersign: it does not begin as one")]
    NotOne,
    /// A key that is not in the ring.
    #[error(
        "the backup was made under key {needed}, but [keys] gives {configured}: add the source of \
         that key to [keys] old"
    )]
    WrongKey {
        /// Ids of the configured keys.
        configured: String,
        /// Ids of those that would open it.
        needed: String,
    },
    /// Its beginning was changed.
    #[error("the backup's key check record is damaged; use another backup")]
    Header,
    /// It ends too early.
    #[error(
        "the backup is cut short after {chunks} whole chunks: copy it again, or use another one"
    )]
    CutShort {
        /// Chunks that were whole.
        chunks: u64,
    },
    /// A chunk does not open.
    #[error(
        "chunk {chunk} of the backup is damaged or was changed: copy it again, or use another one"
    )]
    Damaged {
        /// Counted from 1.
        chunk: u64,
    },
    /// Something follows the last chunk.
    #[error("something was added behind the end of the backup: copy it again, or use another one")]
    Trailing,
    /// Chunks are sound but do not hold what the last one says.
    #[error("the backup does not hold what it says it does ({0}); use another one")]
    Inconsistent(&'static str),
    /// Records need keys that are not in the ring.
    #[error(
        "records in the backup are sealed with key {needed}, which [keys] does not give: add its \
         source to [keys] old"
    )]
    MissingKey {
        /// Ids.
        needed: String,
    },
    /// The file.
    #[error("the backup cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// Whoever takes the backup has gone.
    #[error("the backup was broken off by whoever was taking it")]
    BrokenOff,
    /// The target holds something.
    #[error(
        "the store is not empty: restore into an empty one, or say --force (settings as in the \
         backup) or --salvage (what can be read of the store is kept)"
    )]
    NotEmpty,
    /// The store to be salvaged is of another installation.
    #[error(
        "the backup is not of this store but of another installation; to replace the store by it \
         all the same, move the store away first"
    )]
    Stranger,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}
