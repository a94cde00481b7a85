//! Every carrier of CONTRACT's "What a call gets when it can't go through".

use std::time::Duration;

use bytes::Bytes;
use countersign_core::connection::ReauthReason;
use countersign_core::error::{CallError, ErrorFacts};
use countersign_core::names::{CallId, ProviderName, ServerName};
use countersign_core::ports::fakes::CountingRandom;
use countersign_core::preset::PresetFault;
use countersign_core::scope::ScopeSet;
use countersign_mcp::answer::synthetic::Unconnected;
use countersign_mcp::answer::{
    Action, Carrier, Client, Elicitation, MAX_ROUNDS, Trouble, progress, tools_list_changed,
};
use countersign_mcp::revision::Revision;
use http::Response;
use insta::assert_snapshot;

use crate::support::request;

const CALL: &str =
    r#"{"jsonrpc":"2.0","id":"c\u0031","method":"tools/call","params":{"name":"notes_add"}}"#;
const PROMPT: &str = r#"{"jsonrpc":"2.0","id":2,"method":"prompts/get","params":{"name":"p"}}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":3,"method":"tools/list"}"#;

fn needs_connection() -> CallError {
    CallError::NeedsConnection {
        provider: "GitHub".into(),
    }
}

fn needs_scopes() -> CallError {
    CallError::NeedsScopes {
        provider: "GitHub".into(),
        missing: ScopeSet::split("repo read:org", &[]),
    }
}

fn ended(reason: ReauthReason) -> CallError {
    CallError::NeedsReauth {
        provider: "GitHub".into(),
        reason,
    }
}

fn denied() -> CallError {
    CallError::Denied {
        code: "tool_not_allowed".into(),
        message: "The team may not delete notes.".into(),
    }
}

fn facts(error: &CallError) -> ErrorFacts {
    let url = error
        .wants_user()
        .then(|| "https://gate.example/connect/github?link=abc".to_owned());
    error.facts(
        &ServerName::parse("notes").unwrap(),
        Some(&ProviderName::parse("github").unwrap()),
        url,
        &CallId::parse("call-1").unwrap(),
    )
}

