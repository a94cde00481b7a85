//! The one flow: how a call goes through, step by step.
//!
//! [`crate::http::mcp`] has accepted the request (1), knows who is calling (2)
//! and has parsed it (3). From here on: look up (4), judge (5), fresh (6), plan
//! (7), send (8), answer (9), record (10). Each step demands what the one
//! before made; what goes wrong is a [`CallError`], and [`carry`] says it in
//! the client's way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_core::caller::Caller;
use countersign_core::connection::{Connection, ConnectionKey, ReauthReason};
use countersign_core::decide::Attachment;
use countersign_core::error::CallError;
use countersign_core::inject::Request as Unfilled;
use countersign_core::inject::{InjectError, Plan, Vaulted};
use countersign_core::issuer::CallerToken;
use countersign_core::names::{CallId, ServerName};
use countersign_core::preset::{Call, PresetFault};
use countersign_core::secret::Sealed;
use countersign_core::server::{AuthMode, ConnectionUse, Server};
use countersign_core::veil::Veil;
use countersign_mcp::envelope::Message;
use countersign_mcp::revision::Revision;
use countersign_mcp::session::Binding;
use countersign_mcp::upstream::{Answer, Expects, Outbound, Outcome, Upstream as _};
use countersign_mcp::{headers, lazy, relay};
use countersign_oauth::obtain::{Identity, Purpose};
use countersign_oauth::refresh::FreshError;
use countersign_oauth::{Held, Party};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::attachments::NotAttached;
use crate::http::connections::resource_of;
use crate::mode_changes::{change_of, is_news};
use crate::registry::is_vendors_own;
use crate::user_keys::{Found, takes_keys};
use crate::wiring::{App, store_error};

pub(crate) mod answer;
pub(crate) mod carry;
mod forbidden;
pub(crate) mod held;
pub(crate) mod ids;
pub(crate) mod listen;
pub(crate) mod lists;
pub(crate) mod record;
pub(crate) mod redact;
pub(crate) mod sessions;

use record::Trace;
use sessions::Session;

/// Of answers to what the host itself sends, in bytes.
const OWN_ANSWER_LIMIT: usize = 1 << 20;

/// One HTTP request to an MCP endpoint, as accepted.
#[derive(Clone)]
pub(crate) struct Exchange {
    /// From the path.
    pub(crate) server: ServerName,
    /// Who is calling; the bearer stopped at this.
    pub(crate) caller: Arc<Caller>,
    /// But for a token of an external issuer's, which that issuer's own token
    /// endpoint may be shown.
    pub(crate) presented: Option<Arc<CallerToken>>,
    /// The client's headers.
    pub(crate) headers: HeaderMap,
    /// The body, parsed by whoever needs it; messages borrow from it.
    pub(crate) body: Bytes,
    /// The protocol revision it speaks.
    pub(crate) revision: Revision,
    /// The client's session, in revisions that have them.
    pub(crate) session: Option<Arc<Session>>,
    /// When it arrived, in microseconds of the monotonic clock.
    pub(crate) arrived: u64,
    /// Under which the audit log has it.
    pub(crate) id: CallId,
}

impl Exchange {
    /// For whom sessions and states are sealed.
    pub(crate) fn binding(&self) -> Binding<'_> {
        Binding {
            user: &self.caller.user,
            team: &self.caller.team,
            client: &self.caller.client,
            server: self.server.as_str(),
        }
    }
}

/// What is asked of the upstream.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// POST, GET or DELETE.
    pub(crate) method: &'a Method,
    /// The MCP method for the judges (`GET` and `DELETE` are judged as what
    /// they do).
    pub(crate) named: &'a str,
    /// The message; none for GET and DELETE.
    pub(crate) message: Option<&'a Message<'a>>,
    /// What to send, byte for byte what was parsed.
    pub(crate) body: &'a Bytes,
    /// What an MCP server answers to it.
    pub(crate) expects: Expects,
}

/// What a message calls, gets or reads.
pub(crate) fn name_of<'m>(message: &'m Message<'_>) -> Option<&'m str> {
    let params = message.params()?;
    params.name.as_deref().or(params.uri.as_deref())
}

/// The connection that a caller's calls to a server use.
pub(crate) fn connection_key(attachment: &Attachment, caller: &Caller) -> Option<ConnectionKey> {
    if attachment.server().auth.mode != AuthMode::UserDelegated {
        return None;
    }
    Some(ConnectionKey {
        user: caller.user.clone(),
        team: caller.team.clone(),
        provider: attachment.provider()?.name.clone(),
        resource: resource_of(attachment.server()),
    })
}

