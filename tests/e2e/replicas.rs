//! Two hosts on one PostgreSQL database, behind a load balancer. How soon one
//! sees what the other did is printed; it is about a tenth of a second where
//! the machine is not busy.
#![expect(
    clippy::disallowed_methods,
    reason = "a test waits in real time for real processes"
)]

use std::ops::Deref;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use countersign_tests::postgres::Cluster;
use countersign_tests::{Agent, Balancer, Era, Host, HostOptions, Person, Reply, Setup, World};
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::{Value, json};

/// A world with a second host.
struct Pair {
    /// With the first host.
    world: World,
    other: Host,
    balancer: Balancer,
    _cluster: Cluster,
}

impl Deref for Pair {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Pair {
    async fn start(setup: Setup<'_>) -> Result<Self> {
        let cluster = tokio::task::spawn_blocking(Cluster::start).await??;
        let balancer = Balancer::start().await?;
        let options = HostOptions {
            store: Some(cluster.database()?),
            public_url: Some(balancer.url.clone()),
            ..setup.host.clone()
        };
        let host = Host::start(&options).await?;
        balancer.send_to(&host.own_url).await;
        let world = World::around(host, setup).await?;
        let other = world.host.twin().await?;
        Ok(Self {
            world,
            other,
            balancer,
            _cluster: cluster,
        })
    }

    async fn to_first(&self) {
        self.balancer.send_to(&self.world.host.own_url).await;
    }

    async fn to_other(&self) {
        self.balancer.send_to(&self.other.own_url).await;
    }

