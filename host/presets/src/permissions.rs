//! What a preset may do for one provider, as a set that an administrator can
//! read, approve and compare.

use std::collections::BTreeSet;

use countersign_core::names::Digest;
use countersign_core::preset::{self, Description, Header, Hooks, Offline, Template};
use countersign_core::provider::Provider;
use countersign_core::signing::AWS_SIGNATURE_HEADERS;
use serde::{Deserialize, Serialize};

use crate::check::{CheckError, at, header_uses};
use crate::symbols::{Symbols, host_of, slot_text};

mod difference;
mod sees;

pub use difference::PermissionDifference;

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
    /// What it gets to see of calls and accounts, and what it has read out of
    /// answers (`arguments of every call`, `token answer at /team/id …`).
    #[serde(default)]
    pub sees: BTreeSet<String>,
}

/// How entries of one kind compare.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Only with themselves.
    Exact,
    /// As host patterns.
    Host,
    /// The arguments of every call are those of any.
    Sight,
}

/// The arguments of all calls.
const EVERY_CALL: &str = "arguments of every call";
/// The arguments of calls of one tool: its name follows.
const ARGUMENTS_OF: &str = "arguments of ";

impl PermissionSet {
    fn fields(&self) -> [(&'static str, Rule, &BTreeSet<String>); 11] {
        [
            ("import", Rule::Exact, &self.imports),
            ("authorization host", Rule::Host, &self.authorization_hosts),
            ("audience host", Rule::Host, &self.audience_hosts),
            ("scope", Rule::Exact, &self.scopes),
            ("header", Rule::Exact, &self.headers),
            ("query parameter", Rule::Exact, &self.queries),
            ("secret", Rule::Exact, &self.slots),
            ("credential", Rule::Exact, &self.credentials),
            ("hook", Rule::Exact, &self.hooks),
            ("endpoint", Rule::Exact, &self.endpoints),
            ("sees", Rule::Sight, &self.sees),
        ]
    }

    /// Every kind with its entries, in the order they are shown in.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &BTreeSet<String>)> {
        self.fields()
            .into_iter()
            .map(|(kind, _, entries)| (kind, entries))
    }

    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut text = Vec::new();
        for (kind, _, entries) in self.fields() {
            for entry in entries {
                // Lengths first: no entry can pass for two.
                text.extend_from_slice(
                    format!("{}:{kind}{}:{entry}", kind.len(), entry.len()).as_bytes(),
                );
            }
        }
        Digest::of(&text)
    }

    /// Resolves a checked description for one provider, or for whichever may
    /// come.
    pub(crate) fn resolve(
        d: &Description,
        arguments_of: &[String],
        imports: &BTreeSet<String>,
        provider: Option<&Provider>,
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
        set.sees = sees::of(d, arguments_of);
        Ok(set)
    }

    fn hosts(
        &mut self,
        d: &Description,
        provider: Option<&Provider>,
        symbols: &Symbols<'_>,
    ) -> Result<(), CheckError> {
        for template in &d.authorization_hosts {
            self.authorization_hosts.extend(
                symbols
                    .hosts(template)
                    .map_err(|e| at("authorization-hosts", e))?,
            );
        }
        let own = provider.map_or(&[][..], |p| p.audience_hosts.as_slice());
        if own.is_empty() {
            for template in &d.audience_hosts {
                self.audience_hosts.extend(
                    symbols
                        .hosts(template)
                        .map_err(|e| at("audience-hosts", e))?,
                );
            }
        } else {
            self.audience_hosts
                .extend(own.iter().map(ToString::to_string));
        }
        Ok(())
    }

    fn endpoints(
        &mut self,
        d: &Description,
        provider: Option<&Provider>,
        symbols: &Symbols<'_>,
    ) -> Result<(), CheckError> {
        let authorization = d.authorization.as_ref().map(|a| &a.endpoint);
        // The record's own endpoint replaces whatever the preset describes,
        // unless the preset leaves its address to the record (below).
        let revocation = provider
            .and_then(|p| p.revocation_endpoint.as_ref())
            .filter(|_| !d.revocation.iter().any(|r| r.request.url.is_empty()));
        for (what, own, described) in [
            (
                "authorization",
                provider.and_then(|p| p.authorization_endpoint.as_ref()),
                authorization,
            ),
            (
                "token",
                provider.and_then(|p| p.token_endpoint.as_ref()),
                d.token_endpoint.as_ref(),
            ),
            (
                "device authorization",
                provider.and_then(|p| p.device_authorization_endpoint.as_ref()),
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
            match (
                provider.and_then(|p| p.revocation_endpoint.as_ref()),
                request.url.is_empty(),
            ) {
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
        let rules: Vec<&preset::Rule> = d.credentials.iter().flat_map(|c| &c.rules).collect();
        for (name, is_header, slots) in header_uses(rules.into_iter()) {
            if is_header {
                self.headers.insert(name.to_ascii_lowercase());
            } else {
                self.queries.insert(name.to_owned());
            }
            self.slots.extend(slots.into_iter().map(slot_text));
        }
        if d.hooks.sign {
            self.slots.insert("<signature>".into());
        }
        if d.credentials.iter().any(|c| c.sigv4.is_some()) {
            self.slots.insert("<aws-signature>".into());
            self.headers
                .extend(AWS_SIGNATURE_HEADERS.map(str::to_owned));
        }
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
pub(crate) mod tests {
    use countersign_core::preset::{
        AnswerShape, GrantDifference, Refresh, RefreshKind, Rotation, Wants,
    };

    use super::*;

    /// A description that says nothing.
    pub(crate) fn plain() -> Description {
        Description {
            name: "plain".into(),
            display_name: "Plain".into(),
            version: "1.0.0".into(),
            category: "test".into(),
            documentation_url: String::new(),
            wants: Wants::default(),
            hooks: Hooks::default(),
            variables: Vec::new(),
            variants: Vec::new(),
            authorization_hosts: Vec::new(),
            audience_hosts: Vec::new(),
            authorization: None,
            token_endpoint: None,
            device_authorization_endpoint: None,
            token_requests: Vec::new(),
            token_answer: AnswerShape {
                success_codes: Vec::new(),
                success_checks: Vec::new(),
                error_code: Vec::new(),
                error_description: Vec::new(),
                may_be_form: false,
            },
            token_shapes: Vec::new(),
            metadata: Vec::new(),
            grant_difference: GrantDifference::Accept,
            scopes: Vec::new(),
            default_scopes: Vec::new(),
            refresh: Refresh {
                kind: RefreshKind::None,
                rotation: Rotation::Never,
                grace_seconds: 0,
                retry_after_lost_answer: false,
                ends_access_token: false,
                idle_days: None,
                margin_percent: 0,
                permanent_errors: Vec::new(),
                transient_errors: Vec::new(),
            },
            revocation: Vec::new(),
            follow_ups: Vec::new(),
            identity: None,
            credentials: Vec::new(),
            constant_headers: Vec::new(),
            mcp_servers: Vec::new(),
            error_advice: Vec::new(),
        }
    }
}
