//! How a record's body lies in the store.
//!
//! | bytes | |
//! |---|---|
//! | 1 | layout, 1 |
//! | 1 | kind |
//! | 8 | id of the key-encryption key; zero without a secret half |
//! | 2 | length of the wrapped data key, little endian |
//! | 2 | length of the sealed secret half, little endian |
//! | … | sealed public half, its nonce first |
//! | … | wrapped data key |
//! | … | sealed secret half |
//!
//! Revision and expiry stand beside the body, in [`crate::store::Row`], where
//! the store itself needs them. The sealed public half is bound to both and to
//! the header. Opened, it is partition, name (each after two bytes of length)
//! and document.

use countersign_core::ports::Version;
use countersign_core::secret::SEAL_OVERHEAD;

use crate::keys::KekId;

pub(crate) const LAYOUT: u8 = 1;
const HEADER: usize = 14;
const NONCE: usize = 24;

/// Why a body is none of this layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it is cut short")]
    Short,
    #[error("it has layout {0}, which this version does not know")]
    Layout(u8),
}

/// A body in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Body<'a> {
    pub(crate) header: [u8; HEADER],
    pub(crate) kind: u8,
    pub(crate) kek: KekId,
    pub(crate) document: &'a [u8],
    pub(crate) wrapped: &'a [u8],
    pub(crate) secret: &'a [u8],
}

impl<'a> Body<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, rest) = bytes
            .split_first_chunk::<HEADER>()
            .ok_or(Malformed::Short)?;
        let [layout, kind, a, b, c, d, e, f, g, h, w0, w1, s0, s1] = *header;
        if layout != LAYOUT {
            return Err(Malformed::Layout(layout));
        }
        let halves = usize::from(u16::from_le_bytes([w0, w1]));
        let secret = usize::from(u16::from_le_bytes([s0, s1]));
        let document = rest
            .len()
            .checked_sub(halves + secret)
            .ok_or(Malformed::Short)?;
        let (document, rest) = rest.split_at_checked(document).ok_or(Malformed::Short)?;
        let (wrapped, secret) = rest.split_at_checked(halves).ok_or(Malformed::Short)?;
        if document.len() < SEAL_OVERHEAD {
            return Err(Malformed::Short);
        }
        let kek = KekId([a, b, c, d, e, f, g, h]);
        Ok(Self {
            header: *header,
            kind,
            kek,
            document,
            wrapped,
            secret,
        })
    }

    /// The nonce of the public half: fresh in every version of a record.
    pub(crate) fn nonce(&self) -> &'a [u8] {
        self.document.get(..NONCE).unwrap_or_default()
    }
}

impl Body<'_> {
    /// Tells this version of the record from all others.
    pub(crate) fn version(&self) -> Version {
        let nonce = self.document.first_chunk::<NONCE>();
        Version(nonce.copied().unwrap_or_default())
    }
}

/// The header of a body with these parts.
pub(crate) fn header(kind: u8, kek: KekId, wrapped: usize, secret: usize) -> Option<[u8; HEADER]> {
    let [w0, w1] = u16::try_from(wrapped).ok()?.to_le_bytes();
    let [s0, s1] = u16::try_from(secret).ok()?.to_le_bytes();
    let [a, b, c, d, e, f, g, h] = kek.0;
    Some([LAYOUT, kind, a, b, c, d, e, f, g, h, w0, w1, s0, s1])
}

/// What tells one version of a record from all others: header and nonce.
pub(crate) fn fingerprint(body: &[u8]) -> &[u8] {
    body.get(..HEADER + NONCE).unwrap_or(body)
}

/// Frames what is sealed as the public half.
pub(crate) fn frame_document(partition: &str, name: &str, document: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(4 + partition.len() + name.len() + document.len());
    for text in [partition, name] {
        out.extend_from_slice(&u16::try_from(text.len()).ok()?.to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(document);
    Some(out)
}

/// Partition, name and document.
pub(crate) fn read_document(framed: &[u8]) -> Option<(&str, &str, &[u8])> {
    fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        Some((std::str::from_utf8(text).ok()?, rest))
    }
    let (partition, rest) = text(framed)?;
    let (name, document) = text(rest)?;
    Some((partition, name, document))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(range: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), range)
    }

    proptest! {
        #[test]
        fn a_body_reads_back_as_it_was_framed(
            kind in any::<u8>(), kek in any::<[u8; 8]>(),
            document in bytes(40..300), wrapped in bytes(0..100), secret in bytes(0..300),
        ) {
            let header = header(kind, KekId(kek), wrapped.len(), secret.len()).unwrap();
            let body = [&header[..], &document, &wrapped, &secret].concat();
            let read = Body::parse(&body).unwrap();
            prop_assert_eq!(&read, &Body {
                header, kind, kek: KekId(kek), document: &document, wrapped: &wrapped, secret: &secret,
            });
            prop_assert!(fingerprint(&body).ends_with(read.nonce()));
        }

        #[test]
        fn a_document_reads_back_as_it_was_framed(
            partition in ".{0,40}", name in ".{0,40}", document in bytes(0..100),
        ) {
            let framed = frame_document(&partition, &name, &document).unwrap();
            prop_assert_eq!(
                read_document(&framed),
                Some((partition.as_str(), name.as_str(), document.as_slice()))
            );
        }

        #[test]
        fn no_bytes_make_the_readers_panic(bytes in bytes(0..120)) {
            let _ = Body::parse(&bytes);
            let _ = fingerprint(&bytes);
            let _ = read_document(&bytes);
        }
    }
}
