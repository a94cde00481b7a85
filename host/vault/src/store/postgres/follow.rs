//! Hearing of what other hosts write.
//!
//! One connection listens (`LISTEN`) and asks after every word, and every
//! [`POLL`] without one, for the batches since the last it heard of. Nothing is
//! missed: batches are numbered without gaps, and what cannot be told any more
//! empties the cache.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio_postgres::{AsyncMessage, Client};

use super::cache::Mark;
use super::{Shared, batch_name, set_up};
use crate::store::Changes;

/// How often it is asked without a word.
const POLL: Duration = Duration::from_millis(250);
/// An answer that takes longer never comes.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a lost connection is waited for before the next try.
const AGAIN: Duration = Duration::from_millis(300);
/// Most batches that are read at once; beyond that everything is forgotten.
const MOST: usize = 5000;

/// What was asked: the newest batch, and those since `heard`.
pub(super) const NEWS: &str = "SELECT c.change, c.batch, \
        (SELECT k.batch FROM countersign_change k WHERE k.change = $1), \
        l.change, l.host, l.keys \
     FROM countersign_clock c LEFT JOIN countersign_change l ON l.change > $1 \
     ORDER BY l.change LIMIT 5001";

/// The batches since one that was heard of.
pub(super) struct News {
    heard: Mark,
    newest: Mark,
    /// The name of the batch that has the number of `heard`, if it is kept.
    known: Option<[u8; 16]>,
    batches: Vec<(i64, Vec<u8>, Vec<Vec<u8>>)>,
}

impl News {
    /// Reads the answer to [`NEWS`]; none if the clock is missing.
    pub(super) fn read(heard: Mark, rows: &[tokio_postgres::Row]) -> Option<Self> {
        let first = rows.first()?;
        let batches = rows.iter().filter_map(|row| {
            let change = row.get::<_, Option<i64>>(3)?;
            Some((change, row.get(4), row.get(5)))
        });
        Some(Self {
            heard,
            newest: Mark {
                change: first.get(0),
                batch: batch_name(first.get(1)),
            },
            known: first.get::<_, Option<&[u8]>>(2).map(batch_name),
            batches: batches.collect(),
        })
    }

    /// The number of the newest batch.
    pub(super) fn newest(&self) -> Mark {
        self.newest
    }

    /// Whether the batch that was heard of is no more: the database has lost
    /// what it acknowledged.
    fn went_back(&self) -> bool {
        let renamed = self.known.is_some_and(|batch| batch != self.heard.batch);
        self.newest.change < self.heard.change
            || (self.heard.change > 0 && renamed)
            || (self.newest.change == self.heard.change && self.newest.batch != self.heard.batch)
    }

    fn is_whole(&self) -> bool {
        let count = i64::try_from(self.batches.len()).unwrap_or(i64::MAX);
        self.batches.len() <= MOST && count == self.newest.change - self.heard.change
    }
}

impl Shared {
    /// Lets go of what has changed, and says so to whoever wants to know.
    pub(super) fn hear(&self, news: &News) {
        let went_back = news.went_back();
        if went_back {
            tracing::error!(
                heard = news.heard.change,
                newest = news.newest.change,
                "the database has lost changes that it acknowledged: a failover to a server that \
                 lagged behind, or an old copy put back. What was revoked or renewed last may be \
                 undone; look at the audit log's last minutes, and use synchronous replication"
            );
        }
        if went_back || !news.is_whole() {
            self.cache.clear(news.newest);
            let _ = self.changes.send(Changes::all());
            return;
        }
        let mut kinds = Changes::default();
        for (_, host, keys) in &news.batches {
            if host[..] != self.host {
                kinds.add(keys.iter().filter_map(|key| key.first().copied()));
            }
        }
        let keys = news.batches.iter().flat_map(|(.., keys)| keys);
        self.cache.hear(news.newest, keys.map(Vec::as_slice));
        if !kinds.is_empty() {
            // Nobody may be listening.
            let _ = self.changes.send(kinds);
        }
    }
}

/// The advisory lock that a running process holds, by its name. The first half
/// keeps it apart from other programs' locks.
pub(super) fn lock_of(process: &str) -> i64 {
    let name = process.get(..8).unwrap_or_default();
    let number = u32::from_str_radix(name, 16).unwrap_or_default();
    0x6373_7067_0000_0000 | i64::from(number)
}

/// Runs until it is stopped.
pub(super) async fn follow(shared: Arc<Shared>, ready: oneshot::Sender<()>) {
    let mut ready = Some(ready);
    let mut said = false;
    loop {
        let lost = match listen(&shared, &mut ready, &mut said).await {
            Ok(()) => "the connection was closed".to_owned(),
            Err(cause) => cause,
        };
        if !said {
            tracing::error!(
                cause = lost,
                "the database is away; trying to reach it again"
            );
            said = true;
        }
        ready = None;
        // Until it is heard of again anything may have changed.
        let _ = shared.changes.send(Changes::all());
        tokio::time::sleep(AGAIN).await;
    }
}

async fn listen(
    shared: &Shared,
    ready: &mut Option<oneshot::Sender<()>>,
    said: &mut bool,
) -> Result<(), String> {
    let explain = |e: &tokio_postgres::Error| super::fault::explain(e, shared.database.user());
    let late = |_| "it does not answer".to_owned();
    let connect = shared.database.config().connect(shared.tls.clone());
    let connected = tokio::time::timeout(super::READ, connect).await;
    let (client, mut connection) = connected.map_err(late)?.map_err(|e| explain(&e))?;
    let word = Arc::new(Notify::new());
    let (told, closed) = (word.clone(), Arc::new(Notify::new()));
    let over = closed.clone();
    let driver = tokio::spawn(async move {
        while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            match message {
                Ok(AsyncMessage::Notification(_)) => told.notify_one(),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        over.notify_one();
    });
    let work = async {
        let start = async {
            set_up(&client).await?;
            let lock = lock_of(&shared.process());
            client
                .execute("SELECT pg_advisory_lock($1)", &[&lock])
                .await?;
            client.batch_execute("LISTEN countersign").await
        };
        let started = tokio::time::timeout(super::READ, start).await;
        started.map_err(late)?.map_err(|e| explain(&e))?;
        let news = client.prepare(NEWS).await.map_err(|e| explain(&e))?;
        loop {
            ask(shared, &client, &news).await?;
            if std::mem::take(said) {
                tracing::info!("the database is back");
            }
            if let Some(ready) = ready.take() {
                let _ = ready.send(());
            }
            tokio::select! {
                () = word.notified() => {}
                () = tokio::time::sleep(POLL) => {}
                () = closed.notified() => return Ok(()),
            }
        }
    };
    let ended = work.await;
    driver.abort();
    ended
}

async fn ask(
    shared: &Shared,
    client: &Client,
    news: &tokio_postgres::Statement,
) -> Result<(), String> {
    let (asked_at, heard) = (shared.now(), shared.cache.heard());
    let answer = tokio::time::timeout(ANSWER, client.query(news, &[&heard.change])).await;
    let rows = answer
        .map_err(|_| "it does not answer".to_owned())?
        .map_err(|e| super::fault::explain(&e, shared.database.user()))?;
    let news = News::read(heard, &rows).ok_or("its tables are empty")?;
    shared.hear(&news);
    shared.cache.confirm(asked_at);
    Ok(())
}
