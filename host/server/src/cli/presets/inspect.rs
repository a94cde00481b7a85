//! `preset inspect`: of a running host's catalog, or a file here.

use std::path::Path;

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::Printer;

#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    /// A preset of the host's catalog, or the path of a .wasm file here
    name: String,
}

impl InspectArgs {
    /// Whether a file here is meant, for which no host is needed.
    pub(super) fn is_file(&self) -> bool {
        Path::new(&self.name).is_file()
    }
}

/// Inspects a component without a host.
pub(super) async fn file(args: &InspectArgs, printer: &Printer) -> Result<(), CliError> {
    let path = Path::new(&args.name).to_owned();
    // Compiling blocks.
    let inspection = tokio::task::spawn_blocking(move || {
        countersign_presets::inspect_file(
            &path,
            &Map::new(),
            countersign_presets::EngineConfig::default(),
        )
    });
    let inspection = inspection
        .await
        .map_err(CliError::new)?
        .map_err(CliError::new)?;
    let value = serde_json::to_value(&inspection).map_err(CliError::new)?;
    show(&value, printer)
}

pub(super) async fn of_the_host(
    args: &InspectArgs,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    show(&client.get(&["presets", &args.name]).await?, printer)
}

/// The short facts first, then the description as it is.
fn show(preset: &Value, printer: &Printer) -> Result<(), CliError> {
    let mut facts = preset.clone();
    let description = facts
        .as_object_mut()
        .and_then(|f| f.shift_remove("description"))
        .unwrap_or_default();
    if description.is_null() {
        return printer.fields(preset);
    }
    printer.value(preset, || {
        let rows = facts
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| {
                format!(
                    "{name}: {}",
                    value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned)
                )
            });
        let text = serde_json::to_string_pretty(&description).unwrap_or_default();
        format!("{}\n\n{text}", rows.collect::<Vec<_>>().join("\n"))
    })
}
