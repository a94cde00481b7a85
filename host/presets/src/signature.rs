//! Who vouches for a component: signatures, the keys behind them, and what an
//! operator trusts.
//!
//! Beside `NAME-VERSION.wasm` may lie `NAME-VERSION.wasm.sig`: a publisher's
//! Ed25519 signature over a [`Manifest`] that names the preset, its version, the
//! digest of the component and what it asks for by itself. [`Trust`] is what the
//! operator wrote; it decides before anything is compiled, and once more after
//! the component has described itself. Everything here only narrows: a trusted
//! signature lets a component in, it approves nothing.

mod error;
mod keys;
mod manifest;
mod origin;
mod sign;
mod standing;
mod trust;

pub use error::SignatureError;
pub use keys::{KeyError, PrivateKey, PublicKey};
pub(crate) use manifest::permissions_of;
pub use manifest::{LARGEST_SIGNATURE, Manifest, Permissions, SignatureFile};
pub(crate) use origin::LARGEST_PULLED;
pub use origin::{Origin, Pulled, SignatureState};
pub use sign::{SignError, Usable, look_into, signature_of};
pub(crate) use standing::Standing;
pub use trust::{PresetPattern, Publisher, SignaturePolicy, Trust, judge};

/// Added to a component's file name for its signature.
pub const SIGNATURE_SUFFIX: &str = ".sig";
/// Added to a component's file name for where it was pulled from.
pub const ORIGIN_SUFFIX: &str = ".origin";
