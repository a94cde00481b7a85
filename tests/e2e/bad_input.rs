//! Whatever comes in is parsed or refused: a named error, an audit event, and
//! the next call works.

use anyhow::Result;
use countersign_tests::{Agent, Era, Setup, Web, World};
use reqwest::Method;
use serde_json::{Value, json};

async fn works(agent: &mut Agent, after: &str) -> Result<()> {
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(
        reply.text(),
        "ada-at-vendor",
        "after {after}: {} {}",
        reply.status,
        reply.message
    );
    Ok(())
}

/// A request with a body of our own making.
async fn raw(agent: &Agent, body: Vec<u8>, headers: &[(&str, &str)]) -> Result<(u16, Value)> {
    let mut request = agent
        .bare(Method::POST)
        .header("content-type", "application/json")
        .body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = Web::send(request).await?;
    Ok((answer.status, answer.json()))
}

fn call(params: &str) -> Vec<u8> {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"}}"#;
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{params},{meta}}}}}"#)
        .into_bytes()
}

const GOOD: [(&str, &str); 3] = [
    ("mcp-protocol-version", "2026-07-28"),
    ("mcp-method", "tools/call"),
    ("mcp-name", "whoami"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_json_rpc_is_refused_and_nothing_is_sent() -> Result<()> {
    let world = World::start().await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let whole = call(r#""name":"whoami","arguments":{}"#);
    let deep = format!(
        r#""name":"whoami","arguments":{}{}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("half of it", whole[..whole.len() / 2].to_vec()),
        ("text", b"hello".to_vec()),
        ("a number", b"17".to_vec()),
        (
            "not UTF-8",
            vec![b'{', b'"', 0xff, 0xfe, b'"', b':', b'1', b'}'],
        ),
        (
            "a member twice",
            call(r#""name":"whoami","name":"erase_notes","arguments":{}"#),
        ),
        (
            "arguments twice",
            call(r#""name":"whoami","arguments":{},"arguments":{"a":1}"#),
        ),
        (
            "a member twice, escaped",
            call(r#""name":"whoami","n\u0061me":"erase_notes","arguments":{}"#),
        ),
        (
            "a name that is a number",
            call(r#""name":7,"arguments":{}"#),
        ),
        ("too deep", call(&deep)),
        (
            "something behind it",
            [whole.clone(), b" {}".to_vec()].concat(),
        ),
        (
            "version 1.0",
            br#"{"jsonrpc":"1.0","id":1,"method":"tools/call","params":{}}"#.to_vec(),
        ),
        (
            "no method",
            br#"{"jsonrpc":"2.0","id":1,"params":{}}"#.to_vec(),
        ),
        (
            "an id that is an object",
            br#"{"jsonrpc":"2.0","id":{},"method":"tools/call","params":{}}"#.to_vec(),
        ),
    ];
    for (name, body) in cases {
        let (status, answer) = raw(&agent, body, &GOOD).await?;
        assert_eq!(status, 400, "{name}: {answer}");
        assert!(answer["error"]["code"].is_number(), "{name}: {answer}");
    }
    assert_eq!(world.upstream.calls_of("whoami").await?, 0);
    assert_eq!(world.upstream.calls_of("erase_notes").await?, 0);
    works(&mut agent, "bad bodies").await
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_say_another_thing_than_the_body_are_refused() -> Result<()> {
    let world = World::start().await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let body = call(r#""name":"whoami","arguments":{}"#);
    let version = ("mcp-protocol-version", "2026-07-28");
    let (method, name) = (("mcp-method", "tools/call"), ("mcp-name", "whoami"));
    let unknown = ("mcp-protocol-version", "1999-01-01");
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Headers, i64); 5] = [
        (
            "another tool",
            &[version, method, ("mcp-name", "erase_notes")],
            -32020,
        ),
        (
            "another method",
            &[version, ("mcp-method", "tools/list"), name],
            -32020,
        ),
        ("no method", &[version, name], -32020),
        ("no name", &[version, method], -32020),
        ("an unknown version", &[unknown, method, name], -32022),
    ];
    for (what, headers, code) in cases {
        let mut body = body.clone();
        if code == -32022 {
            body = String::from_utf8(body)?
                .replace("2026-07-28", "1999-01-01")
                .into_bytes();
        }
        let (status, answer) = raw(&agent, body, headers).await?;
        assert_eq!(status, 400, "{what}: {answer}");
        assert_eq!(answer["error"]["code"], code, "{what}: {answer}");
    }
    assert_eq!(world.upstream.calls_of("whoami").await?, 0);
    works(&mut agent, "bad headers").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_before_it_is_read() -> Result<()> {
    let world = World::start().await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let huge = format!(
        r#""name":"whoami","arguments":{{"text":"{}"}}"#,
        "x".repeat(64 << 20)
    );
    // The host may hang up on who goes on sending.
    match raw(&agent, call(&huge), &GOOD).await {
        Ok((status, answer)) => assert_eq!(status, 413, "{answer}"),
        Err(error) => assert!(error.downcast_ref::<reqwest::Error>().is_some(), "{error}"),
    }
    assert_eq!(world.upstream.calls_of("whoami").await?, 0);
    works(&mut agent, "a huge body").await
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_origins_hosts_and_content_types_are_refused() -> Result<()> {
    let world = World::start().await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let body = call(r#""name":"whoami","arguments":{}"#);
    let cases: [(&str, &str, &[u16]); 3] = [
        ("origin", "https://evil.example", &[403]),
        ("host", "evil.example", &[403, 421, 400]),
        ("accept", "text/html", &[406]),
    ];
    for (header, value, expected) in cases {
        let mut request = agent.bare(Method::POST).body(body.clone());
        for (name, value) in GOOD {
            request = request.header(name, value);
        }
        let mut request = request.header("content-type", "application/json").build()?;
        request.headers_mut().insert(
            reqwest::header::HeaderName::from_static(header),
            value.parse()?,
        );
        let status = Web::new()?
            .client()
            .execute(request)
            .await?
            .status()
            .as_u16();
        assert!(
            expected.contains(&status),
            "{header}: {value} gave {status}"
        );
    }
    let request = agent
        .bare(Method::POST)
        .header("content-type", "text/plain")
        .body(body);
    assert_eq!(Web::send(request).await?.status, 415);
    assert_eq!(world.upstream.calls_of("whoami").await?, 0);
    works(&mut agent, "foreign headers").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_own_headers_and_token_never_reach_the_upstream() -> Result<()> {
    let world = World::start().await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let message = agent.message(
        "tools/call",
        json!({ "name": "echo_headers", "arguments": {} }),
    );
    let request = agent
        .post(&message)
        .header("x-forwarded-for", "203.0.113.7")
        .header("cookie", "session=stolen")
        .header("x-api-key", "mine")
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        );
    let answer = Web::send(request).await?;
    assert!(!answer.text.contains(&agent.token));
    assert!(!answer.text.contains("203.0.113.7"), "{}", answer.text);
    let seen = world.upstream.requests().await?;
    let last = seen
        .iter()
        .rfind(|seen| seen["name"] == "echo_headers")
        .cloned();
    let headers = last.unwrap_or_default()["headers"].to_string();
    for name in ["cookie", "x-forwarded-for", "x-api-key"] {
        assert!(!headers.contains(name), "{name}: {headers}");
    }
    assert!(headers.contains("traceparent"), "{headers}");
    let tokens = world.upstream.0.look("/tokens").await?;
    assert!(!tokens.to_string().contains(&agent.token));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_misbehaves_is_named_and_the_next_call_works() -> Result<()> {
    let world = World::start().await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    let cases = [
        json!({ "mode": "html", "status": 200 }),
        json!({ "mode": "html", "status": 502 }),
        json!({ "mode": "drop" }),
        json!({ "mode": "truncated" }),
        json!({ "mode": "not-json" }),
        json!({ "mode": "garbage" }),
        json!({ "mode": "redirect", "status": 302, "location": "https://evil.example/" }),
        json!({ "mode": "status", "status": 500, "headers": {}, "body": "oops" }),
    ];
    for mut fault in cases {
        let what = fault.to_string();
        fault["times"] = 1.into();
        fault["method"] = "tools/call".into();
        world.upstream.fail(fault).await?;
        let reply = agent.call("whoami", json!({})).await?;
        assert_eq!(
            reply.message["error"]["code"], -31008,
            "{what}: {} {}",
            reply.status, reply.message
        );
        assert_eq!(
            reply.countersign()["error"],
            "upstream_unavailable",
            "{what}"
        );
        let id = reply.countersign()["call_id"].clone();
        assert!(id.is_string(), "{what}: {}", reply.message);
        world
            .host
            .audited(|event| event["call"]["call_id"] == id)
            .await?;
        works(&mut agent, &what).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_is_given_up_after_the_servers_timeout() -> Result<()> {
    let world = World::with(Setup {
        server_record: json!({ "timeout": "1s" }),
        ..Setup::default()
    })
    .await?;
    for (era, who) in [(Era::PerRequest, "ada"), (Era::Sessions, "grace")] {
        let (_person, mut agent) = world.connected(who, era).await?;
        let fault = json!({ "mode": "hang", "times": 1, "method": "tools/call" });
        world.upstream.fail(fault).await?;
        let reply = agent.call("whoami", json!({})).await?;
        assert_eq!(reply.message["error"]["code"], -31009, "{}", reply.message);
        assert_eq!(reply.countersign()["error"], "upstream_timeout");
        let id = reply.countersign()["call_id"].clone();
        let event = world
            .host
            .audited(|event| event["call"]["call_id"] == id)
            .await?;
        assert_eq!(event["call"]["error"], "upstream_timeout", "{event}");
        assert_eq!(event["outcome"], "failed", "{event}");
        let next = agent.call("whoami", json!({})).await?;
        assert!(next.text().ends_with("-at-vendor"), "{}", next.message);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_ends_with_an_error_and_not_in_silence() -> Result<()> {
    let world = World::with(Setup {
        upstream: &["--responses", "sse"],
        ..Setup::default()
    })
    .await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    for mode in ["drop-stream", "oversized-stream"] {
        let fault = json!({ "mode": mode, "bytes": 64 << 20, "times": 1, "method": "tools/call" });
        world.upstream.fail(fault).await?;
        match agent.call("whoami", json!({})).await {
            Ok(reply) => assert!(
                reply.message.is_null() || reply.message["error"].is_object(),
                "{mode}: {}",
                &reply.message.to_string()[..200.min(reply.message.to_string().len())]
            ),
            // Breaking off in turn is honest too.
            Err(error) => assert!(error.downcast_ref::<reqwest::Error>().is_some(), "{error}"),
        }
        works(&mut agent, mode).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_another_question_is_not_passed_on() -> Result<()> {
    let world = World::start().await?;
    let (_ada, mut agent) = world.connected("ada", Era::PerRequest).await?;
    world
        .upstream
        .fail(json!({ "mode": "wrong-id", "times": 1, "method": "tools/call" }))
        .await?;
    let reply = agent.call("whoami", json!({})).await?;
    assert_eq!(
        reply.countersign()["error"],
        "upstream_unavailable",
        "{} {}",
        reply.status,
        reply.message
    );
    works(&mut agent, "a wrong id").await
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_refuses_what_it_cannot_parse() -> Result<()> {
    let world = World::start().await?;
    let web = Web::new()?;
    let url = world.host.at("/api/v1/servers");
    let cases: [(&str, Vec<u8>, u16); 5] = [
        ("half", b"{\"name\":\"x\"".to_vec(), 400),
        (
            "a member twice",
            b"{\"name\":\"x\",\"name\":\"y\"}".to_vec(),
            400,
        ),
        ("a list", b"[]".to_vec(), 400),
        (
            "too large",
            format!("{{\"name\":\"{}\"}}", "x".repeat(100_000)).into_bytes(),
            413,
        ),
        ("nothing", Vec::new(), 400),
    ];
    for (name, body, status) in cases {
        let request = web
            .request(Method::POST, &url)
            .bearer_auth(&world.host.admin.token)
            .header("content-type", "application/json")
            .body(body);
        let answer = Web::send(request).await?;
        assert_eq!(answer.status, status, "{name}: {}", answer.text);
        assert!(
            answer
                .header("content-type")
                .starts_with("application/problem+json"),
            "{name}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_gets_the_challenge_and_nothing_else() -> Result<()> {
    let world = World::start().await?;
    let web = Web::new()?;
    let metadata = world
        .host
        .at("/.well-known/oauth-protected-resource/mcp/notes");
    for token in ["", "x", "cs_mcp_nothing", "a b", "eyJhbGciOiJub25lIn0.e30."] {
        let mut request = web.request(Method::POST, &world.host.at("/mcp/notes"));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = Web::send(request.json(&json!({}))).await?;
        assert_eq!(answer.status, 401, "{token:?}: {}", answer.text);
        let challenge = answer.header("www-authenticate");
        assert!(challenge.contains(&metadata), "{token:?}: {challenge}");
    }
    let document = web.get(&metadata).await?.json();
    assert_eq!(document["resource"], world.host.at("/mcp/notes"));
    assert_eq!(document["authorization_servers"], json!([world.host.url]));
    Ok(())
}
