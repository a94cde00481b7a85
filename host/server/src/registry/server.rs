//! Attached servers: what may be written into one, checked before it is stored.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_core::inject::is_forbidden_header;
use countersign_core::names::{ProviderName, SecretName, ServerName, TeamName};
use countersign_core::preset::{Description, Part, Rule, Slot};
use countersign_core::provider::{GrantType, Provider, duration_text};
use countersign_core::server::{
    AuthMode, ConnectionUse, DEFAULT_TIMEOUT, DEFAULT_WAIT, Injection, Server, ServerAuth, Target,
    ToolFilter,
};
use countersign_core::template::{self, Values};
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;

use super::address::AddressRules;
use super::provider::{resource, scopes, secret_ref};
use super::snapshot::Snapshot;
use super::{Refusal, text};

const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Longest time an upstream may take to begin its answer.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);
const MOST_PATTERNS: usize = 200;

/// A server as somebody writes it: `POST` takes it, `PATCH` merges into it
/// (RFC 7396), `null` or absence means the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerInput {
    /// Lower-case letters, digits and hyphens; immutable.
    #[schema(pattern = "^[a-z][a-z0-9-]{0,62}$", example = "notes")]
    pub name: String,
    /// For people; the name if absent.
    pub display_name: Option<String>,
    /// Its MCP endpoint.
    #[schema(example = "https://mcp.example.com/mcp")]
    pub url: Option<String>,
    /// An entry of `[stdio.allow]` in the operator's configuration.
    pub command: Option<String>,
    /// Upstream authentication; found out if absent in a creation.
    pub auth: Option<AuthInput>,
    /// `shared` or `dedicated`; `shared` if absent and the preset lists the
    /// host as its vendor's.
    #[schema(value_type = Option<String>)]
    pub connection: Option<ConnectionUse>,
    /// What tokens of dedicated connections are asked for (RFC 8707); the
    /// provider's `resource`, or the address, if absent.
    #[schema(example = "https://mcp.example.com/mcp")]
    pub resource: Option<String>,
    /// How long a call is held while the user acts; `45s` if absent.
    #[schema(example = "45s")]
    pub wait: Option<String>,
    /// How long the server may take to begin its answer; `5m` if absent.
    #[schema(example = "5m")]
    pub timeout: Option<String>,
    /// Tools that may be seen and called.
    pub tools: Option<ToolsInput>,
    /// Teams that may use it; everybody if empty.
    pub teams: Option<Vec<String>>,
    /// Whether the redacted inputs of its decisions are recorded, so that a new
    /// version of the preset can be tried on them; false if absent.
    pub record_decisions: Option<bool>,
    /// A disabled server answers nothing; true if absent.
    pub enabled: Option<bool>,
}

/// How calls to the server are authenticated upstream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthInput {
    /// `none`, `static`, `service-account`, `user-delegated` or
    /// `token-exchange`.
    #[schema(value_type = String)]
    pub mode: Option<AuthMode>,
    /// The provider, for the OAuth modes; in mode `static`, the one whose
    /// preset says how the key is sent or what is signed with it.
    pub provider: Option<String>,
    /// Scopes every connection needs for this server.
    pub required_scopes: Option<Vec<String>>,
    /// Name of the secret of mode `static`.
    pub secret_ref: Option<String>,
    /// Replaces the preset's rule that carries the access token.
    pub injection: Option<InjectionInput>,
    /// In mode `static`: each user gives a key of his own; false if absent.
    pub per_user: Option<bool>,
    /// RFC 8707 `resource` of the tokens of modes `service-account` and
    /// `token-exchange`; the provider's if absent, else the server's own
    /// address where it has a connection of its own.
    #[schema(example = "https://mcp.example.com/mcp")]
    pub resource: Option<String>,
    /// `audience` of those tokens; the provider's if absent.
    pub audience: Option<String>,
}

/// Where the credential is put.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InjectionInput {
    /// For example `X-Api-Key`.
    pub header_name: String,
    /// Put before the credential; may be empty.
    #[serde(default)]
    pub header_prefix: String,
}

/// Which tools may be called: globs with `*`; `deny` wins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolsInput {
    /// Only these; all if empty.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Never these.
    #[serde(default)]
    pub deny: Vec<String>,
}

