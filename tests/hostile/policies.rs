//! Policy components that misbehave: each refuses its own calls, by class, and
//! hurts nobody else.

use countersign_core::caller::{Caller, Permissions};
use countersign_core::names::{ClientId, Digest, ServerName, TeamName, UserName};
use countersign_core::policy::{Asked, Judgement, Subject};
use countersign_core::preset::{Call, GrantFacts, PresetFault};
use countersign_core::scope::ScopeSet;
use serde_json::{Map, Value, json};

use crate::fixture::Body;
use crate::house::House;
use crate::policy::{PolicyFixture, described};
use crate::street::{Street, line};

const FILE: &str = "policies/judge-1.0.0.wasm";

fn put(house: &House, bytes: &[u8]) -> Option<String> {
    std::fs::create_dir_all(house.path("policies")).unwrap();
    std::fs::write(house.path(FILE), bytes).unwrap();
    let policies = house.catalog.policies();
    policies.rescan();
    let file = policies.list().remove(0);
    assert_eq!(file.digest, Some(Digest::of(bytes)));
    file.refused
}

fn judge(house: &House, bytes: &[u8]) -> Result<Judgement, PresetFault> {
    let policies = house.catalog.policies();
    let (judge, _) = policies
        .bind("judge", Digest::of(bytes), &Map::new())
        .unwrap();
    let caller = Caller {
        user: UserName::parse("ada").unwrap(),
        team: TeamName::default_team(),
        client: ClientId::parse("agent").unwrap(),
        client_name: "agent".into(),
        roles: Default::default(),
        permissions: Permissions::default(),
        servers: None,
        has_browser_identity: true,
    };
    let call = Call {
        method: "tools/call",
        name: Some("anything"),
        arguments: None,
        host: "",
    };
    judge.judge(&Subject {
        asked: Asked {
            caller: &caller,
            server: &ServerName::parse("notes").unwrap(),
            call: &call,
        },
        grant: GrantFacts {
            scopes: &ScopeSet::default(),
            account: None,
            facts: &[],
        },
    })
}

fn wat(text: &'static str) -> PolicyFixture {
    PolicyFixture::judging(Body::Wat(text, vec![]))
}

fn answering(answer: Value) -> PolicyFixture {
    PolicyFixture::judging(Body::Answer(answer))
}

fn denying(code: &str, message: &str) -> PolicyFixture {
    answering(json!({"ok": {"deny": {"code": code, "message": message}}}))
}

const GROW: &str =
    "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";

#[test]
fn a_policy_that_goes_wild_is_stopped_by_class_and_its_answers_are_looked_at() {
    let mut street = Street::new("policies that go wild");
    let asking = |message: &str| answering(json!({"ok": {"need-approval": message}}));
    let cases = [
        ("an endless loop", wat("(loop $on (br $on)) i32.const 0")),
        ("a memory bomb", wat(GROW)),
        ("a crash", wat("unreachable")),
        (
            "deep recursion",
            PolicyFixture {
                more: "(func $deep (param i64) (result i64) (i64.add (call $deep (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))",
                ..wat("(drop (call $deep (i64.const 0))) i32.const 0")
            },
        ),
        (
            "a million log lines",
            PolicyFixture {
                imports_log: true,
                ..wat(r"(local $at i32) (local.set $at (i32.const 1000000))
                      (loop $on
                        (call $log (i32.const 3) (i32.const 1024) (i32.const 3))
                        (br_if $on (local.tee $at (i32.sub (local.get $at) (i32.const 1)))))
                      i32.const 0")
            },
        ),
        (
            "an answer from outside its memory",
            wat("i32.const 0x7ffffff0"),
        ),
        (
            "an answer of a kind that there is not",
            wat(
                "(i32.store8 (i32.const 8) (i32.const 0)) (i32.store8 offset=4 (i32.const 8) (i32.const 9)) i32.const 8",
            ),
        ),
        ("a reason of 1 MB", asking(&"x".repeat(1_000_000))),
        ("a reason of 1 KB", asking(&"x".repeat(1_000))),
        ("no reason", asking(" ")),
        (
            "a reason that turns the screen around",
            asking("all is well\u{202e}\u{1b}[2J"),
        ),
        ("a refusal of 1 MB", denying("no", &"m".repeat(1_000_000))),
        ("a refusal without a code", denying("", "no")),
        (
            "a refusal with markup for a code",
            denying("<script>", "no"),
        ),
        (
            "a refusal with a code of 1 KB",
            denying(&"c".repeat(1_000), "no"),
        ),
        ("a refusal without a message", denying("no", "")),
        (
            "an error that forges a log line",
            answering(json!({"err": "no\r\n2026-01-01 INFO all is well"})),
        ),
        (
            "an error of 1 MB",
            answering(json!({"err": "e".repeat(1_000_000)})),
        ),
    ];
    let lines: String = cases
        .into_iter()
        .map(|(what, fixture)| {
            let bytes = fixture.bytes();
            let fault = street.beside(what, |house| {
                assert_eq!(put(house, &bytes), None, "{what}");
                judge(house, &bytes)
            });
            line(what, &fault.expect_err(what))
        })
        .collect();
    insta::assert_snapshot!("wild_policies", lines);

    let good = answering(json!({"ok": "allow"})).bytes();
    street.beside("one that does not mind", |house| {
        assert_eq!(put(house, &good), None);
        assert_eq!(judge(house, &good), Ok(Judgement::Allow));
    });
}

#[test]
fn a_policy_that_cannot_say_what_it_is_is_refused() {
    let mut street = Street::new("policies that do not describe themselves");
    let saying = |describe: Body| PolicyFixture {
        describe,
        ..answering(json!({"ok": "allow"}))
    };
    let cases = [
        (
            "never ends",
            saying(Body::Wat("(loop $on (br $on)) i32.const 0", vec![])),
        ),
        ("is greedy", saying(Body::Wat(GROW, vec![]))),
        ("crashes", saying(Body::Wat("unreachable", vec![]))),
        (
            "answers from nowhere",
            saying(Body::Wat("i32.const 0x7ffffff0", vec![])),
        ),
    ];
    let lines: String = cases
        .into_iter()
        .map(|(what, fixture)| {
            let refused = street.beside(what, |house| put(house, &fixture.bytes()));
            line(what, &refused.expect(what))
        })
        .collect();
    insta::assert_snapshot!("undescribed_policies", lines);

    // What it says is looked at when a policy is to be judged by it.
    let lies = [
        ("another's name", described("other")),
        (
            "a name that hides",
            json!({"ok": {"name": "judge", "display-name": "J\u{200b}", "documentation-url": "", "wants": []}}),
        ),
        (
            "a document off the web",
            json!({"ok": {"name": "judge", "display-name": "J", "documentation-url": "javascript:alert(1)", "wants": []}}),
        ),
        (
            "a name of 10 KB",
            json!({"ok": {"name": "judge", "display-name": "J".repeat(10_000), "documentation-url": "", "wants": []}}),
        ),
    ];
    let lines: String = lies
        .into_iter()
        .map(|(what, description)| {
            let bytes = saying(Body::Answer(description)).bytes();
            let refused = street.beside(what, |house| {
                assert_eq!(put(house, &bytes), None, "{what}");
                let policies = house.catalog.policies();
                let bound = policies.bind("judge", Digest::of(&bytes), &Map::new());
                bound.map(drop).expect_err(what)
            });
            line(what, &refused)
        })
        .collect();
    insta::assert_snapshot!("lying_policies", lines);
}
