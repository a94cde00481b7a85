//! Edits that point a provider or a server elsewhere: no token or secret that
//! is there already ever follows them.

use anyhow::{Context, Result};
use countersign_tests::{Agent, Era, Host, HostOptions, Setup, Trap, World};
use reqwest::Method;
use serde_json::{Value, json};

/// What an edit comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ends {
    /// Refused for want of this permission.
    Forbidden(&'static str),
    /// Refused, whoever asks.
    Invalid,
    /// The connection has to be authorized again.
    ProviderChanged,
    /// The server has another connection, which there is not.
    NotConnected,
    /// Nothing is sent to where the server is: the tokens may not go there.
    Withheld,
    /// Calls go on, to where they always went.
    GoesOn,
}

use Ends::{Forbidden, GoesOn, Invalid, NotConnected, ProviderChanged, Withheld};

/// A service account with all permissions but these, and its token.
async fn editor(host: &Host, name: &str, without: &[&str]) -> Result<String> {
    let roles = host.must(Method::GET, "/roles", None).await?;
    let admin = roles["items"]
        .as_array()
        .and_then(|roles| roles.iter().find(|r| r["name"] == "admin"))
        .context("no role admin")?;
    let allow: Vec<Value> = admin["allow"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|p| !without.iter().any(|w| p == w))
        .cloned()
        .collect();
    let role = json!({ "name": format!("{name}-role"), "allow": allow });
    host.must(Method::POST, "/roles", Some(role)).await?;
    let user = json!({ "name": name, "kind": "service", "roles": [format!("{name}-role")] });
    host.must(Method::POST, "/users", Some(user)).await?;
    let token = json!({ "name": "t", "kind": "api", "user": name });
    let token = host.must(Method::POST, "/tokens", Some(token)).await?;
    Ok(token["token"].as_str().context("no token")?.to_owned())
}

