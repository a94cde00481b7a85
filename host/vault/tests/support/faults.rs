//! A store that fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_core::ports::{BoxFuture, StoreError};
use countersign_vault::store::{Due, Op, Page, Row, Store, View, Which};

/// What happens to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is done.
    Before,
    /// All is done, but the answer does not come.
    After,
    /// It waits for so long, then is done.
    Slow(Duration),
    /// Somebody else was first.
    Conflict,
}

/// Wraps a store; what happens to each commit is decided by its number, from 0.
pub(crate) struct FaultStore {
    inner: Arc<dyn Store>,
    commits: Mutex<usize>,
    plan: Box<dyn Fn(usize) -> Option<Fault> + Send + Sync>,
    /// After a failed commit nothing more is taken, as an embedded store does.
    dead: AtomicBool,
}

impl FaultStore {
    pub(crate) fn new(
        inner: Arc<dyn Store>,
        plan: impl Fn(usize) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner,
            commits: Mutex::new(0),
            plan: Box::new(plan),
            dead: AtomicBool::new(false),
        }
    }

    pub(crate) fn commits(&self) -> usize {
        *self.commits.lock().unwrap()
    }
}

impl Store for FaultStore {
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, StoreError>> {
        self.inner.get(key)
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        from: &'a [u8],
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        self.inner.scan(prefix, from, limit)
    }

    fn expired(
        &self,
        which: Which,
        now: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Due, StoreError>> {
        self.inner.expired(which, now, limit)
    }

    fn commit(&self, batch: Vec<Op>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if self.dead.load(Ordering::Relaxed) {
                return Err(StoreError::Failed("dead since an injected fault".into()));
            }
            let number = {
                let mut commits = self.commits.lock().unwrap();
                *commits += 1;
                *commits - 1
            };
            let injected = Err(StoreError::Failed("injected".into()));
            match (self.plan)(number) {
                None => self.inner.commit(batch).await,
                Some(Fault::Slow(time)) => {
                    tokio::time::sleep(time).await;
                    self.inner.commit(batch).await
                }
                Some(Fault::Conflict) => Err(StoreError::Conflict),
                Some(Fault::Before) => {
                    self.dead.store(true, Ordering::Relaxed);
                    injected
                }
                Some(Fault::After) => {
                    self.inner.commit(batch).await?;
                    self.dead.store(true, Ordering::Relaxed);
                    injected
                }
            }
        })
    }

    fn is_ready(&self) -> bool {
        !self.dead.load(Ordering::Relaxed) && self.inner.is_ready()
    }

    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View + '_>, StoreError>> {
        self.inner.view()
    }
}
