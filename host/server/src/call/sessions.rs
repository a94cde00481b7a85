//! Sessions of clients that have them: a sealed capsule towards the client, a
//! stored row for the upstream's session behind it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_core::error::CallError;
use countersign_core::ports::{Expect, Kind, RecordKey, StoreError, load, put_until};
use countersign_core::time::Timestamp;
use countersign_mcp::session::Capsule;
use http::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::wiring::{App, store_error};

/// How long a session is good; clients begin another when told that it ended.
pub(crate) const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Rows kept in memory; beyond it they are read from the store again.
const CACHED: usize = 20_000;

/// The upstream's session behind a client's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Upstream {
    /// Of the connection it was begun with: another consent begins another.
    generation: u64,
    /// As the upstream named it; absent if it knows no sessions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    id: Option<String>,
    /// Ended by the client or by the upstream: it never comes back.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    ended: bool,
    #[serde(skip)]
    header: Option<HeaderValue>,
}

impl Upstream {
    pub(crate) fn id(&self) -> Option<&HeaderValue> {
        self.header.as_ref()
    }

    fn with_header(mut self) -> Self {
        self.header = self.id.as_deref().and_then(|id| {
            let mut header = HeaderValue::from_str(id).ok()?;
            header.set_sensitive(true);
            Some(header)
        });
        self
    }
}

/// Rows that were used lately.
#[derive(Default)]
pub struct SessionCache {
    rows: Mutex<HashMap<String, Arc<Upstream>>>,
    /// How often all were forgotten: what was being read then is not kept.
    forgotten: AtomicU64,
}

impl SessionCache {
    fn rows(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Upstream>>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads rows anew: another host may have ended a session.
    pub(crate) fn forget(&self) {
        let mut rows = self.rows();
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        rows.clear();
    }

    fn times_forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Acquire)
    }
}

/// A client's session.
pub(crate) struct Session {
    /// What the client's session id says.
    pub(crate) capsule: Capsule,
}

fn key(id: &str) -> RecordKey {
    RecordKey::new(Kind::UpstreamSession, id)
}

impl Session {
    async fn row(&self, app: &App) -> Result<Option<Arc<Upstream>>, StoreError> {
        if let Some(row) = app.sessions.rows().get(&self.capsule.id) {
            return Ok(Some(Arc::clone(row)));
        }
        let seen = app.sessions.times_forgotten();
        let stored = load::<Upstream>(&*app.world.records, &key(&self.capsule.id)).await?;
        Ok(stored.map(|(row, _)| self.remember(app, row, seen)))
    }

    fn remember(&self, app: &App, row: Upstream, seen: u64) -> Arc<Upstream> {
        let row = Arc::new(row.with_header());
        let mut rows = app.sessions.rows();
        if app.sessions.times_forgotten() != seen {
            return row;
        }
        if rows.len() >= CACHED {
            rows.clear();
        }
        rows.insert(self.capsule.id.clone(), Arc::clone(&row));
        row
    }

    /// Whether the client or the upstream has ended it.
    pub(crate) async fn has_ended(&self, app: &App) -> Result<bool, StoreError> {
        Ok(self.row(app).await?.is_some_and(|row| row.ended))
    }

    /// The upstream's session for this generation of the connection; none if
    /// it has yet to be begun.
    pub(crate) async fn upstream(
        &self,
        app: &App,
        generation: u64,
    ) -> Result<Option<Arc<Upstream>>, CallError> {
        let row = self.row(app).await.map_err(|e| store_error(&e))?;
        Ok(row.filter(|row| row.generation == generation && !row.ended))
    }

    /// Remembers the upstream's session, for every replica.
    pub(crate) async fn store(
        &self,
        app: &App,
        generation: u64,
        id: Option<HeaderValue>,
    ) -> Result<(), CallError> {
        let id = id.and_then(|id| id.to_str().ok().map(str::to_owned));
        let row = Upstream {
            generation,
            id,
            ended: false,
            header: None,
        };
        self.write(app, row).await.map_err(|e| store_error(&e))
    }

    /// Ends it: a tombstone, so that no replica takes it up again.
    pub(crate) async fn forget(&self, app: &App) -> Result<(), CallError> {
        let row = Upstream {
            generation: 0,
            id: None,
            ended: true,
            header: None,
        };
        self.write(app, row).await.map_err(|e| store_error(&e))
    }

    async fn write(&self, app: &App, row: Upstream) -> Result<(), StoreError> {
        let id = &self.capsule.id;
        let until: Timestamp = self.capsule.expires_at;
        let write = put_until(key(id), Expect::Anything, &row, Some(until))?;
        let seen = app.sessions.times_forgotten();
        app.world.records.write(vec![write]).await?;
        // What was there before is over, also if this is not to be kept.
        app.sessions.rows().remove(id);
        self.remember(app, row, seen);
        Ok(())
    }
}
