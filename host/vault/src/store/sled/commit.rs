//! The one thread that writes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, mpsc};

use countersign_core::ports::StoreError;
use tokio::sync::oneshot;

use super::super::{Op, Row};
use super::{Shared, SyncFile, failed, files, frame, guarded};

/// Most commits that share one sync.
const GROUP: usize = 256;

pub(super) enum Job {
    Commit {
        batch: Vec<Op>,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Begins a view between two commits, when everything is durable.
    View { done: oneshot::Sender<u64> },
}

pub(super) fn dead() -> StoreError {
    failed("an earlier write to disk failed; free or mend the disk, then restart Countersign")
}

pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) file: File,
    pub(super) acknowledged: File,
    pub(super) commits: u64,
    pub(super) sync: SyncFile,
}

impl Committer {
    pub(super) fn run(mut self, queue: &mpsc::Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut waiting = Vec::new();
            let mut outcome = Ok(());
            let mut views = Vec::new();
            for job in std::iter::once(first).chain(queue.try_iter().take(GROUP)) {
                let (batch, done) = match job {
                    Job::Commit { batch, done } => (batch, done),
                    Job::View { done } => {
                        views.push(done);
                        continue;
                    }
                };
                if outcome.is_err() || self.shared.dead.load(Ordering::Acquire) {
                    let _ = done.send(Err(dead()));
                    continue;
                }
                match guarded(|| self.apply(batch)).flatten() {
                    Ok(()) => waiting.push(done),
                    Err(StoreError::Failed(cause)) => {
                        outcome = Err(failed(cause));
                        waiting.push(done);
                    }
                    Err(refused) => {
                        let _ = done.send(Err(refused));
                    }
                }
            }
            if waiting.is_empty() {
                self.begin(views);
                continue;
            }
            let outcome = outcome.and_then(|()| guarded(|| self.make_durable()).flatten());
            if let Err(cause) = &outcome {
                self.shared.dead.store(true, Ordering::Release);
                tracing::error!(%cause, "the store takes no more writes");
            }
            for done in waiting {
                let _ = done.send(outcome.clone());
            }
            self.begin(views);
        }
    }

    fn begin(&self, views: Vec<oneshot::Sender<u64>>) {
        for done in views {
            let number = self.shared.views.begin();
            if let Err(number) = done.send(number) {
                self.shared.views.end(number);
            }
        }
    }

    /// Compares and sets in memory; readers go on seeing what was before.
    fn apply(&mut self, batch: Vec<Op>) -> Result<(), StoreError> {
        let mut changes = ::sled::Batch::default();
        let mut olds = Vec::with_capacity(batch.len());
        for Op { key, expect, put } in batch {
            let stored = frame::row_key(&key);
            let old = self
                .shared
                .db
                .get(&stored)
                .map_err(failed)?
                .map(|b| frame::decode(&b));
            if old.as_ref().map(|row| row.revision) != expect {
                return Err(StoreError::Conflict);
            }
            let indexed = |row: &Row| Some((frame::index_key(&key, row.expires_at?), row.revision));
            if let Some((entry, _)) = old.as_ref().and_then(indexed) {
                changes.remove(entry);
            }
            if let Some((entry, revision)) = put.as_ref().and_then(indexed) {
                changes.insert(entry, &revision.to_be_bytes());
            }
            match put {
                Some(row) => changes.insert(stored, frame::encode(&row)),
                None => changes.remove(stored),
            }
            olds.push((key, old));
        }
        changes.insert(frame::COMMITS, &(self.commits + 1).to_be_bytes());
        let mut before = self
            .shared
            .before
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Held until the change is in the database.
        let mut views = self.shared.views.lock();
        for (key, old) in &olds {
            views.keep(key, old.as_ref());
        }
        for (key, old) in olds {
            before.entry(key).or_insert(old);
        }
        self.shared.db.apply_batch(changes).map_err(failed)?;
        self.commits += 1;
        Ok(())
    }

    fn make_durable(&mut self) -> Result<(), StoreError> {
        self.shared.db.flush().map_err(failed)?;
        (self.sync)(&self.file).map_err(failed)?;
        // Not synced itself: it may lag behind the database, never lead it.
        let note = files::note(self.commits);
        self.acknowledged.write_all_at(&note, 0).map_err(failed)?;
        self.shared
            .before
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        Ok(())
    }
}
