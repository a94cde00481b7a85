//! Every way a guest can fail is its own class, and none outlives its call.

use std::sync::Arc;

use countersign_core::preset::{Call, GrantFacts, PresetFault, Verdict};
use countersign_core::scope::ScopeSet;
use serde_json::json;

use crate::fixture::{Body, Fixture, allow, deny, description};
use crate::house::{House, evaluate, provider, small_config};

/// Behaves on `tools/list` (the self-test has no name) and misbehaves on a
/// call with a name: the second field of the record at the parameter's address.
fn on_a_named_call(misdeed: &str) -> Body {
    let text = format!("(if (i32.load8_u offset=8 (local.get 0)) (then {misdeed})) i32.const $0");
    Body::Wat(text.leak(), vec![allow()])
}

fn fault_of(body: Body) -> PresetFault {
    let (_house, preset) = House::with(&Fixture::evaluating(body));
    evaluate(&*preset).unwrap_err()
}

#[test]
fn a_crash_is_a_trap_and_says_which() {
    for (misdeed, word) in [
        ("unreachable", "unreachable"),
        ("(drop (i32.load (i32.const -4)))", "out of bounds"),
        (
            "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
            "divide by zero",
        ),
    ] {
        match fault_of(on_a_named_call(misdeed)) {
            PresetFault::Trap(text) => assert!(text.contains(word), "{text}"),
            other => panic!("{misdeed}: {other:?}"),
        }
    }
}

#[test]
fn endless_recursion_is_a_trap_and_not_the_end_of_the_host() {
    let fixture = Fixture {
        more: "(func $deep (param i64) (result i64) (i64.add (call $deep (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))".into(),
        ..Fixture::evaluating(on_a_named_call("(drop (call $deep (i64.const 0)))"))
    };
    let (_house, preset) = House::with(&fixture);
    assert!(matches!(evaluate(&*preset), Err(PresetFault::Trap(text)) if text.contains("stack")));
}

#[test]
fn an_endless_loop_ends_at_the_deadline() {
    assert_eq!(
        fault_of(on_a_named_call("(loop $on (br $on))")),
        PresetFault::Deadline
    );
}

#[test]
fn a_greedy_guest_is_a_memory_fault_whatever_it_does_next() {
    let grow = "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";
    for after in ["unreachable", "(loop $on (br $on))"] {
        let fault = fault_of(on_a_named_call(&format!("{grow} {after}")));
        let expected = if after == "unreachable" {
            PresetFault::Memory
        } else {
            PresetFault::Deadline
        };
        assert_eq!(fault, expected, "{after}");
    }
    // One that can live with less does no harm.
    let (_house, preset) = House::with(&Fixture::evaluating(on_a_named_call(grow)));
    assert!(evaluate(&*preset).is_ok());
}

#[test]
fn arguments_too_large_for_the_sandbox_are_a_memory_fault() {
    let mut wanting = description();
    wanting["wants"] = json!(["arguments"]);
    let (_house, preset) = House::with(&Fixture::described(wanting));
    let arguments = format!("\"{}\"", "x".repeat(5 << 20));
    let call = Call {
        method: "tools/call",
        name: Some("x"),
        arguments: Some(&arguments),
        host: "api.example.com",
    };
    let grant = GrantFacts {
        scopes: &ScopeSet::default(),
        account: None,
        facts: &[],
    };
    assert_eq!(preset.evaluate(&call, &grant), Err(PresetFault::Memory));
}

#[test]
fn an_error_of_the_preset_is_reported_in_its_words_on_one_line() {
    let body = Body::Wat(
        "(if (i32.load8_u offset=8 (local.get 0)) (then (return (i32.const $1)))) i32.const $0",
        vec![allow(), json!({"err": "no such\r\ntool"})],
    );
    assert_eq!(
        fault_of(body),
        PresetFault::Reported("no such  tool".into())
    );
}

