//! Policies: who is refused, who is asked, and that an answer is for one call.

use anyhow::{Context, Result, ensure};
use countersign_tests::{Agent, Era, Person, Reply, Setup, World};
use reqwest::Method;
use serde_json::{Value, json};

/// A world whose server holds calls this long, with these policies.
async fn world(wait: &str, policies: &[Value]) -> Result<World> {
    let world = World::with(Setup {
        server_record: json!({ "wait": wait }),
        ..Setup::default()
    })
    .await?;
    for policy in policies {
        world
            .host
            .must(Method::POST, "/policies", Some(policy.clone()))
            .await?;
    }
    Ok(world)
}

fn asks() -> Value {
    json!({
        "name": "careful", "tools": ["add_*"],
        "effect": { "need_approval": { "message": "Notes are for ever." } },
    })
}

/// What every question says, wherever it is carried; gives the page's address.
fn is_question(object: &Value, world: &World) -> Result<String> {
    ensure!(object["error"] == "approval_required", "{object}");
    ensure!(object["server"] == "notes", "{object}");
    let url = object["authorize_url"].as_str().context("no page")?;
    ensure!(url.starts_with(&world.host.at("/approve/")), "{url}");
    Ok(url.to_owned())
}

/// Opens the page and presses a button.
async fn answer(person: &mut Person, url: &str, button: &str) -> Result<String> {
    let page = person.browser.open(url).await?;
    let page = person.enter(page).await?;
    let said = person.browser.press(&page, button, &[]).await?;
    Ok(said.text())
}

/// The audit log's events, newest last, as `action outcome`, without others.
async fn events(world: &World, of: &str) -> Result<Vec<Value>> {
    let list = world
        .host
        .must(Method::GET, "/audit?page_size=1000", None)
        .await?;
    let items = list["items"].as_array().context("no items")?;
    let of = |event: &&Value| event["action"].as_str().is_some_and(|a| a.starts_with(of));
    Ok(items.iter().filter(of).cloned().collect())
}

