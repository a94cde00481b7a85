//! A vault full of recognisable secrets, and every way in which the host lets a
//! preset near an answer or a request.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::caller::{Caller, Permissions};
use countersign_core::connection::{Account, Connection, Origins, State, TokenFacts};
use countersign_core::decide::{Attachment, Permit};
use countersign_core::error::CallError;
use countersign_core::hosts::HostPattern;
use countersign_core::inject::{Plan, Request, Vaulted};
use countersign_core::names::{
    ClientId, ConnectionId, Digest, PresetName, ProviderName, SecretName, ServerName, TeamName,
    UserName,
};
use countersign_core::preset::{Call, GrantFacts, Preset};
use countersign_core::provider::Provider;
use countersign_core::scope::ScopeSet;
use countersign_core::secret::{SealKey, Sealed, Secret};
use countersign_core::server::{AuthMode, ConnectionUse, Server, ServerAuth, Target, ToolFilter};
use countersign_core::time::Timestamp;
use countersign_core::token_answer::{Answer, Reading, covered_text, masked_body, read};
use countersign_core::tokens::{CredentialTokens, TokenSet};
use countersign_core::veil::Veil;
use countersign_presets::{BindError, Catalog, EngineConfig};
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
/// What a guest may see, to show that its memory is looked at.
pub const MARKER: &str = "a-marker-every-guest-may-see-4711";
pub const SECRETS: [(&str, &str); 5] = [
    ("the access token", "canary1-Access_Qx7vTn2pLk9wRb4z"),
    ("the refresh token", "canary2-Refresh_Hy3mWs8dFg5uJc6e"),
    ("the ID token", "canary3-Identity_Vb1nMz0aKt4rYp7o"),
    ("the client secret", "canary4-Client_Lq9eUx2sDw6iGh8f"),
    ("the stored key", "canary5-Stored_Zk5tOj3bNc1vRy0m"),
];

/// What guests answered, as anybody would see it.
#[derive(Default)]
pub struct Saying {
    bytes: Vec<u8>,
    words: usize,
}

impl Saying {
    pub fn add(&mut self, preset: &str, what: &dyn std::fmt::Debug) {
        self.words += 1;
        self.bytes
            .extend_from_slice(format!("{preset}: {what:?}\n").as_bytes());
    }
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    pub fn words(&self) -> usize {
        self.words
    }
}

fn secret(index: usize) -> Secret {
    Secret::from_text(SECRETS[index].1.into())
}

fn sealed(secret: &Secret) -> Sealed {
    let key = SealKey::new([9; 32]);
    let bytes = secret.seal(&key, [1; 24], b"here");
    Sealed::new(key, b"here".to_vec(), bytes)
}

fn tokens() -> TokenSet {
    let of = |credential: &str| CredentialTokens {
        credential: credential.into(),
        access_token: secret(0),
        refresh_token: Some(secret(1)),
        id_token: Some(secret(2)),
    };
    TokenSet {
        credentials: vec![of("user"), of("bot")],
    }
}

fn component(name: &str) -> (PathBuf, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let prefix = format!("{name}-");
    for folder in ["catalog", "tests/fixtures/presets/out"] {
        for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            if file.starts_with(&prefix) && file.ends_with(".wasm") {
                return (path, file);
            }
        }
    }
    panic!("{name} is not built: run `cargo xtask presets` and `cargo xtask presets --fixtures`")
}

pub struct House {
    catalog: Arc<Catalog>,
    dir: tempfile::TempDir,
}

/// A preset under a provider's settings.
pub type Bound = Arc<dyn Preset>;

