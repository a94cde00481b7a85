//! The lease that lets one process at a time renew a connection.
//!
//! Clocks and pauses do not break it. Before the refresh token goes out the
//! holder writes so into the lease, over the very version that it took: one
//! that was paused and has lost the lease meanwhile learns it there and sends
//! nothing. Once that is written nobody else sends the same token, however late
//! it is, unless the provider lets a token be used twice: an answer may be on
//! its way that has replaced it, and providers take a second use for theft.
//! What is stored at the end is guarded by the connection's own revision.

use std::time::Duration;

use countersign_core::names::ConnectionId;
use countersign_core::ports::{
    Expect, Kind, RecordKey, Revision, StoreError, Write, load, put_until,
};
use countersign_core::preset::{Refresh, Rotation};
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::service::Oauth;

/// A lease row is swept away when it was not used for a day.
const KEPT: Duration = Duration::from_secs(86_400);
/// A holder that still runs, but whose lease ended so long ago, does not come
/// back.
const PATIENCE: Duration = Duration::from_secs(600);
/// One that seems to have ended is believed to after so many looks: it may have
/// lost the store for a moment.
const BELIEVED_AFTER: u32 = 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    holder: String,
    /// Rises with every holder.
    fence: u64,
    until: Timestamp,
    /// When the refresh token went out; nothing is known of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent_at: Option<Timestamp>,
}

/// A lease that is held.
pub(crate) struct Lease {
    key: RecordKey,
    revision: Revision,
    row: Row,
    lasts: Duration,
    /// Whether it is out of our hands: it went back together with the result,
    /// was lost, or stays as it is because the result was.
    pub(crate) is_over: bool,
}

/// Who has the lease.
pub(crate) enum Taken {
    /// We.
    Ours(Lease),
    /// Another.
    Busy,
    /// Nobody, and the refresh token may be used up: whoever sent it ended
    /// before the answer was stored. The write makes the lease free.
    Interrupted(Write),
}

impl Oauth {
    /// Takes the lease. `looks` counts how often in a row its holder seemed to
    /// have ended.
    pub(crate) async fn take_lease(
        &self,
        id: &ConnectionId,
        lasts: Duration,
        refresh: &Refresh,
        looks: &mut u32,
    ) -> Result<Taken, StoreError> {
        let key = RecordKey::new(Kind::Lease, id.as_str());
        let now = self.world.clock.now();
        let (expect, fence) = match load::<Row>(&*self.world.records, &key).await? {
            None => (Expect::Absent, 1),
            Some((row, revision)) => {
                let expect = Expect::At(revision);
                if row.until > now || row.sent_at.is_some() {
                    let ended = self.has_ended(&row, looks).await?;
                    let own = row.holder == self.holder;
                    let late = row.until <= now;
                    match row.sent_at {
                        None if late || own || ended => {}
                        None => return Ok(Taken::Busy),
                        Some(_) if !late && !ended => return Ok(Taken::Busy),
                        Some(sent) if may_send_twice(refresh, sent, now) => {}
                        Some(_) if own || ended || row.until.plus(PATIENCE) <= now => {
                            let free = self.free(&row);
                            let until = Some(now.plus(KEPT));
                            let write = put_until(key, expect, &free, until)?;
                            return Ok(Taken::Interrupted(write));
                        }
                        Some(_) => return Ok(Taken::Busy),
                    }
                }
                (expect, row.fence + 1)
            }
        };
        let row = Row {
            holder: self.holder.clone(),
            fence,
            until: now.plus(lasts),
            sent_at: None,
        };
        let write = put_until(key.clone(), expect, &row, Some(now.plus(KEPT)))?;
        match self.world.records.write(vec![write]).await {
            Ok(revisions) => Ok(revisions.first().map_or(Taken::Busy, |&revision| {
                Taken::Ours(Lease {
                    key,
                    revision,
                    row,
                    lasts,
                    is_over: false,
                })
            })),
            Err(StoreError::Conflict) => Ok(Taken::Busy),
            Err(error) => Err(error),
        }
    }

    async fn has_ended(&self, row: &Row, looks: &mut u32) -> Result<bool, StoreError> {
        if row.holder == self.holder {
            return Ok(false);
        }
        let process = row.holder.split('/').next().unwrap_or_default();
        if self.world.records.is_running(process).await? {
            *looks = 0;
            return Ok(false);
        }
        *looks += 1;
        // Before anything went out nothing can be lost by believing it.
        Ok(row.sent_at.is_none() || *looks >= BELIEVED_AFTER)
    }

    /// Writes down that the refresh token goes out now. False if the lease was
    /// lost: nothing may be sent.
    pub(crate) async fn about_to_send(&self, lease: &mut Lease) -> Result<bool, StoreError> {
        let now = self.world.clock.now();
        let row = Row {
            until: now.plus(lease.lasts),
            sent_at: Some(now),
            ..lease.row.clone()
        };
        let expect = Expect::At(lease.revision);
        let write = put_until(lease.key.clone(), expect, &row, Some(now.plus(KEPT)))?;
        match self.world.records.write(vec![write]).await {
            Ok(revisions) => {
                lease.revision = revisions.first().copied().unwrap_or(lease.revision);
                lease.row = row;
                Ok(true)
            }
            Err(StoreError::Conflict) => {
                lease.is_over = true;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn free(&self, row: &Row) -> Row {
        Row {
            until: self.world.clock.now(),
            sent_at: None,
            ..row.clone()
        }
    }

    /// The write that gives the lease back, to go with the result. The row
    /// stays, so that the fence goes on rising.
    pub(crate) fn end_of(&self, lease: &Lease) -> Result<Write, StoreError> {
        let until = Some(self.world.clock.now().plus(KEPT));
        let expect = Expect::At(lease.revision);
        put_until(lease.key.clone(), expect, &self.free(&lease.row), until)
    }

    /// Gives the lease back alone. If that fails it ends by itself.
    pub(crate) async fn give_back(&self, lease: &Lease) {
        if lease.is_over {
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

/// Whether the provider takes a refresh token again whose answer was lost.
fn may_send_twice(refresh: &Refresh, sent: Timestamp, now: Timestamp) -> bool {
    let grace = Duration::from_secs(refresh.grace_seconds.into());
    refresh.rotation == Rotation::Never
        || refresh.retry_after_lost_answer
        || now.since(sent) < grace
}
