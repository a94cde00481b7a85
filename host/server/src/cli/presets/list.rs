//! `preset list`

use serde_json::Value;

use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::{Printer, cell, text};
use crate::cli::providers::Filter;

pub(super) async fn run(
    filter: Filter,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    let list = client.list(&["presets"], &filter.query()).await?;
    let heads = [
        "NAME",
        "VERSION",
        "STATE",
        "SIGNED BY",
        "ENABLED",
        "USED BY",
        "SERVES",
        "WAITING",
        "REASON",
    ];
    let row = |item: &Value| {
        let paths = [
            "name",
            "version",
            "state",
            "enabled",
            "providers",
            "serving",
            "waiting",
        ];
        let mut cells: Vec<String> = paths.iter().map(|path| cell(item, path)).collect();
        cells.insert(3, signed_by(item));
        cells.push(reasons(item));
        cells
    };
    let empty = "The catalog is empty. Put NAME-VERSION.wasm files into the host's catalog folder \
                 (`cargo xtask presets` builds them).";
    printer.rows(&list, &heads, row, empty)
}

/// The publisher, and how much that is worth.
pub(super) fn signed_by(item: &Value) -> String {
    let state = item.pointer("/origin/signature").and_then(Value::as_str);
    match state {
        Some("trusted") => cell(item, "origin.publisher"),
        Some("untrusted") => format!("{} (not trusted)", cell(item, "origin.publisher")),
        Some("unsigned") => "nobody".into(),
        Some("unchecked") => "not checked".into(),
        _ => "-".into(),
    }
}

/// Why a version is refused, or does not serve somebody.
fn reasons(item: &Value) -> String {
    let mut reasons = Vec::new();
    if let Some(reason) = item.get("reason") {
        reasons.push(text(reason));
    }
    if let Some(warning) = item.pointer("/origin/warning") {
        reasons.push(format!("WARNING: {}", text(warning)));
    }
    let over = item.get("passed_over").and_then(Value::as_array);
    for one in over.into_iter().flatten() {
        reasons.push(format!(
            "{}: {}",
            cell(one, "provider"),
            cell(one, "reason")
        ));
    }
    if reasons.is_empty() {
        "-".into()
    } else {
        reasons.join("; ")
    }
}
