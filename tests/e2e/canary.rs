//! Secrets are looked for in every place where they must not be.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use countersign_tests::{Era, SDKS, Setup, Web, World};
use reqwest::Method;
use serde_json::json;

/// Shorter values would be found by chance.
const LEAST: usize = 12;

/// A secret as it is, and as it would look encoded.
fn shapes(secret: &str) -> Vec<String> {
    let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    vec![
        secret.to_owned(),
        encoded,
        BASE64_STANDARD.encode(secret),
        BASE64_STANDARD_NO_PAD.encode(secret),
    ]
}

fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else if path.extension().is_none_or(|extension| extension != "wasm") {
            found.push((path.display().to_string(), fs::read(&path)?));
        }
    }
    Ok(())
}

/// Every way in which any of the secrets could be written, by its first bytes,
/// so that a long log is gone through once.
struct Shapes<'s>(HashMap<[u8; 3], Vec<(&'s str, String)>>);

impl<'s> Shapes<'s> {
    fn of(secrets: impl IntoIterator<Item = &'s (String, String)>) -> Self {
        let mut all: HashMap<_, Vec<_>> = HashMap::new();
        for (kind, secret) in secrets {
            for shape in shapes(secret) {
                if let Some(begin) = shape.as_bytes().first_chunk::<3>() {
                    all.entry(*begin).or_default().push((kind.as_str(), shape));
                }
            }
        }
        Self(all)
    }

    /// The kinds of secrets that these bytes hold.
    fn found_in(&self, bytes: &[u8]) -> Vec<&'s str> {
        let mut first = [false; 256];
        for begin in self.0.keys() {
            first[usize::from(begin[0])] = true;
        }
        let mut found = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            if !first[usize::from(*byte)] {
                continue;
            }
            let rest = &bytes[at..];
            let Some(shapes) = rest.first_chunk::<3>().and_then(|b| self.0.get(b)) else {
                continue;
            };
            for (kind, shape) in shapes {
                if !found.contains(kind) && rest.starts_with(shape.as_bytes()) {
                    found.push(*kind);
                }
            }
        }
        found
    }
}

