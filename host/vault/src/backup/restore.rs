//! Making a store from a backup, and from what is left of the one before.
//!
//! Backup and store are both in order of places, so they are gone through side
//! by side, whatever their size. A row in the target says that a restore is
//! under way: as long as it is there no vault opens the store, and the next
//! restore begins anew.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::sync::Arc;

use countersign_core::ports::{AfterRestore, Kind, Random, RecordKey};
use countersign_core::secret::SealKey;

use super::choose::{Choice, OldFacts, Seen, choose};
use super::read::{Reader, verify};
use super::{BackupError, Summary};
use crate::damage;
use crate::head::{HEAD_KEY, Head};
use crate::keys::KeyRing;
use crate::seal::{Broken, Half, Keys, Sealer, StoreKey};
use crate::store::{Op, Row, Store, View};
use crate::vault::check::{self, Check};
use crate::vault::open::{self, RESTORING};

/// Rows written at a time.
const BATCH: usize = 128;
/// Rows read at a time.
const PAGE: usize = 256;

/// What the target may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Empty,
    /// Anything: settings become what they were in the backup; people, their
    /// connections and the audit log stay as they are.
    Force,
    /// Anything, in any condition: what can be read of it stays, the rest
    /// becomes what it was in the backup.
    Salvage,
}

/// The store that is replaced.
pub struct Old<'a> {
    /// Where.
    pub store: &'a dyn Store,
    /// Whether it may have lost its last writes.
    pub lost_writes: bool,
}

/// Where a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the store that is replaced.
    Old,
    /// From the backup.
    Backup,
}

/// What becomes of a record's public half in the new epoch.
pub enum Adjusted {
    /// It stays.
    Keep,
    /// It becomes this.
    Change(Vec<u8>),
}

/// Says what becomes of a record: kind, origin, public half.
pub type Adjust<'a> = dyn Fn(Kind, Origin, &[u8]) -> Adjusted + Send + Sync + 'a;

/// What a restore has made.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Records that the replaced store had and the new one has.
    pub kept: u64,
    /// Records that came from the backup.
    pub from_backup: u64,
    /// Among these, those that may have been deleted since: the replaced store
    /// could not be read to the end.
    pub perhaps_deleted: u64,
    /// Records of the backup that were deleted since, and stay so.
    pub deleted: u64,
    /// Tokens, sessions, codes and the like, which are void.
    pub voided: u64,
    /// Settings made since the backup, which were taken back.
    pub taken_back: u64,
    /// Records that no version of could be opened, in words. Their bytes are
    /// kept aside in the new store.
    pub lost: Vec<String>,
    /// Parts of the replaced store that could not be read.
    pub unreadable_parts: u64,
}

