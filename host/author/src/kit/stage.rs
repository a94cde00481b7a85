//! What a scenario plays on: the host's own client of providers, with a store
//! in memory, a clock that stands, and the provider in a box.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::caller::{Caller, Permissions};
use countersign_core::connection::{
    Account, Connection, ConnectionKey, Origins, State, TokenFacts,
};
use countersign_core::decide::{Attachment, Permit};
use countersign_core::error::CallError;
use countersign_core::names::{
    ClientId, ConnectionId, PresetName, ProviderName, SecretName, ServerName, TeamName, UserName,
};
use countersign_core::policy::Rules;
use countersign_core::ports::fakes::{CountingRandom, FakeClock, MemoryAudit, MemoryRecords};
use countersign_core::ports::{
    Change, Clock as _, Expect, Kind, RecordKey, Records as _, SecretChange, World, Write,
};
use countersign_core::preset::{Call, Description, Grant, Pkce, Source};
use countersign_core::provider::{GrantType, Provider, TokenAuthMethod};
use countersign_core::request::Asking;
use countersign_core::scope::ScopeSet;
use countersign_core::secret::Secret;
use countersign_core::server::{
    AuthMode, ConnectionUse, DEFAULT_TIMEOUT, DEFAULT_WAIT, Server, ServerAuth, Target, ToolFilter,
};
use countersign_core::template::{Values, render_text};
use countersign_core::time::Timestamp;
use countersign_oauth::consent::{AskedBy, Begin, Callback, ConsentError, Outcome, ReturnTo};
use countersign_oauth::{Held, Oauth, Party};
use url::Url;

use super::KitError;
use super::box_provider::{BoxProvider, Reply};
use super::samples::{self, Tokens, fitting, follow_up_answer, identity_answer};
use super::table::Record;

pub(super) const CLIENT_ID: &str = "kit-client";
pub(super) const CLIENT_SECRET: &str = "kitClientSecret0123456789";
pub(super) const CODE: &str = "kitAuthorizationCode0123456789";
const SECRET_NAME: &str = "KIT_CLIENT_SECRET";
/// 2026-01-01: the day does not matter, but every run has the same.
pub(super) const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

/// The provider record that the kit judges the preset under.
pub(super) fn provider(preset: &PresetName, record: &Record) -> Result<Provider, KitError> {
    let public = record.token_endpoint_auth_method == Some(TokenAuthMethod::None);
    let name = |e: countersign_core::names::InvalidName| KitError::Setup(e.to_string());
    Ok(Provider {
        name: ProviderName::parse(preset.as_str()).map_err(name)?,
        display_name: preset.to_string(),
        preset: preset.clone(),
        authorization_endpoint: record.authorization_endpoint.clone(),
        token_endpoint: record.token_endpoint.clone(),
        revocation_endpoint: record.revocation_endpoint.clone(),
        device_authorization_endpoint: None,
        grant_types: vec![GrantType::AuthorizationCode, GrantType::RefreshToken],
        token_endpoint_auth_method: record.token_endpoint_auth_method,
        client_id: CLIENT_ID.into(),
        client_secret_ref: (!public)
            .then(|| SecretName::parse(SECRET_NAME))
            .transpose()
            .map_err(name)?,
        private_key_ref: None,
        private_key_id: None,
        token_endpoint_auth_signing_alg: None,
        scopes: ScopeSet::default(),
        require_pkce: false,
        audience_hosts: record.audience_hosts.clone(),
        resource: record.resource.clone(),
        audience: record.audience.clone(),
        request_timeout: Duration::from_secs(30),
        // The kit sees each request once; repeating is the host's affair.
        max_retries: 0,
        auto_update: false,
        registration: None,
        enabled: true,
        settings: record.settings.clone(),
        created_at: NOW,
        updated_at: NOW,
    })
}

/// One scenario's world.
pub(super) struct Stage {
    pub(super) clock: Arc<FakeClock>,
    pub(super) vendor: Arc<BoxProvider>,
    pub(super) oauth: Arc<Oauth>,
    pub(super) party: Party,
}

