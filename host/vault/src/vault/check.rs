//! The key check record: the root key, wrapped by each key in use.
//!
//! The first entry's key is the one that everything new is sealed with,
//! whatever a host's configuration says; the others are those that stored
//! records may still need. A MAC under the root key keeps the order as it is.
//! The record lies at both ends of the database, so that one damaged page does
//! not cost everything.
//!
//! | bytes | |
//! |---|---|
//! | 1 | layout: 2, or 1, which has one entry and no MAC |
//! | 80 each | id of a key, and the root key wrapped by it |
//! | 32 | MAC over revision and entries |

use countersign_core::ports::{Random, StoreError, random_bytes};
use countersign_core::secret::{SEAL_OVERHEAD, SealKey};

use crate::error::OpenError;
use crate::head::{HEAD_KEY, Head};
use crate::keys::{Kek, KekId, KeyRing};
use crate::store::{Op, Row, Store};

pub(crate) const CHECKS: [&[u8]; 2] = [b"\0key check", b"\xFDkey check"];
const LAYOUT: u8 = 2;
const FIRST_LAYOUT: u8 = 1;
const ID: usize = 8;
const WRAPPED: usize = 32 + SEAL_OVERHEAD;
const ENTRY: usize = ID + WRAPPED;
const MAC: usize = 32;

/// The keys in use, the sealing one first, each with the root key wrapped by
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    entries: Vec<(KekId, Vec<u8>)>,
    revision: u64,
}

/// Why a check record gives no root key.
pub(crate) enum Closed {
    /// It is none, or was changed.
    Broken,
    /// It is for these keys.
    NeedsKey(Vec<KekId>),
}

impl Check {
    /// Reads and opens it.
    pub(crate) fn open(ring: &KeyRing, row: &Row) -> Result<(Self, SealKey), Closed> {
        let (&layout, rest) = row.body.split_first().ok_or(Closed::Broken)?;
        let (listed, mac) = match layout {
            FIRST_LAYOUT if rest.len() == ENTRY => (rest, None),
            LAYOUT => {
                let (listed, mac) = rest.split_last_chunk::<MAC>().ok_or(Closed::Broken)?;
                (listed, Some(mac))
            }
            _ => return Err(Closed::Broken),
        };
        let (chunks, over) = listed.as_chunks::<ENTRY>();
        if chunks.is_empty() || !over.is_empty() {
            return Err(Closed::Broken);
        }
        let mut entries = Vec::with_capacity(chunks.len());
        let mut root = None;
        let mut ours = false;
        for chunk in chunks {
            let (id, wrapped) = chunk.split_first_chunk::<ID>().ok_or(Closed::Broken)?;
            let id = KekId(*id);
            if let Some(kek) = ring.find(id) {
                ours = true;
                root = root.or_else(|| SealKey::unwrap(&kek.key, &aad(id), wrapped).ok());
            }
            entries.push((id, wrapped.to_vec()));
        }
        let Some(root) = root else {
            let ids = entries.into_iter().map(|(id, _)| id).collect();
            return Err(if ours {
                Closed::Broken
            } else {
                Closed::NeedsKey(ids)
            });
        };
        let check = Self {
            entries,
            revision: row.revision,
        };
        if mac.is_some_and(|mac| *mac != check.mac(&root, row.revision)) {
            return Err(Closed::Broken);
        }
        Ok((check, root))
    }

