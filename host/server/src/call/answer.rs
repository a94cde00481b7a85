//! Step 9: a request's answer on its way back, and the whole of one request
//! from step 4 to 10.

use std::sync::Arc;

use bytes::Bytes;
use countersign_core::connection::Connection;
use countersign_core::error::CallError;
use countersign_core::time::Timestamp;
use countersign_mcp::answer::Trouble;
use countersign_mcp::envelope::{Message, Request};
use countersign_mcp::lazy;
use countersign_mcp::relay::{self, Rules};
use countersign_mcp::session::Capsule;
use countersign_mcp::upstream::{Answer, Expects, Kind};
use http::{HeaderValue, Method, Response};

use crate::call::record::Trace;
use crate::call::sessions::{LIFETIME, Session};
use crate::call::{Ask, Exchange, Passed, carry, lists, pass, redact};
use crate::wiring::App;

/// A request's answer with the session id it gives to the client.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) session: Option<HeaderValue>,
}

impl Answered {
    pub(crate) fn into_response(self) -> Response<countersign_mcp::body::AnswerBody> {
        self.answer.into_response(self.session)
    }
}

impl From<Response<countersign_mcp::body::AnswerBody>> for Answered {
    /// An answer of our own, in JSON.
    fn from(response: Response<countersign_mcp::body::AnswerBody>) -> Self {
        let (parts, body) = response.into_parts();
        let answer = Answer {
            status: parts.status,
            headers: parts.headers,
            session: None,
            kind: Kind::Json,
            body,
        };
        Self {
            answer,
            session: None,
        }
    }
}

/// One request: what Countersign answers itself, or what the server answers.
/// It is on record when it has been answered, or what stood in the way.
pub(crate) async fn run(
    app: &Arc<App>,
    exchange: &Exchange,
    request: &Request<'_>,
    body: &Bytes,
) -> Result<Answered, CallError> {
    let message = Message::Request(request.clone());
    let mut trace = Trace::begin(app, exchange, &request.method, Some(&message));
    if carry::is_connect_tool(request)
        && let Some(result) = Box::pin(carry::connect_tool(app, exchange, request)).await
    {
        trace.decided_by("connect tool");
        trace.end(result.as_ref().err());
        return result.map(Answered::from);
    }
    let ask = Ask {
        method: &Method::POST,
        named: &request.method,
        message: Some(&message),
        body,
        expects: Expects::Answer,
    };
    match pass(app, exchange, ask, &mut trace).await {
        Ok(passed) => relayed(app, exchange, request, passed, trace).await,
        Err(error) => {
            trace.end(Some(&error));
            Err(error)
        }
    }
}

/// The upstream's answer on its way back; its end is the end of the call.
async fn relayed(
    app: &Arc<App>,
    exchange: &Exchange,
    request: &Request<'_>,
    passed: Passed,
    trace: Trace,
) -> Result<Answered, CallError> {
    if request.method == "initialize" {
        let result = Box::pin(begun(app, exchange, request, passed)).await;
        trace.end(result.as_ref().err());
        return result;
    }
    let Passed {
        answer,
        attachment,
        connection,
        secrets,
    } = passed;
    if let Some(connection) = &connection
        && !attachment.server().auth.is_obtained()
    {
        note_use(app, connection);
    }
    let mut rules = Rules::of_request(request, exchange.revision, on_fault(exchange, request));
    if redact::guards(&attachment) {
        rules = rules.guarded();
    }
    let listed = lists::Listed {
        attachment: &attachment,
        caller: &exchange.caller,
        revision: exchange.revision,
        method: &request.method,
    };
    // No method has both.
    let redaction = redact::is_for(&attachment, request);
    let filter = if redaction {
        Some(redact::filter(&attachment, request, secrets))
    } else {
        listed.filter(connection, secrets)
    };
    if let Some(filter) = filter {
        rules = rules.with_filter(filter);
    }
    // A stream without a response (`subscriptions/listen`) is on record when
    // it has been opened: it may stay open for hours.
    let result = if answer.kind == Kind::Events && rules.wants_response() {
        let on_end = Box::new(move |end| trace.end_stream(end));
        relay::apply(answer, rules.with_end(on_end)).await
    } else {
        let result = relay::apply(answer, rules).await;
        trace.end(result.as_ref().err().cloned().map(CallError::from).as_ref());
        result
    };
    Ok(Answered {
        answer: result?,
        session: None,
    })
}

