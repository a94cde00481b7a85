//! Looking after what was registered: whether it still is (RFC 7592), anew when
//! the authorization server forgot it, and ended with its provider.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::caller::Caller;
use countersign_core::ports::{Kind, RecordKey};
use countersign_core::provider::{ClientKind, Provider, Registration, TokenAuthMethod};
use countersign_core::registration::{Registered, RegistrationError, read};
use countersign_core::request::{BoundSecret, Manage, SendError, management_request};
use countersign_oauth::ClientKeeper;
use countersign_oauth::discovery::{Discovery, check_registered};
use countersign_oauth::http::Trust;
use url::Url;

use super::{Discoveries, host_of};
use crate::registry::{GivenSecret, Refusal, SecretFacts};

/// A registration that was found good is not looked at again for so long.
const GOOD_FOR: Duration = Duration::from_secs(600);
/// Where nothing can be looked at, no new client is registered sooner.
const BLIND_REST: Duration = Duration::from_secs(3600);
/// Of each request.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a look at a registration showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientState {
    /// The authorization server knows the client.
    Registered,
    /// It does not any more.
    Forgotten,
    /// It was registered anew, under another client id.
    Renewed,
    /// What it says was replaced by what holds now.
    Updated,
    /// It does not say (RFC 7592 is not offered), or an administrator
    /// registered the client.
    Unknown,
}

/// A registration, looked at.
pub struct Looked {
    /// The provider as it is now.
    pub provider: Arc<Provider>,
    /// What was found.
    pub state: ClientState,
}

/// Why a registration could not be looked at.
enum Trouble {
    Unsent(SendError),
    Answer(RegistrationError),
    Other(String),
}

impl Trouble {
    fn refusal(self) -> Refusal {
        let problem = match self {
            Self::Unsent(error) => format!("the authorization server cannot be asked: {error}"),
            Self::Answer(error) => format!("the authorization server: {error}"),
            Self::Other(what) => what,
        };
        Refusal::Undiscovered {
            field: "registration",
            problem,
        }
    }
}

/// Told by the client of providers when one refuses it.
pub(super) struct Keeper(pub(super) Weak<Discoveries>);

impl ClientKeeper for Keeper {
    fn rejected(&self, provider: &Arc<Provider>) {
        let Some(discoveries) = self.0.upgrade() else {
            return;
        };
        let provider = Arc::clone(provider);
        tokio::spawn(async move {
            match discoveries.mend(&provider, true).await {
                Ok(state) => {
                    tracing::info!(provider = %provider.name, ?state, "a refused client was looked at")
                }
                Err(error) => {
                    tracing::warn!(provider = %provider.name, %error, "a refused client was not mended");
                }
            }
        });
    }
}

impl Discoveries {
    /// Makes sure, before a user is sent there, that the authorization server
    /// still knows the client; gives the provider as it is then. Whatever goes
    /// wrong is left for the sign-in to show.
    pub async fn assure(&self, provider: &Arc<Provider>) -> Arc<Provider> {
        let managed = provider
            .registration
            .as_ref()
            .is_some_and(|r| r.configuration.is_some());
        if !managed || self.was_looked_at(provider, GOOD_FOR) {
            return Arc::clone(provider);
        }
        match self.mend(provider, false).await {
            Ok(_) => self
                .registry
                .find_provider(provider.name.as_str())
                .unwrap_or_else(|_| Arc::clone(provider)),
            Err(error) => {
                tracing::warn!(provider = %provider.name, %error, "a registration could not be looked at");
                Arc::clone(provider)
            }
        }
    }

    /// Looks at a provider's registration.
    ///
    /// # Errors
    /// [`Refusal`]; `provider_get` may be missing.
    pub async fn look(&self, caller: &Caller, name: &str) -> Result<Looked, Refusal> {
        caller.permissions.demand("provider_get", Some(name))?;
        let provider = self.registry.find_provider(name)?;
        let state = match self.is_known(&provider).await {
            Ok(Some(_)) => ClientState::Registered,
            Ok(None) => ClientState::Unknown,
            Err(Trouble::Answer(error)) if error.says_unknown() => ClientState::Forgotten,
            Err(trouble) => return Err(trouble.refusal()),
        };
        Ok(Looked { provider, state })
    }

    /// Tells the authorization server what holds now (RFC 7592 §2.2): the
    /// redirect URI under the present public URL, the grants.
    ///
    /// # Errors
    /// [`Refusal`]; `provider_update` may be missing.
    pub async fn update(&self, caller: &Caller, name: &str) -> Result<Looked, Refusal> {
        caller.permissions.demand("provider_update", Some(name))?;
        let provider = self.registry.find_provider(name)?;
        let method = provider
            .token_endpoint_auth_method
            .unwrap_or(TokenAuthMethod::ClientSecretBasic);
        let metadata = self.metadata(&provider.name, &provider.grant_types, method);
        let manage = Manage::Replace {
            client_id: &provider.client_id,
            metadata: &metadata,
        };
        let registered = self
            .manage(&provider, manage)
            .await
            .map_err(Trouble::refusal)?;
        let Some(registered) = registered else {
            return Err(Refusal::Undiscovered {
                field: "registration",
                problem: "it cannot be changed from here (RFC 7592 is not offered); register anew with --renew, \
                          or change it at the provider"
                    .into(),
            });
        };
        let provider = self.keep(&provider, registered).await?;
        self.note(&provider, "provider.client_updated", Some(caller))
            .await?;
        Ok(Looked {
            provider,
            state: ClientState::Updated,
        })
    }

