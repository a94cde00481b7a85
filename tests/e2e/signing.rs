//! Requests that are signed with keys no preset sees, checked by an upstream
//! that verifies them with an implementation of its own.

use anyhow::Result;
use countersign_tests::{Agent, Era, HostOptions, Setup, Upstream, World};
use reqwest::Method;
use serde_json::{Value, json};

/// A key that is found wherever it leaks.
const KEY: &str = "canary-of-a-signing-key-5f1d";
const AWS_SECRET: &str = "canary+of/an+aws/secret+key/8c2e";
const AWS_SESSION: &str = "canary-of-an-aws-session-token-77ab";

fn loud(presets: &[&str]) -> HostOptions {
    HostOptions {
        presets: presets.iter().map(ToString::to_string).collect(),
        log: "trace,cranelift=info,wasmtime=info,regalloc2=info".into(),
        ..HostOptions::default()
    }
}

/// A server whose stored key signs: provider and server are called `signed`.
async fn attach(world: &World, settings: Value, key: &str, signatures: &Value) -> Result<Upstream> {
    let upstream = Upstream::signed(&world.provider, &["open"], Some(signatures)).await?;
    let secret = json!({ "value": key });
    let host = &world.host;
    host.must(Method::PUT, "/secrets/SIGNING_KEY", Some(secret))
        .await?;
    let provider = json!({
        "name": "signed",
        "preset": "keyed",
        "settings": settings,
        "audience_hosts": ["127.0.0.1"],
    });
    host.must(Method::POST, "/providers", Some(provider))
        .await?;
    let server = json!({
        "name": "signed",
        "url": upstream.url(),
        "auth": { "mode": "static", "provider": "signed", "secret_ref": "SIGNING_KEY" },
    });
    host.must(Method::POST, "/servers", Some(server)).await?;
    Ok(upstream)
}

async fn agent(world: &World, name: &str, era: Era) -> Result<Agent> {
    let mut person = world.host.person(name).await?;
    Agent::sign_in(&world.host, &mut person, "/mcp/signed", era)
        .await?
        .ready()
        .await
}

/// Signatures of the tool calls that arrived.
async fn signatures(upstream: &Upstream) -> Result<Vec<String>> {
    let seen = upstream.requests().await?;
    Ok(seen
        .iter()
        .filter(|r| r["method"] == "tools/call")
        .filter_map(|r| r["signature"].as_str().map(str::to_owned))
        .collect())
}

