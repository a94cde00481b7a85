//! Slows guessing down: per user and per client address, in memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use countersign_core::time::Timestamp;

/// Entries kept; beyond it those that are over are dropped, then the oldest.
const CAPACITY: usize = 10_000;
/// Without a failure for this long, everything is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// How many tries are free, and how long the waits get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Tries without a wait.
    pub(crate) free: u32,
    /// The longest wait; the first is one second, each next doubles.
    pub(crate) longest: Duration,
}

/// For one user's name: guessing his password.
pub(crate) const PER_USER: Limits = Limits {
    free: 5,
    longest: Duration::from_secs(300),
};
/// For one address: guessing many users' passwords; people behind one address
/// share it.
pub(crate) const PER_ADDRESS: Limits = Limits {
    free: 20,
    longest: Duration::from_secs(900),
};
/// Registrations of agents from one address.
pub(crate) const REGISTRATIONS: Limits = Limits {
    free: 60,
    longest: Duration::from_secs(900),
};

/// Sign-ins by a code that are begun from one address.
pub(crate) const DEVICES: Limits = Limits {
    free: 20,
    longest: Duration::from_secs(900),
};
/// Wrong codes that one user types.
pub(crate) const USER_CODES: Limits = Limits {
    free: 10,
    longest: Duration::from_secs(300),
};

#[derive(Debug, Clone, Copy)]
struct Entry {
    tries: u32,
    last: Timestamp,
    open_at: Timestamp,
    /// Whether somebody was told of the wait.
    told: bool,
}

/// Counts tries by key.
pub(crate) struct Throttle<K> {
    limits: Limits,
    entries: Mutex<HashMap<K, Entry>>,
}

impl<K: Hash + Eq + Clone> Throttle<K> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: Mutex::new(HashMap::new()),
        }
    }

    /// Counts a try before it is made, so that parallel tries count as well.
    ///
    /// # Errors
    /// How long to wait first; a refused try does not lengthen the wait.
    pub(crate) fn begin(&self, key: &K, now: Timestamp) -> Result<(), Duration> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= CAPACITY && !entries.contains_key(key) {
            make_room(&mut entries, now);
        }
        let fresh = Entry {
            tries: 0,
            last: now,
            open_at: now,
            told: false,
        };
        let entry = entries.entry(key.clone()).or_insert(fresh);
        if now.since(entry.last) >= FORGET_AFTER {
            *entry = fresh;
        }
        if entry.open_at > now {
            return Err(entry.open_at.since(now));
        }
        entry.tries = entry.tries.saturating_add(1);
        entry.last = now;
        entry.told = false;
        if let Some(over) = entry.tries.checked_sub(self.limits.free) {
            let wait = Duration::from_secs(1_u64 << over.min(20));
            entry.open_at = now.plus(wait.min(self.limits.longest));
        }
        Ok(())
    }

    /// Whether this is the first refusal of the present wait: worth an audit
    /// event, while the flood that may follow is not.
    pub(crate) fn is_first_refusal(&self, key: &K) -> bool {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .get_mut(key)
            .is_some_and(|entry| !std::mem::replace(&mut entry.told, true))
    }

    /// The try was good: it does not count, its forerunners still do.
    pub(crate) fn take_back(&self, key: &K, now: Timestamp) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(key) {
            entry.tries = entry.tries.saturating_sub(1);
            entry.open_at = now;
        }
    }

    /// The try was good: it and its forerunners are forgotten.
    pub(crate) fn forget(&self, key: &K) {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

fn make_room<K: Hash + Eq + Clone>(entries: &mut HashMap<K, Entry>, now: Timestamp) {
    entries.retain(|_, e| now.since(e.last) < FORGET_AFTER);
    if entries.len() >= CAPACITY {
        let oldest = entries
            .iter()
            .min_by_key(|(_, e)| e.last)
            .map(|(k, _)| k.clone());
        if let Some(oldest) = oldest {
            entries.remove(&oldest);
        }
    }
}

/// Addresses that one person has at will are one: the /64 of IPv6.
#[must_use]
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let throttle = Throttle::new(PER_USER);
        let mut now = Timestamp::from_secs(1_000);
        for _ in 0..5 {
            assert_eq!(throttle.begin(&"alice", now), Ok(()));
        }
        let mut waits = Vec::new();
        for _ in 0..12 {
            let wait = throttle.begin(&"alice", now).unwrap_err();
            waits.push(wait.as_secs());
            now = now.plus(wait);
            assert_eq!(throttle.begin(&"alice", now), Ok(()));
        }
        assert_eq!(waits[..4], [1, 2, 4, 8]);
        assert_eq!(waits[11], 300);
        assert_eq!(throttle.begin(&"bob", now), Ok(()));
        throttle.forget(&"alice");
        assert_eq!(throttle.begin(&"alice", now), Ok(()));
    }

    #[test]
    fn a_good_try_neither_counts_nor_makes_the_bad_ones_good() {
        let throttle = Throttle::new(PER_USER);
        let now = Timestamp::from_secs(1_000);
        for _ in 0..100 {
            assert_eq!(throttle.begin(&"office", now), Ok(()));
            throttle.take_back(&"office", now);
        }
        for _ in 0..4 {
            assert_eq!(throttle.begin(&"office", now), Ok(()));
        }
        assert_eq!(throttle.begin(&"office", now), Ok(()));
        throttle.take_back(&"office", now);
        assert_eq!(throttle.begin(&"office", now), Ok(()));
        assert_eq!(throttle.begin(&"office", now), Err(Duration::from_secs(1)));
    }

    #[test]
    fn a_flood_of_refused_tries_is_told_once_for_each_wait() {
        let throttle = Throttle::new(PER_USER);
        let mut now = Timestamp::from_secs(1_000);
        for _ in 0..5 {
            assert_eq!(throttle.begin(&"alice", now), Ok(()));
        }
        for _ in 0..3 {
            let wait = throttle.begin(&"alice", now).unwrap_err();
            let told = (0..50).filter(|_| throttle.is_first_refusal(&"alice"));
            assert_eq!(told.count(), 1);
            now = now.plus(wait);
            assert_eq!(throttle.begin(&"alice", now), Ok(()));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::new(PER_USER);
        for n in 0..CAPACITY + 50 {
            let at = Timestamp::from_millis(i64::try_from(n).unwrap());
            assert_eq!(throttle.begin(&n, at), Ok(()));
        }
        assert!(throttle.entries.lock().unwrap().len() <= CAPACITY);
    }

    #[test]
    fn an_ipv6_subscriber_is_one_address() {
        let a: IpAddr = "2001:db8:1:2:aaaa::1".parse().unwrap();
        let b: IpAddr = "2001:db8:1:2:bbbb::2".parse().unwrap();
        assert_eq!(neighbourhood(a), neighbourhood(b));
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(
            neighbourhood(mapped),
            "192.0.2.1".parse::<IpAddr>().unwrap()
        );
    }
}
