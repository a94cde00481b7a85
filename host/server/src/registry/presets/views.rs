//! Presets as administrators see them.

use std::sync::PoisonError;

use countersign_core::names::{PresetName, ProviderName};
use countersign_core::provider::Provider;
use countersign_presets::signature::Origin;
use countersign_presets::{
    BindingStatus, CatalogEntry, FileState, Inspection, PermissionDifference, PermissionSet,
    Proposal,
};
use serde::Serialize;

use crate::registry::{Registry, Snapshot};

/// Proposals remembered to say what has changed since they were shown.
const SHOWN: usize = 64;

/// A version of a preset as administrators see it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct PresetView {
    /// Its name.
    pub name: String,
    /// As the file name says.
    pub version: Option<String>,
    /// SHA-256 of the component; absent if none may serve.
    pub digest: Option<String>,
    /// The file in the catalog.
    pub file: String,
    /// `loaded`, `needs_settings`, `refused`, `revoked`, `below_floor`; `kept`
    /// if it serves on although its file is gone, `draining` while only calls
    /// that began on it still use it.
    pub state: String,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who vouches for it; absent if no content of the file may serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginView>,
    /// Whether providers may use it.
    pub enabled: bool,
    /// Providers that use the preset.
    pub providers: Vec<String>,
    /// Of these, those that this version serves.
    pub serving: Vec<String>,
    /// Of these, those for which this version waits for an approval.
    pub waiting: Vec<String>,
    /// Of these, those that this version does not serve although it is newer
    /// than the one that does, and why.
    pub passed_over: Vec<PassedOverView>,
    /// Calls on their way that it judged; those of a version that drains finish
    /// on it.
    pub calls: usize,
}

/// Who vouches for a component, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct OriginView {
    /// `trusted`, `untrusted`, `unsigned` or `unchecked`.
    pub signature: String,
    /// Who signed it; in the signer's own words unless `trusted`.
    pub publisher: Option<String>,
    /// The public key it was signed with (`ed25519:…`).
    pub key: Option<String>,
    /// When it was signed, in the signer's words.
    pub signed_at: Option<String>,
    /// Why it is used although nobody trusted vouches for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// The reference that `preset pull` got it from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulled_from: Option<String>,
    /// The digest of the manifest that the reference stood for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulled_digest: Option<String>,
    /// When it was pulled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulled_at: Option<String>,
}

impl From<Origin> for OriginView {
    fn from(origin: Origin) -> Self {
        let pulled = origin.pulled;
        Self {
            signature: origin.signature.as_str().to_owned(),
            publisher: origin.publisher.map(String::from),
            key: origin.key.map(String::from),
            signed_at: origin.signed_at.map(|at| at.to_string()),
            warning: origin.warning,
            pulled_digest: pulled.as_ref().map(|p| p.manifest.to_string()),
            pulled_at: pulled.as_ref().map(|p| p.at.to_string()),
            pulled_from: pulled.map(|p| p.reference),
        }
    }
}

/// Why a version does not serve a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct PassedOverView {
    /// Which provider.
    pub provider: String,
    /// Why not.
    pub reason: String,
}

/// How a provider stands with its preset.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct BindingView {
    /// Which provider.
    pub provider: String,
    /// Its name for people.
    pub display_name: String,
    /// The version that judges its calls; absent if none does.
    pub version: Option<String>,
    /// SHA-256 of that version's component.
    pub digest: Option<String>,
    /// Who vouches for it.
    pub origin: Option<OriginView>,
    /// What that version was approved to do.
    #[schema(value_type = Option<Object>)]
    pub permissions: Option<PermissionSet>,
    /// The version that was chosen for it; absent if it follows the newest.
    pub pinned: Option<String>,
    /// Versions that were gone back from after faults, with the reason.
    pub set_aside: Vec<String>,
    /// Whether a version that asks for no more swaps by itself.
    pub auto_update: bool,
    /// What waits for an approval.
    pub waiting: Option<WaitingView>,
    /// Why newer versions do not serve: each with its file.
    pub refusals: Vec<String>,
}

/// What waits for an approval, and how it differs from what serves.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct WaitingView {
    /// The file in the catalog.
    pub file: String,
    /// As the file name says.
    pub version: String,
    /// SHA-256 of the component.
    pub digest: String,
    /// Who vouches for it.
    pub origin: OriginView,
    /// Of digest, settings and permission set: what an approval of this, and of
    /// nothing else, names.
    pub hash: String,
    /// What it asks for.
    #[schema(value_type = Object)]
    pub permissions: PermissionSet,
    /// What would be new, wider, narrower or gone.
    #[schema(value_type = Object)]
    pub difference: PermissionDifference,
}

impl From<Proposal> for WaitingView {
    fn from(proposal: Proposal) -> Self {
        Self {
            hash: proposal.approval.hash().to_string(),
            digest: proposal.approval.digest.to_string(),
            permissions: proposal.approval.permissions,
            file: proposal.file,
            version: proposal.version,
            origin: OriginView::from(proposal.origin),
            difference: proposal.difference,
        }
    }
}

impl Registry {
    /// Every preset in the catalog, with what was decided about it.
    #[must_use]
    pub fn presets(&self) -> Vec<PresetView> {
        let snapshot = self.snapshot();
        let mut views: Vec<_> = self
            .presets
            .list()
            .into_iter()
            .map(|entry| self.preset_view(entry, &snapshot))
            .collect();
        views.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        views
    }

