//! Tokens that Countersign obtains by itself: for a service account, or for a
//! user in exchange for its own word about him; and how it proves to a provider
//! that it is the client it says it is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use countersign_tests::{Agent, Era, Setup, World, key_pair};
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::{Value, json};

/// The server acts as one service account for everybody.
fn service_account() -> Setup<'static> {
    Setup {
        provider_record: json!({ "grant_types": ["client_credentials"] }),
        server_record: json!({ "auth": { "mode": "service-account" } }),
        ..Setup::default()
    }
}

/// Somebody who may call, without an account at the vendor.
async fn caller(world: &World, name: &str) -> Result<Agent> {
    let (_person, agent) = world.person(name, Era::PerRequest).await?;
    Ok(agent)
}

async fn whoami(agent: &mut Agent) -> Result<String> {
    let reply = agent.call("whoami", json!({})).await?;
    reply.ok()?;
    Ok(reply.text().to_owned())
}

async fn calls_of(world: &World, user: &str) -> Result<Vec<Value>> {
    world
        .host
        .audited(|e| e["action"] == "call" && e["user"] == user)
        .await?;
    let events = world.host.audit(&format!("user = \"{user}\"")).await?;
    Ok(events
        .into_iter()
        .filter(|e| e["action"] == "call" && e["call"]["name"] == "whoami")
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_is_one_identity_and_the_audit_names_the_human() -> Result<()> {
    let world = World::with(service_account()).await?;
    let (mut ada, mut bob) = (caller(&world, "ada").await?, caller(&world, "bob").await?);
    let (first, second) = (whoami(&mut ada).await?, whoami(&mut bob).await?);
    assert_eq!(first, second, "upstream sees one identity");
    assert_eq!(
        world.provider.token_requests("client_credentials").await?,
        1
    );
    let (adas, bobs) = (
        calls_of(&world, "ada").await?,
        calls_of(&world, "bob").await?,
    );
    let connection = |events: &[Value]| events[0]["call"]["connection"].clone();
    assert_eq!(connection(&adas), connection(&bobs));
    let id = connection(&adas);
    assert!(id.as_str().unwrap_or_default().starts_with("svc_"), "{id}");
    let asked = world
        .host
        .audited(|e| e["action"] == "service_account.token")
        .await?;
    assert_eq!(asked["user"], "ada", "{asked}");
    // Nobody has a connection by this.
    let list = world.host.must(Method::GET, "/connections", None).await?;
    assert_eq!(list["items"], json!([]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_accounts_token_is_revoked_with_its_provider() -> Result<()> {
    let world = World::with(service_account()).await?;
    let mut ada = caller(&world, "ada").await?;
    whoami(&mut ada).await?;
    let path = "/providers/notes?force=true";
    world.host.must(Method::DELETE, path, None).await?;
    let state = world.provider.0.look("").await?;
    assert_eq!(state["revocations"][0]["status"], 200, "{state}");
    assert_eq!(state["revocations"][0]["kind"], "access_token", "{state}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_first_calls_of_a_service_account_ask_for_one_token() -> Result<()> {
    let world = World::with(service_account()).await?;
    let agent = caller(&world, "ada").await?;
    let calls = (0..50).map(|_| {
        let (endpoint, token) = (agent.endpoint.clone(), agent.token.clone());
        async move { whoami(&mut Agent::with_token(endpoint, token, Era::PerRequest)?).await }
    });
    try_join_all(calls).await?;
    assert_eq!(
        world.provider.token_requests("client_credentials").await?,
        1
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_accounts_token_is_obtained_anew_before_it_ends_and_after_a_401() -> Result<()> {
    let mut world = World::with(service_account()).await?;
    world.provider.0.control(json!({ "access_ttl": 2 })).await?;
    let mut agent = caller(&world, "ada").await?;
    whoami(&mut agent).await?;
    // The vendor's clock is a real one.
    tokio::time::sleep(Duration::from_secs(3)).await;
    world
        .provider
        .0
        .control(json!({ "access_ttl": 300 }))
        .await?;
    whoami(&mut agent).await?;
    let asked = async |world: &World| world.provider.token_requests("client_credentials").await;
    assert_eq!(asked(&world).await?, 2);

    // It is kept over a restart.
    world.host.stop().await?;
    world.host.serve().await?;
    whoami(&mut agent).await?;
    assert_eq!(asked(&world).await?, 2);

    let fault = |times: i64| json!({ "mode": "401", "times": times, "method": "tools/call" });
    world.upstream.fail(fault(1)).await?;
    whoami(&mut agent).await?;
    assert_eq!(asked(&world).await?, 3);

    // Twice is no user's business: there is nothing that he could connect.
    world.upstream.fail(fault(-1)).await?;
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(reply.countersign()["error"], "upstream_unavailable");
    assert_eq!(asked(&world).await?, 3, "once a minute");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_a_service_account_is_the_administrators_to_mend() -> Result<()> {
    let world = World::with(service_account()).await?;
    let mut agent = caller(&world, "ada").await?;
    world
        .provider
        .0
        .control(json!({ "client_secret": "another" }))
        .await?;
    for _ in 0..3 {
        let reply = agent.call("whoami", json!({})).await?;
        let facts = reply.countersign();
        assert_eq!(facts["error"], "provider_unavailable", "{}", reply.message);
        assert_eq!(facts["authorize_url"], Value::Null);
        let said = reply.message.to_string();
        assert!(said.contains("invalid_client"), "{said}");
    }
    // Calls that follow at once do not ask again.
    assert_eq!(
        world.provider.token_requests("client_credentials").await?,
        1
    );
    assert_eq!(world.upstream.calls_of("whoami").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_a_service_account_is_what_the_server_says() -> Result<()> {
    let world = World::with(service_account()).await?;
    let mut agent = caller(&world, "ada").await?;
    whoami(&mut agent).await?;
    // Another scope is another token; the one there was is not used for it.
    let auth = json!({ "auth": { "required_scopes": ["notes:read", "notes:write"] } });
    world
        .host
        .must(Method::PATCH, "/servers/notes", Some(auth))
        .await?;
    whoami(&mut agent).await?;
    assert_eq!(
        world.provider.token_requests("client_credentials").await?,
        2
    );
    // The vendor's own word about scopes counts.
    let auth = json!({ "auth": { "required_scopes": ["notes:read", "openid"] } });
    world
        .host
        .must(Method::PATCH, "/servers/notes", Some(auth))
        .await?;
    let reply = agent.call("whoami", json!({})).await?;
    let facts = reply.countersign();
    assert!(
        facts["reason"] == "scopes_missing" || facts["error"] == "provider_unavailable",
        "{}",
        reply.message
    );
    assert_eq!(facts["authorize_url"], Value::Null);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_proves_itself_with_every_kind_of_key() -> Result<()> {
    for algorithm in ["RS256", "PS256", "ES256", "EdDSA"] {
        let (pem, public) = key_pair(algorithm).await?;
        let keys = json!({ "keys": [public] }).to_string();
        let flags = [
            "--token-auth-method",
            "private_key_jwt",
            "--signing-alg",
            algorithm,
            "--client-jwks",
            &keys,
        ];
        let world = World::with(Setup {
            provider: &flags,
            ..Setup::default()
        })
        .await?;
        let (code, out, err) = world
            .host
            .cli(&["secret", "set", "NOTES_KEY"], &pem)
            .await?;
        ensure!(code == 0, "{out}{err}");
        let mut update = vec![
            "provider",
            "update",
            "notes",
            "--token-auth-method",
            "private_key_jwt",
            "--private-key-ref",
            "NOTES_KEY",
            "--client-secret-ref",
            "",
            "--grant-types",
            "authorization_code,refresh_token,client_credentials",
        ];
        if algorithm == "PS256" {
            update.extend(["--token-auth-signing-alg", "PS256"]);
        }
        let (code, out, err) = world.host.cli(&update, "").await?;
        ensure!(code == 0, "{algorithm}: {out}{err}");

        world.provider.0.control(json!({ "access_ttl": 1 })).await?;
        let (ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let said = whoami(&mut agent).await.context(algorithm)?;
        assert_eq!(said, "ada-at-vendor");
        assert!(world.provider.token_requests("refresh_token").await? >= 1);

        let id = world.connection(&ada).await?["id"].clone();
        let (code, out, err) = world
            .host
            .cli(
                &[
                    "connection",
                    "revoke",
                    id.as_str().unwrap_or_default(),
                    "--user",
                    "ada",
                ],
                "",
            )
            .await?;
        ensure!(code == 0, "{out}{err}");
        let state = world.provider.0.look("").await?;
        assert_eq!(state["revocations"][0]["status"], 200, "{state}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_key_that_cannot_sign_is_refused_before_it_is_used() -> Result<()> {
    let world = World::start().await?;
    let set = async |value: &str| {
        let value = json!({ "value": value });
        world
            .host
            .api(Method::PUT, "/secrets/NOTES_KEY", Some(value))
            .await
    };
    set("not a key").await?;
    let update = json!({
        "token_endpoint_auth_method": "private_key_jwt",
        "private_key_ref": "NOTES_KEY",
        "client_secret_ref": null,
    });
    let answer = world
        .host
        .api(Method::PATCH, "/providers/notes", Some(update.clone()))
        .await?;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(answer.text.contains("BEGIN PRIVATE KEY"), "{}", answer.text);
    assert!(!answer.text.contains("not a key\""), "{}", answer.text);

    let (pem, _) = key_pair("ES256").await?;
    set(&pem).await?;
    let mut wrong = update.clone();
    wrong["token_endpoint_auth_signing_alg"] = "RS256".into();
    let answer = world
        .host
        .api(Method::PATCH, "/providers/notes", Some(wrong))
        .await?;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(answer.text.contains("ES256"), "{}", answer.text);
    world
        .host
        .must(Method::PATCH, "/providers/notes", Some(update))
        .await?;
    // From now on nothing else can be put in its place.
    let answer = set("not a key").await?;
    assert_eq!(answer.status, 400, "{}", answer.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_acts_as_somebody_else_asks_every_active_user_again() -> Result<()> {
    let world = World::with(Setup {
        provider_record: json!({
            "grant_types": ["authorization_code", "refresh_token", "client_credentials"],
        }),
        ..Setup::default()
    })
    .await?;
    let (mut ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    assert_eq!(whoami(&mut agent).await?, "ada-at-vendor");
    let mode = async |mode: &str| {
        let auth = json!({ "auth": { "mode": mode } });
        world
            .host
            .must(Method::PATCH, "/servers/notes", Some(auth))
            .await
    };

    // From her own account to one for everybody.
    mode("service-account").await?;
    let reply = agent.call("whoami", json!({})).await?;
    let facts = reply.countersign();
    assert_eq!(facts["error"], "oauth_token_expired", "{}", reply.message);
    assert_eq!(facts["reason"], "provider_changed");
    let address = facts["authorize_url"].as_str().context("no page")?;
    assert_eq!(
        world.provider.token_requests("client_credentials").await?,
        0
    );
    let list = ada.browser.open(&world.host.at("/connections")).await?;
    assert!(list.text().contains("See what changed"), "{}", list.text());
    let page = ada.browser.open(address).await?;
    assert!(page.text().contains("for everybody"), "{}", page.text());
    ada.browser.press(&page, "Go on", &[]).await?;
    assert_ne!(whoami(&mut agent).await?, "ada-at-vendor");
    // Who had nothing connected has nothing to know.
    let mut bobs = caller(&world, "bob").await?;
    whoami(&mut bobs).await?;

    // And back: what she allowed before is not used without her.
    mode("user-delegated").await?;
    let reply = agent.call("whoami", json!({})).await?;
    let facts = reply.countersign();
    assert_eq!(facts["error"], "oauth_token_expired", "{}", reply.message);
    assert_eq!(facts["reason"], "provider_changed");
    let shown = world.connection(&ada).await?;
    assert_eq!(
        (&shown["status"], &shown["reason"]),
        (&json!("needs_reauth"), &json!("provider_changed"))
    );
    ada.connect(&world.connect_page()).await?;
    assert_eq!(whoami(&mut agent).await?, "ada-at-vendor");
    Ok(())
}
