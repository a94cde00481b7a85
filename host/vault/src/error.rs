//! Why a vault does not open.

use std::path::PathBuf;

use countersign_core::ports::StoreError;

use crate::store::postgres::DatabaseError;

/// Each variant says what to do next. No record was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the database.
    #[error(
        "{} is in use by another process: one process per sled database. Stop the other one, or \
         use PostgreSQL ([store] url = \"postgres://…\") to run several",
        path.display()
    )]
    InUse {
        /// The vault's folder.
        path: PathBuf,
    },
    /// Folder or file cannot be used.
    #[error("cannot use {}: {cause}; check that the folder exists and belongs to this user", path.display())]
    Unusable {
        /// Folder or file.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// The database cannot be read at all.
    #[error(
        "the database in {} is damaged: {cause}. Keep a copy of the folder, \
         then restore the latest backup into an empty one",
        path.display()
    )]
    Unreadable {
        /// The vault's folder.
        path: PathBuf,
        /// What sled says.
        cause: String,
    },
    /// The database holds fewer commits than were acknowledged.
    #[error(
        "the database in {} has {found} commits, but {acknowledged} were acknowledged: its file was \
         cut short, or an older copy was put back. Keep a copy of the folder, then restore the \
         latest backup, or accept the loss explicitly to go on with what is there",
        path.display()
    )]
    LostWrites {
        /// The vault's folder.
        path: PathBuf,
        /// Commits in the database.
        found: u64,
        /// Commits acknowledged.
        acknowledged: u64,
    },
    /// The store was made with a key that is not in the ring.
    #[error(
        "the key source gives key {configured}, but this store was sealed with key {needed}: put \
         back the key file (or [keys] source) it was made with. Without that key nothing in the \
         store can be read; a new key never replaces it"
    )]
    WrongKey {
        /// Id of the configured current key.
        configured: String,
        /// Ids of the keys that would open it.
        needed: String,
    },
    /// A restore was interrupted.
    #[error(
        "a restore into this store was begun and did not end: run the same `countersign restore` again"
    )]
    RestoreUnfinished,
    /// A key that records may still need is not configured.
    #[error(
        "the store still uses key {needed}, which [keys] does not give: add its source, as in \
         old = [{{ file = \"data/old.key\" }}], and end its use with `countersign key rotate` before \
         it is taken away"
    )]
    MissingKey {
        /// Ids.
        needed: String,
    },
    /// There are records, but nothing to check the key against.
    #[error(
        "the store has records but its key check record is missing or damaged ({detail}): it was \
         cut short or changed by hand. Keep a copy, then restore the latest backup"
    )]
    KeyCheckMissing {
        /// What was found.
        detail: String,
    },
    /// Records do not add up to the head.
    #[error(
        "records were put back, removed or added behind the vault's back ({detail}). Every record \
         left is intact by itself, but an old one (a withdrawn permission, a used-up token) may be \
         back. Restore the latest backup, or accept the damage explicitly after looking into it"
    )]
    HeadMismatch {
        /// Counts.
        detail: String,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The store failed while it was being read.
    #[error("the store cannot be read: {0}")]
    Store(#[from] StoreError),
}
