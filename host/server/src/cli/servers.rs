//! `server …`

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::CliError;
use super::client::Client;
use super::discovery::{Discover, created};
use super::output::Printer;
use super::providers::{Delete, Filter, Named, put_list, put_text};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Attach an MCP server; without --auth, how it is protected is found out
    Create(Box<Create>),
    /// List servers
    List(Filter),
    /// Show a server, with the endpoint for agents
    Get(Named),
    /// Change a server; an empty text ("") goes back to the default
    Update(Box<Write>),
    /// Detach a server
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    how: Discover,
}

#[derive(Debug, Args)]
pub(super) struct Write {
    #[command(flatten)]
    name: Named,
    /// For people
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// Its MCP endpoint
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    endpoint: Option<String>,
    /// An entry of [stdio.allow] in the host's countersign.toml
    #[arg(long, value_name = "ENTRY")]
    command: Option<String>,
    /// Whose credential goes upstream
    #[arg(long, value_name = "MODE", value_parser = ["none", "static", "service-account", "user-delegated", "token-exchange"])]
    auth: Option<String>,
    /// The provider whose connections are used (user-delegated)
    #[arg(long, value_name = "PROVIDER")]
    user_oauth_provider: Option<String>,
    /// Scopes every connection needs for this server
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    user_oauth_scopes: Option<Vec<String>>,
    /// The provider that Countersign is a client of for all users (service-account)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["user_oauth_provider", "exchange_provider"])]
    service_oauth_provider: Option<String>,
    /// Scopes of that access
    #[arg(
        long,
        value_name = "SCOPES",
        value_delimiter = ',',
        conflicts_with = "user_oauth_scopes"
    )]
    service_oauth_scopes: Option<Vec<String>>,
    /// The provider that gives a token for each user (token-exchange)
    #[arg(long, value_name = "PROVIDER", conflicts_with = "user_oauth_provider")]
    exchange_provider: Option<String>,
    /// Scopes of those tokens
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', conflicts_with_all = ["user_oauth_scopes", "service_oauth_scopes"])]
    exchange_scopes: Option<Vec<String>>,
    /// RFC 8707 resource of its tokens, instead of the provider's
    #[arg(long, value_name = "URI")]
    resource: Option<String>,
    /// Audience of those tokens, instead of the provider's (service-account,
    /// token-exchange)
    #[arg(long, value_name = "TEXT")]
    audience: Option<String>,
    /// Name of the secret with the key (static)
    #[arg(long, value_name = "NAME")]
    static_secret_ref: Option<String>,
    /// Each user gives a key of his own (static)
    #[arg(long, conflicts_with = "static_secret_ref")]
    static_per_user: bool,
    /// The provider whose preset says how the key is sent or what is signed
    /// with it (static)
    #[arg(long, value_name = "PROVIDER", conflicts_with = "user_oauth_provider")]
    static_provider: Option<String>,
    /// Header that carries the credential, instead of the preset's
    #[arg(long, value_name = "HEADER")]
    header_name: Option<String>,
    /// Put before the credential, for example "Bearer "
    #[arg(
        long,
        value_name = "TEXT",
        requires = "header_name",
        allow_hyphen_values = true
    )]
    header_prefix: Option<String>,
    /// Only these tools; * stands for any run of characters
    #[arg(long, value_name = "TOOLS", value_delimiter = ',')]
    allow_tools: Option<Vec<String>>,
    /// Never these tools
    #[arg(long, value_name = "TOOLS", value_delimiter = ',')]
    deny_tools: Option<Vec<String>>,
    /// One connection for all of the vendor's servers, or one of its own
    #[arg(long, value_name = "USE", value_parser = ["shared", "dedicated"])]
    connection: Option<String>,
    /// Teams that may use it [default: everybody]
    #[arg(long, value_name = "TEAMS", value_delimiter = ',')]
    team: Option<Vec<String>>,
    /// How long a call is held while the user acts [default: 45s]
    #[arg(long, value_name = "TIME")]
    wait: Option<String>,
    /// How long the server may take to begin its answer [default: 5m]
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// Record the redacted inputs of decisions, for `preset diff --replay`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    record_decisions: Option<bool>,
    /// A disabled server answers nothing
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    enabled: Option<bool>,
}

