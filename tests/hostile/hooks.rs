//! Hooks that misbehave.

use std::sync::Arc;

use countersign_core::preset::{Call, GrantFacts, Preset};
use countersign_core::scope::ScopeSet;
use serde_json::{Value, json};

use crate::fixture::{Body, Fixture, description};
use crate::street::{Street, line};

/// A preset that wants this hook called.
fn hooked(hook: &'static str, body: Body) -> Fixture {
    let mut said = description();
    said["hooks"] = json!([hook]);
    Fixture {
        hooks: vec![(hook, body)],
        ..Fixture::described(said)
    }
}

fn ok(value: Value) -> Body {
    Body::Answer(json!({ "ok": value }))
}

const LOOP: &str = "(loop $on (br $on)) i32.const 0";
const BOMB: &str =
    "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";

/// What every hook can do wrong.
fn wild() -> Vec<(String, Body)> {
    vec![
        ("never ends".into(), Body::Wat(LOOP, vec![])),
        ("is greedy".into(), Body::Wat(BOMB, vec![])),
        ("crashes".into(), Body::Wat("unreachable", vec![])),
        (
            "answers from nowhere".into(),
            Body::Wat("i32.const 0x7ffffff0", vec![]),
        ),
        (
            "reports an error".into(),
            Body::Answer(json!({"err": "no\r\nforged"})),
        ),
    ]
}

/// Runs the hook of each component; every one must fail.
fn faults<T: std::fmt::Debug>(
    street: &mut Street,
    hook: &'static str,
    cases: Vec<(String, Body)>,
    run: impl Fn(&dyn Preset) -> Result<T, countersign_core::preset::PresetFault>,
) -> String {
    cases
        .into_iter()
        .map(|(what, body)| {
            let what = format!("{hook} {what}");
            let preset: Arc<dyn Preset> = street.serving(&what, &hooked(hook, body));
            let outcome = street.beside(&what, |_| run(&*preset));
            line(&what, &outcome.expect_err(&what))
        })
        .collect()
}

#[test]
fn a_hook_that_adds_authorization_parameters_cannot_take_the_flow_over() {
    let mut street = Street::new("authorize-parameters");
    let mut cases = wild();
    cases.extend(
        [
            "client_id",
            "redirect_uri",
            "response_type",
            "state",
            "code_challenge",
            "code_challenge_method",
            "scope",
            "resource",
            "nonce",
            "request",
            "request_uri",
            "response_mode",
            "",
        ]
        .map(|name| (format!("adds {name:?}"), ok(json!([[name, "x"]])))),
    );
    cases.extend([
        ("adds a line break".into(), ok(json!([["hint", "a\r\nb"]]))),
        (
            "adds ten thousand".into(),
            ok((0..10_000).map(|n| json!([n.to_string(), "x"])).collect()),
        ),
        (
            "adds one of 100 KB".into(),
            ok(json!([["hint", "x".repeat(100_000)]])),
        ),
    ]);
    let lines = faults(&mut street, "authorize-parameters", cases, |preset| {
        preset.authorize_parameters(&ScopeSet::default())
    });
    insta::assert_snapshot!("authorize_parameters", lines);
}

#[test]
fn a_hook_that_finds_tokens_cannot_point_past_them() {
    let mut street = Street::new("token-answer");
    let shape = |credential: &str, pointer: &str| json!([{"credential": credential, "access-token": [pointer]}]);
    let mut cases = wild();
    cases.extend([
        (
            "points without a slash".into(),
            ok(shape("user", "access_token")),
        ),
        ("points at everything".into(), ok(shape("user", ""))),
        (
            "names another credential".into(),
            ok(shape("nobody", "/access_token")),
        ),
        (
            "keeps scopes at the token".into(),
            ok(json!([{"credential": "user", "access-token": ["/t"], "scopes": ["/t"]}])),
        ),
        (
            "reads the expiry at the token".into(),
            ok(json!([{
                "credential": "user", "access-token": ["/t"], "expires": [{"lifetime": "/t"}],
            }])),
        ),
    ]);
    let lines = faults(&mut street, "token-answer", cases, |preset| {
        preset.token_answer(200, "{}")
    });
    insta::assert_snapshot!("token_answer", lines);
}

#[test]
fn a_hook_that_classifies_refusals_fails_by_class() {
    let mut street = Street::new("refresh-error");
    let mut cases = wild();
    cases.push((
        "answers a third way".into(),
        Body::Wat(
            "(i32.store8 (i32.const 8) (i32.const 0)) (i32.store8 offset=4 (i32.const 8) (i32.const 7)) i32.const 8",
            vec![],
        ),
    ));
    let lines = faults(&mut street, "refresh-error", cases, |preset| {
        preset.refresh_error(400, Some("invalid_grant"), "{}")
    });
    insta::assert_snapshot!("refresh_error", lines);
}