impl House {
    pub fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = EngineConfig::default();
        config.large.sandboxes = 4;
        config.describe_deadline = Duration::from_secs(5);
        let catalog = Catalog::open(dir.path(), config).unwrap();
        Self { catalog, dir }
    }

    fn install(&self, preset: &str) {
        let (path, file) = component(preset);
        if !self.dir.path().join(&file).exists() {
            std::fs::copy(path, self.dir.path().join(file)).unwrap();
            self.catalog.rescan();
        }
    }

    pub fn bind(&self, preset: &str) -> Bound {
        self.install(preset);
        let provider = provider(preset, &settings_of(preset));
        match self.catalog.bind(&provider, &[]) {
            Err(BindError::NeedsApproval(proposal)) => {
                self.catalog.bind(&provider, &[proposal.approval]).unwrap()
            }
            other => other.unwrap(),
        }
    }

    /// Why settings are refused.
    pub fn refused(&self, preset: &str, settings: &Value) -> String {
        self.install(preset);
        match self.catalog.bind(&provider(preset, settings), &[]) {
            Err(BindError::NeedsApproval(_)) | Ok(_) => panic!("{preset} {settings} passes"),
            Err(error) => error.to_string(),
        }
    }

    /// Sign-in, renewal, a call and its answer.
    pub fn every_export(&self, preset: &Bound, tool: &str, said: &mut Saying) {
        let name = preset.description().name.clone();
        let scopes = ScopeSet::split("read write", &[]);
        said.add(&name, preset.description());
        said.add(&name, &preset.authorize_parameters(&scopes));
        self.token_answers(preset, &name, &scopes, said);
        self.refresh_errors(preset, &name, said);
        self.identities(preset, &name, said);
        self.judged(preset, tool, said);
        self.redacted(preset, tool, said);
        self.sent(preset, said);
        let veil = veil();
        let tools = ["read".to_owned(), SECRETS[0].1.to_owned()];
        let shown: Vec<String> = tools.into_iter().filter(|t| !veil.touches(t)).collect();
        let (account, facts) = (account(), facts());
        let grant = GrantFacts {
            scopes: &scopes,
            account: Some(&account.id),
            facts: &facts,
        };
        said.add(&name, &preset.filter_tools(&shown, &grant));
    }

    fn token_answers(&self, preset: &Bound, name: &str, scopes: &ScopeSet, said: &mut Saying) {
        let body = json!({
            "ok": true, "access_token": SECRETS[0].1, "refresh_token": SECRETS[1].1,
            "id_token": SECRETS[2].1, "token_type": "bearer", "expires_in": 60,
            "id": SECRETS[0].1, "team": { "id": "T1", "name": SECRETS[1].1 },
            "workspace": SECRETS[2].1, "email": SECRETS[3].1, "scope": "read write",
            "authed_user": { "id": "U1", "access_token": SECRETS[0].1, "scope": "read" },
        });
        let client_secret = sealed(&secret(3));
        let form = format!(
            "access_token={}&refresh_token={}&scope=read",
            SECRETS[0].1, SECRETS[1].1
        );
        for (kind, body) in [
            ("application/json", body.to_string()),
            ("application/x-www-form-urlencoded", form),
        ] {
            let answer = Answer::new(200, Some(kind), body.into_bytes());
            let masked = masked_body(&answer, true, &[]);
            let shapes = preset.token_answer(200, &masked);
            said.add(name, &shapes);
            let shapes = shapes.ok().flatten();
            let reading = Reading {
                description: preset.description(),
                shapes: shapes.as_deref(),
                asked: scopes,
                now: NOW,
                client_secret: Some(&client_secret),
                only: None,
            };
            match read(&answer, &reading) {
                Ok(granted) => said.add(name, &(granted.facts, granted.captured)),
                Err(error) => said.add(name, &error.to_string()),
            }
        }
    }

    fn refresh_errors(&self, preset: &Bound, name: &str, said: &mut Saying) {
        let body = json!({
            "error": "invalid_grant", "error_description": SECRETS[1].1,
            "refresh_token": SECRETS[1].1, "ok": false,
        });
        let answer = Answer::new(400, Some("application/json"), body.to_string().into_bytes());
        let shape = &preset.description().token_answer;
        let keep: Vec<String> = shape
            .error_code
            .iter()
            .chain(&shape.error_description)
            .cloned()
            .chain(["/error_description".to_owned(), "/refresh_token".to_owned()])
            .collect();
        let masked = masked_body(&answer, true, &keep);
        said.add(
            name,
            &preset.refresh_error(400, Some("invalid_grant"), &masked),
        );
    }

    fn identities(&self, preset: &Bound, name: &str, said: &mut Saying) {
        let tokens = tokens();
        let veil = Veil::of_sign_in(&tokens, Some(&sealed(&secret(3)))).unwrap();
        let [access, refresh, id, client, _] = SECRETS.map(|(_, secret)| secret);
        let json =
            json!({ "id": "7", "name": "Ada", "token": access, "all": [refresh, id, client] });
        let xml = format!("<a id=\"7\" name=\"Ada\"><t>{access}</t>{refresh}{id}{client}</a>");
        for (kind, body) in [("application/json", json.to_string()), ("text/xml", xml)] {
            let answer = Answer::new(200, Some(kind), body.into_bytes());
            let shape = countersign_core::preset::AnswerShape {
                success_codes: vec![],
                success_checks: vec![],
                error_code: vec![],
                error_description: vec![],
                may_be_form: false,
            };
            let text = covered_text(&answer, &shape, &[], &veil).unwrap();
            said.add(name, &preset.identity(&text));
        }
    }

    /// A call as far as a permit.
    pub fn judged(&self, preset: &Bound, tool: &str, said: &mut Saying) {
        let name = preset.description().name.clone();
        match permit(preset, false, tool) {
            Ok(permit) => {
                let plan = Plan::new(permit, Some(&connection(&name)));
                said.add(&name, &plan.err());
            }
            Err(error) => said.add(&name, &error.to_string()),
        }
    }

    /// A call as it is sent, signed where the preset signs.
    pub fn sent(&self, preset: &Bound, said: &mut Saying) {
        let name = preset.description().name.clone();
        let keyed = preset.description().authorization.is_none();
        let connection = connection(&name);
        let connected = (!keyed).then_some(&connection);
        let plan = match permit(preset, keyed, "a_tool") {
            Ok(permit) => Plan::new(permit, connected).unwrap(),
            Err(error) => panic!("{name}: {error}"),
        };
        let (tokens, key) = (sealed(&tokens().into_secret()), sealed(&secret(4)));
        let vaulted = Vaulted {
            tokens: (!keyed).then_some(&tokens),
            api_key: keyed.then_some(&key),
        };
        let request = Request {
            method: http::Method::POST,
            headers: http::HeaderMap::new(),
            body: "{}".into(),
        };
        // What goes upstream carries the credential; what is said of it does not.
        match plan.fill(&vaulted, request, NOW) {
            Ok(filled) => said.add(&name, &filled.into_parts().headers),
            Err(error) => panic!("{name}: {error}"),
        }
    }

    /// A result that repeats every secret an upstream could have seen, and more.
    pub fn redacted(&self, preset: &Bound, tool: &str, said: &mut Saying) {
        let name = preset.description().name.clone();
        // The client secret goes to the provider only.
        let all = [0, 1, 2, 4].map(|index: usize| SECRETS[index].1);
        let result = json!({
            "content": [{ "type": "text", "text": format!("{MARKER} {}", all.join(" ")) }],
            "structuredContent": { "secrets": all, "mail": "ada@example.com" },
        });
        let covered = veil().cover_json(&result.to_string()).unwrap().into_owned();
        let call = call(tool);
        said.add(&name, &preset.redact(&call, &covered));
    }
}

