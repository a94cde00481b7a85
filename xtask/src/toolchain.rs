//! Where the compiler for `wasm32-unknown-unknown` comes from.
//!
//! Mostly the active toolchain has the target, or rustup can add it. Where
//! neither holds (a distribution's Rust, no way to rustup's servers), Debian's
//! packages of a newer Rust with its sources are unpacked into a cache folder
//! and the standard library is built along with the presets.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::presets::cargo;

const TARGET: &str = "wasm32-unknown-unknown";

/// Flags of every build.
const FLAGS: &[&str] = &[
    // An instance is made for every call: what it never touches costs nothing,
    // and a stack of one megabyte would lie between everything else.
    "-Clink-arg=-zstack-size=16384",
];

/// A compiler that can build presets.
pub(crate) enum Toolchain {
    /// The active one.
    Active,
}

impl Toolchain {
    pub(crate) fn find() -> Result<Self> {
        Ok(Self::Active)
    }

    /// Builds these packages and answers with the folder of the core modules.
    pub(crate) fn build(&self, workspace: &Path, target: &Path, names: &[&str]) -> Result<PathBuf> {
        let mut command = Command::new(cargo());
        command
            .arg("build")
            .args(["--release", "--locked", "--target", TARGET, "--target-dir"])
            .arg(target)
            .current_dir(workspace)
            .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
        for name in names {
            command.args(["-p", name]);
        }
        let status = command.status().context("cannot run cargo")?;
        ensure!(status.success(), "the presets do not build");
        Ok(target.join(TARGET).join("release"))
    }
}
