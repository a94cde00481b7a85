//! Templates rendered as far as they are known before anybody signs in.
//!
//! A variable from the settings has its value; one that is captured at sign-in
//! stands for all it may hold: `{tenant}.example.com` is `*.example.com`, an
//! enumeration is each of its values. This is what permissions and host checks
//! are made of; requests are rendered with real values elsewhere.

use std::collections::BTreeMap;

use countersign_core::preset::{Description, Part, Source, Template, ValueKind};
use countersign_core::template::check as check_value;
use serde_json::{Map, Value};

/// More alternatives than this of one template are refused.
const MOST: usize = 256;

/// What each variable may stand for.
pub(crate) struct Symbols<'a> {
    values: BTreeMap<&'a str, Meaning>,
}

struct Meaning {
    texts: Vec<String>,
    /// Whether it may be part of a host name.
    host_like: bool,
}

/// Why a template can't be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// The settings lack a value.
    #[error("the setting {setting:?} is missing: the preset needs it for {title:?}")]
    Missing {
        /// Key in the provider's settings.
        setting: String,
        /// For people.
        title: String,
    },
    /// The settings hold something else than the preset allows.
    #[error("the setting {setting:?} is not usable: {rule}")]
    NotUsable {
        /// Key in the provider's settings.
        setting: String,
        /// What it may hold.
        rule: String,
    },
    /// A default of the description is not of its own kind.
    #[error("the variable {0:?} has a default that its own kind does not allow")]
    BadDefault(String),
    /// No such variable.
    #[error("a template names the variable {0:?}, which the description does not declare")]
    Unknown(String),
    /// An identifier can hold dots and colons.
    #[error(
        "the variable {0:?} is an identifier and may not be part of a host name: declare it as label, host, origin or enumeration"
    )]
    NotForHosts(String),
    /// Too many combinations.
    #[error("a template has more than {MOST} meanings; use fewer enumerations in it")]
    TooMany,
}

impl<'a> Symbols<'a> {
    /// Gives each variable its meaning.
    ///
    /// # Errors
    /// A required setting that is missing (unless `lenient`), or a value that
    /// does not fit.
    pub(crate) fn new(
        description: &'a Description,
        settings: &Map<String, Value>,
        lenient: bool,
    ) -> Result<Self, SymbolError> {
        let mut values = BTreeMap::new();
        for variable in &description.variables {
            let given = match &variable.source {
                Source::Setting(key) => setting(settings, key, &variable.kind)?,
                _ => None,
            };
            let default = match &variable.default_value {
                Some(text) => Some(
                    check_value(&variable.kind, text)
                        .map_err(|_| SymbolError::BadDefault(variable.name.clone()))?,
                ),
                None => None,
            };
            let is_setting = matches!(variable.source, Source::Setting(_));
            let texts = match (given, default) {
                (Some(text), _) => vec![text],
                // What is captured may differ from the default.
                (None, Some(text)) if is_setting => vec![text],
                (None, _) => {
                    if let Source::Setting(key) = &variable.source
                        && variable.required
                        && !lenient
                        && !is_decided(description, &variable.name)
                    {
                        return Err(SymbolError::Missing {
                            setting: key.clone(),
                            title: variable.title.clone(),
                        });
                    }
                    anything(&variable.kind)
                }
            };
            let host_like = !matches!(variable.kind, ValueKind::Identifier);
            values.insert(variable.name.as_str(), Meaning { texts, host_like });
        }
        let mut symbols = Self { values };
        symbols.decide(description);
        Ok(symbols)
    }

    /// Variables that the choice of another one sets.
    fn decide(&mut self, description: &'a Description) {
        let mut decided: BTreeMap<&'a str, Vec<String>> = BTreeMap::new();
        for variable in &description.variables {
            let ValueKind::Enumeration(choices) = &variable.kind else {
                continue;
            };
            let Some(possible) = self.values.get(variable.name.as_str()) else {
                continue;
            };
            for choice in choices.iter().filter(|c| possible.texts.contains(&c.value)) {
                for (name, value) in &choice.sets {
                    decided.entry(name).or_default().push(value.clone());
                }
            }
        }
        for (name, texts) in decided {
            let host_like = self.values.get(name).is_none_or(|m| m.host_like);
            self.values.insert(name, Meaning { texts, host_like });
        }
    }

    /// All meanings of a template. Slots become `<slot>`.
    pub(crate) fn render(&self, template: &Template) -> Result<Vec<String>, SymbolError> {
        let mut texts = vec![String::new()];
        for part in template {
            match part {
                Part::Literal(text) => texts.iter_mut().for_each(|t| t.push_str(text)),
                Part::Slot(slot) => {
                    let name = slot_text(slot);
                    texts.iter_mut().for_each(|t| t.push_str(&name));
                }
                Part::Basic(_) => texts.iter_mut().for_each(|t| t.push_str("<basic>")),
                Part::Variable(name) => {
                    let meaning = self
                        .values
                        .get(name.as_str())
                        .ok_or_else(|| SymbolError::Unknown(name.clone()))?;
                    if texts.len().saturating_mul(meaning.texts.len()) > MOST {
                        return Err(SymbolError::TooMany);
                    }
                    texts = texts
                        .iter()
                        .flat_map(|t| meaning.texts.iter().map(move |value| format!("{t}{value}")))
                        .collect();
                }
            }
        }
        Ok(texts)
    }

