//! Rows in PostgreSQL, for several hosts at once.
//!
//! - Batches happen one after the other: whoever writes locks the one row of
//!   `countersign_clock` first, and reads under that lock what it needs. So the
//!   vault's head is right without a retry, whoever wrote before.
//! - A host that is paused while it holds the lock loses it: the server ends a
//!   transaction that waits for its client for [`IDLE`].
//! - Reads come from memory ([`cache`]) for as long as the database is known to
//!   have nothing newer ([`follow`]), else from the database.
//! - A commit whose answer was lost is looked up by its batch's random name.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::ports::{BoxFuture, Clock, Random, StoreError, random_bytes};
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Changes, Due, Op, Page, Row, Store, Turn, View, Which, check_size};
use cache::{Cache, Mark};
use fault::Doing;

mod address;
mod cache;
mod fault;
mod follow;
mod schema;
mod tls;
mod turn;
mod view;

pub use address::{AddressError, Database, PasswordSources, Verify};
pub use fault::DatabaseError;

/// How long the server waits for a host that is in the middle of a batch.
const IDLE: Duration = Duration::from_secs(2);
/// How long a batch waits for those of other hosts.
const LOCK: Duration = Duration::from_secs(10);
/// How long a read may take, with its connection.
const READ: Duration = Duration::from_secs(10);
/// How long a write may take, with its connection.
const WRITE: Duration = Duration::from_secs(20);
/// Without a word from the database for so long the store is not ready, in
/// microseconds.
const READY: u64 = 3_000_000;
/// Changes of other hosts that a slow listener may be behind.
const BACKLOG: usize = 256;

/// How much is taken of machine and server.
#[derive(Debug, Clone, Copy)]
pub struct PostgresOptions {
    /// Most bytes of (sealed) rows kept in memory.
    pub cache: usize,
    /// Most connections, beside one that listens.
    pub connections: usize,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            cache: 64 * 1024 * 1024,
            connections: 10,
        }
    }
}

/// A database that other hosts may use at the same time.
pub struct PostgresStore {
    shared: Arc<Shared>,
    follower: JoinHandle<()>,
}

struct Shared {
    database: Database,
    tls: MakeRustlsConnect,
    pool: Pool,
    cache: Cache,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Names this process; new at every start.
    host: [u8; 16],
    changes: broadcast::Sender<Changes>,
}

impl PostgresStore {
    /// Connects, brings the tables up to date and listens for what other hosts
    /// change. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn open(
        database: Database,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        options: PostgresOptions,
    ) -> Result<Self, DatabaseError> {
        let tls = tls::connector(&database)?;
        let connecting = |e| DatabaseError::of(&database, Doing::Connecting, &e);
        let (mut client, connection) = database
            .config()
            .connect(tls.clone())
            .await
            .map_err(connecting)?;
        let connection = tokio::spawn(connection);
        set_up(&client).await.map_err(connecting)?;
        schema::migrate(&mut client, &database).await?;
        let heard = newest(&client).await.map_err(connecting)?;
        warn_of_settings(&client).await;
        drop(client);
        let _ = connection.await;
        let shared = Arc::new(Shared {
            pool: pool(&database, &tls, options.connections)?,
            cache: Cache::new(options.cache, heard),
            host: random_bytes(&*random),
            changes: broadcast::channel(BACKLOG).0,
            database,
            tls,
            clock,
            random,
        });
        let (ready, followed) = tokio::sync::oneshot::channel();
        let follower = tokio::spawn(follow::follow(shared.clone(), ready));
        // From the first moment on others can tell that this process runs.
        let _ = followed.await;
        Ok(Self { shared, follower })
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.follower.abort();
        self.shared.pool.close();
    }
}

