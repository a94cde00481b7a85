//! Records the inputs of decisions, in a ring for each server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_core::connection::Connection;
use countersign_core::decide::Attachment;
use countersign_core::names::ServerName;
use countersign_core::ports::{
    Expect, Kind, RecordKey, Records, StoreError, delete, parse, put_until,
};
use countersign_core::preset::{Call, GrantFacts, Preset};
use countersign_core::rehearse::rehearse;
use countersign_core::scope::ScopeSet;
use countersign_core::secret::SealKey;
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::input::{Recorded, Said};
use super::redact::{Known, Redactor};
use crate::wiring::App;

/// Inputs that may wait to be redacted; more are not recorded, and counted.
const WAITING: usize = 1024;
/// Records of one server: the oldest is overwritten. Together about 2,000
/// inputs, at most 768 KiB.
const SLOTS: u64 = 96;
/// Inputs go into one record up to this, in bytes; the store takes 8 KiB.
const FULL: usize = 6 * 1024;
/// What is gathered is written at least this often.
const FLUSH: Duration = Duration::from_secs(5);
/// After this, what was recorded is swept away.
const KEPT_DAYS: i64 = 30;

/// One call as it was judged. It lives in memory only, and not for long.
struct Raw {
    server: ServerName,
    preset: Arc<dyn Preset>,
    method: String,
    name: Option<String>,
    arguments: Option<String>,
    host: String,
    connected: bool,
    scopes: ScopeSet,
    account: Option<String>,
    facts: Vec<(String, String)>,
}

/// Where calls leave what they were judged by.
pub struct Recorder {
    key: SealKey,
    sender: Sender<Raw>,
    receiver: Mutex<Option<Receiver<Raw>>>,
    missed: AtomicU64,
    rings: tokio::sync::Mutex<HashMap<ServerName, Ring>>,
}

/// What is gathered for one server.
#[derive(Default)]
struct Ring {
    /// Number of the record that is written next; found in the store first.
    next: Option<u64>,
    gathered: Vec<Recorded>,
    size: usize,
}

/// One record of a ring.
#[derive(Serialize, Deserialize)]
struct Slot {
    /// Rises by one for each record of the server.
    number: u64,
    inputs: Vec<Recorded>,
}

impl Recorder {
    /// Placeholders are made under this key.
    #[must_use]
    pub fn new(key: SealKey) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self {
            key,
            sender,
            receiver: Mutex::new(Some(receiver)),
            missed: AtomicU64::new(0),
            rings: tokio::sync::Mutex::default(),
        }
    }

    /// Takes what a call is judged by, if its server is told to record. What
    /// the preset does not want to be told is not taken.
    pub(crate) fn note(
        &self,
        attachment: &Attachment,
        call: &Call<'_>,
        connection: Option<&Connection>,
    ) {
        let server = attachment.server();
        let Some(preset) = attachment.preset().filter(|_| server.record_decisions) else {
            return;
        };
        let wants = preset.description().wants;
        let raw = Raw {
            server: server.name.clone(),
            preset: Arc::clone(preset),
            method: call.method.to_owned(),
            name: call.name.map(str::to_owned),
            arguments: call
                .arguments
                .filter(|_| preset.wants_arguments(call))
                .map(str::to_owned),
            host: call.host.to_owned(),
            connected: connection.is_some(),
            scopes: connection.map(Connection::scopes).unwrap_or_default(),
            account: connection
                .and_then(|c| c.account.as_ref())
                .filter(|_| wants.account)
                .map(|a| a.id.clone()),
            facts: connection
                .filter(|_| wants.facts)
                .map_or_else(Vec::new, |c| c.facts.clone()),
        };
        if self.sender.try_send(raw).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Everything recorded of a server, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] of the store.
    pub async fn recorded(
        &self,
        records: &dyn Records,
        server: &ServerName,
    ) -> Result<Vec<Recorded>, StoreError> {
        let rings = self.rings.lock().await;
        let mut slots = stored(records, server).await?;
        slots.sort_by_key(|slot| slot.number);
        let gathered = rings.get(server).map_or(&[][..], |r| r.gathered.as_slice());
        let old = slots.into_iter().flat_map(|slot| slot.inputs);
        Ok(old.chain(gathered.iter().cloned()).collect())
    }

    /// Forgets everything recorded of a server.
    ///
    /// # Errors
    /// [`StoreError`] of the store.
    pub async fn forget(
        &self,
        records: &dyn Records,
        server: &ServerName,
    ) -> Result<(), StoreError> {
        let mut rings = self.rings.lock().await;
        rings.remove(server);
        let slots = stored(records, server).await?;
        let writes = slots
            .iter()
            .map(|slot| delete(key(server, slot.number), Expect::Anything));
        let writes: Vec<_> = writes.collect();
        if writes.is_empty() {
            return Ok(());
        }
        records.write(writes).await.map(|_| ())
    }

    async fn gather(
        &self,
        records: &dyn Records,
        now: Timestamp,
        server: ServerName,
        input: Recorded,
    ) {
        let size = serde_json::to_vec(&input).map_or(0, |bytes| bytes.len());
        let mut rings = self.rings.lock().await;
        let ring = rings.entry(server.clone()).or_default();
        if ring.size + size > FULL {
            ring.flush(records, now, &server).await;
        }
        ring.size += size;
        ring.gathered.push(input);
    }

    /// Writes what is gathered.
    pub(crate) async fn flush(&self, records: &dyn Records, now: Timestamp) {
        let missed = self.missed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            tracing::warn!(missed, "decisions were too many to be recorded");
        }
        for (server, ring) in self.rings.lock().await.iter_mut() {
            ring.flush(records, now, server).await;
        }
    }
}

