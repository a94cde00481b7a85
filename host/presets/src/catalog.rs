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
use countersign_core::preset::Preset;
use countersign_core::provider::Provider;
use serde_json::{Map, Value};
use tokio::sync::broadcast;

use crate::bound::Bound;
use crate::cache::CompileCache;
use crate::engine::{EngineConfig, Sandboxes};
use crate::load::{self, LoadError};
use crate::policies::Policies;
use crate::signature::{SignaturePolicy, Standing, Trust};
use crate::terms::Terms;

mod bindings;
mod files;
mod report;
mod scan;
mod suspects;
mod watch;

use bindings::Bindings;
pub use files::compare_versions;
use files::{Candidate, Files};
pub(crate) use report::inspection;
pub use report::{
    BindError, BindingStatus, CatalogEntry, CatalogEvent, FileState, Inspection, OpenError,
    PassedOver, PolicyChange, Proposal, Serving,
};
use suspects::Suspects;
pub use suspects::{ConsentHook, FaultReport};

/// Events kept for a subscriber that is slow.
const BACKLOG: usize = 1024;

/// The catalog.
pub struct Catalog {
    dir: PathBuf,
    sandboxes: Arc<Sandboxes>,
    policies: Policies,
    trust: ArcSwap<Trust>,
    /// Held while the directory is read and components are compiled.
    scanning: Mutex<()>,
    files: Mutex<Files>,
    bindings: Mutex<Bindings>,
    suspects: Mutex<Suspects>,
    serving: ArcSwap<HashMap<ProviderName, Arc<Bound>>>,
    events: broadcast::Sender<CatalogEvent>,
    /// Has every event since before the first scan.
    from_start: Mutex<Option<broadcast::Receiver<CatalogEvent>>>,
    /// Dropping it ends the watcher's thread.
    watcher: Mutex<Option<watch::Watcher>>,
}

