//! One renewal, from the lease to the stored result.

use std::time::Duration;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::connection::{Connection, ReauthReason, State, TokenFacts};
use countersign_core::error::CallError;
use countersign_core::origins::Course;
use countersign_core::ports::{Change, Expect, SecretChange, StoreError, Write};
use countersign_core::preset::Grant;
use countersign_core::refresh::{
    Failure, Meaning, Need, classify, counts_uses, renewed, was_answer_lost, without,
};
use countersign_core::request::{Asking, Exchange, SendError, token_request};
use countersign_core::template::Values;
use countersign_core::time::Timestamp;
use countersign_core::token_answer::{Answer, AnswerError, Granted, Reading, masked_body, read};

use super::lease::{Lease, Taken};
use super::{Errand, FreshError};
use crate::connections::{ATTEMPTS, record_key};
use crate::health::Word;
use crate::service::{AnswerHook, Held, Oauth};

/// How often another replica's renewal is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A caller waits: no more retries than this, whatever the record says.
const MOST_RETRIES: u8 = 3;
/// The lease outlasts the requests by this much.
const SLACK: Duration = Duration::from_secs(15);

/// How one request for new tokens ended.
enum Answered {
    Granted(Granted),
    Failed {
        failure: Failure,
        hook: Option<bool>,
        retry_after: Option<Duration>,
    },
}

impl Oauth {
    /// Renews under the lease, unless it has become needless.
    pub(super) async fn renew_once(&self, errand: &Errand) -> Result<(), FreshError> {
        let provider = &errand.party.provider;
        let tries = u32::from(provider.max_retries.min(MOST_RETRIES)) + 1;
        let lasts = provider.request_timeout * tries + SLACK;
        let looks = lasts.as_millis() / LOOK.as_millis() + 1;
        // Queued here and not under the lease, which would end meanwhile.
        let gate = self.health.gate(&provider.name);
        let _place = gate.acquire().await;
        let refresh = &errand.party.preset.description().refresh;
        let mut seemed_ended = 0;
        for _ in 0..looks {
            let held = self.load(&errand.key).await?.ok_or_else(|| errand.gone())?;
            match errand.need(&held, self)? {
                Need::Fresh => return Ok(()),
                Need::Hopeless => return Err(errand.ended(ReauthReason::Expired)),
                Need::Soon | Need::Now => {}
            }
            let id = &held.connection.id;
            let mut lease = match self
                .take_lease(id, lasts, refresh, &mut seemed_ended)
                .await?
            {
                Taken::Ours(lease) => lease,
                Taken::Busy => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Taken::Interrupted(free) => {
                    if self.interrupted(errand, &held, free).await? {
                        return Err(errand.ended(ReauthReason::ProviderError));
                    }
                    continue;
                }
            };
            // Again: it may have been renewed before the lease was ours.
            let held = self.load(&errand.key).await?.ok_or_else(|| errand.gone())?;
            let result = match errand.need(&held, self) {
                Ok(Need::Soon | Need::Now) => {
                    let began = self.world.clock.monotonic_micros();
                    let result = self.renew(errand, held, &mut lease).await;
                    self.tell(errand, &result, began);
                    result
                }
                Ok(Need::Fresh) => Ok(()),
                Ok(Need::Hopeless) => Err(errand.ended(ReauthReason::Expired)),
                Err(error) => Err(error),
            };
            if lease.is_over && matches!(result, Err(FreshError::Call(_))) {
                // Taken by another while this process was held up.
                continue;
            }
            self.give_back(&lease).await;
            return result;
        }
        Err(errand.unavailable("another replica is renewing it and does not end"))
    }

