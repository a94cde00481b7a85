//! What the catalog does by itself, kept and recorded.

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::names::{Digest, ProviderName};
use countersign_core::ports::StoreError;
use countersign_presets::{CatalogEvent, PolicyChange};

use super::approve::approval_writes;
use super::told;
use crate::registry::{Registry, SetAside};

/// Versions that are remembered as gone back from, for each provider.
const MOST_SET_ASIDE: usize = 8;

impl Registry {
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
            CatalogEvent::Loaded {
                file,
                digest,
                origin,
            } => AuditEvent::new(now, "preset.loaded", Outcome::Allowed)
                .on(format!("file:{file}"))
                .detail(format!("{digest}, {}", told(&origin))),
            CatalogEvent::Refused { file, reason } => {
                AuditEvent::new(now, "preset.refused", Outcome::Denied)
                    .on(format!("file:{file}"))
                    .detail(reason)
            }
            CatalogEvent::Removed { file } => {
                AuditEvent::new(now, "preset.removed", Outcome::Allowed).on(format!("file:{file}"))
            }
            CatalogEvent::Policy { file, change } => {
                let (action, outcome, detail) = match change {
                    PolicyChange::Loaded { digest, origin } => (
                        "policy.loaded",
                        Outcome::Allowed,
                        Some(format!("{digest}, {}", told(&origin))),
                    ),
                    PolicyChange::Refused { reason } => {
                        ("policy.refused", Outcome::Denied, Some(reason))
                    }
                    PolicyChange::Removed => ("policy.removed", Outcome::Allowed, None),
                };
                let event =
                    AuditEvent::new(now, action, outcome).on(format!("file:policies/{file}"));
                match detail {
                    Some(detail) => event.detail(detail),
                    None => event,
                }
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
                    self.store(writes).await?;
                    self.refresh().await?;
                }
                let from = from.map_or_else(|| "none".to_owned(), |d| d.to_string());
                AuditEvent::new(now, "preset.swapped", Outcome::Allowed)
                    .on(format!("provider:{provider}"))
                    .detail(format!("from {from} to {to}"))
            }
            CatalogEvent::Pending { proposal } => {
                // Approved together with the edit that asked for it.
                let hash = proposal.approval.hash().to_string();
                let snapshot = self.snapshot();
                let approvals = snapshot.approvals.get(&proposal.provider);
                if approvals.is_some_and(|all| all.iter().any(|a| a.value.hash == hash)) {
                    return Ok(());
                }
                let wants: Vec<_> = proposal
                    .difference
                    .lines()
                    .filter(|(sign, ..)| matches!(sign, '+' | '>'))
                    .map(|(_, _, entry)| entry)
                    .collect();
                AuditEvent::new(now, "preset.waiting", Outcome::Pending)
                    .on(format!("provider:{}", proposal.provider))
                    .detail(format!(
                        "{} {}, {}, wants: {}",
                        proposal.file,
                        proposal.approval.digest,
                        told(&proposal.origin),
                        wants.join(", ")
                    ))
            }
            CatalogEvent::RolledBack {
                provider,
                from,
                version,
                reason,
            } => {
                let detail = format!("{version} {from} taken back: {reason}");
                self.set_aside(&provider, from, version, reason).await?;
                AuditEvent::new(now, "preset.rolled_back", Outcome::Failed)
                    .on(format!("provider:{provider}"))
                    .detail(detail)
            }
        };
        self.world.audit.record(audit).await
    }

    /// Stores that a version was gone back from, so that the next start does
    /// not try it again.
    async fn set_aside(
        &self,
        provider: &ProviderName,
        digest: Digest,
        version: String,
        reason: String,
    ) -> Result<(), StoreError> {
        let snapshot = self.snapshot();
        let Some(provider) = snapshot.provider(provider) else {
            return Ok(());
        };
        let at = self.world.clock.now();
        let write = self.choice_write(provider, |choice| {
            choice.set_aside.retain(|s| s.digest != digest);
            // The oldest are superseded by newer versions.
            let surplus = (choice.set_aside.len() + 1).saturating_sub(MOST_SET_ASIDE);
            choice.set_aside.drain(..surplus);
            choice.set_aside.push(SetAside {
                digest,
                version,
                reason,
                at,
            });
        })?;
        self.store(vec![write]).await?;
        self.refresh().await?;
        self.bind(provider, &self.snapshot()).await;
        Ok(())
    }
}
