//! What belongs to clients that registered themselves: their records, and the
//! secrets that authorization servers gave out for them.

use std::sync::Arc;

use countersign_core::caller::Caller;
use countersign_core::hosts::HostPattern;
use countersign_core::names::{ProviderName, SecretName};
use countersign_core::ports::{
    Change, Expect, Kind, RecordKey, SecretChange, StoreError, Write, delete, put,
};
use countersign_core::preset::Description;
use countersign_core::provider::Provider;
use countersign_core::secret::Secret;

use super::provider::ProviderInput;
use super::{AddressRules, Refusal, Registry, SecretFacts};

/// A secret that an authorization server gave out.
pub struct GivenSecret {
    /// Under which name it is kept.
    pub name: SecretName,
    /// Never read back.
    pub value: Secret,
    /// The only hosts it may be sent to.
    pub hosts: Vec<HostPattern>,
}

impl Registry {
    /// The rules for addresses that administrators give.
    #[must_use]
    pub fn addresses(&self) -> &AddressRules {
        &self.addresses
    }

    /// Names of presets in the catalog that can be used, with what they say of
    /// themselves.
    #[must_use]
    pub fn described_presets(&self) -> Vec<(String, Description)> {
        let names = self.catalog_names().into_iter();
        names
            .filter_map(|name| Some((name.clone(), self.presets.describe(&name)?)))
            .collect()
    }

    /// Whether a provider could be created so: asked before anything is done
    /// elsewhere that cannot be taken back.
    ///
    /// # Errors
    /// [`Refusal`], as creating it would say.
    pub fn would_create_provider(
        &self,
        caller: &Caller,
        input: ProviderInput,
    ) -> Result<Provider, Refusal> {
        caller
            .permissions
            .demand("provider_create", Some(&input.name))?;
        let snapshot = self.snapshot();
        let provider = self.checked_provider(input, &snapshot, None, self.world.clock.now())?;
        if snapshot.providers.contains_key(&provider.name) {
            return Err(Refusal::Exists {
                what: "provider",
                name: provider.name.to_string(),
            });
        }
        Ok(provider)
    }

    /// A name that no secret has yet: `NOTES_CLIENT_SECRET`.
    ///
    /// # Errors
    /// [`Refusal`] if the provider's name makes none.
    pub fn free_secret_name(
        &self,
        provider: &ProviderName,
        purpose: &str,
    ) -> Result<SecretName, Refusal> {
        let stem = provider.as_str().to_ascii_uppercase().replace('-', "_");
        let snapshot = self.snapshot();
        let names = std::iter::once(String::new()).chain((2..100).map(|n| format!("_{n}")));
        for suffix in names {
            let name = SecretName::parse(&format!("{stem}_{purpose}{suffix}"))
                .map_err(|e| Refusal::name("name", &e))?;
            if !snapshot.secrets.contains_key(&name) {
                return Ok(name);
            }
        }
        Err(Refusal::invalid("name", "is in use by too many secrets"))
    }

    /// Keeps new secrets.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was kept.
    pub async fn keep_given(&self, secrets: Vec<GivenSecret>) -> Result<(), Refusal> {
        let _writing = self.writing.lock().await;
        let writes = secrets
            .into_iter()
            .map(|secret| self.given(secret, Expect::Absent))
            .collect::<Result<Vec<_>, _>>()?;
        self.store(writes).await?;
        Ok(self.refresh().await?)
    }

    /// Lets go of secrets that nothing refers to any more.
    ///
    /// # Errors
    /// [`Refusal`] of the store.
    pub async fn drop_given(&self, names: &[SecretName]) -> Result<(), Refusal> {
        let _writing = self.writing.lock().await;
        let snapshot = self.snapshot();
        let writes: Vec<Write> = names
            .iter()
            .filter(|name| snapshot.users_of(name).is_empty())
            .filter_map(|name| Some((name, snapshot.secrets.get(name)?.revision)))
            .map(|(name, at)| delete(RecordKey::new(Kind::Secret, name.as_str()), Expect::At(at)))
            .collect();
        if !writes.is_empty() {
            self.store(writes).await?;
            self.refresh().await?;
        }
        Ok(())
    }

    /// Replaces what is known of a provider's registration, with the secrets
    /// that came with it. Refused if somebody changed the record meanwhile.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub async fn replace_registration(
        &self,
        old: &Arc<Provider>,
        new: Provider,
        secrets: Vec<GivenSecret>,
    ) -> Result<Arc<Provider>, Refusal> {
        let _writing = self.writing.lock().await;
        let snapshot = self.snapshot();
        let stored = snapshot
            .providers
            .get(&old.name)
            .filter(|stored| Arc::ptr_eq(&stored.value, old) || stored.value == *old)
            .ok_or(Refusal::Conflict)?;
        let key = RecordKey::new(Kind::Provider, new.name.as_str());
        let mut writes = vec![put(key, Expect::At(stored.revision), &new)?];
        for secret in secrets {
            let known = snapshot.secrets.get(&secret.name);
            let expect = known.map_or(Expect::Absent, |known| Expect::At(known.revision));
            writes.push(self.given(secret, expect)?);
        }
        self.store(writes).await?;
        self.refresh().await?;
        self.bind(&new, &self.snapshot()).await;
        Ok(Arc::new(new))
    }

    fn given(&self, secret: GivenSecret, expect: Expect) -> Result<Write, StoreError> {
        let now = self.world.clock.now();
        let known = self.snapshot().secrets.get(&secret.name).cloned();
        let facts = SecretFacts {
            created_at: known.map_or(now, |k| k.value.created_at),
            updated_at: now,
            hosts: secret.hosts,
            name: secret.name.clone(),
        };
        let document =
            serde_json::to_vec(&facts).map_err(|e| StoreError::Damaged(e.to_string()))?;
        Ok(Write {
            key: RecordKey::new(Kind::Secret, secret.name.as_str()),
            expect,
            change: Some(Change {
                document,
                secret: SecretChange::Set(secret.value),
                expires_at: None,
            }),
        })
    }
}
