//! Which presets may be used, and what each provider's preset was approved to
//! do.

use std::sync::Arc;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::caller::Caller;
use countersign_core::names::{PresetName, ProviderName};
use countersign_core::ports::{Expect, Kind, RecordKey, StoreError, Write, delete, put};
use countersign_core::preset::{Description, Preset};
use countersign_core::provider::Provider;
use countersign_presets::{
    Approval, BindError, Catalog, CatalogEntry, CatalogEvent, FileState, Inspection, Proposal,
};
use serde::Serialize;

use super::snapshot::{ApprovalRecord, Enablement};
use super::{Refusal, Registry, Snapshot};
use crate::config::Signatures;

/// Approvals kept for one provider: enough for going back a few versions.
const KEPT: usize = 8;

/// What the registry asks of the catalog of presets. All but `current` may
/// compile, and block.
pub trait PresetHost: Send + Sync {
    /// See [`Catalog::bind`].
    ///
    /// # Errors
    /// [`BindError`]; the provider stays bound and serves as soon as it may.
    fn bind(
        &self,
        provider: &Provider,
        approvals: &[Approval],
    ) -> Result<Arc<dyn Preset>, BindError>;
    /// See [`Catalog::unbind`].
    fn unbind(&self, provider: &ProviderName);
    /// See [`Catalog::current`].
    fn current(&self, provider: &ProviderName) -> Option<Arc<dyn Preset>>;
    /// See [`Catalog::pending`].
    fn pending(&self, provider: &ProviderName) -> Option<Proposal>;
    /// See [`Catalog::list`].
    fn list(&self) -> Vec<CatalogEntry>;
    /// See [`Catalog::inspect`].
    fn inspect(&self, name_or_file: &str) -> Option<Inspection>;
    /// What a preset says of itself without settings.
    fn describe(&self, preset: &str) -> Option<Description> {
        self.inspect(preset).and_then(|i| i.description)
    }
}

impl PresetHost for Catalog {
    fn bind(
        &self,
        provider: &Provider,
        approvals: &[Approval],
    ) -> Result<Arc<dyn Preset>, BindError> {
        Catalog::bind(self, provider, approvals)
    }
    fn unbind(&self, provider: &ProviderName) {
        Catalog::unbind(self, provider);
    }
    fn current(&self, provider: &ProviderName) -> Option<Arc<dyn Preset>> {
        Catalog::current(self, provider)
    }
    fn pending(&self, provider: &ProviderName) -> Option<Proposal> {
        Catalog::pending(self, provider)
    }
    fn list(&self) -> Vec<CatalogEntry> {
        Catalog::list(self)
    }
    fn inspect(&self, name_or_file: &str) -> Option<Inspection> {
        Catalog::inspect(self, name_or_file)
    }
}

/// A preset as administrators see it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct PresetView {
    /// Its name.
    pub name: String,
    /// The newest version in the catalog.
    pub version: Option<String>,
    /// SHA-256 of the component; absent if none may serve.
    pub digest: Option<String>,
    /// The file in the catalog.
    pub file: String,
    /// `loaded`, `needs_settings` or `refused`.
    pub state: String,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether providers may use it.
    pub enabled: bool,
    /// Providers that use it.
    pub providers: Vec<String>,
    /// Of these, those that wait for an approval.
    pub waiting: Vec<String>,
}

/// What `preset approve` did for one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Approved {
    /// Which provider.
    pub provider: String,
    /// Which version of the preset.
    pub version: String,
    /// What it may do now that it might not before.
    pub added: Vec<String>,
    /// What it may do no more.
    pub removed: Vec<String>,
    /// Hash of digest, settings and permission set.
    pub hash: String,
}

impl ApprovalRecord {
    /// Where it is kept: listed by its provider.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        RecordKey::within(Kind::Preset, self.provider.as_str(), self.hash.clone())
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

