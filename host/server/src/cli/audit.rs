//! `audit …`

use std::collections::HashMap;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::CliError;
use super::client::Client;
use super::output::{Printer, cell, items};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List what was done, newest first; `--output json` shows every field in full
    List(List),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// How many, at most 1000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only this user's
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only this action, or what begins with it (`provider`, `call`)
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only on this resource (`provider:github`)
    #[arg(long, value_name = "RESOURCE")]
    resource: Option<String>,
    /// Only what ended so
    #[arg(long, value_name = "OUTCOME", value_parser = ["allowed", "denied", "pending", "failed"])]
    outcome: Option<String>,
    /// Only since this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// A filter as REST takes it
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
}

impl List {
    fn filter(self) -> String {
        let equal = [
            ("user", self.user),
            ("action", self.action),
            ("resource", self.resource),
            ("outcome", self.outcome),
        ];
        let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut terms: Vec<String> = equal
            .into_iter()
            .filter_map(|(name, value)| value.map(|v| format!("{name} = \"{}\"", quote(&v))))
            .collect();
        terms.extend(self.since.map(|t| format!("time >= \"{}\"", quote(&t))));
        terms.extend(self.filter);
        terms.join(" AND ")
    }
}

impl Verb {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        let Self::List(list) = self;
        let mut query = vec![("page_size", list.limit.to_string())];
        query.push(("filter", list.filter()));
        let page = client.page(&["audit"], &query).await?;
        let names = agents(client, &page).await?;
        let heads = [
            "TIME", "USER", "CLIENT", "ACTION", "ON", "CALLED", "OUTCOME", "DETAIL",
        ];
        printer.rows(
            &page,
            &heads,
            |event| row(event, &names),
            "No audit events match.",
        )
    }
}

/// Longest cell of a text that others wrote.
const LONGEST: usize = 60;
/// Prefix of the ids of registered agents.
const REGISTERED: &str = "cs_client_";

fn row(event: &Value, names: &HashMap<String, String>) -> Vec<String> {
    let called = match cell(event, "call.name").as_str() {
        "-" => cell(event, "call.method"),
        name => name.to_owned(),
    };
    let on = cell(event, "resource");
    let on = match on.strip_prefix("client:") {
        Some(id) => format!("client:{}", short_client(id, names)),
        None => on,
    };
    vec![
        cell(event, "time"),
        cell(event, "user"),
        short_client(&cell(event, "client"), names),
        cell(event, "action"),
        cut(&on, LONGEST),
        cut(&called, LONGEST),
        cell(event, "outcome"),
        cut(&detail(event), LONGEST),
    ]
}

/// What went wrong, or what the event says of itself.
fn detail(event: &Value) -> String {
    let status = event
        .pointer("/call/upstream_status")
        .and_then(Value::as_u64)
        .filter(|status| *status >= 400)
        .map(|status| format!("upstream HTTP {status}"));
    let told = ["call.error", "detail"].map(|path| Some(cell(event, path)).filter(|c| c != "-"));
    let parts: Vec<String> = told.into_iter().chain([status]).flatten().collect();
    if parts.is_empty() {
        "-".to_owned()
    } else {
        parts.join("; ")
    }
}

/// A client for people: a token's name, the host of a described agent, or what
/// a registered agent calls itself. Anybody may take any name, so the
/// beginning of the id goes with it.
fn short_client(id: &str, names: &HashMap<String, String>) -> String {
    if let Some(token) = id.strip_prefix("token:") {
        let name = token.rsplit_once(':').map_or(token, |(name, _)| name);
        return format!("token:{}", cut(name, 24));
    }
    if let Some(rest) = id.strip_prefix(REGISTERED) {
        let start: String = rest.chars().take(6).collect();
        return match names.get(id) {
            Some(name) => format!("{} ({start})", cut(name, 24)),
            None => format!("({start})"),
        };
    }
    let host = url::Url::parse(id)
        .ok()
        .and_then(|u| u.host_str().map(str::to_owned));
    cut(host.as_deref().unwrap_or(id), 32)
}

/// What the registered agents on this page call themselves, by id; asked for
/// only when there are some.
async fn agents(client: &Client, page: &Value) -> Result<HashMap<String, String>, CliError> {
    let registered = |event: &Value| {
        let at = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
        at("client").starts_with(REGISTERED) || at("resource").starts_with("client:")
    };
    if !items(page).iter().any(registered) {
        return Ok(HashMap::new());
    }
    let query = [
        ("page_size", "1000".to_owned()),
        ("filter", "action = \"client.register\"".to_owned()),
    ];
    let registrations = client.page(&["audit"], &query).await?;
    let name_of = |event: &Value| {
        let id = event.get("resource")?.as_str()?.strip_prefix("client:")?;
        // Quoted, as everything is that an agent says of itself.
        let name = cell(event, "detail").trim_matches('"').to_owned();
        (!name.is_empty() && name != "-").then(|| (id.to_owned(), name))
    };
    Ok(items(&registrations).iter().filter_map(name_of).collect())
}

fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_client_is_shown_by_a_name_and_never_by_a_long_id() {
        let id = "cs_client_femVvpYM4eXrg1Q0tUzTgQ";
        let names = HashMap::from([(id.to_owned(), "An agent".to_owned())]);
        let cases = [
            (id, "An agent (femVvp)"),
            ("cs_client_BOmcx29FdlAnZNUI", "(BOmcx2)"),
            ("token:ci:BOmcx29FdlAnZNUI", "token:ci"),
            ("https://agent.example/oauth/client.json", "agent.example"),
            ("-", "-"),
        ];
        for (id, shown) in cases {
            assert_eq!(short_client(id, &names), shown, "{id}");
        }
    }

    #[test]
    fn a_call_without_a_tool_is_shown_by_its_method() {
        let event =
            json!({"action": "call", "call": {"method": "tools/list", "upstream_status": 503}});
        let cells = row(&event, &HashMap::new());
        assert_eq!(cells.get(5).map(String::as_str), Some("tools/list"));
        assert_eq!(cells.get(7).map(String::as_str), Some("upstream HTTP 503"));
        assert_eq!(cut("äöü", 2), "äö…");
    }
}
