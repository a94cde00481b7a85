//! The API as an administrator, an editor and a stranger meet it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use countersign_core::caller::{Caller, Permission, Permissions, Role};
use countersign_core::names::{RoleName, UserName};
use countersign_core::ports::fakes::{CountingRandom, FakeClock, MemoryRecords};
use countersign_core::ports::{BoxFuture, Records, StoreError, World};
use countersign_core::request::{Outgoing, SendError, Sender};
use countersign_core::secret::SealKey;
use countersign_core::time::Timestamp;
use countersign_core::token_answer::Answer;
use countersign_identity::{
    AccountChange, AccountEvents, Identity, Parts, PasswordCost, PublicUrl, Settings,
};
use countersign_oauth::Oauth;
use countersign_oauth::http::{Guard, GuardOptions};
use countersign_vault::audit::{AuditFilter, AuditLog, AuditOptions, AuditPage};
use countersign_vault::keys::KeyRing;
use countersign_vault::store::memory::MemoryStore;
use countersign_vault::vault::{OpenOptions, Vault};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{ApiState, openapi, router};
use crate::config::Config;
use crate::discovery::Discoveries;
use crate::registry::Registry;
use crate::registry::testing::FakePresets;

mod presets;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:8700"
[keys]
source = { env = "UNUSED" }
[network]
allow_private_upstreams = ["127.0.0.1:*"]
[presets]
signatures = "off"
"#;

struct Nowhere;

impl Sender for Nowhere {
    fn send(
        &self,
        _: Outgoing,
        _: std::time::Duration,
    ) -> BoxFuture<'_, Result<Answer, SendError>> {
        Box::pin(async { Err(SendError::Unreachable) })
    }
}

struct Nobody;

impl AccountEvents for Nobody {
    fn changed<'a>(
        &'a self,
        _: &'a UserName,
        _: AccountChange,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}

/// A house with an administrator, and everything in memory.
struct House {
    router: Router,
    registry: Arc<Registry>,
    identity: Identity,
    audit: Arc<AuditLog>,
    admin: String,
}

struct Answered {
    status: StatusCode,
    kind: String,
    body: Value,
}

async fn house() -> House {
    house_with(CONFIG).await
}

async fn house_with(config: &str) -> House {
    let config = Config::parse(std::path::Path::new("/x/countersign.toml"), config).unwrap();
    let records: Arc<dyn Records> = Arc::new(MemoryRecords::default());
    let clock = Arc::new(FakeClock::at(Timestamp::from_secs(1_795_000_000)));
    let audit = AuditLog::open(records.clone(), clock.clone(), AuditOptions::default())
        .await
        .unwrap();
    let audit = Arc::new(audit);
    let random = Arc::new(CountingRandom::default());
    let world = World {
        clock,
        random,
        records,
        audit: audit.clone(),
    };
    let registry = Registry::open(world.clone(), &config, FakePresets::usual())
        .await
        .unwrap();
    let public_url = config.server.public_url.clone();
    let mut settings = Settings::new(PublicUrl::parse(public_url.as_str()).unwrap());
    settings.password_cost = PasswordCost {
        memory_kib: 64,
        passes: 1,
    };
    let identity = Identity::new(Parts {
        world: world.clone(),
        key: SealKey::new([7; 32]),
        settings,
        resources: registry.clone(),
        accounts: Arc::new(Nobody),
        metadata: None,
        issuer_keys: None,
    });
    let admin = identity
        .bootstrap(UserName::parse("admin").unwrap())
        .await
        .unwrap()
        .token
        .reveal();
    let oauth = Oauth::new(world.clone(), Arc::new(Nowhere), public_url.clone());
    let world_of_keys = world.clone();
    let vault = Vault::open(
        Arc::new(MemoryStore::new()),
        KeyRing::single([7; 32]),
        world.random.clone(),
        OpenOptions::default(),
    )
    .await
    .unwrap();
    let file = config.file.clone();
    let sealing = crate::keys::HostKeys::new(world.clone(), Arc::new(vault), file);
    let guard = Guard::new(GuardOptions::default()).unwrap();
    let discoveries = Discoveries::new(
        registry.clone(),
        oauth.clone(),
        guard,
        public_url.clone(),
        world.clone(),
    );
    let state = ApiState {
        discoveries,
        sealing,
        world,
        registry: registry.clone(),
        trust: Arc::default(),
        identity: identity.clone(),
        oauth,
        keys: crate::user_keys::UserKeys::new(world_of_keys),
        audit: audit.clone(),
        public_url,
        strangers: Arc::default(),
        recorder: Arc::new(crate::replay::Recorder::new(SealKey::new([3; 32]))),
    };
    House {
        router: router(state),
        registry,
        identity,
        audit,
        admin,
    }
}

