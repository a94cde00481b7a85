//! What a new permission set has that an old one has not, and the reverse.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{ARGUMENTS_OF, EVERY_CALL, PermissionSet, Rule};
use crate::symbols::covers;

/// The difference of two permission sets. Each entry names its kind
/// (`audience host api.example.com`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionDifference {
    /// Only in the new one.
    pub added: Vec<String>,
    /// In the new one instead of less: `audience host *.example.com (was
    /// api.example.com)`.
    #[serde(default)]
    pub widened: Vec<String>,
    /// In the new one instead of more: `audience host api.example.com (was
    /// *.example.com)`.
    #[serde(default)]
    pub narrowed: Vec<String>,
    /// Only in the old one.
    pub removed: Vec<String>,
}

impl PermissionDifference {
    /// Whether both allow the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.asks_for_more() && self.narrowed.is_empty() && self.removed.is_empty()
    }

    /// Whether the new one allows anything that the old one does not.
    #[must_use]
    pub fn asks_for_more(&self) -> bool {
        !(self.added.is_empty() && self.widened.is_empty())
    }

    /// Whether nothing of it was there before.
    #[must_use]
    pub fn is_all_new(&self) -> bool {
        self.widened.is_empty() && self.narrowed.is_empty() && self.removed.is_empty()
    }

    /// Every entry with the sign and the word it is shown with, what is more
    /// first.
    pub fn lines(&self) -> impl Iterator<Item = (char, &'static str, &str)> {
        let kinds = [
            ('+', "added", &self.added),
            ('>', "widened", &self.widened),
            ('<', "narrowed", &self.narrowed),
            ('-', "removed", &self.removed),
        ];
        kinds
            .into_iter()
            .flat_map(|(sign, word, list)| list.iter().map(move |e| (sign, word, e.as_str())))
    }
}

impl PermissionSet {
    /// From `old` (nothing, if there is none) to `new`.
    #[must_use]
    pub fn difference(old: Option<&Self>, new: &Self) -> PermissionDifference {
        let nothing = Self::default();
        let old = old.unwrap_or(&nothing);
        let mut difference = PermissionDifference::default();
        for ((kind, rule, old), (_, _, new)) in old.fields().into_iter().zip(new.fields()) {
            compare(
                kind,
                rule,
                &essential(rule, old),
                &essential(rule, new),
                &mut difference,
            );
        }
        difference
    }

    /// Whether everything it allows is allowed by `old` too.
    #[must_use]
    pub fn is_same_or_narrower(&self, old: &Self) -> bool {
        self.fields()
            .into_iter()
            .zip(old.fields())
            .all(|((_, rule, new), (_, _, old))| {
                new.iter().all(|n| old.iter().any(|o| rule.covers(o, n)))
            })
    }
}

impl Rule {
    /// Whether whoever has `wide` has `narrow`, too.
    fn covers(self, wide: &str, narrow: &str) -> bool {
        wide == narrow
            || match self {
                Self::Exact => false,
                Self::Host => host_covers(wide, narrow),
                Self::Sight => wide == EVERY_CALL && narrow.starts_with(ARGUMENTS_OF),
            }
    }
}

/// [`covers`] with ports: `host:*` is any, and none is the scheme's own.
fn host_covers(wide: &str, narrow: &str) -> bool {
    let (wide_host, wide_port) = with_port(wide);
    let (narrow_host, narrow_port) = with_port(narrow);
    let same_subdomains = |a: &str, b: &str| a.strip_prefix('*').is_some_and(|rest| rest == b);
    (wide_port == Some("*") || wide_port == narrow_port)
        && (covers(wide_host, narrow_host) || same_subdomains(wide_host, narrow_host))
}

fn with_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if port == "*" || port.bytes().all(|b| b.is_ascii_digit()) => {
            (name, Some(port))
        }
        _ => (host, None),
    }
}

