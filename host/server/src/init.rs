//! `countersign init`: a configuration, a key, and an administrator.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_core::names::UserName;
use countersign_core::ports::{BoxFuture, StoreError};
use countersign_identity::{
    AccountChange, AccountEvents, Bootstrap, Identity, Parts, PublicUrl, Resources, ServerFacts,
    Settings,
};
use countersign_vault::keys::{KeyError, KeyRing};
use countersign_vault::store::postgres::Database;
use serde::Serialize;

use crate::config::{Config, ConfigError, ListenAndUrl};
use crate::opening::{Opened, OpeningError};
use crate::surroundings::OsRandom;

/// What to set up.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Where; made if absent.
    pub dir: PathBuf,
    /// Address to bind.
    pub listen: Option<String>,
    /// What it is called from outside.
    pub public_url: Option<String>,
    /// Where records are kept, if not in sled.
    pub store: Option<String>,
    /// The file with the database's password.
    pub store_password_file: Option<PathBuf>,
}

/// What was set up; shown once.
#[derive(Serialize)]
pub struct Initialised {
    /// The configuration file.
    pub config: String,
    /// The administrator.
    pub admin_user: String,
    /// For signing in.
    pub admin_password: String,
    /// Of kind `api`.
    pub admin_token: String,
}

/// Why nothing, or not all, was set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is something already.
    #[error("{} exists already and is not overwritten; remove it first, or choose another --dir", .0.display())]
    Exists(PathBuf),
    /// An option is not acceptable.
    #[error("{problem}\n  {instead}")]
    Option {
        /// What is wrong.
        problem: String,
        /// What to write instead.
        instead: String,
    },
    /// A file could not be written.
    #[error("cannot write {}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        cause: std::io::Error,
    },
    /// The key file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What was written is not accepted; a mistake of this program.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Opening(#[from] OpeningError),
    /// The account.
    #[error("the administrator's account could not be made: {0}")]
    Account(String),
}

const ADMIN: &str = "admin";

/// Sets everything up.
///
/// # Errors
/// [`InitError`]. Files that were written before a failure stay, and are named
/// by the next attempt.
pub async fn init(options: &InitOptions) -> Result<Initialised, InitError> {
    let chosen = ListenAndUrl::parse(options.listen.as_deref(), options.public_url.as_deref())
        .map_err(|(problem, instead)| InitError::Option { problem, instead })?;
    let store = store_text(options)?;
    let config_file = options.dir.join("countersign.toml");
    let data = options.dir.join("data");
    let key_file = data.join("master.key");
    for path in [&config_file, &key_file, &data.join("vault")] {
        if path.exists() {
            return Err(InitError::Exists(path.clone()));
        }
    }
    for folder in [&options.dir, &options.dir.join("catalog")] {
        fs::create_dir_all(folder).map_err(|cause| InitError::File {
            path: folder.clone(),
            cause,
        })?;
    }
    private_folder(&data)?;
    KeyRing::generate_file(&key_file, &OsRandom)?;
    let text = config_text(&chosen, &store);
    write_new(&config_file, &text)?;
    let config = Config::load(&config_file)?;
    let bootstrap = administrator(&config).await?;
    Ok(Initialised {
        config: fs::canonicalize(&config_file)
            .unwrap_or(config_file)
            .display()
            .to_string(),
        admin_user: ADMIN.to_owned(),
        admin_password: bootstrap.password.reveal(),
        admin_token: bootstrap.token.reveal(),
    })
}

async fn administrator(config: &Config) -> Result<Bootstrap, InitError> {
    let opened = Opened::new(config).await?;
    let account = |e: &dyn std::fmt::Display| InitError::Account(e.to_string());
    let public_url =
        PublicUrl::parse(config.server.public_url.as_str()).map_err(|e| account(&e))?;
    let identity = Identity::new(Parts {
        world: opened.world.clone(),
        key: opened.key("identity").map_err(OpeningError::from)?,
        settings: Settings::new(public_url),
        resources: Arc::new(NothingYet),
        accounts: Arc::new(NothingYet),
        metadata: None,
        issuer_keys: None,
    });
    let admin = UserName::parse(ADMIN).map_err(|e| account(&e))?;
    let bootstrap = identity.bootstrap(admin).await.map_err(|e| account(&e))?;
    opened.audit.close().await;
    Ok(bootstrap)
}