impl House {
    async fn raw(&self, token: &str, method: &str, path: &str, body: &str) -> Answered {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let kind = response
            .headers()
            .get("content-type")
            .map_or("", |v| v.to_str().unwrap())
            .to_owned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap()
        };
        Answered { status, kind, body }
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> Answered {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.raw(&self.admin, method, path, &body).await
    }

    async fn good(&self, method: &str, path: &str, body: Value) -> Value {
        let answered = self.ask(method, path, body).await;
        assert!(
            answered.status.is_success(),
            "{method} {path}: {}",
            answered.body
        );
        answered.body
    }

    /// An account with one role that allows just this; its token.
    async fn someone(&self, name: &str, allow: &[&str]) -> String {
        self.good("POST", "/roles", json!({"name": name, "allow": allow}))
            .await;
        let user = json!({"name": name, "kind": "service", "roles": [name]});
        self.good("POST", "/users", user).await;
        let token = json!({"name": "t", "kind": "api", "user": name});
        self.good("POST", "/tokens", token).await["token"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    async fn actions(&self) -> Vec<String> {
        let page = AuditPage {
            before: None,
            size: 500,
        };
        let mut found = self
            .audit
            .events(&AuditFilter::default(), &page)
            .await
            .unwrap()
            .events;
        found.reverse();
        found
            .iter()
            .map(|e| {
                format!(
                    "{} {:?} {}",
                    e.action,
                    e.outcome,
                    e.resource.as_deref().unwrap_or("-")
                )
            })
            .collect()
    }

    /// Secrets, an enabled preset, a provider and a server.
    async fn furnished() -> Self {
        let house = house().await;
        house
            .good(
                "PUT",
                "/secrets/IDP_SECRET",
                json!({"value": "very-secret-value"}),
            )
            .await;
        house
            .good("PATCH", "/presets/generic", json!({"enabled": true}))
            .await;
        house
            .good("PATCH", "/presets/acme", json!({"enabled": true}))
            .await;
        house.good("POST", "/providers", provider()).await;
        house.good("POST", "/servers", server()).await;
        house
    }
}

fn provider() -> Value {
    json!({
        "name": "idp", "preset": "generic", "client_id": "c", "client_secret_ref": "IDP_SECRET",
        "authorization_endpoint": "http://127.0.0.1:9000/authorize", "token_endpoint": "http://127.0.0.1:9000/token",
        "scopes": ["notes.read"], "audience_hosts": ["127.0.0.1:9100", "mcp.example.com"],
    })
}

fn server() -> Value {
    json!({"name": "notes", "url": "http://127.0.0.1:9100/mcp", "auth": {"mode": "user-delegated", "provider": "idp"}})
}

fn with(mut base: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => {
                base.as_object_mut().unwrap().shift_remove(name);
            }
            value => base[name] = value.clone(),
        }
    }
    base
}

#[tokio::test]
async fn a_provider_and_a_server_are_registered_with_the_fields_of_the_contract() {
    let house = House::furnished().await;
    let provider = house.good("GET", "/providers/idp", Value::Null).await;
    insta::assert_json_snapshot!("provider", provider);
    let server = house.good("GET", "/servers/notes", Value::Null).await;
    insta::assert_json_snapshot!("server", server);
    assert!(
        house.registry.party(&"idp".parse().unwrap()).is_some(),
        "approved by its registration"
    );
}

#[tokio::test]
async fn a_secret_is_never_read_back() {
    let house = House::furnished().await;
    for path in [
        "/secrets",
        "/secrets/IDP_SECRET",
        "/providers",
        "/audit",
        "/openapi.json",
    ] {
        let answered = house.ask("GET", path, Value::Null).await;
        assert_eq!(answered.status, StatusCode::OK, "{path}");
        assert!(
            !answered.body.to_string().contains("very-secret-value"),
            "{path}"
        );
    }
    let view = house.good("GET", "/secrets/IDP_SECRET", Value::Null).await;
    assert_eq!(view["used_by"], json!(["provider idp"]));
    let sealed = house
        .registry
        .sealed(&"IDP_SECRET".parse().unwrap())
        .await
        .unwrap();
    assert!(sealed.is_some_and(|(_, sealed)| sealed.is_sound()));
}

