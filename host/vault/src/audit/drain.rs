//! The task that writes events, and the intent record.

use std::sync::Arc;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::ports::{
    Clock, Expect, Kind, RecordKey, Records, Revision, StoreError, load, put,
};
use serde::{Deserialize, Serialize};

use super::batch::pack;
use super::{AuditOptions, Queue, Shared, Waiter};

/// Most events of one write: what it holds is in memory twice.
pub(super) const AT_ONCE: usize = 1024;

/// Up to which number events are stored, and may have been taken.
#[derive(Serialize, Deserialize)]
struct Intent {
    stored: u64,
    reserved: u64,
}

fn intent_key() -> RecordKey {
    RecordKey::new(Kind::Meta, "audit-intent")
}

/// What of the log is stored.
pub(super) struct Writer {
    intent: Intent,
    revision: Option<Revision>,
    /// Taken but not stored, because the store failed.
    lost: u64,
    /// A failure since the queue was last empty.
    trouble: Result<(), StoreError>,
}

impl Writer {
    /// Reads the intent and writes down a gap. Returns the next number too.
    pub(super) async fn open(
        records: &dyn Records,
        clock: &dyn Clock,
        options: &AuditOptions,
    ) -> Result<(Self, u64), StoreError> {
        let (intent, revision) = match load::<Intent>(records, &intent_key()).await? {
            Some((intent, revision)) => (intent, Some(revision)),
            None => (
                Intent {
                    stored: 0,
                    reserved: 0,
                },
                None,
            ),
        };
        let gap = intent.reserved.saturating_sub(intent.stored);
        let first = intent.stored.max(intent.reserved) + 1;
        let mut events = Vec::new();
        if gap > 0 {
            let detail = format!(
                "Countersign ended without closing the audit log; sequence numbers {} to {} were \
                 reserved and never stored: at most {gap} events were lost",
                intent.stored + 1,
                intent.reserved,
            );
            let mut event =
                AuditEvent::new(clock.now(), "audit.gap", Outcome::Failed).detail(detail);
            event.sequence = first;
            tracing::warn!(
                at_most = gap,
                "audit events were lost when Countersign last ended"
            );
            events.push(event);
        }
        let next = first + events.len() as u64;
        let mut writer = Self {
            intent,
            revision,
            lost: 0,
            trouble: Ok(()),
        };
        writer
            .store(records, &mut events, next - 1, options.idle_reserve)
            .await?;
        Ok((writer, next))
    }

    pub(super) fn reserved(&self) -> u64 {
        self.intent.reserved
    }

    /// Stores events up to `last` and the intent in one atomic write.
    async fn store(
        &mut self,
        records: &dyn Records,
        events: &mut [AuditEvent],
        last: u64,
        reserve: u64,
    ) -> Result<(), StoreError> {
        let mut writes = pack(events)?;
        let intent = Intent {
            stored: last,
            reserved: last.saturating_add(reserve),
        };
        let expect = self.revision.map_or(Expect::Absent, Expect::At);
        writes.push(put(intent_key(), expect, &intent)?);
        let revisions = records.write(writes).await?;
        self.revision = revisions.last().copied();
        self.intent = intent;
        Ok(())
    }
}

pub(super) async fn run(shared: Arc<Shared>, mut writer: Writer) {
    let options = shared.options;
    loop {
        let idle = tokio::time::timeout(options.idle_after, shared.wake.notified())
            .await
            .is_err();
        if idle {
            shrink(&shared, &mut writer).await;
            continue;
        }
        if !shared.queue().hurries() {
            let _ = tokio::time::timeout(options.linger, shared.hurry.notified()).await;
        }
        while write_some(&shared, &mut writer).await && shared.queue().hurries() {}
        let (closing, more) = {
            let queue = shared.queue();
            (queue.closing, !queue.events.is_empty())
        };
        if closing {
            finish(&shared, &mut writer).await;
            return;
        }
        // What came meanwhile waits for company in its turn.
        if more {
            shared.wake.notify_one();
        }
    }
}

/// Writes what is queued, or a good part of it. Whether there was something.
async fn write_some(shared: &Shared, writer: &mut Writer) -> bool {
    let (mut events, missed) = {
        let mut queue = shared.queue();
        let alone = queue.events.is_empty() || queue.events.len() >= AT_ONCE;
        let missed = if alone {
            0
        } else {
            add_gap(shared, &mut queue, writer)
        };
        let count = queue.events.len().min(AT_ONCE);
        let rest = queue.events.split_off(count);
        (std::mem::replace(&mut queue.events, rest), missed)
    };
    let something = !events.is_empty();
    if let Some(last) = events.last().map(|e| e.sequence) {
        let stored = writer.store(&*shared.records, &mut events, last, shared.options.reserve);
        match stored.await {
            Ok(()) => shared.queue().reserved = writer.intent.reserved,
            Err(cause) => {
                let count = events.len() as u64 - u64::from(missed > 0);
                tracing::error!(%cause, count, "audit events could not be stored");
                writer.lost += count + missed;
                writer.trouble = Err(cause);
            }
        }
    }
    let waiting: Vec<Waiter> = {
        let mut queue = shared.queue();
        // Whoever waits, waits for all that was taken before.
        if !queue.events.is_empty() {
            return true;
        }
        std::mem::take(&mut queue.waiting)
    };
    let outcome = std::mem::replace(&mut writer.trouble, Ok(()));
    for waiter in waiting {
        let _ = waiter.send(outcome.clone());
    }
    something
}

/// Queues an event that counts what was lost since the last one. Returns how
/// many that is.
fn add_gap(shared: &Shared, queue: &mut Queue, writer: &mut Writer) -> u64 {
    let missed = std::mem::take(&mut queue.unsaid) + std::mem::take(&mut writer.lost);
    if missed > 0 {
        let detail = format!("{missed} events were lost: the queue was full, or the store failed");
        let mut event =
            AuditEvent::new(shared.clock.now(), "audit.gap", Outcome::Failed).detail(detail);
        event.sequence = queue.next;
        queue.next += 1;
        queue.events.push(event);
    }
    missed
}

/// Gives back numbers that a quiet time does not need.
async fn shrink(shared: &Shared, writer: &mut Writer) {
    let keep = shared.options.idle_reserve;
    let next = {
        let mut queue = shared.queue();
        if !queue.events.is_empty() || writer.intent.reserved <= writer.intent.stored + keep {
            return;
        }
        // From now on numbers beyond this make the task hurry.
        queue.reserved = writer.intent.stored + keep;
        queue.next
    };
    // Numbers of events that the store refused are not to be used again.
    if let Err(cause) = writer
        .store(&*shared.records, &mut [], next - 1, keep)
        .await
    {
        tracing::error!(%cause, "the audit log's intent could not be stored");
    }
    shared.queue().reserved = writer.intent.reserved;
}

async fn finish(shared: &Shared, writer: &mut Writer) {
    let (mut events, last) = {
        let mut queue = shared.queue();
        add_gap(shared, &mut queue, writer);
        (std::mem::take(&mut queue.events), queue.next - 1)
    };
    if let Err(cause) = writer.store(&*shared.records, &mut events, last, 0).await {
        tracing::error!(%cause, "the audit log could not be closed cleanly");
    }
}
