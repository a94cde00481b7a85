//! What is registered: providers, servers, secrets, presets' enablement.
//!
//! Every change takes the same way: permission, then pure checks against the
//! present [`Snapshot`], then one compare-and-set write, then the new snapshot
//! for the hot path, then one audit event that says what changed and never a
//! secret. The hot path only ever loads the snapshot's pointer.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::caller::Caller;
use countersign_core::names::{SecretName, TeamName};
use countersign_core::ports::{
    Expect, Kind, RecordKey, Records, Revision, StoreError, World, Write, put,
};
use countersign_core::secret::Sealed;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::Config;
use crate::in_flight::InFlight;

pub mod address;
mod patch;
mod policies;
mod policy;
mod presets;
mod provider;
mod providers;
mod refusal;
mod registered;
mod secrets;
mod server;
mod servers;
pub mod snapshot;
#[cfg(test)]
pub(crate) mod testing;
mod text;

pub use address::AddressRules;
pub use patch::{from_json, strict_json};
pub use policies::{Preview, PreviewedPolicy};
pub use policy::{
    ConditionInput, DenyInput, EffectInput, ExceptInput, NeedApprovalInput, PolicyComponentInput,
    PolicyInput, WhoInput,
};
pub use presets::{
    Approved, BindingView, Chosen, OriginView, PassedOverView, PolicyComponentView, PresetHost,
    PresetView, Rules, WaitingView,
};
pub use provider::ProviderInput;
pub use providers::Usage;
pub use refusal::Refusal;
pub use registered::GivenSecret;
pub(crate) use server::is_vendors_own;
pub use server::{AuthInput, InjectionInput, ServerInput, ToolsInput};
pub use snapshot::{ApprovalRecord, Choice, Enablement, SecretFacts, SetAside, Snapshot, Stored};

/// The registry; one per process.
pub struct Registry {
    world: World,
    addresses: AddressRules,
    presets: Arc<dyn PresetHost>,
    /// Proposals that somebody was shown, newest last, to say what changed
    /// since.
    shown: std::sync::Mutex<std::collections::VecDeque<countersign_presets::Proposal>>,
    snapshot: ArcSwap<Snapshot>,
    /// Counts the changes of all processes, as of the snapshot: a check against
    /// it holds only while nobody else has changed anything.
    edition: std::sync::Mutex<Option<Revision>>,
    /// Calls on their way, by the preset version that judged them.
    pub in_flight: InFlight,
    /// One change at a time in this process, so that checks against the
    /// snapshot still hold when the write happens; other processes are kept
    /// out by compare-and-set.
    writing: tokio::sync::Mutex<()>,
}

impl Registry {
    /// Reads what is registered and binds every provider to its preset.
    ///
    /// # Errors
    /// [`StoreError`] of the store. A preset that cannot be bound is no error:
    /// its calls are answered `preset_unavailable` until it can.
    pub async fn open(
        world: World,
        config: &Config,
        presets: Arc<dyn PresetHost>,
    ) -> Result<Arc<Self>, StoreError> {
        let edition = edition(world.records.as_ref()).await?;
        let snapshot = Snapshot::read(world.records.as_ref(), presets.policies()).await?;
        let this = Arc::new(Self {
            world,
            addresses: AddressRules {
                network: config.network.clone(),
                public_url: config.server.public_url.clone(),
                listen: config.server.listen,
            },
            presets,
            shown: std::sync::Mutex::default(),
            snapshot: ArcSwap::from_pointee(snapshot),
            edition: std::sync::Mutex::new(edition),
            in_flight: InFlight::default(),
            writing: tokio::sync::Mutex::new(()),
        });
        this.bind_all().await;
        Ok(this)
    }

    /// All that is registered now. Holding it does not hold up a change.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// As [`Self::snapshot`], without counting a reference: for the hot path.
    #[must_use]
    pub fn current(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// A secret's facts and its value, still sealed.
    ///
    /// # Errors
    /// [`StoreError`] of the store.
    pub async fn sealed(
        &self,
        name: &SecretName,
    ) -> Result<Option<(SecretFacts, Sealed)>, StoreError> {
        let key = RecordKey::new(Kind::Secret, name.as_str());
        let Some(record) = self.world.records.get(&key).await? else {
            return Ok(None);
        };
        let facts = countersign_core::ports::parse(&record)?;
        Ok(record.secret.map(|sealed| (facts, sealed)))
    }

    /// Reads everything anew: after another process may have written.
    ///
    /// # Errors
    /// [`StoreError`] of the store; the old snapshot stays.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        // First: what is changed while all is read makes the next write fail,
        // not pass.
        let edition = edition(self.world.records.as_ref()).await?;
        let snapshot = Snapshot::read(self.world.records.as_ref(), self.presets.policies()).await?;
        self.snapshot.store(Arc::new(snapshot));
        *self.edition() = edition;
        Ok(())
    }

