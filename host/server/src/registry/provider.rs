//! Providers: what may be written into one, checked before it is stored.

use std::time::Duration;

use countersign_core::hosts::HostPattern;
use countersign_core::jwt::Algorithm;
use countersign_core::names::{PresetName, ProviderName, SecretName};
use countersign_core::preset::{Description, Pkce};
use countersign_core::provider::{GrantType, Provider, TokenAuthMethod, duration_text};
use countersign_core::scope::{Scope, ScopeSet};
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::address::AddressRules;
use super::snapshot::Snapshot;
use super::{Refusal, text};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_RETRIES: u8 = 3;

/// A provider as somebody writes it: `POST` takes it, `PATCH` merges into it
/// (RFC 7396), `null` or absence means the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderInput {
    /// Lower-case letters, digits and hyphens; immutable.
    #[schema(pattern = "^[a-z][a-z0-9-]{0,62}$", example = "github")]
    pub name: String,
    /// For people; the name if absent.
    pub display_name: Option<String>,
    /// When creating: an MCP server's or an issuer's address, to find out
    /// everything that is not given, and to register there as a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only, example = "https://mcp.example.com/mcp")]
    pub discover: Option<String>,
    /// A preset that is enabled.
    #[serde(default)]
    pub preset: String,
    /// Overrides the preset's.
    pub authorization_endpoint: Option<String>,
    /// Overrides the preset's.
    pub token_endpoint: Option<String>,
    /// RFC 7009; overrides the preset's way.
    pub revocation_endpoint: Option<String>,
    /// RFC 8628.
    pub device_authorization_endpoint: Option<String>,
    /// `authorization_code` and `refresh_token` if absent.
    #[schema(value_type = Option<Vec<String>>)]
    pub grant_types: Option<Vec<GrantType>>,
    /// Overrides the preset's preference: `client_secret_basic`,
    /// `client_secret_post`, `private_key_jwt` or `none`.
    #[schema(value_type = Option<String>)]
    pub token_endpoint_auth_method: Option<TokenAuthMethod>,
    /// Registered at the provider.
    #[serde(default)]
    pub client_id: String,
    /// Name of the secret that holds the client secret.
    #[schema(pattern = "^[A-Z][A-Z0-9_]*$")]
    pub client_secret_ref: Option<String>,
    /// Name of the secret that holds the private key of `private_key_jwt`.
    #[schema(pattern = "^[A-Z][A-Z0-9_]*$")]
    pub private_key_ref: Option<String>,
    /// By which the provider knows that key: the `kid` of what it signs.
    pub private_key_id: Option<String>,
    /// What it signs with, where an RSA key leaves the choice: `RS256` or
    /// `PS256`.
    #[schema(value_type = Option<String>)]
    pub token_endpoint_auth_signing_alg: Option<Algorithm>,
    /// Scopes that connections ask for at least.
    pub scopes: Option<Vec<String>>,
    /// Refuse to go on without PKCE; true unless the preset knows none.
    pub require_pkce: Option<bool>,
    /// Hosts tokens may go to; narrows the preset's, or says them for
    /// `generic`.
    pub audience_hosts: Option<Vec<String>>,
    /// RFC 8707 `resource`.
    pub resource: Option<String>,
    /// A vendor's `audience` parameter.
    pub audience: Option<String>,
    /// Of each request to the provider; `30s` if absent.
    #[schema(example = "30s")]
    pub request_timeout: Option<String>,
    /// Of requests that may be repeated; 3 if absent.
    pub max_retries: Option<u8>,
    /// Swap by itself to a preset version that asks for no more; true if
    /// absent.
    pub auto_update: Option<bool>,
    /// A disabled provider starts no consent and sends nothing; true if absent.
    pub enabled: Option<bool>,
    /// The preset's settings.
    #[schema(value_type = Option<Object>)]
    pub settings: Option<Map<String, Value>>,
}

