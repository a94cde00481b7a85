//! `preset test`: the conformance kit.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use countersign_author::kit::{self, Report, Table};
use countersign_author::project;

use crate::cli::output::Printer;
use crate::cli::{CliError, OutputFormat};

#[derive(Debug, Args)]
#[command(after_help = "\
The provider in a box answers as the preset describes it; what the vendor really \
answers, and what each tool needs, you write into the table (scopes.toml). \
Exit codes: 0 all hold, 1 something does not.")]
pub(in crate::cli) struct TestArgs {
    /// A component, or the folder of a crate to build first
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    preset: PathBuf,
    /// The table; several for several settings [default: scopes.toml and scopes-*.toml beside Cargo.toml]
    #[arg(long, value_name = "FILE")]
    table: Vec<PathBuf>,
    /// How the report is written [default: text, or json with --output json]
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For continuous integration.
    Junit,
    /// For programs.
    Json,
}

/// A component, and the tables it is held against.
pub(super) struct Subject {
    pub(super) component: PathBuf,
    pub(super) tables: Vec<PathBuf>,
}

pub(super) async fn run(args: TestArgs, printer: &Printer) -> Result<(), CliError> {
    let mut reports = Vec::new();
    for subject in subjects(&args.preset, &args.table)? {
        if subject.tables.is_empty() {
            reports.push(report(&subject.component, Table::default()).await?);
        }
        for table in &subject.tables {
            let table = Table::read(table).map_err(CliError::new)?;
            reports.push(report(&subject.component, table).await?);
        }
    }
    let format = args.format.unwrap_or(match printer.format() {
        OutputFormat::Json => Format::Json,
        OutputFormat::Table => Format::Text,
    });
    printer.text(&match format {
        Format::Text => {
            let texts: Vec<String> = reports.iter().map(Report::text).collect();
            texts.join("\n\n")
        }
        Format::Junit => kit::junit(&reports),
        Format::Json => serde_json::to_string_pretty(&reports).map_err(CliError::new)?,
    })?;
    let failed: usize = reports.iter().map(|r| r.counts().1).sum();
    match failed {
        0 => Ok(()),
        1 => Err(CliError::new("one check does not hold")),
        n => Err(CliError::new(format!("{n} checks do not hold"))),
    }
}

async fn report(component: &Path, table: Table) -> Result<Report, CliError> {
    kit::run(component, table)
        .await
        .map_err(|e| CliError::new(format!("{}: {e}", component.display())))
}

/// What a path names: a component as it is, or what a folder builds.
pub(super) fn subjects(path: &Path, tables: &[PathBuf]) -> Result<Vec<Subject>, CliError> {
    if path.is_file() {
        return Ok(vec![Subject {
            component: path.to_owned(),
            tables: tables.to_vec(),
        }]);
    }
    if !path.is_dir() {
        return Err(CliError::new(format!(
            "{} is neither a component nor a folder; `countersign preset new NAME` makes one",
            path.display()
        )));
    }
    let built = project::build(path, None).map_err(CliError::new)?;
    let subject = |built: project::Built| Subject {
        tables: if tables.is_empty() {
            tables_in(&built.folder)
        } else {
            tables.to_vec()
        },
        component: built.file,
    };
    Ok(built.into_iter().map(subject).collect())
}

/// `scopes.toml` and `scopes-*.toml`, by name.
fn tables_in(folder: &Path) -> Vec<PathBuf> {
    let is_table = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        name == "scopes.toml" || (name.starts_with("scopes-") && name.ends_with(".toml"))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(is_table)
        .collect();
    found.sort();
    found
}
