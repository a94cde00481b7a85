//! All that is registered, as the hot path reads it: one pointer load.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use countersign_core::hosts::HostPattern;
use countersign_core::names::{
    Digest, PolicyName, PresetName, ProviderName, SecretName, ServerName, UserName,
};
use countersign_core::policy::{Effect, Judge, Policy, Rule, Rules};
use countersign_core::ports::{Kind, RecordKey, Records, Revision, StoreError, parse};
use countersign_core::provider::Provider;
use countersign_core::server::Server;
use countersign_core::time::Timestamp;
use countersign_presets::{Approval, Policies, Terms};
use serde::{Deserialize, Serialize};

/// A record with the revision that a change must name.
#[derive(Debug, Clone)]
pub struct Stored<T> {
    /// The record.
    pub value: Arc<T>,
    /// For compare-and-set.
    pub revision: Revision,
}

/// What is known of a secret besides its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFacts {
    /// Its name.
    pub name: SecretName,
    /// Hosts it may be sent to; empty means wherever what refers to it says.
    pub hosts: Vec<HostPattern>,
    /// When it was first set.
    pub created_at: Timestamp,
    /// When its value or hosts were last set.
    pub updated_at: Timestamp,
}

/// Whether a preset may be used at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enablement {
    /// Which.
    pub preset: PresetName,
    /// Whether providers may use it.
    pub enabled: bool,
    /// No version older than this serves anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<String>,
    /// Contents that serve nobody, ever.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub revoked: BTreeSet<Digest>,
    /// Who said so.
    pub by: UserName,
    /// When.
    pub at: Timestamp,
}

/// Which version one provider is served by, where it is not simply the newest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Which provider.
    pub provider: ProviderName,
    /// Of which preset.
    pub preset: PresetName,
    /// The version that was chosen; none follows the newest.
    pub version: Option<String>,
    /// What was gone back from after faults, newest last.
    pub set_aside: Vec<SetAside>,
    /// When it was last changed.
    pub at: Timestamp,
}

/// A version that failed where the one before does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Of the component.
    pub digest: Digest,
    /// As the file name says.
    pub version: String,
    /// How it failed, and for how many.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl Choice {
    /// The last part of its key; approvals have hashes there.
    const NAME: &str = "choice";

    /// Where it is kept: listed by its provider.
    #[must_use]
    pub fn key(provider: &ProviderName) -> RecordKey {
        RecordKey::within(Kind::Preset, provider.as_str(), Self::NAME)
    }
}

/// What one provider's preset was approved to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRecord {
    /// Which provider.
    pub provider: ProviderName,
    /// Which preset.
    pub preset: PresetName,
    /// Digest, settings and permission set.
    pub approval: Approval,
    /// Its hash, for people.
    pub hash: String,
    /// Who approved; none when a swap to the same or less did.
    pub by: Option<UserName>,
    /// When.
    pub at: Timestamp,
}

/// All that is registered at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Providers by name.
    pub providers: HashMap<ProviderName, Stored<Provider>>,
    /// Servers by name.
    pub servers: HashMap<ServerName, Stored<Server>>,
    /// Secrets by name, without values.
    pub secrets: BTreeMap<SecretName, Stored<SecretFacts>>,
    /// Presets that somebody enabled or disabled.
    pub enablements: BTreeMap<PresetName, Stored<Enablement>>,
    /// Approvals by provider, oldest first.
    pub approvals: HashMap<ProviderName, Vec<Stored<ApprovalRecord>>>,
    /// Chosen versions by provider.
    pub choices: HashMap<ProviderName, Stored<Choice>>,
    /// Policies by name.
    pub policies: BTreeMap<PolicyName, Stored<Policy>>,
    /// Those of them that are in force, understood.
    pub rules: Arc<Rules>,
}

