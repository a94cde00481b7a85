//! Looking after one connection.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::connection::{Connection, State};
use countersign_core::ports::StoreError;
use countersign_core::preset::Refresh;
use countersign_core::time::Timestamp;
use countersign_core::upkeep::{back_off, chores};

use super::{Appointment, Taken, Work};
use crate::observe::Occasion;
use crate::refresh::errand;
use crate::service::{Oauth, Party};

/// The first and the longest rest of a connection that cannot be renewed while
/// others of its provider can.
const LEAST: Duration = Duration::from_secs(60);
const MOST: Duration = Duration::from_secs(6 * 3600);

impl Oauth {
    pub(super) async fn tend(
        self: &Arc<Self>,
        party: Option<Party>,
        taken: Taken,
        appointment: &Appointment,
    ) -> Result<(), StoreError> {
        let Some(held) = self.load(&appointment.key).await? else {
            return self.remove(&taken).await;
        };
        let connection = Arc::clone(&held.connection);
        if connection.id != appointment.id || connection.state != State::Connected {
            return self.remove(&taken).await;
        }
        // A disabled provider is sent nothing.
        let Some(party) = party.filter(|p| p.provider.enabled) else {
            return self.much_later(taken).await;
        };
        let refresh = &party.preset.description().refresh;
        let now = self.world.clock.now();
        let found = chores(&connection, refresh, &self.care, now, self.jitter());
        let mut failed = false;
        for credential in &found.renew {
            let errand = errand(&held, &party, Some(credential), Occasion::Background);
            let Ok(errand) = errand else { continue };
            let flight = (connection.id.clone(), credential.clone());
            failed |= self.fly(&flight, errand).await.is_err();
        }
        if let Some(end) = found.warn {
            self.warn(&connection, end, refresh).await?;
        }
        if failed {
            return self.after_failure(taken, appointment).await;
        }
        if !found.renew.is_empty() || found.warn.is_some() {
            // The next appointment was made with the change.
            return Ok(());
        }
        match found.next {
            Some(at) => self.move_one(taken, at).await.map(drop),
            None => self.remove(&taken).await,
        }
    }

    /// Comes back later, and later each time; what ended has no appointment any
    /// more and stays as it is.
    async fn after_failure(
        &self,
        mut taken: Taken,
        appointment: &Appointment,
    ) -> Result<(), StoreError> {
        let now = self.world.clock.now();
        let failures = appointment.failures.saturating_add(1);
        taken.work = Work::Connection(Appointment {
            failures,
            ..appointment.clone()
        });
        let own = now.plus(back_off(failures, LEAST, MOST, self.jitter()));
        let rests = self.health.rests(&appointment.key.provider, now);
        let at = rests.map_or(own, |until| own.max(until.plus(self.jitter().of(LEAST))));
        self.move_one(taken, at).await.map(drop)
    }

    /// Tells that a connection will end, once for each end.
    async fn warn(
        &self,
        connection: &Connection,
        end: Timestamp,
        refresh: &Refresh,
    ) -> Result<(), StoreError> {
        let is_news = |c: &Connection| {
            c.id == connection.id && c.state == State::Connected && c.warned_of != Some(end)
        };
        let note = |c: &mut Connection| c.warned_of = Some(end);
        let changed = self
            .change(&connection.key(), is_news, note, |c| {
                self.appointment(c, refresh)
            })
            .await?;
        if !changed {
            return Ok(());
        }
        self.observer.warned(&connection.provider);
        let mut event = AuditEvent::new(
            self.world.clock.now(),
            "connection.ends_soon",
            Outcome::Pending,
        )
        .by(&connection.user)
        .on(format!("provider:{}", connection.provider))
        .detail(format!(
            "the access ends at {end} and cannot be prolonged: connect again before"
        ));
        event.team = Some(connection.team.to_string());
        if let Err(error) = self.world.audit.record(event).await {
            tracing::error!(%error, "an audit event was not kept");
        }
        Ok(())
    }
}
