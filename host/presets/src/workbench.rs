//! One component on its author's bench: loaded and bound as the host does it,
//! without a catalog, a signature or an approval.

use std::path::Path;
use std::sync::Arc;

use countersign_core::names::PresetName;
use countersign_core::preset::{Call, GrantFacts, Preset, PresetFault};
use countersign_core::provider::Provider;

use crate::approval::canonical_settings;
use crate::bound::Bound;
use crate::catalog::{Inspection, inspection};
use crate::engine::{EngineConfig, Sandboxes};
use crate::load::{self, LoadError, SharedLoaded};
use crate::permissions::PermissionSet;
use crate::signature::Trust;

/// A loaded component.
pub struct Workbench {
    file: String,
    loaded: SharedLoaded,
    // The engine's ticker lives as long as this.
    _sandboxes: Arc<Sandboxes>,
}

/// A component under one provider's settings.
pub struct Trial {
    bound: Arc<Bound>,
    settings: Option<String>,
}

impl Workbench {
    /// Takes a file through the whole load pipeline; its author need not have
    /// signed it yet.
    ///
    /// # Errors
    /// [`LoadError`], as a catalog would refuse it.
    pub fn open(path: &Path, config: EngineConfig) -> Result<Self, LoadError> {
        let file = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        load::parse_file_name(file)?;
        let source = load::read_all(path)?;
        let sandboxes =
            Sandboxes::new(config, None).map_err(|e| LoadError::Invalid(e.to_string()))?;
        Ok(Self {
            loaded: Arc::new(load::load(&sandboxes, &Trust::off(), file, source)?),
            file: file.to_owned(),
            _sandboxes: sandboxes,
        })
    }

    /// The preset's name, as the file name says.
    #[must_use]
    pub fn name(&self) -> &PresetName {
        &self.loaded.name
    }

    /// The version, as the file name says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.loaded.version
    }

    /// What it is, under empty settings.
    #[must_use]
    pub fn inspection(&self) -> Inspection {
        inspection(
            &self.file,
            &self.loaded,
            None,
            self.loaded.permissions.clone(),
        )
    }

    /// Describes, checks and tests it for a provider.
    ///
    /// # Errors
    /// [`LoadError`]: it can't serve this provider.
    pub fn bind(&self, provider: &Provider) -> Result<Trial, LoadError> {
        let bound = Bound::new(&self.loaded, provider)?;
        let wants = bound.description().wants.settings;
        Ok(Trial {
            settings: wants.then(|| canonical_settings(&provider.settings)),
            bound,
        })
    }
}

impl Trial {
    /// The preset, as calls get it.
    #[must_use]
    pub fn preset(&self) -> Arc<dyn Preset> {
        Arc::clone(&self.bound) as Arc<dyn Preset>
    }

    /// What an administrator would have to approve.
    #[must_use]
    pub fn permissions(&self) -> &PermissionSet {
        &self.bound.approval().permissions
    }

    /// Bytes of linear memory that one fresh call ends with.
    ///
    /// # Errors
    /// The call's fault.
    pub fn memory_of(&self, call: &Call<'_>, grant: &GrantFacts<'_>) -> Result<usize, PresetFault> {
        let guest = &self.bound.loaded().guest;
        guest.memory_of(call, self.settings.as_deref(), grant)
    }

    /// Calls `evaluate` again and again in one sandbox, as no host does: for
    /// comparison. `after` runs after each call.
    ///
    /// # Errors
    /// The first fault.
    pub fn kept(
        &self,
        rounds: u32,
        call: &Call<'_>,
        grant: &GrantFacts<'_>,
        after: &mut dyn FnMut(),
    ) -> Result<(), PresetFault> {
        let guest = &self.bound.loaded().guest;
        guest.kept(rounds, call, self.settings.as_deref(), grant, after)
    }
}
