//! Agreeing to what a preset asks for.

use std::sync::Arc;

use countersign_core::caller::Caller;
use countersign_core::ports::{Expect, Kind, RecordKey, StoreError, Write, delete, put};
use countersign_core::provider::Provider;
use countersign_presets::{Approval, PermissionSet, Proposal};
use serde::Serialize;

use super::told;
use crate::registry::{ApprovalRecord, Refusal, Registry, Snapshot, Stored};

/// Approvals kept for one provider: enough for going back a few versions.
const KEPT: usize = 8;

/// What `preset approve` did for one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Approved {
    /// Which provider.
    pub provider: String,
    /// Which version of the preset.
    pub version: String,
    /// What it may do now that it might not before.
    pub added: Vec<String>,
    /// What it may do now instead of less.
    pub widened: Vec<String>,
    /// What it may do now instead of more.
    pub narrowed: Vec<String>,
    /// What it may do no more.
    pub removed: Vec<String>,
    /// Who vouches for it, in a line.
    pub origin: String,
    /// Hash of digest, settings and permission set.
    pub hash: String,
}

impl From<Proposal> for Approved {
    fn from(proposal: Proposal) -> Self {
        Self {
            provider: proposal.provider.to_string(),
            version: proposal.version,
            origin: told(&proposal.origin),
            hash: proposal.approval.hash().to_string(),
            added: proposal.difference.added,
            widened: proposal.difference.widened,
            narrowed: proposal.difference.narrowed,
            removed: proposal.difference.removed,
        }
    }
}

/// Says in words what is different between what was shown and what waits.
fn proposals_differ(shown: Option<&Proposal>, now: &Proposal, lines: &mut Vec<String>) {
    lines.push(format!(
        "for provider {} the version {} waits (hash {})",
        now.provider,
        now.version,
        now.approval.hash()
    ));
    let Some(shown) = shown else { return };
    if shown.approval.digest != now.approval.digest {
        lines.push(format!(
            "the component is another one ({} instead of {})",
            now.approval.digest.short(),
            shown.approval.digest.short()
        ));
    }
    if shown.approval.settings != now.approval.settings {
        lines.push("the provider's settings were changed".into());
    }
    let (old, new) = (&shown.approval.permissions, &now.approval.permissions);
    let difference = PermissionSet::difference(Some(old), new);
    lines.extend(
        difference
            .lines()
            .map(|(_, word, entry)| format!("{word} {entry}")),
    );
}

impl ApprovalRecord {
    /// Where it is kept: listed by its provider.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        RecordKey::within(Kind::Preset, self.provider.as_str(), self.hash.clone())
    }
}

impl Registry {
    /// Approves what waits: of one provider, or of all that use the preset.
    /// With a `hash`, only what has it: what somebody has looked at, and
    /// nothing that came since.
    ///
    /// # Errors
    /// [`Refusal`]; [`Refusal::Changed`] says what waits instead.
    pub async fn approve_preset(
        &self,
        caller: &Caller,
        name: &str,
        provider: Option<&str>,
        hash: Option<&str>,
    ) -> Result<Vec<Approved>, Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("preset:{}", crate::registry::text::cut(name));
        let work = async {
            let (_, preset) = self.catalog_entry(name)?;
            caller
                .permissions
                .demand("preset_approve", Some(preset.as_str()))?;
            let snapshot = self.snapshot();
            self.demand_usable(&preset, &snapshot)?;
            let providers = self.providers_of(&preset, provider, &snapshot)?;
            let waiting = self.waiting_for(providers, hash, &snapshot).await?;
            let mut approved = Vec::new();
            for (provider, proposal) in waiting {
                let snapshot = self.snapshot();
                let writes =
                    self.approve_writes(caller, &provider, &proposal.approval, &snapshot)?;
                self.store(writes).await?;
                self.refresh().await?;
                self.bind(&provider, &self.snapshot()).await;
                approved.push(Approved::from(proposal));
            }
            let detail: Vec<_> = approved
                .iter()
                .map(|a| format!("{} {} {}, {}", a.provider, a.version, a.hash, a.origin))
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

    /// What waits for these providers, all or what has this hash.
    async fn waiting_for(
        &self,
        providers: Vec<Arc<Provider>>,
        hash: Option<&str>,
        snapshot: &Snapshot,
    ) -> Result<Vec<(Arc<Provider>, Proposal)>, Refusal> {
        let mut waiting = Vec::new();
        for provider in providers {
            // While an older version serves, a newer one may wait beside it.
            let proposal = match self.proposal(&provider, snapshot).await? {
                Some(proposal) => Some(proposal),
                None => self.presets.pending(&provider.name),
            };
            waiting.extend(proposal.map(|proposal| (provider, proposal)));
        }
        let Some(hash) = hash else {
            return Ok(waiting);
        };
        let is_meant = |proposal: &Proposal| proposal.approval.hash().to_string() == hash;
        if waiting.iter().any(|(_, proposal)| is_meant(proposal)) {
            waiting.retain(|(_, proposal)| is_meant(proposal));
            return Ok(waiting);
        }
        let there: Vec<Proposal> = waiting.into_iter().map(|(_, proposal)| proposal).collect();
        Err(self.changed_since(hash, &there))
    }

    /// What there is now, against what was shown under this hash.
    pub(super) fn changed_since(&self, hash: &str, now: &[Proposal]) -> Refusal {
        let shown = self.shown(hash);
        let now: Vec<&Proposal> = match &shown {
            Some(shown) if now.iter().any(|p| p.provider == shown.provider) => now
                .iter()
                .filter(|p| p.provider == shown.provider)
                .collect(),
            _ => now.iter().collect(),
        };
        if now.is_empty() {
            return Refusal::Changed(
                "nothing waits for an approval under this hash any more: somebody else approved it, or the file \
                 is gone; see `countersign preset list`"
                    .into(),
            );
        }
        let mut lines = Vec::new();
        for proposal in now {
            proposals_differ(shown.as_ref(), proposal, &mut lines);
            self.remember_shown(proposal);
        }
        Refusal::Changed(format!(
            "this is not what you looked at: {}. Look at it again (`countersign preset diff NAME`) and approve \
             the new hash",
            lines.join("; ")
        ))
    }

    pub(in crate::registry) fn approve_writes(
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
}

pub(super) fn approval_writes(
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
    let allowed_more = |a: &Stored<ApprovalRecord>| {
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
