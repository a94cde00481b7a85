//! What one verdict costs by the language that the preset is written in.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use countersign_core::names::{PresetName, ProviderName};
use countersign_core::preset::{Call, GrantFacts, Preset};
use countersign_core::provider::Provider;
use countersign_core::scope::{Scope, ScopeSet};
use countersign_core::time::Timestamp;
use countersign_presets::{BindError, Catalog, EngineConfig};

/// Verdicts that are not counted, and those that are; a slow language is asked
/// for as long as [`LONGEST`] at most.
const WARM: usize = 20;
const COUNTED: usize = 2000;
const LONGEST: Duration = Duration::from_secs(5);

/// Where the examples are.
#[derive(Args)]
pub(crate) struct Languages {
    /// Folder with `acme-*.wasm`, as `cargo xtask presets --examples` fills it.
    #[arg(long, default_value = "examples/presets/out")]
    examples: std::path::PathBuf,
}

impl Languages {
    /// Compiles each and prints a row for it.
    pub(crate) fn run(&self) -> Result<()> {
        println!("\nOne verdict in a fresh sandbox, by the preset's language:\n");
        println!("| preset | size | compiled in | median | p99 |");
        println!("|---|--:|--:|--:|--:|");
        for entry in std::fs::read_dir(&self.examples)
            .with_context(|| format!("cannot read {}", self.examples.display()))?
        {
            let file = entry?.path();
            if file
                .extension()
                .is_some_and(|extension| extension == "wasm")
            {
                row(&file)?;
            }
        }
        Ok(())
    }
}

fn row(file: &Path) -> Result<()> {
    // Alone in a catalog of its own, so that compiling it can be timed.
    let folder = tempfile::tempdir()?;
    let name = file.file_name().context("no file name")?;
    std::fs::copy(file, folder.path().join(name))?;
    let start = Instant::now();
    let catalog = Catalog::open(folder.path(), EngineConfig::default())?;
    let compiled = start.elapsed();
    let entry = catalog.list().into_iter().next().context("not loaded")?;
    let preset = entry.preset.context("no name")?;
    let provider = provider(&preset)?;
    let bound = match catalog.bind(&provider, &[]) {
        Err(BindError::NeedsApproval(proposal)) => catalog.bind(&provider, &[proposal.approval])?,
        other => other?,
    };
    for _ in 0..WARM {
        evaluate(&*bound)?;
    }
    let mut times = Vec::with_capacity(COUNTED);
    let begun = Instant::now();
    while times.len() < COUNTED && (begun.elapsed() < LONGEST || times.is_empty()) {
        let start = Instant::now();
        evaluate(&*bound)?;
        times.push(start.elapsed());
    }
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e6;
    println!(
        "| {preset} | {:.1} kB | {} ms | {:.1} µs | {:.1} µs |",
        std::fs::metadata(file)?.len() as f64 / 1000.0,
        compiled.as_millis(),
        at(50),
        at(99)
    );
    Ok(())
}

fn evaluate(preset: &dyn Preset) -> Result<()> {
    let scopes: ScopeSet = [Scope::parse("documents:read")?].into_iter().collect();
    let call = Call {
        method: "tools/call",
        name: Some("read_document"),
        arguments: None,
        host: "api.acme.example",
    };
    let grant = GrantFacts {
        scopes: &scopes,
        account: None,
        facts: &[],
    };
    preset.evaluate(&call, &grant)?;
    Ok(())
}

fn provider(preset: &PresetName) -> Result<Provider> {
    Ok(Provider {
        name: ProviderName::parse(preset.as_str())?,
        display_name: preset.to_string(),
        preset: preset.clone(),
        authorization_endpoint: None,
        token_endpoint: None,
        revocation_endpoint: None,
        device_authorization_endpoint: None,
        grant_types: Vec::new(),
        token_endpoint_auth_method: None,
        client_id: "bench".into(),
        client_secret_ref: None,
        private_key_ref: None,
        private_key_id: None,
        token_endpoint_auth_signing_alg: None,
        scopes: ScopeSet::default(),
        require_pkce: true,
        audience_hosts: Vec::new(),
        resource: None,
        audience: None,
        request_timeout: Duration::from_secs(30),
        max_retries: 0,
        auto_update: false,
        registration: None,
        enabled: true,
        settings: serde_json::Map::new(),
        created_at: Timestamp::from_secs(0),
        updated_at: Timestamp::from_secs(0),
    })
}