/// What Countersign obtains for a caller's calls to a server, where it needs no
/// consent for it.
pub(crate) fn purpose(
    attachment: &Attachment,
    caller: &Caller,
    presented: Option<&Arc<CallerToken>>,
) -> Option<Purpose> {
    let (server, provider) = (attachment.server(), attachment.provider()?);
    let auth = &server.auth;
    let identity = match auth.mode {
        AuthMode::ServiceAccount => Identity::Service,
        AuthMode::TokenExchange => Identity::User,
        AuthMode::None | AuthMode::Static | AuthMode::UserDelegated => return None,
    };
    let scopes = match auth.required_scopes.is_empty() {
        true => &provider.scopes,
        false => &auth.required_scopes,
    };
    let mut resource = [&auth.resource, &provider.resource].into_iter().flatten();
    let mut audience = [&auth.audience, &provider.audience].into_iter().flatten();
    Some(Purpose {
        identity,
        user: caller.user.clone(),
        team: caller.team.clone(),
        scopes: scopes.clone(),
        resource: resource.next().cloned().or_else(|| resource_of(server)),
        audience: audience.next().cloned(),
        presented: presented.cloned(),
    })
}

/// Steps 4 to 8, and the resend of step 9: the upstream's answer, or what
/// stood in the way.
///
/// What happens seldom is awaited in boxes: the future of an ordinary call
/// stays small, and is made and moved for every one.
pub(crate) async fn pass(
    app: &App,
    exchange: &Exchange,
    ask: Ask<'_>,
    trace: &mut Trace,
) -> Result<Passed, CallError> {
    // 4. Look up.
    let attachment = look_up(app, &exchange.server)?;
    trace.attached(&attachment);
    let key = connection_key(&attachment, &exchange.caller);
    let held = match &key {
        Some(key) => app.oauth.load(key).await.map_err(|e| store_error(&e))?,
        None => None,
    };
    let party = party(&attachment);

    // 5. Judge: operator's rules and policies, the connection, the preset.
    let call = Call {
        method: ask.named,
        name: ask.message.and_then(name_of),
        arguments: ask
            .message
            .and_then(Message::params)
            .and_then(|p| p.arguments),
        host: attachment.host(),
    };
    let admitted = attachment.admit(&exchange.caller, call.clone())?;
    // Asked for on behalf of nobody who may not call.
    let purpose = purpose(&attachment, &exchange.caller, exchange.presented.as_ref());
    tell_of_change(app, &attachment, &exchange.caller).await?;
    let held = match (&purpose, &party) {
        (Some(purpose), Some(party)) => Some(
            Box::pin(app.oauth.obtain(purpose, party))
                .await
                .map_err(fresh_error)?,
        ),
        _ => held,
    };
    let own_key = own_key(app, &attachment, &exchange.caller).await?;
    let ready = match takes_keys(attachment.server()) {
        true => admitted.keyed(own_key.as_ref().map(|found| &found.key))?,
        false => {
            admitted.connected(held.as_ref().map(|h| &*h.connection), app.world.clock.now())?
        }
    };
    app.recorder
        .note(&attachment, &call, held.as_ref().map(|h| &*h.connection));
    let judged = ready.judge()?;
    trace.decided_by(judged.decided_by());

    // 6. Fresh: what was obtained just now is.
    let credential = judged.credential().map(str::to_owned);
    let credential = credential.as_deref();
    let mut held = match (held, &party) {
        (Some(held), Some(party)) if key.is_some() => Some(
            app.oauth
                .fresh(held, party, credential)
                .await
                .map_err(fresh_error)?,
        ),
        (held, _) => held,
    };
    trace.connected(match (&held, &own_key) {
        (Some(held), _) => Some(&held.connection.id),
        (None, own) => own.as_ref().map(|found| &found.key.id),
    });

    // The user's word, where a policy wants it: last, so that nothing that
    // could still stand in the way uses it up.
    let word = match judged.question() {
        Some(question) => Some(app.approvals.word(exchange, question).await?),
        None => None,
    };
    let permit = judged.agreed(word)?;

    // 7. Plan.
    let plan = Plan::new(permit, held.as_ref().map(|h| &*h.connection)).map_err(inject_error)?;
    let generation = own_key.as_ref().map(|found| found.key.generation);
    let key_of_server = match own_key {
        Some(own) => own.sealed,
        None => static_key(app, &attachment).await?,
    };

    // 8. Send; and 9, as far as a refused token goes.
    let sender = Sender {
        app,
        exchange,
        plan: &plan,
        api_key: key_of_server.as_ref(),
        key_generation: generation,
        timeout: attachment.server().timeout,
    };
    let outcome = sender.send(ask, held.as_ref(), trace).await?;
    let outcome = match (outcome, key, party) {
        (Outcome::Unauthorized(_), None, Some(party)) if purpose.is_some() => {
            held = Box::pin(obtain_again(app, held, purpose.as_ref(), &party)).await?;
            Box::pin(sender.send(ask, held.as_ref(), trace)).await?
        }
        (Outcome::Unauthorized(_), Some(key), Some(party)) => {
            held = Box::pin(renew(app, held, &party, credential)).await?;
            let outcome = Box::pin(sender.send(ask, held.as_ref(), trace)).await?;
            if let (Outcome::Unauthorized(_), Some(held)) = (&outcome, &held) {
                return Err(Box::pin(reject(app, &attachment, &key, held)).await);
            }
            outcome
        }
        (outcome, ..) => outcome,
    };
    let connection = held.as_ref().map(|h| &*h.connection);
    let answer = settle(&attachment, connection, outcome, trace)?;
    let (connection, tokens) = match held {
        Some(held) => (Some(held.connection), held.sealed),
        None => (None, None),
    };
    let secrets = Secrets {
        tokens,
        api_key: key_of_server,
    };
    Ok(Passed {
        answer,
        attachment,
        connection,
        secrets,
    })
}

