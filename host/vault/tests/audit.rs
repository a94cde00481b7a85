//! The audit log on a vault.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use countersign_core::audit::{AuditEvent, CallRecord, Outcome};
use countersign_core::ports::fakes::{FakeClock, MemoryRecords};
use countersign_core::ports::{
    AuditSink as _, BoxFuture, Kind, Record, RecordKey, Records, Revision, StoreError, Write,
};
use countersign_core::time::Timestamp;
use countersign_vault::audit::{AuditFilter, AuditLog, AuditOptions, AuditPage};
use countersign_vault::store::memory::MemoryStore;
use support::*;

/// Records that can be made to fail.
#[derive(Default)]
struct Flaky {
    inner: MemoryRecords,
    broken: AtomicBool,
}

impl Records for Flaky {
    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        self.inner.get(key)
    }
    fn write(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Revision>, StoreError>> {
        if self.broken.load(Ordering::Relaxed) {
            return Box::pin(async { Err(StoreError::Failed("injected".into())) });
        }
        self.inner.write(writes)
    }
    fn list<'a>(
        &'a self,
        kind: Kind,
        partition: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        self.inner.list(kind, partition)
    }
    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        self.inner.due(now, limit)
    }
    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.inner.sweep(now)
    }
    fn is_ready(&self) -> bool {
        true
    }
}

fn call(n: i64) -> AuditEvent {
    let mut event = AuditEvent::new(Timestamp::from_secs(n), "call", Outcome::Allowed)
        .by(if n % 2 == 0 { "alice" } else { "bob" })
        .on("server:notes");
    event.call = Some(CallRecord {
        call_id: format!("call-{n}"),
        method: "tools/call".into(),
        name: Some("search_notes".into()),
        arguments_hash: Some("0".repeat(64)),
        decided_by: "scopes".into(),
        error: None,
        preset: None,
        connection: Some("conn-1".into()),
        upstream_status: Some(200),
        latency_us: 1234,
    });
    event
}

async fn log(records: Arc<dyn Records>) -> AuditLog {
    AuditLog::open(
        records,
        Arc::new(FakeClock::default()),
        AuditOptions::default(),
    )
    .await
    .unwrap()
}

async fn all(log: &AuditLog, filter: &AuditFilter, size: usize) -> Vec<AuditEvent> {
    let (mut found, mut page) = (Vec::new(), AuditPage { before: None, size });
    loop {
        let list = log.events(filter, &page).await.unwrap();
        assert!(list.events.len() <= size);
        found.extend(list.events);
        match list.next {
            Some(before) => page.before = Some(before),
            None => return found,
        }
    }
}

#[tokio::test]
async fn every_event_is_listed_once_newest_first_in_pages_of_any_size() {
    let vault = Arc::new(open(Arc::new(MemoryStore::new())).await.unwrap());
    let log = log(vault.clone()).await;
    // Over the borders of partitions.
    for n in 1..=1500 {
        log.enqueue(call(n));
        if n % 500 == 0 {
            log.record(call(n).detail("at once")).await.unwrap();
        }
    }
    for size in [37, 1000] {
        let events = all(&log, &AuditFilter::default(), size).await;
        let sequences: Vec<_> = events.iter().map(|e| e.sequence).collect();
        assert_eq!(sequences, (1..=1503).rev().collect::<Vec<_>>());
    }
    let filter = AuditFilter {
        user: Some("bob".into()),
        ..AuditFilter::default()
    };
    assert_eq!(all(&log, &filter, 300).await.len(), 750);
    let filter = AuditFilter {
        since: Some(Timestamp::from_secs(10)),
        until: Some(Timestamp::from_secs(20)),
        action: Some("call".into()),
        outcome: Some(Outcome::Allowed),
        resource: Some("server:notes".into()),
        ..AuditFilter::default()
    };
    assert_eq!(all(&log, &filter, 3).await.len(), 10);
    let filter = AuditFilter {
        action: Some("cal".into()),
        ..AuditFilter::default()
    };
    assert!(all(&log, &filter, 3).await.is_empty());
    assert_eq!(log.dropped(), 0);
    // Many events share a record.
    let records = vault.list(Kind::Audit, None).await.unwrap().len();
    assert!(records < 150, "{records} records");
}

