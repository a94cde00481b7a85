//! Calls that are held open while their user acts (2025-11-25), and streams
//! that hear of it later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use countersign_core::connection::Connection;
use countersign_core::error::CallError;
use countersign_core::names::UserName;
use countersign_identity::Audience;
use countersign_mcp::answer::{Action, Elicitation, progress, tools_list_changed};
use countersign_mcp::body::{AnswerBody, ClientGone, EventSender, channel, event_stream};
use countersign_mcp::envelope::{Answered, Incoming, Message, Request, parse};
use countersign_mcp::upstream::Kind;
use http::Response;
use tokio::sync::oneshot;

use crate::call::carry::{self, Case};
use crate::call::{Exchange, answer, connection_key};
use crate::wiring::App;

/// How many calls of one user are held at once.
const PER_USER: usize = 8;
/// How often a quiet stream is kept alive, and progress is told.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long after a call gave up its client still hears that the user is done.
const AFTERWARDS: Duration = Duration::from_secs(30 * 60);

/// What is held in this process.
#[derive(Default)]
pub struct HeldCalls {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    per_user: HashMap<UserName, usize>,
    asked: HashMap<String, (UserName, oneshot::Sender<Action>)>,
    streams: HashMap<String, EventSender>,
}

impl HeldCalls {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a client's answer to an elicitation of ours. Another user's is
    /// ignored: it was not his question.
    pub(crate) fn answered(
        &self,
        user: &UserName,
        elicitation: &Elicitation,
        answer: &Answered<'_>,
    ) {
        let mut inner = self.inner();
        if inner
            .asked
            .get(elicitation.id())
            .is_none_or(|(asked, _)| asked != user)
        {
            return;
        }
        // An error instead of a result: the client could not show it.
        let action = answer
            .result
            .and_then(Action::read)
            .unwrap_or(Action::Cancel);
        if action != Action::Accept
            && let Some((_, told)) = inner.asked.remove(elicitation.id())
        {
            // The call may have ended meanwhile.
            let _ = told.send(action);
        }
    }

    /// The client's listening stream, for what has to be said later.
    pub(crate) fn listening(&self, session: &str, stream: EventSender) {
        self.inner().streams.insert(session.to_owned(), stream);
    }

    /// That stream has ended.
    pub(crate) fn hung_up(&self, session: &str) {
        self.inner().streams.remove(session);
    }

    fn stream(&self, session: &str) -> Option<EventSender> {
        self.inner().streams.get(session).cloned()
    }
}

/// One place among a user's held calls; given back when dropped.
struct Place {
    app: Arc<App>,
    user: UserName,
    elicitation: Elicitation,
}

impl Place {
    fn take(
        app: &Arc<App>,
        user: &UserName,
        elicitation: &Elicitation,
    ) -> Option<(Self, oneshot::Receiver<Action>)> {
        let mut inner = app.held.inner();
        let count = inner.per_user.entry(user.clone()).or_default();
        if *count >= PER_USER {
            return None;
        }
        *count += 1;
        let (told, hears) = oneshot::channel();
        inner
            .asked
            .insert(elicitation.id().to_owned(), (user.clone(), told));
        drop(inner);
        let place = Self {
            app: Arc::clone(app),
            user: user.clone(),
            elicitation: elicitation.clone(),
        };
        Some((place, hears))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.app.held.inner();
        inner.asked.remove(self.elicitation.id());
        if let Some(count) = inner.per_user.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                inner.per_user.remove(&self.user);
            }
        }
    }
}

/// Holds the call: the elicitation goes out on its stream, and the call goes
/// on by itself when the user is done.
pub(crate) fn hold(
    app: &Arc<App>,
    exchange: &Exchange,
    request: &Request<'_>,
    body: &Bytes,
    case: Case,
) -> Response<AnswerBody> {
    let elicitation = Elicitation::new(&*app.world.random);
    let Some((place, hears)) = Place::take(app, &exchange.caller.user, &elicitation) else {
        // He has enough questions open: this one is not held.
        let answer = case
            .trouble(exchange, request.id.raw())
            .url_required(&elicitation);
        tell_when_done(app, exchange, case, elicitation);
        return carry::json(answer);
    };
    let (stream, answer) = channel();
    let held = Held {
        app: Arc::clone(app),
        exchange: exchange.clone(),
        body: body.clone(),
        case,
        place,
    };
    tokio::spawn(async move {
        // A client that has gone needs no answer.
        let _ = held.run(stream, hears).await;
    });
    event_stream(answer)
}

struct Held {
    app: Arc<App>,
    exchange: Exchange,
    body: Bytes,
    case: Case,
    place: Place,
}

/// Why the wait ended.
enum End {
    Mended,
    TurnedDown(Action),
    TooLong,
}

