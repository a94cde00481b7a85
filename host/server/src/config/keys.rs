//! `[keys]`: where the key-encryption key comes from. Never the key itself.

use std::path::Path;

use countersign_vault::keys::KeySource;
use serde::Deserialize;
use toml::Spanned;

use super::{Fault, beside};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeysRaw {
    source: Spanned<SourceRaw>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceRaw {
    file: Option<String>,
    env: Option<String>,
    command: Option<Vec<String>>,
    systemd: Option<String>,
}

/// `[keys]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Where the key comes from.
    pub source: KeySource,
}

impl Keys {
    pub(super) fn checked(raw: KeysRaw, dir: &Path) -> Result<Self, Fault> {
        let instead = "Write exactly one of: source = { file = \"data/master.key\" }, { env = \"NAME\" }, \
                       { command = [\"program\", \"argument\"] }, { systemd = \"credential\" }.";
        let refuse = |problem: &str| Fault::at(&raw.source, problem, instead);
        let source = raw.source.get_ref();
        match (&source.file, &source.env, &source.command, &source.systemd) {
            (Some(file), None, None, None) if !file.is_empty() => Ok(Self {
                source: KeySource::File(beside(dir, file)),
            }),
            (None, Some(env), None, None) if !env.is_empty() => Ok(Self {
                source: KeySource::Env(env.clone()),
            }),
            (None, None, Some(command), None) if command.first().is_some_and(|c| !c.is_empty()) => {
                Ok(Self {
                    source: KeySource::Command(command.clone()),
                })
            }
            (None, None, None, Some(name)) if !name.is_empty() && !name.contains('/') => Ok(Self {
                source: KeySource::Systemd(name.clone()),
            }),
            (None, None, None, None) => Err(refuse("the key source names nothing")),
            (Some(_), None, None, None)
            | (None, Some(_), None, None)
            | (None, None, Some(_), None)
            | (None, None, None, Some(_)) => Err(refuse("the key source is empty or not a name")),
            _ => Err(refuse("the key source names more than one place")),
        }
    }
}
