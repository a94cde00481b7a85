//! People of an external issuer: who they are here, what their tokens are good
//! for, and the one place that such a token is ever shown to.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use countersign_tests::{Agent, Browser, Era, Setup, Trap, Web, World};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

/// Where the person's agent would listen; nothing does.
const REDIRECT: &str = "http://127.0.0.1:9/callback";
const VERIFIER: &str = "a-verifier-that-is-long-enough-for-everybody-here";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The vendor's authorization server is also the company's identity provider.
async fn trusting(setup: Setup<'_>, more: &[(&str, &str)]) -> Result<World> {
    let mut world = World::with(setup).await?;
    let fact = |name: &str| world.provider.0.fact(name).to_owned();
    let mut issuer = toml::Table::new();
    for name in ["issuer", "jwks_uri", "token_endpoint"] {
        issuer.insert(name.into(), fact(name).into());
    }
    for (name, value) in more {
        issuer.insert((*name).into(), (*value).into());
    }
    let order = json!({ "redirect_uris": [REDIRECT] });
    world.provider.0.control(order).await?;
    world.host.stop().await?;
    world.host.configure(|config| {
        if let Some(identity) = config["identity"].as_table_mut() {
            identity.insert("issuer".into(), vec![toml::Value::from(issuer)].into());
        }
    })?;
    world.host.serve().await?;
    Ok(world)
}

fn exchanging() -> Setup<'static> {
    Setup {
        provider_record: json!({ "grant_types": ["token_exchange"] }),
        server_record: json!({ "auth": { "mode": "token-exchange" } }),
        ..Setup::default()
    }
}

/// A user who is `account` at the issuer, made with the command line.
async fn person(world: &World, name: &str, account: &str) -> Result<()> {
    let issuer = world.provider.0.fact("issuer");
    let line = [
        "user",
        "create",
        name,
        "--issuer",
        issuer,
        "--subject",
        account,
    ];
    let (code, said, error) = world.host.cli(&line, "").await?;
    anyhow::ensure!(code == 0, "{said}{error}");
    Ok(())
}

/// An access token of the issuer's, for this resource.
async fn token(world: &World, account: &str, resource: &str) -> Result<String> {
    let provider = &world.provider.0;
    let format = |format: &str| json!({ "access_token_format": format });
    provider.control(format("jwt")).await?;
    let mut url = Url::parse(provider.fact("authorization_endpoint"))?;
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", provider.fact("client_id"))
        .append_pair("redirect_uri", REDIRECT)
        .append_pair("scope", "openid notes:read")
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256")
        .append_pair("resource", resource);
    let mut browser = Browser::new()?;
    browser.stops = vec![REDIRECT.into()];
    let page = browser.open(url.as_str()).await?;
    let fields = [("username", account), ("password", "any")];
    let page = browser.press(&page, "Sign in", &fields).await?;
    let back = browser.press(&page, "Allow", &[]).await?;
    let code = back.query("code").with_context(|| back.text())?;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
        ("resource", resource),
    ];
    let request = Web::new()?
        .request(Method::POST, provider.fact("token_endpoint"))
        .basic_auth(
            provider.fact("client_id"),
            Some(provider.fact("client_secret")),
        )
        .form(&form);
    let answer = Web::send(request).await?;
    provider.control(format("opaque")).await?;
    let token = answer.json()["access_token"].as_str().map(str::to_owned);
    token.with_context(|| answer.text)
}

fn agent(world: &World, token: &str) -> Result<Agent> {
    Agent::with_token(
        world.host.at("/mcp/notes"),
        token.to_owned(),
        Era::PerRequest,
    )
}

