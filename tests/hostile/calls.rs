//! What stops a guest in the middle of a call, and answers that are refused.

use std::sync::{Arc, Mutex};

use countersign_core::preset::{PresetFault, Verdict};
use serde_json::{Value, json};

use crate::fixture::{Body, Fixture, allow, deny};
use crate::street::{Street, evaluate, line, on_a_named_call};

const GROW: &str = "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";

fn doing(misdeed: &str) -> Fixture {
    Fixture::evaluating(on_a_named_call(misdeed, vec![]))
}

fn answering(answer: Value) -> Fixture {
    Fixture::evaluating(on_a_named_call("(return (i32.const $1))", vec![answer]))
}

fn with(more: &str, fixture: Fixture) -> Fixture {
    Fixture {
        more: more.into(),
        ..fixture
    }
}

#[test]
fn what_a_guest_cannot_stop_is_stopped_by_class() {
    let mut street = Street::new("calls that go wild");
    let cases = [
        ("an endless loop", doing("(loop $on (br $on))")),
        (
            "deep recursion",
            with(
                "(func $deep (param i64) (result i64) (i64.add (call $deep (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))",
                doing("(drop (call $deep (i64.const 0)))"),
            ),
        ),
        ("a memory bomb", doing(&format!("{GROW} unreachable"))),
        (
            "a table bomb",
            with(
                "(table $t 1 funcref)",
                doing(
                    "(loop $on (br_if $on (i32.ne (table.grow $t (ref.null func) (i32.const 500)) (i32.const -1)))) unreachable",
                ),
            ),
        ),
        ("a crash", doing("unreachable")),
        ("a stray read", doing("(drop (i32.load (i32.const -4)))")),
        (
            "an error of 200 KB",
            answering(json!({"err": "e".repeat(200_000)})),
        ),
        (
            "an error of 1 MB",
            answering(json!({"err": "e".repeat(1_000_000)})),
        ),
        (
            "an error that forges a log line",
            answering(json!({"err": "no\r\n2026-01-01 INFO all is well\u{1b}[2J\u{202e}"})),
        ),
        (
            // need-scopes with 100,000 texts that all are the same 64 KiB.
            "an answer of 6.5 GB made of one text",
            Fixture {
                pages: 16,
                ..doing(
                    r"(local.set $at (i32.const 131072))
                      (loop $on
                        (i32.store (local.get $at) (i32.const 1024))
                        (i32.store offset=4 (local.get $at) (i32.const 65536))
                        (br_if $on (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 931072))))
                      (i32.store8 (i32.const 8) (i32.const 0))
                      (i32.store8 offset=4 (i32.const 8) (i32.const 2))
                      (i32.store offset=8 (i32.const 8) (i32.const 131072))
                      (i32.store offset=12 (i32.const 8) (i32.const 100000))
                      (return (i32.const 8))",
                )
            },
        ),
        (
            "an answer from outside its memory",
            doing("(return (i32.const 0x7ffffff0))"),
        ),
    ];
    let lines: String = cases
        .iter()
        .map(|(what, fixture)| line(what, &street.fault(what, fixture)))
        .collect();
    insta::assert_snapshot!("wild", lines);
}

#[test]
fn an_answer_with_more_than_was_approved_is_refused_by_what_it_is() {
    let mut street = Street::new("answers");
    let allowing = |rules: Value| json!({"ok": {"allow": {"credential": null, "rules": rules}}});
    let header = |name: &str, part: Value| {
        allowing(json!([{"set-header": {"name": name, "value": [part]}}]))
    };
    let query =
        |name: &str, part: Value| allowing(json!([{"set-query": {"name": name, "value": [part]}}]));
    let literal = || json!({"literal": "x"});
    let mut cases: Vec<(String, Value)> = [
        // Of the connection (RFC 9110 §7.6.1), of the browser, of MCP, of proxies.
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "proxy-authorization",
        "content-length",
        "host",
        "Host",
        "cookie",
        "set-cookie",
        "mcp-session-id",
        "MCP-Protocol-Version",
        "mcp-method",
        "x-forwarded-for",
        "x-not-declared",
        "",
        "x y",
    ]
    .into_iter()
    .map(|name| (format!("the header {name:?}"), header(name, literal())))
    .collect();
    cases.extend(
        [
            (
                "a line break in a value",
                header("Authorization", json!({"literal": "x\r\nx-evil: y"})),
            ),
            (
                "a line break in a name",
                header("Authorization\r\nx-evil", literal()),
            ),
            (
                "a null byte",
                header("Authorization", json!({"literal": "x\0y"})),
            ),
            (
                "a value of 100 KB",
                header("Authorization", json!({"literal": "x".repeat(100_000)})),
            ),
            (
                "ten thousand rules",
                allowing(
                    (0..10_000)
                        .map(|_| json!({"set-header": {"name": "a", "value": []}}))
                        .collect(),
                ),
            ),
            (
                "the client's secret",
                header("Authorization", json!({"slot": "client-secret"})),
            ),
            (
                "the refresh token",
                header("Authorization", json!({"slot": "refresh-token"})),
            ),
            (
                "a secret by name",
                header("Authorization", json!({"slot": {"extra": "OTHER"}})),
            ),
            (
                "a secret inside Basic",
                header(
                    "Authorization",
                    json!({"basic": {"user": "access-token", "password": "client-secret"}}),
                ),
            ),
            (
                "the token in a query",
                query("t", json!({"slot": "access-token"})),
            ),
            (
                "a query parameter with another inside",
                query("page=1&admin", json!({"literal": "true"})),
            ),
            (
                "a variable nobody declared",
                header("Authorization", json!({"variable": "tenant"})),
            ),
            (
                "a credential nobody declared",
                json!({"ok": {"allow": {"credential": "root", "rules": []}}}),
            ),
            ("a refusal without a code", deny("")),
            ("a refusal with markup for a code", deny("<script>")),
            (
                "a refusal of 100 KB",
                json!({"ok": {"deny": {"code": "no", "message": "m".repeat(100_000)}}}),
            ),
            ("no scopes at all", json!({"ok": {"need-scopes": []}})),
            (
                "two scopes in one",
                json!({"ok": {"need-scopes": ["read admin"]}}),
            ),
            (
                "a scope with another parameter inside",
                json!({"ok": {"need-scopes": ["read\"&prompt=none"]}}),
            ),
        ]
        .map(|(what, answer)| (what.to_owned(), answer)),
    );
    let lines: String = cases
        .into_iter()
        .map(|(what, answer)| line(&what, &street.fault(&what, &answering(answer))))
        .collect();
    insta::assert_snapshot!("answers", lines);
}

