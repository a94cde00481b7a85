//! The one task that writes: judges, seals and commits what is waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_core::ports::{Change, Expect, Revision, SecretChange, StoreError, Write};
use tokio::sync::{mpsc, oneshot};

use super::{LONGEST_RECORD, Shared};
use crate::head::{HEAD_KEY, Head};
use crate::layout::Body;
use crate::seal::{Broken, Half};
use crate::store::{Due, Op, Row, Turn};

/// Most jobs that share one commit.
const GROUP: usize = 128;
/// How often a group is tried again when what it read was not what is stored.
const TRIES: usize = 8;

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) enum Job {
    Write {
        writes: Vec<Write>,
        done: Answer<Vec<Revision>>,
    },
    Sweep {
        due: Due,
        done: Answer<usize>,
    },
    /// Wraps data keys by the key that seals now.
    Rewrap {
        places: Vec<Vec<u8>>,
        done: Answer<usize>,
    },
}

pub(super) struct Committer {
    shared: Arc<Shared>,
}

/// What a group has done so far, on top of what is stored.
#[derive(Default)]
struct Draft {
    /// What was stored when the group began, and what it shall become.
    rows: BTreeMap<Vec<u8>, (Option<Row>, Option<Row>)>,
}

enum Done {
    Written(Vec<Revision>),
    Counted(usize),
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(super) async fn run(self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(GROUP);
        while queue.recv_many(&mut jobs, GROUP).await > 0 {
            let outcomes = self.group(&jobs).await;
            for (job, outcome) in jobs.drain(..).zip(outcomes) {
                match (job, outcome) {
                    (Job::Write { done, .. }, Ok(Done::Written(revisions))) => {
                        let _ = done.send(Ok(revisions));
                    }
                    (
                        Job::Sweep { done, .. } | Job::Rewrap { done, .. },
                        Ok(Done::Counted(count)),
                    ) => {
                        let _ = done.send(Ok(count));
                    }
                    (Job::Write { done, .. }, Err(e)) => drop(done.send(Err(e))),
                    (Job::Sweep { done, .. } | Job::Rewrap { done, .. }, Err(e)) => {
                        drop(done.send(Err(e)));
                    }
                    // Unanswered: the caller sees a closed vault.
                    (Job::Write { .. }, Ok(Done::Counted(_)))
                    | (Job::Sweep { .. } | Job::Rewrap { .. }, Ok(Done::Written(_))) => {}
                }
            }
        }
    }

    /// One outcome for each job, in order.
    async fn group(&self, jobs: &[Job]) -> Vec<Result<Done, StoreError>> {
        let mut last = StoreError::Conflict;
        for _ in 0..TRIES {
            let turn = match self.shared.store.begin(self.places(jobs)).await {
                Ok(turn) => turn,
                Err(error) => {
                    last = error;
                    break;
                }
            };
            let mut draft = Draft::default();
            let mut outcomes = Vec::with_capacity(jobs.len());
            for job in jobs {
                outcomes.push(match job {
                    Job::Write { writes, .. } => {
                        self.judge(&turn, &mut draft, writes).map(Done::Written)
                    }
                    Job::Sweep { due, .. } => {
                        self.judge_sweep(&turn, &mut draft, due).map(Done::Counted)
                    }
                    Job::Rewrap { places, .. } => self
                        .judge_rewrap(&turn, &mut draft, places)
                        .map(Done::Counted),
                });
            }
            match self.commit(turn, draft).await {
                Ok(()) => return outcomes,
                // Somebody changed the database behind the stores' back, or
                // what was remembered of it was wrong: judge again.
                Err(StoreError::Conflict) => {}
                Err(other) => {
                    last = other;
                    break;
                }
            }
        }
        jobs.iter().map(|_| Err(last.clone())).collect()
    }

    /// All rows that the jobs are about, and the head.
    fn places(&self, jobs: &[Job]) -> Vec<Vec<u8>> {
        let mut places = BTreeSet::from([HEAD_KEY.to_vec()]);
        for job in jobs {
            match job {
                Job::Write { writes, .. } => {
                    let keys = writes.iter().map(|w| self.shared.sealer.store_key(&w.key));
                    places.extend(keys.map(|key| key.to_vec()));
                }
                Job::Sweep { due, .. } => places.extend(due.iter().map(|(key, _)| key.clone())),
                Job::Rewrap { places: these, .. } => places.extend(these.iter().cloned()),
            }
        }
        places.into_iter().collect()
    }

    async fn commit(&self, turn: Turn<'_>, draft: Draft) -> Result<(), StoreError> {
        let sealer = &self.shared.sealer;
        let key = &sealer.head;
        let mut ops = Vec::with_capacity(draft.rows.len() + 1);
        let mut changed = Vec::with_capacity(draft.rows.len());
        for (place, (old, new)) in draft.rows {
            if old == new {
                continue;
            }
            if let Some(old) = old.as_ref().filter(|_| self.shared.is_damaged(&place)) {
                ops.push(self.aside(&place, old));
            }
            ops.push(Op {
                key: place.clone(),
                expect: old.as_ref().map(|r| r.revision),
                put: new.clone(),
            });
            changed.push((place, old, new));
        }
        if ops.is_empty() {
            return turn.commit(ops).await;
        }
        let stored = turn.get(HEAD_KEY)?.ok_or_else(no_head)?;
        let mut head = Head::open(key, &stored).map_err(|_| no_head())?;
        for (place, old, new) in &changed {
            if let Some(old) = old {
                head.remove(key, place, old);
            }
            if let Some(new) = new {
                head.add(key, place, new);
            }
        }
        let row = head.seal(key, sealer.nonce(), stored.revision + 1);
        ops.push(Op {
            key: HEAD_KEY.to_vec(),
            expect: Some(stored.revision),
            put: Some(row),
        });
        turn.commit(ops).await?;
        let mut damaged = self
            .shared
            .damaged
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !damaged.is_empty() {
            for (place, ..) in &changed {
                damaged.remove(place);
            }
        }
        Ok(())
    }