#[tokio::test]
async fn what_a_provider_may_not_be_is_refused_by_field() {
    let house = House::furnished().await;
    house
        .good(
            "PUT",
            "/secrets/BOUND",
            json!({"value": "v", "hosts": ["idp.example.com"]}),
        )
        .await;
    house
        .good("PATCH", "/presets/old", json!({"enabled": true}))
        .await;
    let p = || with(provider(), json!({"name": "p2"}));
    let cases = [
        ("taken name", provider()),
        ("bad name", with(p(), json!({"name": "My_Idp"}))),
        ("no name", with(p(), json!({"name": null}))),
        ("no client id", with(p(), json!({"client_id": null}))),
        ("no preset", with(p(), json!({"preset": null}))),
        ("unknown preset", with(p(), json!({"preset": "gihub"}))),
        ("preset not in use", with(p(), json!({"preset": "broken"}))),
        (
            "unknown secret",
            with(p(), json!({"client_secret_ref": "NO_SUCH"})),
        ),
        (
            "secret pasted",
            with(p(), json!({"client_secret_ref": "ghs_abcdef"})),
        ),
        (
            "secret for other hosts",
            with(p(), json!({"client_secret_ref": "BOUND"})),
        ),
        ("no secret", with(p(), json!({"client_secret_ref": null}))),
        (
            "public with a secret",
            with(p(), json!({"token_endpoint_auth_method": "none"})),
        ),
        (
            "public without PKCE",
            with(
                p(),
                json!({"token_endpoint_auth_method": "none", "client_secret_ref": null, "require_pkce": false}),
            ),
        ),
        (
            "key method without key",
            with(
                p(),
                json!({"token_endpoint_auth_method": "private_key_jwt"}),
            ),
        ),
        (
            "unknown method",
            with(
                p(),
                json!({"token_endpoint_auth_method": "client_secret_jwt"}),
            ),
        ),
        (
            "plain http",
            with(
                p(),
                json!({"token_endpoint": "http://idp.example.com/token"}),
            ),
        ),
        (
            "private address",
            with(p(), json!({"token_endpoint": "https://10.1.2.3/token"})),
        ),
        (
            "itself",
            with(
                p(),
                json!({"token_endpoint": "http://127.0.0.1:8700/oauth2/token"}),
            ),
        ),
        (
            "javascript",
            with(
                p(),
                json!({"authorization_endpoint": "javascript:alert(1)"}),
            ),
        ),
        (
            "endpoint of generic missing",
            with(p(), json!({"token_endpoint": null})),
        ),
        (
            "audience of generic missing",
            with(p(), json!({"audience_hosts": null})),
        ),
        (
            "audience is a URL",
            with(p(), json!({"audience_hosts": ["https://mcp.example.com"]})),
        ),
        ("bad scope", with(p(), json!({"scopes": ["a b"]}))),
        ("bad grant", with(p(), json!({"grant_types": ["password"]}))),
        (
            "only refresh",
            with(p(), json!({"grant_types": ["refresh_token"]})),
        ),
        (
            "device without endpoint",
            with(p(), json!({"grant_types": ["device_code"]})),
        ),
        (
            "PKCE where there is none",
            with(p(), json!({"preset": "old", "require_pkce": true})),
        ),
        (
            "bad timeout",
            with(p(), json!({"request_timeout": "10 minutes"})),
        ),
        ("too many retries", with(p(), json!({"max_retries": 11}))),
        (
            "resource with fragment",
            with(p(), json!({"resource": "https://x.example/#y"})),
        ),
        ("bad settings", with(p(), json!({"settings": {"bad": 1}}))),
        ("unknown field", with(p(), json!({"colour": "red"}))),
        (
            "read-only field",
            with(p(), json!({"callback_url": "https://evil.example"})),
        ),
        ("wrong type", with(p(), json!({"scopes": "a b"}))),
        (
            "line break in a name for people",
            with(p(), json!({"display_name": "a\nb"})),
        ),
    ];
    let mut out = String::new();
    for (what, body) in cases {
        let answered = house.ask("POST", "/providers", body).await;
        assert!(
            answered.status.is_client_error(),
            "{what} was accepted: {}",
            answered.body
        );
        assert_eq!(answered.kind, "application/problem+json", "{what}");
        out.push_str(&format!(
            "{what}: {} {}\n",
            answered.body["status"],
            answered.body["detail"].as_str().unwrap()
        ));
    }
    insta::assert_snapshot!("provider_refusals", out);
    assert_eq!(house.registry.snapshot().providers.len(), 1);
    assert!(
        house.registry.party(&"idp".parse().unwrap()).is_some(),
        "the good one still serves"
    );
}

