//! Disconnecting: revocation at the provider as far as that goes, and in any
//! case deletion here.

use std::time::Duration;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::connection::{Connection, ConnectionKey};
use countersign_core::origins::Course;
use countersign_core::ports::{
    Change, Expect, Kind, RecordKey, SecretChange, StoreError, Write, delete, random_token,
};
use countersign_core::preset::{AnswerShape, RevocationEffect};
use countersign_core::request::{
    Asking, Outgoing, RequestError, SendError, TokensRef, described_request, revocation_request,
};
use countersign_core::secret::Sealed;
use countersign_core::template::{TemplateError, Values};
use countersign_core::time::Timestamp;
use countersign_core::token_answer::{AnswerError, succeeded};
use countersign_core::tokens::TokenSet;
use countersign_core::upkeep::back_off;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use crate::connections::{ATTEMPTS, record_key};
use crate::health::Word;
use crate::service::{Held, Oauth, Party};
use crate::upkeep::{Taken, Work, due_key};

/// A user who disconnects does not wait longer than this for a provider.
const PATIENCE: Duration = Duration::from_secs(10);
/// A provider that does not work is asked again for so long.
const INSIST: Duration = Duration::from_secs(7 * 86_400);
/// The first and the longest time between two attempts.
const LEAST: Duration = Duration::from_secs(60);
const MOST: Duration = Duration::from_secs(6 * 3600);

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
    /// It does not work right now: it is asked again, for a week.
    Later {
        /// Why, in the host's own words.
        detail: String,
    },
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

/// What is left of a connection until its provider has revoked it; its tokens
/// are the record's secret half.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// Whose tokens, for which client and origins.
    pub(crate) connection: Connection,
    /// It is given up then.
    until: Timestamp,
    /// Failures in a row.
    #[serde(default)]
    failures: u32,
}

/// A revocation request, how to read its answer, and what it does.
struct Step {
    request: Outgoing,
    answer: AnswerShape,
    effect: RevocationEffect,
    note: String,
}

impl Oauth {
    /// Deletes the connection, and revokes at the provider: at once as far as
    /// it answers soon, else in the background. With no `party` (the provider
    /// is gone) it only deletes.
    ///
    /// # Errors
    /// The store's; the connection then still exists.
    pub async fn disconnect(
        &self,
        key: &ConnectionKey,
        party: Option<&Party>,
    ) -> Result<Disconnected, StoreError> {
        let nothing = Disconnected {
            existed: false,
            revoked: Revoked::NotPossible,
        };
        // Nobody takes it from the queue before this has had its try.
        let try_first = self.world.clock.now().plus(PATIENCE * 6);
        let Some((held, queued)) = self.bury(key, party, try_first).await? else {
            return Ok(nothing);
        };
        let revoked = match (party, &held.sealed, queued) {
            (Some(party), Some(sealed), Some(place)) => {
                self.revoke_queued(place, &held.connection, sealed, party)
                    .await?
            }
            _ => Revoked::NotPossible,
        };
        self.note_disconnect(&held.connection, &revoked).await;
        Ok(Disconnected {
            existed: true,
            revoked,
        })
    }

    /// Queues the revocation of these tokens in this place and does not wait for
    /// the background to take it.
    pub(crate) async fn revoke_now(
        &self,
        place: RecordKey,
        connection: &Connection,
        sealed: &Sealed,
        party: &Party,
    ) -> Result<Revoked, StoreError> {
        let Ok(tokens) = TokenSet::copied(sealed) else {
            return Ok(Revoked::NotPossible);
        };
        if !can_revoke(party) {
            return Ok(Revoked::NotPossible);
        }
        let at = self.world.clock.now().plus(PATIENCE * 6);
        let tokens = SecretChange::Set(tokens);
        let write = self.revocation_at(place.clone(), connection, 0, at, tokens)?;
        self.world.records.write(vec![write]).await?;
        self.revoke_queued(place, connection, sealed, party).await
    }

    /// Revokes what is queued in this place, if the provider answers soon; else
    /// it stays there for the background.
    async fn revoke_queued(
        &self,
        place: RecordKey,
        connection: &Connection,
        sealed: &Sealed,
        party: &Party,
    ) -> Result<Revoked, StoreError> {
        let revoking = self.revoke(connection, sealed, party);
        let revoked = match tokio::time::timeout(PATIENCE, revoking).await {
            Ok(revoked) => revoked,
            Err(_) => Revoked::Later {
                detail: "it did not answer in time".into(),
            },
        };
        let write = match &revoked {
            Revoked::Later { .. } => {
                let at = self.world.clock.now().plus(LEAST);
                self.revocation_at(place, connection, 1, at, SecretChange::Keep)?
            }
            _ => delete(place, Expect::Anything),
        };
        // If this fails the background revokes once more.
        if let Err(error) = self.world.records.write(vec![write]).await {
            tracing::warn!(%error, "a revocation is made once more");
        }
        Ok(revoked)
    }