impl Held {
    async fn run(
        self,
        stream: EventSender,
        hears: oneshot::Receiver<Action>,
    ) -> Result<(), ClientGone> {
        // It was parsed before: this is the same text.
        let Ok(Incoming::Single(Message::Request(request))) = parse(&self.body, &self.app.limits)
        else {
            return Ok(());
        };
        let trouble = self.case.trouble(&self.exchange, request.id.raw());
        stream
            .message(&self.place.elicitation.request(&trouble))
            .await?;
        let end = tokio::select! {
            end = self.wait(&stream, &request, hears) => end?,
            () = stream.closed() => return Err(ClientGone),
        };
        match end {
            End::Mended => self.go_on(&stream, &request).await,
            End::TurnedDown(action) => {
                stream
                    .message(trouble.turned_down(action, &request).body())
                    .await
            }
            End::TooLong => {
                stream
                    .message(&trouble.url_required(&self.place.elicitation))
                    .await?;
                let elicitation = self.place.elicitation.clone();
                tell_when_done(&self.app, &self.exchange, self.case, elicitation);
                Ok(())
            }
        }
    }

    async fn wait(
        &self,
        stream: &EventSender,
        request: &Request<'_>,
        hears: oneshot::Receiver<Action>,
    ) -> Result<End, ClientGone> {
        let limit = self
            .case
            .attachment
            .as_ref()
            .map_or(Duration::ZERO, |a| a.server().wait);
        let mended = mended(&self.app, &self.exchange, &self.case, limit);
        tokio::pin!(mended);
        let mut hears = std::pin::pin!(hears);
        let mut listening = true;
        for beat in 1.. {
            tokio::select! {
                mended = &mut mended => {
                    return Ok(if mended { End::Mended } else { End::TooLong });
                }
                action = &mut hears, if listening => match action {
                    Ok(action) => return Ok(End::TurnedDown(action)),
                    Err(_) => listening = false,
                },
                () = tokio::time::sleep(HEARTBEAT) => match &request.params.meta.progress_token {
                    Some(token) => {
                        stream.message(&progress(token, beat, "Waiting for the user to finish in the browser.")).await?;
                    }
                    None => stream.keep_alive().await?,
                },
            }
        }
        Ok(End::TooLong)
    }

    /// From step 2 on: token, team and policy may have changed meanwhile.
    async fn go_on(&self, stream: &EventSender, request: &Request<'_>) -> Result<(), ClientGone> {
        let audience = Audience::Mcp(self.exchange.server.clone());
        let caller = match countersign_identity::bearer(&self.exchange.headers) {
            Ok(bearer) => self.app.identity.authenticate(bearer, &audience).await,
            Err(error) => Err(error),
        };
        let result = match caller {
            Ok(caller) if caller.user == self.exchange.caller.user => {
                let exchange = Exchange {
                    caller,
                    ..self.exchange.clone()
                };
                answer::run(&self.app, &exchange, request, &self.body).await
            }
            _ => Err(CallError::Denied {
                code: "signed_out".into(),
                message: "Your agent's sign-in ended while it was waiting. Sign in again.".into(),
            }),
        };
        match result {
            Ok(answered) => {
                let streamed = answered.answer.kind == Kind::Events;
                stream.forward(streamed, answered.answer.body).await
            }
            Err(error) => {
                let case = Case::new(&self.app, &self.exchange, error).await;
                let trouble = case.trouble(&self.exchange, request.id.raw());
                stream.message(trouble.plain(request).body()).await
            }
        }
    }
}

/// Waits until the connection stands; false if it does not in time.
pub(crate) async fn mended(app: &App, exchange: &Exchange, case: &Case, limit: Duration) -> bool {
    let Some(key) = case
        .attachment
        .as_deref()
        .and_then(|a| connection_key(a, &exchange.caller))
    else {
        return false;
    };
    let clock = &app.world.clock;
    let wanted = |connection: &Connection| case.is_mended_by(connection, clock.now());
    match app.oauth.wait_until(&key, limit, wanted).await {
        Ok(held) => held.is_some(),
        Err(error) => {
            tracing::warn!(%error, "waiting for a connection failed");
            false
        }
    }
}

/// After a call gave up: its client hears on its listening stream when the
/// user is done.
pub(crate) fn tell_when_done(
    app: &Arc<App>,
    exchange: &Exchange,
    case: Case,
    elicitation: Elicitation,
) {
    let Some(session) = exchange.session.as_ref().map(|s| s.capsule.id.clone()) else {
        return;
    };
    let (app, exchange) = (Arc::clone(app), exchange.clone());
    tokio::spawn(async move {
        if mended(&app, &exchange, &case, AFTERWARDS).await
            && let Some(stream) = app.held.stream(&session)
        {
            // A client that stopped listening asks again when it wants to.
            let _ = stream.message(&elicitation.completed()).await;
            let _ = stream.message(&tools_list_changed()).await;
        }
    });
}
