//! Opening the store: what `serve`, `init` and `check` do alike.

use std::sync::Arc;

use countersign_core::ports::{
    Change, Clock, Expect, Kind, Random, RecordKey, Records, SecretChange, StoreError, World,
    Write, random_bytes,
};
use countersign_core::secret::{SealBroken, SealKey, Sealed, Secret};
use countersign_vault::audit::{AuditLog, AuditOptions};
use countersign_vault::error::OpenError;
use countersign_vault::keys::KeyError;
use countersign_vault::store::Store;
use countersign_vault::store::postgres::{
    AddressError, Database, DatabaseError, PasswordSources, PostgresOptions, PostgresStore,
};
use countersign_vault::store::sled::SledStore;
use countersign_vault::vault::{OpenOptions, Vault};

use crate::config::{Config, StoreUrl};
use crate::epoch::Epoch;
use crate::surroundings::{OsRandom, SystemClock};

/// The opened store and what hangs on it.
pub struct Opened {
    /// Clock, randomness, records, audit.
    pub world: World,
    /// The same records, as the vault.
    pub vault: Arc<Vault>,
    /// The same audit log, for reading.
    pub audit: Arc<AuditLog>,
    host_secret: Sealed,
    epoch: Option<Epoch>,
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// The master key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is none.
    #[error("{} does not exist; `countersign init` makes a new store, `countersign restore` one from a backup", .0.display())]
    NoStore(std::path::PathBuf),
    /// A record in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host's own secret.
    #[error(
        "the host's own secret in the store cannot be opened: {0}; restore the store from its latest backup"
    )]
    HostSecret(#[from] SealBroken),
    /// A thread could not do its work.
    #[error("opening the store was interrupted: {0}")]
    Interrupted(String),
}

impl Opened {
    /// Opens the configured store if there is one: looking must not make it.
    ///
    /// # Errors
    /// As [`Opened::new`]; [`OpeningError::NoStore`].
    pub async fn existing(config: &Config) -> Result<Self, OpeningError> {
        if let StoreUrl::Sled(folder) = &config.store.url
            && !folder.join("sled").exists()
        {
            return Err(OpeningError::NoStore(folder.clone()));
        }
        Self::new(config).await
    }

    /// Opens the configured store with the configured key.
    ///
    /// # Errors
    /// [`OpeningError`]; never a fallback.
    pub async fn new(config: &Config) -> Result<Self, OpeningError> {
        let random: Arc<dyn Random> = Arc::new(OsRandom);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let ring = config.keys.load().await?;
        let store = open_store(&config.store.url, &clock, &random).await?;
        let vault = Vault::open(store, ring, Arc::clone(&random), OpenOptions::default()).await?;
        let vault = Arc::new(vault);
        let records: Arc<dyn Records> = vault.clone();
        let audit = AuditLog::open(
            Arc::clone(&records),
            Arc::clone(&clock),
            AuditOptions::default(),
        )
        .await?;
        let audit = Arc::new(audit);
        let host_secret = host_secret(records.as_ref(), random.as_ref()).await?;
        let epoch = Epoch::of(records.as_ref()).await?;
        let world = World {
            clock,
            random,
            records,
            audit: audit.clone(),
        };
        Ok(Self {
            world,
            vault,
            audit,
            host_secret,
            epoch,
        })
    }

    /// The host's own key for one purpose (`identity`, `sessions` …), the same
    /// at every start and in every replica on the same store.
    ///
    /// # Errors
    /// [`SealBroken`] if the store was damaged.
    pub fn key(&self, purpose: &str) -> Result<SealKey, SealBroken> {
        self.host_secret.derive_key(purpose)
    }

    /// [`Opened::key`] for what ends with a restore.
    ///
    /// # Errors
    /// As [`Opened::key`].
    pub fn key_of_epoch(&self, purpose: &str) -> Result<SealKey, SealBroken> {
        let key = self.key(purpose)?;
        Ok(match &self.epoch {
            Some(epoch) => key.derive(&format!("epoch {}", epoch.id)),
            None => key,
        })
    }
}

/// Opens what `[store]` names.
///
/// # Errors
/// [`OpeningError`].
pub async fn open_store(
    url: &StoreUrl,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<Arc<dyn Store>, OpeningError> {
    match url.clone() {
        StoreUrl::Sled(folder) => {
            let store = blocking(move || SledStore::open(&folder)).await??;
            Ok(Arc::new(store))
        }
        StoreUrl::Postgres {
            database,
            password_file,
            connections,
            cache,
        } => {
            let database = blocking(move || with_password(*database, password_file))
                .await?
                .map_err(|e| OpenError::from(DatabaseError::from(e)))?;
            let options = PostgresOptions { cache, connections };
            let (clock, random) = (Arc::clone(clock), Arc::clone(random));
            let store = PostgresStore::open(database, clock, random, options).await;
            Ok(Arc::new(store.map_err(OpenError::from)?))
        }
    }
}

/// Where `psql` would look for a password, too: after the address and the
/// configured file come `PGPASSWORD`, `PGPASSFILE` and `~/.pgpass`.
fn with_password(
    mut database: Database,
    file: Option<std::path::PathBuf>,
) -> Result<Database, AddressError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if file.is_none()
        && !database.has_password()
        && let Some(password) = set("PGPASSWORD")
    {
        database.set_password(&password.to_string_lossy());
    }
    let passfile = set("PGPASSFILE").map(std::path::PathBuf::from).or_else(|| {
        let usual = std::env::home_dir()?.join(".pgpass");
        usual.exists().then_some(usual)
    });
    database.with_password(&PasswordSources { file, passfile })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, OpeningError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| OpeningError::Interrupted(e.to_string()))
}

/// A random secret that is made once and kept in the store.
async fn host_secret(records: &dyn Records, random: &dyn Random) -> Result<Sealed, OpeningError> {
    let key = RecordKey::new(Kind::Meta, "host-secret");
    if let Some(sealed) = records.get(&key).await?.and_then(|r| r.secret) {
        return Ok(sealed);
    }
    let secret = Secret::new(random_bytes::<32>(random).to_vec());
    let change = Change {
        document: b"{}".to_vec(),
        secret: SecretChange::Set(secret),
        expires_at: None,
    };
    match records
        .write(vec![Write {
            key: key.clone(),
            expect: Expect::Absent,
            change: Some(change),
        }])
        .await
    {
        // Another replica made it meanwhile.
        Ok(_) | Err(StoreError::Conflict) => {}
        Err(error) => return Err(error.into()),
    }
    let sealed = records.get(&key).await?.and_then(|r| r.secret);
    sealed.ok_or_else(|| StoreError::Damaged("the host's own secret vanished".into()).into())
}
