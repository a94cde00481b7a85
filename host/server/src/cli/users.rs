//! `user …` and `whoami`

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::CliError;
use super::client::Client;
use super::input;
use super::output::Printer;
use super::providers::{Filter, Named, put_list, put_text};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create a user
    #[command(
        after_help = "Example: countersign user create alice --email alice@example.com --role user --password-stdin < password.txt"
    )]
    Create(Create),
    /// List users
    List(Filter),
    /// Show a user
    Get(Named),
    /// Change a user; a new password works once, and ends sessions, tokens and agents
    Update(Update),
    /// Delete a user with sessions, tokens, agents and connections
    Delete(Named),
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
    /// An external issuer of the host's configuration: its tokens for --subject are this user's.
    /// Never changes
    #[arg(
        long,
        value_name = "ISSUER",
        requires = "subject",
        conflicts_with = "service"
    )]
    issuer: Option<String>,
    /// Who the user is at that issuer, as its tokens say (`sub`, as a rule)
    #[arg(long, value_name = "SUBJECT", requires = "issuer")]
    subject: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    #[command(flatten)]
    name: Named,
    /// For people; an empty text ("") removes it
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// All roles that the account has from now on
    #[arg(long, value_name = "ROLES", value_delimiter = ',')]
    role: Option<Vec<String>>,
    /// A disabled account can do nothing; its sessions and tokens end for good
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    enabled: Option<bool>,
    /// Read a new password from standard input; it works once, for choosing another one. The
    /// user's connections are suspended until the same account is connected again
    #[arg(long)]
    password_stdin: bool,
}

impl Update {
    fn body(self) -> Result<Map<String, Value>, CliError> {
        let mut body = Map::new();
        if let Some(email) = self.email {
            body.insert("email".to_owned(), email.into());
        }
        put_list(&mut body, "roles", self.role);
        if let Some(enabled) = self.enabled {
            body.insert("enabled".to_owned(), enabled.into());
        }
        if self.password_stdin {
            let password = input::secret("password", None)?;
            body.insert("password".to_owned(), password.as_str().to_owned().into());
        }
        if body.is_empty() {
            return Err(CliError(
                "nothing to change; see `countersign user update --help`".into(),
            ));
        }
        Ok(body)
    }
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
                let is_foreign = create.issuer.is_some();
                put_text(&mut body, "issuer", create.issuer);
                put_text(&mut body, "subject", create.subject);
                if create.password_stdin {
                    let password = input::secret("password", None)?;
                    body.insert(
                        "password".to_owned(),
                        Value::String(password.as_str().to_owned()),
                    );
                } else if !create.service && !is_foreign {
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
            Self::Get(name) => printer.fields(&client.get(&["users", name.get()]).await?),
            Self::Update(update) => {
                let name = update.name.get().to_owned();
                let body = update.body()?;
                printer.fields(&client.patch(&["users", &name], body).await?)
            }
            Self::Delete(name) => {
                client.delete(&["users", name.get()], &[]).await?;
                printer.done(&format!("User {} deleted.", name.get()))
            }
        }
    }
}

pub(super) async fn whoami(client: &Client, printer: &Printer) -> Result<(), CliError> {
    printer.fields(&client.get(&["whoami"]).await?)
}
