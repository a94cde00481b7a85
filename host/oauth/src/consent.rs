//! Beginning a consent: the flow record and the authorization URL.

use std::time::Duration;

use countersign_core::connection::{ConnectionKey, State};
use countersign_core::names::{Digest, ProviderName, ServerName, TeamName, UserName};
use countersign_core::ports::{
    Change, Expect, Kind, RecordKey, SecretChange, StoreError, Write, random_token,
};
use countersign_core::preset::{Description, Grant, Offline, Parameter, Pkce, PresetFault};
use countersign_core::provider::Provider;
use countersign_core::request::{Asking, RequestError, scope_parameters};
use countersign_core::scope::{Scope, ScopeSet};
use countersign_core::secret::Secret;
use countersign_core::template::{TemplateError, Values, render_text};
use countersign_core::time::Timestamp;
use oauth2::basic::BasicClient;
use oauth2::{AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl};
use serde::{Deserialize, Serialize};
use url::Url;

pub use crate::callback::{Callback, Outcome};
use crate::service::{Oauth, Party, SecretError};

/// How long a consent may take.
pub const FLOW_LIFETIME: Duration = Duration::from_secs(600);

/// Parameters that only the host sets.
const RESERVED: [&str; 12] = [
    "client_id",
    "redirect_uri",
    "response_type",
    "state",
    "code_challenge",
    "code_challenge_method",
    "scope",
    "resource",
    "nonce",
    "request",
    "request_uri",
    "response_mode",
];
/// Of these, the ones that described data may not set either.
const HOST_ONLY: usize = 6;

/// Where the user goes afterwards. Kept on the server, never a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReturnTo {
    /// The page of connections.
    Connections,
    /// A page that says "go back to your agent".
    Agent,
}

/// Whose call asked for the account, for the link that begins it again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedBy {
    /// The server the call was for.
    pub server: Option<ServerName>,
    /// The agent, as it calls itself.
    pub client_name: Option<String>,
}

/// What a consent is begun with.
pub struct Begin {
    /// The signed-in user.
    pub user: UserName,
    /// In which team.
    pub team: TeamName,
    /// The browser session's id: only this browser can finish it.
    pub session: String,
    /// For which resource, if the connection is dedicated.
    pub resource: Option<Url>,
    /// What the tokens are asked for (RFC 8707): [`Server::indicator`], or the
    /// provider's where no server is known.
    ///
    /// [`Server::indicator`]: countersign_core::server::Server::indicator
    pub indicator: Option<Url>,
    /// Scopes needed beside the provider record's.
    pub scopes: ScopeSet,
    /// Where the user goes afterwards.
    pub return_to: ReturnTo,
    /// Use the bare `/oauth/callback`, for providers whose console allows no
    /// other redirect URI.
    pub bare_callback: bool,
    /// Whose call asked for it, if one did.
    pub asked_by: AskedBy,
}

