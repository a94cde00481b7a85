//! Why a preset could not be built.

use std::path::PathBuf;

const WHAT_TO_DO: &str = "presets need Rust's target wasm32-unknown-unknown, and it cannot be had \
here. One of these gives it:\n  rustup target add wasm32-unknown-unknown\n  apt-get update   (as \
root, on Debian; then try again)\nor build the preset on another machine and bring the .wasm here";

/// Why there is no component. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No Rust.
    #[error("cargo cannot be run ({0}): install Rust 1.95 or newer from https://rustup.rs")]
    NoCargo(std::io::Error),
    /// No compiler for WebAssembly.
    #[error("{WHAT_TO_DO}\n(tried last: {0})")]
    NoTarget(String),
    /// The variable that forces a way holds something else.
    #[error("{name} must be active, rustup or debian, not {value:?}")]
    BadOverride {
        /// The environment variable.
        name: &'static str,
        /// What it holds.
        value: String,
    },
    /// cargo does not understand the folder.
    #[error("{folder} is not a crate that cargo understands:\n{said}")]
    NotACrate {
        /// Where.
        folder: PathBuf,
        /// In cargo's words.
        said: String,
    },
    /// No crate there makes a core module.
    #[error(
        "{0} holds no preset: a preset's Cargo.toml says `[lib] crate-type = [\"cdylib\"]` (`preset new` writes one)"
    )]
    NoPreset(PathBuf),
    /// The compiler refused it; it has said why.
    #[error("the preset does not compile; the compiler says why above")]
    Compile,
    /// The module is not a preset.
    #[error(
        "{what} is no component for Countersign: {why}\nA preset calls nothing but the SDK: a WASI import comes from a dependency that wants files, clocks or randomness"
    )]
    Encode {
        /// Which.
        what: String,
        /// In the encoder's words.
        why: String,
    },
    /// A file or folder cannot be used.
    #[error("{what} {path}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// There is no home folder.
    #[error("there is no home folder to keep downloads in; set COUNTERSIGN_CACHE_DIR")]
    NoHome,
}

impl BuildError {
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { what, path, error }
    }
}