    /// Registers anew. Connections of the client that was are refused from then
    /// on, so their users are asked again.
    ///
    /// # Errors
    /// [`Refusal`]; `provider_update` may be missing.
    pub async fn renew(&self, caller: &Caller, name: &str) -> Result<Looked, Refusal> {
        caller.permissions.demand("provider_update", Some(name))?;
        let provider = self.registry.find_provider(name)?;
        let new = self.register_anew(&provider, Some(caller)).await?;
        Ok(Looked {
            provider: new,
            state: ClientState::Renewed,
        })
    }

    /// The provider is gone: so is its client, best effort, and what was kept
    /// for it.
    pub async fn ended(&self, provider: &Arc<Provider>) {
        let Some(registration) = &provider.registration else {
            return;
        };
        if registration.client != ClientKind::Dynamic {
            return;
        }
        match self.manage(provider, Manage::Delete).await {
            Ok(_) => {}
            Err(Trouble::Answer(error)) if error.says_unknown() => {}
            Err(trouble) => {
                tracing::warn!(provider = %provider.name, error = %trouble.refusal(), "a client could not be ended where it is registered");
            }
        }
        let names: Vec<_> = [&provider.client_secret_ref, &registration.access_token_ref]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        if let Err(error) = self.registry.drop_given(&names).await {
            tracing::warn!(provider = %provider.name, %error, "secrets of an ended client were left");
        }
    }

    /// Looks at a client that was refused, and registers anew if it is not
    /// known any more.
    async fn mend(
        &self,
        provider: &Arc<Provider>,
        was_refused: bool,
    ) -> Result<ClientState, Refusal> {
        let Some(registration) = &provider.registration else {
            return Ok(ClientState::Unknown);
        };
        if registration.client != ClientKind::Dynamic {
            return Ok(ClientState::Unknown);
        }
        let current = self.registry.find_provider(provider.name.as_str())?;
        if current.client_id != provider.client_id {
            return Ok(ClientState::Renewed);
        }
        let blind = registration.configuration.is_none();
        if blind && self.was_looked_at(provider, BLIND_REST) {
            return Ok(ClientState::Unknown);
        }
        self.note_look(provider);
        match self.is_known(&current).await {
            Ok(Some(registered)) => {
                if was_refused {
                    // What it says now holds: the secret may have been changed.
                    self.keep(&current, registered).await?;
                }
                Ok(ClientState::Registered)
            }
            Err(Trouble::Answer(error)) if error.says_unknown() => {
                self.register_anew(&current, None).await?;
                Ok(ClientState::Renewed)
            }
            Ok(None) if blind => {
                self.register_anew(&current, None).await?;
                Ok(ClientState::Renewed)
            }
            Ok(None) => Ok(ClientState::Unknown),
            Err(trouble) => Err(trouble.refusal()),
        }
    }

    async fn register_anew(
        &self,
        provider: &Arc<Provider>,
        caller: Option<&Caller>,
    ) -> Result<Arc<Provider>, Refusal> {
        let by_hand = || {
            Refusal::Undiscovered {
            field: "registration",
            problem: "Countersign did not register this client by itself; register one at the provider and set \
                      --client-id and --client-secret-ref"
                .into(),
        }
        };
        let registration = provider.registration.as_ref().ok_or_else(by_hand)?;
        let endpoint = registration.endpoint.clone().ok_or_else(by_hand)?;
        let method = provider
            .token_endpoint_auth_method
            .unwrap_or(TokenAuthMethod::ClientSecretBasic);
        let metadata = self.metadata(&provider.name, &provider.grant_types, method);
        let typed = registration.discovered_from.clone();
        let issuer = Some(registration.issuer.clone());
        let registered = Discovery::new(&self.guard, typed, issuer)
            .register(&endpoint, &metadata)
            .await
            .map_err(|error| Refusal::Undiscovered {
                field: "registration",
                problem: error.to_string(),
            })?;
        let old = provider.client_id.clone();
        let new = self.keep(provider, registered).await?;
        let ended = self
            .oauth
            .reject_client(&new.name, &old)
            .await
            .map_err(Refusal::from)?;
        tracing::warn!(provider = %new.name, ended, "registered anew: the authorization server had forgotten the client");
        self.note(&new, "provider.client_renewed", caller).await?;
        Ok(new)
    }

