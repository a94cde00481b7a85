//! Debian's packages of a Rust with its sources, for machines whose Rust has
//! no WebAssembly target and cannot get it: unpacked into a cache folder. The
//! standard library is then built with the presets.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compile::rustc_prints;
use crate::error::BuildError;

/// Debian's Rust for browsers, which is newer than the distribution's own. Its
/// cargo would need more libraries; the active one does.
const PACKAGES: &[&str] = &["rustc-web", "rust-web-src", "libstd-rust-web-dev"];

/// Packages with a version in their names, each a dependency of the one before.
const LIBRARIES: &[&str] = &["libstd-rust-web-", "libllvm"];

/// Where downloads are kept, for every clone.
///
/// # Errors
/// [`BuildError::NoHome`].
pub fn cache_folder() -> Result<PathBuf, BuildError> {
    if let Some(folder) = env::var_os("COUNTERSIGN_CACHE_DIR") {
        return Ok(folder.into());
    }
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .map(|base| base.join("countersign"))
        .ok_or(BuildError::NoHome)
}

/// The folder with the unpacked packages; fetches them if it is not there.
pub(crate) fn unpacked() -> Result<PathBuf, BuildError> {
    let cache = cache_folder()?;
    let ready = cache.join("debian-rust");
    if ready.join("usr/bin/rustc").exists() {
        return Ok(ready);
    }
    let work = cache.join(format!("debian-rust.{}", std::process::id()));
    let (packages, root) = (work.join("packages"), work.join("root"));
    fs::create_dir_all(&packages)
        .and_then(|()| fs::create_dir_all(&root))
        .map_err(BuildError::io("cannot create", &work))?;
    let unpacked = unpack(&packages, &root)
        .map_err(BuildError::NoTarget)
        .and_then(|()| fs::rename(&root, &ready).map_err(BuildError::io("cannot create", &ready)));
    // What is left is only downloads.
    let _ = fs::remove_dir_all(&work);
    unpacked.map(|()| ready)
}

fn unpack(packages: &Path, root: &Path) -> Result<(), String> {
    let mut names: Vec<String> = PACKAGES.iter().map(ToString::to_string).collect();
    names.extend(libraries()?);
    eprintln!("fetching {}", names.join(" "));
    let mut download = Command::new("apt-get");
    download
        .args(["download", "--quiet"])
        .args(&names)
        .current_dir(packages);
    must(&mut download, "apt-get could not download Debian's Rust")?;
    let entries = fs::read_dir(packages).map_err(|e| e.to_string())?;
    for entry in entries {
        let package = entry.map_err(|e| e.to_string())?.path();
        let mut unpack = Command::new("dpkg");
        unpack.arg("-x").args([package.as_path(), root]);
        must(
            &mut unpack,
            &format!("dpkg could not unpack {}", package.display()),
        )?;
    }
    Ok(())
}

fn must(command: &mut Command, otherwise: &str) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(otherwise.to_owned()),
        Err(error) => Err(format!("{otherwise}: {error}")),
    }
}

/// The packages that carry a version in their names.
fn libraries() -> Result<Vec<String>, String> {
    let mut names = vec!["libstd-rust-web-dev".to_string()];
    for prefix in LIBRARIES {
        let output = Command::new("apt-cache")
            .args(["depends", "--important"])
            .arg(&names[names.len() - 1])
            .output()
            .map_err(|_| "Debian's packages: there is no apt-cache, so this is no Debian")?;
        let name = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| {
                name.strip_prefix(prefix)
                    .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
            })
            .map(ToString::to_string)
            .ok_or("Debian's packages: apt knows no rustc-web; as root: apt-get update")?;
        names.push(name);
    }
    Ok(names.split_off(1))
}

/// The active cargo with Debian's compiler.
pub(crate) fn cargo(root: &Path) -> Result<Command, BuildError> {
    let broken = |what: &str| BuildError::NoTarget(what.to_owned());
    let folders = fs::read_dir(root.join("usr/lib"))
        .map_err(BuildError::io("cannot read", root.join("usr/lib")))?;
    let holds_compiler = |folder: &PathBuf| {
        fs::read_dir(folder).is_ok_and(|entries| {
            entries.filter_map(Result::ok).any(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with("librustc_driver-")
            })
        })
    };
    let libraries = folders
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(holds_compiler)
        .ok_or_else(|| broken("Debian's packages hold no compiler"))?;
    let linker = linker().ok_or_else(|| {
        broken("there is neither rust-lld nor wasm-ld; on Debian, as root: apt-get install lld")
    })?;
    let mut command = Command::new(crate::compile::cargo());
    command
        .env("RUSTC", root.join("usr/bin/rustc"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("LD_LIBRARY_PATH", libraries)
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
        .env_remove("RUSTUP_TOOLCHAIN");
    Ok(command)
}

/// Debian's compiler has no linker of its own: rustup's, or an installed one.
fn linker() -> Option<PathBuf> {
    let rustups = rustc_prints(&["sysroot"])
        .and_then(|sysroot| fs::read_dir(sysroot.join("lib/rustlib")).ok())
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/rust-lld")));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path).collect();
    let installed = folders
        .iter()
        .flat_map(|folder| ["rust-lld", "wasm-ld"].map(|name| folder.join(name)));
    rustups.chain(installed).find(|linker| linker.exists())
}
