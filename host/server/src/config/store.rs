//! `[store]`: where records are kept.

use std::path::{Path, PathBuf};

use countersign_vault::store::postgres::{AddressError, Database};
use serde::Deserialize;
use toml::Spanned;

use super::{Fault, Server, beside};

/// More would only wait for each other.
const MOST_CONNECTIONS: u32 = 100;
/// In MiB; beyond it the operating system of the database server caches better.
const MOST_CACHE: u32 = 64 * 1024;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreRaw {
    url: Option<Spanned<String>>,
    password_file: Option<Spanned<String>>,
    connections: Option<Spanned<u32>>,
    cache_mib: Option<Spanned<u32>>,
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
    /// A database for several hosts.
    Postgres {
        /// Where it is. Without a password, unless that is in the address.
        database: Box<Database>,
        /// The file that holds the password and nothing else.
        password_file: Option<PathBuf>,
        /// Most connections.
        connections: usize,
        /// Most bytes of rows in memory.
        cache: usize,
    },
}

impl Store {
    pub(super) fn checked(raw: StoreRaw, dir: &Path, server: &Server) -> Result<Self, Fault> {
        let is_postgres = raw.url.as_ref().is_some_and(|url| {
            let scheme = url.get_ref().split_once(':').map(|(scheme, _)| scheme);
            matches!(scheme, Some("postgres" | "postgresql"))
        });
        if !is_postgres {
            let alone = "Remove it; only a store at postgres://\u{2026} has it.";
            let of_postgres = |what: &str| format!("{what} means nothing for a sled store");
            if let Some(file) = &raw.password_file {
                return Err(Fault::at(file, of_postgres("password_file"), alone));
            }
            for (what, value) in [
                ("connections", &raw.connections),
                ("cache_mib", &raw.cache_mib),
            ] {
                if let Some(value) = value {
                    return Err(Fault::at(value, of_postgres(what), alone));
                }
            }
        }
        let Some(url) = raw.url else {
            return Ok(Self {
                url: StoreUrl::Sled(server.data_dir.join("vault")),
            });
        };
        if is_postgres {
            return Self::postgres(&url, raw.password_file, raw.connections, raw.cache_mib, dir);
        }
        let text = url.get_ref();
        let instead = "Write \"sled:\" and a folder (url = \"sled:data/vault\"), or the address of a \
                       PostgreSQL database (url = \"postgres://USER@HOST:5432/DATABASE\").";
        match text.split_once(':') {
            Some(("sled", path)) if !path.trim_start_matches('/').is_empty() => Ok(Self {
                url: StoreUrl::Sled(beside(dir, path)),
            }),
            Some(("sled", _)) => Err(Fault::at(
                &url,
                format!("{text:?} names no folder"),
                instead,
            )),
            _ => Err(Fault::at(
                &url,
                "the store's address begins with no known scheme",
                instead,
            )),
        }
    }

    fn postgres(
        url: &Spanned<String>,
        password_file: Option<Spanned<String>>,
        connections: Option<Spanned<u32>>,
        cache_mib: Option<Spanned<u32>>,
        dir: &Path,
    ) -> Result<Self, Fault> {
        // The value may hold a password: nothing of it is repeated.
        let database = Database::parse(url.get_ref()).map_err(|error| {
            let problem = match error {
                AddressError::Address(why) => format!("the store's address cannot be read: {why}"),
                other => other.to_string(),
            };
            let instead = "Write url = \"postgres://USER@HOST:5432/DATABASE?sslmode=verify-full\", with \
                           %40 for an @ and %2F for a / within a name.";
            Fault::at(url, problem, instead)
        })?;
        if let Some(file) = password_file.as_ref().filter(|_| database.has_password()) {
            return Err(Fault::at(
                file,
                "the password is in the address already",
                "Remove it from the address; a file is the better place.",
            ));
        }
        let number = |value: Option<Spanned<u32>>, default: u32, least: u32, most: u32| {
            let Some(value) = value else {
                return Ok(default);
            };
            if (least..=most).contains(value.get_ref()) {
                return Ok(*value.get_ref());
            }
            Err(Fault::at(
                &value,
                format!("{} is out of range", value.get_ref()),
                format!("Write a number from {least} to {most}; {default} is the default."),
            ))
        };
        let connections = number(connections, 10, 2, MOST_CONNECTIONS)?;
        let cache_mib = number(cache_mib, 64, 1, MOST_CACHE)?;
        Ok(Self {
            url: StoreUrl::Postgres {
                database: Box::new(database),
                password_file: password_file.map(|file| beside(dir, file.get_ref())),
                connections: connections as usize,
                cache: cache_mib as usize * 1024 * 1024,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, StoreUrl};

    const KEYS: &str = "[keys]\nsource = { env = \"K\" }\n";

    fn parse(store: &str) -> Result<Config, crate::config::ConfigError> {
        Config::parse(
            "/etc/cs/countersign.toml".as_ref(),
            &format!("[store]\n{store}\n{KEYS}"),
        )
    }

    #[test]
    fn a_database_for_several_hosts_is_read() {
        let config = parse(
            "url = \"postgres://cs@db.example:5433/cs?sslmode=verify-full\"\n\
             password_file = \"db.password\"\nconnections = 20",
        )
        .unwrap();
        let StoreUrl::Postgres {
            database,
            password_file,
            connections,
            cache,
        } = config.store.url
        else {
            panic!("not PostgreSQL");
        };
        assert_eq!(database.name(), "cs at db.example:5433");
        assert_eq!(password_file, Some("/etc/cs/db.password".into()));
        assert_eq!((connections, cache), (20, 64 << 20));
    }

    #[test]
    fn no_refusal_and_no_debug_output_shows_a_password() {
        for store in [
            "url = \"postgres://cs:hunter2@db.example:no/cs\"",
            "url = \"postgres://cs:hunter2@db.example/cs?sslmode=maybe\"",
            "url = \"postgres://cs:hunter2@db.example/cs\"\npassword_file = \"f\"",
            "url = \"postgres://cs:hunter2@db.example/cs\"\nconnections = 1",
        ] {
            let error = parse(store).unwrap_err();
            let said = error.to_string();
            assert!(error.line.is_some() && !said.contains("hunter2"), "{said}");
        }
        let config = parse("url = \"postgres://cs:hunter2@db.example/cs\"").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let error = parse("url = \"sled:vault\"\ncache_mib = 5").unwrap_err();
        assert_eq!(error.line, Some(3));
    }
}
