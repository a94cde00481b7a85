//! Epochs: the time from one restore to the next.
//!
//! A restored store says in a record of its own which epoch it is in. What was
//! sealed for browsers and agents in the one before (session ids, request
//! states) is under other keys, and connections that came from a backup are
//! looked at once, when the host starts, before anything uses them: a refresh
//! token that changes with every use may have been used since the backup, and
//! using it twice would look like a theft to its provider.

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::connection::{Connection, ReauthReason, State};
use countersign_core::names::hex;
use countersign_core::ports::{
    Expect, Kind, Random, RecordKey, Records, StoreError, World, load, put, random_bytes,
};
use countersign_core::preset::Rotation;
use countersign_core::time::Timestamp;
use countersign_vault::backup::{Adjusted, Origin};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::registry::Registry;

/// Marks the document of a connection that came from a backup, until it was
/// looked at.
const MARK: &str = "restored";

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Random.
    pub id: String,
    /// When the store was restored.
    pub began_at: Timestamp,
    /// From which backup.
    pub backup: String,
    /// When that was made: what happened between is lost, or came from the
    /// store that was replaced.
    pub backup_at: Timestamp,
    /// Whether connections from the backup have been looked at.
    pub is_settled: bool,
}

impl Epoch {
    /// Where it is kept.
    #[must_use]
    pub fn key() -> RecordKey {
        RecordKey::new(Kind::Meta, "epoch")
    }

    /// A new one.
    #[must_use]
    pub fn new(random: &dyn Random, now: Timestamp, backup: String, backup_at: Timestamp) -> Self {
        Self {
            id: hex(&random_bytes::<16>(random)),
            began_at: now,
            backup,
            backup_at,
            is_settled: false,
        }
    }

    /// The one that the store is in; none if it was never restored.
    ///
    /// # Errors
    /// The store's.
    pub async fn of(records: &dyn Records) -> Result<Option<Self>, StoreError> {
        Ok(load(records, &Self::key()).await?.map(|(epoch, _)| epoch))
    }
}

/// What becomes of a record that goes over to a new epoch: users get another
/// epoch of their own, so that nothing bound to the last one holds; connections
/// from the backup are marked.
pub fn adjust(random: &dyn Random) -> impl Fn(Kind, Origin, &[u8]) -> Adjusted + Send + Sync + '_ {
    move |kind, origin, document| {
        let (member, value) = match (kind, origin) {
            (Kind::User, _) => ("epoch", Value::String(hex(&random_bytes::<16>(random)))),
            (Kind::Connection, Origin::Backup) => (MARK, Value::Bool(true)),
            _ => return Adjusted::Keep,
        };
        let Ok(Value::Object(mut members)) = serde_json::from_slice(document) else {
            return Adjusted::Keep;
        };
        members.insert(member.to_owned(), value);
        match serde_json::to_vec(&members) {
            Ok(changed) => Adjusted::Change(changed),
            Err(_) => Adjusted::Keep,
        }
    }
}

/// Looks at the connections that came from a backup, if that was not done yet.
/// Where the provider gives another refresh token with each use, or nothing is
/// known about it, the user is asked to authorize again.
///
/// # Errors
/// The store's; nothing is served then.
pub async fn settle(world: &World, registry: &Registry) -> Result<(), StoreError> {
    let records = &*world.records;
    let Some((epoch, revision)) = load::<Epoch>(records, &Epoch::key()).await? else {
        return Ok(());
    };
    if epoch.is_settled {
        return Ok(());
    }
    let (mut kept, mut asked) = (0u64, 0u64);
    for record in records.list(Kind::Connection, None).await? {
        let Ok(document) = serde_json::from_slice::<Value>(&record.document) else {
            continue;
        };
        if document.get(MARK) != Some(&Value::Bool(true)) {
            continue;
        }
        // Read without the mark, and written without it.
        let Ok(mut connection) = serde_json::from_value::<Connection>(document) else {
            tracing::error!("a restored connection cannot be read");
            continue;
        };
        if connection.state == State::Connected && rotates(&connection, registry) {
            connection.state = State::NeedsReauth {
                reason: ReauthReason::Expired,
            };
            connection.updated_at = world.clock.now();
            asked += 1;
        } else {
            kept += 1;
        }
        let write = put(record.key, Expect::At(record.revision), &connection)?;
        match records.write(vec![write]).await {
            // Another host settles, too.
            Ok(_) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    let settled = Epoch {
        is_settled: true,
        ..epoch
    };
    match records
        .write(vec![put(Epoch::key(), Expect::At(revision), &settled)?])
        .await
    {
        Ok(_) => {}
        Err(StoreError::Conflict) => return Ok(()),
        Err(error) => return Err(error),
    }
    let detail = format!(
        "of the connections that came from the backup {asked} need a new authorization, because \
         their refresh tokens may have been used since; {kept} go on"
    );
    tracing::info!(%detail, "a new epoch has begun");
    let event = AuditEvent::new(world.clock.now(), "store.epoch", Outcome::Allowed);
    let event = event.by("countersign").detail(detail);
    world.audit.record(event).await
}

fn rotates(connection: &Connection, registry: &Registry) -> bool {
    connection
        .credentials
        .iter()
        .any(|c| c.refresh_token_present)
        && registry
            .party(&connection.provider)
            .is_none_or(|party| party.preset.description().refresh.rotation != Rotation::Never)
}
