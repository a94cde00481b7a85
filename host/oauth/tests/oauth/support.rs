//! A provider that answers as it is told, and everything around it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use countersign_core::address::PrivateAllowlist;
use countersign_core::connection::{Connection, ConnectionKey};
use countersign_core::names::{Digest, PresetName, ProviderName, SecretName, TeamName, UserName};
use countersign_core::ports::fakes::{CountingRandom, FakeClock, MemoryAudit, MemoryRecords};
use countersign_core::ports::{
    Change, Expect, Kind, RecordKey, Records, SecretChange, World, Write,
};
use countersign_core::preset::*;
use countersign_core::provider::{GrantType, Provider};
use countersign_core::scope::ScopeSet;
use countersign_core::secret::Secret;
use countersign_core::signing::{Recipe, Unsigned};
use countersign_core::time::Timestamp;
use countersign_oauth::consent::{AskedBy, Begin, Callback, Outcome, ReturnTo};
use countersign_oauth::http::{Guard, GuardOptions};
use countersign_oauth::{Held, Oauth, Party};
use serde_json::{Value, json};
use url::Url;

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// One answer of the provider.
#[derive(Clone)]
pub(crate) enum Scripted {
    Json(u16, Value),
    Raw(u16, &'static str, Vec<u8>),
    /// To another path of the same host.
    Redirect(&'static str),
    /// Half an answer, then the connection ends.
    Broken,
    /// No answer at all.
    Hang,
    /// 429 with this `Retry-After`.
    Later(&'static str),
}

/// A request as it came in.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.body.as_bytes())
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.into_owned())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
}

#[derive(Default)]
pub(crate) struct Script {
    answers: Mutex<VecDeque<(String, Scripted)>>,
    seen: Mutex<Vec<Seen>>,
    gate: Mutex<Option<Arc<tokio::sync::Semaphore>>>,
}

impl Script {
    /// The next answer at this path.
    pub(crate) fn then(&self, path: &str, answer: Scripted) {
        self.answers
            .lock()
            .unwrap()
            .push_back((path.to_owned(), answer));
    }

