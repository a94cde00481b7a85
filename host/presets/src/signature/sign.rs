//! Signing a component: what it asks for is read off the component itself.

use std::path::Path;

use countersign_core::names::{Digest, PresetName, PublisherName};
use countersign_core::time::Timestamp;

use super::keys::PrivateKey;
use super::manifest::{Manifest, SignatureFile, permissions_of};
use super::trust::Trust;
use crate::engine::{EngineConfig, Sandboxes};
use crate::load::{self, LoadError};
use crate::permissions::PermissionSet;
use crate::policies;

/// Why a component was not signed.
#[derive(Debug, thiserror::Error)]
#[error("{file} is not signed, because no host would use it: {error}")]
pub struct SignError {
    /// Its file name.
    pub file: String,
    /// Why.
    pub error: LoadError,
}

/// A component, of a preset or a policy, that hosts would use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usable {
    /// From its file name.
    pub name: PresetName,
    /// From its file name.
    pub version: String,
    /// Of its content.
    pub digest: Digest,
    asked: PermissionSet,
}

/// Looks into a component as the catalog would, signatures aside. Blocks.
///
/// # Errors
/// [`LoadError`], as the catalog would refuse it.
pub fn look_into(path: &Path, config: EngineConfig) -> Result<Usable, LoadError> {
    let file = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let (name, version) = load::parse_file_name(file)?;
    let bytes = load::read(path)?;
    let digest = Digest::of(&bytes);
    let sandboxes = Sandboxes::new(config, None).map_err(|e| LoadError::Invalid(e.to_string()))?;
    let source = load::Source::alone(bytes.clone());
    let asked = match load::load(&sandboxes, &Trust::off(), file, source) {
        Ok(loaded) => loaded.signed,
        Err(_) if policies::is_one(&sandboxes, &bytes) => {
            policies::asked_by(&sandboxes, file, load::Source::alone(bytes))?
        }
        Err(error) => return Err(error),
    };
    Ok(Usable {
        name,
        version,
        digest,
        asked,
    })
}

/// Looks into a component, and signs what it finds. Blocks.
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
    let usable = look_into(path, config).map_err(|error| SignError {
        file: path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        error,
    })?;
    let manifest = Manifest::new(
        (usable.name, usable.version),
        usable.digest,
        permissions_of(&usable.asked),
        publisher,
        created,
    );
    Ok(manifest.sign(key))
}
