//! Where the compiler for `wasm32-unknown-unknown` comes from.
//!
//! Mostly the active toolchain has the target, or rustup can add it. Where
//! neither holds, Debian's packages of a Rust with its sources are unpacked
//! into a cache folder, and the standard library is built with the presets.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::presets::cargo;

const TARGET: &str = "wasm32-unknown-unknown";

/// Forces a way: `active`, `rustup` or `debian`.
const OVERRIDE: &str = "COUNTERSIGN_WASM_TOOLCHAIN";

/// Debian's Rust for browsers, which is newer than the distribution's own. Its
/// cargo would need more libraries; the active one does.
const PACKAGES: &[&str] = &["rustc-web", "rust-web-src", "libstd-rust-web-dev"];

/// Packages with a version in their names, each a dependency of the one before.
const LIBRARIES: &[&str] = &["libstd-rust-web-", "libllvm"];

const WHAT_TO_DO: &str = "presets need Rust's wasm32-unknown-unknown target. One of these gives \
it:\n  rustup target add wasm32-unknown-unknown\n  apt-get update   (as root, on Debian, then again: \
cargo xtask presets)\nor build the presets elsewhere and copy catalog/*.wasm here";

/// A compiler that can build presets.
pub(crate) enum Toolchain {
    /// The active one.
    Active,
    /// Debian's, unpacked below this folder.
    Debian(PathBuf),
}

impl Toolchain {
    /// Finds one, or installs it.
    pub(crate) fn find() -> Result<Self> {
        match env::var(OVERRIDE).as_deref() {
            Err(_) | Ok("") => {}
            Ok("active") => return Ok(Self::Active),
            Ok("rustup") => {
                ensure!(add_target(), "rustup could not add {TARGET}");
                return Ok(Self::Active);
            }
            Ok("debian") => return debian().map(Self::Debian),
            Ok(other) => bail!("{OVERRIDE} must be active, rustup or debian, not {other}"),
        }
        if has_target() || (add_target() && has_target()) {
            return Ok(Self::Active);
        }
        eprintln!("the active Rust has no {TARGET}; trying Debian's packages");
        debian().map(Self::Debian).context(WHAT_TO_DO)
    }

    /// Builds these packages and answers with the folder of the core modules.
    pub(crate) fn build(
        &self,
        repository: &Path,
        workspace: &Path,
        target: &Path,
        packages: &[&str],
    ) -> Result<PathBuf> {
        let (mut command, target) = match self {
            Self::Active => (Command::new(cargo()), target.to_path_buf()),
            // Two compilers in one folder would rebuild everything each time.
            Self::Debian(root) => (debian_cargo(root)?, target.join("debian")),
        };
        command
            .args([
                "build",
                "--release",
                "--locked",
                "--target",
                TARGET,
                "--target-dir",
            ])
            .arg(&target)
            .args(packages.iter().flat_map(|package| ["-p", package]))
            .current_dir(workspace)
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                self.flags(repository)?.join("\u{1f}"),
            );
        if let Self::Debian(_) = self {
            command.arg("-Zbuild-std=std,panic_abort");
        }
        let status = command.status().context("cannot run cargo")?;
        ensure!(status.success(), "the presets do not build");
        Ok(target.join(TARGET).join("release"))
    }

    fn flags(&self, repository: &Path) -> Result<Vec<String>> {
        // Stack, data and what is allocated share one page of WebAssembly: an
        // instance is made for every call, and a second page costs it half as
        // much again. Half the page is several times what a description needs.
        let mut flags = vec!["-Clink-arg=-zstack-size=32768".to_string()];
        // The same bytes wherever it is built.
        let home = env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
            .context("there is no home folder")?;
        let mut places = vec![(repository.to_path_buf(), "/countersign"), (home, "/cargo")];
        if let Self::Debian(root) = self {
            places.push((root.clone(), "/rust"));
        }
        for (place, name) in places {
            flags.push(format!("--remap-path-prefix={}={name}", place.display()));
        }
        Ok(flags)
    }
}