#[tokio::test]
async fn what_a_server_may_not_be_is_refused_by_field() {
    let house = House::furnished().await;
    house
        .good(
            "PUT",
            "/secrets/BOUND",
            json!({"value": "v", "hosts": ["api.example.com"]}),
        )
        .await;
    let s = || with(server(), json!({"name": "s2"}));
    let auth = |auth: Value| with(s(), json!({"auth": auth}));
    let delegated = |extra: Value| {
        auth(with(
            json!({"mode": "user-delegated", "provider": "idp"}),
            extra,
        ))
    };
    let cases = [
        ("taken name", server()),
        ("bad name", with(s(), json!({"name": "no/slash"}))),
        ("no address", with(s(), json!({"url": null}))),
        ("two addresses", with(s(), json!({"command": "x"}))),
        (
            "command nobody allowed",
            with(s(), json!({"url": null, "command": "rm"})),
        ),
        (
            "plain http",
            with(s(), json!({"url": "http://mcp.example.com/"})),
        ),
        (
            "private address",
            with(s(), json!({"url": "https://192.168.1.1/"})),
        ),
        (
            "metadata address",
            with(s(), json!({"url": "http://169.254.169.254/"})),
        ),
        (
            "itself",
            with(s(), json!({"url": "http://localhost:8700/mcp/notes"})),
        ),
        ("unknown provider", delegated(json!({"provider": "ipd"}))),
        ("no provider", delegated(json!({"provider": null}))),
        (
            "outside the audience",
            with(s(), json!({"url": "https://evil.example/mcp"})),
        ),
        (
            "key in a delegated server",
            delegated(json!({"secret_ref": "IDP_SECRET"})),
        ),
        (
            "provider without auth",
            auth(json!({"mode": "none", "provider": "idp"})),
        ),
        (
            "scopes of a key",
            auth(json!({"mode": "static", "secret_ref": "IDP_SECRET", "required_scopes": ["a"]})),
        ),
        ("no key", auth(json!({"mode": "static"}))),
        (
            "unknown key",
            auth(json!({"mode": "static", "secret_ref": "NO_SUCH"})),
        ),
        (
            "key for other hosts",
            auth(json!({"mode": "static", "secret_ref": "BOUND"})),
        ),
        (
            "no grant for the mode",
            auth(json!({"mode": "token-exchange", "provider": "idp"})),
        ),
        ("unknown mode", auth(json!({"mode": "magic"}))),
        (
            "injection into Host",
            delegated(json!({"injection": {"header_name": "Host"}})),
        ),
        (
            "injection into MCP",
            delegated(json!({"injection": {"header_name": "Mcp-Session-Id"}})),
        ),
        (
            "injection into Cookie",
            delegated(json!({"injection": {"header_name": "Cookie"}})),
        ),
        (
            "injection into a proxy header",
            delegated(json!({"injection": {"header_name": "X-Forwarded-For"}})),
        ),
        (
            "injection splits headers",
            delegated(json!({"injection": {"header_name": "X-Key", "header_prefix": "a\r\nb: "}})),
        ),
        (
            "injection without a name",
            delegated(json!({"injection": {"header_name": ""}})),
        ),
        ("unknown team", with(s(), json!({"teams": ["nobody"]}))),
        ("long wait", with(s(), json!({"wait": "1h"}))),
        ("empty pattern", with(s(), json!({"tools": {"deny": [""]}}))),
        (
            "unknown field inside",
            with(s(), json!({"tools": {"denied": []}})),
        ),
    ];
    let mut out = String::new();
    for (what, body) in cases {
        let answered = house.ask("POST", "/servers", body).await;
        assert!(
            answered.status.is_client_error(),
            "{what} was accepted: {}",
            answered.body
        );
        out.push_str(&format!(
            "{what}: {} {}\n",
            answered.body["status"],
            answered.body["detail"].as_str().unwrap()
        ));
    }
    insta::assert_snapshot!("server_refusals", out);
}