impl From<&Provider> for ProviderInput {
    fn from(p: &Provider) -> Self {
        let url = |u: &Option<url::Url>| u.as_ref().map(ToString::to_string);
        Self {
            name: p.name.to_string(),
            display_name: Some(p.display_name.clone()),
            discover: None,
            preset: p.preset.to_string(),
            authorization_endpoint: url(&p.authorization_endpoint),
            token_endpoint: url(&p.token_endpoint),
            revocation_endpoint: url(&p.revocation_endpoint),
            device_authorization_endpoint: url(&p.device_authorization_endpoint),
            grant_types: Some(p.grant_types.clone()),
            token_endpoint_auth_method: p.token_endpoint_auth_method,
            client_id: p.client_id.clone(),
            client_secret_ref: p.client_secret_ref.as_ref().map(ToString::to_string),
            private_key_ref: p.private_key_ref.as_ref().map(ToString::to_string),
            private_key_id: p.private_key_id.clone(),
            token_endpoint_auth_signing_alg: p.token_endpoint_auth_signing_alg,
            scopes: Some(p.scopes.iter().map(ToString::to_string).collect()),
            require_pkce: Some(p.require_pkce),
            audience_hosts: Some(p.audience_hosts.iter().map(ToString::to_string).collect()),
            resource: url(&p.resource),
            audience: p.audience.clone(),
            request_timeout: Some(duration_text::format(p.request_timeout)),
            max_retries: Some(p.max_retries),
            auto_update: Some(p.auto_update),
            enabled: Some(p.enabled),
            settings: Some(p.settings.clone()),
        }
    }
}

/// What a provider is checked against.
pub(super) struct Surroundings<'a> {
    pub(super) addresses: &'a AddressRules,
    pub(super) snapshot: &'a Snapshot,
    /// What the preset said of itself, if it says so without settings.
    pub(super) description: Option<&'a Description>,
}

/// Parses and checks every field, alone and beside the others. Whether the
/// preset exists and takes the settings is judged by the preset host.
pub(super) fn check(
    input: ProviderInput,
    around: &Surroundings<'_>,
    created_at: Timestamp,
    now: Timestamp,
) -> Result<Provider, Refusal> {
    let name = ProviderName::parse(&input.name).map_err(|e| Refusal::name("name", &e))?;
    if input.discover.is_some() {
        return Err(Refusal::invalid(
            "discover",
            "is for creating a provider; what was found out is changed field by field",
        ));
    }
    if input.preset.is_empty() {
        return Err(Refusal::invalid(
            "preset",
            "is required; `countersign preset list` shows what there is",
        ));
    }
    let preset = PresetName::parse(&input.preset).map_err(|e| Refusal::name("preset", &e))?;
    let endpoint = |field: &str, value: &Option<String>| {
        value
            .as_deref()
            .filter(|v| !v.is_empty())
            .map(|v| around.addresses.check(field, v))
            .transpose()
    };
    let client_id = text::line("client_id", &input.client_id, 512)?;
    let keyed = is_keyed(&input, around.description);
    if client_id.is_empty() && !keyed {
        return Err(Refusal::invalid(
            "client_id",
            "is required; the provider's console shows it",
        ));
    }
    let grant_types = match input.grant_types {
        None if keyed => Vec::new(),
        Some(given) if keyed && given.is_empty() => Vec::new(),
        given => grant_types(given)?,
    };
    let pkce = around
        .description
        .and_then(|d| d.authorization.as_ref())
        .map(|a| &a.pkce);
    let provider = Provider {
        display_name: text::display_name(input.display_name.as_deref(), &input.name)?,
        authorization_endpoint: endpoint("authorization_endpoint", &input.authorization_endpoint)?,
        token_endpoint: endpoint("token_endpoint", &input.token_endpoint)?,
        revocation_endpoint: endpoint("revocation_endpoint", &input.revocation_endpoint)?,
        device_authorization_endpoint: endpoint(
            "device_authorization_endpoint",
            &input.device_authorization_endpoint,
        )?,
        grant_types,
        token_endpoint_auth_method: input.token_endpoint_auth_method,
        client_secret_ref: secret_ref(
            "client_secret_ref",
            input.client_secret_ref.as_deref(),
            around.snapshot,
        )?,
        private_key_ref: secret_ref(
            "private_key_ref",
            input.private_key_ref.as_deref(),
            around.snapshot,
        )?,
        private_key_id: input
            .private_key_id
            .as_deref()
            .filter(|id| !id.is_empty())
            .map(|id| text::line("private_key_id", id, 256))
            .transpose()?,
        token_endpoint_auth_signing_alg: input.token_endpoint_auth_signing_alg,
        scopes: scopes("scopes", input.scopes.as_deref().unwrap_or_default())?,
        require_pkce: input
            .require_pkce
            .unwrap_or(pkce != Some(&Pkce::Unsupported)),
        audience_hosts: hosts(
            "audience_hosts",
            input.audience_hosts.as_deref().unwrap_or_default(),
        )?,
        resource: resource("resource", input.resource.as_deref())?,
        audience: audience("audience", input.audience.as_deref())?,
        request_timeout: timeout(input.request_timeout.as_deref())?,
        max_retries: match input.max_retries.unwrap_or(DEFAULT_RETRIES) {
            n @ 0..=10 => n,
            _ => return Err(Refusal::invalid("max_retries", "must be 0 to 10")),
        },
        auto_update: input.auto_update.unwrap_or(true),
        registration: None,
        enabled: input.enabled.unwrap_or(true),
        settings: input.settings.unwrap_or_default(),
        created_at,
        updated_at: now,
        name,
        preset,
        client_id,
    };
    contradictions(&provider, around)?;
    Ok(provider)
}

