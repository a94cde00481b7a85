//! The names of what a component imports and exports, for those who file it.

use crate::engine::{EngineConfig, Sandboxes};
use crate::load::LoadError;

/// Full names (`countersign:preset/provider@0.1.0`), in the component's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// What it imports, types included.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
}

/// Reads them off a component. Blocks.
///
/// # Errors
/// [`LoadError`] if it does not compile.
pub fn interfaces_of(component: &[u8], config: EngineConfig) -> Result<Interfaces, LoadError> {
    let sandboxes = Sandboxes::new(config, None).map_err(|e| LoadError::Invalid(e.to_string()))?;
    let (component, _) = sandboxes
        .compile(component)
        .map_err(|e| LoadError::Invalid(crate::faults::plain(&e)))?;
    let (engine, ty) = (component.engine(), component.component_type());
    Ok(Interfaces {
        imports: ty
            .imports(engine)
            .map(|(name, _)| name.to_owned())
            .collect(),
        exports: ty
            .exports(engine)
            .map(|(name, _)| name.to_owned())
            .collect(),
    })
}
