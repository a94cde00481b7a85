//! Servers that take a key of each user's own.

use anyhow::{Context as _, Result, ensure};
use countersign_tests::{Era, Setup, Upstream, Web, World};
use reqwest::Method;
use serde_json::{Value, json};

async fn keyed(wait: &str) -> Result<World> {
    let world = World::with(Setup {
        server_record: json!({ "wait": wait }),
        ..Setup::default()
    })
    .await?;
    let (code, out, err) = world
        .host
        .cli(&["server", "update", "notes", "--static-per-user"], "")
        .await?;
    ensure!(code == 0, "{out}{err}");
    Ok(world)
}

/// What the vendor's console would show to a user: a token of its own.
async fn vendor_key(world: &World) -> Result<String> {
    let fact = |name: &str| world.provider.0.fact(name).to_owned();
    let web = Web::new()?;
    let request = web
        .request(Method::POST, &fact("token_endpoint"))
        .basic_auth(fact("client_id"), Some(fact("client_secret")))
        .form(&[
            ("grant_type", "client_credentials"),
            ("scope", "notes:read"),
            ("resource", world.upstream.url()),
        ]);
    let answer = Web::send(request).await?.json();
    let token = answer["access_token"].as_str().context("no token")?;
    Ok(token.to_owned())
}