/// An answer on its way back, and what it was obtained with.
pub(crate) struct Passed {
    pub(crate) answer: Answer,
    pub(crate) attachment: Arc<Attachment>,
    pub(crate) connection: Option<Arc<Connection>>,
    pub(crate) secrets: Secrets,
}

/// What a call was made with, still sealed: it must not be seen by a preset
/// that looks through the answer.
pub(crate) struct Secrets {
    tokens: Option<Sealed>,
    api_key: Option<Sealed>,
}

impl Secrets {
    /// Hides them from a preset.
    ///
    /// # Errors
    /// A fault: the preset may be shown nothing.
    pub(crate) fn veil(&self) -> Result<Veil, PresetFault> {
        let vaulted = Vaulted {
            tokens: self.tokens.as_ref(),
            api_key: self.api_key.as_ref(),
        };
        Veil::of_call(&vaulted)
            .map_err(|_| PresetFault::Unavailable("the credential cannot be hidden from it".into()))
    }
}

/// The server's attachment, pinned for this call.
pub(crate) fn look_up(app: &App, server: &ServerName) -> Result<Arc<Attachment>, CallError> {
    app.attachments.pin(server).map_err(|why| match why {
        // The router has refused unknown names; it vanished since.
        NotAttached::Unknown => CallError::UpstreamUnavailable {
            detail: "it is no longer registered".into(),
        },
        NotAttached::Unusable(error) => error,
    })
}

pub(crate) fn party(attachment: &Attachment) -> Option<Party> {
    Some(Party {
        provider: Arc::clone(attachment.provider()?),
        preset: Arc::clone(attachment.preset()?),
    })
}

/// Sends one planned call; the token is opened anew for each attempt.
struct Sender<'a> {
    app: &'a App,
    exchange: &'a Exchange,
    plan: &'a Plan,
    api_key: Option<&'a Sealed>,
    /// Of a user's own key.
    key_generation: Option<u64>,
    /// How long the headers of an answer may take.
    timeout: Duration,
}

