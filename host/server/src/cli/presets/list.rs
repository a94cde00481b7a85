//! `preset list`

use serde_json::Value;

use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::{Printer, cell, items, text};
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
        "CALLS",
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
            "calls",
        ];
        let mut cells: Vec<String> = paths.iter().map(|path| cell(item, path)).collect();
        cells.insert(3, signed_by(item));
        cells.push(reasons(item));
        cells
    };
    printer.value(&list, || {
        let mut texts: Vec<String> = notices(&list);
        let rows: Vec<Vec<String>> = items(&list).iter().map(row).collect();
        texts.push(if rows.is_empty() {
            "The catalog is empty. Put NAME-VERSION.wasm files into the host's catalog folder \
             (`cargo xtask presets` builds them)."
                .into()
        } else {
            printer.table(&heads, &rows)
        });
        texts.extend(policy_components(&list, printer));
        texts.join("\n\n")
    })
}

/// What an operator should know.
fn notices(list: &Value) -> Vec<String> {
    let notices = list.get("notices").and_then(Value::as_array);
    let notices = notices.into_iter().flatten();
    notices
        .filter_map(Value::as_str)
        .map(|notice| format!("WARNING: {notice}"))
        .collect()
}

/// Policy components, if there are any.
fn policy_components(list: &Value, printer: &Printer) -> Option<String> {
    let components = list.get("policy_components")?.as_array()?;
    let heads = [
        "POLICY COMPONENT",
        "VERSION",
        "STATE",
        "SIGNED BY",
        "JUDGES FOR",
        "WAITS FOR",
        "REASON",
    ];
    let row = |item: &Value| {
        let mut cells: Vec<String> = ["name", "version", "state"]
            .map(|path| cell(item, path))
            .into();
        cells.push(signed_by(item));
        cells.extend(["policies", "waiting"].map(|path| cell(item, path)));
        cells.push(reasons(item));
        cells
    };
    let rows: Vec<Vec<String>> = components.iter().map(row).collect();
    (!rows.is_empty()).then(|| printer.table(&heads, &rows))
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