impl Ring {
    /// Writes what is gathered over the oldest record. What cannot be written
    /// is lost: it is no audit log.
    async fn flush(&mut self, records: &dyn Records, now: Timestamp, server: &ServerName) {
        if self.gathered.is_empty() {
            return;
        }
        let inputs = std::mem::take(&mut self.gathered);
        self.size = 0;
        let write = async {
            let number = match self.next {
                Some(number) => number,
                None => stored(records, server)
                    .await?
                    .iter()
                    .map(|slot| slot.number + 1)
                    .max()
                    .unwrap_or_default(),
            };
            let until = Timestamp::from_millis(now.as_millis() + KEPT_DAYS * 24 * 3_600_000);
            let slot = Slot { number, inputs };
            let write = put_until(key(server, number), Expect::Anything, &slot, Some(until))?;
            records.write(vec![write]).await?;
            Ok::<u64, StoreError>(number)
        };
        match write.await {
            Ok(number) => self.next = Some(number + 1),
            Err(error) => tracing::warn!(%server, %error, "decisions could not be recorded"),
        }
    }
}

fn key(server: &ServerName, number: u64) -> RecordKey {
    RecordKey::within(
        Kind::Decision,
        server.as_str(),
        (number % SLOTS).to_string(),
    )
}

async fn stored(records: &dyn Records, server: &ServerName) -> Result<Vec<Slot>, StoreError> {
    let found = records.list(Kind::Decision, Some(server.as_str())).await?;
    found.iter().map(parse).collect()
}

/// Redacts and writes what calls leave, for as long as the host runs.
pub async fn follow(app: Arc<App>) {
    let receiver = app
        .recorder
        .receiver
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(mut raws) = receiver else { return };
    let known = Arc::new(Mutex::new(Known::default()));
    let mut ticks = tokio::time::interval(FLUSH);
    loop {
        tokio::select! {
            raw = raws.recv() => {
                let Some(raw) = raw else { return };
                let (of, known, server) = (Arc::clone(&app), Arc::clone(&known), raw.server.clone());
                // It asks the preset twice.
                let redacted = tokio::task::spawn_blocking(move || redacted(&of, &known, &raw)).await;
                if let Ok(input) = redacted {
                    let now = app.world.clock.now();
                    app.recorder.gather(app.world.records.as_ref(), now, server, input).await;
                }
            }
            _ = ticks.tick() => {
                app.recorder.flush(app.world.records.as_ref(), app.world.clock.now()).await;
            }
        }
    }
}

fn redacted(app: &App, known: &Mutex<Known>, raw: &Raw) -> Recorded {
    let digest = raw.preset.digest();
    let words = known
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .words(digest, || app.catalog.component(&digest));
    let key = app.recorder.key.derive(raw.server.as_str());
    let redactor = Redactor {
        key: &key,
        words: &words,
    };
    let call = Call {
        method: &raw.method,
        name: raw.name.as_deref(),
        arguments: raw.arguments.as_deref(),
        host: &raw.host,
    };
    let grant = GrantFacts {
        scopes: &raw.scopes,
        account: raw.account.as_deref(),
        facts: &raw.facts,
    };
    let said: Said = rehearse(&*raw.preset, &call, &grant, raw.connected).into();
    let facts = raw.facts.iter();
    let mut input = Recorded {
        name: raw.name.as_deref().map(|n| redactor.name(&raw.method, n)),
        account: raw.account.as_deref().map(|a| redactor.text(a)),
        facts: facts
            .map(|(name, value)| (name.clone(), redactor.text(value)))
            .collect(),
        arguments: raw.arguments.as_deref().and_then(|a| redactor.arguments(a)),
        scopes: raw.scopes.iter().map(ToString::to_string).collect(),
        method: raw.method.clone(),
        host: raw.host.clone(),
        connected: raw.connected,
        preset: digest,
        said,
        faithful: false,
    };
    input.faithful = input.ask(&*raw.preset) == input.said;
    input
}
