//! Pages in a real browser.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::host::Host;
use crate::process::{repository, target_folder};

/// The browser that tests drive: named by whoever set things up, or found.
fn chromium() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("COUNTERSIGN_CHROMIUM") {
        return Ok(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .flat_map(|folder| ["chromium", "chromium-browser"].map(|name| folder.join(name)))
        .find(|file| file.is_file())
        .context("there is no Chromium: run `cargo xtask setup`")
}

/// Runs a script of `tests/browser`, which says what was not as it should be.
///
/// # Errors
/// With what it said.
pub async fn in_chromium(script: &str, host: &Host, environment: &[(&str, &str)]) -> Result<()> {
    let screenshots = target_folder().join("screenshots");
    std::fs::create_dir_all(&screenshots)?;
    let folder = repository().join("tests/browser");
    let output = Command::new(repository().join("tests/counterparts/node_modules/.bin/node"))
        .arg(script)
        .env("HOST", &host.url)
        .env("CHROMIUM", chromium()?)
        .env("SCREENSHOTS", &screenshots)
        .envs(environment.iter().copied())
        .current_dir(folder)
        .kill_on_drop(true)
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let facts: Value = text
        .lines()
        .last()
        .and_then(|line| serde_json::from_str(line).ok())
        .context("no facts")?;
    ensure!(facts["problems"] == json!([]), "{facts}");
    println!("screenshots are in {}", screenshots.display());
    Ok(())
}
