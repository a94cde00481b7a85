//! Which presets may be used, which of their versions, and what each provider's
//! preset was approved to do.

use std::sync::Arc;

use countersign_core::names::{PresetName, ProviderName};
use countersign_core::preset::{Description, Preset};
use countersign_core::provider::Provider;
use countersign_presets::signature::Origin;
use countersign_presets::{
    BindError, BindingStatus, Catalog, CatalogEntry, Inspection, Policies, Proposal, Terms,
};

use super::{Refusal, Registry, Snapshot};
use crate::replay::{Recorded, Replay};

mod approve;
mod components;
mod enable;
mod follow;
mod versions;
mod views;

pub use approve::Approved;
pub use components::PolicyComponentView;
pub use versions::{Chosen, Rules};
pub use views::{BindingView, OriginView, PassedOverView, PresetView, WaitingView};

/// What the registry asks of the catalog of presets. All but `current` may
/// compile, and block.
pub trait PresetHost: Send + Sync {
    /// See [`Catalog::bind`].
    ///
    /// # Errors
    /// [`BindError`]; the provider stays bound and serves as soon as it may.
    fn bind(&self, provider: &Provider, terms: Terms) -> Result<Arc<dyn Preset>, BindError>;
    /// See [`Catalog::unbind`].
    fn unbind(&self, provider: &ProviderName);
    /// See [`Catalog::current`].
    fn current(&self, provider: &ProviderName) -> Option<Arc<dyn Preset>>;
    /// See [`Catalog::binding`].
    fn binding(&self, provider: &ProviderName) -> Option<BindingStatus>;
    /// See [`Catalog::propose`].
    ///
    /// # Errors
    /// [`BindError`].
    fn propose(&self, provider: &Provider, version: Option<&str>) -> Result<Proposal, BindError>;
    /// See [`Catalog::rehearsal`].
    ///
    /// # Errors
    /// [`BindError`].
    fn rehearsal(
        &self,
        provider: &Provider,
        version: Option<&str>,
    ) -> Result<Arc<dyn Preset>, BindError>;
    /// The policy components beside the presets, if there can be any.
    fn policies(&self) -> Option<&Policies> {
        None
    }
    /// See [`Catalog::list`].
    fn list(&self) -> Vec<CatalogEntry>;
    /// See [`Catalog::inspect`].
    fn inspect(&self, name_or_file: &str) -> Option<Inspection>;
    /// What waits for approval for this provider.
    fn pending(&self, provider: &ProviderName) -> Option<Proposal> {
        self.binding(provider)?.pending
    }
    /// What a preset says of itself without settings.
    fn describe(&self, preset: &str) -> Option<Description> {
        self.inspect(preset).and_then(|i| i.description)
    }
}

impl PresetHost for Catalog {
    fn bind(&self, provider: &Provider, terms: Terms) -> Result<Arc<dyn Preset>, BindError> {
        Catalog::bind(self, provider, terms)
    }
    fn unbind(&self, provider: &ProviderName) {
        Catalog::unbind(self, provider);
    }
    fn current(&self, provider: &ProviderName) -> Option<Arc<dyn Preset>> {
        Catalog::current(self, provider)
    }
    fn binding(&self, provider: &ProviderName) -> Option<BindingStatus> {
        Catalog::binding(self, provider)
    }
    fn propose(&self, provider: &Provider, version: Option<&str>) -> Result<Proposal, BindError> {
        Catalog::propose(self, provider, version)
    }
    fn rehearsal(
        &self,
        provider: &Provider,
        version: Option<&str>,
    ) -> Result<Arc<dyn Preset>, BindError> {
        Catalog::rehearsal(self, provider, version)
    }
    fn policies(&self) -> Option<&Policies> {
        Some(Catalog::policies(self))
    }
    fn list(&self) -> Vec<CatalogEntry> {
        Catalog::list(self)
    }
    fn inspect(&self, name_or_file: &str) -> Option<Inspection> {
        Catalog::inspect(self, name_or_file)
    }
}

