//! Where the database is, and with which password.
//!
//! The address is treated as a secret, since it may hold a password: it has no
//! `Debug` that shows it, and no error repeats any of it.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use zeroize::Zeroizing;

/// A connection that cannot be made within this time has failed.
const CONNECT: Duration = Duration::from_secs(5);
/// A network that says nothing for so long is down.
const SILENCE: Duration = Duration::from_secs(15);

/// How the server proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// No TLS.
    Plain,
    /// TLS if the server has it, with any certificate.
    Prefer,
    /// TLS, with any certificate.
    Encrypt,
    /// TLS, with a certificate of a trusted authority.
    Authority,
    /// TLS, with a certificate of a trusted authority for this very name.
    Full,
}

/// A PostgreSQL database.
#[derive(Clone)]
pub struct Database {
    config: Config,
    verify: Verify,
    roots: Option<PathBuf>,
}

/// Addresses differ when anything of them does. The password takes no part.
impl PartialEq for Database {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.verify == other.verify && self.roots == other.roots
    }
}

impl Eq for Database {}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.name()).finish()
    }
}

/// Why there is no address or no password.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The address is none.
    #[error(
        "the store's address cannot be read: {0}. Write \
         \"postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full\", with %40 for an @ and %2F for \
         a / within a name"
    )]
    Address(&'static str),
    /// A file of it cannot be used.
    #[error("cannot use {}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        cause: String,
    },
}

/// Where a password may come from when the address has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PasswordSources {
    /// A file that holds nothing else.
    pub file: Option<PathBuf>,
    /// A file of lines `host:port:database:user:password`, as `psql` reads it.
    pub passfile: Option<PathBuf>,
}

impl Database {
    /// Parses `postgres://…`. Without `sslmode` a server on this machine is
    /// talked to as it likes, and any other has to prove its name.
    ///
    /// # Errors
    /// [`AddressError::Address`]; nothing of the address is repeated.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut rest, mut mode, mut roots) = (Vec::new(), None, None);
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", "system")) => roots = None,
                Some(("sslrootcert", file)) => roots = Some(PathBuf::from(decoded(file)?)),
                _ => rest.push(pair),
            }
        }
        let unreadable = |_| AddressError::Address("a part of it is missing or not known");
        let mut config =
            Config::from_str(&format!("{address}?{}", rest.join("&"))).map_err(unreadable)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(AddressError::Address("it names no host"));
        }
        if config.get_user().is_none_or(str::is_empty) {
            return Err(AddressError::Address("it names no user"));
        }
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err(AddressError::Address("it names no database"));
        }
        let verify = match mode {
            Some("disable") => Verify::Plain,
            Some("prefer") => Verify::Prefer,
            Some("require") if roots.is_some() => Verify::Authority,
            Some("require") => Verify::Encrypt,
            Some("verify-ca") => Verify::Authority,
            Some("verify-full") => Verify::Full,
            None if config.get_hosts().iter().all(is_here) => Verify::Prefer,
            None => Verify::Full,
            Some(_) => {
                return Err(AddressError::Address(
                    "sslmode is one of disable, prefer, require, verify-ca and verify-full",
                ));
            }
        };
        config
            .ssl_mode(match verify {
                Verify::Plain => SslMode::Disable,
                Verify::Prefer => SslMode::Prefer,
                _ => SslMode::Require,
            })
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(CONNECT)
            .tcp_user_timeout(SILENCE)
            .keepalives_idle(SILENCE);
        if config.get_application_name().is_none() {
            config.application_name("countersign");
        }
        Ok(Self {
            config,
            verify,
            roots,
        })
    }

    /// With the password from the first source that has one, unless the
    /// address has it already. Reads files, and blocks.
    ///
    /// # Errors
    /// [`AddressError::File`] if a source is named and cannot be used.
    pub fn with_password(mut self, sources: &PasswordSources) -> Result<Self, AddressError> {
        if self.has_password() {
            return Ok(self);
        }
        let password = match (&sources.file, &sources.passfile) {
            (Some(file), _) => Some(read_private(file)?),
            (None, Some(passfile)) => self.passfile_password(&read_private(passfile)?),
            (None, None) => None,
        };
        if let Some(password) = password {
            self.set_password(password.trim_end_matches(['\r', '\n']));
        }
        Ok(self)
    }

    /// Sets the password.
    pub fn set_password(&mut self, password: &str) {
        self.config.password(password);
    }

    /// Whether it came with a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// Host, port and database, for people.
    #[must_use]
    pub fn name(&self) -> String {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate().map(|(n, host)| {
            let port = ports.get(n).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(folder) => format!("{}:{port}", folder.display()),
            }
        });
        let hosts = hosts.collect::<Vec<_>>().join(",");
        let database = self.config.get_dbname().unwrap_or_default();
        format!("{database} at {hosts}")
    }

    /// The user it connects as.
    pub(super) fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn verify(&self) -> Verify {
        self.verify
    }

    pub(super) fn roots(&self) -> Option<&Path> {
        self.roots.as_deref()
    }

    fn passfile_password(&self, text: &str) -> Option<Zeroizing<String>> {
        let hosts: Vec<String> = self
            .config
            .get_hosts()
            .iter()
            .map(|host| match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(_) => "localhost".into(),
            })
            .collect();
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let (user, database) = (self.user(), self.config.get_dbname().unwrap_or_default());
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .find_map(|line| {
                let mut fields = passfile_fields(line);
                let password = fields.pop().filter(|_| fields.len() == 4)?;
                let is = |n: usize, value: &str| {
                    fields.get(n).is_some_and(|f| **f == *value || **f == *"*")
                };
                let fits = hosts.iter().any(|host| is(0, host))
                    && is(1, &port.to_string())
                    && is(2, database)
                    && is(3, user);
                fits.then_some(password)
            })
    }
}

