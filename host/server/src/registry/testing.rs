//! A preset host without a sandbox, for tests: presets are descriptions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_core::names::{Digest, PresetName, ProviderName};
use countersign_core::preset::{
    AccountFacts, AnswerShape, AuthorizationRequest, Call, Description, GrantDifference,
    GrantFacts, Hooks, McpServer, Offline, Part, Pkce, Preset, PresetFault, Redaction, Refresh,
    RefreshKind, Registration, Rotation, TokenShape, Verdict, Wants,
};
use countersign_core::provider::Provider;
use countersign_core::scope::ScopeSet;
use countersign_core::signing::{Recipe, Unsigned};
use countersign_presets::signature::Origin;
use countersign_presets::{
    Approval, BindError, BindingStatus, CatalogEntry, FileState, Inspection, PermissionDifference,
    PermissionSet, Proposal, Serving, Terms,
};

use super::PresetHost;

/// The fake catalog.
#[derive(Default)]
pub(crate) struct FakePresets(Mutex<State>);

#[derive(Default)]
struct State {
    descriptions: BTreeMap<String, Description>,
    refused: BTreeMap<String, String>,
    serving: BTreeMap<ProviderName, Arc<dyn Preset>>,
    pending: BTreeMap<ProviderName, Proposal>,
}

struct FakePreset(Digest, Description);

impl Preset for FakePreset {
    fn digest(&self) -> Digest {
        self.0
    }
    fn description(&self) -> &Description {
        &self.1
    }
    fn evaluate(&self, _: &Call<'_>, _: &GrantFacts<'_>) -> Result<Verdict, PresetFault> {
        Ok(Verdict::Allow {
            credential: None,
            rules: Vec::new(),
        })
    }
    fn authorize_parameters(&self, _: &ScopeSet) -> Result<Vec<(String, String)>, PresetFault> {
        Ok(Vec::new())
    }
    fn token_answer(&self, _: u16, _: &str) -> Result<Option<Vec<TokenShape>>, PresetFault> {
        Ok(None)
    }
    fn refresh_error(&self, _: u16, _: Option<&str>, _: &str) -> Result<Option<bool>, PresetFault> {
        Ok(None)
    }
    fn filter_tools(
        &self,
        _: &[String],
        _: &GrantFacts<'_>,
    ) -> Result<Option<Vec<String>>, PresetFault> {
        Ok(None)
    }
    fn sign(&self, _: &Unsigned) -> Result<Option<Recipe>, PresetFault> {
        Ok(None)
    }
    fn identity(&self, _: &str) -> Result<Option<AccountFacts>, PresetFault> {
        Ok(None)
    }
    fn redact(&self, _: &Call<'_>, _: &str) -> Result<Option<Vec<Redaction>>, PresetFault> {
        Ok(None)
    }
}

fn literal(text: &str) -> Vec<Part> {
    vec![Part::Literal(text.to_owned())]
}

/// `generic` with nothing of its own, or a vendor with everything.
pub(crate) fn description(name: &str, vendor: Option<&str>) -> Description {
    let answer = AnswerShape {
        success_codes: Vec::new(),
        success_checks: Vec::new(),
        error_code: Vec::new(),
        error_description: Vec::new(),
        may_be_form: false,
    };
    let authorization = AuthorizationRequest {
        endpoint: vendor.map_or_else(Vec::new, |v| literal(&format!("https://{v}/authorize"))),
        parameters: Vec::new(),
        incremental_parameters: Vec::new(),
        suppress: Vec::new(),
        scope_parameters: Vec::new(),
        pkce: Pkce::Supported,
        offline: Offline::None,
    };
    let mcp_server = |v: &str| McpServer {
        url: literal(&format!("https://mcp.{v}/mcp")),
        title: name.to_owned(),
        tools: Vec::new(),
        own_authorization_server: false,
        registration: Registration::PreRegistered,
        as_of: "2026-09".into(),
    };
    Description {
        name: name.to_owned(),
        display_name: name.to_owned(),
        version: "1.0.0".into(),
        category: "test".into(),
        documentation_url: String::new(),
        wants: Wants::default(),
        hooks: Hooks::default(),
        variables: Vec::new(),
        variants: Vec::new(),
        authorization_hosts: Vec::new(),
        audience_hosts: vendor.map_or_else(Vec::new, |v| vec![literal(&format!(".{v}"))]),
        authorization: Some(authorization),
        token_endpoint: vendor.map(|v| literal(&format!("https://{v}/token"))),
        device_authorization_endpoint: None,
        token_requests: Vec::new(),
        token_answer: answer,
        token_shapes: Vec::new(),
        metadata: Vec::new(),
        grant_difference: GrantDifference::Warn,
        scopes: Vec::new(),
        default_scopes: Vec::new(),
        refresh: Refresh {
            kind: RefreshKind::RefreshToken,
            rotation: Rotation::Sometimes,
            grace_seconds: 0,
            retry_after_lost_answer: false,
            ends_access_token: false,
            idle_days: None,
            margin_percent: 10,
            permanent_errors: Vec::new(),
            transient_errors: Vec::new(),
        },
        revocation: Vec::new(),
        follow_ups: Vec::new(),
        identity: None,
        credentials: Vec::new(),
        constant_headers: Vec::new(),
        mcp_servers: vendor.map(mcp_server).into_iter().collect(),
        error_advice: Vec::new(),
    }
}