    /// Deletes the connection at once and leaves its revocation to the
    /// background: for many of them, or where nobody waits. Says whether there
    /// was one.
    ///
    /// # Errors
    /// The store's; the connection then still exists.
    pub async fn retire(
        &self,
        key: &ConnectionKey,
        party: Option<&Party>,
    ) -> Result<bool, StoreError> {
        let now = self.world.clock.now();
        let Some((held, queued)) = self.bury(key, party, now).await? else {
            return Ok(false);
        };
        let revoked = match queued {
            Some(_) => Revoked::Later {
                detail: "it is asked in the background".into(),
            },
            None => Revoked::NotPossible,
        };
        self.note_disconnect(&held.connection, &revoked).await;
        Ok(true)
    }

    /// Disconnects all of these at once, as far as the provider answers within
    /// `patience`; for a provider that will be gone afterwards, so that nothing
    /// can be done later. Returns how many were revoked there. What is left is
    /// the caller's to erase.
    pub async fn disconnect_all(
        &self,
        keys: Vec<ConnectionKey>,
        party: Option<&Party>,
        patience: Duration,
    ) -> usize {
        let mut revoked = 0;
        let disconnecting = futures_util::stream::iter(keys)
            .map(|key| async move { self.disconnect(&key, party).await })
            .buffer_unordered(self.care.concurrency.max(1));
        let counting = disconnecting.for_each(|done| {
            match done {
                Ok(done) => revoked += usize::from(matches!(done.revoked, Revoked::Done { .. })),
                Err(error) => tracing::warn!(%error, "a connection was not disconnected"),
            }
            std::future::ready(())
        });
        // Those that were not reached are erased without.
        let _ = tokio::time::timeout(patience, counting).await;
        revoked
    }