/// Until the log, which batches calls, has so many.
async fn events_at_least(world: &World, of: &str, count: usize) -> Result<Vec<Value>> {
    for _ in 0..100 {
        let found = events(world, of).await?;
        if found.len() >= count {
            return Ok(found);
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    events(world, of).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_the_agent_as_denied_hides_the_tool_and_names_its_rule() -> Result<()> {
    let deny = json!({
        "name": "no-notes", "tools": ["add_*"], "except": { "roles": ["auditor"] },
        "effect": { "deny": { "code": "read_only", "message": "Notes are read-only this week." } },
    });
    let world = world("1s", &[deny]).await?;
    for (era, who) in [(Era::Sessions, "ada"), (Era::PerRequest, "bert")] {
        let (_person, mut agent) = world.connected(who, era).await?;
        let tools = agent.tools().await?;
        ensure!(!tools.iter().any(|t| t == "add_note"), "{tools:?}");
        let reply = agent.call("add_note", json!({ "text": "x" })).await?;
        assert_eq!(reply.message["result"]["isError"], true);
        assert_eq!(reply.countersign()["error"], "denied");
        assert_eq!(reply.countersign()["reason"], "read_only");
        assert!(
            reply.text().contains("read-only this week"),
            "{}",
            reply.text()
        );
        agent.call("whoami", json!({})).await?.ok()?;
    }
    assert_eq!(world.upstream.calls_of("add_note").await?, 0);
    // A policy that is switched off is not looked at from the next call on.
    let off = json!({ "enabled": false });
    world
        .host
        .must(Method::PATCH, "/policies/no-notes", Some(off))
        .await?;
    let (_ada, mut agent) = world.connected("carol", Era::PerRequest).await?;
    agent.call("add_note", json!({ "text": "x" })).await?.ok()?;
    let calls = events_at_least(&world, "call", 5).await?;
    ensure!(
        calls
            .iter()
            .any(|e| e["call"]["decided_by"] == "policy:no-notes" && e["outcome"] == "denied"),
        "{calls:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_looks_at_the_arguments_that_are_sent() -> Result<()> {
    let deny = json!({
        "name": "no-secrets", "tools": ["add_note"],
        "when": [{ "pointer": "/text", "operator": "matches", "value": "*secret*" }],
        "effect": { "deny": { "code": "secret" } },
    });
    let world = world("1s", &[deny]).await?;
    let (_ada, mut agent) = world.connected("ada", Era::Sessions).await?;
    ensure!(agent.tools().await?.iter().any(|t| t == "add_note"));
    agent
        .call("add_note", json!({ "text": "milk" }))
        .await?
        .ok()?;
    let refused = agent
        .call("add_note", json!({ "text": "my secret" }))
        .await?;
    assert_eq!(
        refused.countersign()["reason"],
        "secret",
        "{}",
        refused.message
    );
    // Written with an escape it is the same text.
    let mut message = agent.message("tools/call", json!({}));
    message["params"] = json!({ "name": "add_note" });
    let raw = message.to_string().replace(
        r#""name":"add_note""#,
        r#""name":"add_note","arguments":{"text":"my \u0073ecret"}"#,
    );
    let request = agent
        .bare(Method::POST)
        .header("content-type", "application/json")
        .header("mcp-protocol-version", Era::Sessions.revision())
        .body(raw);
    let answer = countersign_tests::Web::send(request).await?;
    ensure!(answer.text.contains("denied"), "{}", answer.text);
    assert_eq!(world.upstream.calls_of("add_note").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_elicitation_the_agent_gets_the_page_and_a_yes_is_good_once() -> Result<()> {
    let world = world("1s", &[asks()]).await?;
    for (era, who) in [(Era::Sessions, "ada"), (Era::PerRequest, "bert")] {
        let (mut person, mut agent) = world.connected(who, era).await?;
        let arguments = json!({ "text": "<b>milk</b>", "tags": ["a", "b"] });
        let call = async |agent: &mut Agent| agent.call("add_note", arguments.clone()).await;
        let first = call(&mut agent).await?;
        assert_eq!(first.message["result"]["isError"], true);
        let url = is_question(first.countersign(), &world)?;
        assert!(first.text().contains(&url), "{}", first.text());
        assert!(
            first.text().contains("Notes are for ever."),
            "{}",
            first.text()
        );
        // It asks again: the same question, not a second one.
        assert_eq!(
            is_question(call(&mut agent).await?.countersign(), &world)?,
            url
        );

        let page = person.browser.open(&url).await?;
        let shown = page.text();
        for part in [
            "add_note",
            "Notes are for ever.",
            "<b>milk</b>",
            "A test's agent",
            who,
        ] {
            ensure!(shown.contains(part), "{part} is not in {shown}");
        }
        assert_eq!(page.buttons().iter().filter(|b| *b == "Allow").count(), 1);
        ensure!(
            answer(&mut person, &url, "Allow")
                .await?
                .contains("Allowed")
        );
        // For these arguments only, and for one call only.
        let other = agent.call("add_note", json!({ "text": "other" })).await?;
        ensure!(is_question(other.countersign(), &world)? != url);
        call(&mut agent).await?.ok()?;
        is_question(call(&mut agent).await?.countersign(), &world)?;
    }
    assert_eq!(world.upstream.calls_of("add_note").await?, 2);
    let found = events_at_least(&world, "approval.", 10).await?;
    let count = |action: &str| found.iter().filter(|e| e["action"] == action).count();
    assert_eq!(count("approval.allowed"), 2, "{found:?}");
    assert_eq!(count("approval.used"), 2, "{found:?}");
    assert_eq!(count("approval.asked"), 6, "{found:?}");
    ensure!(
        !format!("{found:?}").contains("milk"),
        "arguments are in the audit log"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_is_told_to_the_agent_that_tries_again() -> Result<()> {
    let world = world("1s", &[asks()]).await?;
    let (mut ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let call = async |agent: &mut Agent| agent.call("add_note", json!({ "text": "x" })).await;
    let url = is_question(call(&mut agent).await?.countersign(), &world)?;
    ensure!(answer(&mut ada, &url, "Deny").await?.contains("Denied"));
    let again = call(&mut agent).await?;
    assert_eq!(again.countersign()["error"], "denied", "{}", again.message);
    assert_eq!(again.countersign()["reason"], "approval_denied");
    // The page says what he answered; the buttons are gone.
    let page = ada.browser.open(&url).await?;
    ensure!(page.text().contains("Denied") && !page.buttons().contains(&"Allow".to_owned()));
    assert_eq!(world.upstream.calls_of("add_note").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_sees_the_question_or_can_answer_it() -> Result<()> {
    let world = world("1s", &[asks()]).await?;
    let (mut ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let (mut eve, mut evil) = world.connected("eve", Era::PerRequest).await?;
    let arguments = json!({ "text": "milk" });
    let first = agent.call("add_note", arguments.clone()).await?;
    let url = is_question(first.countersign(), &world)?;
    let page = eve.browser.open(&url).await?;
    ensure!(page.text().contains("nothing to answer"), "{}", page.text());
    ensure!(!page.text().contains("milk"), "{}", page.text());
    // Her own question about the same call does not answer his.
    let hers = evil.call("add_note", arguments.clone()).await?;
    let her_url = is_question(hers.countersign(), &world)?;
    ensure!(her_url != url);
    let her_page = eve.browser.open(&her_url).await?;
    eve.browser.press(&her_page, "Allow", &[]).await?;
    is_question(
        agent
            .call("add_note", arguments.clone())
            .await?
            .countersign(),
        &world,
    )?;
    // A form without the page's own token does nothing.
    let page = ada.browser.open(&url).await?;
    ada.browser
        .press(&page, "Allow", &[("csrf", "guessed")])
        .await?;
    is_question(
        agent.call("add_note", arguments).await?.countersign(),
        &world,
    )?;
    assert_eq!(world.upstream.calls_of("add_note").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2025_the_call_is_held_and_goes_on_or_ends_by_the_users_answer() -> Result<()> {
    let world = world("30s", &[asks()]).await?;
    let (mut ada, agent) = world.person("ada", Era::Sessions).await?;
    ada.connect(&world.connect_page()).await?;
    let mut agent = agent.with_url_elicitation().ready().await?;
    for (button, word) in [("Allow", None), ("Deny", Some("denied"))] {
        let params = json!({ "name": "add_note", "arguments": { "text": button } });
        let (id, mut held) = agent.open("tools/call", params).await?;
        let asked = held.next().await?.context("nothing came on the stream")?;
        assert_eq!(asked["method"], "elicitation/create", "{asked}");
        let url = asked["params"]["url"]
            .as_str()
            .context("no url")?
            .to_owned();
        agent
            .answer(&asked["id"], json!({ "action": "accept" }))
            .await?;
        answer(&mut ada, &url, button).await?;
        let reply = held.reply(&id).await?;
        match word {
            None => drop(reply.ok()?),
            Some(word) => assert_eq!(reply.countersign()["error"], word, "{}", reply.message),
        }
    }
    assert_eq!(world.upstream.calls_of("add_note").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2025_after_the_wait_comes_32042_with_the_page() -> Result<()> {
    let world = world("1s", &[asks()]).await?;
    let (mut ada, agent) = world.person("ada", Era::Sessions).await?;
    ada.connect(&world.connect_page()).await?;
    let mut agent = agent.with_url_elicitation().ready().await?;
    let reply = agent.call("add_note", json!({ "text": "x" })).await?;
    let error = &reply.message["error"];
    assert_eq!(error["code"], -32042, "{}", reply.message);
    let url = is_question(&error["data"]["countersign"], &world)?;
    answer(&mut ada, &url, "Allow").await?;
    agent.call("add_note", json!({ "text": "x" })).await?.ok()?;
    Ok(())
}

fn retry(first: &Reply, arguments: &Value, action: &str) -> Result<(String, Value)> {
    let result = &first.message["result"];
    ensure!(
        result["resultType"] == "input_required",
        "{}",
        first.message
    );
    let requests = result["inputRequests"]
        .as_object()
        .context("no inputRequests")?;
    let (key, request) = requests.iter().next().context("empty inputRequests")?;
    let url = request["params"]["url"]
        .as_str()
        .context("no url")?
        .to_owned();
    let params = json!({
        "name": "add_note", "arguments": arguments,
        "requestState": result["requestState"],
        "inputResponses": { key: { "action": action } },
    });
    Ok((url, params))
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2026_the_retry_is_held_until_the_user_has_answered() -> Result<()> {
    let world = world("30s", &[asks()]).await?;
    let (mut ada, agent) = world.connected("ada", Era::PerRequest).await?;
    let mut agent = agent.with_url_elicitation();
    let arguments = json!({ "text": "milk" });
    let first = agent.call("add_note", arguments.clone()).await?;
    let (url, params) = retry(&first, &arguments, "accept")?;
    // With other arguments the state is worth nothing.
    let mut forged = params.clone();
    forged["arguments"] = json!({ "text": "poison" });
    let refused = agent.ask("tools/call", forged).await?;
    ensure!(refused.message["error"].is_object(), "{}", refused.message);

    let message = agent.message("tools/call", params);
    let held = tokio::spawn(async move { agent.exchange(&message).await });
    answer(&mut ada, &url, "Allow").await?;
    held.await??.ok()?;
    assert_eq!(world.upstream.calls_of("add_note").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2026_who_declines_to_look_ends_the_call() -> Result<()> {
    let world = world("5s", &[asks()]).await?;
    let (_ada, agent) = world.connected("ada", Era::PerRequest).await?;
    let mut agent = agent.with_url_elicitation();
    let arguments = json!({ "text": "milk" });
    let first = agent.call("add_note", arguments.clone()).await?;
    let (_, params) = retry(&first, &arguments, "decline")?;
    let reply = agent.ask("tools/call", params).await?;
    assert_eq!(
        reply.message["result"]["isError"], true,
        "{}",
        reply.message
    );
    assert_eq!(world.upstream.calls_of("add_note").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_yes_lets_one_of_many_calls_through_that_come_at_once() -> Result<()> {
    let world = world("1s", &[asks()]).await?;
    let (mut ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let arguments = json!({ "text": "x" });
    let first = agent.call("add_note", arguments.clone()).await?;
    let url = is_question(first.countersign(), &world)?;
    answer(&mut ada, &url, "Allow").await?;
    let messages: Vec<_> = (0..12)
        .map(|_| {
            agent.message(
                "tools/call",
                json!({ "name": "add_note", "arguments": arguments }),
            )
        })
        .collect();
    let replies =
        futures_util::future::join_all(messages.iter().map(|message| agent.exchange(message)))
            .await;
    let through = replies
        .into_iter()
        .flatten()
        .filter(|r| r.ok().is_ok())
        .count();
    assert_eq!(through, 1);
    assert_eq!(world.upstream.calls_of("add_note").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_outlives_a_restart() -> Result<()> {
    let mut world = world("1s", &[asks()]).await?;
    let (mut ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let first = agent.call("add_note", json!({ "text": "x" })).await?;
    let url = is_question(first.countersign(), &world)?;
    answer(&mut ada, &url, "Allow").await?;
    world.host.kill().await?;
    world.host.serve().await?;
    agent.call("add_note", json!({ "text": "x" })).await?.ok()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_made_changed_tried_and_deleted_from_the_command_line() -> Result<()> {
    let world = world("1s", &[]).await?;
    let host = &world.host;
    world.host.person("ann").await?;
    let cli = async |line: &[&str]| host.cli(line, "").await;
    let (code, out, _) = cli(&["policy", "list"]).await?;
    ensure!(code == 0 && out.contains("No policies yet"), "{out}");
    let made = [
        "policy",
        "create",
        "transfers",
        "--need-approval",
        "--message",
        "Money moves.",
        "--servers",
        "notes",
        "--tools",
        "send_*",
        "--when",
        "/amount greater_than 1000",
        "--except-roles",
        "admin",
    ];
    let (code, out, err) = cli(&made).await?;
    ensure!(
        code == 0 && out.contains("/amount greater_than 1000"),
        "{out}{err}"
    );
    let (code, _, err) = cli(&["policy", "create", "typo", "--deny", "--servers", "nots"]).await?;
    ensure!(code == 1 && err.contains("server nots not found"), "{err}");
    let (code, _, err) = cli(&made).await?;
    ensure!(code == 1 && err.contains("exists already"), "{err}");
    let preview = async |arguments: &str| {
        let line = [
            "policy",
            "preview",
            "--user",
            "ann",
            "--server",
            "notes",
            "--tool",
            "send_money",
            "--arguments",
            arguments,
        ];
        host.cli(&line, "").await
    };
    let (code, out, err) = preview(r#"{"amount":5000}"#).await?;
    ensure!(
        code == 0 && out.contains("The user is asked, for transfers"),
        "{out}{err}"
    );
    let (_, out, _) = preview(r#"{"amount":5}"#).await?;
    ensure!(
        out.contains("No policy minds") && out.contains("no, by its when[0]"),
        "{out}"
    );
    let (code, out, err) = cli(&[
        "policy",
        "update",
        "transfers",
        "--deny",
        "too_much",
        "--when",
        "",
    ])
    .await?;
    ensure!(code == 0 && !out.contains("need_approval"), "{out}{err}");
    let (_, out, _) = preview(r#"{"amount":5}"#).await?;
    ensure!(
        out.contains("Refused by transfers (code too_much)"),
        "{out}"
    );
    let (_, out, _) = cli(&["policy", "list"]).await?;
    ensure!(out.contains("transfers") && out.contains("send_*"), "{out}");
    let (code, _, _) = cli(&["policy", "delete", "transfers"]).await?;
    ensure!(code == 0);

    let events = events(&world, "policy.").await?;
    let actions: Vec<_> = events.iter().filter_map(|e| e["action"].as_str()).collect();
    for action in ["policy.create", "policy.update", "policy.delete"] {
        ensure!(actions.contains(&action), "{actions:?}");
    }
    Ok(())
}

/// The example policy, as it is built for tests.
fn sql_guard() -> Result<Vec<u8>> {
    let file =
        countersign_tests::repository().join("tests/fixtures/presets/out/sql-guard-0.1.0.wasm");
    std::fs::read(&file)
        .with_context(|| format!("{}: run `cargo xtask presets --fixtures`", file.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_of_the_organisations_own_judges_and_only_what_was_approved() -> Result<()> {
    let mut world = world("1s", &[]).await?;
    let folder = world.host.catalog().join("policies");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("sql-guard-0.1.0.wasm"), sql_guard()?)?;
    let record = json!({
        "name": "sql", "tools": ["add_note"],
        "effect": { "component": { "name": "sql-guard", "settings": { "argument": "text" } } },
    });
    // The folder is looked at every two seconds.
    let mut made = world
        .host
        .api(Method::POST, "/policies", Some(record.clone()))
        .await?;
    for _ in 0..100 {
        if made.status == 201 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        made = world
            .host
            .api(Method::POST, "/policies", Some(record.clone()))
            .await?;
    }
    ensure!(made.status == 201, "{}", made.text);
    let pinned = made.json()["effect"]["component"]["digest"].clone();
    ensure!(pinned.is_string(), "{}", made.text);
    let wrong = json!({ "effect": { "component": { "settings": { "typo": 1 } } } });
    let refused = world
        .host
        .api(Method::PATCH, "/policies/sql", Some(wrong))
        .await?;
    ensure!(
        refused.status == 400 && refused.text.contains("typo"),
        "{}",
        refused.text
    );

    let (mut ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let call =
        async |agent: &mut Agent, sql: &str| agent.call("add_note", json!({ "text": sql })).await;
    call(&mut agent, "select 1").await?.ok()?;
    let several = call(&mut agent, "select 1; drop table t").await?;
    assert_eq!(
        several.countersign()["reason"],
        "several_statements",
        "{}",
        several.message
    );
    let writes = call(&mut agent, "delete from t").await?;
    let url = is_question(writes.countersign(), &world)?;
    ensure!(writes.text().contains("changes data"), "{}", writes.text());
    answer(&mut ada, &url, "Allow").await?;
    call(&mut agent, "delete from t").await?.ok()?;

    // Another content under a newer version waits; the approved one judges on,
    // also when its file is gone.
    let mut newer = sql_guard()?;
    newer.extend([0, 2, 1, b'x']);
    std::fs::write(folder.join("sql-guard-0.2.0.wasm"), &newer)?;
    std::fs::remove_file(folder.join("sql-guard-0.1.0.wasm"))?;
    let mut seen = Value::Null;
    for _ in 0..100 {
        seen = world.host.must(Method::GET, "/policies/sql", None).await?;
        if seen["waiting"]["version"] == "0.2.0" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(seen["waiting"]["version"], "0.2.0", "{seen}");
    assert_eq!(seen["effect"]["component"]["digest"], pinned);
    let several = call(&mut agent, "select 1; drop table t").await?;
    assert_eq!(
        several.countersign()["error"],
        "denied",
        "{}",
        several.message
    );

    // After a restart there is nothing that was approved: calls are refused.
    world.host.stop().await?;
    world.host.serve().await?;
    let reply = call(&mut agent, "select 1").await?;
    assert_eq!(
        reply.countersign()["error"],
        "preset_unavailable",
        "{}",
        reply.message
    );
    let (code, out, err) = world
        .host
        .cli(&["policy", "update", "sql", "--approve"], "")
        .await?;
    ensure!(code == 0, "{out}{err}");
    call(&mut agent, "select 1").await?.ok()?;
    assert_eq!(world.upstream.calls_of("add_note").await?, 3);
    Ok(())
}
