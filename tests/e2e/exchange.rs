//! Tokens for users without their consent, in exchange for Countersign's own
//! word about them; and the keys by which that word is known.

use anyhow::Result;
use countersign_tests::{Agent, Era, Setup, Web, World, key_pair};
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::{Value, json};

/// The vendor takes Countersign's word for who its users are.
async fn trusting(grant: &str, settings: Value) -> Result<World> {
    let world = World::with(Setup {
        provider_record: json!({ "grant_types": [grant], "settings": settings }),
        server_record: json!({ "auth": { "mode": "token-exchange" } }),
        ..Setup::default()
    })
    .await?;
    let trusted = json!({
        "issuer": world.host.url,
        "jwks": world.host.at("/.well-known/jwks.json"),
    });
    let order = json!({ "trusted_issuer": trusted });
    world.provider.0.control(order).await?;
    Ok(world)
}

async fn whoami(agent: &mut Agent) -> Result<String> {
    let reply = agent.call("whoami", json!({})).await?;
    reply.ok()?;
    Ok(reply.text().to_owned())
}

async fn assertions(world: &World) -> Result<Vec<Value>> {
    let seen = world.provider.0.look("/assertions").await?;
    Ok(seen["assertions"].as_array().cloned().unwrap_or_default())
}

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

#[tokio::test(flavor = "multi_thread")]
async fn each_users_token_is_exchanged_for_once_and_is_his_own() -> Result<()> {
    let world = trusting("token_exchange", json!({})).await?;
    let (_ada, mut adas) = world.person("ada", Era::PerRequest).await?;
    let (_bob, mut bobs) = world.person("bob", Era::PerRequest).await?;
    for _ in 0..2 {
        assert_eq!(whoami(&mut adas).await?, "ada");
        assert_eq!(whoami(&mut bobs).await?, "bob");
    }
    assert_eq!(world.provider.token_requests(EXCHANGE).await?, 2);
    let seen = assertions(&world).await?;
    let token_endpoint = world.provider.0.fact("token_endpoint");
    for (assertion, user) in seen.iter().zip(["ada", "bob"]) {
        let claims = &assertion["claims"];
        assert_eq!(claims["iss"], world.host.url.as_str(), "{assertion}");
        assert_eq!(claims["sub"], user, "{assertion}");
        assert_eq!(claims["aud"], token_endpoint, "{assertion}");
        let life = claims["exp"].as_i64().zip(claims["iat"].as_i64());
        assert_eq!(life.map(|(end, begin)| end - begin), Some(60));
        assert_eq!(assertion["params"]["resource"], world.upstream.url());
    }
    assert_ne!(seen[0]["claims"]["jti"], seen[1]["claims"]["jti"]);
    let log = world.host.log().text();
    for (kind, token) in world.provider.secrets().await? {
        assert!(!log.contains(&token), "a {kind} is in the log");
    }
    assert!(!log.contains("eyJ"), "an assertion is in the log");
    let event = world
        .host
        .audited(|e| e["action"] == "call" && e["user"] == "bob")
        .await?;
    let id = event["call"]["connection"].as_str().unwrap_or_default();
    assert!(id.starts_with("exc_"), "{event}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_users_exchanged_token_is_gone_and_revoked_at_the_vendor() -> Result<()> {
    let world = trusting("token_exchange", json!({})).await?;
    let (_ada, mut adas) = world.person("ada", Era::PerRequest).await?;
    let (_bob, mut bobs) = world.person("bob", Era::PerRequest).await?;
    assert_eq!(whoami(&mut adas).await?, "ada");
    assert_eq!(whoami(&mut bobs).await?, "bob");
    world.host.must(Method::DELETE, "/users/ada", None).await?;
    world
        .host
        .audited(|e| e["action"] == "connection.revoked" && e["user"] == "ada")
        .await?;
    let state = world.provider.0.look("").await?;
    assert_eq!(state["revocations"][0]["kind"], "access_token", "{state}");
    assert_eq!(state["revocations"][0]["status"], 200, "{state}");
    assert_eq!(state["revocations"][1], Value::Null, "Bob's stays");
    assert_eq!(whoami(&mut bobs).await?, "bob");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_first_calls_of_a_user_exchange_once() -> Result<()> {
    let world = trusting("token_exchange", json!({})).await?;
    let (_ada, agent) = world.person("ada", Era::PerRequest).await?;
    let calls = (0..50).map(|_| {
        let (endpoint, token) = (agent.endpoint.clone(), agent.token.clone());
        async move { whoami(&mut Agent::with_token(endpoint, token, Era::PerRequest)?).await }
    });
    try_join_all(calls).await?;
    assert_eq!(world.provider.token_requests(EXCHANGE).await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_is_a_grant_of_its_own_with_what_the_vendor_wants_beside_it() -> Result<()> {
    let settings = json!({ "exchange_parameters": { "requested_token_use": "on_behalf_of" } });
    let world = trusting("jwt_bearer", settings).await?;
    let (_ada, mut agent) = world.person("ada", Era::PerRequest).await?;
    assert_eq!(whoami(&mut agent).await?, "ada");
    assert_eq!(world.provider.token_requests(BEARER).await?, 1);
    let seen = assertions(&world).await?;
    assert_eq!(seen[0]["params"]["requested_token_use"], "on_behalf_of");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_that_does_not_trust_us_gives_nothing_and_users_are_told_whose_matter_it_is()
-> Result<()> {
    let world = trusting("token_exchange", json!({})).await?;
    let nobody = json!({ "trusted_issuer": { "issuer": "https://somebody.else.example" } });
    world.provider.0.control(nobody).await?;
    let (_ada, mut agent) = world.person("ada", Era::PerRequest).await?;
    let reply = agent.call("whoami", json!({})).await?;
    let facts = reply.countersign();
    assert_eq!(facts["error"], "provider_unavailable", "{}", reply.message);
    assert_eq!(facts["authorize_url"], Value::Null);
    assert!(reply.message.to_string().contains("invalid_grant"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_may_be_an_assertion_of_the_clients_own() -> Result<()> {
    let (pem, public) = key_pair("RS256").await?;
    let keys = json!({ "keys": [public] }).to_string();
    let flags = [
        "--token-auth-method",
        "private_key_jwt",
        "--client-jwks",
        &keys,
    ];
    let world = World::with(Setup {
        provider: &flags,
        ..Setup::default()
    })
    .await?;
    let key = json!({ "value": pem });
    world
        .host
        .must(Method::PUT, "/secrets/NOTES_KEY", Some(key))
        .await?;
    let provider = json!({
        "grant_types": ["jwt_bearer"],
        "token_endpoint_auth_method": "private_key_jwt",
        "private_key_ref": "NOTES_KEY",
        "client_secret_ref": null,
    });
    world
        .host
        .must(Method::PATCH, "/providers/notes", Some(provider))
        .await?;
    let server = json!({ "auth": { "mode": "service-account" } });
    world
        .host
        .must(Method::PATCH, "/servers/notes", Some(server))
        .await?;
    let (_ada, mut agent) = world.person("ada", Era::PerRequest).await?;
    assert_eq!(whoami(&mut agent).await?, "countersign");
    assert_eq!(world.provider.token_requests(BEARER).await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_keys_hold_no_private_half_and_survive_a_restart() -> Result<()> {
    let mut world = World::start().await?;
    let web = Web::new()?;
    let url = world.host.at("/.well-known/jwks.json");
    let before = web.get(&url).await?;
    assert_eq!(before.status, 200);
    let keys = before.json()["keys"].clone();
    assert_eq!(keys.as_array().map(Vec::len), Some(1), "{keys}");
    assert_eq!(keys[0]["alg"], "ES256");
    assert_eq!(keys[0]["use"], "sig");
    assert!(keys[0].get("d").is_none(), "{keys}");
    world.host.kill().await?;
    world.host.serve().await?;
    assert_eq!(web.get(&url).await?.json()["keys"], keys);
    Ok(())
}
