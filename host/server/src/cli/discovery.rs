//! What was found out, on the terminal; and `provider registration`.

use clap::Args;
use serde_json::{Map, Value};

use super::CliError;
use super::client::Client;
use super::output::{Printer, cell, text};
use super::providers::Named;

/// How far a creation by address goes.
#[derive(Debug, Args)]
pub(super) struct Discover {
    /// The issuer, where several are found or none
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Register another client although a provider or preset would do
    #[arg(long)]
    force: bool,
    /// Only find out, and show what would be created
    #[arg(long)]
    dry_run: bool,
}

impl Discover {
    pub(super) fn query(self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        query.extend(self.issuer.map(|issuer| ("issuer", issuer)));
        let switches = [("force", self.force), ("dry_run", self.dry_run)];
        let on = switches.into_iter().filter(|(_, on)| *on);
        query.extend(on.map(|(name, _)| (name, "true".to_owned())));
        query
    }
}

/// Prints what was created, or in a dry run what would be.
pub(super) fn created(printer: &Printer, made: &Value) -> Result<(), CliError> {
    if made.get("discovered_from").is_some() {
        return printer.value(made, || {
            format!("{}\n\nNothing was created.", in_words(printer, made))
        });
    }
    let Some(report) = made.get("discovery") else {
        return printer.fields(made);
    };
    if printer.is_json() {
        return printer.fields(made);
    }
    let mut record = made.clone();
    if let Some(record) = record.as_object_mut() {
        record.remove("discovery");
    }
    printer.fields(&record)?;
    printer.text(&format!("\n{}", in_words(printer, report)))
}

fn in_words(printer: &Printer, report: &Value) -> String {
    let list = |name: &str| report.get(name).and_then(Value::as_array);
    let mut out = format!("Found out from {}\n", cell(report, "discovered_from"));
    if cell(report, "authorization") == "none" {
        out.push_str("It wants no credentials: it listed its tools without any.\n");
    }
    let fields: Vec<Vec<String>> = list("fields")
        .into_iter()
        .flatten()
        .map(|f| ["name", "value", "source"].map(|part| cell(f, part)).into())
        .collect();
    if !fields.is_empty() {
        out.push('\n');
        out.push_str(&printer.table(&["FIELD", "VALUE", "FROM"], &fields));
        out.push('\n');
    }
    let mut rows = Vec::new();
    let client = match cell(report, "client").as_str() {
        "dynamic" => "registers itself",
        "metadata_document" => "by its own metadata document",
        "manual" => "has to be registered by hand",
        _ => "",
    };
    if !client.is_empty() {
        let advice = cell(report, "client_advice");
        let words = match advice.as_str() {
            "-" => client.to_owned(),
            advice => format!("{client}: {advice}"),
        };
        rows.push(vec!["Client".to_owned(), words]);
    }
    let callback = cell(report, "callback_url");
    if callback != "-" {
        rows.push(vec!["Redirect URI".to_owned(), callback]);
    }
    let offered = list("scopes_offered").filter(|l| !l.is_empty());
    if let Some(offered) = offered {
        let offered: Vec<String> = offered.iter().map(text).collect();
        rows.push(vec![
            "Scopes it knows".to_owned(),
            format!("{} (choose with --scopes)", offered.join(", ")),
        ]);
    }
    if !rows.is_empty() {
        out.push('\n');
        out.push_str(&printer.table(&[], &rows));
        out.push('\n');
    }
    for warning in list("warnings").into_iter().flatten() {
        out.push_str(&format!("\nNote: {}\n", text(warning)));
    }
    let steps: Vec<Vec<String>> = list("steps")
        .into_iter()
        .flatten()
        .map(|s| ["request", "answer"].map(|part| cell(s, part)).into())
        .collect();
    out.push('\n');
    out.push_str(&printer.table(&["ASKED", "ANSWER"], &steps));
    out
}

/// `provider registration`
#[derive(Debug, Args)]
pub(super) struct Registration {
    #[command(flatten)]
    name: Named,
    /// Tell the authorization server the redirect URI and grants of now
    #[arg(long, conflicts_with = "renew")]
    update: bool,
    /// Register anew; its users are asked again
    #[arg(long)]
    renew: bool,
}

impl Registration {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        let path = ["providers", self.name.get(), "registration"];
        let looked = match (self.update, self.renew) {
            (true, _) => client.put(&path, Map::new()).await?,
            (_, true) => client.post(&path, Map::new()).await?,
            _ => client.get(&path).await?,
        };
        printer.fields(&looked)
    }
}
