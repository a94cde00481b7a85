//! Verified tokens, for a few seconds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use countersign_core::time::Timestamp;

use crate::authenticate::Verified;

const CAPACITY: usize = 16_384;

/// Keyed by token fingerprint. Every revocation and every change of a user, team
/// or role in this process starts a new generation, which voids all entries at
/// once, also those that are being loaded meanwhile.
pub(crate) struct Cache {
    keep: Duration,
    generation: AtomicU64,
    entries: RwLock<HashMap<[u8; 32], Entry>>,
}

struct Entry {
    generation: u64,
    until: Timestamp,
    verified: Arc<Verified>,
}

/// Taken before loading from the store; an entry made from what was loaded is
/// only good if nothing was revoked since.
#[derive(Clone, Copy)]
pub(crate) struct Generation(u64);

impl Cache {
    pub(crate) fn new(keep: Duration) -> Self {
        Self {
            keep,
            generation: AtomicU64::new(0),
            entries: RwLock::default(),
        }
    }

    pub(crate) fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Acquire))
    }

    /// To be called after a revoking write is durable.
    pub(crate) fn void(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn find(&self, fingerprint: &[u8; 32], now: Timestamp) -> Option<Arc<Verified>> {
        let generation = self.generation().0;
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(fingerprint)?;
        (entry.generation == generation && now < entry.until).then(|| entry.verified.clone())
    }

    pub(crate) fn keep(
        &self,
        fingerprint: [u8; 32],
        seen: Generation,
        now: Timestamp,
        verified: Arc<Verified>,
    ) {
        let until = now.plus(self.keep).min(verified.expires_at);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= CAPACITY {
            let generation = self.generation().0;
            entries.retain(|_, e| e.generation == generation && now < e.until);
            if entries.len() >= CAPACITY {
                entries.clear();
            }
        }
        entries.insert(
            fingerprint,
            Entry {
                generation: seen.0,
                until,
                verified,
            },
        );
    }
}