impl ServerInput {
    /// Whether it says where the server is and not how it is protected.
    #[must_use]
    pub fn is_address_alone(&self) -> bool {
        let unsaid = self.auth.as_ref().is_none_or(|auth| {
            auth.mode.is_none()
                && auth.provider.is_none()
                && auth.secret_ref.is_none()
                && auth.per_user != Some(true)
        });
        unsaid && self.url.is_some() && self.command.is_none()
    }
}

impl From<&Server> for ServerInput {
    fn from(s: &Server) -> Self {
        let (url, command) = match &s.target {
            Target::Url(url) => (Some(url.to_string()), None),
            Target::Command(command) => (None, Some(command.clone())),
        };
        Self {
            name: s.name.to_string(),
            display_name: Some(s.display_name.clone()),
            url,
            command,
            auth: Some(AuthInput {
                mode: Some(s.auth.mode),
                provider: s.auth.provider.as_ref().map(ToString::to_string),
                required_scopes: Some(
                    s.auth
                        .required_scopes
                        .iter()
                        .map(ToString::to_string)
                        .collect(),
                ),
                secret_ref: s.auth.secret_ref.as_ref().map(ToString::to_string),
                injection: s.auth.injection.as_ref().map(|i| InjectionInput {
                    header_name: i.header_name.clone(),
                    header_prefix: i.header_prefix.clone(),
                }),
                per_user: Some(s.auth.per_user).filter(|own| *own),
                resource: s.auth.resource.as_ref().map(ToString::to_string),
                audience: s.auth.audience.clone(),
            }),
            connection: Some(s.connection),
            resource: s.resource.as_ref().map(ToString::to_string),
            wait: Some(duration_text::format(s.wait)),
            timeout: Some(duration_text::format(s.timeout)),
            tools: Some(ToolsInput {
                allow: s.tools.allow.clone(),
                deny: s.tools.deny.clone(),
            }),
            teams: Some(s.teams.iter().map(ToString::to_string).collect()),
            record_decisions: Some(s.record_decisions),
            enabled: Some(s.enabled),
        }
    }
}

/// What a server is checked against.
pub(super) struct Surroundings<'a> {
    pub(super) addresses: &'a AddressRules,
    pub(super) snapshot: &'a Snapshot,
    pub(super) teams: &'a BTreeSet<TeamName>,
    /// What a provider's preset says of itself.
    pub(super) description: &'a dyn Fn(&Provider) -> Option<Description>,
}

/// Parses and checks every field, alone and beside the others.
pub(super) fn check(
    input: ServerInput,
    around: &Surroundings<'_>,
    created_at: Timestamp,
    now: Timestamp,
) -> Result<Server, Refusal> {
    let name = ServerName::parse(&input.name).map_err(|e| Refusal::name("name", &e))?;
    let url = match (input.url.as_deref(), input.command.as_deref()) {
        (Some(url), None) => around.addresses.check("url", url)?,
        (None, Some(command)) => return Err(no_command(command)),
        (Some(_), Some(_)) => {
            return Err(Refusal::invalid(
                "url",
                "and command exclude each other; write one of them",
            ));
        }
        (None, None) => {
            return Err(Refusal::invalid(
                "url",
                "is required: the server's MCP endpoint",
            ));
        }
    };
    let auth = input.auth.unwrap_or_default();
    let checked = match auth.mode.unwrap_or(AuthMode::None) {
        AuthMode::None => no_auth(&auth)?,
        AuthMode::Static => static_auth(&auth, &url, around)?,
        AuthMode::UserDelegated => user_delegated(&auth, &url, around)?,
        AuthMode::ServiceAccount => obtained(AuthMode::ServiceAccount, &auth, &url, around)?,
        AuthMode::TokenExchange => obtained(AuthMode::TokenExchange, &auth, &url, around)?,
    };
    let (auth, described) = checked;
    let connection = connection_use(input.connection, &auth, &url, described.as_ref());
    let tools = input.tools.unwrap_or_default();
    Ok(Server {
        display_name: text::display_name(input.display_name.as_deref(), &input.name)?,
        wait: wait(input.wait.as_deref())?,
        timeout: timeout(input.timeout.as_deref())?,
        tools: ToolFilter {
            allow: globs("tools.allow", tools.allow)?,
            deny: globs("tools.deny", tools.deny)?,
        },
        teams: teams(input.teams.unwrap_or_default(), around.teams)?,
        record_decisions: input.record_decisions.unwrap_or(false),
        enabled: input.enabled.unwrap_or(true),
        target: Target::Url(url),
        created_at,
        updated_at: now,
        name,
        resource: resource("resource", input.resource.as_deref())?,
        auth,
        connection,
    })
}

