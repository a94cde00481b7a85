//! The MCP endpoints: accept, authenticate, parse, and hand over to
//! [`crate::call`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use countersign_core::error::CallError;
use countersign_core::issuer::CallerToken;
use countersign_core::names::ServerName;
use countersign_identity::{Audience, bearer};
use countersign_mcp::answer::{Action, Elicitation};
use countersign_mcp::body::{AnswerBody, accepted};
use countersign_mcp::envelope::{Incoming, Message, Request, parse};
use countersign_mcp::refusal::{Refusal, Refused};
use countersign_mcp::revision::{self, Era};
use countersign_mcp::upstream::{Answer, Expects};
use countersign_mcp::{batch, headers};
use futures_util::FutureExt as _;
use http::{Method, Response, StatusCode, request};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;

use crate::call::carry::{self, Case, takes_urls};
use crate::call::record::{Known, Trace};
use crate::call::sessions::Session;
use crate::call::{Ask, Exchange, answer as answering, held, listen, pass};
use crate::wiring::App;

/// How long a message may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether the path is an MCP endpoint.
#[must_use]
pub fn is_endpoint(path: &str) -> bool {
    path == "/mcp" || path.starts_with("/mcp/")
}

/// Answers one request to an MCP endpoint: steps 1 to 3, then the call.
pub async fn answer<B>(app: Arc<App>, peer: IpAddr, request: http::Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let arrived = app.world.clock.monotonic_micros();
    let (parts, body) = request.into_parts();
    let stranger = |reason, resource: &str| {
        app.refused_stranger(reason, peer, &parts.headers, resource);
    };
    // 1. Accept.
    if let Err(refusal) = headers::check_origin(&parts.headers, &app.origins) {
        stranger("foreign_origin", "mcp");
        return refused(&refusal.into());
    }
    let Some(server) = parts
        .uri
        .path()
        .strip_prefix("/mcp/")
        .and_then(|n| ServerName::parse(n).ok())
    else {
        stranger("no_server_named", "mcp");
        return not_there("Name the server in the path: /mcp/{server}.");
    };
    // 2. Who.
    let audience = Audience::Mcp(server.clone());
    let caller = match bearer(&parts.headers) {
        Ok(token) => app.identity.recognise(token, &audience).await,
        Err(error) => Err(error),
    };
    let (caller, presented) = match caller {
        Ok(admitted) => admitted,
        Err(error) => {
            if let Some(reason) = error.word() {
                stranger(reason, &format!("server:{server}"));
            }
            return app.identity.challenge(&error, &audience);
        }
    };
    let known = Known {
        caller: Arc::clone(&caller),
        server: server.clone(),
        arrived,
    };
    if app.registry.current().server(&server).is_none() {
        let text = "No server of this name is attached.";
        known.refused(&app, text);
        return not_there(text);
    }
    let accepted = Accepted {
        app: Arc::clone(&app),
        parts,
        server,
        caller,
        presented,
        arrived,
    };
    let response = match accepted.parts.method {
        Method::POST => accepted.post(body).await,
        Method::GET => Box::pin(accepted.get()).await,
        Method::DELETE => Box::pin(accepted.delete()).await,
        _ => Err(Refusal::MethodNotAllowed.into()),
    };
    match response {
        Ok(response) => response.map(Body::new),
        Err(refusal) => {
            known.refused(&app, &refusal.why.to_string());
            refused(&refusal)
        }
    }
}

fn refused(refusal: &Refused) -> Response<Body> {
    refusal.response().map(Body::from)
}

fn not_there(text: &str) -> Response<Body> {
    let body = countersign_mcp::refusal::error_body(None, -32600, text, None);
    countersign_mcp::refusal::json_response(StatusCode::NOT_FOUND, body).map(Body::from)
}

/// A request whose caller is known.
struct Accepted {
    app: Arc<App>,
    parts: request::Parts,
    server: ServerName,
    caller: Arc<countersign_core::caller::Caller>,
    presented: Option<Arc<CallerToken>>,
    arrived: u64,
}

