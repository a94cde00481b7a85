//! Registering secrets, providers and servers: what is taken, what is refused,
//! by REST and by the command line.

use anyhow::{Context, Result};
use countersign_tests::{Host, HostOptions, Setup, World};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

fn with(mut record: Value, field: &str, value: Value) -> Value {
    let mut at = &mut record;
    for part in field.split('.') {
        at = &mut at[part];
    }
    *at = value;
    record
}

async fn refused(host: &Host, path: &str, body: Value, status: u16, says: &str) -> Result<()> {
    let answer = host.api(Method::POST, path, Some(body.clone())).await?;
    let what = format!("{path} {body}: {} {}", answer.status, answer.text);
    assert_eq!(answer.status, status, "{what}");
    assert!(
        answer
            .header("content-type")
            .starts_with("application/problem+json"),
        "{what}"
    );
    let problem = answer.json();
    for member in ["type", "title", "detail"] {
        assert!(problem[member].is_string(), "{member}: {what}");
    }
    assert_eq!(problem["status"], status, "{what}");
    assert!(answer.text.contains(says), "{says:?} is not in {what}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn users_teams_roles_and_tokens_are_kept_from_the_command_line() -> Result<()> {
    let host = Host::start(&HostOptions::default()).await?;
    // Verb, exit code, what its output says.
    let steps = [
        ("user create bot --service", 0, "service"),
        (
            "user create ada --email ada@example.com",
            0,
            "ada@example.com",
        ),
        (
            "user update ada --role user,auditor --email ada@example.org",
            0,
            "auditor",
        ),
        ("user get ada", 0, "ada@example.org"),
        ("user update nobody --enabled false", 1, "no user"),
        ("user update ada", 1, "nothing to change"),
        ("team create lab --display-name Laboratory", 0, "Laboratory"),
        ("team create lab", 1, "exists already"),
        ("team add-member lab ada", 0, "ada is now in the team lab"),
        ("team get lab", 0, "ada"),
        ("team delete lab", 1, "still has 1 members"),
        ("team remove-member --team lab --user ada", 0, "no longer"),
        ("team list", 0, "Laboratory"),
        ("team delete lab", 0, "deleted"),
        (
            "role create lookout --allow audit_read server_get:notes",
            0,
            "server_get:notes",
        ),
        ("role create bad --allow everything", 1, "everything"),
        ("role update lookout --allow audit_read", 0, "audit_read"),
        ("role list", 0, "lookout"),
        ("user update ada --role lookout", 0, "lookout"),
        ("role delete lookout", 1, "still given to 1 users"),
        ("user update ada --role user", 0, "user"),
        ("role delete lookout", 0, "deleted"),
        ("role delete admin", 1, "built in"),
        ("token create --name ci --kind mcp --user bot", 0, "cs_mcp_"),
        ("token list --user bot", 0, "ci"),
        ("token delete nonsense --user bot", 1, "no token"),
        ("user update ada --enabled false", 0, "enabled"),
        ("user delete ada", 0, "deleted"),
        ("user get ada", 1, "no user"),
    ];
    for (line, code, says) in steps {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (exit, out, err) = host.cli(&arguments, "").await?;
        assert_eq!(exit, code, "{line}: {out} {err}");
        let said = format!("{out}{err}");
        assert!(said.contains(says), "{line}: {said}");
    }
    let (_, list, _) = host
        .cli(&["--output", "json", "token", "list", "--user", "bot"], "")
        .await?;
    let list: Value = serde_json::from_str(&list)?;
    let id = list["items"][0]["id"].as_str().unwrap_or_default();
    let (exit, _, err) = host
        .cli(&["token", "delete", id, "--user", "bot"], "")
        .await?;
    assert_eq!(exit, 0, "{err}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_list_what_there_is_learns_no_names() -> Result<()> {
    let world = World::start().await?;
    let may = json!({ "name": "narrow", "allow": ["server_create", "server_get", "secret_get"] });
    world.host.must(Method::POST, "/roles", Some(may)).await?;
    let bot = json!({ "name": "bot", "kind": "service", "roles": ["narrow"] });
    world.host.must(Method::POST, "/users", Some(bot)).await?;
    let token = json!({ "name": "t", "kind": "api", "user": "bot" });
    let token = world
        .host
        .must(Method::POST, "/tokens", Some(token))
        .await?;
    let token = token["token"].as_str().unwrap_or_default().to_owned();
    let server = json!({
        "name": "x", "url": world.upstream.url(),
        "auth": { "mode": "user-delegated", "provider": "nothing" },
    });
    let probes = [
        (Method::POST, "/servers", Some(server), "provider nothing"),
        (Method::GET, "/servers/nothing", None, "server nothing"),
        (Method::GET, "/secrets/NOTHING", None, "secret NOTHING"),
    ];
    for (method, path, body, what) in probes {
        let answer = world
            .host
            .api_as(&token, method.clone(), path, body.clone())
            .await?;
        let detail = answer.json()["detail"].clone();
        let detail = detail.as_str().unwrap_or_default();
        assert!(
            detail.contains(&format!("{what} not found")),
            "{path}: {detail}"
        );
        for name in ["notes", "NOTES_SECRET"] {
            assert!(!detail.contains(name), "{path}: {detail}");
        }
        // An administrator is helped with the names.
        let helped = world.host.api(method, path, body).await?;
        let helped = helped.json()["detail"].to_string().to_lowercase();
        assert!(helped.contains("notes"), "{path}: {helped}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_refused_with_what_is_wrong() -> Result<()> {
    let world = World::start().await?;
    let host = &world.host;
    let good = with(world.provider_record(), "name", json!("other"));
    let cases = [
        ("name", json!("Other"), 400, "name"),
        ("name", json!("1other"), 400, "name"),
        ("name", json!("x".repeat(64)), 400, "name"),
        ("name", json!("notes"), 409, "notes"),
        ("preset", json!("nothing-like-it"), 400, "nothing-like-it"),
        (
            "client_secret_ref",
            json!("lower_case"),
            400,
            "client_secret_ref",
        ),
        ("client_secret_ref", json!("NOT_SET"), 400, "NOT_SET"),
        (
            "token_endpoint",
            json!("http://vendor.example/token"),
            400,
            "https",
        ),
        (
            "token_endpoint",
            json!("javascript:alert(1)"),
            400,
            "token_endpoint",
        ),
        (
            "authorization_endpoint",
            json!("not an address"),
            400,
            "authorization_endpoint",
        ),
        ("request_timeout", json!("soon"), 400, "request_timeout"),
        ("colour", json!("red"), 400, "colour"),
        ("client_id", json!(7), 400, "client_id"),
    ];
    for (field, value, status, says) in cases {
        refused(
            host,
            "/providers",
            with(good.clone(), field, value),
            status,
            says,
        )
        .await?;
    }
    host.must(Method::POST, "/providers", Some(good)).await?;
    let rename = host
        .api(
            Method::PATCH,
            "/providers/other",
            Some(json!({ "name": "another" })),
        )
        .await?;
    assert!(
        (400..500).contains(&rename.status),
        "{} {}",
        rename.status,
        rename.text
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_refused_with_what_is_wrong() -> Result<()> {
    let world = World::start().await?;
    let host = &world.host;
    let good = with(world.server_record(), "name", json!("other"));
    let cases = [
        ("name", json!("Other"), 400, "name"),
        ("name", json!("notes"), 409, "notes"),
        ("url", json!("http://vendor.example/mcp"), 400, "https"),
        ("url", json!("ftp://vendor.example/mcp"), 400, "url"),
        ("url", json!("http://10.0.0.1/mcp"), 400, "url"),
        (
            "url",
            json!("https://user:word@vendor.example/mcp"),
            400,
            "url",
        ),
        ("url", json!(host.at("/mcp/notes")), 400, "url"),
        ("auth.provider", json!("nobody"), 400, "nobody"),
        ("auth.mode", json!("magic"), 400, "mode"),
        (
            "auth.injection",
            json!({ "header_name": "Host" }),
            400,
            "header",
        ),
        (
            "auth.injection",
            json!({ "header_name": "X-A\r\nX-B" }),
            400,
            "header",
        ),
        ("command", json!("rm -rf /"), 400, "command"),
        ("wait", json!("2h"), 400, "wait"),
    ];
    for (field, value, status, says) in cases {
        refused(
            host,
            "/servers",
            with(good.clone(), field, value),
            status,
            says,
        )
        .await?;
    }
    host.must(Method::POST, "/servers", Some(good)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_go_in_and_never_come_out() -> Result<()> {
    let world = World::start().await?;
    let host = &world.host;
    let value = "a-value-nobody-may-see-again";
    host.must(
        Method::PUT,
        "/secrets/SOME_KEY",
        Some(json!({ "value": value })),
    )
    .await?;
    for path in ["/secrets", "/secrets/SOME_KEY", "/providers", "/audit"] {
        let answer = host.api(Method::GET, path, None).await?;
        assert!(!answer.text.contains(value), "{path}: {}", answer.text);
    }
    let list = host.must(Method::GET, "/secrets", None).await?;
    assert!(list.to_string().contains("SOME_KEY"), "{list}");
    let bad = host
        .api(
            Method::PUT,
            "/secrets/some-key",
            Some(json!({ "value": value })),
        )
        .await?;
    assert_eq!(bad.status, 400, "{}", bad.text);
    assert!(!bad.text.contains(value));
    let in_use = host
        .api(Method::DELETE, "/secrets/NOTES_SECRET", None)
        .await?;
    assert_eq!(in_use.status, 409, "{}", in_use.text);
    assert!(!host.log().text().contains(value));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_may_administer_nothing_and_is_told_what_is_missing() -> Result<()> {
    let world = World::start().await?;
    let ada = world.host.person("ada").await?;
    let web = countersign_tests::Web::new()?;
    let cases = [
        (Method::GET, "/secrets", Value::Null, "secret_list"),
        (Method::GET, "/users", Value::Null, "user_list"),
        (Method::GET, "/audit", Value::Null, "audit_read"),
        (Method::GET, "/providers", Value::Null, "provider_list"),
    ];
    for (method, path, _, permission) in cases {
        let url = world.host.at(&format!("/api/v1{path}"));
        let cookies = ada.browser.cookie_header(&url.parse()?);
        let request = web.request(method, &url).header("cookie", cookies);
        let answer = countersign_tests::Web::send(request).await?;
        assert_eq!(answer.status, 403, "{path} {}", answer.text);
        assert_eq!(
            answer.json()["missing_permission"],
            permission,
            "{path} {}",
            answer.text
        );
    }
    // Without the page's token a session changes nothing, whoever's it is.
    let url = world.host.at("/api/v1/servers");
    let cookies = ada.browser.cookie_header(&url.parse()?);
    let request = web
        .request(Method::POST, &url)
        .header("cookie", cookies)
        .json(&world.server_record());
    let answer = countersign_tests::Web::send(request).await?;
    assert!(
        matches!(answer.status, 401 | 403),
        "{} {}",
        answer.status,
        answer.text
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_tokens_are_not_interchangeable() -> Result<()> {
    let world = World::start().await?;
    let (_ada, agent) = world
        .person("ada", countersign_tests::Era::PerRequest)
        .await?;
    let rest = world
        .host
        .api_as(&agent.token, Method::GET, "/connections", None)
        .await?;
    assert_eq!(rest.status, 401, "an agent's token at REST: {}", rest.text);
    let mut admin = countersign_tests::Agent::with_token(
        world.host.at("/mcp/notes"),
        world.host.admin.token.clone(),
        countersign_tests::Era::PerRequest,
    )?;
    let reply = admin.call("whoami", json!({})).await?;
    assert_eq!(reply.status, 401, "an api token at MCP: {}", reply.message);
    let mut second = world.server_record();
    second["name"] = json!("second");
    world
        .host
        .must(Method::POST, "/servers", Some(second))
        .await?;
    let mut other = countersign_tests::Agent::with_token(
        world.host.at("/mcp/second"),
        agent.token,
        countersign_tests::Era::PerRequest,
    )?;
    let reply = other.call("whoami", json!({})).await?;
    assert_eq!(
        reply.status, 401,
        "a token of /mcp/notes at /mcp/second: {}",
        reply.message
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_registers_and_refuses_with_its_exit_codes() -> Result<()> {
    let world = World::with(Setup::default()).await?;
    let host = &world.host;
    let notes = world.upstream.url();
    let (code, _, error) = host
        .cli(&["secret", "set", "CLI_SECRET"], "from-standard-input")
        .await?;
    assert_eq!(code, 0, "{error}");
    let create = |name: &'static str| {
        vec![
            "provider",
            "create",
            "--name",
            name,
            "--preset",
            "generic",
            "--auth-endpoint",
            "https://vendor.example/authorize",
            "--token-endpoint",
            "https://vendor.example/token",
            "--client-id",
            "abc",
            "--client-secret-ref",
            "CLI_SECRET",
            "--scopes",
            "a,b",
            "--audience-hosts",
            "api.vendor.example",
        ]
    };
    let (code, _, error) = host.cli(&create("by-cli"), "").await?;
    assert_eq!(code, 0, "{error}");
    let (code, out, error) = host
        .cli(&["--output", "json", "provider", "get", "by-cli"], "")
        .await?;
    assert_eq!(code, 0, "{error}");
    let record: Value = serde_json::from_str(&out)?;
    assert_eq!(record["client_secret_ref"], "CLI_SECRET");
    assert_eq!(record["callback_url"], host.at("/oauth/callback/by-cli"));
    assert!(!out.contains("from-standard-input"));

    let (code, _, error) = host.cli(&create("Not-A-Name"), "").await?;
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("name"), "{error}");
    let (code, _, _) = host
        .cli(&["provider", "create", "--colour", "red"], "")
        .await?;
    assert_eq!(code, 2);
    let (code, _, error) = host
        .cli(
            &[
                "server",
                "create",
                "--name",
                "by-cli",
                "--endpoint",
                notes,
                "--auth",
                "user-delegated",
                "--user-oauth-provider",
                "nobody",
            ],
            "",
        )
        .await?;
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("nobody"), "{error}");
    let (code, out, error) = host
        .cli(&["--output", "json", "server", "list"], "")
        .await?;
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("\"notes\""), "{out}");
    let (code, _, error) = host
        .cli_with(
            &[("COUNTERSIGN_TOKEN", "cs_api_wrong")],
            &["server", "list"],
            "",
        )
        .await?;
    assert_eq!(code, 1, "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn init_overwrites_nothing() -> Result<()> {
    let host = Host::start(&HostOptions::default()).await?;
    let before = std::fs::read(host.config())?;
    let folder = host.folder().display().to_string();
    let (code, _, error) = host.cli(&["init", "--dir", &folder], "").await?;
    assert_eq!(code, 1, "{error}");
    assert_eq!(std::fs::read(host.config())?, before);
    let key = std::fs::metadata(host.folder().join("data/master.key"))?;
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777,
        0o600
    );
    let (code, _, error) = host.cli(&["check"], "").await?;
    assert!(code == 0 || error.contains("another process"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn administration_is_audited_one_event_per_change() -> Result<()> {
    let world = World::start().await?;
    let host = &world.host;
    host.must(
        Method::PATCH,
        "/servers/notes",
        Some(json!({ "display_name": "My notes" })),
    )
    .await?;
    host.api(Method::POST, "/servers", Some(json!({ "name": "Bad" })))
        .await?;
    for (action, outcome) in [
        ("secret.create", "allowed"),
        ("preset.enable", "allowed"),
        ("provider.create", "allowed"),
        ("server.create", "allowed"),
        ("server.update", "allowed"),
    ] {
        let filter = format!("action = \"{action}\" AND outcome = \"{outcome}\"");
        let events = host.audit(&filter).await?;
        assert_eq!(events.len(), 1, "{action} {outcome}: {events:?}");
        assert_eq!(events[0]["user"], host.admin.user);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_signs_in_by_a_code_that_is_typed_in_a_browser() -> Result<()> {
    let host = Host::start(&HostOptions::default()).await?;
    let mut ada = host.person("ada").await?;
    let mut terminal = tokio::process::Command::new(countersign_tests::built("countersign")?)
        .args(["login", "--device"])
        .env("COUNTERSIGN_URL", &host.url)
        .env("XDG_CONFIG_HOME", host.folder().join("user"))
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let said = terminal.stderr.take().context("no stderr")?;
    let mut lines = BufReader::new(said).lines();
    let code = loop {
        let line = lines.next_line().await?.context("no code was shown")?;
        if line.len() == 11 && line.starts_with("  ") {
            break line.trim().to_owned();
        }
    };
    let page = ada.browser.open(&host.at("/device")).await?;
    let page = ada
        .browser
        .press(&page, "Continue", &[("user_code", &code)])
        .await?;
    assert!(page.text().contains(&code), "{}", page.text());
    let done = ada.browser.press(&page, "Allow", &[]).await?;
    assert!(done.text().contains("is signed in"), "{}", done.text());
    let output = terminal.wait_with_output().await?;
    assert!(output.status.success(), "{output:?}");
    let (exit, out, err) = host
        .cli_with(&[], &["whoami", "--output", "json"], "")
        .await?;
    assert_eq!(exit, 0, "{err}");
    assert_eq!(serde_json::from_str::<Value>(&out)?["name"], "ada");
    Ok(())
}
