//! `preset build`: from the crate here to a component.

use std::path::PathBuf;

use clap::Args;
use countersign_author::project::{self, Built};

use crate::cli::CliError;
use crate::cli::output::Printer;

#[derive(Debug, Args)]
pub(in crate::cli) struct BuildArgs {
    /// The crate's folder, or a workspace of several
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Where to put NAME-VERSION.wasm [default: DIR/dist]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &BuildArgs, printer: &Printer) -> Result<(), CliError> {
    let built = project::build(&args.folder, args.out.as_deref()).map_err(CliError::new)?;
    printer.value(&built, || {
        let texts: Vec<String> = built.iter().map(text).collect();
        texts.join("\n\n")
    })
}

fn text(built: &Built) -> String {
    let list = |names: &[String]| {
        if names.is_empty() {
            "nothing".to_owned()
        } else {
            names.join(", ")
        }
    };
    format!(
        "{} {}  {}\nfile     {}\nsize     {:.1} kB\nsha-256  {}\nimports  {}\nexports  {}",
        built.name,
        built.version,
        if built.written {
            "written"
        } else {
            "unchanged"
        },
        built.file.display(),
        built.size as f64 / 1000.0,
        built.digest,
        list(&built.imports),
        list(&built.exports),
    )
}
