//! Attaching, changing and detaching servers.

use std::sync::Arc;

use countersign_core::caller::Caller;
use countersign_core::connection::Connection;
use countersign_core::names::ServerName;
use countersign_core::ports::{Expect, Kind, RecordKey, StoreError, delete, parse, put};
use countersign_core::server::{ModeChange, Server, Target};
use countersign_core::user_key::UserKey;
use serde_json::{Map, Value};

use super::server::{ServerInput, Surroundings, check, moves_credential};
use super::{Refusal, Registry, Snapshot, Usage, changed_fields, patch};
use crate::http::connections::resource_of;

impl Registry {
    /// Attaches a server.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn create_server(
        &self,
        caller: &Caller,
        input: ServerInput,
    ) -> Result<Arc<Server>, Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("server:{}", super::text::cut(&input.name));
        let work = async {
            caller
                .permissions
                .demand("server_create", Some(&input.name))?;
            let snapshot = self.snapshot();
            let now = self.world.clock.now();
            let server = self.checked_server(input, &snapshot, now, now).await?;
            if snapshot.servers.contains_key(&server.name) {
                return Err(Refusal::Exists {
                    what: "server",
                    name: server.name.to_string(),
                });
            }
            demand_attach(caller, &server)?;
            let key = RecordKey::new(Kind::Server, server.name.as_str());
            self.store(vec![put(key, Expect::Absent, &server)?]).await?;
            self.refresh().await?;
            let detail = summary(&server);
            Ok((Arc::new(server), detail))
        };
        let result = work.await;
        self.conclude(caller, "server.create", resource, result)
            .await
    }

    /// Whether a server could have this name: asked before anything is done for
    /// it elsewhere.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn name_is_free(&self, name: &str) -> Result<(), Refusal> {
        let parsed = ServerName::parse(name).map_err(|e| Refusal::name("name", &e))?;
        if self.snapshot().servers.contains_key(&parsed) {
            return Err(Refusal::Exists {
                what: "server",
                name: name.to_owned(),
            });
        }
        Ok(())
    }

    /// One server.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] with those there are.
    pub fn find_server(&self, name: &str) -> Result<Arc<Server>, Refusal> {
        find(&self.snapshot(), name).map(|stored| Arc::clone(&stored.value))
    }

    /// Changes a server by a JSON merge patch.
    ///
    /// # Errors
    /// [`Refusal`]; the name is immutable.
    pub async fn update_server(
        &self,
        caller: &Caller,
        name: &str,
        patch: Map<String, Value>,
    ) -> Result<Arc<Server>, Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("server:{}", super::text::cut(name));
        let work = async {
            caller.permissions.demand("server_update", Some(name))?;
            let snapshot = self.snapshot();
            let existing = find(&snapshot, name)?;
            let old = Arc::clone(&existing.value);
            let input = patch::merged(&ServerInput::from(old.as_ref()), patch)?;
            if input.name != old.name.as_str() {
                return Err(Refusal::Immutable {
                    what: "server",
                    field: "name",
                });
            }
            let now = self.world.clock.now();
            let mut server = self
                .checked_server(input, &snapshot, old.created_at, now)
                .await?;
            server.auth.changed = if old.auth.mode == server.auth.mode {
                old.auth.changed.clone()
            } else {
                Some(ModeChange {
                    from: old.auth.mode,
                    provider: old.auth.provider.clone(),
                    resource: resource_of(&old),
                    at: now,
                })
            };
            if moves_credential(&old, &server) {
                // Taking a provider or secret away is a change of it, too.
                demand_attach(caller, &old)?;
                demand_attach(caller, &server)?;
            }
            let detail = changed_fields(old.as_ref(), &server);
            let key = RecordKey::new(Kind::Server, server.name.as_str());
            self.store(vec![put(key, Expect::At(existing.revision), &server)?])
                .await?;
            self.refresh().await?;
            Ok((Arc::new(server), detail))
        };
        let result = work.await;
        self.conclude(caller, "server.update", resource, result)
            .await
    }

    /// Detaches a server; with `force` also one that users have connections of
    /// its own with, which are then erased.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn delete_server(
        &self,
        caller: &Caller,
        name: &str,
        force: bool,
    ) -> Result<(), Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("server:{}", super::text::cut(name));
        let work = async {
            caller.permissions.demand("server_delete", Some(name))?;
            let snapshot = self.snapshot();
            let existing = find(&snapshot, name)?;
            let server = &existing.value;
            let mut connections = match (&server.target, &server.auth.provider) {
                (Target::Url(url), Some(provider)) if !shares_address(&snapshot, server) => {
                    self.connections_where(|c| {
                        c.provider == *provider && c.resource.as_ref() == Some(url)
                    })
                    .await?
                }
                _ => Vec::new(),
            };
            connections.extend(self.keys_for(&server.name).await?);
            if !connections.is_empty() && !force {
                return Err(Refusal::InUse {
                    what: "server",
                    name: name.to_owned(),
                    by: vec![format!("{} connections", connections.len())],
                    remedy: "disable it with --enabled false, or delete with force: the connections are erased",
                });
            }
            let key = RecordKey::new(Kind::Server, server.name.as_str());
            self.store(vec![delete(key, Expect::At(existing.revision))])
                .await?;
            self.refresh().await?;
            let erased = connections.len();
            self.erase(connections).await?;
            let detail = if erased == 0 {
                String::new()
            } else {
                format!("{erased} connections erased")
            };
            Ok(((), detail))
        };
        let result = work.await;
        self.conclude(caller, "server.delete", resource, result)
            .await
    }

    /// Users' own keys for a server, by their record keys.
    async fn keys_for(&self, server: &ServerName) -> Result<Vec<RecordKey>, StoreError> {
        let mut found = Vec::new();
        for record in self.world.records.list(Kind::UserKey, None).await? {
            let key: UserKey = parse(&record)?;
            if key.server == *server {
                found.push(record.key);
            }
        }
        Ok(found)
    }

    /// The connections that a server's deletion ends: those for it alone.
    ///
    /// # Errors
    /// [`Refusal`]: permission `server_delete`, unknown server.
    pub async fn usage_of_server(&self, caller: &Caller, name: &str) -> Result<Usage, Refusal> {
        caller.permissions.demand("server_delete", Some(name))?;
        let snapshot = self.snapshot();
        let server = &find(&snapshot, name)?.value;
        let (Target::Url(url), Some(provider)) = (&server.target, &server.auth.provider) else {
            return Ok(Usage::default());
        };
        if shares_address(&snapshot, server) {
            return Ok(Usage::default());
        }
        let own = |c: &Connection| c.provider == *provider && c.resource.as_ref() == Some(url);
        let connections = self.connections_of(own).await?;
        Ok(Usage {
            servers: Vec::new(),
            connections: connections.iter().map(Connection::key).collect(),
        })
    }

    async fn checked_server(
        &self,
        input: ServerInput,
        snapshot: &Snapshot,
        created_at: countersign_core::time::Timestamp,
        now: countersign_core::time::Timestamp,
    ) -> Result<Server, Refusal> {
        let teams = self.teams().await?;
        let around = Surroundings {
            addresses: &self.addresses,
            snapshot,
            teams: &teams,
            description: &|provider| self.description_of(provider),
        };
        check(input, &around, created_at, now)
    }
}

