//! Going over to another key-encryption key while the vault is in use.
//!
//! 1. The new key is announced in the key check record, so that whoever shares
//!    the store fetches it.
//! 2. It is promoted: everything written from now on is sealed with it.
//! 3. Every data key that another key wraps is unwrapped and wrapped anew, some
//!    records at a time, by compare-and-set like any other write. Revisions
//!    stay as they are, so nobody who works on a record is disturbed.
//! 4. When a whole pass finds nothing left, the other keys are retired from the
//!    key check record: the store opens without them.
//!
//! Each step is durable and may be taken again; after a crash [`Vault::rotate`]
//! goes on where it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::ports::StoreError;

use super::check::{self, Step};
use super::commit::Job;
use super::{PAGE, Vault};
use crate::keys::{KekId, KeyRing};
use crate::layout::Body;
use crate::seal::Keys;

/// Records wrapped in one write; others' writes get in between.
const BATCH: usize = 64;
/// How often all records are gone through before giving up on those that do
/// not change.
const PASSES: usize = 4;
/// How long whoever shares the store has for noticing a step.
const GRACE: Duration = Duration::from_secs(3);

/// One key, and what it is used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// Which.
    pub id: KekId,
    /// Where the configuration has it from, in words; `None`: it has it not.
    pub source: Option<String>,
    /// The configuration's current key.
    pub is_current: bool,
    /// Everything new is sealed with it.
    pub seals: bool,
    /// It wraps the root key: the store demands it at start.
    pub wraps_root: bool,
    /// Records whose data key it wraps.
    pub records: u64,
    /// Of these, damaged ones, which cannot be wrapped anew.
    pub damaged: u64,
}

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Records that were wrapped anew.
    pub done: u64,
    /// Records that had to be.
    pub total: u64,
}

/// How a rotation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// Records that were wrapped anew.
    pub records: u64,
    /// Whether the other keys are in use no more.
    pub is_complete: bool,
    /// Damaged records that still name another key.
    pub damaged: u64,
}

