//! The key-encryption key, and where it comes from.
//!
//! A key is 32 random bytes. As text it is a line `countersign-key-1` followed
//! by one key per line in standard base64: the first seals, the others only
//! open (for rotation). A lone base64 key without the header line is taken
//! too, which is what most key services print. In a file the keys may also
//! stand raw behind the line `countersign-key-1 raw`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

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
}

impl Kek {
    fn new(bytes: [u8; 32]) -> Self {
        let source = SealKey::new(bytes);
        let [a, b, c, d, e, f, g, h, ..] = source.mac(&[b"countersign key id 1"]);
        Self {
            id: KekId([a, b, c, d, e, f, g, h]),
            key: source.derive("vault key encryption 1"),
        }
    }
}

/// The keys that open a store. The first seals.
pub struct KeyRing {
    current: Kek,
    older: Vec<Kek>,
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
        Self::parse(&bytes)
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
        Self {
            current: Kek::new(key),
            older: Vec::new(),
        }
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn current_id(&self) -> KekId {
        self.current.id
    }

    pub(crate) fn current(&self) -> &Kek {
        &self.current
    }

    pub(crate) fn find(&self, id: KekId) -> Option<&Kek> {
        std::iter::once(&self.current)
            .chain(&self.older)
            .find(|k| k.id == id)
    }

    fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
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
        let mut keks = keys.iter().map(|k| Kek::new(**k));
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
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use countersign_core::ports::fakes::CountingRandom;

    use super::*;

    fn key(seed: u8) -> [u8; 32] {
        std::array::from_fn(|i| (i as u8).wrapping_mul(7).wrapping_add(seed) | 0x80)
    }

    async fn load(source: KeySource) -> Result<KekId, String> {
        KeyRing::load(&source)
            .await
            .map(|r| r.current_id())
            .map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn a_generated_file_gives_the_same_key_again_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let random = CountingRandom::default();
        KeyRing::generate_file(&path, &random).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        let id = load(KeySource::File(path.clone())).await.unwrap();
        assert!(KeyRing::generate_file(&path, &random).is_err());
        assert_eq!(load(KeySource::File(path.clone())).await, Ok(id));
        for mode in [0o640, 0o604, 0o666] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let said = load(KeySource::File(path.clone())).await.unwrap_err();
            assert!(said.contains("chmod 600"), "{said}");
        }
        let said = load(KeySource::File(dir.path().to_owned()))
            .await
            .unwrap_err();
        assert!(said.contains("not a regular file"), "{said}");
        let said = load(KeySource::File(dir.path().join("none")))
            .await
            .unwrap_err();
        assert!(said.contains("countersign init"), "{said}");
    }

    #[tokio::test]
    async fn a_command_is_run_without_a_shell_and_its_failure_is_no_key() {
        let text = STANDARD.encode(key(1));
        let argv = |words: &[&str]| KeySource::Command(words.iter().map(|w| (*w).into()).collect());
        assert_eq!(
            load(argv(&["echo", &text])).await,
            Ok(KeyRing::single(key(1)).current_id())
        );
        for (words, expected) in [
            (vec![], "list is empty"),
            (vec!["false"], "exit status: 1"),
            (vec!["echo", "$HOME"], "not base64"),
            (vec!["true"], "it is empty"),
            (vec!["/nonexistent/kms"], "failed"),
        ] {
            let said = load(argv(&words)).await.unwrap_err();
            assert!(said.contains(expected), "{words:?}: {said}");
        }
    }

    #[tokio::test]
    async fn a_missing_variable_or_credential_is_refused() {
        let said = load(KeySource::Env("COUNTERSIGN_NO_SUCH_KEY".into()))
            .await
            .unwrap_err();
        assert!(said.contains("COUNTERSIGN_NO_SUCH_KEY"), "{said}");
        for name in ["", "../x", "a/b", ".hidden"] {
            assert!(load(KeySource::Systemd(name.into())).await.is_err());
        }
    }

    #[test]
    fn every_written_form_gives_the_same_key() {
        let text = STANDARD.encode(key(1));
        let raw = [RAW, &key(1)[..]].concat();
        for form in [
            text.clone().into_bytes(),
            format!("countersign-key-1\n{text}\n").into_bytes(),
            format!("countersign-key-1 {text}").into_bytes(),
            raw,
        ] {
            assert_eq!(
                KeyRing::parse(&form).ok().map(|r| r.current_id()),
                Some(KeyRing::single(key(1)).current_id())
            );
        }
        let two = format!("countersign-key-1\n{text}\n{}\n", STANDARD.encode(key(2)));
        let ring = KeyRing::parse(two.as_bytes()).ok().unwrap();
        assert_eq!(ring.current_id(), KeyRing::single(key(1)).current_id());
        assert!(ring.find(KeyRing::single(key(2)).current_id()).is_some());
    }

    #[test]
    fn what_is_no_random_key_is_refused() {
        for bytes in [
            &b""[..],
            b"countersign-key-1\n",
            b"countersign-key-1 raw\nshort",
            b"correct horse battery staple",
            STANDARD.encode([0; 32]).as_bytes(),
            STANDARD
                .encode(b"correct horse battery staple 123")
                .as_bytes(),
            STANDARD.encode([1; 16]).as_bytes(),
        ] {
            assert!(matches!(KeyRing::parse(bytes), Err(KeyError::Malformed(_))));
        }
    }

    #[test]
    fn a_source_is_one_of_four_in_the_configuration() {
        let read = |text: &str| serde_json::from_str::<KeySource>(text).ok();
        assert_eq!(read(r#"{"file":"k"}"#), Some(KeySource::File("k".into())));
        assert_eq!(
            read(r#"{"command":["a","b"]}"#),
            Some(KeySource::Command(vec!["a".into(), "b".into()]))
        );
        assert_eq!(read(r#"{"password":"x"}"#), None);
    }
}
