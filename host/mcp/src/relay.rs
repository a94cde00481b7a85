//! Looks at what an upstream answers while it passes by: unbuffered, event by
//! event, unchanged unless a rule says otherwise.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::body::AnswerBody;
use crate::envelope::Request;
use crate::redact::{Beside, beside};
use crate::revision::{Era, Revision};
use crate::rewrite::{Filter, has_unsafe_url};
use crate::sse::{self, Event, Parser};
use crate::upstream::{Answer, Kind, UpstreamFault};

/// Turns a fault into the JSON-RPC error that ends the client's stream.
pub type OnFault = Box<dyn FnOnce(UpstreamFault) -> Bytes + Send>;

/// How the stream that answers a request came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEnd {
    /// The response has been passed on.
    Answered,
    /// The upstream closed the stream properly before the response: the client
    /// comes back for the rest (2025).
    HandedOver,
    /// The stream could not be brought to its end.
    Broken(UpstreamFault),
    /// The client hung up before the response.
    ClientGone,
}

/// Told once, as soon as the end of an answer is known.
pub type OnEnd = Box<dyn FnOnce(StreamEnd) + Send>;

/// What is done with an answer on its way back.
pub struct Rules {
    /// The id (raw JSON) that has to be answered; none for streams that end
    /// without a response (GET, `subscriptions/listen`).
    pub pending: Option<Box<str>>,
    /// Whether a client can resume a stream (2025): if an upstream closes one
    /// properly after an event with an id, the client comes back for the rest.
    pub resumable: bool,
    /// Rewrites the response, for example a list of tools.
    pub filter: Option<Filter>,
    /// Results here are redacted: nothing else passes that could hold what is
    /// taken out of them, and no stream is resumed.
    pub guarded: bool,
    /// Of a JSON answer or of one event, in bytes.
    pub limit: usize,
    /// What the client is told if the stream cannot be brought to its end.
    pub on_fault: OnFault,
    /// Who else wants to know how the stream of a request ended.
    pub on_end: Option<OnEnd>,
}

/// The default of [`Rules::limit`].
pub const DEFAULT_LIMIT: usize = 32 << 20;

impl Rules {
    /// For the answer to a request; `on_fault` gives the error for its id.
    #[must_use]
    pub fn of_request(
        request: &Request<'_>,
        revision: Revision,
        on_fault: impl FnOnce(UpstreamFault) -> Bytes + Send + 'static,
    ) -> Self {
        let endless = request.method == "subscriptions/listen";
        Self {
            pending: (!endless).then(|| request.id.raw().into()),
            resumable: revision.era() == Era::Sessions,
            filter: None,
            guarded: false,
            limit: DEFAULT_LIMIT,
            on_fault: Box::new(on_fault),
            on_end: None,
        }
    }

    /// For a stream that answers nothing: a GET.
    #[must_use]
    pub fn of_stream() -> Self {
        Self {
            pending: None,
            resumable: true,
            filter: None,
            guarded: false,
            limit: DEFAULT_LIMIT,
            on_fault: Box::new(|_| Bytes::new()),
            on_end: None,
        }
    }

    /// Whether the answer has to hold a response.
    #[must_use]
    pub fn wants_response(&self) -> bool {
        self.pending.is_some()
    }

    /// Tells how the stream ended, also if nobody reads it to its end.
    #[must_use]
    pub fn with_end(mut self, on_end: OnEnd) -> Self {
        self.on_end = Some(on_end);
        self
    }

    /// Of an upstream whose results are redacted.
    #[must_use]
    pub fn guarded(mut self) -> Self {
        self.guarded = true;
        self.resumable = false;
        self
    }

    /// With a filter for the response.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }
}

