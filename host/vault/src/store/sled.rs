//! Rows in sled 0.34.7, with fences around what it does not do by itself.
//!
//! - Its flush writes pages out but does not fsync: this store has its own
//!   handle on the database file and syncs it before anything is acknowledged.
//!   One thread does all commits; one sync serves all that wait.
//! - Until then readers see the old rows, so that nobody acts on what a power
//!   cut could take back.
//! - Rows stay far below the size at which sled uses files that it never syncs.
//! - A snapshot that a crash left half written is moved aside at open.
//! - After an I/O error the handle is dead: reads go on, writes fail.
//! - An index by expiry, written in the same batch as the rows, finds what has
//!   expired without a look at what has not.
//! - `acknowledged`, a file beside the database, counts commits, so that a
//!   database that was cut short is noticed.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;

use countersign_core::ports::{BoxFuture, StoreError};
use tokio::sync::oneshot;

use super::{Due, Op, Page, Row, Store, View, Which, check_size};
use crate::error::OpenError;

mod commit;
mod files;
mod frame;
#[cfg(test)]
mod power;
mod remains;
mod view;

use commit::{Committer, Job};
use files::Opened;
use frame::{decode, row_key};

/// Makes what was written to this file survive a power cut.
type SyncFile = Box<dyn FnMut(&File) -> io::Result<()> + Send>;

/// One sled database, held by this process alone.
pub struct SledStore {
    // Dropped in this order: the queue ends the thread, the thread is joined.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    lost: u64,
}

struct Shared {
    db: ::sled::Db,
    /// Rows as they were before changes that are not yet durable.
    before: RwLock<HashMap<Vec<u8>, Option<Row>>>,
    dead: AtomicBool,
    views: view::Views,
    _lock: File,
}

impl SledStore {
    /// Opens or makes the database in this folder. Blocks.
    ///
    /// # Errors
    /// [`OpenError`]; no row is changed then.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_with(folder, false, Box::new(File::sync_all))
    }

    /// Opens a database that lost acknowledged writes, after an operator said
    /// that this is wanted.
    ///
    /// # Errors
    /// As [`SledStore::open`], but never [`OpenError::LostWrites`].
    pub fn open_accepting_loss(folder: &Path) -> Result<Self, OpenError> {
        Self::open_with(folder, true, Box::new(File::sync_all))
    }

    fn open_with(folder: &Path, accept_loss: bool, sync: SyncFile) -> Result<Self, OpenError> {
        let Opened {
            db,
            file,
            acknowledged,
            lock,
            commits,
            lost,
        } = files::open(folder, accept_loss)?;
        let shared = Arc::new(Shared {
            db,
            before: RwLock::default(),
            dead: AtomicBool::new(false),
            views: view::Views::default(),
            _lock: lock,
        });
        let (jobs, queue) = mpsc::channel();
        let committer = Committer {
            shared: shared.clone(),
            file,
            acknowledged,
            commits,
            sync,
        };
        let thread = std::thread::Builder::new()
            .name("vault-commit".into())
            .spawn(move || committer.run(&queue))
            .map_err(|e| OpenError::Unusable {
                path: folder.to_owned(),
                cause: e.to_string(),
            })?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            shared,
            lost,
        })
    }

    /// Acknowledged commits that the database had not when it was opened.
    #[must_use]
    pub fn lost_commits(&self) -> u64 {
        self.lost
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn failed(cause: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(cause.to_string())
}

/// sled asserts what it believes of its file; on a damaged one that panics.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, StoreError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .map_err(|_| failed("sled gave up on a damaged page"))
}

