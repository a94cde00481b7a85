//! Tokens that end, and what is done about it before anybody notices.

use std::time::Duration;

use anyhow::Result;
use countersign_tests::{Agent, Era, Person, Setup, World};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

/// How long an access token lives here, in seconds.
const SHORT: u64 = 2;

/// A connected person whose access token has ended; the next ones live long.
async fn lapsed(world: &World) -> Result<(Person, Agent)> {
    world
        .provider
        .0
        .control(json!({ "access_ttl": SHORT }))
        .await?;
    let (person, mut agent) = world.connected("ada", Era::PerRequest).await?;
    whoami(&mut agent).await?;
    world
        .provider
        .0
        .control(json!({ "access_ttl": 300 }))
        .await?;
    // The vendor's clock is a real one.
    tokio::time::sleep(Duration::from_secs(SHORT + 1)).await;
    Ok((person, agent))
}

async fn whoami(agent: &mut Agent) -> Result<()> {
    let reply = agent.call("whoami", json!({})).await?;
    anyhow::ensure!(
        reply.text() == "ada-at-vendor",
        "{} {}",
        reply.status,
        reply.message
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_refuses_the_shared_token_does_not_end_it_for_others() -> Result<()> {
    let world = World::with(Setup {
        server_record: json!({ "connection": "shared" }),
        ..Setup::default()
    })
    .await?;
    let mut guest = world.server_record();
    guest["name"] = "guest".into();
    guest["connection"] = "shared".into();
    world
        .host
        .must(reqwest::Method::POST, "/servers", Some(guest))
        .await?;
    let (mut ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let mut visitor = Agent::sign_in(&world.host, &mut ada, "/mcp/guest", Era::PerRequest).await?;
    let fault = json!({ "mode": "401", "times": 2, "method": "tools/call" });
    world.upstream.fail(fault).await?;
    let reply = visitor.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["error"],
        "upstream_unavailable",
        "{}",
        reply.message
    );
    assert_eq!(world.connection(&ada).await?["status"], "connected");
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(reply.text(), "ada-at-vendor", "{}", reply.message);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_token_is_renewed_before_the_call_and_rotation_holds() -> Result<()> {
    let world = World::start().await?;
    // Long enough that a busy machine gets a fresh token to the upstream in time.
    world.provider.0.control(json!({ "access_ttl": 4 })).await?;
    let (ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    // Reuse of a rotated refresh token would end the grant.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(4200)).await;
        whoami(&mut agent).await?;
    }
    assert!(world.provider.token_requests("refresh_token").await? >= 3);
    assert_eq!(world.connection(&ada).await?["refresh_token_present"], true);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_calls_at_once_renew_once() -> Result<()> {
    let world = World::start().await?;
    let (_ada, agent) = lapsed(&world).await?;
    let calls = (0..50).map(|_| {
        let (endpoint, token) = (agent.endpoint.clone(), agent.token.clone());
        async move {
            let mut agent = Agent::with_token(endpoint, token, Era::PerRequest)?;
            whoami(&mut agent).await
        }
    });
    try_join_all(calls).await?;
    assert_eq!(world.provider.token_requests("refresh_token").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_fails_costs_a_call_but_no_connection() -> Result<()> {
    for mode in ["500", "html", "200-error", "truncated"] {
        let world = World::start().await?;
        let (ada, mut agent) = lapsed(&world).await?;
        // `truncated` strikes after the vendor has used the grant up, unless
        // told otherwise: that is the vendor's loss, and not tested here.
        let fault = json!({
            "mode": mode, "times": -1, "grant_type": "refresh_token",
            "processed": false, "error": "temporarily_unavailable",
        });
        world
            .provider
            .0
            .control(json!({ "token_fault": fault }))
            .await?;
        let reply = agent.call("whoami", json!({})).await?;
        assert_eq!(
            reply.message["error"]["code"], -31007,
            "{mode}: {}",
            reply.message
        );
        assert_eq!(
            reply.countersign()["error"],
            "provider_unavailable",
            "{mode}"
        );
        let connection = world.connection(&ada).await?;
        assert_eq!(
            connection["refresh_token_present"], true,
            "{mode}: {connection}"
        );

        world
            .provider
            .0
            .control(json!({ "token_fault": Value::Null }))
            .await?;
        recovered(&mut agent).await?;
        world
            .host
            .audited(|event| event["call"]["error"] == "provider_unavailable")
            .await?;
    }
    Ok(())
}

/// The next call works, as soon as the provider may be asked again.
async fn recovered(agent: &mut Agent) -> Result<()> {
    for _ in 0..40 {
        if whoami(agent).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    whoami(agent).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_hangs_up_is_asked_again_later() -> Result<()> {
    let world = World::start().await?;
    let (ada, mut agent) = lapsed(&world).await?;
    let fault =
        json!({ "mode": "drop", "times": -1, "grant_type": "refresh_token", "processed": false });
    world
        .provider
        .0
        .control(json!({ "token_fault": fault }))
        .await?;
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["error"],
        "provider_unavailable",
        "{}",
        reply.message
    );
    assert_eq!(world.connection(&ada).await?["refresh_token_present"], true);
    world
        .provider
        .0
        .control(json!({ "token_fault": Value::Null }))
        .await?;
    recovered(&mut agent).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_secret_that_was_changed_at_the_vendor_keeps_the_tokens() -> Result<()> {
    let world = World::start().await?;
    let (ada, mut agent) = lapsed(&world).await?;
    let old = world.provider.0.fact("client_secret").to_owned();
    world
        .provider
        .0
        .control(json!({ "client_secret": "another-secret-than-before" }))
        .await?;
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["error"],
        "oauth_token_expired",
        "{}",
        reply.message
    );
    assert_eq!(
        reply.countersign()["reason"],
        "client_rejected",
        "{}",
        reply.message
    );
    assert_eq!(world.connection(&ada).await?["refresh_token_present"], true);
    world
        .provider
        .0
        .control(json!({ "client_secret": old }))
        .await?;
    recovered(&mut agent).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_invalid_grant_ends_a_connection() -> Result<()> {
    let world = World::start().await?;
    let (mut ada, mut agent) = lapsed(&world).await?;
    world
        .provider
        .0
        .control(json!({ "revoke_user": ada.account }))
        .await?;
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["error"],
        "oauth_token_expired",
        "{}",
        reply.message
    );
    assert_eq!(
        reply.countersign()["reason"],
        "revoked",
        "{}",
        reply.message
    );
    let connection = world.connection(&ada).await?;
    assert_eq!(connection["status"], "needs_reauth", "{connection}");
    assert_eq!(connection["refresh_token_present"], false, "{connection}");
    let asked = world.provider.token_requests("refresh_token").await?;
    agent.call("whoami", json!({})).await?;
    assert_eq!(world.provider.token_requests("refresh_token").await?, asked);

    ada.connect(&world.connect_page()).await?;
    whoami(&mut agent).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstreams_401_forces_one_renewal_and_one_resend() -> Result<()> {
    let world = World::start().await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let once = json!({ "mode": "401", "times": 1, "method": "tools/call" });
    world.upstream.fail(once).await?;
    whoami(&mut agent).await?;
    assert_eq!(world.provider.token_requests("refresh_token").await?, 1);
    assert_eq!(world.upstream.calls_of("whoami").await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_goes_on_with_401_is_not_hammered() -> Result<()> {
    let world = World::start().await?;
    let (ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let always = json!({ "mode": "401", "times": -1, "method": "tools/call" });
    world.upstream.fail(always).await?;
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["error"],
        "oauth_token_expired",
        "{}",
        reply.message
    );
    assert_eq!(
        reply.countersign()["reason"],
        "upstream_unauthorized",
        "{}",
        reply.message
    );
    assert!(reply.headers.get("www-authenticate").is_none());
    assert_eq!(world.upstream.calls_of("whoami").await?, 2);
    assert_eq!(world.provider.token_requests("refresh_token").await?, 1);
    assert_eq!(world.connection(&ada).await?["status"], "needs_reauth");
    Ok(())
}
