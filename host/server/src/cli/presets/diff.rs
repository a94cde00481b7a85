//! `preset diff`: what one version may do that another may not.

use std::path::Path;

use clap::Args;
use countersign_presets::signature::Trust;
use countersign_presets::{PermissionDifference, PermissionSet};
use serde_json::{Map, Value, json};

use super::approve::difference_lines;
use super::list::signed_by;
use super::{inspect, replay};
use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::{Printer, cell, text};
use crate::replay::Replay;

#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// A preset or a file of the host's catalog, or the path of a .wasm file here
    old: String,
    /// The same; if absent, what waits is compared with what serves
    new: Option<String>,
    /// Resolve names for this provider's record
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
    /// Also tell what would be decided differently over recorded calls: a file of `preset replay
    /// export`, or a server of the host; all servers of the provider if nothing is named
    #[arg(long, value_name = "FILE|SERVER", num_args = 0..=1, default_missing_value = "")]
    replay: Option<String>,
    /// Settings to look at files under, a JSON object
    #[arg(
        long,
        value_name = "JSON",
        default_value = "{}",
        hide_default_value = true
    )]
    settings: String,
}

impl DiffArgs {
    /// Whether both are files here, for which no host is needed.
    pub(super) fn is_local(&self) -> bool {
        let is_file = |name: &String| Path::new(name).is_file();
        is_file(&self.old) && self.new.as_ref().is_some_and(is_file)
    }

    fn settings(&self) -> Result<Map<String, Value>, CliError> {
        crate::registry::strict_json(self.settings.as_bytes())
            .map_err(|e| CliError(format!("--settings: {e}")))
    }
}

/// Two files, without a host.
pub(super) async fn local(args: &DiffArgs, printer: &Printer) -> Result<(), CliError> {
    let new = args.new.as_deref().unwrap_or_default();
    let old = of_file(&args.old, args).await?;
    let new = of_file(new, args).await?;
    let tried = match &args.replay {
        None => None,
        Some(source) => {
            let files = (args.old.as_str(), args.new.as_deref().unwrap_or_default());
            Some(replay::of_files(files, source, args.settings()?).await?)
        }
    };
    show(&old, &new, tried, printer)
}

/// At least one of them on the host.
pub(super) async fn run(
    args: &DiffArgs,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    let Some(new) = &args.new else {
        return waiting(args, client, printer).await;
    };
    let old = of(&args.old, args, client).await?;
    let new = of(new, args, client).await?;
    let tried = match &args.replay {
        None => None,
        Some(server) => {
            let versions = (Some(old.name.as_str()), Some(new.name.as_str()));
            let provider = args.provider.as_deref();
            Some(replay::on_the_host(&new.preset, versions, provider, server, client).await?)
        }
    };
    show(&old, &new, tried, printer)
}

/// A version and what it may do.
struct Side {
    /// The file's name.
    name: String,
    preset: String,
    permissions: PermissionSet,
}

async fn of(name: &str, args: &DiffArgs, client: &Client) -> Result<Side, CliError> {
    if Path::new(name).is_file() {
        return of_file(name, args).await;
    }
    let mut query = Vec::new();
    if let Some(provider) = &args.provider {
        query.push(("provider", provider.clone()));
    }
    let found = client.get_with(&["presets", name], &query).await?;
    side(
        &found,
        "give --provider NAME to look at it under that provider's settings",
    )
}

async fn of_file(path: &str, args: &DiffArgs) -> Result<Side, CliError> {
    let inspection = inspect::look_at(path, args.settings()?, Trust::off()).await?;
    let value = serde_json::to_value(&inspection).map_err(CliError::new)?;
    side(
        &value,
        "give --settings JSON to look at it under settings it accepts",
    )
}

fn side(found: &Value, remedy: &str) -> Result<Side, CliError> {
    let permissions = found.get("permissions").cloned().unwrap_or_default();
    if permissions.is_null() {
        return Err(CliError(format!(
            "{} says what it may do only under settings ({}): {remedy}",
            cell(found, "file"),
            cell(found, "reason")
        )));
    }
    Ok(Side {
        name: cell(found, "file"),
        preset: match cell(found, "preset") {
            preset if preset == "-" => cell(found, "name"),
            preset => preset,
        },
        permissions: serde_json::from_value(permissions).map_err(CliError::new)?,
    })
}

