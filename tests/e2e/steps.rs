//! What a call gets when its user has to do something first: every case, on
//! every carrier.

use anyhow::{Context, Result, ensure};
use countersign_tests::{Agent, Era, Person, Reply, Setup, World};
use serde_json::{Value, json};

/// Why a call cannot go through yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    /// Nothing is connected.
    NoConnection,
    /// What is connected lacks a scope that the server demands.
    FewScopes,
    /// The vendor took the grant back.
    Expired,
}

const CASES: [Case; 3] = [Case::NoConnection, Case::FewScopes, Case::Expired];

impl Case {
    fn error(self) -> &'static str {
        match self {
            Self::NoConnection => "oauth_connection_required",
            Self::FewScopes => "scope_upgrade_required",
            Self::Expired => "oauth_token_expired",
        }
    }

    /// A world in which a call of this person meets the case.
    async fn world(self, wait: &str, era: Era) -> Result<(World, Person, Agent)> {
        let world = World::with(Setup {
            server_record: json!({
                "wait": wait,
                "auth": { "required_scopes": ["notes:read", "notes:write"] },
            }),
            ..Setup::default()
        })
        .await?;
        let (mut ada, agent) = world.person("ada", era).await?;
        match self {
            Self::NoConnection => {}
            Self::FewScopes => {
                let withheld = json!({ "withhold_scopes": ["notes:write"] });
                world.provider.0.control(withheld).await?;
                ada.connect(&world.connect_page()).await?;
                let granted = json!({ "withhold_scopes": [] });
                world.provider.0.control(granted).await?;
            }
            Self::Expired => {
                world.provider.0.control(json!({ "access_ttl": 1 })).await?;
                ada.connect(&world.connect_page()).await?;
                world
                    .provider
                    .0
                    .control(json!({ "access_ttl": 300 }))
                    .await?;
                world
                    .provider
                    .0
                    .control(json!({ "revoke_user": ada.account }))
                    .await?;
            }
        }
        Ok((world, ada, agent))
    }

    fn check(self, object: &Value) -> Result<String> {
        ensure!(object["error"] == self.error(), "{self:?}: {object}");
        ensure!(
            object["provider"] == "notes" && object["server"] == "notes",
            "{object}"
        );
        ensure!(object["call_id"].is_string(), "{object}");
        if self == Self::FewScopes {
            ensure!(object["scopes"] == json!(["notes:write"]), "{object}");
        }
        if self == Self::Expired {
            ensure!(object["reason"] == "revoked", "{object}");
        }
        let url = object["authorize_url"]
            .as_str()
            .context("no authorize_url")?;
        Ok(url.to_owned())
    }
}

