//! The author's table: what each tool needs, and what the provider answers.

use std::fmt;
use std::path::{Path, PathBuf};

use countersign_core::hosts::HostPattern;
use countersign_core::provider::TokenAuthMethod;
use countersign_core::scope::{Scope, ScopeSet};
use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;
use url::Url;

/// Why a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It could not be read.
    #[error("the table {path} cannot be read: {error}")]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It is no such table.
    #[error("the table {path} is not as it should be:\n{error}")]
    Malformed {
        /// Where.
        path: PathBuf,
        /// With line and column.
        error: String,
    },
    /// A row says something that cannot be.
    #[error("{path}:{line}: {what}")]
    Row {
        /// Where.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// What to write instead.
        what: String,
    },
}

/// A table as it was read.
#[derive(Debug, Default)]
pub struct Table {
    /// The file's name; none without a file.
    pub file: Option<String>,
    /// The provider record, where the preset leaves something to it.
    pub record: Record,
    /// What each tool needs.
    pub cases: Vec<Case>,
    /// What the provider answers.
    pub answers: Vec<Sample>,
}

/// What an administrator would say of the provider.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Record {
    pub(crate) authorization_endpoint: Option<Url>,
    pub(crate) token_endpoint: Option<Url>,
    pub(crate) revocation_endpoint: Option<Url>,
    pub(crate) token_endpoint_auth_method: Option<TokenAuthMethod>,
    pub(crate) audience_hosts: Vec<HostPattern>,
    pub(crate) resource: Option<Url>,
    pub(crate) audience: Option<String>,
    pub(crate) settings: Map<String, Value>,
}

/// One row: a call, a grant, and what should come of it.
#[derive(Debug)]
pub struct Case {
    pub(crate) line: usize,
    pub(crate) method: String,
    pub(crate) name: Option<String>,
    pub(crate) arguments: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) facts: Vec<(String, String)>,
    pub(crate) granted: ScopeSet,
    pub(crate) expect: Decision,
}

/// How a call is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It goes through, with this credential if one is named.
    Allow(Option<String>),
    /// It is refused with this code.
    Deny(String),
    /// These scopes are missing.
    Need(ScopeSet),
    /// The preset failed.
    Fault(String),
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow(None) => f.write_str("allow"),
            Self::Allow(Some(credential)) => write!(f, "allow as {credential}"),
            Self::Deny(code) => write!(f, "deny {code}"),
            Self::Need(scopes) => write!(f, "need {}", scopes.join(" ")),
            Self::Fault(what) => write!(f, "a fault: {what}"),
        }
    }
}

