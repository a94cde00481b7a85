//! The transport against real sockets: what is an answer, and what is a fault.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_core::error::CallError;
use countersign_mcp::batch;
use countersign_mcp::body::AnswerBody;
use countersign_mcp::relay::{self, Rules};
use countersign_mcp::upstream::{
    Answer, Expects, Guard, HttpUpstream, Kind, Outbound, Outcome, Upstream as _, UpstreamConfig,
    UpstreamFault, uri_of,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::request;

struct Open;
impl Guard for Open {
    fn permits(&self, _: &str, _: SocketAddr) -> bool {
        true
    }
}

struct Closed;
impl Guard for Closed {
    fn permits(&self, _: &str, address: SocketAddr) -> bool {
        !address.ip().is_loopback()
    }
}

/// Answers each connection with `pieces`, flushed one by one, then closes; or
/// never closes if `hang`. Returns its address and what the last client sent.
async fn server(pieces: Vec<String>, hang: bool) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&head).contains("\r\n\r\n") {
            let n = stream.read(&mut buffer).await.unwrap();
            head.extend_from_slice(&buffer[..n]);
        }
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
        if hang {
            std::future::pending::<()>().await;
        }
        String::from_utf8(head).unwrap()
    });
    (address, task)
}

fn http(status: &str, content_type: &str, more: &str, body: &str) -> Vec<String> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{more}\r\n{body}",
        body.len()
    );
    vec![head]
}

fn client(guard: impl Guard + 'static) -> HttpUpstream {
    HttpUpstream::new(UpstreamConfig::default(), Arc::new(guard)).unwrap()
}

fn outbound(address: SocketAddr, expects: Expects) -> Outbound {
    let mut headers = HeaderMap::new();
    headers.insert(
        "authorization",
        HeaderValue::from_static("Bearer upstream-token"),
    );
    Outbound {
        method: if expects == Expects::Stream {
            Method::GET
        } else {
            Method::POST
        },
        uri: uri_of(&url::Url::parse(&format!("http://{address}/mcp?x=1#f")).unwrap()).unwrap(),
        headers,
        body: Bytes::from_static(b"{}"),
        expects,
        header_timeout: Duration::from_secs(20),
    }
}

async fn ask(pieces: Vec<String>, expects: Expects) -> Result<Outcome, UpstreamFault> {
    let (address, _task) = server(pieces, false).await;
    client(Open).send(outbound(address, expects)).await
}

async fn answer(pieces: Vec<String>) -> Answer {
    match ask(pieces, Expects::Answer).await {
        Ok(Outcome::Answer(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

const RESPONSE: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;
const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#;

fn rules() -> Rules {
    let request = request(CALL);
    Rules::of_request(
        &request,
        countersign_mcp::revision::Revision::V2026_07_28,
        |fault| format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"message":"{fault}"}}}}"#).into(),
    )
}