/// Verifies the whole backup, then makes the target from it.
///
/// `old` is the store that is replaced, where it is at hand; if it is the
/// target itself, `is_in_place` says so. `extra` are records that are added, or
/// replaced, at the end.
///
/// # Errors
/// [`BackupError`]; before the first write if anything is wrong with the
/// backup, the keys or the target.
pub async fn restore<R: Read>(
    backup: &(dyn Fn() -> std::io::Result<R> + Sync),
    (target, old, is_in_place): (&dyn Store, Option<Old<'_>>, bool),
    mode: Mode,
    (ring, random): (&KeyRing, Arc<dyn Random>),
    adjust: &Adjust<'_>,
    extra: &[(RecordKey, Vec<u8>)],
) -> Result<(Summary, Restored), BackupError> {
    let summary = verify(backup()?, ring, Arc::clone(&random))?;
    let (mut reader, sealer) = Reader::open(backup()?, ring, random)?;
    let check = keys_of_both(&reader, old.as_ref(), ring, &sealer).await?;
    let sealing = check.sealing().and_then(|id| ring.find(id)).cloned();
    if let Some(sealing) = sealing {
        sealer.set_keys(Keys {
            ring: ring.clone(),
            sealing,
        });
    }
    let view = match &old {
        Some(old) => Some(old.store.view().await?),
        None => None,
    };
    let facts = match (&old, &view) {
        (Some(old), Some(view)) => facts_of(&**view, old.lost_writes, &sealer).await?,
        _ => OldFacts {
            is_whole: false,
            lost_writes: false,
        },
    };
    begin(target, is_in_place).await?;
    let extra = extra
        .iter()
        .map(|(key, document)| (sealer.store_key(key), (key, document, 0, None)))
        .collect();
    let mut merge = Merge {
        target,
        sealer: &sealer,
        mode,
        facts,
        is_in_place,
        adjust,
        extra,
        head: Head::default(),
        ops: Vec::new(),
        made: Restored::default(),
    };
    let mut rows = Rows::new(view.as_deref());
    let (mut left, mut right) = (rows.next().await?, reader.row()?);
    loop {
        let place = match (&left, &right) {
            (None, None) => break,
            (Some((a, _)), Some((b, _))) => a.min(b).clone(),
            (Some((a, _)), None) => a.clone(),
            (None, Some((b, _))) => b.clone(),
        };
        let old = left.take_if(|(at, _)| *at == place).map(|(_, row)| row);
        let backup = right.take_if(|(at, _)| *at == place).map(|(_, row)| row);
        if old.is_some() {
            left = rows.next().await?;
        }
        if backup.is_some() {
            right = reader.row()?;
        }
        merge.one(place, old, backup).await?;
    }
    merge.made.unreadable_parts = rows.holes;
    let made = merge.end(&check).await?;
    Ok((summary, made))
}

/// The keys that either store's records need.
async fn keys_of_both<R: Read>(
    reader: &Reader<R>,
    old: Option<&Old<'_>>,
    ring: &KeyRing,
    sealer: &Sealer,
) -> Result<Check, BackupError> {
    let Some(old) = old else {
        return Ok(reader.check().clone());
    };
    match check::read_with_root(old.store, ring).await {
        Ok((mut check, root)) => {
            let lineage = |root: &SealKey| root.mac(&[b"lineage"]);
            if lineage(&root) != lineage(&sealer.root) {
                return Err(BackupError::Stranger);
            }
            let absent: Vec<_> = check.ids().filter(|id| ring.find(*id).is_none()).collect();
            if !absent.is_empty() {
                return Err(BackupError::MissingKey {
                    needed: check::in_words(absent),
                });
            }
            check.add(reader.check());
            Ok(check)
        }
        // Damaged like the rest.
        Err(_) => Ok(reader.check().clone()),
    }
}

/// Whether the replaced store can be gone by where it has nothing.
async fn facts_of(
    view: &dyn View,
    lost_writes: bool,
    sealer: &Sealer,
) -> Result<OldFacts, BackupError> {
    let (mut told, mut counted, mut needed) = (None, Head::default(), Vec::new());
    let mut has_holes = false;
    let mut from = Some(Vec::new());
    while let Some(at) = from {
        let page = view.scan(&[], &at, PAGE).await?;
        has_holes |= !page.holes.is_empty();
        for (place, row) in &page.rows {
            if place == HEAD_KEY {
                told = Head::open(&sealer.head, row).ok();
            } else if open::is_record(place) {
                counted.add(&sealer.head, place, row);
                if let Err(Broken::NoKey(id)) = sealer.verify(place, row) {
                    needed.push(id);
                }
            }
        }
        from = page.next;
    }
    if !needed.is_empty() {
        return Err(BackupError::MissingKey {
            needed: check::in_words(needed),
        });
    }
    let adds_up = told.is_some_and(|told| told.count == counted.count);
    Ok(OldFacts {
        is_whole: adds_up && !has_holes && !lost_writes,
        lost_writes,
    })
}

/// Makes sure of the target, and marks it.
async fn begin(target: &dyn Store, is_in_place: bool) -> Result<(), BackupError> {
    let marker = target.get(RESTORING).await?;
    if !is_in_place {
        let mut from = Some(Vec::new());
        while let Some(at) = from {
            let page = target.scan(&[], &at, PAGE).await?;
            if marker.is_none() && !(page.rows.is_empty() && page.holes.is_empty()) {
                return Err(BackupError::NotEmpty);
            }
            // What an interrupted restore left.
            let others = page.rows.into_iter().filter(|(key, _)| key != RESTORING);
            let ops: Vec<Op> = others
                .map(|(key, row)| Op {
                    key,
                    expect: Some(row.revision),
                    put: None,
                })
                .collect();
            if !ops.is_empty() {
                target.commit(ops).await?;
            }
            from = page.next;
        }
    }
    if marker.is_none() {
        let put = Some(Row {
            revision: 1,
            expires_at: None,
            body: Vec::new(),
        });
        let key = RESTORING.to_vec();
        target
            .commit(vec![Op {
                key,
                expect: None,
                put,
            }])
            .await?;
    }
    Ok(())
}

/// The records of a view, one after the other.
struct Rows<'a> {
    view: Option<&'a dyn View>,
    page: VecDeque<(Vec<u8>, Row)>,
    from: Option<Vec<u8>>,
    holes: u64,
}