impl Sender<'_> {
    async fn send(
        &self,
        ask: Ask<'_>,
        held: Option<&Held>,
        trace: &mut Trace,
    ) -> Result<Outcome, CallError> {
        let generation = held.map(|h| h.connection.generation);
        let generation = generation.or(self.key_generation).unwrap_or(0);
        let session = match &self.exchange.session {
            Some(session) => match session.upstream(self.app, generation).await? {
                Some(upstream) => upstream.id().cloned(),
                None => match Box::pin(self.begin_session(session, held, generation)).await? {
                    Begun::With(id) => id,
                    Begun::Not(outcome) => {
                        trace.upstream_status(&outcome);
                        return Ok(outcome);
                    }
                },
            },
            None => None,
        };
        let headers = headers::upstream(
            &self.exchange.headers,
            self.exchange.revision,
            ask.message,
            session.as_ref(),
        );
        let outcome = self
            .send_with(ask.method, headers, ask.body.clone(), ask.expects, held)
            .await?;
        trace.upstream_status(&outcome);
        if let (Outcome::Status(StatusCode::NOT_FOUND), Some(session)) =
            (&outcome, &self.exchange.session)
        {
            session.forget(self.app).await?;
        }
        Ok(outcome)
    }

    /// Begins the upstream's session for a client whose own began before there
    /// was a connection to begin it with.
    async fn begin_session(
        &self,
        session: &Session,
        held: Option<&Held>,
        generation: u64,
    ) -> Result<Begun, CallError> {
        let first = self
            .send_own(
                lazy::headers(None, None),
                lazy::initialize(&session.capsule),
                Expects::Answer,
                held,
            )
            .await?;
        let Outcome::Answer(answer) = first else {
            return Ok(Begun::Not(first));
        };
        let given = answer.session.clone();
        let response = relay::response_in(answer, lazy::INITIALIZE_ID, OWN_ANSWER_LIMIT).await?;
        let negotiated = lazy::negotiated(&response)?;
        let headers = lazy::headers(Some(negotiated.revision), given.as_ref());
        let second = self
            .send_own(headers, lazy::initialized(), Expects::Acknowledgement, held)
            .await?;
        let Outcome::Answer(_) = second else {
            return Ok(Begun::Not(second));
        };
        session.store(self.app, generation, given.clone()).await?;
        Ok(Begun::With(given))
    }

    async fn send_own(
        &self,
        headers: HeaderMap,
        body: Bytes,
        expects: Expects,
        held: Option<&Held>,
    ) -> Result<Outcome, CallError> {
        self.send_with(&Method::POST, headers, body, expects, held)
            .await
    }

    async fn send_with(
        &self,
        method: &Method,
        headers: HeaderMap,
        body: Bytes,
        expects: Expects,
        held: Option<&Held>,
    ) -> Result<Outcome, CallError> {
        let vaulted = Vaulted {
            tokens: held.and_then(|h| h.sealed.as_ref()),
            api_key: self.api_key,
        };
        let request = Unfilled {
            method: method.clone(),
            headers,
            body,
        };
        let now = self.app.world.clock.now();
        let filled = self
            .plan
            .fill(&vaulted, request, now)
            .map_err(inject_error)?;
        // Signed as it is: from here on nothing is changed.
        let filled = filled.into_parts();
        let outbound = Outbound {
            method: filled.method,
            uri: filled.uri,
            headers: filled.headers,
            body: filled.body,
            expects,
            header_timeout: self.timeout,
        };
        Ok(self.app.upstream.send(outbound).await?)
    }
}

/// Whether the upstream began a session for us.
enum Begun {
    /// It did, under this id if it uses any.
    With(Option<HeaderValue>),
    /// It answered something else, which answers the call too.
    Not(Outcome),
}

/// A real 401 with a token thought good: one forced renewal.
async fn renew(
    app: &App,
    held: Option<Held>,
    party: &Party,
    credential: Option<&str>,
) -> Result<Option<Held>, CallError> {
    match held {
        Some(held) => Ok(Some(
            app.oauth
                .force_once(held, party, credential)
                .await
                .map_err(fresh_error)?,
        )),
        None => Ok(None),
    }
}

/// The same with a token that no user's consent stands behind.
async fn obtain_again(
    app: &App,
    held: Option<Held>,
    purpose: Option<&Purpose>,
    party: &Party,
) -> Result<Option<Held>, CallError> {
    match (held, purpose) {
        (Some(held), Some(purpose)) => Ok(Some(
            app.oauth
                .obtain_again(purpose, party, held)
                .await
                .map_err(fresh_error)?,
        )),
        (held, _) => Ok(held),
    }
}

/// Still 401: the connection does not work at this upstream. One that other
/// servers use too ends by the vendor's own word only: else any of them could
/// end it for all.
async fn reject(app: &App, attachment: &Attachment, key: &ConnectionKey, held: &Held) -> CallError {
    if key.resource.is_none() && is_guest(app, attachment) {
        return CallError::UpstreamUnavailable {
            detail: "it does not accept the token of your account, which other servers use too; \
                     an administrator can give it a connection of its own"
                .into(),
        };
    }
    let reason = ReauthReason::UpstreamUnauthorized;
    if let Err(error) = app
        .oauth
        .reject(key, held.connection.generation, reason)
        .await
    {
        return store_error(&error);
    }
    CallError::NeedsReauth {
        provider: attachment.provider_label(),
        reason,
    }
}

