//! An upgrade that asks for more and decides otherwise, as an administrator sees
//! it in a browser before approving it.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use countersign_tests::{Era, in_chromium};
use reqwest::Method;
use serde_json::{Value, json};

use crate::fixture::{Fixture, deny, description};
use crate::rollback::{as_the_record_says, put, waited_for, world};
use crate::street::on_a_named_call;

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_tried_on_recorded_calls_and_shown_with_its_signer() -> Result<()> {
    let world = world(false).await?;
    let host = &world.host;
    let cli = async |words: &[&str]| -> Result<String> {
        let (code, out, err) = host.cli(words, "").await?;
        ensure!(code == 0, "{words:?}: {out}{err}");
        Ok(out)
    };
    // What serves is signed by somebody known; what comes is not.
    let keys = host.folder().join("keys");
    fs::create_dir(&keys)?;
    let keys = keys.display().to_string();
    let own = host
        .catalog()
        .join("probe-1.0.0.wasm")
        .display()
        .to_string();
    cli(&["preset", "keygen", "acme", "--dir", &keys]).await?;
    cli(&["preset", "sign", &own, "--key", &format!("{keys}/acme.key")]).await?;
    cli(&["preset", "trust", &format!("{keys}/acme.pub")]).await?;
    host.configure(|config| config["presets"]["signatures"] = "warn".into())?;
    let is_signed = |event: &Value| {
        let detail = event["detail"].as_str().unwrap_or_default();
        event["action"] == "preset.loaded" && detail.contains("signed by acme")
    };
    host.audited(is_signed).await?;

    let on = json!({ "record_decisions": true });
    host.must(Method::PATCH, "/servers/notes", Some(on)).await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    for text in ["milk", "bread", "tea"] {
        agent
            .call("add_note", json!({ "text": text }))
            .await?
            .ok()?;
    }
    for _ in 0..4 {
        agent.call("whoami", json!({})).await?.ok()?;
    }
    for _ in 0..200 {
        let found = host
            .must(Method::GET, "/servers/notes/decisions", None)
            .await?;
        if found["items"]
            .as_array()
            .is_some_and(|items| items.len() >= 7)
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // It keeps notes read-only, and wants to know whose they are. The guest
    // tells tools apart by length: add_note has eight letters.
    let mut said = as_the_record_says(description());
    said["wants"] = json!(["account"]);
    let stricter = "(if (i32.eq (i32.load offset=16 (local.get 0)) (i32.const 8)) (then (return (i32.const $1))))";
    let newer = Fixture {
        evaluate: on_a_named_call(stricter, vec![deny("read_only")]),
        ..Fixture::described(said)
    };
    put(host, "1.1.0", &newer)?;
    host.audited(|event| event["action"] == "preset.waiting")
        .await?;

    // A call that began on the old version, and goes on after the approval.
    let slow = tokio::spawn(async move {
        let reply = agent
            .call("slow", json!({ "steps": 1, "delay_ms": 120_000 }))
            .await;
        reply.map(|reply| reply.message)
    });
    for _ in 0..200 {
        if world.upstream.calls_of("slow").await? > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let admin = &host.admin;
    let who = [("USERNAME", &*admin.user), ("PASSWORD", &*admin.password)];
    in_chromium("upgrade.mjs", host, &who).await?;
    waited_for(host, "1.1.0").await?;
    slow.abort();
    ensure!(fs::exists(&own)?);
    Ok(())
}
