//! Hooks that misbehave.

use std::sync::Arc;

use countersign_core::preset::{GrantFacts, Preset};
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
