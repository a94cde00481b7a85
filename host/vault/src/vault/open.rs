//! From a store and a key to a vault: key check, verification, head.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use countersign_core::ports::{Random, StoreError, random_token};
use tokio::task::{JoinError, JoinSet};

use super::{OpenOptions, Shared, check};
use crate::damage::{self, Damage};
use crate::error::OpenError;
use crate::head::{HEAD_KEY, Head};
use crate::keys::{KekId, KeyRing};
use crate::seal::{Broken, Keys, Sealer};
use crate::store::{Op, Row, Store};

/// What lies here was damaged and then written over.
pub(crate) const SET_ASIDE: u8 = 0xFE;
/// Is there while a restore is under way.
pub(crate) const RESTORING: &[u8] = b"\0restoring";
/// Records lie between these first bytes.
const RECORDS: std::ops::RangeInclusive<u8> = 1..=0xFC;
/// Rows that are read and verified at a time.
const VERIFIED: usize = 2048;

/// Whether a record lies under this key, not something of the vault's own.
pub(crate) fn is_record(key: &[u8]) -> bool {
    key.first().is_some_and(|b| RECORDS.contains(b))
}

pub(super) async fn open(
    store: Arc<dyn Store>,
    ring: KeyRing,
    random: Arc<dyn Random>,
    options: OpenOptions,
) -> Result<Shared, OpenError> {
    if store.get(RESTORING).await?.is_some() {
        return Err(OpenError::RestoreUnfinished);
    }
    let (root, check) = match check::root_key(&*store, &ring).await? {
        Some(found) => found,
        None => check::create(&*store, &ring, &*random).await?,
    };
    let process = store
        .process()
        .unwrap_or_else(|| random_token::<16>(&*random));
    // `root_key` has made sure that the ring has it.
    let sealing = check.sealing().and_then(|id| ring.find(id)).cloned();
    let sealing = sealing.unwrap_or_else(|| Arc::clone(ring.current()));
    if sealing.id != ring.current_id() {
        tracing::warn!(
            sealing = %sealing.id,
            current = %ring.current_id(),
            "the store is still sealed with an older key; `countersign key rotate` goes over to the current one"
        );
    }
    let sealer = Arc::new(Sealer::new(root, Keys { ring, sealing }, random));
    let (damaged, other) = verify(&*store, &sealer, options).await?;
    for found in damaged.values().chain(&other) {
        tracing::error!("{found}");
    }
    Ok(Shared {
        store,
        process,
        sealer,
        damaged: RwLock::new(damaged),
        other,
    })
}

type Found = (BTreeMap<Vec<u8>, Damage>, Vec<Damage>);

/// What was found in some rows.
#[derive(Default)]
struct Judged {
    /// What they add up to.
    head: Head,
    /// Which do not open.
    damaged: Vec<(Vec<u8>, Damage)>,
    /// Keys that they need and the ring has not.
    needed: Vec<KekId>,
}

fn judge(sealer: &Sealer, rows: &[(Vec<u8>, Row)]) -> Judged {
    let mut judged = Judged::default();
    for (place, row) in rows.iter().filter(|(place, _)| is_record(place)) {
        judged.head.add(&sealer.head, place, row);
        match sealer.verify(place, row) {
            Ok(()) => {}
            Err(Broken::NoKey(id)) => judged.needed.push(id),
            Err(cause) => {
                let found = damage::record(place, cause);
                judged.damaged.push((place.clone(), found));
            }
        }
    }
    judged
}

async fn verify(
    store: &dyn Store,
    sealer: &Arc<Sealer>,
    options: OpenOptions,
) -> Result<Found, OpenError> {
    let key = &sealer.head;
    // One moment's rows: other hosts may be writing.
    let view = store.view().await?;
    let stored = view.scan(HEAD_KEY, HEAD_KEY, 1).await?;
    let stored = stored.rows.into_iter().find(|(key, _)| *key == HEAD_KEY);
    let stored = stored.map(|(_, row)| row);
    let told = stored.as_ref().and_then(|row| Head::open(key, row).ok());
    let (mut damaged, mut other) = (BTreeMap::new(), Vec::new());
    let mut counted = Head::default();
    let mut needed = Vec::new();
    let most = 2 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut judging = JoinSet::new();
    let mut from = Some(vec![*RECORDS.start()]);
    // One page is read while others are looked at.
    while from.is_some() || !judging.is_empty() {
        if let Some(at) = from.take() {
            let page = view.scan(&[], &at, VERIFIED).await?;
            other.extend(page.holes.into_iter().map(|cause| Damage::Hole { cause }));
            from = page.next;
            let sealer = Arc::clone(sealer);
            judging.spawn_blocking(move || judge(&sealer, &page.rows));
        }
        if (from.is_none() || judging.len() >= most)
            && let Some(judged) = judging.join_next().await
        {
            let interrupted = |e: JoinError| StoreError::Failed(format!("verifying: {e}"));
            let judged = judged.map_err(interrupted)?;
            counted.merge(judged.head);
            damaged.extend(judged.damaged);
            needed.extend(judged.needed);
        }
    }
    drop(view);
    if !needed.is_empty() {
        return Err(OpenError::MissingKey {
            needed: check::in_words(needed),
        });
    }
    if told == Some(counted) {
        return Ok((damaged, other));
    }
    let detail = match told {
        Some(told) => format!(
            "the head counts {} records, {} are there",
            told.count, counted.count
        ),
        None => format!(
            "the head is missing or damaged, {} records are there",
            counted.count
        ),
    };
    if damaged.is_empty() && other.is_empty() && !options.accept_damage {
        return Err(OpenError::HeadMismatch { detail });
    }
    // Whatever is damaged may account for it. Go on from what is there, so
    // that later changes are noticed.
    other.push(Damage::Head { detail });
    let revision = stored.as_ref().map(|r| r.revision);
    let row = counted.seal(key, sealer.nonce(), revision.unwrap_or(0) + 1);
    store
        .commit(vec![Op {
            key: HEAD_KEY.to_vec(),
            expect: revision,
            put: Some(row),
        }])
        .await?;
    Ok((damaged, other))
}
