//! `check`: everything that `serve` would stumble over, without serving.

use std::path::Path;

use countersign_presets::{Catalog, EngineConfig, FileState};
use countersign_vault::error::OpenError;
use serde_json::{Value, json};

use super::CliError;
use super::output::Printer;
use crate::config::{Config, Signatures, StoreUrl};
use crate::opening::{Opened, OpeningError};

/// One part that was looked at.
pub(super) struct Finding {
    pub(super) part: &'static str,
    pub(super) good: bool,
    pub(super) detail: String,
}

pub(super) async fn run(file: &Path, printer: &Printer) -> Result<(), CliError> {
    let config = Config::load(file).map_err(CliError::new)?;
    let mut findings = vec![Finding {
        part: "configuration",
        good: true,
        detail: format!("{}, serves {}", file.display(), config.server.public_url),
    }];
    let key = config.keys.load().await;
    let key_is_good = key.is_ok();
    findings.push(Finding {
        part: "key",
        good: key_is_good,
        detail: key.map_or_else(
            |e| e.to_string(),
            |ring| format!("loaded, {}", ring.current_id()),
        ),
    });
    if key_is_good {
        findings.push(store(&config).await);
    }
    findings.extend(presets(&config).await);
    let bad = findings.iter().filter(|f| !f.good).count();
    let items: Vec<Value> = findings
        .iter()
        .map(|f| json!({"part": f.part, "ok": f.good, "detail": f.detail}))
        .collect();
    let list = json!({"items": items, "next_page_token": "", "total_size": items.len()});
    printer.list(
        &list,
        &[("PART", "part"), ("OK", "ok"), ("DETAIL", "detail")],
        "",
    )?;
    match bad {
        0 => Ok(()),
        1 => Err(CliError("one part is not in order".into())),
        n => Err(CliError(format!("{n} parts are not in order"))),
    }
}

async fn store(config: &Config) -> Finding {
    let finding = |good, detail| Finding {
        part: "store",
        good,
        detail,
    };
    // Opening makes an empty one; looking must not.
    if let StoreUrl::Sled(folder) = &config.store.url
        && !folder.exists()
    {
        let text = format!(
            "{} does not exist; `countersign init` makes one",
            folder.display()
        );
        return finding(false, text);
    }
    match Opened::new(config).await {
        Ok(opened) => {
            let damage: Vec<String> = opened
                .vault
                .damage()
                .iter()
                .map(ToString::to_string)
                .collect();
            opened.audit.close().await;
            match damage.is_empty() {
                true => finding(true, "opened, every record verified".into()),
                false => finding(false, damage.join("; ")),
            }
        }
        Err(OpeningError::Open(OpenError::InUse { .. })) => {
            finding(true, "in use by a running host, so not looked into".into())
        }
        Err(error) => finding(false, error.to_string()),
    }
}

pub(super) async fn presets(config: &Config) -> Vec<Finding> {
    let finding = |good, detail| Finding {
        part: "presets",
        good,
        detail,
    };
    let folder = config.server.catalog_dir.clone();
    let trust = config.presets.trust.clone();
    let opened = tokio::task::spawn_blocking(move || {
        Catalog::open_with(&folder, EngineConfig::default(), trust, None)
            .map(|catalog| catalog.list())
    });
    let entries = match opened.await {
        Ok(Ok(entries)) => entries,
        Ok(Err(error)) => return vec![finding(false, error.to_string())],
        Err(error) => return vec![finding(false, error.to_string())],
    };
    let mut findings = Vec::new();
    let mut loaded = 0_usize;
    for entry in entries {
        if let Some(warning) = entry.origin.and_then(|origin| origin.warning) {
            findings.push(finding(true, format!("WARNING: {}: {warning}", entry.file)));
        }
        match entry.state {
            FileState::Loaded | FileState::NeedsSettings { .. } => loaded += 1,
            // Only in a running host.
            FileState::Kept | FileState::Draining => {}
            FileState::Refused { reason } => {
                findings.push(finding(false, format!("{}: {reason}", entry.file)))
            }
        }
    }
    findings.push(finding(
        true,
        format!(
            "{loaded} loaded from {} ({})",
            config.server.catalog_dir.display(),
            demanded(config)
        ),
    ));
    findings
}

/// What is demanded of signatures, in words.
fn demanded(config: &Config) -> String {
    let trusted: Vec<&str> = config
        .presets
        .trust
        .publishers
        .iter()
        .map(|publisher| publisher.name.as_str())
        .collect();
    match (config.presets.signatures, trusted.is_empty()) {
        (Signatures::Off, _) => "signatures are not looked at".into(),
        (_, true) => "signatures are looked at; no publisher is trusted yet".into(),
        (_, false) => format!("signatures are looked at; trusted: {}", trusted.join(", ")),
    }
}
