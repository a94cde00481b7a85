use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::caller::{Caller, Permissions};
use crate::decide::{Attachment, Judged};
use crate::error::CallError;
use crate::policy::{Effect, Except, Policy, Rule, Rules, Who};
use crate::ports::fakes::MemoryRecords;
use crate::preset::Call;
use crate::server::{AuthMode, ConnectionUse, Server, ServerAuth, Target, ToolFilter};

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// The store in memory never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn key() -> SealKey {
    SealKey::new([3; 32])
}

fn caller(user: &str) -> Caller {
    Caller {
        user: user.parse().unwrap(),
        team: TeamName::default_team(),
        client: "agent".parse().unwrap(),
        client_name: "Agent".into(),
        roles: BTreeSet::new(),
        permissions: Permissions::default(),
        servers: None,
        has_browser_identity: true,
    }
}

fn policy(name: &str) -> Policy {
    Policy {
        name: name.parse().unwrap(),
        display_name: name.into(),
        order: 100,
        who: Who::default(),
        servers: Vec::new(),
        methods: Vec::new(),
        tools: Vec::new(),
        except: Except::default(),
        when: Vec::new(),
        effect: Effect::NeedApproval {
            message: format!("{name} asks."),
        },
        enabled: true,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn server(url: &str) -> Server {
    Server {
        name: "notes".parse().unwrap(),
        display_name: "Notes".into(),
        target: Target::Url(url::Url::parse(url).unwrap()),
        auth: ServerAuth {
            mode: AuthMode::None,
            provider: None,
            required_scopes: Default::default(),
            secret_ref: None,
            injection: None,
            per_user: false,
            resource: None,
            audience: None,
            changed: None,
        },
        connection: ConnectionUse::Shared,
        wait: MINUTE,
        timeout: MINUTE,
        tools: ToolFilter::default(),
        teams: Vec::new(),
        record_decisions: false,
        resource: None,
        enabled: true,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn judged_by(
    caller: &Caller,
    url: &str,
    policies: &[Policy],
    tool: &str,
    arguments: &str,
) -> Judged {
    let rules = policies
        .iter()
        .map(|p| Rule::new(Arc::new(p.clone())).unwrap());
    let rules = Rules::new(rules);
    let attachment = Attachment::new(Arc::new(server(url)), None, None, &rules).unwrap();
    let call = Call {
        method: "tools/call",
        name: Some(tool),
        arguments: Some(arguments),
        host: "notes.example.com",
    };
    let attachment = Arc::new(attachment);
    let admitted = attachment.admit(caller, call).unwrap();
    admitted.connected(None, NOW).unwrap().judge().unwrap()
}

fn judged(user: &str, tool: &str, arguments: &str) -> Judged {
    let policies = [policy("careful")];
    judged_by(
        &caller(user),
        "https://notes.example.com/mcp",
        &policies,
        tool,
        arguments,
    )
}

fn meets(records: &MemoryRecords, judged: &Judged, at: Timestamp) -> Standing {
    let question = judged.question().unwrap();
    now(spend(records, question, &question.id(&key()), at)).unwrap()
}

fn answer_as(
    records: &MemoryRecords,
    user: &str,
    judged: &Judged,
    allow: bool,
    at: Timestamp,
) -> Result<Approval, NotAsked> {
    let id = judged.question().unwrap().id(&key());
    now(decide(records, &user.parse().unwrap(), &id, allow, at))
}

#[test]
fn a_yes_lets_exactly_one_call_through() {
    let records = MemoryRecords::default();
    let call = || judged("ann", "delete", r#"{"id":1}"#);
    assert!(matches!(meets(&records, &call(), NOW), Standing::Open));
    assert!(matches!(meets(&records, &call(), NOW), Standing::Open));
    answer_as(&records, "ann", &call(), true, NOW).unwrap();
    let Standing::Allowed(word) = meets(&records, &call(), NOW) else {
        panic!("the yes was not found");
    };
    assert!(call().agreed(Some(word)).is_ok());
    assert!(matches!(meets(&records, &call(), NOW), Standing::Open));
    assert!(matches!(
        call().agreed(None),
        Err(CallError::ApprovalRequired { .. })
    ));
}

#[test]
fn a_yes_is_for_one_user_agent_server_tool_and_text_only() {
    let records = MemoryRecords::default();
    let first = judged("ann", "delete", r#"{"id":1,"why":"old"}"#);
    meets(&records, &first, NOW);
    answer_as(&records, "ann", &first, true, NOW).unwrap();
    let ann = caller("ann");
    let asks = [policy("careful")];
    let url = "https://notes.example.com/mcp";
    let text = r#"{"id":1,"why":"old"}"#;
    let with = |change: &dyn Fn(&mut Caller)| {
        let mut caller = ann.clone();
        change(&mut caller);
        judged_by(&caller, url, &asks, "delete", text)
    };
    let others = [
        with(&|c| c.user = "eve".parse().unwrap()),
        with(&|c| c.team = "ops".parse().unwrap()),
        with(&|c| c.client = "other".parse().unwrap()),
        judged_by(&ann, "https://evil.example.com/mcp", &asks, "delete", text),
        judged_by(&ann, url, &asks, "delete_all", text),
        judged_by(&ann, url, &asks, "delete", r#"{"id":2,"why":"old"}"#),
        judged_by(&ann, url, &asks, "delete", r#"{"id":1.0,"why":"old"}"#),
        judged_by(&ann, url, &asks, "delete", r#"{"id":"1","why":"old"}"#),
        // One policy more wants a word: the one that was given is not for it.
        judged_by(
            &ann,
            url,
            &[policy("careful"), policy("more")],
            "delete",
            text,
        ),
    ];
    for other in &others {
        assert!(matches!(meets(&records, other, NOW), Standing::Open));
    }
    // The same call, written differently.
    let again = judged("ann", "delete", r#"{ "why": "\u006fld", "id": 1 }"#);
    let Standing::Allowed(word) = meets(&records, &again, NOW) else {
        panic!("the same call was not recognised");
    };
    for other in others {
        let id = other.question().unwrap().digest;
        assert_ne!(id, again.question().unwrap().digest);
    }
    assert!(
        judged("ann", "delete", r#"{"id":2}"#)
            .agreed(Some(word))
            .is_err()
    );
}

#[test]
fn a_no_is_remembered_for_a_while_and_then_he_may_be_asked_again() {
    let records = MemoryRecords::default();
    let call = judged("ann", "delete", "{}");
    meets(&records, &call, NOW);
    answer_as(&records, "ann", &call, false, NOW).unwrap();
    assert!(matches!(
        meets(&records, &call, NOW.plus(MINUTE)),
        Standing::Denied
    ));
    let later = NOW.plus(DENIED_FOR);
    assert!(matches!(meets(&records, &call, later), Standing::Open));
}

#[test]
fn questions_and_answers_end() {
    let records = MemoryRecords::default();
    let call = judged("ann", "delete", "{}");
    meets(&records, &call, NOW);
    let late = NOW.plus(ASKED_FOR);
    assert_eq!(
        answer_as(&records, "ann", &call, true, late).unwrap_err(),
        NotAsked::Unknown
    );
    meets(&records, &call, late);
    answer_as(&records, "ann", &call, true, late).unwrap();
    let too_late = late.plus(ALLOWED_FOR);
    assert!(matches!(meets(&records, &call, too_late), Standing::Open));
}

#[test]
fn only_the_user_who_was_asked_can_see_the_question_and_answer_it_once() {
    let records = MemoryRecords::default();
    let call = judged("ann", "delete", "{}");
    meets(&records, &call, NOW);
    let id = call.question().unwrap().id(&key());
    let eve = "eve".parse().unwrap();
    assert_eq!(
        now(show(&records, &eve, &id, NOW)).unwrap_err(),
        NotAsked::Unknown
    );
    assert_eq!(
        answer_as(&records, "eve", &call, true, NOW).unwrap_err(),
        NotAsked::Unknown
    );
    answer_as(&records, "ann", &call, false, NOW).unwrap();
    assert_eq!(
        answer_as(&records, "ann", &call, true, NOW).unwrap_err(),
        NotAsked::Answered(Answer::Denied)
    );
}

#[test]
fn long_arguments_are_shown_whole() {
    let records = MemoryRecords::default();
    let body = "ä\\\"\n".repeat(5000);
    let arguments = serde_json::json!({ "body": body, "to": "ann" }).to_string();
    assert!(arguments.len() < LONGEST_ARGUMENTS);
    let call = judged("ann", "send", &arguments);
    meets(&records, &call, NOW);
    let id = call.question().unwrap().id(&key());
    let shown = now(show(&records, &"ann".parse().unwrap(), &id, NOW)).unwrap();
    assert_eq!(shown.question.arguments, call.question().unwrap().arguments);
    let read: serde_json::Value = serde_json::from_str(&shown.question.arguments).unwrap();
    assert_eq!(read["body"], body);
}

#[test]
fn an_agent_cannot_heap_up_questions() {
    let records = MemoryRecords::default();
    for n in 0..MOST_OPEN {
        let call = judged("ann", "delete", &n.to_string());
        assert!(matches!(meets(&records, &call, NOW), Standing::Open));
    }
    let more = judged("ann", "delete", "-1");
    assert!(matches!(meets(&records, &more, NOW), Standing::TooMany));
    // What is open already stays so, and others are not held up.
    let known = judged("ann", "delete", "0");
    assert!(matches!(meets(&records, &known, NOW), Standing::Open));
    let other = judged("bert", "delete", "-1");
    assert!(matches!(meets(&records, &other, NOW), Standing::Open));
}

#[test]
fn who_cannot_wait_or_be_shown_is_refused_not_asked() {
    let rules = |methods: &[&str]| {
        let mut asks = policy("careful");
        asks.methods = methods.iter().map(ToString::to_string).collect();
        Rules::new([Rule::new(Arc::new(asks)).unwrap()])
    };
    let refused = |method: &str, arguments: &str| {
        let server = Arc::new(server("https://notes.example.com/mcp"));
        let attachment = Attachment::new(server, None, None, &rules(&["*"])).unwrap();
        let attachment = Arc::new(attachment);
        let call = Call {
            method,
            name: None,
            arguments: Some(arguments),
            host: "notes.example.com",
        };
        let caller = caller("ann");
        let ready = attachment.admit(&caller, call).unwrap();
        match ready.connected(None, NOW).unwrap().judge() {
            Err(CallError::PolicyDenied { policy, code, .. }) => (policy.to_string(), code),
            _ => panic!("{method} was not refused"),
        }
    };
    let careful = |code: &str| ("careful".to_owned(), code.to_owned());
    assert_eq!(
        refused("tools/list", "{}"),
        careful("approval_not_possible")
    );
    let large = format!("\"{}\"", "x".repeat(LONGEST_ARGUMENTS));
    assert_eq!(refused("tools/call", &large), careful("approval_too_large"));
    assert_eq!(
        refused("tools/call", r#"{"a":1,"a":1}"#),
        careful("approval_not_possible")
    );
}
