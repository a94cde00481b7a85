//! Hooks are called when they are exported and named, and what they answer is
//! checked.

use countersign_core::preset::{AccountFacts, Call, GrantFacts, Preset, PresetFault, Redaction};
use countersign_core::scope::ScopeSet;
use countersign_core::signing::Unsigned;
use serde_json::{Value, json};

use crate::fixture::{Body, Fixture, description};
use crate::house::{House, provider};

/// A preset with one hook that answers so.
fn answering(hook: &'static str, answer: Value) -> (House, std::sync::Arc<dyn Preset>) {
    let mut said = description();
    said["hooks"] = json!([hook]);
    House::with(&Fixture {
        hooks: vec![(hook, Body::Answer(answer))],
        ..Fixture::described(said)
    })
}

fn call() -> Call<'static> {
    Call {
        method: "tools/call",
        name: Some("read"),
        arguments: None,
        host: "api.example.com",
    }
}

fn request() -> Unsigned {
    Unsigned {
        method: "POST".into(),
        host: "api.example.com".into(),
        path: "/mcp".into(),
        query: vec![("a".into(), "b".into())],
        headers: vec![("content-type".into(), "application/json".into())],
        body_sha256: "00".into(),
        time: 7,
    }
}

#[test]
fn hooks_run_when_they_are_exported_and_named() {
    let shape = json!({"credential": "user", "access-token": ["/data/key"]});
    let hooks = vec![
        (
            "authorize-parameters",
            Body::Answer(json!({"ok": [["access_type", "offline"]]})),
        ),
        ("token-answer", Body::Answer(json!({"ok": [shape]}))),
        ("refresh-error", Body::Answer(json!({"ok": "transient"}))),
        (
            "filter-tools",
            Body::Answer(json!({"ok": ["read", "invented"]})),
        ),
    ];
    let mut said = description();
    said["hooks"] = json!([
        "authorize-parameters",
        "token-answer",
        "refresh-error",
        "filter-tools"
    ]);
    let tools = ["read".to_owned(), "write".to_owned()];
    let grant = GrantFacts {
        scopes: &ScopeSet::default(),
        account: None,
        facts: &[],
    };

    let (_house, preset) = House::with(&Fixture {
        hooks: hooks.clone(),
        ..Fixture::described(said)
    });
    let added = preset.authorize_parameters(&ScopeSet::default()).unwrap();
    assert_eq!(added, [("access_type".to_owned(), "offline".to_owned())]);
    let shapes = preset.token_answer(200, "{}").unwrap().unwrap();
    assert_eq!(shapes[0].access_token, ["/data/key"]);
    assert_eq!(preset.refresh_error(400, Some("x"), "{}"), Ok(Some(false)));
    // What was not in the list does not get into it.
    assert_eq!(
        preset.filter_tools(&tools, &grant),
        Ok(Some(vec!["read".to_owned()]))
    );

    // Exported and not named: as if they were not there.
    let (_house, preset) = House::with(&Fixture {
        hooks,
        ..Fixture::default()
    });
    assert_eq!(
        preset.authorize_parameters(&ScopeSet::default()),
        Ok(vec![])
    );
    assert_eq!(preset.token_answer(200, "{}"), Ok(None));
    assert_eq!(preset.refresh_error(400, None, "{}"), Ok(None));
    assert_eq!(preset.filter_tools(&tools, &grant), Ok(None));
    assert_eq!(preset.sign(&request()), Ok(None));
    assert_eq!(preset.identity("{}"), Ok(None));
    assert_eq!(preset.redact(&call(), "{}"), Ok(None));
}

#[test]
fn a_hook_cannot_take_over_the_flow_or_point_at_tokens() {
    for name in [
        "state",
        "redirect_uri",
        "code_challenge",
        "scope",
        "resource",
        "",
    ] {
        let mut said = description();
        said["hooks"] = json!(["authorize-parameters"]);
        let hooks = vec![(
            "authorize-parameters",
            Body::Answer(json!({"ok": [[name, "x"]]})),
        )];
        let (_house, preset) = House::with(&Fixture {
            hooks,
            ..Fixture::described(said)
        });
        let answer = preset.authorize_parameters(&ScopeSet::default());
        assert!(matches!(answer, Err(PresetFault::BadOutput(_))), "{name}");
    }
    // The description keeps `/data/key`; the hook then calls it the token.
    let mut said = description();
    said["hooks"] = json!(["token-answer"]);
    said["metadata"] = json!([{"name": "key", "pointer": "/data/key", "kind": "identifier"}]);
    let shape = json!({"credential": "user", "access-token": ["/data/key"]});
    let hooks = vec![("token-answer", Body::Answer(json!({"ok": [shape]})))];
    let (_house, preset) = House::with(&Fixture {
        hooks,
        ..Fixture::described(said)
    });
    assert!(matches!(
        preset.token_answer(200, "{}"),
        Err(PresetFault::BadOutput(_))
    ));
}

