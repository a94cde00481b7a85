//! A component and its signature, as they are carried from place to place.

use std::path::Path;

use countersign_core::names::Digest;
use countersign_presets::LARGEST_COMPONENT;
use countersign_presets::signature::{
    LARGEST_SIGNATURE, SIGNATURE_SUFFIX, SignatureFile, SignaturePolicy, Trust, judge,
};

use super::files;
use crate::cli::CliError;

/// Reads a component and what lies beside it. A signature that does not fit is
/// an error; whose it is does not matter here.
pub(super) fn read(path: &Path) -> Result<(Vec<u8>, Option<SignatureFile>), CliError> {
    let cannot = |path: &Path, e: &dyn std::fmt::Display| {
        CliError(format!("{} cannot be read: {e}", path.display()))
    };
    let component = files::read(path, LARGEST_COMPONENT).map_err(|e| cannot(path, &e))?;
    let beside = files::beside(path, SIGNATURE_SUFFIX);
    let signature = match files::read(&beside, LARGEST_SIGNATURE) {
        Ok(bytes) => Some(bytes),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(cannot(&beside, &e)),
    };
    let file = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    let parsed = fitting(file, Digest::of(&component), signature.as_deref())
        .map_err(|e| CliError(format!("{}: {e}", path.display())))?;
    Ok((component, parsed))
}

/// The signature, if it is good for a component of this name and digest.
pub(super) fn fitting(
    file: &str,
    digest: Digest,
    signature: Option<&[u8]>,
) -> Result<Option<SignatureFile>, CliError> {
    // Nobody is trusted: only what is broken is refused.
    let anybody = Trust {
        policy: SignaturePolicy::Warn,
        ..Trust::default()
    };
    judge(&anybody, file, digest, signature).map_err(CliError::new)?;
    signature
        .map(SignatureFile::parse)
        .transpose()
        .map_err(CliError::new)
}

/// Other content of the same name is not replaced by accident.
pub(super) fn demand_same(target: &Path, component: Digest, replace: bool) -> Result<(), CliError> {
    let there = files::read(target, LARGEST_COMPONENT).map(|bytes| Digest::of(&bytes));
    match there {
        Ok(there) if !replace && there != component => Err(CliError(format!(
            "{} is there already with other content ({}): a version stands for one component. Use another version, or \
             give --replace",
            target.display(),
            there
        ))),
        _ => Ok(()),
    }
}

/// Who signed, in words.
pub(super) fn signed_by(signature: Option<&SignatureFile>) -> String {
    match signature {
        Some(signature) => format!("signed by {}", signature.manifest.publisher),
        None => "not signed".into(),
    }
}
