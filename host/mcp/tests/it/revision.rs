//! Which revision a request speaks, and when header and body contradict.

use countersign_mcp::envelope::{Limits, parse};
use countersign_mcp::revision::{Era, Revision, of_get_or_delete, of_post};
use http::{HeaderMap, HeaderName, HeaderValue};

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(
            HeaderName::from_static(name),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    map
}

fn modern(method: &str, params: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    )
}

const VERSION: &str = "mcp-protocol-version";
const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";
const NEW: (&str, &str) = (VERSION, "2026-07-28");

#[test]
fn every_contradiction_of_2026_has_the_code_of_the_specification() {
    let call = modern("tools/call", r#""name":"get_x","#);
    let encoded = modern("tools/call", r#""name":"hé","#);
    let list = modern("tools/list", "");
    let task = modern("tasks/get", r#""taskId":"t1","#);
    let odd = list.replace("2026-07-28", "v999.0.0");
    let bare = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#.to_owned();
    let no_capabilities = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#.to_owned();
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#.to_owned();
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_owned();
    let ok = Ok(Revision::V2026_07_28);
    type Case<'a> = (
        &'a str,
        &'a [(&'static str, &'a str)],
        Result<Revision, i32>,
    );
    let cases: &[Case<'_>] = &[
        (&call, &[NEW, (METHOD, "tools/call"), (NAME, "get_x")], ok),
        (
            &call,
            &[NEW, (METHOD, "tools/call"), (NAME, "=?base64?Z2V0X3g=?=")],
            ok,
        ),
        (
            &call,
            &[NEW, (METHOD, " tools/call "), (NAME, "  get_x  ")],
            ok,
        ),
        (
            &encoded,
            &[NEW, (METHOD, "tools/call"), (NAME, "=?base64?aMOp?=")],
            ok,
        ),
        (&list, &[NEW, (METHOD, "tools/list")], ok),
        (&task, &[NEW, (METHOD, "tasks/get"), (NAME, "t1")], ok),
        (&task, &[NEW, (METHOD, "tasks/get")], ok),
        (
            &task,
            &[NEW, (METHOD, "tasks/get"), (NAME, "t2")],
            Err(-32020),
        ),
        (&call, &[NEW, (METHOD, "tools/call")], Err(-32020)),
        (
            &call,
            &[NEW, (METHOD, "tools/call"), (NAME, "other")],
            Err(-32020),
        ),
        (
            &call,
            &[NEW, (METHOD, "tools/call"), (NAME, "GET_X")],
            Err(-32020),
        ),
        (
            &call,
            &[NEW, (METHOD, "tools/call"), (NAME, "=?base64?!?=")],
            Err(-32020),
        ),
        (
            &encoded,
            &[NEW, (METHOD, "tools/call"), (NAME, "hé")],
            Err(-32020),
        ),
        (
            &call,
            &[
                NEW,
                (METHOD, "tools/call"),
                (NAME, "get_x"),
                (NAME, "other"),
            ],
            Err(-32020),
        ),
        (
            &call,
            &[
                NEW,
                (METHOD, "tools/call"),
                (NAME, "get_x"),
                ("mcp-param-a", "é"),
            ],
            Err(-32020),
        ),
        (&call, &[NEW, (NAME, "get_x")], Err(-32020)),
        (&list, &[NEW, (METHOD, "TOOLS/LIST")], Err(-32020)),
        (&list, &[NEW, (METHOD, "prompts/list")], Err(-32020)),
        (&list, &[(METHOD, "tools/list")], Err(-32020)),
        (
            &list,
            &[(VERSION, "2025-11-25"), (METHOD, "tools/list")],
            Err(-32020),
        ),
        (&list, &[NEW, NEW, (METHOD, "tools/list")], Err(-32020)),
        (&odd, &[NEW, (METHOD, "tools/list")], Err(-32020)),
        (
            &odd,
            &[(VERSION, "v999.0.0"), (METHOD, "tools/list")],
            Err(-32022),
        ),
        (&bare, &[(VERSION, "v999.0.0")], Err(-32022)),
        (&bare, &[(VERSION, "2024-11-05")], Err(-32022)),
        (&bare, &[NEW, (METHOD, "tools/list")], Err(-32602)),
        (
            &no_capabilities,
            &[NEW, (METHOD, "tools/list")],
            Err(-32602),
        ),
        (
            &modern(
                "initialize",
                r#""protocolVersion":"x","capabilities":{},"clientInfo":{},"#,
            ),
            &[NEW, (METHOD, "initialize")],
            Err(-32601),
        ),
        (&notification, &[NEW], ok),
        (&response, &[NEW], Err(-32600)),
        (
            &format!("[{list}]"),
            &[NEW, (METHOD, "tools/list")],
            Err(-32600),
        ),
    ];
    for (body, pairs, expected) in cases {
        let incoming = parse(body.as_bytes(), &Limits::default()).unwrap();
        let got = of_post(&headers(pairs), &incoming, None);
        let status = got.as_ref().err().map(|r| r.why.status().as_u16());
        assert_eq!(
            got.as_ref().map_err(|r| r.why.code()),
            expected.as_ref().map_err(|c| *c),
            "{body} {pairs:?}"
        );
        match expected {
            Err(-32601) => assert_eq!(status, Some(404)),
            Err(_) => assert_eq!(status, Some(400)),
            Ok(_) => {}
        }
    }
}

#[test]
fn the_revisions_with_sessions_are_told_apart_as_they_say() {
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let initialize = |version: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}},"clientInfo":{{}}}}}}"#
        )
    };
    let batch = format!("[{list}]");
    let (old, mid, new) = (
        Revision::V2025_03_26,
        Revision::V2025_06_18,
        Revision::V2025_11_25,
    );
    type Case = (
        String,
        Option<&'static str>,
        Option<Revision>,
        Result<Revision, i32>,
    );
    let cases: Vec<Case> = vec![
        (list.into(), None, None, Ok(old)),
        (list.into(), None, Some(new), Ok(new)),
        (list.into(), Some("2025-06-18"), None, Ok(mid)),
        (list.into(), Some("2025-06-18"), Some(mid), Ok(mid)),
        (list.into(), Some("nonsense"), Some(mid), Err(-32022)),
        (initialize("2025-06-18"), None, None, Ok(mid)),
        (initialize("2099-01-01"), None, None, Ok(new)),
        (initialize("2026-07-28"), None, None, Ok(new)),
        (initialize("2025-03-26"), Some("2025-06-18"), None, Ok(old)),
        (batch.clone(), None, None, Ok(old)),
        (batch.clone(), Some("2025-03-26"), None, Ok(old)),
        (batch.clone(), Some("2025-06-18"), None, Err(-32600)),
        (batch, None, Some(new), Err(-32600)),
    ];
    for (body, header, session, expected) in cases {
        let incoming = parse(body.as_bytes(), &Limits::default()).unwrap();
        let headers = header.map_or_else(HeaderMap::new, |h| headers(&[(VERSION, h)]));
        let got = of_post(&headers, &incoming, session).map_err(|r| r.why.code());
        assert_eq!(got, expected, "{body} {header:?} {session:?}");
    }
}

