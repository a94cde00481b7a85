//! The WASI that presets get: nothing to see, nothing to wait for, nothing to
//! reach, and the same numbers every time.

use countersign_core::preset::Verdict;
use serde_json::json;

use crate::fixture::{Fixture, Interface, deny};
use crate::street::{Street, evaluate, line, on_a_named_call};

const ENVIRONMENT: Interface = Interface {
    package: "package wasi:cli@0.2.9; interface environment {
        get-environment: func() -> list<tuple<string, string>>;
        get-arguments: func() -> list<string>; }",
    name: "wasi:cli/environment@0.2.9",
    core: r#"(import "wasi:cli/environment@0.2.9" "get-environment" (func $environment (param i32)))
             (import "wasi:cli/environment@0.2.9" "get-arguments" (func $arguments (param i32)))"#,
};
const CLOCK: Interface = Interface {
    package: "package wasi:clocks@0.2.0; interface monotonic-clock {
        now: func() -> u64; resolution: func() -> u64; }",
    name: "wasi:clocks/monotonic-clock@0.2.0",
    core: r#"(import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))"#,
};
const RANDOM: Interface = Interface {
    package: "package wasi:random@0.2.9; interface random {
        get-random-bytes: func(len: u64) -> list<u8>; get-random-u64: func() -> u64; }",
    name: "wasi:random/random@0.2.9",
    core: r#"(import "wasi:random/random@0.2.9" "get-random-u64" (func $random (result i64)))
             (import "wasi:random/random@0.2.9" "get-random-bytes" (func $bytes (param i64 i32)))"#,
};
const FOLDERS: Interface = Interface {
    package: "package wasi:filesystem@0.2.9;
        interface types { resource descriptor { sync: func(); } }
        interface preopens { use types.{descriptor};
            get-directories: func() -> list<tuple<descriptor, string>>; }",
    name: "wasi:filesystem/preopens@0.2.9",
    core: r#"(import "wasi:filesystem/preopens@0.2.9" "get-directories" (func $folders (param i32)))"#,
};
const FILES: Interface = Interface {
    package: "package wasi:filesystem@0.2.8;
        interface types { open-by-name: func(path: string) -> u32; }",
    name: "wasi:filesystem/types@0.2.8",
    core: r#"(import "wasi:filesystem/types@0.2.8" "open-by-name" (func $open (param i32 i32) (result i32)))"#,
};
const EXIT: Interface = Interface {
    package: "package wasi:cli@0.2.8; interface exit { exit: func(status: result); }",
    name: "wasi:cli/exit@0.2.8",
    core: r#"(import "wasi:cli/exit@0.2.8" "exit" (func $exit (param i32)))"#,
};
const OUTPUT: Interface = Interface {
    package: "package wasi:io@0.2.9;
        interface error { resource error { to-debug-string: func() -> string; } }
        interface streams { use error.{error};
            variant stream-error { last-operation-failed(error), closed }
            resource output-stream {
                blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; } }",
    name: "wasi:io/streams@0.2.9",
    core: r#"(import "wasi:io/streams@0.2.9" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))"#,
};
const SLEEP: Interface = Interface {
    package: "package wasi:io@0.2.8; interface poll { wait-for: func(nanoseconds: u64); }",
    name: "wasi:io/poll@0.2.8",
    core: r#"(import "wasi:io/poll@0.2.8" "wait-for" (func $sleep (param i64)))"#,
};

/// With this WASI, refusing if the guest found something (`$1`).
fn using(interfaces: &[Interface], code: &str) -> Fixture {
    Fixture {
        interfaces: interfaces.to_vec(),
        ..Fixture::evaluating(on_a_named_call(code, vec![deny("found")]))
    }
}