/// Applies the rules: a JSON answer is read and looked at now, a stream while
/// it passes.
///
/// # Errors
/// [`UpstreamFault`] for a JSON answer that breaks off, is too large, is not
/// what it should be, or asks the user to open an unsafe address.
pub async fn apply(mut answer: Answer, mut rules: Rules) -> Result<Answer, UpstreamFault> {
    match answer.kind {
        Kind::Empty => Ok(answer),
        Kind::Events => {
            answer.body = Relay::new(answer.body, rules).into();
            Ok(answer)
        }
        Kind::Json => {
            let body = std::mem::replace(&mut answer.body, Bytes::new().into());
            let mut json = body.collect_up_to(rules.limit).await?;
            if json.is_empty() {
                return Err(UpstreamFault::NotMcp("its answer is empty"));
            }
            if let Some(id) = rules.pending.as_deref()
                && !answers(&json, id)
                && !is_error_about_nothing(&json)
            {
                return Err(UpstreamFault::NotMcp(
                    "its answer is not the response to this request",
                ));
            }
            if has_unsafe_url(&json)? {
                return Err(UpstreamFault::UnsafeUrl);
            }
            if let Some(filter) = &mut rules.filter
                && let Some(other) = filter(&json)?
            {
                json = other;
            }
            answer.body = json.into();
            Ok(answer)
        }
    }
}

/// Reads an answer to its end and returns the response in it, whether it came
/// as JSON or in a stream: for requests that the host itself sends.
///
/// # Errors
/// [`UpstreamFault`] if there is none within `limit` bytes.
pub async fn response_in(answer: Answer, id: &str, limit: usize) -> Result<Bytes, UpstreamFault> {
    let json = match answer.kind {
        Kind::Empty => return Err(UpstreamFault::NotMcp("its answer is empty")),
        Kind::Json => return answer.body.collect_up_to(limit).await,
        Kind::Events => answer.body,
    };
    use http_body_util::BodyExt as _;
    let mut body = json;
    let mut parser = Parser::new(limit);
    let mut found = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| UpstreamFault::BrokenOff)?.into_data() else {
            continue;
        };
        let look = |event: Event| {
            let data = event.data.unwrap_or_default();
            if found.is_none() && answers(&data, id) {
                found = Some(data);
            }
        };
        parser
            .push(data, look)
            .map_err(|_| UpstreamFault::TooLarge { limit })?;
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err(UpstreamFault::BrokenOff)
}

/// Whether a message (or a batch) holds the response to this id.
fn answers(json: &[u8], id: &str) -> bool {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
        method: Option<IgnoredAny>,
    }
    let fits = |head: &Head<'_>| {
        head.method.is_none() && head.id.is_some_and(|found| same_id(found.get(), id))
    };
    match json.first() {
        Some(b'[') => {
            serde_json::from_slice::<Vec<Head<'_>>>(json).is_ok_and(|all| all.iter().any(fits))
        }
        Some(_) => serde_json::from_slice::<Head<'_>>(json).is_ok_and(|head| fits(&head)),
        None => false,
    }
}

/// Whether this is an error with no id, or a null one: of a server that could
/// not say which request it is about (JSON-RPC 2.0 §5).
fn is_error_about_nothing(json: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Head {
        id: Option<IgnoredAny>,
        #[serde(rename = "error")]
        _error: IgnoredAny,
    }
    serde_json::from_slice::<Head>(json).is_ok_and(|head| head.id.is_none())
}

/// Whether two ids are equal as JSON, however they are written.
fn same_id(a: &str, b: &str) -> bool {
    let value = |raw| serde_json::from_str::<serde_json::Value>(raw).ok();
    a == b || value(a).is_some_and(|a| Some(a) == value(b))
}

/// An upstream's event stream on its way to the client.
pub struct Relay {
    source: Option<AnswerBody>,
    parser: Parser,
    ready: VecDeque<Bytes>,
    rules: Rules,
    on_fault: Option<OnFault>,
    had_id: bool,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("pending", &self.rules.pending)
            .finish_non_exhaustive()
    }
}

