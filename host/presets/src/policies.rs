//! Policy components: an organisation's own judges, in a folder beside the
//! presets.
//!
//! Their files (`NAME-VERSION.wasm`) take the same way as presets' do, and run
//! in the same sandboxes; but nothing serves by being there. A policy's record
//! pins one content by its digest, and [`Policies::bind`] hands out a judge for
//! that content only. What is bound stays usable when its file goes away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use countersign_core::names::{Digest, PresetName};
use countersign_core::policy::{Judge, Judgement, Subject};
use countersign_core::preset::PresetFault;
use serde_json::{Map, Value};
use tokio::sync::broadcast;

use crate::approval::canonical_settings;
use crate::catalog::{CatalogEvent, PolicyChange, compare_versions};
use crate::crew::side_by_side;
use crate::engine::Sandboxes;
use crate::faults::plain;
use crate::load::{self, LoadError, Source};
use crate::outline;
use crate::permissions::PermissionSet;
use crate::signature::{Origin, SIGNATURE_SUFFIX, Standing, Trust};

mod v0_1_0;

use v0_1_0::{PACKAGE, Prepared};

/// Longest name, title or reason of a component, in characters.
const LONGEST_TEXT: usize = 500;

/// A file of the folder, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// Its name.
    pub file: String,
    /// The policy, if the name says one.
    pub name: Option<PresetName>,
    /// Its version, if the name says one.
    pub version: Option<String>,
    /// Of its content, if it could be read.
    pub digest: Option<Digest>,
    /// Who vouches for it, if it may be used.
    pub origin: Option<Origin>,
    /// Why it cannot be used.
    pub refused: Option<String>,
}

/// What a component says of itself under some settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDescription {
    /// As in its file name.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// May be empty.
    pub documentation_url: String,
    /// Whether it is told the call's arguments.
    pub wants_arguments: bool,
    /// Whether it is told the user's name and the agent's id.
    pub wants_identity: bool,
    /// Whether it is told scopes and account of the connection.
    pub wants_grant: bool,
}

/// Why a component cannot judge under these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyBindError {
    /// Nothing of this content is there.
    #[error("no file of catalog/policies has the content {0}; put it there")]
    Unknown(Digest),
    /// It is there, and may not be used.
    #[error("the content {0} may not judge: {1}")]
    Refused(Digest, String),
    /// It refuses the settings, or fails.
    #[error("{0}")]
    Describe(PresetFault),
    /// What it describes is not acceptable.
    #[error("its description is not acceptable: {0}")]
    Bad(&'static str),
}

struct Loaded {
    file: String,
    name: PresetName,
    version: String,
    digest: Digest,
    standing: Standing,
    guest: Prepared,
}

/// When and how large a file was last written; none if that is not known.
type One = Option<(SystemTime, u64)>;

/// The same of a component and of the signature beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    component: One,
    signature: One,
}

struct Known {
    /// None: to be looked at again.
    stamp: Option<Stamp>,
    content: Content,
    /// What was told of it last.
    told: PolicyChange,
}

/// What a file holds; else its digest, if it could be read, and why it cannot be
/// used.
type Content = Result<Arc<Loaded>, (Option<Digest>, String)>;

/// The folder.
pub struct Policies {
    dir: PathBuf,
    sandboxes: Arc<Sandboxes>,
    trust: ArcSwap<Trust>,
    files: Mutex<BTreeMap<String, Known>>,
    /// Contents that were bound, by digest: a file may go, its policy stays.
    held: Mutex<BTreeMap<Digest, Weak<Loaded>>>,
    events: broadcast::Sender<CatalogEvent>,
    /// Held while components are read, so that each change is told once.
    scanning: Mutex<()>,
}

impl Policies {
    /// The folder `policies` in a catalog's. Blocks while components are
    /// compiled.
    pub(crate) fn open(
        catalog: &Path,
        sandboxes: &Arc<Sandboxes>,
        trust: Trust,
        events: broadcast::Sender<CatalogEvent>,
    ) -> Self {
        let this = Self {
            dir: catalog.join("policies"),
            sandboxes: Arc::clone(sandboxes),
            trust: ArcSwap::from_pointee(trust),
            files: Mutex::default(),
            held: Mutex::default(),
            events,
            scanning: Mutex::new(()),
        };
        this.rescan();
        this
    }

    /// Looks at the folder; whether anything has changed. A file that is still
    /// being written is refused now and looked at again when it has changed.
    pub fn rescan(&self) -> bool {
        let _scanning = lock(&self.scanning);
        let found = look(&self.dir);
        let (outdated, mut changed) = {
            let mut files = lock(&self.files);
            let before = files.len();
            files.retain(|file, _| {
                let stays = found.contains_key(file);
                if !stays {
                    self.tell(file, PolicyChange::Removed);
                }
                stays
            });
            let same = |file: &String, stamp: &Stamp| {
                stamp.component.is_some()
                    && files.get(file).is_some_and(|k| k.stamp == Some(*stamp))
            };
            let gone = files.len() != before;
            let outdated: Vec<_> = found.into_iter().filter(|(f, s)| !same(f, s)).collect();
            (outdated, gone)
        };
        let contents = side_by_side("policies", &outdated, |(file, _)| self.load(file));
        for ((file, stamp), content) in outdated.into_iter().zip(contents) {
            let change = change(&content);
            let stamp = Some(stamp);
            let known = Known {
                stamp,
                content,
                told: change.clone(),
            };
            let before = lock(&self.files).insert(file.clone(), known);
            // Looked at again, with the same outcome, is no news.
            if before.is_none_or(|before| before.told != change) {
                self.tell(&file, change);
            }
            changed = true;
        }
        changed
    }

