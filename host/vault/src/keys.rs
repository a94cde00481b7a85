//! The key-encryption key, and where it comes from.
//!
//! A key is 32 random bytes. As text it is a line `countersign-key-1` followed
//! by one key per line in standard base64: the first seals, the others only
//! open (for rotation). A lone base64 key without the header line is taken
//! too, which is what most key services print. In a file the keys may also
//! stand raw behind the line `countersign-key-1 raw`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::ports::{Random, random_bytes};
use countersign_core::secret::SealKey;
use serde::Deserialize;
use zeroize::Zeroizing;

mod read;

use read::{read_file, run};

const HEADER: &[u8] = b"countersign-key-1";
const RAW: &[u8] = b"countersign-key-1 raw\n";

/// Where the key comes from: `[keys] source` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeySource {
    /// A file that only its owner can read.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// The standard output of a program, started without a shell.
    Command(Vec<String>),
    /// A credential of systemd (`LoadCredential=`, `LoadCredentialEncrypted=`).
    Systemd(String),
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("cannot use key file {}: {cause}; `countersign init` makes one", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        cause: std::io::Error,
    },
    /// It is a folder, a pipe or a device.
    #[error("key file {} is not a regular file", path.display())]
    NotRegular {
        /// Which.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("key file {} can be read by others (mode {mode:04o}): chmod 600 it", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The variable is not set.
    #[error("environment variable {name} holds no key: set it, or choose another [keys] source")]
    NoVariable {
        /// Which.
        name: String,
    },
    /// There are no credentials.
    #[error(
        "systemd passed no credentials (CREDENTIALS_DIRECTORY is not set): add LoadCredential={name}:… to the unit"
    )]
    NoCredentials {
        /// Which was wanted.
        name: String,
    },
    /// A credential's name is one file name.
    #[error(
        "{name:?} is not the name of a systemd credential: no slash, not empty, no leading dot"
    )]
    CredentialName {
        /// What was given.
        name: String,
    },
    /// The program gave no key.
    #[error("key command {program:?} failed: {cause}")]
    Command {
        /// Its first word.
        program: String,
        /// Why; never its output.
        cause: String,
    },
    /// What was read is no key.
    #[error("the key source holds no usable key: {0}")]
    Malformed(&'static str),
    /// One of the older keys.
    #[error(
        "[keys] old: {cause}. Remove that entry only if `countersign key list` shows that nothing \
         uses its key"
    )]
    Old {
        /// Why.
        cause: Box<KeyError>,
    },
    /// A new key that is an old one is none.
    #[error(
        "key {id} is given twice, by {first} and by {second}: [keys] old lists the keys before \
         the current one"
    )]
    Twice {
        /// Which.
        id: KekId,
        /// Its first source.
        first: String,
        /// Its second.
        second: String,
    },
}

impl std::fmt::Display for KeySource {
    /// Where it is, in words; of a command only the program, since arguments
    /// may say more than a log should hold.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Command(argv) => write!(
                f,
                "command {}",
                argv.first().map_or("(none)", String::as_str)
            ),
            Self::Systemd(name) => write!(f, "systemd credential {name}"),
        }
    }
}

/// A short public name of a key, derived from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KekId(pub(crate) [u8; 8]);

impl std::fmt::Display for KekId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

pub(crate) struct Kek {
    pub(crate) id: KekId,
    pub(crate) key: SealKey,
    /// Its source, in words.
    pub(crate) from: Arc<str>,
}

impl Kek {
    fn new(bytes: [u8; 32], from: &Arc<str>) -> Self {
        let source = SealKey::new(bytes);
        let [a, b, c, d, e, f, g, h, ..] = source.mac(&[b"countersign key id 1"]);
        Self {
            id: KekId([a, b, c, d, e, f, g, h]),
            key: source.derive("vault key encryption 1"),
            from: Arc::clone(from),
        }
    }
}

/// The keys that open a store. The first is the one that everything shall be
/// sealed with: it is, once the store was rotated to it.
#[derive(Clone)]
pub struct KeyRing {
    current: Arc<Kek>,
    older: Vec<Arc<Kek>>,
}

