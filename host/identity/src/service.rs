//! The service and what it is made of.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use countersign_core::audit::AuditEvent;
use countersign_core::names::{ServerName, TeamName, UserName, hex};
use countersign_core::ports::{BoxFuture, StoreError, World, random_bytes};
use countersign_core::secret::{MacKey, SealBroken, SealKey};
use countersign_core::time::Timestamp;

use crate::cache::Cache;
use crate::external::IssuerKeys;
use crate::oauth::device::Polls;
use crate::oauth::metadata_document::{DocumentCache, MetadataFetcher};
use crate::password::Hasher;
use crate::settings::Settings;
use crate::throttle::{DEVICES, PER_ADDRESS, PER_USER, REGISTRATIONS, Throttle, USER_CODES};

/// What identity has to know of an attached server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// For people.
    pub display_name: String,
    /// Teams that may use it; empty means everybody.
    pub teams: BTreeSet<TeamName>,
}

/// Which servers there are. Disabled ones are not.
pub trait Resources: Send + Sync {
    /// The server of this name.
    fn server<'a>(
        &'a self,
        name: &'a ServerName,
    ) -> BoxFuture<'a, Result<Option<ServerFacts>, StoreError>>;
}

/// What happens to an account that the rest of the house must follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountChange {
    /// An administrator sets a new password: suspend the user's connections.
    Reset,
    /// It can't act for now: nothing of its own may be used.
    Disabled,
    /// It is gone: erase its connections.
    Deleted,
    /// It is no longer in this team: erase that team's connections.
    LeftTeam(TeamName),
}

/// Told of account changes before they take effect; an error stops the change.
pub trait AccountEvents: Send + Sync {
    /// Does what the change demands of the user's connections.
    fn changed<'a>(
        &'a self,
        user: &'a UserName,
        change: AccountChange,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// What the service is put together from.
pub struct Parts {
    /// Time, randomness, store, audit.
    pub world: World,
    /// The key all of identity's keys are derived from.
    pub key: SealKey,
    /// The operator's decisions.
    pub settings: Settings,
    /// Which servers there are.
    pub resources: Arc<dyn Resources>,
    /// Who else follows account changes.
    pub accounts: Arc<dyn AccountEvents>,
    /// Fetches client ID metadata documents; without one they are not supported.
    pub metadata: Option<Arc<dyn MetadataFetcher>>,
    /// Gets the keys of external issuers; without it none is believed.
    pub issuer_keys: Option<Arc<dyn IssuerKeys>>,
}

/// The service; cheap to clone.
#[derive(Clone)]
pub struct Identity(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) world: World,
    pub(crate) settings: Settings,
    pub(crate) resources: Arc<dyn Resources>,
    pub(crate) accounts: Arc<dyn AccountEvents>,
    pub(crate) metadata: Option<Arc<dyn MetadataFetcher>>,
    pub(crate) issuer_keys: Option<Arc<dyn IssuerKeys>>,
    pub(crate) documents: DocumentCache,
    pub(crate) hasher: Hasher,
    pub(crate) cache: Cache,
    pub(crate) by_user: Throttle<String>,
    pub(crate) by_address: Throttle<IpAddr>,
    pub(crate) registrations: Throttle<IpAddr>,
    pub(crate) devices: Throttle<IpAddr>,
    pub(crate) user_codes: Throttle<String>,
    pub(crate) polls: Polls,
    fingerprints: MacKey,
    csrf: SealKey,
    seals: SealKey,
}

impl Identity {
    /// Puts the service together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            world,
            key,
            settings,
            resources,
            accounts,
            metadata,
            issuer_keys,
        } = parts;
        Self(Arc::new(Inner {
            world,
            resources,
            accounts,
            metadata,
            issuer_keys,
            documents: DocumentCache::default(),
            hasher: Hasher::new(
                key.derive("identity password pepper"),
                settings.password_cost,
            ),
            cache: Cache::new(settings.cache_for),
            by_user: Throttle::new(PER_USER),
            by_address: Throttle::new(PER_ADDRESS),
            registrations: Throttle::new(REGISTRATIONS),
            devices: Throttle::new(DEVICES),
            user_codes: Throttle::new(USER_CODES),
            polls: Polls::default(),
            fingerprints: key.derive("identity token fingerprint").for_macs(),
            csrf: key.derive("identity csrf"),
            seals: key.derive("identity seal"),
            settings,
        }))
    }

    /// The operator's decisions.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Verifies every token anew from here on: another process may have revoked
    /// some, or changed users, teams or roles.
    pub fn forget_verified(&self) {
        self.0.cache.void();
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.world.clock.now()
    }

    pub(crate) fn issuer(&self) -> &str {
        self.0.settings.public_url.issuer()
    }

    /// Recognises a token, code or cookie again without keeping it.
    pub(crate) fn fingerprint(&self, token: &str) -> [u8; 32] {
        self.0.fingerprints.mac(&[token.as_bytes()])
    }

    /// The CSRF token that belongs to a cookie.
    pub(crate) fn csrf_of(&self, purpose: &str, cookie: &str) -> String {
        hex(&self.0.csrf.mac(&[purpose.as_bytes(), cookie.as_bytes()]))
    }

    /// Encrypts for a round trip through a browser; `place` says what for.
    pub(crate) fn seal<T: serde::Serialize>(&self, place: &str, value: &T) -> Option<String> {
        use base64::Engine as _;
        let json = serde_json::to_vec(value).ok()?;
        let nonce = random_bytes(&*self.0.world.random);
        let sealed = self.0.seals.seal(nonce, place.as_bytes(), &json);
        Some(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Opens what [`Self::seal`] made for the same place.
    pub(crate) fn unseal<T: serde::de::DeserializeOwned>(
        &self,
        place: &str,
        text: &str,
    ) -> Result<T, SealBroken> {
        use base64::Engine as _;
        let sealed = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| SealBroken)?;
        let json = self.0.seals.open(place.as_bytes(), &sealed)?;
        serde_json::from_slice(&json).map_err(|_| SealBroken)
    }

    /// Writes an audit event durably.
    pub(crate) async fn audit(&self, event: AuditEvent) -> Result<(), StoreError> {
        self.0.world.audit.record(event).await
    }
}
