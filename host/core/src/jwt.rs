//! JSON Web Tokens made with keys that never leave this crate: the client's
//! assertions (RFC 7523 §2.2) and the host's own (RFC 7523 §2.1, RFC 8693).
//!
//! Claims are no secret; a signed token is, for as long as it is good: it comes
//! out as a [`Secret`], on its way into a request.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::secret::{Sealed, Secret};

/// A signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// RSASSA-PSS with SHA-256.
    #[serde(rename = "PS256")]
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA on P-384 with SHA-384.
    #[serde(rename = "ES384")]
    Es384,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Algorithm {
    /// As headers and metadata have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// Why a private key is no good. Never holds any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Something else was stored.
    #[error("is not a private key in PEM: it must begin with -----BEGIN PRIVATE KEY-----")]
    NotPem,
    /// The public half, or a certificate.
    #[error("is a {0}, not a private key")]
    NotPrivate(&'static str),
    /// It has a passphrase.
    #[error(
        "is encrypted with a passphrase; take it away with `openssl pkcs8 -topk8 -nodes -in key.pem`: Countersign encrypts it itself"
    )]
    Encrypted,
    /// RFC 5915.
    #[error(
        "is written as EC PRIVATE KEY; rewrite it with `openssl pkcs8 -topk8 -nodes -in key.pem`"
    )]
    Sec1,
    /// Another kind of key, or a damaged one.
    #[error(
        "is of a kind that is not supported, or damaged: use RSA with 2048 to 4096 bits, EC on P-256 or P-384, or Ed25519"
    )]
    Unsupported,
    /// It cannot make the signature that is asked for.
    #[error(
        "cannot sign with {asked}; a key of its kind signs with {}",
        words(able)
    )]
    Algorithm {
        /// What is asked for.
        asked: &'static str,
        /// What it can do.
        able: &'static [Algorithm],
    },
    /// The stored key cannot be opened.
    #[error("cannot be opened; set it again")]
    Unreadable,
    /// The signature could not be made.
    #[error("made no signature")]
    Failed,
}

fn words(able: &[Algorithm]) -> String {
    let words: Vec<_> = able.iter().map(|a| a.word()).collect();
    words.join(" or ")
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A private key that signs. It has no `Debug`, and its bytes cannot be had.
pub struct PrivateKey(Pair);

impl PrivateKey {
    /// Reads a PEM file's text.
    ///
    /// # Errors
    /// [`KeyError`] says what to give instead.
    pub fn parse(pem: &Secret) -> Result<Self, KeyError> {
        let (label, der) = pem_block(pem.expose_text().ok_or(KeyError::NotPem)?)?;
        match label {
            "PRIVATE KEY" => Self::of_pkcs8(&der),
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(&der)
                .map(|pair| Self(Pair::Rsa(pair)))
                .map_err(|_| KeyError::Unsupported),
            "EC PRIVATE KEY" => Err(KeyError::Sec1),
            "ENCRYPTED PRIVATE KEY" => Err(KeyError::Encrypted),
            "CERTIFICATE" => Err(KeyError::NotPrivate("certificate")),
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Err(KeyError::NotPrivate("public key")),
            _ => Err(KeyError::NotPem),
        }
    }

    /// Whether a stored key is one, and can sign so.
    ///
    /// # Errors
    /// [`KeyError`] says what to give instead.
    pub fn check(stored: &Sealed, wanted: Option<Algorithm>) -> Result<Algorithm, KeyError> {
        Self::open(stored)?.chosen(wanted)
    }

    pub(crate) fn open(stored: &Sealed) -> Result<Self, KeyError> {
        Self::parse(&stored.open().map_err(|_| KeyError::Unreadable)?)
    }

    fn of_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
            return Ok(Self(Pair::Rsa(pair)));
        }
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random) {
            return Ok(Self(Pair::P256(pair)));
        }
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der, &random) {
            return Ok(Self(Pair::P384(pair)));
        }
        // OpenSSL leaves the public half out (RFC 5958 §2 allows it).
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map(|pair| Self(Pair::Ed25519(pair)))
            .map_err(|_| KeyError::Unsupported)
    }

    fn algorithms(&self) -> &'static [Algorithm] {
        match self.0 {
            Pair::Rsa(_) => &[Algorithm::Rs256, Algorithm::Ps256],
            Pair::P256(_) => &[Algorithm::Es256],
            Pair::P384(_) => &[Algorithm::Es384],
            Pair::Ed25519(_) => &[Algorithm::EdDsa],
        }
    }

    /// The algorithm asked for, or the usual one of this kind of key.
    fn chosen(&self, wanted: Option<Algorithm>) -> Result<Algorithm, KeyError> {
        let able = self.algorithms();
        match wanted {
            Some(wanted) if !able.contains(&wanted) => Err(KeyError::Algorithm {
                asked: wanted.word(),
                able,
            }),
            Some(wanted) => Ok(wanted),
            None => able.first().copied().ok_or(KeyError::Unsupported),
        }
    }

    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        // Blinding, salts and nonces are ring's own business: it takes no other
        // source of randomness than the system's.
        let random = SystemRandom::new();
        match &self.0 {
            Pair::Rsa(pair) => {
                let padding: &dyn ring::signature::RsaEncoding = match algorithm {
                    Algorithm::Ps256 => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut signature)
                    .map_err(|_| KeyError::Failed)?;
                Ok(signature)
            }
            Pair::P256(pair) | Pair::P384(pair) => pair
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| KeyError::Failed),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }

    /// A signed token (RFC 7515 §7.1).
    ///
    /// # Errors
    /// [`KeyError`]; there is none.
    pub(crate) fn token(
        &self,
        wanted: Option<Algorithm>,
        key_id: Option<&str>,
        claims: &Map<String, Value>,
    ) -> Result<Secret, KeyError> {
        let algorithm = self.chosen(wanted)?;
        let mut header = json!({ "alg": algorithm.word(), "typ": "JWT" });
        if let Some(key_id) = key_id {
            header["kid"] = key_id.into();
        }
        let encode = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
        let claims = serde_json::to_vec(claims).map_err(|_| KeyError::Failed)?;
        let signed = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(&claims)
        );
        let signature = encode(&self.sign(algorithm, signed.as_bytes())?);
        Ok(Secret::from_text(format!("{signed}.{signature}")))
    }
}