fn host_and_port(url: &str) -> String {
    url.trim_start_matches("http://")
        .split('/')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// One attack: patches that are made one after the other, and what comes of the
/// last for an editor without, and with the permissions to attach.
struct Attack {
    name: &'static str,
    patches: Vec<(&'static str, Value)>,
    without: Ends,
    with: Ends,
}

fn attack(
    name: &'static str,
    patches: impl IntoIterator<Item = (&'static str, Value)>,
    without: Ends,
    with: Ends,
) -> Attack {
    Attack {
        name,
        patches: patches.into_iter().collect(),
        without,
        with,
    }
}

const PROVIDER: &str = "/providers/notes";
const SERVER: &str = "/servers/notes";

/// Puts a record back as it was.
async fn restore(world: &World, path: &str, was: &Value) -> Result<()> {
    let mut patch = was.clone();
    let members = patch.as_object_mut().context("no record")?;
    for read_only in [
        "name",
        "created_at",
        "updated_at",
        "callback_url",
        "connections",
        "approval_pending",
        "endpoint",
        "registration",
    ] {
        members.remove(read_only);
    }
    // A merge with an empty object takes nothing away (RFC 7396).
    if members.get("settings") == Some(&json!({})) {
        members.insert("settings".into(), Value::Null);
    }
    world.host.must(Method::PATCH, path, Some(patch)).await?;
    Ok(())
}

/// Makes the edits, calls, disconnects, and looks at what came to the trap.
async fn run(world: &World, attacks: &[Attack], trap: &Trap) -> Result<()> {
    let host = &world.host;
    let limited = editor(host, "limited", &["provider_attach", "secret_attach"]).await?;
    let mighty = editor(host, "mighty", &[]).await?;
    let provider_was = host.must(Method::GET, PROVIDER, None).await?;
    let server_was = host.must(Method::GET, SERVER, None).await?;
    let mut users = 0;
    for attack in attacks {
        for (token, expected) in [(&limited, attack.without), (&mighty, attack.with)] {
            let what = format!("{}: {expected:?}", attack.name);
            users += 1;
            let (ada, mut agent) = world
                .connected(&format!("ada{users}"), Era::PerRequest)
                .await?;
            assert!(
                agent
                    .call("whoami", json!({}))
                    .await?
                    .text()
                    .starts_with("ada")
            );
            let mut last = None;
            for (path, patch) in &attack.patches {
                let answer = host
                    .api_as(token, Method::PATCH, path, Some(patch.clone()))
                    .await?;
                let refused = answer.status >= 400;
                last = Some(answer);
                if refused {
                    break;
                }
            }
            let last = last.context("no patch")?;
            let made = (200..300).contains(&last.status);
            match expected {
                Forbidden(missing) => {
                    assert_eq!(last.status, 403, "{what}: {}", last.text);
                    assert_eq!(last.json()["missing_permission"], missing, "{what}");
                }
                Invalid => assert_eq!(last.status, 400, "{what}: {}", last.text),
                _ => assert!(made, "{what}: {} {}", last.status, last.text),
            }
            check(world, &ada, &mut agent, expected, &what).await?;
            // A disconnect revokes, where it may.
            if made {
                let id = world.connection(&ada).await?["id"].clone();
                let id = id.as_str().unwrap_or_default().to_owned();
                let user = format!("/connections/{id}?user=ada{users}");
                host.api(Method::DELETE, &user, None).await?;
            }
            nothing_leaked(world, trap, &what).await?;
            restore(world, PROVIDER, &provider_was).await?;
            restore(world, SERVER, &server_was).await?;
        }
    }
    Ok(())
}

/// Calls, and looks at the connection.
async fn check(
    world: &World,
    ada: &countersign_tests::Person,
    agent: &mut Agent,
    expected: Ends,
    what: &str,
) -> Result<()> {
    let reply = agent.call("whoami", json!({})).await?;
    let told = reply.countersign().clone();
    let status = world.connection(ada).await?;
    match expected {
        Forbidden(_) | Invalid | GoesOn => {
            assert!(reply.text().starts_with("ada"), "{what}: {}", reply.message);
            assert_eq!(status["status"], "connected", "{what}: {status}");
        }
        ProviderChanged => {
            assert_eq!(
                told["error"], "oauth_token_expired",
                "{what}: {}",
                reply.message
            );
            assert_eq!(told["reason"], "provider_changed", "{what}");
            assert_eq!(status["status"], "needs_reauth", "{what}: {status}");
            assert_eq!(status["reason"], "provider_changed", "{what}: {status}");
        }
        NotConnected => {
            assert_eq!(
                told["error"], "oauth_connection_required",
                "{what}: {}",
                reply.message
            );
        }
        Withheld => {
            assert_eq!(told["error"], "preset_failed", "{what}: {}", reply.message);
        }
    }
    Ok(())
}

/// Neither a token nor a client secret came to the trap.
async fn nothing_leaked(world: &World, trap: &Trap, what: &str) -> Result<()> {
    let secrets = world.provider.secrets().await?;
    for caught in trap.caught() {
        for (kind, secret) in &secrets {
            let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            assert!(
                !caught.raw.contains(secret) && !caught.raw.contains(&encoded),
                "{what}: a {kind} came to {} {}",
                caught.method,
                caught.path
            );
        }
        assert!(
            !caught.raw.to_lowercase().contains("authorization:"),
            "{what}: {}",
            caught.raw
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_edit_sends_what_is_there_to_another_place() -> Result<()> {
    let host = HostOptions {
        presets: vec!["generic".into(), "github".into()],
        ..HostOptions::default()
    };
    let world = World::with(Setup {
        server_record: json!({ "connection": "shared" }),
        host,
        ..Setup::default()
    })
    .await?;
    let trap = Trap::start().await?;
    let upstream = host_and_port(world.upstream.url());
    // Ports decide, so that the trap is another host than the vendor's.
    let narrow = json!({ "audience_hosts": [upstream] });
    world
        .host
        .must(Method::PATCH, PROVIDER, Some(narrow))
        .await?;
    for (name, hosts) in [("BOUND", json!(["id.example.com"])), ("LOOSE", json!([]))] {
        let secret = json!({ "value": "another-secret-of-the-house", "hosts": hosts });
        let path = format!("/secrets/{name}");
        world.host.must(Method::PUT, &path, Some(secret)).await?;
    }
    let at = |path: &str| json!(trap.at(path));
    let secret = Forbidden("secret_attach:NOTES_SECRET");
    let attach = Forbidden("provider_attach:notes");
    let trapped = host_and_port(&trap.url);
    let attacks = [
        attack(
            "token endpoint",
            [(PROVIDER, json!({ "token_endpoint": at("/token") }))],
            secret,
            ProviderChanged,
        ),
        attack(
            "revocation endpoint",
            [(PROVIDER, json!({ "revocation_endpoint": at("/revoke") }))],
            secret,
            ProviderChanged,
        ),
        attack(
            "device endpoint",
            [(
                PROVIDER,
                json!({ "device_authorization_endpoint": at("/device") }),
            )],
            secret,
            GoesOn,
        ),
        attack(
            "authorization endpoint",
            [(PROVIDER, json!({ "authorization_endpoint": at("/auth") }))],
            secret,
            GoesOn,
        ),
        attack(
            "user-info endpoint",
            [(
                PROVIDER,
                json!({ "settings": { "userinfo_endpoint": "https://127.0.0.1:1/u" } }),
            )],
            secret,
            GoesOn,
        ),
        attack(
            "client id",
            [(PROVIDER, json!({ "client_id": "another" }))],
            ProviderChanged,
            ProviderChanged,
        ),
        attack(
            "resource",
            [(PROVIDER, json!({ "resource": at("/mcp") }))],
            secret,
            ProviderChanged,
        ),
        attack(
            "audience",
            [(PROVIDER, json!({ "audience_hosts": [trapped] }))],
            Withheld,
            Withheld,
        ),
        attack(
            "bound secret",
            [(PROVIDER, json!({ "client_secret_ref": "BOUND" }))],
            Invalid,
            Invalid,
        ),
        attack(
            "loose secret",
            [(PROVIDER, json!({ "client_secret_ref": "LOOSE" }))],
            Forbidden("secret_attach:LOOSE"),
            GoesOn,
        ),
        attack(
            "private key",
            [(PROVIDER, json!({ "private_key_ref": "LOOSE" }))],
            Invalid,
            Invalid,
        ),
        attack(
            "another preset",
            [(
                PROVIDER,
                json!({
                    "preset": "github", "token_endpoint": null, "authorization_endpoint": null,
                    "revocation_endpoint": null, "audience_hosts": null, "resource": null,
                }),
            )],
            secret,
            ProviderChanged,
        ),
        attack(
            "server address",
            [(SERVER, json!({ "url": at("/mcp") }))],
            Invalid,
            Invalid,
        ),
        attack(
            "audience and server address",
            [
                (PROVIDER, json!({ "audience_hosts": [upstream, trapped] })),
                (SERVER, json!({ "url": at("/mcp") })),
            ],
            attach,
            ProviderChanged,
        ),
        attack(
            "dedicated connection",
            [(SERVER, json!({ "connection": "dedicated" }))],
            attach,
            NotConnected,
        ),
        attack(
            "server resource",
            [(SERVER, json!({ "resource": at("/mcp") }))],
            attach,
            GoesOn,
        ),
        attack(
            "injection",
            [(
                SERVER,
                json!({ "auth": { "injection": { "header_name": "Authorization", "header_prefix": "Bearer " } } }),
            )],
            attach,
            GoesOn,
        ),
        attack(
            "forbidden injection",
            [(
                SERVER,
                json!({ "auth": { "injection": { "header_name": "Host" } } }),
            )],
            Invalid,
            Invalid,
        ),
        attack(
            "command",
            [(SERVER, json!({ "url": null, "command": "sh -c x" }))],
            Invalid,
            Invalid,
        ),
        attack(
            "another mode",
            [(
                SERVER,
                json!({ "url": at("/mcp"), "auth": { "mode": "none", "provider": null, "required_scopes": null } }),
            )],
            attach,
            GoesOn,
        ),
    ];
    // The last sends calls to the trap, and no credential with them.
    let (last, attacks) = attacks.split_last().context("no attacks")?;
    run(&world, attacks, &trap).await?;
    assert!(trap.caught().is_empty(), "{:?}", trap.caught());
    let mighty = editor(&world.host, "third", &[]).await?;
    let (_, mut agent) = world.connected("grace", Era::PerRequest).await?;
    for (path, patch) in &last.patches {
        let answer = world
            .host
            .api_as(&mighty, Method::PATCH, path, Some(patch.clone()))
            .await?;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    agent.call("whoami", json!({})).await?;
    assert!(!trap.caught().is_empty());
    nothing_leaked(&world, &trap, last.name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_client_has_no_secret_to_guard_and_its_tokens_stay_all_the_same() -> Result<()> {
    let world = World::with(Setup {
        provider: &["--token-auth-method", "none"],
        provider_record: json!({ "token_endpoint_auth_method": "none", "client_secret_ref": null }),
        ..Setup::default()
    })
    .await?;
    let trap = Trap::start().await?;
    let at = |path: &str| json!(trap.at(path));
    let attacks = [
        attack(
            "token endpoint",
            [(PROVIDER, json!({ "token_endpoint": at("/token") }))],
            ProviderChanged,
            ProviderChanged,
        ),
        attack(
            "revocation endpoint",
            [(PROVIDER, json!({ "revocation_endpoint": at("/revoke") }))],
            ProviderChanged,
            ProviderChanged,
        ),
        attack(
            "resource",
            [(PROVIDER, json!({ "resource": at("/mcp") }))],
            ProviderChanged,
            ProviderChanged,
        ),
        // Loopback without a port is all of it: the address decides which
        // connection it is.
        attack(
            "server address",
            [(SERVER, json!({ "url": at("/mcp") }))],
            Forbidden("provider_attach:notes"),
            NotConnected,
        ),
    ];
    run(&world, &attacks, &trap).await?;
    assert!(trap.caught().is_empty(), "{:?}", trap.caught());
    Ok(())
}

/// A service account has no user who could be asked, and a stored key no
/// origins: nobody without a word on who may attach them leads them anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_and_a_stored_key_stay_where_they_were_attached() -> Result<()> {
    let world = World::with(Setup {
        provider_record: json!({ "grant_types": ["client_credentials"] }),
        server_record: json!({ "auth": { "mode": "service-account" } }),
        ..Setup::default()
    })
    .await?;
    let host = &world.host;
    let trap = Trap::start().await?;
    let value = json!({ "value": "a-stored-key-of-the-house" });
    host.must(Method::PUT, "/secrets/STORED", Some(value))
        .await?;
    let stored = json!({
        "name": "stored", "url": world.upstream.url(),
        "auth": { "mode": "static", "secret_ref": "STORED" },
    });
    host.must(Method::POST, "/servers", Some(stored)).await?;
    let limited = editor(host, "limited", &["provider_attach", "secret_attach"]).await?;
    let (_person, mut agent) = world.person("ada", Era::PerRequest).await?;
    agent.call("whoami", json!({})).await?.ok()?;

    let (client, key) = ("secret_attach:NOTES_SECRET", "secret_attach:STORED");
    let (at, own) = (|path: &str| json!(trap.at(path)), "provider_attach:notes");
    let attacks = [
        (PROVIDER, json!({ "token_endpoint": at("/token") }), client),
        (PROVIDER, json!({ "revocation_endpoint": at("/r") }), client),
        (PROVIDER, json!({ "resource": at("/mcp") }), client),
        (PROVIDER, json!({ "audience": "another" }), client),
        (SERVER, json!({ "url": at("/mcp") }), own),
        (SERVER, json!({ "auth": { "resource": at("/mcp") } }), own),
        (SERVER, json!({ "auth": { "audience": "another" } }), own),
        ("/servers/stored", json!({ "url": at("/mcp") }), key),
        (
            "/servers/stored",
            json!({ "auth": { "injection": { "header_name": "X-Key" } } }),
            key,
        ),
        (
            "/servers/stored",
            json!({ "url": at("/mcp"), "auth": { "mode": "none", "secret_ref": null } }),
            key,
        ),
    ];
    for (path, patch, missing) in attacks {
        let answer = host
            .api_as(&limited, Method::PATCH, path, Some(patch.clone()))
            .await?;
        assert_eq!(answer.status, 403, "{path} {patch}: {}", answer.text);
        assert_eq!(answer.json()["missing_permission"], missing, "{patch}");
    }
    // By way of a provider of the same name.
    let gone = "/providers/notes?force=true";
    host.api_as(&limited, Method::DELETE, gone, None).await?;
    let mut again = world.provider_record();
    again["token_endpoint"] = at("/token");
    again["grant_types"] = json!(["client_credentials"]);
    again["client_secret_ref"] = Value::Null;
    again["token_endpoint_auth_method"] = json!("none");
    host.api_as(&limited, Method::POST, "/providers", Some(again))
        .await?;
    agent.call("whoami", json!({})).await?;
    nothing_leaked(&world, &trap, "a provider of the same name").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_token_is_not_renewed_elsewhere() -> Result<()> {
    let world = World::with(Setup {
        provider: &["--access-ttl", "1"],
        ..Setup::default()
    })
    .await?;
    let trap = Trap::start().await?;
    let (ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    let patch = json!({ "token_endpoint": trap.at("/token") });
    world
        .host
        .must(Method::PATCH, PROVIDER, Some(patch))
        .await?;
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["reason"],
        "provider_changed",
        "{}",
        reply.message
    );
    assert_eq!(world.connection(&ada).await?["reason"], "provider_changed");
    assert!(trap.caught().is_empty(), "{:?}", trap.caught());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_under_way_ends_when_its_provider_is_led_elsewhere() -> Result<()> {
    let world = World::start().await?;
    let trap = Trap::start().await?;
    let mut ada = world.host.person("ada").await?;
    let page = ada.browser.open(&world.connect_page()).await?;
    // Stops at the provider's own sign-in.
    let there = ada.browser.press(&page, "Connect", &[]).await?;
    let patch = json!({ "token_endpoint": trap.at("/token") });
    world
        .host
        .must(Method::PATCH, PROVIDER, Some(patch))
        .await?;
    let asked = ada
        .browser
        .press(
            &there,
            "Sign in",
            &[("username", "ada-at-vendor"), ("password", "x")],
        )
        .await?;
    let back = ada.browser.press(&asked, "Allow", &[]).await?;
    assert!(back.text().contains("changed"), "{}", back.text());
    assert!(trap.caught().is_empty(), "{:?}", trap.caught());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_client_secret_keeps_connections() -> Result<()> {
    let world = World::with(Setup {
        provider: &["--access-ttl", "1"],
        ..Setup::default()
    })
    .await?;
    let (ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let new = "a-new-secret-of-the-vendor-0123456789";
    world
        .provider
        .0
        .control(json!({ "client_secret": new }))
        .await?;
    let value = json!({ "value": new });
    world
        .host
        .must(Method::PUT, "/secrets/NOTES_SECRET", Some(value))
        .await?;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert_eq!(
        agent.call("whoami", json!({})).await?.text(),
        "ada-at-vendor"
    );
    assert_eq!(world.connection(&ada).await?["status"], "connected");
    Ok(())
}
