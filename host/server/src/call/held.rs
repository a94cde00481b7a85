//! Calls that are held open while their user acts (2025-11-25), and streams
//! that hear of it later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use countersign_core::connection::Connection;
use countersign_core::decide::Attachment;
use countersign_core::error::CallError;
use countersign_core::names::{ClientId, ServerName, TeamName, UserName};
use countersign_core::ports::{
    Expect, Kind as Store, RecordKey, StoreError, World, load, put_until,
};
use countersign_identity::Audience;
use countersign_mcp::answer::{Action, Elicitation, progress, tools_list_changed};
use countersign_mcp::body::{AnswerBody, ClientGone, EventSender, channel, event_stream};
use countersign_mcp::envelope::{Answered, Incoming, Message, Request, parse};
use countersign_mcp::upstream::Kind;
use http::Response;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use url::Url;

use crate::call::carry::{self, Case};
use crate::call::{Exchange, answer, connection_key, own_key};
use crate::mode_changes::{change_of, is_news};
use crate::user_keys::takes_keys;
use crate::wiring::App;

/// How many calls of one user are held at once.
const PER_USER: usize = 8;
/// How many of one user's clients may wait for the end of an errand at once,
/// beside held calls: each looks at the store once a second.
const WAITING_PER_USER: usize = 64;
/// Links remembered; beyond it new ones are made.
const LINKS: usize = 10_000;
/// How often a quiet stream is kept alive, and progress is told.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long after a call gave up its client still hears that the user is done.
const AFTERWARDS: Duration = Duration::from_secs(30 * 60);

/// How often it is looked whether a key was given.
const LOOK: Duration = Duration::from_secs(1);

/// For so many seconds after the user is done a client is waited for that is
/// not listening.
const LISTENS_AGAIN: usize = 60;

/// What is held in this process.
#[derive(Default)]
pub struct HeldCalls {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    per_user: Counts,
    waiting: Counts,
    asked: HashMap<String, (UserName, oneshot::Sender<Action>)>,
    /// By session, the newest last: a client may have several.
    streams: HashMap<String, Vec<(u64, EventSender)>>,
    /// Numbers of streams given out.
    numbered: u64,
    links: HashMap<Errand, Url>,
}

/// What a connect link is for: an agent that calls again before its user has
/// done anything gets the same link, so that its calls leave no heap of them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Errand {
    pub(crate) user: UserName,
    pub(crate) team: TeamName,
    pub(crate) client: ClientId,
    pub(crate) server: ServerName,
    /// Sorted and joined.
    pub(crate) scopes: String,
}

/// What a client said to a host that does not hold the call.
#[derive(Serialize, Deserialize)]
struct Elicited {
    user: UserName,
    /// Otherwise dismissed.
    declined: bool,
}

/// How long an answer waits for the host that holds the call.
const TOLD_FOR: Duration = Duration::from_secs(300);

/// Takes a client's answer to an elicitation: here, or through the store for
/// the host that holds the call.
pub(crate) async fn answered(
    app: &App,
    user: &UserName,
    elicitation: &Elicitation,
    answer: &Answered<'_>,
) -> Result<(), StoreError> {
    // An error instead of a result: the client could not show it.
    let action = answer
        .result
        .and_then(Action::read)
        .unwrap_or(Action::Cancel);
    let id = elicitation.id();
    // Ids of ours are short; what is longer was not made here.
    let is_ours = id.len() <= 64;
    if app.held.answered(user, id, action)
        || action == Action::Accept
        || !is_ours
        || app.vault.changes().is_none()
    {
        return Ok(());
    }
    let said = Elicited {
        user: user.clone(),
        declined: action == Action::Decline,
    };
    let until = app.world.clock.now().plus(TOLD_FOR);
    let key = RecordKey::new(Store::Elicited, id);
    // The first word counts, and nobody writes over another's.
    let write = put_until(key, Expect::Absent, &said, Some(until))?;
    match app.world.records.write(vec![write]).await {
        Ok(_) | Err(StoreError::Conflict) => Ok(()),
        Err(error) => Err(error),
    }
}

/// How many of each user.
#[derive(Default)]
struct Counts(HashMap<UserName, usize>);

impl Counts {
    /// One more, unless there are `most`.
    fn take(&mut self, user: &UserName, most: usize) -> bool {
        let count = self.0.entry(user.clone()).or_default();
        let free = *count < most;
        *count += usize::from(free);
        free
    }

    fn give_back(&mut self, user: &UserName) {
        if let Some(count) = self.0.get_mut(user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(user);
            }
        }
    }
}