    /// Deletes the connection with its data key. If its tokens can be revoked
    /// they are queued in the same write, under a data key of their own.
    async fn bury(
        &self,
        key: &ConnectionKey,
        party: Option<&Party>,
        at: Timestamp,
    ) -> Result<Option<(Held, Option<RecordKey>)>, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(held) = self.load(key).await? else {
                return Ok(None);
            };
            let mut writes = vec![
                delete(record_key(key), Expect::At(held.revision)),
                delete(due_key(&held.connection.id), Expect::Anything),
            ];
            let queued = match (&held.sealed, party.is_some_and(can_revoke)) {
                (Some(sealed), true) => self.queue_revocation(&held.connection, sealed, at)?,
                _ => None,
            };
            let place = queued.map(|write| {
                let place = write.key.clone();
                writes.push(write);
                place
            });
            match self.world.records.write(writes).await {
                Ok(_) => return Ok(Some((held, place))),
                // Renewed meanwhile: what was renewed goes as well.
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict)
    }

    /// The write that queues the revocation of these tokens; none if they
    /// cannot be opened.
    pub(crate) fn queue_revocation(
        &self,
        connection: &Connection,
        sealed: &Sealed,
        at: Timestamp,
    ) -> Result<Option<Write>, StoreError> {
        let Ok(tokens) = TokenSet::copied(sealed) else {
            return Ok(None);
        };
        let random = random_token::<16>(&*self.world.random);
        let place = RecordKey::new(Kind::Due, format!("revocation/{random}"));
        self.revocation_at(place, connection, 0, at, SecretChange::Set(tokens))
            .map(Some)
    }

    /// The write that puts, or moves, a revocation into this place.
    pub(crate) fn revocation_at(
        &self,
        place: RecordKey,
        connection: &Connection,
        failures: u32,
        at: Timestamp,
        secret: SecretChange,
    ) -> Result<Write, StoreError> {
        let work = Work::Revocation(Box::new(Pending {
            connection: connection.clone(),
            until: self.world.clock.now().plus(INSIST),
            failures,
        }));
        let document = serde_json::to_vec(&work).map_err(|e| StoreError::Damaged(e.to_string()))?;
        Ok(Write {
            key: place,
            expect: Expect::Anything,
            change: Some(Change {
                document,
                secret,
                expires_at: Some(at),
            }),
        })
    }

    /// Revokes what the background took from the queue.
    pub(crate) async fn revoke_pending(
        &self,
        party: Option<Party>,
        mut taken: Taken,
        pending: Pending,
    ) -> Result<(), StoreError> {
        let now = self.world.clock.now();
        let connection = &pending.connection;
        let revoked = match (&party, &taken.record.secret) {
            (Some(party), Some(sealed)) => self.revoke(connection, sealed, party).await,
            (None, Some(_)) => Revoked::Later {
                detail: "the provider or its preset is not there".into(),
            },
            (_, None) => Revoked::NotPossible,
        };
        if let (Revoked::Later { .. }, true) = (&revoked, now < pending.until) {
            let failures = pending.failures.saturating_add(1);
            let at = now.plus(back_off(failures, LEAST, MOST, self.jitter()));
            taken.work = Work::Revocation(Box::new(Pending {
                failures,
                ..pending
            }));
            return self.move_one(taken, at).await.map(drop);
        }
        let (action, detail) = match &revoked {
            Revoked::Done { .. } => ("connection.revoked", "revoked at the provider".to_owned()),
            Revoked::NotPossible => ("connection.revoked", "nothing to revoke".to_owned()),
            Revoked::Later { detail } | Revoked::Failed { detail } => (
                "connection.revocation_given_up",
                format!("its tokens may live until they end: {detail}"),
            ),
        };
        self.remove(&taken).await?;
        let outcome = match &revoked {
            Revoked::Later { .. } => "given_up",
            other => other.word(),
        };
        self.observer.revocation(&connection.provider, outcome);
        let failed = matches!(revoked, Revoked::Later { .. } | Revoked::Failed { .. });
        let outcome = if failed {
            Outcome::Failed
        } else {
            Outcome::Allowed
        };
        self.note_revocation(connection, action, outcome, detail)
            .await;
        Ok(())
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
                        let retry_after = answer.retry_after(self.world.clock.now());
                        succeeded(&answer, &step.answer, &known)
                            .map_err(|e| (may_work_later(&e), retry_after, e.to_string()))
                    }
                    Err(SendError::Refused(why)) => Err((false, None, why)),
                    Err(error) => Err((true, None, error.to_string())),
                };
                match result {
                    Ok(()) => {
                        outcome = Revoked::Done { note: step.note };
                        // The rest went with it.
                        if step.effect != RevocationEffect::Token {
                            return outcome;
                        }
                    }
                    Err((true, retry_after, detail)) => {
                        let (now, jitter) = (self.world.clock.now(), self.jitter());
                        let word = Word::Ill { retry_after };
                        self.health.note(&provider.name, word, now, jitter);
                        // Whatever was revoked before is revoked once more.
                        return Revoked::Later { detail };
                    }
                    Err((false, _, detail)) if outcome == Revoked::NotPossible => {
                        outcome = failed(detail);
                    }
                    Err(_) => {}
                }
            }
        }
        outcome
    }

    async fn note_disconnect(&self, connection: &Connection, revoked: &Revoked) {
        let detail = match revoked {
            Revoked::Done { .. } => "revoked at the provider",
            Revoked::NotPossible => "deleted; there was nothing that could be revoked",
            Revoked::Later { .. } => "deleted; the provider is asked to revoke in the background",
            Revoked::Failed { .. } => "deleted; the provider did not confirm the revocation",
        };
        let word = revoked.word();
        self.observer.revocation(&connection.provider, word);
        let action = "connection.disconnected";
        self.note_revocation(connection, action, Outcome::Allowed, detail.into())
            .await;
    }

    async fn note_revocation(
        &self,
        connection: &Connection,
        action: &str,
        outcome: Outcome,
        detail: String,
    ) {
        let mut event = AuditEvent::new(self.world.clock.now(), action, outcome)
            .by(&connection.user)
            .on(format!("provider:{}", connection.provider))
            .detail(detail);
        event.team = Some(connection.team.to_string());
        if let Err(error) = self.world.audit.record(event).await {
            tracing::error!(%error, "an audit event was not kept");
        }
    }
}

impl Revoked {
    /// For counts.
    fn word(&self) -> &'static str {
        match self {
            Self::Done { .. } => "done",
            Self::NotPossible => "not_possible",
            Self::Later { .. } => "later",
            Self::Failed { .. } => "failed",
        }
    }
}

/// Whether the provider has any way to revoke.
pub(crate) fn can_revoke(party: &Party) -> bool {
    party.provider.revocation_endpoint.is_some()
        || !party.preset.description().revocation.is_empty()
}

/// Whether a refusal says nothing about the tokens: the provider does not work,
/// or does not take the client's secret, which an administrator can mend.
fn may_work_later(error: &AnswerError) -> bool {
    let passes = |status: u16| status >= 500 || status == 429 || status == 408;
    match error {
        AnswerError::Refused { status, code } => {
            passes(*status) || code.as_deref() == Some("invalid_client")
        }
        AnswerError::Unreadable { status, .. } => passes(*status),
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
