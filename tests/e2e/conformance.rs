//! The official suite, direct and through Countersign: scenario by scenario
//! the same.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use countersign_tests::{Era, World, repository, target_folder};
use tokio::process::Command;

async fn suite(url: &str, token: &str, spec: &str, name: &str) -> Result<PathBuf> {
    let out = folder()?.join(format!("{spec}-{name}.json"));
    let counterparts = repository().join("tests/counterparts");
    let output = Command::new(counterparts.join("node_modules/.bin/node"))
        .arg("conformance/run.mjs")
        .args(["--url", url, "--spec", spec, "--out"])
        .arg(&out)
        .env("TOKEN", token)
        .current_dir(&counterparts)
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(
        out.exists(),
        "the suite wrote nothing: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(out)
}

fn folder() -> Result<PathBuf> {
    let folder = target_folder().join("conformance");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

async fn differences(direct: &Path, through: &Path) -> Result<(i32, String)> {
    let counterparts = repository().join("tests/counterparts");
    let output = Command::new(counterparts.join("node_modules/.bin/node"))
        .arg("conformance/compare.mjs")
        .args([direct, through])
        .current_dir(&counterparts)
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.code().context("killed")?, text))
}

async fn equal(spec: &str) -> Result<()> {
    let world = World::start().await?;
    let (_ada, agent) = world.connected("ada", Era::PerRequest).await?;
    // Direct with the very token that the host holds for this user.
    let tokens = world.provider.secrets().await?;
    let (_, upstream_token) = tokens
        .iter()
        .rfind(|(kind, _)| kind == "access_token")
        .context("the vendor issued no access token")?;
    let direct = suite(world.upstream.url(), upstream_token, spec, "direct").await?;
    let through = suite(&agent.endpoint, &agent.token, spec, "through").await?;
    let (code, text) = differences(&direct, &through).await?;
    assert_eq!(
        code, 0,
        "{spec}: through Countersign differs from direct:\n{text}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_suite_says_of_2026_07_28_what_it_says_direct() -> Result<()> {
    equal("2026-07-28").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_suite_says_of_2025_11_25_what_it_says_direct() -> Result<()> {
    equal("2025-11-25").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_suite_says_of_2025_06_18_what_it_says_direct() -> Result<()> {
    equal("2025-06-18").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_suite_says_of_2025_03_26_what_it_says_direct() -> Result<()> {
    equal("2025-03-26").await
}
