//! The head: count and keyed sum of all records' versions.
//!
//! Each version of a record (place, revision, nonce) has a keyed 256-bit value
//! that nobody without the key can compute; the head holds their sum. Adding,
//! replacing and removing a record changes it at a cost that does not depend
//! on how many there are.

use countersign_core::secret::{SealBroken, SealKey};

use crate::layout;
use crate::store::Row;

/// Where the head lies in the store.
pub(crate) const HEAD_KEY: &[u8] = b"\0head";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) count: u64,
    sum: [u64; 4],
}

impl Head {
    pub(crate) fn add(&mut self, key: &SealKey, place: &[u8], row: &Row) {
        self.plus(value(key, place, row), 1);
    }

    /// Adds what another part of the records adds up to.
    pub(crate) fn merge(&mut self, part: Self) {
        self.plus(part.sum, part.count);
    }

    fn plus(&mut self, value: [u64; 4], count: u64) {
        let mut carry = false;
        for (sum, part) in self.sum.iter_mut().zip(value) {
            let (a, over) = sum.overflowing_add(part);
            let (b, over_again) = a.overflowing_add(u64::from(carry));
            (*sum, carry) = (b, over || over_again);
        }
        self.count = self.count.wrapping_add(count);
    }

    pub(crate) fn remove(&mut self, key: &SealKey, place: &[u8], row: &Row) {
        let mut borrow = false;
        for (sum, part) in self.sum.iter_mut().zip(value(key, place, row)) {
            let (a, under) = sum.overflowing_sub(part);
            let (b, under_again) = a.overflowing_sub(u64::from(borrow));
            (*sum, borrow) = (b, under || under_again);
        }
        self.count = self.count.wrapping_sub(1);
    }

    pub(crate) fn seal(&self, key: &SealKey, nonce: [u8; 24], revision: u64) -> Row {
        let mut plain = Vec::with_capacity(40);
        for word in std::iter::once(self.count).chain(self.sum) {
            plain.extend_from_slice(&word.to_le_bytes());
        }
        Row {
            revision,
            expires_at: None,
            body: key.seal(nonce, &aad(revision), &plain),
        }
    }

    pub(crate) fn open(key: &SealKey, row: &Row) -> Result<Self, SealBroken> {
        let plain = key.open(&aad(row.revision), &row.body)?;
        let (words, rest) = plain.as_chunks::<8>();
        let [count, sum @ ..]: [u64; 5] = words
            .iter()
            .map(|w| u64::from_le_bytes(*w))
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|_| SealBroken)?;
        if rest.is_empty() {
            Ok(Self { count, sum })
        } else {
            Err(SealBroken)
        }
    }
}

fn value(key: &SealKey, place: &[u8], row: &Row) -> [u64; 4] {
    let mac = key.mac(&[
        b"version",
        place,
        &row.revision.to_le_bytes(),
        layout::fingerprint(&row.body),
    ]);
    let (words, _) = mac.as_chunks::<8>();
    let mut out = [0; 4];
    for (to, from) in out.iter_mut().zip(words) {
        *to = u64::from_le_bytes(*from);
    }
    out
}

fn aad(revision: u64) -> Vec<u8> {
    [b"head 1", &revision.to_le_bytes()[..]].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_sum_depends_on_what_is_there_and_not_on_the_way_there(
            revisions in prop::collection::vec(any::<u64>(), 0..20), gone in any::<u64>(),
        ) {
            let key = SealKey::new([9; 32]);
            let row = |revision| Row { revision, expires_at: None, body: vec![1; 50] };
            let (mut there, mut back) = (Head::default(), Head::default());
            for r in &revisions { there.add(&key, b"p", &row(*r)); }
            back.add(&key, b"gone", &row(gone));
            for r in revisions.iter().rev() { back.add(&key, b"p", &row(*r)); }
            let (front, rest) = revisions.split_at(revisions.len() / 2);
            let mut merged = Head::default();
            for part in [rest, front] {
                let mut head = Head::default();
                for r in part { head.add(&key, b"p", &row(*r)); }
                merged.merge(head);
            }
            prop_assert_eq!(there, merged);
            prop_assert_ne!(there, back);
            back.remove(&key, b"gone", &row(gone));
            prop_assert_eq!(there, back);
            let sealed = there.seal(&key, [3; 24], 7);
            prop_assert_eq!(Head::open(&key, &sealed), Ok(there));
            let older = Row { revision: 6, ..sealed };
            prop_assert!(Head::open(&key, &older).is_err());
        }
    }
}