impl<'a> Rows<'a> {
    fn new(view: Option<&'a dyn View>) -> Self {
        Self {
            from: view.map(|_| Vec::new()),
            view,
            page: VecDeque::new(),
            holes: 0,
        }
    }

    async fn next(&mut self) -> Result<Option<(Vec<u8>, Row)>, BackupError> {
        while self.page.is_empty() {
            let (Some(view), Some(at)) = (self.view, self.from.take()) else {
                return Ok(None);
            };
            let page = view.scan(&[], &at, PAGE).await?;
            self.holes += page.holes.len() as u64;
            self.from = page.next;
            let records = page.rows.into_iter().filter(|(k, _)| open::is_record(k));
            self.page.extend(records);
        }
        Ok(self.page.pop_front())
    }
}

/// Key, document, highest revision met, and revision in the target.
type Extra<'a> = (&'a RecordKey, &'a Vec<u8>, u64, Option<u64>);

struct Merge<'a> {
    target: &'a dyn Store,
    sealer: &'a Sealer,
    mode: Mode,
    facts: OldFacts,
    is_in_place: bool,
    adjust: &'a Adjust<'a>,
    extra: BTreeMap<StoreKey, Extra<'a>>,
    head: Head,
    ops: Vec<Op>,
    made: Restored,
}