    pub(crate) fn token(&self, answer: Value) {
        self.then("/token", Scripted::Json(200, answer));
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Answers wait until the semaphore has permits.
    pub(crate) fn hold(&self) -> Arc<tokio::sync::Semaphore> {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        *self.gate.lock().unwrap() = Some(gate.clone());
        gate
    }
}

async fn answer(
    State(script): State<Arc<Script>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let path = uri.path().to_owned();
    let body = String::from_utf8_lossy(&body).into_owned();
    script.seen.lock().unwrap().push(Seen {
        method,
        path: path.clone(),
        headers,
        body,
    });
    let gate = script.gate.lock().unwrap().clone();
    if let Some(gate) = gate {
        gate.acquire().await.unwrap().forget();
    }
    let next = {
        let mut answers = script.answers.lock().unwrap();
        let at = answers.iter().position(|(p, _)| *p == path);
        at.and_then(|at| answers.remove(at)).map(|(_, a)| a)
    };
    let build = Response::builder();
    match next.unwrap_or(Scripted::Raw(
        404,
        "text/plain",
        b"nothing scripted".to_vec(),
    )) {
        Scripted::Json(status, value) => build
            .status(status)
            .header("content-type", "application/json")
            .body(Body::from(value.to_string())),
        Scripted::Raw(status, kind, body) => build
            .status(status)
            .header("content-type", kind)
            .body(Body::from(body)),
        Scripted::Redirect(to) => build.status(307).header("location", to).body(Body::empty()),
        Scripted::Broken => {
            let chunks: [Result<Bytes, std::io::Error>; 2] = [
                Ok(Bytes::from_static(b"{\"access_")),
                Err(std::io::Error::other("gone")),
            ];
            build
                .header("content-type", "application/json")
                .body(Body::from_stream(futures_util::stream::iter(chunks)))
        }
        Scripted::Hang => std::future::pending().await,
        Scripted::Later(wait) => build
            .status(429)
            .header("retry-after", wait)
            .body(Body::empty()),
    }
    .unwrap()
}

/// A preset that is data only.
pub(crate) struct FakePreset(pub Description);

impl Preset for FakePreset {
    fn digest(&self) -> Digest {
        Digest::of(b"fake")
    }
    fn description(&self) -> &Description {
        &self.0
    }
    fn evaluate(&self, _: &Call<'_>, _: &GrantFacts<'_>) -> Result<Verdict, PresetFault> {
        Err(PresetFault::Busy)
    }
    fn authorize_parameters(&self, _: &ScopeSet) -> Result<Vec<(String, String)>, PresetFault> {
        Ok(vec![
            ("login_hint".into(), "x".into()),
            ("state".into(), "mine".into()),
        ])
    }
    fn token_answer(&self, _: u16, _: &str) -> Result<Option<Vec<TokenShape>>, PresetFault> {
        Ok(None)
    }
    fn refresh_error(&self, _: u16, _: Option<&str>, _: &str) -> Result<Option<bool>, PresetFault> {
        Ok(Some(true))
    }
    fn filter_tools(
        &self,
        _: &[String],
        _: &GrantFacts<'_>,
    ) -> Result<Option<Vec<String>>, PresetFault> {
        Ok(None)
    }
    fn sign(&self, _: &Unsigned) -> Result<Option<Recipe>, PresetFault> {
        Ok(None)
    }
    fn identity(&self, covered_body: &str) -> Result<Option<AccountFacts>, PresetFault> {
        if !self.0.hooks.identity {
            return Ok(None);
        }
        // What the host checks is for the preset's own crate to test.
        Ok(Some(AccountFacts {
            id: "made-by-hook".into(),
            label: covered_body.chars().take(120).collect(),
            tenant: Some("acme".into()),
        }))
    }
    fn redact(&self, _: &Call<'_>, _: &str) -> Result<Option<Vec<Redaction>>, PresetFault> {
        Ok(None)
    }
}

pub(crate) fn literal(text: &str) -> Template {
    vec![Part::Literal(text.into())]
}

pub(crate) fn any_answer() -> AnswerShape {
    AnswerShape {
        success_codes: vec![],
        success_checks: vec![],
        error_code: vec![],
        error_description: vec![],
        may_be_form: false,
    }
}

pub(crate) fn description(base: &str) -> Description {
    let host = base.trim_start_matches("http://");
    Description {
        name: "fake".into(),
        display_name: "Fake".into(),
        version: "1.0.0".into(),
        category: String::new(),
        documentation_url: String::new(),
        wants: Wants::default(),
        hooks: Hooks::default(),
        variables: vec![],
        variants: vec![],
        authorization_hosts: vec![literal(host)],
        audience_hosts: vec![literal("api.example.com")],
        authorization: Some(AuthorizationRequest {
            endpoint: literal(&format!("{base}/authorize?tenant=7")),
            parameters: vec![],
            incremental_parameters: vec![Parameter {
                name: "include_granted_scopes".into(),
                value: literal("true"),
            }],
            suppress: vec![],
            scope_parameters: vec![ScopeParameter {
                name: "scope".into(),
                separator: " ".into(),
                credential: None,
                send_empty: false,
            }],
            pkce: Pkce::Supported,
            offline: Offline::Parameters(vec![Parameter {
                name: "access_type".into(),
                value: literal("offline"),
            }]),
        }),
        token_endpoint: Some(literal(&format!("{base}/token"))),
        device_authorization_endpoint: None,
        token_requests: vec![],
        token_answer: any_answer(),
        token_shapes: vec![],
        metadata: vec![],
        grant_difference: GrantDifference::Warn,
        scopes: vec![],
        default_scopes: vec!["read".into()],
        refresh: Refresh {
            kind: RefreshKind::RefreshToken,
            rotation: Rotation::Sometimes,
            grace_seconds: 0,
            retry_after_lost_answer: false,
            ends_access_token: false,
            idle_days: None,
            margin_percent: 10,
            permanent_errors: vec![],
            transient_errors: vec![],
        },
        revocation: vec![],
        follow_ups: vec![],
        identity: Some(Identity {
            request: Request {
                method: "GET".into(),
                url: literal(&format!("{base}/user")),
                headers: vec![Header {
                    name: "Authorization".into(),
                    value: vec![
                        Part::Literal("Bearer ".into()),
                        Part::Slot(Slot::AccessToken),
                    ],
                }],
                body: countersign_core::preset::Body::None,
                client_authentication: None,
                answer: any_answer(),
            },
            id: "/id".into(),
            label: vec!["/login".into()],
            tenant: None,
        }),
        credentials: vec![Credential {
            name: "default".into(),
            title: String::new(),
            hosts: vec![],
            rules: vec![],
            sigv4: None,
        }],
        constant_headers: vec![],
        mcp_servers: vec![],
        error_advice: vec![ErrorAdvice {
            code: "access_denied".into(),
            advice: "Ask the owner of the workspace.".into(),
        }],
    }
}

pub(crate) fn provider() -> Provider {
    Provider {
        name: ProviderName::parse("fake").unwrap(),
        display_name: "Fake".into(),
        preset: PresetName::parse("fake").unwrap(),
        authorization_endpoint: None,
        token_endpoint: None,
        revocation_endpoint: None,
        device_authorization_endpoint: None,
        grant_types: vec![GrantType::AuthorizationCode, GrantType::RefreshToken],
        token_endpoint_auth_method: None,
        client_id: "client-1".into(),
        client_secret_ref: Some(SecretName::parse("FAKE_SECRET").unwrap()),
        private_key_ref: None,
        private_key_id: None,
        token_endpoint_auth_signing_alg: None,
        scopes: ScopeSet::default(),
        require_pkce: false,
        audience_hosts: vec![],
        resource: None,
        audience: None,
        request_timeout: Duration::from_secs(20),
        max_retries: 0,
        auto_update: false,
        registration: None,
        enabled: true,
        settings: serde_json::Map::new(),
        created_at: NOW,
        updated_at: NOW,
    }
}

/// The whole stage.
pub(crate) struct Stage {
    pub(crate) script: Arc<Script>,
    pub(crate) base: String,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) records: Arc<MemoryRecords>,
    pub(crate) audit: Arc<MemoryAudit>,
    pub(crate) world: World,
    pub(crate) oauth: Arc<Oauth>,
    pub(crate) guard: Guard,
    pub(crate) provider: Provider,
    pub(crate) description: Description,
}

pub(crate) async fn stage() -> Stage {
    let script = Arc::new(Script::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(answer).with_state(script.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let guard = Guard::new(GuardOptions {
        allow_private: PrivateAllowlist::parse(&["127.0.0.1:*"]).unwrap(),
        own: vec![],
    })
    .unwrap();
    let (clock, records) = (
        Arc::new(FakeClock::at(NOW)),
        Arc::new(MemoryRecords::default()),
    );
    let audit = Arc::new(MemoryAudit::default());
    let world = World {
        clock: clock.clone(),
        random: Arc::new(CountingRandom::default()),
        records: records.clone(),
        audit: audit.clone(),
    };
    let public_url = Url::parse("https://cs.example.com").unwrap();
    let oauth = Oauth::new(world.clone(), Arc::new(guard.clone()), public_url);
    let secret = Write {
        key: RecordKey::new(Kind::Secret, "FAKE_SECRET"),
        expect: Expect::Absent,
        change: Some(Change {
            document: b"{}".to_vec(),
            secret: SecretChange::Set(Secret::from_text("s3cr3t/client".into())),
            expires_at: None,
        }),
    };
    records.write(vec![secret]).await.unwrap();
    let description = description(&base);
    Stage {
        script,
        base,
        clock,
        records,
        audit,
        world,
        oauth,
        guard,
        provider: provider(),
        description,
    }
}

pub(crate) fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

impl Stage {
    pub(crate) fn party(&self) -> Party {
        Party {
            provider: Arc::new(self.provider.clone()),
            preset: Arc::new(FakePreset(self.description.clone())),
        }
    }

    pub(crate) fn begin_as(&self, name: &str) -> Begin {
        Begin {
            user: user(name),
            team: TeamName::default_team(),
            session: format!("{name}-browser"),
            resource: None,
            indicator: self.provider.resource.clone(),
            scopes: ScopeSet::split("read write", &[]),
            return_to: ReturnTo::Agent,
            bare_callback: false,
            asked_by: AskedBy::default(),
        }
    }

    pub(crate) fn callback<'a>(&self, name: &str, query: &'a str) -> Callback<'a> {
        Callback {
            path_provider: Some(self.provider.name.clone()),
            query,
            user: user(name),
            session: format!("{name}-browser"),
        }
    }

    /// Begins as this user and returns the authorization URL.
    pub(crate) async fn begin(&self, name: &str) -> Url {
        self.oauth
            .begin(self.begin_as(name), &self.party())
            .await
            .unwrap()
    }

    pub(crate) async fn finish(&self, callback: Callback<'_>) -> Outcome {
        let party = self.party();
        self.oauth
            .finish(callback, move |_| Some(party))
            .await
            .unwrap()
    }

    /// A whole consent with this token answer.
    pub(crate) async fn connect(&self, name: &str, answer: Value) -> Outcome {
        self.script.token(answer);
        self.script.then(
            "/user",
            Scripted::Json(200, json!({"id": 7, "login": "octo"})),
        );
        let state = parameter(&self.begin(name).await, "state").unwrap();
        self.finish(self.callback(name, &format!("code=c0de-123456&state={state}")))
            .await
    }

    pub(crate) async fn connected(&self, name: &str, answer: Value) -> Connection {
        match self.connect(name, answer).await {
            Outcome::Connected { connection, .. } => *connection,
            other @ Outcome::Refused { .. } => panic!("{other:?}"),
        }
    }

    pub(crate) fn key(&self, name: &str) -> ConnectionKey {
        ConnectionKey {
            user: user(name),
            team: TeamName::default_team(),
            provider: self.provider.name.clone(),
            resource: None,
        }
    }

    pub(crate) async fn held(&self, name: &str) -> Held {
        self.oauth.load(&self.key(name)).await.unwrap().unwrap()
    }

    pub(crate) fn token_requests(&self) -> Vec<Seen> {
        self.script
            .seen()
            .into_iter()
            .filter(|s| s.path == "/token")
            .collect()
    }

    /// Everything that was audited, as JSON.
    pub(crate) fn audited(&self) -> String {
        serde_json::to_string(&self.audit.events()).unwrap()
    }
}

pub(crate) fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs()
        .find(|(n, _)| n == name)
        .map(|(_, value)| value.into_owned())
}

/// What a refusal says.
pub(crate) fn refused(outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused { code, .. } => code,
        Outcome::Connected { .. } => panic!("it was connected"),
    }
}

pub(crate) fn tokens(access: &str, refresh: Option<&str>, expires_in: Option<u64>) -> Value {
    let mut answer = json!({"access_token": access, "token_type": "Bearer", "scope": "read write"});
    if let Some(refresh) = refresh {
        answer["refresh_token"] = refresh.into();
    }
    if let Some(expires_in) = expires_in {
        answer["expires_in"] = expires_in.into();
    }
    answer
}
