//! Who signed in at the provider.

use countersign_core::connection::Account;
use countersign_core::request::{Asking, RequestError, TokensRef, described_request};
use countersign_core::token_answer::{SecretGuard, read_plain, text_of};
use countersign_core::tokens::TokenSet;

use super::Stop;
use super::checks::sealed_of;
use crate::service::Oauth;

impl Oauth {
    /// Who signed in, if the preset says how to find out. A provider that does
    /// not tell is no reason to refuse.
    pub(super) async fn account(
        &self,
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
            Ok(answer) => read_plain(&answer, &identity.request.answer, &known),
            Err(error) => {
                tracing::warn!(provider = %asking.provider.name, %error, "the account could not be asked for");
                return Ok(None);
            }
        };
        let answer = match answer {
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
