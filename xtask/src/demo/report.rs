//! The transcript, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{PEOPLE, Person};

/// Audit lines shown.
const SHOWN: usize = 24;

/// Prints as it goes and counts what was not right.
#[derive(Default)]
pub(super) struct Report {
    failed: usize,
}

impl Report {
    /// How many checks failed.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    fn check(&mut self, holds: bool, claim: &str) {
        println!("  {} {claim}", if holds { "✓" } else { "✗ NOT TRUE:" });
        self.failed += usize::from(!holds);
    }

    /// What a person's agent went through.
    pub(super) fn agent(&mut self, person: &Person, lines: &[Value]) {
        println!(
            "\n{}'s agent (official TypeScript SDK, MCP {}):\n",
            person.name, person.era
        );
        for line in lines {
            if let Some(text) = sentence(line) {
                println!("  · {text}");
            }
        }
        println!();
        let result = |tool: &str| {
            lines
                .iter()
                .rfind(|line| line["step"] == "call" && line["tool"] == tool)
                .map_or("", |line| text_of(line))
        };
        let signed_in = lines.iter().any(|line| line["step"] == "authorized");
        let connected = lines
            .iter()
            .any(|line| line["step"] == "visited" && pressed(line).contains("Allow"));
        self.check(signed_in, "signed in at Countersign and was allowed there");
        self.check(
            connected,
            "the user connected the vendor's account once, when it was needed",
        );
        self.check(
            result("whoami") == person.account,
            &format!("the vendor knows the call as {}", person.account),
        );
        let own = serde_json::json!([person.note]).to_string();
        self.check(
            result("list_notes") == own,
            "lists the notes of this user, and of nobody else",
        );
    }

    /// Whom the vendor saw.
    pub(super) fn upstream(&mut self, lines: &[String]) {
        println!("\nWhat the notes server saw:\n");
        let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in lines {
            let Ok(line) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            if let (Some(tool), Some(subject)) = (line["tool"].as_str(), line["subject"].as_str()) {
                println!("  · {tool:<12} as {subject}");
                seen.entry(subject.into()).or_default().insert(tool.into());
            }
        }
        println!();
        let accounts: Vec<_> = PEOPLE.iter().map(|person| person.account).collect();
        self.check(
            seen.keys().map(String::as_str).eq(accounts.iter().copied()),
            "two users are two identities at the vendor, and there is no third",
        );
    }

    /// Who did what, by Countersign's own record.
    pub(super) fn audit(&mut self, json: &str) -> Result<()> {
        let list: Value = serde_json::from_str(json).context("audit list printed no JSON")?;
        let events = list["items"]
            .as_array()
            .or_else(|| list.as_array())
            .context("audit list printed no items")?;
        println!("\nThe end of the audit log:\n");
        for event in events.iter().take(SHOWN).rev() {
            println!("  {}", audit_line(event));
        }
        println!();
        for person in &PEOPLE {
            let calls = events
                .iter()
                .filter(|event| {
                    event["user"] == person.name
                        && event["call"]["name"] == "whoami"
                        && event["outcome"] == "allowed"
                })
                .count();
            self.check(calls > 0, &format!("{}'s calls are in it", person.name));
        }
        Ok(())
    }

    /// No secret of the vendor's anywhere it does not belong.
    pub(super) fn secrets(&mut self, tokens: &Value, seen: &BTreeMap<&str, String>) {
        let values: BTreeSet<&str> = tokens["tokens"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|token| token["value"].as_str())
            .collect();
        println!(
            "\nThe vendor handed out {} tokens, codes and secrets:\n",
            values.len()
        );
        self.check(
            values.len() >= 2 * PEOPLE.len(),
            "an access and a refresh token for each user",
        );
        for (place, text) in seen {
            let found = values.iter().filter(|value| text.contains(**value)).count();
            self.check(found == 0, &format!("none of them is in {place}"));
        }
    }
}

/// What one line of the agent means; steps that say little are left out.
fn sentence(line: &Value) -> Option<String> {
    let text = |name: &str| line[name].as_str().unwrap_or_default();
    Some(match text("step") {
        "http" if line["status"] == 401 && line["method"] == "POST" => {
            "is answered 401, and finds out by itself where to sign in".into()
        }
        "registered" => "registers itself as a client".into(),
        "authorized" => format!("its user signed in and pressed {}", pressed(line)),
        "token" => "has a token for this one server at Countersign".into(),
        "connected" => format!("speaks MCP {}", text("version")),
        "tools" => format!("sees the tools {}", list(&line["names"])),
        "elicitation" => "is asked to send its user to a page".into(),
        "visit" => format!("its user opens {}", without_query(text("url"))),
        "visited" => format!("… and pressed {}", pressed(line)),
        "call" => format!("{} → {}", text("tool"), text_of(line)),
        "failed" => format!("FAILED: {}", text("reason")),
        _ => return None,
    })
}

fn text_of(line: &Value) -> &str {
    line["result"]["content"][0]["text"]
        .as_str()
        .or_else(|| line["error"]["message"].as_str())
        .unwrap_or_default()
}

fn list(value: &Value) -> String {
    let items: Vec<_> = value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    items.join(", ")
}

fn pressed(line: &Value) -> String {
    list(&line["pressed"])
}

fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

fn audit_line(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let mut parts = vec![
        text("time").to_owned(),
        format!("{:<8}", text("outcome")),
        format!("{:<20}", text("action")),
        format!("{:<6}", text("user")),
    ];
    for name in ["client", "resource", "detail"] {
        if !text(name).is_empty() {
            parts.push(format!("{name}={:?}", text(name)));
        }
    }
    for name in ["method", "name", "error"] {
        if let Some(word) = event["call"][name].as_str() {
            parts.push(word.to_owned());
        }
    }
    parts.join(" ")
}
