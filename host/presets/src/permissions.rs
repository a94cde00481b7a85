//! What a preset may do for one provider, as a set that an administrator can
//! read, approve and compare.

use std::collections::BTreeSet;

use countersign_core::names::Digest;
use countersign_core::preset::{Description, Header, Hooks, Offline, Rule, Template};
use countersign_core::provider::Provider;
use serde::{Deserialize, Serialize};

use crate::check::{CheckError, header_uses};
use crate::symbols::{SymbolError, Symbols, host_of, slot_text};

/// A resolved permission set. Every entry is a text in its canonical form;
/// `*` stands for what is only known once somebody has signed in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PermissionSet {
    /// Host interfaces with functions (`log`, `signing`).
    pub imports: BTreeSet<String>,
    /// Where authorization, token, revocation and identity requests go.
    pub authorization_hosts: BTreeSet<String>,
    /// Where the provider's tokens go: the provider record's hosts if it names
    /// any, else the preset's.
    pub audience_hosts: BTreeSet<String>,
    /// Scopes it asks for by itself or may ask a user for.
    pub scopes: BTreeSet<String>,
    /// Headers it may set on upstream requests, lower case.
    pub headers: BTreeSet<String>,
    /// Query parameters it may add to upstream requests.
    pub queries: BTreeSet<String>,
    /// Secrets that upstream requests may carry.
    pub slots: BTreeSet<String>,
    /// Kinds of credential.
    pub credentials: BTreeSet<String>,
    /// Hooks that run.
    pub hooks: BTreeSet<String>,
    /// Requests that the host makes for it (`revocation DELETE https://…`).
    pub endpoints: BTreeSet<String>,
}

/// What a new permission set has that an old one has not, and the reverse.
/// Each entry names its kind (`audience host api.example.com`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionDifference {
    /// Only in the new one.
    pub added: Vec<String>,
    /// Only in the old one.
    pub removed: Vec<String>,
}

impl PermissionDifference {
    /// Whether both are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl PermissionSet {
    fn fields(&self) -> [(&'static str, &BTreeSet<String>); 10] {
        [
            ("import", &self.imports),
            ("authorization host", &self.authorization_hosts),
            ("audience host", &self.audience_hosts),
            ("scope", &self.scopes),
            ("header", &self.headers),
            ("query parameter", &self.queries),
            ("secret", &self.slots),
            ("credential", &self.credentials),
            ("hook", &self.hooks),
            ("endpoint", &self.endpoints),
        ]
    }

    /// From `old` (nothing, if there is none) to `new`.
    #[must_use]
    pub fn difference(old: Option<&Self>, new: &Self) -> PermissionDifference {
        let nothing = Self::default();
        let old = old.unwrap_or(&nothing);
        let only = |a: &Self, b: &Self| -> Vec<String> {
            a.fields()
                .into_iter()
                .zip(b.fields())
                .flat_map(|((kind, a), (_, b))| {
                    a.difference(b).map(move |entry| format!("{kind} {entry}"))
                })
                .collect()
        };
        PermissionDifference {
            added: only(new, old),
            removed: only(old, new),
        }
    }

    /// Whether everything in it is in `old` too.
    #[must_use]
    pub fn is_same_or_narrower(&self, old: &Self) -> bool {
        self.fields()
            .into_iter()
            .zip(old.fields())
            .all(|((_, new), (_, old))| new.is_subset(old))
    }

    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut text = Vec::new();
        for (kind, entries) in self.fields() {
            for entry in entries {
                // Lengths first: no entry can pass for two.
                text.extend_from_slice(
                    format!("{}:{kind}{}:{entry}", kind.len(), entry.len()).as_bytes(),
                );
            }
        }
        Digest::of(&text)
    }

    /// Resolves a checked description for one provider.
    pub(crate) fn resolve(
        d: &Description,
        imports: &BTreeSet<String>,
        provider: &Provider,
        symbols: &Symbols<'_>,
    ) -> Result<Self, CheckError> {
        let mut set = Self {
            imports: imports.clone(),
            ..Self::default()
        };
        set.hosts(d, provider, symbols)?;
        set.endpoints(d, provider, symbols)?;
        set.sending(d);
        set.scopes = d
            .default_scopes
            .iter()
            .cloned()
            .chain(d.scopes.iter().map(|s| {
                if s.prefix {
                    format!("{}*", s.name)
                } else {
                    s.name.clone()
                }
            }))
            .chain(d.authorization.iter().filter_map(|a| match &a.offline {
                Offline::Scope(scope) => Some(scope.clone()),
                Offline::None | Offline::Parameters(_) | Offline::AppSetting(_) => None,
            }))
            .collect();
        set.hooks = hook_names(d.hooks);
        Ok(set)
    }

    fn hosts(
        &mut self,
        d: &Description,
        provider: &Provider,
        symbols: &Symbols<'_>,
    ) -> Result<(), CheckError> {
        for template in &d.authorization_hosts {
            self.authorization_hosts.extend(
                symbols
                    .hosts(template)
                    .map_err(|e| at("authorization-hosts", e))?,
            );
        }
        if provider.audience_hosts.is_empty() {
            for template in &d.audience_hosts {
                self.audience_hosts.extend(
                    symbols
                        .hosts(template)
                        .map_err(|e| at("audience-hosts", e))?,
                );
            }
        } else {
            self.audience_hosts
                .extend(provider.audience_hosts.iter().map(ToString::to_string));
        }
        Ok(())
    }

