//! What somebody with an account, a token or a web site tries, and does not get.

use anyhow::{Context, Result};
use countersign_tests::{Agent, Era, Person, Web, World};
use reqwest::Method;
use serde_json::{Value, json};

/// A second server of the world's provider.
async fn second(world: &World) -> Result<()> {
    let mut record = world.server_record();
    record["name"] = "second".into();
    world
        .host
        .must(Method::POST, "/servers", Some(record))
        .await?;
    Ok(())
}

/// A service account with this role, and its token for REST.
async fn service(world: &World, name: &str, role: &str) -> Result<String> {
    let account = json!({ "name": name, "kind": "service", "roles": [role] });
    world
        .host
        .must(Method::POST, "/users", Some(account))
        .await?;
    token(world, name, json!({ "kind": "api" })).await
}

async fn token(world: &World, user: &str, mut more: Value) -> Result<String> {
    more["name"] = "t".into();
    more["user"] = user.into();
    let made = world.host.must(Method::POST, "/tokens", Some(more)).await?;
    Ok(made["token"].as_str().context("no token")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_id_is_of_use_to_its_own_agent_and_server_only() -> Result<()> {
    let world = World::start().await?;
    second(&world).await?;
    let (mut ada, mut agent) = world.connected("ada", Era::Sessions).await?;
    let (_mallory, mut thief) = world.connected("mallory", Era::Sessions).await?;
    let mut another = Agent::sign_in(&world.host, &mut ada, "/mcp/notes", Era::Sessions).await?;
    let mut elsewhere = Agent::sign_in(&world.host, &mut ada, "/mcp/second", Era::Sessions).await?;
    for (who, other) in [
        ("another user", &mut thief),
        ("another agent", &mut another),
        ("another server", &mut elsewhere),
    ] {
        other.session.clone_from(&agent.session);
        let reply = other.call("whoami", json!({})).await?;
        assert_eq!(reply.status, 404, "{who}: {}", reply.message);
        assert_eq!(reply.message["error"]["code"], -32600, "{who}");
    }
    assert_eq!(
        agent.call("whoami", json!({})).await?.text(),
        "ada-at-vendor"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_token_reaches_its_servers_only_however_they_are_written() -> Result<()> {
    let world = World::start().await?;
    second(&world).await?;
    service(&world, "bot", "user").await?;
    let limits = json!({ "kind": "mcp", "servers": ["second"] });
    let limited = token(&world, "bot", limits).await?;
    let web = Web::new()?;
    let status = async |path: &str| -> Result<(u16, String)> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
        let request = web
            .request(Method::POST, &world.host.at(path))
            .bearer_auth(&limited)
            .header("accept", "application/json, text/event-stream")
            .json(&body);
        let answer = Web::send(request).await?;
        Ok((answer.status, answer.header("www-authenticate").to_owned()))
    };
    let (refused, challenge) = status("/mcp/notes").await?;
    assert_eq!(refused, 403, "{challenge}");
    assert!(challenge.contains("insufficient_scope"), "{challenge}");
    for path in [
        "/mcp/second/../notes",
        "/mcp/second%2f..%2fnotes",
        "/mcp/%6eotes",
        "/mcp/NOTES",
        "/mcp/notes/",
        "/mcp//notes",
        "/mcp/notes;x",
        "/mcp/notes/x",
        "/mcp",
    ] {
        let (status, _) = status(path).await?;
        assert!(matches!(status, 401 | 403 | 404), "{path}: {status}");
    }
    assert_eq!(world.upstream.requests().await?.len(), 0);
    Ok(())
}

/// The link that an agent's call is answered with, and its id.
async fn link(agent: &mut Agent) -> Result<(String, String)> {
    let reply = agent.call("whoami", json!({})).await?;
    let url = reply.countersign()["authorize_url"].clone();
    let url = url.as_str().context("no authorize_url")?.to_owned();
    let id = url.split("link=").nth(1).context("no link")?.to_owned();
    Ok((url, id))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_begins_on_the_page_of_its_own_user_only() -> Result<()> {
    let world = World::start().await?;
    let (mut ada, mut agent) = world.person("ada", Era::PerRequest).await?;
    let (mut mallory, _) = world.person("mallory", Era::PerRequest).await?;
    let (url, id) = link(&mut agent).await?;
    let page = mallory.browser.open(&world.connect_page()).await?;
    let begins = world.host.at("/");
    for (what, fields) in [
        ("another user's link", &[("link", &*id)][..]),
        ("a link of nobody", &[("link", "guessed")]),
        ("no token of the page", &[("csrf", "guessed")]),
        ("another team", &[("team", "lab")]),
        (
            "another resource",
            &[("resource", "https://evil.example/mcp")],
        ),
        ("no address", &[("resource", "nonsense")]),
        (
            "a return address",
            &[("return_to", "https://evil.example/")],
        ),
    ] {
        let refused = mallory.browser.press(&page, "Connect", fields).await?;
        assert!(refused.status >= 400, "{what}: {}", refused.text());
        assert!(refused.url.as_str().starts_with(&begins), "{what}");
    }
    for query in [
        "?link=x",
        "?team=default&team=lab",
        "?return=https://evil.example",
        "?link=<script>",
    ] {
        let address = format!("{}{query}", world.connect_page());
        let refused = mallory.browser.open(&address).await?;
        assert!(refused.status >= 400, "{query}: {}", refused.text());
        assert!(!refused.html.contains("<script>"), "{query}");
    }
    // None of it used the link up; its user does, once.
    ada.connect(&url).await?;
    let again = ada.browser.open(&url).await?;
    assert_eq!(again.status, 410, "{}", again.text());
    assert!(world.connection(&mallory).await?["account"].is_null());
    Ok(())
}

/// A POST of a person's browser to REST, as some page would send it.
async fn from_page(
    world: &World,
    person: &Person,
    headers: &[(&str, &str)],
) -> Result<(u16, String)> {
    let url = world.host.at("/api/v1/tokens");
    let mut request = Web::new()?
        .request(Method::POST, &url)
        .header("cookie", person.browser.cookie_header(&url.parse()?))
        .json(&json!({ "name": "x", "kind": "mcp" }));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = Web::send(request).await?;
    Ok((answer.status, answer.text))
}

#[tokio::test(flavor = "multi_thread")]
async fn another_site_changes_nothing_with_a_users_cookies() -> Result<()> {
    let world = World::start().await?;
    let mut ada = world.host.person("ada").await?;
    let mut grace = world.host.person("grace").await?;
    let mut tokens = Vec::new();
    for person in [&mut ada, &mut grace] {
        let page = person.browser.open(&world.host.at("/logout")).await?;
        let field = page.html.split("name=\"csrf\" value=\"").nth(1);
        let csrf = field.and_then(|rest| rest.split('"').next());
        tokens.push(csrf.context("no csrf token")?.to_owned());
    }
    let own = world.host.url.clone();
    let (csrf, other) = (("x-csrf-token", &*tokens[0]), ("x-csrf-token", &*tokens[1]));
    let cases: [(&str, &[(&str, &str)]); 5] = [
        ("nothing", &[]),
        ("its own origin only", &[("origin", &own)]),
        (
            "another origin",
            &[csrf, ("origin", "https://evil.example")],
        ),
        ("no origin", &[csrf, ("origin", "null")]),
        ("another user's token", &[other, ("origin", &own)]),
    ];
    for (what, headers) in cases {
        let (status, text) = from_page(&world, &ada, headers).await?;
        assert_eq!(status, 403, "{what}: {text}");
    }
    let (status, text) = from_page(&world, &ada, &[csrf, ("origin", &own)]).await?;
    assert_eq!(status, 201, "its own page may: {text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editor_leads_no_credential_to_another_place() -> Result<()> {
    let world = World::start().await?;
    let servers = service(&world, "se", "server-editor").await?;
    let providers = service(&world, "pe", "provider-editor").await?;
    let delegated = json!({ "mode": "user-delegated", "provider": "notes" });
    let cases = [
        (
            &servers,
            Method::PATCH,
            "/servers/notes",
            json!({ "url": "http://127.0.0.1:9/mcp" }),
        ),
        (
            &servers,
            Method::PATCH,
            "/servers/notes",
            json!({ "connection": "shared" }),
        ),
        (
            &servers,
            Method::PATCH,
            "/servers/notes",
            json!({ "auth": { "injection": { "header_name": "X-A" } } }),
        ),
        (
            &servers,
            Method::POST,
            "/servers",
            json!({ "name": "x", "url": "http://127.0.0.1:9/mcp", "auth": delegated }),
        ),
        (
            &servers,
            Method::POST,
            "/servers",
            json!({
                "name": "x", "url": "http://127.0.0.1:9/mcp",
                "auth": { "mode": "static", "secret_ref": "NOTES_SECRET" },
            }),
        ),
        (
            &providers,
            Method::PATCH,
            "/providers/notes",
            json!({ "token_endpoint": "http://127.0.0.1:9/token" }),
        ),
        (
            &providers,
            Method::POST,
            "/providers",
            json!({
                "name": "x", "preset": "generic", "client_id": "x",
                "authorization_endpoint": "http://127.0.0.1:9/auth",
                "token_endpoint": "http://127.0.0.1:9/token",
                "client_secret_ref": "NOTES_SECRET", "audience_hosts": ["127.0.0.1:9"],
            }),
        ),
    ];
    for (token, method, path, body) in cases {
        let what = body.to_string();
        let answer = world.host.api_as(token, method, path, Some(body)).await?;
        assert_eq!(answer.status, 403, "{what}: {}", answer.text);
        let missing = answer.json()["missing_permission"].clone();
        assert!(
            missing == "provider_attach:notes" || missing == "secret_attach:NOTES_SECRET",
            "{what}: {missing}"
        );
    }
    let denied = world.host.audit("outcome = \"denied\"").await?;
    assert!(denied.len() >= 7, "each is on record: {}", denied.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_server_is_attached_inside_or_at_countersign_itself() -> Result<()> {
    let world = World::start().await?;
    let own = world.host.url.rsplit(':').next().unwrap_or_default();
    let addresses = [
        format!("http://127.0.0.1:{own}/mcp/notes"),
        format!("http://localhost:{own}/"),
        format!("http://127.1:{own}/"),
        format!("http://[::1]:{own}/"),
        format!("http://[::ffff:127.0.0.1]:{own}/"),
        format!("http://0.0.0.0:{own}/"),
        format!("http://2130706433:{own}/"),
        "http://169.254.169.254/".into(),
        "https://169.254.169.254/".into(),
        "https://10.0.0.1/".into(),
        "https://[::ffff:a9fe:a9fe]/".into(),
        "https://user:p@x.example/".into(),
        "file:///etc/passwd".into(),
    ];
    for url in addresses {
        let record = json!({ "name": "x", "url": url });
        let answer = world
            .host
            .api(Method::POST, "/servers", Some(record))
            .await?;
        assert_eq!(answer.status, 400, "{url}: {}", answer.text);
        assert_eq!(answer.json()["field"], "url", "{url}");
    }
    Ok(())
}
