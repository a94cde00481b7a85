//! Going back from a version that fails for everybody, through the built host:
//! from three users' calls to the version that serves.

use std::fs;

use anyhow::{Result, ensure};
use countersign_tests::{Agent, Era, Host, HostOptions, Provider, Setup, Upstream, World};
use reqwest::Method;
use serde_json::{Value, json};

use crate::fixture::{Body, Fixture, description};
use crate::street::on_a_named_call;

/// As the provider's record says, like the preset `generic`.
pub fn as_the_record_says(mut said: Value) -> Value {
    for member in ["authorization-hosts", "audience-hosts", "default-scopes"] {
        said[member] = json!([]);
    }
    said["authorization"] = json!({
        "endpoint": [],
        "scope-parameters": [{"name": "scope", "separator": " "}],
    });
    said["token-shapes"][0]["scopes"] = json!(["/scope"]);
    said["token-shapes"][0]["scope-separators"] = json!([" "]);
    said["token-endpoint"] = Value::Null;
    said
}

/// Fails on every call of a tool, whichever it is.
fn broken() -> Fixture {
    Fixture {
        evaluate: on_a_named_call("unreachable", vec![]),
        ..Fixture::described(as_the_record_says(description()))
    }
}

pub fn put(host: &Host, version: &str, fixture: &Fixture) -> Result<()> {
    let part = host.catalog().join(format!("probe-{version}.part"));
    fs::write(&part, fixture.bytes())?;
    Ok(fs::rename(
        &part,
        host.catalog().join(format!("probe-{version}.wasm")),
    )?)
}