impl HeldCalls {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a client's answer to an elicitation of ours. Another user's is
    /// ignored: it was not his question. False if no call is held here for it.
    pub(crate) fn answered(&self, user: &UserName, elicitation: &str, action: Action) -> bool {
        let mut inner = self.inner();
        match inner.asked.get(elicitation) {
            None => return false,
            Some((asked, _)) if asked != user => return true,
            Some(_) => {}
        }
        if action != Action::Accept
            && let Some((_, told)) = inner.asked.remove(elicitation)
        {
            // The call may have ended meanwhile.
            let _ = told.send(action);
        }
        true
    }

    /// Looks for answers that clients gave to another host.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn hear(&self, world: &World) -> Result<(), StoreError> {
        let asked: Vec<String> = self.inner().asked.keys().cloned().collect();
        for id in asked {
            let key = RecordKey::new(Store::Elicited, &*id);
            if let Some((said, _)) = load::<Elicited>(&*world.records, &key).await? {
                let action = match said.declined {
                    true => Action::Decline,
                    false => Action::Cancel,
                };
                self.answered(&said.user, &id, action);
            }
        }
        Ok(())
    }

    /// A client's listening stream, for what has to be said later. Gives the
    /// number to tell its end by.
    pub(crate) fn listening(&self, session: &str, stream: EventSender) -> u64 {
        let mut inner = self.inner();
        inner.numbered += 1;
        let number = inner.numbered;
        let streams = inner.streams.entry(session.to_owned()).or_default();
        streams.push((number, stream));
        number
    }

    /// That stream has ended; the session's others go on.
    pub(crate) fn hung_up(&self, session: &str, number: u64) {
        let mut inner = self.inner();
        if let Some(streams) = inner.streams.get_mut(session) {
            streams.retain(|(n, _)| *n != number);
            if streams.is_empty() {
                inner.streams.remove(session);
            }
        }
    }

    /// The link last given out for this; it may have been used since.
    pub(crate) fn link(&self, errand: &Errand) -> Option<Url> {
        self.inner().links.get(errand).cloned()
    }

    /// Remembers a link.
    pub(crate) fn gave(&self, errand: Errand, link: Url) {
        let links = &mut self.inner().links;
        if links.len() >= LINKS {
            links.clear();
        }
        links.insert(errand, link);
    }

    /// The newest first.
    fn streams(&self, session: &str) -> Vec<EventSender> {
        let inner = self.inner();
        let streams = inner.streams.get(session).into_iter().flatten().rev();
        streams.map(|(_, stream)| stream.clone()).collect()
    }

    /// Says on one of the session's streams that the user is done, and with
    /// `lists` that other tools may be listed now. Whether somebody was
    /// listening.
    async fn tell(&self, session: &str, elicitation: &Elicitation, lists: bool) -> bool {
        for stream in self.streams(session) {
            if stream.message(&elicitation.completed()).await.is_ok()
                && (!lists || stream.message(&tools_list_changed()).await.is_ok())
            {
                return true;
            }
        }
        false
    }
}

/// One place among a user's held calls; given back when dropped.
pub(crate) struct Place {
    app: Arc<App>,
    user: UserName,
    elicitation: Elicitation,
}

impl Place {
    pub(crate) fn take(
        app: &Arc<App>,
        user: &UserName,
        elicitation: &Elicitation,
    ) -> Option<(Self, oneshot::Receiver<Action>)> {
        let mut inner = app.held.inner();
        if !inner.per_user.take(user, PER_USER) {
            return None;
        }
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
        inner.per_user.give_back(&self.user);
    }
}

/// One client that waits without a call; given back when dropped.
pub(crate) struct Waiting {
    app: Arc<App>,
    user: UserName,
}

