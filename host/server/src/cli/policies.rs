//! `policy …`

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::CliError;
use super::client::Client;
use super::output::{Printer, cell};
use super::providers::{Filter, Named, put_list, put_text};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a policy; it is in force at once
    Create(Box<Write>),
    /// List policies, in the order in which they are looked at
    List(Filter),
    /// Show a policy
    Get(Named),
    /// Change a policy; an empty text ("") takes all from a list
    Update(Box<Write>),
    /// Delete a policy
    Delete(Named),
    /// Tell what policies would make of a call; nothing is called
    Preview(Preview),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Names are patterns: * stands for any run of characters. A policy can only take away: \
                  nothing lets a call through that something else refuses.\n\n\
                  A condition is a JSON pointer into the arguments, an operator and, for most, a value:\n  \
                  --when '/amount greater_than 1000'   --when '/to not_matches *@example.com'\n  \
                  --when '/env in [\"prod\",\"live\"]'     --when '/force present'\n\
                  Operators: equals, not_equals, in, not_in, matches, not_matches, present, absent, less_than, \
                  at_most, greater_than, at_least, longer_than."
)]
pub(super) struct Write {
    #[command(flatten)]
    name: Named,
    /// For people
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// Lower ones are looked at first [default: 100]
    #[arg(long, value_name = "NUMBER")]
    order: Option<u32>,
    /// Refuse the calls, with this code for the agent
    #[arg(long, value_name = "CODE", num_args = 0..=1, default_missing_value = "policy", conflicts_with = "need_approval")]
    deny: Option<String>,
    /// Ask the user before the calls go on
    #[arg(long)]
    need_approval: bool,
    /// Let a component judge: NAME of catalog/policies/NAME-VERSION.wasm
    #[arg(long, value_name = "NAME", conflicts_with_all = ["deny", "need_approval", "message"])]
    component: Option<String>,
    /// The component's settings
    #[arg(long, value_name = "JSON", conflicts_with_all = ["deny", "need_approval"])]
    settings: Option<String>,
    /// Approve a content of the component: its digest, or `newest` version's
    #[arg(long, value_name = "DIGEST", num_args = 0..=1, default_missing_value = "newest", conflicts_with_all = ["deny", "need_approval"])]
    approve: Option<String>,
    /// What the user is told
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Only these users [default: all]
    #[arg(long, value_name = "USERS", value_delimiter = ',')]
    users: Option<Vec<String>>,
    /// Only who acts in these teams
    #[arg(long, value_name = "TEAMS", value_delimiter = ',')]
    teams: Option<Vec<String>>,
    /// Only who has one of these roles
    #[arg(long, value_name = "ROLES", value_delimiter = ',')]
    roles: Option<Vec<String>>,
    /// Only these agents, by the id of their OAuth client or token:NAME:*
    #[arg(long, value_name = "CLIENTS", value_delimiter = ',')]
    clients: Option<Vec<String>>,
    /// Only these servers
    #[arg(long, value_name = "SERVERS", value_delimiter = ',')]
    servers: Option<Vec<String>>,
    /// Only these MCP methods [default: tools/call]
    #[arg(long, value_name = "METHODS", value_delimiter = ',')]
    methods: Option<Vec<String>>,
    /// Only these tools
    #[arg(long, value_name = "TOOLS", value_delimiter = ',')]
    tools: Option<Vec<String>>,
    /// But not these users
    #[arg(long, value_name = "USERS", value_delimiter = ',')]
    except_users: Option<Vec<String>>,
    /// But not who acts in these teams
    #[arg(long, value_name = "TEAMS", value_delimiter = ',')]
    except_teams: Option<Vec<String>>,
    /// But not who has one of these roles
    #[arg(long, value_name = "ROLES", value_delimiter = ',')]
    except_roles: Option<Vec<String>>,
    /// But not these agents
    #[arg(long, value_name = "CLIENTS", value_delimiter = ',')]
    except_clients: Option<Vec<String>>,
    /// But not these servers
    #[arg(long, value_name = "SERVERS", value_delimiter = ',')]
    except_servers: Option<Vec<String>>,
    /// But not these tools
    #[arg(long, value_name = "TOOLS", value_delimiter = ',')]
    except_tools: Option<Vec<String>>,
    /// A condition on the arguments; given several times, all must hold
    #[arg(long, value_name = "CONDITION", allow_hyphen_values = true)]
    when: Option<Vec<String>>,
    /// A disabled policy is kept and not looked at
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    enabled: Option<bool>,
}

