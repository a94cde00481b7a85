//! Ending a consent: from the provider's redirect to a stored connection.

use std::collections::HashMap;

use countersign_core::audit::{AuditEvent, Outcome as AuditOutcome};
use countersign_core::connection::{Connection, Origins};
use countersign_core::names::{ProviderName, UserName};
use countersign_core::ports::{Expect, StoreError, delete, parse};
use countersign_core::preset::Grant;
use countersign_core::request::{Asking, Exchange, SendError, token_request};
use countersign_core::scope::ScopeSet;
use countersign_core::secret::{Sealed, Secret};
use countersign_core::template::Values;
use countersign_core::token_answer::{
    Answer, AnswerError, Granted, Reading, SecretGuard, error_code, masked_body, read,
};

use crate::consent::{ConsentError, Flow, ReturnTo, flow_key};
use crate::links::LinkRequest;
use crate::service::{Oauth, Party, lock};

mod account;
pub(crate) mod checks;
mod follow_up;
mod store;

use checks::{callback_facts, check_issuer, judge_difference, keep, mix_up, refusal, sealed_of};

/// The authorization response, as it arrived (RFC 6749 §4.1.2).
pub struct Callback<'a> {
    /// The provider in the path; none for the bare callback.
    pub path_provider: Option<ProviderName>,
    /// The query string, raw.
    pub query: &'a str,
    /// The signed-in user.
    pub user: UserName,
    /// His browser session's id.
    pub session: String,
}

/// How a consent ended.
#[derive(Debug)]
pub enum Outcome {
    /// The connection stands.
    Connected {
        /// Its facts.
        connection: Box<Connection>,
        /// Where the user goes now.
        return_to: ReturnTo,
        /// Scopes that were asked for and not granted.
        missing: ScopeSet,
    },
    /// Nothing was stored.
    Refused {
        /// At which provider, if that is known.
        provider: Option<ProviderName>,
        /// A short, stable word: an OAuth error code or one of ours.
        code: String,
        /// What the person can do.
        advice: String,
        /// What begins the same again, if an agent's call asked for it.
        again: Option<Box<LinkRequest>>,
    },
}

/// Why a consent goes no further.
pub(crate) enum Stop {
    Refused { code: String, advice: String },
    Failed(ConsentError),
}

impl Stop {
    pub(crate) fn refused(code: &str, advice: impl Into<String>) -> Self {
        Self::Refused {
            code: code.to_owned(),
            advice: advice.into(),
        }
    }

    /// No answer from the provider.
    pub(crate) fn unsent(error: &SendError) -> Self {
        let advice = format!("The provider cannot be asked right now: {error}. Try again later.");
        Self::refused("provider_unavailable", advice)
    }
}

impl<E: Into<ConsentError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The link that was used up for this consent, for a new one.
fn again(flow: &Flow) -> Option<LinkRequest> {
    (flow.return_to == ReturnTo::Agent).then(|| LinkRequest {
        user: flow.user.clone(),
        team: flow.team.clone(),
        provider: flow.provider.clone(),
        resource: flow.resource.clone(),
        server: flow.asked_by.server.clone(),
        client_name: flow.asked_by.client_name.clone(),
        scopes: flow.asked.clone(),
    })
}

/// The parameters of the response, each at most once.
struct Parameters(HashMap<String, String>);

impl Parameters {
    fn parse(query: &str) -> Option<Self> {
        let mut all = HashMap::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()).take(64) {
            if all.insert(name.into_owned(), value.into_owned()).is_some() {
                return None;
            }
        }
        Some(Self(all))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    }
}