#[test]
fn an_unknown_version_is_answered_with_what_there_is() {
    let list = modern("tools/list", "").replace("2026-07-28", "v999.0.0");
    let incoming = parse(list.as_bytes(), &Limits::default()).unwrap();
    let refused = of_post(
        &headers(&[(VERSION, "v999.0.0"), (METHOD, "tools/list")]),
        &incoming,
        None,
    )
    .unwrap_err();
    let answer: serde_json::Value = serde_json::from_slice(refused.response().body()).unwrap();
    assert_eq!(answer["id"], 1);
    assert_eq!(
        answer["error"]["data"],
        serde_json::json!({"supported": ["2026-07-28"], "requested": "v999.0.0"})
    );
}

#[test]
fn get_and_delete_exist_with_sessions_only() {
    let of = |version: Option<&str>, session| {
        let headers = version.map_or_else(HeaderMap::new, |v| headers(&[(VERSION, v)]));
        of_get_or_delete(&headers, session).map_err(|r| r.status().as_u16())
    };
    assert_eq!(of(Some("2026-07-28"), None), Err(405));
    assert_eq!(of(Some("2025-11-25"), None), Ok(Revision::V2025_11_25));
    assert_eq!(
        of(None, Some(Revision::V2025_06_18)),
        Ok(Revision::V2025_06_18)
    );
    assert_eq!(of(None, None), Ok(Revision::V2025_03_26));
    assert_eq!(of(Some("x"), None), Err(400));
    assert_eq!(Revision::of_era(Era::PerRequest), [Revision::V2026_07_28]);
}