/// Whether nobody signs in at this provider: its preset only says how stored
/// keys are sent, or what is signed with them.
fn is_keyed(input: &ProviderInput, described: Option<&Description>) -> bool {
    let endpoints = [
        &input.authorization_endpoint,
        &input.token_endpoint,
        &input.device_authorization_endpoint,
    ];
    endpoints
        .iter()
        .all(|e| e.as_ref().is_none_or(String::is_empty))
        && described.is_some_and(|d| {
            d.authorization.is_none()
                && d.token_endpoint.is_none()
                && d.device_authorization_endpoint.is_none()
                && d.token_requests.is_empty()
        })
}

fn contradictions(p: &Provider, around: &Surroundings<'_>) -> Result<(), Refusal> {
    use TokenAuthMethod as Method;
    let described = around.description;
    let (secret, key) = (p.client_secret_ref.is_some(), p.private_key_ref.is_some());
    match p.token_endpoint_auth_method {
        Some(Method::None) if secret || key => Err(Refusal::invalid(
            "token_endpoint_auth_method",
            "is none, yet a client secret or private key is referred to; remove the one or the other",
        )),
        Some(Method::None) if !p.require_pkce => Err(Refusal::invalid(
            "require_pkce",
            "must be true for a public client (token_endpoint_auth_method none): nothing else protects it",
        )),
        Some(Method::None) if p.grant_types.contains(&GrantType::ClientCredentials) => {
            Err(Refusal::invalid(
                "grant_types",
                "name client_credentials, which needs a client that can prove who it is (RFC 6749 §4.4); \
                 token_endpoint_auth_method is none",
            ))
        }
        Some(Method::PrivateKeyJwt) if !key => Err(Refusal::invalid(
            "private_key_ref",
            "is required for private_key_jwt",
        )),
        Some(Method::ClientSecretBasic | Method::ClientSecretPost) if !secret => {
            Err(Refusal::invalid(
                "client_secret_ref",
                "is required for this token_endpoint_auth_method; set the secret with \
             `countersign secret set NAME` and name it here",
            ))
        }
        Some(Method::ClientSecretBasic | Method::ClientSecretPost) if key => Err(Refusal::invalid(
            "private_key_ref",
            "is only used with token_endpoint_auth_method private_key_jwt",
        )),
        None if !secret && !key && !p.grant_types.is_empty() => Err(Refusal::invalid(
            "client_secret_ref",
            "is required, unless this is a public client: then write token_endpoint_auth_method none",
        )),
        _ => Ok(()),
    }?;
    let pkce = described
        .and_then(|d| d.authorization.as_ref())
        .map(|a| &a.pkce);
    if p.require_pkce && pkce == Some(&Pkce::Unsupported) {
        return Err(Refusal::invalid(
            "require_pkce",
            format!(
                "is true, but the preset {} says that this provider knows no PKCE",
                p.preset
            ),
        ));
    }
    let has = |grant: &GrantType| p.grant_types.contains(grant);
    let device = described.is_some_and(|d| d.device_authorization_endpoint.is_some());
    if has(&GrantType::DeviceCode) && p.device_authorization_endpoint.is_none() && !device {
        return Err(Refusal::invalid(
            "device_authorization_endpoint",
            "is required for the device_code grant; the preset has none",
        ));
    }
    let Some(described) = described else {
        return Ok(());
    };
    let browser = has(&GrantType::AuthorizationCode);
    let no_page = described
        .authorization
        .as_ref()
        .is_none_or(|a| a.endpoint.is_empty());
    if browser && p.authorization_endpoint.is_none() && no_page {
        return Err(Refusal::invalid(
            "authorization_endpoint",
            format!("is required: the preset {} has none of its own", p.preset),
        ));
    }
    let signs_in = !p.grant_types.is_empty();
    if signs_in && p.token_endpoint.is_none() && described.token_endpoint.is_none() {
        return Err(Refusal::invalid(
            "token_endpoint",
            format!("is required: the preset {} has none of its own", p.preset),
        ));
    }
    if p.audience_hosts.is_empty() && described.audience_hosts.is_empty() {
        return Err(Refusal::invalid(
            "audience_hosts",
            format!(
                "is required: the preset {} does not say where tokens may go; write the hosts of the \
                 MCP servers, for example mcp.example.com",
                p.preset
            ),
        ));
    }
    Ok(())
}

