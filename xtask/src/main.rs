//! Chores of this repository, run as `cargo xtask …`.

mod bench;
mod demo;
mod docs;
mod languages;
mod presets;
mod setup;
mod test;
#[cfg(test)]
mod wit;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of this repository")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Builds `providers/*` into components in `catalog/`.
    Presets(presets::Options),
    /// Brings what the demo and the tests need from outside: Node packages, the
    /// Python SDK, Chromium, an OCI registry.
    Setup,
    /// Two people, their agents and a vendor, on this machine; then goes on
    /// serving.
    Demo(demo::Options),
    /// Brings what is missing and runs every test.
    Test,
    /// Writes the reference of the WIT from its comments.
    Docs(docs::Options),
    /// Measures direct calls, a bare proxy and Countersign in one run.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    if let Some(done) = countersign_toolchain::wrapper::run_if_called() {
        return done;
    }
    let outcome = match Cli::parse().chore {
        Chore::Presets(options) => presets::run(&options),
        Chore::Setup => setup::run(setup::Wanted {
            python: true,
            browser: true,
            registry: true,
            postgres: true,
        })
        .map(|_| ()),
        Chore::Demo(options) => demo::run(&options),
        Chore::Test => test::run(),
        Chore::Docs(options) => docs::run(&options),
        Chore::Bench(options) => bench::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository whose chore this is. Asked at run time: clones that share a
/// target folder share this binary as well.
fn repository() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf(),
        PathBuf::from,
    );
    here.parent()
        .map_or_else(|| here.clone(), Path::to_path_buf)
}
