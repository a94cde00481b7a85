//! A real browser over the pages.

use anyhow::{Context, Result, ensure};
use countersign_tests::{Host, World, repository, target_folder};
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
    run(
        "pages.mjs",
        &world.host,
        &[("USERNAME", "ada"), ("PASSWORD", password)],
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_judges_presets_in_chromium() -> Result<()> {
    let world = World::start().await?;
    let host = &world.host;
    let github = host.install("github")?;
    std::fs::write(
        host.catalog().join("slack-0.2.0.wasm"),
        &std::fs::read(github)?[..500],
    )?;
    for _ in 0..200 {
        let list = host.must(Method::GET, "/presets", None).await?;
        if list["total_size"] == 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let on = json!({ "enabled": true });
    host.must(Method::PATCH, "/presets/github", Some(on))
        .await?;
    let record = json!({
        "name": "github", "preset": "github", "client_id": "c",
        "client_secret_ref": "NOTES_SECRET",
    });
    host.must(Method::POST, "/providers", Some(record)).await?;
    // Somebody who may not approve lets its tokens go elsewhere.
    let role = json!({ "name": "editor", "allow": ["provider_update"] });
    host.must(Method::POST, "/roles", Some(role)).await?;
    let user = json!({ "name": "ed", "kind": "service", "roles": ["editor"] });
    host.must(Method::POST, "/users", Some(user)).await?;
    let token = json!({ "name": "t", "kind": "api", "user": "ed" });
    let token = host.must(Method::POST, "/tokens", Some(token)).await?;
    let token = token["token"].as_str().unwrap_or_default().to_owned();
    let wider = json!({ "audience_hosts": ["*.github.com", "evil.example.net"] });
    let answer = host
        .api_as(&token, Method::PATCH, "/providers/github", Some(wider))
        .await?;
    assert_eq!(answer.json()["approval_pending"], true, "{}", answer.text);

    // Without the permission there is nothing to see, and no way there.
    let mut stranger = host.person("sue").await?;
    let page = stranger.browser.open(&host.at("/admin/presets")).await?;
    assert_eq!(page.status, 403, "{}", page.text());
    let page = stranger.browser.open(&host.at("/connections")).await?;
    assert!(!page.text().contains("Administration"));

    let admin = &host.admin;
    let who = [
        ("USERNAME", &*admin.user),
        ("PASSWORD", &*admin.password),
        ("PRESET", "github"),
    ];
    run("admin.mjs", host, &who).await?;
    let approved = host.audit("action = \"preset.approve\"").await?;
    assert_eq!(approved.len(), 1, "{approved:?}");
    Ok(())
}

/// Runs a script of `tests/browser`, which says what was not as it should be.
async fn run(script: &str, host: &Host, environment: &[(&str, &str)]) -> Result<()> {
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
    assert_eq!(facts["problems"], json!([]), "{facts}");
    println!("screenshots are in {}", screenshots.display());
    Ok(())
}