    fn edition(&self) -> std::sync::MutexGuard<'_, Option<Revision>> {
        self.edition
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Writes what was checked against the snapshot, unless another process has
    /// registered, approved or deleted something since. After a conflict the
    /// snapshot is a new one.
    async fn store(&self, mut writes: Vec<Write>) -> Result<(), StoreError> {
        let expect = self.edition().map_or(Expect::Absent, Expect::At);
        writes.push(put(edition_key(), expect, &())?);
        match self.world.records.write(writes).await {
            Ok(revisions) => {
                *self.edition() = revisions.last().copied();
                Ok(())
            }
            Err(StoreError::Conflict) => {
                self.refresh().await?;
                Err(StoreError::Conflict)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes over what another process has registered, approved or deleted.
    ///
    /// # Errors
    /// [`StoreError`] of the store; the old snapshot stays.
    pub async fn follow_others(&self) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        let before = self.snapshot();
        self.refresh().await?;
        let now = self.snapshot();
        for (name, old) in &before.providers {
            if !now.providers.contains_key(name) {
                self.unbind(&old.value.name).await;
            }
        }
        for (name, new) in &now.providers {
            let as_it_was = before.providers.get(name).is_some_and(|old| {
                old.value == new.value
                    && before.is_enabled(&old.value.preset) == now.is_enabled(&new.value.preset)
                    && before.terms_of(&old.value) == now.terms_of(&new.value)
            });
            if !as_it_was {
                self.bind(&new.value, &now).await;
            }
        }
        Ok(())
    }

    async fn teams(&self) -> Result<BTreeSet<TeamName>, StoreError> {
        let records = self.world.records.list(Kind::Team, None).await?;
        let mut teams: BTreeSet<_> = records
            .iter()
            .filter_map(|r| TeamName::parse(&r.key.name).ok())
            .collect();
        teams.insert(TeamName::default_team());
        Ok(teams)
    }

    /// Writes the one audit event of an administrative act, also of one that
    /// was refused for want of a permission.
    async fn conclude<T>(
        &self,
        caller: &Caller,
        action: &str,
        resource: String,
        result: Result<(T, String), Refusal>,
    ) -> Result<T, Refusal> {
        let result = result.map_err(|refusal| refusal.told_to(&caller.permissions));
        let (outcome, detail) = match &result {
            Ok((_, detail)) => (Outcome::Allowed, detail.clone()),
            Err(Refusal::Permission(missing)) => (Outcome::Denied, missing.to_string()),
            Err(_) => return result.map(|(value, _)| value),
        };
        let mut event = AuditEvent::new(self.world.clock.now(), action, outcome)
            .by(&caller.user)
            .on(resource);
        event.team = Some(caller.team.to_string());
        event.client = Some(caller.client.to_string());
        event.detail = Some(detail).filter(|d| !d.is_empty());
        self.world.audit.record(event).await?;
        result.map(|(value, _)| value)
    }
}

impl countersign_identity::Resources for Registry {
    fn server<'a>(
        &'a self,
        name: &'a countersign_core::names::ServerName,
    ) -> countersign_core::ports::BoxFuture<
        'a,
        Result<Option<countersign_identity::ServerFacts>, StoreError>,
    > {
        let found = self.current().server(name).filter(|s| s.enabled).map(|s| {
            countersign_identity::ServerFacts {
                display_name: s.display_name.clone(),
                teams: s.teams.iter().cloned().collect(),
            }
        });
        Box::pin(async move { Ok(found) })
    }
}

fn edition_key() -> RecordKey {
    RecordKey::new(Kind::Meta, "registry-edition")
}

async fn edition(records: &dyn Records) -> Result<Option<Revision>, StoreError> {
    Ok(records.get(&edition_key()).await?.map(|r| r.revision))
}

/// Which fields differ, for the audit log: `scopes, token_endpoint`. Values
/// stay out: some are long, and none are needed to know who changed what.
fn changed_fields<T: Serialize>(old: &T, new: &T) -> String {
    let object = |v: &T| match serde_json::to_value(v) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, new) = (object(old), object(new));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let changed: Vec<_> = names
        .into_iter()
        .filter(|n| old.get(*n) != new.get(*n) && *n != "updated_at")
        .map(String::as_str)
        .collect();
    if changed.is_empty() {
        "nothing changed".into()
    } else {
        format!("changed {}", changed.join(", "))
    }
}