fn is_whoami(reply: &Reply) -> Result<()> {
    ensure!(
        reply.text() == "ada-at-vendor",
        "{} {}",
        reply.status,
        reply.message
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_elicitation_gets_a_text_for_its_model_and_the_object_in_meta()
-> Result<()> {
    for case in CASES {
        for era in Era::ALL {
            let (_world, mut ada, agent) = case.world("2s", era).await?;
            let mut agent = agent.ready().await?;
            let reply = agent.call("whoami", json!({})).await?;
            assert_eq!(reply.status, 200, "{case:?} {era:?} {}", reply.message);
            let result = &reply.message["result"];
            assert_eq!(
                result["isError"], true,
                "{case:?} {era:?} {}",
                reply.message
            );
            let url = case.check(&result["_meta"]["countersign"])?;
            assert!(reply.text().contains(&url), "{}", reply.text());
            ada.connect(&url).await?;
            is_whoami(&agent.call("whoami", json!({})).await?)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2026_the_call_asks_for_input_and_its_retry_goes_through_after_consent() -> Result<()> {
    for case in CASES {
        let (world, mut ada, agent) = case.world("20s", Era::PerRequest).await?;
        let mut agent = agent.with_url_elicitation();
        let first = agent.call("whoami", json!({})).await?;
        let result = &first.message["result"];
        assert_eq!(
            result["resultType"], "input_required",
            "{case:?} {}",
            first.message
        );
        let requests = result["inputRequests"]
            .as_object()
            .context("no inputRequests")?;
        let (key, request) = requests.iter().next().context("empty inputRequests")?;
        assert_eq!(request["method"], "elicitation/create");
        assert_eq!(request["params"]["mode"], "url");
        let url = request["params"]["url"]
            .as_str()
            .context("no url")?
            .to_owned();
        assert!(url.starts_with(&world.host.at("/connect/notes")), "{url}");

        let params = json!({
            "name": "whoami", "arguments": {},
            "requestState": result["requestState"],
            "inputResponses": { key: { "action": "accept" } },
        });
        // As official clients do: the retry comes at once, and is held.
        let message = agent.message("tools/call", params);
        let held = tokio::spawn(async move { agent.exchange(&message).await });
        ada.connect(&url).await?;
        is_whoami(&held.await??)?;

        // Our part of the answers is not the upstream's business.
        for seen in world.upstream.requests().await? {
            assert!(seen["params"].get("inputResponses").is_none(), "{seen}");
            assert!(seen["params"].get("requestState").is_none(), "{seen}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2026_a_user_who_declines_ends_the_call_as_an_error_of_the_tool() -> Result<()> {
    for action in ["decline", "cancel"] {
        let (_world, _ada, agent) = Case::NoConnection.world("5s", Era::PerRequest).await?;
        let mut agent = agent.with_url_elicitation();
        let first = agent.call("whoami", json!({})).await?;
        let result = first.message["result"].clone();
        let key = result["inputRequests"]
            .as_object()
            .and_then(|requests| requests.keys().next().cloned())
            .context("no inputRequests")?;
        let params = json!({
            "name": "whoami", "arguments": {},
            "requestState": result["requestState"],
            "inputResponses": { key: { "action": action } },
        });
        let reply = agent.ask("tools/call", params).await?;
        assert_eq!(
            reply.message["result"]["isError"], true,
            "{action} {}",
            reply.message
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2026_a_request_state_is_bound_to_its_user_and_its_call() -> Result<()> {
    let (world, _ada, agent) = Case::NoConnection.world("1s", Era::PerRequest).await?;
    let mut agent = agent.with_url_elicitation();
    let (_, other) = world.person("mallory", Era::PerRequest).await?;
    let mut other = other.with_url_elicitation();
    let first = agent.call("whoami", json!({})).await?;
    let state = first.message["result"]["requestState"].clone();
    let key = first.message["result"]["inputRequests"]
        .as_object()
        .and_then(|requests| requests.keys().next().cloned())
        .context("no inputRequests")?;
    let retry = |tool: &str, state: &Value| {
        json!({
            "name": tool, "arguments": {},
            "requestState": state, "inputResponses": { key.clone(): { "action": "accept" } },
        })
    };
    let stolen = other.ask("tools/call", retry("whoami", &state)).await?;
    assert!(stolen.message["error"].is_object(), "{}", stolen.message);
    let moved = agent.ask("tools/call", retry("list_notes", &state)).await?;
    assert!(moved.message["error"].is_object(), "{}", moved.message);
    let mut text = state.as_str().context("no requestState")?.to_owned();
    let last = text.pop();
    text.push(if last == Some('A') { 'B' } else { 'A' });
    let forged = agent
        .ask("tools/call", retry("whoami", &json!(text)))
        .await?;
    assert!(forged.message["error"].is_object(), "{}", forged.message);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2025_the_call_is_held_and_goes_on_by_itself_after_consent() -> Result<()> {
    for case in CASES {
        let (_world, mut ada, agent) = case.world("30s", Era::Sessions).await?;
        let mut agent = agent.with_url_elicitation().ready().await?;
        let (id, mut held) = agent
            .open("tools/call", json!({ "name": "whoami", "arguments": {} }))
            .await?;
        let asked = held.next().await?.context("nothing came on the stream")?;
        assert_eq!(asked["method"], "elicitation/create", "{case:?} {asked}");
        assert_eq!(asked["params"]["mode"], "url");
        let url = asked["params"]["url"]
            .as_str()
            .context("no url")?
            .to_owned();
        let accepted = agent
            .answer(&asked["id"], json!({ "action": "accept" }))
            .await?;
        assert_eq!(accepted.status, 202, "{}", accepted.text);
        ada.connect(&url).await?;
        let reply = held.reply(&id).await?;
        is_whoami(&reply)?;
        assert!(
            reply
                .before
                .iter()
                .all(|m| m["method"] != "notifications/progress"),
            "progress without a token: {:?}",
            reply.before
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2025_after_the_wait_comes_32042_and_later_the_completion() -> Result<()> {
    for case in CASES {
        let (_world, mut ada, agent) = case.world("1s", Era::Sessions).await?;
        let mut agent = agent.with_url_elicitation().ready().await?;
        let reply = agent.call("whoami", json!({})).await?;
        let error = &reply.message["error"];
        assert_eq!(error["code"], -32042, "{case:?} {}", reply.message);
        let url = case.check(&error["data"]["countersign"])?;
        let elicitations = error["data"]["elicitations"]
            .as_array()
            .context("no elicitations")?;
        assert_eq!(elicitations[0]["mode"], "url");
        assert!(elicitations[0]["elicitationId"].is_string());
        let shown = elicitations[0]["url"].as_str().unwrap_or_default();
        assert!(shown.contains("/connect/notes"), "{shown} {url}");
        ada.connect(shown).await?;
        is_whoami(&agent.call("whoami", json!({})).await?)?;
    }
    Ok(())
}

/// Reads the session's listening stream, opening it again whenever it ends,
/// until a message of this method comes.
async fn heard(agent: &Agent, methods: &[&str]) -> Result<Vec<Value>> {
    let mut heard: Vec<Value> = Vec::new();
    for _ in 0..30 {
        let request = agent
            .bare(reqwest::Method::GET)
            .header("mcp-protocol-version", agent.era.revision());
        let mut stream = countersign_tests::Events::of(request.send().await?);
        ensure!(stream.status() == 200, "GET: {}", stream.status());
        while let Some(message) = stream.next().await? {
            heard.push(message);
            if methods
                .iter()
                .all(|method| heard.iter().any(|m| m["method"] == *method))
            {
                return Ok(heard);
            }
        }
    }
    anyhow::bail!("not all of {methods:?} came: {heard:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2025_who_listens_hears_of_the_end_after_the_call_gave_up() -> Result<()> {
    let told = [
        "notifications/elicitation/complete",
        "notifications/tools/list_changed",
    ];
    for case in CASES {
        let (_world, mut ada, agent) = case.world("1s", Era::Sessions).await?;
        let mut agent = agent.with_url_elicitation().ready().await?;
        let reply = agent.call("whoami", json!({})).await?;
        let error = &reply.message["error"];
        assert_eq!(error["code"], -32042, "{case:?} {}", reply.message);
        let asked = error["data"]["elicitations"][0].clone();
        let url = asked["url"].as_str().context("no url")?.to_owned();
        let listening = tokio::spawn(async move { heard(&agent, &told).await });
        // It may listen before or after its user is done.
        if case == Case::NoConnection {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        ada.connect(&url).await?;
        let heard = listening.await??;
        let complete = heard
            .iter()
            .find(|message| message["method"] == told[0])
            .context("no completion")?;
        assert_eq!(
            complete["params"]["elicitationId"], asked["elicitationId"],
            "{case:?} {complete}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_will_be_asked_for_is_said_where_nothing_is_connected() -> Result<()> {
    let (_world, _ada, agent) = Case::NoConnection.world("1s", Era::PerRequest).await?;
    let mut agent = agent.ready().await?;
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["scopes"],
        json!(["notes:read", "notes:write"]),
        "{}",
        reply.message
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2025_who_declines_is_not_held_any_longer() -> Result<()> {
    let (_world, _ada, agent) = Case::NoConnection.world("60s", Era::Sessions).await?;
    let mut agent = agent.with_url_elicitation().ready().await?;
    let (id, mut held) = agent
        .open("tools/call", json!({ "name": "whoami", "arguments": {} }))
        .await?;
    let asked = held.next().await?.context("nothing came on the stream")?;
    agent
        .answer(&asked["id"], json!({ "action": "decline" }))
        .await?;
    let reply = held.reply(&id).await?;
    assert_eq!(
        reply.message["result"]["isError"], true,
        "{}",
        reply.message
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tool_call_gets_a_json_rpc_error() -> Result<()> {
    for era in Era::ALL {
        let (_world, _ada, agent) = Case::NoConnection.world("1s", era).await?;
        let mut agent = agent.ready().await?;
        let reply = agent
            .ask("resources/read", json!({ "uri": "notes://mine" }))
            .await?;
        assert_eq!(
            reply.message["error"]["code"], -31001,
            "{era:?} {}",
            reply.message
        );
        Case::NoConnection.check(&reply.message["error"]["data"]["countersign"])?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_connected_sees_one_tool_that_connects() -> Result<()> {
    for era in Era::ALL {
        let (_world, mut ada, agent) = Case::NoConnection.world("1s", era).await?;
        let mut agent = agent.ready().await?;
        assert_eq!(agent.tools().await?, ["connect_notes"], "{era:?}");
        let reply = agent.call("connect_notes", json!({})).await?;
        let url = Case::NoConnection.check(reply.countersign())?;
        ada.connect(&url).await?;
        let tools = agent.tools().await?;
        assert!(
            tools.iter().any(|tool| tool == "whoami"),
            "{era:?} {tools:?}"
        );
        assert!(
            !tools.iter().any(|tool| tool == "connect_notes"),
            "{era:?} {tools:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_tool_is_an_error_of_the_tool_with_its_code() -> Result<()> {
    let world = World::with(Setup {
        server_record: json!({ "tools": { "deny": ["add_*"] } }),
        ..Setup::default()
    })
    .await?;
    for (era, who) in [(Era::Sessions, "ada"), (Era::PerRequest, "grace")] {
        let (_person, mut agent) = world.connected(who, era).await?;
        assert!(!agent.tools().await?.iter().any(|tool| tool == "add_note"));
        let reply = agent.call("add_note", json!({ "text": "x" })).await?;
        assert_eq!(
            reply.message["result"]["isError"], true,
            "{}",
            reply.message
        );
        assert_eq!(reply.countersign()["error"], "denied", "{}", reply.message);
    }
    assert_eq!(world.upstream.calls_of("add_note").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstreams_insufficient_scope_is_a_scope_upgrade() -> Result<()> {
    let world = World::start().await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let fault =
        json!({ "mode": "403", "scope": "notes:admin", "times": 1, "method": "tools/call" });
    world.upstream.fail(fault).await?;
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["error"],
        "scope_upgrade_required",
        "{}",
        reply.message
    );
    assert_eq!(
        reply.countersign()["scopes"],
        json!(["notes:admin"]),
        "{}",
        reply.message
    );
    assert!(reply.headers.get("www-authenticate").is_none());
    is_whoami(&agent.call("whoami", json!({})).await?)?;
    Ok(())
}
