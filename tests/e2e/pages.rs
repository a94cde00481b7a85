//! A real browser over the pages.

use anyhow::Result;
use countersign_tests::{World, in_chromium};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_connects_and_disconnects_in_chromium() -> Result<()> {
    let world = World::start().await?;
    let password = "first-ada-password";
    let user = json!({ "name": "ada", "roles": ["user"], "password": password });
    world.host.must(Method::POST, "/users", Some(user)).await?;
    in_chromium(
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
    in_chromium("admin.mjs", host, &who).await?;
    let approved = host.audit("action = \"preset.approve\"").await?;
    assert_eq!(approved.len(), 1, "{approved:?}");
    Ok(())
}
