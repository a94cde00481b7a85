//! A preset is replaced while calls go through it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use countersign_tests::{Agent, Era, Host, World, repository};
use reqwest::Method;
use serde_json::{Value, json};

use fixture::{Body, Fixture};

/// Components made on the spot, as the presets' own tests make them.
#[path = "../../host/presets/tests/presets/fixture.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "those tests use more of it, from a crate of its own"
)]
mod fixture;

const SWAPS: usize = 20;
const CALLERS: usize = 4;

/// The same component with another digest: an unknown custom section at its
/// end changes nothing else.
fn variant(component: &[u8], mark: u8) -> Vec<u8> {
    let mut bytes = component.to_vec();
    // Section 0 (custom), its length, the name's length, the name, the data.
    bytes.extend([0, 7, 5, b'a', b'g', b'a', b'i', b'n', mark]);
    bytes
}

fn put(file: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = file.with_extension("new");
    fs::write(&temporary, bytes)?;
    Ok(fs::rename(temporary, file)?)
}

async fn digest(host: &Host) -> Result<Value> {
    let list = host.must(Method::GET, "/presets", None).await?;
    let items = list["items"].as_array().context("no items")?.clone();
    let generic = items.iter().find(|item| item["name"] == "generic");
    Ok(generic.context("no generic")?["digest"].clone())
}

async fn swapped(host: &Host, before: &Value) -> Result<Value> {
    for _ in 0..300 {
        let now = digest(host).await?;
        if now != *before {
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the new component is not there:\n{}", host.log().tail(20))
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_calls_across_twenty_swaps_and_none_fails() -> Result<()> {
    let world = World::start().await?;
    let file = world.host.install("generic")?;
    let original = fs::read(&file)?;
    let (_ada, agent) = world.connected("ada", Era::PerRequest).await?;
    let (stop, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            let (endpoint, token) = (agent.endpoint.clone(), agent.token.clone());
            tokio::spawn(async move {
                let mut agent = Agent::with_token(endpoint, token, Era::PerRequest)?;
                while !stop.load(Ordering::Relaxed) {
                    let reply = agent.call("whoami", json!({})).await?;
                    anyhow::ensure!(reply.text() == "ada-at-vendor", "{}", reply.message);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    let mut now = digest(&world.host).await?;
    for mark in 0..SWAPS {
        put(&file, &variant(&original, mark as u8))?;
        now = swapped(&world.host, &now).await?;
        // Some calls with each version.
        let target = count.load(Ordering::Relaxed) + 60;
        while count.load(Ordering::Relaxed) < target && !callers.iter().any(|c| c.is_finished()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await??;
    }
    assert!(
        count.load(Ordering::Relaxed) >= 1000,
        "{} calls",
        count.load(Ordering::Relaxed)
    );
    let swaps = world.host.audit("action = \"preset.swapped\"").await?;
    assert!(
        swaps.len() >= SWAPS,
        "{} swaps in the audit log",
        swaps.len()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_component_is_refused_by_name_and_the_last_good_one_serves_on() -> Result<()> {
    let world = World::start().await?;
    let file = world.host.install("generic")?;
    let good = fs::read(&file)?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let nosy = fs::read(repository().join("tests/fixtures/presets/out/nosy-0.1.0.wasm")).ok();
    let cases = [
        ("truncated", Some(good[..good.len() / 2].to_vec())),
        ("empty", Some(Vec::new())),
        ("no component", Some(b"\0asm\x01\0\0\0".to_vec())),
        ("text", Some(b"<html>not found</html>".to_vec())),
        ("not this preset", nosy),
    ];
    for (name, bytes) in cases {
        let Some(bytes) = bytes else { continue };
        let before = world.host.audit("action = \"preset.refused\"").await?.len();
        put(&file, &bytes)?;
        let mut refused = Vec::new();
        for _ in 0..200 {
            refused = world.host.audit("action = \"preset.refused\"").await?;
            if refused.len() > before || name == "not this preset" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if name != "not this preset" {
            assert!(
                refused.len() > before,
                "{name} was not refused:\n{}",
                world.host.log().tail(10)
            );
            let reason = refused[0]["detail"].as_str().unwrap_or_default();
            assert!(!reason.is_empty(), "{name}: {}", refused[0]);
        }
        let reply = agent.call("whoami", json!({})).await?;
        assert_eq!(reply.text(), "ada-at-vendor", "{name}: {}", reply.message);
        put(&file, &good)?;
    }
    Ok(())
}

/// Components that the host has to refuse for what they are, not for how they
/// were copied, and what the refusal says.
fn hostile() -> Result<Vec<(&'static str, Vec<u8>, &'static str)>> {
    let text = |wat: &str| wat::parse_str(wat).context("not WebAssembly text");
    let trap = Fixture {
        describe: Body::Wat("unreachable", vec![]),
        ..Fixture::default()
    };
    Ok(vec![
        (
            "wrong ABI",
            text(
                r#"(component (instance $i) (export "countersign:preset/provider@0.9.0" (instance $i)))"#,
            )?,
            "this host speaks countersign:preset/provider@0.1.0",
        ),
        (
            "a forbidden import",
            text(
                r#"(component (import "wasi:sockets/tcp@0.2.0" (instance (export "connect" (func)))))"#,
            )?,
            "imports wasi:sockets/tcp@0.2.0",
        ),
        ("a trap in describe", trap.bytes(), "crashed"),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_of_another_kind_is_refused_while_calls_go_on() -> Result<()> {
    let world = World::start().await?;
    let file = world.host.install("generic")?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let before = digest(&world.host).await?;
    for (name, bytes, words) in hostile()? {
        let seen = world.host.audit("action = \"preset.refused\"").await?.len();
        put(&file, &bytes)?;
        let mut refused = Vec::new();
        // Calls go through all the while, from before the host looks at it on.
        for _ in 0..300 {
            let reply = agent.call("whoami", json!({})).await?;
            assert_eq!(reply.text(), "ada-at-vendor", "{name}: {}", reply.message);
            refused = world.host.audit("action = \"preset.refused\"").await?;
            if refused.len() > seen {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let said = refused.first().map(ToString::to_string).unwrap_or_default();
        assert!(refused.len() > seen, "{name} was not refused");
        assert!(said.contains(words), "{name}: {said}");
        let reply = agent.call("whoami", json!({})).await?;
        assert_eq!(reply.text(), "ada-at-vendor", "{name}: {}", reply.message);
        assert_eq!(digest(&world.host).await?, before, "{name}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preset_that_is_taken_away_stops_its_calls_before_they_are_sent() -> Result<()> {
    let world = World::start().await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let off = json!({ "enabled": false });
    world
        .host
        .must(Method::PATCH, "/presets/generic", Some(off))
        .await?;
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(reply.message["error"]["code"], -31005, "{}", reply.message);
    assert_eq!(reply.countersign()["error"], "preset_unavailable");
    assert_eq!(world.upstream.calls_of("whoami").await?, 0);
    let on = json!({ "enabled": true });
    world
        .host
        .must(Method::PATCH, "/presets/generic", Some(on))
        .await?;
    assert_eq!(
        agent.call("whoami", json!({})).await?.text(),
        "ada-at-vendor"
    );
    Ok(())
}