/// An answer of the provider's token endpoint, and what it means.
#[derive(Debug)]
pub struct Sample {
    pub(crate) line: usize,
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: String,
    /// Whether it answers a refresh.
    pub(crate) refresh: bool,
    pub(crate) expect: Meaning,
    pub(crate) scopes: Option<ScopeSet>,
    pub(crate) expires_in: Option<u64>,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// Tokens, of these credentials if some are named.
    Tokens(Vec<String>),
    /// A refusal with this code, if one is named.
    Refused(Option<String>),
    /// For a refresh: the grant has ended.
    Ended,
    /// For a refresh: it may work later.
    Passing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTable {
    #[serde(default)]
    cases: Vec<Spanned<RawCase>>,
    #[serde(default)]
    answers: Vec<Spanned<RawSample>>,
    #[serde(default)]
    provider: Record,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    tool: Option<String>,
    method: Option<String>,
    name: Option<String>,
    arguments: Option<Value>,
    host: Option<String>,
    account: Option<String>,
    #[serde(default)]
    facts: std::collections::BTreeMap<String, String>,
    granted: String,
    expect: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSample {
    #[serde(default = "ok")]
    status: u16,
    #[serde(default = "json")]
    content_type: String,
    body: String,
    #[serde(default)]
    refresh: bool,
    expect: String,
    scopes: Option<String>,
    expires_in: Option<u64>,
}

fn ok() -> u16 {
    200
}

fn json() -> String {
    "application/json".into()
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// [`TableError`], with the line.
    pub fn read(path: &Path) -> Result<Self, TableError> {
        let text = std::fs::read_to_string(path).map_err(|error| TableError::Unreadable {
            path: path.to_owned(),
            error,
        })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, TableError> {
        let raw: RawTable = toml::from_str(text).map_err(|error| TableError::Malformed {
            path: path.to_owned(),
            error: error.to_string().trim_end().to_owned(),
        })?;
        let line = |at: usize| 1 + text.bytes().take(at).filter(|b| *b == b'\n').count();
        let row = |line, what| TableError::Row {
            path: path.to_owned(),
            line,
            what,
        };
        let mut table = Self {
            file: path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned()),
            record: raw.provider,
            ..Self::default()
        };
        for case in raw.cases {
            let line = line(case.span().start);
            table.cases.push(
                case.into_inner()
                    .check(line)
                    .map_err(|what| row(line, what))?,
            );
        }
        for sample in raw.answers {
            let line = line(sample.span().start);
            table.answers.push(
                sample
                    .into_inner()
                    .check(line)
                    .map_err(|what| row(line, what))?,
            );
        }
        Ok(table)
    }
}

impl RawCase {
    fn check(self, line: usize) -> Result<Case, String> {
        let (method, name) = match (self.tool, self.method) {
            (Some(_), Some(_)) => {
                return Err(
                    "write `tool` for a tool, or `method` and `name` for another request; not both"
                        .into(),
                );
            }
            (Some(tool), None) => ("tools/call".to_owned(), Some(tool)),
            (None, Some(method)) => (method, self.name),
            (None, None) => {
                return Err(
                    "a case needs `tool`, or `method` for a request that calls none".into(),
                );
            }
        };
        Ok(Case {
            line,
            method,
            name,
            arguments: self.arguments.map(|a| a.to_string()),
            host: self.host,
            account: self.account,
            facts: self.facts.into_iter().collect(),
            granted: scopes(&self.granted)?,
            expect: decision(&self.expect)?,
        })
    }
}

impl RawSample {
    fn check(self, line: usize) -> Result<Sample, String> {
        let words: Vec<&str> = self.expect.split_whitespace().collect();
        let expect = match words.as_slice() {
            ["tokens", credentials @ ..] => {
                Meaning::Tokens(credentials.iter().map(ToString::to_string).collect())
            }
            ["refused"] => Meaning::Refused(None),
            ["refused", code] => Meaning::Refused(Some((*code).to_owned())),
            ["ended"] if self.refresh => Meaning::Ended,
            ["passing"] if self.refresh => Meaning::Passing,
            _ => {
                return Err(format!(
                    "expect = {:?}: write \"tokens\", \"tokens CREDENTIAL …\", \"refused\" or \"refused CODE\"; with refresh = true also \"ended\" or \"passing\"",
                    self.expect
                ));
            }
        };
        Ok(Sample {
            line,
            status: self.status,
            content_type: self.content_type,
            body: self.body,
            refresh: self.refresh,
            expect,
            scopes: self.scopes.as_deref().map(scopes).transpose()?,
            expires_in: self.expires_in,
        })
    }
}

fn decision(text: &str) -> Result<Decision, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["allow"] => Ok(Decision::Allow(None)),
        ["allow", "as", credential] => Ok(Decision::Allow(Some((*credential).to_owned()))),
        ["deny", code] => Ok(Decision::Deny((*code).to_owned())),
        ["need", first, rest @ ..] => {
            let all = std::iter::once(first)
                .chain(rest)
                .copied()
                .collect::<Vec<_>>();
            Ok(Decision::Need(scopes(&all.join(" "))?))
        }
        _ => Err(format!(
            "expect = {text:?}: write \"allow\", \"allow as CREDENTIAL\", \"deny CODE\" or \"need SCOPE …\""
        )),
    }
}

fn scopes(text: &str) -> Result<ScopeSet, String> {
    let one = |word| Scope::parse(word).map_err(|error| format!("{word:?} is {error}"));
    text.split_whitespace().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Table, TableError> {
        Table::parse(text, Path::new("scopes.toml"))
    }

    #[test]
    fn a_row_is_a_call_a_grant_and_a_decision() {
        let table = parse(
            r#"cases = [
  { tool = "post", arguments = { to = "all" }, granted = "a b", expect = "deny loud" },
  { method = "resources/read", name = "x://y", granted = "", expect = "need a b" },
]"#,
        )
        .unwrap();
        let [post, read] = table.cases.as_slice() else {
            panic!()
        };
        assert_eq!((post.line, read.line), (2, 3));
        assert_eq!(post.arguments.as_deref(), Some(r#"{"to":"all"}"#));
        assert_eq!(post.expect, Decision::Deny("loud".into()));
        assert_eq!(read.method, "resources/read");
        assert_eq!(read.expect.to_string(), "need a b");
    }

    #[test]
    fn a_bad_row_is_refused_with_its_line_and_what_to_write() {
        for (row, says) in [
            (
                r#"{ tool = "a", granted = "", expect = "maybe" }"#,
                "write \"allow\"",
            ),
            (
                r#"{ tool = "a", granted = "", expect = "need" }"#,
                "write \"allow\"",
            ),
            (r#"{ granted = "", expect = "allow" }"#, "needs `tool`"),
            (
                r#"{ tool = "a", method = "m", granted = "", expect = "allow" }"#,
                "not both",
            ),
            (
                r#"{ tool = "a", granted = "\"", expect = "allow" }"#,
                "not a scope",
            ),
        ] {
            let error = parse(&format!("cases = [\n\n{row}\n]"))
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("scopes.toml:3: "), "{error}");
            assert!(error.contains(says), "{error}");
        }
        let error =
            parse("cases = [ { tool = \"a\", grant = \"\", expect = \"allow\" } ]").unwrap_err();
        assert!(error.to_string().contains("grant"), "{error}");
    }
}
