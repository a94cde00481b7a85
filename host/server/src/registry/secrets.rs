//! Secrets by name. Their values go in and never come out.

use std::sync::Arc;

use countersign_core::caller::Caller;
use countersign_core::jwt::PrivateKey;
use countersign_core::names::SecretName;
use countersign_core::ports::{
    Change, Expect, Kind, RecordKey, SecretChange, StoreError, Write, delete,
};
use countersign_core::secret::Secret;

use super::provider::hosts as parse_hosts;
use super::{Refusal, Registry, SecretFacts};

/// A record takes 8 KiB; the rest is for hosts and sealing.
const LONGEST: usize = 6 * 1024;

impl Registry {
    /// Sets a secret's value and, if given, the hosts it may be sent to.
    ///
    /// # Errors
    /// [`Refusal`]; `secret_create` or `secret_update` may be missing.
    pub async fn set_secret(
        &self,
        caller: &Caller,
        name: &str,
        value: Secret,
        hosts: Option<&[String]>,
    ) -> Result<Arc<SecretFacts>, Refusal> {
        let _writing = self.writing.lock().await;
        let name = SecretName::parse(name).map_err(|e| Refusal::name("name", &e))?;
        let snapshot = self.snapshot();
        let existing = snapshot.secrets.get(&name);
        let (action, permission) = match existing {
            Some(_) => ("secret.update", "secret_update"),
            None => ("secret.create", "secret_create"),
        };
        let work = async {
            caller.permissions.demand(permission, Some(name.as_str()))?;
            if value.is_empty() {
                return Err(Refusal::invalid("value", "is empty"));
            }
            if value.len() > LONGEST {
                return Err(Refusal::invalid(
                    "value",
                    format!("is longer than {LONGEST} bytes"),
                ));
            }
            let signs = snapshot
                .providers
                .values()
                .find(|p| p.value.private_key_ref.as_ref() == Some(&name));
            if let Some(provider) = signs {
                PrivateKey::parse(&value).map_err(|e| {
                    let signer = &provider.value.name;
                    let problem = format!("{e}; the provider {signer} signs with it");
                    Refusal::invalid("value", problem)
                })?;
            }
            let now = self.world.clock.now();
            let facts = SecretFacts {
                hosts: match (hosts, existing) {
                    (Some(hosts), _) => parse_hosts("hosts", hosts)?,
                    (None, Some(existing)) => existing.value.hosts.clone(),
                    (None, None) => Vec::new(),
                },
                created_at: existing.map_or(now, |e| e.value.created_at),
                updated_at: now,
                name: name.clone(),
            };
            let document =
                serde_json::to_vec(&facts).map_err(|e| StoreError::Damaged(e.to_string()))?;
            let write = Write {
                key: RecordKey::new(Kind::Secret, name.as_str()),
                expect: existing.map_or(Expect::Absent, |e| Expect::At(e.revision)),
                change: Some(Change {
                    document,
                    secret: SecretChange::Set(value),
                    expires_at: None,
                }),
            };
            self.store(vec![write]).await?;
            self.refresh().await?;
            let bound: Vec<_> = facts.hosts.iter().map(ToString::to_string).collect();
            let detail = match bound.is_empty() {
                true => "value set".to_owned(),
                false => format!("value set, for {}", bound.join(", ")),
            };
            Ok((Arc::new(facts), detail))
        };
        let result = work.await;
        self.conclude(caller, action, format!("secret:{name}"), result)
            .await
    }

    /// Deletes a secret; with `force` also one that is referred to, whose users
    /// then fail until another value is set.
    ///
    /// # Errors
    /// [`Refusal`]; `secret_delete` may be missing.
    pub async fn delete_secret(
        &self,
        caller: &Caller,
        name: &str,
        force: bool,
    ) -> Result<(), Refusal> {
        let _writing = self.writing.lock().await;
        let name = SecretName::parse(name).map_err(|e| Refusal::name("name", &e))?;
        let work = async {
            caller
                .permissions
                .demand("secret_delete", Some(name.as_str()))?;
            let snapshot = self.snapshot();
            let Some(existing) = snapshot.secrets.get(&name) else {
                return Err(Refusal::NotFound {
                    what: "secret",
                    name: name.to_string(),
                    known: snapshot.secrets.keys().map(ToString::to_string).collect(),
                });
            };
            let by = snapshot.users_of(&name);
            if !by.is_empty() && !force {
                return Err(Refusal::InUse {
                    what: "secret",
                    name: name.to_string(),
                    by,
                    remedy: "change those first, or delete with force: they fail until it is set again",
                });
            }
            let key = RecordKey::new(Kind::Secret, name.as_str());
            self.store(vec![delete(key, Expect::At(existing.revision))])
                .await?;
            self.refresh().await?;
            let detail = if by.is_empty() {
                String::new()
            } else {
                format!("was in use by {}", by.join(", "))
            };
            Ok(((), detail))
        };
        let result = work.await;
        self.conclude(caller, "secret.delete", format!("secret:{name}"), result)
            .await
    }
}
