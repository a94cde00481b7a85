//! `[presets]`: what is demanded of components in the catalog.

use serde::Deserialize;

use super::Fault;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PresetsRaw {
    #[serde(default)]
    signatures: Signatures,
    #[serde(default)]
    remember_verdicts: bool,
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
    /// Whether a verdict is asked for once for each call of a kind, instead of
    /// for each call; presets that want arguments are asked always.
    pub remember_verdicts: bool,
}

impl TryFrom<PresetsRaw> for Presets {
    type Error = Fault;

    fn try_from(raw: PresetsRaw) -> Result<Self, Fault> {
        Ok(Self {
            signatures: raw.signatures,
            remember_verdicts: raw.remember_verdicts,
        })
    }
}
