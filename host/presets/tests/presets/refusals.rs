//! A component that may not be used is refused with a sentence that says what
//! to do, and what served before goes on.

use serde_json::json;

use crate::fixture::{Body, Fixture, allow, deny, description};
use crate::house::{House, evaluate, provider};

/// What the file is refused with.
fn refusal(bytes: &[u8]) -> String {
    let house = House::empty();
    house.put("probe-1.0.0.wasm", bytes);
    house.reason("probe-1.0.0.wasm")
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn what_is_no_component_of_this_interface_is_refused() {
    let good = Fixture::default().bytes();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "not WebAssembly"),
        (
            "cut off in the header",
            good[..6].to_vec(),
            "not WebAssembly",
        ),
        (
            "text",
            b"hello, I am no component".to_vec(),
            "not WebAssembly",
        ),
        (
            "a core module",
            component("(module)"),
            "core module, not a component",
        ),
        (
            "cut off in the middle",
            good[..good.len() / 2].to_vec(),
            "does not compile",
        ),
        (
            "cut off at the end",
            good[..good.len() - 1].to_vec(),
            "does not compile",
        ),
        ("no exports", component("(component)"), "exports nothing"),
        (
            "another version",
            component(
                r#"(component (instance $i) (export "countersign:preset/provider@0.9.0" (instance $i)))"#,
            ),
            "exports countersign:preset/provider@0.9.0, but this host speaks countersign:preset/provider@0.1.0",
        ),
        (
            "the right name without functions",
            component(
                r#"(component (instance $i) (export "countersign:preset/provider@0.1.0" (instance $i)))"#,
            ),
            "does not fit the interface",
        ),
        (
            "WASI",
            component(
                r#"(component (import "wasi:sockets/tcp@0.2.0" (instance (export "open" (func)))))"#,
            ),
            "imports wasi:sockets/tcp@0.2.0, which presets do not have",
        ),
        (
            "a function of somebody's",
            component(
                r#"(component (import "evil:net/socket@1.0.0" (instance (export "open" (func)))))"#,
            ),
            "imports evil:net/socket@1.0.0",
        ),
        (
            "a bare function",
            component(r#"(component (import "open" (func)))"#),
            "imports open",
        ),
        (
            "an unknown interface of ours",
            component(
                r#"(component (import "countersign:preset/vault@0.1.0" (instance (export "open" (func)))))"#,
            ),
            "imports countersign:preset/vault@0.1.0",
        ),
        (
            "a log of another version",
            component(
                r#"(component (import "countersign:preset/log@0.2.0" (instance (export "log" (func)))))"#,
            ),
            "imports countersign:preset/log@0.2.0",
        ),
    ];
    for (what, bytes, words) in cases {
        let reason = refusal(&bytes);
        assert!(reason.contains(words), "{what}: {reason}");
    }
}

#[test]
fn a_component_that_is_cut_off_anywhere_is_refused() {
    let good = Fixture::default().bytes();
    let house = House::empty();
    for length in (0..good.len()).step_by(good.len() / 23) {
        house.put("probe-1.0.0.wasm", &good[..length]);
        assert!(!house.reason("probe-1.0.0.wasm").is_empty(), "{length}");
    }
}

#[test]
fn a_file_larger_than_the_cap_is_not_even_read() {
    let house = House::empty();
    let file = std::fs::File::create(house.path("probe-1.0.0.wasm")).unwrap();
    file.set_len(countersign_presets::LARGEST_COMPONENT + 1)
        .unwrap();
    house.catalog.rescan();
    assert!(
        house
            .reason("probe-1.0.0.wasm")
            .contains("at most 33554432")
    );
}

#[test]
fn a_file_name_must_say_preset_and_version() {
    let house = House::empty();
    let bytes = Fixture::default().bytes();
    house.put("probe.wasm", &bytes);
    assert!(house.reason("probe.wasm").contains("NAME-VERSION.wasm"));
    house.put("other-1.0.0.wasm", &bytes);
    assert!(house.reason("other-1.0.0.wasm").contains("\"probe\""));
    // Neither hidden files nor others are looked at.
    house.put(".hidden-1.0.0.wasm", &bytes);
    house.put("README.md", b"hello");
    assert_eq!(house.catalog.list().len(), 2);
}

#[test]
fn a_directory_named_like_a_component_is_refused() {
    let house = House::empty();
    std::fs::create_dir(house.path("probe-1.0.0.wasm")).unwrap();
    house.catalog.rescan();
    assert!(
        house
            .reason("probe-1.0.0.wasm")
            .contains("not a regular file")
    );
}

