//! `preset replay …`, and what `preset diff --replay` does with it.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use countersign_core::names::{PresetName, ProviderName};
use countersign_core::provider::{GrantType, Provider, TokenAuthMethod};
use countersign_core::scope::ScopeSet;
use countersign_core::time::Timestamp;
use countersign_presets::EngineConfig;
use serde_json::{Map, Value, json};

use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::Printer;
use crate::cli::providers::put_text;
use crate::replay::{Recorded, Replay};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Verb {
    /// Write what a server's decisions were made by to a file, redacted
    Export {
        /// The server; it records if its record_decisions is true
        server: String,
        /// The file; standard output if absent
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Erase what a server recorded
    Forget {
        /// The server
        server: String,
    },
}

impl Verb {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::Export { server, to } => export(&server, to.as_deref(), client, printer).await,
            Self::Forget { server } => {
                client
                    .delete(&["servers", &server, "decisions"], &[])
                    .await?;
                printer.done(&format!("Nothing recorded of {server} is kept any more."))
            }
        }
    }
}

async fn export(
    server: &str,
    to: Option<&Path>,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    let found = client.get(&["servers", server, "decisions"]).await?;
    let items = found.get("items").and_then(Value::as_array);
    let lines: Vec<String> = items.into_iter().flatten().map(Value::to_string).collect();
    let Some(to) = to else {
        return printer.value(&found, || lines.join("\n"));
    };
    std::fs::write(to, lines.join("\n") + "\n")
        .map_err(|e| CliError(format!("{} cannot be written: {e}", to.display())))?;
    let count = lines.len();
    printer.value(&json!({ "recorded": count, "file": to }), || {
        let hint = if count == 0 {
            format!(" (does it record? `server update {server} --record-decisions`)")
        } else {
            String::new()
        };
        format!("{count} recorded decisions are in {}{hint}.", to.display())
    })
}

/// Two files over a file of recorded decisions, without a host.
pub(super) async fn of_files(
    (old, new): (&str, &str),
    source: &str,
    settings: Map<String, Value>,
) -> Result<Replay, CliError> {
    if source.is_empty() {
        return Err(CliError::new(
            "--replay needs a file here: write one with `preset replay export SERVER --to FILE`",
        ));
    }
    let inputs = read(source)?;
    let (old, new) = (PathBuf::from(old), PathBuf::from(new));
    let work = move || {
        let preset = |path: &Path| {
            let provider = nobody(path, settings.clone())?;
            countersign_presets::rehearse_file(path, &provider, EngineConfig::default())
                .map_err(|e| CliError(format!("{}: {e}", path.display())))
        };
        let (old, new) = (preset(&old)?, preset(&new)?);
        Ok(crate::replay::replay(&*old, &*new, &inputs))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(CliError::new)?
}

/// One decision a line, as `export` writes them.
fn read(file: &str) -> Result<Vec<Recorded>, CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| CliError(format!("{file} cannot be read: {e}")))?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|e| {
                CliError(format!(
                    "{file}:{}: this is no recorded decision: {e}",
                    at + 1
                ))
            })
        })
        .collect()
}

/// Versions of the host over what its servers recorded.
pub(super) async fn on_the_host(
    preset: &str,
    (old, new): (Option<&str>, Option<&str>),
    provider: Option<&str>,
    server: &str,
    client: &Client,
) -> Result<Replay, CliError> {
    let Some(provider) = provider else {
        return Err(CliError::new(
            "--replay needs --provider NAME: settings decide, too; or give two files and a file of \
             `preset replay export`",
        ));
    };
    if Path::new(server).is_file() {
        return Err(CliError::new(
            "a file of recorded decisions is replayed with two .wasm files; name a server here",
        ));
    }
    let mut body = Map::new();
    put_text(&mut body, "provider", Some(provider.to_owned()));
    put_text(&mut body, "old", old.map(str::to_owned));
    put_text(&mut body, "new", new.map(str::to_owned));
    if !server.is_empty() {
        put_text(&mut body, "server", Some(server.to_owned()));
    }
    let mut found = client.post(&["presets", preset, "replay"], body).await?;
    if let Some(found) = found.as_object_mut() {
        found.shift_remove("summary");
    }
    serde_json::from_value(found).map_err(CliError::new)
}

/// The sentence, then examples.
pub(super) fn in_words(replay: &Replay) -> String {
    let mut lines = vec![format!("Replay: {}", replay.in_words())];
    for change in &replay.changes {
        lines.push(format!("  {} {}", change.count, change.to));
        lines.extend(change.examples.iter().map(|e| format!("    {e}")));
    }
    lines.join("\n")
}

/// A record that adds nothing of its own to what the component says.
fn nobody(path: &Path, settings: Map<String, Value>) -> Result<Provider, CliError> {
    let file = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    let name = file
        .match_indices('-')
        .map(|(at, _)| file.split_at(at))
        .find(|(_, rest)| {
            let version = rest.strip_prefix('-').unwrap_or_default();
            version.starts_with(|c: char| c.is_ascii_digit())
        })
        .map_or(file, |(name, _)| name);
    let now = Timestamp::from_millis(0);
    Ok(Provider {
        name: ProviderName::parse("nobody").map_err(CliError::new)?,
        display_name: String::new(),
        preset: PresetName::parse(name).map_err(CliError::new)?,
        authorization_endpoint: None,
        token_endpoint: None,
        revocation_endpoint: None,
        device_authorization_endpoint: None,
        grant_types: vec![GrantType::AuthorizationCode],
        token_endpoint_auth_method: Some(TokenAuthMethod::None),
        client_id: String::new(),
        client_secret_ref: None,
        private_key_ref: None,
        private_key_id: None,
        token_endpoint_auth_signing_alg: None,
        scopes: ScopeSet::default(),
        require_pkce: true,
        audience_hosts: Vec::new(),
        resource: None,
        audience: None,
        request_timeout: std::time::Duration::from_secs(30),
        max_retries: 0,
        auto_update: false,
        registration: None,
        enabled: true,
        settings,
        created_at: now,
        updated_at: now,
    })
}