impl Stage {
    /// A fresh world.
    pub(super) async fn new(party: &Party) -> Result<Self, KitError> {
        let setup = |e: &dyn std::fmt::Display| KitError::Setup(e.to_string());
        let clock = Arc::new(FakeClock::at(NOW));
        let records = Arc::new(MemoryRecords::default());
        let secret = Change {
            document: b"{}".to_vec(),
            secret: SecretChange::Set(Secret::from_text(CLIENT_SECRET.into())),
            expires_at: None,
        };
        let write = Write {
            key: RecordKey::new(Kind::Secret, SECRET_NAME),
            expect: Expect::Absent,
            change: Some(secret),
        };
        records.write(vec![write]).await.map_err(|e| setup(&e))?;
        let world = World {
            clock: clock.clone(),
            random: Arc::new(CountingRandom::default()),
            records,
            audit: Arc::new(MemoryAudit::default()),
        };
        let vendor = Arc::new(BoxProvider::default());
        let public_url = Url::parse("https://gateway.example").map_err(|e| setup(&e))?;
        Ok(Self {
            oauth: Oauth::new(world, vendor.clone(), public_url),
            clock,
            vendor,
            party: party.clone(),
        })
    }

    pub(super) fn description(&self) -> &Description {
        self.party.preset.description()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Begins a consent.
    pub(super) async fn begin(&self, scopes: &ScopeSet) -> Result<Url, ConsentError> {
        let (user, team) = who();
        let begin = Begin {
            user,
            team,
            session: "kit-session".into(),
            resource: None,
            indicator: self.party.provider.resource.clone(),
            scopes: scopes.clone(),
            return_to: ReturnTo::Agent,
            bare_callback: false,
            asked_by: AskedBy::default(),
        };
        self.oauth.begin(begin, &self.party).await
    }

    /// Ends it with this query beside the state.
    pub(super) async fn finish(
        &self,
        authorize: &Url,
        query: &[(&str, &str)],
    ) -> Result<Outcome, ConsentError> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in authorize.query_pairs().filter(|(name, _)| name == "state") {
            form.append_pair(&name, &value);
        }
        form.extend_pairs(query);
        let settings = &self.party.provider.settings;
        if let Some(issuer) = settings.get("issuer").and_then(|v| v.as_str()) {
            form.append_pair("iss", issuer);
        }
        let callback = Callback {
            path_provider: Some(self.party.provider.name.clone()),
            query: &form.finish(),
            user: who().0,
            session: "kit-session".into(),
        };
        self.oauth
            .finish(callback, |_| Some(self.party.clone()))
            .await
    }

    /// The query of an authorization response that allows it.
    pub(super) fn allowed(&self) -> Vec<(String, String)> {
        let mut query = vec![("code".to_owned(), CODE.to_owned())];
        for variable in &self.description().variables {
            if let Source::CallbackParameter(name) = &variable.source {
                query.push((name.clone(), fitting(&variable.kind)));
            }
        }
        query
    }

    /// A whole sign-in whose token answer is this; the rest is ordinary.
    pub(super) async fn sign_in(&self, answer: Reply) -> Result<Outcome, ConsentError> {
        let url = self.begin(&ScopeSet::default()).await?;
        let d = self.description();
        let follow_ups = d.follow_ups.iter().map(|f| {
            Reply::json(
                status_of(&f.request.answer.success_codes),
                &follow_up_answer(d, f),
            )
        });
        let identity = d.identity.iter().map(|i| {
            Reply::json(
                status_of(&i.request.answer.success_codes),
                &identity_answer(d),
            )
        });
        self.vendor
            .will_answer([answer].into_iter().chain(follow_ups).chain(identity));
        let query = self.allowed();
        let query: Vec<(&str, &str)> = query
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        self.finish(&url, &query).await
    }

