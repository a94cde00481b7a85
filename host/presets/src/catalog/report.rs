//! What the catalog says: states, proposals, events, refusals.

use countersign_core::names::{Digest, PresetName, ProviderName};
use countersign_core::preset::Description;
use serde::Serialize;

use crate::approval::Approval;
use crate::engine::EngineError;
use crate::load::Loaded;
use crate::permissions::{PermissionDifference, PermissionSet, hook_names};
use crate::signature::Origin;

/// The catalog could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No sandboxes.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The directory is not there and cannot be made, or can't be listed.
    #[error(
        "the catalog directory {dir} cannot be used: {error}; set server.catalog_dir to a directory this process can read"
    )]
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
    /// Who vouches for it.
    pub origin: Origin,
    /// What to store when it is agreed to.
    pub approval: Approval,
    /// Against what serves now, or else what was approved last.
    pub difference: PermissionDifference,
}

/// A version that serves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Serving {
    /// The file's name.
    pub file: String,
    /// As the file name says.
    pub version: String,
    /// Of the component.
    pub digest: Digest,
    /// Who vouches for it.
    pub origin: Origin,
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
    /// Versions newer than the one that serves, or all if none does, and why
    /// they do not; what waits for approval aside.
    pub passed_over: Vec<PassedOver>,
}

/// A version that does not serve a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// The file's name.
    pub file: String,
    /// As the file name says.
    pub version: String,
    /// Of the component.
    pub digest: Digest,
    /// Why not.
    pub reason: String,
}

impl std::fmt::Display for PassedOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file, self.reason)
    }
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
    /// It is not in the directory any more, and serves on as the last good
    /// content until another version may.
    Kept,
    /// It serves nobody any more; calls that began on it finish, then its
    /// compiled code is dropped.
    Draining,
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
    /// Who vouches for the same content.
    pub origin: Option<Origin>,
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
    /// What it may do for a provider that adds nothing of its own, if it says
    /// so under these settings.
    pub permissions: Option<PermissionSet>,
    /// What it says of itself, if the settings suit it.
    pub description: Option<Description>,
}

/// What became of a policy component's file.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum PolicyChange {
    /// Policies may name it.
    Loaded {
        /// Of its content.
        digest: Digest,
        /// Who vouches for it.
        origin: Box<Origin>,
    },
    /// It may not be used; what was bound before goes on as far as it may.
    Refused {
        /// Why.
        reason: String,
    },
    /// It is gone.
    Removed,
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
        /// Who vouches for it.
        origin: Box<Origin>,
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
        automatic: Option<Box<Approval>>,
    },
    /// A version waits for approval.
    Pending {
        /// What waits.
        proposal: Box<Proposal>,
    },
    /// A policy component was loaded, refused or removed.
    Policy {
        /// The file's name in the folder `policies`.
        file: String,
        /// What happened.
        change: PolicyChange,
    },
    /// A version failed for several users where the one before does not, and
    /// was taken back. To be stored, or the next start tries it again.
    RolledBack {
        /// For whom.
        provider: ProviderName,
        /// What failed.
        from: Digest,
        /// Its version.
        version: String,
        /// How it failed, and for how many.
        reason: String,
    },
}

pub(super) fn entry(file: &str, loaded: &Loaded, refusal: Option<&str>) -> CatalogEntry {
    CatalogEntry {
        file: file.to_owned(),
        preset: Some(loaded.name.clone()),
        version: Some(loaded.version.clone()),
        digest: Some(loaded.digest),
        size: Some(loaded.size),
        origin: Some(loaded.standing.origin()),
        state: match (refusal, &loaded.description) {
            (Some(reason), _) => FileState::Refused {
                reason: reason.to_owned(),
            },
            (None, Ok(_)) => FileState::Loaded,
            (None, Err(reason)) => FileState::NeedsSettings {
                reason: reason.clone(),
            },
        },
    }
}

pub(crate) fn inspection(
    file: &str,
    loaded: &Loaded,
    refusal: Option<&str>,
    permissions: Option<PermissionSet>,
) -> Inspection {
    Inspection {
        entry: entry(file, loaded, refusal),
        imports: loaded.imports.iter().cloned().collect(),
        hooks: hook_names(loaded.guest.exported_hooks())
            .into_iter()
            .collect(),
        permissions,
        description: loaded.description.as_ref().ok().cloned(),
    }
}