    fn endpoints(
        &mut self,
        d: &Description,
        provider: &Provider,
        symbols: &Symbols<'_>,
    ) -> Result<(), CheckError> {
        let authorization = d.authorization.as_ref().map(|a| &a.endpoint);
        // The record's own endpoint replaces whatever the preset describes,
        // unless the preset leaves its address to the record (below).
        let revocation = provider
            .revocation_endpoint
            .as_ref()
            .filter(|_| !d.revocation.iter().any(|r| r.request.url.is_empty()));
        for (what, own, described) in [
            (
                "authorization",
                provider.authorization_endpoint.as_ref(),
                authorization,
            ),
            (
                "token",
                provider.token_endpoint.as_ref(),
                d.token_endpoint.as_ref(),
            ),
            (
                "device authorization",
                provider.device_authorization_endpoint.as_ref(),
                d.device_authorization_endpoint.as_ref(),
            ),
            ("revocation POST", revocation, None),
        ] {
            match (own, described) {
                (Some(url), _) => self.endpoint(what, url.as_str()),
                (None, Some(template)) => self.described(what, template, symbols)?,
                (None, None) => {}
            }
        }
        for endpoint in d.token_requests.iter().filter_map(|r| r.endpoint.as_ref()) {
            self.described("token", endpoint, symbols)?;
        }
        let revocations = d.revocation.iter().map(|r| ("revocation", &r.request));
        let follow_ups = d.follow_ups.iter().map(|f| ("follow-up", &f.request));
        let identity = d.identity.iter().map(|i| ("identity", &i.request));
        for (what, request) in revocations.chain(follow_ups).chain(identity) {
            let what = format!("{what} {}", request.method);
            match (&provider.revocation_endpoint, request.url.is_empty()) {
                (Some(url), true) => self.endpoint(&what, url.as_str()),
                (None, true) => {}
                (_, false) => self.described(&what, &request.url, symbols)?,
            }
        }
        Ok(())
    }

    fn described(
        &mut self,
        what: &str,
        template: &Template,
        symbols: &Symbols<'_>,
    ) -> Result<(), CheckError> {
        if template.is_empty() {
            return Ok(());
        }
        for url in symbols.urls(template).map_err(|e| at(what, e))? {
            self.endpoint(what, &url);
        }
        Ok(())
    }

    fn endpoint(&mut self, what: &str, url: &str) {
        if let Some(host) = host_of(url) {
            self.authorization_hosts.insert(host.to_ascii_lowercase());
        }
        self.endpoints.insert(format!("{what} {url}"));
    }

    fn sending(&mut self, d: &Description) {
        self.credentials = d.credentials.iter().map(|c| c.name.clone()).collect();
        self.headers = d
            .constant_headers
            .iter()
            .map(|h: &Header| h.name.to_ascii_lowercase())
            .collect();
        let rules: Vec<&Rule> = d.credentials.iter().flat_map(|c| &c.rules).collect();
        for (name, is_header, slots) in header_uses(rules.into_iter()) {
            if is_header {
                self.headers.insert(name.to_ascii_lowercase());
            } else {
                self.queries.insert(name.to_owned());
            }
            self.slots.extend(slots.into_iter().map(slot_text));
        }
    }
}

fn at(place: &str, error: SymbolError) -> CheckError {
    CheckError::Template {
        place: place.to_owned(),
        error,
    }
}

/// The names of the hooks that are set.
pub(crate) fn hook_names(hooks: Hooks) -> BTreeSet<String> {
    [
        ("authorize-parameters", hooks.authorize_parameters),
        ("token-answer", hooks.token_answer),
        ("refresh-error", hooks.refresh_error),
        ("sign", hooks.sign),
        ("identity", hooks.identity),
        ("filter-tools", hooks.filter_tools),
        ("redact", hooks.redact),
    ]
    .into_iter()
    .filter(|(_, set)| *set)
    .map(|(name, _)| name.to_owned())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_scopes(scopes: &[&str]) -> PermissionSet {
        PermissionSet {
            scopes: scopes.iter().map(ToString::to_string).collect(),
            ..PermissionSet::default()
        }
    }

    #[test]
    fn the_difference_says_what_was_added_and_removed() {
        let old = with_scopes(&["a", "b"]);
        let new = with_scopes(&["b", "c"]);
        let difference = PermissionSet::difference(Some(&old), &new);
        assert_eq!(difference.added, ["scope c"]);
        assert_eq!(difference.removed, ["scope a"]);
        assert!(PermissionSet::difference(Some(&new), &new).is_empty());
        assert_eq!(PermissionSet::difference(None, &old).added.len(), 2);
    }

    #[test]
    fn narrower_means_nothing_new() {
        let wide = with_scopes(&["a", "b"]);
        assert!(with_scopes(&["a"]).is_same_or_narrower(&wide));
        assert!(wide.is_same_or_narrower(&wide));
        assert!(!with_scopes(&["c"]).is_same_or_narrower(&wide));
        let header = PermissionSet {
            headers: ["x".to_owned()].into(),
            ..with_scopes(&["a"])
        };
        assert!(!header.is_same_or_narrower(&wide));
    }
}
