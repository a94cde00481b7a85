//! Who signed in at the provider.

use countersign_core::connection::Account;
use countersign_core::request::{Asking, RequestError, TokensRef, described_request};
use countersign_core::token_answer::{Answer, SecretGuard, covered_text, read_plain, text_of};
use countersign_core::tokens::TokenSet;
use countersign_core::veil::Veil;

use super::Stop;
use super::checks::sealed_of;
use crate::service::{Oauth, Party};

impl Oauth {
    /// Who signed in, if the preset says how to find out. A provider that does
    /// not tell is no reason to refuse.
    pub(crate) async fn account(
        &self,
        party: &Party,
        asking: &Asking<'_>,
        tokens: &TokenSet,
    ) -> Result<Option<Account>, Stop> {
        let Some(identity) = &asking.description.identity else {
            return Ok(None);
        };
        let request = match described_request(
            asking,
            &identity.request,
            TokensRef::Open(tokens),
            None,
            None,
        ) {
            Ok(request) => request,
            Err(RequestError::NoEndpoint(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let known = asking.description.known_codes();
        let answer = match self
            .sender
            .send(request, asking.provider.request_timeout)
            .await
        {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(provider = %asking.provider.name, %error, "the account could not be asked for");
                return Ok(None);
            }
        };
        if asking.description.hooks.identity {
            return made_by_hook(party, asking, tokens, &answer);
        }
        let answer = match read_plain(&answer, &identity.request.answer, &known) {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(provider = %asking.provider.name, %error, "the account could not be read");
                return Ok(None);
            }
        };
        let guard = SecretGuard::new(tokens, sealed_of(asking));
        let text = |pointer: &String| {
            let text = text_of(answer.value(pointer)?)?;
            let good = !text.is_empty() && text.len() <= 256 && !text.chars().any(char::is_control);
            (good && guard.admits(&text)).then_some(text)
        };
        let Some(mut id) = text(&identity.id) else {
            return Ok(None);
        };
        let label = identity
            .label
            .iter()
            .find_map(text)
            .unwrap_or_else(|| id.clone());
        if let Some(tenant) = identity.tenant.as_ref().and_then(text) {
            id = format!("{tenant}/{id}");
        }
        Ok(Some(Account { id, label }))
    }
}

/// The account that the preset's hook makes out of the answer. It sees the
/// answer without the secrets, and what it says is checked against them again.
fn made_by_hook(
    party: &Party,
    asking: &Asking<'_>,
    tokens: &TokenSet,
    answer: &Answer,
) -> Result<Option<Account>, Stop> {
    let Some(identity) = &asking.description.identity else {
        return Ok(None);
    };
    let unusable = |why: &str| {
        Stop::refused(
            "provider_error",
            format!("The account could not be made out: {why}. Tell an administrator."),
        )
    };
    let veil = Veil::of_sign_in(tokens, sealed_of(asking))
        .map_err(|_| unusable("a stored secret cannot be opened"))?;
    let known = asking.description.known_codes();
    let text = match covered_text(answer, &identity.request.answer, &known, &veil) {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(provider = %asking.provider.name, %error, "the account could not be read");
            return Ok(None);
        }
    };
    let Some(found) = party.preset.identity(&text)? else {
        return Ok(None);
    };
    let tenant = found.tenant.as_deref().unwrap_or_default();
    if [found.id.as_str(), &found.label, tenant]
        .iter()
        .any(|text| veil.touches(text))
    {
        return Err(unusable("its preset names a secret"));
    }
    let id = match &found.tenant {
        Some(tenant) => format!("{tenant}/{}", found.id),
        None => found.id,
    };
    Ok(Some(Account {
        id,
        label: found.label,
    }))
}
