//! The task that writes events, and the intents.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::ports::{
    Clock, Expect, Kind, RecordKey, Records, Revision, StoreError, Write, delete, load, parse, put,
};
use serde::{Deserialize, Serialize};

use super::batch::pack;
use super::{AuditOptions, Queue, Shared, Waiter};

/// Most events of one write: what it holds is in memory twice.
pub(super) const AT_ONCE: usize = 1024;
/// How often processes are looked for that ended without closing.
const LOOK: Duration = Duration::from_secs(60);

/// How often the log is tried again when another process wrote to it first.
const TRIES: usize = 64;

/// The number of the newest event. Older versions reserved numbers in it.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Newest {
    stored: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    reserved: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Of one process: how many events it has stored, and up to how many it may
/// have taken.
#[derive(Serialize, Deserialize)]
struct Intent {
    stored: u64,
    reserved: u64,
}

fn newest_key() -> RecordKey {
    RecordKey::new(Kind::Meta, "audit-intent")
}

const INTENTS: &str = "audit-intents";

fn intent_key(process: &str) -> RecordKey {
    RecordKey::within(Kind::Meta, INTENTS, process)
}

/// The number that the next event gets.
pub(super) async fn next_number(records: &dyn Records) -> Result<u64, StoreError> {
    let newest = load::<Newest>(records, &newest_key()).await?;
    let newest = newest.map(|(newest, _)| newest).unwrap_or_default();
    Ok(newest.stored.max(newest.reserved) + 1)
}

/// What of the log is stored.
pub(super) struct Writer {
    newest: Newest,
    newest_at: Option<Revision>,
    intent: Intent,
    intent_at: Option<Revision>,
    /// Taken but not stored, because the store failed.
    lost: u64,
    /// A failure since the queue was last empty.
    trouble: Result<(), StoreError>,
}

impl Writer {
    /// Begins the intent of this process, and writes down the gaps of those
    /// that ended without closing.
    pub(super) async fn open(
        records: &dyn Records,
        clock: &dyn Clock,
        options: &AuditOptions,
    ) -> Result<Self, StoreError> {
        let mut writer = Self {
            newest: Newest::default(),
            newest_at: None,
            intent: Intent {
                stored: 0,
                reserved: 0,
            },
            intent_at: None,
            lost: 0,
            trouble: Ok(()),
        };
        writer.reload(records).await?;
        let own = records.process();
        writer
            .bury(records, clock, |process| process == own)
            .await?;
        writer
            .store(records, &mut [], 0, options.idle_reserve)
            .await?;
        Ok(writer)
    }

    pub(super) fn reserved(&self) -> u64 {
        self.intent.reserved
    }

    async fn reload(&mut self, records: &dyn Records) -> Result<(), StoreError> {
        let newest = load::<Newest>(records, &newest_key()).await?;
        (self.newest, self.newest_at) =
            newest.map_or_else(Default::default, |(newest, at)| (newest, Some(at)));
        let intent = records.get(&intent_key(records.process())).await?;
        self.intent_at = intent.map(|record| record.revision);
        Ok(())
    }

    /// Counts what processes lost that run no more, or that `is_over` says are.
    pub(super) async fn bury(
        &mut self,
        records: &dyn Records,
        clock: &dyn Clock,
        is_over: impl Fn(&str) -> bool,
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let (mut events, mut writes) = (Vec::new(), Vec::new());
            let old = self.newest.reserved.saturating_sub(self.newest.stored);
            if old > 0 {
                events.push(gap(clock, old));
                // Those numbers may have been shown.
                self.newest.stored = self.newest.reserved;
            }
            for record in records.list(Kind::Meta, Some(INTENTS)).await? {
                let process = &record.key.name;
                if !is_over(process)
                    && (process == records.process() || records.is_running(process).await?)
                {
                    continue;
                }
                let Intent { stored, reserved } = parse(&record)?;
                if reserved > stored {
                    events.push(gap(clock, reserved - stored));
                }
                writes.push(delete(record.key.clone(), Expect::At(record.revision)));
            }
            if events.is_empty() && writes.is_empty() {
                return Ok(());
            }
            let count = events.len();
            match self.write(records, &mut events, writes).await {
                Ok(()) => {
                    tracing::warn!(count, "audit events were lost when a process ended");
                    return self.reload(records).await;
                }
                Err(StoreError::Conflict) => self.reload(records).await?,
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict)
    }

