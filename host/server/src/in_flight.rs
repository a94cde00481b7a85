//! How many calls are on their way, by the preset version that judged them.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_core::names::Digest;

/// Counts without a lock: a call holds a share of its version's counter. A
/// version that was ever used stays, at the price of its digest.
#[derive(Default)]
pub struct InFlight(ArcSwap<HashMap<Digest, Arc<()>>>);

/// Counts as one call until it is dropped.
pub struct OnVersion {
    _share: Arc<()>,
}

impl InFlight {
    /// A call begins to be judged by this version.
    pub fn begin(&self, digest: Digest) -> OnVersion {
        if let Some(counter) = self.0.load().get(&digest) {
            return OnVersion {
                _share: Arc::clone(counter),
            };
        }
        self.0.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.entry(digest).or_default();
            all
        });
        let counter = self.0.load().get(&digest).map(Arc::clone);
        OnVersion {
            _share: counter.unwrap_or_default(),
        }
    }

    /// Calls that have begun on it and not ended.
    #[must_use]
    pub fn on(&self, digest: &Digest) -> usize {
        let all = self.0.load();
        // One share is the map's own.
        all.get(digest)
            .map_or(0, |counter| Arc::strong_count(counter).saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_for_its_version_until_it_ends() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let in_flight = InFlight::default();
        assert_eq!(in_flight.on(&old), 0);
        let first = in_flight.begin(old);
        let second = in_flight.begin(old);
        let other = in_flight.begin(new);
        assert_eq!((in_flight.on(&old), in_flight.on(&new)), (2, 1));
        drop(first);
        assert_eq!(in_flight.on(&old), 1);
        drop((second, other));
        assert_eq!((in_flight.on(&old), in_flight.on(&new)), (0, 0));
    }
}