    fn tell(&self, file: &str, change: PolicyChange) {
        match &change {
            PolicyChange::Loaded { digest, origin } => match &origin.warning {
                Some(warning) => {
                    tracing::warn!(file, %digest, warning, "policy component loaded");
                }
                None => tracing::info!(file, %digest, %origin, "policy component loaded"),
            },
            PolicyChange::Refused { reason } => {
                tracing::warn!(file, reason, "policy component refused");
            }
            PolicyChange::Removed => tracing::info!(file, "policy component removed"),
        }
        let file = file.to_owned();
        // Without subscribers nobody needs to know.
        let _ = self.events.send(CatalogEvent::Policy { file, change });
    }

    fn load(&self, file: &str) -> Content {
        let source = load::read_all(&self.dir.join(file)).map_err(|e| (None, e.to_string()))?;
        let digest = Digest::of(&source.bytes);
        let loaded = load_source(&self.sandboxes, &self.trust.load(), file, source, digest);
        loaded
            .map(Arc::new)
            .map_err(|e| (Some(digest), e.to_string()))
    }

    /// Takes other words for components from now on, and looks at all of them
    /// again. A policy is bound anew to have what it takes back hold.
    pub(crate) fn retrust(&self, trust: Arc<Trust>) {
        self.trust.store(Arc::clone(&trust));
        for loaded in lock(&self.held).values().filter_map(Weak::upgrade) {
            let named = (&*loaded.file, &loaded.name, loaded.version.as_str());
            // What comes of it is told where it is bound.
            let _ = loaded
                .standing
                .judge_again(named, loaded.digest, &asked(), &trust);
        }
        for known in lock(&self.files).values_mut() {
            known.stamp = None;
        }
        self.rescan();
    }

    /// Every file, by name.
    #[must_use]
    pub fn list(&self) -> Vec<PolicyFile> {
        let entry = |(file, known): (&String, &Known)| {
            let (name, version) = load::parse_file_name(file).ok().unzip();
            PolicyFile {
                file: file.clone(),
                name,
                version,
                digest: match &known.content {
                    Ok(loaded) => Some(loaded.digest),
                    Err((digest, _)) => *digest,
                },
                origin: known.content.as_ref().ok().map(|l| l.standing.origin()),
                refused: known
                    .content
                    .as_ref()
                    .err()
                    .map(|(_, reason)| reason.clone()),
            }
        };
        lock(&self.files).iter().map(entry).collect()
    }

    /// The newest usable version of a policy.
    #[must_use]
    pub fn newest(&self, name: &str) -> Option<(String, Digest)> {
        let files = lock(&self.files);
        let usable = files.values().filter_map(|k| k.content.as_ref().ok());
        usable
            .filter(|loaded| loaded.name.as_str() == name)
            .max_by(|a, b| compare_versions(&a.version, &b.version))
            .map(|loaded| (loaded.version.clone(), loaded.digest))
    }

    /// A judge of this content under these settings.
    ///
    /// # Errors
    /// [`PolicyBindError`].
    pub fn bind(
        &self,
        name: &str,
        digest: Digest,
        settings: &Map<String, Value>,
    ) -> Result<(Arc<dyn Judge>, PolicyDescription), PolicyBindError> {
        let loaded = self
            .content(digest)?
            .filter(|loaded| loaded.name.as_str() == name)
            .ok_or(PolicyBindError::Unknown(digest))?;
        let settings = canonical_settings(settings);
        let description = loaded
            .guest
            .describe(&settings)
            .map_err(PolicyBindError::Describe)?;
        check(&description, name)?;
        lock(&self.held).insert(digest, Arc::downgrade(&loaded));
        let judge = Bound {
            loaded,
            settings,
            description: description.clone(),
        };
        Ok((Arc::new(judge), description))
    }

    fn content(&self, digest: Digest) -> Result<Option<Arc<Loaded>>, PolicyBindError> {
        let files = lock(&self.files);
        let mut usable = files.values().filter_map(|k| k.content.as_ref().ok());
        if let Some(found) = usable.find(|loaded| loaded.digest == digest) {
            return Ok(Some(Arc::clone(found)));
        }
        let mut refused = files.values().filter_map(|k| k.content.as_ref().err());
        let why = refused.find(|(of, _)| *of == Some(digest));
        let held = lock(&self.held).get(&digest).and_then(Weak::upgrade);
        match (held.filter(|loaded| loaded.standing.is_good()), why) {
            (Some(held), _) => Ok(Some(held)),
            (None, Some((_, why))) => Err(PolicyBindError::Refused(digest, why.clone())),
            (None, None) => Ok(None),
        }
    }
}

