//! Where a template may stand, and what may stand in it.

use countersign_core::inject::is_forbidden_header;
use countersign_core::preset::{Body, ClientAuthentication, Part, Request, Rule, Slot, Template};

use super::CheckError;
use crate::symbols::slot_text;

/// A place in the description, with the slots that may stand there.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) name: &'a str,
    pub(super) slots: &'a [Allowed],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    AccessToken,
    RefreshToken,
    IdToken,
    ApiKey,
    ClientId,
    ClientSecret,
    Extra,
}

fn kind(slot: &Slot) -> Allowed {
    match slot {
        Slot::AccessToken => Allowed::AccessToken,
        Slot::RefreshToken => Allowed::RefreshToken,
        Slot::IdToken => Allowed::IdToken,
        Slot::ApiKey => Allowed::ApiKey,
        Slot::ClientId => Allowed::ClientId,
        Slot::ClientSecret => Allowed::ClientSecret,
        Slot::Extra(_) => Allowed::Extra,
    }
}

/// Towards an MCP server or API: what the user or the server owns.
pub(super) const UPSTREAM: &[Allowed] = &[
    Allowed::AccessToken,
    Allowed::ApiKey,
    Allowed::ClientId,
    Allowed::Extra,
];
/// Towards the token endpoint.
pub(super) const TOKEN_REQUEST: &[Allowed] =
    &[Allowed::ClientId, Allowed::ClientSecret, Allowed::Extra];
/// The same when it renews.
pub(super) const REFRESH_REQUEST: &[Allowed] = &[
    Allowed::ClientId,
    Allowed::ClientSecret,
    Allowed::Extra,
    Allowed::RefreshToken,
];
pub(super) const REVOCATION: &[Allowed] = &[
    Allowed::AccessToken,
    Allowed::RefreshToken,
    Allowed::IdToken,
    Allowed::ClientId,
    Allowed::ClientSecret,
    Allowed::Extra,
];
pub(super) const REVOCATION_URL: &[Allowed] = &[
    Allowed::AccessToken,
    Allowed::RefreshToken,
    Allowed::IdToken,
    Allowed::ClientId,
];
pub(super) const ACCOUNT: &[Allowed] = &[
    Allowed::AccessToken,
    Allowed::ApiKey,
    Allowed::ClientId,
    Allowed::ClientSecret,
    Allowed::Extra,
];
pub(super) const ACCOUNT_URL: &[Allowed] = &[Allowed::AccessToken, Allowed::ClientId];
pub(super) const PUBLIC: &[Allowed] = &[Allowed::ClientId];
pub(super) const NONE: &[Allowed] = &[];

/// Parameters of the authorization request that are the host's own. A
/// description may set the others; a hook fewer still.
pub(super) const AUTHORIZATION_OWN: [&str; 9] = [
    "client_id",
    "redirect_uri",
    "response_type",
    "state",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    // A request object replaces every other parameter (RFC 9101 §5).
    "request",
    "request_uri",
];
/// Without these there is no safe flow.
pub(super) const NEVER_SUPPRESSED: [&str; 5] = [
    "client_id",
    "redirect_uri",
    "state",
    "code_challenge",
    "code_challenge_method",
];
pub(super) const TOKEN_OWN: [&str; 4] = [
    "code",
    "code_verifier",
    "client_assertion",
    "client_assertion_type",
];

/// Reserved to the host when the hook `authorize-parameters` adds some (the
/// list of `hooks.wit`).
pub(crate) fn is_reserved_at_authorization(name: &str) -> bool {
    AUTHORIZATION_OWN.contains(&name) || ["scope", "resource", "response_mode"].contains(&name)
}

/// Whether a header may not be set on requests to the provider itself. Fewer
/// than towards an upstream: a provider may insist on `Accept`.
pub(super) fn is_forbidden_at_provider(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    is_forbidden_header(&name) && !["accept", "content-type"].contains(&name.as_str())
}

pub(super) fn allow(place: Place<'_>, slot: &Slot) -> Result<(), CheckError> {
    if place.slots.contains(&kind(slot)) {
        Ok(())
    } else {
        Err(CheckError::Slot {
            place: place.name.to_owned(),
            slot: slot_text(slot),
        })
    }
}

/// A host name, `*.` or `.` and a host name of two labels or more, or a
/// loopback address with a port.
pub(super) fn is_host_pattern(host: &str) -> bool {
    let (wide, rest) = match host.strip_prefix("*.").or_else(|| host.strip_prefix('.')) {
        Some(rest) => (true, rest),
        None => (false, host),
    };
    !rest.contains('*')
        && rest.is_ascii()
        && (!wide || rest.trim_end_matches('.').contains('.'))
        && countersign_core::hosts::HostPattern::parse(host).is_ok()
}

pub(super) fn carries_client_secret(request: &Request) -> bool {
    let has = |template: &Template| {
        template.iter().any(|part| match part {
            Part::Slot(slot) => *slot == Slot::ClientSecret,
            Part::Basic(basic) => {
                basic.user == Slot::ClientSecret || basic.password == Some(Slot::ClientSecret)
            }
            Part::Literal(_) | Part::Variable(_) => false,
        })
    };
    let body = match &request.body {
        Body::None => false,
        Body::Form(parameters) | Body::Json(parameters) => parameters.iter().any(|p| has(&p.value)),
    };
    body || request.headers.iter().any(|h| has(&h.value))
        || matches!(&request.client_authentication, Some(method) if *method != ClientAuthentication::None)
}

/// Every slot that rules draw on, by header or query name.
pub(crate) fn header_uses<'a>(
    rules: impl Iterator<Item = &'a Rule>,
) -> Vec<(&'a str, bool, Vec<&'a Slot>)> {
    rules
        .map(|rule| {
            let (name, is_header, template) = match rule {
                Rule::SetHeader(h) => (h.name.as_str(), true, &h.value),
                Rule::SetQuery(p) => (p.name.as_str(), false, &p.value),
            };
            let slots = template
                .iter()
                .flat_map(|part| match part {
                    Part::Slot(slot) => vec![slot],
                    Part::Basic(basic) => std::iter::once(&basic.user)
                        .chain(&basic.password)
                        .collect(),
                    Part::Literal(_) | Part::Variable(_) => vec![],
                })
                .collect();
            (name, is_header, slots)
        })
        .collect()
}