impl Accepted {
    /// 3. Parse, and answer each message.
    async fn post<B>(self, body: B) -> Result<Response<AnswerBody>, Refused>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        headers::check_post(&self.parts.headers)?;
        let limit = self.app.limits.max_bytes;
        let body = match in_time(Limited::new(body, limit).collect()).await {
            Err(_) => return Err(Refusal::BadMessage("the body took too long").into()),
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(Refusal::TooLarge { limit }.into());
            }
            Ok(Err(_)) => return Err(Refusal::BadMessage("the body broke off").into()),
        };
        let incoming = parse(&body, &self.app.limits)?;
        let session = self.session().await?;
        let spoken = session.as_ref().map(|s| s.capsule.revision);
        let revision = revision::of_post(&self.parts.headers, &incoming, spoken)?;
        let session = if revision.era() == Era::Sessions {
            session
        } else {
            None
        };
        let app = Arc::clone(&self.app);
        let exchange = self.exchange(body.clone(), revision, session);
        match incoming {
            Incoming::Single(message) => one(&app, &exchange, &message, &body).await,
            Incoming::Batch(messages) => Box::pin(several(&app, &exchange, &messages, &body)).await,
        }
    }

    async fn get(self) -> Result<Response<AnswerBody>, Refused> {
        headers::check_get(&self.parts.headers)?;
        let session = self.session().await?;
        let spoken = session.as_ref().map(|s| s.capsule.revision);
        let revision = revision::of_get_or_delete(&self.parts.headers, spoken)?;
        let app = Arc::clone(&self.app);
        let exchange = self.exchange(Bytes::new(), revision, session);
        Ok(listen::open(&app, &exchange).await)
    }

    async fn delete(self) -> Result<Response<AnswerBody>, Refused> {
        let session = self.session().await?;
        let spoken = session.as_ref().map(|s| s.capsule.revision);
        let revision = revision::of_get_or_delete(&self.parts.headers, spoken)?;
        if session.is_none() {
            return Err(Refusal::SessionRequired.into());
        }
        let app = Arc::clone(&self.app);
        let exchange = self.exchange(Bytes::new(), revision, session);
        Ok(listen::end(&app, &exchange).await)
    }

    /// The client's session, if it names one that is still good.
    async fn session(&self) -> Result<Option<Arc<Session>>, Refused> {
        let binding = countersign_mcp::session::Binding {
            user: &self.caller.user,
            team: &self.caller.team,
            client: &self.caller.client,
            server: self.server.as_str(),
        };
        let now = self.app.world.clock.now();
        let Some(capsule) = self.app.capsules.open(&self.parts.headers, &binding, now)? else {
            return Ok(None);
        };
        let session = Session { capsule };
        match session.has_ended(&self.app).await {
            Ok(false) => Ok(Some(Arc::new(session))),
            Ok(true) => Err(Refusal::UnknownSession.into()),
            Err(error) => {
                tracing::error!(%error, "a session could not be read");
                Err(Refusal::UnknownSession.into())
            }
        }
    }

    fn exchange(
        self,
        body: Bytes,
        revision: countersign_mcp::revision::Revision,
        session: Option<Arc<Session>>,
    ) -> Exchange {
        Exchange {
            id: self.app.calls.next(),
            server: self.server,
            caller: self.caller,
            presented: self.presented,
            headers: self.parts.headers,
            body,
            revision,
            session,
            arrived: self.arrived,
        }
    }
}

/// Waits for a body. One that came with the headers, as nearly all do, needs
/// no timer.
async fn in_time<F: Future>(body: F) -> Result<F::Output, tokio::time::error::Elapsed> {
    let mut body = std::pin::pin!(body);
    match body.as_mut().now_or_never() {
        Some(body) => Ok(body),
        None => timeout(BODY_TIMEOUT, body).await,
    }
}

async fn one(
    app: &Arc<App>,
    exchange: &Exchange,
    message: &Message<'_>,
    body: &Bytes,
) -> Result<Response<AnswerBody>, Refused> {
    match message {
        Message::Request(request) => asked(app, exchange, request, body).await,
        Message::Response(answered) => {
            if let Some(elicitation) = Elicitation::answered_by(&answered.id) {
                let user = &exchange.caller.user;
                if let Err(error) = held::answered(app, user, &elicitation, answered).await {
                    tracing::warn!(%error, "an answer did not reach the host that waits for it");
                }
                return Ok(accepted());
            }
            Ok(Box::pin(told(app, exchange, message, body)).await)
        }
        Message::Notification(_) => Ok(Box::pin(told(app, exchange, message, body)).await),
    }
}

/// A request of the client.
async fn asked(
    app: &Arc<App>,
    exchange: &Exchange,
    request: &Request<'_>,
    body: &Bytes,
) -> Result<Response<AnswerBody>, Refused> {
    let now = app.world.clock.now();
    let resumed = match exchange.revision.era() {
        Era::PerRequest => app.states.resume(request, &exchange.binding(), now)?,
        Era::Sessions => None,
    };
    let Some(resumed) = resumed else {
        return Ok(match answering::run(app, exchange, request, body).await {
            Ok(answered) => answered.into_response(),
            Err(error) => Box::pin(carry::answer(app, exchange, request, body, error, 0)).await,
        });
    };
    // What goes upstream from here on is the request without our part.
    let again = match parse(&resumed.body, &app.limits)? {
        Incoming::Single(Message::Request(again)) => again,
        _ => return Err(Refusal::BadMessage("a retry is one request").into()),
    };
    Ok(Box::pin(retried(app, exchange, &again, &resumed)).await)
}