impl Snapshot {
    /// Reads everything.
    ///
    /// # Errors
    /// [`StoreError`] of the store.
    pub async fn read(
        records: &dyn Records,
        components: Option<&Policies>,
    ) -> Result<Self, StoreError> {
        let mut this = Self::default();
        for record in records.list(Kind::Provider, None).await? {
            let value: Provider = parse(&record)?;
            this.providers
                .insert(value.name.clone(), stored(value, record.revision));
        }
        for record in records.list(Kind::Server, None).await? {
            let value: Server = parse(&record)?;
            this.servers
                .insert(value.name.clone(), stored(value, record.revision));
        }
        for record in records.list(Kind::Secret, None).await? {
            let value: SecretFacts = parse(&record)?;
            this.secrets
                .insert(value.name.clone(), stored(value, record.revision));
        }
        // Enablements are listed with all of their kind, the rest by provider.
        for record in records.list(Kind::Preset, None).await? {
            if record.key.partition.is_empty() {
                let value: Enablement = parse(&record)?;
                this.enablements
                    .insert(value.preset.clone(), stored(value, record.revision));
            } else if record.key.name == Choice::NAME {
                let value: Choice = parse(&record)?;
                this.choices
                    .insert(value.provider.clone(), stored(value, record.revision));
            } else {
                let value: ApprovalRecord = parse(&record)?;
                this.approvals
                    .entry(value.provider.clone())
                    .or_default()
                    .push(stored(value, record.revision));
            }
        }
        for record in records.list(Kind::Policy, None).await? {
            let value: Policy = parse(&record)?;
            this.policies
                .insert(value.name.clone(), stored(value, record.revision));
        }
        let rules = this.policies.values().map(|stored| {
            let damaged = |e| StoreError::Damaged(format!("policy {}: {e}", stored.value.name));
            let rule = Rule::new(Arc::clone(&stored.value)).map_err(damaged)?;
            Ok(rule.with_judge(judge_of(&stored.value, components)))
        });
        // A policy that is not understood is not left out: nothing is read.
        this.rules = Arc::new(Rules::new(rules.collect::<Result<Vec<_>, StoreError>>()?));
        for approvals in this.approvals.values_mut() {
            approvals.sort_by(|a, b| (a.value.at, &a.value.hash).cmp(&(b.value.at, &b.value.hash)));
        }
        Ok(this)
    }

    /// One provider.
    #[must_use]
    pub fn provider(&self, name: &ProviderName) -> Option<&Arc<Provider>> {
        self.providers.get(name).map(|s| &s.value)
    }

    /// One server.
    #[must_use]
    pub fn server(&self, name: &ServerName) -> Option<&Arc<Server>> {
        self.servers.get(name).map(|s| &s.value)
    }

    /// Whether providers may use the preset.
    #[must_use]
    pub fn is_enabled(&self, preset: &PresetName) -> bool {
        self.enablements
            .get(preset)
            .is_some_and(|e| e.value.enabled)
    }

    /// Which versions of its preset may serve a provider.
    #[must_use]
    pub fn terms_of(&self, provider: &Provider) -> Terms {
        let approvals = self.approvals.get(&provider.name);
        let rules = self.enablements.get(&provider.preset).map(|e| &*e.value);
        let choice = self.choice(&provider.name, &provider.preset);
        Terms {
            approvals: approvals
                .map_or(&[][..], Vec::as_slice)
                .iter()
                .map(|s| s.value.approval.clone())
                .collect(),
            pinned: choice.and_then(|c| c.version.clone()),
            floor: rules.and_then(|r| r.floor.clone()),
            revoked: rules.map(|r| r.revoked.clone()).unwrap_or_default(),
            set_aside: choice
                .map(|c| c.set_aside.iter().map(|s| s.digest).collect())
                .unwrap_or_default(),
        }
    }

    /// What was chosen for a provider; a choice for another preset, which the
    /// provider had before, counts no more.
    #[must_use]
    pub fn choice(&self, provider: &ProviderName, preset: &PresetName) -> Option<&Choice> {
        let choice = &self.choices.get(provider)?.value;
        (choice.preset == *preset).then_some(&**choice)
    }

    /// Servers attached to a provider, in order of name.
    #[must_use]
    pub fn attached(&self, provider: &ProviderName) -> Vec<&Arc<Server>> {
        let mut found: Vec<_> = self
            .servers
            .values()
            .map(|s| &s.value)
            .filter(|s| s.auth.provider.as_ref() == Some(provider))
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// What refers to a secret, as `provider NAME` and `server NAME`.
    #[must_use]
    pub fn users_of(&self, secret: &SecretName) -> Vec<String> {
        let providers = self.providers.values().map(|s| &s.value).filter(|p| {
            p.client_secret_ref.as_ref() == Some(secret)
                || p.private_key_ref.as_ref() == Some(secret)
                || p.registration
                    .as_ref()
                    .is_some_and(|r| r.access_token_ref.as_ref() == Some(secret))
        });
        let servers = self
            .servers
            .values()
            .map(|s| &s.value)
            .filter(|s| s.auth.secret_ref.as_ref() == Some(secret));
        let mut found: Vec<_> = providers
            .map(|p| format!("provider {}", p.name))
            .chain(servers.map(|s| format!("server {}", s.name)))
            .collect();
        found.sort();
        found
    }
}

/// The component that judges for a policy. A policy that has to do without
/// refuses its calls.
pub(super) fn judge_of(policy: &Policy, components: Option<&Policies>) -> Option<Arc<dyn Judge>> {
    let Effect::Component {
        name,
        digest,
        settings,
    } = &policy.effect
    else {
        return None;
    };
    match components?.bind(name.as_str(), *digest, settings) {
        Ok((judge, _)) => Some(judge),
        Err(why) => {
            tracing::warn!(policy = %policy.name, %why, "a policy's component cannot judge");
            None
        }
    }
}

fn stored<T>(value: T, revision: Revision) -> Stored<T> {
    Stored {
        value: Arc::new(value),
        revision,
    }
}