    /// Writes down what a registration says now.
    async fn keep(
        &self,
        provider: &Arc<Provider>,
        registered: Registered,
    ) -> Result<Arc<Provider>, Refusal> {
        let Some(old) = &provider.registration else {
            return Ok(Arc::clone(provider));
        };
        let mut new = Provider::clone(provider);
        let now = self.world.clock.now();
        let mut given = Vec::new();
        if let (Some(value), Some(name)) = (registered.client_secret, &provider.client_secret_ref) {
            given.push(GivenSecret {
                hosts: self.hosts_of(name),
                name: name.clone(),
                value,
            });
        }
        let mut registration = Registration {
            client_secret_expires_at: registered.client_secret_expires_at,
            ..old.clone()
        };
        if registered.client_id != provider.client_id {
            registration.registered_at = now;
            new.updated_at = now;
            new.client_id = registered.client_id;
        }
        let origin = registration.endpoint.as_ref().map(Url::origin);
        let configuration = registered
            .configuration
            .filter(|c| Some(c.origin()) == origin)
            .or(old.configuration.clone());
        if let (Some(value), Some(configuration)) = (registered.access_token, &configuration) {
            let name = match &old.access_token_ref {
                Some(name) => name.clone(),
                None => self
                    .registry
                    .free_secret_name(&provider.name, "REGISTRATION_TOKEN")?,
            };
            registration.access_token_ref = Some(name.clone());
            given.push(GivenSecret {
                name,
                value,
                hosts: host_of(configuration).into_iter().collect(),
            });
        }
        registration.configuration = configuration;
        if new == **provider && given.is_empty() && registration == *old {
            return Ok(Arc::clone(provider));
        }
        new.registration = Some(registration);
        self.registry
            .replace_registration(provider, new, given)
            .await
    }

    fn hosts_of(
        &self,
        name: &countersign_core::names::SecretName,
    ) -> Vec<countersign_core::hosts::HostPattern> {
        let snapshot = self.registry.snapshot();
        let known = snapshot.secrets.get(name);
        known.map_or_else(Vec::new, |known| known.value.hosts.clone())
    }

    /// The registration as it is there; none if it cannot be looked at.
    async fn is_known(&self, provider: &Arc<Provider>) -> Result<Option<Registered>, Trouble> {
        self.manage(provider, Manage::Read).await
    }

    /// Manages the registration (RFC 7592); none if that is not offered, or
    /// nothing is answered.
    async fn manage(
        &self,
        provider: &Arc<Provider>,
        manage: Manage<'_>,
    ) -> Result<Option<Registered>, Trouble> {
        let registration = provider.registration.as_ref();
        let Some((configuration, name)) = registration
            .and_then(|r| Some((r.configuration.as_ref()?, r.access_token_ref.as_ref()?)))
        else {
            return Ok(None);
        };
        let key = RecordKey::new(Kind::Secret, name.as_str());
        let record = self.world.records.get(&key).await;
        let record = record.map_err(|e| Trouble::Other(e.to_string()))?;
        let missing = || Trouble::Other(format!("the secret {name} is gone"));
        let record = record.ok_or_else(missing)?;
        let facts: SecretFacts =
            countersign_core::ports::parse(&record).map_err(|e| Trouble::Other(e.to_string()))?;
        let token = BoundSecret {
            sealed: record.secret.ok_or_else(missing)?,
            hosts: facts.hosts,
        };
        let request = management_request(configuration, &token, manage)
            .map_err(|e| Trouble::Other(e.to_string()))?;
        let answer = self.guard.send_as(request, Trust::Operator, PATIENCE).await;
        let answer = answer.map_err(Trouble::Unsent)?;
        // RFC 7592 §2.3: a deletion is answered with nothing.
        if matches!(manage, Manage::Delete) && answer.status() == 204 {
            return Ok(None);
        }
        let registered = read(&answer).map_err(Trouble::Answer)?;
        if !matches!(manage, Manage::Delete) && registered.client_id != provider.client_id {
            return Err(Trouble::Other(
                "the authorization server answers about another client".into(),
            ));
        }
        if let Manage::Replace { metadata, .. } = manage {
            check_registered(&registered, metadata).or_else(|why| {
                // A secret that did not change need not be said again.
                match why.contains("client_secret") {
                    true => Ok(()),
                    false => Err(Trouble::Other(why.to_owned())),
                }
            })?;
        }
        Ok(Some(registered))
    }

    fn was_looked_at(&self, provider: &Arc<Provider>, within: Duration) -> bool {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.world.clock.now();
        looked
            .get(&provider.name)
            .is_some_and(|at| now.since(*at) < within)
    }

    fn note_look(&self, provider: &Arc<Provider>) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.insert(provider.name.clone(), self.world.clock.now());
    }

    async fn note(
        &self,
        provider: &Provider,
        action: &str,
        caller: Option<&Caller>,
    ) -> Result<(), Refusal> {
        let mut event = AuditEvent::new(self.world.clock.now(), action, Outcome::Allowed)
            .on(format!("provider:{}", provider.name))
            .detail(format!("client {}", provider.client_id));
        if let Some(caller) = caller {
            event = event.by(&caller.user);
            event.team = Some(caller.team.to_string());
            event.client = Some(caller.client.to_string());
        }
        Ok(self.world.audit.record(event).await?)
    }
}
