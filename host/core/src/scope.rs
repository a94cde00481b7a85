//! OAuth scopes and what they imply.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// One scope token: the characters of RFC 6749 §3.3, at most 512.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(Box<str>);

/// The text is not a scope token of RFC 6749 §3.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a scope: 1 to 512 visible ASCII characters other than space, quote and backslash")]
pub struct InvalidScope;

impl Scope {
    /// Parses one scope.
    ///
    /// # Errors
    /// [`InvalidScope`] for characters outside RFC 6749 §3.3.
    pub fn parse(text: &str) -> Result<Self, InvalidScope> {
        let good = (1..=512).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
        if good {
            Ok(Self(text.into()))
        } else {
            Err(InvalidScope)
        }
    }

    /// The scope as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Scope {
    type Error = InvalidScope;
    fn try_from(text: String) -> Result<Self, InvalidScope> {
        Self::parse(&text)
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> String {
        scope.0.into()
    }
}

/// A set of scopes, in order of name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScopeSet(BTreeSet<Scope>);

impl ScopeSet {
    /// Splits `text` at any of the separators (a space when there are none)
    /// and keeps what is a scope.
    #[must_use]
    pub fn split(text: &str, separators: &[String]) -> Self {
        let mut pieces = vec![text];
        let space = [" ".to_owned()];
        let separators = if separators.is_empty() {
            &space[..]
        } else {
            separators
        };
        for separator in separators.iter().filter(|s| !s.is_empty()) {
            pieces = pieces
                .into_iter()
                .flat_map(|p| p.split(separator.as_str()))
                .collect();
        }
        pieces
            .into_iter()
            .filter_map(|p| Scope::parse(p.trim()).ok())
            .collect()
    }

    /// Joins with a separator.
    #[must_use]
    pub fn join(&self, separator: &str) -> String {
        self.0
            .iter()
            .map(Scope::as_str)
            .collect::<Vec<_>>()
            .join(separator)
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether this very scope is in it (implications aside).
    #[must_use]
    pub fn contains(&self, scope: &Scope) -> bool {
        self.0.contains(scope)
    }

    /// In order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }

    /// Both together.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// Adds one.
    pub fn insert(&mut self, scope: Scope) {
        self.0.insert(scope);
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

/// Which scope includes which (`repo` includes `public_repo`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Implications {
    exact: BTreeMap<String, Vec<String>>,
    prefixes: Vec<(String, Vec<String>)>,
}

impl Implications {
    /// Adds what a scope (or every scope with this prefix) includes.
    pub fn add(&mut self, scope: &str, prefix: bool, implies: &[String]) {
        if implies.is_empty() {
            return;
        }
        if prefix {
            self.prefixes.push((scope.to_owned(), implies.to_vec()));
        } else {
            self.exact
                .entry(scope.to_owned())
                .or_default()
                .extend_from_slice(implies);
        }
    }

    /// Whether `granted` covers `needed`, directly or through what it implies.
    #[must_use]
    pub fn covers(&self, granted: &ScopeSet, needed: &Scope) -> bool {
        if granted.contains(needed) {
            return true;
        }
        if self.exact.is_empty() && self.prefixes.is_empty() {
            return false;
        }
        let mut seen = BTreeSet::new();
        let mut open: Vec<&str> = granted.iter().map(Scope::as_str).collect();
        while let Some(scope) = open.pop() {
            if scope == needed.as_str() {
                return true;
            }
            if !seen.insert(scope) {
                continue;
            }
            if let Some(implied) = self.exact.get(scope) {
                open.extend(implied.iter().map(String::as_str));
            }
            for (prefix, implied) in &self.prefixes {
                if scope.starts_with(prefix.as_str()) {
                    open.extend(implied.iter().map(String::as_str));
                }
            }
        }
        false
    }

    /// The scopes of `needed` that `granted` does not cover.
    #[must_use]
    pub fn missing(&self, granted: &ScopeSet, needed: &ScopeSet) -> ScopeSet {
        needed
            .iter()
            .filter(|s| !self.covers(granted, s))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> ScopeSet {
        ScopeSet::split(text, &[])
    }

    #[test]
    fn a_scope_covers_what_it_implies_at_any_depth() {
        let mut implications = Implications::default();
        implications.add("admin:org", false, &["write:org".into()]);
        implications.add("write:org", false, &["read:org".into(), "admin:org".into()]);
        let read = Scope::parse("read:org").unwrap();
        assert!(implications.covers(&set("admin:org"), &read));
        assert!(!implications.covers(&set("repo"), &read));
        assert_eq!(
            implications.missing(&set("admin:org"), &set("read:org repo")),
            set("repo")
        );
    }

    #[test]
    fn scopes_split_at_every_separator_given() {
        assert_eq!(ScopeSet::split("a,b c", &[",".into(), " ".into()]).len(), 3);
        assert_eq!(ScopeSet::split(" a  b ", &[]).join(","), "a,b");
    }
}