    fn preset_view(&self, entry: CatalogEntry, snapshot: &Snapshot) -> PresetView {
        let mut providers: Vec<_> = snapshot
            .providers
            .values()
            .filter(|p| Some(&p.value.preset) == entry.preset.as_ref())
            .map(|p| p.value.name.clone())
            .collect();
        providers.sort();
        let waiting = providers
            .iter()
            .filter(|p| self.presets.pending(p).is_some())
            .map(ToString::to_string);
        let (state, reason) = match &entry.state {
            FileState::Loaded => ("loaded", None),
            FileState::NeedsSettings { reason } => ("needs_settings", Some(reason.clone())),
            FileState::Refused { reason } => ("refused", Some(reason.clone())),
        };
        PresetView {
            version: entry.version,
            digest: entry.digest.map(|d| d.to_string()),
            state: state.to_owned(),
            reason,
            enabled: entry
                .preset
                .as_ref()
                .is_some_and(|n| snapshot.is_enabled(n)),
            waiting: waiting.collect(),
            providers: providers.iter().map(ToString::to_string).collect(),
            name: entry
                .preset
                .map_or_else(|| entry.file.clone(), String::from),
            file: entry.file,
        }
    }

    /// Lets providers use a preset.
    ///
    /// # Errors
    /// [`Refusal`]; one that is not in the catalog is told with what is.
    pub async fn enable_preset(&self, caller: &Caller, name: &str) -> Result<PresetName, Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("preset:{}", super::text::cut(name));
        let work = async {
            let (entry, preset) = self.catalog_entry(name)?;
            caller
                .permissions
                .demand("preset_enable", Some(preset.as_str()))?;
            self.demand_signature_policy()?;
            if let FileState::Refused { reason } = &entry.state {
                return Err(Refusal::invalid(
                    "name",
                    format!("the component {} was refused: {reason}", entry.file),
                ));
            }
            self.store_enablement(caller, &preset, true).await?;
            self.bind_those_of(&preset).await;
            let digest = entry.digest.map_or_else(String::new, |d| d.to_string());
            let detail = format!("{} {digest}", entry.file);
            Ok((preset, detail))
        };
        let result = work.await;
        self.conclude(caller, "preset.enable", resource, result)
            .await
    }

    /// Takes a preset away from providers: their calls fail until it is
    /// enabled again.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn disable_preset(&self, caller: &Caller, name: &str) -> Result<PresetName, Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("preset:{}", super::text::cut(name));
        let work = async {
            let snapshot = self.snapshot();
            // One that was taken out of the catalog can still be disabled.
            let preset = match PresetName::parse(name)
                .ok()
                .filter(|n| snapshot.enablements.contains_key(n))
            {
                Some(preset) => preset,
                None => self.catalog_entry(name)?.1,
            };
            caller
                .permissions
                .demand("preset_enable", Some(preset.as_str()))?;
            self.store_enablement(caller, &preset, false).await?;
            let mut used = Vec::new();
            for provider in snapshot
                .providers
                .values()
                .filter(|p| p.value.preset == preset)
            {
                self.unbind(&provider.value.name).await;
                used.push(provider.value.name.to_string());
            }
            used.sort();
            let detail = if used.is_empty() {
                String::new()
            } else {
                format!("used by {}", used.join(", "))
            };
            Ok((preset, detail))
        };
        let result = work.await;
        self.conclude(caller, "preset.disable", resource, result)
            .await
    }

    /// Approves what waits: of one provider, or of all that use the preset.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn approve_preset(
        &self,
        caller: &Caller,
        name: &str,
        provider: Option<&str>,
    ) -> Result<Vec<Approved>, Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("preset:{}", super::text::cut(name));
        let work = async {
            let (_, preset) = self.catalog_entry(name)?;
            caller
                .permissions
                .demand("preset_approve", Some(preset.as_str()))?;
            let snapshot = self.snapshot();
            self.demand_usable(&preset, &snapshot)?;
            let approved = self
                .approve_those_of(caller, &preset, provider, &snapshot)
                .await?;
            let detail: Vec<_> = approved
                .iter()
                .map(|a| format!("{} {} {}", a.provider, a.version, a.hash))
                .collect();
            let detail = if detail.is_empty() {
                "nothing waited".into()
            } else {
                detail.join("; ")
            };
            Ok((approved, detail))
        };
        let result = work.await;
        self.conclude(caller, "preset.approve", resource, result)
            .await
    }

    async fn approve_those_of(
        &self,
        caller: &Caller,
        preset: &PresetName,
        only: Option<&str>,
        snapshot: &Snapshot,
    ) -> Result<Vec<Approved>, Refusal> {
        let mut providers: Vec<_> = snapshot
            .providers
            .values()
            .map(|p| &p.value)
            .filter(|p| p.preset == *preset && only.is_none_or(|o| o == p.name.as_str()))
            .collect();
        providers.sort_by(|a, b| a.name.cmp(&b.name));
        if let (Some(only), true) = (only, providers.is_empty()) {
            let known = snapshot
                .providers
                .values()
                .filter(|p| p.value.preset == *preset);
            return Err(Refusal::Unknown {
                field: "provider".into(),
                what: "provider",
                name: super::text::cut(only),
                known: known.map(|p| p.value.name.to_string()).collect(),
            });
        }
        let mut approved = Vec::new();
        for provider in providers {
            // While an older version serves, a newer one may wait beside it.
            let proposal = match self.proposal(provider, snapshot).await? {
                Some(proposal) => Some(proposal),
                None => self.presets.pending(&provider.name),
            };
            let Some(proposal) = proposal else {
                continue;
            };
            let writes = self.approve_writes(caller, provider, &proposal.approval, snapshot)?;
            self.world.records.write(writes).await?;
            self.refresh().await?;
            self.bind(provider, &self.snapshot()).await;
            approved.push(Approved {
                provider: provider.name.to_string(),
                version: proposal.version,
                added: proposal.difference.added,
                removed: proposal.difference.removed,
                hash: proposal.approval.hash().to_string(),
            });
        }
        Ok(approved)
    }

    /// Keeps and records what the catalog did by itself. An approval that a
    /// swap to the same or less made is stored, so that it holds after a
    /// restart; if it cannot be stored, the next start asks again.
    pub async fn follow(&self, event: CatalogEvent) {
        if let Err(error) = self.keep(event).await {
            tracing::error!(%error, "what the catalog did could not be recorded");
        }
    }

    async fn keep(&self, event: CatalogEvent) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        let now = self.world.clock.now();
        let audit = match event {
            CatalogEvent::Loaded { file, digest } => {
                AuditEvent::new(now, "preset.loaded", Outcome::Allowed)
                    .on(format!("file:{file}"))
                    .detail(digest.to_string())
            }
            CatalogEvent::Refused { file, reason } => {
                AuditEvent::new(now, "preset.refused", Outcome::Denied)
                    .on(format!("file:{file}"))
                    .detail(reason)
            }
            CatalogEvent::Removed { file } => {
                AuditEvent::new(now, "preset.removed", Outcome::Allowed).on(format!("file:{file}"))
            }
            CatalogEvent::Swapped {
                provider,
                from,
                to,
                automatic,
            } => {
                let snapshot = self.snapshot();
                if let (Some(approval), Some(stored)) =
                    (automatic, snapshot.providers.get(&provider))
                {
                    let writes = approval_writes(None, now, &stored.value, &approval, &snapshot)?;
                    self.world.records.write(writes).await?;
                    self.refresh().await?;
                }
                let from = from.map_or_else(|| "none".to_owned(), |d| d.to_string());
                AuditEvent::new(now, "preset.swapped", Outcome::Allowed)
                    .on(format!("provider:{provider}"))
                    .detail(format!("from {from} to {to}"))
            }
            CatalogEvent::Pending { proposal } => {
                let added = proposal.difference.added.join(", ");
                AuditEvent::new(now, "preset.waiting", Outcome::Pending)
                    .on(format!("provider:{}", proposal.provider))
                    .detail(format!(
                        "{} {} wants: {added}",
                        proposal.file, proposal.approval.digest
                    ))
            }
        };
        self.world.audit.record(audit).await
    }

    pub(super) fn demand_usable(
        &self,
        preset: &PresetName,
        snapshot: &Snapshot,
    ) -> Result<(), Refusal> {
        self.demand_signature_policy()?;
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

    /// Signatures can't be verified yet, so demanding them means: none is good.
    fn demand_signature_policy(&self) -> Result<(), Refusal> {
        if self.signatures != Signatures::Require {
            return Ok(());
        }
        Err(Refusal::Forbidden(
            "countersign.toml demands signed presets ([presets] signatures = \"require\"), and this version of \
             Countersign cannot verify signatures; write \"warn\" or \"off\" and restart"
                .into(),
        ))
    }

    fn catalog_entry(&self, name_or_file: &str) -> Result<(CatalogEntry, PresetName), Refusal> {
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

    /// Names of the presets in the catalog, in order.
    pub(crate) fn catalog_names(&self) -> Vec<String> {
        let names = self.presets.list().into_iter().filter_map(|e| e.preset);
        let names: std::collections::BTreeSet<_> = names.map(String::from).collect();
        names.into_iter().collect()
    }

    async fn store_enablement(
        &self,
        caller: &Caller,
        preset: &PresetName,
        enabled: bool,
    ) -> Result<(), Refusal> {
        let snapshot = self.snapshot();
        let document = Enablement {
            preset: preset.clone(),
            enabled,
            by: caller.user.clone(),
            at: self.world.clock.now(),
        };
        let expect = snapshot
            .enablements
            .get(preset)
            .map_or(Expect::Absent, |e| Expect::At(e.revision));
        let key = RecordKey::new(Kind::Preset, preset.as_str());
        self.world
            .records
            .write(vec![put(key, expect, &document)?])
            .await?;
        self.refresh().await?;
        Ok(())
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
            Err(BindError::Unknown(name)) => Err(Refusal::Unknown {
                field: "preset".into(),
                what: "preset",
                name: name.to_string(),
                known: self.catalog_names(),
            }),
            Err(BindError::Refused { preset, reason }) => Err(Refusal::invalid(
                "settings",
                format!("the preset {preset} cannot serve this provider: {reason}"),
            )),
        }
    }

    pub(super) fn approve_writes(
        &self,
        caller: &Caller,
        provider: &Provider,
        approval: &Approval,
        snapshot: &Snapshot,
    ) -> Result<Vec<Write>, StoreError> {
        approval_writes(
            Some(caller),
            self.world.clock.now(),
            provider,
            approval,
            snapshot,
        )
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
        if self.signatures == Signatures::Require || !snapshot.is_enabled(&provider.preset) {
            self.unbind(&provider.name).await;
            return;
        }
        if let Err(error) = self.bind_now(provider.clone(), snapshot).await {
            tracing::warn!(provider = %provider.name, preset = %provider.preset, "{error}");
        }
    }

    async fn bind_now(&self, provider: Provider, snapshot: &Snapshot) -> Result<(), BindError> {
        let (presets, name) = (Arc::clone(&self.presets), provider.preset.clone());
        let approvals = snapshot.approvals_of(&provider.name);
        let bound =
            tokio::task::spawn_blocking(move || presets.bind(&provider, &approvals).map(|_| ()));
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

fn approval_writes(
    by: Option<&Caller>,
    at: countersign_core::time::Timestamp,
    provider: &Provider,
    approval: &Approval,
    snapshot: &Snapshot,
) -> Result<Vec<Write>, StoreError> {
    let record = ApprovalRecord {
        provider: provider.name.clone(),
        preset: provider.preset.clone(),
        approval: approval.clone(),
        hash: approval.hash().to_string(),
        by: by.map(|c| c.user.clone()),
        at,
    };
    let mut writes = vec![put(record.key(), Expect::Anything, &record)?];
    let old = snapshot
        .approvals
        .get(&provider.name)
        .map_or(&[][..], Vec::as_slice);
    let others = old.iter().filter(|a| a.value.hash != record.hash);
    // What a person approves now is the most there is: an older approval of
    // more would let an editor, or an update, go back to what was taken away.
    let allowed_more = |a: &super::Stored<ApprovalRecord>| {
        by.is_some()
            && !a
                .value
                .approval
                .permissions
                .is_same_or_narrower(&approval.permissions)
    };
    let (superseded, others): (Vec<_>, Vec<_>) = others.partition(|a| allowed_more(a));
    let surplus = (others.len() + 1).saturating_sub(KEPT);
    for ended in superseded
        .into_iter()
        .chain(others.into_iter().take(surplus))
    {
        writes.push(delete(ended.value.key(), Expect::Anything));
    }
    Ok(writes)
}