impl KeyRing {
    /// Fetches the key.
    ///
    /// # Errors
    /// [`KeyError`] if there is none. There is no default key.
    pub async fn load(source: &KeySource) -> Result<Self, KeyError> {
        let bytes = match source {
            KeySource::File(path) => read_file(path, true)?,
            KeySource::Env(name) => {
                let value =
                    std::env::var(name).map_err(|_| KeyError::NoVariable { name: name.clone() })?;
                Zeroizing::new(value.into_bytes())
            }
            KeySource::Command(argv) => run(argv).await?,
            KeySource::Systemd(name) => {
                if name.is_empty() || name.starts_with('.') || name.contains('/') {
                    return Err(KeyError::CredentialName { name: name.clone() });
                }
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| KeyError::NoCredentials { name: name.clone() })?;
                // systemd sets the mode; some versions give the service's
                // group access through an ACL that shows up in it.
                read_file(&Path::new(&folder).join(name), false)?
            }
        };
        Self::parse(&bytes, &Arc::from(source.to_string()))
    }

    /// Fetches the current key and those before it.
    ///
    /// # Errors
    /// [`KeyError`] if one of them is missing, or there twice.
    pub async fn load_all(source: &KeySource, old: &[KeySource]) -> Result<Self, KeyError> {
        let mut ring = Self::load(source).await?;
        for source in old {
            let more = Self::load(source).await.map_err(|cause| KeyError::Old {
                cause: Box::new(cause),
            })?;
            ring.older.extend(more.keys().cloned());
        }
        let mut seen: Vec<&Arc<Kek>> = Vec::new();
        for kek in ring.keys() {
            if let Some(first) = seen.iter().find(|k| k.id == kek.id) {
                return Err(KeyError::Twice {
                    id: kek.id,
                    first: first.from.to_string(),
                    second: kek.from.to_string(),
                });
            }
            seen.push(kek);
        }
        Ok(ring)
    }

    /// Writes a new key into a new file with mode 0600.
    ///
    /// # Errors
    /// [`KeyError::File`], also if the file is there already: a key is never
    /// overwritten.
    pub fn generate_file(path: &Path, random: &dyn Random) -> Result<(), KeyError> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let key = Zeroizing::new(random_bytes::<32>(random));
        let encoded = Zeroizing::new(STANDARD.encode(*key));
        let write = || {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            for part in [HEADER, b"\n", encoded.as_bytes(), b"\n"] {
                file.write_all(part)?;
            }
            file.sync_all()?;
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
            std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|cause| KeyError::File {
            path: path.to_owned(),
            cause,
        })
    }

    /// A ring of one key.
    #[must_use]
    pub fn single(key: [u8; 32]) -> Self {
        Self::of(key, &[])
    }

    /// A ring of a current key and others that only open.
    #[must_use]
    pub fn of(current: [u8; 32], older: &[[u8; 32]]) -> Self {
        let from = Arc::from("memory");
        Self {
            current: Arc::new(Kek::new(current, &from)),
            older: older
                .iter()
                .map(|key| Arc::new(Kek::new(*key, &from)))
                .collect(),
        }
    }

    /// The id of the current key.
    #[must_use]
    pub fn current_id(&self) -> KekId {
        self.current.id
    }

    /// All keys, the current one first: id, and source in words.
    pub fn ids(&self) -> impl Iterator<Item = (KekId, &str)> {
        self.keys().map(|kek| (kek.id, &*kek.from))
    }

    fn keys(&self) -> impl Iterator<Item = &Arc<Kek>> {
        std::iter::once(&self.current).chain(&self.older)
    }

    pub(crate) fn current(&self) -> &Arc<Kek> {
        &self.current
    }

    pub(crate) fn find(&self, id: KekId) -> Option<&Arc<Kek>> {
        self.keys().find(|k| k.id == id)
    }

    fn parse(bytes: &[u8], from: &Arc<str>) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        if let Some(raw) = bytes.strip_prefix(RAW) {
            let (chunks, rest) = raw.as_chunks::<32>();
            if !rest.is_empty() {
                return Err(KeyError::Malformed("a raw key has exactly 32 bytes"));
            }
            keys.extend(chunks.iter().map(|c| Zeroizing::new(*c)));
        } else {
            let text = bytes.strip_prefix(HEADER).unwrap_or(bytes);
            for word in text
                .split(u8::is_ascii_whitespace)
                .filter(|w| !w.is_empty())
            {
                let decoded = STANDARD.decode(word).map(Zeroizing::new).map_err(|_| {
                    KeyError::Malformed(
                        "it is not base64 (expected the line countersign-key-1 and a base64 key)",
                    )
                })?;
                let key = decoded.as_slice().try_into().map_err(|_| {
                    KeyError::Malformed("a key has exactly 32 bytes: 44 characters of base64")
                })?;
                keys.push(Zeroizing::new(key));
            }
        }
        if keys.iter().any(|k| looks_made_up(k)) {
            return Err(KeyError::Malformed(
                "it is not random (a repeated pattern or a typed password): make one with `countersign init`",
            ));
        }
        let mut keks = keys.iter().map(|k| Arc::new(Kek::new(**k, from)));
        let current = keks.next().ok_or(KeyError::Malformed("it is empty"))?;
        Ok(Self {
            current,
            older: keks.collect(),
        })
    }
}

/// 32 random bytes have fewer than 16 different values, or are all printable,
/// about once in 10^13 tries.
fn looks_made_up(key: &[u8; 32]) -> bool {
    let different: std::collections::BTreeSet<u8> = key.iter().copied().collect();
    different.len() < 16 || key.iter().all(|b| b.is_ascii_graphic() || *b == b' ')
}

#[cfg(test)]
mod tests;
