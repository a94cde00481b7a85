//! A provider with the preset version in force for it.

use std::sync::Arc;

use countersign_core::names::ProviderName;
use countersign_oauth::Party;
use countersign_presets::Catalog;

use crate::registry::Registry;

/// The provider's record and its preset, if there are both.
#[must_use]
pub fn of(registry: &Registry, catalog: &Catalog, name: &ProviderName) -> Option<Party> {
    let provider = Arc::clone(registry.current().provider(name)?);
    let preset = catalog.current(name)?;
    Some(Party { provider, preset })
}
