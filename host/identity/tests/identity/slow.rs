//! A store that takes its time, and may fail.

use std::sync::atomic::{AtomicBool, Ordering};

use countersign_core::ports::fakes::MemoryRecords;
use countersign_core::ports::{
    BoxFuture, Kind, Record, RecordKey, Records, Revision, StoreError, Write,
};
use countersign_core::time::Timestamp;

/// Lets other futures go first at every access, so that races are run, and
/// fails when told to.
#[derive(Default)]
pub(crate) struct Slow {
    inner: MemoryRecords,
    pub(crate) broken: AtomicBool,
}

impl Slow {
    async fn turn(&self) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        if self.broken.load(Ordering::Relaxed) {
            return Err(StoreError::Failed("the disk is gone".into()));
        }
        Ok(())
    }
}

impl Records for Slow {
    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            self.turn().await?;
            self.inner.get(key).await
        })
    }

    fn write(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Revision>, StoreError>> {
        Box::pin(async move {
            self.turn().await?;
            self.inner.write(writes).await
        })
    }

    fn list<'a>(
        &'a self,
        kind: Kind,
        partition: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            self.turn().await?;
            self.inner.list(kind, partition).await
        })
    }

    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        self.inner.due(now, limit)
    }

    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.inner.sweep(now)
    }

    fn is_ready(&self) -> bool {
        !self.broken.load(Ordering::Relaxed)
    }
}
