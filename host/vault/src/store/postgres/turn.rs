//! One batch: the lock, what it reads under it, and what it writes.

use std::collections::HashMap;
use std::sync::Arc;

use countersign_core::ports::{StoreError, random_bytes};
use futures_util::future::{try_join3, try_join4};

use tokio_postgres::types::ToSql;

use super::cache::Mark;
use super::follow::{NEWS, News};
use super::{Lent, Shared, WRITE, within};
use crate::store::{Op, Row};

/// Batches whose keys are kept for hosts that were away.
const KEPT: i64 = 10_000;
/// How often older ones are thrown away.
const PRUNE_EVERY: i64 = 256;
/// How often a lost answer is asked for again.
const LOOKS: u32 = 5;

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
const LOCK: &str = "SELECT change FROM countersign_clock FOR UPDATE";
const ROWS: &str =
    "SELECT key, revision, expires_at, body FROM countersign_row WHERE key = ANY($1)";
/// Two numbers: how many rows are at the revision they have to be at, and how
/// many are there that must not be.
const CHECK: &str = "SELECT \
       (SELECT count(*) FROM unnest($1::bytea[], $2::bigint[]) AS w (key, revision) \
            JOIN countersign_row r ON r.key = w.key AND r.revision = w.revision), \
       (SELECT count(*) FROM countersign_row WHERE key = ANY($3::bytea[]))";
const DELETE: &str = "DELETE FROM countersign_row WHERE key = ANY($1)";
const PUT: &str = "INSERT INTO countersign_row (key, revision, expires_at, body) \
       SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bytea[]) \
       ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, \
           expires_at = excluded.expires_at, body = excluded.body";
const COUNT: &str = "UPDATE countersign_clock SET change = $1, batch = $2";
const TELL: &str = "INSERT INTO countersign_change (change, batch, host, keys) \
       VALUES ($1, $2, $3, $4)";
const NOTIFY: &str = "SELECT pg_notify('countersign', '')";
const PRUNE: &str = "DELETE FROM countersign_change WHERE change <= $1";
const MADE: &str = "SELECT count(*) FROM countersign_change WHERE change = $1 AND batch = $2";

type Rows = HashMap<Vec<u8>, Result<Option<Row>, StoreError>>;

/// A batch that has the lock. Dropping it ends the connection, and the lock.
pub(super) struct Open {
    shared: Arc<Shared>,
    client: Lent,
    /// The number this batch gets.
    change: i64,
}

/// Waits for the lock, hears what other hosts did, and reads these keys.
pub(super) async fn begin(
    shared: &Arc<Shared>,
    keys: Vec<Vec<u8>>,
) -> Result<(Open, Rows), StoreError> {
    within(WRITE, locked(shared, keys)).await?
}

async fn locked(shared: &Arc<Shared>, keys: Vec<Vec<u8>>) -> Result<(Open, Rows), StoreError> {
    let client = shared.lend().await?;
    let heard = shared.cache.heard();
    let missing: Vec<&[u8]> = keys
        .iter()
        .filter(|key| shared.cache.peek(key).is_none())
        .map(Vec::as_slice)
        .collect();
    let work = async {
        let lock = client.prepare_cached(LOCK).await?;
        let news = client.prepare_cached(NEWS).await?;
        let rows = client.prepare_cached(ROWS).await?;
        // Sent at once, and done one after the other: each statement sees what
        // is committed when its turn comes.
        let ((), _, news, found) = try_join4(
            client.batch_execute(BEGIN),
            client.query_one(&lock, &[]),
            client.query(&news, &[&heard.change]),
            client.query(&rows, &[&missing]),
        )
        .await?;
        Ok((news, found))
    };
    let (news, found) = work.await.map_err(|e| shared.failed(&e))?;
    let news = News::read(heard, &news).ok_or_else(no_clock)?;
    shared.hear(&news);
    let newest = news.newest();
    let mut read: HashMap<Vec<u8>, Option<Row>> =
        missing.iter().map(|key| (key.to_vec(), None)).collect();
    read.extend(found.iter().map(row_of));
    // What was remembered a moment ago may have changed since.
    let again: Vec<&[u8]> = keys
        .iter()
        .filter(|key| !read.contains_key(*key) && shared.cache.peek(key).is_none())
        .map(Vec::as_slice)
        .collect();
    if !again.is_empty() {
        let found = async {
            let rows = client.prepare_cached(ROWS).await?;
            client.query(&rows, &[&again]).await
        };
        let found = found.await.map_err(|e| shared.failed(&e))?;
        read.extend(again.iter().map(|key| (key.to_vec(), None)));
        read.extend(found.iter().map(row_of));
    }
    let mut rows = Rows::with_capacity(keys.len());
    for key in keys {
        let row = match read.remove(&key) {
            Some(row) => {
                shared.cache.insert(newest.change, &key, row.clone());
                row
            }
            None => match shared.cache.peek(&key) {
                Some(row) => row,
                // Pushed out of the cache in this very moment, by others.
                None => shared.read(&key).await?,
            },
        };
        rows.insert(key, Ok(row));
    }
    let open = Open {
        shared: shared.clone(),
        client,
        change: newest.change + 1,
    };
    Ok((open, rows))
}