/// Without what another entry covers anyway. Of two that say the same, the
/// first.
fn essential(rule: Rule, entries: &BTreeSet<String>) -> Vec<&str> {
    let mut kept: Vec<&str> = Vec::with_capacity(entries.len());
    for entry in entries {
        let covered = |by: &str| rule.covers(by, entry);
        let mutual = |by: &str| rule.covers(entry, by);
        let dropped = entries
            .iter()
            .filter(|other| *other != entry)
            .any(|other| covered(other) && (!mutual(other) || kept.contains(&other.as_str())));
        if !dropped {
            kept.push(entry);
        }
    }
    kept
}

fn compare(
    kind: &str,
    rule: Rule,
    old: &[&str],
    new: &[&str],
    difference: &mut PermissionDifference,
) {
    let same = |a: &str, b: &str| rule.covers(a, b) && rule.covers(b, a);
    let gone: Vec<&str> = old
        .iter()
        .copied()
        .filter(|o| !new.iter().any(|n| same(n, o)))
        .collect();
    let come: Vec<&str> = new
        .iter()
        .copied()
        .filter(|n| !old.iter().any(|o| same(o, n)))
        .collect();
    for entry in &come {
        let under: Vec<&str> = gone
            .iter()
            .copied()
            .filter(|o| rule.covers(entry, o))
            .collect();
        if !under.is_empty() {
            let under = under.join(", ");
            difference
                .widened
                .push(format!("{kind} {entry} (was {under})"));
        } else if !gone.iter().any(|o| rule.covers(o, entry)) {
            difference.added.push(format!("{kind} {entry}"));
        }
    }
    for entry in &gone {
        let under: Vec<&str> = come
            .iter()
            .copied()
            .filter(|n| rule.covers(entry, n))
            .collect();
        if !under.is_empty() {
            let under = under.join(", ");
            difference
                .narrowed
                .push(format!("{kind} {under} (was {entry})"));
        } else if !come.iter().any(|n| rule.covers(n, entry)) {
            difference.removed.push(format!("{kind} {entry}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(hosts: &[&str], scopes: &[&str], sees: &[&str]) -> PermissionSet {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        PermissionSet {
            audience_hosts: texts(hosts),
            scopes: texts(scopes),
            sees: texts(sees),
            ..PermissionSet::default()
        }
    }

    #[test]
    fn the_difference_says_what_was_added_removed_widened_and_narrowed() {
        let old = set(
            &[
                "api.example.com",
                "eu.example.com",
                "old.example.net",
                "*.narrow.org",
            ],
            &["a", "b"],
            &["arguments of search"],
        );
        let new = set(
            &["*.example.com", "files.narrow.org", "new.example.net"],
            &["b", "c"],
            &[EVERY_CALL],
        );
        let difference = PermissionSet::difference(Some(&old), &new);
        assert_eq!(
            difference,
            PermissionDifference {
                added: vec!["audience host new.example.net".into(), "scope c".into()],
                widened: vec![
                    "audience host *.example.com (was api.example.com, eu.example.com)".into(),
                    "sees arguments of every call (was arguments of search)".into(),
                ],
                narrowed: vec!["audience host files.narrow.org (was *.narrow.org)".into()],
                removed: vec!["audience host old.example.net".into(), "scope a".into()],
            }
        );
        assert!(difference.asks_for_more());
        assert!(PermissionSet::difference(Some(&new), &new).is_empty());
        assert_eq!(PermissionSet::difference(None, &old).added.len(), 4 + 2 + 1);
    }

    #[test]
    fn an_entry_that_another_covers_changes_nothing() {
        let one = set(&["*.example.com"], &[], &[]);
        let two = set(
            &["*.example.com", "api.example.com", ".example.com"],
            &[],
            &[],
        );
        assert!(PermissionSet::difference(Some(&one), &two).is_empty());
        assert!(PermissionSet::difference(Some(&two), &one).is_empty());
        assert!(two.is_same_or_narrower(&one) && one.is_same_or_narrower(&two));
    }

    #[test]
    fn narrower_means_nothing_new() {
        let wide = set(&["*.example.com"], &["a", "b"], &[EVERY_CALL]);
        let cases = [
            (set(&[], &["a"], &[]), true),
            (set(&["api.example.com"], &[], &[]), true),
            (set(&["example.com"], &[], &[]), false),
            (set(&["api.example.com:8443"], &[], &[]), false),
            (set(&["evilexample.com"], &[], &[]), false),
            (set(&[], &["c"], &[]), false),
            (set(&[], &["a*"], &[]), false),
            (set(&[], &[], &["arguments of search"]), true),
            (set(&[], &[], &["account identifier"]), false),
            (wide.clone(), true),
        ];
        for (new, expected) in cases {
            assert_eq!(new.is_same_or_narrower(&wide), expected, "{new:?}");
        }
        let endpoint = |url: &str| PermissionSet {
            endpoints: [format!("token {url}")].into(),
            ..PermissionSet::default()
        };
        // A star in an endpoint is one user's own value: another fixed host in
        // its place would be sent the codes of all users.
        assert!(
            !endpoint("https://thief.shops.example/token")
                .is_same_or_narrower(&endpoint("https://*.shops.example/token"))
        );
    }

    #[test]
    fn a_port_is_covered_by_itself_and_by_any() {
        for (wide, narrow, expected) in [
            ("h.example.com:*", "h.example.com", true),
            ("h.example.com:*", "h.example.com:8443", true),
            ("h.example.com", "h.example.com:8443", false),
            ("*.example.com:8443", "h.example.com:8443", true),
            ("*.example.com", "h.example.com:*", false),
            ("[::1]:*", "[::1]:8080", true),
            ("[::1]", "[::2]", false),
        ] {
            assert_eq!(host_covers(wide, narrow), expected, "{wide} {narrow}");
        }
    }

    fn any_set() -> impl Strategy<Value = PermissionSet> {
        let host = prop::sample::select(vec![
            "a.com",
            "*.a.com",
            ".a.com",
            "x.a.com",
            "y.x.a.com",
            "*.x.a.com",
            "a.com:8443",
            "a.com:*",
            "b.org",
        ]);
        let sight = prop::sample::select(vec![
            EVERY_CALL,
            "arguments of search",
            "arguments of get",
            "settings",
        ]);
        let scope = prop::sample::select(vec!["r", "w", "r*"]);
        let few = |s| prop::collection::btree_set(s, 0..5);
        (few(host), few(scope), few(sight)).prop_map(|(hosts, scopes, sees)| {
            let list = |s: BTreeSet<&'static str>| s.into_iter().collect::<Vec<_>>();
            set(&list(hosts), &list(scopes), &list(sees))
        })
    }

    proptest! {
        #[test]
        fn only_what_asks_for_more_shows_more(old in any_set(), new in any_set()) {
            let difference = PermissionSet::difference(Some(&old), &new);
            prop_assert_eq!(!difference.asks_for_more(), new.is_same_or_narrower(&old));
        }

        #[test]
        fn the_way_back_shows_the_reverse(old in any_set(), new in any_set()) {
            let there = PermissionSet::difference(Some(&old), &new);
            let back = PermissionSet::difference(Some(&new), &old);
            prop_assert_eq!(there.added, back.removed);
            prop_assert_eq!(there.removed, back.added);
            prop_assert_eq!(there.widened.is_empty(), back.narrowed.is_empty());
            prop_assert_eq!(there.narrowed.is_empty(), back.widened.is_empty());
        }

        #[test]
        fn narrower_than_narrower_is_narrower(a in any_set(), b in any_set(), c in any_set()) {
            if a.is_same_or_narrower(&b) && b.is_same_or_narrower(&c) {
                prop_assert!(a.is_same_or_narrower(&c));
            }
        }
    }
}
