//! The audit log, kept as records of the vault.
//!
//! Events are written by one task of each process, many in one record, and get
//! their sequence numbers then: the log of all processes on one store is one,
//! in the order in which it became durable. Each process has an intent, written
//! with every batch, that says how many events it may have taken and not yet
//! stored. Once it is known to run no more, that number is counted in an
//! `audit.gap` event. It is an upper bound; while nothing happens,
//! [`AuditOptions::idle_reserve`] stay reserved. A burst that outruns the
//! reservation makes the task write at once; events beyond it that a crash
//! takes before that are not counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_core::audit::AuditEvent;
use countersign_core::ports::{AuditSink, BoxFuture, Clock, Records, StoreError};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

mod batch;
mod drain;
mod query;

pub use query::{AuditFilter, AuditList, AuditPage};

/// How much may wait, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct AuditOptions {
    /// Most events in the queue; further ones are dropped and counted.
    pub queue: usize,
    /// How long events of calls wait for company.
    pub linger: Duration,
    /// Events that may be taken before they are counted on, under load.
    pub reserve: u64,
    /// The same while nothing happens.
    pub idle_reserve: u64,
    /// How long nothing has to happen for that.
    pub idle_after: Duration,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            queue: 16_384,
            linger: Duration::from_millis(50),
            reserve: 4096,
            idle_reserve: 64,
            idle_after: Duration::from_secs(2),
        }
    }
}

/// Takes events and writes them; answers questions about them.
pub struct AuditLog {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    records: Arc<dyn Records>,
    clock: Arc<dyn Clock>,
    options: AuditOptions,
    queue: Mutex<Queue>,
    /// There is something to write.
    wake: Notify,
    /// It should not wait for company.
    hurry: Notify,
}

type Waiter = oneshot::Sender<Result<(), StoreError>>;

struct Queue {
    events: Vec<AuditEvent>,
    waiting: Vec<Waiter>,
    /// The number that the next event has until it is stored: counted in this
    /// process.
    next: u64,
    /// Up to which of those an intent is durable.
    reserved: u64,
    /// Dropped and not yet written down.
    unsaid: u64,
    /// Dropped since start.
    dropped: u64,
    closing: bool,
}

impl Queue {
    /// Whether what is queued should be written without waiting for company.
    fn hurries(&self) -> bool {
        self.closing
            || !self.waiting.is_empty()
            || self.next > self.reserved + 1
            || self.events.len() >= drain::AT_ONCE
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts it into the queue and wakes the writer if need be.
    fn take(&self, event: Option<AuditEvent>, waiter: Option<Waiter>) {
        let mut queue = self.queue();
        if queue.closing || (waiter.is_none() && queue.events.len() >= self.options.queue) {
            if event.is_some() {
                queue.unsaid += 1;
                queue.dropped += 1;
            }
            // A dropped waiter tells its owner.
            return;
        }
        let was_empty = queue.events.is_empty() && queue.waiting.is_empty();
        if let Some(mut event) = event {
            event.sequence = queue.next;
            queue.next += 1;
            queue.events.push(event);
        }
        let hurry = waiter.is_some()
            || queue.next == queue.reserved.saturating_add(2)
            || queue.events.len() == self.options.queue / 4;
        queue.waiting.extend(waiter);
        drop(queue);
        if was_empty {
            self.wake.notify_one();
        }
        if hurry {
            self.hurry.notify_one();
        }
    }

    async fn take_and_wait(&self, event: Option<AuditEvent>) -> Result<(), StoreError> {
        let (waiter, outcome) = oneshot::channel();
        self.take(event, Some(waiter));
        outcome
            .await
            .unwrap_or_else(|_| Err(StoreError::Failed("the audit log is closed".into())))
    }
}

impl AuditLog {
    /// Opens the log; writes down a gap if the last one did not end cleanly.
    /// Needs a tokio runtime, on which it writes.
    ///
    /// # Errors
    /// As [`Records::get`] and [`Records::write`].
    pub async fn open(
        records: Arc<dyn Records>,
        clock: Arc<dyn Clock>,
        options: AuditOptions,
    ) -> Result<Self, StoreError> {
        let writer = drain::Writer::open(&*records, &*clock, &options).await?;
        let queue = Queue {
            events: Vec::new(),
            waiting: Vec::new(),
            next: 1,
            reserved: writer.reserved(),
            unsaid: 0,
            dropped: 0,
            closing: false,
        };
        let shared = Arc::new(Shared {
            records,
            clock,
            options,
            queue: Mutex::new(queue),
            wake: Notify::new(),
            hurry: Notify::new(),
        });
        let task = tokio::spawn(drain::run(shared.clone(), writer));
        Ok(Self {
            shared,
            task: Mutex::new(Some(task)),
        })
    }

    /// Waits until everything taken so far is durable.
    ///
    /// # Errors
    /// As [`Records::write`].
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.shared.take_and_wait(None).await
    }

    /// Writes what is queued and ends cleanly: no gap at the next open. Events
    /// that come later are dropped.
    pub async fn close(&self) {
        self.end();
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }

    /// Events refused by a full or closed queue since the log was opened.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.queue().dropped
    }

    /// Events that fit `filter`, newest first, including those still queued.
    ///
    /// # Errors
    /// As [`Records::list`] and [`Records::write`].
    pub async fn events(
        &self,
        filter: &AuditFilter,
        page: &AuditPage,
    ) -> Result<AuditList, StoreError> {
        let open = !self.shared.queue().closing;
        if open {
            self.flush().await?;
        }
        let next = drain::next_number(&*self.shared.records).await?;
        query::run(&*self.shared.records, filter, page, next).await
    }

    fn end(&self) {
        self.shared.queue().closing = true;
        self.shared.wake.notify_one();
        self.shared.hurry.notify_one();
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.end();
    }
}

impl AuditSink for AuditLog {
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.shared.take_and_wait(Some(event)))
    }

    fn enqueue(&self, event: AuditEvent) {
        self.shared.take(Some(event), None);
    }
}