#[derive(Debug, Args)]
pub(super) struct Preview {
    /// Only this policy, be it in force or not
    #[arg(value_name = "NAME")]
    policy: Option<String>,
    /// Who calls
    #[arg(long, value_name = "USER")]
    user: String,
    /// In which team
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// The agent's id
    #[arg(long, value_name = "CLIENT")]
    client: Option<String>,
    /// Which server
    #[arg(long, value_name = "SERVER")]
    server: String,
    /// The MCP method [default: tools/call]
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// The tool, prompt or resource
    #[arg(long, value_name = "TOOL")]
    tool: Option<String>,
    /// The arguments, as JSON
    #[arg(long, value_name = "JSON")]
    arguments: Option<String>,
}

impl Write {
    fn body(self) -> Result<Map<String, Value>, CliError> {
        let mut body = Map::new();
        put_text(&mut body, "display_name", self.display_name);
        if let Some(order) = self.order {
            body.insert("order".to_owned(), order.into());
        }
        put_list(&mut body, "servers", self.servers);
        put_list(&mut body, "methods", self.methods);
        put_list(&mut body, "tools", self.tools);
        let mut who = Map::new();
        put_list(&mut who, "users", self.users);
        put_list(&mut who, "teams", self.teams);
        put_list(&mut who, "roles", self.roles);
        put_list(&mut who, "clients", self.clients);
        let mut except = Map::new();
        put_list(&mut except, "users", self.except_users);
        put_list(&mut except, "teams", self.except_teams);
        put_list(&mut except, "roles", self.except_roles);
        put_list(&mut except, "clients", self.except_clients);
        put_list(&mut except, "servers", self.except_servers);
        put_list(&mut except, "tools", self.except_tools);
        for (name, lists) in [("who", who), ("except", except)] {
            if !lists.is_empty() {
                body.insert(name.to_owned(), Value::Object(lists));
            }
        }
        if let Some(when) = self.when {
            let given = when
                .iter()
                .map(|text| text.trim())
                .filter(|t| !t.is_empty());
            let conditions = given.map(condition).collect::<Result<Vec<_>, _>>()?;
            body.insert("when".to_owned(), conditions.into());
        }
        if let Some(enabled) = self.enabled {
            body.insert("enabled".to_owned(), enabled.into());
        }
        let mut component = Map::new();
        put_text(&mut component, "name", self.component);
        if let Some(settings) = self.settings {
            let settings = crate::registry::strict_json(settings.as_bytes())
                .map_err(|e| CliError(format!("--settings: {e}")))?;
            component.insert("settings".to_owned(), Value::Object(settings));
        }
        let newest = component.contains_key("name").then(|| "newest".to_owned());
        if let Some(digest) = self.approve.or(newest) {
            let digest = Some(digest).filter(|d| d != "newest");
            component.insert("digest".to_owned(), digest.into());
        }
        let message = self.message.map_or(Value::Null, Value::from);
        let effect = match (self.deny, self.need_approval) {
            (Some(code), _) => {
                json!({
                    "deny": { "code": code, "message": message },
                    "need_approval": null, "component": null,
                })
            }
            (None, true) => json!({
                "need_approval": { "message": message }, "deny": null, "component": null,
            }),
            (None, false) if !component.is_empty() => {
                json!({ "component": component, "deny": null, "need_approval": null })
            }
            (None, false) if !message.is_null() => {
                return Err(CliError(
                    "--message needs --deny or --need-approval beside it".into(),
                ));
            }
            (None, false) => Value::Null,
        };
        if !effect.is_null() {
            body.insert("effect".to_owned(), effect);
        }
        Ok(body)
    }
}

/// `POINTER OPERATOR [VALUE]`; a value that is no JSON is a text.
fn condition(text: &str) -> Result<Value, CliError> {
    let mut words = text.splitn(3, char::is_whitespace);
    let (Some(pointer), Some(operator)) = (words.next(), words.next()) else {
        return Err(CliError(format!(
            "--when {text:?} is not a pointer, an operator and a value; for example '/amount greater_than 1000'"
        )));
    };
    // "." stands for the arguments as a whole, whose pointer is empty.
    let pointer = if pointer == "." { "" } else { pointer };
    let mut condition = json!({ "pointer": pointer, "operator": operator });
    if let Some(value) = words.next().map(str::trim).filter(|v| !v.is_empty()) {
        condition["value"] = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    }
    Ok(condition)
}

