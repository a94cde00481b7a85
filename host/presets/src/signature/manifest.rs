//! What is signed, and the file it is kept in.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::names::{Digest, PresetName, PublisherName};
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::SignatureError;
use super::keys::{PrivateKey, PublicKey};
use crate::permissions::PermissionSet;

/// Largest signature file, in bytes.
pub const LARGEST_SIGNATURE: u64 = 256 << 10;
/// The format this version reads and writes.
const FORMAT: u32 = 1;
/// Goes before the manifest's bytes, so that no signature made for something
/// else passes for one of these.
const DOMAIN: &[u8] = b"countersign preset signature 1\n";

/// What a component asks for by itself, by kind. Kinds without entries are left
/// out.
pub type Permissions = BTreeMap<String, BTreeSet<String>>;

/// What a publisher says of one component, and signs.
///
/// The members stand in the order of their names, as RFC 8785 wants them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// When it was signed, in the signer's words.
    pub created: Timestamp,
    /// SHA-256 of the component.
    pub digest: Digest,
    /// Of this manifest; 1.
    pub format: u32,
    /// The preset.
    pub name: PresetName,
    /// What it asks for by itself, before a provider's settings resolve it.
    pub permissions: Permissions,
    /// Who signs.
    pub publisher: PublisherName,
    /// The preset's version.
    pub version: String,
}

impl Manifest {
    /// A manifest of the format this version writes.
    #[must_use]
    pub fn new(
        (name, version): (PresetName, String),
        digest: Digest,
        permissions: Permissions,
        publisher: PublisherName,
        created: Timestamp,
    ) -> Self {
        Self {
            created,
            digest,
            format: FORMAT,
            name,
            permissions,
            publisher,
            version,
        }
    }

    /// Signs it.
    #[must_use]
    pub fn sign(self, key: &PrivateKey) -> SignatureFile {
        SignatureFile {
            key: key.public(),
            signature: Signature(key.sign(&self.message())),
            manifest: self,
        }
    }

    /// The signed bytes: the domain, then the manifest in canonical JSON
    /// (RFC 8785).
    fn message(&self) -> Vec<u8> {
        let mut bytes = DOMAIN.to_vec();
        // Members and entries are sorted by the types, numbers are integers, and
        // serde_json escapes as RFC 8785 does. Text into memory cannot fail.
        let written = serde_json::to_writer(&mut bytes, self);
        debug_assert!(written.is_ok());
        bytes
    }
}

/// `NAME-VERSION.wasm.sig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureFile {
    /// The key it was made with.
    pub key: PublicKey,
    /// What was signed.
    pub manifest: Manifest,
    signature: Signature,
}

/// 64 bytes, as base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Signature([u8; 64]);

impl TryFrom<String> for Signature {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = STANDARD.decode(text).ok();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or("a signature is the base64 of 64 bytes")
    }
}

impl From<Signature> for String {
    fn from(signature: Signature) -> Self {
        STANDARD.encode(signature.0)
    }
}

impl SignatureFile {
    /// Reads the file's bytes and checks that the key it names made the
    /// signature. Whether that key is trusted is another question.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        #[derive(Deserialize)]
        struct Any {
            manifest: AnyManifest,
        }
        #[derive(Deserialize)]
        struct AnyManifest {
            format: u32,
        }
        let malformed =
            |e: serde_json::Error| SignatureError::Malformed(crate::faults::plain(&e.to_string()));
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LARGEST_SIGNATURE {
            return Err(SignatureError::TooLarge);
        }
        // A newer format may have members that this version does not know.
        if let Ok(any) = serde_json::from_slice::<Any>(bytes)
            && any.manifest.format != FORMAT
        {
            return Err(SignatureError::Format(any.manifest.format));
        }
        let this: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        match this
            .key
            .verifies(&this.manifest.message(), &this.signature.0)
        {
            true => Ok(this),
            false => Err(SignatureError::Broken),
        }
    }

    /// The file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Whether it was made for this file.
    pub(crate) fn fits(
        &self,
        name: &PresetName,
        version: &str,
        digest: Digest,
    ) -> Result<(), SignatureError> {
        let manifest = &self.manifest;
        if manifest.name != *name {
            return Err(SignatureError::WrongName {
                signed: manifest.name.clone(),
                file: name.clone(),
            });
        }
        if manifest.version != version {
            return Err(SignatureError::WrongVersion {
                signed: crate::check::cut(&manifest.version),
                file: version.to_owned(),
            });
        }
        if manifest.digest != digest {
            return Err(SignatureError::WrongDigest {
                signed: manifest.digest,
                file: digest,
            });
        }
        Ok(())
    }

    /// Whether the component asks for what its publisher signed.
    pub(crate) fn agrees(&self, asked: &Permissions) -> Result<(), SignatureError> {
        if *asked == self.manifest.permissions {
            return Ok(());
        }
        let only = |these: &Permissions, those: &Permissions| -> Vec<String> {
            let nothing = BTreeSet::new();
            these
                .iter()
                .flat_map(|(kind, entries)| {
                    let known = those.get(kind).unwrap_or(&nothing);
                    entries
                        .difference(known)
                        .map(move |e| format!("{kind} {e}"))
                })
                .collect()
        };
        Err(SignatureError::WrongPermissions {
            unsigned: shortened(&only(asked, &self.manifest.permissions)),
            unasked: shortened(&only(&self.manifest.permissions, asked)),
        })
    }
}