#[test]
fn an_account_has_128_visible_characters_at_most() {
    let account = |id: &str, label: &str, tenant: Value| json!({"ok": {"id": id, "label": label, "tenant": tenant}});
    let long = "é".repeat(128);
    let (_house, preset) = answering("identity", account("7", &long, json!("acme")));
    let expected = AccountFacts {
        id: "7".into(),
        label: long.clone(),
        tenant: Some("acme".into()),
    };
    assert_eq!(preset.identity("{}"), Ok(Some(expected)));
    let longer = format!("{long}é");
    for bad in [
        account("", "Ada", json!(null)),
        account("7", "", json!(null)),
        account("7", "Ada", json!("")),
        account(&longer, "Ada", json!(null)),
        account("7", &longer, json!(null)),
        account("7", "Ada\nroot", json!(null)),
        account("7", "Ada\u{202e}", json!(null)),
    ] {
        let (_house, preset) = answering("identity", bad.clone());
        let found = preset.identity("{}");
        assert!(matches!(found, Err(PresetFault::BadOutput(_))), "{bad}");
    }
    let (_house, preset) = answering("identity", json!({"err": "no account"}));
    assert_eq!(
        preset.identity("{}"),
        Err(PresetFault::Reported("no account".into()))
    );
}

#[test]
fn a_redactor_says_where_and_how() {
    let answer = json!({"ok": [
        {"drop": "/content/0"},
        {"mask": "/structuredContent/mail"},
        {"mask-range": ["/content/1/text", 2, 9]},
    ]});
    let (_house, preset) = answering("redact", answer);
    let expected = vec![
        Redaction::Drop("/content/0".into()),
        Redaction::Mask("/structuredContent/mail".into()),
        Redaction::MaskRange("/content/1/text".into(), 2, 9),
    ];
    assert_eq!(preset.redact(&call(), "{}"), Ok(Some(expected)));
    let many: Vec<Value> = (0..5000).map(|_| json!({"drop": "/a"})).collect();
    let (_house, preset) = answering("redact", json!({"ok": many}));
    assert!(matches!(
        preset.redact(&call(), "{}"),
        Err(PresetFault::BadOutput(_))
    ));
}

#[test]
fn a_signed_header_is_one_that_was_described() {
    let header = |name: &str, part: Value| json!({"ok": [{"name": name, "value": [part]}]});
    let described = |answer: Value| {
        let mut said = description();
        said["hooks"] = json!(["sign"]);
        let place = json!({"set-header": {"name": "X-Signature", "value": []}});
        said["credentials"][0]["rules"]
            .as_array_mut()
            .unwrap()
            .push(place);
        House::with(&Fixture {
            hooks: vec![(
                "sign",
                Body::Wat(
                    "(call $give_back (local.get 13)) i32.const $0",
                    vec![answer],
                ),
            )],
            ..Fixture::described(said)
        })
    };
    let (_house, preset) = described(header("x-signature", json!({"slot": "access-token"})));
    let recipe = preset.sign(&request()).unwrap().unwrap();
    assert_eq!(recipe.headers.len(), 1);
    for (what, answer) in [
        ("another header", header("x-other", json!({"literal": "a"}))),
        (
            "a forbidden header",
            header("host", json!({"literal": "a"})),
        ),
        (
            "a line break",
            header("x-signature", json!({"literal": "a\r\nb: c"})),
        ),
        (
            "another slot",
            header("x-signature", json!({"slot": "api-key"})),
        ),
        (
            "the client secret",
            header("x-signature", json!({"slot": "client-secret"})),
        ),
    ] {
        let (_house, preset) = described(answer);
        let found = preset.sign(&request());
        assert!(
            matches!(found, Err(PresetFault::BadOutput(_))),
            "{what}: {found:?}"
        );
    }
}

#[test]
fn what_is_signed_for_aws_is_in_the_permission_set_and_carries_nothing_else() {
    let aws =
        json!({"service": [{"literal": "execute-api"}], "region": [{"literal": "eu-west-1"}]});
    let mut said = description();
    said["credentials"] = json!([{"name": "user", "title": "AWS key", "sigv4": aws}]);
    let house = House::empty();
    house.put(
        "probe-1.0.0.wasm",
        &Fixture::described(said.clone()).bytes(),
    );
    house.catalog.bind(&provider(), &[]).err().unwrap();
    let permissions = house.proposed().permissions;
    assert!(permissions.headers.contains("authorization"));
    assert!(permissions.slots.contains("<aws-signature>"));

    for rule in [
        json!({"set-header": {"name": "X-Amz-Date", "value": [{"literal": "now"}]}}),
        json!({"set-header": {"name": "x-key", "value": [{"slot": "access-token"}]}}),
    ] {
        let mut bad = said.clone();
        bad["credentials"][0]["rules"] = json!([rule]);
        let house = House::empty();
        house.put("probe-1.0.0.wasm", &Fixture::described(bad).bytes());
        let reason = house.reason("probe-1.0.0.wasm");
        assert!(reason.contains("sigv4"), "{reason}");
    }
}
