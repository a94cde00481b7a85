//! A crash in the middle of writing loses nothing that was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use countersign_tests::{Era, Host, HostOptions, Web, World};
use reqwest::Method;
use serde_json::json;

const ROUNDS: usize = 12;
const WRITERS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_sigkill() -> Result<()> {
    let mut host = Host::start(&HostOptions::default()).await?;
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (stop, url, token) = (
                    Arc::clone(&stop),
                    host.at("/api/v1/secrets"),
                    host.admin.token.clone(),
                );
                tokio::spawn(async move {
                    let Ok(web) = Web::new() else {
                        return Vec::new();
                    };
                    let mut done = Vec::new();
                    for number in 0.. {
                        let name = format!("S{round}_{writer}_{number}");
                        let request = web
                            .request(Method::PUT, &format!("{url}/{name}"))
                            .bearer_auth(&token)
                            .json(&json!({ "value": name }));
                        match Web::send(request).await {
                            Ok(answer) if answer.status < 300 => done.push(name),
                            // Killed in the middle: not acknowledged.
                            _ => return done,
                        }
                        if stop.load(Ordering::Relaxed) {
                            return done;
                        }
                    }
                    done
                })
            })
            .collect();
        // A different moment each time.
        tokio::time::sleep(Duration::from_millis(80 + 37 * round as u64)).await;
        host.kill().await?;
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            acknowledged.extend(writer.await?);
        }
        host.serve().await?;
    }
    assert!(
        acknowledged.len() > ROUNDS,
        "only {} writes",
        acknowledged.len()
    );
    let mut present = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("/secrets?page_size=1000&page_token={token}");
        let list = host.must(Method::GET, &path, None).await?;
        for item in list["items"].as_array().into_iter().flatten() {
            present.push(item["name"].as_str().unwrap_or_default().to_owned());
        }
        token = list["next_page_token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if token.is_empty() {
            break;
        }
    }
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|name| !present.contains(name))
        .collect();
    assert!(
        lost.is_empty(),
        "lost {} of {}: {lost:?}",
        lost.len(),
        acknowledged.len()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_tokens_and_connections_outlive_a_crash() -> Result<()> {
    let mut world = World::start().await?;
    let (mut ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let (_grace, mut session) = world.connected("grace", Era::Sessions).await?;
    assert_eq!(
        agent.call("whoami", json!({})).await?.text(),
        "ada-at-vendor"
    );
    assert_eq!(
        session.call("whoami", json!({})).await?.text(),
        "grace-at-vendor"
    );
    world.host.kill().await?;
    world.host.serve().await?;
    assert_eq!(
        agent.call("whoami", json!({})).await?.text(),
        "ada-at-vendor"
    );
    assert_eq!(
        session.call("whoami", json!({})).await?.text(),
        "grace-at-vendor"
    );
    let page = ada.browser.open(&world.host.at("/connections")).await?;
    assert!(
        page.text().contains("Notes"),
        "signed out by a crash: {}",
        page.text()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_store_is_refused() -> Result<()> {
    let host = Host::start(&HostOptions::default()).await?;
    host.configure(|config| {
        config["server"]["listen"] = "127.0.0.1:1".into();
    })?;
    let (code, _, error) = host.cli(&["serve"], "").await?;
    assert_eq!(code, 1, "{error}");
    Ok(())
}
