//! `preset rollback|pin|unpin|floor|revoke`: which version serves.

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::{Printer, cell, text};
use crate::cli::providers::put_text;

#[derive(Debug, Args)]
pub(in crate::cli) struct RollbackArgs {
    /// The preset
    name: String,
    /// The version to go back to; the one before if absent
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Only for this provider
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
    /// Approves that version, too, if it is what has this hash
    #[arg(long, value_name = "HASH")]
    hash: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PinArgs {
    /// The preset
    name: String,
    /// As the file name says, like 1.2.0
    #[arg(value_name = "VERSION")]
    chosen: String,
    /// Only for this provider
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
    /// Approves that version, too, if it is what has this hash
    #[arg(long, value_name = "HASH")]
    hash: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct UnpinArgs {
    /// The preset
    name: String,
    /// Only for this provider
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct FloorArgs {
    /// The preset
    name: String,
    /// The oldest version that may serve; an empty text ("") lifts the floor
    #[arg(value_name = "VERSION")]
    oldest: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RevokeArgs {
    /// The preset
    name: String,
    /// A digest (sha256:…), or the version or file that has it now
    content: String,
    /// Take a revocation back
    #[arg(long)]
    undo: bool,
}

pub(super) async fn rollback(
    args: RollbackArgs,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    let mut body = Map::new();
    put_text(&mut body, "provider", args.provider);
    put_text(&mut body, "version", args.to);
    put_text(&mut body, "hash", args.hash);
    choose(&args.name, "rollback", body, client, printer).await
}

pub(super) async fn pin(args: PinArgs, client: &Client, printer: &Printer) -> Result<(), CliError> {
    if args.chosen.is_empty() {
        return Err(CliError::new(
            "a version is needed, like 1.2.0; `preset unpin` follows the newest again",
        ));
    }
    let mut body = Map::new();
    put_text(&mut body, "provider", args.provider);
    put_text(&mut body, "version", Some(args.chosen));
    put_text(&mut body, "hash", args.hash);
    choose(&args.name, "pin", body, client, printer).await
}

pub(super) async fn unpin(
    args: UnpinArgs,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    let mut body = Map::new();
    put_text(&mut body, "provider", args.provider);
    choose(&args.name, "pin", body, client, printer).await
}

async fn choose(
    name: &str,
    action: &str,
    body: Map<String, Value>,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    let done = client.post(&["presets", name, action], body).await?;
    printer.value(&done, || {
        let chosen = done.get("chosen").and_then(Value::as_array);
        let lines = chosen.into_iter().flatten().map(|one| {
            let pinned = match one.get("pinned") {
                None | Some(Value::Null) => "follows the newest approved version".to_owned(),
                Some(version) => format!(
                    "pinned to {}; `preset unpin {name}` ends that",
                    text(version)
                ),
            };
            format!(
                "Provider {}: {} → {} ({pinned}).",
                cell(one, "provider"),
                cell(one, "from"),
                cell(one, "to"),
            )
        });
        lines.collect::<Vec<_>>().join("\n")
    })
}

pub(super) async fn floor(
    args: &FloorArgs,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    let mut body = Map::new();
    put_text(&mut body, "floor", Some(args.oldest.clone()));
    let preset = client.patch(&["presets", &args.name], body).await?;
    printer.value(&preset, || {
        let said = if args.oldest.is_empty() {
            format!("Any version of {} may serve again.", args.name)
        } else {
            format!(
                "No version of {} older than {} serves.",
                args.name, args.oldest
            )
        };
        format!("{said}\n{}", who_is_served(&preset))
    })
}

pub(super) async fn revoke(
    args: &RevokeArgs,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    let mut body = Map::new();
    put_text(&mut body, "content", Some(args.content.clone()));
    body.insert("undo".into(), args.undo.into());
    let preset = client
        .post(&["presets", &args.name, "revoke"], body)
        .await?;
    printer.value(&preset, || {
        let word = if args.undo {
            "may serve again"
        } else {
            "is revoked: it never serves again"
        };
        format!(
            "{} {} {word}.\n{}",
            args.name,
            args.content,
            who_is_served(&preset)
        )
    })
}

fn who_is_served(preset: &Value) -> String {
    let bindings = preset.get("bindings").and_then(Value::as_array);
    let lines = bindings.into_iter().flatten().map(|one| {
        match one.get("version").and_then(Value::as_str) {
            Some(version) => format!("Provider {}: {version} serves.", cell(one, "provider")),
            None => format!(
                "Provider {}: no version serves, its calls fail until one may.",
                cell(one, "provider")
            ),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}
