//! `preset approve`

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use clap::Args;
use serde_json::{Map, Value, json};

use super::diff::{waiting_of, waits};
use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::{Printer, cell, text};
use crate::cli::providers::put_text;

#[derive(Debug, Args)]
#[command(
    after_help = "At a terminal it shows what waits and asks. Where nobody can be asked, as in a script, it approves \
                  the one thing that waits and prints it; if several wait, it approves none of them without \
                  --provider, --hash or --yes. --hash approves nothing but what somebody looked at."
)]
pub(in crate::cli) struct ApproveArgs {
    /// The preset
    name: String,
    /// Only for this provider
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
    /// Only what has this hash, as `preset inspect` and `preset diff` show it: what you looked at, and
    /// nothing that came since
    #[arg(long, value_name = "HASH")]
    hash: Option<String>,
    /// Show what waits and approve all of it without asking
    #[arg(long, conflicts_with = "hash")]
    yes: bool,
}

pub(super) async fn run(
    args: ApproveArgs,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    let ApproveArgs {
        name,
        provider,
        hash,
        yes,
    } = args;
    let done = match hash {
        Some(hash) => approve(client, &name, provider, hash).await?,
        None => {
            let found = client.get(&["presets", &name]).await?;
            if found.get("enabled") == Some(&Value::Bool(false)) {
                return Err(CliError(format!(
                    "the preset is not enabled, so nothing of it waits; enable it first: countersign preset enable {name}"
                )));
            }
            let mut approved = Vec::new();
            for (provider, hash) in agreed_to(&name, &waiting_of(&found, provider.as_ref()), yes)? {
                let done = approve(client, &name, Some(provider), hash).await?;
                let more = done.get("approved").and_then(Value::as_array);
                approved.extend(more.into_iter().flatten().cloned());
            }
            json!({ "approved": approved })
        }
    };
    printer.value(&done, || approved_in_words(&done))
}

async fn approve(
    client: &Client,
    name: &str,
    provider: Option<String>,
    hash: String,
) -> Result<Value, CliError> {
    let mut body = Map::new();
    put_text(&mut body, "provider", provider);
    put_text(&mut body, "hash", Some(hash));
    client.post(&["presets", name, "approve"], body).await
}

/// Shows what waits; provider and hash of what the person at the terminal agrees
/// to, or of all if he said so before. Where nobody can be asked, the preset's
/// name is his word for one proposal, never for one of several.
fn agreed_to(name: &str, waiting: &[&Value], yes: bool) -> Result<Vec<(String, String)>, CliError> {
    let shown = |binding: &&Value| waits(name, binding);
    let may_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !yes && !may_ask && waiting.len() > 1 {
        let blocks: Vec<String> = waiting.iter().map(shown).collect();
        return Err(CliError(format!(
            "nothing was approved: {} proposals wait, and here nobody can be asked which. Name one with --provider or \
             --hash, or give --yes for all.\n\n{}",
            waiting.len(),
            blocks.join("\n\n")
        )));
    }
    let mut agreed = Vec::new();
    for binding in waiting {
        if yes || may_ask {
            // What is approved goes to standard output, for programs.
            eprintln!("{}\n", shown(binding));
        }
        if yes || !may_ask || asked("Approve this?")? {
            agreed.push((cell(binding, "provider"), cell(binding, "waiting.hash")));
        }
    }
    if agreed.is_empty() && !waiting.is_empty() {
        return Err(CliError("nothing was approved".into()));
    }
    Ok(agreed)
}

/// Whether the answer is yes; anything else, and nothing, is no.
fn asked(question: &str) -> Result<bool, CliError> {
    let mut terminal = std::io::stderr().lock();
    write!(terminal, "{question} [y/N] ")
        .and_then(|()| terminal.flush())
        .map_err(CliError::new)?;
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(CliError::new)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes"))
}

fn approved_in_words(done: &Value) -> String {
    let approved = done
        .get("approved")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    if approved.is_empty() {
        return "Nothing waits for an approval.".into();
    }
    let mut lines = Vec::new();
    for one in approved {
        let field = |f: &str| one.get(f).and_then(Value::as_str).unwrap_or_default();
        lines.push(format!(
            "Approved for provider {}: version {} ({})",
            field("provider"),
            field("version"),
            field("hash")
        ));
        lines.push(format!(
            "  {}",
            text(one.get("origin").unwrap_or(&Value::Null))
        ));
        lines.extend(difference_lines(one));
    }
    lines.join("\n")
}

/// The entries of a difference, each with its sign: `+` added, `>` widened,
/// `<` narrowed, `-` removed.
pub(super) fn difference_lines(difference: &Value) -> Vec<String> {
    let lists = [
        ("+", "added"),
        (">", "widened"),
        ("<", "narrowed"),
        ("-", "removed"),
    ];
    let mut lines = Vec::new();
    for (sign, list) in lists {
        let entries = difference.get(list).and_then(Value::as_array);
        let entries = entries.into_iter().flatten();
        lines.extend(entries.map(|e| format!("  {sign} {}", text(e))));
    }
    lines
}