#[test]
fn there_is_no_environment_no_argument_and_no_folder() {
    let mut street = Street::new("an empty WASI");
    // Each answers with a list: its length is the second word.
    let looking = "
        (call $environment (i32.const 8)) (if (i32.load (i32.const 12)) (then (return (i32.const $1))))
        (call $arguments (i32.const 8)) (if (i32.load (i32.const 12)) (then (return (i32.const $1))))
        (call $folders (i32.const 8)) (if (i32.load (i32.const 12)) (then (return (i32.const $1))))";
    let preset = street.serving("looking around", &using(&[ENVIRONMENT, FOLDERS], looking));
    let verdict = street.beside("looking around", |_| evaluate(&*preset, Some("x")));
    assert!(matches!(verdict, Ok(Verdict::Allow { .. })), "{verdict:?}");
}

#[test]
fn clocks_stand_still_and_random_numbers_are_the_same_in_every_call() {
    let mut street = Street::new("time and chance");
    // Answers with an error that is what it was told: sixteen random bytes as
    // letters, and the clock.
    let telling = "
        (if (i64.ne (call $now) (i64.const 0)) (then (return (i32.const $1))))
        (i64.store (i32.const 32) (call $random))
        (if (i64.eq (i64.load (i32.const 32)) (call $random)) (then (return (i32.const $1))))
        (call $bytes (i64.const 8) (i32.const 8))
        (i64.store (i32.const 40) (i64.load (i32.load (i32.const 8))))
        (local.set $at (i32.const 16))
        (loop $on
          (local.set $at (i32.sub (local.get $at) (i32.const 1)))
          (i32.store8 offset=32 (local.get $at)
            (i32.add (i32.const 97) (i32.and (i32.load8_u offset=32 (local.get $at)) (i32.const 15))))
          (br_if $on (local.get $at)))
        (i32.store8 (i32.const 8) (i32.const 1))
        (i32.store offset=4 (i32.const 8) (i32.const 32))
        (i32.store offset=8 (i32.const 8) (i32.const 16))
        (return (i32.const 8))";
    let preset = street.serving("time and chance", &using(&[CLOCK, RANDOM], telling));
    let told: std::collections::BTreeSet<String> = (0..50)
        .map(|_| evaluate(&*preset, Some("x")).unwrap_err().to_string())
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    insta::assert_snapshot!(told.first().unwrap(), @"the preset reported an error: pnnljiacpmlkbmdg");
}

#[test]
fn what_is_not_there_ends_the_call_by_name() {
    let mut street = Street::new("what is not there");
    let bytes = "(call $bytes (i64.const 1000000000) (i32.const 8))";
    let cases = [
        (
            "a file",
            using(&[FILES], "(drop (call $open (i32.const 8) (i32.const 1)))"),
        ),
        ("the way out", using(&[EXIT], "(call $exit (i32.const 0))")),
        (
            "sleep",
            using(&[SLEEP], "(call $sleep (i64.const 3600000000000))"),
        ),
        (
            "a stream nobody opened",
            using(
                &[OUTPUT],
                "(call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16))",
            ),
        ),
        ("a gigabyte of chance", using(&[RANDOM], bytes)),
    ];
    let lines: String = cases
        .iter()
        .map(|(what, fixture)| line(what, &street.fault(what, fixture)))
        .collect();
    insta::assert_snapshot!("not_there", lines);
}

#[test]
fn what_a_preset_imports_of_wasi_is_in_what_an_administrator_approves() {
    let mut street = Street::new("approval");
    let preset = using(&[CLOCK], "(drop (call $now))");
    let imports = street.beside("approval", |house| {
        house.put(crate::street::FILE, &preset.bytes());
        let error = house.catalog.bind(&crate::house::provider(), &[]).err();
        let Some(countersign_presets::BindError::NeedsApproval(proposal)) = error else {
            panic!("{error:?}");
        };
        json!(proposal.approval.permissions.imports)
    });
    assert_eq!(imports, json!(["wasi:clocks/monotonic-clock@0.2.0"]));
}
