//! Disconnecting: revocation at the provider as far as that goes, and in any
//! case deletion here.

use std::time::Duration;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::connection::{Connection, ConnectionKey};
use countersign_core::origins::Course;
use countersign_core::ports::{Expect, StoreError, delete};
use countersign_core::preset::{AnswerShape, RevocationEffect};
use countersign_core::request::{
    Asking, Outgoing, RequestError, TokensRef, described_request, revocation_request,
};
use countersign_core::secret::Sealed;
use countersign_core::template::{TemplateError, Values};
use countersign_core::token_answer::succeeded;

use crate::connections::{ATTEMPTS, record_key};
use crate::service::{Oauth, Party};

/// A user who disconnects does not wait longer than this for a provider.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the provider did about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// It confirmed.
    Done {
        /// What the person should know of it, from the preset.
        note: String,
    },
    /// It has no way to revoke; its tokens live on until they end.
    NotPossible,
    /// It did not confirm; its tokens may live on until they end.
    Failed {
        /// Why, in the host's own words.
        detail: String,
    },
}

/// How a disconnect ended. The connection is gone here in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnected {
    /// Whether there was one.
    pub existed: bool,
    /// What the provider did.
    pub revoked: Revoked,
}

/// A revocation request, how to read its answer, and what it does.
struct Step {
    request: Outgoing,
    answer: AnswerShape,
    effect: RevocationEffect,
    note: String,
}

impl Oauth {
    /// Revokes at the provider, best effort, and deletes the connection. With
    /// no `party` (the provider is gone) it only deletes.
    ///
    /// # Errors
    /// The store's; the connection then still exists.
    pub async fn disconnect(
        &self,
        key: &ConnectionKey,
        party: Option<&Party>,
    ) -> Result<Disconnected, StoreError> {
        let Some(held) = self.load(key).await? else {
            return Ok(Disconnected {
                existed: false,
                revoked: Revoked::NotPossible,
            });
        };
        let revoked = match (party, &held.sealed) {
            (Some(party), Some(sealed)) => self.revoke(&held.connection, sealed, party).await,
            _ => Revoked::NotPossible,
        };
        let mut revision = held.revision;
        for attempt in 1..=ATTEMPTS {
            let write = delete(record_key(key), Expect::At(revision));
            match self.world.records.write(vec![write]).await {
                Ok(_) => break,
                // Renewed meanwhile: what was renewed goes as well.
                Err(StoreError::Conflict) if attempt < ATTEMPTS => match self.load(key).await? {
                    Some(again) => revision = again.revision,
                    None => break,
                },
                Err(error) => return Err(error),
            }
        }
        self.note_disconnect(&held.connection, &revoked).await;
        Ok(Disconnected {
            existed: true,
            revoked,
        })
    }

    pub(crate) async fn revoke(
        &self,
        connection: &Connection,
        sealed: &Sealed,
        party: &Party,
    ) -> Revoked {
        let failed = |detail: String| Revoked::Failed { detail };
        let (provider, description) = (&*party.provider, party.preset.description());
        let values = match Values::resolve(description, &provider.settings, &connection.facts) {
            Ok(values) => values,
            Err(error) => return failed(error.to_string()),
        };
        let keys = match self.client_keys(provider).await {
            Ok(keys) => keys,
            Err(error) => return failed(error.to_string()),
        };
        let asking = self.asking(party, &values, &keys);
        if !Course::of(&asking).is_that_of(connection) {
            return failed(
                "the provider was changed after consent, so nothing was sent to it".into(),
            );
        }
        let mut outcome = Revoked::NotPossible;
        for facts in &connection.credentials {
            let steps = match steps(&asking, sealed, &facts.credential) {
                Ok(steps) => steps,
                Err(error) => return failed(error.to_string()),
            };
            for step in steps {
                let known = description.known_codes();
                let timeout = provider.request_timeout.min(PATIENCE);
                let result = match self.sender.send(step.request, timeout).await {
                    Ok(answer) => {
                        succeeded(&answer, &step.answer, &known).map_err(|e| e.to_string())
                    }
                    Err(error) => Err(error.to_string()),
                };
                match result {
                    Ok(()) => {
                        outcome = Revoked::Done { note: step.note };
                        // The rest went with it.
                        if step.effect != RevocationEffect::Token {
                            return outcome;
                        }
                    }
                    Err(detail) if outcome == Revoked::NotPossible => outcome = failed(detail),
                    Err(_) => {}
                }
            }
        }
        outcome
    }

    async fn note_disconnect(&self, connection: &Connection, revoked: &Revoked) {
        let detail = match revoked {
            Revoked::Done { .. } => "revoked at the provider",
            Revoked::NotPossible => "deleted; the provider has no way to revoke",
            Revoked::Failed { .. } => "deleted; the provider did not confirm the revocation",
        };
        let mut event = AuditEvent::new(
            self.world.clock.now(),
            "connection.disconnected",
            Outcome::Allowed,
        )
        .by(&connection.user)
        .on(format!("provider:{}", connection.provider))
        .detail(detail);
        event.team = Some(connection.team.to_string());
        if let Err(error) = self.world.audit.record(event).await {
            tracing::error!(%error, "an audit event was not kept");
        }
    }
}

/// The requests for one credential: the provider record's RFC 7009 endpoint
/// where the preset describes an address of its own, else what the preset says.
fn steps(
    asking: &Asking<'_>,
    sealed: &Sealed,
    credential: &str,
) -> Result<Vec<Step>, RequestError> {
    let endpoint = asking.provider.revocation_endpoint.as_ref();
    let described = &asking.description.revocation;
    if endpoint.is_some() && !described.iter().any(|r| r.request.url.is_empty()) {
        let answer = AnswerShape {
            success_codes: vec![200],
            success_checks: vec![],
            error_code: vec![],
            error_description: vec![],
            may_be_form: false,
        };
        let request = revocation_request(asking, sealed, credential)?;
        return Ok(vec![Step {
            request,
            answer,
            effect: RevocationEffect::Token,
            note: String::new(),
        }]);
    }
    let mut steps = Vec::new();
    for revocation in described {
        let tokens = TokensRef::Sealed(sealed);
        match described_request(
            asking,
            &revocation.request,
            tokens,
            Some(credential),
            endpoint,
        ) {
            Ok(request) => steps.push(Step {
                request,
                answer: revocation.request.answer.clone(),
                effect: revocation.effect.clone(),
                note: revocation.note.clone(),
            }),
            // No endpoint, or no token of that kind: no such request.
            Err(
                RequestError::NoEndpoint(_) | RequestError::Template(TemplateError::NoSecret(_)),
            ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(steps)
}