async fn assertions(world: &World) -> Result<Vec<Value>> {
    let seen = world.provider.0.look("/assertions").await?;
    Ok(seen["assertions"].as_array().cloned().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_own_token_is_exchanged_at_its_issuer_and_goes_nowhere_else() -> Result<()> {
    let world = trusting(exchanging(), &[]).await?;
    let here = json!({
        "issuer": world.host.url,
        "jwks": world.host.at("/.well-known/jwks.json"),
    });
    world
        .provider
        .0
        .control(json!({ "trusted_issuer": here }))
        .await?;
    person(&world, "ada", "ada-at-work").await?;
    let own = token(&world, "ada-at-work", &world.host.at("/mcp/notes")).await?;
    let mut adas = agent(&world, &own)?;
    for _ in 0..2 {
        let reply = adas.call("whoami", json!({})).await?;
        reply.ok()?;
        assert_eq!(reply.text(), "ada-at-work");
    }
    assert_eq!(world.provider.token_requests(EXCHANGE).await?, 1);
    let seen = assertions(&world).await?;
    assert_eq!(seen[0]["own"], true, "{seen:?}");
    assert_eq!(
        seen[0]["params"]["subject_token_type"],
        "urn:ietf:params:oauth:token-type:access_token"
    );
    assert_eq!(seen[0]["params"]["resource"], world.upstream.url());

    // Who came by Countersign's own sign-in has Countersign's own word.
    let (_bob, mut bobs) = world.person("bob", Era::PerRequest).await?;
    assert_eq!(bobs.call("whoami", json!({})).await?.text(), "bob");
    assert_eq!(assertions(&world).await?[1]["own"], Value::Null);

    // She is on record as the user she is here, by her agent at that issuer.
    let call = world
        .host
        .audited(|e| e["action"] == "call" && e["user"] == "ada")
        .await?;
    let client = call["client"].as_str().unwrap_or_default();
    assert_eq!(
        client,
        format!("{}#countersign", world.provider.0.fact("issuer"))
    );
    // The upstream never saw it, and neither log nor audit has it.
    let tokens = world.upstream.0.look("/tokens").await?.to_string();
    let audit = Value::from(world.host.audit("").await?).to_string();
    let signature = own.rsplit('.').next().context("no signature")?;
    for place in [&tokens, &audit, &world.host.log().text()] {
        assert!(!place.contains(signature));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_shown_to_any_other_token_endpoint() -> Result<()> {
    let trap = Trap::start().await?;
    let elsewhere = trap.at("/token");
    let world = trusting(exchanging(), &[("token_endpoint", &elsewhere)]).await?;
    person(&world, "ada", "ada-at-work").await?;
    let own = token(&world, "ada-at-work", &world.host.at("/mcp/notes")).await?;
    // The provider's is not the issuer's: so it is Countersign's word, which
    // this vendor does not take.
    let reply = agent(&world, &own)?.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["error"],
        "provider_unavailable",
        "{}",
        reply.message
    );
    assert_eq!(world.provider.token_requests(EXCHANGE).await?, 1);
    assert!(assertions(&world).await?.is_empty());
    assert!(trap.caught().is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_not_created_for_that_issuer_and_subject_is_nobody_here() -> Result<()> {
    let world = trusting(exchanging(), &[]).await?;
    person(&world, "ada", "ada-at-work").await?;
    let (at, all) = (world.host.at("/mcp/notes"), world.host.at("/mcp"));
    let good = token(&world, "ada-at-work", &at).await?;
    let status = async |token: &str| -> Result<u16> {
        Ok(agent(&world, token)?
            .call("whoami", json!({}))
            .await?
            .status)
    };
    assert_eq!(status(&good).await?, 200);
    // Named like her, at her address even: another subject.
    world.host.person("grace").await?;
    for (whose, resource) in [
        ("ada", &at),
        ("grace", &at),
        ("ADA-AT-WORK", &at),
        ("ada-at-work", &all),
        ("ada-at-work", &world.host.at("/mcp/notes/")),
        ("ada-at-work", &world.host.at("/api")),
    ] {
        let token = token(&world, whose, resource).await?;
        assert_eq!(status(&token).await?, 401, "{whose} {resource}");
    }
    let (head, signature) = good.rsplit_once('.').context("no signature")?;
    let swapped: String = signature.chars().rev().collect();
    assert_eq!(status(&format!("{head}.{swapped}")).await?, 401);
    assert_eq!(status(&format!("{head}.")).await?, 401);
    // It is no key to the REST API.
    let refused = world
        .host
        .api_as(&good, Method::GET, "/whoami", None)
        .await?;
    assert_eq!(refused.status, 401, "{}", refused.text);

    // One subject is one user, for as long as he is there and enabled.
    let issuer = world.provider.0.fact("issuer");
    let again = json!({ "name": "eve", "issuer": issuer, "subject": "ada-at-work" });
    let refused = world.host.api(Method::POST, "/users", Some(again)).await?;
    assert_eq!(refused.status, 400, "{}", refused.text);
    let unknown = json!({ "name": "eve", "issuer": "https://other.example.com", "subject": "x" });
    let refused = world
        .host
        .api(Method::POST, "/users", Some(unknown))
        .await?;
    assert!(refused.text.contains(issuer), "{}", refused.text);
    let patch = json!({ "enabled": false });
    world
        .host
        .must(Method::PATCH, "/users/ada", Some(patch))
        .await?;
    assert_eq!(status(&good).await?, 401);
    world.host.must(Method::DELETE, "/users/ada", None).await?;
    assert_eq!(status(&good).await?, 401);
    // The name alone does not bring it back.
    let anew = json!({ "name": "ada" });
    world.host.must(Method::POST, "/users", Some(anew)).await?;
    assert_eq!(status(&good).await?, 401);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_sign_in_here_is_told_so_where_a_page_would_be_needed() -> Result<()> {
    let audience = "https://tools.example.com";
    let world = trusting(Setup::default(), &[("audience", audience)]).await?;
    person(&world, "ada", "ada-at-work").await?;
    // With an audience configured only that one counts.
    let other = token(&world, "ada-at-work", &world.host.at("/mcp/notes")).await?;
    assert_eq!(
        agent(&world, &other)?
            .call("whoami", json!({}))
            .await?
            .status,
        401
    );
    let own = token(&world, "ada-at-work", audience).await?;
    let reply = agent(&world, &own)?.call("whoami", json!({})).await?;
    let told = reply.countersign();
    assert_eq!(told["reason"], "no_browser_identity", "{}", reply.message);
    assert_eq!(told["authorize_url"], Value::Null, "{told}");
    let metadata = world
        .host
        .at("/.well-known/oauth-protected-resource/mcp/notes");
    let metadata = Web::new()?.get(&metadata).await?.json();
    let issuer = world.provider.0.fact("issuer");
    assert_eq!(
        metadata["authorization_servers"],
        json!([world.host.url, issuer])
    );
    Ok(())
}
