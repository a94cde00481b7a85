//! The author's table, row by row, through the host's whole decision.

use std::collections::BTreeSet;

use countersign_core::error::CallError;
use countersign_core::preset::Call;
use countersign_core::scope::ScopeSet;
use url::Url;

use super::Subject;
use super::report::Group;
use super::stage::{attach, connection, decide, server_of};
use super::table::{Case, Decision};

pub(super) fn check(subject: &Subject) -> Group {
    let mut group = Group::new("Scope decisions");
    if subject.table.cases.is_empty() {
        group.skip(
            "each tool needs what the table says",
            "there is no table: write scopes.toml beside Cargo.toml, or name one with --table",
        );
    }
    let file = subject.table.file.clone().unwrap_or_default();
    for case in &subject.table.cases {
        let found = decision(subject, case);
        let granted = if case.granted.is_empty() {
            "nothing".to_owned()
        } else {
            case.granted.join(" ")
        };
        let arguments = case.arguments.as_deref().unwrap_or_default();
        let name = format!(
            "{file}:{} {}{} with {granted}: {}",
            case.line,
            case.name.as_deref().unwrap_or(&case.method),
            short(arguments),
            case.expect
        );
        let same = match (&case.expect, &found) {
            (Decision::Allow(None), Decision::Allow(_)) => true,
            (expected, found) => expected == found,
        };
        if same {
            group.pass(name);
        } else {
            group.fail(
                name,
                case.expect.to_string(),
                found.to_string(),
                advice(&case.expect, &found),
            );
        }
    }
    tools(&mut group, subject);
    group
}

fn short(arguments: &str) -> String {
    let text: String = arguments.chars().take(60).collect();
    let more = if text.len() < arguments.len() {
        "…"
    } else {
        ""
    };
    if text.is_empty() {
        text
    } else {
        format!(" {text}{more}")
    }
}

fn advice(expected: &Decision, found: &Decision) -> &'static str {
    match (expected, found) {
        (_, Decision::Fault(_)) => {
            "the preset failed on this call; a native test of `evaluate` shows why"
        }
        (Decision::Need(_), Decision::Allow(_)) => {
            "say what the tool needs: `Tool::needs(NAME, [SCOPE])`, or `Verdict::need` in `evaluate`"
        }
        (Decision::Allow(_), Decision::Need(_)) => {
            "the table or the preset is wrong; a scope that includes another says so with `.implies([…])`"
        }
        (Decision::Deny(_), _) => {
            "`evaluate` decides this: `Verdict::deny(CODE, MESSAGE)`; does it get the arguments (`wants_arguments_of`)?"
        }
        _ => "the table or the preset is wrong: look it up in the vendor's documentation",
    }
}

fn decision(subject: &Subject, case: &Case) -> Decision {
    let tool = case.name.as_deref().filter(|_| case.method == "tools/call");
    let url = match &case.host {
        Some(host) => Url::parse(&format!("https://{host}/mcp")).ok(),
        None => server_of(&subject.party, tool),
    };
    let Some(url) = url else {
        return Decision::Fault(
            "no host that its tokens may go to; say `host`, or audience_hosts in [provider]".into(),
        );
    };
    let permit = attach(&subject.party, &url).and_then(|attachment| {
        let mut connection = connection(&subject.party, &case.granted)?;
        if let Some(account) = connection.account.as_mut()
            && let Some(id) = &case.account
        {
            account.id.clone_from(id);
        }
        for (name, value) in &case.facts {
            connection.facts.retain(|(n, _)| n != name);
            connection.facts.push((name.clone(), value.clone()));
        }
        let call = Call {
            method: &case.method,
            name: case.name.as_deref(),
            arguments: case.arguments.as_deref(),
            host: url.host_str().unwrap_or_default(),
        };
        Ok(decide(&attachment, &connection, call))
    });
    match permit {
        Err(what) => Decision::Fault(what),
        Ok(Ok((credential, _))) => Decision::Allow(credential),
        Ok(Err(CallError::NeedsScopes { missing, .. })) => Decision::Need(missing),
        Ok(Err(CallError::Denied { code, .. })) => Decision::Deny(code),
        Ok(Err(other)) => Decision::Fault(other.to_string()),
    }
}

/// What can be said without a table: tools that it describes are judged without
/// a fault, and the table names each.
fn tools(group: &mut Group, subject: &Subject) {
    let d = subject.description();
    let described: BTreeSet<&str> = d
        .mcp_servers
        .iter()
        .flat_map(|s| &s.tools)
        .map(|t| t.name.as_str())
        .collect();
    let name = format!(
        "each of its {} tools is judged without a fault, with all scopes and with none",
        described.len()
    );
    if described.is_empty() {
        group.skip(
            "each tool is judged without a fault",
            "it describes no tools",
        );
        return;
    }
    let all: ScopeSet = d
        .scopes
        .iter()
        .filter(|s| !s.prefix)
        .filter_map(|s| countersign_core::scope::Scope::parse(&s.name).ok())
        .collect();
    let mut wrong = Vec::new();
    for tool in &described {
        for granted in [&all, &ScopeSet::default()] {
            let case = Case {
                line: 0,
                method: "tools/call".into(),
                name: Some((*tool).to_owned()),
                arguments: Some("{}".into()),
                host: None,
                account: None,
                facts: Vec::new(),
                granted: granted.clone(),
                expect: Decision::Allow(None),
            };
            if let Decision::Fault(what) = decision(subject, &case) {
                wrong.push(format!("{tool}: {what}"));
            }
        }
    }
    group.none(
        name,
        &wrong,
        "a native test of `evaluate` with this tool shows why",
    );

    let written: BTreeSet<&str> = subject
        .table
        .cases
        .iter()
        .filter_map(|c| c.name.as_deref())
        .collect();
    let unwritten: Vec<&str> = described.difference(&written).copied().collect();
    if !subject.table.cases.is_empty() && !unwritten.is_empty() {
        let some = unwritten
            .iter()
            .take(5)
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        let more = if unwritten.len() > 5 { ", …" } else { "" };
        group.skip(
            format!(
                "the table has a row for {} of {} tools",
                described.len() - unwritten.len(),
                described.len()
            ),
            format!("none for {some}{more}"),
        );
    }
}