#[tokio::test]
async fn each_change_needs_its_permission_and_names_it() {
    let house = House::furnished().await;
    let all = [
        "provider_create",
        "provider_update",
        "provider_delete",
        "server_create",
        "server_update",
    ];
    let nobody = house.someone("nobody", &[]).await;
    let editor = house.someone("editor", &all).await;
    let cases = [
        (
            &nobody,
            "POST",
            "/providers",
            with(provider(), json!({"name": "p2"})),
            "provider_create:p2",
        ),
        (
            &nobody,
            "PATCH",
            "/providers/idp",
            json!({"display_name": "x"}),
            "provider_update:idp",
        ),
        (
            &nobody,
            "DELETE",
            "/providers/idp",
            Value::Null,
            "provider_delete:idp",
        ),
        (&nobody, "GET", "/providers", Value::Null, "provider_list"),
        (
            &nobody,
            "GET",
            "/providers/idp",
            Value::Null,
            "provider_get:idp",
        ),
        (
            &nobody,
            "PUT",
            "/secrets/A",
            json!({"value": "v"}),
            "secret_create:A",
        ),
        (
            &nobody,
            "PUT",
            "/secrets/IDP_SECRET",
            json!({"value": "v"}),
            "secret_update:IDP_SECRET",
        ),
        (
            &nobody,
            "DELETE",
            "/secrets/IDP_SECRET",
            Value::Null,
            "secret_delete:IDP_SECRET",
        ),
        (
            &nobody,
            "PATCH",
            "/presets/old",
            json!({"enabled": true}),
            "preset_enable:old",
        ),
        (
            &nobody,
            "POST",
            "/presets/generic/approve",
            json!({}),
            "preset_approve:generic",
        ),
        (&nobody, "GET", "/audit", Value::Null, "audit_read"),
        (&nobody, "GET", "/keys", Value::Null, "key_list"),
        (&nobody, "GET", "/keys/rotation", Value::Null, "key_list"),
        (&nobody, "POST", "/keys/rotation", Value::Null, "key_rotate"),
        (&nobody, "GET", "/doctor", Value::Null, "doctor_run"),
        (&nobody, "POST", "/backup", Value::Null, "backup_create"),
        (
            &nobody,
            "POST",
            "/users",
            json!({"name": "x"}),
            "user_create",
        ),
        (
            &nobody,
            "DELETE",
            "/connections/x?user=admin",
            Value::Null,
            "connection_revoke_any:admin",
        ),
        // Referring to a secret or attaching a provider is a permission of its own.
        (
            &editor,
            "POST",
            "/providers",
            with(provider(), json!({"name": "p2"})),
            "secret_attach:IDP_SECRET",
        ),
        (
            &editor,
            "PATCH",
            "/providers/idp",
            json!({"token_endpoint": "https://evil.example/token"}),
            "secret_attach:IDP_SECRET",
        ),
        (
            &editor,
            "POST",
            "/servers",
            with(server(), json!({"name": "s2"})),
            "provider_attach:idp",
        ),
        (
            &editor,
            "PATCH",
            "/servers/notes",
            json!({"url": "https://mcp.example.com/mcp"}),
            "provider_attach:idp",
        ),
        (
            &editor,
            "PATCH",
            "/servers/notes",
            json!({"auth": {"injection": {"header_name": "X-Other"}}}),
            "provider_attach:idp",
        ),
        // Neither may another connection's token be sent there, nor the
        // provider be taken away.
        (
            &editor,
            "PATCH",
            "/servers/notes",
            json!({"connection": "shared"}),
            "provider_attach:idp",
        ),
        (
            &editor,
            "PATCH",
            "/servers/notes",
            json!({"auth": null}),
            "provider_attach:idp",
        ),
        (
            &editor,
            "POST",
            "/servers",
            json!({"name": "s3", "url": "http://127.0.0.1:1/", "auth": {"mode": "static", "secret_ref": "IDP_SECRET"}}),
            "secret_attach:IDP_SECRET",
        ),
    ];
    for (token, method, path, body, missing) in cases {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answered = house.raw(token, method, path, &body).await;
        assert_eq!(
            answered.status,
            StatusCode::FORBIDDEN,
            "{method} {path}: {}",
            answered.body
        );
        assert_eq!(
            answered.body["missing_permission"], missing,
            "{method} {path}"
        );
    }
    // What moves no secret and no credential needs no more than the update.
    let calm = [
        ("/providers/idp", json!({"display_name": "IdP"})),
        ("/servers/notes", json!({"tools": {"deny": ["x"]}})),
    ];
    for (path, body) in calm {
        let answered = house.raw(&editor, "PATCH", path, &body.to_string()).await;
        assert_eq!(answered.status, StatusCode::OK, "{path}: {}", answered.body);
    }
    let denied = house
        .actions()
        .await
        .into_iter()
        .filter(|a| a.contains("Denied"))
        .count();
    assert!(
        denied >= 16,
        "refused changes are in the audit log: {denied}"
    );
}

