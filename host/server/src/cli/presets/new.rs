//! `preset new`: a project to begin with.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use countersign_author::project::{self, Template};
use countersign_core::ports::Clock as _;

use crate::cli::CliError;
use crate::cli::output::Printer;
use crate::surroundings::SystemClock;

#[derive(Debug, Args)]
pub(in crate::cli) struct NewArgs {
    /// The preset's name; a folder of that name is made
    name: String,
    /// What to begin with
    #[arg(long, value_enum, default_value_t = Kind::Data)]
    template: Kind,
    /// Where to make the folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// What a project begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Addresses, scopes and tools: ten lines, nothing that runs.
    Data,
    /// The same, and a decision that reads a call's arguments.
    Code,
}

pub(super) fn run(args: &NewArgs, printer: &Printer) -> Result<(), CliError> {
    let template = match args.template {
        Kind::Data => Template::Data,
        Kind::Code => Template::Code,
    };
    let now = SystemClock::default().now().to_string();
    let today = now.split('T').next().unwrap_or(&now);
    let made = project::create(&args.name, template, &args.dir, today).map_err(CliError::new)?;
    printer.value(&made, || {
        format!(
            "Made {folder}: {files}, and the SDK in sdk/.\n\n\
             Next:\n  cd {folder}\n  countersign preset test\n\n\
             The first build fetches wit-bindgen and miniserde from crates.io; later ones need no network.",
            folder = made.folder.display(),
            files = made.files.join(", "),
        )
    })
}