impl Relay {
    /// Looks at this stream by these rules.
    #[must_use]
    pub fn new(source: AnswerBody, mut rules: Rules) -> Self {
        let on_fault = std::mem::replace(&mut rules.on_fault, Box::new(|_| Bytes::new()));
        Self {
            source: Some(source),
            parser: Parser::new(rules.limit),
            ready: VecDeque::new(),
            rules,
            on_fault: Some(on_fault),
            had_id: false,
        }
    }

    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Poll::Ready(Some(bytes));
            }
            let Some(source) = &mut self.source else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(source).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(chunk) = frame.into_data() {
                        self.take(chunk);
                    }
                }
                Some(Err(_)) => self.fail(UpstreamFault::BrokenOff),
                None => self.finish(),
            }
        }
    }

    fn take(&mut self, chunk: Bytes) {
        let mut events = Vec::with_capacity(2);
        let outcome = self.parser.push(chunk, |event| events.push(event));
        for event in events {
            if let Err(fault) = self.look(event) {
                return self.fail(fault);
            }
        }
        if let Err(too_long) = outcome {
            self.fail(UpstreamFault::TooLarge {
                limit: too_long.limit,
            });
        }
    }

    fn look(&mut self, mut event: Event) -> Result<(), UpstreamFault> {
        self.had_id |= event.has_id;
        let data = event.data.as_ref().filter(|d| !d.is_empty());
        if let Some(data) = data {
            if has_unsafe_url(data)? {
                return Err(UpstreamFault::UnsafeUrl);
            }
            let pending = self.rules.pending.as_deref();
            if pending.is_some_and(|id| answers(data, id)) {
                // Only a response that is passed on counts: one that has to be
                // withheld is replaced by the error.
                let other = match &mut self.rules.filter {
                    Some(filter) => filter(data)?,
                    None => None,
                };
                self.rules.pending = None;
                self.end(StreamEnd::Answered);
                let event = match other {
                    Some(other) => sse::with_data(&event, &other),
                    None => event.raw,
                };
                self.ready.push_back(event);
                return Ok(());
            }
            if self.rules.guarded {
                match beside(data) {
                    Beside::Whole => {}
                    Beside::Less(less) => {
                        event.raw = sse::with_data(&event, &less);
                        event.data = Some(less);
                    }
                    Beside::Nothing => return Ok(()),
                }
            }
        }
        if self.rules.guarded && event.has_id {
            self.ready.extend(sse::without_id(&event));
        } else {
            self.ready.push_back(event.raw);
        }
        Ok(())
    }

    /// The upstream ended its stream properly.
    fn finish(&mut self) {
        if let Some(event) = self.parser.finish()
            && let Err(fault) = self.look(event)
        {
            return self.fail(fault);
        }
        if self.rules.resumable && self.had_id {
            self.source = None;
            self.end(StreamEnd::HandedOver);
        } else {
            self.fail(UpstreamFault::BrokenOff);
        }
    }

    /// Ends the stream, with an error if its request was not answered yet.
    fn fail(&mut self, fault: UpstreamFault) {
        self.source = None;
        self.end(StreamEnd::Broken(fault.clone()));
        if self.rules.pending.take().is_some()
            && let Some(on_fault) = self.on_fault.take()
        {
            let error = on_fault(fault);
            if !error.is_empty() {
                self.ready.push_back(sse::message(&error));
            }
        }
    }

    /// Only the first end counts.
    fn end(&mut self, end: StreamEnd) {
        if let Some(on_end) = self.rules.on_end.take() {
            on_end(end);
        }
    }
}

