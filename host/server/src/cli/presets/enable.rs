//! `preset enable` and `preset disable`

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::Printer;

#[derive(Debug, Args)]
pub(in crate::cli) struct Name {
    /// A preset of the catalog, or its file there
    name: String,
}

pub(super) async fn run(
    preset: &Name,
    enabled: bool,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    let mut body = Map::new();
    body.insert("enabled".to_owned(), enabled.into());
    let preset = client.patch(&["presets", &preset.name], body).await?;
    let word = if enabled { "enabled" } else { "disabled" };
    printer.value(&preset, || {
        let field = |f: &str| preset.get(f).and_then(Value::as_str).unwrap_or_default();
        format!(
            "Preset {} {} {word} ({}).",
            field("name"),
            field("version"),
            field("digest")
        )
    })
}