    /// All meanings of a host template. Every variable in it must be of a kind
    /// that can't smuggle in another host.
    pub(crate) fn hosts(&self, template: &Template) -> Result<Vec<String>, SymbolError> {
        self.only_host_like(template)?;
        let mut hosts = self.render(template)?;
        for host in &mut hosts {
            host.make_ascii_lowercase();
        }
        Ok(hosts)
    }

    /// All meanings of a URL template; the variables in its host part are held
    /// to the rule for hosts.
    pub(crate) fn urls(&self, template: &Template) -> Result<Vec<String>, SymbolError> {
        let mut slashes = 0;
        let host_part: Template = template
            .iter()
            .take_while(|part| {
                let inside = slashes < 3;
                if let Part::Literal(text) = part {
                    slashes += text.matches('/').count();
                }
                inside
            })
            .cloned()
            .collect();
        self.only_host_like(&host_part)?;
        self.render(template)
    }

    fn only_host_like(&self, template: &Template) -> Result<(), SymbolError> {
        for part in template {
            if let Part::Variable(name) = part
                && self.values.get(name.as_str()).is_some_and(|m| !m.host_like)
            {
                return Err(SymbolError::NotForHosts(name.clone()));
            }
        }
        Ok(())
    }
}

fn setting(
    settings: &Map<String, Value>,
    key: &str,
    kind: &ValueKind,
) -> Result<Option<String>, SymbolError> {
    let text = match settings.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(_) => {
            return Err(SymbolError::NotUsable {
                setting: key.to_owned(),
                rule: "write a text, not a list or an object".into(),
            });
        }
    };
    check_value(kind, &text)
        .map(Some)
        .map_err(|rule| SymbolError::NotUsable {
            setting: key.to_owned(),
            rule: format!("write {rule}"),
        })
}

fn is_decided(description: &Description, name: &str) -> bool {
    description.variables.iter().any(|v| match &v.kind {
        ValueKind::Enumeration(choices) => choices
            .iter()
            .any(|c| c.sets.iter().any(|(n, _)| n == name)),
        _ => false,
    })
}

fn anything(kind: &ValueKind) -> Vec<String> {
    match kind {
        ValueKind::Identifier | ValueKind::Label => vec!["*".into()],
        ValueKind::Host(suffixes) | ValueKind::Origin(suffixes) => suffixes
            .iter()
            .map(|suffix| {
                if suffix.starts_with('.') {
                    format!("*{suffix}")
                } else {
                    suffix.clone()
                }
            })
            .collect(),
        ValueKind::Enumeration(choices) => choices.iter().map(|c| c.value.clone()).collect(),
    }
}

/// A slot as it is shown.
pub(crate) fn slot_text(slot: &countersign_core::preset::Slot) -> String {
    use countersign_core::preset::Slot;
    match slot {
        Slot::AccessToken => "<access-token>".into(),
        Slot::RefreshToken => "<refresh-token>".into(),
        Slot::IdToken => "<id-token>".into(),
        Slot::ApiKey => "<api-key>".into(),
        Slot::ClientId => "<client-id>".into(),
        Slot::ClientSecret => "<client-secret>".into(),
        Slot::Extra(name) => format!("<extra:{name}>"),
    }
}

/// The host of a rendered URL: what stands between `://` and the next `/`,
/// `?` or `#`. None if it isn't `https` (or `http` on the loopback).
pub(crate) fn host_of(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    let loopback = ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|l| host == *l || host.strip_prefix(l).is_some_and(|p| p.starts_with(':')));
    let good = scheme == "https" || (scheme == "http" && loopback);
    (good && !host.is_empty() && !host.contains(['@', '<', '\\'])).then_some(host)
}

/// Whether a host (perhaps with `*` for one label or more) lies within a
/// pattern.
pub(crate) fn covers(pattern: &str, host: &str) -> bool {
    let suffix = pattern
        .strip_prefix('*')
        .or_else(|| pattern.starts_with('.').then_some(pattern));
    pattern == host
        || suffix.is_some_and(|suffix| {
            suffix.starts_with('.') && host.len() > suffix.len() && host.ends_with(suffix)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_url_is_found_or_the_url_refused() {
        for (url, host) in [
            ("https://a.example.com/x?y", Some("a.example.com")),
            ("https://*.example.com", Some("*.example.com")),
            ("http://127.0.0.1:9000/token", Some("127.0.0.1:9000")),
            ("http://a.example.com/", None),
            ("http://127.0.0.1.evil.com/", None),
            ("https://u@a.example.com/", None),
            ("https://<access-token>/", None),
            ("javascript:alert(1)", None),
            ("https:///x", None),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
    }

    #[test]
    fn a_pattern_covers_its_subdomains_only() {
        for (pattern, host, expected) in [
            ("a.example.com", "a.example.com", true),
            ("*.example.com", "*.example.com", true),
            (".example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "evilexample.com", false),
            ("a.example.com", "*.example.com", false),
        ] {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        }
    }
}
