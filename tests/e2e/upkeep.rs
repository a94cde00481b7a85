//! Connections from their first day to their last: renewed while nobody calls,
//! asked for more, ended; and what a faulty authorization server makes of them.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use countersign_tests::{Agent, Era, HostOptions, Person, Setup, World};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

async fn looked_after() -> Result<World> {
    World::with(Setup {
        host: HostOptions {
            background: true,
            ..HostOptions::default()
        },
        ..Setup::default()
    })
    .await
}

/// Waits until the vendor has been asked to renew so often.
async fn renewed(world: &World, times: u64) -> Result<()> {
    for _ in 0..300 {
        if world.provider.token_requests("refresh_token").await? >= times {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("nothing was renewed:\n{}", world.host.log().tail(20))
}

async fn whoami(agent: &mut Agent) -> Result<()> {
    let reply = agent.call("whoami", json!({})).await?;
    ensure!(reply.text() == "ada-at-vendor", "{}", reply.message);
    Ok(())
}

async fn metrics(world: &World) -> Result<String> {
    let web = countersign_tests::Web::new()?;
    Ok(web.get(&world.host.at("/metrics")).await?.text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_while_nobody_calls_and_over_a_restart() -> Result<()> {
    let mut world = looked_after().await?;
    world
        .provider
        .0
        .control(json!({ "access_ttl": 20 }))
        .await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    renewed(&world, 1).await?;
    let label = r#"token_renewals_total{provider="notes",occasion="background",outcome="ok"}"#;
    let text = metrics(&world).await?;
    assert!(text.contains(label), "{text}");
    whoami(&mut agent).await?;

    // Ended while nothing ran: renewed before anybody calls.
    world.host.kill().await?;
    let before = world.provider.token_requests("refresh_token").await?;
    tokio::time::sleep(Duration::from_secs(21)).await;
    world.host.serve().await?;
    renewed(&world, before + 1).await?;
    whoami(&mut agent).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_is_refused_twice_is_said_and_not_asked_for_a_third_time() -> Result<()> {
    let world = World::with(Setup {
        server_record: json!({
            "wait": "2s",
            "auth": { "required_scopes": ["notes:read", "notes:write"] },
        }),
        ..Setup::default()
    })
    .await?;
    let withheld = json!({ "withhold_scopes": ["notes:write"] });
    world.provider.0.control(withheld).await?;
    let (mut ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let first = agent.call("whoami", json!({})).await?;
    assert_eq!(first.countersign()["error"], "scope_upgrade_required");
    let url = first.countersign()["authorize_url"]
        .as_str()
        .context("no authorize_url")?
        .to_owned();
    let page = ada.connect(&url).await?;
    assert!(
        page.text().contains("are refused from now on"),
        "{}",
        page.text()
    );
    let second = agent.call("whoami", json!({})).await?;
    assert_eq!(
        second.countersign()["error"],
        "denied",
        "{}",
        second.message
    );
    assert_eq!(second.countersign()["reason"], "scopes_not_granted");
    assert_eq!(second.countersign()["authorize_url"], Value::Null);
    assert!(second.text().contains("notes:write"), "{}", second.text());
    let connection = world.connection(&ada).await?;
    assert_eq!(connection["withheld_scopes"], json!(["notes:write"]));
    assert_eq!(connection["scopes"], json!(["notes:read"]));
    assert_eq!(connection["status"], "needs_scopes");

    // The user thinks better of it.
    let granted = json!({ "withhold_scopes": [] });
    world.provider.0.control(granted).await?;
    ada.connect(&world.connect_page()).await?;
    whoami(&mut agent).await?;
    let after = world.connection(&ada).await?;
    assert_eq!(after["id"], connection["id"], "it is the same one");
    assert_eq!(after["withheld_scopes"], json!([]));
    Ok(())
}

/// Tokens that the vendor was asked to revoke.
async fn revocations(world: &World) -> Result<usize> {
    let state = world.provider.0.look("").await?;
    Ok(state["revocations"].as_array().map_or(0, Vec::len))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_users_connections_are_gone_at_once_and_revoked_at_the_vendor() -> Result<()> {
    let world = World::start().await?;
    let (_ada, _agent) = world.connected("ada", Era::PerRequest).await?;
    world.host.must(Method::DELETE, "/users/ada", None).await?;
    world
        .host
        .audited(|e| e["action"] == "connection.revoked" && e["user"] == "ada")
        .await?;
    assert_eq!(revocations(&world).await?, 1);
    let provider = world
        .host
        .must(Method::GET, "/providers/notes", None)
        .await?;
    assert_eq!(provider["connections"], 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_provider_is_deleted_by_force_only_which_says_what_fails_then() -> Result<()> {
    let world = World::start().await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let (code, _, said) = world.host.cli(&["provider", "delete", "notes"], "").await?;
    assert_eq!(code, 1);
    assert!(
        said.contains("server notes") && said.contains("1 connections"),
        "{said}"
    );
    let arguments = ["provider", "delete", "notes", "--force"];
    let (code, said, error) = world.host.cli(&arguments, "").await?;
    assert_eq!(code, 0, "{error}");
    assert!(
        said.contains("These servers fail until they get another provider: notes."),
        "{said}"
    );
    assert!(said.contains("confirmed the revocation of 1"), "{said}");
    assert_eq!(revocations(&world).await?, 1);
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["error"],
        "preset_unavailable",
        "{}",
        reply.message
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ceases_to_use_its_users_accounts_asks_them_again_later() -> Result<()> {
    let world = World::start().await?;
    let (mut ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let path = "/servers/notes";
    let none = json!({ "auth": { "mode": "none", "provider": null, "required_scopes": null } });
    world.host.must(Method::PATCH, path, Some(none)).await?;
    let auth = world.server_record()["auth"].clone();
    world
        .host
        .must(Method::PATCH, path, Some(json!({ "auth": auth })))
        .await?;
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["reason"],
        "provider_changed",
        "{}",
        reply.message
    );
    ada.connect(&world.connect_page()).await?;
    whoami(&mut agent).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_from_a_terminal_waits_and_shows_the_account() -> Result<()> {
    let world = World::start().await?;
    let mut admin = Person::sign_in(
        &world.host,
        &world.host.admin.user,
        &world.host.admin.password,
    )
    .await?;
    let mut child = tokio::process::Command::new(countersign_tests::built("countersign")?)
        .arg("--config")
        .arg(world.host.config())
        .args(["connect", "notes", "--wait"])
        .env("COUNTERSIGN_URL", &world.host.url)
        .env("COUNTERSIGN_TOKEN", &world.host.admin.token)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("no stderr")?).lines();
    let url = loop {
        let line = lines.next_line().await?.context("it ended")?;
        if line.trim().starts_with("http") {
            break line.trim().to_owned();
        }
    };
    admin.connect(&url).await?;
    let mut said = String::new();
    let mut out = child.stdout.take().context("no stdout")?;
    out.read_to_string(&mut said).await?;
    assert!(child.wait().await?.success(), "{said}");
    assert!(said.contains("Connected to notes"), "{said}");
    assert!(said.contains("notes:read"), "{said}");
    Ok(())
}

/// How the vendor's token endpoint fails, once; what the call gets whose token
/// has ended, and what the next one gets.
struct Faulty {
    fault: Value,
    rotation: &'static str,
    first: &'static str,
    second: &'static str,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_faulty_authorization_server_makes_of_a_connection() -> Result<()> {
    let case = |fault, rotation, first, second| Faulty {
        fault,
        rotation,
        first,
        second,
    };
    let (ok, unavailable) = ("ok", "provider_unavailable");
    let cases = [
        // It takes too long, and nothing was renewed.
        case(json!({ "mode": "hang" }), "never", unavailable, ok),
        case(
            json!({ "mode": "hang" }),
            "always",
            "provider_error",
            "provider_error",
        ),
        // It renewed, and its answer never came, or too late: the refresh token
        // is used up, and is not sent once more where that would be noticed.
        case(
            json!({ "mode": "drop" }),
            "always",
            "provider_error",
            "provider_error",
        ),
        case(
            json!({ "mode": "truncated" }),
            "always",
            "provider_error",
            "provider_error",
        ),
        case(
            json!({ "mode": "late", "delay_ms": 4000 }),
            "always",
            "provider_error",
            "provider_error",
        ),
        // Where nothing is known of that it is tried, and the vendor has the
        // last word.
        case(
            json!({ "mode": "drop" }),
            "sometimes",
            unavailable,
            "revoked",
        ),
        // It fails clearly: nothing is lost.
        case(json!({ "mode": "500" }), "always", unavailable, ok),
        case(json!({ "mode": "html" }), "always", unavailable, ok),
        case(
            json!({ "mode": "429", "retry_after": 1 }),
            "always",
            unavailable,
            ok,
        ),
        // It answers twice, or by another clock.
        case(json!({ "mode": "twice" }), "always", ok, ok),
        case(json!({ "mode": "skew" }), "always", ok, ok),
    ];
    for Faulty {
        mut fault,
        rotation,
        first,
        second,
    } in cases
    {
        let said = format!("{fault} {rotation}");
        let world = World::with(Setup {
            provider_record: json!({
                "settings": { "rotation": rotation },
                "request_timeout": "2s",
                "max_retries": 0,
            }),
            ..Setup::default()
        })
        .await?;
        let ttl = async |seconds: u64| {
            let order = json!({ "access_ttl": seconds });
            world.provider.0.control(order).await
        };
        ttl(1).await?;
        let (mut ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
        ttl(300).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        fault["grant_type"] = "refresh_token".into();
        world
            .provider
            .0
            .control(json!({ "token_fault": fault }))
            .await?;
        for (which, expected) in [("first", first), ("second", second)] {
            let reply = agent.call("whoami", json!({})).await?;
            let object = reply.countersign();
            let got = match (object["error"].as_str(), object["reason"].as_str()) {
                (None, _) => "ok",
                (Some("oauth_token_expired"), Some(reason)) => reason,
                (Some(error), _) => error,
            };
            assert_eq!(got, expected, "{said}, {which}: {}", reply.message);
            let connection = world.connection(&ada).await?;
            let status = match got {
                "provider_error" | "revoked" => "needs_reauth",
                _ => "connected",
            };
            assert_eq!(
                connection["status"], status,
                "{said}, {which}: {connection}"
            );
            // It may have asked to be left alone.
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        if second != ok {
            ada.connect(&world.connect_page()).await?;
            whoami(&mut agent).await.context(said)?;
        }
    }
    Ok(())
}
