//! One house, one browser: a test reads as a story.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use countersign_core::caller::Caller;
use countersign_core::names::{ClientId, RoleName, ServerName, TeamName, UserName};
use countersign_core::ports::fakes::{CountingRandom, FakeClock, MemoryAudit};
use countersign_core::ports::{BoxFuture, Kind, Records, StoreError, World};
use countersign_core::secret::SealKey;
use countersign_core::time::Timestamp;
use countersign_identity::accounts::{AccountKind, NewUser};
use countersign_identity::tokens::{NewToken, TokenKind};
use countersign_identity::{
    AccountChange, AccountEvents, Audience, AuthError, FetchError, Identity, MetadataFetcher,
    Parts, Password, PasswordCost, Principal, PublicUrl, Resources, ServerFacts, Settings, routes,
};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;
use url::Url;

use crate::browser::{Answer, Browser};
use crate::slow::Slow;

pub(crate) const HOST: &str = "http://127.0.0.1:8700";
pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const REDIRECT: &str = "http://127.0.0.1:4000/callback";
pub(crate) const WEB_REDIRECT: &str = "https://agent.example/callback";
pub(crate) const NOTES: &str = "http://127.0.0.1:8700/mcp/notes";
pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

pub(crate) struct House {
    pub(crate) identity: Identity,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) records: Arc<Slow>,
    pub(crate) audit: Arc<MemoryAudit>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) router: Router,
    /// The API token that `init` prints.
    pub(crate) init_token: String,
}

struct Servers;

impl Resources for Servers {
    fn server<'a>(
        &'a self,
        name: &'a ServerName,
    ) -> BoxFuture<'a, Result<Option<ServerFacts>, StoreError>> {
        let facts = |name: &str, teams: &[&str]| ServerFacts {
            display_name: name.into(),
            teams: teams.iter().map(|t| TeamName::parse(t).unwrap()).collect(),
        };
        let found = match name.as_str() {
            "notes" => Some(facts("Notes", &[])),
            "mail" => Some(facts("Mail", &[])),
            "lab" => Some(facts("Lab", &["lab"])),
            _ => None,
        };
        Box::pin(async move { Ok(found) })
    }
}

#[derive(Default)]
pub(crate) struct Changes(Mutex<Vec<(String, AccountChange)>>);

impl Changes {
    pub(crate) fn all(&self) -> Vec<(String, AccountChange)> {
        self.0.lock().unwrap().clone()
    }
}

impl AccountEvents for Changes {
    fn changed<'a>(
        &'a self,
        user: &'a UserName,
        change: AccountChange,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.0.lock().unwrap().push((user.to_string(), change));
        Box::pin(async { Ok(()) })
    }
}

/// Documents by address.
#[derive(Default)]
pub(crate) struct Documents(pub(crate) Mutex<HashMap<String, Vec<u8>>>);

impl MetadataFetcher for Documents {
    fn fetch<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        let found = self.0.lock().unwrap().get(url.as_str()).cloned();
        Box::pin(async move { found.ok_or_else(|| FetchError("it is not there".into())) })
    }
}

pub(crate) fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

pub(crate) fn admin() -> Caller {
    actor("root", "admin")
}

/// A caller with one built-in role.
pub(crate) fn actor(name: &str, role: &str) -> Caller {
    use countersign_core::caller::{Permissions, Role};
    let roles = Role::built_in();
    Caller {
        user: user(name),
        team: TeamName::default_team(),
        client: ClientId::parse("test").unwrap(),
        client_name: "Test".into(),
        roles: [role.parse().unwrap()].into(),
        permissions: Permissions::from_roles(roles.iter().filter(|r| r.name.as_str() == role)),
        servers: None,
        has_browser_identity: true,
    }
}

impl House {
    pub(crate) async fn open() -> Self {
        Self::build(HOST, None).await
    }

    pub(crate) async fn build(public_url: &str, documents: Option<Arc<Documents>>) -> Self {
        let clock = Arc::new(FakeClock::at(Timestamp::from_secs(1_795_000_000)));
        let records = Arc::new(Slow::default());
        let audit = Arc::new(MemoryAudit::default());
        let changes = Arc::new(Changes::default());
        let mut settings = Settings::new(PublicUrl::parse(public_url).unwrap());
        settings.password_cost = PasswordCost {
            memory_kib: 64,
            passes: 1,
        };
        let identity = Identity::new(Parts {
            world: World {
                clock: clock.clone(),
                random: Arc::new(CountingRandom::default()),
                records: records.clone(),
                audit: audit.clone(),
            },
            key: SealKey::new([9; 32]),
            settings,
            resources: Arc::new(Servers),
            accounts: changes.clone(),
            metadata: documents.map(|d| d as Arc<dyn MetadataFetcher>),
            issuer_keys: None,
        });
        let init_token = identity
            .bootstrap(user("root"))
            .await
            .unwrap()
            .token
            .reveal();
        Self {
            router: routes(identity.clone()),
            identity,
            clock,
            records,
            audit,
            changes,
            init_token,
        }
    }

