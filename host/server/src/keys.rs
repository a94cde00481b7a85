//! The host's key-encryption keys while it runs: what they are used for, going
//! over to another one, and following a replica that does.
//!
//! A rotation runs in the host, not in the command that asked for it. It goes
//! by `[keys]` as it stands in the configuration file at that moment, so that
//! a new key needs no restart; everything else in the file waits for one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::ports::{StoreError, World};
use countersign_core::time::Timestamp;
use countersign_vault::keys::{KeyError, KeyRing};
use countersign_vault::vault::{KeyUse, Progress, RotateError, Vault};
use serde::Serialize;

use crate::config::{Config, ConfigError};

/// How often the store is asked whether another replica rotates.
const FOLLOW: Duration = Duration::from_secs(1);

/// Whether a rotation is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RotationState {
    /// None since the host was started.
    #[default]
    Idle,
    /// Records are being wrapped anew.
    Running,
    /// Everything is on the current key.
    Done,
    /// It stopped; `detail` says why. It goes on where it was when it is asked
    /// for again.
    Failed,
}

/// How far the last rotation is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Rotation {
    /// In a word.
    pub state: RotationState,
    /// Id of the key that it goes over to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Records that were wrapped anew.
    pub done: u64,
    /// Records that have to be.
    pub total: u64,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// How it ended, and what to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A key, as it is shown. Never the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct KeyView {
    /// Derived from the key; says nothing about it.
    pub id: String,
    /// Where the configuration has it from; absent if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// `current`, `old`, or `missing` from the configuration.
    pub role: &'static str,
    /// Whether everything new is sealed with it.
    pub seals: bool,
    /// Whether the store demands it at start.
    pub required: bool,
    /// Records whose data key it wraps.
    pub records: u64,
    /// Damaged ones among them, which cannot go over to another key.
    pub damaged_records: u64,
    /// What to do about it.
    pub advice: &'static str,
}

impl From<KeyUse> for KeyView {
    fn from(key: KeyUse) -> Self {
        let is_used = key.seals || key.wraps_root || key.records > 0;
        let (role, advice) = match (&key.source, key.is_current) {
            (None, _) => ("missing", "add its source to [keys] old"),
            (_, true) if key.seals => ("current", "keep a copy elsewhere"),
            (_, true) => ("current", "run `countersign key rotate` to go over to it"),
            _ if key.damaged_records() => ("old", "keep it: damaged records name it"),
            _ if is_used => ("old", "run `countersign key rotate` to end its use"),
            _ => (
                "old",
                "nothing uses it: take it out of [keys] old; keep it for older backups",
            ),
        };
        Self {
            id: key.id.to_string(),
            role,
            seals: key.seals,
            required: key.wraps_root,
            records: key.records,
            damaged_records: key.damaged,
            source: key.source,
            advice,
        }
    }
}

trait Damaged {
    fn damaged_records(&self) -> bool;
}

impl Damaged for KeyUse {
    fn damaged_records(&self) -> bool {
        self.damaged > 0 && self.damaged == self.records && !self.seals
    }
}