fn show(old: &Side, new: &Side, tried: Option<Replay>, printer: &Printer) -> Result<(), CliError> {
    let difference = PermissionSet::difference(Some(&old.permissions), &new.permissions);
    if !difference.is_empty() || tried.as_ref().is_some_and(|t| t.changed > 0) {
        printer.differs();
    }
    let value = json!({
        "old": old.name, "new": new.name, "difference": difference, "replay": tried,
    });
    printer.value(&value, || {
        let mut text = format!("{} → {}\n{}", old.name, new.name, in_words(&difference));
        if let Some(tried) = &tried {
            text.push_str("\n\n");
            text.push_str(&replay::in_words(tried));
        }
        text
    })
}

/// What an approver wants to know of a difference.
fn in_words(difference: &PermissionDifference) -> String {
    if difference.is_empty() {
        return "  Both may do the same.".into();
    }
    let value = serde_json::to_value(difference).unwrap_or_default();
    let mut lines = difference_lines(&value);
    if !difference.asks_for_more() {
        lines.push("  It may do nothing more: it swaps by itself where auto_update allows.".into());
    }
    lines.join("\n")
}

/// What waits, against what serves, for each provider of the preset.
async fn waiting(args: &DiffArgs, client: &Client, printer: &Printer) -> Result<(), CliError> {
    let found = client.get(&["presets", &args.old]).await?;
    let preset = cell(&found, "name");
    let waiting = waiting_of(&found, args.provider.as_ref());
    let mut tried = Vec::new();
    if let Some(server) = &args.replay {
        for binding in &waiting {
            let (provider, file) = (cell(binding, "provider"), cell(binding, "waiting.file"));
            let versions = (None, Some(file.as_str()));
            let provider = Some(provider.as_str());
            tried.push(replay::on_the_host(&preset, versions, provider, server, client).await?);
        }
    }
    if !waiting.is_empty() {
        printer.differs();
    }
    printer.value(&json!({ "waiting": waiting, "replay": tried }), || {
        if waiting.is_empty() {
            return "Nothing waits for an approval.".into();
        }
        let mut blocks: Vec<String> = waiting.iter().map(|b| waits(&args.old, b)).collect();
        for (block, tried) in blocks.iter_mut().zip(&tried) {
            block.push('\n');
            block.push_str(&replay::in_words(tried));
        }
        blocks.join("\n\n")
    })
}

/// Of a preset's bindings, or of one provider's, those for which a version
/// waits.
pub(super) fn waiting_of<'a>(preset: &'a Value, provider: Option<&String>) -> Vec<&'a Value> {
    let bindings = preset.get("bindings").and_then(Value::as_array);
    let waits = |binding: &&Value| binding.get("waiting").is_some_and(|w| !w.is_null());
    let is_of = |binding: &&Value| provider.is_none_or(|p| cell(binding, "provider") == *p);
    let bindings = bindings.into_iter().flatten();
    bindings.filter(waits).filter(is_of).collect()
}

/// What waits for one provider, and how to approve just that.
pub(super) fn waits(preset: &str, binding: &Value) -> String {
    let provider = cell(binding, "provider");
    let mut lines = vec![format!(
        "Provider {provider}: {} serves, {} waits ({})",
        match cell(binding, "version") {
            version if version == "-" => "nothing".into(),
            version => version,
        },
        cell(binding, "waiting.version"),
        cell(binding, "waiting.file"),
    )];
    let waiting = binding.get("waiting").unwrap_or(&Value::Null);
    lines.push(format!("  Signed by: {}", signed_by(waiting)));
    if let Some(warning) = waiting.pointer("/origin/warning") {
        lines.push(format!("  WARNING: {}", text(warning)));
    }
    let difference = waiting.get("difference");
    let entries = difference.map(difference_lines).unwrap_or_default();
    if entries.is_empty() {
        lines.push("  It asks for what serves now has, too.".into());
    }
    lines.extend(entries);
    lines.push(format!(
        "  Approve just this: countersign preset approve {preset} --provider {provider} --hash {}",
        cell(binding, "waiting.hash")
    ));
    lines.join("\n")
}
