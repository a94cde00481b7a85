//! Prints the processor time of one verdict: in a fresh sandbox, as the host
//! runs it, and in one that is kept, for comparison.
//!
//! `cargo run --release -p countersign-presets --example evaluate_cost -- catalog`

use std::path::Path;
use std::time::Duration;

use countersign_core::names::{PresetName, ProviderName};
use countersign_core::preset::{Call, GrantFacts, Preset};
use countersign_core::provider::Provider;
use countersign_core::scope::{Scope, ScopeSet};
use countersign_core::time::Timestamp;
use countersign_presets::{BindError, Catalog, EngineConfig};
use rustix::time::{ClockId, clock_gettime};

#[allow(missing_docs, unsafe_code, clippy::all, reason = "generated")]
mod bindings {
    wasmtime::component::bindgen!({ path: "../../wit/v0.1.0", world: "preset" });
}
use bindings::countersign::preset::{description, log, types};
use bindings::exports::countersign::preset::provider as guest;

const ROUNDS: u32 = 20_000;

struct Silent;
impl log::Host for Silent {
    fn log(&mut self, _: log::Level, _: String) {}
}
impl types::Host for Silent {}
impl description::Host for Silent {}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "catalog".into());
    let started = used(ClockId::ProcessCPUTime);
    let catalog = Catalog::open(Path::new(&dir), EngineConfig::default())?;
    println!(
        "opened and compiled in {:?}",
        used(ClockId::ProcessCPUTime) - started
    );
    for entry in catalog.list() {
        let Some(name) = entry.preset else { continue };
        println!("{}: {:?}", entry.file, entry.state);
        let provider = provider(&name)?;
        let preset = match catalog.bind(&provider, &[]) {
            Err(BindError::NeedsApproval(proposal)) => {
                catalog.bind(&provider, &[proposal.approval])
            }
            other => other,
        };
        match preset {
            Ok(preset) => {
                let fresh = fresh(&*preset);
                let kept = kept(&Path::new(&dir).join(&entry.file))?;
                println!(
                    "  fresh sandbox {} ns, kept one {} ns",
                    fresh.as_nanos(),
                    kept.as_nanos()
                );
            }
            Err(error) => println!("  {error}"),
        }
    }
    Ok(())
}

/// What this thread or process has used so far.
fn used(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

fn fresh(preset: &dyn Preset) -> Duration {
    let scopes: ScopeSet = ["repo", "read:org"]
        .into_iter()
        .filter_map(|s| Scope::parse(s).ok())
        .collect();
    let run = |rounds: u32| {
        for _ in 0..rounds {
            let call = Call {
                method: "tools/call",
                name: Some("get_me"),
                arguments: None,
                host: "api.githubcopilot.com",
            };
            let grant = GrantFacts {
                scopes: &scopes,
                account: None,
                facts: &[],
            };
            let verdict = preset.evaluate(&call, &grant);
            assert!(verdict.is_ok(), "{verdict:?}");
        }
    };
    run(1000);
    let started = used(ClockId::ThreadCPUTime);
    run(ROUNDS);
    (used(ClockId::ThreadCPUTime) - started) / ROUNDS
}

fn kept(file: &Path) -> Outcome<Duration> {
    let engine = wasmtime::Engine::default();
    let component = wasmtime::component::Component::from_file(&engine, file)?;
    let mut linker = wasmtime::component::Linker::<Silent>::new(&engine);
    log::add_to_linker::<_, wasmtime::component::HasSelf<_>>(&mut linker, |state| state)?;
    let mut store = wasmtime::Store::new(&engine, Silent);
    let preset = bindings::Preset::instantiate(&mut store, &component, &linker)?;
    let call = guest::Call {
        method: "tools/call".into(),
        name: Some("get_me".into()),
        arguments: None,
        host: "api.githubcopilot.com".into(),
        settings: None,
    };
    let grant = guest::Grant {
        scopes: vec!["repo".into(), "read:org".into()],
        account: None,
        facts: vec![],
    };
    let started = used(ClockId::ThreadCPUTime);
    for _ in 0..ROUNDS {
        preset
            .countersign_preset_provider()
            .call_evaluate(&mut store, &call, &grant)??;
    }
    Ok((used(ClockId::ThreadCPUTime) - started) / ROUNDS)
}

fn provider(preset: &PresetName) -> Outcome<Provider> {
    Ok(Provider {
        name: ProviderName::parse(preset.as_str())?,
        display_name: preset.to_string(),
        preset: preset.clone(),
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
    })
}
