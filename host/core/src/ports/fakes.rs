//! In-memory stand-ins for tests of the crates around the core.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::{
    AuditSink, BoxFuture, Change, Clock, Expect, Kind, Random, Record, RecordKey, Records,
    Revision, SecretChange, StoreError, Version, Write, random_bytes,
};
use crate::audit::AuditEvent;
use crate::secret::{SealKey, Sealed};
use crate::time::Timestamp;

/// A clock that stands until it is moved.
#[derive(Debug, Default)]
pub struct FakeClock(AtomicI64);

impl FakeClock {
    /// Set to this time.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.as_millis()))
    }

    /// Moves it forward.
    pub fn advance(&self, by: std::time::Duration) {
        self.0.fetch_add(
            i64::try_from(by.as_millis()).unwrap_or(i64::MAX),
            Ordering::Relaxed,
        );
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
    fn monotonic_micros(&self) -> u64 {
        self.0.load(Ordering::Relaxed).unsigned_abs() * 1000
    }
}

/// Distinct bytes on every call; not random at all.
#[derive(Debug, Default)]
pub struct CountingRandom(AtomicU64);

impl Random for CountingRandom {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(32) {
            let n = self.0.fetch_add(1, Ordering::Relaxed);
            let digest = crate::names::Digest::of(&n.to_le_bytes());
            chunk.copy_from_slice(&digest.as_bytes()[..chunk.len()]);
        }
    }
}

struct Row {
    revision: Revision,
    version: Version,
    document: Vec<u8>,
    secret: Option<Vec<u8>>,
    expires_at: Option<Timestamp>,
}

/// Records in a map, sealed with a fixed key so that [`Sealed`] is real.
#[derive(Default)]
pub struct MemoryRecords {
    rows: Mutex<HashMap<RecordKey, Row>>,
    random: CountingRandom,
}

const AAD: &[u8] = b"memory";

fn key() -> SealKey {
    SealKey::new([42; 32])
}

impl MemoryRecords {
    fn rows(&self) -> std::sync::MutexGuard<'_, HashMap<RecordKey, Row>> {
        self.rows
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn record(key_: &RecordKey, row: &Row) -> Record {
        Record {
            key: key_.clone(),
            revision: row.revision,
            version: row.version,
            document: row.document.clone(),
            secret: row
                .secret
                .as_ref()
                .map(|s| Sealed::new(key(), AAD.to_vec(), s.clone())),
        }
    }

    fn write_now(&self, writes: Vec<Write>) -> Result<Vec<Revision>, StoreError> {
        let mut rows = self.rows();
        for write in &writes {
            let current = rows.get(&write.key).map(|r| r.revision);
            match (write.expect, current) {
                (Expect::Absent, Some(_)) => return Err(StoreError::Conflict),
                (Expect::At(want), have) if have != Some(want) => return Err(StoreError::Conflict),
                _ => {}
            }
        }
        let mut revisions = Vec::with_capacity(writes.len());
        for Write {
            key: record_key,
            change,
            ..
        } in writes
        {
            let old = rows.remove(&record_key);
            let last = old.as_ref().map_or(Revision(0), |r| r.revision);
            let Some(Change {
                document,
                secret,
                expires_at,
            }) = change
            else {
                revisions.push(last);
                continue;
            };
            let secret = match secret {
                SecretChange::Keep => old.and_then(|r| r.secret),
                SecretChange::Set(s) => Some(s.seal(&key(), random_bytes(&self.random), AAD)),
                SecretChange::Remove => None,
            };
            let revision = Revision(last.0 + 1);
            rows.insert(
                record_key,
                Row {
                    revision,
                    version: Version(random_bytes(&self.random)),
                    document,
                    secret,
                    expires_at,
                },
            );
            revisions.push(revision);
        }
        Ok(revisions)
    }
}

impl Records for MemoryRecords {
    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        let found = self.rows().get(key).map(|row| Self::record(key, row));
        Box::pin(async move { Ok(found) })
    }

    fn write(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Revision>, StoreError>> {
        let result = self.write_now(writes);
        Box::pin(async move { result })
    }

    fn list<'a>(
        &'a self,
        kind: Kind,
        partition: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        let found = self
            .rows()
            .iter()
            .filter(|(k, _)| k.kind == kind && partition.is_none_or(|p| p == k.partition))
            .map(|(k, row)| Self::record(k, row))
            .collect();
        Box::pin(async move { Ok(found) })
    }

    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        let rows = self.rows();
        let is_due = |(key, row): &(&RecordKey, &Row)| {
            key.kind == Kind::Due && row.expires_at.is_some_and(|t| t <= now)
        };
        let mut due: Vec<_> = rows.iter().filter(is_due).collect();
        due.sort_by_key(|(_, row)| row.expires_at);
        let found = due
            .iter()
            .take(limit)
            .map(|(key, row)| Self::record(key, row));
        let found = found.collect();
        Box::pin(async move { Ok(found) })
    }

    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<usize, StoreError>> {
        let mut rows = self.rows();
        let before = rows.len();
        rows.retain(|key, row| key.kind == Kind::Due || row.expires_at.is_none_or(|t| t > now));
        let swept = before - rows.len();
        Box::pin(async move { Ok(swept) })
    }

    fn is_ready(&self) -> bool {
        true
    }
}

/// Keeps events in a list.
#[derive(Default)]
pub struct MemoryAudit(Mutex<Vec<AuditEvent>>);

impl MemoryAudit {
    /// All events so far.
    pub fn events(&self) -> Vec<AuditEvent> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

impl AuditSink for MemoryAudit {
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<(), StoreError>> {
        self.enqueue(event);
        Box::pin(async { Ok(()) })
    }
    fn enqueue(&self, event: AuditEvent) {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(event);
    }
}