fn pool(database: &Database, tls: &MakeRustlsConnect, most: usize) -> Result<Pool, DatabaseError> {
    let fast = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = Manager::from_config(database.config().clone(), tls.clone(), fast);
    let set_up = Hook::async_fn(|client: &mut deadpool_postgres::ClientWrapper, _| {
        Box::pin(async move { set_up(client).await.map_err(HookError::Backend) })
    });
    Pool::builder(manager)
        .max_size(most.max(2))
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(READ))
        .create_timeout(Some(READ))
        .post_create(set_up)
        .build()
        .map_err(|e| DatabaseError::Connect {
            database: database.name(),
            cause: e.to_string(),
        })
}

/// What every connection is told first. A server that acknowledges what it has
/// not written is told to write it.
async fn set_up(client: &Client) -> Result<(), tokio_postgres::Error> {
    let (idle, lock) = (IDLE.as_millis(), LOCK.as_millis());
    let statement = WRITE.as_millis();
    client
        .batch_execute(&format!(
            "SET idle_in_transaction_session_timeout = {idle};
             SET lock_timeout = {lock};
             SET statement_timeout = {statement};
             SET client_min_messages = warning;
             SELECT set_config('synchronous_commit', 'on', false)
                 WHERE current_setting('synchronous_commit') = 'off'"
        ))
        .await
}

async fn newest(client: &Client) -> Result<Mark, tokio_postgres::Error> {
    let row = client
        .query_one("SELECT change, batch FROM countersign_clock", &[])
        .await?;
    Ok(Mark {
        change: row.get(0),
        batch: batch_name(row.get(1)),
    })
}

async fn warn_of_settings(client: &Client) {
    let fsync = client.query_one("SHOW fsync", &[]).await;
    if fsync.is_ok_and(|row| row.get::<_, &str>(0) == "off") {
        tracing::error!(
            "the database server runs with fsync = off: a power cut there may take back what was \
             acknowledged, and damage it. Set fsync = on"
        );
    }
}

fn batch_name(bytes: &[u8]) -> [u8; 16] {
    bytes.try_into().unwrap_or_default()
}

/// A connection of the pool. It goes back there when [`Lent::done`]; one that
/// is dropped in the middle of something is closed.
struct Lent(Option<Object>);

impl Lent {
    fn done(mut self) {
        drop(self.0.take());
    }
}

impl std::ops::Deref for Lent {
    type Target = deadpool_postgres::ClientWrapper;

    fn deref(&self) -> &Self::Target {
        // Only `done` and `drop`, which consume it, leave it empty.
        self.0.as_deref().unwrap_or_else(|| unreachable!())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.clock.monotonic_micros()
    }

    async fn lend(&self) -> Result<Lent, StoreError> {
        match self.pool.get().await {
            Ok(object) => Ok(Lent(Some(object))),
            Err(error) => Err(fault::no_connection(error, self.database.user())),
        }
    }

    /// The error of a statement. After a failover the old connections lead to
    /// a server that takes no writes: they are all closed.
    fn failed(&self, error: &tokio_postgres::Error) -> StoreError {
        if error.code() == Some(&tokio_postgres::error::SqlState::READ_ONLY_SQL_TRANSACTION) {
            self.pool.retain(|_, _| false);
        }
        fault::failed(error, self.database.user())
    }

    /// The row, and what was the newest change then.
    async fn read(&self, key: &[u8]) -> Result<Option<Row>, StoreError> {
        const ONE: &str = "SELECT c.change, r.revision, r.expires_at, r.body \
             FROM countersign_clock c LEFT JOIN countersign_row r ON r.key = $1";
        let client = self.lend().await?;
        let work = async {
            let one = client.prepare_cached(ONE).await?;
            client.query_one(&one, &[&key]).await
        };
        let found = within(READ, work).await?.map_err(|e| self.failed(&e))?;
        client.done();
        let row = found.get::<_, Option<i64>>(1).map(|revision| Row {
            revision: revision.cast_unsigned(),
            expires_at: found.get(2),
            body: found.get(3),
        });
        self.cache.insert(found.get(0), key, row.clone());
        Ok(row)
    }

