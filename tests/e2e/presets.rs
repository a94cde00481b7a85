//! The life of a catalog: versions side by side, going back, faults, and what
//! is decided about them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use countersign_tests::{Era, Host, World};
use reqwest::Method;
use serde_json::{Value, json};

/// Presets of the host whose second start is measured.
const PRESETS: u8 = 50;

/// The preset `generic` as another version: an unknown custom section at its
/// end makes another digest, and changes nothing else.
fn another_version(host: &Host, version: &str, mark: u8) -> Result<PathBuf> {
    let mut bytes = fs::read(host.install("generic")?)?;
    bytes.extend([0, 7, 5, b'a', b'g', b'a', b'i', b'n', mark]);
    let file = host.catalog().join(format!("generic-{version}.wasm"));
    let temporary = file.with_extension("new");
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, &file)?;
    Ok(file)
}

async fn version_that_serves(host: &Host) -> Result<Value> {
    let found = host.must(Method::GET, "/presets/generic", None).await?;
    Ok(found["bindings"][0]["version"].clone())
}

async fn wait_for_version(host: &Host, version: &str) -> Result<()> {
    for _ in 0..200 {
        if version_that_serves(host).await? == version {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!(
        "{version} does not serve:\n{}\n{}",
        host.must(Method::GET, "/presets/generic", None).await?["bindings"],
        host.log().tail(20)
    )
}

/// A verb of the command line that has to end so.
async fn cli(host: &Host, line: &str, code: i32) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let (ended, out, err) = host.cli(&words, "").await?;
    ensure!(ended == code, "{line} ended with {ended}: {out}{err}");
    Ok(out + &err)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_chooses_goes_back_sets_a_floor_and_revokes() -> Result<()> {
    let mut world = World::start().await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    wait_for_version(&world.host, "0.1.0").await?;
    another_version(&world.host, "0.2.0", 2)?;
    wait_for_version(&world.host, "0.2.0").await?;

    let host = &world.host;
    let out = cli(host, "preset rollback generic", 0).await?;
    assert!(
        out.contains("Provider notes: 0.2.0 → 0.1.0 (pinned to 0.1.0"),
        "{out}"
    );
    // A newer one does not change that, and neither does a restart.
    another_version(host, "0.3.0", 3)?;
    world.host.stop().await?;
    world.host.serve().await?;
    let host = &world.host;
    wait_for_version(host, "0.1.0").await?;
    let listed = cli(host, "preset list", 0).await?;
    assert!(
        listed.contains("the provider is pinned to 0.1.0"),
        "{listed}"
    );
    let out = cli(host, "preset unpin generic", 0).await?;
    assert!(out.contains("0.1.0 → 0.3.0"), "{out}");

    // What is revoked goes at once, and nothing brings it back but its undoing.
    cli(host, "preset revoke generic 0.3.0", 0).await?;
    wait_for_version(host, "0.2.0").await?;
    let refused = cli(host, "preset pin generic 0.3.0", 1).await?;
    assert!(refused.contains("its digest is revoked"), "{refused}");
    cli(host, "preset floor generic 0.2.0", 0).await?;
    let refused = cli(host, "preset rollback generic", 1).await?;
    assert!(refused.contains("nothing older than 0.2.0"), "{refused}");
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(reply.text(), "ada-at-vendor", "{}", reply.message);
    cli(host, "preset floor generic 9.0", 0).await?;
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(reply.countersign()["error"], "preset_unavailable");

    let mut actions: Vec<String> = Vec::new();
    for event in host.audit("").await? {
        let action = event["action"].as_str().unwrap_or_default().to_owned();
        if action.starts_with("preset.") && !actions.contains(&action) {
            actions.push(action);
        }
    }
    for action in ["rollback", "unpin", "revoke", "floor", "swapped"] {
        let action = format!("preset.{action}");
        assert!(
            actions.contains(&action),
            "{action} is not among {actions:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_ends_with_3_and_an_approval_names_its_hash() -> Result<()> {
    let world = World::start().await?;
    let host = &world.host;
    let github = host.install("github")?;
    let generic = host.catalog().join("generic-0.1.0.wasm");
    let (github, generic) = (github.display(), generic.display());
    // Two files need no host.
    let out = cli(host, &format!("preset diff {generic} {github}"), 3).await?;
    assert!(out.contains("+ audience host api.github.com"), "{out}");
    assert!(
        out.contains("+ sees arguments of create_repository"),
        "{out}"
    );
    cli(host, &format!("preset diff {github} {github}"), 0).await?;
    cli(host, "preset diff generic", 0).await?;

    let role = json!({ "name": "editor", "allow": ["provider_update"] });
    host.must(Method::POST, "/roles", Some(role)).await?;
    let user = json!({ "name": "ed", "kind": "service", "roles": ["editor"] });
    host.must(Method::POST, "/users", Some(user)).await?;
    let token = json!({ "name": "t", "kind": "api", "user": "ed" });
    let token = host.must(Method::POST, "/tokens", Some(token)).await?;
    let token = token["token"].as_str().context("no token")?.to_owned();
    let edit = |hosts: Value| {
        let body = json!({ "audience_hosts": hosts });
        host.api_as(&token, Method::PATCH, "/providers/notes", Some(body))
    };
    edit(json!(["127.0.0.1", "*.example.net"])).await?;
    let shown = cli(host, "preset diff generic", 3).await?;
    assert!(shown.contains("+ audience host .example.net"), "{shown}");
    let approve = shown.lines().last().unwrap_or_default();
    let approve = approve.split_once("countersign ").context("no command")?.1;

    // Between looking and approving, the record is changed.
    edit(json!(["127.0.0.1", "*.example.net", "evil.example.org"])).await?;
    let refused = cli(host, approve, 1).await?;
    assert!(
        refused.contains("this is not what you looked at"),
        "{refused}"
    );
    assert!(
        refused.contains("added audience host evil.example.org"),
        "{refused}"
    );
    let shown = cli(host, "preset diff generic", 3).await?;
    let approve = shown.lines().last().unwrap_or_default();
    let approve = approve.split_once("countersign ").context("no command")?.1;
    cli(host, approve, 0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_recorded_redacted_and_a_version_is_tried_on_them() -> Result<()> {
    let setup = countersign_tests::Setup {
        server_record: json!({ "record_decisions": true }),
        ..Default::default()
    };
    let mut world = World::with(setup).await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    for _ in 0..5 {
        let reply = agent
            .call("whoami", json!({ "note": "MY-SECRET-WORDS" }))
            .await?;
        assert_eq!(reply.text(), "ada-at-vendor", "{}", reply.message);
    }
    // What is recorded outlives the process.
    world.host.stop().await?;
    world.host.serve().await?;
    let host = &world.host;
    let folder = host.folder().join("decisions.jsonl");
    let file = folder.display();
    let out = cli(host, &format!("preset replay export notes --to {file}"), 0).await?;
    let text = fs::read_to_string(&folder)?;
    let calls = text.lines().filter(|l| l.contains("whoami")).count();
    ensure!(calls == 5, "{out}\n{text}");
    assert!(!text.contains("MY-SECRET"), "{text}");
    for (name, secret) in world.provider.secrets().await? {
        assert!(!text.contains(&secret), "{name} was recorded");
    }

    // On the host, and with two files anywhere.
    another_version(host, "0.2.0", 2)?;
    wait_for_version(host, "0.2.0").await?;
    let line = "preset diff generic-0.1.0.wasm generic-0.2.0.wasm --provider notes --replay notes";
    let out = cli(host, line, 0).await?;
    assert!(
        out.contains("recorded calls: all decided as before"),
        "{out}"
    );
    let catalog = host.catalog();
    let (old, new) = (
        catalog.join("generic-0.1.0.wasm"),
        catalog.join("generic-0.2.0.wasm"),
    );
    let line = format!(
        "preset diff {} {} --replay {file}",
        old.display(),
        new.display()
    );
    let out = cli(host, &line, 0).await?;
    assert!(out.contains("all decided as before"), "{out}");

    cli(host, "preset replay forget notes", 0).await?;
    let out = cli(host, "preset replay export notes", 0).await?;
    assert_eq!(out.trim(), "");
    // Off by default.
    let off = json!({ "record_decisions": false });
    host.must(Method::PATCH, "/servers/notes", Some(off))
        .await?;
    agent.call("whoami", json!({})).await?;
    let found = host
        .must(Method::GET, "/servers/notes/decisions", None)
        .await?;
    assert_eq!(found["items"], json!([]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::disallowed_methods,
    reason = "how long a start takes is what it shows"
)]
async fn a_second_start_compiles_no_preset_again_and_a_tampered_file_is_never_run() -> Result<()> {
    let mut world = World::start().await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    // They are compiled while the host serves: how long that takes depends on
    // what else the machine does.
    for mark in 0..PRESETS - 1 {
        another_version(&world.host, &format!("0.0.{mark}"), mark)?;
    }
    loop {
        let list = world.host.must(Method::GET, "/presets", None).await?;
        if list["total_size"] == PRESETS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let compiled = world.host.folder().join("data/compiled");
    let contents = || -> Result<BTreeMap<PathBuf, SystemTime>> {
        let mut found = BTreeMap::new();
        for file in fs::read_dir(&compiled)? {
            let file = file?.path();
            found.insert(file.clone(), fs::metadata(&file)?.modified()?);
        }
        Ok(found)
    };
    let kept = contents()?;
    ensure!(
        kept.len() >= usize::from(PRESETS),
        "{} compiled files",
        kept.len()
    );
    world.host.stop().await?;
    let start = Instant::now();
    world.host.serve().await?;
    println!(
        "{PRESETS} presets: their second start took {:?}",
        start.elapsed()
    );
    assert_eq!(contents()?, kept, "something was compiled again");
    world.host.stop().await?;

    // Somebody with the disk writes into one: it is compiled anew, not run.
    let victim = kept.keys().next().context("no file")?;
    let mut bytes = fs::read(victim)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(victim, bytes)?;
    world.host.serve().await?;
    let log = world.host.log().text();
    assert!(
        log.contains("was not written by this installation"),
        "{}",
        world.host.log().tail(30)
    );
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(reply.text(), "ada-at-vendor", "{}", reply.message);
    Ok(())
}
