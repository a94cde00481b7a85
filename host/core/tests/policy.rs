//! What policies make of a call: whom they are about, in which order they
//! speak, and that none of them can let anything through.

use std::sync::Arc;

use countersign_core::caller::{Caller, Permissions};
use countersign_core::names::{PolicyName, ServerName, TeamName};
use countersign_core::policy::{
    Asked, Condition, Effect, Except, Operator, Policy, Rule, Rules, Ruling, Who,
};
use countersign_core::preset::Call;
use countersign_core::time::Timestamp;
use proptest::prelude::*;
use serde_json::json;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn policy(name: &str, effect: Effect) -> Policy {
    Policy {
        name: PolicyName::parse(name).unwrap(),
        display_name: name.into(),
        order: 100,
        who: Who::default(),
        servers: Vec::new(),
        methods: Vec::new(),
        tools: Vec::new(),
        except: Except::default(),
        when: Vec::new(),
        effect,
        enabled: true,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn deny(name: &str) -> Policy {
    policy(
        name,
        Effect::Deny {
            code: name.into(),
            message: "No.".into(),
        },
    )
}

fn ask(name: &str) -> Policy {
    policy(
        name,
        Effect::NeedApproval {
            message: format!("{name}?"),
        },
    )
}

fn rules(policies: &[Policy]) -> Rules {
    Rules::new(
        policies
            .iter()
            .map(|p| Rule::new(Arc::new(p.clone())).unwrap()),
    )
}

fn caller() -> Caller {
    Caller {
        user: "Ann".parse().unwrap(),
        team: TeamName::parse("ops").unwrap(),
        client: "https://agent.example.com/client.json".parse().unwrap(),
        client_name: "Agent".into(),
        roles: ["user".parse().unwrap(), "oncall".parse().unwrap()].into(),
        permissions: Permissions::default(),
        servers: None,
        has_browser_identity: true,
    }
}

/// In words: `pass`, `deny NAME`, `ask NAME NAME`.
fn outcome(policies: &[Policy], call: &Call<'_>) -> String {
    let (rules, caller) = (rules(policies), caller());
    let server = ServerName::parse("github").unwrap();
    let asked = Asked {
        caller: &caller,
        server: &server,
        call,
    };
    match rules.of_server(&server).look_at(&asked) {
        Ruling::Pass => "pass".into(),
        Ruling::Deny { policy, .. } => format!("deny {policy}"),
        Ruling::Ask(reasons) => {
            let names: Vec<_> = reasons.iter().map(|r| r.policy.as_str()).collect();
            format!("ask {}", names.join(" "))
        }
    }
}

fn call<'a>(tool: &'a str, arguments: Option<&'a str>) -> Call<'a> {
    Call {
        method: "tools/call",
        name: Some(tool),
        arguments,
        host: "mcp.example.com",
    }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn a_policy_is_about_those_whom_all_its_lists_name_but_for_its_exceptions() {
    type Change = fn(&mut Policy);
    let cases: [(&str, Change, bool); 20] = [
        ("nothing said", |_| {}, true),
        ("the user", |p| p.who.users = texts(&["ann"]), true),
        ("another user", |p| p.who.users = texts(&["bert"]), false),
        ("a pattern", |p| p.who.users = texts(&["bert", "a*"]), true),
        ("the team", |p| p.who.teams = texts(&["ops"]), true),
        ("another team", |p| p.who.teams = texts(&["default"]), false),
        (
            "one role of several",
            |p| p.who.roles = texts(&["oncall", "x"]),
            true,
        ),
        ("another role", |p| p.who.roles = texts(&["admin"]), false),
        (
            "the agent",
            |p| p.who.clients = texts(&["https://agent.example.com/*"]),
            true,
        ),
        (
            "two lists, one of which does not fit",
            |p| {
                p.who.users = texts(&["ann"]);
                p.who.teams = texts(&["default"]);
            },
            false,
        ),
        ("the server", |p| p.servers = texts(&["git*"]), true),
        ("another server", |p| p.servers = texts(&["notes"]), false),
        ("the tool", |p| p.tools = texts(&["delete_*"]), true),
        ("another tool", |p| p.tools = texts(&["get_*"]), false),
        (
            "another method",
            |p| p.methods = texts(&["prompts/get"]),
            false,
        ),
        ("all methods", |p| p.methods = texts(&["*"]), true),
        (
            "but for the user",
            |p| p.except.users = texts(&["ANN"]),
            false,
        ),
        (
            "but for one of his roles",
            |p| p.except.roles = texts(&["oncall"]),
            false,
        ),
        (
            "but for the tool",
            |p| p.except.tools = texts(&["delete_branch"]),
            false,
        ),
        ("switched off", |p| p.enabled = false, false),
    ];
    for (what, change, applies) in cases {
        let mut policy = deny("no");
        change(&mut policy);
        let expected = if applies { "deny no" } else { "pass" };
        assert_eq!(
            outcome(&[policy], &call("delete_branch", None)),
            expected,
            "{what}"
        );
    }
}

#[test]
fn the_first_refusal_speaks_and_goes_before_every_question() {
    let with_order = |mut policy: Policy, order: u32| {
        policy.order = order;
        policy
    };
    let call = call("t", None);
    let all = [
        with_order(ask("early"), 1),
        with_order(deny("second"), 20),
        with_order(deny("first"), 10),
    ];
    assert_eq!(outcome(&all, &call), "deny first");
    let same = [deny("b"), deny("a")];
    assert_eq!(outcome(&same, &call), "deny a");
    let questions = [with_order(ask("late"), 5), with_order(ask("early"), 1)];
    assert_eq!(outcome(&questions, &call), "ask early late");
}

#[test]
fn all_conditions_of_a_policy_must_hold() {
    let mut policy = ask("transfer");
    let condition = |pointer: &str, operator, value| Condition {
        pointer: pointer.into(),
        operator,
        value,
    };
    policy.when = vec![
        condition("/amount", Operator::GreaterThan, json!(1000)),
        condition("/to", Operator::NotMatches, json!("*@corp.com")),
    ];
    let policies = [policy];
    let cases = [
        (r#"{"amount":2000,"to":"x@evil.com"}"#, "ask transfer"),
        (r#"{"amount":2000,"to":"x@corp.com"}"#, "pass"),
        (r#"{"amount":10,"to":"x@evil.com"}"#, "pass"),
        (
            r#"{"amount":"2000","to":["x@corp.com","x@evil.com"]}"#,
            "ask transfer",
        ),
        (r#"{"amount":2000}"#, "ask transfer"),
    ];
    for (arguments, expected) in cases {
        assert_eq!(
            outcome(&policies, &call("send", Some(arguments))),
            expected,
            "{arguments}"
        );
    }
}

#[test]
fn a_tool_that_is_refused_whatever_its_arguments_is_not_listed() {
    let mut by_name = deny("by-name");
    by_name.tools = texts(&["delete_*"]);
    let mut by_argument = deny("by-argument");
    by_argument.tools = texts(&["send"]);
    by_argument.when = vec![Condition {
        pointer: "/to".into(),
        operator: Operator::Present,
        value: json!(null),
    }];
    let rules = rules(&[by_name, by_argument, ask("asks")]);
    let server = ServerName::parse("github").unwrap();
    let hidden = |tool| rules.always_deny(&caller(), &server, tool);
    assert!(rules.may_hide_tools());
    assert!(hidden("delete_repo"));
    assert!(!hidden("send"));
    assert!(!hidden("get"));
}

/// How much is let through; more is more.
fn openness(outcome: &str) -> u8 {
    match outcome.split(' ').next() {
        Some("pass") => 2,
        Some("ask") => 1,
        _ => 0,
    }
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let globs = || {
        proptest::collection::vec(
            prop_oneof!["\\*", "a\\*", "ann", "ops", "github", "tool", "[a-c]{1,3}"],
            0..3,
        )
    };
    let effect = prop_oneof![
        Just(Effect::Deny {
            code: "no".into(),
            message: "No.".into()
        }),
        Just(Effect::NeedApproval {
            message: "Sure?".into()
        }),
    ];
    let when = proptest::collection::vec(
        (
            prop_oneof![
                Just(String::new()),
                Just("/a".to_owned()),
                Just("/b/0".to_owned())
            ],
            prop_oneof![
                Just((Operator::Present, json!(null))),
                Just((Operator::Absent, json!(null))),
                Just((Operator::Equals, json!(1))),
                Just((Operator::NotMatches, json!("x*"))),
                Just((Operator::GreaterThan, json!(3))),
            ],
        )
            .prop_map(|(pointer, (operator, value))| Condition {
                pointer,
                operator,
                value,
            }),
        0..3,
    );
    (
        "[a-z]{1,6}",
        0_u32..4,
        globs(),
        globs(),
        globs(),
        globs(),
        when,
        effect,
        any::<bool>(),
    )
        .prop_map(
            |(name, order, users, servers, tools, except, when, effect, enabled)| {
                let mut policy = policy(&name, effect);
                policy.order = order;
                policy.who.users = users;
                policy.servers = servers;
                policy.tools = tools;
                policy.except.tools = except;
                policy.when = when;
                policy.enabled = enabled;
                policy
            },
        )
}

fn any_arguments() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        Just(None),
        Just(Some("{}".to_owned())),
        Just(Some(r#"{"a":1,"b":["x"]}"#.to_owned())),
        Just(Some(r#"{"a":7,"b":[]}"#.to_owned())),
        ".{0,20}".prop_map(Some),
    ]
}

proptest! {
    #[test]
    fn one_policy_more_never_lets_more_through(
        policies in proptest::collection::vec(any_policy(), 0..5),
        more in any_policy(),
        tool in "tool|[a-c]{1,3}",
        arguments in any_arguments(),
    ) {
        let call = call(&tool, arguments.as_deref());
        let before = outcome(&policies, &call);
        let mut all = policies;
        all.push(more);
        let after = outcome(&all, &call);
        prop_assert!(openness(&after) <= openness(&before), "{before} became {after}");
        // And who was to be asked for still is, unless it is refused now.
        if before.starts_with("ask ") && after.starts_with("ask ") {
            for name in before.split(' ').skip(1) {
                prop_assert!(after.split(' ').any(|n| n == name));
            }
        }
    }

    #[test]
    fn the_order_in_which_policies_were_made_does_not_matter(
        policies in proptest::collection::vec(any_policy(), 0..5),
        arguments in any_arguments(),
    ) {
        let mut names: Vec<_> = policies.iter().map(|p| p.name.clone()).collect();
        names.sort();
        names.dedup();
        prop_assume!(names.len() == policies.len());
        let call = call("tool", arguments.as_deref());
        let one = outcome(&policies, &call);
        let mut turned = policies;
        turned.reverse();
        prop_assert_eq!(one, outcome(&turned, &call));
    }
}
