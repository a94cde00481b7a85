//! Secrets, and the only ways they may leave memory: sealed, or filled into a
//! request by this crate.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Bytes nobody may see. Zeroized on drop.
///
/// There is no `Debug`, `Display`, `Clone`, `Serialize` or `PartialEq`, and no
/// public way to read it: [`crate::inject`] and [`crate::tokens`] fill it into
/// requests, [`Secret::seal`] encrypts it.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over; the caller's buffer becomes this secret's.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Takes text over.
    #[must_use]
    pub fn from_text(text: String) -> Self {
        Self::new(text.into_bytes())
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Compares in constant time for equal lengths.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }

    /// Whether `text` holds this secret or is a piece of it, eight bytes or
    /// longer. Used to refuse "facts" that are secrets in disguise.
    #[must_use]
    pub fn overlaps(&self, text: &str) -> bool {
        const SHORTEST: usize = 8;
        let (secret, text) = (self.0.as_slice(), text.as_bytes());
        if secret.is_empty() || text.is_empty() {
            return false;
        }
        let contains = |hay: &[u8], needle: &[u8]| {
            needle.len() <= hay.len() && hay.windows(needle.len()).any(|w| w == needle)
        };
        contains(text, secret)
            || (text.len() >= SHORTEST
                && text.windows(SHORTEST).any(|piece| contains(secret, piece)))
    }

    /// Encrypts under `key`, bound to `aad`. The nonce must be fresh random.
    #[must_use]
    pub fn seal(&self, key: &SealKey, nonce: [u8; 24], aad: &[u8]) -> Vec<u8> {
        key.seal(nonce, aad, &self.0)
    }

    /// Decrypts what [`Secret::seal`] made.
    ///
    /// # Errors
    /// [`SealBroken`] if key, `aad` or bytes are not the ones it was made with.
    pub fn open(key: &SealKey, aad: &[u8], sealed: &[u8]) -> Result<Self, SealBroken> {
        key.open(aad, sealed).map(Self)
    }

    /// An HMAC-SHA256 of the secret under `key`: recognises it again (an API
    /// token, a session cookie) without keeping it.
    #[must_use]
    pub fn fingerprint(&self, key: &SealKey) -> [u8; 32] {
        key.mac(&[&self.0])
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// For a request's body, which zeroizes it in its turn.
    pub(crate) fn into_zeroizing(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    pub(crate) fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

/// A 256-bit key for sealing and for keyed hashes. Zeroized on drop.
pub struct SealKey(Zeroizing<[u8; 32]>);

/// The sealed bytes were not made with this key for this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed bytes are damaged, or were sealed with another key or for another place")]
pub struct SealBroken;

/// Bytes that a [`SealKey::seal`] adds to its plaintext: nonce and tag.
pub const SEAL_OVERHEAD: usize = 24 + 16;

impl SealKey {
    /// Takes the key over.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A key for another purpose, derived from this one (HMAC-SHA256 of the
    /// purpose's name, which must be unique in the program).
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Self {
        Self::new(self.mac(&[b"countersign key derivation 1\0", purpose.as_bytes()]))
    }

    /// HMAC-SHA256 over the parts, each preceded by its length.
    #[must_use]
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.for_macs().mac(parts)
    }

    /// This key, made ready for many [`MacKey::mac`]: half the work of each.
    #[must_use]
    pub fn for_macs(&self) -> MacKey {
        let keyed = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(self.0.as_slice())
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        MacKey(keyed)
    }

    /// XChaCha20-Poly1305; the result is nonce, ciphertext, tag.
    #[must_use]
    pub fn seal(&self, nonce: [u8; 24], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let cipher = XChaCha20Poly1305::new((&*self.0).into());
        let sealed = cipher
            .encrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: plaintext,
                    aad,
                },
            )
            .unwrap_or_else(|_| unreachable!("a record is far shorter than the cipher's limit"));
        let mut out = Vec::with_capacity(24 + sealed.len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        out
    }

    /// Opens what [`SealKey::seal`] made.
    ///
    /// # Errors
    /// [`SealBroken`] if anything differs.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealBroken> {
        let (nonce, ciphertext) = sealed.split_first_chunk::<24>().ok_or(SealBroken)?;
        let cipher = XChaCha20Poly1305::new((&*self.0).into());
        cipher
            .decrypt(
                &XNonce::from(*nonce),
                Payload {
                    msg: ciphertext,
                    aad,
                },
            )
            .map(Zeroizing::new)
            .map_err(|_| SealBroken)
    }

    /// Wraps this key under another one.
    #[must_use]
    pub fn wrap(&self, by: &SealKey, nonce: [u8; 24], aad: &[u8]) -> Vec<u8> {
        by.seal(nonce, aad, self.0.as_slice())
    }

    /// Unwraps a key that [`SealKey::wrap`] made.
    ///
    /// # Errors
    /// [`SealBroken`] if it was wrapped otherwise, or is no key.
    pub fn unwrap(by: &SealKey, aad: &[u8], wrapped: &[u8]) -> Result<Self, SealBroken> {
        let bytes = by.open(aad, wrapped)?;
        let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| SealBroken)?;
        Ok(Self::new(key))
    }
}