#[tokio::test]
async fn a_provider_of_somebody_who_may_not_approve_waits() {
    let house = House::furnished().await;
    let maker = house
        .someone(
            "maker",
            &[
                "provider_create",
                "provider_update",
                "provider_get",
                "secret_attach",
            ],
        )
        .await;
    let body = with(
        provider(),
        json!({"name": "p2", "audience_hosts": ["127.0.0.1:1"]}),
    );
    let made = house
        .raw(&maker, "POST", "/providers", &body.to_string())
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert_eq!(made.body["approval_pending"], true);
    let name = "p2".parse().unwrap();
    assert!(house.registry.party(&name).is_none());

    let approved = house
        .good(
            "POST",
            "/presets/generic/approve",
            json!({"provider": "p2"}),
        )
        .await;
    assert_eq!(
        approved["approved"][0]["added"],
        json!(["audience host 127.0.0.1:1"])
    );
    assert!(house.registry.party(&name).is_some());
    assert_eq!(
        house
            .good("POST", "/presets/generic/approve", json!({}))
            .await,
        json!({"approved": []})
    );

    // Another audience is another permission set.
    let wider = json!({"audience_hosts": ["127.0.0.1:1", "127.0.0.1:2"]}).to_string();
    house.raw(&maker, "PATCH", "/providers/p2", &wider).await;
    assert!(house.registry.party(&name).is_none());
    let approved = house
        .good("POST", "/presets/generic/approve", json!({}))
        .await;
    assert_eq!(approved["approved"].as_array().unwrap().len(), 1);
    assert!(house.registry.party(&name).is_some());

    // An approver's change of something else is no word on what waits.
    let wider = json!({"audience_hosts": ["127.0.0.1:1", "127.0.0.1:3"]}).to_string();
    house.raw(&maker, "PATCH", "/providers/p2", &wider).await;
    house
        .good("PATCH", "/providers/p2", json!({"display_name": "P2"}))
        .await;
    assert!(house.registry.party(&name).is_none());
}

#[tokio::test]
async fn a_preset_must_be_enabled_before_a_provider_uses_it() {
    let house = house().await;
    house
        .good("PUT", "/secrets/IDP_SECRET", json!({"value": "v"}))
        .await;
    let refused = house.ask("POST", "/providers", provider()).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(
        refused.body["detail"]
            .as_str()
            .unwrap()
            .contains("countersign preset enable generic")
    );

    let unknown = house
        .ask("PATCH", "/presets/gihub", json!({"enabled": true}))
        .await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(
        unknown.body["detail"],
        "preset gihub not found; there are acme, broken, generic, old"
    );
    let broken = house
        .ask(
            "PATCH",
            "/presets/broken-1.0.0.wasm",
            json!({"enabled": true}),
        )
        .await;
    assert!(
        broken.body["detail"]
            .as_str()
            .unwrap()
            .contains("wasi:sockets"),
        "{}",
        broken.body
    );

    house
        .good(
            "PATCH",
            "/presets/generic-1.0.0.wasm",
            json!({"enabled": true}),
        )
        .await;
    house.good("POST", "/providers", provider()).await;
    let name = "idp".parse().unwrap();
    assert!(house.registry.party(&name).is_some());
    house
        .good("PATCH", "/presets/generic", json!({"enabled": false}))
        .await;
    assert!(house.registry.party(&name).is_none());
    // It can still be changed, but not brought back by that.
    house
        .good("PATCH", "/providers/idp", json!({"enabled": false}))
        .await;
    assert!(house.registry.party(&name).is_none());
    house
        .good("PATCH", "/presets/generic", json!({"enabled": true}))
        .await;
    assert!(
        house.registry.party(&name).is_some(),
        "its approval still stands"
    );
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let house = House::furnished().await;
    let before = house.good("GET", "/providers/idp", Value::Null).await;
    let after = house
        .good(
            "PATCH",
            "/providers/idp",
            json!({"scopes": ["a", "b"], "audience": "x"}),
        )
        .await;
    let expected = with(before, json!({"scopes": ["a", "b"], "audience": "x"}));
    assert_eq!(
        with(after, json!({"updated_at": null})),
        with(expected, json!({"updated_at": null}))
    );
    let cleared = house
        .good("PATCH", "/providers/idp", json!({"audience": null}))
        .await;
    assert_eq!(cleared["audience"], Value::Null);
    for (path, body) in [
        ("/providers/idp", json!({"name": "other"})),
        ("/servers/notes", json!({"name": "other"})),
    ] {
        let refused = house.ask("PATCH", path, body).await;
        assert_eq!(
            (refused.status, &refused.body["field"]),
            (StatusCode::BAD_REQUEST, &json!("name"))
        );
    }
    let wrong = house
        .ask("PATCH", "/servers/notes", json!({"auth": {"mode": "none"}}))
        .await;
    assert!(
        wrong.body["detail"]
            .as_str()
            .unwrap()
            .contains("is not used in mode none")
    );
}

