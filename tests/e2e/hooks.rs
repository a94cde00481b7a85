//! Every hook of a preset, through the built host, with the fixture preset
//! `hooked`.

use std::time::Duration;

use anyhow::{Context, Result};
use countersign_tests::{Era, HostOptions, Reply, Setup, World};
use serde_json::{Value, json};

/// A host with `hooked` for the notes service; its log has what presets log.
async fn world(upstream: &[&str], settings: Value) -> Result<World> {
    World::with(Setup {
        host: HostOptions {
            presets: vec!["hooked".into()],
            log: "info,countersign::preset=trace".into(),
            ..HostOptions::default()
        },
        upstream,
        provider_record: json!({ "preset": "hooked", "settings": settings }),
        ..Setup::default()
    })
    .await
}

fn raw(reply: &Reply) -> String {
    format!("{} {:?}", reply.message, reply.before)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redactor_takes_out_of_text_and_structure_in_json_and_in_streams() -> Result<()> {
    for responses in ["json", "sse"] {
        let world = world(&["--responses", responses], json!({})).await?;
        for (who, era) in [("ada", Era::Sessions), ("grace", Era::PerRequest)] {
            let (_person, mut agent) = world.connected(who, era).await?;
            let text = json!({ "text": "write to ada@example.com now" });
            let reply = agent.call("echo", text).await?;
            assert_eq!(reply.text(), "write to *************** now", "{responses}");
            // Text and structure of one result; what is not named stays.
            let reply = agent.call("whoami", json!({})).await?;
            let result = reply.ok()?;
            assert_eq!(result["structuredContent"]["client_id"], "[redacted]");
            assert_eq!(reply.text(), format!("{who}-at-vendor"));
            assert_eq!(result["structuredContent"]["subject"], reply.text());

            agent
                .call("add_note", json!({ "text": "call bob@example.com" }))
                .await?
                .ok()?;
            let reply = agent
                .ask("resources/read", json!({ "uri": "notes://mine" }))
                .await?;
            assert!(!raw(&reply).contains("bob@"), "{}", reply.message);
            assert!(raw(&reply).contains("call ***"), "{}", reply.message);
            let reply = agent
                .ask("prompts/get", json!({ "name": "summarise_notes" }))
                .await?;
            assert!(!raw(&reply).contains("bob@"), "{}", reply.message);
            assert!(raw(&reply).contains("Sum up"), "{}", reply.message);
            // Nothing else is redacted, and the drop of an element is one.
            assert!(agent.tools().await?.contains(&"echo".to_owned()));
            let reply = agent
                .call("echo", json!({ "text": "please vanish" }))
                .await?;
            assert_eq!(reply.ok()?["content"], json!([]));
            // An error repeats what was asked for.
            let reply = agent
                .ask(
                    "resources/read",
                    json!({ "uri": "notes://bob@example.com" }),
                )
                .await?;
            assert!(reply.message["error"]["code"].is_i64(), "{}", reply.message);
            assert!(!raw(&reply).contains("bob@"), "{}", reply.message);
            assert!(raw(&reply).contains("***"), "{}", reply.message);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redactor_that_fails_withholds_the_result_and_the_next_call_works() -> Result<()> {
    for responses in ["json", "sse"] {
        let world = world(&["--responses", responses], json!({})).await?;
        for (who, era) in [("ada", Era::Sessions), ("grace", Era::PerRequest)] {
            let (_person, mut agent) = world.connected(who, era).await?;
            for (order, error, words) in [
                ("please fail", "preset_failed", "it was asked to fail"),
                ("please trap", "preset_failed", "crashed"),
                ("please loop", "preset_timeout", "in time"),
                ("please point nowhere", "preset_failed", "there is no"),
                ("please go too far", "preset_failed", "no such range"),
            ] {
                let reply = agent.call("echo", json!({ "text": order })).await?;
                let facts = reply.countersign();
                assert_eq!(
                    facts["error"], error,
                    "{responses} {order}: {}",
                    reply.message
                );
                let said = raw(&reply);
                assert!(said.contains(words), "{order}: {said}");
                assert!(said.contains("withheld"), "{order}: {said}");
                assert!(
                    said.contains("may have been carried out"),
                    "{order}: {said}"
                );
                assert!(reply.message["result"].is_null(), "{said}");
                let next = agent.call("echo", json!({ "text": "fine" })).await?;
                assert_eq!(next.text(), "fine");
            }
            // Larger than is looked through.
            let reply = agent.call("big", json!({ "bytes": 2 << 20 })).await?;
            assert_eq!(reply.countersign()["error"], "preset_failed");
            assert!(raw(&reply).len() < 4096);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redacted_stream_cannot_be_had_again_without_the_redactor() -> Result<()> {
    let world = world(&["--responses", "sse"], json!({})).await?;
    let (_person, mut agent) = world.connected("ada", Era::Sessions).await?;
    let params = json!({ "name": "echo", "arguments": { "text": "to ada@example.com" } });
    let message = agent.message("tools/call", params);
    let answer = agent.post(&message).send().await?.text().await?;
    assert!(answer.contains("to ***"), "{answer}");
    assert!(!answer.contains("ada@"), "{answer}");
    // An id to resume after would lead to the upstream's own copy.
    let resumable = answer
        .lines()
        .filter(|line| line.starts_with("id:"))
        .count();
    assert!(resumable <= 1, "{answer}");
    let last = answer
        .lines()
        .find_map(|line| line.strip_prefix("id:"))
        .unwrap_or("0")
        .trim()
        .to_owned();
    // The upstream's ids end in a count: the event before.
    let before = match last.rsplit_once('_') {
        Some((stream, _)) => format!("{stream}_0"),
        None => "0".into(),
    };
    for id in [last, before] {
        let get = agent
            .bare(reqwest::Method::GET)
            .header("last-event-id", id)
            .timeout(Duration::from_secs(2))
            .send()
            .await?;
        let text = get.text().await.unwrap_or_default();
        assert!(!text.contains("ada@"), "{text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_tools_are_not_listed() -> Result<()> {
    let world = world(&[], json!({})).await?;
    for (who, era) in [("ada", Era::Sessions), ("grace", Era::PerRequest)] {
        let (_person, mut agent) = world.connected(who, era).await?;
        let tools = agent.tools().await?;
        assert!(tools.contains(&"add_note".to_owned()), "{tools:?}");
        assert!(!tools.contains(&"erase_notes".to_owned()), "{tools:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn authorize_parameters_reach_the_provider_and_a_token_answer_is_masked() -> Result<()> {
    let world = world(&[], json!({ "login_hint": "somebody" })).await?;
    let (mut person, agent) = world.person("ada", Era::PerRequest).await?;
    let page = person.browser.open(&world.connect_page()).await?;
    let at_vendor = person.press_connect(&page).await?;
    let sent = world.provider.0.look("").await?["authorizations"]
        .as_array()
        .and_then(|all| all.last().cloned())
        .context("no authorization request was seen")?;
    assert_eq!(sent["login_hint"], "somebody", "{sent}");
    assert_eq!(sent["asked"], "2", "{sent}");
    person.at_vendor(at_vendor, "Allow").await?;
    let mut agent = agent.ready().await?;
    assert_eq!(
        agent.call("whoami", json!({})).await?.text(),
        "ada-at-vendor"
    );
    let log = world.host.log().text();
    assert!(log.contains("a masked token answer of status 200"), "{log}");
    for (kind, secret) in world.provider.secrets().await? {
        assert!(!log.contains(&secret), "{kind} is in the log");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_made_of_an_answer_in_which_the_token_is_covered() -> Result<()> {
    let mut world = world(&[], json!({})).await?;
    let url = url::Url::parse(world.upstream.url())?.join("/account")?;
    let settings = json!({ "settings": { "identity": url.as_str() } });
    world
        .host
        .must(reqwest::Method::PATCH, "/providers/notes", Some(settings))
        .await?;
    let (person, _agent) = world.connected("ada", Era::PerRequest).await?;
    let account = world.connection(&person).await?["account"].clone();
    assert_eq!(
        account,
        json!({ "id": "id-of-ada-at-vendor", "label": "ada-at-vendor of XML" })
    );
    // The upstream repeats the token, and the preset logs all that it sees.
    world.host.stop().await?;
    let log = world.host.log().text();
    assert!(log.contains("an account: <account id="), "{log}");
    assert!(log.contains("<token>****"), "{log}");
    for (kind, secret) in world.provider.secrets().await? {
        assert!(!log.contains(&secret), "{kind} is in the log");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_preset_tells_a_refusal_that_passes_from_one_that_is_final() -> Result<()> {
    let world = world(&[], json!({})).await?;
    world.provider.0.control(json!({ "access_ttl": 1 })).await?;
    let (person, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let refuse = async |code: &str| {
        let fault = json!({
            "mode": "error", "status": 400, "error": code, "times": -1, "grant_type": "refresh_token",
        });
        world
            .provider
            .0
            .control(json!({ "token_fault": fault }))
            .await
    };
    refuse("invalid_grant").await?;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["error"],
        "provider_unavailable",
        "{}",
        reply.message
    );
    assert_eq!(
        world.connection(&person).await?["refresh_token_present"],
        true
    );

    refuse("unauthorized_client").await?;
    // The back-off after the first refusal.
    let mut last = Value::Null;
    for _ in 0..40 {
        let reply = agent.call("whoami", json!({})).await?;
        last = reply.countersign().clone();
        if last["error"] == "oauth_token_expired" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(last["error"], "oauth_token_expired", "{last}");
    assert_eq!(last["reason"], "revoked", "{last}");
    Ok(())
}