fn no_command(command: &str) -> Refusal {
    Refusal::invalid(
        "command",
        format!(
            "{:?} is not an entry of [stdio.allow] in countersign.toml, and this version of Countersign \
             runs no local servers; give a url",
            text::cut(command)
        ),
    )
}

type Checked = (ServerAuth, Option<(Provider, Description)>);

fn no_auth(auth: &AuthInput) -> Result<Checked, Refusal> {
    let unused = [
        ("auth.provider", auth.provider.is_some()),
        ("auth.secret_ref", auth.secret_ref.is_some()),
        ("auth.injection", auth.injection.is_some()),
        ("auth.per_user", auth.per_user == Some(true)),
        ("auth.resource", auth.resource.is_some()),
        ("auth.audience", auth.audience.is_some()),
        (
            "auth.required_scopes",
            auth.required_scopes.as_ref().is_some_and(|s| !s.is_empty()),
        ),
    ];
    refuse_unused(
        &unused,
        "none",
        "choose a mode that uses it, for example user-delegated",
    )?;
    Ok((ServerAuth::new(AuthMode::None), None))
}

fn static_auth(auth: &AuthInput, url: &Url, around: &Surroundings<'_>) -> Result<Checked, Refusal> {
    let unused = [
        (
            "auth.required_scopes",
            auth.required_scopes.as_ref().is_some_and(|s| !s.is_empty()),
        ),
        ("auth.resource", auth.resource.is_some()),
        ("auth.audience", auth.audience.is_some()),
    ];
    refuse_unused(
        &unused,
        "static",
        "a stored key is sent as it is; use mode user-delegated for OAuth",
    )?;
    let per_user = auth.per_user == Some(true);
    let secret = secret_ref(
        "auth.secret_ref",
        auth.secret_ref.as_deref(),
        around.snapshot,
    )?;
    match &secret {
        Some(_) if per_user => {
            return Err(Refusal::invalid(
                "auth.secret_ref",
                "and auth.per_user exclude each other: one key for all, or one of each user's own",
            ));
        }
        Some(secret) => bound_to(secret, url, around)?,
        None if per_user => {}
        None => {
            return Err(Refusal::invalid(
                "auth.secret_ref",
                "is required in mode static; set the key with `countersign secret set NAME` and name it here, \
                 or let each user give his own with per_user",
            ));
        }
    }
    let provider = match auth.provider.as_deref() {
        Some(name) => Some(provider(Some(name), around.snapshot)?),
        None => None,
    };
    let described = provider.as_ref().and_then(|p| (around.description)(p));
    let injection = injection(auth.injection.as_ref())?;
    if let (Some(provider), Some(described)) = (&provider, &described) {
        takes_key(provider, described)?;
        refuse_injection(provider, described, injection.as_ref())?;
        in_audience(provider, described, url)?;
    }
    let auth = ServerAuth {
        provider: provider.as_ref().map(|p| p.name.clone()),
        secret_ref: secret,
        per_user,
        injection,
        ..ServerAuth::new(AuthMode::Static)
    };
    Ok((auth, provider.zip(described)))
}

/// A secret goes only to the hosts it is bound to.
fn bound_to(secret: &SecretName, url: &Url, around: &Surroundings<'_>) -> Result<(), Refusal> {
    let bound = around
        .snapshot
        .secrets
        .get(secret)
        .map(|s| s.value.hosts.as_slice())
        .unwrap_or_default();
    if bound.is_empty() || bound.iter().any(|h| h.matches(url)) {
        return Ok(());
    }
    let hosts: Vec<_> = bound.iter().map(ToString::to_string).collect();
    Err(Refusal::invalid(
        "auth.secret_ref",
        format!(
            "the secret {secret} may only be sent to {}, not to {}",
            hosts.join(", "),
            text::host(url)
        ),
    ))
}

