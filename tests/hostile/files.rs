//! Files that are refused before anything of them runs, or for what they do
//! while they are looked at.

use serde_json::json;

use crate::fixture::{Body, Fixture, description};
use crate::street::{Street, line};

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn importing(name: &str) -> Vec<u8> {
    component(&format!(
        r#"(component (import "{name}" (instance (export "open" (func)))))"#
    ))
}

fn exporting(name: &str) -> Vec<u8> {
    component(&format!(
        r#"(component (instance $i) (export "{name}" (instance $i)))"#
    ))
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A component with one type: a component type with one declaration, a type,
/// which is a component type with one declaration, and so on.
fn nested_types(depth: usize) -> Vec<u8> {
    let mut types = vec![1];
    types.extend([0x41, 1, 1].repeat(depth));
    types.extend([0x41, 0]);
    let mut bytes = vec![0, b'a', b's', b'm', 0x0d, 0, 1, 0, 7];
    bytes.extend(leb128(types.len()));
    bytes.extend(types);
    bytes
}

/// Components in components. (Its text would be refused by the text's parser.)
fn nested(depth: usize) -> Vec<u8> {
    const HEADER: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];
    // Written from the inside out and backwards, so that it stays linear.
    let mut backwards: Vec<u8> = HEADER.into_iter().rev().collect();
    for _ in 0..depth {
        backwards.extend(leb128(backwards.len()).into_iter().rev());
        // A component section.
        backwards.push(4);
        backwards.extend(HEADER.into_iter().rev());
    }
    backwards.reverse();
    backwards
}

/// Snapshots without what changes with the fixture's own layout.
fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"\(at offset 0x[0-9a-f]+\)", "(at offset …)");
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn what_is_not_a_preset_of_this_host_is_refused_by_what_it_is() {
    let mut street = Street::new("files");
    let good = Fixture::default().bytes();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("text", b"#!/bin/sh\nrm -rf /\n".to_vec()),
        ("a core module", component("(module)")),
        ("half a component", good[..good.len() / 2].to_vec()),
        ("no exports", component("(component)")),
        (
            "a future version",
            exporting("countersign:preset/provider@1.0.0"),
        ),
        (
            "a version that never was",
            exporting("countersign:preset/provider@0.0.9"),
        ),
        (
            "the right name and nothing in it",
            exporting("countersign:preset/provider@0.1.0"),
        ),
        (
            "memory from the start",
            component(
                "(component (core module $m (memory 4000)) (core instance (instantiate $m)))",
            ),
        ),
        (
            "a table from the start",
            component(
                "(component (core module $m (table 9000000 funcref)) (core instance (instantiate $m)))",
            ),
        ),
        (
            "a thousand modules",
            component(&format!(
                "(component (core module $m) {})",
                "(core instance (instantiate $m))".repeat(1000)
            )),
        ),
        ("a component in a component, 100,000 deep", nested(100_000)),
        ("a type in a type, 5,000 deep", nested_types(5_000)),
        ("a type in a type, 1,000,000 deep", nested_types(1_000_000)),
        (
            "a hundred core modules",
            component(&format!("(component {})", "(core module)".repeat(100))),
        ),
    ];
    let lines: String = cases
        .iter()
        .map(|(what, bytes)| line(what, &street.refusal(what, bytes)))
        .collect();
    snapshot("files", &lines);
}

#[test]
fn an_import_beyond_what_presets_have_is_refused_by_name() {
    let mut street = Street::new("imports");
    let lines: String = [
        "wasi:sockets/tcp-create-socket@0.2.3",
        "wasi:sockets/ip-name-lookup@0.2.0",
        "wasi:filesystem/types@0.3.0",
        "wasi:http/outgoing-handler@0.2.0",
        "wasi:keyvalue/store@0.2.0",
        "countersign:preset/vault@0.1.0",
        "countersign:preset/log@0.2.0",
        "evil:net/socket@1.0.0",
    ]
    .into_iter()
    .map(|name| line(name, &street.refusal(name, &importing(name))))
    .collect();
    let bare = component(r#"(component (import "open" (func)))"#);
    let module = component(r#"(component (import "env" (core module)))"#);
    let lines = lines
        + &line("a bare function", &street.refusal("a bare function", &bare))
        + &line("a core module", &street.refusal("a core module", &module));
    snapshot("imports", &lines);
}

#[test]
fn a_hundred_megabytes_are_not_even_read() {
    let mut street = Street::new("size");
    let reason = street.beside("100 MB", |house| {
        let path = house.path("probe-2.0.0.wasm");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(100 << 20).unwrap();
        house.catalog.rescan();
        house.reason("probe-2.0.0.wasm")
    });
    insta::assert_snapshot!(reason, @"the file has 104857600 bytes, and a component may have at most 33554432");
}

#[test]
fn what_hurts_while_it_is_looked_at_is_ended_and_refused_by_class() {
    const DEEP: &str = "(func $deep (param i64) (result i64) (i64.add (call $deep (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))";
    let describing = |text: &'static str, more: &str| Fixture {
        describe: Body::Wat(text, vec![json!({"ok": description()})]),
        more: more.into(),
        ..Fixture::default()
    };
    let started = |code: &str| Fixture {
        more: format!("(func $started {code}) (start $started)"),
        ..Fixture::default()
    };
    let cases = [
        (
            "endless describe",
            describing("(loop $on (br $on)) i32.const $0", ""),
        ),
        (
            "bottomless describe",
            describing("(drop (call $deep (i64.const 0))) i32.const $0", DEEP),
        ),
        (
            "greedy describe",
            describing(
                "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
                "",
            ),
        ),
        (
            "table-hungry describe",
            describing(
                "(loop $on (br_if $on (i32.ne (table.grow $t (ref.null func) (i32.const 500)) (i32.const -1)))) unreachable",
                "(table $t 1 funcref)",
            ),
        ),
        ("crashing describe", describing("unreachable", "")),
        (
            "describe that answers from nowhere",
            describing("i32.const 0x7ffffff0", ""),
        ),
        ("endless start", started("(loop $on (br $on))")),
        ("crashing start", started("unreachable")),
        (
            "greedy start",
            started(
                "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
            ),
        ),
        (
            "evaluate that crashes on everything",
            Fixture::evaluating(Body::Wat("unreachable", vec![])),
        ),
        (
            "evaluate that never ends",
            Fixture::evaluating(Body::Wat("(loop $on (br $on)) i32.const 0", vec![])),
        ),
    ];
    let mut street = Street::new("looking at them");
    let lines: String = cases
        .iter()
        .map(|(what, fixture)| line(what, &street.refusal(what, &fixture.bytes())))
        .collect();
    snapshot("looked_at", &lines);
}
