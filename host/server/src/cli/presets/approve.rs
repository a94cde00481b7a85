//! `preset approve`

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::{Printer, text};
use crate::cli::providers::put_text;

#[derive(Debug, Args)]
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
}

pub(super) async fn run(
    args: ApproveArgs,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    let mut body = Map::new();
    put_text(&mut body, "provider", args.provider);
    put_text(&mut body, "hash", args.hash);
    let done = client
        .post(&["presets", &args.name, "approve"], body)
        .await?;
    printer.value(&done, || approved_in_words(&done))
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
