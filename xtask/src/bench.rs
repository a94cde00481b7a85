//! `cargo xtask bench`: builds for speed, then lets the bench's own program
//! measure.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{presets, repository, setup};

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Measured seconds for each row
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Rounds; the median is shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Writes the figures as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Builds, measures and prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run(setup::Wanted {
        python: false,
        browser: false,
        registry: false,
    })?;
    presets::run(&presets::Options::default())?;
    presets::run(&presets::Options {
        examples: true,
        ..Default::default()
    })?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository()).args([
        "build",
        "--release",
        "--locked",
        "-p",
        "countersign",
        "-p",
        "countersign-benches",
    ]);
    ensure!(cargo.status()?.success(), "the build failed; see above");
    let bench = |part: &str| {
        let mut bench = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        bench
            .current_dir(repository())
            .args(["run", "--quiet", "--release", "--locked"])
            .args(["-p", "countersign-benches", "--", part]);
        bench
    };
    let mut run = bench("run");
    run.args([
        "--seconds",
        &options.seconds.to_string(),
        "--rounds",
        &options.rounds.to_string(),
    ]);
    if let Some(file) = &options.json {
        let file = std::path::absolute(file)?;
        run.arg("--json").arg(file);
    }
    for mut part in [run, bench("languages")] {
        ensure!(
            part.status()?.success(),
            "the measurement failed; see above"
        );
    }
    Ok(())
}
