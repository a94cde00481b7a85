//! Debian's OCI registry, on this machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::process::{self, Log, free_port};

/// The one account of a registry that demands a sign-in.
pub const REGISTRY_USER: &str = "ada";
/// Its password.
pub const REGISTRY_PASSWORD: &str = "correct horse";
/// The same, as bcrypt has it.
const HASH: &str = "$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2";

/// A running `docker-registry`.
pub struct DockerRegistry {
    /// `127.0.0.1:PORT`.
    pub host: String,
    folder: TempDir,
    _child: Child,
    _log: Log,
}

/// What `cargo xtask setup` brought, or what is on the path.
fn program() -> PathBuf {
    let own = process::repository().join("tests/counterparts/docker-registry");
    if own.is_file() {
        own
    } else {
        "docker-registry".into()
    }
}

impl DockerRegistry {
    /// Starts one that takes everybody, or only [`REGISTRY_USER`].
    ///
    /// # Errors
    /// If it is not installed, or does not start.
    pub async fn start(sign_in: bool) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("countersign-registry-")
            .tempdir()?;
        let host = format!("127.0.0.1:{}", free_port()?);
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{host}'}}\n",
            path("data")
        );
        if sign_in {
            fs::write(path("htpasswd"), format!("{REGISTRY_USER}:{HASH}\n"))?;
            config.push_str(&format!(
                "auth: {{htpasswd: {{realm: tests, path: {}}}}}\n",
                path("htpasswd")
            ));
        }
        fs::write(path("config.yml"), config)?;
        let mut command = Command::new(program());
        command
            .arg("serve")
            .arg(path("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none");
        let (mut child, log) = process::spawn(&mut command)
            .context("docker-registry does not start: `cargo xtask setup` brings it")?;
        log.wait_for("listening on", &mut child).await?;
        Ok(Self {
            host,
            folder,
            _child: child,
            _log: log,
        })
    }

    /// Where it keeps the content of this digest (`sha256:…`).
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let place = format!(
            "data/docker/registry/v2/blobs/sha256/{}/{hex}/data",
            hex.get(..2).unwrap_or_default()
        );
        self.folder.path().join(Path::new(&place))
    }
}