fn veil() -> Veil {
    let (tokens, key) = (sealed(&tokens().into_secret()), sealed(&secret(4)));
    let vaulted = Vaulted {
        tokens: Some(&tokens),
        api_key: Some(&key),
    };
    Veil::of_call(&vaulted).unwrap()
}

/// Where the preset's credential may go: its vendor's own server, or any.
fn url_of(name: &str) -> url::Url {
    url::Url::parse(match name {
        "github" => "https://api.githubcopilot.com/mcp/",
        "slack" => "https://slack.com/mcp",
        "google" => "https://gmailmcp.googleapis.com/mcp/v1",
        _ => "https://mcp.example.com/mcp",
    })
    .unwrap()
}

fn host_of(name: &str) -> HostPattern {
    HostPattern::parse(url_of(name).host_str().unwrap()).unwrap()
}

fn settings_of(preset: &str) -> Value {
    match preset {
        "keyed" => json!({ "key_id": "id-7" }),
        "hooked" => json!({ "sign": true }),
        _ => json!({}),
    }
}

fn call(tool: &str) -> Call<'_> {
    Call {
        method: "tools/call",
        name: Some(tool),
        arguments: Some("{\"text\":\"a-marker-every-guest-may-see-4711\"}"),
        host: "mcp.example.com",
    }
}

