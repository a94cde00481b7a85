//! Limits and determinism: odd calls, large calls, and the same call twice.

use countersign_core::preset::{Call, GrantFacts, PresetFault, Verdict};
use countersign_core::scope::{Scope, ScopeSet};
use countersign_presets::EngineConfig;

use super::Subject;
use super::report::Group;
use crate::bench::thread_time;

/// Share of the deadline that a call may take before it is worth a word.
const SHARE: u32 = 5;
/// Linear memory that a call should not need more of. In bytes.
const MEMORY: usize = 1 << 20;

/// A call for which only the preset's `evaluate` matters.
struct Odd {
    what: &'static str,
    method: String,
    name: Option<String>,
    arguments: String,
    scopes: ScopeSet,
}

pub(super) fn check(subject: &Subject) -> Group {
    let mut group = Group::new("Limits and determinism");
    let deadline = EngineConfig::default().deadline;
    for odd in odd_calls(subject) {
        let start = thread_time();
        let result = judge(subject, &odd);
        let took = thread_time().saturating_sub(start);
        let name = format!("it survives {}", odd.what);
        match result {
            Ok(_) | Err(PresetFault::Reported(_)) if took * SHARE > deadline => group.fail(
                name,
                format!("at most a fifth of the deadline of {deadline:?}"),
                format!("{took:?}"),
                "a busy machine is slower yet: look at what grows with the input",
            ),
            Ok(_) | Err(PresetFault::Reported(_)) => group.pass(name),
            Err(fault) => group.fail(
                name,
                "a verdict, or an error in words",
                fault.to_string(),
                "such a call would fail for the user; do not unwrap, recurse or copy what a caller sends",
            ),
        }
    }
    memory(&mut group, subject);
    twice(&mut group, subject);
    group
}