pub async fn waited_for(host: &Host, version: &str) -> Result<()> {
    let mut last = Value::Null;
    for _ in 0..200 {
        let answer = host.api(Method::GET, "/presets/probe", None).await?;
        last = answer.json()["bindings"][0]["version"].clone();
        if last == version {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    anyhow::bail!(
        "{version} does not serve, but {last}:\n{}",
        host.log().tail(20)
    )
}

/// A world in which `notes` is judged by `probe` 1.0.0, and a newer version that
/// asks for no more swaps by itself.
pub async fn world(auto_update: bool) -> Result<World> {
    let host = Host::start(&HostOptions {
        presets: vec![],
        ..HostOptions::default()
    })
    .await?;
    let callback = host.at("/oauth/callback/notes");
    let provider = Provider::start(&[callback], &[]).await?;
    let upstream = Upstream::start(&provider, &[]).await?;
    let world = World {
        host,
        provider,
        upstream,
    };
    let host = &world.host;
    put(
        host,
        "1.0.0",
        &Fixture::described(as_the_record_says(description())),
    )?;
    for _ in 0..200 {
        let list = host.must(Method::GET, "/presets", None).await?;
        if list["total_size"] == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let secret = json!({ "value": world.provider.0.fact("client_secret") });
    host.must(Method::PUT, "/secrets/NOTES_SECRET", Some(secret))
        .await?;
    let on = json!({ "enabled": true });
    host.must(Method::PATCH, "/presets/probe", Some(on)).await?;
    let mut record = world.provider_record();
    record["preset"] = "probe".into();
    record["auto_update"] = auto_update.into();
    host.must(Method::POST, "/providers", Some(record)).await?;
    host.must(Method::POST, "/servers", Some(world.server_record()))
        .await?;
    Ok(world)
}

async fn crowd(world: &World) -> Result<Vec<Agent>> {
    let mut agents = Vec::new();
    for name in ["ada", "bert", "cleo"] {
        agents.push(world.connected(name, Era::PerRequest).await?.1);
    }
    Ok(agents)
}

async fn all_fail(agents: &mut [Agent]) -> Result<()> {
    for agent in agents {
        let reply = agent.call("whoami", json!({})).await?;
        ensure!(
            reply.countersign()["error"] == "preset_failed",
            "{}",
            reply.message
        );
    }
    Ok(())
}

fn went_back(event: &Value) -> bool {
    event["action"] == "preset.rolled_back"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_for_three_users_whatever_they_ask_is_gone_back_from_for_good()
-> Result<()> {
    let mut world = world(true).await?;
    let mut agents = crowd(&world).await?;
    waited_for(&world.host, "1.0.0").await?;
    put(&world.host, "1.1.0", &broken())?;
    waited_for(&world.host, "1.1.0").await?;

    // One user alone, however often, does not bring it back.
    for _ in 0..5 {
        all_fail(&mut agents[..1]).await?;
    }
    ensure!(!world.host.audit("").await?.iter().any(went_back));
    all_fail(&mut agents[1..]).await?;
    let event = world.host.audited(went_back).await?;
    let detail = event["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("1.1.0"), "{detail}");
    assert!(detail.contains("for 3 users"), "{detail}");
    waited_for(&world.host, "1.0.0").await?;
    for agent in &mut agents {
        agent.call("whoami", json!({})).await?.ok()?;
    }
    let (_, out, _) = world.host.cli(&["preset", "list"], "").await?;
    assert!(
        out.contains("gone back from after repeated faults"),
        "{out}"
    );

    // The next start does not try it again, and an administrator may.
    world.host.stop().await?;
    world.host.serve().await?;
    waited_for(&world.host, "1.0.0").await?;
    agents[0].call("whoami", json!({})).await?.ok()?;
    world.host.cli(&["preset", "unpin", "probe"], "").await?;
    waited_for(&world.host, "1.1.0").await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_back_below_the_floor_or_to_a_revoked_content() -> Result<()> {
    let world = world(true).await?;
    let host = &world.host;
    let mut agents = crowd(&world).await?;
    let old = host.must(Method::GET, "/presets/probe", None).await?["digest"].clone();
    put(host, "1.1.0", &broken())?;
    waited_for(host, "1.1.0").await?;

    let floor = |floor: Value| {
        host.must(
            Method::PATCH,
            "/presets/probe",
            Some(json!({ "floor": floor })),
        )
    };
    floor("1.1.0".into()).await?;
    all_fail(&mut agents).await?;
    // What is told is looked into in its order: by now, all three.
    all_fail(&mut agents[..2]).await?;
    all_fail(&mut agents[..2]).await?;
    floor(Value::Null).await?;

    let revoke = |undo: bool| {
        let body = json!({ "content": old, "undo": undo });
        host.must(Method::POST, "/presets/probe/revoke", Some(body))
    };
    revoke(false).await?;
    all_fail(&mut agents).await?;
    all_fail(&mut agents[..2]).await?;
    all_fail(&mut agents[..2]).await?;
    revoke(true).await?;

    // None of these counted: two users more are not enough.
    all_fail(&mut agents[..2]).await?;
    waited_for(host, "1.1.0").await?;
    ensure!(!host.audit("").await?.iter().any(went_back));
    // And the third is, so that all before were looked into.
    all_fail(&mut agents[2..]).await?;
    host.audited(went_back).await?;
    waited_for(host, "1.0.0").await
}

/// What a call with bad arguments does is the agent's doing.
#[tokio::test(flavor = "multi_thread")]
async fn what_agents_provoke_by_what_they_ask_takes_no_version_back() -> Result<()> {
    let world = World::with(Setup {
        host: HostOptions {
            presets: vec!["faults".into()],
            ..HostOptions::default()
        },
        provider_record: json!({ "preset": "faults", "auto_update": true }),
        ..Setup::default()
    })
    .await?;
    let host = &world.host;
    let mut agents = crowd(&world).await?;
    // The same component, but for a section that nobody reads.
    let mut bytes = fs::read(host.install("faults")?)?;
    bytes.extend([0, 7, 5, b'a', b'g', b'a', b'i', b'n', 1]);
    let part = host.catalog().join("faults-0.2.0.part");
    fs::write(&part, bytes)?;
    fs::rename(&part, host.catalog().join("faults-0.2.0.wasm"))?;
    let serving = |version: &'static str| async move {
        for _ in 0..200 {
            let found = host.must(Method::GET, "/presets/faults", None).await?;
            if found["bindings"][0]["version"] == version {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        anyhow::bail!("{version} does not serve:\n{}", host.log().tail(20))
    };
    serving("0.2.0").await?;
    for agent in &mut agents {
        for tool in ["trap", "bomb", "header-host", "err"] {
            let reply = agent.call(tool, json!({})).await?;
            ensure!(
                reply.countersign()["error"] == "preset_failed",
                "{tool}: {}",
                reply.message
            );
        }
        agent.call("whoami", json!({})).await?.ok()?;
    }
    serving("0.2.0").await?;
    ensure!(!host.audit("").await?.iter().any(went_back));
    Ok(())
}

/// Fails in a hook that is asked when the provider refuses to renew.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_over_refused_renewals_is_gone_back_from() -> Result<()> {
    let world = world(true).await?;
    let host = &world.host;
    let mut said = as_the_record_says(description());
    said["hooks"] = json!(["refresh-error"]);
    said["refresh"]["kind"] = json!("refresh-token");
    said["token-shapes"][0]["refresh-token"] = json!(["/refresh_token"]);
    said["token-shapes"][0]["expires"] = json!([{"lifetime": "/expires_in"}]);
    let hooked = |body: Body| Fixture {
        hooks: vec![("refresh-error", body)],
        ..Fixture::described(said.clone())
    };
    let passes = Body::Answer(json!({"ok": "transient"}));
    put(host, "1.1.0", &hooked(passes))?;
    host.audited(|e| e["action"] == "preset.waiting" && e.to_string().contains("1.1.0"))
        .await?;
    // As a script says it: one thing waits, and nobody can be asked.
    let (code, _, said) = host.cli(&["preset", "approve", "probe"], "").await?;
    ensure!(code == 0, "{said}");
    waited_for(host, "1.1.0").await?;
    world.provider.0.control(json!({ "access_ttl": 1 })).await?;
    let mut agents = crowd(&world).await?;
    put(host, "1.2.0", &hooked(Body::Wat("unreachable", vec![])))?;
    waited_for(host, "1.2.0").await?;
    let refused = json!({
        "mode": "error", "status": 400, "error": "odd", "times": -1, "grant_type": "refresh_token",
    });
    world
        .provider
        .0
        .control(json!({ "token_fault": refused }))
        .await?;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    for agent in &mut agents {
        let reply = agent.call("whoami", json!({})).await?;
        ensure!(
            reply.countersign()["error"] == "provider_unavailable",
            "{}",
            reply.message
        );
    }
    let event = host.audited(went_back).await?;
    ensure!(event.to_string().contains("1.2.0"), "{event}");
    waited_for(host, "1.1.0").await?;
    Ok(())
}

/// Fails in a hook that is asked while somebody connects.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_with_which_nobody_can_connect_is_gone_back_from() -> Result<()> {
    let world = world(true).await?;
    let host = &world.host;
    let mut said = as_the_record_says(description());
    said["hooks"] = json!(["token-answer"]);
    let hooked = |body: Body| Fixture {
        hooks: vec![("token-answer", body)],
        ..Fixture::described(said.clone())
    };
    // The hook is more than was approved: an administrator lets it in, once.
    let found = json!({"ok": [{"credential": "user", "access-token": ["/access_token"], "scopes": ["/scope"], "scope-separators": [" "]}]});
    put(host, "1.1.0", &hooked(Body::Answer(found)))?;
    host.audited(|e| e["action"] == "preset.waiting" && e.to_string().contains("1.1.0"))
        .await?;
    let (code, _, said) = host
        .cli(&["preset", "approve", "probe", "--yes"], "")
        .await?;
    ensure!(code == 0, "{said}");
    waited_for(host, "1.1.0").await?;
    put(host, "1.2.0", &hooked(Body::Wat("unreachable", vec![])))?;
    waited_for(host, "1.2.0").await?;

    for (name, fails) in [
        ("ada", true),
        ("bert", true),
        ("cleo", true),
        ("dora", false),
    ] {
        let mut person = host.person(name).await?;
        let connected = person.connect(&world.connect_page()).await;
        ensure!(connected.is_err() == fails, "{name}: {:?}", connected.err());
        if name == "cleo" {
            host.audited(went_back).await?;
            waited_for(host, "1.1.0").await?;
        }
    }
    Ok(())
}