fn shown(response: &Response<Bytes>) -> String {
    let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    let mut out = format!("HTTP {}\n", response.status().as_u16());
    for (name, value) in response.headers() {
        out.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    out + &serde_json::to_string_pretty(&body).unwrap()
}

fn pretty(json: &Bytes) -> String {
    let json: serde_json::Value = serde_json::from_slice(json).unwrap();
    serde_json::to_string_pretty(&json).unwrap()
}

fn with<T>(error: &CallError, revision: Revision, id: &str, f: impl FnOnce(Trouble<'_>) -> T) -> T {
    let facts = facts(error);
    f(Trouble {
        id,
        revision,
        error,
        facts: &facts,
    })
}

#[test]
fn each_client_gets_the_carrier_of_the_contract() {
    let (old, mid, url, new) = (
        Revision::V2025_03_26,
        Revision::V2025_06_18,
        Revision::V2025_11_25,
        Revision::V2026_07_28,
    );
    let asking = [
        needs_connection(),
        needs_scopes(),
        ended(ReauthReason::Revoked),
    ];
    // revision, declares elicitation.url, rounds, has a URL → for tools/call, prompts/get, tools/list
    let cases = [
        (
            new,
            true,
            0,
            true,
            [
                Carrier::InputRequired,
                Carrier::InputRequired,
                Carrier::RpcError,
            ],
        ),
        (
            new,
            true,
            MAX_ROUNDS - 1,
            true,
            [
                Carrier::InputRequired,
                Carrier::InputRequired,
                Carrier::RpcError,
            ],
        ),
        (
            new,
            true,
            MAX_ROUNDS,
            true,
            [Carrier::ToolResult, Carrier::RpcError, Carrier::RpcError],
        ),
        (
            new,
            false,
            0,
            true,
            [Carrier::ToolResult, Carrier::RpcError, Carrier::RpcError],
        ),
        (
            new,
            true,
            0,
            false,
            [Carrier::ToolResult, Carrier::RpcError, Carrier::RpcError],
        ),
        (
            url,
            true,
            0,
            true,
            [Carrier::Held, Carrier::Held, Carrier::UrlRequired],
        ),
        (
            url,
            false,
            0,
            true,
            [Carrier::ToolResult, Carrier::RpcError, Carrier::RpcError],
        ),
        (
            mid,
            true,
            0,
            true,
            [Carrier::ToolResult, Carrier::RpcError, Carrier::RpcError],
        ),
        (
            old,
            true,
            0,
            true,
            [Carrier::ToolResult, Carrier::RpcError, Carrier::RpcError],
        ),
    ];
    for (revision, url_elicitation, rounds, has_url, expected) in cases {
        let client = Client {
            revision,
            url_elicitation,
            rounds,
        };
        for error in &asking {
            let got = [CALL, PROMPT, LIST].map(|r| client.carrier(error, has_url, &request(r)));
            assert_eq!(got, expected, "{client:?} {error:?} {has_url}");
        }
        let got = [CALL, PROMPT].map(|r| client.carrier(&denied(), false, &request(r)));
        assert_eq!(got, [Carrier::ToolResult, Carrier::RpcError]);
        let got = client.carrier(&CallError::UpstreamTimeout, false, &request(CALL));
        assert_eq!(got, Carrier::RpcError);
    }
}

#[test]
fn a_client_of_2026_is_asked_by_an_input_required_result() {
    let asked = with(
        &needs_connection(),
        Revision::V2026_07_28,
        "\"c\\u0031\"",
        |t| t.input_required("cs1.state"),
    );
    assert_snapshot!("input_required", shown(&asked));
}

#[test]
fn a_client_of_2025_11_25_is_asked_on_the_held_calls_stream() {
    let elicitation = Elicitation::new(&CountingRandom::default());
    let asked = with(&needs_connection(), Revision::V2025_11_25, "1", |t| {
        elicitation.request(&t)
    });
    assert_snapshot!("elicitation_request", pretty(&asked));
    let answer = format!(
        r#"{{"jsonrpc":"2.0","id":"countersign-{}","method":"x"}}"#,
        elicitation.id()
    );
    let answered = request(&answer).id;
    assert_eq!(
        Elicitation::answered_by(&answered),
        Some(elicitation.clone())
    );
    assert_eq!(Elicitation::answered_by(&request(LIST).id), None);
    assert_snapshot!("elicitation_complete", pretty(&elicitation.completed()));
    let token = request(
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":"t"}}}"#,
    );
    let token = token.params.meta.progress_token.unwrap();
    assert_snapshot!(
        "progress",
        pretty(&progress(&token, 2, "Waiting for you to connect GitHub."))
    );
}

#[test]
fn after_the_wait_a_client_of_2025_11_25_gets_error_32042() {
    let elicitation = Elicitation::new(&CountingRandom::default());
    let error = with(&needs_scopes(), Revision::V2025_11_25, "1", |t| {
        t.url_required(&elicitation)
    });
    assert_snapshot!("url_required", pretty(&error));
}

#[test]
fn any_other_client_gets_a_tool_result_that_a_model_can_pass_on() {
    let result = with(&needs_connection(), Revision::V2025_06_18, "1", |t| {
        t.plain(&request(CALL))
    });
    assert_snapshot!("tool_result_2025", shown(&result));
    let result = with(
        &ended(ReauthReason::Revoked),
        Revision::V2026_07_28,
        "1",
        |t| t.plain(&request(CALL)),
    );
    assert_snapshot!("tool_result_2026", shown(&result));
}

#[test]
fn without_a_browser_identity_there_is_no_url_but_a_way_on() {
    let error = ended(ReauthReason::NoBrowserIdentity);
    let mut facts = facts(&error);
    facts.authorize_url = None;
    let trouble = Trouble {
        id: "1",
        revision: Revision::V2025_11_25,
        error: &error,
        facts: &facts,
    };
    assert_snapshot!("no_browser_identity", shown(&trouble.plain(&request(CALL))));
}

#[test]
fn denied_is_a_tool_result_with_code_and_message() {
    let result = with(&denied(), Revision::V2025_11_25, "1", |t| {
        t.plain(&request(CALL))
    });
    assert_snapshot!("denied", shown(&result));
    let error = with(&denied(), Revision::V2025_11_25, "2", |t| {
        t.plain(&request(PROMPT))
    });
    assert_snapshot!("denied_prompt", shown(&error));
}

#[test]
fn a_user_who_declines_ends_the_call() {
    let said = |json| Action::read(json);
    assert_eq!(said(r#"{"action":"accept"}"#), Some(Action::Accept));
    assert_eq!(
        said(r#"{"action":"cancel","content":{}}"#),
        Some(Action::Cancel)
    );
    assert_eq!(said(r#"{"action":"other"}"#), None);
    assert_eq!(said("[]"), None);
    let declined = with(&needs_connection(), Revision::V2026_07_28, "1", |t| {
        t.turned_down(Action::Decline, &request(CALL))
    });
    assert_snapshot!("declined", shown(&declined));
    let cancelled = with(&needs_connection(), Revision::V2026_07_28, "1", |t| {
        t.turned_down(Action::Cancel, &request(PROMPT))
    });
    assert_snapshot!("cancelled_prompt", shown(&cancelled));
}

#[test]
fn every_other_error_is_a_json_rpc_error_with_its_code_and_status() {
    let errors = [
        needs_connection(),
        CallError::Preset(PresetFault::Trap("unreachable".into())),
        CallError::Preset(PresetFault::Deadline),
        CallError::Preset(PresetFault::Unavailable("not approved".into())),
        CallError::Preset(PresetFault::Busy),
        CallError::Busy {
            retry_after: Duration::from_millis(1500),
        },
        CallError::RateLimited {
            retry_after: Duration::from_secs(7),
        },
        CallError::ProviderUnavailable {
            provider: "GitHub".into(),
            detail: "HTTP 502".into(),
        },
        CallError::UpstreamUnavailable {
            detail: "it answered with HTML".into(),
        },
        CallError::UpstreamTimeout,
    ];
    let all: Vec<String> = errors
        .iter()
        .map(|e| with(e, Revision::V2026_07_28, "9", |t| shown(&t.rpc_error())))
        .collect();
    assert_snapshot!("rpc_errors", all.join("\n\n"));
}

#[test]
fn an_unconnected_user_sees_one_tool_that_connects() {
    let (server, provider) = (
        ServerName::parse("notes").unwrap(),
        ProviderName::parse("github").unwrap(),
    );
    let unconnected = Unconnected {
        server: &server,
        display_name: "Notes",
        provider: &provider,
        provider_display_name: "GitHub",
    };
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{}}}"#;
    assert_snapshot!(
        "synthetic_initialize",
        shown(&unconnected.initialize(&request(initialize), Revision::V2025_06_18))
    );
    assert_snapshot!(
        "synthetic_tools_2025",
        shown(&unconnected.tools_list(&request(LIST), Revision::V2025_06_18))
    );
    assert_snapshot!(
        "synthetic_tools_2026",
        shown(&unconnected.tools_list(&request(LIST), Revision::V2026_07_28))
    );
    let discover = r#"{"jsonrpc":"2.0","id":4,"method":"server/discover"}"#;
    assert_snapshot!(
        "synthetic_discover",
        shown(&unconnected.discover(&request(discover)))
    );
    assert_snapshot!(
        "synthetic_connected",
        shown(&unconnected.connected(&request(CALL), Revision::V2026_07_28))
    );
    assert_snapshot!("tools_list_changed", pretty(&tools_list_changed()));
}
