//! What an operator trusts, changed while the host serves.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use countersign_tests::{Agent, Era, Host, World};
use serde_json::{Value, json};

/// A verb of the command line that has to succeed.
async fn cli(host: &Host, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let (code, out, err) = host.cli(&words, "").await?;
    ensure!(code == 0, "{line}: {out}{err}");
    Ok(out)
}

/// Asks until a call is answered so: the error's word, or nothing.
async fn until(agent: &mut Agent, error: Option<&str>) -> Result<()> {
    let mut said = Value::Null;
    for _ in 0..200 {
        let reply = agent.call("whoami", json!({})).await?;
        if reply.countersign()["error"].as_str() == error {
            return Ok(());
        }
        said = reply.message;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("not {error:?}, but {said}")
}

/// The audit event of a change of trust that says this.
async fn told(host: &Host, outcome: &str, words: &str) -> Result<()> {
    let is_told = |event: &Value| {
        event["action"] == "preset.trust"
            && event["outcome"] == outcome
            && event["detail"].as_str().is_some_and(|d| d.contains(words))
    };
    host.audited(is_told).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_is_taken_over_without_a_restart_and_a_bad_edit_changes_nothing() -> Result<()> {
    let world = World::start().await?;
    let host = &world.host;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    until(&mut agent, None).await?;
    let dir = host.folder().join("keys");
    fs::create_dir(&dir)?;
    let dir = dir.display();
    cli(host, &format!("preset keygen acme --dir {dir}")).await?;
    let component = host.catalog().join("generic-0.1.0.wasm");
    let sign = format!("preset sign {} --key {dir}/acme.key", component.display());
    cli(host, &sign).await?;

    // Signatures are demanded: nobody's word is taken yet.
    host.configure(|config| config["presets"]["signatures"] = "require".into())?;
    until(&mut agent, Some("preset_unavailable")).await?;
    told(host, "allowed", "signatures: require instead of off").await?;
    let listed = cli(host, "preset list").await?;
    ensure!(listed.contains("trusts no publisher"), "{listed}");
    let said = cli(
        host,
        &format!("preset trust {dir}/acme.pub --presets generic"),
    )
    .await?;
    ensure!(said.contains("takes it over within seconds"), "{said}");
    until(&mut agent, None).await?;
    told(host, "allowed", "acme is trusted with ed25519:").await?;

    // What cannot be read changes nothing, and says so.
    let good = fs::read_to_string(host.config())?;
    fs::write(host.config(), good.replace("\"require\"", "\"sometimes\""))?;
    told(host, "failed", "cannot be used").await?;
    let listed = cli(host, "preset list").await?;
    ensure!(
        listed.contains("WARNING: The configuration was changed and cannot be used"),
        "{listed}"
    );
    until(&mut agent, None).await?;
    fs::write(host.config(), &good)?;
    for _ in 0..100 {
        if !cli(host, "preset list").await?.contains("WARNING") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(!cli(host, "preset list").await?.contains("WARNING"));

    // A key that was stolen.
    let key = fs::read_to_string(host.folder().join("keys/acme.pub"))?;
    let key = key.split_whitespace().nth(1).context("no key")?.to_owned();
    host.configure(|config| {
        let presets = config["presets"].as_table_mut().expect("[presets]");
        presets.remove("publisher");
        presets.insert("revoked_keys".into(), vec![key.clone()].into());
    })?;
    // At once, for those who do not want to wait.
    let pid = host.pid().context("it serves")?.to_string();
    let asked = tokio::process::Command::new("kill")
        .args(["-HUP", &pid])
        .status()
        .await?;
    ensure!(asked.success());
    until(&mut agent, Some("preset_unavailable")).await?;
    told(host, "allowed", &format!("the key {key} is revoked")).await?;
    let listed = cli(host, "preset list").await?;
    ensure!(listed.contains("under revoked_keys"), "{listed}");
    ensure!(
        host.pid().map(|p| p.to_string()) == Some(pid),
        "it was started anew"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_loaded_at_the_start_is_on_record() -> Result<()> {
    let world = World::start().await?;
    let loaded = |event: &Value| {
        event["action"] == "preset.loaded" && event["resource"] == "file:generic-0.1.0.wasm"
    };
    world.host.audited(loaded).await?;
    Ok(())
}
