//! Accounts that are connected by a code which is typed at the vendor.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use countersign_tests::{Browser, Era, Page, World};
use reqwest::Method;
use serde_json::{Value, json};

/// The vendor's own browser, somewhere else: types the code as `account`.
async fn type_code(world: &World, user_code: &str, account: &str, decision: &str) -> Result<Page> {
    let mut browser = Browser::new()?;
    let device = world.provider.0.fact("issuer").to_owned() + "/device";
    let page = browser.open(&device).await?;
    let typed = [("user_code", user_code)];
    let page = browser.press(&page, "Continue", &typed).await?;
    let mut page = browser.press(&page, "Continue", &[]).await?;
    if page.asks_for("username") {
        let fields = [("username", account), ("password", "any")];
        page = browser.press(&page, "Sign in", &fields).await?;
    }
    browser.press(&page, decision, &[]).await
}

async fn world(grants: &[&str]) -> Result<World> {
    let world = World::start().await?;
    let provider = json!({
        "grant_types": grants,
        "device_authorization_endpoint": world.provider.0.fact("device_authorization_endpoint"),
        "settings": {
            "userinfo_endpoint": world.provider.0.fact("issuer").to_owned() + "/me",
        },
        // The vendor tells who it is only to the holder of a token for itself.
        "scopes": ["openid"],
        "resource": null,
    });
    world
        .host
        .must(Method::PATCH, "/providers/notes", Some(provider))
        .await?;
    let server = json!({ "connection": "shared", "auth": { "required_scopes": ["openid"] } });
    world
        .host
        .must(Method::PATCH, "/servers/notes", Some(server))
        .await?;
    Ok(world)
}

/// Looks again until the page is another one.
async fn until(browser: &mut Browser, page: Page, wanted: &str) -> Result<Page> {
    for _ in 0..30 {
        let page = browser.open(page.url.as_str()).await?;
        if page.text().contains(wanted) {
            return Ok(page);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    anyhow::bail!("{wanted:?} did not come; it says {}", page.text())
}

fn code_on(page: &Page) -> Result<String> {
    let text = page.text();
    let is_code = |w: &&[u8]| {
        let letters = w[..4].iter().chain(&w[5..]);
        w[4] == b'-' && letters.into_iter().all(u8::is_ascii_uppercase)
    };
    let code = text.as_bytes().windows(9).find(is_code);
    let code = code.with_context(|| text.clone())?;
    Ok(String::from_utf8(code.to_vec())?)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_connected_before_the_user_knows_the_account() -> Result<()> {
    let world = world(&["authorization_code", "refresh_token", "device_code"]).await?;
    let (mut ada, mut agent) = world.person("ada", Era::PerRequest).await?;
    let page = ada.browser.open(&world.connect_page()).await?;
    let page = ada.browser.press(&page, "Use a code", &[]).await?;
    let code = code_on(&page)?;
    assert!(page.headers.contains_key("refresh"));
    type_code(&world, &code, "ada-at-vendor", "Allow").await?;
    let page = until(&mut ada.browser, page, "Is this your").await?;
    assert!(page.text().contains("ada-at-vendor"), "{}", page.text());
    let connections = world.connection(&ada).await?;
    assert_eq!(connections, Value::Null, "not before his word");
    let page = ada.browser.press(&page, "Connect", &[]).await?;
    assert!(page.text().contains("Connected"), "{}", page.text());
    let reply = agent.call("whoami", json!({})).await?;
    reply.ok()?;
    assert_eq!(reply.text(), "ada-at-vendor");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_not_mine_is_given_back() -> Result<()> {
    // Without the browser's way the one button begins this.
    let world = world(&["device_code", "refresh_token"]).await?;
    let (mut ada, _agent) = world.person("ada", Era::PerRequest).await?;
    let page = ada.browser.open(&world.connect_page()).await?;
    let page = ada.browser.press(&page, "Connect", &[]).await?;
    let code = code_on(&page)?;
    type_code(&world, &code, "mallory", "Allow").await?;
    let page = until(&mut ada.browser, page, "Is this your").await?;
    assert!(page.text().contains("mallory"), "{}", page.text());
    let address = page.url.clone();
    let page = ada.browser.press(&page, "Not mine", &[]).await?;
    assert!(
        page.text().contains("Nothing was connected"),
        "{}",
        page.text()
    );
    assert_eq!(world.connection(&ada).await?, Value::Null);
    let state = world.provider.0.look("").await?;
    assert_eq!(state["revocations"][0]["status"], 200, "{state}");
    let page = ada.browser.open(address.as_str()).await?;
    assert_eq!(page.status, 410, "it is good once: {}", page.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_of_no_use_to_anybody_else_and_a_no_at_the_vendor_ends_it() -> Result<()> {
    let world = world(&["device_code", "refresh_token"]).await?;
    let (mut ada, _) = world.person("ada", Era::PerRequest).await?;
    let (mut bob, _) = world.person("bob", Era::PerRequest).await?;
    let page = ada.browser.open(&world.connect_page()).await?;
    let page = ada.browser.press(&page, "Connect", &[]).await?;
    let code = code_on(&page)?;
    let others = bob.browser.open(page.url.as_str()).await?;
    assert_eq!(others.status, 410, "{}", others.text());
    assert!(!others.text().contains(&code));
    type_code(&world, &code, "ada-at-vendor", "Deny").await?;
    let page = until(&mut ada.browser, page, "Not connected").await?;
    assert_eq!(page.status, 410, "{}", page.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_without_it_switched_on_gives_no_code() -> Result<()> {
    let world = World::start().await?;
    let (mut ada, _) = world.person("ada", Era::PerRequest).await?;
    let page = ada.browser.open(&world.connect_page()).await?;
    assert!(!page.buttons().iter().any(|b| b == "Use a code"));
    let wish = json!({ "provider": "notes" });
    let answer = world
        .host
        .api(Method::POST, "/connections/device", Some(wish))
        .await?;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(answer.text.contains("device_code"), "{}", answer.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_the_code_waits_and_asks() -> Result<()> {
    let world = world(&["authorization_code", "device_code", "refresh_token"]).await?;
    // Asked for here to learn nothing of the other: each has a code of its own.
    let (code, out, err) = world
        .host
        .cli(&["connect", "notes", "--browser"], "")
        .await?;
    ensure!(code == 0 && out.contains("/connect/notes"), "{out}{err}");

    let connect = world.host.cli(&["connect", "notes"], "yes\n");
    let vendor = async {
        // What the terminal shows is what the vendor was asked for last.
        for _ in 0..200 {
            let state = world.provider.0.look("").await?;
            if let Some(code) = state["user_codes"].as_array().and_then(|c| c.last()) {
                let code = code.as_str().unwrap_or_default().to_owned();
                type_code(&world, &code, "admin-at-vendor", "Allow").await?;
                return Ok(code);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("the vendor was not asked for a code")
    };
    let ((code, out, err), typed) = tokio::try_join!(connect, vendor)?;
    ensure!(code == 0, "{out}{err}");
    assert!(err.contains(&typed), "{err}");
    assert!(err.contains("admin-at-vendor"), "{err}");
    let list = world.host.must(Method::GET, "/connections", None).await?;
    assert_eq!(list["items"][0]["account"]["id"], "admin-at-vendor");
    Ok(())
}