fn row_of(row: &tokio_postgres::Row) -> (Vec<u8>, Option<Row>) {
    let found = Row {
        revision: row.get::<_, i64>(1).cast_unsigned(),
        expires_at: row.get(2),
        body: row.get(3),
    };
    (row.get(0), Some(found))
}

fn no_clock() -> StoreError {
    StoreError::Damaged(
        "the database's table countersign_clock is empty: it was changed by hand. Restore the \
         latest backup"
            .into(),
    )
}

impl Open {
    /// Writes, and returns when it is durable; an empty batch only lets go of
    /// the lock.
    pub(super) async fn commit(self, batch: Vec<Op>) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        if batch.is_empty() {
            return self.let_go().await;
        }
        let mark = Mark {
            change: self.change,
            batch: random_bytes(&*shared.random),
        };
        let written = within(WRITE, self.write(&batch, mark)).await?;
        if !written.map_err(|e| shared.failed(&e))? {
            self.let_go().await?;
            // What is remembered led to this.
            shared.cache.clear(shared.cache.heard());
            return Err(StoreError::Conflict);
        }
        let done = within(WRITE, self.client.batch_execute("COMMIT")).await;
        match done {
            Ok(Ok(())) => self.client.done(),
            Ok(Err(error)) => {
                drop(self.client);
                made_after_all(&shared, mark, shared.failed(&error)).await?;
            }
            Err(late) => {
                drop(self.client);
                made_after_all(&shared, mark, late).await?;
            }
        }
        let keys = batch.iter().map(|op| op.key.as_slice());
        shared.cache.hear(mark, keys);
        for op in batch {
            shared.cache.insert(mark.change, &op.key, op.put);
        }
        Ok(())
    }

    async fn let_go(self) -> Result<(), StoreError> {
        let rollback = within(WRITE, self.client.batch_execute("ROLLBACK")).await?;
        rollback.map_err(|e| self.shared.failed(&e))?;
        self.client.done();
        Ok(())
    }

    /// Everything but the commit; false if a revision is another one.
    async fn write(&self, batch: &[Op], mark: Mark) -> Result<bool, tokio_postgres::Error> {
        let client = &self.client;
        let (mut at_keys, mut at) = (Vec::new(), Vec::new());
        let (mut absent, mut gone) = (Vec::new(), Vec::new());
        let (mut keys, mut revisions) = (Vec::new(), Vec::new());
        let (mut expiries, mut bodies) = (Vec::new(), Vec::new());
        for Op { key, expect, put } in batch {
            match expect {
                Some(revision) => {
                    at_keys.push(key.as_slice());
                    at.push(revision.cast_signed());
                }
                None => absent.push(key.as_slice()),
            }
            match put {
                Some(row) => {
                    keys.push(key.as_slice());
                    revisions.push(row.revision.cast_signed());
                    expiries.push(row.expires_at);
                    bodies.push(row.body.as_slice());
                }
                None => gone.push(key.as_slice()),
            }
        }
        let changed: Vec<&[u8]> = batch.iter().map(|op| op.key.as_slice()).collect();
        let check = client.prepare_cached(CHECK).await?;
        let delete = client.prepare_cached(DELETE).await?;
        let put = client.prepare_cached(PUT).await?;
        let count = client.prepare_cached(COUNT).await?;
        let tell = client.prepare_cached(TELL).await?;
        let notify = client.prepare_cached(NOTIFY).await?;
        let name: &[u8] = &mark.batch;
        let host: &[u8] = &self.shared.host;
        let (checked, ..) = try_join4(
            client.query_one(&check, &[&at_keys, &at, &absent]),
            client.execute(&delete, &[&gone]),
            client.execute(&put, &[&keys, &revisions, &expiries, &bodies]),
            try_join3(
                client.execute(&count, &[&mark.change, &name]),
                client.execute(&tell, &[&mark.change, &name, &host, &changed]),
                client.execute(&notify, &[]),
            ),
        )
        .await?;
        if mark.change % PRUNE_EVERY == 0 {
            client.execute(PRUNE, &[&(mark.change - KEPT)]).await?;
        }
        let right = usize::try_from(checked.get::<_, i64>(0)).unwrap_or(0);
        Ok(right == at.len() && checked.get::<_, i64>(1) == 0)
    }
}

/// Whether a batch whose answer was lost was made: asked under the lock, so
/// that it is decided by then. `lost` is what happened otherwise.
async fn made_after_all(
    shared: &Arc<Shared>,
    mark: Mark,
    lost: StoreError,
) -> Result<(), StoreError> {
    for look in 0..LOOKS {
        tokio::time::sleep(super::IDLE / 4 * look).await;
        let Ok((open, _)) = begin(shared, Vec::new()).await else {
            continue;
        };
        let name: &[u8] = &mark.batch;
        let asked: [&(dyn ToSql + Sync); 2] = [&mark.change, &name];
        let Ok(Ok(made)) = within(WRITE, open.client.query_one(MADE, &asked)).await else {
            continue;
        };
        open.let_go().await?;
        return if made.get::<_, i64>(0) == 1 {
            Ok(())
        } else {
            Err(lost)
        };
    }
    Err(StoreError::Failed(format!(
        "{lost}; whether the change was made is not known"
    )))
}
