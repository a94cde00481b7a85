//! Recognisable secrets are looked for in the memory of every guest, in what it
//! says and in what is logged about it.
//!
//! Every export of every preset is driven as the host drives it, with presets
//! that try to get hold of something (`nosy`) and with every way to fail
//! (`faults`). What a guest saw is read from its memory before its sandbox is
//! thrown away.
#![cfg(target_os = "linux")]
#![allow(unreachable_pub, missing_docs, reason = "a test binary")]

mod calls;
mod memory;
mod search;

use std::io::Write;
use std::sync::{Arc, Mutex};

use calls::{House, SECRETS, Saying};

/// Takes what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const PRESETS: [&str; 8] = [
    "generic", "github", "slack", "google", "nosy", "hooked", "keyed", "faults",
];
/// Faults of `evaluate`, by the tool that asks for them.
const FAULTS: [&str; 27] = [
    "loop",
    "bomb",
    "trap",
    "panic",
    "overflow",
    "header-host",
    "header-cookie",
    "header-crlf",
    "header-name-crlf",
    "header-nul",
    "header-empty-name",
    "header-length",
    "header-session",
    "slot-unknown",
    "slot-client-secret",
    "slot-refresh-token",
    "slot-in-query",
    "variable-unknown",
    "credential-unknown",
    "rules-many",
    "header-huge",
    "err",
    "tell-err",
    "tell-deny",
    "tell-scopes",
    "tell-panic",
    "tell-header",
];
/// Faults of the hook `redact`, likewise.
const REDACTIONS: [&str; 9] = [
    "redact-drop",
    "redact-mask",
    "redact-range",
    "redact-out-of-range",
    "redact-nothing-there",
    "redact-all",
    "redact-err",
    "redact-trap",
    "redact-loop",
];

#[test]
fn no_guest_ever_holds_a_secret_and_no_word_of_it_is_one() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        // All that the host says; what compiles a component has nothing to do
        // with secrets and says a great deal.
        .with_env_filter("info,countersign=trace,countersign_core=trace,countersign_presets=trace")
        .with_writer(move || writer.clone())
        .init();
    let (house, pools) = memory::pools_of(House::open);
    let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
    let looked = Arc::clone(&seen);
    let reader = Mutex::new(memory::Reader::new(pools));
    assert!(countersign_presets::observe::set(move || {
        let pages = reader.lock().unwrap().fresh_pages();
        looked.lock().unwrap().extend(pages);
    }));
    let memory = || std::mem::take(&mut *seen.lock().unwrap());

    let mut leaks = Vec::new();
    let mut said = Saying::default();
    for preset in PRESETS {
        let bound = house.bind(preset);
        house.every_export(&bound, "a_tool", &mut said);
        if preset == "nosy" || preset == "faults" {
            for fault in FAULTS {
                house.judged(&bound, fault, &mut said);
            }
            for fault in REDACTIONS {
                house.redacted(&bound, fault, &mut said);
            }
        }
        let memory = memory();
        assert!(!memory.is_empty(), "nothing was seen of {preset}");
        if preset == "nosy" {
            // It is the guest's memory that is looked at, and it is found there.
            let marker = [("marker", calls::MARKER)];
            assert_eq!(search::found(&memory, &marker), ["marker"]);
        }
        for kind in search::found(&memory, &SECRETS) {
            leaks.push(format!("{kind} in the memory of {preset}"));
        }
    }
    // What points at a token is never even asked.
    for (preset, setting) in [
        ("nosy", serde_json::json!({ "pointers": true })),
        ("faults", serde_json::json!({ "fault": "leaky" })),
        ("faults", serde_json::json!({ "fault": "leaky-variable" })),
        ("faults", serde_json::json!({ "fault": "leaky-account" })),
        ("faults", serde_json::json!({ "fault": "leaky-error" })),
        ("faults", serde_json::json!({ "fault": "slot-in-query" })),
        (
            "faults",
            serde_json::json!({ "fault": "client-secret-upstream" }),
        ),
    ] {
        said.add(preset, &house.refused(preset, &setting));
    }

    assert!(said.words() > 100, "hardly anything was said");
    for kind in search::found(said.bytes(), &SECRETS) {
        leaks.push(format!("{kind} in what a guest said"));
    }
    let logged = log.0.lock().unwrap().clone();
    let text = String::from_utf8_lossy(&logged);
    for hook in ["sign", "redact", "identity", "token-answer", "evaluate"] {
        assert!(text.contains(hook), "nosy logged nothing of {hook}");
    }
    for kind in search::found(&logged, &SECRETS) {
        leaks.push(format!("{kind} in the log"));
    }
    assert!(leaks.is_empty(), "{leaks:#?}");

    // The test can fail: a secret that is handed over is found.
    let bound = house.bind("nosy");
    let _ = bound.identity(SECRETS[0].1);
    assert_eq!(search::found(&memory(), &SECRETS), [SECRETS[0].0]);
}
