//! What a preset says of itself, for people.

use serde_json::Value;

use crate::cli::output::{cell, text};

/// The lines of a description that an administrator reads before enabling; all
/// of it is in `--output json`.
pub(super) fn in_words(description: &Value) -> String {
    let list = |name: &str| {
        description
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    let mut rows: Vec<(&str, String)> = vec![("called", cell(description, "display_name"))];
    if let Some(url) = description.get("documentation_url").filter(|u| **u != "") {
        rows.push(("documented at", text(url)));
    }
    for variable in list("variables") {
        if let Some(setting) = variable.pointer("/source/setting") {
            rows.push(("setting", setting_in_words(variable, setting)));
        }
    }
    for scope in list("scopes") {
        let includes = joined(scope.get("implies"), ", ");
        let title = cell(scope, "title");
        let mut line = cell(scope, "name");
        if title != "-" && title != line {
            line.push_str(&format!(": {title}"));
        }
        if !includes.is_empty() {
            line.push_str(&format!(" (includes {includes})"));
        }
        rows.push(("scope", line));
    }
    let asked = joined(description.get("default_scopes"), ", ");
    if !asked.is_empty() {
        rows.push(("asks first for", asked));
    }
    rows.push(("tokens renewed", renewal_in_words(description)));
    for revocation in list("revocation") {
        let (effect, note) = (cell(revocation, "effect"), cell(revocation, "note"));
        let note = if note.is_empty() || note == "-" {
            String::new()
        } else {
            format!(": {note}")
        };
        rows.push((
            "revoking ends",
            format!("the {}{note}", effect.replace('_', " ")),
        ));
    }
    for server in list("mcp_servers") {
        let tools = server.get("tools").and_then(Value::as_array);
        rows.push((
            "MCP server",
            format!(
                "{}, {} tools",
                cell(server, "title"),
                tools.map_or(0, Vec::len)
            ),
        ));
        rows.extend(by_needs(tools.map_or(&[][..], Vec::as_slice)));
    }
    aligned(&rows)
}

fn setting_in_words(variable: &Value, setting: &Value) -> String {
    let mut line = format!("{}: {}", text(setting), cell(variable, "title"));
    match variable.get("default_value") {
        Some(Value::String(default)) => {
            line.push_str(&format!(" ({})", text(&default.as_str().into())))
        }
        _ if variable.get("required") == Some(&Value::Bool(true)) => line.push_str(" (needed)"),
        _ => {}
    }
    line
}

fn renewal_in_words(description: &Value) -> String {
    let refresh = description.get("refresh").unwrap_or(&Value::Null);
    let kind = match cell(refresh, "kind").as_str() {
        "refresh_token" => match cell(refresh, "rotation").as_str() {
            "always" => "with refresh tokens that work once",
            "never" => "with a refresh token that stays the same",
            _ => "with refresh tokens",
        },
        "mint_again" => "by asking for new ones",
        _ => "never",
    };
    match refresh.get("idle_days").and_then(Value::as_u64) {
        Some(days) => format!("{kind}; unused for {days} days they end"),
        None => kind.to_owned(),
    }
}

/// Tools that need the same are told on one line.
fn by_needs(tools: &[Value]) -> Vec<(&'static str, String)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for tool in tools {
        let needs = needs_in_words(tool);
        let name = cell(tool, "name");
        match groups.iter_mut().find(|(of, _)| *of == needs) {
            Some((_, names)) => names.push(name),
            None => groups.push((needs, vec![name])),
        }
    }
    groups
        .into_iter()
        .map(|(needs, names)| ("", format!("{needs}: {}", names.join(", "))))
        .collect()
}

fn needs_in_words(tool: &Value) -> String {
    if tool.get("broad") == Some(&Value::Bool(true)) {
        return "as the arguments say".into();
    }
    let groups = tool.get("needs").and_then(Value::as_array);
    let groups: Vec<String> = groups
        .into_iter()
        .flatten()
        .map(|any_of| match any_of.as_array().map(Vec::len) {
            Some(2..) => format!("({})", joined(Some(any_of), " or ")),
            _ => joined(Some(any_of), ""),
        })
        .collect();
    match groups.is_empty() {
        true => "nothing needed".into(),
        false => format!("need {}", groups.join(" and ")),
    }
}

fn joined(list: Option<&Value>, with: &str) -> String {
    let entries = list.and_then(Value::as_array).into_iter().flatten();
    entries.map(text).collect::<Vec<_>>().join(with)
}

/// A name once, its further lines below it.
fn aligned(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    let mut last = "";
    for (name, line) in rows {
        let shown = if *name == last { "" } else { *name };
        last = *name;
        lines.push(format!("  {shown:<width$}  {line}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_description_is_told_in_a_few_lines() {
        let tool = |name: &str, needs: serde_json::Value| json!({"name": name, "needs": needs, "broad": false});
        let description = json!({
            "display_name": "Acme",
            "documentation_url": "https://acme.example/docs",
            "variables": [
                {"name": "host", "title": "Host", "source": {"setting": "host"}, "default_value": "acme.example", "required": true},
                {"name": "tenant", "title": "Tenant", "source": {"setting": "tenant"}, "default_value": null, "required": true},
                {"name": "team", "title": "Team", "source": {"token_answer": "/team"}, "default_value": null, "required": false},
            ],
            "scopes": [
                {"name": "write", "title": "Write", "implies": ["read"]},
                {"name": "read", "title": "", "implies": []},
            ],
            "default_scopes": ["read"],
            "refresh": {"kind": "refresh_token", "rotation": "always", "idle_days": 60},
            "revocation": [{"effect": "account_link", "note": "Ends it everywhere."}],
            "mcp_servers": [{"title": "Acme MCP", "tools": [
                tool("list", json!([])), tool("get", json!([["read"]])), tool("find", json!([["read"]])),
                tool("share", json!([["write"], ["share", "admin"]])),
                {"name": "execute", "needs": [], "broad": true},
            ]}],
        });
        let told = "  called          Acme
  documented at   https://acme.example/docs
  setting         host: Host (acme.example)
                  tenant: Tenant (needed)
  scope           write: Write (includes read)
                  read
  asks first for  read
  tokens renewed  with refresh tokens that work once; unused for 60 days they end
  revoking ends   the account link: Ends it everywhere.
  MCP server      Acme MCP, 5 tools
                  nothing needed: list
                  need read: get, find
                  need write and (share or admin): share
                  as the arguments say: execute";
        assert_eq!(super::in_words(&description), told);
    }
}