/// A key for keyed hashes only, ready to be used often. Zeroized on drop.
pub struct MacKey(Hmac<Sha256>);

impl MacKey {
    /// What [`SealKey::mac`] of the key it was made from gives.
    #[must_use]
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// A secret as the vault hands it out: still encrypted, with the key and the
/// place that open it. Only this crate can open it.
pub struct Sealed {
    key: SealKey,
    aad: Vec<u8>,
    bytes: Vec<u8>,
}

impl Sealed {
    /// Puts together what is needed to open `bytes` later.
    #[must_use]
    pub fn new(key: SealKey, aad: Vec<u8>, bytes: Vec<u8>) -> Self {
        Self { key, aad, bytes }
    }

    /// Whether it can be opened: for verification at start-up, without the
    /// plaintext leaving this function.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.open().is_ok()
    }

    /// A key derived from this secret for one purpose, by a one-way function:
    /// the secret itself stays sealed.
    ///
    /// # Errors
    /// [`SealBroken`] if it cannot be opened.
    pub fn derive_key(&self, purpose: &str) -> Result<SealKey, SealBroken> {
        let secret = self.open()?;
        Ok(SealKey::new(secret.fingerprint(&SealKey::new([0; 32]))).derive(purpose))
    }

    pub(crate) fn open(&self) -> Result<Secret, SealBroken> {
        Secret::open(&self.key, &self.aad, &self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_with_its_key_and_place() {
        let (key, other) = (SealKey::new([1; 32]), SealKey::new([2; 32]));
        let sealed = Secret::from_text("hush".into()).seal(&key, [7; 24], b"here");
        assert_eq!(Secret::open(&key, b"here", &sealed).map(|s| s.len()), Ok(4));
        assert!(Secret::open(&other, b"here", &sealed).is_err());
        assert!(Secret::open(&key, b"there", &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Secret::open(&key, b"here", &flipped).is_err(), "bit {bit}");
        }
        for cut in 0..sealed.len() {
            assert!(
                Secret::open(&key, b"here", &sealed[..cut]).is_err(),
                "cut {cut}"
            );
        }
    }

    #[test]
    fn a_piece_of_a_secret_is_recognised() {
        let secret = Secret::from_text("gho_0123456789abcdef".into());
        assert!(secret.overlaps("id gho_0123456789abcdef!"));
        assert!(secret.overlaps("23456789"));
        assert!(!secret.overlaps("T0123"));
        assert!(!secret.overlaps("an-unrelated-account"));
    }

    #[test]
    fn a_wrapped_key_unwraps_to_itself() {
        let (kek, key) = (SealKey::new([3; 32]), SealKey::new([4; 32]));
        let wrapped = key.wrap(&kek, [5; 24], b"c");
        let back = SealKey::unwrap(&kek, b"c", &wrapped).ok();
        assert!(back.is_some_and(|k| k.mac(&[b"x"]) == key.mac(&[b"x"])));
    }
}