#[tokio::test]
async fn a_recorded_event_is_durable_when_it_is_acknowledged_and_sequences_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Arc::new(open_sled(dir.path()).await);
    let first = log(vault.clone()).await;
    first
        .record(AuditEvent::new(
            Timestamp::from_secs(1),
            "provider.create",
            Outcome::Allowed,
        ))
        .await
        .unwrap();
    assert_eq!(vault.list(Kind::Audit, None).await.unwrap().len(), 1);
    first.close().await;
    assert!(first.record(call(1)).await.is_err());
    drop(first);
    let again = log(vault.clone()).await;
    again.record(call(2)).await.unwrap();
    let events = all(&again, &AuditFilter::default(), 9).await;
    let seen: Vec<_> = events
        .iter()
        .map(|e| (e.sequence, e.action.as_str()))
        .collect();
    assert_eq!(seen, [(2, "call"), (1, "provider.create")]);
}

#[tokio::test]
async fn after_an_unclean_end_the_gap_is_counted_in_an_event_of_its_own() {
    let records = Arc::new(MemoryRecords::default());
    let before = records.clone();
    let crash = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let crashed = log(before).await;
            for n in 0..10 {
                crashed.enqueue(call(n));
            }
            crashed.flush().await.unwrap();
            for n in 0..5 {
                crashed.enqueue(call(n));
            }
            // Never closed, and its task never runs again: the five are lost.
            std::mem::forget(crashed);
        });
    };
    tokio::task::spawn_blocking(crash).await.unwrap();
    let again = log(records.clone()).await;
    let events = all(&again, &AuditFilter::default(), 100).await;
    let gap = &events[0];
    assert_eq!(gap.action, "audit.gap");
    let detail = gap.detail.as_deref().unwrap();
    assert!(detail.contains("at most 4096"), "{detail}");
    assert_eq!(gap.sequence, 11);
    again.close().await;
    drop(again);
    let third = log(records).await;
    third.record(call(1)).await.unwrap();
    assert_eq!(
        all(&third, &AuditFilter::default(), 100).await[0].sequence,
        12
    );
}

#[tokio::test]
async fn several_processes_write_one_log() {
    on_every_shared_store(|first, second| async move {
        let vaults = [
            Arc::new(open(first).await.unwrap()),
            Arc::new(open(second).await.unwrap()),
        ];
        let logs = [log(vaults[0].clone()).await, log(vaults[1].clone()).await];
        for n in 0..40 {
            for log in &logs {
                log.enqueue(call(n));
                log.record(call(n)).await.unwrap();
            }
        }
        for log in &logs {
            // What the other wrote is seen a little later.
            let mut events = Vec::new();
            for _ in 0..100 {
                events = all(log, &AuditFilter::default(), 33).await;
                if events.len() >= 160 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let sequences: Vec<_> = events.iter().map(|e| e.sequence).collect();
            assert_eq!(sequences, (1..=160).rev().collect::<Vec<_>>());
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn while_nothing_happens_few_numbers_stay_reserved() {
    let records = Arc::new(MemoryRecords::default());
    let quiet = log(records.clone()).await;
    quiet.record(call(1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    std::mem::forget(quiet);
    let again = log(records).await;
    let events = all(&again, &AuditFilter::default(), 100).await;
    assert!(events[0].detail.as_deref().unwrap().contains("at most 64"));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_counts_and_says_so() {
    let options = AuditOptions {
        queue: 20,
        ..AuditOptions::default()
    };
    let records = Arc::new(MemoryRecords::default());
    let log = AuditLog::open(records, Arc::new(FakeClock::default()), options)
        .await
        .unwrap();
    for n in 0..50 {
        log.enqueue(call(n));
    }
    assert_eq!(log.dropped(), 30);
    let events = all(&log, &AuditFilter::default(), 100).await;
    assert_eq!(events.len(), 21);
    assert!(
        events[0]
            .detail
            .as_deref()
            .unwrap()
            .starts_with("30 events")
    );
}

#[tokio::test(start_paused = true)]
async fn events_a_failing_store_refused_are_counted_when_it_works_again() {
    let records = Arc::new(Flaky::default());
    let log = log(records.clone()).await;
    log.record(call(1)).await.unwrap();
    records.broken.store(true, Ordering::Relaxed);
    log.enqueue(call(2));
    assert!(log.record(call(3)).await.is_err());
    log.enqueue(call(4));
    assert!(log.flush().await.is_err());
    records.broken.store(false, Ordering::Relaxed);
    log.record(call(5)).await.unwrap();
    let events = all(&log, &AuditFilter::default(), 100).await;
    let gap = events.iter().find(|e| e.action == "audit.gap").unwrap();
    assert!(
        gap.detail.as_deref().unwrap().starts_with("3 events"),
        "{gap:?}"
    );
    assert_eq!(events.len(), 3);
}
