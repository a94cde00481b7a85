//! Whether a provider still leads where its users consented to send their
//! tokens.
//!
//! A connection keeps the [`Origins`] of its consent. Record and preset may say
//! something else by now: then nothing of the connection goes out, and its
//! status is `needs_reauth` with `provider_changed`.

use url::Url;

use crate::connection::{Connection, Origins, ReauthReason, Status};
use crate::names::Digest;
use crate::preset::{Description, Grant, Source};
use crate::provider::Provider;
use crate::request::{Asking, RequestError};
use crate::scope::{Implications, ScopeSet};
use crate::server::{ConnectionUse, Server, Target};
use crate::template::Values;
use crate::time::Timestamp;

impl Origins {
    /// What is sealed into a connection at its consent. `token` is where its
    /// tokens came from, `resource` what they were asked for (RFC 8707).
    #[must_use]
    pub fn of(asking: &Asking<'_>, token: &Url, resource: Option<&Url>) -> Self {
        Self {
            token: token.origin().ascii_serialization(),
            revocation: asking.revocation_origin(),
            audience: asking.audience(),
            resource: resource.cloned(),
        }
    }
}

/// Where a provider's requests go as its record and its preset have it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// None if it cannot be told: then the request itself fails.
    token: Option<String>,
    revocation: Option<String>,
    client_id: String,
}

impl Course {
    /// Resolves the addresses.
    #[must_use]
    pub fn of(asking: &Asking<'_>) -> Self {
        let token: Result<Url, RequestError> = asking.token_endpoint(&Grant::RefreshToken);
        Self {
            token: token.ok().map(|url| url.origin().ascii_serialization()),
            revocation: asking.revocation_origin(),
            client_id: asking.provider.client_id.clone(),
        }
    }

    /// The course of every connection, if none of them decides a part of it.
    #[must_use]
    pub fn of_all(provider: &Provider, description: &Description, values: &Values) -> Option<Self> {
        let by_settings = |source: &Source| matches!(source, Source::Setting(_));
        let known = description.variables.iter().all(|v| by_settings(&v.source));
        known.then(|| {
            Self::of(&Asking {
                provider,
                description,
                values,
                client_secret: None,
                client_key: None,
            })
        })
    }

    /// Whether a connection's tokens may be sent along it. What may be revoked
    /// where it is renewed is no new place.
    #[must_use]
    pub fn is_that_of(&self, connection: &Connection) -> bool {
        let sealed = &connection.origins;
        let token = self.token.as_ref().is_none_or(|now| *now == sealed.token);
        let revocation = self
            .revocation
            .as_ref()
            .is_none_or(|now| Some(now) == sealed.revocation.as_ref() || *now == sealed.token);
        token && revocation && self.client_id == connection.client_id
    }
}

impl Server {
    /// The RFC 8707 resource that tokens for this server are asked for: its
    /// own, the provider's, or for a connection of its own its address.
    #[must_use]
    pub fn indicator<'a>(&'a self, provider: &'a Provider) -> Option<&'a Url> {
        let shared = provider.resource.as_ref();
        match (self.connection, &self.target) {
            (ConnectionUse::Dedicated, Target::Url(url)) => {
                self.resource.as_ref().or(shared).or(Some(url))
            }
            _ => shared,
        }
    }

    /// Whether the user of this connection consented to tokens for this server.
    #[must_use]
    pub fn is_consented(&self, provider: &Provider, connection: &Connection) -> bool {
        let Target::Url(url) = &self.target else {
            return false;
        };
        connection.origins.audience.iter().any(|h| h.matches(url))
            && connection.origins.resource.as_ref() == self.indicator(provider)
    }
}

impl Provider {
    /// A digest of all that says where this provider's requests go and what is
    /// asked for: a consent that began under another one is not finished.
    #[must_use]
    pub fn course(&self) -> Digest {
        let parts = serde_json::json!([
            self.preset,
            self.authorization_endpoint,
            self.token_endpoint,
            self.revocation_endpoint,
            self.client_id,
            self.audience_hosts,
            self.resource,
            self.audience,
            self.settings,
        ]);
        Digest::of(parts.to_string().as_bytes())
    }
}

/// What a connection is looked at with.
pub struct Standing<'a> {
    /// Its provider, and what that one's preset says.
    pub provider: &'a Provider,
    /// See there.
    pub description: &'a Description,
    /// The servers that use it.
    pub servers: &'a [&'a Server],
    /// What they need of it.
    pub required: &'a ScopeSet,
    /// What includes what.
    pub implications: &'a Implications,
}

impl Standing<'_> {
    /// [`Connection::status`], and whether everything still leads where the
    /// user consented to.
    #[must_use]
    pub fn of(&self, connection: &Connection, now: Timestamp) -> (Status, Option<ReauthReason>) {
        let (status, reason) = connection.status(now, self.required, self.implications);
        if matches!(status, Status::NeedsReauth | Status::Suspended)
            || !self.is_elsewhere(connection)
        {
            return (status, reason);
        }
        (Status::NeedsReauth, Some(ReauthReason::ProviderChanged))
    }

    fn is_elsewhere(&self, connection: &Connection) -> bool {
        let settings = &self.provider.settings;
        let Ok(values) = Values::resolve(self.description, settings, &connection.facts) else {
            // Nothing can be sent at all; what is wrong is the settings.
            return false;
        };
        let asking = Asking {
            provider: self.provider,
            description: self.description,
            values: &values,
            client_secret: None,
            client_key: None,
        };
        !Course::of(&asking).is_that_of(connection)
            || !self
                .servers
                .iter()
                .all(|s| s.is_consented(self.provider, connection))
    }
}