/// Whether a stored key is any good to the preset.
fn takes_key(provider: &Provider, described: &Description) -> Result<(), Refusal> {
    let api_key = Part::Slot(Slot::ApiKey);
    let carries = |rule: &Rule| match rule {
        Rule::SetHeader(header) => header.value.iter().any(|part| match part {
            Part::Basic(basic) => {
                basic.user == Slot::ApiKey || basic.password == Some(Slot::ApiKey)
            }
            part => *part == api_key,
        }),
        Rule::SetQuery(_) => false,
    };
    let rules = described.credentials.iter().flat_map(|c| &c.rules);
    if described.signs() || rules.into_iter().any(carries) {
        return Ok(());
    }
    Err(Refusal::invalid(
        "auth.provider",
        format!(
            "the preset {} neither sends nor signs with a stored key; leave auth.provider out, or use mode user-delegated",
            provider.preset
        ),
    ))
}

/// Where requests are signed there is no token header to replace.
fn refuse_injection(
    provider: &Provider,
    described: &Description,
    injection: Option<&Injection>,
) -> Result<(), Refusal> {
    if injection.is_some() && described.signs() {
        return Err(Refusal::invalid(
            "auth.injection",
            format!(
                "the preset {} signs requests; there is no token header to replace",
                provider.preset
            ),
        ));
    }
    Ok(())
}

fn user_delegated(
    auth: &AuthInput,
    url: &Url,
    around: &Surroundings<'_>,
) -> Result<Checked, Refusal> {
    let unused = [
        ("auth.secret_ref", auth.secret_ref.is_some()),
        ("auth.per_user", auth.per_user == Some(true)),
        ("auth.resource", auth.resource.is_some()),
        ("auth.audience", auth.audience.is_some()),
    ];
    refuse_unused(
        &unused,
        "user-delegated",
        "each user's own connection is used, with the provider's resource and audience",
    )?;
    let provider = provider(auth.provider.as_deref(), around.snapshot)?;
    if !provider
        .grant_types
        .iter()
        .any(|g| matches!(g, GrantType::AuthorizationCode | GrantType::DeviceCode))
    {
        return Err(Refusal::invalid(
            "auth.provider",
            format!(
                "the provider {} has no grant type with which a user could connect; add authorization_code",
                provider.name
            ),
        ));
    }
    let described = (around.description)(&provider);
    let injection = injection(auth.injection.as_ref())?;
    if let Some(described) = &described {
        refuse_injection(&provider, described, injection.as_ref())?;
        in_audience(&provider, described, url)?;
    }
    let auth = ServerAuth {
        provider: Some(provider.name.clone()),
        required_scopes: scopes(
            "auth.required_scopes",
            auth.required_scopes.as_deref().unwrap_or_default(),
        )?,
        injection,
        ..ServerAuth::new(AuthMode::UserDelegated)
    };
    Ok((auth, described.map(|d| (provider, d))))
}

/// A credential that Countersign obtains by itself: one for all users, or one
/// for each in exchange for the host's word about him.
fn obtained(
    mode: AuthMode,
    auth: &AuthInput,
    url: &Url,
    around: &Surroundings<'_>,
) -> Result<Checked, Refusal> {
    let (word, instead) = match mode {
        AuthMode::ServiceAccount => (
            "service-account",
            "the provider's client secret or key is used; or choose mode static",
        ),
        _ => (
            "token-exchange",
            "each user's token is exchanged for; or choose mode static",
        ),
    };
    let unused = [
        ("auth.secret_ref", auth.secret_ref.is_some()),
        ("auth.per_user", auth.per_user == Some(true)),
    ];
    refuse_unused(&unused, word, instead)?;
    let provider = provider(auth.provider.as_deref(), around.snapshot)?;
    let usable = |grant: &GrantType| match mode {
        AuthMode::ServiceAccount => {
            matches!(grant, GrantType::ClientCredentials | GrantType::JwtBearer)
        }
        _ => matches!(grant, GrantType::TokenExchange | GrantType::JwtBearer),
    };
    if !provider.grant_types.iter().any(usable) {
        let (what, grant) = match mode {
            AuthMode::ServiceAccount => ("Countersign could act as itself", "client_credentials"),
            _ => ("a user's token could be exchanged for", "token_exchange"),
        };
        return Err(Refusal::invalid(
            "auth.provider",
            format!(
                "the provider {name} has no grant type with which {what}; add it with `countersign provider \
                 update {name} --grant-types {grant}` (or jwt_bearer)",
                name = provider.name
            ),
        ));
    }
    let described = (around.description)(&provider);
    let injection = injection(auth.injection.as_ref())?;
    if let Some(described) = &described {
        refuse_injection(&provider, described, injection.as_ref())?;
        in_audience(&provider, described, url)?;
    }
    let auth = ServerAuth {
        provider: Some(provider.name.clone()),
        required_scopes: scopes(
            "auth.required_scopes",
            auth.required_scopes.as_deref().unwrap_or_default(),
        )?,
        injection,
        resource: super::provider::resource("auth.resource", auth.resource.as_deref())?,
        audience: super::provider::audience("auth.audience", auth.audience.as_deref())?,
        ..ServerAuth::new(mode)
    };
    Ok((auth, described.map(|d| (provider, d))))
}