impl Drop for Relay {
    /// Nobody reads on: the client has hung up.
    fn drop(&mut self) {
        self.end(StreamEnd::ClientGone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::channel;

    fn rules(resumable: bool) -> Rules {
        Rules {
            pending: Some("1".into()),
            resumable,
            filter: None,
            guarded: false,
            limit: 1000,
            on_fault: Box::new(|fault| Bytes::from(format!("{{\"fault\":\"{fault}\"}}"))),
            on_end: None,
        }
    }

    async fn relayed(stream: &'static str, rules: Rules) -> String {
        let body = AnswerBody::from(Bytes::from_static(stream.as_bytes()));
        let out = AnswerBody::from(Relay::new(body, rules))
            .collect_up_to(10_000)
            .await
            .unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_answered_stream_passes_unchanged() {
        for stream in [
            ": ping\n\nevent: message\nid: 3\ndata: {\"method\":\"notifications/progress\"}\n\nevent: message\ndata: {\"id\":1,\"result\":{}}\n\n",
            "data: {\"id\":1,\ndata: \"error\":{}}\r\n\r\n",
            "data: [{\"id\":2,\"result\":{}},{\"id\":1,\"result\":{}}]\n\n",
        ] {
            assert_eq!(relayed(stream, rules(false)).await, stream);
        }
    }

    #[tokio::test]
    async fn a_stream_that_ends_unanswered_ends_with_an_error() {
        let stream = "data: {\"method\":\"notifications/progress\"}\n\ndata: {\"id\":1,\"method\":\"ping\"}\n\ndata: {\"id\":1,\"resu";
        let expected = "data: {\"method\":\"notifications/progress\"}\n\ndata: {\"id\":1,\"method\":\"ping\"}\n\nevent: message\ndata: {\"fault\":\"the connection broke off\"}\n\n";
        assert_eq!(relayed(stream, rules(true)).await, expected);
        // Closed properly after an id: a client of 2025 resumes there.
        let polling = "id: 1\ndata: \n\nretry: 10\n\n";
        assert_eq!(relayed(polling, rules(true)).await, polling);
        assert!(relayed(polling, rules(false)).await.contains("fault"));
    }

    #[tokio::test]
    async fn a_filter_rewrites_the_response_only_and_keeps_its_event_id() {
        let filter: Filter =
            Box::new(|_| Ok(Some(Bytes::from_static(b"{\"id\":1,\"result\":\"less\"}"))));
        let stream = "data: {\"method\":\"x\"}\n\nid: 9\ndata: {\"id\":1,\"result\":\"more\"}\n\n";
        let expected =
            "data: {\"method\":\"x\"}\n\nid: 9\ndata: {\"id\":1,\"result\":\"less\"}\n\n";
        assert_eq!(
            relayed(stream, rules(false).with_filter(filter)).await,
            expected
        );
    }

    #[tokio::test]
    async fn a_response_that_cannot_be_filtered_is_withheld() {
        let filter: Filter = Box::new(|_| Err(UpstreamFault::NotMcp("bad list")));
        let stream = "data: {\"id\":1,\"result\":\"secret\"}\n\n";
        let out = relayed(stream, rules(false).with_filter(filter)).await;
        assert_eq!(out, "event: message\ndata: {\"fault\":\"bad list\"}\n\n");
    }

    #[tokio::test]
    async fn beside_a_redacted_result_nothing_passes_that_nobody_looked_through() {
        let filter: Filter =
            Box::new(|_| Ok(Some(Bytes::from_static(b"{\"id\":1,\"result\":\"less\"}"))));
        let stream = "id: 1\ndata: \n\n: ping\n\nid: 2\nevent: message\ndata: {\"method\":\"notifications/progress\"}\n\nid: 5\ndata: {\"method\":\"notifications/progress\",\"params\":{\"progress\":1,\"message\":\"secret\"}}\n\ndata: {\"method\":\"notifications/message\",\"params\":\"secret\"}\n\ndata: {\"id\":2,\"result\":\"secret\"}\n\nid: 9\ndata: {\"id\":1,\"result\":\"secret\"}\n\ndata: {\"id\":1,\"result\":\"secret\"}\n\n";
        let expected = ": ping\n\nevent: message\ndata: {\"method\":\"notifications/progress\"}\n\ndata: {\"method\":\"notifications/progress\",\"params\":{\"progress\":1}}\n\nid: 9\ndata: {\"id\":1,\"result\":\"less\"}\n\n";
        let guarded = rules(true).guarded().with_filter(filter);
        assert_eq!(relayed(stream, guarded).await, expected);
        // Nobody resumes a stream whose rest nobody would look through.
        let polling = "id: 1\ndata: \n\nretry: 10\n\n";
        let ended = relayed(polling, rules(true).guarded()).await;
        assert!(ended.contains("fault"), "{ended}");
    }

    #[tokio::test]
    async fn an_unsafe_url_ends_the_stream() {
        let stream = "data: {\"id\":5,\"method\":\"elicitation/create\",\"params\":{\"mode\":\"url\",\"url\":\"javascript:x\"}}\n\n";
        assert!(
            relayed(stream, rules(true))
                .await
                .starts_with("event: message\ndata: {\"fault\":\"it asked")
        );
    }

    #[tokio::test]
    async fn an_unsafe_url_in_a_json_answer_is_a_fault() {
        let answer = Answer {
            status: http::StatusCode::OK,
            headers: http::HeaderMap::new(),
            session: None,
            kind: Kind::Json,
            body: Bytes::from_static(br#"{"id":1,"error":{"code":-32042,"message":"m","data":{"elicitations":[{"mode":"url","url":"file:///x"}]}}}"#).into(),
        };
        assert_eq!(
            apply(answer, rules(false)).await.err(),
            Some(UpstreamFault::UnsafeUrl)
        );
    }

    #[tokio::test]
    async fn after_the_response_nothing_is_answered_twice() {
        let stream = "data: {\"id\":1,\"result\":{}}\n\ndata: {\"id\":5,\"method\":\"elicitation/create\",\"params\":{\"mode\":\"url\",\"url\":\"javascript:x\"}}\n\n";
        assert_eq!(
            relayed(stream, rules(true)).await,
            "data: {\"id\":1,\"result\":{}}\n\n"
        );
    }

    #[tokio::test]
    async fn the_end_of_a_stream_is_told_once_however_it_comes() {
        let answered = "data: {\"id\":1,\"result\":{}}\n\n";
        let after = "data: {\"id\":1,\"result\":{}}\n\ndata: {\"id\":5,\"resu";
        let cases = [
            (answered, false, StreamEnd::Answered),
            (after, false, StreamEnd::Answered),
            ("id: 1\ndata: \n\n", true, StreamEnd::HandedOver),
            (
                "data: {\"method\":\"x\"}\n\n",
                true,
                StreamEnd::Broken(UpstreamFault::BrokenOff),
            ),
        ];
        for (stream, resumable, expected) in cases {
            let (told, hears) = std::sync::mpsc::channel();
            let on_end: OnEnd = Box::new(move |end| told.send(end).unwrap());
            relayed(stream, rules(resumable).with_end(on_end)).await;
            assert_eq!(hears.iter().collect::<Vec<_>>(), [expected], "{stream}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_on_has_ended_too() {
        let (told, hears) = std::sync::mpsc::channel();
        let (_upstream, body) = channel();
        let on_end: OnEnd = Box::new(move |end| told.send(end).unwrap());
        let relay = Relay::new(body, rules(true).with_end(on_end));
        assert!(hears.try_recv().is_err());
        drop(relay);
        assert_eq!(hears.try_recv(), Ok(StreamEnd::ClientGone));
    }

    #[tokio::test]
    async fn an_oversized_event_ends_the_stream() {
        let stream: &'static str =
            Box::leak(format!("data: {}\n\n", "x".repeat(2000)).into_boxed_str());
        // A whole event in one piece passes the parser; a growing one does not.
        let (sender, body) = channel();
        let feed = tokio::spawn(async move {
            for piece in stream.as_bytes().chunks(600) {
                let piece = AnswerBody::from(Bytes::from_static(piece));
                if sender.forward(true, piece).await.is_err() {
                    return;
                }
            }
        });
        let out = AnswerBody::from(Relay::new(body, rules(false)))
            .collect_up_to(10_000)
            .await
            .unwrap();
        assert_eq!(
            out,
            "event: message\ndata: {\"fault\":\"its answer is larger than 1000 bytes\"}\n\n"
        );
        feed.await.unwrap();
    }

    #[tokio::test]
    async fn the_hosts_own_request_finds_its_response_in_a_stream() {
        let stream = "data: {\"method\":\"x\"}\n\ndata: {\"id\":\"a\\u0062\",\"result\":{}}\n\n";
        let answer = Answer {
            status: http::StatusCode::OK,
            headers: http::HeaderMap::new(),
            session: None,
            kind: Kind::Events,
            body: Bytes::from_static(stream.as_bytes()).into(),
        };
        let found = response_in(answer, "\"ab\"", 1000).await.unwrap();
        assert_eq!(found, "{\"id\":\"a\\u0062\",\"result\":{}}");
    }
}
