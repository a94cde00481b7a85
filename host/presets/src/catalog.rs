//! The catalog: a directory of components, and which of them serves whom.
//!
//! Files come and go; a provider is bound to a preset by name. The newest
//! version that loads, describes itself and is approved serves; a newer one
//! that asks for more waits; a bad one is refused while the last good one goes
//! on. A call pins the `Arc` it got from [`Catalog::current`] and finishes on
//! it, whatever is swapped meanwhile.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use countersign_core::names::{Digest, PresetName, ProviderName};
use countersign_core::preset::{Description, Preset};
use countersign_core::provider::Provider;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::broadcast;

use crate::bound::Bound;
use crate::engine::{EngineConfig, EngineError, Sandboxes};
use crate::load::{self, LoadError, Loaded};
use crate::permissions::{Approval, PermissionDifference, PermissionSet, hook_names};

mod bindings;
mod files;
mod watch;

use bindings::Bindings;
use files::Files;

/// Events kept for a subscriber that is slow.
const BACKLOG: usize = 256;

/// The catalog could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No sandboxes.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The directory is not there and cannot be made, or can't be listed.
    #[error("the catalog directory {dir} cannot be used: {error}; set server.catalog_dir to a directory this process can read")]
    Directory {
        /// As configured.
        dir: String,
        /// What the system said.
        error: std::io::Error,
    },
}

/// A preset serves no calls of this provider yet.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BindError {
    /// No file of that name.
    #[error("the catalog has no preset {0}: put {0}-VERSION.wasm into the catalog directory")]
    Unknown(PresetName),
    /// There are files, and none may be used.
    #[error("the preset {preset} cannot serve this provider: {reason}")]
    Refused {
        /// The preset.
        preset: PresetName,
        /// File and reason of the newest one.
        reason: String,
    },
    /// It waits for an administrator.
    #[error("the preset {} {} is not approved for the provider {}: look at it with `preset inspect`, then `preset approve`", .0.preset, .0.version, .0.provider)]
    NeedsApproval(Box<Proposal>),
}

/// A version that waits for approval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proposal {
    /// For whom.
    pub provider: ProviderName,
    /// Which preset.
    pub preset: PresetName,
    /// The file's name.
    pub file: String,
    /// As the file name says.
    pub version: String,
    /// What to store when it is agreed to.
    pub approval: Approval,
    /// Against what serves now, or else what was approved last.
    pub difference: PermissionDifference,
}

/// A version that serves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Serving {
    /// As the file name says.
    pub version: String,
    /// Of the component.
    pub digest: Digest,
    /// What it was approved for.
    pub permissions: PermissionSet,
}

/// How a provider stands with its preset.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BindingStatus {
    /// The preset's name.
    pub preset: PresetName,
    /// What calls are judged by.
    pub serving: Option<Serving>,
    /// What waits.
    pub pending: Option<Proposal>,
    /// Why a newer version than the one that serves is refused.
    pub refusal: Option<String>,
}

/// Whether a file can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum FileState {
    /// It loaded.
    Loaded,
    /// It loaded, and refuses empty settings: a provider's settings decide.
    NeedsSettings {
        /// In the preset's words.
        reason: String,
    },
    /// It is refused.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// A file of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CatalogEntry {
    /// The file's name.
    pub file: String,
    /// The preset, if the file name says one.
    pub preset: Option<PresetName>,
    /// As the file name says.
    pub version: Option<String>,
    /// Of the content that may serve: the last good one.
    pub digest: Option<Digest>,
    /// In bytes, of the same content.
    pub size: Option<u64>,
    /// Of the content that is there now.
    #[serde(flatten)]
    pub state: FileState,
}

/// A closer look at a component.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The file.
    #[serde(flatten)]
    pub entry: CatalogEntry,
    /// Host interfaces with functions that it imports.
    pub imports: Vec<String>,
    /// Hooks that it exports.
    pub hooks: Vec<String>,
    /// What it says of itself, if the settings suit it.
    pub description: Option<Description>,
}

/// What changed. For audit and telemetry.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum CatalogEvent {
    /// A file was loaded.
    Loaded {
        /// The file's name.
        file: String,
        /// Of its content.
        digest: Digest,
    },
    /// A file was refused; what was good before goes on.
    Refused {
        /// The file's name.
        file: String,
        /// Why.
        reason: String,
    },
    /// A file is gone.
    Removed {
        /// The file's name.
        file: String,
    },
    /// Another version serves a provider from now on.
    Swapped {
        /// For whom.
        provider: ProviderName,
        /// What served before.
        from: Option<Digest>,
        /// What serves now.
        to: Digest,
        /// Set when nobody was asked, because it may do no more than what was
        /// approved: to be stored like any approval.
        automatic: Option<Approval>,
    },
    /// A version waits for approval.
    Pending {
        /// What waits.
        proposal: Box<Proposal>,
    },
}

