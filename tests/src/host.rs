//! The host itself: the built binary, in a folder of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::browser::Person;
use crate::process::{self, Log, free_port, repository};
use crate::web::{Answer, Web};

/// What `countersign init` gave out.
pub struct Admin {
    /// Name.
    pub user: String,
    /// Works once.
    pub password: String,
    /// Of kind `api`.
    pub token: String,
}

/// How a host is set up.
#[derive(Clone)]
pub struct HostOptions {
    /// Presets that are in its catalog.
    pub presets: Vec<String>,
    /// What `COUNTERSIGN_LOG` says.
    pub log: String,
    /// What it is called from outside, if not by its own address.
    pub public_url: Option<String>,
    /// Its store, if not sled in its folder; the password is
    /// [`crate::postgres::PASSWORD`].
    pub store: Option<String>,
    /// Tokens are renewed in the background, too. Off by default: tests of what
    /// calls do would never meet a token that has ended.
    pub background: bool,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            presets: vec!["generic".into()],
            background: false,
            log: "debug,hyper=info,reqwest=info,sled=info,wasmtime=info,cranelift=info,h2=info"
                .into(),
            public_url: None,
            store: None,
        }
    }
}

/// A running host.
pub struct Host {
    /// Its public URL, without a slash at the end.
    pub url: String,
    /// Where it listens itself.
    pub own_url: String,
    /// The administrator.
    pub admin: Admin,
    folder: TempDir,
    child: Option<Child>,
    log: Log,
    log_level: String,
    web: Web,
}