#[tokio::test]
async fn what_is_in_use_is_deleted_only_by_force() {
    let house = House::furnished().await;
    for (path, by) in [
        ("/secrets/IDP_SECRET", "provider idp"),
        ("/providers/idp", "server notes"),
    ] {
        let refused = house.ask("DELETE", path, Value::Null).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{path}");
        assert!(
            refused.body["detail"].as_str().unwrap().contains(by),
            "{}",
            refused.body
        );
        let forced = house
            .ask("DELETE", &format!("{path}?force=true"), Value::Null)
            .await;
        assert!(forced.status.is_success(), "{path}: {}", forced.body);
        if path == "/providers/idp" {
            // What is forced says what fails from then on.
            let expected = json!({
                "servers_without_provider": ["notes"],
                "connections_erased": 0,
                "connections_revoked": 0,
            });
            assert_eq!(forced.body, expected);
        }
    }
    assert_eq!(
        house
            .ask("DELETE", "/servers/notes", Value::Null)
            .await
            .status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        house
            .ask("DELETE", "/servers/notes", Value::Null)
            .await
            .status,
        StatusCode::NOT_FOUND
    );
    assert!(house.registry.party(&"idp".parse().unwrap()).is_none());
}

#[tokio::test]
async fn without_a_token_of_kind_api_nothing_is_told() {
    let house = House::furnished().await;
    house
        .good(
            "POST",
            "/users",
            json!({"name": "bot", "kind": "service", "roles": ["user"]}),
        )
        .await;
    let mcp = house
        .good(
            "POST",
            "/tokens",
            json!({"name": "m", "kind": "mcp", "user": "bot"}),
        )
        .await;
    for token in [
        "",
        "cs_api_wrong",
        "nonsense",
        mcp["token"].as_str().unwrap(),
    ] {
        let answered = house.raw(token, "GET", "/providers", "").await;
        assert_eq!(answered.status, StatusCode::UNAUTHORIZED, "{token}");
        assert_eq!(answered.kind, "application/problem+json");
    }
}

#[tokio::test]
async fn nobody_mints_a_token_for_another_human() {
    let house = house().await;
    house
        .good(
            "POST",
            "/users",
            json!({"name": "alice", "password": "correct horse battery"}),
        )
        .await;
    let refused = house
        .ask(
            "POST",
            "/tokens",
            json!({"name": "x", "kind": "mcp", "user": "alice"}),
        )
        .await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
}

#[tokio::test]
async fn a_connect_link_is_made_for_the_caller_and_the_server_that_needs_it() {
    let house = House::furnished().await;
    let link = house
        .good("POST", "/connections", json!({"provider": "idp"}))
        .await;
    assert!(
        link["authorize_url"]
            .as_str()
            .unwrap()
            .starts_with("http://127.0.0.1:8700/connect/idp?link=")
    );
    assert_eq!(
        link["resource"], "http://127.0.0.1:9100/mcp",
        "the only server has connections of its own"
    );
    house
        .good(
            "POST",
            "/servers",
            with(
                server(),
                json!({"name": "more", "url": "https://mcp.example.com/mcp"}),
            ),
        )
        .await;
    let which = house
        .ask("POST", "/connections", json!({"provider": "idp"}))
        .await;
    assert!(
        which.body["detail"]
            .as_str()
            .unwrap()
            .contains("more, notes"),
        "{}",
        which.body
    );
    let link = house
        .good(
            "POST",
            "/connections",
            json!({"provider": "idp", "server": "more"}),
        )
        .await;
    assert_eq!(link["resource"], "https://mcp.example.com/mcp");
    for (body, word) in [
        (json!({"provider": "nope"}), "not found"),
        (
            json!({"provider": "idp", "server": "more", "team": "x"}),
            "member",
        ),
    ] {
        let refused = house.ask("POST", "/connections", body).await;
        assert!(
            refused.body["detail"].as_str().unwrap().contains(word),
            "{}",
            refused.body
        );
    }
    assert_eq!(
        house.good("GET", "/connections", Value::Null).await["total_size"],
        0
    );
}