/// The catalog.
pub struct Catalog {
    dir: PathBuf,
    sandboxes: Arc<Sandboxes>,
    /// Held while the directory is read and components are compiled.
    scanning: Mutex<()>,
    files: Mutex<Files>,
    bindings: Mutex<Bindings>,
    serving: ArcSwap<HashMap<ProviderName, Arc<Bound>>>,
    events: broadcast::Sender<CatalogEvent>,
    /// Dropping it ends the watcher's thread.
    watcher: Mutex<Option<watch::Watcher>>,
}

impl Catalog {
    /// Opens a directory (making it if need be), loads what is in it and goes
    /// on watching it. Bad files are refused one by one, never the catalog.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(dir: &Path, config: EngineConfig) -> Result<Arc<Self>, OpenError> {
        let unusable = |error| OpenError::Directory { dir: dir.display().to_string(), error };
        std::fs::create_dir_all(dir).map_err(unusable)?;
        std::fs::read_dir(dir).map_err(unusable)?;
        let this = Arc::new(Self {
            dir: dir.to_owned(),
            sandboxes: Sandboxes::new(config)?,
            scanning: Mutex::new(()),
            files: Mutex::default(),
            bindings: Mutex::default(),
            serving: ArcSwap::default(),
            events: broadcast::channel(BACKLOG).0,
            watcher: Mutex::new(None),
        });
        // Watch first: what changes while the first scan runs is seen.
        let watcher = watch::start(&this);
        *lock(&this.watcher) = Some(watcher);
        this.rescan();
        Ok(this)
    }

    /// The preset that judges this provider's calls now. One atomic load and
    /// one look-up; pin what it returns for the whole call.
    #[must_use]
    pub fn current(&self, provider: &ProviderName) -> Option<Arc<dyn Preset>> {
        let bound = Arc::clone(self.serving.load().get(provider)?);
        Some(bound)
    }

    /// Binds a provider, or binds it anew after the record or its approvals
    /// changed. Also on an error the catalog remembers the provider and serves
    /// it as soon as a file allows it.
    ///
    /// # Errors
    /// [`BindError`] if nothing serves it now.
    pub fn bind(&self, provider: &Provider, approvals: &[Approval]) -> Result<Arc<dyn Preset>, BindError> {
        let candidates = lock(&self.files).candidates(&provider.preset);
        let mut bindings = lock(&self.bindings);
        bindings.set(provider, approvals, candidates, &mut self.reporter());
        self.serving.store(Arc::new(bindings.serving()));
        let bound = bindings.outcome(&provider.name);
        drop(bindings);
        match bound {
            Some(Ok(bound)) => Ok(bound),
            Some(Err(BindError::Unknown(preset))) => Err(self.explain(preset)),
            Some(Err(error)) => Err(error),
            None => Err(self.explain(provider.preset.clone())),
        }
    }

    /// Forgets a provider: nothing serves it from now on.
    pub fn unbind(&self, provider: &ProviderName) {
        let mut bindings = lock(&self.bindings);
        bindings.remove(provider);
        self.serving.store(Arc::new(bindings.serving()));
    }

    /// How a provider stands; none if it was never bound.
    #[must_use]
    pub fn binding(&self, provider: &ProviderName) -> Option<BindingStatus> {
        lock(&self.bindings).status(provider)
    }

    /// What waits for approval for this provider.
    #[must_use]
    pub fn pending(&self, provider: &ProviderName) -> Option<Proposal> {
        self.binding(provider)?.pending
    }

    /// Every file, by name.
    #[must_use]
    pub fn list(&self) -> Vec<CatalogEntry> {
        lock(&self.files).list()
    }

    /// A file by its name, or the newest version of a preset.
    #[must_use]
    pub fn inspect(&self, name_or_file: &str) -> Option<Inspection> {
        lock(&self.files).inspect(name_or_file)
    }

    /// What changes from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<CatalogEvent> {
        self.events.subscribe()
    }

    /// Looks at the whole directory now, as the watcher does by itself.
    pub fn rescan(&self) {
        self.scan(&[]);
    }

    /// Looks at the directory; `changed` are files to read even if they look
    /// unchanged.
    fn scan(&self, changed: &[String]) {
        let _scanning = lock(&self.scanning);
        let found = match files::look(&self.dir) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(dir = %self.dir.display(), %error, "the catalog directory cannot be listed; keeping what is loaded");
                return;
            }
        };
        let work = lock(&self.files).outdated(&found, changed);
        let mut reporter = self.reporter();
        let mut any = false;
        for (file, stamp) in work {
            let result = load::read(&self.dir.join(&file));
            let known = result.as_ref().ok().map(|bytes| Digest::of(bytes));
            if lock(&self.files).is_known(&file, stamp, known) {
                continue;
            }
            let result = result.and_then(|bytes| load::load(&self.sandboxes, &file, &bytes));
            any |= lock(&self.files).put(file, stamp, known, result, &mut reporter);
        }
        any |= lock(&self.files).retain(&found, &mut reporter);
        if any {
            self.swap();
        }
    }

    /// Decides for every binding anew.
    fn swap(&self) {
        let mut bindings = lock(&self.bindings);
        let files = lock(&self.files);
        let candidates: Vec<_> =
            bindings.presets().into_iter().map(|name| (files.candidates(&name), name)).collect();
        drop(files);
        for (candidates, name) in candidates {
            bindings.refresh(&name, &candidates, &mut self.reporter());
        }
        self.serving.store(Arc::new(bindings.serving()));
    }

    fn reporter(&self) -> impl FnMut(CatalogEvent) + '_ {
        |event| {
            match &event {
                CatalogEvent::Refused { file, reason } => tracing::warn!(file, reason, "preset refused"),
                CatalogEvent::Loaded { file, digest } => tracing::info!(file, %digest, "preset loaded"),
                CatalogEvent::Removed { file } => tracing::info!(file, "preset file removed"),
                CatalogEvent::Swapped { provider, to, automatic, .. } => {
                    tracing::info!(%provider, digest = %to, automatic = automatic.is_some(), "preset swapped");
                }
                CatalogEvent::Pending { proposal } => {
                    tracing::info!(provider = %proposal.provider, file = proposal.file, "preset waits for approval");
                }
            }
            // Without subscribers nobody needs to know.
            let _ = self.events.send(event);
        }
    }

    /// Why there is nothing to bind to.
    fn explain(&self, preset: PresetName) -> BindError {
        let refused = self.list().into_iter().rev().find_map(|entry| match entry.state {
            FileState::Refused { reason } if entry.preset.as_ref() == Some(&preset) => {
                Some(format!("{}: {reason}", entry.file))
            }
            _ => None,
        });
        match refused {
            Some(reason) => BindError::Refused { preset, reason },
            None => BindError::Unknown(preset),
        }
    }
}

