//! Why a signature does not let a component in.

use countersign_core::names::{Digest, PresetName, PublisherName};

use super::keys::PublicKey;

/// Each says whose fault it is and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is none.
    #[error(
        "it is not signed: there is no {file}.sig beside it. Get that from its publisher, or look at the component and \
         vouch for it yourself: `countersign preset keygen NAME` makes a key, `countersign preset sign {file} --key \
         NAME.key` signs, `countersign preset trust NAME.pub` has the host believe it"
    )]
    Unsigned {
        /// The component's file name.
        file: String,
    },
    /// The file is there and cannot be read.
    #[error("its signature file cannot be read: {0}")]
    Unreadable(String),
    /// Too large.
    #[error(
        "its signature file has more than {} bytes: it is none of Countersign's",
        super::LARGEST_SIGNATURE
    )]
    TooLarge,
    /// Not the format.
    #[error("its signature file is not one that `preset sign` writes: {0}")]
    Malformed(String),
    /// Another format.
    #[error(
        "its signature has format {0}, and this version of Countersign reads format 1: update Countersign, or have it signed in format 1"
    )]
    Format(u32),
    /// The mathematics say no.
    #[error(
        "its signature is wrong: the manifest was changed after it was signed, or the key named in it did not sign it. Get both files anew from the publisher"
    )]
    Broken,
    /// For another preset.
    #[error(
        "its signature is for the preset {signed}, and the file says {file}: a signature holds for the one name it was made for"
    )]
    WrongName {
        /// As signed.
        signed: PresetName,
        /// As the file name says.
        file: PresetName,
    },
    /// For another version.
    #[error(
        "its signature is for version {signed}, and the file says {file}: put the signature of this version beside it, or name the file as it was signed"
    )]
    WrongVersion {
        /// As signed.
        signed: String,
        /// As the file name says.
        file: String,
    },
    /// For other bytes.
    #[error(
        "its signature is for a component with the digest {signed}, and this one has {file}: the component was changed after it was signed, or is another build. Get both files anew from the publisher"
    )]
    WrongDigest {
        /// As signed.
        signed: Digest,
        /// Of the file.
        file: Digest,
    },
    /// It asks for something else than was signed.
    #[error(
        "its publisher signed other permissions than it asks for. Not signed: {unsigned}. Signed, not asked for: \
         {unasked}. Do not use it; tell the publisher to sign it anew"
    )]
    WrongPermissions {
        /// Asked for, not signed.
        unsigned: String,
        /// Signed, not asked for.
        unasked: String,
    },
    /// Nobody said that this publisher is trusted.
    #[error(
        "it is signed by {publisher} with {key}, and countersign.toml trusts no publisher of that name. If {publisher} \
         gave you this key, run `countersign preset trust {publisher} --key {key} --presets {preset}`"
    )]
    UnknownPublisher {
        /// As signed.
        publisher: PublisherName,
        /// As signed.
        key: PublicKey,
        /// Which preset.
        preset: PresetName,
    },
    /// The publisher is trusted, with other keys.
    #[error(
        "it is signed in the name of {publisher} with {key}, which is none of the keys that countersign.toml lists for \
         {publisher}. Ask {publisher}, not the component's source, whether this key is theirs; then add it to keys"
    )]
    UnknownKey {
        /// As signed.
        publisher: PublisherName,
        /// As signed.
        key: PublicKey,
    },
    /// The publisher is trusted for other presets.
    #[error("it is signed by {publisher}, whom countersign.toml trusts for other presets than {preset}. If {publisher} may publish it, add {preset:?} to the publisher's presets", preset = preset.as_str())]
    NotForThisPreset {
        /// As signed.
        publisher: PublisherName,
        /// Which preset.
        preset: PresetName,
    },
    /// The key is revoked.
    #[error(
        "it is signed with {key}, which countersign.toml lists under revoked_keys: get it anew, signed with another key"
    )]
    RevokedKey {
        /// As signed.
        key: PublicKey,
    },
    /// Another digest is pinned.
    #[error(
        "its digest is {digest}, and countersign.toml pins {preset} to {pinned}: put that component back, or change [presets.pin] after you have looked at this one"
    )]
    NotPinned {
        /// Which preset.
        preset: PresetName,
        /// Of the file.
        digest: Digest,
        /// What may be used.
        pinned: String,
    },
}

impl SignatureError {
    /// Whether another look may find it good: component and signature arrive
    /// one after the other.
    pub(crate) fn may_be_half_written(&self) -> bool {
        matches!(
            self,
            Self::Unsigned { .. } | Self::Malformed(_) | Self::WrongDigest { .. }
        )
    }

    /// Whether it only says that nobody known vouches for the component. The
    /// others say that somebody's word was broken, or that the operator said
    /// no; they refuse whatever the policy is.
    pub(crate) fn is_missing_trust(&self) -> bool {
        matches!(
            self,
            Self::Unsigned { .. }
                | Self::UnknownPublisher { .. }
                | Self::UnknownKey { .. }
                | Self::NotForThisPreset { .. }
        )
    }
}
