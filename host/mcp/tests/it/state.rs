//! `requestState`: sealed, bound, and never the upstream's business.

use std::time::Duration;

use countersign_core::ports::fakes::CountingRandom;
use countersign_core::secret::SealKey;
use countersign_core::time::Timestamp;
use countersign_mcp::answer::Action;
use countersign_mcp::answer::state::{LIFETIME, States};
use serde_json::{Value, json};

use crate::support::{Who, request};

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn call(id: u32, arguments: &Value, more: &Value) -> String {
    let mut params = json!({ "name": "add", "arguments": arguments, "_meta": { "n": id } });
    for (name, value) in more.as_object().unwrap() {
        params[name] = value.clone();
    }
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string()
}

fn states() -> States {
    States::new(&SealKey::new([7; 32]))
}

fn sealed(who: &Who, first: &str) -> String {
    states().seal(
        &request(first),
        0,
        &who.at("notes"),
        NOW,
        &CountingRandom::default(),
    )
}

#[test]
fn a_retry_goes_on_without_our_part() {
    let anna = Who::named("anna", "blue", "agent");
    let arguments = json!({ "b": 1, "a": [1.5, "x"] });
    let state = sealed(&anna, &call(1, &arguments, &json!({})));
    let retry = call(
        2,
        &arguments,
        &json!({ "requestState": state, "inputResponses": { "countersign": { "action": "accept" } } }),
    );
    let resumed = states()
        .resume(&request(&retry), &anna.at("notes"), NOW)
        .unwrap()
        .unwrap();
    assert_eq!((resumed.rounds, resumed.action), (1, Some(Action::Accept)));
    assert_eq!(
        std::str::from_utf8(&resumed.body).unwrap(),
        call(2, &arguments, &json!({}))
    );
}

#[test]
fn the_order_of_members_does_not_matter_but_every_value_does() {
    let anna = Who::named("anna", "blue", "agent");
    let state = sealed(&anna, &call(1, &json!({ "a": 1, "b": 2 }), &json!({})));
    let resume = |arguments: Value| {
        let retry = call(2, &arguments, &json!({ "requestState": state }));
        states()
            .resume(&request(&retry), &anna.at("notes"), NOW)
            .map(|r| r.unwrap().rounds)
    };
    assert_eq!(resume(json!({ "b": 2, "a": 1 })).unwrap(), 1);
    assert!(resume(json!({ "a": 1, "b": 3 })).is_err());
    assert!(resume(json!({ "a": 1 })).is_err());
}

#[test]
fn a_state_is_worth_nothing_to_anybody_else_or_later_or_changed() {
    let anna = Who::named("anna", "blue", "agent");
    let state = sealed(&anna, &call(1, &json!({}), &json!({})));
    let retry = |state: &str| call(2, &json!({}), &json!({ "requestState": state }));
    let good = retry(&state);
    let others = [
        (Who::named("bert", "blue", "agent"), "notes"),
        (Who::named("anna", "red", "agent"), "notes"),
        (Who::named("anna", "blue", "other"), "notes"),
        (Who::named("anna", "blue", "agent"), "mail"),
    ];
    for (who, server) in &others {
        let refused = states()
            .resume(&request(&good), &who.at(server), NOW)
            .unwrap_err();
        assert_eq!(
            (
                refused.why.code(),
                refused.why.status().as_u16(),
                refused.id.as_deref()
            ),
            (-32602, 400, Some("2"))
        );
    }
    let at = |now| states().resume(&request(&good), &anna.at("notes"), now);
    assert!(at(NOW.plus(LIFETIME)).is_ok());
    assert!(at(NOW.plus(LIFETIME + Duration::from_secs(1))).is_err());
    let tag = state.rfind('.').unwrap() + 1;
    for changed in [
        state[..state.len() - 2].to_owned(),
        format!("{}AA{}", &state[..tag], &state[tag + 2..]),
        state[..tag].to_owned(),
    ] {
        let retry = retry(&changed);
        assert!(
            states()
                .resume(&request(&retry), &anna.at("notes"), NOW)
                .is_err(),
            "{changed}"
        );
    }
}

#[test]
fn an_upstreams_own_state_passes_untouched() {
    let anna = Who::named("anna", "blue", "agent");
    let other = States::new(&SealKey::new([8; 32]));
    let nested = other.seal(
        &request(&call(1, &json!({}), &json!({}))),
        0,
        &anna.at("notes"),
        NOW,
        &CountingRandom::default(),
    );
    for state in ["upstream's own", "", &nested] {
        let retry = call(
            2,
            &json!({}),
            &json!({ "requestState": state, "inputResponses": { "k": {} } }),
        );
        assert_eq!(
            states().resume(&request(&retry), &anna.at("notes"), NOW),
            Ok(None)
        );
    }
    let plain = call(2, &json!({}), &json!({}));
    assert_eq!(
        states().resume(&request(&plain), &anna.at("notes"), NOW),
        Ok(None)
    );
}

#[test]
fn our_response_never_reaches_the_upstream_even_without_our_state() {
    let anna = Who::named("anna", "blue", "agent");
    let retry = call(
        2,
        &json!({}),
        &json!({ "requestState": "theirs", "inputResponses": { "countersign": { "action": "accept" }, "k": { "x": 1 } } }),
    );
    let resumed = states()
        .resume(&request(&retry), &anna.at("notes"), NOW)
        .unwrap()
        .unwrap();
    let expected = call(
        2,
        &json!({}),
        &json!({ "requestState": "theirs", "inputResponses": { "k": { "x": 1 } } }),
    );
    assert_eq!(std::str::from_utf8(&resumed.body).unwrap(), expected);
    assert_eq!((resumed.rounds, resumed.action), (0, None));
}

#[test]
fn what_the_upstream_had_asked_for_is_kept_while_the_user_connects() {
    // The upstream asked for input; while the user answered, his connection ended.
    let anna = Who::named("anna", "blue", "agent");
    let theirs = json!({ "requestState": "upstream-state", "inputResponses": { "k": { "action": "accept", "content": {} } } });
    let state = sealed(&anna, &call(2, &json!({}), &theirs));
    let retry = call(
        3,
        &json!({}),
        &json!({ "requestState": state, "inputResponses": { "countersign": { "action": "accept" } } }),
    );
    let resumed = states()
        .resume(&request(&retry), &anna.at("notes"), NOW)
        .unwrap()
        .unwrap();
    assert_eq!(
        std::str::from_utf8(&resumed.body).unwrap(),
        call(3, &json!({}), &theirs)
    );
}

#[test]
fn rounds_are_counted_in_the_state() {
    let anna = Who::named("anna", "blue", "agent");
    let binding = anna.at("notes");
    let random = CountingRandom::default();
    let mut body = call(1, &json!({}), &json!({}));
    for round in 0..5 {
        let state = states().seal(&request(&body), round, &binding, NOW, &random);
        let retry = call(2, &json!({}), &json!({ "requestState": state }));
        let resumed = states()
            .resume(&request(&retry), &binding, NOW)
            .unwrap()
            .unwrap();
        assert_eq!(resumed.rounds, round + 1);
        body = String::from_utf8(resumed.body.to_vec()).unwrap();
    }
}