/// Whether a server shares its provider's connection with others, and is not
/// the vendor's own.
fn is_guest(app: &App, attachment: &Attachment) -> bool {
    let (Some(provider), Some(preset)) = (attachment.provider(), attachment.preset()) else {
        return false;
    };
    let own = attachment.server();
    let shared = |other: &Server| {
        other.name != own.name && other.enabled && other.connection == ConnectionUse::Shared
    };
    let snapshot = app.registry.current();
    snapshot.attached(&provider.name).iter().any(|s| shared(s))
        && !is_vendors_own(provider, preset.description(), attachment.url())
}

/// Turns what came back into an answer or an error. The upstream's own
/// challenge goes no further.
fn settle(
    attachment: &Attachment,
    connection: Option<&Connection>,
    outcome: Outcome,
    trace: &mut Trace,
) -> Result<Answer, CallError> {
    match outcome {
        Outcome::Answer(answer) => Ok(answer),
        Outcome::Status(status) => Ok(bare(status)),
        Outcome::Unauthorized(_) if takes_keys(attachment.server()) => {
            trace.decided_by("upstream");
            Err(CallError::NeedsReauth {
                provider: attachment.counterpart_label(),
                reason: ReauthReason::UpstreamUnauthorized,
            })
        }
        Outcome::Unauthorized(_) => {
            trace.decided_by("upstream");
            Err(CallError::UpstreamUnavailable {
                detail: "it does not accept the credential that is configured for it".into(),
            })
        }
        Outcome::Forbidden(challenge) => {
            trace.decided_by("upstream");
            Err(forbidden::by_upstream(attachment, connection, &challenge))
        }
    }
}

/// An HTTP status without a body, passed on as it is.
fn bare(status: StatusCode) -> Answer {
    Answer {
        status,
        headers: HeaderMap::new(),
        session: None,
        kind: countersign_mcp::upstream::Kind::Empty,
        body: Bytes::new().into(),
    }
}

/// Whoever had his own account connected is asked before a server goes on for
/// him as somebody else.
async fn tell_of_change(
    app: &App,
    attachment: &Attachment,
    caller: &Caller,
) -> Result<(), CallError> {
    let server = attachment.server();
    if change_of(server).is_none() {
        return Ok(());
    }
    let news = is_news(&app.world, &app.oauth, &caller.user, &caller.team, server).await;
    if news.map_err(|e| store_error(&e))? {
        return Err(CallError::NeedsReauth {
            provider: attachment.counterpart_label(),
            reason: ReauthReason::ProviderChanged,
        });
    }
    Ok(())
}

/// The caller's own key, for a server that takes one.
pub(crate) async fn own_key(
    app: &App,
    attachment: &Attachment,
    caller: &Caller,
) -> Result<Option<Found>, CallError> {
    if !takes_keys(attachment.server()) {
        return Ok(None);
    }
    let name = &attachment.server().name;
    let found = app.keys.find(&caller.user, &caller.team, name).await;
    found.map_err(|e| store_error(&e))
}

async fn static_key(app: &App, attachment: &Attachment) -> Result<Option<Sealed>, CallError> {
    let auth = &attachment.server().auth;
    let (AuthMode::Static, Some(name)) = (auth.mode, &auth.secret_ref) else {
        return Ok(None);
    };
    let unusable = |why: String| CallError::UpstreamUnavailable { detail: why };
    let found = app
        .registry
        .sealed(name)
        .await
        .map_err(|e| store_error(&e))?;
    let (facts, sealed) = found.ok_or_else(|| unusable(format!("its secret {name} is not set")))?;
    if !facts.hosts.is_empty() && !facts.hosts.iter().any(|h| h.matches(attachment.url())) {
        return Err(unusable(format!(
            "its secret {name} is not bound to its host"
        )));
    }
    Ok(Some(sealed))
}

fn fresh_error(error: FreshError) -> CallError {
    match error {
        FreshError::Call(error) => error,
        FreshError::Store(error) => store_error(&error),
    }
}

fn inject_error(error: InjectError) -> CallError {
    match error {
        InjectError::Preset(fault) => CallError::Preset(fault),
        // The admin page and `server create` say the same; a call fails closed.
        other => {
            tracing::warn!(error = %other, "a credential was not sent");
            CallError::Preset(PresetFault::BadOutput(other.to_string()))
        }
    }
}
