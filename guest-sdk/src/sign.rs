//! Keys and signatures as the hook `sign` holds them: handles, no bytes.

use crate::bindings::sign::countersign::preset::signing::{Algorithm, Encoding};
use crate::data::Slot;

#[cfg(target_family = "wasm")]
type Handle = crate::bindings::sign::countersign::preset::signing::Key;
/// In native tests a handle is the formula it stands for.
#[cfg(not(target_family = "wasm"))]
type Handle = String;

/// The credential's key. Nobody can read it, and it cannot be sent.
pub struct Key<'a>(&'a Handle);

/// An HMAC that nobody can read. It can be the next key, or a part of a header.
#[cfg_attr(not(target_family = "wasm"), derive(Debug, Clone, PartialEq, Eq))]
pub struct Signature(Handle);

/// One piece of a signed header's value.
#[cfg_attr(not(target_family = "wasm"), derive(Debug, Clone, PartialEq))]
pub enum SignedPart {
    /// Text, taken as it is.
    Literal(String),
    /// A secret that the host fills in and the description declares.
    Slot(Slot),
    /// A signature, written so.
    Signature(Signature, Encoding),
}

/// A header that carries a signature.
#[cfg_attr(not(target_family = "wasm"), derive(Debug, Clone, PartialEq))]
pub struct SignedHeader {
    /// Its name, which the description declares.
    pub name: String,
    /// Its value.
    pub value: Vec<SignedPart>,
}

fn hmac(handle: &Handle, algorithm: Algorithm, data: &[u8]) -> Signature {
    #[cfg(target_family = "wasm")]
    return Signature(handle.hmac(algorithm, data));
    #[cfg(not(target_family = "wasm"))]
    {
        let name = match algorithm {
            Algorithm::HmacSha256 => "hmac-sha256",
            Algorithm::HmacSha1 => "hmac-sha1",
            Algorithm::HmacSha512 => "hmac-sha512",
        };
        Signature(format!(
            "{name}({handle}, {:?})",
            String::from_utf8_lossy(data)
        ))
    }
}

impl<'a> Key<'a> {
    /// What the host lends.
    #[doc(hidden)]
    pub fn lent(handle: &'a Handle) -> Self {
        Self(handle)
    }

    /// For native tests: what is made of it shows how it was made, as in
    /// `hmac-sha256(key, "data")`.
    #[cfg(not(target_family = "wasm"))]
    pub fn named(name: &'a String) -> Self {
        Self(name)
    }

    /// An HMAC of the data under this key.
    pub fn hmac(&self, algorithm: Algorithm, data: impl AsRef<[u8]>) -> Signature {
        hmac(self.0, algorithm, data.as_ref())
    }
}

impl Signature {
    /// An HMAC of the data, with this one as the key.
    pub fn hmac(&self, algorithm: Algorithm, data: impl AsRef<[u8]>) -> Self {
        hmac(&self.0, algorithm, data.as_ref())
    }

    /// In lower-case hexadecimal.
    pub fn hex(self) -> SignedPart {
        SignedPart::Signature(self, Encoding::Hex)
    }

    /// In Base64, with padding.
    pub fn base64(self) -> SignedPart {
        SignedPart::Signature(self, Encoding::Base64)
    }

    /// In Base64 for URLs, without padding.
    pub fn base64url(self) -> SignedPart {
        SignedPart::Signature(self, Encoding::Base64url)
    }
}

impl From<&str> for SignedPart {
    fn from(text: &str) -> Self {
        Self::Literal(text.into())
    }
}

impl From<String> for SignedPart {
    fn from(text: String) -> Self {
        Self::Literal(text)
    }
}

impl From<Slot> for SignedPart {
    fn from(slot: Slot) -> Self {
        Self::Slot(slot)
    }
}

impl SignedHeader {
    /// A header and the pieces of its value.
    pub fn new(name: &str, value: impl IntoIterator<Item = SignedPart>) -> Self {
        Self {
            name: name.into(),
            value: value.into_iter().collect(),
        }
    }
}

/// As the component exports it.
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub fn exported(
    headers: Vec<SignedHeader>,
) -> Vec<crate::bindings::sign::exports::countersign::preset::sign::SignedHeader> {
    use crate::bindings::sign::exports::countersign::preset::sign as wit;
    let part = |part| match part {
        SignedPart::Literal(text) => wit::SignedPart::Literal(text),
        SignedPart::Slot(slot) => wit::SignedPart::Slot(slot),
        SignedPart::Signature(signature, encoding) => {
            wit::SignedPart::Signature((signature.0, encoding))
        }
    };
    let header = |header: SignedHeader| wit::SignedHeader {
        name: header.name,
        value: header.value.into_iter().map(part).collect(),
    };
    headers.into_iter().map(header).collect()
}