fn permit(preset: &Bound, keyed: bool, tool: &str) -> Result<Permit, CallError> {
    let name = preset.description().name.clone();
    let attachment = Attachment::new(
        Arc::new(server(&name, keyed)),
        Some(Arc::new(provider(&name, &settings_of(&name)))),
        Some(Arc::clone(preset)),
        &countersign_core::policy::Rules::default(),
    )
    .unwrap();
    let connection = connection(&name);
    Arc::new(attachment)
        .admit(&caller(), call(tool))?
        .connected((!keyed).then_some(&connection), NOW)?
        .judge()?
        .agreed(None)
}

fn account() -> Account {
    Account {
        id: "ada".into(),
        label: "Ada".into(),
    }
}

fn facts() -> Vec<(String, String)> {
    vec![("team".into(), "T1".into())]
}

fn connection(preset: &str) -> Connection {
    let of = |name: &str| TokenFacts {
        credential: name.into(),
        scopes: ScopeSet::split("read write repo user", &[]),
        issued_at: NOW,
        expires_at: None,
        refresh_token_present: true,
        refresh_token_expires_at: None,
        refresh_token_end_is_fixed: false,
        renewal_lost_at: None,
    };
    Connection {
        id: ConnectionId::parse("c1").unwrap(),
        user: UserName::parse("ann").unwrap(),
        team: TeamName::default_team(),
        provider: ProviderName::parse("canary").unwrap(),
        resource: None,
        account: Some(account()),
        credentials: vec![of("user"), of("bot")],
        facts: facts(),
        origins: Origins {
            token: "https://id.example.com".into(),
            revocation: None,
            audience: vec![host_of(preset)],
            resource: None,
        },
        client_id: "client".into(),
        preset_digest: Digest::of(b"any"),
        state: State::Connected,
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
        consented_at: None,
        last_used_at: None,
        warned_of: None,
        withheld: ScopeSet::default(),
    }
}

fn caller() -> Caller {
    Caller {
        user: UserName::parse("ann").unwrap(),
        team: TeamName::default_team(),
        client: ClientId::parse("agent").unwrap(),
        client_name: "Agent".into(),
        roles: Default::default(),
        permissions: Permissions::default(),
        servers: None,
        has_browser_identity: true,
    }
}

fn server(preset: &str, keyed: bool) -> Server {
    Server {
        name: ServerName::parse("notes").unwrap(),
        display_name: "Notes".into(),
        target: Target::Url(url_of(preset)),
        auth: ServerAuth {
            mode: if keyed {
                AuthMode::Static
            } else {
                AuthMode::UserDelegated
            },
            provider: Some(ProviderName::parse("canary").unwrap()),
            required_scopes: ScopeSet::default(),
            secret_ref: keyed.then(|| SecretName::parse("KEY").unwrap()),
            injection: None,
            per_user: false,
            resource: None,
            audience: None,
            changed: None,
        },
        connection: ConnectionUse::Shared,
        wait: Duration::from_secs(45),
        timeout: countersign_core::server::DEFAULT_TIMEOUT,
        tools: ToolFilter::default(),
        teams: Vec::new(),
        record_decisions: false,
        resource: None,
        enabled: true,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn provider(preset: &str, settings: &Value) -> Provider {
    let url =
        |path: &str| Some(url::Url::parse(&format!("https://id.example.com/{path}")).unwrap());
    Provider {
        name: ProviderName::parse("canary").unwrap(),
        display_name: "Canary".into(),
        preset: PresetName::parse(preset).unwrap(),
        authorization_endpoint: url("authorize"),
        token_endpoint: url("token"),
        revocation_endpoint: url("revoke"),
        device_authorization_endpoint: None,
        grant_types: vec![],
        token_endpoint_auth_method: None,
        client_id: "client".into(),
        client_secret_ref: None,
        private_key_ref: None,
        private_key_id: None,
        token_endpoint_auth_signing_alg: None,
        scopes: ScopeSet::default(),
        require_pkce: true,
        audience_hosts: vec![host_of(preset)],
        resource: None,
        audience: None,
        request_timeout: Duration::from_secs(30),
        max_retries: 3,
        auto_update: false,
        registration: None,
        enabled: true,
        settings: settings.as_object().cloned().unwrap_or_default(),
        created_at: NOW,
        updated_at: NOW,
    }
}
