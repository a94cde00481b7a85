//! Which compiler, which crates, and the call of cargo.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::debian;
use crate::error::BuildError;
use crate::wrapper;

const TARGET: &str = "wasm32-unknown-unknown";

/// Forces a way: `active`, `rustup` or `debian`.
const OVERRIDE: &str = "COUNTERSIGN_WASM_TOOLCHAIN";

/// A compiler that can build presets.
#[derive(Debug)]
pub struct Toolchain(Kind);

#[derive(Debug)]
enum Kind {
    /// The active one.
    Active,
    /// Debian's, unpacked below this folder.
    Debian(PathBuf),
}

/// What to build.
#[derive(Debug)]
pub struct Order<'a> {
    /// The folder with the `Cargo.toml` of the workspace.
    pub workspace: &'a Path,
    /// A folder that all sources lie below. Its path stays out of the bytes.
    pub sources: &'a Path,
    /// Where cargo keeps what it makes.
    pub target: &'a Path,
    /// Which of its crates.
    pub packages: &'a [&'a str],
    /// The lock file must be there and suit.
    pub locked: bool,
}

/// A crate that becomes a preset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresetCrate {
    /// As its `Cargo.toml` says.
    pub name: String,
    /// As its `Cargo.toml` says.
    pub version: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The core module's file name, as cargo makes it.
    pub module: String,
}

impl PresetCrate {
    /// `NAME-VERSION.wasm`, as catalogs want it.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}-{}.wasm", self.name, self.version)
    }
}

/// The crates of a workspace that make core modules, by name.
///
/// # Errors
/// [`BuildError::NoCargo`] or [`BuildError::NotACrate`].
pub fn crates(workspace: &Path) -> Result<Vec<PresetCrate>, BuildError> {
    let manifest = workspace.join("Cargo.toml");
    let output = Command::new(cargo())
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--manifest-path",
        ])
        .arg(&manifest)
        .output()
        .map_err(BuildError::NoCargo)?;
    let not_a_crate = |said: String| BuildError::NotACrate {
        folder: workspace.to_owned(),
        said: said.trim().to_owned(),
    };
    if !output.status.success() {
        return Err(not_a_crate(String::from_utf8_lossy(&output.stderr).into()));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|e| not_a_crate(e.to_string()))?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let mut found: Vec<PresetCrate> = packages.filter_map(preset_crate).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn preset_crate(package: &serde_json::Value) -> Option<PresetCrate> {
    let is_cdylib = |target: &&serde_json::Value| {
        let types = target["crate_types"].as_array();
        types.is_some_and(|types| types.iter().any(|t| t == "cdylib"))
    };
    let target = package["targets"].as_array()?.iter().find(is_cdylib)?;
    Some(PresetCrate {
        name: package["name"].as_str()?.to_owned(),
        version: package["version"].as_str()?.to_owned(),
        folder: Path::new(package["manifest_path"].as_str()?)
            .parent()?
            .to_owned(),
        module: format!("{}.wasm", target["name"].as_str()?.replace('-', "_")),
    })
}

/// The cargo to run: the one that runs this, if one does.
#[must_use]
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

impl Toolchain {
    /// Finds a compiler, or gets one: the active one, with its target added by
    /// rustup if need be; else Debian's packages, unpacked into a cache folder.
    ///
    /// # Errors
    /// [`BuildError::NoTarget`] says what to do.
    pub fn find() -> Result<Self, BuildError> {
        let no_target = |tried: &str| BuildError::NoTarget(tried.to_owned());
        let kind = match env::var(OVERRIDE).as_deref() {
            Err(_) | Ok("") if has_target() || (add_target() && has_target()) => Kind::Active,
            Err(_) | Ok("") => {
                eprintln!("the active Rust has no {TARGET}; trying Debian's packages");
                Kind::Debian(debian::unpacked()?)
            }
            Ok("active") => Kind::Active,
            Ok("rustup") if add_target() => Kind::Active,
            Ok("rustup") => return Err(no_target("rustup target add")),
            Ok("debian") => Kind::Debian(debian::unpacked()?),
            Ok(other) => {
                return Err(BuildError::BadOverride {
                    name: OVERRIDE,
                    value: other.to_owned(),
                });
            }
        };
        Ok(Self(kind))
    }

    /// Builds, and answers with the folder of the core modules.
    ///
    /// # Errors
    /// [`BuildError::Compile`]; the compiler has written to standard error.
    pub fn build(&self, order: &Order<'_>) -> Result<PathBuf, BuildError> {
        let (mut command, target) = match &self.0 {
            Kind::Active => (Command::new(cargo()), order.target.to_path_buf()),
            // Two compilers in one folder would rebuild everything each time.
            Kind::Debian(root) => (debian::cargo(root)?, order.target.join("debian")),
        };
        fs::create_dir_all(&target).map_err(BuildError::io("cannot create", &target))?;
        command
            .args(["build", "--release", "--target", TARGET, "--target-dir"])
            .arg(&target)
            .args(order.locked.then_some("--locked"))
            .args(order.packages.iter().flat_map(|package| ["-p", package]))
            .current_dir(order.workspace)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags(order)?.join("\u{1f}"))
            .env("RUSTC_WRAPPER", wrapper::install(&target)?);
        if let Kind::Debian(_) = self.0 {
            command.arg("-Zbuild-std=std,panic_abort");
        }
        let status = command.status().map_err(BuildError::NoCargo)?;
        if !status.success() {
            return Err(BuildError::Compile);
        }
        Ok(target.join(TARGET).join("release"))
    }

    fn flags(&self, order: &Order<'_>) -> Result<Vec<String>, BuildError> {
        // Stack, data and what is allocated share one page of WebAssembly: an
        // instance is made for every call, and a second page costs it half as
        // much again. Half the page is several times what a description needs.
        let mut flags = vec!["-Clink-arg=-zstack-size=32768".to_string()];
        // The same bytes wherever it is built.
        let home = env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
            .ok_or(BuildError::NoHome)?;
        let mut places = vec![(home, "/cargo"), (order.sources.to_path_buf(), "/source")];
        if let Kind::Debian(root) = &self.0 {
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
pub(crate) fn rustc_prints(what: &[&str]) -> Option<PathBuf> {
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
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
