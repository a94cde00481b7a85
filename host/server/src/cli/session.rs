//! What `login` keeps: tokens by host, in the user's configuration folder, 0600.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::PathBuf;

use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::CliError;

/// Sessions by host.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sessions {
    hosts: BTreeMap<String, Session>,
}

/// One host's session.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Session {
    pub(super) access_token: Zeroizing<String>,
    pub(super) refresh_token: Option<Zeroizing<String>>,
    pub(super) expires_at: Timestamp,
    pub(super) token_endpoint: String,
    pub(super) revocation_endpoint: Option<String>,
}

/// The file, locked against other invocations, so that two of them never use
/// one rotating refresh token.
pub(super) struct Locked {
    file: File,
    pub(super) sessions: Sessions,
}

impl Sessions {
    /// What is kept now; nothing if there is no file.
    pub(super) fn load() -> Result<Self, CliError> {
        let path = path()?;
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&Zeroizing::new(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(CliError(format!("{} cannot be read: {e}", path.display()))),
        }
    }

    fn parse(text: &str) -> Result<Self, CliError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        // The parser's words could repeat a token.
        serde_json::from_str(text).map_err(|_| {
            let path = path().map(|p| p.display().to_string()).unwrap_or_default();
            CliError(format!(
                "{path} is damaged; delete it and run `countersign login`"
            ))
        })
    }

    /// The host, if there is only one.
    pub(super) fn only_host(&self) -> Option<String> {
        let mut hosts = self.hosts.keys();
        hosts.next().filter(|_| hosts.next().is_none()).cloned()
    }

    pub(super) fn get(&self, host: &str) -> Option<&Session> {
        self.hosts.get(host)
    }

    pub(super) fn put(&mut self, host: &str, session: Session) {
        self.hosts.insert(host.to_owned(), session);
    }

    pub(super) fn remove(&mut self, host: &str) -> Option<Session> {
        self.hosts.remove(host)
    }
}

impl Locked {
    /// Waits for other invocations, then reads.
    pub(super) fn open() -> Result<Self, CliError> {
        let path = path()?;
        let failed =
            |e: std::io::Error| CliError(format!("{} cannot be used: {e}", path.display()));
        if let Some(folder) = path.parent() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(folder).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(failed)?;
        #[cfg(unix)]
        {
            // Also when it was there before with other permissions.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            file.set_permissions(mode).map_err(failed)?;
        }
        file.lock().map_err(failed)?;
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(failed)?;
        Ok(Self {
            sessions: Sessions::parse(&text)?,
            file,
        })
    }

    /// Writes what changed. Other invocations may go on when this is dropped.
    pub(super) fn save(&mut self) -> Result<(), CliError> {
        let text =
            Zeroizing::new(serde_json::to_string_pretty(&self.sessions).map_err(CliError::new)?);
        let write = |file: &mut File| {
            file.rewind()?;
            file.set_len(0)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write(&mut self.file).map_err(|e| CliError(format!("the session cannot be kept: {e}")))
    }
}

fn path() -> Result<PathBuf, CliError> {
    let var = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let base = var("XDG_CONFIG_HOME").or_else(|| var("HOME").map(|home| home.join(".config")));
    let base = base.ok_or_else(|| {
        CliError("there is no HOME to keep a session in; use COUNTERSIGN_TOKEN".into())
    })?;
    Ok(base.join("countersign").join("session.json"))
}
