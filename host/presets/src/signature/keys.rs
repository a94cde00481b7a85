//! Ed25519 keys of publishers (RFC 8032).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::ports::Random;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Before the base64 of a public key.
const PREFIX: &str = "ed25519:";

/// Why a key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A public key in another form.
    #[error(
        "{0:?} is no public key: write ed25519: and the base64 of its 32 bytes, as `preset keygen` prints it"
    )]
    NotPublic(String),
    /// 32 bytes that are no key, or one whose signatures anybody could make.
    #[error("{0:?} is not a usable Ed25519 key; ask the publisher for the right one")]
    Weak(String),
    /// A private key in another form.
    #[error("the key file holds no Ed25519 private key in PKCS#8 PEM; `preset keygen` makes one")]
    NotPrivate,
}

/// A publisher's public key: `ed25519:` and base64. Found good when it was made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Parses `ed25519:BASE64`.
    ///
    /// # Errors
    /// [`KeyError`]; keys of small order are refused, because a signature of
    /// theirs fits any message.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let shown = || text.chars().take(80).collect::<String>();
        let bytes = text
            .strip_prefix(PREFIX)
            .and_then(|encoded| STANDARD.decode(encoded).ok())
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or_else(|| KeyError::NotPublic(shown()))?;
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(bytes)),
            _ => Err(KeyError::Weak(shown())),
        }
    }

    /// Whether this key made this signature of this message. Strict: no second
    /// encoding of a good signature passes, and no point of small order.
    #[must_use]
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Self, KeyError> {
        Self::parse(&text)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// A publisher's private key. Zeroized on drop; no `Debug`, `Display`, `Clone`,
/// `Serialize` or `PartialEq`. It leaves this type only as the text of its file.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// A new one.
    #[must_use]
    pub fn generate(random: &dyn Random) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        random.fill(seed.as_mut_slice());
        Self(SigningKey::from_bytes(&seed))
    }

    /// Reads PKCS#8 PEM (RFC 8410), as [`Self::to_pem`] or
    /// `openssl genpkey -algorithm ed25519` write it.
    ///
    /// # Errors
    /// [`KeyError::NotPrivate`], without a word of what was there.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        match SigningKey::from_pkcs8_pem(text.trim()) {
            Ok(key) => Ok(Self(key)),
            Err(_) => Err(KeyError::NotPrivate),
        }
    }

    /// The text of its file: PKCS#8 PEM of version 1, which every OpenSSL reads.
    ///
    /// # Errors
    /// Never for a key of this type; the encoder's signature has one.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let mut pair = KeypairBytes {
            secret_key: self.0.to_bytes(),
            public_key: None,
        };
        let pem = pair.to_pkcs8_pem(LineEnding::LF);
        zeroize::Zeroize::zeroize(&mut pair.secret_key);
        pem.map_err(|_| KeyError::NotPrivate)
    }

    /// What others know it by.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::ports::fakes::CountingRandom;

    use super::*;

    #[test]
    fn a_key_is_what_it_was_after_its_file() {
        let key = PrivateKey::generate(&CountingRandom::default());
        let pem = key.to_pem().unwrap();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        let again = PrivateKey::from_pem(&pem).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(
            PublicKey::parse(&key.public().to_string()),
            Ok(key.public())
        );
    }

    #[test]
    fn a_key_of_openssl_is_read() {
        // RFC 8410, section 10.3: version 1, and version 2 with attributes and
        // public key.
        let one = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                   -----END PRIVATE KEY-----\n";
        let key = PrivateKey::from_pem(one).unwrap();
        assert_eq!(
            key.public().to_string(),
            "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
        );
        assert_eq!(PrivateKey::from_pem("x").err(), Some(KeyError::NotPrivate));
    }

    #[test]
    fn a_key_that_anybody_could_sign_for_is_refused() {
        // The identity, a point of order 2, a point of order 4, y = 2^255 - 19
        // (a second encoding of 0), and bytes that are no point.
        let mut cases = vec![[0; 32]; 4];
        cases[0][0] = 1;
        cases[1] = [0xff; 32];
        cases[1][0] = 0xec;
        cases[1][31] = 0x7f;
        cases[3] = [0xff; 32];
        cases[3][0] = 0xed;
        cases[3][31] = 0x7f;
        cases.push([2; 32]);
        for bytes in cases {
            let text = format!("{PREFIX}{}", STANDARD.encode(bytes));
            assert!(PublicKey::parse(&text).is_err(), "{text}");
        }
        for text in [
            "",
            "ed25519:",
            "ed25519:AA==",
            "rsa:AAAA",
            "ed25519:====",
            "AAAA",
        ] {
            assert!(
                matches!(PublicKey::parse(text), Err(KeyError::NotPublic(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn only_the_one_encoding_of_a_signature_passes() {
        let key = PrivateKey::generate(&CountingRandom::default());
        let good = key.sign(b"message");
        assert!(key.public().verifies(b"message", &good));
        assert!(!key.public().verifies(b"another", &good));
        // S + L is the same number to a lax verifier.
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
            0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut malleable = good;
        let mut carry = 0_u16;
        for (byte, add) in malleable[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        assert_eq!(carry, 0);
        assert!(!key.public().verifies(b"message", &malleable));
        for at in [0, 31, 32, 63] {
            let mut bad = good;
            bad[at] ^= 1;
            assert!(!key.public().verifies(b"message", &bad), "byte {at}");
        }
    }
}