impl Merge<'_> {
    async fn one(
        &mut self,
        place: Vec<u8>,
        old: Option<Row>,
        backup: Option<Row>,
    ) -> Result<(), BackupError> {
        let in_target = old.as_ref().filter(|_| self.is_in_place);
        let in_target = in_target.map(|row| row.revision);
        let revision = |row: &Option<Row>| row.as_ref().map_or(0, |row| row.revision);
        if let Ok(key) = StoreKey::try_from(&*place)
            && let Some((.., highest, there)) = self.extra.get_mut(&key)
        {
            *highest = revision(&old).max(revision(&backup));
            *there = in_target;
            return Ok(());
        }
        let kind = place.first().and_then(|byte| Kind::of(*byte));
        // Of a later version of Countersign: nothing is known against it.
        let class = kind.map_or(AfterRestore::History, Kind::after_restore);
        let seen = |row: &Option<Row>| {
            row.as_ref().map(|row| Seen {
                revision: row.revision,
                is_sound: self.sealer.verify(&place, row).is_ok(),
            })
        };
        let choice = choose(class, self.mode, self.facts, seen(&old), seen(&backup));
        let has_old = self.mode != Mode::Empty;
        let kept = match choice {
            Choice::Old => {
                self.made.kept += 1;
                old.map(|row| (row, Origin::Old))
            }
            Choice::Backup => {
                self.made.from_backup += 1;
                let unknown = has_old && old.is_none() && !self.facts.is_whole;
                self.made.perhaps_deleted += u64::from(unknown);
                backup.map(|row| (row, Origin::Backup))
            }
            Choice::Deleted => {
                self.made.deleted += 1;
                None
            }
            Choice::Dropped => {
                match class {
                    AfterRestore::Void => self.made.voided += 1,
                    _ => self.made.taken_back += 1,
                }
                None
            }
            Choice::Lost => {
                let what = damage::record(&place, "no version of it opens");
                self.made.lost.push(what.name());
                for row in [&old, &backup].into_iter().flatten() {
                    self.aside(&place, row);
                }
                None
            }
        };
        let new = match kept {
            Some((row, origin)) => Some(self.adjusted(kind, &place, row, origin)?),
            None => None,
        };
        if let Some(row) = &new {
            self.head.add(&self.sealer.head, &place, row);
        }
        if new.is_some() || in_target.is_some() {
            self.ops.push(Op {
                key: place,
                expect: in_target,
                put: new,
            });
        }
        if self.ops.len() >= BATCH {
            self.target.commit(std::mem::take(&mut self.ops)).await?;
        }
        Ok(())
    }

    fn adjusted(
        &self,
        kind: Option<Kind>,
        place: &[u8],
        row: Row,
        origin: Origin,
    ) -> Result<Row, BackupError> {
        let Some(kind) = kind else {
            return Ok(row);
        };
        let sound = "a record that opened before";
        let found = self.sealer.open(place, &row);
        let found = found.map_err(|_| BackupError::Inconsistent(sound))?;
        match (self.adjust)(kind, origin, &found.document) {
            Adjusted::Keep => Ok(row),
            Adjusted::Change(document) => {
                let key = RecordKey {
                    kind,
                    partition: found.partition,
                    name: found.name,
                };
                let at = (
                    row.revision + 1,
                    row.expires_at.map(|t| t.min(i64::MAX - 1)),
                );
                let sealed = self.sealer.seal(&key, at, &document, &Half::Kept(&row));
                sealed.map_err(|_| BackupError::Inconsistent(sound))
            }
        }
    }

    /// Keeps the bytes of what does not open.
    fn aside(&mut self, place: &[u8], row: &Row) {
        let mut key = vec![open::SET_ASIDE];
        key.extend_from_slice(place);
        key.extend_from_slice(&self.sealer.nonce());
        let put = Row {
            expires_at: None,
            ..row.clone()
        };
        self.ops.push(Op {
            key,
            expect: None,
            put: Some(put),
        });
    }

    /// Adds what is extra, head and key check, and takes the mark away.
    async fn end(mut self, check: &Check) -> Result<Restored, BackupError> {
        for (place, (key, document, highest, there)) in std::mem::take(&mut self.extra) {
            let at = (highest + 1, None);
            let row = self.sealer.seal(key, at, document, &Half::None);
            let row = row.map_err(|_| BackupError::Inconsistent("a new record"))?;
            self.head.add(&self.sealer.head, &place, &row);
            self.ops.push(Op {
                key: place.to_vec(),
                expect: there,
                put: Some(row),
            });
        }
        let revision = |row: Option<Row>| row.map(|row| row.revision);
        let there = revision(self.target.get(HEAD_KEY).await?);
        let next = there.unwrap_or(0) + 1;
        self.ops.push(Op {
            key: HEAD_KEY.to_vec(),
            expect: there,
            put: Some(self.head.seal(&self.sealer.head, self.sealer.nonce(), next)),
        });
        let row = check.row(&self.sealer.root, check.revision() + 1);
        for key in check::CHECKS {
            self.ops.push(Op {
                key: key.to_vec(),
                expect: revision(self.target.get(key).await?),
                put: Some(row.clone()),
            });
        }
        self.ops.push(Op {
            key: RESTORING.to_vec(),
            expect: revision(self.target.get(RESTORING).await?),
            put: None,
        });
        self.target.commit(self.ops).await?;
        Ok(self.made)
    }
}
