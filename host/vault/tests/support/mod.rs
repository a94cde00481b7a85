//! What the suites share.
#![allow(dead_code, reason = "each suite uses a part")]

pub(crate) mod faults;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_core::ports::fakes::FakeClock;
use countersign_core::ports::{
    Change, Clock, Expect, Kind, Random, RecordKey, Records, Revision, SecretChange, StoreError,
    Write,
};
use countersign_core::secret::Secret;
use countersign_core::time::Timestamp;
use countersign_vault::error::OpenError;
use countersign_vault::keys::KeyRing;
use countersign_vault::store::Store;
use countersign_vault::store::memory::MemoryStore;
use countersign_vault::store::postgres::{Database, PostgresOptions, PostgresStore};
use countersign_vault::store::sled::SledStore;
use countersign_vault::vault::{OpenOptions, Vault};

#[path = "../../../../tests/src/postgres.rs"]
pub(crate) mod postgres;

use postgres::Cluster;

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
    promise(Arc::new(open_postgres(&database()).await)).await;
}

/// Runs a promise on two hosts' stores in one database.
pub(crate) async fn on_every_shared_store<F: Future<Output = ()>>(
    promise: impl Fn(Arc<dyn Store>, Arc<dyn Store>) -> F,
) {
    let database = database();
    let one = Arc::new(open_postgres(&database).await);
    let other = Arc::new(open_postgres(&database).await);
    promise(one, other).await;
}

/// A new database of a server that all tests of this process share.
pub(crate) fn database() -> String {
    with_cluster(|cluster| Cluster::with_password(&cluster.database().unwrap()))
}

/// The server that all tests of this process share.
pub(crate) fn with_cluster<T>(work: impl FnOnce(&Cluster) -> T) -> T {
    static CLUSTER: Mutex<Option<Cluster>> = Mutex::new(None);
    let mut cluster = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    work(cluster.get_or_insert_with(|| Cluster::start().unwrap()))
}

/// The clock that the cache of rows goes by.
pub(crate) struct RealClock(std::time::Instant);

impl RealClock {
    #[expect(clippy::disallowed_methods, reason = "the edge of the tests")]
    pub(crate) fn new() -> Self {
        Self(std::time::Instant::now())
    }
}

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        FakeClock::default().now()
    }
    fn monotonic_micros(&self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }
}

pub(crate) async fn open_postgres(address: &str) -> PostgresStore {
    PostgresStore::open(
        Database::parse(address).unwrap(),
        Arc::new(RealClock::new()),
        Arc::new(OsRandom),
        PostgresOptions::default(),
    )
    .await
    .unwrap()
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