/// What is told of an outcome.
fn change(content: &Content) -> PolicyChange {
    match content {
        Ok(loaded) => PolicyChange::Loaded {
            digest: loaded.digest,
            origin: Box::new(loaded.standing.origin()),
        },
        Err((_, reason)) => PolicyChange::Refused {
            reason: reason.clone(),
        },
    }
}

/// What every policy asks for.
fn asked() -> PermissionSet {
    PermissionSet {
        imports: ["log".to_owned()].into(),
        ..PermissionSet::default()
    }
}

/// Whether a component is a policy, good or not. Compiles it.
pub(crate) fn is_one(sandboxes: &Sandboxes, bytes: &[u8]) -> bool {
    let Ok((component, _)) = sandboxes.compile(bytes) else {
        return false;
    };
    let engine = component.engine();
    component
        .component_type()
        .exports(engine)
        .any(|(name, _)| name.starts_with(PACKAGE))
}

/// What a policy component asks for, if it may be used at all.
///
/// # Errors
/// [`LoadError`]: no host would use it.
pub(crate) fn asked_by(
    sandboxes: &Sandboxes,
    file: &str,
    source: Source,
) -> Result<PermissionSet, LoadError> {
    let digest = Digest::of(&source.bytes);
    load_source(sandboxes, &Trust::off(), file, source, digest).map(|_| asked())
}

fn load_source(
    sandboxes: &Sandboxes,
    trust: &Trust,
    file: &str,
    source: Source,
    digest: Digest,
) -> Result<Loaded, LoadError> {
    let (name, version) = load::parse_file_name(file)?;
    load::is_component(&source.bytes)?;
    outline::check(&source.bytes, sandboxes.config().large.modules).map_err(LoadError::Burden)?;
    // Before anything is compiled.
    let named = (file, &name, version.as_str());
    let pulled = source.pulled(digest);
    let origin = trust.judge_whole(named, digest, source.signature.clone(), &asked())?;
    let tag = format!("policy {name}@{}", digest.short());
    let guest = Prepared::new(sandboxes, &source.bytes, tag)?;
    // One that refuses empty settings in so many words is not broken.
    match guest.describe("{}") {
        Ok(_) | Err(PresetFault::Reported(_)) => {}
        Err(fault) => return Err(LoadError::Describe(fault)),
    }
    Ok(Loaded {
        file: file.to_owned(),
        name,
        version,
        digest,
        standing: Standing::new(source.signature, Origin { pulled, ..origin }),
        guest,
    })
}

fn check(description: &PolicyDescription, name: &str) -> Result<(), PolicyBindError> {
    let texts = [&description.display_name, &description.documentation_url];
    let fits = |text: &&String| {
        text.chars().count() <= LONGEST_TEXT && text.chars().all(crate::faults::is_harmless)
    };
    if description.name != name {
        return Err(PolicyBindError::Bad("its name is not that of its file"));
    }
    if !texts.iter().all(fits) {
        return Err(PolicyBindError::Bad(
            "a text is too long or holds what nobody can see",
        ));
    }
    let url = &description.documentation_url;
    if !(url.is_empty() || url.starts_with("https://")) {
        return Err(PolicyBindError::Bad(
            "its documentation is not at an https address",
        ));
    }
    Ok(())
}

/// A content under one record's settings.
struct Bound {
    loaded: Arc<Loaded>,
    settings: String,
    description: PolicyDescription,
}

impl Judge for Bound {
    fn digest(&self) -> Digest {
        self.loaded.digest
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Judgement, PresetFault> {
        let judgement = self
            .loaded
            .guest
            .judge(subject, &self.description, &self.settings)?;
        match &judgement {
            Judgement::Allow => {}
            Judgement::Deny { code, message } => {
                let good = code.len() <= 64
                    && code.starts_with(|c: char| c.is_ascii_lowercase())
                    && code
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
                if !good {
                    return Err(PresetFault::BadOutput(format!(
                        "{:?} is no code",
                        plain(code)
                    )));
                }
                checked_text(message)?;
            }
            Judgement::NeedApproval { message } => checked_text(message)?,
        }
        Ok(judgement)
    }
}

fn checked_text(text: &str) -> Result<(), PresetFault> {
    let fits = !text.trim().is_empty()
        && text.chars().count() <= LONGEST_TEXT
        && text.chars().all(crate::faults::is_harmless);
    if fits {
        return Ok(());
    }
    Err(PresetFault::BadOutput(
        "its message is empty, too long, or holds what nobody can see".into(),
    ))
}

/// Components in the folder, and when and how large they were last written. A
/// folder that is not there has none.
fn look(dir: &Path) -> BTreeMap<String, Stamp> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return BTreeMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            let component = written(&entry.path());
            let signature = written(&dir.join(format!("{file}{SIGNATURE_SUFFIX}")));
            let stamp = Stamp {
                component,
                signature,
            };
            (file.ends_with(".wasm") && !file.starts_with('.')).then_some((file, stamp))
        })
        .collect()
}

fn written(path: &Path) -> One {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
