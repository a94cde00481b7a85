//! Requests right after sign-in whose answers feed variables (the host of an
//! account, a cloud id).

use countersign_core::preset::{FollowUpValue, Pick, Source};
use countersign_core::request::{Asking, TokensRef, described_request};
use countersign_core::template::Values;
use countersign_core::token_answer::{
    PlainAnswer, SecretGuard, checked_value, read_plain, text_of,
};
use countersign_core::tokens::TokenSet;

use super::Stop;
use super::checks::{keep, sealed_of};
use crate::service::{Oauth, Party};

impl Oauth {
    /// Makes the preset's follow-up requests in order; each may use what the
    /// ones before captured.
    pub(crate) async fn follow_up(
        &self,
        party: &Party,
        asking: &Asking<'_>,
        tokens: &TokenSet,
        facts: &mut Vec<(String, String)>,
    ) -> Result<(), Stop> {
        let description = party.preset.description();
        let known = description.known_codes();
        let guard = SecretGuard::new(tokens, sealed_of(asking));
        for follow_up in &description.follow_ups {
            let values = Values::resolve(description, &party.provider.settings, facts)?;
            let asking = Asking {
                values: &values,
                ..*asking
            };
            let request = described_request(
                &asking,
                &follow_up.request,
                TokensRef::Open(tokens),
                None,
                None,
            )?;
            let answer = self
                .sender
                .send(request, party.provider.request_timeout)
                .await;
            let answer = answer.map_err(|e| Stop::unsent(&e))?;
            let answer =
                read_plain(&answer, &follow_up.request.answer, &known).map_err(|error| {
                    Stop::refused(
                        "provider_error",
                        format!("The account could not be looked up: {error}. Try again."),
                    )
                })?;
            for variable in &description.variables {
                let Source::FollowUp(wanted) = &variable.source else {
                    continue;
                };
                if wanted.follow_up != follow_up.name {
                    continue;
                }
                let pointer = locate(&answer, wanted)?;
                let value =
                    pointer.and_then(|p| checked_value(answer.value(&p), &variable.kind, &guard));
                match value {
                    Some(value) => keep(facts, [(variable.name.clone(), value)]),
                    None if !variable.required || variable.default_value.is_some() => {}
                    None => {
                        return Err(Stop::refused(
                            "provider_error",
                            format!(
                                "The provider tells no usable {}. Tell an administrator.",
                                variable.title
                            ),
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The pointer to the value, through the entry that the selection picks.
fn locate(answer: &PlainAnswer, wanted: &FollowUpValue) -> Result<Option<String>, Stop> {
    let Some(selection) = &wanted.selection else {
        return Ok(Some(wanted.pointer.clone()));
    };
    let Some(items) = answer.value(&selection.items).and_then(|v| v.as_array()) else {
        return Ok(None);
    };
    let index = match &selection.pick {
        Pick::First => (!items.is_empty()).then_some(0),
        Pick::WhereEqual(pointer, text) => items
            .iter()
            .position(|item| item.pointer(pointer).and_then(text_of).as_ref() == Some(text)),
        Pick::Only | Pick::AskUser(_) if items.len() > 1 => {
            return Err(Stop::refused(
                "several_accounts",
                "You allowed access to several accounts of the provider. Start again and allow just one.",
            ));
        }
        Pick::Only | Pick::AskUser(_) => (!items.is_empty()).then_some(0),
    };
    Ok(index.map(|i| format!("{}/{i}{}", selection.items, wanted.pointer)))
}