    /// Keeps the bytes of a damaged record that is being written over.
    fn aside(&self, place: &[u8], row: &Row) -> Op {
        let mut key = vec![super::open::SET_ASIDE];
        key.extend_from_slice(place);
        key.extend_from_slice(&self.shared.sealer.nonce());
        Op {
            key,
            expect: None,
            put: Some(Row {
                expires_at: None,
                ..row.clone()
            }),
        }
    }

    /// Adds a batch to the draft, or nothing of it.
    fn judge(
        &self,
        turn: &Turn<'_>,
        draft: &mut Draft,
        writes: &[Write],
    ) -> Result<Vec<Revision>, StoreError> {
        let mut own = BTreeMap::new();
        let mut revisions = Vec::with_capacity(writes.len());
        for write in writes {
            let place = self.shared.sealer.store_key(&write.key).to_vec();
            let (first, current) = match own.get(&place).or_else(|| draft.rows.get(&place)) {
                Some((first, now)) => (first.clone(), now.clone()),
                None => {
                    let row = turn.get(&place)?;
                    (row.clone(), row)
                }
            };
            let revision = current.as_ref().map(|r| r.revision);
            match (write.expect, revision) {
                (Expect::Absent, Some(_)) => return Err(StoreError::Conflict),
                (Expect::At(Revision(want)), have) if have != Some(want) => {
                    return Err(StoreError::Conflict);
                }
                _ => {}
            }
            let last = revision.unwrap_or(0);
            let (new, revision) = match &write.change {
                None => (None, last),
                Some(change) => {
                    let next = last.checked_add(1).ok_or(StoreError::Conflict)?;
                    (
                        Some(self.seal(write, change, &place, next, current.as_ref())?),
                        next,
                    )
                }
            };
            revisions.push(Revision(revision));
            own.insert(place, (first, new));
        }
        draft.rows.extend(own);
        Ok(revisions)
    }

    fn seal(
        &self,
        write: &Write,
        change: &Change,
        place: &[u8],
        revision: u64,
        current: Option<&Row>,
    ) -> Result<Row, StoreError> {
        let sealer = &self.shared.sealer;
        let (half, secret) = match (&change.secret, current) {
            (SecretChange::Set(secret), _) => (Half::Fresh(secret), secret.len()),
            (SecretChange::Keep, Some(old)) => {
                // All of it has to be sound: what a damaged record's secret
                // half was cannot be told from its header.
                sealer
                    .verify(place, old)
                    .map_err(|cause| self.shared.note(place, cause))?;
                (
                    Half::Kept(old),
                    Body::parse(&old.body).map_or(0, |b| b.secret.len()),
                )
            }
            (SecretChange::Keep, None) | (SecretChange::Remove, _) => (Half::None, 0),
        };
        let too_large = StoreError::TooLarge {
            limit: LONGEST_RECORD,
        };
        let names = write.key.partition.len() + write.key.name.len();
        if change.document.len() + secret + names > LONGEST_RECORD {
            return Err(too_large);
        }
        // The last millisecond of time means "never" in the store.
        let expires_at = change.expires_at.map(|t| t.as_millis().min(i64::MAX - 1));
        sealer
            .seal(&write.key, (revision, expires_at), &change.document, &half)
            .map_err(|cause| match cause {
                Broken::Malformed(_) => too_large,
                _ => self.shared.note(place, cause),
            })
    }

    fn judge_sweep(
        &self,
        turn: &Turn<'_>,
        draft: &mut Draft,
        due: &[(Vec<u8>, u64)],
    ) -> Result<usize, StoreError> {
        let mut swept = 0;
        for (place, revision) in due {
            if draft.rows.contains_key(place) {
                continue;
            }
            let Some(row) = turn.get(place)? else {
                continue;
            };
            // Changed since, or not the expiry it was sealed with.
            if row.revision != *revision || self.shared.open_row(place, &row).is_err() {
                continue;
            }
            draft.rows.insert(place.clone(), (Some(row), None));
            swept += 1;
        }
        Ok(swept)
    }

    /// Damaged records are passed over: they name the old key until they are
    /// written anew.
    fn judge_rewrap(
        &self,
        turn: &Turn<'_>,
        draft: &mut Draft,
        places: &[Vec<u8>],
    ) -> Result<usize, StoreError> {
        let mut rewrapped = 0;
        for place in places {
            // What was written in this group is under the sealing key.
            if draft.rows.contains_key(place) || self.shared.is_damaged(place) {
                continue;
            }
            let Some(row) = turn.get(place)? else {
                continue;
            };
            match self.shared.sealer.rewrap(place, &row) {
                Ok(Some(new)) => {
                    draft.rows.insert(place.clone(), (Some(row), Some(new)));
                    rewrapped += 1;
                }
                Ok(None) => {}
                Err(cause) => drop(self.shared.note(place, cause)),
            }
        }
        Ok(rewrapped)
    }
}

fn no_head() -> StoreError {
    StoreError::Damaged(
        "the head is missing or does not open; restart Countersign, which says what to do".into(),
    )
}
