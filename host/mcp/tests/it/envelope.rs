//! What is taken and what is refused of a posted body.

use countersign_mcp::envelope::{Incoming, Limits, Message, parse};
use countersign_mcp::refusal::Refusal;
use proptest::prelude::*;

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get_x","arguments":{"a":[1,{"b":"\u00e9"}]},"_meta":{"progressToken":"p","io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{"url":{}}}}}}"#;

#[test]
fn a_call_is_understood_and_stays_as_it_came() {
    let padded = format!(" \r\n{CALL}\t");
    let Incoming::Single(Message::Request(call)) =
        parse(padded.as_bytes(), &Limits::default()).unwrap()
    else {
        panic!()
    };
    assert_eq!(call.raw, CALL);
    assert_eq!(
        (call.id.raw(), &*call.method, call.name()),
        ("7", "tools/call", Some("get_x"))
    );
    assert_eq!(call.params.arguments, Some(r#"{"a":[1,{"b":"\u00e9"}]}"#));
    assert_eq!(
        call.params.meta.progress_token.map(|t| t.raw()),
        Some("\"p\"")
    );
    assert_eq!(
        call.params.meta.protocol_version.as_deref(),
        Some("2026-07-28")
    );
    assert_eq!(
        call.params.meta.client_capabilities,
        Some(r#"{"elicitation":{"url":{}}}"#)
    );
}

#[test]
fn an_id_stays_as_it_was_written_and_compares_by_value() {
    let id = |raw: &'static str| {
        let body: &'static str = Box::leak(
            format!(r#"{{"jsonrpc":"2.0","id":{raw},"method":"ping"}}"#).into_boxed_str(),
        );
        let Incoming::Single(message) = parse(body.as_bytes(), &Limits::default()).unwrap() else {
            panic!()
        };
        message.id().unwrap()
    };
    for raw in [
        "1",
        "-9007199254740993",
        "18446744073709551615",
        "\"\"",
        "\"a\\u0062\\n\"",
        "\"1\"",
    ] {
        assert_eq!(id(raw).raw(), raw);
    }
    assert!(id("\"ab\"") == id("\"\\u0061b\""));
    assert!(id("\"1\"") != id("1"));
}

#[test]
fn every_malformed_message_is_refused_with_its_code_status_and_id() {
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":{}1{}}}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    let long_id = format!(
        r#"{{"jsonrpc":"2.0","id":"{}","method":"x"}}"#,
        "i".repeat(2000)
    );
    let call = |params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
    };
    // body, code, status, id
    let cases: Vec<(String, i32, u16, Option<&str>)> = vec![
        (String::new(), -32700, 400, None),
        ("{".into(), -32700, 400, None),
        (CALL[..CALL.len() - 1].into(), -32700, 400, Some("7")),
        (format!("{CALL}x"), -32700, 400, Some("7")),
        ("\u{feff}{}".into(), -32700, 400, None),
        ("<html>".into(), -32700, 400, None),
        ("{'a':1}".into(), -32700, 400, None),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":NaN}}"#.into(), -32700, 400, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\ud800"}}"#.into(), -32700, 400, Some("1")),
        ("1".into(), -32600, 400, None),
        ("null".into(), -32600, 400, None),
        ("\"x\"".into(), -32600, 400, None),
        ("{}".into(), -32600, 400, None),
        (deep, -32600, 400, Some("1")),
        // Duplicates, also where nothing looks.
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#.into(), -32600, 400, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","method":"y"}"#.into(), -32600, 400, Some("1")),
        (call(r#"{"name":"a","name":"b"}"#), -32600, 400, Some("1")),
        (call(r#"{"name":"a","n\u0061me":"b"}"#), -32600, 400, Some("1")),
        (call(r#"{"name":"a","arguments":{"x":{"k":1,"k":2}}}"#), -32600, 400, Some("1")),
        (call(r#"{"name":"a","_meta":{"progressToken":1,"progressToken":2}}"#), -32600, 400, Some("1")),
        (call(r#"{"name":"a","other":[{"k":1,"k":2}]}"#), -32600, 400, Some("1")),
        (call(r#"{"name":"a","arguments":{"$serde_json::private::RawValue":"{}"}}"#), -32600, 400, Some("1")),
        // Envelope.
        (r#"{"id":1,"method":"x"}"#.into(), -32600, 400, Some("1")),
        (r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#.into(), -32600, 400, Some("1")),
        (r#"{"jsonrpc":2.0,"id":1,"method":"x"}"#.into(), -32600, 400, Some("1")),
        (r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#.into(), -32600, 400, None),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#.into(), -32600, 400, None),
        (r#"{"jsonrpc":"2.0","id":1e3,"method":"x"}"#.into(), -32600, 400, None),
        (r#"{"jsonrpc":"2.0","id":true,"method":"x"}"#.into(), -32600, 400, None),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"x"}"#.into(), -32600, 400, None),
        (long_id, -32600, 400, None),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#.into(), -32600, 400, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":""}"#.into(), -32600, 400, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":null}"#.into(), -32600, 400, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","result":{}}"#.into(), -32600, 400, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1}"#.into(), -32600, 400, Some("1")),
        (r#"{"jsonrpc":"2.0","result":{}}"#.into(), -32600, 400, None),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#.into(), -32600, 400, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"result":7}"#.into(), -32600, 400, Some("1")),
        // Parameters.
        (call("[]"), -32602, 400, Some("1")),
        (call("null"), -32602, 400, Some("1")),
        (call("7"), -32602, 400, Some("1")),
        (call("{}"), -32602, 400, Some("1")),
        (call(r#"{"name":7}"#), -32602, 400, Some("1")),
        (call(r#"{"name":""}"#), -32602, 400, Some("1")),
        (call(r#"{"name":"a","arguments":[]}"#), -32602, 400, Some("1")),
        (call(r#"{"name":"a","arguments":"x"}"#), -32602, 400, Some("1")),
        (call(r#"{"name":"a","_meta":[]}"#), -32602, 400, Some("1")),
        (call(r#"{"name":"a","_meta":{"progressToken":null}}"#), -32602, 400, Some("1")),
        (call(r#"{"name":"a","_meta":{"progressToken":1.5}}"#), -32602, 400, Some("1")),
        (call(r#"{"name":"a","_meta":{"io.modelcontextprotocol/protocolVersion":7}}"#), -32602, 400, Some("1")),
        (call(r#"{"name":"a","_meta":{"io.modelcontextprotocol/clientCapabilities":[]}}"#), -32602, 400, Some("1")),
        (call(r#"{"name":"a","inputResponses":[]}"#), -32602, 400, Some("1")),
        (call(r#"{"name":"a","requestState":{}}"#), -32602, 400, Some("1")),
        (r#"{"jsonrpc":"2.0","id":"r","method":"resources/read","params":{"uri":7}}"#.into(), -32602, 400, Some("\"r\"")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"x","capabilities":{}}}"#.into(), -32602, 400, Some("1")),
        // Batches.
        ("[]".into(), -32600, 400, None),
        ("[1]".into(), -32600, 400, None),
        ("[{}]".into(), -32600, 400, None),
        (format!("[{CALL}"), -32700, 400, None),
        (format!("[{CALL},{CALL}]"), -32600, 400, None),
        (format!("[{CALL},{}]", r#"{"jsonrpc":"2.0","id":8,"result":{}}"#), -32600, 400, None),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"x","capabilities":{},"clientInfo":{}}}]"#.into(), -32600, 400, None),
        (format!("[{}]", vec![r#"{"jsonrpc":"2.0","method":"x"}"#; 51].join(",")), -32600, 400, None),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1,"a":2}}]"#.into(), -32600, 400, Some("1")),
    ];
    for (body, code, status, id) in cases {
        let Err(refused) = parse(body.as_bytes(), &Limits::default()) else {
            panic!("taken: {body}")
        };
        let shown: String = body.chars().take(120).collect();
        assert_eq!(
            (refused.why.code(), refused.why.status().as_u16()),
            (code, status),
            "{shown} {refused}"
        );
        assert_eq!(refused.id.as_deref(), id, "{shown}");
        let answer: serde_json::Value = serde_json::from_slice(refused.response().body()).unwrap();
        assert_eq!(answer["error"]["code"], code, "{shown}");
    }
}

#[test]
fn a_body_beyond_the_cap_or_not_utf8_is_refused() {
    let limits = Limits {
        max_bytes: 10,
        ..Limits::default()
    };
    assert_eq!(
        parse(CALL.as_bytes(), &limits).unwrap_err().why,
        Refusal::TooLarge { limit: 10 }
    );
    let broken = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}";
    assert_eq!(
        parse(broken, &Limits::default()).unwrap_err().why,
        Refusal::NotUtf8
    );
}

#[test]
fn line_breaks_in_a_name_are_taken_but_never_reach_a_header() {
    let body =
        br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a\r\nX-Evil: 1"}}"#;
    let Incoming::Single(Message::Request(call)) = parse(body, &Limits::default()).unwrap() else {
        panic!()
    };
    assert_eq!(call.name(), Some("a\r\nX-Evil: 1"));
    let header = countersign_mcp::headers::encode_name(call.name().unwrap());
    assert!(header.to_str().unwrap().starts_with("=?base64?"));
}

#[test]
fn the_members_of_a_batch_are_the_bytes_that_came() {
    let batch = format!(
        "[ {CALL} ,\n{}]",
        r#"{"jsonrpc":"2.0","method":"notifications/x"}"#
    );
    let body = bytes::Bytes::from(batch);
    let Incoming::Batch(members) = parse(&body, &Limits::default()).unwrap() else {
        panic!()
    };
    assert_eq!(members.len(), 2);
    let first = countersign_mcp::batch::member(&body, members.first().unwrap());
    assert_eq!(first, CALL);
}

/// JSON-like text: mostly valid, often with a twist.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:e}")),
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
        "[\\\\\"a-z0-9{}:,]{0,8}",
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|v| format!("[{}]", v.join(","))),
            prop::collection::vec(
                (
                    prop::sample::select(vec![
                        "jsonrpc",
                        "id",
                        "method",
                        "params",
                        "name",
                        "uri",
                        "arguments",
                        "_meta",
                        "progressToken",
                        "result",
                        "error",
                        "a",
                        "b",
                    ]),
                    inner
                ),
                0..6
            )
            .prop_map(|m| {
                let members: Vec<_> = m.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn has_duplicates(text: &str) -> bool {
    // An independent reader: names by depth, with a stack.
    struct Names(bool);
    impl<'de> serde::de::Visitor<'de> for &mut Names {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("JSON")
        }
        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
        fn visit_bool<E>(self, _: bool) -> Result<(), E> {
            Ok(())
        }
        fn visit_i64<E>(self, _: i64) -> Result<(), E> {
            Ok(())
        }
        fn visit_u64<E>(self, _: u64) -> Result<(), E> {
            Ok(())
        }
        fn visit_f64<E>(self, _: f64) -> Result<(), E> {
            Ok(())
        }
        fn visit_str<E>(self, _: &str) -> Result<(), E> {
            Ok(())
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
            while seq.next_element_seed(&mut *self)?.is_some() {}
            Ok(())
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut seen = std::collections::HashSet::new();
            while let Some(name) = map.next_key::<String>()? {
                self.0 |= !seen.insert(name);
                map.next_value_seed(&mut *self)?;
            }
            Ok(())
        }
    }
    impl<'de> serde::de::DeserializeSeed<'de> for &mut Names {
        type Value = ();
        fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
            json.deserialize_any(self)
        }
    }
    let mut names = Names(false);
    let mut json = serde_json::Deserializer::from_str(text);
    let _ = serde::de::DeserializeSeed::deserialize(&mut names, &mut json);
    names.0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&body, &Limits::default());
    }

    #[test]
    fn what_is_taken_reads_the_same_everywhere(params in json(), id in json(), extra in json()) {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"x","params":{params},"extra":{extra}}}"#
        );
        if let Ok(Incoming::Single(message)) = parse(body.as_bytes(), &Limits::default()) {
            let other: serde_json::Value = serde_json::from_str(&body).unwrap();
            prop_assert!(!has_duplicates(&body));
            prop_assert_eq!(&other["method"], "x");
            let ours = message.id().map(|id| serde_json::from_str::<serde_json::Value>(id.raw()).unwrap());
            prop_assert_eq!(ours.as_ref(), Some(&other["id"]));
            let seen = message.params().unwrap();
            prop_assert_eq!(seen.name.as_deref(), other["params"]["name"].as_str());
            if let Some(arguments) = seen.arguments {
                let arguments: serde_json::Value = serde_json::from_str(arguments).unwrap();
                prop_assert_eq!(&arguments, &other["params"]["arguments"]);
            }
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(message.raw()).unwrap(), other);
        }
    }
}