/// A retry after the user was asked to open a page.
async fn retried(
    app: &Arc<App>,
    exchange: &Exchange,
    request: &Request<'_>,
    resumed: &countersign_mcp::answer::state::Resumed,
) -> Response<AnswerBody> {
    let error = match answering::run(app, exchange, request, &resumed.body).await {
        Ok(answered) => return answered.into_response(),
        Err(error) => error,
    };
    if !error.wants_user() {
        return carry::answer(app, exchange, request, &resumed.body, error, resumed.rounds).await;
    }
    if let Some(action @ (Action::Decline | Action::Cancel)) = resumed.action {
        let case = Case::new(app, exchange, error).await;
        return case
            .trouble(exchange, request.id.raw())
            .turned_down(action, request)
            .map(AnswerBody::from);
    }
    // `accept` only means that the page was opened: wait for the rest.
    let waits = resumed.action == Some(Action::Accept) && takes_urls(exchange, request);
    // It counts among the user's held calls; one too many is not held.
    let place = waits
        .then(|| {
            let question = Elicitation::new(&*app.world.random);
            held::Place::take(app, &exchange.caller.user, &question)
        })
        .flatten();
    let case = Case::without_link(app, exchange, error.clone());
    let limit = case
        .attachment
        .as_ref()
        .map_or(Duration::ZERO, |a| a.server().wait);
    let mended = place.is_some() && held::mended(app, exchange, &case, limit).await;
    drop(place);
    if mended {
        return match answering::run(app, exchange, request, &resumed.body).await {
            Ok(answered) => answered.into_response(),
            Err(error) => {
                carry::answer(app, exchange, request, &resumed.body, error, resumed.rounds).await
            }
        };
    }
    carry::answer(app, exchange, request, &resumed.body, error, resumed.rounds).await
}

/// A notification or a response: it goes upstream, and there is no answer to
/// carry an error in.
async fn told(
    app: &Arc<App>,
    exchange: &Exchange,
    message: &Message<'_>,
    body: &Bytes,
) -> Response<AnswerBody> {
    let method = message.method().unwrap_or("response");
    let mut trace = Trace::begin(app, exchange, method, Some(message));
    let ask = Ask {
        method: &Method::POST,
        named: method,
        message: Some(message),
        body,
        expects: Expects::Acknowledgement,
    };
    let result = pass(app, exchange, ask, &mut trace).await;
    trace.end(result.as_ref().err());
    match result {
        Ok(passed) => passed.answer.into_response(None),
        // A session that has begun here and not yet upstream: nothing to tell.
        Err(error) if error.wants_user() => accepted(),
        Err(error) => {
            let facts = error.facts(&exchange.server, None, None, &exchange.id);
            let data = serde_json::json!({ "countersign": facts });
            let body = countersign_mcp::refusal::error_body(
                None,
                error.code(),
                &error.to_string(),
                Some(data),
            );
            let status = match error.denial() {
                Some(_) => StatusCode::FORBIDDEN,
                None => StatusCode::BAD_GATEWAY,
            };
            countersign_mcp::refusal::json_response(status, body).map(AnswerBody::from)
        }
    }
}

/// A batch of 2025-03-26: each member is judged and sent by itself.
async fn several(
    app: &Arc<App>,
    exchange: &Exchange,
    messages: &[Message<'_>],
    body: &Bytes,
) -> Result<Response<AnswerBody>, Refused> {
    let mut answers = Vec::with_capacity(messages.len());
    for message in messages {
        let member = batch::member(body, message);
        let mut exchange = exchange.clone();
        exchange.id = app.calls.next();
        exchange.body = member.clone();
        match message {
            Message::Request(request) => {
                let answered = match answering::run(app, &exchange, request, &member).await {
                    Ok(answered) => answered.answer,
                    Err(error) => {
                        // No revision with batches knows URL elicitation.
                        let response =
                            carry::answer(app, &exchange, request, &member, error, 0).await;
                        answering::Answered::from(response).answer
                    }
                };
                answers.push(answered);
            }
            _ => drop(one(app, &exchange, message, &member).await?),
        }
    }
    combine(answers).await
}

async fn combine(answers: Vec<Answer>) -> Result<Response<AnswerBody>, Refused> {
    match batch::combine(answers, countersign_mcp::relay::DEFAULT_LIMIT).await {
        Ok(response) => Ok(response),
        Err(fault) => {
            let error = CallError::from(fault);
            let body =
                countersign_mcp::refusal::error_body(None, error.code(), &error.to_string(), None);
            Ok(
                countersign_mcp::refusal::json_response(StatusCode::BAD_GATEWAY, body)
                    .map(AnswerBody::from),
            )
        }
    }
}
