//! Signing a component: what it asks for is read off the component itself.

use std::path::Path;

use countersign_core::names::{Digest, PublisherName};
use countersign_core::time::Timestamp;

use super::keys::PrivateKey;
use super::manifest::{Manifest, SignatureFile, permissions_of};
use super::trust::Trust;
use crate::engine::{EngineConfig, EngineError, Sandboxes};
use crate::load::{self, LoadError};
use crate::policies;

/// Why a component was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// No host would use it.
    #[error("{file} is not signed, because no host would use it: {error}")]
    Refused {
        /// Its file name.
        file: String,
        /// Why.
        error: LoadError,
    },
    /// It cannot be looked into here.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Looks into a component, of a preset or a policy, as the catalog would, and
/// signs what it finds.
/// Blocks.
///
/// # Errors
/// [`SignError`]: what the catalog would refuse is not signed.
pub fn signature_of(
    path: &Path,
    publisher: PublisherName,
    created: Timestamp,
    key: &PrivateKey,
    config: EngineConfig,
) -> Result<SignatureFile, SignError> {
    let file = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let refused = |error| SignError::Refused {
        file: file.to_owned(),
        error,
    };
    let (name, version) = load::parse_file_name(file).map_err(refused)?;
    let bytes = load::read(path).map_err(refused)?;
    let digest = Digest::of(&bytes);
    let sandboxes = Sandboxes::new(config, None)?;
    let source = load::Source::alone(bytes.clone());
    let asked = match load::load(&sandboxes, &Trust::off(), file, source) {
        Ok(loaded) => loaded.signed,
        Err(_) if policies::is_one(&sandboxes, &bytes) => {
            policies::asked_by(&sandboxes, file, load::Source::alone(bytes)).map_err(refused)?
        }
        Err(error) => return Err(refused(error)),
    };
    let manifest = Manifest::new(
        (name, version),
        digest,
        permissions_of(&asked),
        publisher,
        created,
    );
    Ok(manifest.sign(key))
}
