//! Providers and servers by their address alone: what is found out beside a
//! real authorization server, what is registered there, and what is refused.

use anyhow::{Context, Result};
use countersign_tests::{Agent, Era, Host, HostOptions, NOTES, Provider, Trap, Upstream, World};
use reqwest::Method;
use serde_json::{Value, json};

/// A host that knows nothing, and a vendor whose authorization server takes
/// clients that register themselves.
async fn strangers(example: bool) -> Result<World> {
    let host = fresh().await?;
    let provider = Provider::start(&[], &["--open-registration"]).await?;
    let upstream = if example {
        Upstream::example(&provider).await?
    } else {
        Upstream::start(&provider, &[]).await?
    };
    Ok(World {
        host,
        provider,
        upstream,
    })
}

async fn fresh() -> Result<Host> {
    let host = Host::start(&HostOptions::default()).await?;
    let enabled = json!({ "enabled": true });
    host.must(Method::PATCH, "/presets/generic", Some(enabled))
        .await?;
    Ok(host)
}

async fn said(host: &Host, line: &[&str], code: i32) -> Result<String> {
    let (exit, out, err) = host.cli(line, "").await?;
    assert_eq!(exit, code, "{line:?}: {out} {err}");
    Ok(format!("{out}{err}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_made_of_an_mcp_servers_address_and_used() -> Result<()> {
    let world = strangers(false).await?;
    let (host, url) = (&world.host, world.upstream.url());
    let create = ["provider", "create", NOTES, "--discover", url];
    let dry = said(host, &[&create[..], &["--dry-run"]].concat(), 0).await?;
    let issuer = world.provider.0.fact("issuer");
    for part in [
        "Nothing was created",
        issuer,
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-protected-resource/mcp",
        "token_endpoint",
        "registers itself",
        "notes:read, notes:write (choose with --scopes)",
        "/oauth/callback/notes",
    ] {
        assert!(dry.contains(part), "{part:?} is not in {dry}");
    }
    let state = world.provider.0.look("").await?;
    assert_eq!(state["registrations"], 0, "a dry run registers nothing");
    let none = host.must(Method::GET, "/providers", None).await?;
    assert_eq!(none["total_size"], 0);

    said(host, &create, 0).await?;
    let made = host.must(Method::GET, "/providers/notes", None).await?;
    for (field, expected) in [
        ("preset", json!("generic")),
        ("resource", json!(url)),
        ("scopes", json!(["openid"])),
        (
            "token_endpoint",
            json!(world.provider.0.fact("token_endpoint")),
        ),
        ("token_endpoint_auth_method", json!("client_secret_basic")),
        ("client_secret_ref", json!("NOTES_CLIENT_SECRET")),
    ] {
        assert_eq!(made[field], expected, "{field}: {made}");
    }
    assert_eq!(made["settings"]["issuer"], issuer);
    assert_eq!(
        made["settings"]["authorization_response_iss_parameter_supported"],
        true
    );
    assert_eq!(made["registration"]["client"], "dynamic");
    let secrets = host.must(Method::GET, "/secrets", None).await?;
    for secret in secrets["items"].as_array().into_iter().flatten() {
        assert_eq!(secret["used_by"], json!(["provider notes"]), "{secret}");
        assert_ne!(secret["hosts"], json!([]), "{secret}");
    }

    // Made for this very server, so it is attached to it.
    said(host, &["server", "create", NOTES, "--endpoint", url], 0).await?;
    let server = host.must(Method::GET, "/servers/notes", None).await?;
    assert_eq!(server["auth"]["provider"], NOTES, "{server}");
    let state = world.provider.0.look("").await?;
    assert_eq!(state["registrations"], 1);
    for era in Era::ALL {
        let name = format!("ada{}", era.revision().replace('-', ""));
        let (_, mut agent) = world.connected(&name, era).await?;
        let reply = agent.call("whoami", json!({})).await?;
        assert_eq!(reply.text(), format!("{name}-at-vendor"));
    }
    let state = world.provider.0.look("").await?;
    let asked = state["authorizations"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for asked in asked.iter().filter(|a| a["resource"].is_string()) {
        assert_eq!(asked["resource"], url, "{asked}");
        assert_eq!(asked["code_challenge_method"], "S256", "{asked}");
    }
    assert!(!asked.is_empty());
    for (kind, secret) in world.provider.secrets().await? {
        assert!(
            !host.log().text().contains(&secret),
            "a {kind} is in the log"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_attached_by_its_address_alone() -> Result<()> {
    for example in [false, true] {
        let world = strangers(example).await?;
        let server = json!({ "name": NOTES, "url": world.upstream.url() });
        let made = world
            .host
            .must(Method::POST, "/servers", Some(server))
            .await?;
        assert_eq!(made["auth"]["mode"], "user-delegated", "{made}");
        assert_eq!(made["discovery"]["authorization"], "oauth", "{made}");
        let (ada, mut agent) = world.connected("ada", Era::Sessions).await?;
        let tools = agent.ask("tools/list", json!({})).await?;
        tools.ok()?;
        assert_eq!(world.connection(&ada).await?["status"], "connected");
        let gone = world
            .host
            .api(Method::DELETE, "/providers/notes?force=true", None)
            .await?;
        assert_eq!(gone.status, 200, "{}", gone.text);
        let left = world.host.must(Method::GET, "/secrets", None).await?;
        assert_eq!(left["total_size"], 0, "{left}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_protection_has_to_show_it() -> Result<()> {
    let host = fresh().await?;
    let provider = Provider::start(&[], &[]).await?;
    for eras in ["2025", "2026", "both"] {
        let upstream = Upstream::start(&provider, &["open", "--eras", eras]).await?;
        let name = format!("open{eras}");
        let endpoint = ["server", "create", &name, "--endpoint", upstream.url()];
        let said = said(&host, &endpoint, 0).await?;
        assert!(said.contains("wants no credentials"), "{said}");
        let server = host
            .must(Method::GET, &format!("/servers/{name}"), None)
            .await?;
        assert_eq!(server["auth"]["mode"], "none", "{server}");
    }
    // A provider is not to be had of it.
    let upstream = Upstream::start(&provider, &["open"]).await?;
    let refused = said(
        &host,
        &["provider", "create", "x", "--discover", upstream.url()],
        1,
    )
    .await?;
    assert!(refused.contains("--auth none"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serves_already_is_offered_and_not_registered_again() -> Result<()> {
    let world = strangers(false).await?;
    let (host, url) = (&world.host, world.upstream.url());
    let issuer = world.provider.0.fact("issuer");
    // From the issuer alone: where tokens may go has to be said.
    let lacking = said(
        host,
        &["provider", "create", "idp", "--discover", issuer],
        1,
    )
    .await?;
    assert!(lacking.contains("audience_hosts"), "{lacking}");
    let create = [
        "provider",
        "create",
        "idp",
        "--discover",
        issuer,
        "--audience-hosts",
        "127.0.0.1:1",
    ];
    said(host, &create, 0).await?;
    let again = said(host, &["provider", "create", "two", "--discover", url], 1).await?;
    assert!(again.contains("the provider idp"), "{again}");
    let server = said(host, &["server", "create", "notes", "--endpoint", url], 1).await?;
    for part in [
        "the provider idp",
        "--user-oauth-provider idp",
        "--audience-hosts",
        "--force",
    ] {
        assert!(server.contains(part), "{part:?} is not in {server}");
    }
    let answer = host
        .api(
            Method::POST,
            "/servers",
            Some(json!({ "name": "notes", "url": url })),
        )
        .await?;
    assert_eq!(answer.status, 409, "{}", answer.text);
    assert_eq!(
        answer.json()["type"],
        "urn:countersign:problem:reusable-match"
    );
    let state = world.provider.0.look("").await?;
    assert_eq!(state["registrations"], 1);
    said(
        host,
        &["server", "create", "notes", "--endpoint", url, "--force"],
        0,
    )
    .await?;
    let state = world.provider.0.look("").await?;
    assert_eq!(state["registrations"], 2);
    Ok(())
}

/// Waits until the provider has another client than this one.
async fn another_client(host: &Host, than: &str) -> Result<String> {
    for _ in 0..200 {
        let provider = host.must(Method::GET, "/providers/notes", None).await?;
        let client = provider["client_id"].as_str().unwrap_or_default();
        if client != than {
            return Ok(client.to_owned());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    anyhow::bail!("it was not registered anew")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_the_provider_forgot_is_registered_anew() -> Result<()> {
    let world = strangers(false).await?;
    let server = json!({ "name": NOTES, "url": world.upstream.url() });
    world
        .host
        .must(Method::POST, "/servers", Some(server))
        .await?;
    world.provider.0.control(json!({ "access_ttl": 1 })).await?;
    let (mut ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let before = world
        .host
        .must(Method::GET, "/providers/notes", None)
        .await?;
    let before = before["client_id"]
        .as_str()
        .context("no client")?
        .to_owned();
    let (_, looked, _) = world
        .host
        .cli(&["provider", "registration", NOTES], "")
        .await?;
    assert!(looked.contains("registered"), "{looked}");

    let forget = json!({ "forget_clients": true });
    world.provider.0.control(forget.clone()).await?;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let refused = agent.call("whoami", json!({})).await?;
    let told = refused.countersign();
    assert_eq!(told["error"], "oauth_token_expired", "{}", refused.message);
    assert_eq!(told["reason"], "client_rejected", "{}", refused.message);
    let after = another_client(&world.host, &before).await?;
    let mut connection = Value::Null;
    for _ in 0..100 {
        connection = world.connection(&ada).await?;
        if connection["status"] == "needs_reauth" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(connection["reason"], "client_rejected", "{connection}");
    world
        .host
        .audited(|e| e["action"] == "provider.client_renewed")
        .await?;
    world
        .provider
        .0
        .control(json!({ "access_ttl": 300 }))
        .await?;
    ada.connect(&world.connect_page()).await?;
    assert_eq!(
        agent.call("whoami", json!({})).await?.text(),
        "ada-at-vendor"
    );

    // Forgotten again: whoever comes to connect is not sent there in vain. Only
    // a restart makes the host look before the next ten minutes are over.
    world.provider.0.control(forget).await?;
    let mut world = world;
    world.host.stop().await?;
    world.host.serve().await?;
    let (_, mut bob) = world.connected("bob", Era::PerRequest).await?;
    assert_eq!(bob.call("whoami", json!({})).await?.text(), "bob-at-vendor");
    let last = world
        .host
        .must(Method::GET, "/providers/notes", None)
        .await?;
    assert_ne!(last["client_id"], json!(after));
    // By hand, too.
    let renewed = said(
        &world.host,
        &["provider", "registration", NOTES, "--renew"],
        0,
    )
    .await?;
    assert!(renewed.contains("renewed"), "{renewed}");
    let updated = said(
        &world.host,
        &["provider", "registration", NOTES, "--update"],
        0,
    )
    .await?;
    assert!(updated.contains("updated"), "{updated}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_metadata_document_is_the_client_where_it_can_be_read() -> Result<()> {
    let mut host = fresh().await?;
    host.stop().await?;
    let own = host.url.clone();
    host.configure(|config| {
        config["server"]["public_url"] = "https://cs.example.com".into();
        let network = config["network"].as_table_mut();
        if let Some(network) = network {
            network.insert("allow_private_upstreams".into(), vec!["127.0.0.1:*"].into());
        }
    })?;
    host.serve().await?;
    let server = Trap::start().await?;
    let mut metadata = good_metadata(&server);
    metadata["client_id_metadata_document_supported"] = true.into();
    protect(&server, metadata);
    let record = json!({ "name": NOTES, "url": server.at("/mcp") });
    host.must(Method::POST, "/servers", Some(record)).await?;
    let provider = host.must(Method::GET, "/providers/notes", None).await?;
    let id = "https://cs.example.com/.well-known/oauth-client";
    assert_eq!(provider["client_id"], id, "{provider}");
    assert_eq!(provider["registration"]["client"], "metadata_document");
    assert!(server.caught_at("/reg").is_empty());
    let web = countersign_tests::Web::new()?;
    let document = web
        .get(&format!("{own}/.well-known/oauth-client"))
        .await?
        .json();
    assert_eq!(document["client_id"], id, "{document}");
    assert_eq!(
        document["redirect_uris"],
        json!(["https://cs.example.com/oauth/callback/notes"])
    );
    assert_eq!(document["token_endpoint_auth_method"], "none");
    Ok(())
}

/// Metadata of an authorization server at the trap itself.
fn good_metadata(trap: &Trap) -> Value {
    json!({
        "issuer": trap.url,
        "authorization_endpoint": trap.at("/auth"),
        "token_endpoint": trap.at("/token"),
        "registration_endpoint": trap.at("/reg"),
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
    })
}

/// The trap is an MCP server that protects POST only (a GET is a page that is
/// not there), and its own authorization server.
fn protect(trap: &Trap, metadata: Value) {
    let named = format!(
        "Bearer resource_metadata=\"{}\", scope=\"notes:read\"",
        trap.at("/.well-known/oauth-protected-resource/mcp")
    );
    trap.answers("POST", "/mcp", 401, &[("www-authenticate", &named)], b"");
    let resource = json!({
        "resource": trap.at("/mcp"),
        "authorization_servers": [trap.url],
        "scopes_supported": ["notes:read", "notes:write", "admin"],
    });
    trap.json("/.well-known/oauth-protected-resource/mcp", &resource);
    trap.json("/.well-known/oauth-authorization-server", &metadata);
    let registered =
        json!({ "client_id": "registered-1", "client_secret": "a-secret-of-the-trap" });
    let headers = [("content-type", "application/json")];
    trap.answers(
        "POST",
        "/reg",
        201,
        &headers,
        registered.to_string().as_bytes(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn protection_of_post_alone_is_seen_and_no_more_is_asked_for_than_the_challenge_says()
-> Result<()> {
    let host = fresh().await?;
    let server = Trap::start().await?;
    protect(&server, good_metadata(&server));
    let record = json!({ "name": NOTES, "url": server.at("/mcp") });
    let made = host.must(Method::POST, "/servers", Some(record)).await?;
    assert_eq!(made["auth"]["mode"], "user-delegated");
    assert_eq!(made["auth"]["required_scopes"], json!(["notes:read"]));
    assert_eq!(
        made["discovery"]["scopes_offered"],
        json!(["admin", "notes:read", "notes:write"])
    );
    let registration = server.caught_at("/reg");
    assert_eq!(registration.len(), 1);
    let raw = &registration[0].raw;
    assert!(
        raw.contains("/oauth/callback/notes") && !raw.contains("admin"),
        "{raw}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_says_of_others_is_not_believed() -> Result<()> {
    let host = fresh().await?;
    let canary = Trap::start().await?;
    let own = host.url.clone();
    let resource_at = "/.well-known/oauth-protected-resource/mcp";
    let server_at = "/.well-known/oauth-authorization-server";
    let json_type = [("content-type", "application/json")];
    // What is said, what becomes of the trap, what the refusal says.
    type Twist<'a> = Box<dyn Fn(&Trap) + 'a>;
    let with = |field: &'static str, value: Value| -> Twist<'_> {
        Box::new(move |trap: &Trap| {
            let mut metadata = good_metadata(trap);
            metadata[field] = value.clone();
            trap.json(server_at, &metadata);
        })
    };
    let resource = |field: &'static str, value: Value| -> Twist<'_> {
        Box::new(move |trap: &Trap| {
            let mut resource = json!({
                "resource": trap.at("/mcp"),
                "authorization_servers": [trap.url],
            });
            resource[field] = value.clone();
            trap.json(resource_at, &resource);
        })
    };
    let challenge = |url: String| -> Twist<'_> {
        Box::new(move |trap: &Trap| {
            let named = format!("Bearer resource_metadata=\"{url}\"");
            trap.answers("POST", "/mcp", 401, &[("www-authenticate", &named)], b"");
        })
    };
    let huge = vec![b'x'; 2 << 20];
    let cases: Vec<(&str, Twist<'_>, &str)> = vec![
        (
            "another resource",
            resource("resource", json!(canary.at("/mcp"))),
            "RFC 9728",
        ),
        (
            "a resource that begins alike",
            resource("resource", json!("http://127.0.0.1.evil.example/mcp")),
            "RFC 9728",
        ),
        (
            "another path",
            resource("resource", json!("/mcp")),
            "RFC 9728",
        ),
        (
            "another issuer",
            with("issuer", json!("https://accounts.example.com")),
            "RFC 8414",
        ),
        (
            "an issuer that is not there",
            resource("authorization_servers", json!(["https://127.0.0.1:1/x"])),
            "cannot be asked",
        ),
        (
            "a private issuer",
            resource("authorization_servers", json!(["https://10.0.0.1"])),
            "private",
        ),
        (
            "the clouds' credentials",
            resource("authorization_servers", json!(["http://169.254.169.254"])),
            "not https",
        ),
        (
            "Countersign itself",
            resource("authorization_servers", json!([own.clone()])),
            "own",
        ),
        (
            "an issuer with a query",
            resource("authorization_servers", json!(["https://as.example/?x=1"])),
            "no query",
        ),
        (
            "a file",
            resource("authorization_servers", json!(["file:///etc/passwd"])),
            "not https",
        ),
        (
            "private metadata",
            challenge("https://10.0.0.1/metadata".into()),
            "private",
        ),
        (
            "metadata of the clouds",
            challenge("http://169.254.169.254/latest".into()),
            "not https",
        ),
        (
            "metadata of Countersign",
            challenge(format!("{own}/healthz")),
            "own",
        ),
        (
            "a private token endpoint",
            with("token_endpoint", json!("https://192.168.0.1/token")),
            "private",
        ),
        (
            "a plain token endpoint",
            with("token_endpoint", json!("http://as.example.com/token")),
            "not https",
        ),
        (
            "a private revocation endpoint",
            with("revocation_endpoint", json!("https://[fd00::1]/r")),
            "private",
        ),
        (
            "a script as endpoint",
            with("authorization_endpoint", json!("javascript:alert(1)")),
            "not https",
        ),
        (
            "a password in an endpoint",
            with("token_endpoint", json!("https://u:p@as.example.com/t")),
            "user name",
        ),
        (
            "no token endpoint",
            with("token_endpoint", Value::Null),
            "token_endpoint",
        ),
        (
            "no sign-in",
            with("response_types_supported", json!(["token"])),
            "authorization code",
        ),
        (
            "no method we know",
            with(
                "token_endpoint_auth_methods_supported",
                json!(["tls_client_auth"]),
            ),
            "by hand",
        ),
        (
            "huge metadata",
            Box::new(|trap: &Trap| trap.answers("*", server_at, 200, &json_type, &huge)),
            "too large",
        ),
        (
            "a page as metadata",
            Box::new(|trap: &Trap| {
                trap.answers(
                    "*",
                    server_at,
                    200,
                    &[("content-type", "text/html")],
                    b"<html>",
                )
            }),
            "publishes no metadata",
        ),
        (
            "prose as metadata",
            Box::new(|trap: &Trap| trap.answers("*", server_at, 200, &json_type, b"hello")),
            "RFC 8414",
        ),
        (
            "a loop",
            Box::new(|trap: &Trap| {
                let to = trap.at(server_at);
                trap.answers("*", server_at, 302, &[("location", &to)], b"");
            }),
            "not followed",
        ),
        (
            "a way out",
            Box::new(|trap: &Trap| {
                let to = canary.at("/");
                trap.answers("*", resource_at, 307, &[("location", &to)], b"");
                trap.answers("*", server_at, 302, &[("location", &to)], b"");
            }),
            "not followed",
        ),
        (
            "a registration managed elsewhere",
            Box::new(|trap: &Trap| {
                let given = json!({ "client_id": "x", "registration_access_token": "t0ken-t0ken-t0ken",
                "registration_client_uri": canary.at("/manage"), "token_endpoint_auth_method": "none" });
                trap.answers(
                    "POST",
                    "/reg",
                    201,
                    &json_type,
                    given.to_string().as_bytes(),
                );
            }),
            "another origin",
        ),
        (
            "a secret as client id",
            Box::new(|trap: &Trap| {
                let given = json!({ "client_id": "t0ken-t0ken-t0ken", "client_secret": "t0ken-t0ken-t0ken" });
                trap.answers(
                    "POST",
                    "/reg",
                    201,
                    &json_type,
                    given.to_string().as_bytes(),
                );
            }),
            "secret",
        ),
        (
            "a refused registration",
            Box::new(|trap: &Trap| {
                trap.answers("POST", "/reg", 401, &json_type, b"{}");
            }),
            "token of its own",
        ),
        (
            "another scheme",
            Box::new(|trap: &Trap| {
                trap.answers(
                    "POST",
                    "/mcp",
                    401,
                    &[("www-authenticate", "Basic realm=\"x\"")],
                    b"",
                );
            }),
            "Bearer",
        ),
        (
            "no MCP",
            Box::new(|trap: &Trap| {
                trap.answers(
                    "POST",
                    "/mcp",
                    200,
                    &[("content-type", "text/html")],
                    b"<html>ok</html>",
                );
            }),
            "neither answers as an MCP server",
        ),
        (
            "half an answer",
            Box::new(|trap: &Trap| {
                let half = br#"{"jsonrpc":"2.0","id":1,"result":{"ok":true}}"#;
                trap.answers("POST", "/mcp", 200, &json_type, half);
            }),
            "neither answers as an MCP server",
        ),
        (
            "a broken server",
            Box::new(|trap: &Trap| {
                trap.answers("POST", "/mcp", 500, &[], b"");
            }),
            "neither answers as an MCP server",
        ),
        (
            "no list to strangers",
            Box::new(|trap: &Trap| {
                let said = br#"{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2026-07-28"],"protocolVersion":"2025-11-25"}}"#;
                trap.answers("POST", "/mcp", 200, &[("content-type", "text/plain")], said);
                trap.answers("GET", "/mcp", 401, &[], b"");
                trap.answers("*", resource_at, 404, &[], b"");
                trap.answers("*", server_at, 404, &[], b"");
            }),
            "publishes nothing",
        ),
    ];
    for (what, twist, says) in cases {
        let trap = Trap::start().await?;
        protect(&trap, good_metadata(&trap));
        twist(&trap);
        let record = json!({ "name": "x", "url": trap.at("/mcp") });
        let answer = host.api(Method::POST, "/servers", Some(record)).await?;
        assert!(
            matches!(answer.status, 400 | 422),
            "{what}: {} {}",
            answer.status,
            answer.text
        );
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(says), "{what}: {says:?} is not in {detail}");
        assert!(!detail.contains("t0ken"), "{what}: {detail}");
        for list in ["/servers", "/providers", "/secrets"] {
            let left = host.must(Method::GET, list, None).await?;
            assert_eq!(left["total_size"], 0, "{what}: {left}");
        }
        assert!(canary.caught().is_empty(), "{what}: {:?}", canary.caught());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn discovering_needs_the_permissions_for_what_it_makes() -> Result<()> {
    let world = strangers(false).await?;
    let url = world.upstream.url();
    let cases = [
        (
            json!(["server_create"]),
            "/servers",
            json!({ "name": "x", "url": url }),
            "provider_attach:x",
        ),
        (
            json!(["server_create", "provider_attach"]),
            "/servers",
            json!({ "name": "x", "url": url }),
            "provider_create:x",
        ),
        (
            json!(["provider_list"]),
            "/providers",
            json!({ "name": "x", "discover": url }),
            "provider_create:x",
        ),
    ];
    for (i, (allow, path, body, missing)) in cases.into_iter().enumerate() {
        let role = format!("narrow{i}");
        let may = json!({ "name": role, "allow": allow });
        world.host.must(Method::POST, "/roles", Some(may)).await?;
        let bot = format!("bot{i}");
        let user = json!({ "name": bot, "kind": "service", "roles": [role] });
        world.host.must(Method::POST, "/users", Some(user)).await?;
        let token = json!({ "name": "t", "kind": "api", "user": bot });
        let token = world
            .host
            .must(Method::POST, "/tokens", Some(token))
            .await?;
        let token = token["token"].as_str().context("no token")?.to_owned();
        let answer = world
            .host
            .api_as(&token, Method::POST, path, Some(body))
            .await?;
        assert_eq!(answer.status, 403, "{missing}: {}", answer.text);
        assert_eq!(answer.json()["missing_permission"], missing);
    }
    let state = world.provider.0.look("").await?;
    assert_eq!(state["registrations"], 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_a_discovered_server_needs_nothing_more() -> Result<()> {
    let world = strangers(false).await?;
    let record = json!({ "name": NOTES, "url": world.upstream.url() });
    world
        .host
        .must(Method::POST, "/servers", Some(record))
        .await?;
    let mut ada = world.host.person("ada").await?;
    let mut agent = Agent::sign_in(&world.host, &mut ada, "/mcp/notes", Era::PerRequest).await?;
    let asked = agent.call("whoami", json!({})).await?;
    assert_eq!(asked.countersign()["error"], "oauth_connection_required");
    Ok(())
}