async fn text(body: AnswerBody) -> String {
    String::from_utf8(body.collect_up_to(1 << 20).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_json_answer_comes_back_without_what_is_not_the_clients_business() {
    let more = "Mcp-Session-Id: up-1\r\nSet-Cookie: a=b\r\nX-Internal: 1\r\n";
    let (address, seen) = server(http("200 OK", "application/json", more, RESPONSE), false).await;
    let Ok(Outcome::Answer(got)) = client(Open).send(outbound(address, Expects::Answer)).await
    else {
        panic!()
    };
    assert_eq!(
        (got.kind, got.session.as_ref().unwrap()),
        (Kind::Json, &HeaderValue::from_static("up-1"))
    );
    let response = relay::apply(got, rules())
        .await
        .unwrap()
        .into_response(Some(HeaderValue::from_static("ours")));
    let names: Vec<_> = response
        .headers()
        .keys()
        .map(http::HeaderName::as_str)
        .collect();
    assert_eq!(names, ["content-type", "mcp-session-id"]);
    assert_eq!(response.headers()["mcp-session-id"], "ours");
    assert_eq!(text(response.into_body()).await, RESPONSE);
    let sent = seen.await.unwrap().to_ascii_lowercase();
    assert!(sent.starts_with("post /mcp?x=1 http/1.1\r\n"), "{sent}");
    assert!(sent.contains("authorization: bearer upstream-token\r\n"));
}

#[tokio::test]
async fn what_is_not_mcp_is_a_fault_with_a_name() {
    let chunked =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases = [
        (http("200 OK", "text/html", "", "<html>"), UpstreamFault::NotMcp("its answer is neither JSON nor an event stream")),
        (http("200 OK", "application/json", "Content-Encoding: gzip\r\n", "x"), UpstreamFault::NotMcp("its answer is encoded in a way that was not asked for")),
        (http("202 Accepted", "text/plain", "", ""), UpstreamFault::NotMcp("its answer is neither JSON nor an event stream")),
        (http("500 Oops", "text/html", "", "<html>"), UpstreamFault::Status(500)),
        (http("502 Bad", "application/json", "", r#"{"error":"bad gateway"}"#), UpstreamFault::Status(502)),
        (http("302 Found", "text/html", "Location: http://127.0.0.1:1/\r\n", ""), UpstreamFault::Status(302)),
        (http("307 Temporary", "text/html", "Location: https://evil.example/\r\n", ""), UpstreamFault::Status(307)),
        (vec!["HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{\"json".into()], UpstreamFault::BrokenOff),
        (vec!["HTTP/1.1 20".into()], UpstreamFault::BrokenOff),
        (vec!["SSH-2.0-x\r\n".into()], UpstreamFault::BrokenOff),
        (vec![], UpstreamFault::BrokenOff),
    ];
    for (pieces, fault) in cases {
        let shown = pieces.concat();
        let got = ask(pieces, Expects::Answer).await;
        assert_eq!(got.err(), Some(fault), "{shown}");
    }
    let empty = answer(http("200 OK", "application/json", "", "")).await;
    assert!(relay::apply(empty, rules()).await.is_err());
    let cut = answer(vec![chunked.into(), "5\r\n{\"jso".into()]).await;
    assert_eq!(
        relay::apply(cut, rules()).await.err(),
        Some(UpstreamFault::BrokenOff)
    );
    let long = "x".repeat(100_000);
    let large = answer(http("200 OK", "application/json", "", &long)).await;
    let fault = relay::apply(
        large,
        Rules {
            limit: 70_000,
            ..rules()
        },
    )
    .await
    .err();
    assert_eq!(fault, Some(UpstreamFault::TooLarge { limit: 70_000 }));
}

#[tokio::test]
async fn a_json_rpc_error_with_an_http_error_is_an_answer() {
    let body =
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"x","data":{"supported":[]}}}"#;
    for status in [
        "400 Bad Request",
        "404 Not Found",
        "500 Internal Server Error",
    ] {
        let got = answer(http(status, "application/json; charset=utf-8", "", body)).await;
        assert_eq!(got.status.as_str(), &status[..3]);
        assert_eq!(text(got.body).await, body);
    }
    let bare = ask(
        http("404 Not Found", "text/plain", "", "no such session"),
        Expects::Answer,
    )
    .await;
    assert!(matches!(bare, Ok(Outcome::Status(StatusCode::NOT_FOUND))));
    let refused = ask(
        http(
            "405 Method Not Allowed",
            "text/plain",
            "Allow: POST\r\n",
            "",
        ),
        Expects::Stream,
    )
    .await;
    assert!(matches!(
        refused,
        Ok(Outcome::Status(StatusCode::METHOD_NOT_ALLOWED))
    ));
}

#[tokio::test]
async fn an_upstreams_challenge_is_read_and_never_passed_on() {
    let challenge = "WWW-Authenticate: Bearer error=\"insufficient_scope\", scope=\"a b\"\r\n";
    let Ok(Outcome::Forbidden(got)) = ask(
        http("403 Forbidden", "application/json", challenge, "{}"),
        Expects::Answer,
    )
    .await
    else {
        panic!()
    };
    assert!(got.is_insufficient_scope());
    assert_eq!(got.scope.as_deref(), Some("a b"));
    let got = ask(
        http(
            "401 Unauthorized",
            "text/html",
            "WWW-Authenticate: Bearer error=\"invalid_token\"\r\n",
            "",
        ),
        Expects::Stream,
    )
    .await;
    assert!(
        matches!(got, Ok(Outcome::Unauthorized(c)) if c.error.as_deref() == Some("invalid_token"))
    );
}

#[tokio::test]
async fn a_notification_is_acknowledged_whatever_else_came() {
    for (status, body) in [
        ("202 Accepted", ""),
        ("200 OK", "{}"),
        ("204 No Content", ""),
    ] {
        let pieces = if status.starts_with("204") {
            vec!["HTTP/1.1 204 No Content\r\n\r\n".to_owned()]
        } else {
            http(status, "application/json", "", body)
        };
        let Ok(Outcome::Answer(got)) = ask(pieces, Expects::Acknowledgement).await else {
            panic!("{status}")
        };
        assert_eq!((got.status, got.kind), (StatusCode::ACCEPTED, Kind::Empty));
        assert!(text(got.body).await.is_empty());
    }
}

#[tokio::test]
async fn an_upstream_that_hangs_is_a_timeout() {
    for pieces in [
        vec![],
        vec![
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
                .to_owned(),
        ],
    ] {
        let (address, task) = server(pieces, true).await;
        let mut request = outbound(address, Expects::Answer);
        request.header_timeout = Duration::from_millis(100);
        let got = client(Open).send(request).await;
        assert_eq!(got.err(), Some(UpstreamFault::Timeout));
        task.abort();
    }
    assert_eq!(
        CallError::from(UpstreamFault::Timeout),
        CallError::UpstreamTimeout
    );
}

#[tokio::test]
async fn an_address_the_guard_refuses_is_never_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433"] {
        let mut request = outbound(listener.local_addr().unwrap(), Expects::Answer);
        request.uri = format!("http://{host}:{port}/mcp").parse().unwrap();
        let got = client(Closed).send(request).await.err();
        let refused = matches!(
            got,
            Some(UpstreamFault::ForbiddenAddress | UpstreamFault::Unreachable)
        );
        assert!(refused, "{host}: {got:?}");
    }
    let connected = tokio::time::timeout(Duration::from_millis(20), listener.accept()).await;
    assert!(connected.is_err(), "somebody connected");
    assert!(uri_of(&url::Url::parse("file:///etc/passwd").unwrap()).is_err());
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let got = client(Open).send(outbound(address, Expects::Answer)).await;
    assert_eq!(got.err(), Some(UpstreamFault::Unreachable));
}

