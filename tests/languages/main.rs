//! Presets in other languages (`examples/presets`): every one behaves as the
//! one in Rust.
//!
//! `cargo xtask presets --examples` builds them. Compiling a JavaScript engine
//! and a Python interpreter takes a while, so what is compiled is kept beside
//! the tests' other things, under a MAC as in the host.
#![allow(missing_docs, reason = "a test binary")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests are an edge: they look at a real clock to show what calls cost"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use countersign_core::names::{PresetName, ProviderName};
use countersign_core::preset::{Call, GrantFacts, Preset, PresetFault, Verdict};
use countersign_core::provider::Provider;
use countersign_core::scope::{Scope, ScopeSet};
use countersign_core::secret::SealKey;
use countersign_core::time::Timestamp;
use countersign_presets::{
    BindError, Catalog, CompileCache, EngineConfig, FileState, signature::Trust,
};
use countersign_tests::{repository, target_folder};
use serde_json::{Value, json};

const LANGUAGES: [&str; 4] = ["rust", "c", "javascript", "python"];

/// The examples, compiled once for all tests.
static EXAMPLES: LazyLock<Arc<Catalog>> = LazyLock::new(|| {
    let cache = CompileCache::new(
        &target_folder().join("compiled-examples"),
        // Only these tests' own files are in that folder.
        &SealKey::new([7; 32]),
    );
    Catalog::open_with(&out(), EngineConfig::default(), Trust::off(), Some(cache)).unwrap()
});

fn out() -> PathBuf {
    let out = repository().join("examples/presets/out");
    for language in LANGUAGES {
        let file = out.join(format!("acme-{language}-0.1.0.wasm"));
        assert!(
            fs::exists(&file).unwrap(),
            "{} is not built: cargo xtask presets --examples",
            file.display()
        );
    }
    out
}

fn preset(language: &str) -> Arc<dyn Preset> {
    let provider = provider(&format!("acme-{language}"));
    match EXAMPLES.bind(&provider, &[]) {
        Err(BindError::NeedsApproval(proposal)) => {
            EXAMPLES.bind(&provider, &[proposal.approval]).unwrap()
        }
        Ok(preset) => preset,
        Err(error) => panic!("{language}: {error}"),
    }
}

fn evaluate(preset: &dyn Preset, tool: &str, scopes: &[&str]) -> Result<Verdict, PresetFault> {
    let scopes: ScopeSet = scopes.iter().map(|s| Scope::parse(s).unwrap()).collect();
    let call = Call {
        method: if tool.is_empty() {
            "tools/list"
        } else {
            "tools/call"
        },
        name: Some(tool).filter(|tool| !tool.is_empty()),
        arguments: None,
        host: "api.acme.example",
    };
    let grant = GrantFacts {
        scopes: &scopes,
        account: None,
        facts: &[],
    };
    preset.evaluate(&call, &grant)
}

#[test]
fn every_language_loads_into_an_ordinary_catalog() {
    let states: BTreeMap<String, FileState> = EXAMPLES
        .list()
        .into_iter()
        .map(|entry| (entry.file, entry.state))
        .collect();
    for language in LANGUAGES {
        let file = format!("acme-{language}-0.1.0.wasm");
        assert_eq!(states.get(&file), Some(&FileState::Loaded), "{file}");
    }
}

#[test]
fn none_of_them_imports_wasi() {
    for language in LANGUAGES {
        let inspection = EXAMPLES.inspect(&format!("acme-{language}")).unwrap();
        let wasi: Vec<_> = inspection
            .imports
            .iter()
            .filter(|import| import.starts_with("wasi:"))
            .collect();
        assert!(wasi.is_empty(), "{language}: {wasi:?}");
        assert!(!preset(language).imports_wasi(), "{language}");
    }
}

#[test]
fn every_language_describes_the_same_provider() {
    let described = |language: &str| -> Value {
        let mut description = json!(preset(language).description());
        // Where they differ: in who they are.
        description["name"] = json!("acme");
        description
    };
    let rust = described("rust");
    assert_eq!(rust["display_name"], "Acme");
    for language in &LANGUAGES[1..] {
        let other = described(language);
        for (member, value) in rust.as_object().unwrap() {
            assert_eq!(&other[member], value, "{language}: {member}");
        }
    }
}

#[test]
fn every_language_decides_alike() {
    let (read, write) = ("documents:read", "documents:write");
    let cases: [(&str, &[&str], &str); 8] = [
        ("", &[], "allow"),
        ("read_document", &[], "need documents:read"),
        ("read_document", &[read], "allow"),
        ("list_documents", &[write], "allow"),
        ("write_document", &[read], "need documents:write"),
        ("write_document", &[read, write], "allow"),
        ("erase", &[read, write], "deny not_for_agents"),
        ("", &[read], "allow"),
    ];
    for language in LANGUAGES {
        let preset = preset(language);
        for (tool, scopes, expected) in cases {
            let verdict = match evaluate(&*preset, tool, scopes) {
                Ok(Verdict::Allow { .. }) => "allow".to_owned(),
                Ok(Verdict::Deny { code, message }) => {
                    assert_eq!(message, "Only a person may erase: do it on acme.example.");
                    format!("deny {code}")
                }
                Ok(Verdict::NeedScopes(scopes)) => format!("need {}", scopes.join(" ")),
                Err(fault) => panic!("{language} {tool} {scopes:?}: {fault}"),
            };
            assert_eq!(verdict, expected, "{language} {tool} {scopes:?}");
        }
    }
}

#[test]
fn what_a_call_costs_is_shown() {
    let mut shown = String::from("\none verdict in a fresh sandbox, in microseconds\n");
    for language in LANGUAGES {
        let preset = preset(language);
        let mut times: Vec<Duration> = (0..40)
            .map(|_| {
                let start = Instant::now();
                evaluate(&*preset, "read_document", &["documents:read"]).unwrap();
                start.elapsed()
            })
            .collect();
        times.sort();
        shown += &format!(
            "  {language:<12} median {:>7}  slowest {:>7}\n",
            times[times.len() / 2].as_micros(),
            times[times.len() - 1].as_micros()
        );
    }
    // Past libtest, which keeps what tests print to itself.
    let _ = std::io::stderr().lock().write_all(shown.as_bytes());
}

fn provider(name: &str) -> Provider {
    Provider {
        name: ProviderName::parse(name).unwrap(),
        display_name: name.into(),
        preset: PresetName::parse(name).unwrap(),
        authorization_endpoint: None,
        token_endpoint: None,
        revocation_endpoint: None,
        device_authorization_endpoint: None,
        grant_types: vec![],
        token_endpoint_auth_method: None,
        client_id: "client".into(),
        client_secret_ref: None,
        private_key_ref: None,
        private_key_id: None,
        token_endpoint_auth_signing_alg: None,
        scopes: ScopeSet::default(),
        require_pkce: true,
        audience_hosts: vec![],
        resource: None,
        audience: None,
        request_timeout: Duration::from_secs(30),
        max_retries: 3,
        auto_update: false,
        registration: None,
        enabled: true,
        settings: serde_json::Map::new(),
        created_at: Timestamp::from_secs(0),
        updated_at: Timestamp::from_secs(0),
    }
}
