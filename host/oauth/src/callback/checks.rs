//! What an authorization response and a grant are checked against.

use countersign_core::preset::{Description, GrantDifference, Source};
use countersign_core::request::Asking;
use countersign_core::scope::ScopeSet;
use countersign_core::secret::Sealed;
use countersign_core::template::check;
use countersign_core::token_answer::Granted;

use super::{Parameters, Stop};
use crate::service::Party;

pub(super) fn mix_up() -> Stop {
    Stop::refused(
        "mix_up",
        "The answer came from another provider than the one you were sent to, so nothing was stored. Tell an administrator.",
    )
}

/// RFC 9207: the issuer, where one is known. The provider's settings say it:
/// `issuer`, and `authorization_response_iss_parameter_supported` where it must
/// be there.
pub(super) fn check_issuer(party: &Party, parameters: &Parameters) -> Result<(), Stop> {
    let settings = &party.provider.settings;
    let known = settings.get("issuer").and_then(|v| v.as_str());
    let advertised = settings
        .get("authorization_response_iss_parameter_supported")
        .and_then(|v| v.as_bool())
        == Some(true);
    match (known, parameters.text("iss")) {
        (Some(known), Some(given)) if known != given => Err(mix_up()),
        (Some(_), None) if advertised => Err(mix_up()),
        _ => Ok(()),
    }
}

/// A refusal by the provider, in the preset's words where it has some.
pub(crate) fn refusal(description: &Description, code: Option<&str>) -> Stop {
    let code = code.unwrap_or("provider_error");
    let advice = description.advice(code).unwrap_or(match code {
        "access_denied" => {
            "You did not allow the access, so nothing was connected. You can try again at any time."
        }
        "invalid_scope" => {
            "The provider does not know one of the permissions asked for. Tell an administrator."
        }
        "invalid_client" | "unauthorized_client" => {
            "The provider does not accept Countersign's client id or secret. Tell an administrator."
        }
        "invalid_grant" => "The provider says that this sign-in has ended. Start again.",
        "server_error" | "temporarily_unavailable" => {
            "The provider does not work right now. Try again later."
        }
        _ => "The provider refused. Try again, and tell an administrator if it stays so.",
    });
    Stop::refused(code, advice)
}

/// Variables that the callback's query decides, checked.
pub(super) fn callback_facts(
    description: &Description,
    parameters: &Parameters,
    code: &str,
) -> Result<Vec<(String, String)>, Stop> {
    let mut facts = Vec::new();
    for variable in &description.variables {
        let Source::CallbackParameter(name) = &variable.source else {
            continue;
        };
        let value = parameters
            .text(name)
            .filter(|v| *v != code && !code.contains(v));
        match value.map(|v| check(&variable.kind, v)) {
            Some(Ok(value)) => facts.push((variable.name.clone(), value)),
            None if !variable.required || variable.default_value.is_some() => {}
            Some(Err(_)) | None => {
                return Err(Stop::refused(
                    "provider_error",
                    format!(
                        "The provider's answer lacks a usable {}. Tell an administrator.",
                        variable.title
                    ),
                ));
            }
        }
    }
    Ok(facts)
}

/// The client secret, to compare with what is captured.
pub(super) fn sealed_of<'a>(asking: &Asking<'a>) -> Option<&'a Sealed> {
    asking.client_secret.map(|s| &s.sealed)
}

/// Adds facts, each name once.
pub(crate) fn keep(
    facts: &mut Vec<(String, String)>,
    new: impl IntoIterator<Item = (String, String)>,
) {
    for (name, value) in new {
        facts.retain(|(n, _)| *n != name);
        facts.push((name, value));
    }
}

/// What was asked for and not granted, if the preset does not refuse that.
pub(crate) fn judge_difference(
    description: &Description,
    asked: &ScopeSet,
    granted: &Granted,
) -> Result<ScopeSet, Stop> {
    let implications = description.implications();
    let all: ScopeSet = granted
        .facts
        .iter()
        .flat_map(|f| f.scopes.iter().cloned())
        .collect();
    let takes_scopes = description
        .authorization
        .as_ref()
        .is_some_and(|a| !a.scope_parameters.is_empty());
    let missing = if takes_scopes {
        implications.missing(&all, asked)
    } else {
        ScopeSet::default()
    };
    match description.grant_difference {
        GrantDifference::Refuse if !missing.is_empty() => Err(Stop::refused(
            "grant_differs",
            format!(
                "The provider granted less than is needed ({} is missing), so nothing was connected. Start again and allow all of it.",
                missing.join(", ")
            ),
        )),
        GrantDifference::Accept => Ok(ScopeSet::default()),
        GrantDifference::Warn | GrantDifference::Refuse => Ok(missing),
    }
}