fn refuse_unused(
    fields: &[(&'static str, bool)],
    mode: &str,
    instead: &str,
) -> Result<(), Refusal> {
    match fields.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(Refusal::invalid(
            *field,
            format!("is not used in mode {mode}; {instead}"),
        )),
        None => Ok(()),
    }
}

fn provider(name: Option<&str>, snapshot: &Snapshot) -> Result<Provider, Refusal> {
    let Some(name) = name.filter(|n| !n.is_empty()) else {
        return Err(Refusal::invalid(
            "auth.provider",
            "is required in this mode: whose connection is used",
        ));
    };
    let name = ProviderName::parse(name).map_err(|e| Refusal::name("auth.provider", &e))?;
    snapshot
        .provider(&name)
        .map(|p| p.as_ref().clone())
        .ok_or_else(|| {
            let mut known: Vec<_> = snapshot.providers.keys().map(ToString::to_string).collect();
            known.sort();
            Refusal::Unknown {
                field: "auth.provider".into(),
                what: "provider",
                name: name.to_string(),
                known,
            }
        })
}

fn injection(given: Option<&InjectionInput>) -> Result<Option<Injection>, Refusal> {
    let Some(given) = given else { return Ok(None) };
    let name = given.header_name.as_str();
    let field = "auth.injection.header_name";
    if name.is_empty() || http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(Refusal::invalid(
            field,
            format!("{:?} is not a header's name", text::cut(name)),
        ));
    }
    if is_forbidden_header(name) {
        return Err(Refusal::invalid(
            field,
            format!(
                "{name} belongs to the connection or to MCP; use Authorization or one like X-Api-Key"
            ),
        ));
    }
    let prefix = &given.header_prefix;
    if prefix.len() > 128 || !prefix.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return Err(Refusal::invalid(
            "auth.injection.header_prefix",
            "must be at most 128 visible ASCII characters and spaces, for example \"Bearer \"",
        ));
    }
    Ok(Some(Injection {
        header_name: name.to_owned(),
        header_prefix: prefix.clone(),
    }))
}

/// The server must be where the provider's tokens may go. Hosts that only a
/// connection knows (a tenant chosen at sign-in) are checked at each call.
fn in_audience(provider: &Provider, described: &Description, url: &Url) -> Result<(), Refusal> {
    let given = &provider.audience_hosts;
    let (known, open) = if given.is_empty() {
        hosts_of(provider, described)
    } else {
        (given.clone(), false)
    };
    if open || known.iter().any(|h| h.matches(url)) {
        return Ok(());
    }
    let listed: Vec<_> = known.iter().map(ToString::to_string).collect();
    Err(Refusal::invalid(
        "url",
        format!(
            "tokens of the provider {} may only go to {}; add {} with \
             `countersign provider update {} --audience-hosts`",
            provider.name,
            listed.join(", "),
            text::host(url),
            provider.name,
        ),
    ))
}

/// The preset's audience as far as the settings decide it, and whether a part
/// is only known of a connection.
fn hosts_of(
    provider: &Provider,
    described: &Description,
) -> (Vec<countersign_core::hosts::HostPattern>, bool) {
    let Ok(values) = Values::resolve(described, &provider.settings, &[]) else {
        return (Vec::new(), true);
    };
    let mut open = false;
    let mut hosts = Vec::new();
    for pattern in &described.audience_hosts {
        let text = template::render_text(pattern, values.variables());
        match text
            .ok()
            .and_then(|t| countersign_core::hosts::HostPattern::parse(&t).ok())
        {
            Some(host) => hosts.push(host),
            None => open = true,
        }
    }
    (hosts, open)
}