fn grant_types(given: Option<Vec<GrantType>>) -> Result<Vec<GrantType>, Refusal> {
    let mut grants =
        given.unwrap_or_else(|| vec![GrantType::AuthorizationCode, GrantType::RefreshToken]);
    grants.sort();
    grants.dedup();
    if grants.iter().all(|g| *g == GrantType::RefreshToken) {
        return Err(Refusal::invalid(
            "grant_types",
            "needs a way to begin, for example authorization_code; refresh_token alone only renews",
        ));
    }
    Ok(grants)
}

fn timeout(given: Option<&str>) -> Result<Duration, Refusal> {
    let Some(text) = given else {
        return Ok(DEFAULT_TIMEOUT);
    };
    duration_text::parse(text)
        .filter(|d| (Duration::from_secs(1)..=Duration::from_secs(120)).contains(d))
        .ok_or_else(|| {
            Refusal::invalid(
                "request_timeout",
                format!("{text:?} is not a time from 1s to 2m, written like \"30s\""),
            )
        })
}

/// RFC 8707 §2.
pub(super) fn resource(field: &str, given: Option<&str>) -> Result<Option<url::Url>, Refusal> {
    let Some(text) = given.filter(|t| !t.is_empty()) else {
        return Ok(None);
    };
    match url::Url::parse(text) {
        Ok(url) if url.fragment().is_none() => Ok(Some(url)),
        _ => Err(Refusal::invalid(
            field,
            "must be an absolute URI without a fragment (RFC 8707 §2)",
        )),
    }
}

/// A vendor's, or RFC 8693's.
pub(super) fn audience(field: &str, given: Option<&str>) -> Result<Option<String>, Refusal> {
    given
        .filter(|a| !a.is_empty())
        .map(|a| text::line(field, a, 512))
        .transpose()
}

/// A reference to a secret that exists.
pub(super) fn secret_ref(
    field: &str,
    name: Option<&str>,
    snapshot: &Snapshot,
) -> Result<Option<SecretName>, Refusal> {
    let Some(name) = name.filter(|n| !n.is_empty()) else {
        return Ok(None);
    };
    let name = SecretName::parse(name).map_err(|e| Refusal::Invalid {
        field: field.to_owned(),
        // What was given may be the secret itself, pasted into the wrong place.
        problem: format!("is not the name of a secret: use {}", e.rule),
    })?;
    if snapshot.secrets.contains_key(&name) {
        return Ok(Some(name));
    }
    Err(Refusal::Unknown {
        field: field.to_owned(),
        what: "secret",
        name: name.to_string(),
        known: snapshot.secrets.keys().map(ToString::to_string).collect(),
    })
}

/// Scopes of RFC 6749 §3.3.
pub(super) fn scopes(field: &str, given: &[String]) -> Result<ScopeSet, Refusal> {
    given
        .iter()
        .map(|s| {
            Scope::parse(s)
                .map_err(|e| Refusal::invalid(field, format!("{:?} is {e}", text::cut(s))))
        })
        .collect()
}

/// Host patterns.
pub(super) fn hosts(field: &str, given: &[String]) -> Result<Vec<HostPattern>, Refusal> {
    let mut hosts = given
        .iter()
        .map(|h| HostPattern::parse(h).map_err(|e| Refusal::invalid(field, e.to_string())))
        .collect::<Result<Vec<_>, _>>()?;
    hosts.sort();
    hosts.dedup();
    Ok(hosts)
}

/// Fields by which a secret could be led astray: when one of them changes, the
/// caller must be allowed to use the secret.
pub(super) fn moves_secret(old: &Provider, new: &Provider) -> bool {
    let key = |p: &Provider| {
        (
            p.preset.clone(),
            p.authorization_endpoint.clone(),
            p.token_endpoint.clone(),
            p.revocation_endpoint.clone(),
            p.device_authorization_endpoint.clone(),
            p.token_endpoint_auth_method,
            p.client_secret_ref.clone(),
            p.private_key_ref.clone(),
            p.private_key_id.clone(),
            p.token_endpoint_auth_signing_alg,
            // What is asked for decides what a token is good for.
            (p.resource.clone(), p.audience.clone()),
            p.settings.clone(),
        )
    };
    key(old) != key(new)
}
