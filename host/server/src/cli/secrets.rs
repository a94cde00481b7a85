//! `secret …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::CliError;
use super::client::Client;
use super::input;
use super::output::Printer;
use super::providers::{Filter, put_list};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Set a secret to what standard input says
    #[command(
        after_help = "Example: countersign secret set GITHUB_CLIENT_SECRET --hosts github.com < secret.txt"
    )]
    Set(Set),
    /// List secrets, without values
    List(Filter),
    /// Delete a secret
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// Upper-case letters, digits and underscores
    name: String,
    /// Read the value from this file instead
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Hosts it may be sent to [default: unchanged, or any]
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    hosts: Option<Vec<String>>,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Its name
    name: String,
    /// Delete although something refers to it
    #[arg(long)]
    force: bool,
}

impl Verb {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::Set(set) => {
                let value = input::secret("secret's value", set.file.as_deref())?;
                let mut body = Map::new();
                body.insert("value".to_owned(), Value::String(value.as_str().to_owned()));
                put_list(&mut body, "hosts", set.hosts);
                let kept = client.put(&["secrets", &set.name], body).await?;
                printer.value(&kept, || format!("Secret {} set.", set.name))
            }
            Self::List(filter) => {
                let list = client.list(&["secrets"], &filter.query()).await?;
                let columns = [
                    ("NAME", "name"),
                    ("HOSTS", "hosts"),
                    ("USED BY", "used_by"),
                    ("SET AT", "updated_at"),
                ];
                printer.list(
                    &list,
                    &columns,
                    "No secrets yet. Set one with `countersign secret set NAME < FILE`.",
                )
            }
            Self::Delete(delete) => {
                let query = if delete.force {
                    vec![("force", "true".to_owned())]
                } else {
                    Vec::new()
                };
                client.delete(&["secrets", &delete.name], &query).await?;
                printer.done(&format!("Secret {} deleted.", delete.name))
            }
        }
    }
}