/// How many different credentials the upstream has seen.
async fn credentials(upstream: &Upstream) -> Result<Value> {
    Ok(upstream.0.look("").await?["tokens"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_gives_a_key_of_his_own_on_a_page() -> Result<()> {
    let world = keyed("1s").await?;
    let (mut ada, mut agent) = world.person("ada", Era::PerRequest).await?;
    let reply = agent.call("whoami", json!({})).await?;
    let facts = reply.countersign();
    assert_eq!(
        facts["error"], "oauth_connection_required",
        "{}",
        reply.message
    );
    let address = facts["authorize_url"].as_str().context("no page")?;

    let page = ada.browser.open(address).await?;
    assert!(page.asks_for("key"), "{}", page.text());
    assert!(page.html.contains("type=\"password\""), "it is not shown");
    let empty = ada.browser.press(&page, "Connect", &[("key", "")]).await?;
    assert_eq!(empty.status, 400, "{}", empty.text());
    let key = vendor_key(&world).await?;
    let page = ada
        .browser
        .press(&page, "Connect", &[("key", &key)])
        .await?;
    assert!(page.url.path() == "/connections" && page.text().contains("Key given"));
    assert!(!page.html.contains(&key));
    agent.call("whoami", json!({})).await?.ok()?;

    // Nobody else has it by that, and another's is another.
    let (_bob, mut bobs) = world.person("bob", Era::PerRequest).await?;
    let reply = bobs.call("whoami", json!({})).await?;
    assert_eq!(reply.countersign()["error"], "oauth_connection_required");
    let set = json!({ "value": vendor_key(&world).await? });
    let refused = world
        .host
        .api(Method::PUT, "/connections/keys/nowhere", Some(set))
        .await?;
    assert_eq!(refused.status, 404, "{}", refused.text);
    assert_eq!(credentials(&world.upstream).await?, json!(1));

    assert!(!world.host.log().text().contains(&key), "not in the log");

    // What the server takes no more can still be seen and destroyed.
    let mode = async |auth: Value| {
        let patch = json!({ "auth": auth });
        let done = world
            .host
            .must(Method::PATCH, "/servers/notes", Some(patch));
        done.await
    };
    mode(json!({ "mode": "none", "per_user": null })).await?;
    let page = ada.browser.open(&world.host.at("/connections")).await?;
    assert!(
        page.text().contains("takes no key of yours any more"),
        "{}",
        page.text()
    );
    mode(json!({ "mode": "static", "per_user": true })).await?;

    // Disconnecting destroys it.
    let page = ada.browser.open(&world.host.at("/connections")).await?;
    ada.browser.press(&page, "Disconnect", &[]).await?;
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(reply.countersign()["error"], "oauth_connection_required");
    for action in ["user_key.set", "user_key.delete"] {
        let event = world.host.audited(|e| e["action"] == action).await?;
        assert_eq!(event["user"], "ada", "{event}");
        assert!(!event.to_string().contains(&key), "{event}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_comes_from_standard_input_and_is_listed_and_revoked_like_a_connection() -> Result<()>
{
    let world = keyed("1s").await?;
    let key = vendor_key(&world).await?;
    let set = ["connection", "set-key", "notes"];
    let (code, out, err) = world.host.cli(&set, &format!("{key}\n")).await?;
    ensure!(code == 0 && out.contains("notes"), "{out}{err}");
    let list = world.host.must(Method::GET, "/connections", None).await?;
    let one = &list["items"][0];
    assert_eq!(
        (&one["server"], &one["status"]),
        (&json!("notes"), &json!("connected"))
    );
    assert!(!list.to_string().contains(&key));
    let id = one["id"].as_str().context("no id")?.to_owned();
    let (code, out, err) = world.host.cli(&["connection", "revoke", &id], "").await?;
    ensure!(code == 0, "{out}{err}");
    let list = world.host.must(Method::GET, "/connections", None).await?;
    assert_eq!(list["items"], json!([]));

    // A server that takes none says so.
    let user = json!({ "auth": { "mode": "none", "per_user": null, "provider": null, "required_scopes": null } });
    world
        .host
        .must(Method::PATCH, "/servers/notes", Some(user))
        .await?;
    let (code, _, err) = world.host.cli(&set, &key).await?;
    assert_eq!(code, 1);
    assert!(err.contains("takes no key"), "{err}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_does_not_follow_its_server_elsewhere() -> Result<()> {
    let world = keyed("1s").await?;
    let (mut ada, mut agent) = world.person("ada", Era::PerRequest).await?;
    let address = world.host.at("/connections/keys/notes");
    let page = ada.browser.open(&address).await?;
    let key = vendor_key(&world).await?;
    ada.browser
        .press(&page, "Connect", &[("key", &key)])
        .await?;
    agent.call("whoami", json!({})).await?.ok()?;

    let elsewhere = Upstream::start(&world.provider, &["open"]).await?;
    let moved = json!({ "url": elsewhere.url() });
    world
        .host
        .must(Method::PATCH, "/servers/notes", Some(moved))
        .await?;
    let reply = agent.call("whoami", json!({})).await?;
    let facts = reply.countersign();
    assert_eq!(facts["error"], "oauth_token_expired", "{}", reply.message);
    assert_eq!(facts["reason"], "provider_changed");
    assert_eq!(elsewhere.calls_of("whoami").await?, 0);
    let page = ada.browser.open(&world.host.at("/connections")).await?;
    assert!(
        page.text().contains("changed the server's address"),
        "{}",
        page.text()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_call_goes_on_when_the_key_is_given_and_a_refused_key_is_asked_for_again()
-> Result<()> {
    let world = keyed("30s").await?;
    let (mut ada, mut agent) = world.person("ada", Era::PerRequest).await?;
    agent.capabilities = json!({ "elicitation": { "url": {} } });
    let asked = agent.call("whoami", json!({})).await?;
    assert_eq!(
        asked.message["result"]["resultType"], "input_required",
        "{}",
        asked.message
    );
    let page = ada
        .browser
        .open(&world.host.at("/connections/keys/notes"))
        .await?;
    ada.browser
        .press(&page, "Connect", &[("key", "wrong")])
        .await?;
    agent.capabilities = json!({});
    let reply = agent.call("whoami", json!({})).await?;
    let facts = reply.countersign();
    assert_eq!(facts["error"], "oauth_token_expired", "{}", reply.message);
    assert_eq!(facts["reason"], "upstream_unauthorized");
    assert!(
        facts["authorize_url"]
            .as_str()
            .is_some_and(|u| u.ends_with("/connections/keys/notes"))
    );
    Ok(())
}
