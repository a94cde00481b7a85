//! What the suites share.
#![allow(dead_code, reason = "each suite uses a part")]

use std::path::Path;
use std::sync::Arc;

use countersign_core::ports::{
    Change, Expect, Kind, Random, RecordKey, Records, Revision, SecretChange, StoreError, Write,
};
use countersign_core::secret::Secret;
use countersign_core::time::Timestamp;
use countersign_vault::error::OpenError;
use countersign_vault::keys::KeyRing;
use countersign_vault::store::Store;
use countersign_vault::store::memory::MemoryStore;
use countersign_vault::store::sled::SledStore;
use countersign_vault::vault::{OpenOptions, Vault};

/// Real randomness.
pub(crate) struct OsRandom;

impl Random for OsRandom {
    #[expect(clippy::disallowed_methods, reason = "the edge of the tests")]
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).unwrap();
    }
}

pub(crate) fn ring() -> KeyRing {
    KeyRing::single([7; 32])
}

pub(crate) async fn open(store: Arc<dyn Store>) -> Result<Vault, OpenError> {
    Vault::open(store, ring(), Arc::new(OsRandom), OpenOptions::default()).await
}

pub(crate) async fn open_sled(folder: &Path) -> Vault {
    open(Arc::new(SledStore::open(folder).unwrap()))
        .await
        .unwrap()
}

/// Runs a promise on every store.
pub(crate) async fn on_every_store<F: Future<Output = ()>>(promise: impl Fn(Arc<dyn Store>) -> F) {
    promise(Arc::new(MemoryStore::new())).await;
    let dir = tempfile::tempdir().unwrap();
    promise(Arc::new(SledStore::open(dir.path()).unwrap())).await;
}

pub(crate) fn key(name: &str) -> RecordKey {
    RecordKey::within(Kind::Connection, "alice", name)
}

pub(crate) fn set(key: RecordKey, expect: Expect, document: &str, secret: SecretChange) -> Write {
    set_until(key, expect, document, secret, None)
}

pub(crate) fn set_until(
    key: RecordKey,
    expect: Expect,
    document: &str,
    secret: SecretChange,
    expires_at: Option<Timestamp>,
) -> Write {
    let change = Change {
        document: document.as_bytes().to_vec(),
        secret,
        expires_at,
    };
    Write {
        key,
        expect,
        change: Some(change),
    }
}

pub(crate) fn fresh(text: &str) -> SecretChange {
    SecretChange::Set(Secret::from_text(text.into()))
}

pub(crate) async fn write(vault: &Vault, write: Write) -> Result<Revision, StoreError> {
    vault.write(vec![write]).await.map(|revisions| revisions[0])
}

/// The document, and whether there is a sound secret half.
pub(crate) async fn read(
    vault: &Vault,
    key: &RecordKey,
) -> Result<Option<(String, u64, Option<bool>)>, StoreError> {
    Ok(vault.get(key).await?.map(|r| {
        let document = String::from_utf8(r.document).unwrap();
        (document, r.revision.0, r.secret.map(|s| s.is_sound()))
    }))
}