#[test]
fn a_describe_that_fails_refuses_the_component_by_class() {
    for (what, body, words) in [
        ("trap", Body::Wat("unreachable", vec![]), "crashed"),
        (
            "endless",
            Body::Wat("(loop $on (br $on)) i32.const 0", vec![]),
            "did not answer in time",
        ),
        (
            "greedy",
            Body::Wat(
                "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
                vec![],
            ),
            "more memory",
        ),
        (
            "unreadable",
            Body::Wat("i32.const 0x7fffffff", vec![]),
            "not allowed",
        ),
    ] {
        let reason = refusal(
            &Fixture {
                describe: body,
                ..Fixture::default()
            }
            .bytes(),
        );
        assert!(
            reason.contains("describe failed") && reason.contains(words),
            "{what}: {reason}"
        );
    }
}

#[test]
fn a_preset_that_refuses_empty_settings_waits_for_a_provider() {
    let house = House::empty();
    let fixture = Fixture {
        describe: Body::Answer(json!({"err": "a tenant is needed"})),
        ..Fixture::default()
    };
    house.put("probe-1.0.0.wasm", &fixture.bytes());
    let entry = serde_json::to_value(house.catalog.list()).unwrap();
    assert_eq!(entry[0]["state"], "needs_settings");
    let error = house
        .catalog
        .bind(&provider(), &[])
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("a tenant is needed"), "{error}");
}

#[test]
fn a_verdict_that_fails_the_self_test_refuses_the_component() {
    for body in [
        Body::Wat("unreachable", vec![]),
        Body::Answer(json!({"err": "always"})),
        Body::Answer(json!({"ok": {"allow": {"credential": "nobody", "rules": []}}})),
    ] {
        let reason = refusal(&Fixture::evaluating(body).bytes());
        assert!(reason.contains("self-test"), "{reason}");
    }
    // To refuse a harmless call is a verdict, too.
    House::with(&Fixture::evaluating(Body::Answer(deny("closed"))));
}

#[test]
fn a_hook_that_is_named_must_be_exported() {
    let mut said = description();
    said["hooks"] = json!(["filter-tools"]);
    let reason = refusal(&Fixture::described(said).bytes());
    assert!(
        reason.contains("names the hook filter-tools, but the component does not export it"),
        "{reason}"
    );
}

#[test]
fn a_refused_component_leaves_the_last_good_one_serving() {
    let (house, first) = House::with(&Fixture::default());
    let good = Fixture::default().bytes();
    let trap = Fixture {
        describe: Body::Wat("unreachable", vec![]),
        ..Fixture::default()
    }
    .bytes();
    let bad: [&[u8]; 4] = [&good[..good.len() / 3], b"", &component("(module)"), &trap];
    for bytes in bad {
        house.put("probe-1.0.0.wasm", bytes);
        assert!(!house.reason("probe-1.0.0.wasm").is_empty());
        let now = house.catalog.current(&provider().name).unwrap();
        assert_eq!(now.digest(), first.digest());
        assert!(evaluate(&*now).is_ok());
    }
    // The same under a name of its own.
    house.put("probe-2.0.0.wasm", &trap);
    assert_eq!(
        house.catalog.current(&provider().name).unwrap().digest(),
        first.digest()
    );
    // And it heals.
    house.put("probe-1.0.0.wasm", &good);
    assert_eq!(
        house.catalog.current(&provider().name).unwrap().digest(),
        first.digest()
    );
    assert_eq!(
        serde_json::to_value(house.catalog.list()).unwrap()[0]["state"],
        "loaded"
    );
}

#[test]
fn the_log_of_a_guest_is_tagged_and_scrubbed() {
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    // "forged\n\x1b[31m" at 8, at level warn.
    let body = Body::Wat(
        r"(i64.store (i32.const 8) (i64.const 0x1b0a646567726f66))
          (call $log (i32.const 2) (i32.const 8) (i32.const 8)) i32.const $0",
        vec![allow()],
    );
    let (_house, preset) = House::with(&Fixture {
        imports_log: true,
        ..Fixture::evaluating(body)
    });
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || evaluate(&*preset).unwrap());
    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["fields"]["message"], "forged  ");
    assert!(
        line["fields"]["preset"]
            .as_str()
            .unwrap()
            .starts_with("probe@"),
        "{text}"
    );
}
