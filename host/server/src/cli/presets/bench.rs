//! `preset bench`: what one call costs.

use std::path::PathBuf;

use clap::Args;
use countersign_author::bench::{self, Figures};
use countersign_author::kit::Table;

use super::test::subjects;
use crate::cli::CliError;
use crate::cli::output::Printer;

#[derive(Debug, Args)]
pub(in crate::cli) struct BenchArgs {
    /// A component, or the folder of a crate to build first
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    preset: PathBuf,
    /// The table whose first case is called; tools/list without one
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// How many calls
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    calls: u32,
}

pub(super) fn run(args: BenchArgs, printer: &Printer) -> Result<(), CliError> {
    let mut figures = Vec::new();
    for subject in subjects(&args.preset, args.table.as_slice())? {
        let table = subject
            .tables
            .first()
            .map(|path| Table::read(path))
            .transpose();
        let table = table.map_err(CliError::new)?.unwrap_or_default();
        figures.push(bench::run(&subject.component, table, args.calls).map_err(CliError::new)?);
    }
    printer.value(&figures, || {
        let texts: Vec<String> = figures.iter().map(Figures::text).collect();
        texts.join("\n\n")
    })
}