impl Catalog {
    /// [`Self::open_with`] for components that the caller built itself, in tests
    /// and measurements: signatures are not looked at, compiled code is not
    /// kept.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(dir: &Path, config: EngineConfig) -> Result<Arc<Self>, OpenError> {
        Self::open_with(dir, config, Trust::off(), None)
    }

    /// Opens a directory (making it if need be), loads what is in it and may be
    /// trusted, and goes on watching it. Bad files are refused one by one, never
    /// the catalog. With a cache, compiled code is kept between starts.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_with(
        dir: &Path,
        config: EngineConfig,
        trust: Trust,
        cache: Option<CompileCache>,
    ) -> Result<Arc<Self>, OpenError> {
        let unusable = |error| OpenError::Directory {
            dir: dir.display().to_string(),
            error,
        };
        std::fs::create_dir_all(dir).map_err(unusable)?;
        std::fs::read_dir(dir).map_err(unusable)?;
        let sandboxes = Sandboxes::new(config, cache)?;
        let (events, from_start) = broadcast::channel(BACKLOG);
        let this = Arc::new(Self {
            dir: dir.to_owned(),
            policies: Policies::open(dir, &sandboxes, trust.clone(), events.clone()),
            sandboxes,
            trust: ArcSwap::from_pointee(trust),
            scanning: Mutex::new(()),
            files: Mutex::default(),
            bindings: Mutex::default(),
            suspects: Mutex::default(),
            serving: ArcSwap::default(),
            events,
            from_start: Mutex::new(Some(from_start)),
            watcher: Mutex::new(None),
        });
        // Watch first: what changes while the first scan runs is seen.
        let watcher = watch::start(&this);
        *lock(&this.watcher) = Some(watcher);
        this.rescan();
        // A disk that is away for a moment does not cost what was compiled.
        if !this.list().is_empty() {
            this.sandboxes.sweep_cache();
        }
        Ok(this)
    }

    /// Policy components beside the presets.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The preset that judges this provider's calls now. One atomic load and
    /// one look-up; pin what it returns for the whole call.
    #[must_use]
    pub fn current(&self, provider: &ProviderName) -> Option<Arc<dyn Preset>> {
        let bound = Arc::clone(self.serving.load().get(provider)?);
        Some(bound)
    }

    /// Binds a provider, or binds it anew after the record or its terms
    /// changed. Also on an error the catalog remembers the provider and serves
    /// it as soon as a file allows it.
    ///
    /// # Errors
    /// [`BindError`] if nothing serves it now.
    pub fn bind(
        &self,
        provider: &Provider,
        terms: impl Into<Terms>,
    ) -> Result<Arc<dyn Preset>, BindError> {
        let mut bindings = lock(&self.bindings);
        let candidates = lock(&self.files).candidates(&provider.preset);
        bindings.set(provider, terms.into(), &candidates, &mut self.reporter());
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

    /// What one version would be approved for: `version` as the file name says
    /// it, a file's name, or the newest that may be used if none.
    ///
    /// # Errors
    /// [`BindError`] if there is no such version, or it can't serve the
    /// provider.
    pub fn propose(
        &self,
        provider: &Provider,
        version: Option<&str>,
    ) -> Result<Proposal, BindError> {
        let candidate = self.find_version(provider, version)?;
        lock(&self.bindings).propose(provider, &candidate)
    }

    /// One version under a provider's record, approved or not: only to rehearse
    /// with, never to judge calls by.
    ///
    /// # Errors
    /// As [`Self::propose`].
    pub fn rehearsal(
        &self,
        provider: &Provider,
        version: Option<&str>,
    ) -> Result<Arc<dyn Preset>, BindError> {
        let candidate = self.find_version(provider, version)?;
        match Bound::new(&candidate.loaded, provider) {
            Ok(bound) => Ok(bound),
            Err(error) => Err(BindError::Refused {
                preset: provider.preset.clone(),
                reason: format!("{}: {error}", candidate.file),
            }),
        }
    }

    /// The component with this digest, if a file of the catalog still has it.
    #[must_use]
    pub fn component(&self, digest: &Digest) -> Option<Vec<u8>> {
        let file = self
            .list()
            .into_iter()
            .find(|entry| entry.digest.as_ref() == Some(digest))?
            .file;
        let bytes = load::read(&self.dir.join(file)).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// Every file, by name; then what is no longer in one but still runs.
    #[must_use]
    pub fn list(&self) -> Vec<CatalogEntry> {
        let serving = self.serving.load();
        lock(&self.files).list(|digest| serving.values().any(|bound| bound.digest() == *digest))
    }

    /// A file by its name, or the newest version of a preset.
    #[must_use]
    pub fn inspect(&self, name_or_file: &str) -> Option<Inspection> {
        lock(&self.files).inspect(name_or_file)
    }

    /// What has changed since the catalog was opened, the first scan included;
    /// for whoever asks first. As [`Self::subscribe`] for others.
    #[must_use]
    pub fn subscribe_from_start(&self) -> broadcast::Receiver<CatalogEvent> {
        let first = lock(&self.from_start).take();
        first.unwrap_or_else(|| self.subscribe())
    }

    /// What changes from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<CatalogEvent> {
        self.events.subscribe()
    }

    fn reporter(&self) -> impl FnMut(CatalogEvent) + '_ {
        |event| {
            match &event {
                CatalogEvent::Refused { file, reason } => {
                    tracing::warn!(file, reason, "preset refused")
                }
                CatalogEvent::Loaded {
                    file,
                    digest,
                    origin,
                } => match &origin.warning {
                    Some(warning) => tracing::warn!(file, %digest, warning, "preset loaded"),
                    None => tracing::info!(file, %digest, %origin, "preset loaded"),
                },
                CatalogEvent::Removed { file } => tracing::info!(file, "preset file removed"),
                CatalogEvent::Swapped {
                    provider,
                    to,
                    automatic,
                    ..
                } => {
                    tracing::info!(%provider, digest = %to, automatic = automatic.is_some(), "preset swapped");
                }
                CatalogEvent::Pending { proposal } => {
                    tracing::info!(provider = %proposal.provider, file = proposal.file, "preset waits for approval");
                }
                // Told where it is noticed.
                CatalogEvent::Policy { .. } => {}
                CatalogEvent::RolledBack {
                    provider,
                    from,
                    version,
                    reason,
                } => {
                    tracing::error!(%provider, digest = %from, version, reason, "preset rolled back");
                }
            }
            // Without subscribers nobody needs to know.
            let _ = self.events.send(event);
        }
    }

    fn find_version(
        &self,
        provider: &Provider,
        version: Option<&str>,
    ) -> Result<Candidate, BindError> {
        let candidates = lock(&self.files).candidates(&provider.preset);
        let wanted = |c: &&Candidate| {
            version.is_none_or(|v| c.file == v || compare_versions(&c.loaded.version, v).is_eq())
        };
        match (candidates.iter().find(wanted), version) {
            (Some(candidate), _) => Ok(candidate.clone()),
            (None, Some(version)) => Err(self.no_version(&provider.preset, version, &candidates)),
            (None, None) => Err(self.explain(provider.preset.clone())),
        }
    }

    fn no_version(&self, preset: &PresetName, version: &str, there: &[Candidate]) -> BindError {
        let files: Vec<&str> = there.iter().map(|c| c.file.as_str()).collect();
        let reason = match files.as_slice() {
            [] => return self.explain(preset.clone()),
            files => format!(
                "there is no version {} that can be used; there are {}",
                crate::check::cut(version),
                files.join(", ")
            ),
        };
        BindError::Refused {
            preset: preset.clone(),
            reason,
        }
    }

    /// Why there is nothing to bind to.
    fn explain(&self, preset: PresetName) -> BindError {
        let refused = self
            .list()
            .into_iter()
            .rev()
            .find_map(|entry| match entry.state {
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

/// [`inspect_file_with`], without a look at signatures.
///
/// # Errors
/// As [`inspect_file_with`].
pub fn inspect_file(
    path: &Path,
    settings: &Map<String, Value>,
    config: EngineConfig,
) -> Result<Inspection, LoadError> {
    inspect_file_with(path, settings, config, &Trust::off())
}

/// Looks at a component file without a catalog, under these settings. A
/// signature that would be refused is told as its origin's warning: looking is
/// allowed.
///
/// # Errors
/// [`LoadError`], as the catalog would refuse it.
pub fn inspect_file_with(
    path: &Path,
    settings: &Map<String, Value>,
    config: EngineConfig,
    trust: &Trust,
) -> Result<Inspection, LoadError> {
    let file = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    load::parse_file_name(file)?;
    let source = load::read_all(path)?;
    let sandboxes = Sandboxes::new(config, None).map_err(|e| LoadError::Invalid(e.to_string()))?;
    let looking = Trust {
        policy: match trust.policy {
            SignaturePolicy::Require => SignaturePolicy::Warn,
            other => other,
        },
        ..trust.clone()
    };
    let loaded = match load::load(&sandboxes, &looking, file, source.clone()) {
        Err(LoadError::Signature(why)) => {
            let mut loaded = load::load(&sandboxes, &Trust::off(), file, source)?;
            loaded.standing = Standing::refused(why);
            loaded
        }
        loaded => loaded?,
    };
    let mut inspection = inspection(file, &loaded, None, loaded.permissions.clone());
    if !settings.is_empty() {
        let (description, permissions) = load::describe_with(&loaded, settings)?;
        inspection.description = Some(description);
        inspection.permissions = Some(permissions);
        inspection.entry.state = FileState::Loaded;
    }
    Ok(inspection)
}

/// A component file without a catalog, for a provider's record: only to
/// rehearse with.
///
/// # Errors
/// [`LoadError`], as the catalog would refuse it.
pub fn rehearse_file(
    path: &Path,
    provider: &Provider,
    config: EngineConfig,
) -> Result<Arc<dyn Preset>, LoadError> {
    let file = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    let source = load::Source::alone(load::read(path)?);
    let sandboxes = Sandboxes::new(config, None).map_err(|e| LoadError::Invalid(e.to_string()))?;
    let loaded = load::load(&sandboxes, &Trust::off(), file, source)?;
    let bound: Arc<dyn Preset> = Bound::new(&Arc::new(loaded), provider)?;
    Ok(bound)
}

/// A lock that a panicking thread does not take away: every change under it is
/// complete before anything can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
