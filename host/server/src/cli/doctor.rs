//! `doctor`

use countersign_core::ports::Clock as _;
use countersign_vault::error::OpenError;
use serde_json::json;

use super::client::Client;
use super::output::Printer;
use super::{CliError, Global};
use crate::config::{Config, ConfigError};
use crate::doctor::{Finding, Health, Inside, outside};
use crate::opening::{Opened, OpeningError};
use crate::surroundings::SystemClock;

pub(super) async fn run(global: &Global, printer: &Printer) -> Result<(), CliError> {
    let findings = match Config::load(&global.config) {
        Ok(config) => look(&config, global).await,
        Err(error) => vec![misread(&error)],
    };
    let count = |health| findings.iter().filter(|f| f.status == health).count();
    let (problems, warnings) = (count(Health::Problem), count(Health::Warning));
    let list = json!({"items": findings, "next_page_token": "", "total_size": findings.len()});
    printer.value(&list, || in_words(printer, &findings, problems, warnings))?;
    match problems {
        0 => Ok(()),
        1 => Err(CliError("there is one problem".into())),
        n => Err(CliError(format!("there are {n} problems"))),
    }
}

fn misread(error: &ConfigError) -> Finding {
    let place = match error.line {
        Some(line) => format!("{}:{line}", error.file.display()),
        None => error.file.display().to_string(),
    };
    let detail = format!("{place}: {}", error.problem);
    Finding::problem("configuration", detail, error.instead.clone())
}

async fn look(config: &Config, global: &Global) -> Vec<Finding> {
    let mut found = vec![Finding::ok(
        "configuration",
        config.file.display().to_string(),
    )];
    let is_good = match config.keys.load().await {
        Ok(ring) => {
            found.push(Finding::ok(
                "key",
                format!("{}: loaded, {}", config.keys.source, ring.current_id()),
            ));
            true
        }
        Err(error) => {
            found.push(Finding::problem(
                "key",
                error.to_string(),
                "without it nothing in the store can be read: put it back from its copy",
            ));
            false
        }
    };
    let mut is_running = false;
    if is_good {
        match Opened::existing(config).await {
            Ok(opened) => found.extend(stopped(&opened).await),
            Err(OpeningError::Open(OpenError::InUse { .. })) => {
                is_running = true;
                found.extend(running(global).await);
            }
            Err(error) => found.push(Finding::problem(
                "store",
                error.to_string(),
                "if it is damaged: `countersign restore BACKUP --salvage` keeps what can be read",
            )),
        }
    }
    let now = SystemClock::default().now();
    let http = super::client::http().ok().filter(|_| is_running);
    found.extend(outside(config, now, http.as_ref()).await);
    for part in super::check::presets(config).await {
        found.push(match part.good {
            true => Finding::ok(part.part, part.detail),
            false => Finding::problem(
                part.part,
                part.detail,
                "`countersign preset list` says what to do",
            ),
        });
    }
    found
}

/// Looks into the store itself.
async fn stopped(opened: &Opened) -> Vec<Finding> {
    let inside = Inside {
        world: &opened.world,
        vault: &opened.vault,
        audit: &opened.audit,
        serves: None,
    };
    let found = inside.look().await;
    opened.audit.close().await;
    found.unwrap_or_else(|error| {
        vec![Finding::problem(
            "store",
            error.to_string(),
            "`countersign restore BACKUP --salvage` keeps what can be read",
        )]
    })
}

/// Asks the host, which has the store.
async fn running(global: &Global) -> Vec<Finding> {
    let asked = async {
        let client = Client::of(global).await?;
        let mut list = client.get(&["doctor"]).await?;
        let items = list.get_mut("items").map(serde_json::Value::take);
        serde_json::from_value::<Vec<Finding>>(items.unwrap_or_default()).map_err(CliError::new)
    };
    match asked.await {
        Ok(found) => found,
        Err(error) => vec![Finding::warning(
            "store",
            format!("in use by the running host, which could not be asked: {error}"),
            "give a token of kind api with the permission doctor_run (COUNTERSIGN_TOKEN), or stop the host",
        )],
    }
}

fn in_words(printer: &Printer, findings: &[Finding], problems: usize, warnings: usize) -> String {
    let row = |finding: &Finding| {
        let status = match finding.status {
            Health::Ok => "ok",
            Health::Warning => "warning",
            Health::Problem => "PROBLEM",
        };
        vec![
            status.to_owned(),
            finding.check.clone(),
            super::output::text(&json!(finding.detail)),
        ]
    };
    let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
    let mut text = printer.table(&["STATUS", "CHECK", "FOUND"], &rows);
    let advised: Vec<&Finding> = findings.iter().filter(|f| !f.advice.is_empty()).collect();
    if !advised.is_empty() {
        text.push_str("\n\nWhat to do:");
        for finding in advised {
            text.push_str(&format!("\n- {}: {}", finding.check, finding.advice));
        }
    }
    text.push_str(&format!("\n\n{problems} problems, {warnings} warnings."));
    text
}
