//! The provider record that follows from what was found. What an administrator
//! gave stands; only what he left out is filled in.

use std::sync::Arc;

use countersign_core::hosts::HostPattern;
use countersign_core::provider::{Provider, TokenAuthMethod};
use countersign_oauth::discovery::{ClientPlan, Discovered};
use serde_json::Value;
use url::Url;

use super::host_of;
use crate::registry::{ProviderInput, Refusal};

/// The preset for what no preset knows.
const GENERIC: &str = "generic";

/// A provider that could be created, and where each part of it comes from.
#[derive(Clone)]
pub(super) struct Proposal {
    pub(super) input: ProviderInput,
    pub(super) plan: ClientPlan,
    /// Field, value, source.
    pub(super) fields: Vec<(&'static str, String, String)>,
}

impl Proposal {
    /// Fills in what is not given.
    pub(super) fn new(
        mut input: ProviderInput,
        found: &Discovered,
        typed: &Url,
        plan: ClientPlan,
    ) -> Self {
        let server = &found.server;
        let of_server = server.source.to_string();
        let mut fields = vec![("issuer", server.issuer.clone(), of_server.clone())];
        let mut fill = |field: &'static str,
                        slot: &mut Option<String>,
                        value: Option<String>,
                        source: &str| {
            if slot.is_some() {
                return;
            }
            if let Some(value) = value {
                fields.push((field, value.clone(), source.to_owned()));
                *slot = Some(value);
            }
        };
        let text = |url: &Option<Url>| url.as_ref().map(ToString::to_string);
        fill(
            "authorization_endpoint",
            &mut input.authorization_endpoint,
            Some(server.authorization_endpoint.to_string()),
            &of_server,
        );
        fill(
            "token_endpoint",
            &mut input.token_endpoint,
            Some(server.token_endpoint.to_string()),
            &of_server,
        );
        fill(
            "revocation_endpoint",
            &mut input.revocation_endpoint,
            text(&server.revocation_endpoint),
            &of_server,
        );
        fill(
            "device_authorization_endpoint",
            &mut input.device_authorization_endpoint,
            text(&server.device_authorization_endpoint),
            &of_server,
        );
        if let Some(resource) = &found.resource {
            let source = resource.source.to_string();
            fill(
                "resource",
                &mut input.resource,
                Some(resource.resource.to_string()),
                &source,
            );
            if input.audience_hosts.is_none()
                && let Some(host) = host_of(typed)
            {
                fields.push(("audience_hosts", host.to_string(), typed.to_string()));
                input.audience_hosts = Some(vec![host.to_string()]);
            }
        }
        if input.scopes.is_none() {
            let (asked, source) = first_scopes(found, typed);
            if !asked.is_empty() {
                fields.push(("scopes", asked.join(" "), source));
            }
            input.scopes = Some(asked);
        }
        if input.preset.is_empty() {
            input.preset = GENERIC.to_owned();
        }
        if input.grant_types.is_none() {
            input.grant_types = Some(server.grant_types());
        }
        if input.preset == GENERIC {
            settings(&mut input, found, &mut fields);
        }
        if let (ClientPlan::Register { method, .. }, None) =
            (&plan, input.token_endpoint_auth_method)
        {
            let method = method_name(*method).to_owned();
            fields.push(("token_endpoint_auth_method", method, of_server));
        }
        Self {
            input,
            plan,
            fields,
        }
    }

    /// Nothing to create: this provider serves.
    pub(super) fn reusing(provider: &Arc<Provider>) -> Self {
        let source = format!("the provider {}", provider.name);
        let resource = provider.resource.as_ref();
        let mut fields = vec![("provider", provider.name.to_string(), source.clone())];
        fields.extend(resource.map(|r| ("resource", r.to_string(), source)));
        Self {
            input: ProviderInput::from(provider.as_ref()),
            plan: ClientPlan::Given,
            fields,
        }
    }

    /// Whoever lets Countersign register itself has no secret for it yet.
    pub(super) fn refuse_given_secrets(&self) -> Result<(), Refusal> {
        let given = [
            ("client_secret_ref", &self.input.client_secret_ref),
            ("private_key_ref", &self.input.private_key_ref),
        ];
        match given.iter().find(|(_, given)| given.is_some()) {
            Some((field, _)) => Err(Refusal::invalid(
                *field,
                "is given without a client_id; give both for a client that is registered already, or none",
            )),
            None => Ok(()),
        }
    }

    /// The record as it could be, before there is a client.
    pub(super) fn rehearsal(&self) -> ProviderInput {
        ProviderInput {
            client_id: "to-be-registered".into(),
            token_endpoint_auth_method: Some(TokenAuthMethod::None),
            require_pkce: None,
            ..self.input.clone()
        }
    }

    /// Where the client secret may go.
    pub(super) fn secret_hosts(&self) -> Vec<HostPattern> {
        let endpoints = [
            &self.input.token_endpoint,
            &self.input.revocation_endpoint,
            &self.input.device_authorization_endpoint,
        ];
        let mut hosts: Vec<HostPattern> = endpoints
            .into_iter()
            .flatten()
            .filter_map(|text| host_of(&Url::parse(text).ok()?))
            .collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }
}

/// What users are asked for at first: what the challenge says; else who they
/// are, for many servers refuse a sign-in that asks for nothing. Never what the
/// metadata lists: what of that is needed, an administrator or a later call
/// says.
fn first_scopes(found: &Discovered, typed: &Url) -> (Vec<String>, String) {
    const IDENTITY: &str = "openid";
    let challenged: Vec<String> = found.challenged.iter().map(ToString::to_string).collect();
    if !challenged.is_empty() {
        return (challenged, format!("the challenge of {typed}"));
    }
    let server = &found.server;
    let knows = server
        .scopes_supported
        .iter()
        .any(|s| s.as_str() == IDENTITY);
    let asked = knows.then(|| IDENTITY.to_owned()).into_iter().collect();
    (asked, server.source.to_string())
}

/// What the custom provider's preset is told in settings.
fn settings(
    input: &mut ProviderInput,
    found: &Discovered,
    fields: &mut Vec<(&'static str, String, String)>,
) {
    let server = &found.server;
    let settings = input.settings.get_or_insert_default();
    settings
        .entry("issuer")
        .or_insert_with(|| server.issuer.clone().into());
    if server.names_itself {
        settings
            .entry("authorization_response_iss_parameter_supported")
            .or_insert(Value::Bool(true));
    }
    // Without it many servers give out nothing that could be renewed.
    const OFFLINE: &str = "offline_access";
    let offers = server
        .scopes_supported
        .iter()
        .any(|s| s.as_str() == OFFLINE);
    if server.renews && offers && !settings.contains_key("offline_scope") {
        settings.insert("offline_scope".into(), OFFLINE.into());
        let source = server.source.to_string();
        fields.push(("settings.offline_scope", OFFLINE.into(), source));
    }
}

pub(super) fn method_name(method: TokenAuthMethod) -> &'static str {
    match method {
        TokenAuthMethod::ClientSecretBasic => "client_secret_basic",
        TokenAuthMethod::ClientSecretPost => "client_secret_post",
        TokenAuthMethod::PrivateKeyJwt => "private_key_jwt",
        TokenAuthMethod::None => "none",
    }
}