impl Oauth {
    /// Ends a consent. `party` looks the flow's provider up as it is now.
    ///
    /// The state is used up before anything else is looked at, so that a
    /// response is good once.
    ///
    /// # Errors
    /// [`ConsentError`] for what is not the user's to mend; refusals are
    /// [`Outcome::Refused`].
    pub async fn finish(
        &self,
        callback: Callback<'_>,
        party: impl FnOnce(&ProviderName) -> Option<Party>,
    ) -> Result<Outcome, ConsentError> {
        let parameters = Parameters::parse(callback.query);
        let unknown = || Outcome::Refused {
            provider: None,
            code: "state_unknown".into(),
            advice:
                "This sign-in has ended or was already used. Start again from the Connections page."
                    .into(),
            again: None,
        };
        let Some(parameters) = parameters else {
            return Ok(unknown());
        };
        let Some(state) = parameters.text("state") else {
            return Ok(unknown());
        };
        let Some((flow, verifier)) = self.take_flow(state).await? else {
            return Ok(unknown());
        };

        match self
            .complete(&flow, verifier.as_ref(), &callback, &parameters, party)
            .await
        {
            Ok((connection, missing, reconnected)) => {
                self.concluded(&flow, &connection, reconnected).await;
                Ok(Outcome::Connected {
                    connection: Box::new(connection),
                    return_to: flow.return_to,
                    missing,
                })
            }
            Err(Stop::Refused { code, advice }) => {
                self.note(
                    &flow,
                    "connection.refused",
                    AuditOutcome::Denied,
                    code.clone(),
                )
                .await;
                Ok(Outcome::Refused {
                    again: again(&flow).map(Box::new),
                    provider: Some(flow.provider),
                    code,
                    advice,
                })
            }
            Err(Stop::Failed(error)) => {
                self.note(
                    &flow,
                    "connection.refused",
                    AuditOutcome::Failed,
                    error.to_string(),
                )
                .await;
                Err(error)
            }
        }
    }

    /// The connection stands: whoever waits for it hears of it.
    pub(crate) async fn concluded(&self, flow: &Flow, connection: &Connection, reconnected: bool) {
        self.waiters.notify(&connection.key());
        lock(&self.forced).remove(&connection.id);
        lock(&self.resting).remove(&connection.id);
        let action = if reconnected {
            "connection.reconnected"
        } else {
            "connection.connected"
        };
        let account = connection.account.as_ref().map_or("unknown", |a| &a.id);
        let scopes = connection.scopes().join(" ");
        let detail = format!("account {account}; scopes {scopes}");
        self.note(flow, action, AuditOutcome::Allowed, detail).await;
    }

    pub(crate) async fn note(
        &self,
        flow: &Flow,
        action: &str,
        outcome: AuditOutcome,
        detail: String,
    ) {
        let mut event = AuditEvent::new(self.world.clock.now(), action, outcome)
            .by(&flow.user)
            .on(format!("provider:{}", flow.provider))
            .detail(detail);
        event.team = Some(flow.team.to_string());
        if let Err(error) = self.world.audit.record(event).await {
            tracing::error!(%error, action, "an audit event was not kept");
        }
    }