    /// A user who has chosen his password.
    pub(crate) async fn person(&self, name: &str) {
        self.account(name, AccountKind::Human, "user").await;
        let mut browser = Browser::new(self);
        browser.sign_in_with(name, "handed-out-once").await;
        let chosen = browser.choose_password(PASSWORD).await;
        assert_eq!(chosen.status, StatusCode::SEE_OTHER);
    }

    pub(crate) async fn account(&self, name: &str, kind: AccountKind, role: &str) {
        let password =
            (kind == AccountKind::Human).then(|| Password::new("handed-out-once".into()));
        let new = NewUser {
            foreign: None,
            name: user(name),
            email: None,
            kind,
            roles: BTreeSet::from([RoleName::parse(role).unwrap()]),
            password,
        };
        self.identity.create_user(&admin(), new).await.unwrap();
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let request =
            Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(encode(form))).unwrap())
            .await
    }

    pub(crate) async fn post_json(&self, path: &str, body: serde_json::Value) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    /// Registers an agent; gives its id.
    pub(crate) async fn agent(&self, redirect_uri: &str) -> String {
        let body = serde_json::json!({
            "client_name": "Test agent",
            "redirect_uris": [redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
        });
        let answer = self.post_json("/oauth2/register", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        answer.json()["client_id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn actions(&self) -> Vec<String> {
        self.audit.events().into_iter().map(|e| e.action).collect()
    }

    /// Everything the store holds, as text.
    pub(crate) async fn stored(&self) -> String {
        let mut all = String::new();
        for kind in [
            Kind::Meta,
            Kind::User,
            Kind::Team,
            Kind::Client,
            Kind::Code,
            Kind::Token,
            Kind::Session,
            Kind::Grant,
            Kind::AgentConsent,
        ] {
            for record in self.records.list(kind, None).await.unwrap() {
                all.push_str(&format!(
                    "{:?} {}\n",
                    record.key,
                    String::from_utf8_lossy(&record.document)
                ));
            }
        }
        all
    }

    /// A whole sign-in of an agent; gives the token endpoint's answer.
    pub(crate) async fn tokens(
        &self,
        browser: &mut Browser<'_>,
        client: &str,
        redirect: &str,
        resource: &str,
    ) -> serde_json::Value {
        let code = browser.code(client, redirect, resource).await;
        let answer = self.exchange(client, redirect, &code).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.json()
    }

    pub(crate) async fn exchange(&self, client: &str, redirect: &str, code: &str) -> Answer {
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", VERIFIER),
        ];
        self.post("/oauth2/token", &form).await
    }

    pub(crate) async fn refresh(&self, client: &str, token: &str) -> Answer {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", client),
            ("refresh_token", token),
        ];
        self.post("/oauth2/token", &form).await
    }
}

pub(crate) fn challenge() -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER.as_bytes()))
}

/// A good authorization request, with some parameters replaced or (empty) left out.
pub(crate) fn authorize_path(
    client: &str,
    redirect: &str,
    resource: &str,
    changes: &[(&str, &str)],
) -> String {
    let challenge = challenge();
    let mut pairs: BTreeMap<&str, &str> = BTreeMap::from([
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", redirect),
        ("resource", resource),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
        ("state", "s t&te"),
        ("scope", "mcp"),
    ]);
    for (name, value) in changes {
        pairs.insert(name, value);
    }
    pairs.retain(|_, value| !value.is_empty());
    let pairs: Vec<(&str, &str)> = pairs.into_iter().collect();
    format!("/oauth2/authorize?{}", encode(&pairs))
}

pub(crate) fn encode(form: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish()
}

pub(crate) fn notes() -> Audience {
    Audience::Mcp(ServerName::parse("notes").unwrap())
}

pub(crate) fn text(answer: &serde_json::Value, name: &str) -> String {
    answer[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name} in {answer}"))
        .to_owned()
}

/// Of two racing requests exactly one wins, and what it won is void.
pub(crate) async fn only_one_and_that_revoked(house: &House, answers: [Answer; 2]) {
    let (won, lost): (Vec<Answer>, Vec<Answer>) = answers
        .into_iter()
        .partition(|a| a.status == StatusCode::OK);
    assert_eq!((won.len(), lost.len()), (1, 1));
    assert_eq!(lost[0].json()["error"], "invalid_grant");
    let access = text(&won[0].json(), "access_token");
    assert_eq!(
        house.identity.authenticate(&access, &notes()).await,
        Err(AuthError::Invalid)
    );
    assert!(house.actions().contains(&"token.reuse".to_owned()));
}

pub(crate) fn server(name: &str) -> ServerName {
    ServerName::parse(name).unwrap()
}

pub(crate) fn token(kind: TokenKind) -> NewToken {
    NewToken {
        name: "mine".into(),
        kind,
        servers: None,
        team: None,
        expires_in: None,
        user: None,
    }
}

/// Alice with a fresh sign-in.
pub(crate) async fn alice(house: &House) -> (Browser<'_>, Principal) {
    house.person("alice").await;
    let browser = Browser::signed_in(house, "alice").await;
    let principal = house
        .identity
        .principal(&Method::GET, &browser.headers())
        .await
        .unwrap();
    (browser, principal)
}