    /// Numbers the events and stores them, in one atomic write with `more`.
    async fn write(
        &mut self,
        records: &dyn Records,
        events: &mut [AuditEvent],
        more: Vec<Write>,
    ) -> Result<(), StoreError> {
        let mut newest = self.newest.stored;
        for event in &mut *events {
            newest += 1;
            event.sequence = newest;
        }
        let mut writes = pack(events)?;
        writes.extend(more);
        let newest = Newest {
            stored: newest,
            reserved: 0,
        };
        let expect = self.newest_at.map_or(Expect::Absent, Expect::At);
        writes.push(put(newest_key(), expect, &newest)?);
        let revisions = records.write(writes).await?;
        self.newest_at = revisions.last().copied();
        self.newest = newest;
        Ok(())
    }

    /// Stores events, the last of which is the `last` that this process took,
    /// and the intent.
    async fn store(
        &mut self,
        records: &dyn Records,
        events: &mut [AuditEvent],
        last: u64,
        reserve: u64,
    ) -> Result<(), StoreError> {
        let intent = Intent {
            stored: last,
            reserved: last.saturating_add(reserve),
        };
        let key = intent_key(records.process());
        for _ in 0..TRIES {
            let expect = self.intent_at.map_or(Expect::Absent, Expect::At);
            let write = put(key.clone(), expect, &intent)?;
            // Without events only the intent changes.
            let stored = match events.is_empty() {
                true => records.write(vec![write]).await.map(drop),
                false => self.write(records, events, vec![write]).await,
            };
            match stored {
                Ok(()) => {
                    self.intent = intent;
                    let at = self.intent_at.map_or(0, |revision| revision.0);
                    self.intent_at = Some(Revision(at + 1));
                    return Ok(());
                }
                // Another process wrote first.
                Err(StoreError::Conflict) => self.reload(records).await?,
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict)
    }

    /// Takes the intent back: nothing is under way any more.
    async fn close(
        &mut self,
        records: &dyn Records,
        events: &mut [AuditEvent],
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let gone = self
                .intent_at
                .map(|at| delete(intent_key(records.process()), Expect::At(at)));
            let gone: Vec<Write> = gone.into_iter().collect();
            let closed = match events.is_empty() {
                true => records.write(gone).await.map(drop),
                false => self.write(records, events, gone).await,
            };
            match closed {
                Err(StoreError::Conflict) => self.reload(records).await?,
                done => return done,
            }
        }
        Err(StoreError::Conflict)
    }
}

fn gap(clock: &dyn Clock, count: u64) -> AuditEvent {
    let detail = format!(
        "a Countersign process ended without closing the audit log: at most {count} events that \
         it had taken were lost"
    );
    AuditEvent::new(clock.now(), "audit.gap", Outcome::Failed).detail(detail)
}

pub(super) async fn run(shared: Arc<Shared>, mut writer: Writer) {
    let options = shared.options;
    let mut looked = shared.clock.now();
    loop {
        let now = shared.clock.now();
        if now.since(looked) >= LOOK {
            looked = now;
            let buried = writer.bury(&*shared.records, &*shared.clock, |_| false);
            if let Err(cause) = buried.await {
                tracing::warn!(%cause, "the audit log was not searched for gaps");
            }
        }
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
    let mut events = {
        let mut queue = shared.queue();
        add_gap(shared, &mut queue, writer);
        std::mem::take(&mut queue.events)
    };
    if let Err(cause) = writer.close(&*shared.records, &mut events).await {
        tracing::error!(%cause, "the audit log could not be closed cleanly");
    }
}
