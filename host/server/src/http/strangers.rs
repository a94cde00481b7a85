//! What callers whom nobody knows send: on record, but never so much of it
//! that it fills the log.
//!
//! A caller who is known leaves an event for each request that is refused
//! (`call.refused`): he can be told, or put out. A stranger
//! leaves one at the first request that is refused for this reason, and one
//! more at the end of the minute that counts the others. The addresses told
//! apart are bounded too: the rest are counted together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::ports::AuditSink;
use countersign_core::time::Timestamp;
use countersign_identity::neighbourhood;

/// Pairs of reason and address told apart between two calls of
/// [`Strangers::tell`].
const MOST: usize = 64;
/// The action of the events.
const ACTION: &str = "request.refused";

/// Counts what is refused to whom nobody knows.
#[derive(Default)]
pub struct Strangers(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// Further ones after the first, which had an event of its own.
    further: HashMap<(&'static str, IpAddr), u64>,
    /// From addresses beyond [`MOST`].
    others: HashMap<&'static str, u64>,
}

impl Strangers {
    /// A request was refused for this reason. `resource` is what it was for.
    pub fn refused(
        &self,
        audit: &dyn AuditSink,
        now: Timestamp,
        reason: &'static str,
        address: IpAddr,
        resource: String,
    ) {
        let place = neighbourhood(address);
        {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(further) = counts.further.get_mut(&(reason, place)) {
                *further += 1;
                return;
            }
            if counts.further.len() >= MOST {
                *counts.others.entry(reason).or_default() += 1;
                return;
            }
            counts.further.insert((reason, place), 0);
        }
        tracing::info!(reason, %address, on = resource, "a request was refused");
        let event = AuditEvent::new(now, ACTION, Outcome::Denied)
            .on(resource)
            .from_address(address)
            .detail(reason);
        audit.enqueue(event);
    }

    /// Tells what was counted, and begins anew: once a minute, and at the end.
    pub fn tell(&self, audit: &dyn AuditSink, now: Timestamp) {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let event = |detail: String| AuditEvent::new(now, ACTION, Outcome::Denied).detail(detail);
        for ((reason, address), further) in counts.further {
            if further > 0 {
                tracing::info!(reason, %address, further, "more requests were refused");
                audit.enqueue(event(format!("{reason}: {further} more")).from_address(address));
            }
        }
        for (reason, count) in counts.others {
            tracing::info!(reason, count, "requests from many addresses were refused");
            audit.enqueue(event(format!("{reason}: {count} from other addresses")));
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::ports::{BoxFuture, StoreError};

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<AuditEvent>>);

    impl AuditSink for Kept {
        fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<(), StoreError>> {
            self.enqueue(event);
            Box::pin(async { Ok(()) })
        }
        fn enqueue(&self, event: AuditEvent) {
            self.0.lock().unwrap().push(event);
        }
    }

    #[test]
    fn a_flood_of_strangers_requests_leaves_few_events_and_loses_no_count() {
        let (strangers, kept) = (Strangers::default(), Kept::default());
        let now = Timestamp::from_secs(1);
        for n in (0..200_u8).cycle().take(100_000) {
            let address = IpAddr::from([10, 0, n, 1]);
            strangers.refused(&kept, now, "invalid_token", address, "server:notes".into());
        }
        assert_eq!(kept.0.lock().unwrap().len(), MOST);
        strangers.tell(&kept, now);
        let events = std::mem::take(&mut *kept.0.lock().unwrap());
        assert_eq!(events.len(), 2 * MOST + 1);
        let number = |event: &AuditEvent| -> u64 {
            let detail = event.detail.as_deref().unwrap();
            let counted = detail
                .split(' ')
                .filter_map(|word| word.parse::<u64>().ok())
                .next();
            counted.unwrap_or(1)
        };
        assert_eq!(events.iter().map(number).sum::<u64>(), 100_000);
        // A new minute tells of the same address again.
        strangers.refused(
            &kept,
            now,
            "invalid_token",
            [10, 0, 0, 1].into(),
            "api".into(),
        );
        strangers.tell(&kept, now);
        assert_eq!(kept.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn one_with_a_network_of_his_own_is_one_stranger() {
        let (strangers, kept) = (Strangers::default(), Kept::default());
        for n in 0..50_u16 {
            let address = IpAddr::from([0x2001, 0xdb8, 1, 2, n, 0, 0, 1]);
            let now = Timestamp::from_secs(1);
            strangers.refused(&kept, now, "wrong_host", address, "host".into());
        }
        assert_eq!(kept.0.lock().unwrap().len(), 1);
    }
}