    async fn renew(
        &self,
        errand: &Errand,
        held: Held,
        lease: &mut Lease,
    ) -> Result<(), FreshError> {
        let refresh = &errand.party.preset.description().refresh;
        let now = self.world.clock.now();
        let provider = &errand.party.provider.name;
        if let Some(until) = self.health.told(provider, now) {
            let wait = until.since(now).as_secs() + 1;
            return Err(errand.unavailable(format!("it asked to be left alone for {wait} s")));
        }
        match self.ask(errand, &held, lease).await? {
            Answered::Granted(granted) => {
                self.note_health(errand, Word::Well);
                self.store_renewed(errand, held, &granted, lease).await
            }
            Answered::Failed {
                failure,
                hook,
                retry_after,
            } => {
                let connection = &held.connection;
                let Some(facts) = connection.credential(Some(&errand.credential)) else {
                    return Err(errand.ended(ReauthReason::Expired));
                };
                let now = self.world.clock.now();
                let meaning =
                    classify(&failure, refresh, hook, facts, connection.last_used_at, now);
                self.note_health(
                    errand,
                    match &meaning {
                        Meaning::Passing(_) | Meaning::Refused(ReauthReason::ClientRejected) => {
                            Word::Ill { retry_after }
                        }
                        Meaning::Final(_) | Meaning::Refused(_) => Word::Well,
                    },
                );
                if was_answer_lost(&failure)
                    && let Some(grace) = counts_uses(refresh)
                {
                    let first = facts.renewal_lost_at.unwrap_or_else(|| now.plus(grace));
                    return self.lose(errand, held, first).await;
                }
                match meaning {
                    Meaning::Final(reason) => self.end_grant(errand, held, reason).await,
                    Meaning::Refused(reason) => {
                        if reason == ReauthReason::ClientRejected {
                            self.client_rejected(&errand.party.provider);
                        }
                        tracing::warn!(%provider, ?failure, "the provider refused to renew; the tokens are kept");
                        Err(errand.ended(reason))
                    }
                    Meaning::Passing(detail) => {
                        tracing::warn!(%provider, detail, "tokens could not be renewed; they are kept");
                        Err(errand.unavailable(detail))
                    }
                }
            }
        }
    }

    /// Sends the refresh request, if provider and client are those of the
    /// consent.
    async fn ask(
        &self,
        errand: &Errand,
        held: &Held,
        lease: &mut Lease,
    ) -> Result<Answered, FreshError> {
        let (provider, description) = (&*errand.party.provider, errand.party.preset.description());
        let connection = &held.connection;
        let cannot = |what: String| errand.unavailable(what);
        let tokens = held
            .sealed
            .as_ref()
            .ok_or_else(|| errand.ended(ReauthReason::Expired))?;
        let values = Values::resolve(description, &provider.settings, &connection.facts)
            .map_err(|e| cannot(e.to_string()))?;
        let keys = self
            .client_keys(provider)
            .await
            .map_err(|e| cannot(e.to_string()))?;
        let asking = self.asking(&errand.party, &values, &keys);
        // An address that cannot be told is said, before it is compared.
        asking
            .token_endpoint(&Grant::RefreshToken)
            .map_err(|e| cannot(e.to_string()))?;
        if !Course::of(&asking).is_that_of(connection) {
            let reason = ReauthReason::ProviderChanged;
            self.reject(&errand.key, connection.generation, reason)
                .await?;
            return Err(errand.ended(reason));
        }
        // What it was consented for, whatever the records say by now.
        let resource = connection.origins.resource.as_ref();
        let exchange = Exchange::Refresh {
            tokens,
            credential: &errand.credential,
            resource,
        };
        if !self.about_to_send(lease).await? {
            return Err(errand.unavailable("another replica is renewing it"));
        }
        let (mut tries, began) = (0, self.world.clock.now());
        let mut sent_at;
        let answer = loop {
            sent_at = self.world.clock.now();
            let request = token_request(&asking, &exchange).map_err(|e| cannot(e.to_string()))?;
            match self.sender.send(request, provider.request_timeout).await {
                Err(error)
                    if self.may_repeat(&error, errand, began)
                        && tries < provider.max_retries.min(MOST_RETRIES) =>
                {
                    tries += 1;
                    tokio::time::sleep(LOOK * 2u32.pow(u32::from(tries))).await;
                }
                done => break done,
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                return Ok(Answered::Failed {
                    failure: Failure::Unsent(error),
                    hook: None,
                    retry_after: None,
                });
            }
        };
        Ok(self.judge(errand, connection, &answer, &asking, sent_at))
    }

