//! From a core module to a component, and to a file.

use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use wit_component::{ComponentEncoder, DecodedWasm};

use crate::error::BuildError;
use crate::hex;

/// A component that was encoded and validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// SHA-256 of them, lower-case hexadecimal.
    pub digest: String,
    /// Interfaces it imports.
    pub imports: Vec<String>,
    /// Interfaces it exports.
    pub exports: Vec<String>,
}

/// Makes a component of a core module. Without adapters, so that a WASI import
/// is an error here and not a surprise in the host.
///
/// # Errors
/// [`BuildError::Io`] or [`BuildError::Encode`].
pub fn encode(module: &Path) -> Result<Component, BuildError> {
    let core = fs::read(module).map_err(BuildError::io("cannot read", module))?;
    let failed = |why: String| BuildError::Encode {
        what: module.display().to_string(),
        why,
    };
    let bytes = ComponentEncoder::default()
        .validate(true)
        .module(&core)
        .and_then(|encoder| encoder.encode())
        .map_err(|e| failed(format!("{e:#}")))?;
    Component::of(&module.display().to_string(), bytes)
}

impl Component {
    /// Looks at a component; `what` names it in errors.
    ///
    /// # Errors
    /// [`BuildError::Encode`] if it is none.
    pub fn of(what: &str, bytes: Vec<u8>) -> Result<Self, BuildError> {
        let failed = |why: String| BuildError::Encode {
            what: what.to_owned(),
            why,
        };
        let decoded = wit_component::decode(&bytes).map_err(|e| failed(format!("{e:#}")))?;
        let DecodedWasm::Component(resolve, world) = decoded else {
            return Err(failed("it holds an interface and no code".into()));
        };
        let world = &resolve.worlds[world];
        let names = |keys: &mut dyn Iterator<Item = &_>| {
            keys.map(|key| resolve.name_world_key(key)).collect()
        };
        Ok(Self {
            digest: hex(&Sha256::digest(&bytes)),
            imports: names(&mut world.imports.keys()),
            exports: names(&mut world.exports.keys()),
            bytes,
        })
    }
}

/// Writes by renaming, so that a host that watches the folder never sees half
/// a file. Leaves an equal file alone; true if it was written.
///
/// # Errors
/// [`BuildError::Io`].
pub fn put(file: &Path, bytes: &[u8]) -> Result<bool, BuildError> {
    if fs::read(file).is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    // Not `.wasm`: the watcher must not take it for a component.
    let temporary = file.with_extension(format!("tmp-{}", std::process::id()));
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, file))
        .map_err(BuildError::io("cannot write", file))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("acme-0.1.0.wasm");
        assert!(put(&file, b"one").unwrap());
        assert!(!put(&file, b"one").unwrap());
        assert!(put(&file, b"two").unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_module_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("acme.wasm");
        fs::write(&file, b"not wasm").unwrap();
        let error = encode(&file).unwrap_err().to_string();
        assert!(
            error.contains("acme.wasm") && error.contains("no component"),
            "{error}"
        );
    }
}
