//! `countersign.toml`: read whole, refused clearly, then trusted.
//!
//! Each section has its own file with a raw form (what the text says, with
//! places) and a checked form (what the program uses). A refusal names file,
//! line, what is wrong and what to write instead. Relative paths are relative
//! to the file, not to where the program was started.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use countersign_core::upkeep::Care;
use serde::Deserialize;

mod identity;
mod keys;
mod network;
mod presets;
mod refresh;
mod server;
mod store;

pub use identity::{Identity, Issuer};
pub use keys::Keys;
pub use network::Network;
pub use presets::{Presets, Signatures};
pub use server::{ListenAndUrl, Server, check_public_url};
pub use store::{Store, StoreUrl};

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it was read from.
    pub file: PathBuf,
    /// `[server]`
    pub server: Server,
    /// `[store]`
    pub store: Store,
    /// `[keys]`
    pub keys: Keys,
    /// `[identity]`
    pub identity: Identity,
    /// `[network]`
    pub network: Network,
    /// `[presets]`
    pub presets: Presets,
    /// `[refresh]`
    pub refresh: Care,
}

/// Why the configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// From 1; absent when the file could not be read at all.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
    /// What to write, or to do, instead.
    pub instead: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.problem)?;
        if self.instead.is_empty() {
            Ok(())
        } else {
            write!(f, "\n  {}", self.instead)
        }
    }
}

/// A refusal of one section, with its place in the text.
#[derive(Debug)]
struct Fault {
    place: Range<usize>,
    problem: String,
    instead: String,
}

