//! A PostgreSQL of our own: a cluster in a temporary folder, on a free port,
//! that ends with the process that started it.
//!
//! The vault's own tests use this file, too (`host/vault/tests/support`): it
//! needs nothing but the standard library and `tempfile`.
#![allow(unreachable_pub, reason = "private to the vault's tests, public here")]

use std::io::{Error, Result};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Its superuser's password; the tests look for it where it must not be.
pub const PASSWORD: &str = "hunter2-of-the-database";

/// Debian's `nobody`: PostgreSQL does not run as root.
const NOBODY: u32 = 65_534;

/// Runs the server until its input ends, which is when we do; then stops it at
/// once and removes its folder.
const KEEPER: &str = r#"
"$1" -D "$2" -p "$3" -c listen_addresses=127.0.0.1 -c unix_socket_directories="$2" \
    -c max_connections=200 -c log_destination=stderr >"$2/log" 2>&1 </dev/null &
server=$!
cat >/dev/null
kill -INT $server 2>/dev/null
wait $server
rm -rf "$(dirname "$2")"
"#;

/// A running server.
pub struct Cluster {
    port: u16,
    bin: PathBuf,
    folder: PathBuf,
    databases: AtomicU32,
    keeper: Child,
}

impl Cluster {
    /// Makes and starts one. Blocks for some seconds.
    ///
    /// # Errors
    /// If PostgreSQL is not installed, or does not start.
    pub fn start() -> Result<Self> {
        let bin = programs()?;
        let folder = tempfile::Builder::new()
            .prefix("countersign-postgres-")
            .tempdir()?
            .keep();
        let password = folder.join("password");
        std::fs::write(&password, PASSWORD)?;
        let data = folder.join("data");
        std::fs::create_dir(&data)?;
        if is_root() {
            for path in [&folder, &password, &data] {
                chown(path, Some(NOBODY), Some(NOBODY))?;
            }
        }
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700))?;
        let mut initdb = unprivileged(bin.join("initdb"));
        initdb
            .args(["--no-sync", "--username=postgres", "--auth=scram-sha-256"])
            .args(["--encoding=UTF8", "--locale=C", "--pwfile"])
            .arg(&password)
            .arg("-D")
            .arg(&data);
        let made = initdb.current_dir(&folder).output()?;
        if !made.status.success() {
            return Err(Error::other(format!(
                "initdb: {}",
                String::from_utf8_lossy(&made.stderr)
            )));
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let keeper = serve(&bin, &data, port)?;
        let cluster = Self {
            port,
            bin,
            folder,
            databases: AtomicU32::new(0),
            keeper,
        };
        cluster.wait()?;
        Ok(cluster)
    }

    /// Starts it again after [`Cluster::kill`].
    ///
    /// # Errors
    /// If it does not come back.
    pub fn again(&mut self) -> Result<()> {
        self.keeper = serve(&self.bin, &self.folder.join("data"), self.port)?;
        self.wait()
    }

    /// Kills the server, and all that it is made of.
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn kill(&mut self) -> Result<()> {
        // The keeper would remove the folder: it goes first.
        self.keeper.kill()?;
        self.keeper.wait()?;
        self.signal("-QUIT")?;
        let pid = self.folder.join("data/postmaster.pid");
        for _ in 0..400 {
            if !pid.exists() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        Err(Error::other("the server does not end"))
    }

    /// Sends a signal to the server, `-STOP` for example.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let file = std::fs::read_to_string(self.folder.join("data/postmaster.pid"))?;
        let pid = file.lines().next().unwrap_or_default().to_owned();
        let done = Command::new("kill").args([signal, &pid]).status()?;
        if done.success() {
            Ok(())
        } else {
            Err(Error::other("the server does not run"))
        }
    }

    /// A new, empty database: its address without a password.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn database(&self) -> Result<String> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test{number}");
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(format!(
            "postgres://postgres@127.0.0.1:{}/{name}",
            self.port
        ))
    }

    /// The same address with the password in it.
    #[must_use]
    pub fn with_password(address: &str) -> String {
        address.replace("postgres@", &format!("postgres:{PASSWORD}@"))
    }

    /// Turns TLS on, with a certificate for `localhost` that signs itself:
    /// where that is, to be trusted.
    ///
    /// # Errors
    /// If there is no `openssl`, or the server refuses.
    pub fn enable_tls(&self) -> Result<PathBuf> {
        let (certificate, key) = (
            self.folder.join("server.crt"),
            self.folder.join("server.key"),
        );
        let made = unprivileged("openssl")
            .args([
                "req", "-x509", "-nodes", "-days", "2", "-newkey", "rsa:2048",
            ])
            .args(["-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .current_dir(&self.folder)
            .output()?;
        if !made.status.success() {
            return Err(Error::other(
                String::from_utf8_lossy(&made.stderr).into_owned(),
            ));
        }
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
        for setting in [
            format!("ssl_cert_file = '{}'", certificate.display()),
            format!("ssl_key_file = '{}'", key.display()),
            "ssl = on".to_owned(),
        ] {
            self.sql("postgres", &format!("ALTER SYSTEM SET {setting}"))?;
        }
        self.sql("postgres", "SELECT pg_reload_conf()")?;
        for _ in 0..400 {
            if self.sql("postgres", "SHOW ssl")? == "on" {
                return Ok(certificate);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        Err(Error::other("the server does not turn TLS on"))
    }

    /// What the server answers to this, in the database of that name.
    ///
    /// # Errors
    /// What it says.
    pub fn sql(&self, database: &str, text: &str) -> Result<String> {
        let name = database.rsplit('/').next().unwrap_or(database);
        let output = Command::new(self.bin.join("psql"))
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet"])
            .args(["--set", "ON_ERROR_STOP=1", "-h", "127.0.0.1"])
            .args(["-U", "postgres", "-p", &self.port.to_string()])
            .args(["-d", name, "-c", text])
            .env("PGPASSWORD", PASSWORD)
            .output()?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(Error::other(
                String::from_utf8_lossy(&output.stderr).into_owned(),
            ))
        }
    }

    fn wait(&self) -> Result<()> {
        let mut last = Ok(String::new());
        for _ in 0..400 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                last = self.sql("postgres", "SELECT 1");
                if last.is_ok() {
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = std::fs::read_to_string(self.folder.join("data/log")).unwrap_or_default();
        Err(Error::other(format!(
            "PostgreSQL does not start: {last:?}\n{log}"
        )))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn serve(bin: &Path, data: &Path, port: u16) -> Result<Child> {
    let mut keeper = unprivileged("/bin/sh");
    keeper
        .args(["-c", KEEPER, "keeper"])
        .arg(bin.join("postgres"))
        .arg(data)
        .arg(port.to_string())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A Ctrl-C at the terminal is for us; the keeper sees us end.
        .process_group(0);
    keeper.spawn()
}

/// The folder of the newest PostgreSQL there is.
fn programs() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut debian: Vec<PathBuf> = debian
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .collect();
    debian.sort();
    let folders = std::env::split_paths(&path).chain(debian.into_iter().rev());
    folders
        .into_iter()
        .find(|folder| {
            ["postgres", "initdb", "psql"]
                .iter()
                .all(|program| folder.join(program).is_file())
        })
        .ok_or_else(|| Error::other("PostgreSQL is not installed: run `cargo xtask setup`"))
}

fn unprivileged(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}