fn connection_use(
    given: Option<ConnectionUse>,
    auth: &ServerAuth,
    url: &Url,
    described: Option<&(Provider, Description)>,
) -> ConnectionUse {
    if matches!(auth.mode, AuthMode::None | AuthMode::Static) {
        return given.unwrap_or(ConnectionUse::Shared);
    }
    if let Some(given) = given {
        return given;
    }
    let Some((provider, described)) = described else {
        return ConnectionUse::Dedicated;
    };
    if is_vendors_own(provider, described, url) {
        ConnectionUse::Shared
    } else {
        ConnectionUse::Dedicated
    }
}

/// Whether the provider's preset lists this origin as its vendor's.
pub(crate) fn is_vendors_own(provider: &Provider, described: &Description, url: &Url) -> bool {
    let values = Values::resolve(described, &provider.settings, &[]).unwrap_or_default();
    described.mcp_servers.iter().any(|server| {
        template::render_text(&server.url, values.variables())
            .ok()
            .and_then(|text| Url::parse(&text).ok())
            .is_some_and(|vendor| vendor.origin() == url.origin())
    })
}

fn wait(given: Option<&str>) -> Result<Duration, Refusal> {
    let Some(text) = given else {
        return Ok(DEFAULT_WAIT);
    };
    duration_text::parse(text)
        .filter(|d| *d <= LONGEST_WAIT)
        .ok_or_else(|| {
            Refusal::invalid(
                "wait",
                format!("{text:?} is not a time of at most 5m, written like \"45s\""),
            )
        })
}

fn timeout(given: Option<&str>) -> Result<Duration, Refusal> {
    let Some(text) = given else {
        return Ok(DEFAULT_TIMEOUT);
    };
    duration_text::parse(text)
        .filter(|d| !d.is_zero() && *d <= LONGEST_TIMEOUT)
        .ok_or_else(|| {
            let problem = format!("{text:?} is not a time from 1s to 1h, written like \"5m\"");
            Refusal::invalid("timeout", problem)
        })
}

fn globs(field: &str, given: Vec<String>) -> Result<Vec<String>, Refusal> {
    if given.len() > MOST_PATTERNS {
        return Err(Refusal::invalid(
            field,
            format!("holds more than {MOST_PATTERNS} patterns"),
        ));
    }
    let bad = given
        .iter()
        .find(|g| g.is_empty() || g.len() > 128 || g.chars().any(char::is_control));
    match bad {
        Some(bad) => Err(Refusal::invalid(
            field,
            format!(
                "{:?} is not a tool's name or pattern (1 to 128 characters, * for any run)",
                text::cut(bad)
            ),
        )),
        None => Ok(given),
    }
}

fn teams(given: Vec<String>, known: &BTreeSet<TeamName>) -> Result<Vec<TeamName>, Refusal> {
    let mut teams = Vec::with_capacity(given.len());
    for team in given {
        let team = TeamName::parse(&team).map_err(|e| Refusal::name("teams", &e))?;
        if !known.contains(&team) {
            return Err(Refusal::Unknown {
                field: "teams".into(),
                what: "team",
                name: team.to_string(),
                known: known.iter().map(ToString::to_string).collect(),
            });
        }
        if !teams.contains(&team) {
            teams.push(team);
        }
    }
    Ok(teams)
}

/// Fields by which a credential could be led astray: when one of them changes,
/// the caller must be allowed to attach the provider or the secret.
pub(super) fn moves_credential(old: &Server, new: &Server) -> bool {
    old.target != new.target
        || old.auth.mode != new.auth.mode
        || old.auth.provider != new.auth.provider
        || old.auth.secret_ref != new.auth.secret_ref
        || old.auth.injection != new.auth.injection
        || old.auth.per_user != new.auth.per_user
        || old.auth.resource != new.auth.resource
        || old.auth.audience != new.auth.audience
        // Which connection is used is whose token goes there.
        || old.connection != new.connection
        || old.resource != new.resource
}