#[test]
fn a_secret_is_found_in_every_shape() {
    let secrets = [("it".to_owned(), "a/secret+of length".to_owned())];
    let all = Shapes::of(&secrets);
    for shape in shapes(&secrets[0].1) {
        let place = format!("before {shape} after");
        assert_eq!(all.found_in(place.as_bytes()), ["it"], "{place}");
    }
    assert!(all.found_in(b"a/secret+of another length").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_anywhere_but_where_it_belongs() -> Result<()> {
    nowhere_but_where_it_belongs("generic", &[]).await
}

/// `nosy` asks for everything, repeats all it sees, signs, and points its
/// identity at an answer that holds the token.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_gets_out_by_a_preset_that_repeats_all_it_sees() -> Result<()> {
    let told = [
        "tell-err",
        "tell-deny",
        "tell-scopes",
        "tell-panic",
        "tell-header",
    ];
    nowhere_but_where_it_belongs("nosy", &told).await
}

async fn nowhere_but_where_it_belongs(preset: &str, more_tools: &[&str]) -> Result<()> {
    let world = World::with(Setup {
        host: countersign_tests::HostOptions {
            presets: vec![preset.into()],
            // As loud as it can be.
            log: "trace,cranelift=info,wasmtime=info,regalloc2=info".into(),
            ..countersign_tests::HostOptions::default()
        },
        provider_record: json!({ "preset": preset }),
        ..Setup::default()
    })
    .await?;
    if preset == "nosy" {
        let url = url::Url::parse(world.upstream.url())?.join("/account")?;
        let settings = json!({ "settings": { "identity": url.as_str() } });
        world
            .host
            .must(Method::PATCH, "/providers/notes", Some(settings))
            .await?;
    }
    let mut agent_saw = Vec::new();

    // Good calls, in both eras, and each way of failing.
    world.provider.0.control(json!({ "access_ttl": 1 })).await?;
    let mut people = Vec::new();
    for (who, era) in [("ada", Era::Sessions), ("grace", Era::PerRequest)] {
        let (person, mut agent) = world.connected(who, era).await?;
        let tools = ["whoami", "list_notes", "echo_headers", "no_such_tool"];
        agent_saw.push(agent.tools().await?.join(" "));
        for tool in tools.iter().chain(more_tools) {
            let reply = agent.call(tool, json!({})).await?;
            agent_saw.push(format!(
                "{:?} {} {:?}",
                reply.headers, reply.message, reply.before
            ));
        }
        people.push((person, agent));
    }
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    for mode in ["500", "html", "error", "200-error", "truncated"] {
        world.provider.fail_tokens(mode, 1, "refresh_token").await?;
        let reply = people[1].1.call("whoami", json!({})).await?;
        agent_saw.push(format!("{:?} {}", reply.headers, reply.message));
    }
    for mode in ["401", "html", "truncated", "drop", "not-json", "garbage"] {
        let fault = json!({ "mode": mode, "times": 1, "method": "tools/call" });
        world.upstream.fail(fault).await?;
        let reply = people[0].1.call("whoami", json!({})).await?;
        agent_saw.push(format!("{:?} {}", reply.headers, reply.message));
    }
    // An SDK's agent, with every page it is shown.
    let password = "first-linus-password";
    let user = json!({ "name": "linus", "roles": ["user"], "password": password });
    world.host.must(Method::POST, "/users", Some(user)).await?;
    let run = SDKS[1]
        .run(
            &world.host,
            "/mcp/notes",
            &[
                "--username",
                "linus",
                "--password",
                password,
                "--new-password",
                "linus-chose-this-one",
                "--connect-username",
                "linus-at-vendor",
                "--trace",
                "--call",
                "whoami",
                "{}",
            ],
        )
        .await?;
    agent_saw.push(run.output);

    // What is secret of the vendor's: nobody but the host may have it.
    let mut vendors: Vec<(String, String)> = world.provider.secrets().await?;
    vendors.push((
        "client secret".into(),
        world.provider.0.fact("client_secret").into(),
    ));
    vendors.retain(|(_, value)| value.len() >= LEAST);
    assert!(vendors.len() > 10, "{}", vendors.len());
    // What is secret of the host's: agents and browsers have their own.
    let mut own = vec![
        ("admin token".to_owned(), world.host.admin.token.clone()),
        (
            "admin password".to_owned(),
            world.host.admin.password.clone(),
        ),
        ("password".to_owned(), password.to_owned()),
        (
            "chosen password".to_owned(),
            "linus-chose-this-one".to_owned(),
        ),
    ];
    for (person, agent) in &people {
        own.push(("agent's token".into(), agent.token.clone()));
        own.push(("agent's refresh token".into(), agent.refresh_token.clone()));
        own.push(("chosen password".into(), person.password.clone()));
        let cookies = person.browser.cookie_values();
        own.extend(
            cookies
                .into_iter()
                .map(|value| ("cookie".to_owned(), value)),
        );
    }
    own.retain(|(_, value)| value.len() >= LEAST);

    let mut places: Vec<(String, Vec<u8>)> = Vec::new();
    for path in [
        "/audit?page_size=1000",
        "/providers",
        "/servers",
        "/secrets",
        "/users",
        "/connections",
        "/tokens",
        "/presets",
    ] {
        let answer = world.host.api(Method::GET, path, None).await?;
        assert_eq!(answer.status, 200, "{path} {}", answer.text);
        places.push((format!("REST {path}"), answer.text.into_bytes()));
    }
    let metrics = Web::new()?.get(&world.host.at("/metrics")).await?;
    let metrics_status = metrics.status;
    places.push(("metrics".into(), metrics.text.into_bytes()));
    let page = people[0]
        .0
        .browser
        .open(&world.host.at("/connections"))
        .await?;
    places.push(("the connections page".into(), page.html.into_bytes()));
    for (index, text) in agent_saw.iter().enumerate() {
        places.push((format!("what agent {index} saw"), text.clone().into_bytes()));
    }
    let vendor_only = places.len();
    let log = world.host.log().text();
    if preset == "nosy" {
        // Every hook saw something, or nothing would be shown by this.
        for hook in [
            "describe",
            "evaluate",
            "authorize-parameters",
            "token-answer",
            "refresh-error",
            "sign",
            "identity",
            "filter-tools",
            "redact",
        ] {
            let line = format!("{hook} ");
            let seen = log
                .lines()
                .any(|l| l.contains("countersign::preset") && l.contains(&line));
            assert!(seen, "{hook} was not called");
        }
    }
    places.push(("the host's log".into(), log.into_bytes()));
    let mut host = world.host;
    host.stop().await?;
    places.push((
        "the host's log after its end".into(),
        host.log().text().into_bytes(),
    ));
    files(host.folder(), &mut places)?;
    assert!(
        places.iter().any(|(place, _)| place.contains("vault")),
        "the store's files"
    );

    let (of_vendor, of_all) = (Shapes::of(&vendors), Shapes::of(vendors.iter().chain(&own)));
    let mut leaks = Vec::new();
    for (index, (place, bytes)) in places.iter().enumerate() {
        let wanted = if index < vendor_only {
            &of_vendor
        } else {
            &of_all
        };
        for kind in wanted.found_in(bytes) {
            leaks.push(format!("{kind} in {place}"));
        }
    }
    leaks.sort();
    leaks.dedup();
    assert!(leaks.is_empty(), "{leaks:#?}");
    assert_eq!(metrics_status, 200, "there are no metrics to look into");
    Ok(())
}
