//! Registering, changing and deleting providers.

use std::sync::Arc;

use countersign_core::caller::Caller;
use countersign_core::connection::{Connection, ConnectionKey};
use countersign_core::jwt::PrivateKey;
use countersign_core::names::ProviderName;
use countersign_core::ports::{Expect, Kind, RecordKey, StoreError, Write, delete, parse, put};
use countersign_core::provider::{ClientKind, Provider, Registration};
use countersign_core::time::Timestamp;
use serde_json::{Map, Value};

use super::provider::{ProviderInput, Surroundings, check, moves_secret};
use super::{Choice, Refusal, Registry, Snapshot, changed_fields, patch};

/// Who depends on something that is to be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Servers that fail without it.
    pub servers: Vec<String>,
    /// Connections that go with it.
    pub connections: Vec<ConnectionKey>,
}

/// Records deleted in one write, so that no batch grows without bound.
const BATCH: usize = 100;

impl Registry {
    /// Registers a provider. Its preset is approved at once if the caller may
    /// approve; otherwise it waits.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn create_provider(
        &self,
        caller: &Caller,
        input: ProviderInput,
    ) -> Result<Arc<Provider>, Refusal> {
        self.create_provider_with(caller, input, None).await
    }

    /// [`Self::create_provider`], with how it was found out about. Secrets that
    /// the authorization server gave out for it are the provider's own: nobody
    /// has to be allowed to attach them.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn create_provider_with(
        &self,
        caller: &Caller,
        input: ProviderInput,
        registration: Option<Registration>,
    ) -> Result<Arc<Provider>, Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("provider:{}", super::text::cut(&input.name));
        let work = async {
            caller
                .permissions
                .demand("provider_create", Some(&input.name))?;
            let snapshot = self.snapshot();
            let now = self.world.clock.now();
            let mut provider = self.checked_provider(input, &snapshot, None, now)?;
            let is_own = registration
                .as_ref()
                .is_some_and(|r| r.client == ClientKind::Dynamic);
            provider.registration = registration;
            if snapshot.providers.contains_key(&provider.name) {
                return Err(Refusal::Exists {
                    what: "provider",
                    name: provider.name.to_string(),
                });
            }
            if !is_own {
                demand_secrets(caller, &provider)?;
            }
            self.check_private_key(&provider).await?;
            let (provider, approval) = self
                .store_provider(caller, provider, None, &snapshot)
                .await?;
            let detail = format!("preset {}{approval}", provider.preset);
            Ok((provider, detail))
        };
        let result = work.await;
        self.conclude(caller, "provider.create", resource, result)
            .await
    }

    /// One provider.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] with those there are.
    pub fn find_provider(&self, name: &str) -> Result<Arc<Provider>, Refusal> {
        find(&self.snapshot(), name).map(|stored| Arc::clone(&stored.value))
    }

    /// Changes a provider by a JSON merge patch.
    ///
    /// # Errors
    /// [`Refusal`]; the name is immutable.
    pub async fn update_provider(
        &self,
        caller: &Caller,
        name: &str,
        patch: Map<String, Value>,
    ) -> Result<Arc<Provider>, Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("provider:{}", super::text::cut(name));
        let work = async {
            caller.permissions.demand("provider_update", Some(name))?;
            let snapshot = self.snapshot();
            let existing = find(&snapshot, name)?;
            let old = Arc::clone(&existing.value);
            let input = patch::merged(&ProviderInput::from(old.as_ref()), patch)?;
            if input.name != old.name.as_str() {
                return Err(Refusal::Immutable {
                    what: "provider",
                    field: "name",
                });
            }
            let now = self.world.clock.now();
            let mut provider = self.checked_provider(input, &snapshot, Some(&old), now)?;
            provider.registration = still_registered(&old, &provider);
            if moves_secret(&old, &provider) {
                demand_secrets(caller, &provider)?;
                self.check_private_key(&provider).await?;
            }
            let changed = changed_fields(old.as_ref(), &provider);
            let (provider, approval) = self
                .store_provider(caller, provider, Some(existing), &snapshot)
                .await?;
            Ok((provider, format!("{changed}{approval}")))
        };
        let result = work.await;
        self.conclude(caller, "provider.update", resource, result)
            .await
    }

    /// Deletes a provider; with `force` also one that servers are attached to
    /// or that users are connected with, whose connections are then erased.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn delete_provider(
        &self,
        caller: &Caller,
        name: &str,
        force: bool,
    ) -> Result<(), Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("provider:{}", super::text::cut(name));
        let work = async {
            caller.permissions.demand("provider_delete", Some(name))?;
            let snapshot = self.snapshot();
            let existing = find(&snapshot, name)?;
            let provider = &existing.value;
            let connections = self
                .connections_where(|c| c.provider == provider.name)
                .await?;
            let mut by: Vec<_> = snapshot
                .attached(&provider.name)
                .iter()
                .map(|s| format!("server {}", s.name))
                .collect();
            if !connections.is_empty() {
                by.push(format!("{} connections", connections.len()));
            }
            if !by.is_empty() && !force {
                return Err(Refusal::InUse {
                    what: "provider",
                    name: name.to_owned(),
                    by,
                    remedy: "detach them first, disable it with --enabled false, or delete with force: \
                             its connections are erased and its servers fail",
                });
            }
            // The record goes first: from then on nothing new can begin.
            let mut writes = vec![delete(
                RecordKey::new(Kind::Provider, provider.name.as_str()),
                Expect::At(existing.revision),
            )];
            for approval in snapshot.approvals.get(&provider.name).into_iter().flatten() {
                writes.push(delete(approval.value.key(), Expect::Anything));
            }
            if snapshot.choices.contains_key(&provider.name) {
                writes.push(delete(Choice::key(&provider.name), Expect::Anything));
            }
            self.store(writes).await?;
            self.refresh().await?;
            self.unbind(&provider.name).await;
            self.erase(connections).await?;
            let obtained = self
                .world
                .records
                .list(Kind::Obtained, Some(provider.name.as_str()))
                .await?;
            self.erase(obtained.into_iter().map(|r| r.key).collect())
                .await?;
            let detail = if by.is_empty() {
                String::new()
            } else {
                format!("was in use by {}", by.join(", "))
            };
            Ok(((), detail))
        };
        let result = work.await;
        self.conclude(caller, "provider.delete", resource, result)
            .await
    }

    /// What a provider's deletion would touch.
    ///
    /// # Errors
    /// [`Refusal`]: permission `provider_delete`, unknown provider.
    pub async fn usage_of_provider(&self, caller: &Caller, name: &str) -> Result<Usage, Refusal> {
        caller.permissions.demand("provider_delete", Some(name))?;
        let snapshot = self.snapshot();
        let provider = &find(&snapshot, name)?.value;
        let attached = snapshot.attached(&provider.name);
        let connections = self.connections_of(|c| c.provider == provider.name).await?;
        Ok(Usage {
            servers: attached.iter().map(|s| s.name.to_string()).collect(),
            connections: connections.iter().map(Connection::key).collect(),
        })
    }

    pub(super) fn checked_provider(
        &self,
        input: ProviderInput,
        snapshot: &Snapshot,
        old: Option<&Provider>,
        now: Timestamp,
    ) -> Result<Provider, Refusal> {
        let description = self.presets.describe(&input.preset);
        let around = Surroundings {
            addresses: &self.addresses,
            snapshot,
            description: description.as_ref(),
        };
        let provider = check(input, &around, old.map_or(now, |o| o.created_at), now)?;
        // A preset that was taken away keeps nobody from, say, disabling what used it.
        if old.is_none_or(|o| o.preset != provider.preset) {
            self.demand_usable(&provider.preset, snapshot)?;
        }
        self.secret_bindings(&provider, snapshot, description.as_ref())?;
        Ok(provider)
    }

    /// A secret that is bound to hosts may only be referred to by a provider
    /// whose token endpoint is one of them.
    fn secret_bindings(
        &self,
        provider: &Provider,
        snapshot: &Snapshot,
        description: Option<&countersign_core::preset::Description>,
    ) -> Result<(), Refusal> {
        use countersign_core::template::{Values, endpoint};
        let described = || {
            let description = description?;
            let values = Values::resolve(description, &provider.settings, &[]).ok()?;
            endpoint(description.token_endpoint.as_ref()?, values.variables()).ok()
        };
        let Some(url) = provider.token_endpoint.clone().or_else(described) else {
            return Ok(());
        };
        let referred = [
            ("client_secret_ref", &provider.client_secret_ref),
            ("private_key_ref", &provider.private_key_ref),
        ];
        for (field, name) in referred {
            let Some(name) = name else { continue };
            let bound = snapshot
                .secrets
                .get(name)
                .map(|s| s.value.hosts.as_slice())
                .unwrap_or_default();
            if bound.is_empty() || bound.iter().any(|h| h.matches(&url)) {
                continue;
            }
            let hosts: Vec<_> = bound.iter().map(ToString::to_string).collect();
            return Err(Refusal::invalid(
                field,
                format!(
                    "the secret {name} may only be sent to {}, but the token endpoint is at {}",
                    hosts.join(", "),
                    super::text::host(&url)
                ),
            ));
        }
        Ok(())
    }

    /// Whether what is stored under `private_key_ref` is a key that can sign.
    async fn check_private_key(&self, provider: &Provider) -> Result<(), Refusal> {
        let Some(name) = &provider.private_key_ref else {
            return Ok(());
        };
        // A secret that is gone is another check's to refuse.
        let Some((_, sealed)) = self.sealed(name).await? else {
            return Ok(());
        };
        PrivateKey::check(&sealed, provider.token_endpoint_auth_signing_alg)
            .map(drop)
            .map_err(|e| Refusal::invalid("private_key_ref", format!("the secret {name} {e}")))
    }

    /// Writes the record, with an approval if the caller may give one, and
    /// binds the provider; says in words what became of the approval. Nothing
    /// stays bound that was not stored.
    async fn store_provider(
        &self,
        caller: &Caller,
        provider: Provider,
        existing: Option<&super::Stored<Provider>>,
        snapshot: &Snapshot,
    ) -> Result<(Arc<Provider>, String), Refusal> {
        let mut said = String::new();
        // Asked before binding anew. What waits was put there by somebody who
        // may not approve, or came with a new version: an approver's change of
        // something else is no word on it.
        let waited = existing.is_some() && self.is_waiting(&provider.name);
        let mut writes = vec![put(
            RecordKey::new(Kind::Provider, provider.name.as_str()),
            existing.map_or(Expect::Absent, |e| Expect::At(e.revision)),
            &provider,
        )?];
        let proposal = match self.demand_usable(&provider.preset, snapshot) {
            Ok(()) => self.proposal(&provider, snapshot).await,
            Err(_) => Ok(None),
        };
        let outcome = match proposal {
            Ok(proposal) => {
                if let Some(proposal) = proposal {
                    let may_approve = caller
                        .permissions
                        .allow("preset_approve", Some(provider.preset.as_str()));
                    if may_approve && !waited {
                        writes.extend(self.approve_writes(
                            caller,
                            &provider,
                            &proposal.approval,
                            snapshot,
                        )?);
                        said = format!("; approved {}", proposal.approval.hash());
                    } else {
                        said = "; waits for an approval".to_owned();
                    }
                }
                self.store(writes).await.map_err(Refusal::from)
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = outcome {
            match existing {
                Some(old) => self.bind(&old.value, snapshot).await,
                None => self.unbind(&provider.name).await,
            }
            return Err(refusal);
        }
        self.refresh().await?;
        self.bind(&provider, &self.snapshot()).await;
        Ok((Arc::new(provider), said))
    }

    /// Connections for which this holds, by their record keys.
    pub(super) async fn connections_where(
        &self,
        wanted: impl Fn(&Connection) -> bool,
    ) -> Result<Vec<RecordKey>, StoreError> {
        let records = self.world.records.list(Kind::Connection, None).await?;
        let mut found = Vec::new();
        for record in records {
            let connection: Connection = parse(&record)?;
            if wanted(&connection) {
                found.push(record.key);
            }
        }
        Ok(found)
    }

    /// The same, as they are.
    pub(super) async fn connections_of(
        &self,
        wanted: impl Fn(&Connection) -> bool,
    ) -> Result<Vec<Connection>, StoreError> {
        let records = self.world.records.list(Kind::Connection, None).await?;
        let mut found = Vec::new();
        for record in &records {
            let connection: Connection = parse(record)?;
            if wanted(&connection) {
                found.push(connection);
            }
        }
        Ok(found)
    }

    /// How many users are connected with each provider.
    ///
    /// # Errors
    /// [`StoreError`] of the store.
    pub async fn connection_counts(
        &self,
    ) -> Result<std::collections::HashMap<ProviderName, usize>, StoreError> {
        let mut counts = std::collections::HashMap::new();
        for record in self.world.records.list(Kind::Connection, None).await? {
            let connection: Connection = parse(&record)?;
            *counts.entry(connection.provider).or_default() += 1;
        }
        Ok(counts)
    }

    /// Erases connections: their data keys go with them.
    pub(super) async fn erase(&self, connections: Vec<RecordKey>) -> Result<(), StoreError> {
        for batch in connections.chunks(BATCH) {
            let writes: Vec<Write> = batch
                .iter()
                .map(|k| delete(k.clone(), Expect::Anything))
                .collect();
            self.world.records.write(writes).await?;
        }
        Ok(())
    }
}

fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a super::Stored<Provider>, Refusal> {
    let parsed = ProviderName::parse(name).map_err(|e| Refusal::name("name", &e))?;
    snapshot
        .providers
        .get(&parsed)
        .ok_or_else(|| not_found(snapshot, name))
}

/// The refusal for a provider that does not exist, with those that do.
pub(super) fn not_found(snapshot: &Snapshot, name: &str) -> Refusal {
    let mut known: Vec<_> = snapshot.providers.keys().map(ToString::to_string).collect();
    known.sort();
    Refusal::NotFound {
        what: "provider",
        name: super::text::cut(name),
        known,
    }
}

/// What is known of a registration counts for its own client at its own
/// authorization server only.
fn still_registered(old: &Provider, new: &Provider) -> Option<Registration> {
    let origin = |p: &Provider| p.token_endpoint.as_ref().map(url::Url::origin);
    let same = old.client_id == new.client_id
        && old.client_secret_ref == new.client_secret_ref
        && origin(old) == origin(new);
    old.registration.clone().filter(|_| same)
}

fn demand_secrets(caller: &Caller, provider: &Provider) -> Result<(), Refusal> {
    for secret in [&provider.client_secret_ref, &provider.private_key_ref]
        .into_iter()
        .flatten()
    {
        caller
            .permissions
            .demand("secret_attach", Some(secret.as_str()))?;
    }
    Ok(())
}