/// A new installation has no servers and no connections.
struct NothingYet;

impl Resources for NothingYet {
    fn server<'a>(
        &'a self,
        _: &'a countersign_core::names::ServerName,
    ) -> BoxFuture<'a, Result<Option<ServerFacts>, StoreError>> {
        Box::pin(async { Ok(None) })
    }
}

impl AccountEvents for NothingYet {
    fn changed<'a>(
        &'a self,
        _: &'a UserName,
        _: AccountChange,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}

/// What stands under `[store]`. A password in the address would be seen in the
/// list of processes, and stay in the configuration.
fn store_text(options: &InitOptions) -> Result<String, InitError> {
    let refuse = |problem: String, instead: &str| InitError::Option {
        problem,
        instead: instead.to_owned(),
    };
    let Some(url) = &options.store else {
        return match &options.store_password_file {
            None => Ok("url = \"sled:data/vault\"\n".into()),
            Some(_) => Err(refuse(
                "a password file means nothing without a database".into(),
                "Say which with --store postgres://USER@HOST:5432/DATABASE.",
            )),
        };
    };
    let file = "Write it into a file that only you can read, and name that with \
                --store-password-file FILE.";
    if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        let database = Database::parse(url).map_err(|e| refuse(e.to_string(), ""))?;
        if database.has_password() {
            return Err(refuse("the address holds a password".into(), file));
        }
    } else if !url.starts_with("sled:") {
        return Err(refuse(
            "the store's address begins with no known scheme".into(),
            "Write --store postgres://USER@HOST:5432/DATABASE, or --store sled:FOLDER.",
        ));
    }
    let mut text = format!("url = {}\n", toml::Value::from(url.as_str()));
    if let Some(path) = &options.store_password_file {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let path = toml::Value::from(path.display().to_string());
        text.push_str(&format!("password_file = {path}\n"));
    }
    Ok(text)
}

fn config_text(chosen: &ListenAndUrl, store: &str) -> String {
    let url = chosen.public_url.as_str().trim_end_matches('/');
    let private = if countersign_core::hosts::is_loopback(&chosen.public_url) {
        "# The public URL is this machine only, so servers and providers on it may be used.\n\
         allow_private_upstreams = [\"127.0.0.1:*\", \"localhost:*\"]\n"
    } else {
        "# For example [\"10.0.0.5:8443\"]; without a line here no private address is used.\n\
         allow_private_upstreams = []\n"
    };
    format!(
        r#"# Written by `countersign init`. Relative paths are relative to this file.
[server]
listen = "{listen}"
public_url = "{url}"
data_dir = "data"
catalog_dir = "catalog"

[store]
{store}
[keys]
# Without this key nothing in the store can be read: keep a copy elsewhere.
source = {{ file = "data/master.key" }}

[identity]
embedded = true

[network]
# Private addresses that administrators may use for servers and providers.
{private}
[presets]
# Only presets that a publisher you trust has signed are loaded. To vouch for some yourself,
# the presets that come with Countersign for example:
#   countersign preset keygen NAME
#   countersign preset sign catalog/github-0.1.0.wasm --key NAME.key
#   countersign preset trust NAME.pub
# "warn" loads others with a warning, "off" does not look.
signatures = "require"
"#,
        listen = chosen.listen,
    )
}

fn write_new(path: &Path, text: &str) -> Result<(), InitError> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|cause| match cause.kind() {
        std::io::ErrorKind::AlreadyExists => InitError::Exists(path.to_owned()),
        _ => InitError::File {
            path: path.to_owned(),
            cause,
        },
    })
}

fn private_folder(path: &Path) -> Result<(), InitError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|cause| InitError::File {
        path: path.to_owned(),
        cause,
    })
}
