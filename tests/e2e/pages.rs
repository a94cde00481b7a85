//! A real browser over the pages.

use anyhow::{Context, Result, ensure};
use countersign_tests::{World, repository, target_folder};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

/// The browser that tests drive: named by whoever set things up, or found.
fn chromium() -> Result<std::path::PathBuf> {
    if let Some(named) = std::env::var_os("COUNTERSIGN_CHROMIUM") {
        return Ok(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .flat_map(|folder| ["chromium", "chromium-browser"].map(|name| folder.join(name)))
        .find(|file| file.is_file())
        .context("there is no Chromium: run `cargo xtask setup`")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_connects_and_disconnects_in_chromium() -> Result<()> {
    let world = World::start().await?;
    let password = "first-ada-password";
    let user = json!({ "name": "ada", "roles": ["user"], "password": password });
    world.host.must(Method::POST, "/users", Some(user)).await?;
    let screenshots = target_folder().join("screenshots");
    std::fs::create_dir_all(&screenshots)?;
    let folder = repository().join("tests/browser");
    let output = Command::new(repository().join("tests/counterparts/node_modules/.bin/node"))
        .arg("pages.mjs")
        .env("HOST", &world.host.url)
        .env("CHROMIUM", chromium()?)
        .env("USERNAME", "ada")
        .env("PASSWORD", password)
        .env("SCREENSHOTS", &screenshots)
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
    assert_eq!(facts["problems"], json!([]), "{facts}");
    println!("screenshots are in {}", screenshots.display());
    Ok(())
}
