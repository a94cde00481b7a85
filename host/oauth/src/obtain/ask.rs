//! One request for a token, from the lease to the stored result.

use std::time::Duration;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::connection::Origins;
use countersign_core::error::CallError;
use countersign_core::ports::{Change, Expect, SecretChange, StoreError, Write, random_token};
use countersign_core::preset::{Assertion, Grant};
use countersign_core::refresh::Need;
use countersign_core::request::{
    Asking, Exchange, HostAssertion, SendError, Subject, Target, token_request,
};
use countersign_core::template::Values;
use countersign_core::time::Timestamp;
use countersign_core::token_answer::{Answer, AnswerError, Granted, Reading, masked_body, read};
use url::Url;

use super::{Errand, Identity, Row, Way};
use crate::refresh::FreshError;
use crate::refresh::lease::Taken;
use crate::service::{AnswerHook, Oauth};

/// How often another replica's request is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A caller waits: no more retries than this, whatever the record says.
const MOST_RETRIES: u8 = 3;
/// The lease outlasts the requests by this much.
const SLACK: Duration = Duration::from_secs(15);
/// A record whose token names no end is swept away after so long.
const KEPT: Duration = Duration::from_secs(86_400);

/// The provider's variables. Those that only a sign-in would tell are missing.
pub(super) fn values(errand: &Errand) -> Result<Values, FreshError> {
    let party = &errand.party;
    Values::resolve(party.preset.description(), &party.provider.settings, &[])
        .map_err(|e| errand.refused(e.to_string()))
}

/// Where the token is asked for.
pub(super) fn endpoint(errand: &Errand, asking: &Asking<'_>) -> Result<Url, FreshError> {
    let grant = match errand.way {
        Way::ClientCredentials => Grant::ClientCredentials,
        Way::TokenExchange => Grant::TokenExchange,
        Way::JwtBearer => Grant::JwtBearer(Assertion {
            algorithm: String::new(),
            claims: Vec::new(),
            lifetime_seconds: 0,
        }),
    };
    asking
        .token_endpoint(&grant)
        .map_err(|e| errand.refused(e.to_string()))
}

impl Oauth {
    /// Asks under the lease, unless it has become needless.
    pub(super) async fn obtain_once(&self, errand: &Errand) -> Result<(), FreshError> {
        let provider = &errand.party.provider;
        let tries = u32::from(provider.max_retries.min(MOST_RETRIES)) + 1;
        let lasts = provider.request_timeout * tries + SLACK;
        let looks = lasts.as_millis() / LOOK.as_millis() + 1;
        let refresh = &errand.party.preset.description().refresh;
        let mut seemed_ended = 0;
        for _ in 0..looks {
            if self.is_good(errand).await? {
                return Ok(());
            }
            let taken = self
                .take_lease(&errand.id()?, lasts, refresh, &mut seemed_ended)
                .await?;
            let lease = match taken {
                Taken::Ours(lease) => lease,
                Taken::Busy => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                // Asking uses nothing up: who did not end left nothing behind.
                Taken::Interrupted(free) => match self.world.records.write(vec![free]).await {
                    Ok(_) | Err(StoreError::Conflict) => continue,
                    Err(error) => return Err(error.into()),
                },
            };
            // Again: it may have been obtained before the lease was ours.
            let result = match self.is_good(errand).await {
                Ok(true) => Ok(()),
                Ok(false) => self.ask_and_store(errand).await,
                Err(error) => Err(error),
            };
            self.give_back(&lease).await;
            return result;
        }
        Err(errand.unavailable("another replica is asking and does not end"))
    }

    async fn is_good(&self, errand: &Errand) -> Result<bool, FreshError> {
        let held = self.obtained(errand).await?;
        Ok(errand.need(held.as_ref(), self.world.clock.now()) == Need::Fresh)
    }

    async fn ask_and_store(&self, errand: &Errand) -> Result<(), FreshError> {
        let result = self.ask_for(errand).await;
        let (outcome, detail) = match &result {
            Ok(()) => (Outcome::Allowed, errand.way.word().to_owned()),
            Err(error) => (Outcome::Failed, format!("{}: {error}", errand.way.word())),
        };
        let action = match errand.purpose.identity {
            Identity::Service => "service_account.token",
            Identity::User => "token_exchange.token",
        };
        let mut event = AuditEvent::new(self.world.clock.now(), action, outcome)
            .by(&errand.purpose.user)
            .on(format!("provider:{}", errand.party.provider.name))
            .detail(detail);
        event.team = Some(errand.purpose.team.to_string());
        if let Err(error) = self.world.audit.record(event).await {
            tracing::error!(%error, "an audit event was not kept");
        }
        result
    }

