//! The service that holds what consent, refresh and revocation share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use countersign_core::connection::Connection;
use countersign_core::hosts::HostPattern;
use countersign_core::names::{ConnectionId, SecretName, UserName};
use countersign_core::ports::{Kind, RecordKey, Revision, StoreError, World, parse, random_token};
use countersign_core::preset::{Preset, PresetFault};
use countersign_core::provider::Provider;
use countersign_core::request::{Asking, BoundSecret, ClientKey, Sender};
use countersign_core::secret::Sealed;
use countersign_core::template::Values;
use countersign_core::time::Timestamp;
use countersign_core::upkeep::Care;
use url::Url;

use crate::connections::Remembered;
use crate::health::Health;
use crate::observe::{Nobody, Observer};
use crate::obtain::Obtaining;
use crate::refresh::{Flight, FlightKey};
use crate::upkeep::BusyWith;
use crate::waiters::Waiters;

/// A provider and the preset version in force for it.
#[derive(Clone)]
pub struct Party {
    /// The record.
    pub provider: Arc<Provider>,
    /// The preset, under the provider's settings.
    pub preset: Arc<dyn Preset>,
}

/// A connection as read: its facts, and its tokens still sealed.
pub struct Held {
    /// The facts.
    pub connection: Arc<Connection>,
    /// For compare-and-set.
    pub revision: Revision,
    /// The tokens; absent once the grant has ended.
    pub sealed: Option<Sealed>,
}

/// Looks after clients that registered themselves.
pub trait ClientKeeper: Send + Sync {
    /// The provider's token endpoint does not accept the client. Returns at
    /// once; what is to be done is done later.
    fn rejected(&self, provider: &Arc<Provider>);
}

/// A hook that a provider's answer is read with while nobody looks on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerHook {
    /// What is in an answer with tokens.
    TokenAnswer,
    /// Whether a refusal is final.
    RefreshError,
}

/// Hears of presets that fail when tokens are renewed or obtained.
pub trait Witness: Send + Sync {
    /// A hook failed over an answer that was meant for this user. Returns at
    /// once.
    fn hook_failed(&self, party: &Party, user: &UserName, hook: AnswerHook, fault: &PresetFault);
}

/// Client of all providers. Made once.
pub struct Oauth {
    pub(crate) world: World,
    pub(crate) sender: Arc<dyn Sender>,
    pub(crate) public_url: Url,
    pub(crate) waiters: Waiters,
    pub(crate) remembered: Remembered,
    keeper: OnceLock<Arc<dyn ClientKeeper>>,
    witness: OnceLock<Arc<dyn Witness>>,
    /// Names this service in leases: the process, and a random part.
    pub(crate) holder: String,
    /// Renewals under way.
    pub(crate) flights: Mutex<HashMap<FlightKey, Flight>>,
    /// Until when a renewal that may wait is not tried again.
    pub(crate) resting: Mutex<HashMap<ConnectionId, Timestamp>>,
    /// When a renewal was last forced.
    pub(crate) forced: Mutex<HashMap<ConnectionId, Timestamp>>,
    /// Tokens obtained without a consent.
    pub(crate) obtaining: Mutex<Obtaining>,
    /// How well connections are looked after.
    pub(crate) care: Care,
    /// How providers have been doing.
    pub(crate) health: Health,
    /// Providers that background work is under way for.
    pub(crate) busy: BusyWith,
    /// Counts.
    pub(crate) observer: Arc<dyn Observer>,
}

impl Oauth {
    /// Puts the service together. `public_url` is Countersign's own.
    #[must_use]
    pub fn new(world: World, sender: Arc<dyn Sender>, public_url: Url) -> Arc<Self> {
        Self::caring(world, sender, public_url, Care::default(), Arc::new(Nobody))
    }