    fn judge(
        &self,
        errand: &Errand,
        connection: &Connection,
        answer: &Answer,
        asking: &Asking<'_>,
        sent_at: Timestamp,
    ) -> Answered {
        let preset = &errand.party.preset;
        let description = preset.description();
        let retry_after = answer.retry_after(self.world.clock.now());
        let may_be_form = description.token_answer.may_be_form;
        let told = (&errand.party, &errand.key.user);
        let shapes = description.hooks.token_answer.then(|| {
            let masked = masked_body(answer, may_be_form, &[]);
            let outcome = preset.token_answer(answer.status(), &masked);
            self.witnessed(told.0, told.1, AnswerHook::TokenAnswer, outcome)
        });
        let shapes = match shapes.transpose() {
            Ok(shapes) => shapes.flatten(),
            Err(fault) => {
                let what = format!("its preset failed: {fault}");
                let error = AnswerError::Unreadable {
                    status: answer.status(),
                    what,
                };
                return Answered::Failed {
                    failure: Failure::Answer(error),
                    hook: None,
                    retry_after,
                };
            }
        };
        let asked = connection
            .credential(Some(&errand.credential))
            .map(|f| f.scopes.clone());
        let reading = Reading {
            description,
            shapes: shapes.as_deref(),
            asked: &asked.unwrap_or_default(),
            // The provider began to count some time after this, and not when
            // the answer arrived at a busy machine.
            now: sent_at,
            client_secret: asking.client_secret.map(|s| &s.sealed),
            only: Some(&errand.credential),
        };
        let error = match read(answer, &reading) {
            Ok(granted) => return Answered::Granted(granted),
            Err(error) => error,
        };
        let mut hook = None;
        if let (true, AnswerError::Refused { status, code }) =
            (description.hooks.refresh_error, &error)
        {
            let shape = &description.token_answer;
            let keep: Vec<_> = shape
                .error_code
                .iter()
                .chain(&shape.error_description)
                .cloned()
                .collect();
            let masked = masked_body(answer, may_be_form, &keep);
            let outcome = preset.refresh_error(*status, code.as_deref(), &masked);
            // A hook that fails says nothing: the refusal then passes.
            hook = self
                .witnessed(told.0, told.1, AnswerHook::RefreshError, outcome)
                .unwrap_or(Some(false));
        }
        Answered::Failed {
            failure: Failure::Answer(error),
            hook,
            retry_after,
        }
    }

    /// Stores the new tokens over those they were made from. Only then may
    /// they be used.
    async fn store_renewed(
        &self,
        errand: &Errand,
        held: Held,
        granted: &Granted,
        lease: &mut Lease,
    ) -> Result<(), FreshError> {
        let made_from = held
            .connection
            .credential(Some(&errand.credential))
            .map(|f| f.issued_at);
        let generation = held.connection.generation;
        let mut held = held;
        let mut with_lease = true;
        for attempt in 1..=ATTEMPTS {
            let sealed = held
                .sealed
                .as_ref()
                .ok_or_else(|| errand.ended(ReauthReason::Expired))?;
            let (tokens, credentials) = renewed(sealed, &held.connection, granted)
                .map_err(|_| errand.unavailable("the stored tokens cannot be opened"))?;
            let mut facts = held.connection.facts.clone();
            for (name, value) in &granted.captured {
                facts.retain(|(n, _)| n != name);
                facts.push((name.clone(), value.clone()));
            }
            let updated_at = self.world.clock.now();
            let connection = Connection {
                credentials,
                facts,
                updated_at,
                state: match held.connection.state {
                    // Another gave us up for lost.
                    State::NeedsReauth {
                        reason: ReauthReason::ProviderError,
                    } => State::Connected,
                    state => state,
                },
                ..Connection::clone(&held.connection)
            };
            let secret = SecretChange::Set(tokens.into_secret());
            let refresh = &errand.party.preset.description().refresh;
            let mut writes = vec![
                write_at(&connection, &held, secret)?,
                self.appointment(&connection, refresh)?,
            ];
            if with_lease {
                writes.push(self.end_of(lease)?);
            }
            match self.world.records.write(writes).await {
                Ok(_) => {
                    lease.is_over = with_lease;
                    return Ok(());
                }
                Err(StoreError::Conflict) => {
                    // A lost lease must not lose the tokens: only the
                    // connection's own revision counts from here on.
                    with_lease = false;
                    held = self.load(&errand.key).await?.ok_or_else(|| errand.gone())?;
                    let now_from = held
                        .connection
                        .credential(Some(&errand.credential))
                        .map(|f| f.issued_at);
                    if now_from != made_from || held.connection.generation != generation {
                        return Ok(());
                    }
                }
                // A rotated refresh token that is not stored is a lost grant.
                Err(StoreError::Failed(_)) if attempt < ATTEMPTS => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => {
                    // What was sent is used up, and its successor is lost: the
                    // lease goes on saying that it was sent.
                    lease.is_over = true;
                    return Err(error.into());
                }
            }
        }
        lease.is_over = true;
        Err(StoreError::Conflict.into())
    }