/// At most five; a backslash takes the meaning from what follows.
fn passfile_fields(line: &str) -> Vec<Zeroizing<String>> {
    let mut fields = vec![Zeroizing::new(String::new())];
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        let letter = match letter {
            ':' if fields.len() < 5 => {
                fields.push(Zeroizing::new(String::new()));
                continue;
            }
            '\\' => match letters.next() {
                Some(next) => next,
                None => break,
            },
            other => other,
        };
        if let Some(field) = fields.last_mut() {
            field.push(letter);
        }
    }
    fields
}

/// As `psql` demands: nobody else may read it.
fn read_private(path: &Path) -> Result<Zeroizing<String>, AddressError> {
    let refuse = |cause: String| AddressError::File {
        path: path.to_owned(),
        cause,
    };
    let facts = std::fs::metadata(path).map_err(|e| refuse(e.to_string()))?;
    if facts.permissions().mode() & 0o077 != 0 {
        return Err(refuse(
            "it holds a password and others may read it; run `chmod 600` on it".into(),
        ));
    }
    std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|e| refuse(e.to_string()))
}

fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|ip| ip.is_loopback())
        }
    }
}

fn decoded(text: &str) -> Result<String, AddressError> {
    let broken = || AddressError::Address("a percent sign in it begins nothing");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit(rest.next()), digit(rest.next()));
        let value = high.zip(low).map(|(h, l)| h * 16 + l);
        bytes.push(
            value
                .and_then(|v| u8::try_from(v).ok())
                .ok_or_else(broken)?,
        );
    }
    String::from_utf8(bytes).map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_has_to_prove_its_name_unless_told_otherwise() {
        for (url, verify) in [
            ("postgres://u@db.example/c", Verify::Full),
            ("postgres://u@127.0.0.1/c", Verify::Prefer),
            ("postgresql://u@localhost:5433/c", Verify::Prefer),
            ("postgres://u@%2Frun%2Fpostgresql/c", Verify::Prefer),
            ("postgres://u@db.example/c?sslmode=disable", Verify::Plain),
            ("postgres://u@db.example/c?sslmode=require", Verify::Encrypt),
            (
                "postgres://u@db.example/c?sslmode=require&sslrootcert=/ca.pem",
                Verify::Authority,
            ),
            (
                "postgres://u@db.example/c?sslmode=verify-ca",
                Verify::Authority,
            ),
            (
                "postgres://u@a:1,b:2/c?connect_timeout=3&sslmode=verify-full",
                Verify::Full,
            ),
        ] {
            let database = Database::parse(url).unwrap_or_else(|e| panic!("{url}: {e}"));
            assert_eq!(database.verify, verify, "{url}");
        }
    }

    #[test]
    fn nothing_of_an_address_is_repeated() {
        for url in [
            "postgres://u:hunter2@db.example:port/c",
            "postgres://u:hunter2@db.example/c?sslmode=hunter2",
            "postgres://u:hunter2@db.example/c?hunter2=1",
            "postgres://u:hunter2@db.example/c?sslrootcert=%hunter2",
            "postgres://:hunter2@db.example/c",
            "postgres://u:hunter2@db.example",
            "postgres://",
        ] {
            let said = Database::parse(url).unwrap_err().to_string();
            assert!(
                said.contains("postgres://USER@HOST") && !said.contains("hunter2"),
                "{said}"
            );
        }
        let database = Database::parse("postgres://u:hunter2@db.example/c").unwrap();
        assert!(database.has_password());
        let shown = format!("{database:?} {}", database.name());
        assert!(
            shown.contains("c at db.example:5432") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn a_password_file_is_read_only_if_nobody_else_can() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passfile");
        let lines = "# a comment\n\
                     other:5432:c:u:wrong\n\
                     db.example:*:c:u:with\\:colon and \\\\\n\
                     *:*:*:*:too late\n";
        std::fs::write(&file, lines).unwrap();
        let sources = PasswordSources {
            file: None,
            passfile: Some(file.clone()),
        };
        let database = Database::parse("postgres://u@db.example/c").unwrap();
        let set = |mode| {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(0o644);
        let said = database.clone().with_password(&sources).unwrap_err();
        assert!(said.to_string().contains("chmod 600"), "{said}");
        set(0o600);
        let with = database.clone().with_password(&sources).unwrap();
        assert_eq!(with.config.get_password(), Some(&b"with:colon and \\"[..]));
        let sources = PasswordSources {
            file: Some(file.clone()),
            passfile: None,
        };
        std::fs::write(&file, "hunter2\n").unwrap();
        let with = database.with_password(&sources).unwrap();
        assert_eq!(with.config.get_password(), Some(&b"hunter2"[..]));
    }
}
