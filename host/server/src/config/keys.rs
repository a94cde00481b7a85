//! `[keys]`: where the key-encryption keys come from. Never a key itself.

use std::path::Path;

use countersign_vault::keys::{KeyError, KeyRing, KeySource};
use serde::Deserialize;
use toml::Spanned;

use super::{Fault, beside};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeysRaw {
    source: Spanned<SourceRaw>,
    #[serde(default)]
    old: Vec<Spanned<SourceRaw>>,
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
    /// Where the current key comes from.
    pub source: KeySource,
    /// Where those before it come from, which records may still need.
    pub old: Vec<KeySource>,
}

impl Keys {
    pub(super) fn checked(raw: KeysRaw, dir: &Path) -> Result<Self, Fault> {
        let source = checked(&raw.source, dir)?;
        let mut old: Vec<KeySource> = Vec::new();
        for each in &raw.old {
            let found = checked(each, dir)?;
            if found == source || old.contains(&found) {
                return Err(Fault::at(
                    each,
                    format!("[keys] names the {found} twice"),
                    "List under old only the sources of the keys before the current one, each once.",
                ));
            }
            old.push(found);
        }
        Ok(Self { source, old })
    }

    /// Fetches all of them.
    ///
    /// # Errors
    /// [`KeyError`]; there is no default key.
    pub async fn load(&self) -> Result<KeyRing, KeyError> {
        KeyRing::load_all(&self.source, &self.old).await
    }
}

fn checked(raw: &Spanned<SourceRaw>, dir: &Path) -> Result<KeySource, Fault> {
    let instead = "Write exactly one of: { file = \"data/master.key\" }, { env = \"NAME\" }, \
                   { command = [\"program\", \"argument\"] }, { systemd = \"credential\" }.";
    let refuse = |problem: &str| Fault::at(raw, problem, instead);
    let source = raw.get_ref();
    match (&source.file, &source.env, &source.command, &source.systemd) {
        (Some(file), None, None, None) if !file.is_empty() => {
            Ok(KeySource::File(beside(dir, file)))
        }
        (None, Some(env), None, None) if !env.is_empty() => Ok(KeySource::Env(env.clone())),
        (None, None, Some(command), None) if command.first().is_some_and(|c| !c.is_empty()) => {
            Ok(KeySource::Command(command.clone()))
        }
        (None, None, None, Some(name)) if !name.is_empty() && !name.contains('/') => {
            Ok(KeySource::Systemd(name.clone()))
        }
        (None, None, None, None) => Err(refuse("the key source names nothing")),
        (Some(_), None, None, None)
        | (None, Some(_), None, None)
        | (None, None, Some(_), None)
        | (None, None, None, Some(_)) => Err(refuse("the key source is empty or not a name")),
        _ => Err(refuse("the key source names more than one place")),
    }
}