impl Fault {
    fn at<T>(
        value: &toml::Spanned<T>,
        problem: impl Into<String>,
        instead: impl Into<String>,
    ) -> Self {
        Self {
            place: value.span(),
            problem: problem.into(),
            instead: instead.into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigRaw {
    #[serde(default)]
    server: server::ServerRaw,
    #[serde(default)]
    store: store::StoreRaw,
    keys: keys::KeysRaw,
    #[serde(default)]
    identity: identity::IdentityRaw,
    #[serde(default)]
    network: network::NetworkRaw,
    #[serde(default)]
    presets: presets::PresetsRaw,
    #[serde(default)]
    refresh: refresh::RefreshRaw,
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`]; nothing is ever silently replaced by a default.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|e| ConfigError {
            file: file.to_owned(),
            line: None,
            problem: format!("cannot be read: {e}"),
            instead: "Run `countersign init` to make one, or say where it is with --config FILE."
                .into(),
        })?;
        Self::parse(file, &text)
    }

    /// Checks this text as the content of that file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let error = |place: Option<Range<usize>>, problem: String, instead: String| ConfigError {
            file: file.to_owned(),
            line: place.map(|p| line_of(text, p.start)),
            problem,
            instead,
        };
        let raw: ConfigRaw = toml::from_str(text).map_err(|e| {
            let (problem, instead) = in_words(e.message());
            error(e.span(), problem, instead)
        })?;
        let dir = file.parent().unwrap_or(Path::new(""));
        let build = || -> Result<Self, Fault> {
            let server = server::Server::checked(raw.server, dir)?;
            let store = store::Store::checked(raw.store, dir, &server)?;
            Ok(Self {
                file: file.to_owned(),
                store,
                keys: keys::Keys::checked(raw.keys, dir)?,
                identity: Identity::try_from(raw.identity)?,
                network: Network::try_from(raw.network)?,
                presets: Presets::try_from(raw.presets)?,
                refresh: refresh::checked(&raw.refresh)?,
                server,
            })
        };
        build().map_err(|f| error(Some(f.place), f.problem, f.instead))
    }
}

/// The parser's sentence, and what to do about it.
fn in_words(message: &str) -> (String, String) {
    if let Some((problem, known)) = message.split_once(", expected ") {
        let instead = match problem.starts_with("unknown field") {
            true => format!(
                "Remove it, or write one of: {}.",
                known.trim_start_matches("one of ")
            ),
            false => format!("Write {known} instead."),
        };
        return (problem.to_owned(), instead);
    }
    if message.contains("missing field `keys`") {
        return (
            "there is no [keys] section, so nothing could be sealed".into(),
            "Write: [keys] source = { file = \"data/master.key\" }; `countersign init` makes such a file.".into(),
        );
    }
    (message.trim_end().replace('\n', "; "), String::new())
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

fn beside(dir: &Path, path: &str) -> PathBuf {
    // `join` keeps an absolute path as it is.
    dir.join(path)
}

#[cfg(test)]
mod tests {
    use countersign_vault::keys::KeySource;

    use super::*;

    const GOOD: &str = r#"
[server]
listen = "127.0.0.1:8700"
public_url = "http://127.0.0.1:8700"
data_dir = "data"
catalog_dir = "catalog"
[store]
url = "sled:data/vault"
[keys]
source = { file = "data/master.key" }
[identity]
embedded = true
[network]
allow_private_upstreams = ["127.0.0.1:*", "[::1]:9000"]
[presets]
signatures = "off"
"#;

    const KEY: &str = "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";

    /// A publisher after `signatures`.
    macro_rules! publisher {
        ($text:literal) => {
            concat!("\"off\"\n[[presets.publisher]]\n", $text)
        };
    }

    /// An external issuer, with more lines.
    macro_rules! issuer {
        ($issuer:literal, $keys:literal, $more:literal) => {
            concat!(
                "[[identity.issuer]]\nissuer = \"",
                $issuer,
                "\"\njwks_uri = \"",
                $keys,
                "\"\n",
                $more
            )
        };
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("/etc/cs/countersign.toml"), text)
    }

    #[test]
    fn the_example_of_the_contract_is_read_as_it_stands() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.server.data_dir, Path::new("/etc/cs/data"));
        assert_eq!(
            config.store.url,
            StoreUrl::Sled("/etc/cs/data/vault".into())
        );
        assert_eq!(
            config.keys.source,
            KeySource::File("/etc/cs/data/master.key".into())
        );
        assert_eq!(config.presets.signatures, Signatures::Off);
        let inside = url::Url::parse("http://127.0.0.1:4000/mcp").unwrap();
        let outside = url::Url::parse("http://127.0.0.2:4000/mcp").unwrap();
        assert!(config.network.allows_private(&inside));
        assert!(!config.network.allows_private(&outside));
    }

    #[test]
    fn only_the_keys_have_no_default() {
        let config = parse("[keys]\nsource = { env = \"COUNTERSIGN_KEY\" }\n").unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:8700");
        assert_eq!(config.server.public_url.as_str(), "http://127.0.0.1:8700/");
        assert!(config.network.allow_private_upstreams.is_empty());
        assert_eq!(config.presets.signatures, Signatures::Require);
        assert_eq!(config.refresh, Care::default());
    }

    #[test]
    fn how_well_connections_are_looked_after_is_read() {
        let section = "[refresh]\nbackground = false\nactive = \"1d\"\nkeep_alive = \"30d\"\nwarning = \"12h\"\nconcurrency = 2\n";
        let config = parse(&format!("{GOOD}{section}")).unwrap();
        let hours = |n: u64| std::time::Duration::from_secs(n * 3600);
        let expected = Care {
            background: false,
            active: hours(24),
            keep_alive: hours(720),
            warning: hours(12),
            concurrency: 2,
        };
        assert_eq!(config.refresh, expected);
    }

    #[test]
    fn an_external_issuer_is_read_with_what_its_people_are_known_by() {
        let section = issuer!(
            "https://idp.example.com/",
            "https://idp.example.com/jwks",
            "audience = \"api://tools\"\ntoken_endpoint = \"https://idp.example.com/token\"\nclaims = { user = \"oid\" }\n"
        );
        let config = parse(&format!("{GOOD}{section}")).unwrap();
        let [issuer] = config.identity.issuers.as_slice() else {
            panic!("{:?}", config.identity);
        };
        // To the letter, with its slash.
        assert_eq!(issuer.issuer, "https://idp.example.com/");
        assert_eq!(issuer.audience.as_deref(), Some("api://tools"));
        assert_eq!(issuer.user_claim, "oid");
        assert!(issuer.token_endpoint.is_some());
        assert!(parse(&format!("{GOOD}{section}{section}")).is_err());
    }

    #[test]
    fn a_refusal_names_file_line_problem_and_remedy() {
        let cases: &[(&str, &str, &str)] = &[
            (
                "unknown key",
                "listen = \"127.0.0.1:8700\"",
                "listne = \"127.0.0.1:8700\"",
            ),
            ("unknown section", "[identity]", "[identities]"),
            (
                "bad listen address",
                "listen = \"127.0.0.1:8700\"",
                "listen = \"localhost\"",
            ),
            (
                "plain http",
                "public_url = \"http://127.0.0.1:8700\"",
                "public_url = \"http://gw.example.com\"",
            ),
            (
                "url with a path",
                "public_url = \"http://127.0.0.1:8700\"",
                "public_url = \"https://gw.example.com/x\"",
            ),
            (
                "no url",
                "public_url = \"http://127.0.0.1:8700\"",
                "public_url = \"gw\"",
            ),
            (
                "a proxy by name",
                "data_dir = \"data\"",
                "trusted_proxies = [\"proxy\"]",
            ),
            (
                "everybody a proxy",
                "data_dir = \"data\"",
                "trusted_proxies = [\"0.0.0.0/0\"]",
            ),
            ("wrong type", "embedded = true", "embedded = \"yes\""),
            (
                "nobody could sign in",
                "embedded = true",
                "embedded = false",
            ),
            (
                "an issuer without keys",
                "embedded = true",
                "[[identity.issuer]]\nissuer = \"https://idp.example.com\"",
            ),
            (
                "an issuer in the open",
                "embedded = true",
                issuer!("http://idp.example.com", "https://idp.example.com/jwks", ""),
            ),
            (
                "keys from the open",
                "embedded = true",
                issuer!("https://idp.example.com", "http://idp.example.com/jwks", ""),
            ),
            (
                "people known by e-mail",
                "embedded = true",
                issuer!(
                    "https://idp.example.com",
                    "https://idp.example.com/jwks",
                    "claims = { user = \"email\" }"
                ),
            ),
            (
                "groups of an issuer",
                "embedded = true",
                issuer!(
                    "https://idp.example.com",
                    "https://idp.example.com/jwks",
                    "claims = { user = \"sub\", groups = \"groups\" }"
                ),
            ),
            (
                "two key sources",
                "{ file = \"data/master.key\" }",
                "{ file = \"k\", env = \"K\" }",
            ),
            ("no key source", "{ file = \"data/master.key\" }", "{ }"),
            (
                "an old key that is the current one",
                "{ file = \"data/master.key\" }",
                "{ file = \"k\" }\nold = [{ file = \"./k\" }, { file = \"./k\" }]",
            ),
            (
                "an old key from nowhere",
                "{ file = \"data/master.key\" }",
                "{ file = \"k\" }\nold = [{ }]",
            ),
            (
                "a key in the file",
                "{ file = \"data/master.key\" }",
                "{ hex = \"00\" }",
            ),
            (
                "no keys",
                "[keys]\nsource = { file = \"data/master.key\" }\n",
                "",
            ),
            ("unknown store", "sled:data/vault", "redis://x"),
            ("store without a path", "sled:data/vault", "sled:"),
            ("bad pattern", "127.0.0.1:*", "http://127.0.0.1"),
            ("everything private", "127.0.0.1:*", "*:*"),
            ("bad signatures", "\"off\"", "\"maybe\""),
            (
                "a publisher without a name",
                "\"off\"",
                publisher!("keys = [K]\npresets = [\"*\"]"),
            ),
            (
                "a publisher without keys",
                "\"off\"",
                publisher!("name = \"acme\"\nkeys = []\npresets = [\"*\"]"),
            ),
            (
                "a publisher for nothing",
                "\"off\"",
                publisher!("name = \"acme\"\nkeys = [K]\npresets = []"),
            ),
            (
                "a bad key",
                "\"off\"",
                publisher!("name = \"acme\"\nkeys = [\"ssh-ed25519 AAAA\"]\npresets = [\"*\"]"),
            ),
            (
                "a bad preset",
                "\"off\"",
                publisher!("name = \"acme\"\nkeys = [K]\npresets = [\"*-x\"]"),
            ),
            (
                "a publisher twice",
                "\"off\"",
                publisher!(
                    "name = \"acme\"\nkeys = [K]\npresets = [\"*\"]\n[[presets.publisher]]\nname = \"acme\"\nkeys = [K]\npresets = [\"*\"]"
                ),
            ),
            (
                "a key of two publishers",
                "\"off\"",
                publisher!(
                    "name = \"acme\"\nkeys = [K]\npresets = [\"*\"]\n[[presets.publisher]]\nname = \"evil\"\nkeys = [K]\npresets = [\"*\"]"
                ),
            ),
            (
                "trusted and revoked",
                "\"off\"",
                "\"off\"\nrevoked_keys = [K]\n[[presets.publisher]]\nname = \"acme\"\nkeys = [K]\npresets = [\"*\"]",
            ),
            (
                "pinned to nothing",
                "\"off\"",
                "\"off\"\npin = { github = [] }",
            ),
            (
                "a bad pin",
                "\"off\"",
                "\"off\"\npin = { github = \"sha1:00\" }",
            ),
            (
                "a bad preset's pin",
                "\"off\"",
                "\"off\"\npin = { Github = \"sha256:00\" }",
            ),
            (
                "no duration",
                "[presets]",
                "[refresh]\nactive = \"a week\"\n[presets]",
            ),
            (
                "kept alive for less than fresh",
                "[presets]",
                "[refresh]\nkeep_alive = \"1d\"\n[presets]",
            ),
            (
                "nobody renews",
                "[presets]",
                "[refresh]\nconcurrency = 0\n[presets]",
            ),
            (
                "a key twice",
                "embedded = true",
                "embedded = true\nembedded = true",
            ),
            ("not toml", "[presets]", "[presets"),
        ];
        let mut out = String::new();
        for (what, from, to) in cases {
            assert!(
                GOOD.contains(from),
                "{what}: {from} is not in the good text"
            );
            let to = to.replace("[K]", &format!("[\"{KEY}\"]"));
            let error = parse(&GOOD.replacen(from, &to, 1)).expect_err(what);
            assert!(error.line.is_some(), "{what}: {error}");
            out.push_str(&format!("# {what}\n{error}\n\n"));
        }
        insta::assert_snapshot!(out);
    }

    #[test]
    fn publishers_pins_and_revoked_keys_are_read() {
        let config = parse(&GOOD.replace(
            "\"off\"",
            &format!(
                "\"warn\"\nrevoked_keys = [\"ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\"]\n\
                 [presets.pin]\ngithub = \"sha256:{zeros}\"\nslack = [\"sha256:{zeros}\", \"sha256:{ones}\"]\n\
                 [[presets.publisher]]\nname = \"acme\"\nkeys = [\"{KEY}\"]\npresets = [\"github\", \"acme-*\"]",
                zeros = "00".repeat(32),
                ones = "11".repeat(32),
            ),
        ))
        .unwrap();
        let trust = config.presets.trust;
        assert_eq!(trust.revoked.len(), 1);
        assert_eq!(trust.pins.len(), 2);
        assert_eq!(trust.publishers[0].keys[0].to_string(), KEY);
        let presets: Vec<_> = trust.publishers[0]
            .presets
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(presets, ["github", "acme-*"]);
    }

    #[test]
    fn a_missing_file_says_how_to_make_one() {
        let error = Config::load(Path::new("no/such/countersign.toml")).unwrap_err();
        assert_eq!(error.line, None);
        assert!(error.to_string().contains("countersign init"), "{error}");
    }
}
