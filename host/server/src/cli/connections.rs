//! `connect` and `connection …`

use std::path::PathBuf;

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
        let link = client.post(&["connections"], body.clone()).await?;
        if !self.browser && link.get("device_flow") == Some(&Value::Bool(true)) {
            return super::connect_device::run(client, printer, body).await;
        }
        printer.value(&link, || {
            eprintln!(
                "Open this in a browser where you are signed in as the same user; it works once:"
            );
            link.get("authorize_url")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        })
    }
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
