//! GET and DELETE of clients with sessions: the listening stream, and its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_core::error::CallError;
use countersign_mcp::answer::{Trouble, tools_list_changed};
use countersign_mcp::body::{AnswerBody, EventSender, channel, event_stream};
use countersign_mcp::relay::{self, Rules};
use countersign_mcp::upstream::{Expects, Kind};
use http::{Method, Response, StatusCode};

use crate::call::carry::Case;
use crate::call::record::Trace;
use crate::call::{Ask, Exchange, held, pass, redact};
use crate::wiring::App;

/// How often a stream without an upstream is kept alive.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long such a stream stays open; clients open another.
const LONGEST: Duration = Duration::from_secs(3600);

/// Opens the upstream's stream for this client; or, while an account is
/// missing, one of our own that tells when it is there.
pub(crate) async fn open(app: &Arc<App>, exchange: &Exchange) -> Response<AnswerBody> {
    let mut trace = Trace::begin(app, exchange, "GET", None);
    let result = pass(
        app,
        exchange,
        ask(&Method::GET, Expects::Stream),
        &mut trace,
    )
    .await;
    // The stream may stay open for hours: that it was opened is on record now.
    trace.end(result.as_ref().err());
    let (answer, rules) = match result {
        Ok(passed) if redact::guards(&passed.attachment) => {
            (passed.answer, Rules::of_stream().guarded())
        }
        Ok(passed) => (passed.answer, Rules::of_stream()),
        Err(error) if error.wants_user() && exchange.session.is_some() => {
            return wait(app, exchange, error);
        }
        Err(error) => return failed(exchange, &error),
    };
    if answer.kind != Kind::Events {
        return answer.into_response(None);
    }
    let answer = match relay::apply(answer, rules).await {
        Ok(answer) => answer,
        Err(fault) => return failed(exchange, &fault.into()),
    };
    let Some(session) = exchange.session.as_ref().map(|s| s.capsule.id.clone()) else {
        return answer.into_response(None);
    };
    let (stream, body) = channel();
    let number = app.held.listening(&session, stream.clone());
    let app = Arc::clone(app);
    tokio::spawn(async move {
        tokio::select! {
            _ = stream.forward(true, answer.body) => {}
            () = stream.closed() => {}
        }
        app.held.hung_up(&session, number);
    });
    event_stream(body)
}

fn wait(app: &Arc<App>, exchange: &Exchange, error: CallError) -> Response<AnswerBody> {
    let Some(waiting) = held::Waiting::take(app, &exchange.caller.user) else {
        let retry_after = Duration::from_secs(60);
        return failed(exchange, &CallError::Busy { retry_after });
    };
    let (stream, body) = channel();
    let (app, exchange) = (Arc::clone(app), exchange.clone());
    let session = exchange.session.as_ref().map(|s| s.capsule.id.clone());
    tokio::spawn(async move {
        let _waiting = waiting;
        // Calls that gave up tell their end here, too.
        let listening = session.map(|s| (app.held.listening(&s, stream.clone()), s));
        wait_on(&app, &exchange, error, &stream).await;
        if let Some((number, session)) = listening {
            app.held.hung_up(&session, number);
        }
    });
    event_stream(body)
}

/// Until the account is there, or the client has gone.
async fn wait_on(app: &Arc<App>, exchange: &Exchange, error: CallError, stream: &EventSender) {
    let case = Case::without_link(app, exchange, error);
    let done = held::mended(app, exchange, &case, LONGEST);
    tokio::pin!(done);
    loop {
        tokio::select! {
            mended = &mut done => {
                if mended {
                    let _ = stream.message(&tools_list_changed()).await;
                }
                return;
            }
            () = stream.closed() => return,
            () = tokio::time::sleep(HEARTBEAT) => {
                if stream.keep_alive().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Ends the client's session, and the upstream's behind it.
pub(crate) async fn end(app: &Arc<App>, exchange: &Exchange) -> Response<AnswerBody> {
    let mut trace = Trace::begin(app, exchange, "DELETE", None);
    let result = pass(
        app,
        exchange,
        ask(&Method::DELETE, Expects::End),
        &mut trace,
    )
    .await;
    trace.end(result.as_ref().err());
    if let Some(session) = &exchange.session
        && let Err(error) = session.forget(app).await
    {
        return failed(exchange, &error);
    }
    match result {
        Ok(passed) => passed.answer.into_response(None),
        // Nothing was begun upstream: ours has ended, and that is all there was.
        Err(error) if error.wants_user() => {
            let mut response = Response::new(AnswerBody::from(Bytes::new()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Err(error) => failed(exchange, &error),
    }
}

static NOTHING: Bytes = Bytes::from_static(b"");

fn ask(method: &Method, expects: Expects) -> Ask<'_> {
    Ask {
        method,
        named: method.as_str(),
        message: None,
        body: &NOTHING,
        expects,
    }
}

fn failed(exchange: &Exchange, error: &CallError) -> Response<AnswerBody> {
    let facts = error.facts(&exchange.server, None, None, &exchange.id);
    let trouble = Trouble {
        id: "null",
        revision: exchange.revision,
        error,
        facts: &facts,
    };
    let mut response = trouble.rpc_error().map(AnswerBody::from);
    if response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::BAD_GATEWAY;
    }
    response
}
