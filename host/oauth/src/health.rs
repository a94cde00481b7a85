//! How each provider has been doing: when it may be asked again, and how many
//! renewals are under way there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_core::names::ProviderName;
use countersign_core::time::Timestamp;
use countersign_core::upkeep::{Jitter, back_off};
use tokio::sync::Semaphore;

use crate::service::lock;

/// The first and the longest rest of a provider that fails.
const LEAST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(15 * 60);
/// Whatever a provider says in `Retry-After`, calls try again after this time.
const LONGEST_WORD: Duration = Duration::from_secs(5 * 60);
/// Calls wait in front of a provider, too, but that there may be more of them
/// at once.
const CALLS_PER_BACKGROUND: usize = 4;

/// What a request to a provider came to, as far as its health goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// It answered as it should, be it with a refusal of this one grant.
    Well,
    /// It fails, or refuses everybody (the client).
    Ill {
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
}

#[derive(Default)]
struct State {
    failures: u32,
    /// The background leaves it alone until then.
    rests_until: Option<Timestamp>,
    /// It asked everybody to leave it alone until then (RFC 9110 §10.2.3).
    told_until: Option<Timestamp>,
    gate: Option<Arc<Semaphore>>,
}

/// One entry for each provider that was asked for something.
pub(crate) struct Health {
    places: usize,
    states: Mutex<HashMap<ProviderName, State>>,
}

impl Health {
    pub(crate) fn new(concurrency: usize) -> Self {
        Self {
            places: concurrency.max(1) * CALLS_PER_BACKGROUND,
            states: Mutex::default(),
        }
    }

    /// Until when the background leaves the provider alone, if it does.
    pub(crate) fn rests(&self, provider: &ProviderName, now: Timestamp) -> Option<Timestamp> {
        let states = lock(&self.states);
        let state = states.get(provider)?;
        state.rests_until.max(state.told_until).filter(|t| *t > now)
    }

    /// Until when nobody asks it, on its own word.
    pub(crate) fn told(&self, provider: &ProviderName, now: Timestamp) -> Option<Timestamp> {
        let states = lock(&self.states);
        states.get(provider)?.told_until.filter(|t| *t > now)
    }

    pub(crate) fn note(&self, provider: &ProviderName, word: Word, now: Timestamp, jitter: Jitter) {
        let mut states = lock(&self.states);
        let state = states.entry(provider.clone()).or_default();
        match word {
            Word::Well => {
                state.failures = 0;
                (state.rests_until, state.told_until) = (None, None);
            }
            Word::Ill { retry_after } => {
                state.failures = state.failures.saturating_add(1);
                let rest = back_off(state.failures, LEAST, MOST, jitter);
                state.rests_until = Some(now.plus(rest.max(retry_after.unwrap_or_default())));
                state.told_until = retry_after.map(|wait| now.plus(wait.min(LONGEST_WORD)));
            }
        }
    }

    /// Where requests to the provider queue.
    pub(crate) fn gate(&self, provider: &ProviderName) -> Arc<Semaphore> {
        let mut states = lock(&self.states);
        let state = states.entry(provider.clone()).or_default();
        let gate = state
            .gate
            .get_or_insert_with(|| Arc::new(Semaphore::new(self.places)));
        Arc::clone(gate)
    }

    /// How many providers are being left alone.
    pub(crate) fn resting(&self, now: Timestamp) -> usize {
        let states = lock(&self.states);
        let rests = |s: &&State| s.rests_until.max(s.told_until).is_some_and(|t| t > now);
        states.values().filter(rests).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_that_fails_is_left_alone_for_longer_each_time_until_it_answers() {
        let health = Health::new(2);
        let provider = ProviderName::parse("notes").unwrap();
        let now = Timestamp::from_secs(1000);
        let ill = |retry_after| {
            health.note(&provider, Word::Ill { retry_after }, now, Jitter(128));
            let rests = health.rests(&provider, now).map(|t| t.since(now).as_secs());
            (
                rests,
                health.told(&provider, now).map(|t| t.since(now).as_secs()),
            )
        };
        assert_eq!(health.rests(&provider, now), None);
        assert_eq!(ill(None), (Some(10), None));
        assert_eq!(ill(None), (Some(20), None));
        let said = Some(Duration::from_secs(120));
        assert_eq!(ill(said), (Some(120), Some(120)));
        // A word of a year is believed for the background alone.
        let year = Some(Duration::from_secs(31_536_000));
        assert_eq!(ill(year), (Some(31_536_000), Some(300)));
        assert_eq!(health.resting(now), 1);
        health.note(&provider, Word::Well, now, Jitter(0));
        assert_eq!(health.rests(&provider, now), None);
        assert_eq!(health.resting(now), 0);
    }
}