    /// A sign-in that works.
    pub(super) async fn connect(&self) -> Result<Connection, String> {
        let asked = asked(self.description());
        let body = samples::token_answer(&self.tokens(&asked, 1));
        match self.sign_in(self.good(&body)).await {
            Ok(Outcome::Connected { connection, .. }) => Ok(*connection),
            Ok(Outcome::Refused { code, advice, .. }) => Err(format!("{code}: {advice}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What an ordinary answer is made of.
    pub(super) fn tokens<'a>(&'a self, asked: &'a ScopeSet, round: u32) -> Tokens<'a> {
        Tokens {
            description: self.description(),
            scopes: asked,
            round,
            only: None,
            rotates: true,
            with_expiry: true,
            now: self.now(),
        }
    }

    /// An answer of the token endpoint with the status of a success.
    pub(super) fn good(&self, body: &serde_json::Value) -> Reply {
        Reply::json(
            status_of(&self.description().token_answer.success_codes),
            body,
        )
    }

    /// The connection as it is stored.
    pub(super) async fn held(&self) -> Option<Held> {
        self.oauth.load(&self.key()).await.ok().flatten()
    }

    pub(super) fn key(&self) -> ConnectionKey {
        let (user, team) = who();
        ConnectionKey {
            user,
            team,
            provider: self.party.provider.name.clone(),
            resource: None,
        }
    }
}

/// The first status that counts as success.
pub(super) fn status_of(codes: &[u16]) -> u16 {
    codes.first().copied().unwrap_or(200)
}

/// What a sign-in asks for when nobody says more.
pub(super) fn asked(d: &Description) -> ScopeSet {
    let parse = |s: &String| countersign_core::scope::Scope::parse(s).ok();
    d.default_scopes.iter().filter_map(parse).collect()
}

fn who() -> (UserName, TeamName) {
    // Both are names by their own rules.
    match (UserName::parse("kit"), TeamName::parse("default")) {
        (Ok(user), Ok(team)) => (user, team),
        _ => unreachable!("two constant names"),
    }
}

/// A server at this address, behind this preset.
pub(super) fn attach(party: &Party, url: &Url) -> Result<Arc<Attachment>, String> {
    let name = |e: countersign_core::names::InvalidName| e.to_string();
    let server = Server {
        name: ServerName::parse("kit").map_err(name)?,
        display_name: "Kit".into(),
        target: Target::Url(url.clone()),
        auth: ServerAuth {
            mode: AuthMode::UserDelegated,
            provider: Some(party.provider.name.clone()),
            required_scopes: ScopeSet::default(),
            secret_ref: None,
            injection: None,
            per_user: false,
            resource: None,
            audience: None,
            changed: None,
        },
        connection: ConnectionUse::Shared,
        wait: DEFAULT_WAIT,
        timeout: DEFAULT_TIMEOUT,
        tools: ToolFilter::default(),
        teams: vec![],
        record_decisions: false,
        resource: None,
        enabled: true,
        created_at: NOW,
        updated_at: NOW,
    };
    Attachment::new(
        Arc::new(server),
        Some(party.provider.clone()),
        Some(party.preset.clone()),
        &Rules::default(),
    )
    .map(Arc::new)
    .map_err(|e| e.to_string())
}

/// A connection with these scopes, as a sign-in would have made it.
pub(super) fn connection(party: &Party, scopes: &ScopeSet) -> Result<Connection, String> {
    let d = party.preset.description();
    let (user, team) = who();
    let captured = d
        .variables
        .iter()
        .filter(|v| !matches!(v.source, Source::Setting(_)));
    let facts: Vec<(String, String)> = captured
        .map(|v| (v.name.clone(), fitting(&v.kind)))
        .chain(
            d.metadata
                .iter()
                .map(|m| (m.name.clone(), fitting(&m.kind))),
        )
        .collect();
    let values = Values::resolve(d, &party.provider.settings, &facts).map_err(|e| e.to_string())?;
    let asking = Asking {
        provider: &party.provider,
        description: d,
        values: &values,
        client_secret: None,
        client_key: None,
    };
    let token = asking
        .token_endpoint(&Grant::RefreshToken)
        .map_err(|e| e.to_string())?;
    let credentials = d.credentials.iter().map(|c| TokenFacts {
        credential: c.name.clone(),
        scopes: scopes.clone(),
        issued_at: NOW,
        expires_at: None,
        refresh_token_present: true,
        refresh_token_expires_at: None,
        refresh_token_end_is_fixed: false,
        renewal_lost_at: None,
    });
    Ok(Connection {
        id: ConnectionId::parse("con_kit").map_err(|e| e.to_string())?,
        user,
        team,
        provider: party.provider.name.clone(),
        resource: None,
        account: Some(Account {
            id: "4711".into(),
            label: "kit@example.org".into(),
        }),
        credentials: credentials.collect(),
        origins: Origins::of(&asking, &token, party.provider.resource.as_ref()),
        facts,
        client_id: CLIENT_ID.into(),
        preset_digest: party.preset.digest(),
        state: State::Connected,
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
        consented_at: None,
        last_used_at: None,
        warned_of: None,
        withheld: ScopeSet::default(),
    })
}

/// Takes a call through the host's whole decision; answers with the credential
/// it will use, too.
pub(super) fn decide(
    attachment: &Arc<Attachment>,
    connection: &Connection,
    call: Call<'_>,
) -> Result<(Option<String>, Permit), CallError> {
    let (user, team) = who();
    let client = ClientId::parse("kit-agent").map_err(|e| CallError::Denied {
        code: "kit".into(),
        message: e.to_string(),
    })?;
    let caller = Caller {
        user,
        team,
        client,
        client_name: "Kit".into(),
        roles: BTreeSet::new(),
        permissions: Permissions::default(),
        servers: None,
        has_browser_identity: true,
    };
    let judged = attachment
        .admit(&caller, call)?
        .connected(Some(connection), NOW)?
        .judge()?;
    let credential = judged.credential().map(str::to_owned);
    // The kit has no policy that would ask for a word.
    Ok((credential, judged.agreed(None)?))
}

/// Hosts that tokens may go to, each as one that a server could have.
pub(super) fn audience(party: &Party) -> Vec<String> {
    let Ok(connection) = connection(party, &ScopeSet::default()) else {
        return Vec::new();
    };
    let patterns = connection.origins.audience.iter().map(ToString::to_string);
    patterns
        .map(|pattern| {
            let pattern = pattern.replacen("*.", ".", 1);
            let host = pattern.strip_suffix(":*").unwrap_or(&pattern);
            match host.strip_prefix('.') {
                Some(rest) => format!("kit.{rest}"),
                None => host.to_owned(),
            }
        })
        .collect()
}

/// The address of the server that has this tool, else of the first, else on
/// the first audience host.
pub(super) fn server_of(party: &Party, tool: Option<&str>) -> Option<Url> {
    let d = party.preset.description();
    let facts = connection(party, &ScopeSet::default()).ok()?.facts;
    let values = Values::resolve(d, &party.provider.settings, &facts).ok()?;
    let has = |name: &str| {
        d.mcp_servers
            .iter()
            .find(|s| s.tools.iter().any(|t| t.name == name))
    };
    let described = tool.and_then(has).or(d.mcp_servers.first());
    let audience = audience(party);
    let own = described
        .and_then(|s| render_text(&s.url, values.variables()).ok())
        .and_then(|text| Url::parse(&text).ok())
        .filter(|url| party_covers(party, url));
    own.or_else(|| Url::parse(&format!("https://{}/mcp", audience.first()?)).ok())
}

fn party_covers(party: &Party, url: &Url) -> bool {
    connection(party, &ScopeSet::default())
        .is_ok_and(|c| c.origins.audience.iter().any(|p| p.matches(url)))
}

/// Whether a sign-in proves that it began where it ends (RFC 7636).
pub(super) fn uses_pkce(d: &Description) -> bool {
    d.authorization
        .as_ref()
        .is_some_and(|a| a.pkce != Pkce::Unsupported)
}
