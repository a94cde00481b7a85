//! The key-encryption keys, as an operator meets them: where they come from,
//! and going over to another one while the host serves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, Result};
use countersign_tests::{Host, HostOptions};
use reqwest::Method;
use serde_json::{Value, json};

fn source(host: &Host, source: &str) -> Result<()> {
    let source: toml::Table = format!("source = {source}").parse()?;
    host.configure(|config| {
        config["keys"] = source.into();
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_source_opens_the_store_and_says_clearly_why_it_does_not() -> Result<()> {
    let mut host = Host::start(&HostOptions::default()).await?;
    host.stop().await?;
    let file = host.folder().join("data/master.key");
    let key = fs::read_to_string(&file)?;
    let path = file.display().to_string();
    let folder = host.folder().display().to_string();
    fs::write(host.folder().join("credential"), &key)?;
    let hush = "hush-from-the-key-service";
    let command = |script: &str| format!("{{ command = [\"sh\", \"-c\", {script:?}] }}");
    let short = "echo MTIzNDU2Nzg5MDEyMzQ1Ng==";
    let weak = format!("echo {}", "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=");
    let cases = [
        (format!("{{ file = {path:?} }}"), ""),
        ("{ env = \"CS_TEST_KEY\" }".into(), ""),
        (format!("{{ command = [\"cat\", {path:?}] }}"), ""),
        ("{ systemd = \"credential\" }".into(), ""),
        ("{ env = \"CS_NO_KEY\" }".into(), "CS_NO_KEY holds no key"),
        ("{ systemd = \"other\" }".into(), "cannot use key file"),
        ("{ file = \"nowhere\" }".into(), "countersign init"),
        (command("exit 3"), "exit status: 3"),
        (
            command(&format!("echo {hush} >&2; exit 1")),
            "run it by hand",
        ),
        (command(&format!("echo {hush}")), "not base64"),
        (command(short), "exactly 32 bytes"),
        (command(&weak), "not random"),
    ];
    for (text, expected) in cases {
        source(&host, &text)?;
        let environment = [
            ("CS_TEST_KEY", key.trim()),
            ("CREDENTIALS_DIRECTORY", folder.as_str()),
        ];
        let (code, out, error) = host.cli_with(&environment, &["check"], "").await?;
        let said = format!("{out}{error}");
        assert_eq!(code == 0, expected.is_empty(), "{text}: {said}");
        assert!(said.contains(expected), "{text}: {said}");
        assert!(!said.contains(hush), "{text}: {said}");
        assert!(!said.contains(key.lines().last().unwrap_or_default()));
    }
    source(&host, &format!("{{ file = {path:?} }}"))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    let (code, out, _) = host.cli(&["check"], "").await?;
    assert!(code == 1 && out.contains("chmod 600"), "{out}");
    Ok(())
}

async fn secrets(host: &Host) -> Result<usize> {
    let list = host
        .must(Method::GET, "/secrets?page_size=1000", None)
        .await?;
    Ok(list["items"].as_array().map_or(0, Vec::len))
}

async fn json(host: &Host, arguments: &[&str]) -> Result<Value> {
    let arguments = [&["--output", "json"], arguments].concat();
    let (code, out, error) = host.cli(&arguments, "").await?;
    anyhow::ensure!(code == 0, "{arguments:?}: {out}{error}");
    serde_json::from_str(&out).context(out)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_online_and_the_old_one_is_needed_until_nothing_uses_it() -> Result<()> {
    let mut host = Host::start(&HostOptions::default()).await?;
    for n in 0..40 {
        let path = format!("/secrets/S{n}");
        let value = json!({"value": format!("v{n}")});
        host.must(Method::PUT, &path, Some(value)).await?;
    }
    let made = host.folder().join("data/second.key");
    let made = made.display().to_string();
    let new = json(&host, &["key", "new", &made]).await?["id"].clone();
    let keys = json(&host, &["key", "list"]).await?;
    let old = keys["items"][0]["id"].clone();
    assert_eq!(keys["total_size"], 1, "{keys}");
    let lone = format!("{{ file = {made:?} }}");
    let both = format!("{lone}\nold = [{{ file = \"data/master.key\" }}]");

    // A key in use that is not configured: refused, and nothing has changed.
    source(&host, &lone)?;
    let (code, _, error) = host.cli(&["key", "rotate"], "").await?;
    assert!(code == 1 && error.contains("[keys]"), "{error}");
    let (code, out, _) = host.cli(&["check"], "").await?;
    assert!(code == 0, "the running host has the store: {out}");

    // No restart.
    source(&host, &both)?;
    let rotated = json(&host, &["key", "rotate"]).await?;
    assert_eq!(rotated["state"], "done", "{rotated}");
    assert_eq!(rotated["key"], new);
    let keys = json(&host, &["key", "status"]).await?;
    let item = |n: usize| &keys["items"][n];
    assert_eq!((&item(0)["id"], &item(0)["seals"]), (&new, &json!(true)));
    assert_eq!((&item(1)["id"], &item(1)["records"]), (&old, &json!(0)));
    assert_eq!(item(1)["required"], false);
    let (_, table, _) = host.cli(&["key", "list"], "").await?;
    assert!(table.contains("nothing uses it"), "{table}");
    let events = host.audit("action = \"key.rotated\"").await?;
    assert_eq!(events[0]["outcome"], "allowed");
    assert_eq!(
        events[0]["resource"],
        format!("key:{}", new.as_str().unwrap_or_default())
    );

    // The old one is needed no more, and of no use any more.
    source(&host, &lone)?;
    host.kill().await?;
    host.serve().await?;
    assert_eq!(secrets(&host).await?, 40);
    host.stop().await?;
    source(&host, "{ file = \"data/master.key\" }")?;
    let (code, _, error) = host.cli(&["serve"], "").await?;
    let needed = new.as_str().unwrap_or_default();
    assert!(code == 1 && error.contains(needed), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_killed_goes_on_by_itself() -> Result<()> {
    let mut host = Host::start(&HostOptions::default()).await?;
    let mut writes = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let (url, token) = (host.at("/api/v1/secrets"), host.admin.token.clone());
        writes.spawn(async move {
            let web = countersign_tests::Web::new()?;
            for n in 0..100 {
                let request = web
                    .request(Method::PUT, &format!("{url}/S{writer}_{n}"))
                    .bearer_auth(&token)
                    .json(&json!({"value": "v"}));
                countersign_tests::Web::send(request).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(done) = writes.join_next().await {
        done??;
    }
    let made = host.folder().join("data/second.key").display().to_string();
    json(&host, &["key", "new", &made]).await?;
    source(
        &host,
        &format!("{{ file = {made:?} }}\nold = [{{ file = \"data/master.key\" }}]"),
    )?;
    json(&host, &["key", "rotate", "--no-wait"]).await?;
    host.kill().await?;
    host.serve().await?;
    // Whatever it was doing: it comes to its end without being asked again.
    let mut others = u64::MAX;
    for _ in 0..100 {
        let keys = json(&host, &["key", "list"]).await?;
        let items = keys["items"].as_array().cloned().unwrap_or_default();
        let old = items.iter().filter(|key| key["role"] != "current");
        others = old.filter_map(|key| key["records"].as_u64()).sum();
        if others == 0 && items.iter().all(|key| key["required"] == key["seals"]) {
            break;
        }
        if keys["items"][0]["seals"] == json!(false) {
            // Killed before the first step.
            json(&host, &["key", "rotate"]).await?;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!(others, 0);
    host.stop().await?;
    source(&host, &format!("{{ file = {made:?} }}"))?;
    host.serve().await?;
    assert_eq!(secrets(&host).await?, 400);
    Ok(())
}