    /// [`Self::new`], with the operator's word on how connections are looked
    /// after, and with somebody who counts.
    #[must_use]
    pub fn caring(
        world: World,
        sender: Arc<dyn Sender>,
        public_url: Url,
        care: Care,
        observer: Arc<dyn Observer>,
    ) -> Arc<Self> {
        let own = random_token::<8>(&*world.random);
        let holder = format!("{}/{own}", world.records.process());
        Arc::new(Self {
            world,
            sender,
            public_url,
            waiters: Waiters::default(),
            remembered: Remembered::default(),
            keeper: OnceLock::new(),
            witness: OnceLock::new(),
            holder,
            flights: Mutex::default(),
            resting: Mutex::default(),
            forced: Mutex::default(),
            obtaining: Mutex::default(),
            health: Health::new(care.concurrency),
            care,
            busy: BusyWith::default(),
            observer,
        })
    }

    /// Says who is to be told of clients that are not accepted; the first one
    /// stays.
    pub fn keep_clients(&self, keeper: Arc<dyn ClientKeeper>) {
        let _ = self.keeper.set(keeper);
    }

    /// A provider does not accept the client.
    pub(crate) fn client_rejected(&self, provider: &Arc<Provider>) {
        if let Some(keeper) = self.keeper.get() {
            keeper.rejected(provider);
        }
    }

    /// Says who is to be told of hooks that fail; the first one stays.
    pub fn tell_faults(&self, witness: Arc<dyn Witness>) {
        let _ = self.witness.set(witness);
    }

    /// A hook's outcome, with a fault told.
    pub(crate) fn witnessed<T>(
        &self,
        party: &Party,
        user: &UserName,
        hook: AnswerHook,
        outcome: Result<T, PresetFault>,
    ) -> Result<T, PresetFault> {
        if let (Err(fault), Some(witness)) = (&outcome, self.witness.get()) {
            witness.hook_failed(party, user, hook, fault);
        }
        outcome
    }

    /// How well connections are looked after.
    #[must_use]
    pub fn care(&self) -> &Care {
        &self.care
    }

    /// The redirect URI to register at a provider: CONTRACT's `callback_url`.
    #[must_use]
    pub fn callback_url(&self, provider: Option<&str>) -> String {
        let base = self.public_url.as_str().trim_end_matches('/');
        match provider {
            Some(provider) => format!("{base}/oauth/callback/{provider}"),
            None => format!("{base}/oauth/callback"),
        }
    }

    /// What the client proves itself with, still sealed; nothing for public
    /// clients.
    pub(crate) async fn client_keys(&self, provider: &Provider) -> Result<ClientKeys, SecretError> {
        Ok(ClientKeys {
            secret: self.bound(provider.client_secret_ref.as_ref()).await?,
            key: self.bound(provider.private_key_ref.as_ref()).await?,
        })
    }

    /// What requests to the provider are made from.
    pub(crate) fn asking<'a>(
        &'a self,
        party: &'a Party,
        values: &'a Values,
        keys: &'a ClientKeys,
    ) -> Asking<'a> {
        Asking {
            provider: &party.provider,
            description: party.preset.description(),
            values,
            client_secret: keys.secret.as_ref(),
            client_key: keys.key.as_ref().map(|secret| ClientKey {
                secret,
                clock: &*self.world.clock,
                random: &*self.world.random,
            }),
        }
    }

    async fn bound(&self, name: Option<&SecretName>) -> Result<Option<BoundSecret>, SecretError> {
        #[derive(serde::Deserialize)]
        struct Facts {
            #[serde(default)]
            hosts: Vec<HostPattern>,
        }
        let Some(name) = name else {
            return Ok(None);
        };
        let key = RecordKey::new(Kind::Secret, name.as_str());
        let record = self
            .world
            .records
            .get(&key)
            .await?
            .ok_or_else(|| SecretError::Missing(name.to_string()))?;
        let Facts { hosts } = parse(&record)?;
        let sealed = record
            .secret
            .ok_or_else(|| SecretError::Missing(name.to_string()))?;
        Ok(Some(BoundSecret { sealed, hosts }))
    }
}

/// What a client proves itself with at a provider.
pub(crate) struct ClientKeys {
    pub(crate) secret: Option<BoundSecret>,
    pub(crate) key: Option<BoundSecret>,
}

/// Why the client's secret or key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It is not stored.
    #[error("the secret {0} is not set: an administrator can set it with `secret set {0}`")]
    Missing(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Locks; a panic elsewhere left nothing half-done in these maps.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
