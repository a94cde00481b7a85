//! Sealing and opening of one backup's chunks.

use countersign_core::secret::{SEAL_OVERHEAD, SealKey};
use countersign_core::time::Timestamp;

use crate::store::{LONGEST_BODY, Row};

pub(super) const MAGIC: &[u8] = b"countersign-backup-1\n";
pub(super) const ID: usize = 16;
/// A chunk is closed when it is this long, before it is sealed.
pub(super) const FULL: usize = 64 * 1024;
/// A longer one is none of ours.
pub(super) const LONGEST: usize = FULL + 256 + LONGEST_BODY + SEAL_OVERHEAD;

/// The keys of one backup.
pub(super) struct Chunks {
    key: SealKey,
    /// MAC of everything before the first chunk.
    header: [u8; 32],
}

impl Chunks {
    pub(super) fn new(root: &SealKey, header: &[u8]) -> Self {
        let root = root.derive("vault backup 1");
        let key = SealKey::new(root.mac(&[b"chunks", header]));
        let header = root.mac(&[b"header", header]);
        Self { key, header }
    }

    /// The chunk as it stands in the file. Chunks count from 0.
    pub(super) fn seal(
        &self,
        nonce: [u8; 24],
        number: u64,
        is_last: bool,
        plain: &[u8],
    ) -> Vec<u8> {
        let sealed = self.key.seal(nonce, &self.aad(number, is_last), plain);
        let length = u32::try_from(sealed.len()).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(5 + sealed.len());
        out.extend_from_slice(&length.to_le_bytes());
        out.push(u8::from(is_last));
        out.extend_from_slice(&sealed);
        out
    }

    pub(super) fn open(&self, number: u64, is_last: bool, sealed: &[u8]) -> Option<Vec<u8>> {
        let plain = self.key.open(&self.aad(number, is_last), sealed).ok()?;
        Some(plain.to_vec())
    }

    fn aad(&self, number: u64, is_last: bool) -> Vec<u8> {
        let mut out = b"backup chunk 1".to_vec();
        out.extend_from_slice(&self.header);
        out.extend_from_slice(&number.to_le_bytes());
        out.push(u8::from(is_last));
        out
    }
}

/// What stands before the first chunk.
pub(super) fn header(id: [u8; ID], created_at: Timestamp, check: &Row) -> Option<Vec<u8>> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&id);
    out.extend_from_slice(&created_at.as_millis().to_le_bytes());
    out.extend_from_slice(&check.revision.to_le_bytes());
    out.extend_from_slice(&u16::try_from(check.body.len()).ok()?.to_le_bytes());
    out.extend_from_slice(&check.body);
    Some(out)
}

/// A row and its place, as they stand in a chunk.
pub(super) fn frame(out: &mut Vec<u8>, place: &[u8], row: &Row) {
    let length = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes();
    out.extend_from_slice(&length(place.len()));
    out.extend_from_slice(place);
    out.extend_from_slice(&row.revision.to_le_bytes());
    out.push(u8::from(row.expires_at.is_some()));
    out.extend_from_slice(&row.expires_at.unwrap_or_default().to_le_bytes());
    out.extend_from_slice(&length(row.body.len()));
    out.extend_from_slice(&row.body);
}

/// Takes the first row off.
pub(super) fn read_frame<'a>(bytes: &mut &'a [u8]) -> Option<(Vec<u8>, Row)> {
    fn part<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (part, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(part)
    }
    fn number<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (number, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(*number)
    }
    let length = usize::from(u16::from_le_bytes(number(bytes)?));
    let place = part(bytes, length)?.to_vec();
    let revision = u64::from_le_bytes(number(bytes)?);
    let [expires] = number(bytes)?;
    let at = i64::from_le_bytes(number(bytes)?);
    let length = usize::from(u16::from_le_bytes(number(bytes)?));
    let body: &'a [u8] = part(bytes, length)?;
    let row = Row {
        revision,
        expires_at: (expires == 1).then_some(at),
        body: body.to_vec(),
    };
    (expires <= 1 && body.len() <= LONGEST_BODY).then_some((place, row))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_read_back_as_they_were_framed(rows in prop::collection::vec((
            prop::collection::vec(any::<u8>(), 0..60), any::<u64>(),
            prop::option::of(any::<i64>()), prop::collection::vec(any::<u8>(), 0..300),
        ), 0..5)) {
            let mut bytes = Vec::new();
            let rows: Vec<(Vec<u8>, Row)> = rows.into_iter()
                .map(|(place, revision, expires_at, body)| (place, Row { revision, expires_at, body }))
                .collect();
            for (place, row) in &rows {
                frame(&mut bytes, place, row);
            }
            let mut rest = bytes.as_slice();
            for row in rows {
                prop_assert_eq!(read_frame(&mut rest), Some(row));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = read_frame(&mut bytes.as_slice());
        }

        #[test]
        fn a_chunk_opens_only_in_its_place(number in 0u64..9, other in 0u64..9, last in any::<bool>()) {
            let chunks = Chunks::new(&SealKey::new([1; 32]), b"header");
            let sealed = chunks.seal([5; 24], number, last, b"plain");
            prop_assert!(chunks.open(number, last, &sealed[5..]).is_some());
            prop_assert_eq!(chunks.open(other, last, &sealed[5..]).is_some(), other == number);
            prop_assert!(chunks.open(number, !last, &sealed[5..]).is_none());
            let another = Chunks::new(&SealKey::new([1; 32]), b"another");
            prop_assert!(another.open(number, last, &sealed[5..]).is_none());
        }
    }
}
