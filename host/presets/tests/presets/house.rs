//! A catalog in a temporary directory, and providers bound to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::names::{PresetName, ProviderName};
use countersign_core::preset::{Call, GrantFacts, Preset, PresetFault, Verdict};
use countersign_core::provider::Provider;
use countersign_core::scope::ScopeSet;
use countersign_core::time::Timestamp;
use countersign_presets::{Approval, BindError, Catalog, EngineConfig};

use crate::fixture::Fixture;

pub struct House {
    pub catalog: Arc<Catalog>,
    pub dir: tempfile::TempDir,
}

pub fn small_config() -> EngineConfig {
    let mut config = EngineConfig::default();
    config.large.sandboxes = 2;
    config.describe_deadline = Duration::from_secs(5);
    config
}

impl House {
    pub fn empty() -> Self {
        Self::with_config(small_config())
    }

    pub fn with_config(config: EngineConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path(), config).unwrap();
        Self { catalog, dir }
    }

    /// With one component and a provider that approved it.
    pub fn with(fixture: &Fixture) -> (Self, Arc<dyn Preset>) {
        let house = Self::empty();
        house.put("probe-1.0.0.wasm", &fixture.bytes());
        let preset = house.approve(&provider()).unwrap();
        (house, preset)
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Puts a file in as a careful administrator would (whole), and looks.
    pub fn put(&self, file: &str, bytes: &[u8]) {
        let temporary = self.path(&format!(".{file}.part"));
        std::fs::write(&temporary, bytes).unwrap();
        std::fs::rename(&temporary, self.path(file)).unwrap();
        self.catalog.rescan();
    }

    /// Binds, approves whatever is proposed, and binds again.
    pub fn approve(&self, provider: &Provider) -> Result<Arc<dyn Preset>, BindError> {
        match self.catalog.bind(provider, &[]) {
            Err(BindError::NeedsApproval(proposal)) => {
                self.catalog.bind(provider, &[proposal.approval])
            }
            other => other,
        }
    }

    /// What it takes to approve what waits.
    pub fn proposed(&self) -> Approval {
        self.catalog.pending(&provider().name).unwrap().approval
    }

    pub fn reason(&self, file: &str) -> String {
        let entry = self
            .catalog
            .list()
            .into_iter()
            .find(|e| e.file == file)
            .unwrap();
        match entry.state {
            countersign_presets::FileState::Refused { reason } => reason,
            other => panic!("{file} is not refused: {other:?}"),
        }
    }
}

pub fn provider() -> Provider {
    Provider {
        name: ProviderName::parse("probe").unwrap(),
        display_name: "Probe".into(),
        preset: PresetName::parse("probe").unwrap(),
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

pub fn evaluate(preset: &dyn Preset) -> Result<Verdict, PresetFault> {
    let call = Call {
        method: "tools/call",
        name: Some("read"),
        arguments: Some("{}"),
        host: "api.example.com",
    };
    preset.evaluate(
        &call,
        &GrantFacts {
            scopes: &ScopeSet::default(),
            account: None,
            facts: &[],
        },
    )
}