#[tokio::test]
async fn a_vendors_own_server_shares_its_connection() {
    let house = House::furnished().await;
    let acme = json!({"name": "acme", "preset": "acme", "client_id": "c", "client_secret_ref": "IDP_SECRET"});
    house.good("POST", "/providers", acme).await;
    let at = |name: &str, url: &str| json!({"name": name, "url": url, "auth": {"mode": "user-delegated", "provider": "acme"}});
    let own = house
        .good(
            "POST",
            "/servers",
            at("own", "https://mcp.acme.example/mcp"),
        )
        .await;
    let other = house
        .good(
            "POST",
            "/servers",
            at("other", "https://third.acme.example/mcp"),
        )
        .await;
    assert_eq!(
        (&own["connection"], &other["connection"]),
        (&json!("shared"), &json!("dedicated"))
    );
}

#[tokio::test]
async fn every_change_is_in_the_audit_log_once() {
    let house = House::furnished().await;
    house
        .good("PATCH", "/providers/idp", json!({"scopes": ["a"]}))
        .await;
    house.good("DELETE", "/servers/notes", Value::Null).await;
    let list = house
        .good(
            "GET",
            "/audit?filter=user%20%3D%20admin%20AND%20action%20%3D%20provider",
            Value::Null,
        )
        .await;
    assert_eq!(list["items"][0]["detail"], "changed scopes");
    insta::assert_snapshot!("audit", house.actions().await.join("\n"));
}

#[tokio::test]
async fn a_body_that_is_not_strict_json_is_refused() {
    let house = house().await;
    for body in ["", "[]", "{", "{\"name\":\"a\",\"name\":\"b\"}", "null"] {
        let answered = house.raw(&house.admin, "POST", "/providers", body).await;
        assert_eq!(
            answered.status,
            StatusCode::BAD_REQUEST,
            "{body}: {}",
            answered.body
        );
    }
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(70_000));
    assert_eq!(
        house
            .raw(&house.admin, "POST", "/providers", &long)
            .await
            .status,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    assert_eq!(
        house.ask("GET", "/nothing", Value::Null).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        house.ask("DELETE", "/providers", Value::Null).await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[tokio::test]
async fn the_openapi_document_names_every_route_and_field() {
    let document = serde_json::to_value(openapi()).unwrap();
    let paths: Vec<_> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object()
                .unwrap()
                .keys()
                .map(move |method| format!("{method} {path}"))
        })
        .collect();
    insta::assert_snapshot!("openapi_routes", paths.join("\n"));
    let house = House::furnished().await;
    for (path, schema) in [
        ("/providers/idp", "ProviderView"),
        ("/servers/notes", "ServerView"),
        ("/secrets/IDP_SECRET", "SecretView"),
    ] {
        let body = house.good("GET", path, Value::Null).await;
        let schema = document["components"]["schemas"][schema].to_string();
        let inputs = document["components"]["schemas"].to_string();
        for field in body.as_object().unwrap().keys() {
            assert!(
                schema.contains(&format!("\"{field}\""))
                    || inputs.contains(&format!("\"{field}\"")),
                "{path} {field}"
            );
        }
    }
}

#[tokio::test]
async fn two_changes_at_once_do_not_overwrite_each_other() {
    let house = House::furnished().await;
    let caller = Caller {
        user: UserName::parse("x").unwrap(),
        team: countersign_core::names::TeamName::default_team(),
        client: "c".parse().unwrap(),
        client_name: "c".into(),
        roles: Default::default(),
        permissions: Permissions::from_roles([&Role {
            name: RoleName::parse("r").unwrap(),
            allow: vec![Permission::parse("provider_update").unwrap()],
        }]),
        servers: None,
        has_browser_identity: true,
    };
    let change = |body: Value| match body {
        Value::Object(map) => map,
        _ => unreachable!(),
    };
    let (a, b) = tokio::join!(
        house
            .registry
            .update_provider(&caller, "idp", change(json!({"display_name": "A"}))),
        house
            .registry
            .update_provider(&caller, "idp", change(json!({"request_timeout": "20s"}))),
    );
    a.unwrap();
    b.unwrap();
    let provider = house.registry.find_provider("idp").unwrap();
    assert_eq!(
        (
            provider.display_name.as_str(),
            provider.request_timeout.as_secs()
        ),
        ("A", 20)
    );
    assert!(house.identity.settings().public_url.is_loopback());
}