/// A few of many, as text.
fn shortened(entries: &[String]) -> String {
    const SHOWN: usize = 5;
    match entries {
        [] => "nothing more".into(),
        few if few.len() <= SHOWN => crate::check::cut(&few.join(", ")),
        many => {
            let few = many.get(..SHOWN).unwrap_or(many).join(", ");
            format!(
                "{} and {} more",
                crate::check::cut(&few),
                many.len() - SHOWN
            )
        }
    }
}

/// A permission set as it is signed.
pub(crate) fn permissions_of(set: &PermissionSet) -> Permissions {
    let value = serde_json::to_value(set).unwrap_or_default();
    let mut permissions: Permissions = serde_json::from_value(value).unwrap_or_default();
    permissions.retain(|_, entries| !entries.is_empty());
    permissions
}

#[cfg(test)]
mod tests {
    use countersign_core::ports::fakes::CountingRandom;
    use proptest::prelude::*;

    use super::*;

    fn manifest() -> Manifest {
        let set = PermissionSet {
            scopes: ["b".to_owned(), "a\u{e9}\"\n".to_owned()].into(),
            audience_hosts: ["api.example.com".to_owned()].into(),
            ..PermissionSet::default()
        };
        Manifest::new(
            (PresetName::parse("example").unwrap(), "1.0.0".into()),
            Digest::of(b"component"),
            permissions_of(&set),
            PublisherName::parse("acme").unwrap(),
            Timestamp::from_secs(1_800_000_000),
        )
    }

    fn signed() -> SignatureFile {
        manifest().sign(&PrivateKey::generate(&CountingRandom::default()))
    }

    #[test]
    fn the_signed_bytes_are_canonical_json_after_a_domain() {
        let text = String::from_utf8(manifest().message()).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_signature_file_reads_back_as_it_was_written() {
        let file = signed();
        assert_eq!(SignatureFile::parse(file.to_text().as_bytes()), Ok(file));
    }

    #[test]
    fn a_changed_file_says_what_is_wrong_with_it() {
        let good = signed().to_text();
        let edit = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            SignatureFile::parse(good.replacen(from, to, 1).as_bytes()).unwrap_err()
        };
        // Whatever is signed.
        for (from, to) in [
            ("\"example\"", "\"another\""),
            ("1.0.0", "1.0.1"),
            ("api.example.com", "api.evil.example"),
            ("\"acme\"", "\"acne\""),
            ("2027", "2026"),
        ] {
            assert_eq!(edit(from, to), SignatureError::Broken, "{from}");
        }
        // Whatever is not known.
        assert!(matches!(
            edit("\"format\": 1", "\"format\": 2"),
            SignatureError::Format(2)
        ));
        for (from, to) in [
            ("{", "{\"note\": 1,"),
            ("\"format\"", "\"note\": 1, \"format\""),
            (
                "\"created\"",
                "\"created\": \"2027-01-01T00:00:00Z\", \"created\"",
            ),
            ("ed25519:", "rsa:"),
            ("sha256:", "md5:"),
            ("}\n", "} {}\n"),
        ] {
            let error = edit(from, to);
            assert!(
                matches!(error, SignatureError::Malformed(_)),
                "{from}: {error}"
            );
        }
        let long = vec![b' '; usize::try_from(LARGEST_SIGNATURE).unwrap() + 1];
        assert_eq!(SignatureFile::parse(&long), Err(SignatureError::TooLarge));
    }

    #[test]
    fn a_signature_for_something_else_is_refused_by_what_differs() {
        let file = signed();
        let name = |n: &str| PresetName::parse(n).unwrap();
        let digest = Digest::of(b"component");
        assert_eq!(file.fits(&name("example"), "1.0.0", digest), Ok(()));
        let mut out = String::new();
        for error in [
            file.fits(&name("another"), "1.0.0", digest).unwrap_err(),
            file.fits(&name("example"), "1.0.1", digest).unwrap_err(),
            file.fits(&name("example"), "1.0.0", Digest::of(b"x"))
                .unwrap_err(),
            file.agrees(&permissions_of(&PermissionSet {
                audience_hosts: ["api.evil.example".to_owned()].into(),
                ..PermissionSet::default()
            }))
            .unwrap_err(),
        ] {
            out.push_str(&format!("{error}\n"));
        }
        insta::assert_snapshot!(out);
        assert_eq!(file.agrees(&file.manifest.permissions), Ok(()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = SignatureFile::parse(&bytes);
        }

        #[test]
        fn no_changed_character_passes(at in any::<prop::sample::Index>(), by in 1_u8..=255) {
            let file = signed();
            let mut bytes = file.to_text().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            // White space and the like may differ; what is said may not.
            prop_assert!(SignatureFile::parse(&bytes).is_ok_and(|same| same == file)
                || SignatureFile::parse(&bytes).is_err());
        }
    }
}
