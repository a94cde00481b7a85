//! `connect` and `connection …`

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::CliError;
use super::client::Client;
use super::input;
use super::output::Printer;
use super::providers::{Filter, put_list, put_text};

#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    /// The provider to connect an account of
    provider: String,
    /// In which of your teams
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// For this server, where servers have connections of their own
    #[arg(long, value_name = "SERVER")]
    server: Option<String>,
    /// Scopes to ask for beside those that are needed
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    scopes: Option<Vec<String>>,
    /// Print the URL, also where the device flow is switched on
    #[arg(long)]
    browser: bool,
    /// Wait until the account is connected, as it does by itself on a terminal
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List your connections
    List(Filter),
    /// Disconnect: revoke at the provider as far as it goes, and erase
    Revoke(Revoke),
    /// Give your own key for a server that takes one from each user
    #[command(after_help = "Example: countersign connection set-key notes < key.txt")]
    SetKey(SetKey),
}

#[derive(Debug, Args)]
pub(super) struct SetKey {
    /// The server it is for
    server: String,
    /// Read the key from this file instead of standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// In which of your teams
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// As `connection list` shows it
    id: String,
    /// Another user's; needs the permission connection_revoke_any
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

impl ConnectArgs {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        let mut body = Map::new();
        body.insert("provider".to_owned(), self.provider.into());
        put_text(&mut body, "team", self.team);
        put_text(&mut body, "server", self.server);
        put_list(&mut body, "scopes", self.scopes);
        let before = list(client).await?;
        let link = client.post(&["connections"], body.clone()).await?;
        if !self.browser && link.get("device_flow") == Some(&Value::Bool(true)) {
            return super::connect_device::run(client, printer, body).await;
        }
        let url = text(&link, "authorize_url");
        // Programs want the URL, and go on.
        let waits = self.wait || (!printer.is_json() && std::io::stdout().is_terminal());
        if !waits {
            return printer.value(&link, || {
                eprintln!(
                    "Open this in a browser where you are signed in as the same user; it works once:"
                );
                url.to_owned()
            });
        }
        // What stands in the output is the connection that comes of it.
        eprintln!(
            "Open this in a browser where you are signed in as the same user; it works once:\n\n  {url}\n\n\
             Waiting until the account is connected (Ctrl-C ends this; the URL stays good)."
        );
        let connection = connected(client, &link, &before).await?;
        printer.value(&connection, || in_words(&connection))
    }
}

/// How often is asked whether the account is connected.
const LOOK: Duration = Duration::from_secs(1);
/// How long is waited: as long as the link is good, and the sign-in behind it.
const LOOKS: u32 = 40 * 60;

async fn list(client: &Client) -> Result<Vec<Value>, CliError> {
    let mut list = client.list(&["connections"], &[]).await?;
    match list.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => Err(CliError::new("the host's list of connections is none")),
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Waits for a consent to what the link is for that was not there before.
async fn connected(client: &Client, link: &Value, before: &[Value]) -> Result<Value, CliError> {
    let is_it = |c: &&Value| {
        ["provider", "team", "resource"]
            .iter()
            .all(|field| c.get(field) == link.get(field))
    };
    let known = before.iter().find(is_it).map(|c| text(c, "consented_at"));
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK).await;
        let now = list(client).await?;
        let found = now.iter().find(is_it);
        if let Some(found) = found.filter(|c| Some(text(c, "consented_at")) != known) {
            return Ok(found.clone());
        }
    }
    Err(CliError::new(
        "the account was not connected while the URL was good; run `countersign connect` again for another",
    ))
}

fn in_words(connection: &Value) -> String {
    let account = connection
        .pointer("/account/label")
        .and_then(Value::as_str)
        .map(|label| format!(" as {label}"))
        .unwrap_or_default();
    let scopes = connection
        .get("scopes")
        .and_then(Value::as_array)
        .map(|scopes| {
            scopes
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        })
        .filter(|scopes| !scopes.is_empty());
    let mut words = format!("Connected to {}{account}.", text(connection, "provider"));
    if let Some(scopes) = scopes {
        words.push_str(&format!("\nPermissions: {scopes}"));
    }
    if text(connection, "status") == "needs_scopes" {
        words.push_str(
            "\nThe provider granted less than its servers need; calls that need more say so.",
        );
    }
    words
}

impl Verb {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::List(filter) => {
                let list = client.list(&["connections"], &filter.query()).await?;
                let columns = [
                    ("ID", "id"),
                    ("PROVIDER", "provider"),
                    ("SERVER", "server"),
                    ("TEAM", "team"),
                    ("ACCOUNT", "account.label"),
                    ("STATUS", "status"),
                    ("REASON", "reason"),
                    ("SCOPES", "scopes"),
                    ("EXPIRES", "expires_at"),
                    ("RECONNECT BY", "reconnect_by"),
                ];
                printer.list(
                    &list,
                    &columns,
                    "No connections. Make one with `countersign connect PROVIDER`.",
                )
            }
            Self::SetKey(SetKey { server, file, team }) => {
                let value = input::secret("key", file.as_deref())?;
                let mut body = Map::new();
                body.insert("value".to_owned(), Value::String(value.as_str().to_owned()));
                put_text(&mut body, "team", team);
                let kept = client.put(&["connections", "keys", &server], body).await?;
                printer.value(&kept, || format!("Your key for {server} is set."))
            }
            Self::Revoke(Revoke { id, user }) => {
                let query: Vec<_> = user.map(|u| ("user", u)).into_iter().collect();
                client.delete(&["connections", &id], &query).await?;
                printer.done(&format!("Connection {id} disconnected."))
            }
        }
    }
}