    /// A process ended between sending the refresh token and storing what came
    /// of it: the token may be used up, and using it again may end more than
    /// this grant. It is kept, in case that process was only thought to have
    /// ended. False if the connection was changed meanwhile.
    async fn interrupted(
        &self,
        errand: &Errand,
        held: &Held,
        free: Write,
    ) -> Result<bool, FreshError> {
        let reason = ReauthReason::ProviderError;
        let connection = Connection {
            state: State::NeedsReauth { reason },
            updated_at: self.world.clock.now(),
            ..Connection::clone(&held.connection)
        };
        let writes = vec![
            write_at(&connection, held, SecretChange::Keep)?,
            self.appointment_at(&connection, None)?,
            free,
        ];
        match self.world.records.write(writes).await {
            Ok(_) => {
                tracing::warn!(
                    provider = %connection.provider,
                    "a process ended while it was renewing a connection; its user has to \
                     authorize again"
                );
                self.note_end(errand, &connection, reason).await;
                Ok(true)
            }
            Err(StoreError::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes the tokens of a grant that has ended, if they are still the ones
    /// that were refused.
    async fn end_grant(
        &self,
        errand: &Errand,
        held: Held,
        reason: ReauthReason,
    ) -> Result<(), FreshError> {
        let facts = |held: &Held| {
            held.connection
                .credential(Some(&errand.credential))
                .map(|f| f.issued_at)
        };
        let (made_from, generation) = (facts(&held), held.connection.generation);
        let mut held = held;
        for _ in 0..ATTEMPTS {
            let mut connection = Connection::clone(&held.connection);
            connection.updated_at = self.world.clock.now();
            let others = connection.credentials.len() > 1;
            let secret = match &held.sealed {
                Some(sealed) if others => {
                    connection
                        .credentials
                        .retain(|c| c.credential != errand.credential);
                    let rest = without(sealed, &errand.credential)
                        .map_err(|_| errand.unavailable("the stored tokens cannot be opened"))?;
                    SecretChange::Set(rest.into_secret())
                }
                _ => {
                    for credential in &mut connection.credentials {
                        credential.refresh_token_present = false;
                    }
                    connection.state = State::NeedsReauth { reason };
                    SecretChange::Remove
                }
            };
            let refresh = &errand.party.preset.description().refresh;
            let writes = vec![
                write_at(&connection, &held, secret)?,
                self.appointment(&connection, refresh)?,
            ];
            match self.world.records.write(writes).await {
                Ok(_) => {
                    self.note_end(errand, &connection, reason).await;
                    return Err(errand.ended(reason));
                }
                Err(StoreError::Conflict) => {
                    held = self.load(&errand.key).await?.ok_or_else(|| errand.gone())?;
                    if facts(&held) != made_from || held.connection.generation != generation {
                        // Somebody else renewed or reconnected meanwhile.
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// The answer to a renewal was lost: from `until` on the refresh token is
    /// not sent again. The access token serves for as long as it lives.
    async fn lose(&self, errand: &Errand, held: Held, until: Timestamp) -> Result<(), FreshError> {
        let connection = &held.connection;
        let (made_from, generation) = (issued_at(&held, errand), connection.generation);
        let lost = |c: &TokenFacts| c.credential == errand.credential;
        let is_same = |c: &Connection| {
            let facts = c.credentials.iter().find(|c| lost(c));
            c.generation == generation && facts.map(|f| f.issued_at) == made_from
        };
        let change = |c: &mut Connection| {
            for facts in c.credentials.iter_mut().filter(|c| lost(c)) {
                facts.renewal_lost_at = Some(until);
            }
        };
        let refresh = &errand.party.preset.description().refresh;
        let changed = self
            .change(&errand.key, is_same, change, |c| {
                self.appointment(c, refresh)
            })
            .await?;
        if !changed {
            // Somebody else renewed or reconnected meanwhile.
            return Ok(());
        }
        let provider = &errand.party.provider.name;
        tracing::warn!(%provider, "the answer to a renewal was lost; its refresh token is not sent again");
        let detail = format!(
            "credential {}; the answer was lost, and the provider takes a refresh token once",
            errand.credential
        );
        self.note_of(connection, "connection.renewal_lost", detail)
            .await;
        let facts = connection.credential(Some(&errand.credential));
        let now = self.world.clock.now();
        Err(
            match facts.is_some_and(|f| f.has_lapsed(now)) && until <= now {
                true => errand.ended(ReauthReason::ProviderError),
                false => errand.unavailable("its answer was lost"),
            },
        )
    }

    fn note_health(&self, errand: &Errand, word: Word) {
        let (now, jitter) = (self.world.clock.now(), self.jitter());
        self.health
            .note(&errand.party.provider.name, word, now, jitter);
    }

    fn tell(&self, errand: &Errand, result: &Result<(), FreshError>, began: u64) {
        let outcome = match result {
            Ok(()) => "ok",
            Err(FreshError::Call(CallError::NeedsReauth { reason, .. })) => reason.word(),
            Err(FreshError::Call(error)) => error.word(),
            Err(FreshError::Store(_)) => "store",
        };
        let took = self.world.clock.monotonic_micros().saturating_sub(began);
        let provider = &errand.party.provider.name;
        self.observer.renewal(
            provider,
            errand.occasion,
            outcome,
            Duration::from_micros(took),
        );
    }

    /// Whether the request may be sent again: it never arrived, or the preset
    /// says that a lost answer may be asked for again, be it for some time.
    fn may_repeat(&self, error: &SendError, errand: &Errand, began: Timestamp) -> bool {
        let refresh = &errand.party.preset.description().refresh;
        let grace = Duration::from_secs(refresh.grace_seconds.into());
        let forgives = self.world.clock.now().since(began) < grace;
        *error == SendError::Unreachable
            || (error.may_have_arrived() && (refresh.retry_after_lost_answer || forgives))
    }

    async fn note_end(&self, errand: &Errand, connection: &Connection, reason: ReauthReason) {
        let detail = format!("credential {}; {}", errand.credential, reason.word());
        self.note_of(connection, "connection.refresh_failed", detail)
            .await;
    }

    /// An event about a connection that something befell.
    pub(crate) async fn note_of(&self, connection: &Connection, action: &str, detail: String) {
        let mut event = AuditEvent::new(self.world.clock.now(), action, Outcome::Failed)
            .by(&connection.user)
            .on(format!("provider:{}", connection.provider))
            .detail(detail);
        event.team = Some(connection.team.to_string());
        if let Err(error) = self.world.audit.record(event).await {
            tracing::error!(%error, "an audit event was not kept");
        }
    }
}

/// Which refresh token it is: that of the token issued then.
fn issued_at(held: &Held, errand: &Errand) -> Option<Timestamp> {
    let facts = held.connection.credential(Some(&errand.credential));
    facts.map(|f| f.issued_at)
}

fn write_at(
    connection: &Connection,
    held: &Held,
    secret: SecretChange,
) -> Result<Write, StoreError> {
    let document =
        serde_json::to_vec(connection).map_err(|e| StoreError::Damaged(e.to_string()))?;
    Ok(Write {
        key: record_key(&connection.key()),
        expect: Expect::At(held.revision),
        change: Some(Change {
            document,
            secret,
            expires_at: None,
        }),
    })
}
