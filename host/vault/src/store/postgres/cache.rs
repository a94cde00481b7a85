//! Rows read lately, good for as long as the database is known to have no
//! newer ones.
//!
//! Every batch in the database has a number. The cache knows up to which it has
//! heard; an entry goes as soon as a batch is heard of that changed it. While
//! nothing is heard for [`GOOD_FOR`] the cache answers nothing, so that what
//! another host did is seen within that time, whatever happened to the network
//! or to this process.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::store::Row;

/// How long after it was told the latest the cache answers, in microseconds.
pub(super) const GOOD_FOR: u64 = 800_000;

/// What an entry costs beside its bytes.
const ENTRY: usize = 160;

/// A batch: its number, and the name that tells it from one that got the same
/// number after the database went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) change: i64,
    pub(super) batch: [u8; 16],
}

/// The rows. When the young half is full it becomes the old one, whose entries
/// go unless they are asked for again.
pub(super) struct Cache {
    most: usize,
    inner: RwLock<Inner>,
}

struct Inner {
    young: HashMap<Vec<u8>, Option<Row>>,
    old: HashMap<Vec<u8>, Option<Row>>,
    /// Bytes of the young half.
    bytes: usize,
    heard: Mark,
    /// When the database was last asked what is new, in microseconds.
    asked_at: Option<u64>,
}

impl Cache {
    /// An empty cache of at most so many bytes.
    pub(super) fn new(most: usize, heard: Mark) -> Self {
        Self {
            most,
            inner: RwLock::new(Inner {
                young: HashMap::new(),
                old: HashMap::new(),
                bytes: 0,
                heard,
                asked_at: None,
            }),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is under the key, as of at most [`GOOD_FOR`] before `now`; none if
    /// that is not known here.
    pub(super) fn get(&self, key: &[u8], now: u64) -> Option<Option<Row>> {
        let inner = self.read();
        if !is_good(inner.asked_at, now) {
            return None;
        }
        if let Some(row) = inner.young.get(key) {
            return Some(row.clone());
        }
        let row = inner.old.get(key)?.clone();
        let heard = inner.heard.change;
        drop(inner);
        self.insert(heard, key, row.clone());
        Some(row)
    }

    /// What is under the key up to [`Cache::heard`], however long ago that was.
    pub(super) fn peek(&self, key: &[u8]) -> Option<Option<Row>> {
        let inner = self.read();
        inner.young.get(key).or_else(|| inner.old.get(key)).cloned()
    }

    /// Remembers what was read when `change` was the latest batch. It is not
    /// remembered if a later one was heard of meanwhile.
    pub(super) fn insert(&self, change: i64, key: &[u8], row: Option<Row>) {
        let mut inner = self.write();
        if change < inner.heard.change {
            return;
        }
        let cost = |row: &Option<Row>| ENTRY + key.len() + row.as_ref().map_or(0, |r| r.body.len());
        inner.bytes += cost(&row);
        inner.old.remove(key);
        if let Some(before) = inner.young.insert(key.to_vec(), row) {
            inner.bytes = inner.bytes.saturating_sub(cost(&before));
        }
        if inner.bytes > self.most / 2 {
            inner.old = std::mem::take(&mut inner.young);
            inner.bytes = 0;
        }
    }

    /// The latest batch that was heard of.
    pub(super) fn heard(&self) -> Mark {
        self.read().heard
    }

    /// Every batch up to this one was heard of, and changed these keys.
    pub(super) fn hear<'a>(&self, mark: Mark, keys: impl IntoIterator<Item = &'a [u8]>) {
        let mut inner = self.write();
        for key in keys {
            inner.old.remove(key);
            if let Some(row) = inner.young.remove(key) {
                let cost = ENTRY + key.len() + row.map_or(0, |r| r.body.len());
                inner.bytes = inner.bytes.saturating_sub(cost);
            }
        }
        if mark.change > inner.heard.change {
            inner.heard = mark;
        }
    }

    /// Forgets everything: nobody knows what changed.
    pub(super) fn clear(&self, heard: Mark) {
        let mut inner = self.write();
        inner.young.clear();
        inner.old.clear();
        inner.bytes = 0;
        inner.heard = heard;
    }

    /// The database was asked at this time, and what it said was heard.
    pub(super) fn confirm(&self, asked_at: u64) {
        let mut inner = self.write();
        inner.asked_at = Some(inner.asked_at.map_or(asked_at, |at| at.max(asked_at)));
    }

    /// Whether it answers.
    pub(super) fn is_good(&self, now: u64) -> bool {
        is_good(self.read().asked_at, now)
    }

    /// When the database last said what is new.
    pub(super) fn asked_at(&self) -> Option<u64> {
        self.read().asked_at
    }
}

fn is_good(asked_at: Option<u64>, now: u64) -> bool {
    asked_at.is_some_and(|at| now.saturating_sub(at) < GOOD_FOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(revision: u64, bytes: usize) -> Option<Row> {
        Some(Row {
            revision,
            expires_at: None,
            body: vec![0; bytes],
        })
    }

    fn mark(change: i64) -> Mark {
        Mark {
            change,
            batch: [0; 16],
        }
    }

    fn cache(most: usize) -> Cache {
        let cache = Cache::new(most, mark(5));
        cache.confirm(0);
        cache
    }

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let cache = cache(1 << 20);
        cache.insert(5, b"a", row(1, 10));
        assert_eq!(cache.get(b"a", 0), Some(row(1, 10)));
        cache.hear(mark(6), [&b"a"[..]]);
        assert_eq!(cache.get(b"a", 0), None);
        // A slow reader comes with the old row.
        cache.insert(5, b"a", row(1, 10));
        assert_eq!(cache.get(b"a", 0), None);
        cache.insert(6, b"a", row(2, 10));
        // Heard of once more, as the one who listens does: at worst it is read
        // again.
        cache.hear(mark(4), []);
        assert_eq!(cache.heard(), mark(6));
        assert_eq!(cache.get(b"a", 0), Some(row(2, 10)));
    }

    #[test]
    fn a_cache_that_hears_nothing_answers_nothing() {
        let cache = cache(1 << 20);
        cache.insert(5, b"a", None);
        assert_eq!(cache.get(b"a", GOOD_FOR - 1), Some(None));
        assert_eq!(cache.get(b"a", GOOD_FOR), None);
        assert_eq!(cache.peek(b"a"), Some(None));
        cache.confirm(GOOD_FOR);
        assert_eq!(cache.get(b"a", GOOD_FOR), Some(None));
    }

    #[test]
    fn it_keeps_to_its_size_and_keeps_what_is_asked_for() {
        let most = 20 * (ENTRY + 1000);
        let cache = cache(most);
        for n in 0..1000u64 {
            cache.insert(5, &n.to_be_bytes(), row(n, 992));
            assert!(cache.get(&0u64.to_be_bytes(), 0).is_some(), "{n}");
            let inner = cache.read();
            assert!(inner.young.len() + inner.old.len() <= 21, "{n}");
        }
    }
}
