//! `preset approve`

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::Printer;
use crate::cli::providers::put_text;

#[derive(Debug, Args)]
pub(in crate::cli) struct ApproveArgs {
    /// The preset
    name: String,
    /// Only for this provider
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
}

pub(super) async fn run(
    args: ApproveArgs,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    let mut body = Map::new();
    put_text(&mut body, "provider", args.provider);
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
        for (sign, list) in [("+", "added"), ("-", "removed")] {
            let entries = one
                .get(list)
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            lines.extend(
                entries
                    .filter_map(Value::as_str)
                    .map(|e| format!("  {sign} {e}")),
            );
        }
    }
    lines.join("\n")
}
