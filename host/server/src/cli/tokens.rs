//! `token …`

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::CliError;
use super::client::Client;
use super::output::Printer;
use super::providers::put_text;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create an API token, for oneself or a service account; printed once
    Create(Create),
    /// List API tokens, without the tokens
    List(Whose),
    /// Revoke an API token; in force at once
    #[command(visible_alias = "revoke")]
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// For people
    #[arg(long, value_name = "NAME")]
    name: String,
    /// mcp for agents, api for REST and this command line
    #[arg(long, value_name = "KIND", value_parser = ["mcp", "api"])]
    kind: String,
    /// Limit a token of kind mcp to these servers
    #[arg(long, value_name = "SERVERS", value_delimiter = ',')]
    servers: Option<Vec<String>>,
    /// In which team it acts
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// How long it lives [default: 90d]
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// For this service account; never for another person
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Whose {
    /// Another user's
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// As `token list` shows it
    id: String,
    /// Another user's
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

impl Verb {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        let whose =
            |user: Option<String>| user.map(|u| ("user", u)).into_iter().collect::<Vec<_>>();
        match self {
            Self::Create(create) => {
                let mut body = Map::new();
                body.insert("name".to_owned(), create.name.into());
                body.insert("kind".to_owned(), create.kind.into());
                if let Some(servers) = create.servers {
                    body.insert("servers".to_owned(), servers.into());
                }
                put_text(&mut body, "team", create.team);
                put_text(&mut body, "expires_in", create.expires);
                put_text(&mut body, "user", create.user);
                let made = client.post(&["tokens"], body).await?;
                printer.value(&made, || {
                    let field = |f: &str| made.get(f).and_then(Value::as_str).unwrap_or_default();
                    eprintln!(
                        "Token {} of {}, until {}. It is not shown again:",
                        field("name"),
                        field("user"),
                        field("expires_at")
                    );
                    field("token").to_owned()
                })
            }
            Self::List(Whose { user }) => {
                let list = client.list(&["tokens"], &whose(user)).await?;
                let columns = [
                    ("ID", "id"),
                    ("NAME", "name"),
                    ("KIND", "kind"),
                    ("TEAM", "team"),
                    ("SERVERS", "servers"),
                    ("EXPIRES", "expires_at"),
                ];
                printer.list(
                    &list,
                    &columns,
                    "No API tokens. Create one with `countersign token create`.",
                )
            }
            Self::Delete(Delete { id, user }) => {
                client.delete(&["tokens", &id], &whose(user)).await?;
                printer.done(&format!("Token {id} revoked."))
            }
        }
    }
}