/// Whether another server of the same provider has the same address, and so
/// the same connections.
fn shares_address(snapshot: &Snapshot, server: &Server) -> bool {
    snapshot.servers.values().map(|s| &s.value).any(|other| {
        other.name != server.name
            && other.target == server.target
            && other.auth.provider == server.auth.provider
    })
}

fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a super::Stored<Server>, Refusal> {
    let parsed = ServerName::parse(name).map_err(|e| Refusal::name("name", &e))?;
    snapshot.servers.get(&parsed).ok_or_else(|| {
        let mut known: Vec<_> = snapshot.servers.keys().map(ToString::to_string).collect();
        known.sort();
        Refusal::NotFound {
            what: "server",
            name: super::text::cut(name),
            known,
        }
    })
}

fn demand_attach(caller: &Caller, server: &Server) -> Result<(), Refusal> {
    if let Some(provider) = &server.auth.provider {
        caller
            .permissions
            .demand("provider_attach", Some(provider.as_str()))?;
    }
    if let Some(secret) = &server.auth.secret_ref {
        caller
            .permissions
            .demand("secret_attach", Some(secret.as_str()))?;
    }
    Ok(())
}

fn summary(server: &Server) -> String {
    let mode = serde_json::to_value(server.auth.mode).ok();
    let mode = mode.as_ref().and_then(Value::as_str).unwrap_or_default();
    let target = match &server.target {
        Target::Url(url) => url.as_str(),
        Target::Command(name) => name,
    };
    match &server.auth.provider {
        Some(provider) => format!("{target}, {mode} with provider {provider}"),
        None => format!("{target}, {mode}"),
    }
}