impl Host {
    /// Initialises and serves.
    ///
    /// # Errors
    /// With what the host said.
    pub async fn start(options: &HostOptions) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("countersign-test-")
            .tempdir()?;
        let port = free_port()?;
        let listen = format!("127.0.0.1:{port}");
        let own_url = format!("http://{listen}");
        let url = options.public_url.clone().unwrap_or(own_url.clone());
        let mut init = Command::new(process::built("countersign")?);
        if let Some(store) = &options.store {
            let file = folder.path().join("database.password");
            fs::write(&file, crate::postgres::PASSWORD)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
            init.args(["init", "--store", store, "--store-password-file"]);
            init.arg(file);
        } else {
            init.arg("init");
        }
        let output = init
            .args([
                "--output",
                "json",
                "--public-url",
                &url,
                "--listen",
                &listen,
                "--dir",
            ])
            .arg(folder.path())
            .stdin(Stdio::null())
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "init: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let given: Value =
            serde_json::from_slice(&output.stdout).context("init printed no JSON")?;
        let text = |name: &str| given[name].as_str().unwrap_or_default().to_owned();
        let mut host = Self {
            url,
            own_url,
            admin: Admin {
                user: text("admin_user"),
                password: text("admin_password"),
                token: text("admin_token"),
            },
            folder,
            child: None,
            log: Log::default(),
            log_level: options.log.clone(),
            web: Web::new()?,
        };
        host.configure(|config| {
            config["presets"]["signatures"] = "off".into();
            let mut refresh = toml::Table::new();
            refresh.insert("background".into(), options.background.into());
            config.insert("refresh".into(), refresh.into());
        })?;
        fs::create_dir_all(host.catalog())?;
        for preset in &options.presets {
            host.install(preset)?;
        }
        host.serve().await?;
        Ok(host)
    }

    /// Another host on the same store: the same configuration and key, in a
    /// folder and at an address of its own.
    ///
    /// # Errors
    /// With what it said.
    pub async fn twin(&self) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("countersign-test-")
            .tempdir()?;
        copy_folder(self.folder.path(), folder.path())?;
        let listen = format!("127.0.0.1:{}", free_port()?);
        let mut host = Self {
            url: self.url.clone(),
            own_url: format!("http://{listen}"),
            admin: Admin {
                user: self.admin.user.clone(),
                password: self.admin.password.clone(),
                token: self.admin.token.clone(),
            },
            folder,
            child: None,
            log: Log::default(),
            log_level: self.log_level.clone(),
            web: Web::new()?,
        };
        host.configure(|config| config["server"]["listen"] = listen.into())?;
        host.serve().await?;
        Ok(host)
    }

    /// Sends it a signal, `-STOP` for example.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid().context("it does not run")?.to_string();
        let status = Command::new("kill").args([signal, &pid]).status().await?;
        ensure!(status.success(), "{signal} could not be sent");
        Ok(())
    }

    /// An address of this very host, whoever stands in front.
    pub fn directly_at(&self, path: &str) -> String {
        format!("{}{path}", self.own_url)
    }

    /// Changes `countersign.toml`; a restart makes it hold.
    ///
    /// # Errors
    /// If the file is not what `init` writes.
    pub fn configure(&self, change: impl FnOnce(&mut toml::Table)) -> Result<()> {
        let mut config: toml::Table = fs::read_to_string(self.config())?.parse()?;
        change(&mut config);
        Ok(fs::write(self.config(), config.to_string())?)
    }

    /// Copies a built preset into the catalog.
    ///
    /// # Errors
    /// If it is not built.
    pub fn install(&self, preset: &str) -> Result<PathBuf> {
        let source = built_preset(preset)?;
        let target = self.catalog().join(source.file_name().unwrap_or_default());
        fs::copy(source, &target)?;
        Ok(target)
    }

    /// Serves again what was stopped or killed.
    ///
    /// # Errors
    /// With what the host said.
    pub async fn serve(&mut self) -> Result<()> {
        let mut command = Command::new(process::built("countersign")?);
        command
            .arg("--config")
            .arg(self.config())
            .arg("serve")
            .current_dir(self.folder.path())
            .env("COUNTERSIGN_LOG", &self.log_level)
            .env("RUST_BACKTRACE", "1");
        let (mut child, log) = process::spawn(&mut command)?;
        let ready = log.wait_for("Countersign serves", &mut child).await;
        let earlier = std::mem::replace(&mut self.log, log);
        self.log.prepend(&earlier);
        self.child = Some(child);
        ready.map(|_| ())
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// If it does not end well.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let pid = child.id().context("it has ended")?.to_string();
        Command::new("kill").arg(&pid).status().await?;
        let status = tokio::time::timeout(Duration::from_secs(60), child.wait())
            .await
            .context("it did not stop")??;
        ensure!(
            status.success(),
            "it ended with {status}:\n{}",
            self.log.tail(20)
        );
        Ok(())
    }

    /// The process, while it serves.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// An address of it.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Everything it wrote, over restarts.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("countersign.toml")
    }

    /// Its presets.
    pub fn catalog(&self) -> PathBuf {
        self.folder.path().join("catalog")
    }

    /// A REST request as the administrator.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn api(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer> {
        self.api_as(&self.admin.token, method, path, body).await
    }

    /// A REST request with this token.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn api_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer> {
        let mut request = self
            .web
            .request(method, &self.directly_at(&format!("/api/v1{path}")))
            .bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        Web::send(request).await
    }

    /// A REST request that must succeed.
    ///
    /// # Errors
    /// With the problem document.
    pub async fn must(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let said = format!("{method} {path}");
        let answer = self.api(method, path, body).await?;
        ensure!(
            (200..300).contains(&answer.status),
            "{said}: {} {}",
            answer.status,
            answer.text
        );
        Ok(answer.json())
    }

    /// A verb of the command line, as the administrator.
    ///
    /// # Errors
    /// If it cannot be run.
    pub async fn cli(&self, arguments: &[&str], input: &str) -> Result<(i32, String, String)> {
        self.cli_with(
            &[("COUNTERSIGN_TOKEN", &self.admin.token)],
            arguments,
            input,
        )
        .await
    }

    /// A verb of the command line, in this environment.
    ///
    /// # Errors
    /// If it cannot be run.
    pub async fn cli_with(
        &self,
        environment: &[(&str, &str)],
        arguments: &[&str],
        input: &str,
    ) -> Result<(i32, String, String)> {
        let mut child = Command::new(process::built("countersign")?)
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .env("COUNTERSIGN_URL", &self.url)
            .envs(environment.iter().copied())
            .env("XDG_CONFIG_HOME", self.folder.path().join("user"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Verbs that take no input may have ended already.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await?;
        Ok((
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }

    /// Creates a user, who then signs in and chooses a password.
    ///
    /// # Errors
    /// If the host refuses.
    pub async fn person(&self, name: &str) -> Result<Person> {
        let password = format!("first-{name}-password");
        let user = json!({
            "name": name,
            "email": format!("{name}@example.com"),
            "roles": ["user"],
            "password": password,
        });
        self.must(Method::POST, "/users", Some(user)).await?;
        Person::sign_in(self, name, &password).await
    }

    /// The newest audit events that match a filter.
    ///
    /// # Errors
    /// If the list is refused.
    pub async fn audit(&self, filter: &str) -> Result<Vec<Value>> {
        let mut path = "/audit?page_size=1000".to_owned();
        if !filter.is_empty() {
            let encoded: String = url::form_urlencoded::byte_serialize(filter.as_bytes()).collect();
            path.push_str("&filter=");
            path.push_str(&encoded);
        }
        let list = self.must(Method::GET, &path, None).await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until an audit event is there that `wanted` says yes to.
    ///
    /// # Errors
    /// After some seconds.
    pub async fn audited(&self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let start = Instant::now();
        loop {
            let events = self.audit("").await?;
            if let Some(event) = events.iter().find(|event| wanted(event)) {
                return Ok(event.clone());
            }
            ensure!(
                start.elapsed() < Duration::from_secs(10),
                "no such audit event among:\n{}",
                events
                    .iter()
                    .take(15)
                    .map(|e| format!("{e}\n"))
                    .collect::<String>()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the host's log ends so:\n{}", self.log.tail(60));
        }
    }
}

/// The component of a preset, as `cargo xtask presets` built it, or of a
/// fixture (`cargo xtask presets --fixtures`).
///
/// # Errors
/// If it is not there.
pub(crate) fn built_preset(name: &str) -> Result<PathBuf> {
    let prefix = format!("{name}-");
    let folders = ["catalog", "tests/fixtures/presets/out"];
    folders
        .iter()
        .filter_map(|folder| fs::read_dir(repository().join(folder)).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(&prefix) && file.ends_with(".wasm")
        })
        .with_context(|| {
            format!("the preset {name} is not built: run `cargo xtask presets` (with `--fixtures` for those of the tests)")
        })
}
