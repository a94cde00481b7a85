//! One moment of the database, while writes go on.
//!
//! sled itself has none: whoever commits first keeps the rows that it replaces
//! for the views that are open, so a view costs what is changed while it is
//! read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use countersign_core::ports::{BoxFuture, StoreError};

use super::super::{Page, Row, View};
use super::{Shared, failed};

/// Most bytes kept for one view.
const MOST: usize = 512 * 1024 * 1024;

/// The views that are open.
#[derive(Default)]
pub(super) struct Views(Mutex<Open>);

/// Locked while a commit changes the database, and while a view reads.
#[derive(Default)]
pub(super) struct Open {
    last: u64,
    kept: HashMap<u64, Kept>,
}

#[derive(Default)]
struct Kept {
    rows: BTreeMap<Vec<u8>, Option<Row>>,
    bytes: usize,
}

impl Views {
    pub(super) fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self) -> u64 {
        let mut open = self.lock();
        open.last += 1;
        let number = open.last;
        open.kept.insert(number, Kept::default());
        number
    }

    pub(super) fn end(&self, number: u64) {
        self.lock().kept.remove(&number);
    }
}

impl Open {
    /// A row is about to be replaced.
    pub(super) fn keep(&mut self, key: &[u8], old: Option<&Row>) {
        for view in self.kept.values_mut() {
            if view.bytes > MOST || view.rows.contains_key(key) {
                continue;
            }
            view.bytes += key.len() + old.map_or(0, |row| row.body.len()) + 64;
            view.rows.insert(key.to_vec(), old.cloned());
        }
    }
}

/// One of them.
pub(super) struct SledView<'a> {
    shared: &'a Shared,
    number: u64,
}

impl<'a> SledView<'a> {
    pub(super) fn new(shared: &'a Shared, number: u64) -> Self {
        Self { shared, number }
    }

    fn scan_now(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Page, StoreError> {
        let open = self.shared.views.lock();
        let kept = open
            .kept
            .get(&self.number)
            .ok_or_else(|| failed("the view was closed"))?;
        if kept.bytes > MOST {
            return Err(failed(
                "too much was written while the database was being read; try again at a quieter time",
            ));
        }
        // What sled has now, and what is not durable yet: for these rows
        // nothing was kept, or it is in `kept`.
        let mut page = self.shared.scan_stored(prefix, from, limit)?;
        page.rows.retain(|(key, _)| !kept.rows.contains_key(key));
        let start = prefix.max(from).to_vec();
        let before_next = |key: &Vec<u8>| {
            page.next.as_ref().is_none_or(|next| key < next) && key.starts_with(prefix)
        };
        let mut old: Vec<(Vec<u8>, Row)> = kept
            .rows
            .range(start..)
            .take_while(|(key, _)| before_next(key))
            .filter_map(|(key, row)| Some((key.clone(), row.clone()?)))
            .collect();
        page.rows.append(&mut old);
        page.rows.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(page)
    }
}

impl Drop for SledView<'_> {
    fn drop(&mut self) {
        self.shared.views.end(self.number);
    }
}

impl View for SledView<'_> {
    fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        from: &'a [u8],
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(std::future::ready(self.scan_now(prefix, from, limit)))
    }
}