    /// One preset, by its name or its file.
    #[must_use]
    pub fn preset(&self, name_or_file: &str) -> Option<(PresetView, Inspection)> {
        let inspection = self.presets.inspect(name_or_file)?;
        Some((
            self.preset_view(inspection.entry.clone(), &self.snapshot()),
            inspection,
        ))
    }

    /// How each provider of a preset stands with it.
    #[must_use]
    pub fn preset_bindings(&self, preset: &PresetName) -> Vec<BindingView> {
        let snapshot = self.snapshot();
        let providers = self.providers_of(preset, None, &snapshot);
        providers
            .unwrap_or_default()
            .iter()
            .map(|provider| self.binding_view(provider, &snapshot))
            .collect()
    }

    fn binding_view(&self, provider: &Provider, snapshot: &Snapshot) -> BindingView {
        let status = self.presets.binding(&provider.name);
        let choice = snapshot.choice(&provider.name, &provider.preset);
        let (serving, pending, passed_over) = match status {
            Some(BindingStatus {
                serving,
                pending,
                passed_over,
                ..
            }) => (serving, pending, passed_over),
            None => (None, None, Vec::new()),
        };
        if let Some(proposal) = &pending {
            self.remember_shown(proposal);
        }
        let set_aside = choice.map_or(&[][..], |c| c.set_aside.as_slice());
        BindingView {
            provider: provider.name.to_string(),
            display_name: provider.display_name.clone(),
            version: serving.as_ref().map(|s| s.version.clone()),
            digest: serving.as_ref().map(|s| s.digest.to_string()),
            origin: serving.as_ref().map(|s| s.origin.clone().into()),
            permissions: serving.map(|s| s.permissions),
            pinned: choice.and_then(|c| c.version.clone()),
            set_aside: set_aside
                .iter()
                .map(|s| format!("{} ({}): {}", s.version, s.digest.short(), s.reason))
                .collect(),
            auto_update: provider.auto_update,
            waiting: pending.map(WaitingView::from),
            refusals: passed_over.iter().map(ToString::to_string).collect(),
        }
    }

    /// Remembers what somebody was shown, to say later what has changed.
    pub(super) fn remember_shown(&self, proposal: &Proposal) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.retain(|known| known.approval != proposal.approval);
        while shown.len() >= SHOWN {
            shown.pop_front();
        }
        shown.push_back(proposal.clone());
    }

    /// What was shown under this hash, if it is still remembered.
    pub(super) fn shown(&self, hash: &str) -> Option<Proposal> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let found = shown
            .iter()
            .find(|proposal| proposal.approval.hash().to_string() == hash);
        found.cloned()
    }

    fn preset_view(&self, entry: CatalogEntry, snapshot: &Snapshot) -> PresetView {
        let rules = entry.preset.as_ref().map(|name| snapshot.rules(name));
        let mut providers: Vec<ProviderName> = snapshot
            .providers
            .values()
            .filter(|p| Some(&p.value.preset) == entry.preset.as_ref())
            .map(|p| p.value.name.clone())
            .collect();
        providers.sort();
        let (mut serving, mut waiting, mut passed_over) = (Vec::new(), Vec::new(), Vec::new());
        for provider in &providers {
            let Some(status) = self.presets.binding(provider) else {
                continue;
            };
            let is_this = |digest: &_| entry.digest.as_ref() == Some(digest);
            if status.serving.is_some_and(|s| is_this(&s.digest)) {
                serving.push(provider.to_string());
            }
            if status.pending.is_some_and(|p| is_this(&p.approval.digest)) {
                waiting.push(provider.to_string());
            }
            let over = status.passed_over.into_iter();
            passed_over.extend(over.filter(|o| is_this(&o.digest)).map(|o| PassedOverView {
                provider: provider.to_string(),
                reason: o.reason,
            }));
        }
        let (mut state, mut reason) = match &entry.state {
            FileState::Loaded => ("loaded", None),
            FileState::NeedsSettings { reason } => ("needs_settings", Some(reason.clone())),
            FileState::Refused { reason } => ("refused", Some(reason.clone())),
            FileState::Kept => ("kept", None),
            FileState::Draining => ("draining", None),
        };
        if let (Some(rules), Some(version), Some(digest)) = (&rules, &entry.version, &entry.digest)
            && matches!(
                entry.state,
                FileState::Loaded | FileState::NeedsSettings { .. }
            )
            && let Some((word, why)) = rules.against(version, digest)
        {
            (state, reason) = (word, Some(why));
        }
        PresetView {
            calls: entry.digest.map_or(0, |digest| self.in_flight.on(&digest)),
            version: entry.version,
            digest: entry.digest.map(|d| d.to_string()),
            state: state.to_owned(),
            reason,
            origin: entry.origin.map(OriginView::from),
            enabled: entry
                .preset
                .as_ref()
                .is_some_and(|n| snapshot.is_enabled(n)),
            serving,
            waiting,
            passed_over,
            providers: providers.iter().map(ToString::to_string).collect(),
            name: entry
                .preset
                .map_or_else(|| entry.file.clone(), String::from),
            file: entry.file,
        }
    }
}
