//! `[presets]`: what is demanded of components in the catalog.

use serde::Deserialize;

use super::Fault;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PresetsRaw {
    #[serde(default)]
    signatures: Signatures,
}

/// What is demanded of a component's signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signatures {
    /// No component without a good signature.
    #[default]
    Require,
    /// Unsigned components load with a warning.
    Warn,
    /// Signatures are not looked at.
    Off,
}

/// `[presets]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presets {
    /// What is demanded of signatures.
    pub signatures: Signatures,
}

impl TryFrom<PresetsRaw> for Presets {
    type Error = Fault;

    fn try_from(raw: PresetsRaw) -> Result<Self, Fault> {
        Ok(Self {
            signatures: raw.signatures,
        })
    }
}