    /// The same agent, past the balancer.
    fn at(&self, host: &Host, agent: &Agent) -> Result<Agent> {
        let endpoint = host.directly_at("/mcp/notes");
        let mut direct = Agent::with_token(endpoint, agent.token.clone(), agent.era)?;
        direct.session = agent.session.clone();
        direct.capabilities = agent.capabilities.clone();
        Ok(direct)
    }
}

/// Asks until it is so, and how long that took.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    while !is_so().await? {
        ensure!(start.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(start.elapsed())
}

fn is_whoami(reply: &Reply, name: &str) -> Result<()> {
    ensure!(
        reply.text() == format!("{name}-at-vendor"),
        "{} {}",
        reply.status,
        reply.message
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_at_another_host_and_ends_at_all() -> Result<()> {
    let pair = Pair::start(Setup::default()).await?;
    let (_ada, agent) = pair.connected("ada", Era::Sessions).await?;
    let mut first = pair.at(&pair.world.host, &agent)?;
    let mut other = pair.at(&pair.other, &agent)?;
    is_whoami(&first.call("whoami", json!({})).await?, "ada")?;
    is_whoami(&other.call("whoami", json!({})).await?, "ada")?;
    is_whoami(&first.call("whoami", json!({})).await?, "ada")?;

    let ended = other.bare(Method::DELETE);
    let ended = ended.header("mcp-protocol-version", Era::Sessions.revision());
    ensure!(ended.send().await?.status().is_success());
    let took = until("the session goes on", async || {
        Ok(first.call("whoami", json!({})).await?.status == 404)
    })
    .await?;
    println!("seen by the other after {took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_begun_at_one_host_is_finished_at_another_and_releases_the_call_held_at_the_first()
-> Result<()> {
    let pair = Pair::start(Setup::default()).await?;
    let (mut ada, agent) = pair.person("ada", Era::Sessions).await?;
    let mut held = pair
        .at(&pair.world.host, &agent)?
        .with_url_elicitation()
        .ready()
        .await?;
    let (id, mut events) = held
        .open("tools/call", json!({ "name": "whoami", "arguments": {} }))
        .await?;
    let asked = events.next().await?.context("the stream ended")?;
    let url = asked["params"]["url"]
        .as_str()
        .context("no URL")?
        .to_owned();

    ada.browser.stops = vec![pair.world.host.at("/oauth/callback/")];
    let page = ada.browser.open(&url).await?;
    let page = ada.press_connect(&page).await?;
    let back = ada.at_vendor(page, "Allow").await?;
    ada.browser.stops.clear();
    pair.to_other().await;
    let done = ada.browser.open(back.url.as_str()).await?;
    ensure!(done.text().contains("is connected"), "{}", done.text());
    let start = Instant::now();
    is_whoami(&events.reply(&id).await?, "ada")?;
    println!("seen by the other after {:?}", start.elapsed());
    // What came of it is shown by whichever host is asked.
    pair.to_first().await;
    let shown = ada.browser.open(&pair.world.host.at("/connected")).await?;
    ensure!(shown.text().contains("is connected"), "{}", shown.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_that_reaches_another_host_ends_the_held_call() -> Result<()> {
    let pair = Pair::start(Setup::default()).await?;
    let (_ada, agent) = pair.person("ada", Era::Sessions).await?;
    let mut held = pair
        .at(&pair.world.host, &agent)?
        .with_url_elicitation()
        .ready()
        .await?;
    let (id, mut events) = held
        .open("tools/call", json!({ "name": "whoami", "arguments": {} }))
        .await?;
    let asked = events.next().await?.context("the stream ended")?;
    let elsewhere = pair.at(&pair.other, &held)?;
    let answer = elsewhere
        .answer(&asked["id"], json!({ "action": "decline" }))
        .await?;
    ensure!(answer.status == 202, "{} {}", answer.status, answer.text);
    let start = Instant::now();
    let reply = events.reply(&id).await?;
    ensure!(
        reply.message["result"]["isError"] == true,
        "{}",
        reply.message
    );
    println!("seen by the other after {:?}", start.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_given_at_another_host_releases_the_call() -> Result<()> {
    let pair = Pair::start(Setup::default()).await?;
    let (mut ada, agent) = pair.person("ada", Era::Sessions).await?;
    ada.connect(&pair.connect_page()).await?;
    let policy = json!({
        "name": "careful", "tools": ["add_*"],
        "effect": { "need_approval": { "message": "Notes are for ever." } },
    });
    pair.world
        .host
        .must(Method::POST, "/policies", Some(policy))
        .await?;
    // Made at the first host, in force at the other.
    let mut held = pair
        .at(&pair.other, &agent)?
        .with_url_elicitation()
        .ready()
        .await?;
    let arguments = json!({ "name": "add_note", "arguments": { "text": "hello" } });
    let mut begun = None;
    until("the policy is not in force", async || {
        let (id, mut events) = held.open("tools/call", arguments.clone()).await?;
        let first = events.next().await?.context("the stream ended")?;
        let asks = first["method"] == "elicitation/create";
        begun = asks.then_some((id, events, first));
        Ok(asks)
    })
    .await?;
    let (id, mut events, asked) = begun.context("no question")?;
    let url = asked["params"]["url"].as_str().context("no URL")?;
    pair.to_first().await;
    let page = ada.browser.open(url).await?;
    let page = ada.enter(page).await?;
    ada.browser.press(&page, "Allow", &[]).await?;
    let start = Instant::now();
    let reply = events.reply(&id).await?;
    reply.ok()?;
    println!("seen by the other after {:?}", start.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_host_revokes_edits_or_approves_holds_at_the_other_within_a_second() -> Result<()>
{
    let pair = Pair::start(Setup::default()).await?;
    let (ada, agent) = pair.connected("ada", Era::PerRequest).await?;
    let mut other = pair.at(&pair.other, &agent)?;
    let works = async |other: &mut Agent| -> Result<bool> {
        Ok(other.call("whoami", json!({})).await?.text() == "ada-at-vendor")
    };
    until("it never works", async || works(&mut other).await).await?;
    let host = &pair.world.host;
    let patch = |path: &'static str, body: Value| host.must(Method::PATCH, path, Some(body));
    // Each takes something away and gives it back.
    for (path, away, back) in [
        (
            "/servers/notes",
            json!({ "enabled": false }),
            json!({ "enabled": true }),
        ),
        (
            "/servers/notes",
            json!({ "tools": { "deny": ["whoami"] } }),
            json!({ "tools": { "deny": [] } }),
        ),
        (
            "/presets/generic",
            json!({ "enabled": false }),
            json!({ "enabled": true }),
        ),
        (
            "/providers/notes",
            json!({ "enabled": false }),
            json!({ "enabled": true }),
        ),
    ] {
        patch(path, away.clone()).await?;
        let took = until("it goes on", async || Ok(!works(&mut other).await?)).await?;
        println!("{away}: seen by the other after {took:?}");
        patch(path, back.clone()).await?;
        let took = until("it stays away", async || works(&mut other).await).await?;
        println!("{back}: seen by the other after {took:?}");
    }
    // An agent's sign-in, taken back by its user's removal.
    let gone = format!("/users/{}", ada.name);
    host.must(Method::DELETE, &gone, None).await?;
    let took = until("the token is good yet", async || {
        Ok(other.call("whoami", json!({})).await?.status == 401)
    })
    .await?;
    println!("seen by the other after {took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_hosts_write_one_audit_log() -> Result<()> {
    let pair = Pair::start(Setup::default()).await?;
    let (_ada, agent) = pair.connected("ada", Era::PerRequest).await?;
    for host in [&pair.world.host, &pair.other] {
        let mut agent = pair.at(host, &agent)?;
        until("it never works", async || {
            Ok(agent.call("whoami", json!({})).await?.text() == "ada-at-vendor")
        })
        .await?;
    }
    for host in [&pair.world.host, &pair.other] {
        until("calls are missing", async || {
            let events = host.audit("").await?;
            let calls = events
                .iter()
                .filter(|event| event["call"]["name"] == "whoami");
            Ok(calls.count() >= 2)
        })
        .await?;
        let events = host.audit("").await?;
        ensure!(events.iter().all(|event| event["action"] != "audit.gap"));
    }
    Ok(())
}

/// A connected person whose access token has ended, and what is asked of the
/// provider from then on.
async fn lapsed(pair: &Pair, name: &str) -> Result<(Person, Agent)> {
    let provider = &pair.provider.0;
    provider.control(json!({ "access_ttl": 1 })).await?;
    let (person, agent) = pair.connected(name, Era::PerRequest).await?;
    provider.control(json!({ "access_ttl": 300 })).await?;
    // The vendor's clock is a real one.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    Ok((person, agent))
}

/// Waits until the provider was asked to refresh so often.
async fn refreshes(pair: &Pair, count: u64) -> Result<()> {
    until("nobody refreshes", async || {
        Ok(pair.provider.token_requests("refresh_token").await? >= count)
    })
    .await?;
    Ok(())
}

async fn reuses(pair: &Pair) -> Result<u64> {
    let state = pair.provider.0.look("").await?;
    let refused = state["token_answers"]["refresh_token 400"].as_u64();
    Ok(refused.unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_paused_while_it_refreshes_is_waited_for() -> Result<()> {
    let pair = Pair::start(Setup::default()).await?;
    let (_ada, agent) = lapsed(&pair, "ada").await?;
    let delay = json!({ "answer_delay_ms": 1000 });
    pair.provider.0.control(delay).await?;
    let mut first = pair.at(&pair.world.host, &agent)?;
    let paused = tokio::spawn(async move { first.call("whoami", json!({})).await });
    refreshes(&pair, 1).await?;
    pair.world.host.signal("-STOP").await?;
    let mut other = pair.at(&pair.other, &agent)?;
    let waits = tokio::spawn(async move { other.call("whoami", json!({})).await });
    // The answer is there, and nobody reads it.
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(!waits.is_finished(), "{:?}", waits.await?);
    pair.world.host.signal("-CONT").await?;
    is_whoami(&paused.await??, "ada")?;
    is_whoami(&waits.await??, "ada")?;
    ensure!(pair.provider.token_requests("refresh_token").await? == 1);
    ensure!(reuses(&pair).await? == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_went_out_with_a_killed_host_is_never_sent_again() -> Result<()> {
    let mut pair = Pair::start(Setup::default()).await?;
    let (mut ada, agent) = lapsed(&pair, "ada").await?;
    let delay = json!({ "answer_delay_ms": 1000 });
    pair.provider.0.control(delay).await?;
    let mut first = pair.at(&pair.world.host, &agent)?;
    let killed = tokio::spawn(async move { first.call("whoami", json!({})).await });
    refreshes(&pair, 1).await?;
    pair.world.host.kill().await?;
    let _ = killed.await?;
    let mut other = pair.at(&pair.other, &agent)?;
    let reply = other.call("whoami", json!({})).await?;
    let told = reply.countersign();
    ensure!(
        told["error"] == "oauth_token_expired" && told["reason"] == "provider_error",
        "{}",
        reply.message
    );
    ensure!(pair.provider.token_requests("refresh_token").await? == 1);
    ensure!(reuses(&pair).await? == 0);
    // And the user can connect again.
    pair.to_other().await;
    ada.connect(&pair.connect_page()).await?;
    is_whoami(&other.call("whoami", json!({})).await?, "ada")
}

/// Calls until told to stop; how many went through.
async fn calls(mut agent: Agent, end: Instant) -> Result<usize> {
    let mut good = 0;
    while Instant::now() < end {
        let call = agent.call("whoami", json!({}));
        // A host that is away or paused is part of it.
        match tokio::time::timeout(Duration::from_secs(8), call).await {
            Ok(Ok(reply)) if reply.text().ends_with("-at-vendor") => good += 1,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    Ok(good)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_refresh_token_is_used_twice_and_no_connection_is_lost_whatever_happens_to_the_hosts()
-> Result<()> {
    const PEOPLE: usize = 6;
    let lasts = std::env::var("COUNTERSIGN_CHAOS_SECONDS").ok();
    let lasts = lasts.and_then(|s| s.parse().ok()).unwrap_or(30);
    let mut pair = Pair::start(Setup::default()).await?;
    // Every call but the first of each second refreshes.
    pair.provider.0.control(json!({ "access_ttl": 1 })).await?;
    let mut agents = Vec::new();
    let mut people = Vec::new();
    for n in 0..PEOPLE {
        let (person, agent) = pair.connected(&format!("p{n}"), Era::PerRequest).await?;
        people.push(person);
        agents.push(agent);
    }
    let end = Instant::now() + Duration::from_secs(lasts);
    let mut tasks = Vec::new();
    for agent in &agents {
        for host in [&pair.world.host, &pair.other] {
            tasks.push(tokio::spawn(calls(pair.at(host, agent)?, end)));
        }
    }
    let mut kills = 0;
    for round in 0.. {
        if Instant::now() >= end {
            break;
        }
        // Different moments each time.
        tokio::time::sleep(Duration::from_millis(300 + 271 * (round % 5))).await;
        let host = match round % 2 {
            0 => &mut pair.world.host,
            _ => &mut pair.other,
        };
        if round % 4 < 2 {
            host.signal("-STOP").await?;
            tokio::time::sleep(Duration::from_millis(200 + 937 * (round % 3))).await;
            host.signal("-CONT").await?;
        } else {
            host.kill().await?;
            kills += 1;
            host.serve().await?;
        }
    }
    let good: usize = try_join_all(tasks)
        .await?
        .into_iter()
        .sum::<Result<usize>>()?;
    pair.provider
        .0
        .control(json!({ "access_ttl": 300 }))
        .await?;
    ensure!(good > PEOPLE, "only {good} calls went through");
    ensure!(reuses(&pair).await? == 0, "a refresh token was used twice");
    // What is lost was in the air with a host that was killed, and is said to
    // be: nothing can be known of it.
    pair.to_first().await;
    let mut lost = 0;
    for (person, agent) in people.iter_mut().zip(&agents) {
        let mut agent = pair.at(&pair.other, agent)?;
        let mut last = None;
        for _ in 0..50 {
            let reply = agent.call("whoami", json!({})).await?;
            if reply.text().ends_with("-at-vendor") {
                last = None;
                break;
            }
            let stuck = reply.countersign()["reason"] == "provider_error";
            last = Some(reply);
            if stuck {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let Some(reply) = last else { continue };
        ensure!(
            reply.countersign()["reason"] == "provider_error",
            "{}",
            reply.message
        );
        lost += 1;
        person.connect(&pair.world.connect_page()).await?;
    }
    ensure!(lost <= kills, "{lost} connections lost by {kills} kills");
    ensure!(reuses(&pair).await? == 0, "a refresh token was used twice");
    eprintln!("{good} calls, {kills} kills, {lost} connections in the air at a kill");
    Ok(())
}