/// The first block of a PEM file (RFC 7468 §3) that is not mere parameters.
fn pem_block(text: &str) -> Result<(&str, Zeroizing<Vec<u8>>), KeyError> {
    let mut rest = text;
    loop {
        let (_, begun) = rest.split_once("-----BEGIN ").ok_or(KeyError::NotPem)?;
        let (label, after) = begun.split_once("-----").ok_or(KeyError::NotPem)?;
        let (body, after) = after.split_once("-----END ").ok_or(KeyError::NotPem)?;
        if label == "EC PARAMETERS" {
            rest = after;
            continue;
        }
        // RFC 1421 §4.6.1.3: the old way of encrypting.
        if body.contains("ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let mut digits = Zeroizing::new(Vec::with_capacity(body.len()));
        digits.extend(body.bytes().filter(|b| !b.is_ascii_whitespace()));
        let mut der = Zeroizing::new(vec![0; digits.len() / 4 * 3 + 3]);
        let length = STANDARD
            .decode_slice(&*digits, &mut der)
            .map_err(|_| KeyError::NotPem)?;
        der.truncate(length);
        return Ok((label, der));
    }
}

/// A key pair of the host's own: ES256, which every verifier knows.
pub struct HostKey {
    /// PKCS #8, on its way into the vault.
    pub private: Secret,
    /// The public half, to be published.
    pub public: PublicKey,
}

/// The public half of a key of the host's (RFC 7517), to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// `EC`.
    pub kty: String,
    /// `P-256`.
    pub crv: String,
    /// Base64url.
    pub x: String,
    /// Base64url.
    pub y: String,
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub used_for: String,
    /// `ES256`.
    pub alg: String,
}

impl HostKey {
    /// Makes a new pair.
    ///
    /// # Errors
    /// [`KeyError::Failed`] if the system gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).map_err(|_| KeyError::Failed)?;
        let private = Secret::new(document.as_ref().to_vec());
        let pair = EcdsaKeyPair::from_pkcs8(kind, private.expose(), &random)
            .map_err(|_| KeyError::Failed)?;
        let public = PublicKey::of_p256(pair.public_key().as_ref()).ok_or(KeyError::Failed)?;
        Ok(Self { private, public })
    }
}