/// How stale "last used" may get: it is for people, and a write for each call
/// would cost more than the call.
const USE_NOTED_EVERY: std::time::Duration = std::time::Duration::from_secs(300);

/// Notes that a connection is used, now and then.
fn note_use(app: &Arc<App>, connection: &Connection) {
    let now = app.world.clock.now();
    let stale = |then: Timestamp| now.since(then) >= USE_NOTED_EVERY;
    if !connection.last_used_at.is_none_or(stale) {
        return;
    }
    {
        let mut noted = app
            .noted
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // Entries that are stale anyway are not worth their memory.
        if noted.len() > 10_000 {
            noted.retain(|_, then| !stale(*then));
        }
        if !noted.insert(connection.id.clone(), now).is_none_or(stale) {
            return;
        }
    }
    let (app, key) = (Arc::clone(app), connection.key());
    tokio::spawn(async move {
        if let Err(error) = app.oauth.touch(&key).await {
            tracing::warn!(%error, "the use of a connection could not be noted");
        }
    });
}

/// The error that ends a stream which breaks off before the response.
fn on_fault(
    exchange: &Exchange,
    request: &Request<'_>,
) -> impl FnOnce(countersign_mcp::upstream::UpstreamFault) -> Bytes + Send + use<> {
    let id = request.id.raw().to_owned();
    let (server, call, revision) = (
        exchange.server.clone(),
        exchange.id.clone(),
        exchange.revision,
    );
    move |fault| {
        let error = CallError::from(fault);
        tracing::warn!(%server, call_id = %call, %error, "an upstream's stream broke off");
        let facts = error.facts(&server, None, None, &call);
        Trouble {
            id: &id,
            revision,
            error: &error,
            facts: &facts,
        }
        .rpc_error_body()
    }
}

/// The answer to `initialize`: the client gets a session of ours, with the
/// upstream's behind it.
async fn begun(
    app: &Arc<App>,
    exchange: &Exchange,
    request: &Request<'_>,
    passed: Passed,
) -> Result<Answered, CallError> {
    let Passed {
        mut answer,
        connection,
        ..
    } = passed;
    if answer.kind == Kind::Empty {
        return Ok(Answered {
            answer,
            session: None,
        });
    }
    let given = answer.session.take();
    let streamed = answer.kind == Kind::Events;
    let (status, headers) = (answer.status, answer.headers.clone());
    let response = relay::response_in(answer, request.id.raw(), super::OWN_ANSWER_LIMIT).await?;
    let session = match lazy::negotiated(&response) {
        Ok(negotiated) => {
            let session = new_session(app, request, negotiated.revision);
            let generation = connection.map_or(0, |c| c.generation);
            session.store(app, generation, given).await?;
            Some(seal(app, exchange, &session))
        }
        // A refusal of the upstream's: the client sees it and has no session.
        Err(_) => None,
    };
    let body = if streamed {
        countersign_mcp::sse::message(&response)
    } else {
        response
    };
    let kind = if streamed { Kind::Events } else { Kind::Json };
    Ok(Answered {
        answer: Answer {
            status,
            headers,
            session: None,
            kind,
            body: body.into(),
        },
        session,
    })
}

/// A session for the client that sends this `initialize`.
pub(crate) fn new_session(
    app: &App,
    request: &Request<'_>,
    revision: countersign_mcp::revision::Revision,
) -> Session {
    let ends = app.world.clock.now().plus(LIFETIME);
    Session {
        capsule: Capsule::of_initialize(request, revision, ends, &*app.world.random),
    }
}

/// The session id for the client.
pub(crate) fn seal(app: &App, exchange: &Exchange, session: &Session) -> HeaderValue {
    app.capsules
        .seal(&session.capsule, &exchange.binding(), &*app.world.random)
}