impl Shared {
    fn get(&self, key: &[u8]) -> Result<Option<Row>, StoreError> {
        // Held while sled is read: a commit can't slip in between.
        let before = self.before.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = before.get(key) {
            return Ok(old.clone());
        }
        let found = guarded(|| self.db.get(row_key(key)))?.map_err(failed)?;
        Ok(found.map(|bytes| decode(&bytes)))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Page, StoreError> {
        let before = self.before.read().unwrap_or_else(PoisonError::into_inner);
        let mut page = self.scan_stored(prefix, from, limit)?;
        page.rows.retain(|(key, _)| !before.contains_key(key));
        // A page of which nothing is to be seen yet is no page.
        while page.rows.is_empty()
            && let Some(next) = page.next.take()
        {
            let holes = page.holes;
            page = self.scan_stored(prefix, &next, limit)?;
            page.holes.splice(0..0, holes);
            page.rows.retain(|(key, _)| !before.contains_key(key));
        }
        // Rows as they were before what is not durable yet; also of keys that
        // are gone from sled but not yet for us.
        let start = prefix.max(from);
        let seen = |key: &[u8]| {
            let is_before_next = page.next.as_deref().is_none_or(|next| key < next);
            key.starts_with(prefix) && key >= start && is_before_next
        };
        let mut old: Vec<(Vec<u8>, Row)> = before
            .iter()
            .filter(|(key, _)| seen(key))
            .filter_map(|(key, row)| Some((key.clone(), row.clone()?)))
            .collect();
        page.rows.append(&mut old);
        page.rows.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(page)
    }

    /// What sled has, durable or not. At least one row is looked at, so that
    /// whoever goes on from page to page comes to the end.
    fn scan_stored(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let mut at = prefix.max(from).to_vec();
        'resume: loop {
            let mut rows = self
                .db
                .range((Bound::Included(row_key(&at)), Bound::Unbounded));
            loop {
                match guarded(|| rows.next()) {
                    Ok(None) => break 'resume,
                    Ok(Some(Ok((key, bytes)))) => {
                        let Some(key) = frame::user_key(&key).filter(|k| k.starts_with(prefix))
                        else {
                            break 'resume;
                        };
                        if page.rows.len() >= limit.max(1) {
                            page.next = Some(key.to_vec());
                            break 'resume;
                        }
                        page.rows.push((key.to_vec(), decode(&bytes)));
                        at = key.to_vec();
                    }
                    broken => {
                        let cause = match broken {
                            Ok(Some(Err(e))) => e.to_string(),
                            _ => "sled gave up on a damaged page".to_owned(),
                        };
                        page.holes.push(cause);
                        // The page's own end is unknown: go on a little further.
                        match frame::further(&at, prefix) {
                            Some(next) => at = next,
                            None => break 'resume,
                        }
                        continue 'resume;
                    }
                }
            }
        }
        Ok(page)
    }

    fn expired(&self, which: Which, now: i64, limit: usize) -> Result<Due, StoreError> {
        let mut due = Vec::new();
        let firsts = match which {
            Which::Only(first) => first..=first,
            Which::AllBut(_) => 0..=u8::MAX,
        };
        for first in firsts.filter(|first| which.holds(&[*first])) {
            for found in self.db.range(frame::index_until(first, now)) {
                if due.len() >= limit {
                    return Ok(due);
                }
                let (key, revision) = found.map_err(failed)?;
                due.extend(frame::read_index(&key, &revision));
            }
        }
        Ok(due)
    }
}

impl Store for SledStore {
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, StoreError>> {
        Box::pin(std::future::ready(self.shared.get(key)))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        from: &'a [u8],
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(std::future::ready(self.shared.scan(prefix, from, limit)))
    }