    /// The ids of the keys in use, the sealing one first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = KekId> {
        self.entries.iter().map(|(id, _)| *id)
    }

    /// Of the key that everything new is sealed with.
    pub(crate) fn sealing(&self) -> Option<KekId> {
        self.ids().next()
    }

    /// As bytes, to be opened again by [`Check::open`] at the same revision.
    pub(crate) fn row(&self, root: &SealKey, revision: u64) -> Row {
        let mut body = vec![LAYOUT];
        body.extend(self.listed());
        body.extend(self.mac(root, revision));
        Row {
            revision,
            expires_at: None,
            body,
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// With the entries of another check record of the same store, too.
    pub(crate) fn add(&mut self, other: &Self) {
        for (id, wrapped) in &other.entries {
            if !self.ids().any(|known| known == *id) {
                self.entries.push((*id, wrapped.clone()));
            }
        }
        self.revision = self.revision.max(other.revision);
    }

    /// With this key's entry at the end, if it has none.
    fn announce(&mut self, root: &SealKey, kek: &Kek, random: &dyn Random) {
        if !self.ids().any(|id| id == kek.id) {
            let wrapped = root.wrap(&kek.key, random_bytes(random), &aad(kek.id));
            self.entries.push((kek.id, wrapped));
        }
    }

    fn listed(&self) -> Vec<u8> {
        let entry = |(id, wrapped): &(KekId, Vec<u8>)| [&id.0[..], wrapped].concat();
        self.entries.iter().flat_map(entry).collect()
    }

    fn mac(&self, root: &SealKey, revision: u64) -> [u8; MAC] {
        root.derive("vault key check 1")
            .mac(&[&revision.to_le_bytes(), &self.listed()])
    }
}

/// What happens to a key.
#[derive(Clone, Copy)]
pub(crate) enum Step<'a> {
    /// It may be used from now on: whoever shares the store has to have it.
    Announce(&'a Kek),
    /// Everything new is sealed with it.
    Promote(KekId),
    /// All others are in use no more.
    RetireOthers(KekId),
}

/// Takes one step, whoever else takes another one meanwhile.
pub(crate) async fn step(
    store: &dyn Store,
    (ring, root): (&KeyRing, &SealKey),
    random: &dyn Random,
    step: Step<'_>,
) -> Result<Check, StoreError> {
    const TRIES: usize = 8;
    for _ in 0..TRIES {
        let Some(Found {
            mut check, rows, ..
        }) = find(store, ring).await.map_err(refused)?
        else {
            return Err(gone());
        };
        let before = check.clone();
        match step {
            Step::Announce(kek) => check.announce(root, kek, random),
            Step::Promote(id) => check.entries.sort_by_key(|(each, _)| *each != id),
            Step::RetireOthers(id) => check.entries.retain(|(each, _)| *each == id),
        }
        if check == before {
            return Ok(check);
        }
        check.revision += 1;
        let put = check.row(root, check.revision);
        let ops = rows.into_iter().map(|(key, row)| Op {
            key: key.to_vec(),
            expect: row.map(|r| r.revision),
            put: Some(put.clone()),
        });
        match store.commit(ops.collect()).await {
            Ok(()) => return Ok(check),
            Err(StoreError::Conflict) => {}
            Err(other) => return Err(other),
        }
    }
    Err(StoreError::Conflict)
}

/// The check record as it is now.
pub(crate) async fn read(store: &dyn Store, ring: &KeyRing) -> Result<Check, StoreError> {
    let found = find(store, ring).await.map_err(refused)?;
    found.map(|found| found.check).ok_or_else(gone)
}

/// The check record and the root key.
pub(crate) async fn read_with_root(
    store: &dyn Store,
    ring: &KeyRing,
) -> Result<(Check, SealKey), StoreError> {
    let found = find(store, ring).await.map_err(refused)?.ok_or_else(gone)?;
    Ok((found.check, found.root))
}

fn refused(error: OpenError) -> StoreError {
    match error {
        OpenError::Store(error) => error,
        other => StoreError::Failed(other.to_string()),
    }
}

fn gone() -> StoreError {
    StoreError::Damaged("the key check record is gone; restart Countersign".into())
}

struct Found {
    check: Check,
    root: SealKey,
    good: Row,
    rows: Vec<(&'static [u8], Option<Row>)>,
    /// One of the copies could not be read.
    unreadable: bool,
}

/// The newest copy that opens; none if the store is empty.
async fn find(store: &dyn Store, ring: &KeyRing) -> Result<Option<Found>, OpenError> {
    let (mut present, mut broken, mut needed) = (0, 0, Vec::new());
    let mut best: Option<(Check, SealKey, Row)> = None;
    let mut rows = Vec::new();
    let mut unreadable = false;
    for key in CHECKS {
        let row = match store.get(key).await {
            Ok(row) => row,
            Err(_) => {
                unreadable = true;
                continue;
            }
        };
        if let Some(row) = &row {
            present += 1;
            match Check::open(ring, row) {
                Ok((check, root)) => {
                    if best
                        .as_ref()
                        .is_none_or(|(b, ..)| b.revision < check.revision)
                    {
                        best = Some((check, root, row.clone()));
                    }
                }
                Err(Closed::NeedsKey(ids)) => needed.extend(ids),
                Err(Closed::Broken) => broken += 1,
            }
        }
        rows.push((key, row));
    }
    let missing = |detail: &str| OpenError::KeyCheckMissing {
        detail: detail.into(),
    };
    let Some((check, root, good)) = best else {
        if present == 0 {
            let page = store.scan(&[], &[], 1).await?;
            if !unreadable && page.rows.is_empty() && page.holes.is_empty() {
                return Ok(None);
            }
            return Err(missing("it is not there"));
        }
        if broken == present {
            return Err(missing("it does not open"));
        }
        return Err(OpenError::WrongKey {
            configured: ring.current_id().to_string(),
            needed: in_words(needed),
        });
    };
    Ok(Some(Found {
        check,
        root,
        good,
        rows,
        unreadable,
    }))
}

/// The root key and the keys in use, or `None` if the store is empty. Mends one
/// copy from the other.
pub(super) async fn root_key(
    store: &dyn Store,
    ring: &KeyRing,
) -> Result<Option<(SealKey, Check)>, OpenError> {
    let Some(found) = find(store, ring).await? else {
        return Ok(None);
    };
    let absent: Vec<KekId> = found
        .check
        .ids()
        .filter(|id| ring.find(*id).is_none())
        .collect();
    if !absent.is_empty() {
        return Err(OpenError::MissingKey {
            needed: in_words(absent),
        });
    }
    for (key, row) in found.rows {
        if row.as_ref() == Some(&found.good) {
            continue;
        }
        tracing::warn!("one copy of the key check record was damaged; mending it from the other");
        let op = Op {
            key: key.to_vec(),
            expect: row.map(|r| r.revision),
            put: Some(found.good.clone()),
        };
        store.commit(vec![op]).await?;
    }
    if found.unreadable {
        tracing::error!("one copy of the key check record cannot be read");
    }
    Ok(Some((found.root, found.check)))
}

/// Makes root key, check record and head in an empty store.
pub(super) async fn create(
    store: &dyn Store,
    ring: &KeyRing,
    random: &dyn Random,
) -> Result<(SealKey, Check), OpenError> {
    let root = SealKey::new(random_bytes(random));
    let mut check = Check {
        entries: Vec::new(),
        revision: 1,
    };
    check.announce(&root, ring.current(), random);
    let head = Head::default().seal(&root.derive("vault head 1"), random_bytes(random), 1);
    let row = check.row(&root, 1);
    let put = |key: &[u8], row: Row| Op {
        key: key.to_vec(),
        expect: None,
        put: Some(row),
    };
    let [first, second] = CHECKS;
    let made = vec![
        put(first, row.clone()),
        put(second, row),
        put(HEAD_KEY, head),
    ];
    match store.commit(made).await {
        Ok(()) => Ok((root, check)),
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

/// Ids for a sentence.
pub(crate) fn in_words(mut ids: Vec<KekId>) -> String {
    ids.sort_unstable();
    ids.dedup();
    let words: Vec<String> = ids.iter().map(ToString::to_string).collect();
    words.join(" or ")
}

fn aad(id: KekId) -> Vec<u8> {
    [&b"vault root key 1"[..], &id.0].concat()
}

#[cfg(test)]
mod tests {
    use countersign_core::ports::fakes::CountingRandom;

    use super::*;

    #[test]
    fn neither_order_nor_revision_of_the_keys_in_use_can_be_changed_on_the_disk() {
        let random = CountingRandom::default();
        let ring = KeyRing::of([7; 32], &[[8; 32]]);
        let root = SealKey::new([1; 32]);
        let mut check = Check {
            entries: Vec::new(),
            revision: 3,
        };
        let (new, old) = ring.ids().fold((None, None), |(a, _), (id, _)| match a {
            None => (ring.find(id), None),
            first => (first, ring.find(id)),
        });
        for kek in [new, old].into_iter().flatten() {
            check.announce(&root, kek, &random);
        }
        let row = check.row(&root, 3);
        let opened = Check::open(&ring, &row).ok().map(|(check, _)| check);
        assert_eq!(opened, Some(check.clone()));
        let mut swapped = check;
        swapped.entries.reverse();
        let mut forged = row.body.clone();
        forged[1..=2 * ENTRY].copy_from_slice(&swapped.listed());
        let one = [&[FIRST_LAYOUT][..], &row.body[1..=ENTRY]].concat();
        let both = [&[FIRST_LAYOUT][..], &row.body[1..=2 * ENTRY]].concat();
        for (body, revision, opens) in [
            (forged, 3, false),
            (row.body.clone(), 2, false),
            (both, 3, false),
            (one, 3, true),
        ] {
            let row = Row {
                revision,
                expires_at: None,
                body,
            };
            assert_eq!(Check::open(&ring, &row).is_ok(), opens);
        }
    }
}
