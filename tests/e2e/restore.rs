//! Backup, restore and salvage, with real people connected to a real vendor.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use countersign_tests::{Era, Host, HostOptions, Person, World};
use reqwest::Method;
use serde_json::{Value, json};

async fn run(host: &Host, arguments: &[&str]) -> Result<Value> {
    let arguments = [&["--output", "json"], arguments].concat();
    let (code, out, error) = host.cli(&arguments, "").await?;
    anyhow::ensure!(code == 0, "{arguments:?}: {out}{error}");
    serde_json::from_str(&out).context(out)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_is_a_new_epoch_in_which_nothing_withdrawn_lives() -> Result<()> {
    let mut world = World::start().await?;
    let (mut ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let (grace, _) = world.connected("grace", Era::PerRequest).await?;
    let file = world.host.folder().join("backup");
    let file = file.display().to_string();
    // While it serves.
    let call = agent.call("whoami", json!({}));
    let arguments = ["backup", file.as_str()];
    let (made, reply) = tokio::join!(run(&world.host, &arguments), call);
    made?;
    assert_eq!(reply?.text(), "ada-at-vendor");
    let told = run(&world.host, &["backup", "verify", &file]).await?;
    assert_eq!(told["is_complete"], true, "{told}");
    assert_eq!(told["kinds"]["connection"], 2, "{told}");
    let events = world.host.audit("action = \"backup.created\"").await?;
    assert_eq!(events[0]["user"], "admin");
    // Never over another file, and of use to nobody without the key.
    let (code, _, error) = world.host.cli(&["backup", &file], "").await?;
    assert!(code == 1 && error.contains("exists already"), "{error}");
    let bytes = fs::read(&file)?;
    for hush in ["ada-at-vendor", "notes:read", "cs_api_"] {
        assert!(!bytes.windows(hush.len()).any(|w| w == hush.as_bytes()));
    }
    // Grace withdraws hers after the backup.
    world
        .host
        .must(Method::DELETE, "/users/grace", None)
        .await?;
    // Not beside a running host, not over a store in use.
    let (code, _, error) = world.host.cli(&["restore", &file, "--force"], "").await?;
    assert!(code == 1 && error.contains("in use"), "{error}");
    world.host.stop().await?;
    let (code, _, error) = world.host.cli(&["restore", &file], "").await?;
    assert!(code == 1 && error.contains("--salvage"), "{error}");
    let report = run(&world.host, &["restore", &file, "--force"]).await?;
    assert!(report["deleted_since"].as_u64() >= Some(2), "{report}");
    world.host.serve().await?;

    // The epoch before is void: the token, the browser, the agent.
    let old = world.host.api(Method::GET, "/servers", None).await?;
    assert_eq!(old.status, 401);
    let page = ada.browser.open(&world.host.at("/connections")).await?;
    assert!(page.asks_for("password"), "{}", page.text());
    assert!(agent.call("whoami", json!({})).await?.status == 401);
    // People and their accounts are there; who was deleted is not.
    let mut admin = Person::sign_in(&world.host, "admin", &world.host.admin.password).await?;
    let page = admin.browser.open(&world.host.at("/connections")).await?;
    assert!(!page.asks_for("password"));
    assert!(
        Person::sign_in(&world.host, "grace", &grace.password)
            .await
            .is_err()
    );
    let again = Person::sign_in(&world.host, "ada", &ada.password).await?;
    // As she left it: the replaced store was read to its end.
    let connection = world.connection(&again).await?;
    assert_eq!(connection["status"], "connected", "{connection}");
    ada = again;
    let mut agent =
        countersign_tests::Agent::sign_in(&world.host, &mut ada, "/mcp/notes", Era::PerRequest)
            .await?
            .ready()
            .await?;
    assert_eq!(
        agent.call("whoami", json!({})).await?.text(),
        "ada-at-vendor"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_another_machine_connections_that_may_have_been_refreshed_since_are_asked_for_again()
-> Result<()> {
    let mut world = World::start().await?;
    let (ada, _) = world.connected("ada", Era::PerRequest).await?;
    let file = world.host.folder().join("backup").display().to_string();
    run(&world.host, &["backup", &file]).await?;
    world.host.stop().await?;
    // Another machine has the key, and nothing else.
    let vault = world.host.folder().join("data/vault");
    fs::rename(&vault, world.host.folder().join("gone"))?;
    let report = run(&world.host, &["restore", &file]).await?;
    assert_eq!(report["kept"], 0, "{report}");
    assert!(report["voided"].as_u64() > Some(0), "{report}");
    world.host.serve().await?;
    let ada = Person::sign_in(&world.host, "ada", &ada.password).await?;
    let connection = world.connection(&ada).await?;
    assert_eq!(connection["status"], "needs_reauth", "{connection}");
    assert_eq!(connection["reason"], "expired", "{connection}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_named_at_start_and_salvaged_with_the_last_backup() -> Result<()> {
    let mut host = Host::start(&HostOptions::default()).await?;
    let put = async |host: &Host, name: String| {
        let value = json!({"value": "v"});
        host.must(Method::PUT, &format!("/secrets/{name}"), Some(value))
            .await
    };
    for n in 0..60 {
        put(&host, format!("BEFORE{n}")).await?;
    }
    let file = host.folder().join("backup").display().to_string();
    run(&host, &["backup", &file]).await?;
    for n in 0..60 {
        put(&host, format!("AFTER{n}")).await?;
    }
    host.stop().await?;
    let vault = host.folder().join("data/vault");
    let sound = host.folder().join("sound");
    copy(&vault, &sound)?;
    let database = fs::read(vault.join("sled/db"))?;
    let used = database.iter().rposition(|b| *b != 0).unwrap_or_default();
    let mut kept = 0;
    for (n, harm) in ["a bit", "a page", "the end", "all"]
        .into_iter()
        .enumerate()
    {
        fs::remove_dir_all(&vault)?;
        copy(&sound, &vault)?;
        let mut bytes = database.clone();
        let at = used * (n + 1) / 4;
        match harm {
            "a bit" => bytes[at] ^= 4,
            "a page" => bytes[at..at + 4096].fill(0xAA),
            "the end" => bytes.truncate(used / 2),
            _ => bytes.fill(0x55),
        }
        fs::write(vault.join("sled/db"), bytes)?;
        let (code, out, error) = host.cli(&["check"], "").await?;
        let said = format!("{out}{error}");
        let is_named = ["damaged", "lost", "cut short", "cannot be read", "missing"];
        // A bit may lie where nothing is.
        if code == 0 {
            assert_eq!(harm, "a bit", "{said}");
        } else {
            assert!(
                is_named.iter().any(|word| said.contains(word)),
                "{harm}: {said}"
            );
        }
        let report = run(&host, &["restore", &file, "--salvage"]).await?;
        let replaced = report["replaced"].as_str().context("nothing was kept")?;
        assert!(Path::new(replaced).join("sled/db").exists(), "{report}");
        kept += report["kept"].as_u64().unwrap_or_default();
        host.serve().await?;
        let mut admin = Person::sign_in(&host, "admin", &host.admin.password).await?;
        let page = admin.browser.open(&host.at("/connections")).await?;
        assert!(!page.asks_for("password"), "{harm}");
        host.stop().await?;
        // Everything that the backup has is there.
        let again = host
            .folder()
            .join(format!("again {n}"))
            .display()
            .to_string();
        let (code, _, error) = host.cli(&["backup", "--offline", &again], "").await?;
        assert_eq!(code, 0, "{error}");
        let told = run(&host, &["backup", "verify", &again]).await?;
        assert!(
            told["kinds"]["secret"].as_u64() >= Some(60),
            "{harm}: {told}"
        );
        assert_eq!(told["is_complete"], true);
    }
    assert!(kept > 0, "nothing was ever kept");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_is_wrong_and_what_to_do() -> Result<()> {
    let mut world = World::start().await?;
    let statuses = |found: &Value, status: &str| -> Vec<String> {
        let items = found["items"].as_array().cloned().unwrap_or_default();
        let wanted = items.into_iter().filter(|f| f["status"] == status);
        wanted.map(|f| f.to_string()).collect()
    };
    // Beside the running host, which it asks.
    let found = run(&world.host, &["doctor"]).await?;
    assert_eq!(statuses(&found, "problem"), Vec::<String>::new());
    let edit = json!({"client_secret_ref": "NOT_SET"});
    let refused = world
        .host
        .api(Method::PATCH, "/providers/notes", Some(edit))
        .await?;
    assert!(refused.status >= 400);
    let edit = json!({"enabled": false});
    world
        .host
        .must(Method::PATCH, "/providers/notes", Some(edit))
        .await?;
    let (code, out, _) = world.host.cli(&["doctor"], "").await?;
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("server notes") && out.contains("is disabled"),
        "{out}"
    );
    assert!(
        out.contains("countersign provider update notes --enabled"),
        "{out}"
    );
    // Without a token it says what it could not see.
    let (_, out, _) = world
        .host
        .cli_with(&[("COUNTERSIGN_TOKEN", "cs_api_wrong")], &["doctor"], "")
        .await?;
    assert!(out.contains("doctor_run"), "{out}");
    // And on the stopped one.
    world.host.stop().await?;
    let (code, out, _) = world.host.cli(&["doctor"], "").await?;
    assert!(code == 1 && out.contains("is disabled"), "{out}");
    let key = world.host.folder().join("data/master.key");
    fs::rename(&key, world.host.folder().join("elsewhere"))?;
    let (code, out, _) = world.host.cli(&["doctor"], "").await?;
    assert!(
        code == 1 && out.contains("put it back from its copy"),
        "{out}"
    );
    Ok(())
}
