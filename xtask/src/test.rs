//! `cargo xtask test`: every test there is.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use countersign_toolchain::cargo;

use crate::presets;
use crate::setup::{self, Wanted, say};

/// Runs them all; the first stage that fails ends it.
pub(crate) fn run() -> Result<()> {
    let ready = setup::run(Wanted {
        python: true,
        browser: true,
        registry: true,
        postgres: true,
    })?;
    let repository = crate::repository();

    stage("presets", || presets::run(&presets::Options::default()))?;
    if repository
        .join("tests/fixtures/presets/Cargo.toml")
        .exists()
    {
        stage("components that tests run the host against", || {
            presets::run(&presets::Options {
                fixtures: true,
                ..Default::default()
            })
        })?;
    }
    stage("presets in other languages", || {
        presets::run(&presets::Options {
            examples: true,
            ..Default::default()
        })
    })?;
    stage("presets' own tests", || {
        must(
            Command::new(cargo())
                .args(["test", "--locked", "--workspace"])
                .arg("--target-dir")
                .arg(presets::target_folder(&repository, false).join("native"))
                .current_dir(repository.join("providers")),
        )
    })?;
    stage("building the host and all tests", || {
        // Programs too: the end-to-end tests run them.
        must(workspace(&repository, "build").arg("--all-targets"))
    })?;
    stage("counterparts against each other", || {
        must(
            Command::new(&ready.node)
                .args(["--test", "selftest.mjs"])
                .current_dir(&ready.counterparts),
        )
    })?;
    let mut tests = workspace(&repository, "test");
    if let Some(chromium) = &ready.chromium {
        tests.env("COUNTERSIGN_CHROMIUM", chromium);
    }
    stage("unit, integration and end-to-end tests", || {
        must(tests.arg("--no-fail-fast"))
    })?;
    println!("All tests passed.");
    Ok(())
}

/// A cargo command over the whole workspace.
fn workspace(repository: &Path, verb: &str) -> Command {
    let mut command = Command::new(cargo());
    command
        .args([verb, "--locked", "--workspace"])
        .current_dir(repository);
    command
}

fn must(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time that a stage took, for the person who waits"
)]
fn stage(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    say(name);
    let start = SystemTime::now();
    run().with_context(|| format!("failed: {name}"))?;
    let took = start.elapsed().unwrap_or(Duration::ZERO).as_secs();
    say(&format!("{name}: done in {took} s"));
    Ok(())
}