impl Verb {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::Create(write) => {
                let name = write.name.get().to_owned();
                let mut body = write.body()?;
                body.insert("name".to_owned(), name.into());
                show(printer, &client.post(&["policies"], body).await?)
            }
            Self::Update(write) => {
                let name = write.name.get().to_owned();
                let body = write.body()?;
                if body.is_empty() {
                    return Err(CliError(
                        "nothing to change; see `countersign policy update --help`".into(),
                    ));
                }
                show(printer, &client.patch(&["policies", &name], body).await?)
            }
            Self::Get(name) => show(printer, &client.get(&["policies", name.get()]).await?),
            Self::List(filter) => {
                let list = client.list(&["policies"], &filter.query()).await?;
                let heads = [
                    "ORDER",
                    "NAME",
                    "EFFECT",
                    "SERVERS",
                    "TOOLS",
                    "CONDITIONS",
                    "ENABLED",
                ];
                let row = |item: &Value| {
                    let conditions = item["when"].as_array().map_or(0, Vec::len);
                    vec![
                        cell(item, "order"),
                        cell(item, "name"),
                        effect(item),
                        all(cell(item, "servers")),
                        all(cell(item, "tools")),
                        conditions.to_string(),
                        cell(item, "enabled"),
                    ]
                };
                let empty = "No policies yet. Make one with `countersign policy create`.";
                printer.rows(&list, &heads, row, empty)
            }
            Self::Delete(name) => {
                client.delete(&["policies", name.get()], &[]).await?;
                printer.done(&format!("Policy {} deleted.", name.get()))
            }
            Self::Preview(preview) => preview.run(client, printer).await,
        }
    }
}

impl Preview {
    async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        let mut body = Map::new();
        put_text(&mut body, "policy", self.policy);
        put_text(&mut body, "user", Some(self.user));
        put_text(&mut body, "team", self.team);
        put_text(&mut body, "client", self.client);
        put_text(&mut body, "server", Some(self.server));
        put_text(&mut body, "method", self.method);
        put_text(&mut body, "tool", self.tool);
        if let Some(arguments) = self.arguments {
            let arguments = crate::registry::strict_json(arguments.as_bytes())
                .map_err(|e| CliError(format!("--arguments: {e}")))?;
            body.insert("arguments".to_owned(), Value::Object(arguments));
        }
        let preview = client.post(&["policies", "preview"], body).await?;
        printer.value(&preview, || previewed(printer, &preview))
    }
}

/// The outcome in words, and each policy below.
fn previewed(printer: &Printer, preview: &Value) -> String {
    let by = cell(preview, "decided_by");
    let message = cell(preview, "message");
    let outcome = match preview["outcome"].as_str() {
        Some("deny") => format!(
            "Refused by {by} (code {}): {message}",
            cell(preview, "code")
        ),
        Some("need_approval") => format!("The user is asked, for {by}: {message}"),
        _ => "No policy minds. Server, connection and preset may still refuse.".to_owned(),
    };
    let rows: Vec<_> = preview["policies"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|p| {
            let applies = match p["misses"].as_str() {
                Some(field) => format!("no, by its {field}"),
                None => "yes".to_owned(),
            };
            vec![
                cell(p, "order"),
                cell(p, "name"),
                cell(p, "effect"),
                applies,
            ]
        })
        .collect();
    if rows.is_empty() {
        return outcome;
    }
    let table = printer.table(&["ORDER", "POLICY", "EFFECT", "APPLIES"], &rows);
    format!("{outcome}\n\n{table}")
}

/// All fields, with each condition on a line of its own as it is given.
fn show(printer: &Printer, policy: &Value) -> Result<(), CliError> {
    if printer.is_json() {
        return printer.fields(policy);
    }
    let mut shown = policy.clone();
    let conditions: Vec<_> = policy["when"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| {
            let value = &c["value"];
            let value = if value.is_null() {
                String::new()
            } else {
                format!(" {value}")
            };
            Value::from(format!(
                "{} {}{value}",
                cell(c, "pointer"),
                cell(c, "operator")
            ))
        })
        .collect();
    shown["when"] = conditions.into();
    printer.fields(&shown)
}

fn effect(policy: &Value) -> String {
    let names = ["deny", "need_approval", "component"];
    let name = names.iter().find(|n| policy["effect"][**n].is_object());
    name.map_or_else(|| "-".to_owned(), |n| (*n).to_owned())
}

/// What an empty list of a policy means.
fn all(cell: String) -> String {
    if cell == "-" { "all".to_owned() } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_read_as_it_is_written() {
        let cases = [
            (
                "/amount greater_than 1000",
                json!({"pointer": "/amount", "operator": "greater_than", "value": 1000}),
            ),
            (
                "/to not_matches *@example.com",
                json!({"pointer": "/to", "operator": "not_matches", "value": "*@example.com"}),
            ),
            (
                r#"/env in ["prod", "live"]"#,
                json!({"pointer": "/env", "operator": "in", "value": ["prod", "live"]}),
            ),
            (
                "/force present",
                json!({"pointer": "/force", "operator": "present"}),
            ),
            (". present", json!({"pointer": "", "operator": "present"})),
        ];
        for (text, expected) in cases {
            assert_eq!(condition(text).unwrap(), expected, "{text}");
        }
        assert!(condition("/amount").is_err());
    }
}