fn odd_calls(subject: &Subject) -> Vec<Odd> {
    let d = subject.description();
    let tool = d
        .mcp_servers
        .iter()
        .flat_map(|s| &s.tools)
        .next()
        .map_or("tool", |t| &t.name);
    // A tool whose arguments it reads, if there is one.
    let tools = d.mcp_servers.iter().flat_map(|s| &s.tools);
    let reads = tools
        .into_iter()
        .find(|t| t.broad)
        .map_or(tool, |t| &t.name);
    let call = |what, name: &str, arguments: String| Odd {
        what,
        method: "tools/call".into(),
        name: Some(name.to_owned()),
        arguments,
        scopes: ScopeSet::default(),
    };
    let many = (0..500)
        .filter_map(|n| Scope::parse(&format!("scope:{n}")).ok())
        .collect();
    vec![
        Odd {
            what: "a request that calls no tool",
            method: "tools/list".into(),
            name: None,
            arguments: String::new(),
            scopes: ScopeSet::default(),
        },
        Odd {
            what: "a method it has never heard of",
            method: "kit/unknown".into(),
            name: None,
            arguments: "{}".into(),
            scopes: ScopeSet::default(),
        },
        call("a tool it has never heard of", "kit_unknown", "{}".into()),
        call("a tool without a name", "", "{}".into()),
        call(
            "a tool with a name of 4 KiB",
            &"x".repeat(4096),
            "{}".into(),
        ),
        call(
            "a tool named in other letters",
            "größe\u{1F511}",
            "{}".into(),
        ),
        call("arguments of no object", reads, "null".into()),
        call(
            "arguments of the wrong types",
            reads,
            r#"{"owner":1,"with":[],"repo":{},"private":"yes","path":null}"#.into(),
        ),
        call(
            "arguments of 256 KiB",
            reads,
            format!(r#"{{"text":"{}"}}"#, "x".repeat(256 << 10)),
        ),
        call(
            "arguments nested 100 deep",
            reads,
            format!(r#"{{"a":{}1{}}}"#, "[".repeat(100), "]".repeat(100)),
        ),
        Odd {
            scopes: many,
            ..call("a grant of 500 scopes", tool, "{}".into())
        },
    ]
}

fn judge(subject: &Subject, odd: &Odd) -> Result<Verdict, PresetFault> {
    let host = host(subject);
    let call = Call {
        method: &odd.method,
        name: odd.name.as_deref(),
        arguments: (!odd.arguments.is_empty()).then_some(odd.arguments.as_str()),
        host: &host,
    };
    let grant = GrantFacts {
        scopes: &odd.scopes,
        account: Some("4711"),
        facts: &[],
    };
    subject.party.preset.evaluate(&call, &grant)
}

fn host(subject: &Subject) -> String {
    super::stage::audience(&subject.party)
        .into_iter()
        .next()
        .unwrap_or_else(|| "api.example".into())
}

fn memory(group: &mut Group, subject: &Subject) {
    let host = host(subject);
    let call = Call {
        method: "tools/list",
        name: None,
        arguments: None,
        host: &host,
    };
    let grant = GrantFacts {
        scopes: &ScopeSet::default(),
        account: None,
        facts: &[],
    };
    let name = "one call needs little memory";
    match subject.trial.memory_of(&call, &grant) {
        Ok(bytes) if bytes <= MEMORY => group.pass(format!("{name} ({} KiB)", bytes >> 10)),
        Ok(bytes) => group.skip(
            name,
            format!(
                "{} KiB, as languages with a runtime of their own need",
                bytes >> 10
            ),
        ),
        Err(fault) => group.fail(
            name,
            "a verdict",
            fault.to_string(),
            "a native test of `evaluate` shows why",
        ),
    }
}

/// The same input gives the same output, whatever came between.
fn twice(group: &mut Group, subject: &Subject) {
    let name = "described twice, it says the same";
    match subject.workbench.bind(&subject.party.provider) {
        Ok(again) if again.preset().description() == subject.description() => group.pass(name),
        Ok(_) => group.fail(
            name,
            "the same description",
            "another one",
            "nothing but the settings may decide",
        ),
        Err(error) => group.fail(
            name,
            "the same description",
            error.to_string(),
            "nothing but the settings may decide",
        ),
    }
    let host = host(subject);
    let none = ScopeSet::default();
    let all: Vec<(String, Option<String>, Option<String>, &ScopeSet)> = subject
        .table
        .cases
        .iter()
        .map(|c| {
            (
                c.method.clone(),
                c.name.clone(),
                c.arguments.clone(),
                &c.granted,
            )
        })
        .chain(
            subject
                .description()
                .mcp_servers
                .iter()
                .flat_map(|s| &s.tools)
                .map(|t| {
                    (
                        "tools/call".to_owned(),
                        Some(t.name.clone()),
                        Some("{}".to_owned()),
                        &none,
                    )
                }),
        )
        .collect();
    let round = |backwards: bool| {
        let judge = |(method, name, arguments, scopes): &(
            String,
            Option<String>,
            Option<String>,
            &ScopeSet,
        )| {
            let call = Call {
                method,
                name: name.as_deref(),
                arguments: arguments.as_deref(),
                host: &host,
            };
            let grant = GrantFacts {
                scopes,
                account: Some("4711"),
                facts: &[],
            };
            subject.party.preset.evaluate(&call, &grant)
        };
        let mut verdicts: Vec<_> = if backwards {
            all.iter().rev().map(judge).collect()
        } else {
            all.iter().map(judge).collect()
        };
        if backwards {
            verdicts.reverse();
        }
        verdicts
    };
    let name = format!(
        "{} calls, forwards and backwards, get the same verdicts",
        all.len()
    );
    if all.is_empty() {
        group.skip(
            "the same calls get the same verdicts",
            "there is neither a table nor a tool",
        );
    } else if round(false) == round(true) {
        group.pass(name);
    } else {
        group.fail(
            name,
            "the same verdicts",
            "others",
            "a verdict may depend on nothing but call and grant: verdicts are cached and replayed",
        );
    }
}
