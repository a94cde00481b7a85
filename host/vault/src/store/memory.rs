//! Rows in a map: for tests, and for trying Countersign out.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use countersign_core::ports::{BoxFuture, StoreError};

use super::{Due, Op, Page, Row, Store, View, Which, check_size};

/// Durable for as long as it is in memory.
#[derive(Default)]
pub struct MemoryStore(RwLock<BTreeMap<Vec<u8>, Row>>);

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn commit_now(&self, batch: Vec<Op>) -> Result<(), StoreError> {
        check_size(&batch)?;
        let mut rows = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for op in &batch {
            if rows.get(&op.key).map(|r| r.revision) != op.expect {
                return Err(StoreError::Conflict);
            }
        }
        for Op { key, put, .. } in batch {
            match put {
                Some(row) => rows.insert(key, row),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }

    fn scan_now(&self, prefix: &[u8], from: &[u8], limit: usize) -> Page {
        let rows = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let start = prefix.max(from);
        let mut found = rows
            .range::<[u8], _>((Bound::Included(start), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix));
        let taken: Vec<_> = found
            .by_ref()
            .take(limit.max(1))
            .map(|(k, r)| (k.clone(), r.clone()))
            .collect();
        Page {
            rows: taken,
            next: found.next().map(|(k, _)| k.clone()),
            holes: Vec::new(),
        }
    }

    fn expired_now(&self, which: Which, now: i64, limit: usize) -> Due {
        let rows = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut due: Vec<_> = rows
            .iter()
            .filter(|(key, row)| which.holds(key) && row.expires_at.is_some_and(|t| t <= now))
            .collect();
        due.sort_by_key(|(_, row)| row.expires_at);
        due.into_iter()
            .take(limit)
            .map(|(k, row)| (k.clone(), row.revision))
            .collect()
    }
}

impl Store for MemoryStore {
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, StoreError>> {
        let row = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned();
        Box::pin(std::future::ready(Ok(row)))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        from: &'a [u8],
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(std::future::ready(Ok(self.scan_now(prefix, from, limit))))
    }

    fn expired(
        &self,
        which: Which,
        now: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Due, StoreError>> {
        Box::pin(std::future::ready(Ok(self.expired_now(which, now, limit))))
    }

    fn commit(&self, batch: Vec<Op>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(self.commit_now(batch)))
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View + '_>, StoreError>> {
        let rows = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let copy: Box<dyn View> = Box::new(Self(RwLock::new(rows)));
        Box::pin(std::future::ready(Ok(copy)))
    }
}

impl View for MemoryStore {
    fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        from: &'a [u8],
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Store::scan(self, prefix, from, limit)
    }
}
