//! `preset …`

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::CliError;
use super::client::Client;
use super::output::Printer;
use super::providers::{Filter, put_text};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the host's catalog
    List(Filter),
    /// Show what a preset says of itself and asks for; takes a file, too
    Inspect(InspectArgs),
    /// Let providers use a preset
    Enable(Name),
    /// Take a preset away from its providers
    Disable(Name),
    /// Approve what a preset asks for, as it is now
    Approve(Approve),
}

#[derive(Debug, Args)]
pub(super) struct Name {
    /// A preset of the catalog, or its file there
    name: String,
}

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// A preset of the host's catalog, or the path of a .wasm file here
    name: String,
}

#[derive(Debug, Args)]
pub(super) struct Approve {
    /// The preset
    name: String,
    /// Only for this provider
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
}

impl InspectArgs {
    /// Whether a file here is meant, for which no host is needed.
    pub(super) fn is_file(&self) -> bool {
        Path::new(&self.name).is_file()
    }
}

/// Inspects a component without a host.
pub(super) async fn inspect_file(args: &InspectArgs, printer: &Printer) -> Result<(), CliError> {
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

impl Verb {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::List(filter) => {
                let list = client.list(&["presets"], &filter.query()).await?;
                let columns = [
                    ("NAME", "name"),
                    ("VERSION", "version"),
                    ("STATE", "state"),
                    ("ENABLED", "enabled"),
                    ("USED BY", "providers"),
                    ("WAITING", "waiting"),
                    ("REASON", "reason"),
                ];
                let empty = "The catalog is empty. Put NAME-VERSION.wasm files into the host's catalog folder \
                             (`cargo xtask presets` builds them).";
                printer.list(&list, &columns, empty)
            }
            Self::Inspect(args) => show(&client.get(&["presets", &args.name]).await?, printer),
            Self::Enable(name) => enable(client, printer, &name.name, true).await,
            Self::Disable(name) => enable(client, printer, &name.name, false).await,
            Self::Approve(approve) => {
                let mut body = Map::new();
                put_text(&mut body, "provider", approve.provider);
                let done = client
                    .post(&["presets", &approve.name, "approve"], body)
                    .await?;
                printer.value(&done, || approved_in_words(&done))
            }
        }
    }
}

async fn enable(
    client: &Client,
    printer: &Printer,
    name: &str,
    enabled: bool,
) -> Result<(), CliError> {
    let mut body = Map::new();
    body.insert("enabled".to_owned(), enabled.into());
    let preset = client.patch(&["presets", name], body).await?;
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

fn approved_in_words(done: &Value) -> String {
    let approved = done
        .get("approved")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    if approved.is_empty() {
        return "Nothing waits for an approval.".into();
    }
    let mut lines = Vec::new();
    for one in approved {
        let field = |f: &str| one.get(f).and_then(Value::as_str).unwrap_or_default();
        lines.push(format!(
            "Approved for provider {}: version {} ({})",
            field("provider"),
            field("version"),
            field("hash")
        ));
        for (sign, list) in [("+", "added"), ("-", "removed")] {
            let entries = one
                .get(list)
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            lines.extend(
                entries
                    .filter_map(Value::as_str)
                    .map(|e| format!("  {sign} {e}")),
            );
        }
    }
    lines.join("\n")
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