#[test]
fn a_hook_that_hides_tools_can_invent_none() {
    let mut street = Street::new("filter-tools");
    let tools = ["read".to_owned(), "write".to_owned()];
    let grant = GrantFacts {
        scopes: &ScopeSet::default(),
        account: None,
        facts: &[],
    };
    let mut cases = wild();
    cases.push((
        "answers with 500 KB".into(),
        ok((0..500).map(|_| json!("x".repeat(1000))).collect()),
    ));
    let lines = faults(&mut street, "filter-tools", cases, |preset| {
        preset.filter_tools(&tools, &grant)
    });
    insta::assert_snapshot!("filter_tools", lines);

    let inventing = hooked("filter-tools", ok(json!(["write", "invented", "write"])));
    let preset = street.serving("invents", &inventing);
    assert_eq!(
        preset.filter_tools(&tools, &grant),
        Ok(Some(vec!["write".to_owned()]))
    );
}

#[test]
fn a_hook_that_tells_who_somebody_is_cannot_hide_or_flood() {
    let mut street = Street::new("identity");
    let account = |id: &str, label: &str| ok(json!({"id": id, "label": label, "tenant": null}));
    let mut cases = wild();
    cases.extend([
        ("knows nobody".into(), account("", "Ada")),
        (
            "has an id of 10 KB".into(),
            account(&"i".repeat(10_000), "Ada"),
        ),
        (
            "has a label of 10 KB".into(),
            account("7", &"l".repeat(10_000)),
        ),
        ("breaks the line".into(), account("7\r\nx", "Ada")),
        (
            "turns the reading around".into(),
            account("7", "Ada\u{202e}"),
        ),
        (
            "answers with 1 MB".into(),
            account("7", &"l".repeat(1_000_000)),
        ),
    ]);
    let lines = faults(&mut street, "identity", cases, |preset| {
        preset.identity(r#"{"id":7}"#)
    });
    insta::assert_snapshot!("identity", lines);
}

#[test]
fn a_hook_that_takes_from_results_fails_by_class() {
    let mut street = Street::new("redact");
    let call = Call {
        method: "tools/call",
        name: Some("read"),
        arguments: None,
        host: "api.example.com",
    };
    let mut cases = wild();
    cases.extend([
        (
            "takes a hundred thousand things".into(),
            ok((0..100_000).map(|_| json!({"drop": ""})).collect()),
        ),
        (
            "points with 1 MB".into(),
            ok(json!([{"mask": "/".repeat(1_000_000)}])),
        ),
    ]);
    let lines = faults(&mut street, "redact", cases, |preset| {
        preset.redact(&call, RESULT)
    });
    insta::assert_snapshot!("redact", lines);
}

/// A tool's result as a redactor sees it.
const RESULT: &str = r#"{"content":[{"type":"text","text":"été 7"}],"structuredContent":{"n":7}}"#;

#[test]
fn a_redaction_that_does_not_fit_the_result_withholds_it() {
    let mut street = Street::new("redactions out of range");
    let call = Call {
        method: "tools/call",
        name: Some("read"),
        arguments: None,
        host: "api.example.com",
    };
    let range = |at: &str, from: u64, to: u64| json!([{"mask-range": [at, from, to]}]);
    let cases = [
        ("past the end", range("/content/0/text", 3, 4_294_967_295)),
        ("from past the end", range("/content/0/text", 100, 200)),
        ("backwards", range("/content/0/text", 4, 2)),
        ("in the middle of a letter", range("/content/0/text", 1, 3)),
        ("of a number", range("/structuredContent/n", 0, 1)),
        ("of what is not there", range("/content/9/text", 0, 1)),
        (
            "of an index with a zero before it",
            range("/content/00/text", 0, 1),
        ),
        ("of everything", json!([{"drop": ""}])),
        ("of a pointer without a slash", json!([{"drop": "content"}])),
        (
            "of a member that is not there",
            json!([{"mask": "/no/such/member"}]),
        ),
    ];
    let lines: String = cases
        .into_iter()
        .map(|(what, redactions)| {
            let preset = street.serving(what, &hooked("redact", ok(redactions)));
            let told = street.beside(what, |_| preset.redact(&call, RESULT));
            // Well-formed; whether it fits is seen where it is applied.
            let told = told.unwrap().unwrap_or_default();
            match countersign_mcp::redact::apply(RESULT, &told) {
                Err(why) => line(what, &why),
                Ok(left) => panic!("{what}: {left}"),
            }
        })
        .collect();
    insta::assert_snapshot!("redactions", lines);
}