impl Registry {
    pub(super) fn demand_usable(
        &self,
        preset: &PresetName,
        snapshot: &Snapshot,
    ) -> Result<(), Refusal> {
        if snapshot.is_enabled(preset) {
            return Ok(());
        }
        let known = self.catalog_names();
        if known.iter().any(|n| n == preset.as_str()) {
            return Err(Refusal::PresetNotEnabled(preset.to_string()));
        }
        Err(Refusal::Unknown {
            field: "preset".into(),
            what: "preset",
            name: preset.to_string(),
            known,
        })
    }

    pub(super) fn catalog_entry(
        &self,
        name_or_file: &str,
    ) -> Result<(CatalogEntry, PresetName), Refusal> {
        let entry = self.presets.inspect(name_or_file).map(|i| i.entry);
        match entry.and_then(|e| e.preset.clone().map(|p| (e, p))) {
            Some(found) => Ok(found),
            None => Err(Refusal::NotFound {
                what: "preset",
                name: super::text::cut(name_or_file),
                known: self.catalog_names(),
            }),
        }
    }

    /// Providers of a preset in order of name, or the one that is named.
    fn providers_of(
        &self,
        preset: &PresetName,
        only: Option<&str>,
        snapshot: &Snapshot,
    ) -> Result<Vec<Arc<Provider>>, Refusal> {
        let mut providers: Vec<_> = snapshot
            .providers
            .values()
            .map(|p| &p.value)
            .filter(|p| p.preset == *preset)
            .cloned()
            .collect();
        providers.sort_by(|a, b| a.name.cmp(&b.name));
        let Some(only) = only else {
            return Ok(providers);
        };
        match providers.iter().find(|p| p.name.as_str() == only) {
            Some(provider) => Ok(vec![Arc::clone(provider)]),
            None => Err(Refusal::Unknown {
                field: "provider".into(),
                what: "provider",
                name: super::text::cut(only),
                known: providers.iter().map(|p| p.name.to_string()).collect(),
            }),
        }
    }

    /// Names of the presets in the catalog, in order.
    pub(crate) fn catalog_names(&self) -> Vec<String> {
        let names = self.presets.list().into_iter().filter_map(|e| e.preset);
        let names: std::collections::BTreeSet<_> = names.map(String::from).collect();
        names.into_iter().collect()
    }

    /// What the provider's preset asks for and nobody has approved; none if
    /// all is approved.
    pub(super) async fn proposal(
        &self,
        provider: &Provider,
        snapshot: &Snapshot,
    ) -> Result<Option<Proposal>, Refusal> {
        match self.bind_now(provider.clone(), snapshot).await {
            Ok(()) => Ok(None),
            Err(BindError::NeedsApproval(proposal)) => Ok(Some(*proposal)),
            Err(error) => Err(self.unbindable(error, "settings")),
        }
    }

    /// What one version of the provider's preset would be approved for.
    pub(crate) async fn propose(
        &self,
        provider: &Provider,
        version: Option<String>,
    ) -> Result<Proposal, Refusal> {
        let (presets, provider) = (Arc::clone(&self.presets), provider.clone());
        let work = move || presets.propose(&provider, version.as_deref());
        match tokio::task::spawn_blocking(work).await {
            Ok(proposed) => proposed.map_err(|e| self.unbindable(e, "version")),
            Err(e) => Err(Refusal::invalid(
                "version",
                format!("loading it failed: {e}"),
            )),
        }
    }

    /// What a version would decide differently over these recorded inputs: `new`
    /// (the newest if none) against `old` (what serves if none).
    pub(crate) async fn replay(
        &self,
        provider: &Provider,
        old: Option<String>,
        new: Option<String>,
        inputs: Vec<Recorded>,
    ) -> Result<Replay, Refusal> {
        let (presets, of) = (Arc::clone(&self.presets), provider.clone());
        let serving = self.presets.current(&provider.name);
        let work = move || {
            let old = match (old, serving) {
                (None, Some(serving)) => serving,
                (old, _) => presets.rehearsal(&of, old.as_deref())?,
            };
            let new = presets.rehearsal(&of, new.as_deref())?;
            Ok(crate::replay::replay(&*old, &*new, &inputs))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(replayed) => replayed.map_err(|e: BindError| self.unbindable(e, "version")),
            Err(e) => Err(Refusal::invalid(
                "version",
                format!("replaying failed: {e}"),
            )),
        }
    }

