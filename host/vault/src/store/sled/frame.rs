//! How a row lies in sled: a layout byte, revision, expiry, body. Beside rows
//! that expire lies an entry of the index: first byte of the key, expiry, key.

use super::super::Row;

const LAYOUT: u8 = 1;
const NEVER: i64 = i64::MAX;
const ROWS: u8 = b'r';
const INDEX: u8 = b'x';

/// Where the number of commits is kept, apart from all rows.
pub(super) const COMMITS: &[u8] = b"c";

/// Is there once the index is whole.
pub(super) const INDEXED: &[u8] = b"i";

pub(super) fn row_key(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(ROWS);
    out.extend_from_slice(key);
    out
}

pub(super) fn user_key(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(&[ROWS])
}

pub(super) fn encode(row: &Row) -> Vec<u8> {
    let mut out = Vec::with_capacity(17 + row.body.len());
    out.push(LAYOUT);
    out.extend_from_slice(&row.revision.to_be_bytes());
    out.extend_from_slice(&row.expires_at.unwrap_or(NEVER).to_be_bytes());
    out.extend_from_slice(&row.body);
    out
}

fn split(bytes: &[u8]) -> Option<(u64, Option<i64>, &[u8])> {
    let (&[layout], rest) = bytes.split_first_chunk::<1>()?;
    let (revision, rest) = rest.split_first_chunk::<8>()?;
    let (expires_at, body) = rest.split_first_chunk::<8>()?;
    let expires_at = Some(i64::from_be_bytes(*expires_at)).filter(|t| *t != NEVER);
    (layout == LAYOUT).then_some((u64::from_be_bytes(*revision), expires_at, body))
}

/// In the order of time, as bytes are compared.
fn in_order(time: i64) -> [u8; 8] {
    (time ^ i64::MIN).to_be_bytes()
}

/// Where the index has a row with this key that ends then.
pub(super) fn index_key(key: &[u8], expires_at: i64) -> Vec<u8> {
    let first = key.first().copied().unwrap_or_default();
    [&[INDEX, first][..], &in_order(expires_at), key].concat()
}

/// The part of the index with these first bytes whose rows end until `now`.
pub(super) fn index_until(first: u8, now: i64) -> std::ops::Range<Vec<u8>> {
    let start = vec![INDEX, first];
    // `NEVER` is not in the index, so nothing lies at the last millisecond.
    let end = [&start[..], &in_order(now.saturating_add(1))].concat();
    start..end
}

/// The row that an entry of the index stands for: key and revision.
pub(super) fn read_index(entry: &[u8], revision: &[u8]) -> Option<(Vec<u8>, u64)> {
    let key = entry.get(10..)?.to_vec();
    let revision = u64::from_be_bytes(revision.try_into().ok()?);
    Some((key, revision))
}

/// Revision and expiry.
pub(super) fn header(bytes: &[u8]) -> Option<(u64, Option<i64>)> {
    split(bytes).map(|(revision, expires_at, _)| (revision, expires_at))
}

/// A row of another layout keeps its bytes as body, at revision 0: whoever
/// opens it finds it damaged, and nothing of it is lost.
pub(super) fn decode(bytes: &[u8]) -> Row {
    match split(bytes) {
        Some((revision, expires_at, body)) => Row {
            revision,
            expires_at,
            body: body.to_vec(),
        },
        None => Row {
            revision: 0,
            expires_at: None,
            body: bytes.to_vec(),
        },
    }
}

/// A key some way behind `at`, still within `prefix`: the next second byte.
pub(super) fn further(at: &[u8], prefix: &[u8]) -> Option<Vec<u8>> {
    let mut next = at.to_vec();
    next.resize(prefix.len().max(1) + 1, 0);
    while let Some(last) = next.pop() {
        if let Some(more) = last.checked_add(1) {
            next.push(more);
            return next.starts_with(prefix).then_some(next);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_reads_back_as_it_was_framed(
            revision in any::<u64>(),
            expires_at in prop::option::of(i64::MIN..i64::MAX),
            body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let row = Row { revision, expires_at, body };
            let bytes = encode(&row);
            prop_assert_eq!(header(&bytes), Some((revision, expires_at)));
            prop_assert_eq!(decode(&bytes), row);
        }

        #[test]
        fn the_index_is_in_order_of_time_and_ends_with_what_is_due(
            key in prop::collection::vec(any::<u8>(), 1..40),
            expires_at in i64::MIN..i64::MAX, now in i64::MIN..i64::MAX,
        ) {
            let entry = index_key(&key, expires_at);
            prop_assert_eq!(index_until(key[0], now).contains(&entry), expires_at <= now);
            prop_assert_eq!(read_index(&entry, &7u64.to_be_bytes()), Some((key, 7)));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&bytes);
            let _ = header(&bytes);
        }

        #[test]
        fn going_further_always_goes_forward_and_stays_within(
            prefix in prop::collection::vec(any::<u8>(), 0..4),
            tail in prop::collection::vec(any::<u8>(), 0..6),
        ) {
            let at = [prefix.clone(), tail].concat();
            if let Some(next) = further(&at, &prefix) {
                prop_assert!(next > at && next.starts_with(&prefix));
            }
        }
    }
}