impl PublicKey {
    /// From an uncompressed point (SEC 1 §2.3.3).
    fn of_p256(point: &[u8]) -> Option<Self> {
        let (&4, rest) = point.split_first()? else {
            return None;
        };
        let (x, y) = rest.split_at_checked(32).filter(|(_, y)| y.len() == 32)?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        // RFC 7638 §3.2: the required members, in this order, without spaces.
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        Some(Self {
            kty: "EC".into(),
            crv: "P-256".into(),
            kid: URL_SAFE_NO_PAD.encode(Sha256::digest(canonical.as_bytes())),
            used_for: "sig".into(),
            alg: Algorithm::Es256.word().into(),
            x,
            y,
        })
    }
}

/// Opens a key that [`HostKey::generate`] made.
///
/// # Errors
/// [`KeyError::Unreadable`].
pub(crate) fn open_host_key(stored: &Sealed) -> Result<PrivateKey, KeyError> {
    let der = stored.open().map_err(|_| KeyError::Unreadable)?;
    PrivateKey::of_pkcs8(der.expose()).map_err(|_| KeyError::Unreadable)
}

/// The private half, to sign tokens of a made-up issuer with.
#[cfg(test)]
pub(crate) fn signed_for_tests(key: &HostKey) -> PrivateKey {
    PrivateKey::of_pkcs8(key.private.expose()).unwrap_or_else(|e| panic!("{e}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    fn parse(pem: &str) -> Result<Vec<&'static str>, KeyError> {
        let key = PrivateKey::parse(&Secret::from_text(pem.to_owned()))?;
        Ok(key.algorithms().iter().map(|a| a.word()).collect())
    }

    #[test]
    fn what_is_no_usable_private_key_is_refused_with_what_to_do() {
        let block = |label: &str, body: &str| {
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        let cases = [
            ("not a key at all".to_owned(), KeyError::NotPem),
            (String::new(), KeyError::NotPem),
            ("-----BEGIN PRIVATE KEY-----\nAAAA".into(), KeyError::NotPem),
            (block("PRIVATE KEY", "!!!"), KeyError::NotPem),
            (block("PRIVATE KEY", "AAAA"), KeyError::Unsupported),
            (block("EC PRIVATE KEY", "AAAA"), KeyError::Sec1),
            (
                block("EC PARAMETERS", "AAAA") + &block("EC PRIVATE KEY", "AAAA"),
                KeyError::Sec1,
            ),
            (block("ENCRYPTED PRIVATE KEY", "AAAA"), KeyError::Encrypted),
            (
                block("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\n\nAAAA"),
                KeyError::Encrypted,
            ),
            (
                block("CERTIFICATE", "AAAA"),
                KeyError::NotPrivate("certificate"),
            ),
            (
                block("PUBLIC KEY", "AAAA"),
                KeyError::NotPrivate("public key"),
            ),
        ];
        for (pem, expected) in cases {
            assert_eq!(parse(&pem), Err(expected), "{pem}");
        }
    }

    #[test]
    fn a_key_of_the_host_signs_what_its_published_half_verifies() {
        let key = HostKey::generate().unwrap_or_else(|e| panic!("{e}"));
        let pair = PrivateKey::of_pkcs8(key.private.expose()).unwrap_or_else(|e| panic!("{e}"));
        let mut claims = Map::new();
        claims.insert("sub".into(), "ada".into());
        let token = pair
            .token(None, Some(&key.public.kid), &claims)
            .unwrap_or_else(|e| panic!("{e}"));
        let text = token.expose_text().unwrap_or_default();
        let (signed, signature) = text.rsplit_once('.').unwrap_or_default();
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        let point = [&[4][..], &decode(&key.public.x), &decode(&key.public.y)].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &decode(signature))
            .unwrap_or_else(|_| panic!("the signature does not verify"));
        let header: Value =
            serde_json::from_slice(&decode(signed.split('.').next().unwrap_or_default()))
                .unwrap_or_default();
        assert_eq!(header["alg"], "ES256");
        assert_eq!(header["kid"], key.public.kid.as_str());
    }

    #[test]
    fn a_key_signs_with_nothing_but_what_its_kind_can() {
        let key = HostKey::generate().unwrap_or_else(|e| panic!("{e}"));
        let pair = PrivateKey::of_pkcs8(key.private.expose()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(pair.chosen(None), Ok(Algorithm::Es256));
        let refused = pair
            .chosen(Some(Algorithm::Ps256))
            .map_err(|e| e.to_string());
        assert_eq!(
            refused,
            Err("cannot sign with PS256; a key of its kind signs with ES256".into())
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}", label in "[A-Z ]{0,24}") {
            let _ = parse(&text);
            let _ = parse(&format!("-----BEGIN {label}-----{text}-----END {label}-----"));
        }
    }
}