    async fn ask_for(&self, errand: &Errand) -> Result<(), FreshError> {
        let values = values(errand)?;
        let provider = &*errand.party.provider;
        let keys = self
            .client_keys(provider)
            .await
            .map_err(|e| errand.refused(e.to_string()))?;
        let asking = self.asking(&errand.party, &values, &keys);
        let endpoint = endpoint(errand, &asking)?;
        let answer = self.exchange(errand, &asking).await?;
        let mut granted = self.granted(errand, &asking, &answer)?;
        // A new one is asked for, not renewed (RFC 6749 §4.4.3).
        for (tokens, facts) in granted
            .tokens
            .credentials
            .iter_mut()
            .zip(&mut granted.facts)
        {
            tokens.refresh_token = None;
            facts.refresh_token_present = false;
            facts.refresh_token_expires_at = None;
        }
        let now = self.world.clock.now();
        let (user, team) = match errand.purpose.identity {
            Identity::Service => (None, None),
            Identity::User => (
                Some(errand.purpose.user.clone()),
                Some(errand.purpose.team.clone()),
            ),
        };
        let row = Row {
            user,
            team,
            facts: granted.captured,
            origins: Origins {
                token: endpoint.origin().ascii_serialization(),
                revocation: asking.revocation_origin(),
                audience: asking.audience(),
                resource: None,
            },
            client_id: provider.client_id.clone(),
            preset_digest: errand.party.preset.digest(),
            created_at: now,
            updated_at: now,
            credentials: granted.facts,
        };
        let ends = row.credentials.first().and_then(|f| f.expires_at);
        let document = serde_json::to_vec(&row).map_err(|e| StoreError::Damaged(e.to_string()))?;
        let write = Write {
            key: errand.key.clone(),
            // Any token for this purpose is as good as another.
            expect: Expect::Anything,
            change: Some(Change {
                document,
                secret: SecretChange::Set(granted.tokens.into_secret()),
                expires_at: Some(ends.unwrap_or_else(|| now.plus(KEPT))),
            }),
        };
        self.world.records.write(vec![write]).await?;
        Ok(())
    }

    /// Sends the request; again only if it never arrived.
    async fn exchange(&self, errand: &Errand, asking: &Asking<'_>) -> Result<Answer, FreshError> {
        let provider = asking.provider;
        let purpose = &errand.purpose;
        let target = Target {
            scopes: &purpose.scopes,
            resource: purpose.resource.as_ref(),
            audience: purpose.audience.as_deref(),
        };
        let host = match (purpose.identity, &purpose.presented) {
            (Identity::Service, _) | (_, Some(_)) => None,
            (Identity::User, None) => Some(self.signer().await.map_err(|e| {
                tracing::error!(error = %e, "the host's signing key cannot be used");
                errand.unavailable("the host has no signing key; see its log")
            })?),
        };
        let issuer = self.public_url.as_str().trim_end_matches('/');
        let mut tries = 0;
        loop {
            let (now, id) = (
                self.world.clock.now(),
                random_token::<16>(&*self.world.random),
            );
            let subject = host.as_ref().map(|host| {
                Subject::Host(HostAssertion {
                    key: &host.sealed,
                    key_id: &host.public.kid,
                    issuer,
                    subject: purpose.user.as_str(),
                    now,
                    id: &id,
                })
            });
            let subject = match &purpose.presented {
                Some(own) => Some(Subject::Caller(own)),
                None => subject,
            };
            let exchange = match (errand.way, subject) {
                (Way::TokenExchange, Some(subject)) => Exchange::TokenExchange { subject, target },
                (Way::JwtBearer, subject) => Exchange::JwtBearer { subject, target },
                _ => Exchange::ClientCredentials(target),
            };
            let request =
                token_request(asking, &exchange).map_err(|e| errand.refused(e.to_string()))?;
            match self.sender.send(request, provider.request_timeout).await {
                Ok(answer) => return Ok(answer),
                Err(SendError::Unreachable) if tries < provider.max_retries.min(MOST_RETRIES) => {
                    tries += 1;
                    tokio::time::sleep(LOOK * 2u32.pow(u32::from(tries))).await;
                }
                Err(error) => return Err(errand.unavailable(error.to_string())),
            }
        }
    }

    fn granted(
        &self,
        errand: &Errand,
        asking: &Asking<'_>,
        answer: &Answer,
    ) -> Result<Granted, FreshError> {
        let preset = &errand.party.preset;
        let description = preset.description();
        let shapes = if description.hooks.token_answer {
            let masked = masked_body(answer, description.token_answer.may_be_form, &[]);
            let outcome = preset.token_answer(answer.status(), &masked);
            let user = &errand.purpose.user;
            self.witnessed(&errand.party, user, AnswerHook::TokenAnswer, outcome)
                .map_err(|fault| FreshError::Call(CallError::Preset(fault)))?
        } else {
            None
        };
        let now: Timestamp = self.world.clock.now();
        let reading = Reading {
            description,
            shapes: shapes.as_deref(),
            asked: &errand.purpose.scopes,
            now,
            client_secret: asking.client_secret.map(|s| &s.sealed),
            only: None,
        };
        read(answer, &reading).map_err(|error| match &error {
            AnswerError::Refused { status, code } if *status < 500 && *status != 429 => {
                let said = code.as_deref().unwrap_or("no known error code");
                let advice = code.as_deref().and_then(|code| description.advice(code));
                errand.refused(advice.map_or_else(
                    || format!("it refuses with {said}{}", meaning(said)),
                    |advice| format!("it refuses with {said}: {advice}"),
                ))
            }
            AnswerError::Refused { status, .. } => {
                errand.unavailable(format!("it answered with HTTP status {status}"))
            }
            AnswerError::Unreadable { .. } => errand.unavailable(error.to_string()),
        })
    }
}

/// What an administrator may look at.
fn meaning(code: &str) -> &'static str {
    match code {
        "invalid_client" => " (client id, secret or key)",
        "unauthorized_client" | "unsupported_grant_type" => {
            " (the client is not allowed this grant there)"
        }
        "invalid_scope" => " (the server's or provider's scopes)",
        "invalid_target" => " (resource or audience)",
        "invalid_grant" | "interaction_required" => " (the user is not accepted there)",
        _ => "",
    }
}