    async fn expired(&self, which: Which, now: i64, limit: usize) -> Result<Due, StoreError> {
        const ONLY: &str = "SELECT key, revision FROM countersign_row \
             WHERE expires_at <= $1 AND substring(key FROM 1 FOR 1) = $3 \
             ORDER BY expires_at LIMIT $2";
        const ALL_BUT: &str = "SELECT key, revision FROM countersign_row \
             WHERE expires_at <= $1 AND substring(key FROM 1 FOR 1) <> $3 \
             ORDER BY expires_at LIMIT $2";
        let (statement, first) = match which {
            Which::Only(first) => (ONLY, first),
            Which::AllBut(first) => (ALL_BUT, first),
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let client = self.lend().await?;
        let work = async {
            let due = client.prepare_cached(statement).await?;
            client.query(&due, &[&now, &limit, &&[first][..]]).await
        };
        let found = within(READ, work).await?.map_err(|e| self.failed(&e))?;
        client.done();
        let due = found.iter();
        Ok(due
            .map(|row| (row.get(0), row.get::<_, i64>(1).cast_unsigned()))
            .collect())
    }

    async fn is_running(&self, process: &str) -> Result<bool, StoreError> {
        if process == self.process() {
            return Ok(true);
        }
        let client = self.lend().await?;
        let lock = follow::lock_of(process);
        let work = async {
            let ask = "SELECT pg_try_advisory_xact_lock($1)";
            client.query_one(ask, &[&lock]).await
        };
        let row = within(READ, work).await?.map_err(|e| self.failed(&e))?;
        client.done();
        // Whoever runs holds it.
        Ok(!row.get::<_, bool>(0))
    }

    fn process(&self) -> String {
        self.host.iter().map(|b| format!("{b:02x}")).collect()
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, StoreError> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| fault::timed_out())
}

impl Store for PostgresStore {
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, StoreError>> {
        match self.shared.cache.get(key, self.shared.now()) {
            Some(row) => Box::pin(std::future::ready(Ok(row))),
            None => Box::pin(self.shared.read(key)),
        }
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        from: &'a [u8],
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let client = self.shared.lend().await?;
            let page = view::page(&client, prefix, from, limit);
            let page = within(READ, page).await?;
            let page = page.map_err(|e| self.shared.failed(&e))?;
            client.done();
            Ok(page)
        })
    }

    fn expired(
        &self,
        which: Which,
        now: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Due, StoreError>> {
        Box::pin(self.shared.expired(which, now, limit))
    }

    fn commit(&self, batch: Vec<Op>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            check_size(&batch)?;
            let (open, _) = turn::begin(&self.shared, Vec::new()).await?;
            open.commit(batch).await
        })
    }

    fn is_ready(&self) -> bool {
        let asked_at = self.shared.cache.asked_at();
        asked_at.is_some_and(|at| self.shared.now().saturating_sub(at) < READY)
    }

    fn begin(&self, keys: Vec<Vec<u8>>) -> BoxFuture<'_, Result<Turn<'_>, StoreError>> {
        Box::pin(async move {
            let (open, rows) = turn::begin(&self.shared, keys).await?;
            Ok(Turn::new(rows, move |batch| {
                Box::pin(async move {
                    check_size(&batch)?;
                    open.commit(batch).await
                })
            }))
        })
    }

    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View + '_>, StoreError>> {
        Box::pin(async move {
            let view = view::Frozen::open(&self.shared).await?;
            Ok(Box::new(view) as Box<dyn View + '_>)
        })
    }

    fn changes(&self) -> Option<broadcast::Receiver<Changes>> {
        Some(self.shared.changes.subscribe())
    }

    fn is_current(&self) -> bool {
        self.shared.cache.is_good(self.shared.now())
    }

    fn process(&self) -> Option<String> {
        Some(self.shared.process())
    }

    fn is_running<'a>(&'a self, process: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.shared.is_running(process))
    }
}
