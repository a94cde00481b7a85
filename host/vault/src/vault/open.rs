//! From a store and a key to a vault: key check, verification, head.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use countersign_core::ports::{Random, StoreError, random_bytes, random_token};
use countersign_core::secret::SealKey;
use tokio::task::{JoinError, JoinSet};

use super::{OpenOptions, Shared};
use crate::damage::{self, Damage};
use crate::error::OpenError;
use crate::head::{HEAD_KEY, Head};
use crate::keys::{KekId, KeyRing};
use crate::seal::Sealer;
use crate::store::{Op, Row, Store};

/// The key check record lies at both ends of the database, so that one damaged
/// page does not cost everything.
const CHECKS: [&[u8]; 2] = [b"\0key check", b"\xFDkey check"];
/// Records lie between these first bytes.
const RECORDS: std::ops::RangeInclusive<u8> = 1..=0xFC;
/// Rows that are read and verified at a time.
const VERIFIED: usize = 2048;
const CHECK_LAYOUT: u8 = 1;
const ID: usize = 8;
const WRAPPED: usize = 32 + countersign_core::secret::SEAL_OVERHEAD;

pub(super) async fn open(
    store: Arc<dyn Store>,
    ring: KeyRing,
    random: Arc<dyn Random>,
    options: OpenOptions,
) -> Result<Shared, OpenError> {
    let root = match root_key(&*store, &ring).await? {
        Some(root) => root,
        None => create(&*store, &ring, &*random).await?,
    };
    let process = store
        .process()
        .unwrap_or_else(|| random_token::<16>(&*random));
    let sealer = Arc::new(Sealer::new(&root, ring, random));
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

/// The root key, or `None` if the store is empty.
async fn root_key(store: &dyn Store, ring: &KeyRing) -> Result<Option<SealKey>, OpenError> {
    let (mut present, mut broken, mut needed) = (0, 0, Vec::new());
    let mut root = None;
    let mut rows = Vec::new();
    for check in CHECKS {
        let row = store.get(check).await;
        if let Ok(Some(row)) = &row {
            present += 1;
            match unwrap_root(ring, row) {
                Ok(found) => root = Some((found, row.clone())),
                Err(Some(ids)) => needed.extend(ids),
                Err(None) => broken += 1,
            }
        }
        rows.push((check, row));
    }
    let Some((root, good)) = root else {
        if present == 0 {
            let page = store.scan(&[], &[], 1).await?;
            if rows.iter().all(|(_, row)| row.is_ok())
                && page.rows.is_empty()
                && page.holes.is_empty()
            {
                return Ok(None);
            }
            return Err(OpenError::KeyCheckMissing {
                detail: "it is not there".into(),
            });
        }
        if broken == present {
            return Err(OpenError::KeyCheckMissing {
                detail: "it does not open".into(),
            });
        }
        needed.sort_unstable();
        needed.dedup();
        let needed = needed
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" or ");
        return Err(OpenError::WrongKey {
            configured: ring.current_id().to_string(),
            needed,
        });
    };
    for (check, row) in rows {
        let expect = match row {
            Ok(Some(row)) if row == good => continue,
            Ok(row) => row.map(|r| r.revision),
            Err(_) => continue,
        };
        tracing::warn!("one copy of the key check record was damaged; mending it from the other");
        let op = Op {
            key: check.to_vec(),
            expect,
            put: Some(good.clone()),
        };
        store.commit(vec![op]).await?;
    }
    Ok(Some(root))
}

/// The root key; or the ids it is wrapped for; or nothing that can be read.
fn unwrap_root(ring: &KeyRing, row: &Row) -> Result<SealKey, Option<Vec<KekId>>> {
    let Some((&CHECK_LAYOUT, entries)) = row.body.split_first() else {
        return Err(None);
    };
    let (entries, rest) = entries.as_chunks::<{ ID + WRAPPED }>();
    if entries.is_empty() || !rest.is_empty() {
        return Err(None);
    }
    let mut ids = Vec::new();
    let mut ours = false;
    for entry in entries {
        let Some((id, wrapped)) = entry.split_first_chunk::<ID>() else {
            return Err(None);
        };
        let id = KekId(*id);
        ids.push(id);
        if let Some(kek) = ring.find(id) {
            ours = true;
            if let Ok(root) = SealKey::unwrap(&kek.key, &check_aad(id), wrapped) {
                return Ok(root);
            }
        }
    }
    Err((!ours).then_some(ids))
}

async fn create(
    store: &dyn Store,
    ring: &KeyRing,
    random: &dyn Random,
) -> Result<SealKey, OpenError> {
    let root = SealKey::new(random_bytes(random));
    let kek = ring.current();
    let wrapped = root.wrap(&kek.key, random_bytes(random), &check_aad(kek.id));
    let body = [&[CHECK_LAYOUT][..], &kek.id.0, &wrapped].concat();
    let check = Row {
        revision: 1,
        expires_at: None,
        body,
    };
    let head = Head::default().seal(&root.derive("vault head 1"), random_bytes(random), 1);
    let put = |key: &[u8], row: Row| Op {
        key: key.to_vec(),
        expect: None,
        put: Some(row),
    };
    let [first, second] = CHECKS;
    let made = vec![
        put(first, check.clone()),
        put(second, check),
        put(HEAD_KEY, head),
    ];
    match store.commit(made).await {
        Ok(()) => Ok(root),
        // Another replica made it in this very moment.
        Err(StoreError::Conflict) => {
            root_key(store, ring)
                .await?
                .ok_or_else(|| OpenError::KeyCheckMissing {
                    detail: "it comes and goes".into(),
                })
        }
        Err(other) => Err(other.into()),
    }
}

fn check_aad(id: KekId) -> Vec<u8> {
    [&b"vault root key 1"[..], &id.0].concat()
}

type Found = (BTreeMap<Vec<u8>, Damage>, Vec<Damage>);

/// What these rows add up to, and which do not open.
fn judge(sealer: &Sealer, rows: &[(Vec<u8>, Row)]) -> (Head, Vec<(Vec<u8>, Damage)>) {
    let (mut head, mut damaged) = (Head::default(), Vec::new());
    for (place, row) in rows {
        if place.first().is_some_and(|b| RECORDS.contains(b)) {
            head.add(&sealer.head, place, row);
            if let Err(cause) = sealer.verify(place, row) {
                damaged.push((place.clone(), damage::record(place, cause)));
            }
        }
    }
    (head, damaged)
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
            let (head, found) = judged.map_err(interrupted)?;
            counted.merge(head);
            damaged.extend(found);
        }
    }
    drop(view);
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