fn rustc() -> OsString {
    env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

/// What `rustc --print` says.
fn rustc_prints(what: &[&str]) -> Option<PathBuf> {
    let output = Command::new(rustc())
        .arg("--print")
        .args(what)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| PathBuf::from(text.trim()))
}

fn has_target() -> bool {
    rustc_prints(&["target-libdir", "--target", TARGET])
        .and_then(|folder| fs::read_dir(folder).ok())
        .is_some_and(|mut entries| {
            entries.any(|entry| {
                entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
            })
        })
}

fn add_target() -> bool {
    Command::new("rustup")
        .args(["target", "add", TARGET])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

// ---- Debian --------------------------------------------------------------

/// Where downloads are kept, for every clone.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("COUNTERSIGN_CACHE_DIR") {
        return Ok(folder.into());
    }
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .map(|base| base.join("countersign"))
        .context("there is no home folder; set COUNTERSIGN_CACHE_DIR")
}

/// The folder with the unpacked packages; fetches them if it is not there.
fn debian() -> Result<PathBuf> {
    let cache = cache_folder()?;
    let ready = cache.join("debian-rust");
    if ready.join("usr/bin/rustc").exists() {
        return Ok(ready);
    }
    let work = cache.join(format!("debian-rust.{}", std::process::id()));
    let (packages, root) = (work.join("packages"), work.join("root"));
    fs::create_dir_all(&packages)
        .and_then(|()| fs::create_dir_all(&root))
        .with_context(|| format!("cannot create {}", work.display()))?;
    let unpacked = unpack(&packages, &root).and_then(|()| {
        fs::rename(&root, &ready).with_context(|| format!("cannot create {}", ready.display()))
    });
    // What is left is only downloads.
    let _ = fs::remove_dir_all(&work);
    unpacked.map(|()| ready)
}

fn unpack(packages: &Path, root: &Path) -> Result<()> {
    let mut names: Vec<String> = PACKAGES.iter().map(ToString::to_string).collect();
    names.extend(libraries()?);
    eprintln!("fetching {}", names.join(" "));
    let status = Command::new("apt-get")
        .args(["download", "--quiet"])
        .args(&names)
        .current_dir(packages)
        .status()
        .context("cannot run apt-get")?;
    ensure!(status.success(), "apt-get could not download Debian's Rust");
    for entry in fs::read_dir(packages)? {
        let package = entry?.path();
        let status = Command::new("dpkg")
            .arg("-x")
            .args([package.as_path(), root])
            .status()
            .context("cannot run dpkg")?;
        ensure!(
            status.success(),
            "dpkg could not unpack {}",
            package.display()
        );
    }
    Ok(())
}

/// The packages that carry a version in their names.
fn libraries() -> Result<Vec<String>> {
    let mut names = vec!["libstd-rust-web-dev".to_string()];
    for prefix in LIBRARIES {
        let output = Command::new("apt-cache")
            .args(["depends", "--important"])
            .arg(&names[names.len() - 1])
            .output()
            .context("cannot run apt-cache: this is no Debian")?;
        let name = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| {
                name.strip_prefix(prefix)
                    .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
            })
            .map(ToString::to_string)
            .context("apt knows no rustc-web; as root: apt-get update")?;
        names.push(name);
    }
    Ok(names.split_off(1))
}

fn debian_cargo(root: &Path) -> Result<Command> {
    let libraries = fs::read_dir(root.join("usr/lib"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|folder| {
            fs::read_dir(folder).is_ok_and(|entries| {
                entries.filter_map(Result::ok).any(|entry| {
                    entry
                        .file_name()
                        .to_string_lossy()
                        .starts_with("librustc_driver-")
                })
            })
        })
        .context("Debian's packages hold no compiler")?;
    let mut command = Command::new(cargo());
    command
        .env("RUSTC", root.join("usr/bin/rustc"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("LD_LIBRARY_PATH", libraries)
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker()?)
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN");
    Ok(command)
}

/// Debian's compiler has no linker of its own: rustup's, or an installed one.
fn linker() -> Result<PathBuf> {
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
    rustups
        .chain(installed)
        .find(|linker| linker.exists())
        .context("there is neither rust-lld nor wasm-ld; on Debian, as root: apt-get install lld")
}
