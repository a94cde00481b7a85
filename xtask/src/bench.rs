//! `cargo xtask bench`: builds for speed, then lets the bench's own program
//! measure.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{presets, repository, setup};

/// A part that can be measured alone.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Part {
    /// Reads, writes, sweeps and starts on sled and on PostgreSQL.
    Vault,
}

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Measures only this
    part: Option<Part>,
    /// With how many connections sweeps and starts of the vault are measured
    #[arg(long, value_name = "N,N")]
    connections: Option<String>,
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
        postgres: true,
        ..Default::default()
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
    let mut vault = bench("vault");
    if let Some(counts) = &options.connections {
        vault.args(["--connections", counts]);
    }
    let parts = match options.part {
        None => vec![run, bench("languages"), vault],
        Some(Part::Vault) => vec![vault],
    };
    for mut part in parts {
        ensure!(
            part.status()?.success(),
            "the measurement failed; see above"
        );
    }
    Ok(())
}