async fn refused(upstream: &Upstream) -> Result<Value> {
    Ok(upstream.0.look("").await?["unsigned"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_key_signs_each_request_and_is_never_seen() -> Result<()> {
    let world = World::with(Setup {
        host: loud(&["generic", "keyed"]),
        ..Setup::default()
    })
    .await?;
    let settings = json!({ "key_id": "id-7" });
    let wanted = json!({ "kind": "chained", "key": KEY });
    let upstream = attach(&world, settings, KEY, &wanted).await?;
    for (who, era) in [("ada", Era::Sessions), ("grace", Era::PerRequest)] {
        let mut agent = agent(&world, who, era).await?;
        assert!(
            agent
                .tools()
                .await?
                .iter()
                .all(|tool| tool != "erase_notes")
        );
        for text in ["one", "two"] {
            let reply = agent.call("echo", json!({ "text": text })).await?;
            reply.ok()?;
            assert_eq!(reply.text(), text);
        }
    }
    assert_eq!(refused(&upstream).await?, json!([]));
    let mut made = signatures(&upstream).await?;
    assert_eq!(made.len(), 4);
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 4, "each has a signature of its own");

    // With another key the upstream refuses, and the agent is told so.
    let other = json!({ "value": "another-key-altogether" });
    world
        .host
        .must(Method::PUT, "/secrets/SIGNING_KEY", Some(other))
        .await?;
    let reply = agent(&world, "linus", Era::PerRequest)
        .await?
        .call("echo", json!({ "text": "x" }))
        .await?;
    assert_eq!(reply.countersign()["reason"], "upstream_forbidden");
    assert_eq!(refused(&upstream).await?[0], "the signature is wrong");

    let log = world.host.log().text();
    assert!(!log.contains(KEY), "the key is in the log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_aws_are_signed_by_the_host() -> Result<()> {
    let world = World::with(Setup {
        host: loud(&["generic", "keyed"]),
        ..Setup::default()
    })
    .await?;
    let settings = json!({ "aws": true, "service": "execute-api", "region": "eu-west-1" });
    let wanted = json!({
        "kind": "aws", "id": "AKIDCANARY", "secret": AWS_SECRET, "session": AWS_SESSION,
        "region": "eu-west-1", "service": "execute-api",
    });
    let printed = json!({
        "Version": 1, "AccessKeyId": "AKIDCANARY", "SecretAccessKey": AWS_SECRET,
        "SessionToken": AWS_SESSION, "Expiration": "2099-01-01T00:00:00Z",
    });
    let upstream = attach(&world, settings, &printed.to_string(), &wanted).await?;
    for (who, era) in [("ada", Era::Sessions), ("grace", Era::PerRequest)] {
        let mut agent = agent(&world, who, era).await?;
        let reply = agent
            .call("echo", json!({ "text": "é and a body" }))
            .await?;
        reply.ok()?;
        assert_eq!(reply.text(), "é and a body");
    }
    assert_eq!(refused(&upstream).await?, json!([]));
    assert_eq!(signatures(&upstream).await?.len(), 2);

    // A secret that is no AWS key signs nothing, and the error says what to set.
    let nonsense = json!({ "value": "not-a-key-of-aws" });
    world
        .host
        .must(Method::PUT, "/secrets/SIGNING_KEY", Some(nonsense))
        .await?;
    let reply = agent(&world, "linus", Era::PerRequest)
        .await?
        .call("echo", json!({ "text": "x" }))
        .await?;
    assert_eq!(
        reply.countersign()["error"],
        "preset_failed",
        "{}",
        reply.message
    );
    assert!(
        reply
            .message
            .to_string()
            .contains("aws configure export-credentials"),
        "{}",
        reply.message
    );
    assert_eq!(signatures(&upstream).await?.len(), 2, "nothing was sent");

    let log = world.host.log().text();
    for secret in [AWS_SECRET, AWS_SESSION] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_sent_again_is_signed_anew_with_the_new_token() -> Result<()> {
    let world = World::with(Setup {
        host: loud(&["hooked"]),
        provider_record: json!({ "preset": "hooked", "settings": { "sign": true } }),
        signatures: Some(json!({ "kind": "chained", "key": "token" })),
        ..Setup::default()
    })
    .await?;
    for (who, era) in [("ada", Era::Sessions), ("grace", Era::PerRequest)] {
        let (_person, mut agent) = world.connected(who, era).await?;
        let fault = json!({ "mode": "401", "times": 1, "method": "tools/call" });
        world.upstream.fail(fault).await?;
        let reply = agent.call("whoami", json!({})).await?;
        reply.ok()?;
    }
    assert_eq!(refused(&world.upstream).await?, json!([]));
    let made = signatures(&world.upstream).await?;
    assert_eq!(made.len(), 4, "two calls, each sent twice");
    assert_ne!(made[0], made[1]);
    assert_ne!(made[2], made[3]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_contradicts_signing_is_refused_when_it_is_registered() -> Result<()> {
    let world = World::with(Setup {
        host: loud(&["generic", "keyed"]),
        ..Setup::default()
    })
    .await?;
    let settings = json!({ "key_id": "id-7" });
    let wanted = json!({ "kind": "chained", "key": KEY });
    let upstream = attach(&world, settings, KEY, &wanted).await?;
    let post = async |auth: Value| {
        let server = json!({ "name": "other", "url": upstream.url(), "auth": auth });
        world.host.api(Method::POST, "/servers", Some(server)).await
    };
    let injected = json!({
        "mode": "static", "provider": "signed", "secret_ref": "SIGNING_KEY",
        "injection": { "header_name": "x-api-key" },
    });
    let answer = post(injected).await?;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(answer.text.contains("signs requests"), "{}", answer.text);
    // `generic` sends tokens, not keys.
    let keyless = json!({ "mode": "static", "provider": "notes", "secret_ref": "SIGNING_KEY" });
    let answer = post(keyless).await?;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(
        answer.text.contains("neither sends nor signs"),
        "{}",
        answer.text
    );
    // Nobody signs in at a provider of keys.
    let delegated = json!({ "mode": "user-delegated", "provider": "signed" });
    let answer = post(delegated).await?;
    assert_eq!(answer.status, 400, "{}", answer.text);
    Ok(())
}