/// Why a rotation could not go on. It can be begun again at any time.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// A key in use was not given.
    #[error(
        "the store still uses key {needed}, which [keys] does not give: add its source to [keys] \
         old and try again"
    )]
    MissingKey {
        /// Ids.
        needed: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Vault {
    /// The keys that are configured or in use. Reads the whole store.
    ///
    /// # Errors
    /// The store's.
    pub async fn key_uses(&self) -> Result<Vec<KeyUse>, StoreError> {
        let Keys { ring, .. } = self.shared.sealer.keys();
        let check = check::read(&*self.shared.store, &ring).await?;
        let mut counts = self.count_keys().await?;
        let mut ids: Vec<KekId> = ring.ids().map(|(id, _)| id).collect();
        ids.extend(check.ids());
        ids.extend(counts.keys());
        let mut uses: Vec<KeyUse> = Vec::new();
        for id in ids {
            if uses.iter().any(|known| known.id == id) {
                continue;
            }
            let (records, damaged) = counts.remove(&id).unwrap_or_default();
            let source = ring.ids().find(|(each, _)| *each == id);
            uses.push(KeyUse {
                id,
                source: source.map(|(_, from)| from.to_owned()),
                is_current: id == ring.current_id(),
                seals: check.sealing() == Some(id),
                wraps_root: check.ids().any(|each| each == id),
                records,
                damaged,
            });
        }
        Ok(uses)
    }

    /// Whether the store names keys, or a sealing key, that this vault does not
    /// go by yet: another replica rotates. A single read.
    ///
    /// # Errors
    /// The store's.
    pub async fn keys_have_changed(&self) -> Result<bool, StoreError> {
        let Keys { ring, sealing } = self.shared.sealer.keys();
        let check = check::read(&*self.shared.store, &ring).await?;
        let unknown = check.ids().any(|id| ring.find(id).is_none());
        Ok(unknown || check.sealing() != Some(sealing.id))
    }

    /// Whether a rotation to the configured key was begun and has not ended.
    ///
    /// # Errors
    /// The store's.
    pub async fn rotation_is_unfinished(&self) -> Result<bool, StoreError> {
        let Keys { ring, .. } = self.shared.sealer.keys();
        let check = check::read(&*self.shared.store, &ring).await?;
        let announced = check.ids().any(|id| id == ring.current_id());
        Ok(announced && check.ids().count() > 1)
    }

    /// Goes by these keys from now on, and by what the store says of them.
    ///
    /// # Errors
    /// [`RotateError::MissingKey`] if one in use is not among them; nothing is
    /// changed then.
    pub async fn adopt(&self, ring: KeyRing) -> Result<(), RotateError> {
        let check = check::read(&*self.shared.store, &ring).await?;
        let absent: Vec<KekId> = check.ids().filter(|id| ring.find(*id).is_none()).collect();
        let sealing = check.sealing().and_then(|id| ring.find(id)).cloned();
        match sealing {
            Some(sealing) if absent.is_empty() => {
                self.shared.sealer.set_keys(Keys { ring, sealing });
                Ok(())
            }
            _ => Err(RotateError::MissingKey {
                needed: check::in_words(absent),
            }),
        }
    }

    /// Goes over to the ring's current key. Callers may read and write
    /// meanwhile; a second rotation at the same time does no harm.
    ///
    /// # Errors
    /// [`RotateError`].
    pub async fn rotate(
        &self,
        ring: KeyRing,
        tell: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Rotated, RotateError> {
        self.adopt(ring.clone()).await?;
        let new = ring.current();
        let (store, sealer) = (&*self.shared.store, &self.shared.sealer);
        let keys = (&ring, &sealer.root);
        let random = sealer.random();
        let before = check::read(store, &ring).await?;
        if before.sealing() != Some(new.id) {
            check::step(store, keys, random, Step::Announce(new)).await?;
            self.give_notice().await;
            check::step(store, keys, random, Step::Promote(new.id)).await?;
        }
        sealer.set_keys(Keys {
            ring: ring.clone(),
            sealing: Arc::clone(new),
        });
        if before.sealing() != Some(new.id) {
            self.give_notice().await;
        }
        let mut progress = Progress::default();
        let (mut left, mut damaged) = self.count_others(new.id).await?;
        progress.total = left;
        tell(progress);
        for _ in 0..PASSES {
            if left == 0 {
                break;
            }
            self.rewrap_all(new.id, &mut progress, tell).await?;
            (left, damaged) = self.count_others(new.id).await?;
        }
        let is_complete = left == 0 && damaged == 0;
        if is_complete {
            check::step(store, keys, random, Step::RetireOthers(new.id)).await?;
        }
        Ok(Rotated {
            records: progress.done,
            is_complete,
            damaged,
        })
    }

    /// Nobody has to be waited for where nobody shares the store.
    async fn give_notice(&self) {
        if self.shared.store.process().is_some() {
            tokio::time::sleep(GRACE).await;
        }
    }

    async fn rewrap_all(
        &self,
        new: KekId,
        progress: &mut Progress,
        tell: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), StoreError> {
        let mut from = Some(Vec::new());
        while let Some(at) = from {
            let page = self.shared.store.scan(&[], &at, PAGE).await?;
            let old: Vec<Vec<u8>> = page
                .rows
                .into_iter()
                .filter(|(place, row)| super::open::is_record(place) && wrapped_by_other(row, new))
                .map(|(place, _)| place)
                .collect();
            for places in old.chunks(BATCH) {
                let places = places.to_vec();
                let done = self.submit(|done| Job::Rewrap { places, done }).await?;
                progress.done += done as u64;
                progress.total = progress.total.max(progress.done);
                tell(*progress);
            }
            from = page.next;
        }
        Ok(())
    }

    /// Records that another key wraps: sound ones, damaged ones.
    async fn count_others(&self, new: KekId) -> Result<(u64, u64), StoreError> {
        let counts = self.count_keys().await?;
        let others = counts.iter().filter(|(id, _)| **id != new);
        Ok(
            others.fold((0, 0), |(sound, bad), (_, (records, damaged))| {
                (sound + records - damaged, bad + damaged)
            }),
        )
    }

    /// Records by the key that wraps their data key, and how many of them are
    /// damaged.
    async fn count_keys(&self) -> Result<BTreeMap<KekId, (u64, u64)>, StoreError> {
        let mut counts: BTreeMap<KekId, (u64, u64)> = BTreeMap::new();
        let mut from = Some(Vec::new());
        while let Some(at) = from {
            let page = self.shared.store.scan(&[], &at, PAGE).await?;
            for (place, row) in &page.rows {
                if !super::open::is_record(place) {
                    continue;
                }
                let Ok(body) = Body::parse(&row.body) else {
                    continue;
                };
                if !body.wrapped.is_empty() {
                    let count = counts.entry(body.kek).or_default();
                    count.0 += 1;
                    count.1 += u64::from(self.shared.is_damaged(place));
                }
            }
            from = page.next;
        }
        Ok(counts)
    }
}

fn wrapped_by_other(row: &crate::store::Row, new: KekId) -> bool {
    Body::parse(&row.body).is_ok_and(|body| !body.wrapped.is_empty() && body.kek != new)
}