/// What a preset wrote to the host's log.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_million_log_lines_end_the_call_and_leave_eight_in_the_log() {
    let mut street = Street::new("a million log lines");
    let fixture = Fixture {
        imports_log: true,
        ..doing(
            r"(local.set $at (i32.const 1000000))
              (loop $on
                (call $log (i32.const 3) (i32.const 1024) (i32.const 3))
                (br_if $on (local.tee $at (i32.sub (local.get $at) (i32.const 1)))))",
        )
    };
    let preset = street.serving("a million log lines", &fixture);
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(move || writer.clone())
        .finish();
    let fault = street.beside("a million log lines", |_| {
        tracing::subscriber::with_default(subscriber, || evaluate(&*preset, Some("misdeed")))
    });
    insta::assert_snapshot!(fault.unwrap_err(), @"the preset answered with something that is not allowed: it wrote more than 1000 lines into the log in one call");
    let lines = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    assert_eq!(lines.lines().count(), 8, "{lines}");
}

#[test]
fn one_log_line_of_a_megabyte_is_refused() {
    let mut street = Street::new("a log line of a megabyte");
    let fixture = Fixture {
        imports_log: true,
        pages: 20,
        ..doing("(call $log (i32.const 3) (i32.const 1024) (i32.const 1000000))")
    };
    let fault = street.fault("a log line of a megabyte", &fixture);
    assert!(matches!(fault, PresetFault::BadOutput(_)), "{fault}");
}

#[test]
fn a_guest_that_asks_for_too_much_and_lives_with_less_does_no_harm() {
    let mut street = Street::new("a modest memory bomb");
    let preset = street.serving("a modest memory bomb", &doing(GROW));
    let verdict = street.beside("a modest memory bomb", |_| {
        evaluate(&*preset, Some("misdeed"))
    });
    assert!(matches!(verdict, Ok(Verdict::Allow { .. })), "{verdict:?}");
}

#[test]
fn a_preset_that_crashes_on_every_second_call_serves_the_others() {
    let mut street = Street::new("crashes on every second call");
    // By what it is told (the length of the tool's name): nothing it could
    // count with survives a call.
    let odd =
        doing("(if (i32.and (i32.load offset=16 (local.get 0)) (i32.const 1)) (then unreachable))");
    let preset = street.serving("by the tool's name", &odd);
    let faults = street.beside("by the tool's name", |_| {
        (0..200)
            .filter(|n| evaluate(&*preset, Some(if n % 2 == 0 { "even" } else { "odd" })).is_err())
            .count()
    });
    assert_eq!(faults, 100);

    let counting = with(
        "(global $calls (mut i32) (i32.const 0))",
        doing(
            r"(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
              (i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 1)))
              (if (i32.gt_u (i32.or (global.get $calls) (i32.load (i32.const 8))) (i32.const 1)) (then unreachable))",
        ),
    );
    let preset = street.serving("by counting", &counting);
    let faults = street.beside("by counting", |_| {
        (0..200)
            .filter(|_| evaluate(&*preset, Some("x")).is_err())
            .count()
    });
    assert_eq!(faults, 0, "nothing to count with survives");
}

#[test]
fn a_crowd_of_endless_calls_takes_no_seat_longer_than_its_deadline() {
    let mut street = Street::new("thirty-two endless calls at once");
    let preset = street.serving("a crowd", &doing("(loop $on (br $on))"));
    let faults = street.beside("a crowd", |_| {
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..32)
                .map(|_| scope.spawn(|| evaluate(&*preset, Some("misdeed")).unwrap_err()))
                .collect();
            calls
                .into_iter()
                .map(|call| call.join().unwrap())
                .collect::<Vec<_>>()
        })
    });
    assert!(
        faults
            .iter()
            .all(|f| matches!(f, PresetFault::Deadline | PresetFault::Busy)),
        "{faults:?}"
    );
    // Every seat was given back.
    assert!(matches!(
        evaluate(&*preset, None),
        Ok(Verdict::Allow { .. })
    ));
}

#[test]
fn the_fixture_itself_is_harmless() {
    let mut street = Street::new("control");
    let preset = street.serving("control", &Fixture::evaluating(Body::Answer(allow())));
    assert!(evaluate(&*preset, Some("misdeed")).is_ok());
}