/// Why keys could not be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// `[keys]` cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key is not to be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The vault.
    #[error(transparent)]
    Rotate(#[from] RotateError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The keys of a running host.
pub struct HostKeys {
    world: World,
    vault: Arc<Vault>,
    config: PathBuf,
    rotation: Mutex<Rotation>,
}

impl HostKeys {
    /// Of this vault, by the `[keys]` of this file.
    #[must_use]
    pub fn new(world: World, vault: Arc<Vault>, config: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            world,
            vault,
            config,
            rotation: Mutex::default(),
        })
    }

    /// The vault that they are of.
    #[must_use]
    pub fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// The keys that are configured or in use. Reads the whole store.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self) -> Result<Vec<KeyView>, StoreError> {
        let uses = self.vault.key_uses().await?;
        Ok(uses.into_iter().map(KeyView::from).collect())
    }

    /// The last rotation.
    #[must_use]
    pub fn rotation(&self) -> Rotation {
        self.state().clone()
    }

    fn state(&self) -> MutexGuard<'_, Rotation> {
        self.rotation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to go over to the configured current key, or joins who did.
    ///
    /// # Errors
    /// [`KeysError`] if it cannot begin; nothing was changed then.
    pub async fn rotate(self: &Arc<Self>, by: &str) -> Result<Rotation, KeysError> {
        let ring = self.configured().await?;
        self.vault.adopt(ring.clone()).await?;
        let now = self.world.clock.now();
        {
            let mut state = self.state();
            if state.state == RotationState::Running {
                return Ok(state.clone());
            }
            *state = Rotation {
                state: RotationState::Running,
                key: Some(ring.current_id().to_string()),
                started_at: Some(now),
                ..Rotation::default()
            };
        }
        let begun = self.tell(by, "key.rotate", Outcome::Allowed, None);
        if let Err(error) = self.world.audit.record(begun).await {
            self.end(RotationState::Failed, error.to_string());
            return Err(error.into());
        }
        let (this, by) = (Arc::clone(self), by.to_owned());
        tokio::spawn(async move { this.run(ring, &by).await });
        Ok(self.rotation())
    }

    async fn run(&self, ring: KeyRing, by: &str) {
        let tell = |progress: Progress| {
            let mut state = self.state();
            (state.done, state.total) = (progress.done, progress.total);
        };
        let (state, outcome, detail) = match self.vault.rotate(ring, &tell).await {
            Ok(done) if done.is_complete => (
                RotationState::Done,
                Outcome::Allowed,
                format!(
                    "records wrapped anew: {}; nothing uses another key: the old ones may be taken \
                     out of [keys] old, and are needed for older backups only",
                    done.records
                ),
            ),
            Ok(done) => (
                RotationState::Failed,
                Outcome::Failed,
                format!(
                    "records wrapped anew: {}; but damaged ones still name another key ({}): \
                     keep it in [keys] old; `countersign doctor` says what to do about them",
                    done.records, done.damaged
                ),
            ),
            Err(error) => (RotationState::Failed, Outcome::Failed, error.to_string()),
        };
        if state == RotationState::Failed {
            tracing::error!(%detail, "a key rotation did not end well");
        } else {
            tracing::info!(%detail, "the keys were rotated");
        }
        self.end(state, detail.clone());
        let event = self.tell(by, "key.rotated", outcome, Some(detail));
        if let Err(error) = self.world.audit.record(event).await {
            tracing::error!(%error, "the end of a key rotation could not be written down");
        }
    }

    fn end(&self, how: RotationState, detail: String) {
        let mut state = self.state();
        state.state = how;
        state.ended_at = Some(self.world.clock.now());
        state.detail = Some(detail);
    }

    fn tell(&self, by: &str, action: &str, outcome: Outcome, detail: Option<String>) -> AuditEvent {
        let key = self.state().key.clone().unwrap_or_default();
        let event = AuditEvent::new(self.world.clock.now(), action, outcome)
            .by(by)
            .on(format!("key:{key}"));
        match detail {
            Some(detail) => event.detail(detail),
            None => event,
        }
    }

    /// The ring as the configuration file has it now.
    async fn configured(&self) -> Result<KeyRing, KeysError> {
        Ok(Config::load(&self.config)?.keys.load().await?)
    }

    /// Goes on with a rotation that a crash interrupted, and goes by what other
    /// replicas do to the keys. Does not end.
    pub async fn follow(self: Arc<Self>) {
        match self.vault.rotation_is_unfinished().await {
            Ok(true) => {
                tracing::info!("a key rotation was interrupted; going on with it");
                if let Err(error) = self.rotate("countersign").await {
                    tracing::error!(%error, "the key rotation cannot go on");
                }
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the keys in use cannot be read"),
        }
        let mut said = String::new();
        loop {
            tokio::time::sleep(FOLLOW).await;
            if self.vault.keys_have_changed().await == Ok(false) {
                said.clear();
                continue;
            }
            let adopted = match self.configured().await {
                Ok(ring) => self.vault.adopt(ring).await.map_err(KeysError::from),
                Err(error) => Err(error),
            };
            match adopted {
                Ok(()) => tracing::info!("went over to the keys that the store is sealed with"),
                Err(error) if said == error.to_string() => {}
                Err(error) => {
                    tracing::error!(%error, "another host rotates the keys, and this one cannot follow");
                    said = error.to_string();
                }
            }
        }
    }
}