impl Write {
    fn body(self) -> Map<String, Value> {
        let mut body = Map::new();
        put_text(&mut body, "display_name", self.display_name);
        if self.endpoint.is_some() {
            body.insert("command".to_owned(), Value::Null);
        }
        if self.command.is_some() {
            body.insert("url".to_owned(), Value::Null);
        }
        put_text(&mut body, "url", self.endpoint);
        put_text(&mut body, "command", self.command);
        put_text(&mut body, "connection", self.connection);
        put_text(&mut body, "wait", self.wait);
        put_text(&mut body, "timeout", self.timeout);
        put_list(&mut body, "teams", self.team);
        if let Some(record) = self.record_decisions {
            body.insert("record_decisions".to_owned(), record.into());
        }
        if let Some(enabled) = self.enabled {
            body.insert("enabled".to_owned(), enabled.into());
        }
        let mut tools = Map::new();
        put_list(&mut tools, "allow", self.allow_tools);
        put_list(&mut tools, "deny", self.deny_tools);
        if !tools.is_empty() {
            body.insert("tools".to_owned(), Value::Object(tools));
        }
        let given = |option: &Option<String>| option.as_ref().is_some_and(|o| !o.is_empty());
        let implied = [
            (given(&self.user_oauth_provider), "user-delegated"),
            (given(&self.service_oauth_provider), "service-account"),
            (given(&self.exchange_provider), "token-exchange"),
            (
                given(&self.static_secret_ref) || self.static_per_user,
                "static",
            ),
        ];
        // Two that imply different modes imply none.
        let mut implied = implied.iter().filter(|(given, _)| *given);
        let implied = match (implied.next(), implied.next()) {
            (Some((_, mode)), None) => Some((*mode).to_owned()),
            _ => None,
        };
        let mode = self.auth.or(implied);
        // Another mode leaves nothing of the one before.
        let mut auth = match mode.as_deref() {
            Some("none") => clear(&[
                "provider",
                "required_scopes",
                "secret_ref",
                "injection",
                "per_user",
                "resource",
                "audience",
            ]),
            Some("static") if self.static_per_user => clear(&[
                "provider",
                "required_scopes",
                "secret_ref",
                "resource",
                "audience",
            ]),
            Some("static") => clear(&[
                "provider",
                "required_scopes",
                "per_user",
                "resource",
                "audience",
            ]),
            Some("user-delegated") => clear(&["secret_ref", "per_user", "resource", "audience"]),
            Some(_) => clear(&["secret_ref", "per_user"]),
            None => Map::new(),
        };
        // Of users' own connections it is the server's, else the mode's.
        let delegated = mode.as_deref() == Some("user-delegated");
        put_text(&mut auth, "mode", mode);
        let provider = self
            .static_provider
            .or(self.user_oauth_provider)
            .or(self.service_oauth_provider)
            .or(self.exchange_provider);
        put_text(&mut auth, "provider", provider);
        let scopes = self
            .user_oauth_scopes
            .or(self.service_oauth_scopes)
            .or(self.exchange_scopes);
        put_list(&mut auth, "required_scopes", scopes);
        let place = if delegated { &mut body } else { &mut auth };
        put_text(place, "resource", self.resource);
        put_text(&mut auth, "audience", self.audience);
        put_text(&mut auth, "secret_ref", self.static_secret_ref);
        if self.static_per_user {
            auth.insert("per_user".to_owned(), true.into());
        }
        match self.header_name.as_deref() {
            Some("") => {
                auth.insert("injection".to_owned(), Value::Null);
            }
            Some(name) => {
                let prefix = self.header_prefix.unwrap_or_default();
                auth.insert(
                    "injection".to_owned(),
                    json!({"header_name": name, "header_prefix": prefix}),
                );
            }
            None => {}
        }
        if !auth.is_empty() {
            body.insert("auth".to_owned(), Value::Object(auth));
        }
        body
    }
}

