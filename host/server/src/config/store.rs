//! `[store]`: where records are kept.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{Fault, Server, beside};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreRaw {
    url: Option<Spanned<String>>,
}

/// `[store]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Where records are kept.
    pub url: StoreUrl,
}

/// A store's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// The embedded database, in this folder.
    Sled(PathBuf),
}

impl Store {
    pub(super) fn checked(raw: StoreRaw, dir: &Path, server: &Server) -> Result<Self, Fault> {
        let Some(url) = raw.url else {
            return Ok(Self {
                url: StoreUrl::Sled(server.data_dir.join("vault")),
            });
        };
        let text = url.get_ref();
        let instead = "Write \"sled:\" and a folder: url = \"sled:data/vault\".";
        match text.split_once(':') {
            Some(("sled", path)) if !path.trim_start_matches('/').is_empty() => Ok(Self {
                url: StoreUrl::Sled(beside(dir, path)),
            }),
            Some(("sled", _)) => Err(Fault::at(
                &url,
                format!("{text:?} names no folder"),
                instead,
            )),
            // The value may hold a password: only its scheme is repeated.
            Some(("postgres" | "postgresql", _)) => Err(Fault::at(
                &url,
                "this version of Countersign has no PostgreSQL store",
                instead,
            )),
            _ => Err(Fault::at(
                &url,
                "the store's address begins with no known scheme",
                instead,
            )),
        }
    }
}