/// Why a consent cannot begin or end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsentError {
    /// The provider is switched off.
    #[error("the provider {0} is disabled")]
    Disabled(String),
    /// Users do not sign in there.
    #[error("the preset of {0} knows no sign-in of users")]
    NoSignIn(String),
    /// Codes are typed there only if an administrator switched that on.
    #[error(
        "the provider {0} is not set up for the device flow: an administrator can add device_code to its grant types, and --device-endpoint"
    )]
    NoDeviceFlow(String),
    /// The provider gave no code to type.
    #[error("the provider gives no code: {0}")]
    Unanswered(String),
    /// PKCE is demanded and impossible.
    #[error("the provider {0} is to be used with PKCE only, which it does not support")]
    NoPkce(String),
    /// The preset adds a parameter that only Countersign sets.
    #[error("the preset sets the parameter {0:?}, which only Countersign may set")]
    Reserved(String),
    /// The preset failed.
    #[error("{0}")]
    Preset(#[from] PresetFault),
    /// The request cannot be made.
    #[error("{0}")]
    Request(#[from] RequestError),
    /// The client secret cannot be used.
    #[error("{0}")]
    Secret(#[from] SecretError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<TemplateError> for ConsentError {
    fn from(error: TemplateError) -> Self {
        Self::Request(error.into())
    }
}

/// A consent under way: the public half of the record; the secret half is the
/// PKCE verifier.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub(crate) user: UserName,
    pub(crate) team: TeamName,
    pub(crate) session: String,
    pub(crate) provider: ProviderName,
    pub(crate) resource: Option<Url>,
    pub(crate) redirect_uri: String,
    pub(crate) bare_callback: bool,
    pub(crate) asked: ScopeSet,
    /// What is granted already and not asked for again.
    #[serde(default)]
    pub(crate) held: ScopeSet,
    pub(crate) return_to: ReturnTo,
    #[serde(default)]
    pub(crate) asked_by: AskedBy,
    pub(crate) client_id: String,
    pub(crate) token_origin: Option<String>,
    #[serde(default)]
    pub(crate) indicator: Option<Url>,
    /// Of the provider record, when it began.
    #[serde(default)]
    pub(crate) course: Option<Digest>,
    pub(crate) expires_at: Timestamp,
}

impl Flow {
    pub(crate) fn connection_key(&self) -> ConnectionKey {
        ConnectionKey {
            user: self.user.clone(),
            team: self.team.clone(),
            provider: self.provider.clone(),
            resource: self.resource.clone(),
        }
    }
}

/// The state is kept only as a digest.
pub(crate) fn flow_key(state: &str) -> RecordKey {
    RecordKey::new(Kind::Flow, Digest::of(state.as_bytes()).to_string())
}

impl Oauth {
    /// Begins a consent and says where to send the user's browser. Call it only
    /// from the page's own `POST`.
    ///
    /// # Errors
    /// [`ConsentError`]; nothing was begun.
    pub async fn begin(&self, begin: Begin, party: &Party) -> Result<Url, ConsentError> {
        let (provider, description) = (&*party.provider, party.preset.description());
        let name = || provider.name.to_string();
        if !provider.enabled {
            return Err(ConsentError::Disabled(name()));
        }
        let authorization = description
            .authorization
            .as_ref()
            .ok_or_else(|| ConsentError::NoSignIn(name()))?;
        let key = ConnectionKey {
            user: begin.user.clone(),
            team: begin.team.clone(),
            provider: provider.name.clone(),
            resource: begin.resource.clone(),
        };
        let existing = self.load(&key).await?.map(|held| held.connection);
        let granted = existing.as_ref().map(|c| c.scopes()).unwrap_or_default();
        // What has ended is no ground to build on.
        let stands = existing.is_some_and(|c| c.state == State::Connected);
        let mut asked = wanted_scopes(&begin.scopes, provider, description);
        let mut held = ScopeSet::default();
        let missing = description.implications().missing(&granted, &asked);
        if stands && !authorization.incremental_parameters.is_empty() && !missing.is_empty() {
            (asked, held) = (missing, granted.clone());
        } else {
            asked = with_granted(&asked, description, &granted);
        }
        let values = Values::resolve(description, &provider.settings, &[])?;
        let asking = Asking {
            provider,
            description,
            values: &values,
            client_secret: None,
            client_key: None,
        };
        let endpoint = asking.authorization_endpoint()?;

        let with_pkce = match (&authorization.pkce, provider.require_pkce) {
            (Pkce::Unsupported, true) => return Err(ConsentError::NoPkce(name())),
            (Pkce::Unsupported, false) => false,
            (Pkce::Required | Pkce::Supported, _) => true,
        };
        let state = random_token::<32>(&*self.world.random);
        let verifier =
            with_pkce.then(|| PkceCodeVerifier::new(random_token::<32>(&*self.world.random)));
        let flow = Flow {
            redirect_uri: self.callback_url((!begin.bare_callback).then(|| provider.name.as_str())),
            bare_callback: begin.bare_callback,
            provider: provider.name.clone(),
            client_id: provider.client_id.clone(),
            token_origin: asking
                .token_endpoint(&Grant::AuthorizationCode)
                .ok()
                .map(|url| url.origin().ascii_serialization()),
            indicator: begin.indicator,
            course: Some(provider.course()),
            expires_at: self.world.clock.now().plus(FLOW_LIFETIME),
            asked,
            held,
            user: begin.user,
            team: begin.team,
            session: begin.session,
            resource: begin.resource,
            return_to: begin.return_to,
            asked_by: begin.asked_by,
        };
        let parameters = parameters(&flow, party, &values, &granted)?;
        let challenge = verifier
            .as_ref()
            .map(PkceCodeChallenge::from_code_verifier_sha256);
        let url = authorize_url(
            &endpoint,
            &flow,
            &state,
            challenge,
            &parameters,
            &authorization.suppress,
        )?;
        self.store_flow(&state, &flow, verifier).await?;
        Ok(url)
    }

    async fn store_flow(
        &self,
        state: &str,
        flow: &Flow,
        verifier: Option<PkceCodeVerifier>,
    ) -> Result<(), StoreError> {
        let document = serde_json::to_vec(flow).map_err(|e| StoreError::Damaged(e.to_string()))?;
        let secret = match verifier {
            Some(verifier) => SecretChange::Set(Secret::from_text(verifier.into_secret())),
            None => SecretChange::Keep,
        };
        let change = Change {
            document,
            secret,
            expires_at: Some(flow.expires_at),
        };
        let write = Write {
            key: flow_key(state),
            expect: Expect::Absent,
            change: Some(change),
        };
        self.world.records.write(vec![write]).await.map(drop)
    }
}

/// What is wanted, and what was granted before.
pub(crate) fn scopes_to_ask(
    wanted: &ScopeSet,
    provider: &Provider,
    description: &Description,
    granted: &ScopeSet,
) -> ScopeSet {
    with_granted(
        &wanted_scopes(wanted, provider, description),
        description,
        granted,
    )
}

/// What is needed and what the record says, or else the preset's default.
fn wanted_scopes(wanted: &ScopeSet, provider: &Provider, description: &Description) -> ScopeSet {
    let asked = wanted.union(&provider.scopes);
    if !asked.is_empty() {
        return asked;
    }
    let default = description.default_scopes.iter();
    default.filter_map(|s| Scope::parse(s).ok()).collect()
}

/// And what was granted before: most providers' new token has just what was
/// asked for. Where the preset says how to ask for more (`incremental`), only
/// what is missing is asked for instead.
fn with_granted(asked: &ScopeSet, description: &Description, granted: &ScopeSet) -> ScopeSet {
    // A provider may report scopes that cannot be asked for: only known ones.
    let known = |scope: &&Scope| {
        description.scopes.is_empty()
            || description.scopes.iter().any(|s| {
                s.name == scope.as_str() || (s.prefix && scope.as_str().starts_with(&s.name))
            })
    };
    asked.union(&granted.iter().filter(known).cloned().collect())
}

/// Everything beside what RFC 6749 and 7636 always send.
fn parameters(
    flow: &Flow,
    party: &Party,
    values: &Values,
    granted: &ScopeSet,
) -> Result<Vec<(String, String)>, ConsentError> {
    let (provider, description) = (&*party.provider, party.preset.description());
    let Some(authorization) = &description.authorization else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for (i, mut parameter) in scope_parameters(description, &flow.asked)
        .into_iter()
        .enumerate()
    {
        if let (0, Offline::Scope(scope)) = (i, &authorization.offline)
            && let Ok(scope) = Scope::parse(scope)
        {
            parameter.scopes.insert(scope);
        }
        if !parameter.scopes.is_empty() || parameter.send_empty {
            let separator = if parameter.separator.is_empty() {
                " "
            } else {
                &parameter.separator
            };
            set(&mut all, parameter.name, parameter.scopes.join(separator));
        }
    }
    if let Some(resource) = &flow.indicator {
        set(&mut all, "resource".into(), resource.to_string());
    }
    if let Some(audience) = &provider.audience {
        set(&mut all, "audience".into(), audience.clone());
    }
    let described = |all: &mut Vec<(String, String)>, parameters: &[Parameter]| {
        for parameter in parameters {
            if RESERVED[..HOST_ONLY].contains(&parameter.name.as_str()) {
                return Err(ConsentError::Reserved(parameter.name.clone()));
            }
            let value = render_text(&parameter.value, values.variables())?;
            set(all, parameter.name.clone(), value);
        }
        Ok(())
    };
    if let Offline::Parameters(offline) = &authorization.offline {
        described(&mut all, offline)?;
    }
    described(&mut all, &authorization.parameters)?;
    if !granted.is_empty() {
        described(&mut all, &authorization.incremental_parameters)?;
    }
    if description.hooks.authorize_parameters {
        for (name, value) in party.preset.authorize_parameters(&flow.asked)? {
            if RESERVED.contains(&name.as_str()) {
                return Err(ConsentError::Reserved(name));
            }
            set(&mut all, name, value);
        }
    }
    Ok(all)
}

fn set(all: &mut Vec<(String, String)>, name: String, value: String) {
    all.retain(|(n, _)| *n != name);
    all.push((name, value));
}

/// Appends to the endpoint's own query, then takes out what is suppressed.
fn authorize_url(
    endpoint: &Url,
    flow: &Flow,
    state: &str,
    challenge: Option<PkceCodeChallenge>,
    parameters: &[(String, String)],
    suppress: &[String],
) -> Result<Url, ConsentError> {
    if let Some((name, _)) = endpoint
        .query_pairs()
        .find(|(n, _)| RESERVED[..HOST_ONLY].contains(&&**n))
    {
        return Err(ConsentError::Reserved(name.into_owned()));
    }
    let redirect = RedirectUrl::new(flow.redirect_uri.clone())
        .map_err(|_| TemplateError::BadUrl(flow.redirect_uri.clone()))?;
    let client = BasicClient::new(ClientId::new(flow.client_id.clone()))
        .set_auth_uri(AuthUrl::from_url(endpoint.clone()))
        .set_redirect_uri(redirect);
    let mut request = client.authorize_url(|| CsrfToken::new(state.to_owned()));
    if let Some(challenge) = challenge {
        request = request.set_pkce_challenge(challenge);
    }
    for (name, value) in parameters {
        request = request.add_extra_param(name.as_str(), value.as_str());
    }
    let (mut url, _) = request.url();
    if !suppress.is_empty() {
        // A consent without state could be forged, whatever a preset says.
        let keeps = |name: &String| name == "state" || !suppress.contains(name);
        let kept: Vec<(String, String)> = url
            .query_pairs()
            .into_owned()
            .filter(|(name, _)| keeps(name))
            .collect();
        url.query_pairs_mut().clear().extend_pairs(kept);
    }
    Ok(url)
}
