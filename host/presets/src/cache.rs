//! Compiled components, kept between starts.
//!
//! Machine code from a file is run without a further look, so nothing is taken
//! that this installation did not write: every file begins with a MAC over what
//! it is for and what it holds, under a key that rests in the vault.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use countersign_core::names::{Digest, hex};
use countersign_core::secret::SealKey;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::compiling;

/// Length of the MAC at the start of a file.
const MAC: usize = 32;

/// A folder of compiled components that only this installation's files are
/// taken from.
pub struct CompileCache {
    dir: PathBuf,
    key: SealKey,
    /// Places that this process asked for.
    used: Mutex<HashSet<String>>,
}

impl CompileCache {
    /// Keeps files in `dir`, which is made for this user alone. A folder that
    /// cannot be made only costs time at the next start.
    #[must_use]
    pub fn new(dir: &Path, key: &SealKey) -> Self {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        if let Err(error) = builder.create(dir) {
            tracing::warn!(%error, dir = %dir.display(), "compiled presets cannot be kept");
        }
        Self {
            dir: dir.to_owned(),
            key: key.derive("compiled presets 1"),
            used: Mutex::default(),
        }
    }

    /// The compiled component, from the cache or compiled and kept.
    ///
    /// # Errors
    /// What the compiler says.
    pub(crate) fn compile(&self, engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Component> {
        let place = self.place(engine, bytes);
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(place.clone());
        if let Some(component) = self.take(engine, &place) {
            return Ok(component);
        }
        let component = compiling::compile(engine, bytes)?;
        if let Err(error) = self.keep(&place, &component) {
            tracing::warn!(%error, "a compiled preset could not be kept");
        }
        Ok(component)
    }

    /// Removes what nobody asked for since the start: components that are gone,
    /// and what an older wasmtime compiled.
    pub(crate) fn sweep(&self) {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(files) = fs::read_dir(&self.dir) else {
            return;
        };
        for file in files.flatten().map(|f| f.path()) {
            let place = file.file_stem().and_then(|s| s.to_str());
            let is_ours = file.extension().is_some_and(|e| e == "cwasm");
            if is_ours
                && place.is_some_and(|p| !used.contains(p))
                && let Err(error) = fs::remove_file(&file)
            {
                tracing::warn!(%error, "an old compiled preset could not be removed");
            }
        }
    }

    /// What a file is for: component, wasmtime and its settings.
    fn place(&self, engine: &Engine, bytes: &[u8]) -> String {
        let mut compatible = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut compatible);
        format!(
            "{}-{:016x}",
            hex(Digest::of(bytes).as_bytes()),
            compatible.finish()
        )
    }

    fn file(&self, place: &str) -> PathBuf {
        self.dir.join(format!("{place}.cwasm"))
    }

    fn take(&self, engine: &Engine, place: &str) -> Option<Component> {
        let file = fs::read(self.file(place)).ok()?;
        let (mac, artifact) = file.split_at_checked(MAC)?;
        if !is_equal(mac, &self.mac(place, artifact)) {
            tracing::warn!(
                place,
                "a compiled preset was not written by this installation; it is compiled anew"
            );
            return None;
        }
        // SAFETY: `deserialize` runs what it is given. The MAC, whose key rests
        // in the vault, shows that these very bytes (read once, above) came out
        // of `Component::serialize` in this installation, for this component
        // and this engine; wasmtime checks its own version and settings too.
        #[expect(unsafe_code, reason = "see SAFETY; the one exception in the host")]
        let component = unsafe { Component::deserialize(engine, artifact) };
        component.ok()
    }

    fn keep(&self, place: &str, component: &Component) -> wasmtime::Result<()> {
        let artifact = component.serialize()?;
        let temporary = self.dir.join(format!(".{place}.{}", std::process::id()));
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&self.mac(place, &artifact))?;
        file.write_all(&artifact)?;
        drop(file);
        fs::rename(&temporary, self.file(place))?;
        Ok(())
    }

    fn mac(&self, place: &str, artifact: &[u8]) -> [u8; MAC] {
        self.key.mac(&[place.as_bytes(), artifact])
    }
}

/// In constant time, so that nobody can guess a MAC byte by byte.
fn is_equal(a: &[u8], b: &[u8; MAC]) -> bool {
    a.len() == MAC && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(engine: &Engine) -> Vec<u8> {
        let bytes = wat::parse_str("(component)").unwrap();
        assert!(Component::from_binary(engine, &bytes).is_ok());
        bytes
    }

    #[test]
    fn a_tampered_file_is_never_run_and_is_compiled_anew() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let bytes = component(&engine);
        let cache = CompileCache::new(dir.path(), &SealKey::new([7; 32]));
        let place = cache.place(&engine, &bytes);
        assert!(cache.take(&engine, &place).is_none());
        cache.compile(&engine, &bytes).unwrap();
        assert!(cache.take(&engine, &place).is_some());

        let good = fs::read(cache.file(&place)).unwrap();
        for at in [0, MAC, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(cache.file(&place), &bad).unwrap();
            assert!(cache.take(&engine, &place).is_none(), "byte {at}");
        }
        fs::write(cache.file(&place), &good[..10]).unwrap();
        assert!(cache.take(&engine, &place).is_none());
        cache.compile(&engine, &bytes).unwrap();
        assert_eq!(fs::read(cache.file(&place)).unwrap().len(), good.len());

        // What nobody asks for any more is swept away.
        let next = CompileCache::new(dir.path(), &SealKey::new([7; 32]));
        next.compile(&engine, &bytes).unwrap();
        fs::write(dir.path().join("gone.cwasm"), "old").unwrap();
        next.sweep();
        assert!(cache.file(&place).exists() && !dir.path().join("gone.cwasm").exists());

        // Another installation's file, and a file under another name.
        let other = CompileCache::new(dir.path(), &SealKey::new([8; 32]));
        assert!(other.take(&engine, &place).is_none());
        fs::copy(cache.file(&place), cache.file("elsewhere")).unwrap();
        assert!(cache.take(&engine, "elsewhere").is_none());
    }
}