    /// Uses the state up: reads the flow and deletes just that revision.
    async fn take_flow(&self, state: &str) -> Result<Option<(Flow, Option<Sealed>)>, StoreError> {
        let key = flow_key(state);
        let Some(record) = self.world.records.get(&key).await? else {
            return Ok(None);
        };
        match self
            .world
            .records
            .write(vec![delete(key, Expect::At(record.revision))])
            .await
        {
            Ok(_) => Ok(Some((parse(&record)?, record.secret))),
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn complete(
        &self,
        flow: &Flow,
        verifier: Option<&Sealed>,
        callback: &Callback<'_>,
        parameters: &Parameters,
        party: impl FnOnce(&ProviderName) -> Option<Party>,
    ) -> Result<(Connection, ScopeSet, bool), Stop> {
        self.check_browser(flow, callback)?;
        let changed = || {
            Stop::refused(
                "provider_changed",
                "The provider was changed while you signed in. Start again from the Connections page.",
            )
        };
        let party = party(&flow.provider)
            .filter(|p| p.provider.enabled)
            .ok_or_else(changed)?;
        let (provider, description) = (&*party.provider, party.preset.description());
        check_issuer(&party, parameters)?;
        if let Some(error) = parameters.text("error") {
            return Err(refusal(
                description,
                error_code(error, &description.known_codes()).as_deref(),
            ));
        }
        let code = parameters.text("code").ok_or_else(|| {
            Stop::refused(
                "invalid_request",
                "The provider sent no authorization code. Start again.",
            )
        })?;

        let mut facts = callback_facts(description, parameters, code)?;
        let values = Values::resolve(description, &provider.settings, &facts)?;
        let keys = self.client_keys(provider).await?;
        let asking = self.asking(&party, &values, &keys);
        let endpoint = asking.token_endpoint(&Grant::AuthorizationCode)?;
        let origin = endpoint.origin().ascii_serialization();
        let moved = flow
            .token_origin
            .as_ref()
            .is_some_and(|begun| *begun != origin);
        let edited = flow.course.is_some_and(|begun| begun != provider.course());
        if moved && facts.is_empty() || edited || flow.client_id != provider.client_id {
            return Err(changed());
        }
        let granted = {
            let code = Secret::from_text(code.to_owned());
            let exchange = Exchange::Code {
                code: &code,
                verifier,
                redirect_uri: &flow.redirect_uri,
                resource: flow.indicator.as_ref(),
            };
            let request = token_request(&asking, &exchange)?;
            let answer = self.sender.send(request, provider.request_timeout).await;
            let answer = answer.map_err(|e| Stop::unsent(&e))?;
            let granted = self.read_tokens(
                &party,
                &answer,
                // If the answer does not say: the provider adds to what it gave.
                &flow.asked.union(&flow.held),
                &asking,
            );
            if let Err(Stop::Refused { code, .. }) = &granted
                && matches!(code.as_str(), "invalid_client" | "unauthorized_client")
            {
                self.client_rejected(&party.provider);
            }
            granted?
        };
        keep(&mut facts, granted.captured.iter().cloned());
        let guard = SecretGuard::new(&granted.tokens, sealed_of(&asking));
        if facts.iter().any(|(_, value)| !guard.admits(value)) {
            return Err(Stop::refused(
                "provider_error",
                "The provider's answer cannot be used.",
            ));
        }
        self.follow_up(&party, &asking, &granted.tokens, &mut facts)
            .await?;
        // From here on with what was captured.
        let values = Values::resolve(description, &provider.settings, &facts)?;
        let asking = Asking {
            values: &values,
            ..asking
        };
        let account = self.account(&party, &asking, &granted.tokens).await?;
        let missing = judge_difference(description, &flow.asked, &granted)?;
        let origins = Origins::of(&asking, &endpoint, flow.indicator.as_ref());
        let (connection, reconnected) = self
            .store(flow, &party, granted, facts, account, origins)
            .await?;
        Ok((connection, missing, reconnected))
    }

    fn check_browser(&self, flow: &Flow, callback: &Callback<'_>) -> Result<(), Stop> {
        if flow.user != callback.user {
            return Err(Stop::refused(
                "other_user",
                "This sign-in was begun by another user, so nothing was stored. Start again as yourself.",
            ));
        }
        if flow.session != callback.session {
            return Err(Stop::refused(
                "other_browser",
                "This sign-in was begun in another browser or session, so nothing was stored. Start again here.",
            ));
        }
        if flow.expires_at <= self.world.clock.now() {
            return Err(Stop::refused(
                "expired",
                "This sign-in took too long. Start again.",
            ));
        }
        let path_matches = match &callback.path_provider {
            Some(provider) => *provider == flow.provider && !flow.bare_callback,
            None => flow.bare_callback,
        };
        if path_matches { Ok(()) } else { Err(mix_up()) }
    }

    /// Reads a token answer, with the preset's hook if it has one.
    pub(crate) fn read_tokens(
        &self,
        party: &Party,
        answer: &Answer,
        asked: &ScopeSet,
        asking: &Asking<'_>,
    ) -> Result<Granted, Stop> {
        let description = party.preset.description();
        let shapes = if description.hooks.token_answer {
            let masked = masked_body(answer, description.token_answer.may_be_form, &[]);
            party.preset.token_answer(answer.status(), &masked)?
        } else {
            None
        };
        let reading = Reading {
            description,
            shapes: shapes.as_deref(),
            asked,
            now: self.world.clock.now(),
            client_secret: asking.client_secret.map(|s| &s.sealed),
            only: None,
        };
        read(answer, &reading).map_err(|error| match error {
            AnswerError::Refused { code, .. } => refusal(description, code.as_deref()),
            AnswerError::Unreadable { .. } => Stop::refused(
                "provider_error",
                format!("The account could not be connected: {error}. Tell an administrator."),
            ),
        })
    }
}
