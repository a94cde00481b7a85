//! Names for calls: unique, cheap, and no secret.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use countersign_core::names::CallId;
use countersign_core::ports::{Random, random_bytes};

/// Gives each call its id: eight random bytes of this process, and a count.
/// Nothing rests on an id being hard to guess.
pub(crate) struct CallIds {
    process: [u8; 8],
    next: AtomicU64,
}

impl CallIds {
    /// Begins a series of its own.
    #[must_use]
    pub(crate) fn new(random: &dyn Random) -> Self {
        Self {
            process: random_bytes(random),
            next: AtomicU64::new(1),
        }
    }

    pub(crate) fn next(&self) -> CallId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.process);
        bytes[8..].copy_from_slice(&count.to_be_bytes());
        let mut id = String::with_capacity(27);
        id.push_str("call_");
        BASE64_URL_SAFE_NO_PAD.encode_string(bytes, &mut id);
        CallId::parse(&id).unwrap_or_else(|_| unreachable!("base64url is visible ASCII"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use countersign_core::ports::fakes::CountingRandom;

    use super::*;

    #[test]
    fn no_two_calls_have_the_same_id_also_across_restarts() {
        let random = CountingRandom::default();
        let (one, two) = (CallIds::new(&random), CallIds::new(&random));
        let ids: HashSet<String> = (0..1000)
            .flat_map(|_| [one.next().to_string(), two.next().to_string()])
            .collect();
        assert_eq!(ids.len(), 2000);
    }
}
