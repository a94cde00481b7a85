//! What the proxied path costs in this crate, step by step, in nanoseconds.
//!
//! `cargo run --profile release -p countersign-mcp --example cost`

use std::hint::black_box;

use bytes::Bytes;
use countersign_core::names::{ClientId, TeamName, UserName};
use countersign_core::ports::Random;
use countersign_core::secret::SealKey;
use countersign_core::time::Timestamp;
use countersign_mcp::envelope::{Incoming, Limits, Message, Request, parse};
use countersign_mcp::refusal::result_body;
use countersign_mcp::relay::{self, Rules};
use countersign_mcp::revision::{Revision, of_post};
use countersign_mcp::session::{Binding, Capsule, Capsules};
use countersign_mcp::upstream::{Answer, Kind};
use countersign_mcp::{headers, rewrite};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

const CALL: &str = r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"create_issue","arguments":{"owner":"acme","repo":"rockets","title":"It does not fly","labels":["bug","urgent"],"body":"On the pad, nothing happens.\nTried twice."},"_meta":{"progressToken":7,"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"agent","version":"1.2.3"},"io.modelcontextprotocol/clientCapabilities":{"elicitation":{"form":{},"url":{}}}}}}"#;

struct Zeros;
impl Random for Zeros {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

/// CPU time of this thread in nanoseconds; steadier than a clock on a busy
/// machine. Linux only.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

fn cost<T>(what: &str, mut step: impl FnMut() -> T) {
    const ROUNDS: u32 = 100_000;
    (0..ROUNDS / 10).for_each(|_| drop(black_box(step())));
    let start = cpu_nanos();
    (0..ROUNDS).for_each(|_| drop(black_box(step())));
    println!(
        "{what:<44} {:>7} ns",
        (cpu_nanos() - start) / u64::from(ROUNDS)
    );
}

fn request(body: &[u8]) -> Option<Request<'_>> {
    match parse(body, &Limits::default()) {
        Ok(Incoming::Single(Message::Request(request))) => Some(request),
        _ => None,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let body = Bytes::from_static(CALL.as_bytes());
    let mut from = HeaderMap::new();
    for (name, value) in [
        ("host", "gate.example"),
        ("accept", "application/json, text/event-stream"),
        ("content-type", "application/json"),
        ("authorization", "Bearer cs_mcp_something"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "create_issue"),
        ("user-agent", "node"),
        ("content-length", "500"),
    ] {
        from.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    let limits = Limits::default();
    let incoming = parse(&body, &limits)?;
    let call = request(&body).ok_or("the example is a request")?;
    let message = Message::Request(call.clone());

    cost("envelope::parse (500 bytes)", || {
        parse(&body, &limits).is_ok()
    });
    let large = CALL.replace("Tried twice.", &"Tried \\\"twice\\\". ".repeat(6000));
    cost("envelope::parse (100 kB)", || {
        parse(large.as_bytes(), &limits).is_ok()
    });
    cost("headers::check_post", || headers::check_post(&from).is_ok());
    cost("revision::of_post", || {
        of_post(&from, &incoming, None).is_ok()
    });
    cost("headers::upstream", || {
        headers::upstream(&from, Revision::V2026_07_28, Some(&message), None)
    });

    let (user, team, client) = (
        UserName::parse("anna")?,
        TeamName::parse("blue")?,
        ClientId::parse("agent-1")?,
    );
    let binding = Binding {
        user: &user,
        team: &team,
        client: &client,
        server: "notes",
    };
    let initialize = br#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{"url":{}}},"clientInfo":{"name":"agent","version":"1"}}}"#;
    let begin = request(initialize).ok_or("the example is a request")?;
    let capsule = Capsule::of_initialize(
        &begin,
        Revision::V2025_11_25,
        Timestamp::from_secs(9),
        &Zeros,
    );
    let capsules = Capsules::new(&SealKey::new([1; 32]));
    let mut session = HeaderMap::new();
    session.insert(
        headers::SESSION_ID.clone(),
        capsules.seal(&capsule, &binding, &Zeros),
    );
    cost("session::Capsules::open (2025 only)", || {
        capsules
            .open(&session, &binding, Timestamp::from_secs(1))
            .is_ok()
    });

    let result = result_body(
        "42",
        r#"{"content":[{"type":"text","text":"created #17"}],"resultType":"complete"}"#,
    );
    cost("rewrite::has_unsafe_url", || {
        rewrite::has_unsafe_url(&result).is_ok()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    cost("relay::apply and into_response", || {
        let answer = Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            session: None,
            kind: Kind::Json,
            body: result.clone().into(),
        };
        let rules = Rules::of_request(&call, Revision::V2026_07_28, |_| Bytes::new());
        runtime
            .block_on(relay::apply(answer, rules))
            .map(|a| a.into_response(None))
            .is_ok()
    });
    Ok(())
}