impl Waiting {
    pub(crate) fn take(app: &Arc<App>, user: &UserName) -> Option<Self> {
        let free = app.held.inner().waiting.take(user, WAITING_PER_USER);
        free.then(|| Self {
            app: Arc::clone(app),
            user: user.clone(),
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.app.held.inner().waiting.give_back(&self.user);
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
            Ok(bearer) => self.app.identity.recognise(bearer, &audience).await,
            Err(error) => Err(error),
        };
        let result = match caller {
            Ok((caller, presented)) if caller.user == self.exchange.caller.user => {
                let exchange = Exchange {
                    caller,
                    presented,
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

/// Waits until the connection stands, or the question is answered; false if
/// that does not happen in time.
pub(crate) async fn mended(app: &App, exchange: &Exchange, case: &Case, limit: Duration) -> bool {
    if let CallError::ApprovalRequired { page, .. } = &case.error {
        let Some(id) = page else { return false };
        return app
            .approvals
            .answered(&exchange.caller.user, id, limit)
            .await;
    }
    if let Some(attachment) = case.attachment.as_deref()
        && takes_keys(attachment.server())
    {
        return key_given(app, exchange, attachment, limit).await;
    }
    if let Some(attachment) = case.attachment.as_deref()
        && change_of(attachment.server()).is_some()
    {
        return seen(app, exchange, attachment, limit).await;
    }
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

/// Waits until the user has seen what changed.
async fn seen(app: &App, exchange: &Exchange, attachment: &Attachment, limit: Duration) -> bool {
    let (caller, server) = (&exchange.caller, attachment.server());
    let seen = async {
        loop {
            let news = is_news(&app.world, &app.oauth, &caller.user, &caller.team, server).await;
            if matches!(news, Ok(false)) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(limit, seen).await.is_ok()
}

/// Waits until the user has given a key, or another than the one there was.
async fn key_given(
    app: &App,
    exchange: &Exchange,
    attachment: &Attachment,
    limit: Duration,
) -> bool {
    let look = async || {
        let found = own_key(app, attachment, &exchange.caller).await;
        found.ok().flatten().map(|found| found.key)
    };
    let before = look().await.map(|key| key.generation);
    let given = async {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(key) = look().await
                && Some(key.generation) != before
                && key.is_for(attachment.server())
            {
                return;
            }
        }
    };
    tokio::time::timeout(limit, given).await.is_ok()
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
    // He has enough that wait: this client asks again by itself.
    let Some(waiting) = Waiting::take(app, &exchange.caller.user) else {
        return;
    };
    let (app, mut exchange) = (Arc::clone(app), exchange.clone());
    // The user's word is for one call; only an account changes what is listed.
    let lists = !matches!(case.error, CallError::ApprovalRequired { .. });
    // Half an hour is long to keep a message and its bearer.
    exchange.body = Bytes::new();
    exchange.headers.clear();
    tokio::spawn(async move {
        let _waiting = waiting;
        if !mended(&app, &exchange, &case, AFTERWARDS).await {
            return;
        }
        // It may be between two streams: ours ends when the account is there,
        // and the upstream's follows. One that stopped listening asks again
        // when it wants to.
        for _ in 0..LISTENS_AGAIN {
            if app.held.tell(&session, &elicitation, lists).await {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_one_stream_leaves_the_sessions_others() {
        let held = HeldCalls::default();
        let ((first, gone), (second, body)) = (
            countersign_mcp::body::channel(),
            countersign_mcp::body::channel(),
        );
        let one = held.listening("s", first);
        let two = held.listening("s", second);
        held.hung_up("s", one);
        drop(gone);
        let random = countersign_core::ports::fakes::CountingRandom::default();
        let elicitation = Elicitation::new(&random);
        assert!(held.tell("s", &elicitation, true).await);
        held.hung_up("s", two);
        assert!(!held.tell("s", &elicitation, true).await);
        assert!(held.inner().streams.is_empty(), "nothing is kept of it");
        let told = body.collect_up_to(10_000).await.unwrap();
        let told = String::from_utf8(told.to_vec()).unwrap();
        assert!(told.contains(elicitation.id()), "{told}");
        assert!(told.contains("tools/list_changed"), "{told}");
    }

    #[tokio::test]
    async fn a_stream_whose_client_has_gone_is_passed_over() {
        let held = HeldCalls::default();
        let ((first, body), (second, gone)) = (
            countersign_mcp::body::channel(),
            countersign_mcp::body::channel(),
        );
        held.listening("s", first);
        held.listening("s", second);
        drop(gone);
        let random = countersign_core::ports::fakes::CountingRandom::default();
        assert!(held.tell("s", &Elicitation::new(&random), false).await);
        drop(held);
        let told = body.collect_up_to(10_000).await.unwrap();
        let told = String::from_utf8(told.to_vec()).unwrap();
        assert!(told.contains("elicitation/complete"), "{told}");
        assert!(!told.contains("list_changed"), "{told}");
    }

    #[test]
    fn one_user_holds_no_more_than_his_share_and_takes_nothing_from_others() {
        let (anna, bert) = (
            UserName::parse("anna").unwrap(),
            UserName::parse("bert").unwrap(),
        );
        let mut counts = Counts::default();
        let taken = (0..20).filter(|_| counts.take(&anna, PER_USER)).count();
        assert_eq!(taken, PER_USER);
        assert!(counts.take(&bert, PER_USER));
        counts.give_back(&anna);
        assert!(counts.take(&anna, PER_USER));
        assert!(!counts.take(&anna, PER_USER));
        (0..PER_USER).for_each(|_| counts.give_back(&anna));
        counts.give_back(&bert);
        assert!(counts.0.is_empty(), "nothing is kept of who is gone");
    }
}
