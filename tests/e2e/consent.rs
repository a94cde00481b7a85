//! Who may connect what, and what happens to everybody else.

use anyhow::{Context, Result};
use countersign_tests::{Agent, Consent, Era, Person, World};
use reqwest::Method;
use serde_json::json;

/// The link an agent's call is answered with.
async fn link(agent: &mut Agent) -> Result<String> {
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["error"],
        "oauth_connection_required",
        "{}",
        reply.message
    );
    let url = &reply.countersign()["authorize_url"];
    Ok(url.as_str().context("no authorize_url")?.to_owned())
}

async fn nothing_is_connected(world: &World, person: &Person) -> Result<()> {
    let connection = world.connection(person).await?;
    let status = &connection["status"];
    assert!(
        connection.is_null() || status == "not_connected",
        "{connection}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_link_works_only_for_the_user_it_was_made_for() -> Result<()> {
    let world = World::start().await?;
    let (mut ada, mut agent) = world.person("ada", Era::PerRequest).await?;
    let (mut mallory, _) = world.person("mallory", Era::PerRequest).await?;
    let link = link(&mut agent).await?;

    let page = mallory.browser.open(&link).await?;
    assert_eq!(page.status, 403, "{}", page.text());
    assert!(
        !page.buttons().iter().any(|label| label == "Connect"),
        "{:?}",
        page.buttons()
    );
    nothing_is_connected(&world, &mallory).await?;

    ada.connect(&link).await?;
    assert_eq!(
        agent.call("whoami", json!({})).await?.text(),
        "ada-at-vendor"
    );
    nothing_is_connected(&world, &mallory).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_at_the_page_starts_nothing() -> Result<()> {
    let world = World::start().await?;
    let (mut ada, mut agent) = world.person("ada", Era::PerRequest).await?;
    let link = link(&mut agent).await?;
    for _ in 0..3 {
        let page = ada.browser.open(&link).await?;
        assert_eq!(page.status, 200);
        assert!(page.text().contains("notes:read"), "{}", page.text());
        assert!(page.text().contains("A test's agent"), "{}", page.text());
    }
    assert_eq!(
        world.provider.token_requests("authorization_code").await?,
        0
    );
    // A form without the page's own token is somebody else's.
    let page = ada.browser.open(&link).await?;
    let refused = ada
        .browser
        .press(&page, "Connect", &[("csrf", "guessed")])
        .await?;
    assert!(
        refused.status >= 400,
        "{} {}",
        refused.status,
        refused.text()
    );
    nothing_is_connected(&world, &ada).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_used_once_and_only_by_the_browser_that_began() -> Result<()> {
    let world = World::start().await?;
    let mut ada = world.host.person("ada").await?;
    let mut mallory = world.host.person("mallory").await?;
    let callback = world.host.at("/oauth/callback/");
    ada.browser.stops = vec![callback];

    let page = ada.browser.open(&world.connect_page()).await?;
    let page = ada.press_connect(&page).await?;
    let back = ada.at_vendor(page, "Allow").await?;
    assert!(back.query("code").is_some(), "{}", back.url);

    let stolen = mallory.browser.open(back.url.as_str()).await?;
    assert!(stolen.status >= 400, "{} {}", stolen.status, stolen.text());
    nothing_is_connected(&world, &mallory).await?;
    // The same user in another browser is another browser.
    let mut elsewhere = Person::sign_in(&world.host, "ada", &ada.password).await?;
    let other = elsewhere.browser.open(back.url.as_str()).await?;
    assert!(other.status >= 400, "{} {}", other.status, other.text());
    nothing_is_connected(&world, &ada).await?;

    ada.browser.stops.clear();
    let again = ada.browser.open(world.connect_page().as_str()).await?;
    let again = ada.press_connect(&again).await?;
    let done = ada.at_vendor(again, "Allow").await?;
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(world.connection(&ada).await?["status"], "connected");
    let replayed = ada.browser.open(back.url.as_str()).await?;
    assert!(
        replayed.status >= 400,
        "{} {}",
        replayed.status,
        replayed.text()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_state_cannot_be_played_again() -> Result<()> {
    let world = World::start().await?;
    let mut ada = world.host.person("ada").await?;
    ada.browser.stops = vec![world.host.at("/oauth/callback/")];
    let page = ada.browser.open(&world.connect_page()).await?;
    let page = ada.press_connect(&page).await?;
    let back = ada.at_vendor(page, "Allow").await?;
    ada.browser.stops.clear();
    let done = ada.browser.open(back.url.as_str()).await?;
    assert_eq!(done.status, 200, "{}", done.text());
    let asked = world.provider.token_requests("authorization_code").await?;
    let again = ada.browser.open(back.url.as_str()).await?;
    assert!(again.status >= 400, "{} {}", again.status, again.text());
    assert_eq!(
        world.provider.token_requests("authorization_code").await?,
        asked
    );
    assert_eq!(world.connection(&ada).await?["status"], "connected");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_another_issuer_or_of_none_is_refused() -> Result<()> {
    let world = World::start().await?;
    let settings = json!({
        "issuer": world.provider.0.fact("issuer"),
        "authorization_response_iss_parameter_supported": true,
    });
    let patch = json!({ "settings": settings });
    world
        .host
        .must(Method::PATCH, "/providers/notes", Some(patch))
        .await?;
    for (name, iss) in [
        ("mixed", json!("https://elsewhere.example")),
        ("missing", json!("")),
    ] {
        world
            .provider
            .0
            .control(json!({ "iss_override": iss }))
            .await?;
        let mut person = world.host.person(name).await?;
        let page = person.browser.open(&world.connect_page()).await?;
        let page = person.press_connect(&page).await?;
        let back = person.at_vendor(page, "Allow").await?;
        assert!(back.status >= 400, "{name}: {} {}", back.url, back.text());
        nothing_is_connected(&world, &person).await?;
    }
    world
        .provider
        .0
        .control(json!({ "iss_override": null }))
        .await?;
    let mut person = world.host.person("right").await?;
    person.connect(&world.connect_page()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_denies_at_the_vendor_is_told_so_and_may_try_again() -> Result<()> {
    let world = World::start().await?;
    let (mut ada, mut agent) = world.person("ada", Era::PerRequest).await?;
    let link = link(&mut agent).await?;
    let page = ada.browser.open(&link).await?;
    let page = ada.press_connect(&page).await?;
    let denied = ada.at_vendor(page, "Deny").await?;
    assert!(denied.status >= 400, "{}", denied.text());
    assert!(
        denied.text().contains("Nothing was stored"),
        "{}",
        denied.text()
    );
    nothing_is_connected(&world, &ada).await?;
    assert_eq!(denied.url.as_str(), world.host.at("/connected"));

    // What the agent asked for is asked again, by a link as good as the first.
    let again = denied.link("Try again").context("no way back")?;
    let page = ada.browser.open(again.as_str()).await?;
    assert!(page.text().contains("A test's agent"), "{}", page.text());
    let done = ada.connect(again.as_str()).await?;
    assert_eq!(
        done.url.as_str(),
        world.host.at("/connected"),
        "no code in sight"
    );
    assert!(
        done.text().contains("go back to your agent"),
        "{}",
        done.text()
    );
    assert_eq!(
        agent.call("whoami", json!({})).await?.text(),
        "ada-at-vendor"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_the_user_denies_gets_no_code() -> Result<()> {
    let world = World::start().await?;
    let mut ada = world.host.person("ada").await?;
    let asked = Consent::ask(&world.host, &mut ada, "/mcp/notes", "Greedy").await?;
    assert!(
        asked.page.text().contains("Greedy"),
        "{}",
        asked.page.text()
    );
    let back = asked.deny(&mut ada).await?;
    assert_eq!(
        back.query("error").as_deref(),
        Some("access_denied"),
        "{}",
        back.url
    );
    assert_eq!(back.query("code"), None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_agent_is_asked_about_on_its_own() -> Result<()> {
    let world = World::start().await?;
    let mut ada = world.host.person("ada").await?;
    for name in ["First agent", "Second agent"] {
        let asked = Consent::ask(&world.host, &mut ada, "/mcp/notes", name).await?;
        assert!(asked.page.buttons().iter().any(|label| label == "Allow"));
        assert!(asked.page.text().contains(name), "{}", asked.page.text());
        asked.allow(&mut ada, Era::PerRequest).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnecting_revokes_at_the_vendor_and_the_next_call_asks_again() -> Result<()> {
    let world = World::start().await?;
    let (mut ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    assert_eq!(
        agent.call("whoami", json!({})).await?.text(),
        "ada-at-vendor"
    );
    let page = ada.browser.open(&world.host.at("/connections")).await?;
    assert!(page.text().contains("Notes"), "{}", page.text());
    let mut page = ada.browser.press(&page, "Disconnect", &[]).await?;
    if page.buttons().iter().any(|label| label == "Disconnect") && page.url.path() != "/connections"
    {
        page = ada.browser.press(&page, "Disconnect", &[]).await?;
    }
    assert_eq!(page.status, 200, "{}", page.text());
    let vendor = world.provider.0.look("").await?;
    assert!(
        vendor["revocations"]
            .as_array()
            .is_some_and(|list| list.iter().any(|r| r["status"] == 200)),
        "{vendor}"
    );
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["error"],
        "oauth_connection_required",
        "{}",
        reply.message
    );
    Ok(())
}
