//! What is on record of calls, of what was refused, and of strangers.

use std::time::Duration;

use anyhow::{Context, Result};
use countersign_tests::{Agent, Era, Setup, Web, World};
use reqwest::Method;
use serde_json::{Value, json};

/// Stands in every request that is refused, and must stand nowhere else.
const HUSH: &str = "hush-4711";

/// A request with a body and headers of our own making.
async fn refused(agent: &Agent, body: &[u8], headers: &[(&str, &str)]) -> Result<u16> {
    let mut request = agent.bare(Method::POST).body(body.to_vec());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(Web::send(request).await?.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_input_is_on_record_with_its_sender_and_nothing_of_what_was_sent() -> Result<()> {
    let world = World::start().await?;
    let (_ada, agent) = world.connected("ada", Era::PerRequest).await?;
    let json = ("content-type", "application/json");
    let version = ("mcp-protocol-version", "2026-07-28");
    let call = |extra: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{HUSH}",{extra}"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
        )
    };
    let oversized = format!(r#""arguments":{{"a":"{}"}},"#, "x".repeat(9 << 20));
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, String, Headers, &str); 7] = [
        (
            "half of it",
            call("")[..40].into(),
            &[json, version],
            "not JSON",
        ),
        (
            "a member twice",
            call(r#""name":"x","#),
            &[json, version],
            "two members",
        ),
        (
            "too large",
            call(&oversized),
            &[json, version],
            "larger than",
        ),
        (
            "no mirrored headers",
            call(""),
            &[json, version],
            "header mismatch",
        ),
        (
            "an unknown version",
            call("").replace("2026-07-28", "1999-01-01"),
            &[json, ("mcp-protocol-version", "1999-01-01")],
            "version",
        ),
        (
            "somebody's session",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.into(),
            &[
                json,
                ("mcp-protocol-version", "2025-11-25"),
                ("mcp-session-id", HUSH),
            ],
            "session",
        ),
        (
            "another content type",
            HUSH.into(),
            &[("content-type", "text/plain")],
            "application/json",
        ),
    ];
    for (what, body, headers, said) in cases {
        let before = world.host.audit("action = \"call.refused\"").await?.len();
        let status = refused(&agent, body.as_bytes(), headers).await;
        // The host may hang up on who goes on sending.
        assert!(status.is_err() || status? >= 400, "{what}");
        let events = world.host.audit("action = \"call.refused\"").await?;
        assert_eq!(events.len(), before + 1, "{what}: {:?}", events.first());
        let event = &events[0];
        assert_eq!(event["outcome"], "denied", "{what}: {event}");
        assert_eq!(event["user"], "ada", "{what}: {event}");
        assert_eq!(event["client"], agent.client_id, "{what}: {event}");
        assert_eq!(event["resource"], "server:notes", "{what}: {event}");
        let detail = event["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(said), "{what}: {detail}");
        let line = format!("why=\"{detail}\"");
        assert!(
            world.host.log().text().contains(&line),
            "{what}: no log line with {line}:\n{}",
            world.host.log().tail(5)
        );
    }
    assert!(!world.host.log().text().contains(HUSH));
    assert!(
        !json!(world.host.audit("").await?)
            .to_string()
            .contains(HUSH)
    );
    assert_eq!(world.upstream.calls_of(HUSH).await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_flood_is_counted_and_does_not_fill_the_log() -> Result<()> {
    let mut world = World::start().await?;
    let web = Web::new()?;
    const FLOOD: usize = 300;
    for _ in 0..FLOOD {
        let request = web
            .request(Method::POST, &world.host.at("/mcp/notes"))
            .bearer_auth(format!("cs_mcp_{HUSH}"))
            .body("{}");
        assert_eq!(Web::send(request).await?.status, 401);
    }
    // Asking without a token is how every agent begins.
    let request = web.request(Method::POST, &world.host.at("/mcp/notes"));
    assert_eq!(Web::send(request.body("{}")).await?.status, 401);
    let api = web
        .request(Method::GET, &world.host.at("/api/v1/servers"))
        .bearer_auth(HUSH);
    assert_eq!(Web::send(api).await?.status, 401);

    // What was counted is told at the latest when the host stops.
    world.host.stop().await?;
    world.host.serve().await?;
    let events = world.host.audit("action = \"request.refused\"").await?;
    assert!(events.len() < 10, "{} events", events.len());
    let told = |event: &Value| {
        let detail = event["detail"].as_str().unwrap_or_default();
        let (reason, more) = detail.split_once(": ").unwrap_or((detail, "1 of them"));
        assert_eq!(reason, "invalid_token", "{event}");
        more.split(' ').next().and_then(|n| n.parse::<usize>().ok())
    };
    let sum: usize = events.iter().filter_map(told).sum();
    assert_eq!(sum, FLOOD + 1, "{events:?}");
    assert!(
        events.iter().all(|e| e["address"] == "127.0.0.1"),
        "{events:?}"
    );
    assert!(!world.host.log().text().contains(HUSH));
    Ok(())
}

/// Events of calls of this tool.
async fn calls(world: &World, tool: &str) -> Result<Vec<Value>> {
    let events = world.host.audit("action = \"call\"").await?;
    Ok(events
        .into_iter()
        .filter(|event| event["call"]["name"] == tool)
        .collect())
}

/// The event of the one call of this tool, as soon as it is there.
async fn record(world: &World, tool: &str) -> Result<Value> {
    world
        .host
        .audited(|event| event["call"]["name"] == tool)
        .await?;
    let mut events = calls(world, tool).await?;
    assert_eq!(events.len(), 1, "{events:?}");
    events.pop().context("no event")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_call_is_on_record_when_it_has_ended_with_how_it_ended() -> Result<()> {
    let world = World::with(Setup {
        upstream: &["--responses", "sse"],
        ..Setup::default()
    })
    .await?;
    for (era, who) in [(Era::PerRequest, "ada"), (Era::Sessions, "grace")] {
        let (_person, mut agent) = world.connected(who, era).await?;
        let of_this = |event: &Value| event["user"] == who;

        // Answered: with the time until the answer, not until the stream began.
        let arguments = json!({ "steps": 2, "delay_ms": 150 });
        agent.call("slow", arguments).await?.ok()?;
        let events = calls(&world, "slow").await?;
        let events: Vec<_> = events.iter().filter(|e| of_this(e)).collect();
        assert_eq!(events.len(), 1, "{era:?} {events:?}");
        assert_eq!(events[0]["outcome"], "allowed", "{era:?} {events:?}");
        let latency = events[0]["call"]["latency_us"].as_u64().unwrap_or(0);
        assert!(latency >= 300_000, "{era:?} {}", events[0]);
    }
    let (_alan, mut agent) = world.connected("alan", Era::PerRequest).await?;

    // Broken by the upstream.
    let fault = json!({ "mode": "drop-stream", "times": 1, "method": "tools/call" });
    world.upstream.fail(fault).await?;
    let reply = agent.call("add_note", json!({ "text": "x" })).await?;
    assert_eq!(reply.countersign()["error"], "upstream_unavailable");
    let event = record(&world, "add_note").await?;
    assert_eq!(event["outcome"], "failed", "{event}");
    assert_eq!(event["call"]["error"], "upstream_unavailable", "{event}");
    assert_eq!(event["call"]["upstream_status"], 200, "{event}");

    // The client hangs up while the stream is quiet.
    let fault = json!({ "mode": "hang-stream", "times": 1, "method": "tools/call" });
    world.upstream.fail(fault).await?;
    let params = json!({ "name": "list_notes", "arguments": {} });
    let (_, stream) = agent.open("tools/call", params).await?;
    assert_eq!(stream.status(), 200);
    let early = calls(&world, "list_notes").await?;
    assert!(early.is_empty(), "its end is not known yet: {early:?}");
    drop(stream);
    let event = record(&world, "list_notes").await?;
    assert_eq!(event["outcome"], "failed", "{event}");
    assert_eq!(event["call"]["upstream_status"], 200, "{event}");
    let detail = event["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("hung up"), "{event}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_client_hangs_up_before_any_answer_is_on_record() -> Result<()> {
    let world = World::start().await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let fault = json!({ "mode": "hang", "times": 1, "method": "tools/call" });
    world.upstream.fail(fault).await?;
    let message = agent.message("tools/call", json!({ "name": "whoami", "arguments": {} }));
    let request = agent.post(&message);
    let waiting = tokio::spawn(async move { request.send().await });
    while world.upstream.calls_of("whoami").await? == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    waiting.abort();
    let event = record(&world, "whoami").await?;
    assert_eq!(event["outcome"], "failed", "{event}");
    assert_eq!(event["call"]["upstream_status"], Value::Null, "{event}");
    assert!(event["call"]["connection"].is_string(), "{event}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_each_person_is_throttled_alone_and_named_in_the_log() -> Result<()>
{
    let mut world = World::start().await?;
    world.host.stop().await?;
    world.host.configure(|config| {
        let proxies = toml::Value::Array(vec!["127.0.0.1".into()]);
        if let Some(server) = config["server"].as_table_mut() {
            server.insert("trusted_proxies".into(), proxies);
        }
    })?;
    world.host.serve().await?;
    let web = Web::new()?;
    let garbage = |address: &'static str| {
        let request = web
            .request(Method::POST, &world.host.at("/mcp/notes"))
            .header("x-forwarded-for", format!("198.51.100.1, {address}"))
            .bearer_auth("cs_mcp_x");
        Web::send(request)
    };
    garbage("192.0.2.1").await?;
    garbage("192.0.2.2").await?;
    let register = |address: &'static str| {
        let registration = json!({ "redirect_uris": ["http://127.0.0.1:9/callback"] });
        let request = web
            .request(Method::POST, &world.host.at("/oauth2/register"))
            .header("x-forwarded-for", address)
            .json(&registration);
        Web::send(request)
    };
    let mut throttled = false;
    for _ in 0..80 {
        throttled |= register("192.0.2.1").await?.status == 429;
    }
    assert!(throttled, "one who registers too much has to wait");
    assert_eq!(register("192.0.2.2").await?.status, 201, "others do not");
    for address in ["192.0.2.1", "192.0.2.2"] {
        world
            .host
            .audited(|e| e["action"] == "request.refused" && e["address"] == address)
            .await?;
    }
    world
        .host
        .audited(|e| {
            e["action"] == "client.register"
                && e["outcome"] == "denied"
                && e["address"] == "192.0.2.1"
        })
        .await?;
    Ok(())
}
