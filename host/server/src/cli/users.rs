//! `user …` and `whoami`

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::CliError;
use super::client::Client;
use super::input;
use super::output::Printer;
use super::providers::{Filter, put_list, put_text};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create a user
    #[command(
        after_help = "Example: countersign user create alice --email alice@example.com --role user --password-stdin < password.txt"
    )]
    Create(Create),
    /// List users
    List(Filter),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// What is typed at sign-in
    name: String,
    /// For people; never used to recognise anybody
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// What the account may do [default: user]
    #[arg(long, value_name = "ROLES", value_delimiter = ',')]
    role: Option<Vec<String>>,
    /// Read the first password from standard input; it works once, for choosing another one
    #[arg(long, conflicts_with = "service")]
    password_stdin: bool,
    /// A service account: no sign-in, only tokens
    #[arg(long)]
    service: bool,
}

impl Verb {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::Create(create) => {
                let mut body = Map::new();
                body.insert("name".to_owned(), create.name.clone().into());
                put_text(&mut body, "email", create.email);
                put_list(&mut body, "roles", create.role);
                body.insert(
                    "kind".to_owned(),
                    if create.service { "service" } else { "human" }.into(),
                );
                if create.password_stdin {
                    let password = input::secret("password", None)?;
                    body.insert(
                        "password".to_owned(),
                        Value::String(password.as_str().to_owned()),
                    );
                } else if !create.service {
                    eprintln!(
                        "Without --password-stdin nobody can sign in as {} yet.",
                        create.name
                    );
                }
                printer.fields(&client.post(&["users"], body).await?)
            }
            Self::List(filter) => {
                let list = client.list(&["users"], &filter.query()).await?;
                let columns = [
                    ("NAME", "name"),
                    ("KIND", "kind"),
                    ("EMAIL", "email"),
                    ("ROLES", "roles"),
                    ("TEAMS", "teams"),
                    ("ENABLED", "enabled"),
                ];
                printer.list(&list, &columns, "No users.")
            }
        }
    }
}

pub(super) async fn whoami(client: &Client, printer: &Printer) -> Result<(), CliError> {
    printer.fields(&client.get(&["whoami"]).await?)
}