/// Looks at a component file without a catalog, under these settings.
///
/// # Errors
/// [`LoadError`], as the catalog would refuse it.
pub fn inspect_file(path: &Path, settings: &Map<String, Value>, config: EngineConfig) -> Result<Inspection, LoadError> {
    let file = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    load::parse_file_name(file)?;
    let bytes = load::read(path)?;
    let sandboxes = Sandboxes::new(config).map_err(|e| LoadError::Invalid(e.to_string()))?;
    let loaded = load::load(&sandboxes, file, &bytes)?;
    let mut inspection = inspection(file, &loaded, None);
    if !settings.is_empty() {
        inspection.description = Some(load::describe_with(&loaded, settings)?);
        inspection.entry.state = FileState::Loaded;
    }
    Ok(inspection)
}

fn entry(file: &str, loaded: &Loaded, refusal: Option<&str>) -> CatalogEntry {
    CatalogEntry {
        file: file.to_owned(),
        preset: Some(loaded.name.clone()),
        version: Some(loaded.version.clone()),
        digest: Some(loaded.digest),
        size: Some(loaded.size),
        state: match (refusal, &loaded.description) {
            (Some(reason), _) => FileState::Refused { reason: reason.to_owned() },
            (None, Ok(_)) => FileState::Loaded,
            (None, Err(reason)) => FileState::NeedsSettings { reason: reason.clone() },
        },
    }
}

fn inspection(file: &str, loaded: &Loaded, refusal: Option<&str>) -> Inspection {
    Inspection {
        entry: entry(file, loaded, refusal),
        imports: loaded.imports.iter().cloned().collect(),
        hooks: hook_names(loaded.guest.exported_hooks()).into_iter().collect(),
        description: loaded.description.as_ref().ok().cloned(),
    }
}

/// A lock that a panicking thread does not take away: every change under it is
/// complete before anything can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