    fn expired(
        &self,
        which: Which,
        now: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Due, StoreError>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let scan = move || guarded(|| shared.expired(which, now, limit)).flatten();
            tokio::task::spawn_blocking(scan).await.map_err(failed)?
        })
    }

    fn commit(&self, batch: Vec<Op>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            check_size(&batch)?;
            let (done, outcome) = oneshot::channel();
            let sent = self
                .jobs
                .as_ref()
                .map(|jobs| jobs.send(Job::Commit { batch, done }));
            match sent {
                Some(Ok(())) => outcome.await.unwrap_or_else(|_| Err(commit::dead())),
                _ => Err(commit::dead()),
            }
        })
    }

    fn is_ready(&self) -> bool {
        !self.shared.dead.load(Ordering::Acquire)
    }

    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View + '_>, StoreError>> {
        Box::pin(async move {
            let (done, begun) = oneshot::channel();
            let sent = self.jobs.as_ref().map(|jobs| jobs.send(Job::View { done }));
            let number = match sent {
                Some(Ok(())) => begun.await.map_err(|_| commit::dead())?,
                _ => return Err(commit::dead()),
            };
            let view = view::SledView::new(&self.shared, number);
            Ok(Box::new(view) as Box<dyn View + '_>)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &[u8], expect: Option<u64>, revision: u64) -> Vec<Op> {
        let row = Row {
            revision,
            expires_at: None,
            body: vec![revision as u8; 100],
        };
        vec![Op {
            key: key.to_vec(),
            expect,
            put: Some(row),
        }]
    }

    #[tokio::test]
    async fn after_a_failed_sync_nothing_is_acknowledged_and_readers_keep_the_durable_row() {
        let dir = tempfile::tempdir().unwrap();
        let mut syncs = 0;
        let fails_second = Box::new(move |file: &File| {
            syncs += 1;
            if syncs == 2 {
                Err(io::Error::other("injected"))
            } else {
                file.sync_all()
            }
        });
        let store = SledStore::open_with(dir.path(), false, fails_second).unwrap();
        store.commit(put(b"k", None, 1)).await.unwrap();
        let said = store.commit(put(b"k", Some(1), 2)).await.unwrap_err();
        assert!(said.to_string().contains("injected"), "{said}");
        assert!(!store.is_ready());
        assert_eq!(store.get(b"k").await.unwrap().map(|r| r.revision), Some(1));
        assert_eq!(store.scan(b"", b"", 9).await.unwrap().rows.len(), 1);
        // The third sync would work again; the handle stays dead.
        assert!(store.commit(put(b"other", None, 1)).await.is_err());
        assert_eq!(store.get(b"other").await.unwrap(), None);
    }

    #[tokio::test]
    async fn one_sync_serves_all_that_wait_and_nothing_is_seen_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let (entered, in_sync) = mpsc::channel();
        let (release, held) = mpsc::channel::<()>();
        let gate = Box::new(move |file: &File| {
            let _ = entered.send(());
            let _ = held.recv();
            file.sync_all()
        });
        let store = SledStore::open_with(dir.path(), false, gate).unwrap();
        // Queues the commit: the first poll sends it to the thread.
        let queue = |key: &[u8]| {
            let mut commit = store.commit(put(key, None, 1));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(commit.as_mut().poll(&mut context).is_pending());
            commit
        };
        let first = queue(b"first");
        in_sync.recv().unwrap();
        assert_eq!(store.get(b"first").await.unwrap(), None);
        assert!(store.scan(b"", b"", 9).await.unwrap().rows.is_empty());
        let rest = [queue(b"a"), queue(b"b"), queue(b"c"), queue(b"d")];
        release.send(()).unwrap();
        first.await.unwrap();
        in_sync.recv().unwrap();
        assert!(store.get(b"first").await.unwrap().is_some());
        assert_eq!(store.get(b"a").await.unwrap(), None);
        release.send(()).unwrap();
        for commit in rest {
            commit.await.unwrap();
        }
        assert_eq!(store.scan(b"", b"", 9).await.unwrap().rows.len(), 5);
        assert!(in_sync.try_recv().is_err(), "a third sync");
    }

    #[test]
    fn a_second_holder_is_pointed_to_postgresql() {
        let dir = tempfile::tempdir().unwrap();
        let _held = SledStore::open(dir.path()).unwrap();
        let said = SledStore::open(dir.path()).err().unwrap();
        assert!(matches!(said, OpenError::InUse { .. }));
        assert!(said.to_string().contains("PostgreSQL"), "{said}");
    }
}
