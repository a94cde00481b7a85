//! `role …`

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::CliError;
use super::client::Client;
use super::output::{Printer, cell};
use super::providers::{Filter, Named};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create a role; it can allow no more than you may do yourself
    #[command(
        after_help = "Example: countersign role create notes-editor --allow server_update:notes server_get server_list"
    )]
    Create(Write),
    /// List roles, the built-in ones first
    List(Filter),
    /// Show all that a role allows
    Get(Named),
    /// Replace what a role allows; built-in roles stay as they are
    Update(Write),
    /// Delete a role that nobody has any more
    Delete(Named),
}

#[derive(Debug, Args)]
pub(super) struct Write {
    #[command(flatten)]
    name: Named,
    /// What it allows, everywhere or on one resource; all that it allows
    #[arg(long, required = true, value_name = "PERMISSION[:RESOURCE]", num_args = 1.., value_delimiter = ',')]
    allow: Vec<String>,
}

/// Permissions shown of a role in a list.
const SHOWN: usize = 4;

fn row(role: &Value) -> Vec<String> {
    let allow: Vec<&str> = role
        .get("allow")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let more = allow.len().saturating_sub(SHOWN);
    let mut text = allow
        .iter()
        .take(SHOWN)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    let built_in = role.get("built_in").and_then(Value::as_bool) == Some(true);
    vec![
        cell(role, "name"),
        if built_in { "yes" } else { "no" }.to_owned(),
        if text.is_empty() { "-".into() } else { text },
    ]
}

impl Verb {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::Create(write) => {
                let mut body = Map::new();
                body.insert("name".to_owned(), write.name.get().into());
                body.insert("allow".to_owned(), write.allow.into());
                printer.fields(&client.post(&["roles"], body).await?)
            }
            Self::Update(write) => {
                let name = write.name.get().to_owned();
                let mut body = Map::new();
                body.insert("allow".to_owned(), write.allow.into());
                printer.fields(&client.patch(&["roles", &name], body).await?)
            }
            Self::List(filter) => {
                let list = client.list(&["roles"], &filter.query()).await?;
                let heads = ["NAME", "BUILT IN", "ALLOWS"];
                printer.rows(&list, &heads, row, "No roles.")
            }
            Self::Get(name) => printer.fields(&client.get(&["roles", name.get()]).await?),
            Self::Delete(name) => {
                client.delete(&["roles", name.get()], &[]).await?;
                printer.done(&format!("Role {} deleted.", name.get()))
            }
        }
    }
}