#[test]
fn an_answer_beyond_what_was_declared_is_bad_output() {
    let header = |name: &str, part: serde_json::Value| json!({"ok": {"allow": {"credential": null, "rules": [{"set-header": {"name": name, "value": [part]}}]}}});
    let cases = [
        (
            "another credential",
            json!({"ok": {"allow": {"credential": "root", "rules": []}}}),
        ),
        ("another header", header("x-other", json!({"literal": "1"}))),
        (
            "a forbidden header",
            header("Mcp-Method", json!({"literal": "1"})),
        ),
        (
            "another slot",
            header("Authorization", json!({"slot": "client-secret"})),
        ),
        (
            "a named slot",
            header("Authorization", json!({"slot": {"extra": "OTHER"}})),
        ),
        (
            "a hidden slot",
            header(
                "Authorization",
                json!({"basic": {"user": "access-token", "password": "api-key"}}),
            ),
        ),
        (
            "a line break",
            header("Authorization", json!({"literal": "a\r\nx: y"})),
        ),
        (
            "another variable",
            header("Authorization", json!({"variable": "tenant"})),
        ),
        (
            "a query parameter",
            json!({"ok": {"allow": {"credential": null, "rules": [{"set-query": {"name": "t", "value": [{"slot": "access-token"}]}}]}}}),
        ),
        ("no code", deny("")),
        ("a sentence as code", deny("not a code")),
        ("no scopes", json!({"ok": {"need-scopes": []}})),
        ("no scope", json!({"ok": {"need-scopes": ["a b"]}})),
    ];
    for (what, answer) in cases {
        let body = Body::Wat(
            "(if (i32.load8_u offset=8 (local.get 0)) (then (return (i32.const $1)))) i32.const $0",
            vec![allow(), answer],
        );
        let fault = fault_of(body);
        assert!(
            matches!(fault, PresetFault::BadOutput(_)),
            "{what}: {fault:?}"
        );
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_bad_output() {
    for (what, misdeed) in [
        (
            "a pointer outside its memory",
            "(return (i32.const 0x7ffffff0))",
        ),
        // Discriminant 9 of a result.
        (
            "an unknown case",
            "(i32.store8 (i32.const 8) (i32.const 9)) (return (i32.const 8))",
        ),
        // result = err, text at 0xfffffff0.
        (
            "a text outside its memory",
            "(i32.store8 (i32.const 8) (i32.const 1)) (i32.store offset=4 (i32.const 8) (i32.const -16)) (i32.store offset=8 (i32.const 8) (i32.const 99)) (return (i32.const 8))",
        ),
        // result = err, bytes ff ff.
        (
            "a text that is no UTF-8",
            "(i32.store8 (i32.const 8) (i32.const 1)) (i32.store (i32.const 64) (i32.const -1)) (i32.store offset=4 (i32.const 8) (i32.const 64)) (i32.store offset=8 (i32.const 8) (i32.const 2)) (return (i32.const 8))",
        ),
    ] {
        let fault = fault_of(on_a_named_call(misdeed));
        assert!(
            matches!(fault, PresetFault::BadOutput(_)),
            "{what}: {fault:?}"
        );
    }
}

#[test]
fn an_answer_cannot_make_the_host_allocate_without_end() {
    // need-scopes with 100,000 texts that all are the same 64 KiB.
    let body = on_a_named_call(
        r"(local.set 1 (i32.const 131072))
          (loop $on
            (i32.store (local.get 1) (i32.const 1024))
            (i32.store offset=4 (local.get 1) (i32.const 65536))
            (br_if $on (i32.lt_u (local.tee 1 (i32.add (local.get 1) (i32.const 8))) (i32.const 931072))))
          (i32.store8 (i32.const 8) (i32.const 0))
          (i32.store8 offset=4 (i32.const 8) (i32.const 2))
          (i32.store offset=8 (i32.const 8) (i32.const 131072))
          (i32.store offset=12 (i32.const 8) (i32.const 100000))
          (return (i32.const 8))",
    );
    let Body::Wat(text, answers) = body else {
        unreachable!()
    };
    let fixture = Fixture {
        evaluate: Body::Wat(format!("(local i32) {text}").leak(), answers),
        pages: 16,
        ..Fixture::default()
    };
    let (_house, preset) = House::with(&fixture);
    assert!(matches!(evaluate(&*preset), Err(PresetFault::BadOutput(_))));
}

#[test]
fn the_call_after_a_fault_works() {
    let body = on_a_named_call(
        "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
    );
    let (_house, preset) = House::with(&Fixture::evaluating(body));
    let calm = Call {
        method: "tools/list",
        name: None,
        arguments: None,
        host: "api.example.com",
    };
    let grant = GrantFacts {
        scopes: &ScopeSet::default(),
        account: None,
        facts: &[],
    };
    for _ in 0..200 {
        assert_eq!(evaluate(&*preset), Err(PresetFault::Memory));
        assert!(preset.evaluate(&calm, &grant).is_ok());
    }
}

#[test]
fn nothing_survives_between_calls() {
    // Leaves marks in memory, in fresh memory and in a global, and refuses as
    // soon as it finds one.
    let body = Body::Wat(
        r"(if (i32.or (i32.or (i32.load (i32.const 16)) (i32.load (i32.const 131064))) (global.get $mark))
            (then (return (i32.const $1))))
          (i32.store (i32.const 16) (i32.const 1))
          (i32.store (i32.const 131064) (i32.const 1))
          (global.set $mark (i32.const 1))
          (if (i32.ne (memory.grow (i32.const 1)) (i32.const 2)) (then (return (i32.const $1))))
          (if (i32.load (i32.const 131072)) (then (return (i32.const $1))))
          (i32.store (i32.const 131072) (i32.const 1))
          i32.const $0",
        vec![allow(), deny("remembered")],
    );
    let fixture = Fixture {
        more: "(global $mark (mut i32) (i32.const 0))".into(),
        ..Fixture::evaluating(body)
    };
    let (_house, preset) = House::with(&fixture);
    std::thread::scope(|scope| {
        for keeps in [false, false, true, true] {
            let preset = &preset;
            scope.spawn(move || {
                if keeps {
                    countersign_presets::keep_spent();
                }
                for n in 0..500 {
                    assert!(matches!(evaluate(&**preset), Ok(Verdict::Allow { .. })));
                    if n % 7 == 0 {
                        countersign_presets::clear_spent();
                    }
                }
            });
        }
    });
}

#[test]
fn sandboxes_that_wait_to_be_cleared_make_nobody_wait() {
    let mut config = small_config();
    config.small.sandboxes = 1;
    let house = House::with_config(config);
    let fixture = Fixture::evaluating(Body::Answer(allow()));
    house.put("probe-1.0.0.wasm", &fixture.bytes());
    let preset = house.approve(&provider()).unwrap();
    countersign_presets::keep_spent();
    for _ in 0..20 {
        assert!(matches!(evaluate(&*preset), Ok(Verdict::Allow { .. })));
    }
    countersign_presets::clear_spent();
}

#[test]
fn more_calls_than_sandboxes_are_told_that_they_are_busy() {
    let mut config = small_config();
    config.small.sandboxes = 1;
    let house = House::with_config(config);
    house.put(
        "probe-1.0.0.wasm",
        &Fixture::evaluating(on_a_named_call("(loop $on (br $on))")).bytes(),
    );
    let preset = house.approve(&provider()).unwrap();
    let barrier = std::sync::Barrier::new(8);
    let faults: Vec<PresetFault> = std::thread::scope(|scope| {
        let run = || {
            let preset = Arc::clone(&preset);
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                evaluate(&*preset).unwrap_err()
            })
        };
        let threads: Vec<_> = (0..8).map(|_| run()).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(
        faults.contains(&PresetFault::Deadline) && faults.contains(&PresetFault::Busy),
        "{faults:?}"
    );
}

#[test]
fn a_preset_is_told_only_what_it_wants() {
    // Denies if it was given arguments (the third field, at 20), settings (at
    // 40) or an account (grant's second field, at 60).
    let body = Body::Wat(
        r"(if (i32.or (i32.or (i32.load8_u offset=20 (local.get 0)) (i32.load8_u offset=40 (local.get 0))) (i32.load8_u offset=60 (local.get 0)))
            (then (return (i32.const $1)))) i32.const $0",
        vec![allow(), deny("told")],
    );
    let call = Call {
        method: "tools/call",
        name: Some("x"),
        arguments: Some("{}"),
        host: "api.example.com",
    };
    let facts = [("team".to_owned(), "T1".to_owned())];
    let grant = GrantFacts {
        scopes: &ScopeSet::default(),
        account: Some("me"),
        facts: &facts,
    };
    for (wants, of, told) in [
        (json!([]), json!([]), false),
        (json!(["arguments"]), json!([]), true),
        (json!(["arguments"]), json!(["x"]), true),
        (json!(["arguments"]), json!(["other"]), false),
        (json!(["account"]), json!([]), true),
    ] {
        let mut wanting = description();
        wanting["wants"] = wants.clone();
        wanting["arguments-of"] = of.clone();
        let fixture = Fixture {
            evaluate: body.clone(),
            ..Fixture::described(wanting)
        };
        let (_house, preset) = House::with(&fixture);
        let denied = matches!(preset.evaluate(&call, &grant), Ok(Verdict::Deny { .. }));
        assert_eq!(denied, told, "{wants} {of}");
    }
}
