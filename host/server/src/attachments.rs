//! Servers as calls meet them: record, provider, preset version, policies, and
//! what follows from them, made anew when one of them changes.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_core::decide::{Attachment, Unusable};
use countersign_core::error::CallError;
use countersign_core::names::ServerName;
use countersign_core::policy::Rules;
use countersign_core::preset::{Preset, PresetFault};
use countersign_presets::Catalog;

use crate::registry::Registry;
use crate::verdicts::Remembering;

/// Why there is nothing to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAttached {
    /// No server of that name.
    Unknown,
    /// There is one, and it cannot be used as it is.
    Unusable(CallError),
}

/// The cache; one pointer load and four pointer comparisons on the hot path.
pub struct Attachments {
    registry: Arc<Registry>,
    catalog: Arc<Catalog>,
    remember_verdicts: bool,
    made: ArcSwap<HashMap<ServerName, Made>>,
}

#[derive(Clone)]
struct Made {
    attachment: Arc<Attachment>,
    /// As the catalog gave it: what the attachment holds may be a wrapper.
    preset: Option<Arc<dyn Preset>>,
    policies: Arc<Rules>,
}

impl Attachments {
    /// An empty cache over the two.
    #[must_use]
    pub fn new(registry: Arc<Registry>, catalog: Arc<Catalog>, remember_verdicts: bool) -> Self {
        Self {
            registry,
            catalog,
            remember_verdicts,
            made: ArcSwap::default(),
        }
    }

    /// The attachment of the server as it is registered now, pinned: a change
    /// or a swap during the call does not touch it.
    ///
    /// # Errors
    /// [`NotAttached`].
    pub fn pin(&self, name: &ServerName) -> Result<Arc<Attachment>, NotAttached> {
        let snapshot = self.registry.current();
        let server = snapshot.server(name).ok_or(NotAttached::Unknown)?;
        let provider = server
            .auth
            .provider
            .as_ref()
            .and_then(|p| snapshot.provider(p));
        let preset = provider.and_then(|p| self.catalog.current(&p.name));
        if let Some(made) = self.made.load().get(name)
            && Arc::ptr_eq(made.attachment.server(), server)
            && same(made.attachment.provider(), provider)
            && same_preset(made.preset.as_ref(), preset.as_ref())
            && Arc::ptr_eq(&made.policies, &snapshot.rules)
        {
            return Ok(Arc::clone(&made.attachment));
        }
        let judge = match &preset {
            Some(preset) if self.remember_verdicts => Some(Remembering::wrap(Arc::clone(preset))),
            preset => preset.clone(),
        };
        let attachment = Attachment::new(
            Arc::clone(server),
            provider.cloned(),
            judge,
            &snapshot.rules,
        )
        .map_err(|e| NotAttached::Unusable(self.explain(name, &e)))?;
        let attachment = Arc::new(attachment);
        let made = Made {
            attachment: Arc::clone(&attachment),
            preset,
            policies: Arc::clone(&snapshot.rules),
        };
        self.made.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.insert(name.clone(), made.clone());
            all
        });
        Ok(attachment)
    }

    /// Lets go of versions that serve no more: their compiled code is dropped
    /// when the last call on them ends.
    pub fn forget_outdated(&self) {
        let snapshot = self.registry.current();
        let is_current = |made: &Made| {
            let provider = made.attachment.provider().map(|p| &p.name);
            let preset = provider
                .filter(|name| snapshot.provider(name).is_some())
                .and_then(|name| self.catalog.current(name));
            same_preset(made.preset.as_ref(), preset.as_ref())
        };
        self.made.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.retain(|_, made| is_current(made));
            all
        });
    }

    fn explain(&self, name: &ServerName, why: &Unusable) -> CallError {
        tracing::warn!(server = %name, %why, "the server cannot be used");
        CallError::Preset(PresetFault::Unavailable(match why {
            Unusable::NoPreset(_) => {
                "no version of the provider's preset is loaded, enabled and approved; an administrator can see why with `countersign preset list`".into()
            }
            other => other.to_string(),
        }))
    }
}

fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        // Modes without a provider keep none, whatever the record names.
        (None, _) => true,
        (Some(_), None) => false,
    }
}

fn same_preset(a: Option<&Arc<dyn Preset>>, b: Option<&Arc<dyn Preset>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
        (None, None) => true,
        _ => false,
    }
}
