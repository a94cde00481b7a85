//! `team …`

use clap::{Args, Subcommand};
use serde_json::Map;

use super::CliError;
use super::client::Client;
use super::output::Printer;
use super::providers::{Filter, Named, put_text};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create a team; the team "default" exists from the start
    #[command(
        after_help = "Example: countersign team create lab && countersign team add-member lab alice"
    )]
    Create(Create),
    /// List teams
    List(Filter),
    /// Show a team and its members
    Get(Named),
    /// Delete a team that has no members any more
    Delete(Named),
    /// Add a user to a team
    AddMember(Member),
    /// Take a user out of a team: tokens for this team end, and its connections are erased
    RemoveMember(Member),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    name: Named,
    /// For people [default: the name]
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Member {
    #[command(flatten)]
    team: Team,
    #[command(flatten)]
    user: User,
}

/// A team, as an argument or as `--team`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Team {
    /// The team
    #[arg(value_name = "TEAM")]
    team: Option<String>,
    /// The team, as an option
    #[arg(long = "team", value_name = "TEAM")]
    team_flag: Option<String>,
}

/// A user, as an argument or as `--user`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct User {
    /// The user
    #[arg(value_name = "USER")]
    user: Option<String>,
    /// The user, as an option
    #[arg(long = "user", value_name = "USER")]
    user_flag: Option<String>,
}

impl Member {
    fn team(&self) -> &str {
        let given = self.team.team.as_deref();
        given.or(self.team.team_flag.as_deref()).unwrap_or_default()
    }

    fn user(&self) -> &str {
        let given = self.user.user.as_deref();
        given.or(self.user.user_flag.as_deref()).unwrap_or_default()
    }
}

impl Verb {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::Create(create) => {
                let mut body = Map::new();
                body.insert("name".to_owned(), create.name.get().into());
                put_text(&mut body, "display_name", create.display_name);
                printer.fields(&client.post(&["teams"], body).await?)
            }
            Self::List(filter) => {
                let list = client.list(&["teams"], &filter.query()).await?;
                let columns = [
                    ("NAME", "name"),
                    ("DISPLAY NAME", "display_name"),
                    ("CREATED", "created_at"),
                ];
                printer.list(&list, &columns, "No teams.")
            }
            Self::Get(name) => printer.fields(&client.get(&["teams", name.get()]).await?),
            Self::Delete(name) => {
                client.delete(&["teams", name.get()], &[]).await?;
                printer.done(&format!("Team {} deleted.", name.get()))
            }
            Self::AddMember(member) => {
                let (team, user) = (member.team(), member.user());
                let mut body = Map::new();
                body.insert("user".to_owned(), user.into());
                client.post(&["teams", team, "members"], body).await?;
                printer.done(&format!("{user} is now in the team {team}."))
            }
            Self::RemoveMember(member) => {
                let (team, user) = (member.team(), member.user());
                client
                    .delete(&["teams", team, "members", user], &[])
                    .await?;
                printer.done(&format!("{user} is no longer in the team {team}."))
            }
        }
    }
}