fn clear(names: &[&str]) -> Map<String, Value> {
    names
        .iter()
        .map(|n| ((*n).to_owned(), Value::Null))
        .collect()
}

impl Verb {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::Create(create) => {
                let name = create.write.name.get().to_owned();
                let mut body = create.write.body();
                body.insert("name".to_owned(), name.into());
                let query = create.how.query();
                created(
                    printer,
                    &client.post_with(&["servers"], &query, body).await?,
                )
            }
            Self::Update(write) => {
                let name = write.name.get().to_owned();
                let body = write.body();
                if body.is_empty() {
                    return Err(CliError(
                        "nothing to change; see `countersign server update --help`".into(),
                    ));
                }
                printer.fields(&client.patch(&["servers", &name], body).await?)
            }
            Self::Get(name) => printer.fields(&client.get(&["servers", name.get()]).await?),
            Self::List(filter) => {
                let list = client.list(&["servers"], &filter.query()).await?;
                let columns = [
                    ("NAME", "name"),
                    ("AUTH", "auth.mode"),
                    ("PROVIDER", "auth.provider"),
                    ("ENABLED", "enabled"),
                    ("URL", "url"),
                    ("ENDPOINT FOR AGENTS", "endpoint"),
                ];
                printer.list(
                    &list,
                    &columns,
                    "No servers yet. Attach one with `countersign server create`.",
                )
            }
            Self::Delete(delete) => {
                client
                    .delete(&["servers", delete.name.get()], &delete.query())
                    .await?;
                printer.done(&format!("Server {} deleted.", delete.name.get()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        write: Write,
    }

    #[test]
    fn flags_become_the_fields_of_the_contract() {
        let body = |line: &str| {
            let line = Line::try_parse_from(std::iter::once("x").chain(line.split('|'))).unwrap();
            Value::Object(line.write.body())
        };
        assert_eq!(
            body(
                "notes|--endpoint|https://n.example/mcp|--user-oauth-provider|idp|--user-oauth-scopes|a,b"
            ),
            json!({
                "command": null, "url": "https://n.example/mcp",
                "auth": {"secret_ref": null, "per_user": null, "resource": null, "audience": null,
                         "mode": "user-delegated", "provider": "idp", "required_scopes": ["a", "b"]},
            })
        );
        assert_eq!(
            body("notes|--service-oauth-provider|idp|--service-oauth-scopes|a|--audience|notes"),
            json!({"auth": {"secret_ref": null, "per_user": null, "mode": "service-account", "provider": "idp",
                            "required_scopes": ["a"], "audience": "notes"}})
        );
        assert_eq!(
            body(
                "notes|--auth|token-exchange|--exchange-provider|idp|--exchange-scopes|a,b|--resource|https://n.example/"
            ),
            json!({"auth": {"secret_ref": null, "per_user": null, "mode": "token-exchange", "provider": "idp",
                            "required_scopes": ["a", "b"], "resource": "https://n.example/"}})
        );
        assert_eq!(
            body(
                "--name|notes|--auth|static|--static-secret-ref|KEY|--header-name|X-Api-Key|--enabled|false"
            ),
            json!({
                "enabled": false,
                "auth": {"provider": null, "required_scopes": null, "per_user": null, "resource": null,
                         "audience": null, "mode": "static", "secret_ref": "KEY",
                         "injection": {"header_name": "X-Api-Key", "header_prefix": ""}},
            })
        );
        assert_eq!(
            body("notes|--static-secret-ref|AWS_KEY|--static-provider|aws"),
            json!({"auth": {"provider": "aws", "required_scopes": null, "per_user": null, "resource": null,
                            "audience": null, "mode": "static", "secret_ref": "AWS_KEY"}})
        );
        assert_eq!(
            body("notes|--static-per-user"),
            json!({"auth": {"provider": null, "required_scopes": null, "secret_ref": null, "resource": null,
                            "audience": null, "mode": "static", "per_user": true}})
        );
        assert_eq!(
            body("notes|--deny-tools|delete_*|--team|"),
            json!({"teams": [], "tools": {"deny": ["delete_*"]}})
        );
    }
}
