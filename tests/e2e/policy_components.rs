//! Policy components on their way from their author to a host: signed, carried,
//! trusted, and shown.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use countersign_tests::{Agent, Era, Host, World, repository};
use serde_json::{Value, json};

/// A verb of the command line that has to succeed.
async fn cli(host: &Host, words: &[&str]) -> Result<String> {
    let (code, out, err) = host.cli(words, "").await?;
    ensure!(code == 0, "{words:?}: {out}{err}");
    Ok(out)
}

/// What `preset list` says of the only policy component, once `wanted` holds.
async fn shown(host: &Host, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut one = Value::Null;
    for _ in 0..200 {
        let list = cli(host, &["--output", "json", "preset", "list"]).await?;
        let list: Value = serde_json::from_str(&list)?;
        one = list["policy_components"][0].clone();
        if wanted(&one) {
            return Ok(one);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("{one}\n{}", host.log().tail(20))
}

/// Asks until a call is answered so: the error's word, or nothing.
async fn until(agent: &mut Agent, error: Option<&str>) -> Result<()> {
    let mut said = Value::Null;
    for _ in 0..200 {
        let reply = agent
            .call("add_note", json!({ "text": "select 1" }))
            .await?;
        if reply.countersign()["error"].as_str() == error {
            return Ok(());
        }
        said = reply.message;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("not {error:?}, but {said}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_component_is_signed_carried_trusted_and_shown_with_its_reason() -> Result<()> {
    let world = World::start().await?;
    let host = &world.host;
    let author = tempfile::tempdir()?;
    let here = author.path().display().to_string();
    let file = "sql-guard-0.1.0.wasm";
    let built = repository().join("tests/fixtures/presets/out").join(file);
    fs::copy(&built, author.path().join(file))
        .with_context(|| format!("{}: run `cargo xtask presets --fixtures`", built.display()))?;
    let own = author.path().join(file).display().to_string();
    let key = format!("{here}/acme.key");
    cli(host, &["preset", "keygen", "acme", "--dir", &here]).await?;
    cli(host, &["preset", "sign", &own, "--key", &key]).await?;
    let shelf = format!("{here}/shelf/");
    cli(host, &["preset", "publish", &own, &shelf]).await?;
    // To where the host looks for policies.
    let pulled = cli(host, &["preset", "pull", &shelf]).await?;
    ensure!(pulled.contains("catalog/policies/sql-guard"), "{pulled}");
    let one = shown(host, |one| one["state"] == "ready").await?;
    ensure!(one["origin"]["signature"] == "unchecked", "{one}");
    let of = format!("file:policies/{file}");
    let on_record = |action: &'static str| {
        let of = of.clone();
        move |event: &Value| event["action"] == action && event["resource"] == of.as_str()
    };
    host.audited(on_record("policy.loaded")).await?;

    cli(
        host,
        &[
            "policy",
            "create",
            "sql",
            "--component",
            "sql-guard",
            "--settings",
            r#"{"argument":"text"}"#,
            "--tools",
            "add_note",
        ],
    )
    .await?;
    let one = shown(host, |one| one["state"] == "judges").await?;
    ensure!(one["policies"] == json!(["sql"]), "{one}");
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    until(&mut agent, None).await?;

    // Signatures are demanded, and acme is trusted for the preset alone.
    let generic = host
        .catalog()
        .join("generic-0.1.0.wasm")
        .display()
        .to_string();
    cli(host, &["preset", "sign", &generic, "--key", &key]).await?;
    let public = format!("{here}/acme.pub");
    cli(host, &["preset", "trust", &public, "--presets", "generic"]).await?;
    host.configure(|config| config["presets"]["signatures"] = "require".into())?;
    let one = shown(host, |one| one["state"] == "refused").await?;
    let reason = one["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("acme"), "{one}");
    let event = host.audited(on_record("policy.refused")).await?;
    ensure!(event.to_string().contains("acme"), "{event}");
    // A policy that cannot judge lets nothing through.
    until(&mut agent, Some("preset_unavailable")).await?;
    let table = cli(host, &["preset", "list"]).await?;
    ensure!(table.contains("POLICY COMPONENT"), "{table}");

    cli(
        host,
        &["preset", "trust", &public, "--presets", "sql-guard"],
    )
    .await?;
    until(&mut agent, None).await?;
    let one = shown(host, |one| one["state"] == "judges").await?;
    ensure!(one["origin"]["signature"] == "trusted", "{one}");
    ensure!(one["origin"]["publisher"] == "acme", "{one}");
    Ok(())
}
