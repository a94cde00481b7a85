//! What is registered already, or known to a preset, and serves as well.

use std::sync::Arc;

use countersign_core::preset::Description;
use countersign_core::provider::{GrantType, Provider};
use countersign_core::template::{Values, endpoint, render_text};
use countersign_oauth::discovery::Discovered;
use url::Url;

use crate::registry::{ProviderInput, Registry, Snapshot};

/// Providers of the same authorization server, and presets of the vendor.
pub(super) struct Reusable {
    snapshot: Arc<Snapshot>,
    providers: Vec<Arc<Provider>>,
    presets: Vec<String>,
}

impl Reusable {
    /// Looks for them.
    pub(super) fn find(registry: &Registry, found: &Discovered, typed: &Url) -> Self {
        let snapshot = registry.snapshot();
        let same = |provider: &&Arc<Provider>| {
            is_same_server(provider, registry.description_of(provider).as_ref(), found)
        };
        let mut providers: Vec<Arc<Provider>> = snapshot
            .providers
            .values()
            .map(|stored| &stored.value)
            .filter(same)
            .cloned()
            .collect();
        providers.sort_by(|a, b| a.name.cmp(&b.name));
        let presets = registry.described_presets().into_iter();
        let presets = presets
            .filter(|(_, description)| is_vendors(description, found, typed))
            .map(|(name, _)| name)
            .collect();
        Self {
            snapshot,
            providers,
            presets,
        }
    }

    /// The one provider that was made for this very server: its tokens may go
    /// there, and are asked for as the server wants them.
    pub(super) fn made_for(&self, found: &Discovered, typed: &Url) -> Option<Arc<Provider>> {
        let resource = found.resource.as_ref().map_or(typed, |r| &r.resource);
        let mut fitting = self.providers.iter().filter(|p| {
            p.enabled
                && p.grant_types.contains(&GrantType::AuthorizationCode)
                && p.resource.as_ref() == Some(resource)
                && p.audience_hosts.iter().any(|h| h.matches(typed))
        });
        let first = fitting.next()?;
        fitting.next().is_none().then(|| Arc::clone(first))
    }

    /// What to say instead of registering another provider.
    pub(super) fn offer_provider(&self, input: &ProviderInput) -> Option<String> {
        if let Some(known) = self.names() {
            return Some(format!(
                "{known} for the same authorization server already; attach servers to it with `countersign server \
                 create --user-oauth-provider {}`, or repeat this with --force for another client of its own",
                self.providers.first()?.name
            ));
        }
        if !input.preset.is_empty() {
            return None;
        }
        self.offer_preset(&input.name)
    }

    /// What to say instead of registering a provider for a server.
    pub(super) fn offer_server(
        &self,
        name: &str,
        found: &Discovered,
        typed: &Url,
    ) -> Option<String> {
        let Some(known) = self.names() else {
            return self.offer_preset(name);
        };
        let provider = self.providers.first()?;
        let resource = found.resource.as_ref().map_or(typed, |r| &r.resource);
        let mut command = format!(
            "`countersign server create --name {name} --endpoint {typed} --user-oauth-provider {}`",
            provider.name
        );
        if provider.resource.as_ref().is_some_and(|r| r != resource) {
            command.insert_str(command.len() - 1, &format!(" --resource {resource}"));
        }
        let mut offer =
            format!("{known} for its authorization server already; use it with {command}");
        if !provider.audience_hosts.iter().any(|h| h.matches(typed)) {
            offer.push_str(&format!(
                " (after adding {} to its --audience-hosts)",
                typed.host_str().unwrap_or_default()
            ));
        }
        offer.push_str(", or repeat this with --force for a client of its own");
        Some(offer)
    }

    fn names(&self) -> Option<String> {
        let names: Vec<&str> = self.providers.iter().map(|p| p.name.as_str()).collect();
        match names.as_slice() {
            [] => None,
            [one] => Some(format!("there is the provider {one}")),
            many => Some(format!("there are the providers {}", many.join(", "))),
        }
    }

    fn offer_preset(&self, name: &str) -> Option<String> {
        let preset = self.presets.first()?;
        Some(format!(
            "the preset {preset} knows this vendor: `countersign provider create --name {name} --preset {preset} \
             --client-id …` does better than what can be found out; or repeat this with --force"
        ))
    }

    /// A provider's name that is free: the server's, if it is.
    pub(super) fn free_name(&self, server: &str) -> String {
        let is_taken = |name: &str| {
            let mut names = self.snapshot.providers.keys();
            names.any(|known| known.as_str() == name)
        };
        let more = (2..1000).map(|n| format!("{server}-{n}"));
        std::iter::once(server.to_owned())
            .chain(more)
            .find(|name| !is_taken(name))
            .unwrap_or_else(|| server.to_owned())
    }
}

fn is_same_server(
    provider: &Provider,
    description: Option<&Description>,
    found: &Discovered,
) -> bool {
    let issuer = &found.server.issuer;
    let recorded = provider.registration.as_ref().map(|r| &r.issuer);
    let set = provider.settings.get("issuer").and_then(|v| v.as_str());
    if recorded == Some(issuer) || set == Some(issuer) {
        return true;
    }
    let described = || {
        let description = description?;
        let values = Values::resolve(description, &provider.settings, &[]).ok()?;
        endpoint(description.token_endpoint.as_ref()?, values.variables()).ok()
    };
    let token = provider.token_endpoint.clone().or_else(described);
    token.as_ref() == Some(&found.server.token_endpoint)
}

/// Whether a preset is about this vendor: its MCP server is there, or it sends
/// users to sign in there.
fn is_vendors(description: &Description, found: &Discovered, typed: &Url) -> bool {
    let values = Values::default();
    let url = |template: &[countersign_core::preset::Part]| {
        let text = render_text(template, values.variables()).ok()?;
        Url::parse(&text).ok()
    };
    let servers = description.mcp_servers.iter();
    let here = servers
        .filter_map(|server| url(&server.url))
        .any(|known| known.origin() == typed.origin());
    let token = description.token_endpoint.as_deref().and_then(url);
    here || token.as_ref() == Some(&found.server.token_endpoint)
}
