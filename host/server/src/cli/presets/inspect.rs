//! `preset inspect`: of a running host's catalog, or a file here.

use std::path::Path;

use clap::Args;
use countersign_presets::signature::Trust;
use countersign_presets::{EngineConfig, Inspection, PermissionSet};
use serde_json::{Map, Value};

use super::described;
use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::{Printer, cell, text};
use crate::config::Config;

#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    /// A preset of the host's catalog, or the path of a .wasm file here
    name: String,
    /// Settings to look at a file under, a JSON object
    #[arg(
        long,
        value_name = "JSON",
        default_value = "{}",
        hide_default_value = true
    )]
    settings: String,
    /// Resolve what a preset of the host may do for this provider's record
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
}

impl InspectArgs {
    /// Whether a file here is meant, for which no host is needed.
    pub(super) fn is_file(&self) -> bool {
        Path::new(&self.name).is_file()
    }
}

/// Looks at a component under these settings.
pub(super) async fn look_at(
    path: &str,
    settings: Map<String, Value>,
    trust: Trust,
) -> Result<Inspection, CliError> {
    let file = Path::new(path).to_owned();
    // Compiling blocks.
    let looked = tokio::task::spawn_blocking(move || {
        countersign_presets::inspect_file_with(&file, &settings, EngineConfig::default(), &trust)
    });
    let looked = looked.await.map_err(CliError::new)?;
    looked.map_err(|e| CliError(format!("{path}: {e}")))
}

/// Inspects a component without a host. Whose signatures count is what the
/// configuration says, if there is one here.
pub(super) async fn file(
    args: &InspectArgs,
    config: &Path,
    printer: &Printer,
) -> Result<(), CliError> {
    let trust = match config.exists() {
        true => Config::load(config).map_err(CliError::new)?.presets.trust,
        false => Trust::default(),
    };
    let settings = crate::registry::strict_json(args.settings.as_bytes())
        .map_err(|e| CliError(format!("--settings: {e}")))?;
    let inspection = look_at(&args.name, settings, trust).await?;
    let value = serde_json::to_value(&inspection).map_err(CliError::new)?;
    show(&value, printer)
}

pub(super) async fn of_the_host(
    args: &InspectArgs,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    let mut query = Vec::new();
    if let Some(provider) = &args.provider {
        query.push(("provider", provider.clone()));
    }
    let found = client.get_with(&["presets", &args.name], &query).await?;
    show(&found, printer)
}

/// The short facts first, then what it may do and for whom, then what it says of
/// itself.
fn show(preset: &Value, printer: &Printer) -> Result<(), CliError> {
    printer.value(preset, || {
        let mut facts = preset.as_object().cloned().unwrap_or_default();
        let mut take = |name: &str| facts.shift_remove(name).unwrap_or_default();
        let (description, permissions, bindings) =
            (take("description"), take("permissions"), take("bindings"));
        // A line for each thing that is known of where it comes from.
        if let Value::Object(origin) = take("origin") {
            let known = origin.into_iter().filter(|(_, value)| !value.is_null());
            facts.extend(known.map(|(name, value)| (label(&name).to_owned(), value)));
        }
        let width = facts.keys().map(|n| n.chars().count()).max().unwrap_or(0);
        let rows = facts
            .iter()
            .map(|(name, value)| format!("{name:<width$}  {}", text(value)));
        let mut blocks = vec![rows.collect::<Vec<_>>().join("\n")];
        if let Ok(set) = serde_json::from_value::<PermissionSet>(permissions) {
            blocks.push(format!("It may:\n{}", in_words(&set)));
        }
        for binding in bindings.as_array().into_iter().flatten() {
            blocks.push(binding_in_words(&cell(preset, "name"), binding));
        }
        if !description.is_null() {
            blocks.push(format!(
                "It says of itself (all of it with --output json):\n{}",
                described::in_words(&description)
            ));
        }
        blocks.join("\n\n")
    })
}

/// What a fact of the origin is called between other facts.
fn label(member: &str) -> &str {
    match member {
        "publisher" => "signed_by",
        "key" => "signed_with",
        other => other,
    }
}

/// One line for each kind that has entries.
fn in_words(set: &PermissionSet) -> String {
    let kinds: Vec<_> = set.kinds().filter(|(_, e)| !e.is_empty()).collect();
    if kinds.is_empty() {
        return "  nothing".into();
    }
    let width = kinds.iter().map(|(kind, _)| kind.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for (kind, entries) in kinds {
        let mut kind = kind;
        for entry in entries {
            lines.push(format!(
                "  {kind:<width$}  {}",
                text(&entry.as_str().into())
            ));
            kind = "";
        }
    }
    lines.join("\n")
}

fn binding_in_words(preset: &str, binding: &Value) -> String {
    let mut lines = Vec::new();
    if binding.get("waiting").is_some_and(|w| !w.is_null()) {
        lines.push(super::diff::waits(preset, binding));
    } else {
        let version = match cell(binding, "version") {
            version if version == "-" => "no version".into(),
            version => version,
        };
        lines.push(format!(
            "Provider {}: {version} serves",
            cell(binding, "provider")
        ));
    }
    for (name, said) in [
        ("pinned", "  pinned to"),
        ("set_aside", "  gone back from"),
        ("refusals", "  not serving"),
    ] {
        match binding.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::Array(list)) => {
                lines.extend(list.iter().map(|one| format!("{said}: {}", text(one))));
            }
            Some(one) => lines.push(format!("{said} {}", text(one))),
        }
    }
    lines.join("\n")
}