impl FakePresets {
    /// `generic`, `acme` (a vendor at acme.example), `old` (no PKCE) and
    /// `broken` (refused).
    pub(crate) fn usual() -> Arc<Self> {
        let mut state = State::default();
        state
            .descriptions
            .insert("generic".into(), description("generic", None));
        state
            .descriptions
            .insert("acme".into(), description("acme", Some("acme.example")));
        let mut old = description("old", Some("old.example"));
        if let Some(authorization) = &mut old.authorization {
            authorization.pkce = Pkce::Unsupported;
        }
        state.descriptions.insert("old".into(), old);
        state.refused.insert(
            "broken".into(),
            "it imports wasi:sockets, which presets may not".into(),
        );
        Arc::new(Self(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(name: &str, refused: Option<&String>) -> CatalogEntry {
        CatalogEntry {
            file: format!("{name}-1.0.0.wasm"),
            preset: PresetName::parse(name).ok(),
            version: Some("1.0.0".into()),
            digest: Some(Digest::of(name.as_bytes())),
            size: Some(1000),
            origin: Some(Origin::unchecked()),
            state: refused.map_or(FileState::Loaded, |reason| FileState::Refused {
                reason: reason.clone(),
            }),
        }
    }
}

impl PresetHost for FakePresets {
    fn bind(&self, provider: &Provider, terms: Terms) -> Result<Arc<dyn Preset>, BindError> {
        let proposal = self.propose(provider, None)?;
        let mut state = self.state();
        if terms.approvals.contains(&proposal.approval) {
            let description = state.descriptions.get(provider.preset.as_str()).cloned();
            let preset: Arc<dyn Preset> = Arc::new(FakePreset(
                proposal.approval.digest,
                description.ok_or_else(|| BindError::Unknown(provider.preset.clone()))?,
            ));
            state
                .serving
                .insert(provider.name.clone(), Arc::clone(&preset));
            state.pending.remove(&provider.name);
            return Ok(preset);
        }
        state.serving.remove(&provider.name);
        state
            .pending
            .insert(provider.name.clone(), proposal.clone());
        Err(BindError::NeedsApproval(Box::new(proposal)))
    }

    fn rehearsal(
        &self,
        provider: &Provider,
        _: Option<&str>,
    ) -> Result<Arc<dyn Preset>, BindError> {
        let state = self.state();
        let description = state.descriptions.get(provider.preset.as_str()).cloned();
        let description = description.ok_or_else(|| BindError::Unknown(provider.preset.clone()))?;
        let digest = Digest::of(provider.preset.as_str().as_bytes());
        Ok(Arc::new(FakePreset(digest, description)))
    }

    fn propose(&self, provider: &Provider, _: Option<&str>) -> Result<Proposal, BindError> {
        let state = self.state();
        if !state.descriptions.contains_key(provider.preset.as_str()) {
            return Err(BindError::Unknown(provider.preset.clone()));
        }
        if provider.settings.contains_key("bad") {
            let (preset, reason) = (
                provider.preset.clone(),
                "it knows no setting \"bad\"".into(),
            );
            return Err(BindError::Refused { preset, reason });
        }
        let digest = Digest::of(provider.preset.as_str().as_bytes());
        let settings = serde_json::to_vec(&provider.settings).unwrap();
        let audience_hosts: BTreeSet<_> = provider
            .audience_hosts
            .iter()
            .map(ToString::to_string)
            .collect();
        let added = audience_hosts
            .iter()
            .map(|h| format!("audience host {h}"))
            .collect();
        let approval = Approval {
            digest,
            settings: Digest::of(&settings),
            permissions: PermissionSet {
                audience_hosts,
                ..PermissionSet::default()
            },
        };
        Ok(Proposal {
            provider: provider.name.clone(),
            preset: provider.preset.clone(),
            file: format!("{}-1.0.0.wasm", provider.preset),
            version: "1.0.0".into(),
            origin: Origin::unchecked(),
            approval,
            difference: PermissionDifference {
                added,
                ..PermissionDifference::default()
            },
        })
    }

    fn unbind(&self, provider: &ProviderName) {
        let mut state = self.state();
        state.serving.remove(provider);
        state.pending.remove(provider);
    }

    fn current(&self, provider: &ProviderName) -> Option<Arc<dyn Preset>> {
        self.state().serving.get(provider).cloned()
    }

    fn binding(&self, provider: &ProviderName) -> Option<BindingStatus> {
        let state = self.state();
        let pending = state.pending.get(provider).cloned();
        let serving = state.serving.get(provider);
        let preset = PresetName::parse(match (serving, &pending) {
            (Some(preset), _) => &preset.description().name,
            (None, Some(proposal)) => proposal.preset.as_str(),
            (None, None) => return None,
        });
        let preset = preset.ok()?;
        Some(BindingStatus {
            serving: serving.map(|s| Serving {
                file: format!("{preset}-1.0.0.wasm"),
                version: "1.0.0".into(),
                digest: s.digest(),
                origin: Origin::unchecked(),
                permissions: PermissionSet::default(),
            }),
            preset,
            pending,
            passed_over: Vec::new(),
        })
    }

    fn list(&self) -> Vec<CatalogEntry> {
        let state = self.state();
        let good = state.descriptions.keys().map(|n| Self::entry(n, None));
        good.chain(state.refused.iter().map(|(n, r)| Self::entry(n, Some(r))))
            .collect()
    }

    fn inspect(&self, name_or_file: &str) -> Option<Inspection> {
        let name = name_or_file
            .strip_suffix("-1.0.0.wasm")
            .unwrap_or(name_or_file);
        let state = self.state();
        let (description, refused) = (
            state.descriptions.get(name).cloned(),
            state.refused.get(name),
        );
        if description.is_none() && refused.is_none() {
            return None;
        }
        Some(Inspection {
            entry: Self::entry(name, refused),
            imports: Vec::new(),
            hooks: Vec::new(),
            permissions: None,
            description,
        })
    }
}