    fn unbindable(&self, error: BindError, field: &str) -> Refusal {
        match error {
            BindError::Unknown(name) => Refusal::Unknown {
                field: "preset".into(),
                what: "preset",
                name: name.to_string(),
                known: self.catalog_names(),
            },
            BindError::Refused { preset, reason } => Refusal::invalid(
                field,
                format!("the preset {preset} cannot serve this provider: {reason}"),
            ),
            error @ BindError::NeedsApproval(_) => Refusal::NotApproved(error.to_string()),
        }
    }

    /// Binds every stored provider whose preset is enabled.
    pub(super) async fn bind_all(&self) {
        let snapshot = self.snapshot();
        for provider in snapshot.providers.values() {
            self.bind(&provider.value, &snapshot).await;
        }
    }

    async fn bind_those_of(&self, preset: &PresetName) {
        let snapshot = self.snapshot();
        for provider in snapshot
            .providers
            .values()
            .filter(|p| p.value.preset == *preset)
        {
            self.bind(&provider.value, &snapshot).await;
        }
    }

    /// Binds one provider, if its preset may be used. What can't be bound is
    /// logged: its calls are answered `preset_unavailable`.
    pub(super) async fn bind(&self, provider: &Provider, snapshot: &Snapshot) {
        if !snapshot.is_enabled(&provider.preset) {
            self.unbind(&provider.name).await;
            return;
        }
        if let Err(error) = self.bind_now(provider.clone(), snapshot).await {
            tracing::warn!(provider = %provider.name, preset = %provider.preset, "{error}");
        }
    }

    async fn bind_now(&self, provider: Provider, snapshot: &Snapshot) -> Result<(), BindError> {
        let (presets, name) = (Arc::clone(&self.presets), provider.preset.clone());
        let terms = snapshot.terms_of(&provider);
        let bound = tokio::task::spawn_blocking(move || presets.bind(&provider, terms).map(|_| ()));
        match bound.await {
            Ok(bound) => bound,
            Err(e) => Err(BindError::Refused {
                preset: name,
                reason: format!("loading it failed: {e}"),
            }),
        }
    }

    pub(super) async fn unbind(&self, provider: &ProviderName) {
        let (presets, provider) = (Arc::clone(&self.presets), provider.clone());
        if let Err(e) = tokio::task::spawn_blocking(move || presets.unbind(&provider)).await {
            tracing::error!("unbinding a preset failed: {e}");
        }
    }

    /// A provider with the preset version in force for it, if there are both.
    #[must_use]
    pub fn party(&self, name: &ProviderName) -> Option<countersign_oauth::Party> {
        let provider = Arc::clone(self.current().provider(name)?);
        Some(countersign_oauth::Party {
            provider,
            preset: self.presets.current(name)?,
        })
    }

    /// Whether a version of the provider's preset waits for an approval.
    #[must_use]
    pub fn is_waiting(&self, provider: &ProviderName) -> bool {
        self.presets.pending(provider).is_some()
    }

    /// What the provider's preset says: under its settings if it serves, else
    /// without settings.
    pub(crate) fn description_of(&self, provider: &Provider) -> Option<Description> {
        match self.presets.current(&provider.name) {
            Some(preset) => Some(preset.description().clone()),
            None => self.presets.describe(provider.preset.as_str()),
        }
    }
}

/// An origin in the audit: a warning first.
fn told(origin: &Origin) -> String {
    match origin.warning {
        Some(_) => format!("WARNING: {origin}"),
        None => origin.to_string(),
    }
}