#[tokio::test]
async fn a_stream_passes_event_by_event_before_it_ends() {
    use http_body_util::BodyExt as _;
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let event = "data: {\"method\":\"notifications/progress\"}\n\n";
    let pieces = vec![head.to_owned(), format!("{:x}\r\n{event}\r\n", event.len())];
    let (address, task) = server(pieces, true).await;
    let Ok(Outcome::Answer(got)) = client(Open).send(outbound(address, Expects::Answer)).await
    else {
        panic!()
    };
    assert_eq!(got.headers["x-accel-buffering"], "no");
    let mut body = relay::apply(got, rules()).await.unwrap().body;
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, event);
    // The upstream goes away in the middle: the client is told.
    task.abort();
    let rest = text(body).await;
    assert_eq!(
        rest,
        "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"message\":\"the connection broke off\"}}\n\n"
    );
}

#[tokio::test]
async fn connections_are_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut served = 0;
        let mut buffer = [0; 4096];
        while served < 3 {
            let n = stream.read(&mut buffer).await.unwrap();
            assert!(n > 0);
            stream
                .write_all(
                    http("200 OK", "application/json", "", RESPONSE)
                        .concat()
                        .as_bytes(),
                )
                .await
                .unwrap();
            served += 1;
        }
        served
    });
    let client = client(Open);
    for _ in 0..3 {
        let got = client.send(outbound(address, Expects::Answer)).await;
        assert!(matches!(got, Ok(Outcome::Answer(_))), "{got:?}");
    }
    assert_eq!(task.await.unwrap(), 3);
}

#[tokio::test]
async fn a_batch_is_answered_together() {
    let json = |body: &'static str| Answer {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        session: None,
        kind: Kind::Json,
        body: Bytes::from_static(body.as_bytes()).into(),
    };
    let events = |body: &'static str| Answer {
        kind: Kind::Events,
        ..json(body)
    };
    let empty = || Answer {
        kind: Kind::Empty,
        ..json("")
    };
    let all = batch::combine(
        vec![json(r#"{"id":1}"#), empty(), json(r#"{"id":2}"#)],
        1000,
    )
    .await
    .unwrap();
    assert_eq!(text(all.into_body()).await, r#"[{"id":1},{"id":2}]"#);
    let mixed = batch::combine(
        vec![json(r#"{"id":1}"#), events("data: {\"id\":2}\n\n")],
        1000,
    )
    .await
    .unwrap();
    assert_eq!(mixed.headers()["content-type"], "text/event-stream");
    let mixed = text(mixed.into_body()).await;
    assert!(
        mixed.contains("data: {\"id\":1}\n\n") && mixed.contains("data: {\"id\":2}\n\n"),
        "{mixed}"
    );
    assert_eq!(
        batch::combine(vec![empty()], 1000).await.unwrap().status(),
        StatusCode::ACCEPTED
    );
}

#[test]
fn a_request_shows_neither_its_credential_nor_its_query() {
    let shown = format!(
        "{:?}",
        outbound("127.0.0.1:1".parse().unwrap(), Expects::Answer)
    );
    assert!(
        !shown.contains("upstream-token") && !shown.contains("x=1"),
        "{shown}"
    );
}
