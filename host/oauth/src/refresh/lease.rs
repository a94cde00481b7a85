//! The lease that lets one replica at a time renew a connection.
//!
//! It only saves the provider from two requests with one refresh token. What
//! is stored is guarded by the connection's own revision.

use std::time::Duration;

use countersign_core::names::ConnectionId;
use countersign_core::ports::{
    Expect, Kind, RecordKey, Revision, StoreError, Write, load, put_until,
};
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::service::Oauth;

/// A lease row is swept away when it was not used for a day.
const KEPT: Duration = Duration::from_secs(86_400);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    holder: String,
    /// Rises with every holder.
    fence: u64,
    until: Timestamp,
}

/// A lease that is held.
pub(crate) struct Lease {
    key: RecordKey,
    revision: Revision,
    row: Row,
    /// Whether it went back together with the result.
    pub(crate) is_given_back: bool,
}

impl Oauth {
    /// Takes the lease; none if another replica holds it.
    pub(crate) async fn take_lease(
        &self,
        id: &ConnectionId,
        lasts: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let key = RecordKey::new(Kind::Lease, id.as_str());
        let now = self.world.clock.now();
        let (expect, fence) = match load::<Row>(&*self.world.records, &key).await? {
            None => (Expect::Absent, 1),
            Some((row, _)) if row.until > now && row.holder != self.holder => return Ok(None),
            Some((row, revision)) => (Expect::At(revision), row.fence + 1),
        };
        let row = Row {
            holder: self.holder.clone(),
            fence,
            until: now.plus(lasts),
        };
        let write = put_until(key.clone(), expect, &row, Some(now.plus(KEPT)))?;
        match self.world.records.write(vec![write]).await {
            Ok(revisions) => Ok(revisions.first().map(|&revision| Lease {
                key,
                revision,
                row,
                is_given_back: false,
            })),
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The write that gives the lease back, to go with the result. The row
    /// stays, so that the fence goes on rising.
    pub(crate) fn end_of(&self, lease: &Lease) -> Result<Write, StoreError> {
        let now = self.world.clock.now();
        let row = Row {
            until: now,
            ..lease.row.clone()
        };
        put_until(
            lease.key.clone(),
            Expect::At(lease.revision),
            &row,
            Some(now.plus(KEPT)),
        )
    }

    /// Gives the lease back alone. If that fails it ends by itself.
    pub(crate) async fn give_back(&self, lease: &Lease) {
        if lease.is_given_back {
            return;
        }
        let Ok(write) = self.end_of(lease) else {
            return;
        };
        if let Err(error) = self.world.records.write(vec![write]).await
            && error != StoreError::Conflict
        {
            tracing::warn!(%error, "a refresh lease was not given back");
        }
    }
}
