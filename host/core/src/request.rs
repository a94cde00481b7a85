//! Requests that Countersign makes to a provider on its own account: token,
//! revocation and identity requests.
//!
//! Their secrets (client secret, code, verifier, refresh token) are filled in
//! here, and assertions are signed here; what comes out is an [`Outgoing`], which only a [`Sender`] consumes.

use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderMap;
use url::Url;

use crate::hosts::HostPattern;
use crate::issuer::CallerToken;
use crate::jwt::KeyError;
use crate::ports::{BoxFuture, Clock, Random};
use crate::preset::{Assertion, Description, Grant, Part, TokenRequest};
use crate::provider::Provider;
use crate::scope::ScopeSet;
use crate::secret::{Sealed, Secret};
use crate::template::{TemplateError, Values, Variables, endpoint, is_usable, render_text};
use crate::time::Timestamp;
use crate::token_answer::Answer;
use crate::tokens::TokenSet;

mod assertion;
mod build;
mod register;
mod wire;

pub use build::{described_request, device_request, revocation_request, token_request};
pub use register::{Manage, management_request, registration_request};

/// Why a request to the provider could not be made. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Neither the provider record nor the preset says where.
    #[error("the provider has no {0}: set it with `provider update`")]
    NoEndpoint(&'static str),
    /// The address is on none of the hosts that may be asked.
    #[error("the preset sends a request to {0}, which is not among its authorization hosts")]
    OffHost(String),
    /// A template could not be filled.
    #[error("{0}")]
    Template(#[from] TemplateError),
    /// A header name or value is not allowed.
    #[error("the preset sets the header {0:?}, which is not allowed here")]
    BadHeader(String),
    /// A claim of an assertion that is not the preset's to set, or says that it
    /// is for somebody else.
    #[error("the preset may not set the claim {0:?} of an assertion so")]
    Claim(String),
    /// The client proves itself by a signature, and there is no key.
    #[error(
        "the provider has no private key to sign with: set one with `secret set NAME` and `provider update --private-key-ref NAME`"
    )]
    NoKey,
    /// The key does not sign.
    #[error("the private key {0}")]
    Key(#[from] KeyError),
    /// The client secret or private key is bound to other hosts.
    #[error(
        "the client's secret is not bound to {0}: an administrator can change that with `secret set NAME --hosts`"
    )]
    SecretBound(String),
    /// A caller's token would leave for another place than its issuer's.
    #[error("a caller's token goes to its issuer's token endpoint alone, and {0} is another")]
    ElsewhereThanIssuer(String),
    /// A stored secret cannot be opened.
    #[error("a stored secret cannot be opened; the account must be connected again")]
    Unreadable,
}

/// Why no answer came. Never holds anything the provider sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The address may not be called.
    #[error("the address is not allowed: {0}")]
    Refused(String),
    /// No connection could be made; the request was not sent.
    #[error("it cannot be reached")]
    Unreachable,
    /// It took too long.
    #[error("it did not answer in time")]
    Timeout,
    /// The connection ended before the answer did.
    #[error("its answer broke off")]
    Dropped,
    /// The answer is larger than is read.
    #[error("its answer is too large")]
    TooLarge,
}

impl SendError {
    /// Whether the provider may have acted on the request.
    #[must_use]
    pub fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Timeout | Self::Dropped | Self::TooLarge)
    }
}

/// Sends requests to providers: guarded, without redirects, with a cap on the
/// answer. The only consumer of [`Outgoing`].
pub trait Sender: Send + Sync {
    /// Sends it once and reads the answer.
    fn send(
        &self,
        request: Outgoing,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Answer, SendError>>;
}

/// A request with its secrets filled in. It has no `Debug`.
pub struct Outgoing {
    method: http::Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
}

/// An [`Outgoing`] taken apart, for a [`Sender`] and for nobody else: the URL
/// and the body may hold secrets.
pub struct OutgoingParts {
    /// The method.
    pub method: http::Method,
    /// May hold a secret: never log it.
    pub url: Url,
    /// Those that carry secrets are marked sensitive.
    pub headers: HeaderMap,
    /// Zeroized when the last reference is dropped.
    pub body: Option<Bytes>,
}

impl Outgoing {
    /// Takes it apart, to send it.
    #[must_use]
    pub fn into_parts(self) -> OutgoingParts {
        OutgoingParts {
            method: self.method,
            url: self.url,
            headers: self.headers,
            body: self.body,
        }
    }

    /// Where it goes, without path and query.
    #[must_use]
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// A stored secret, and the hosts it may be sent to (empty: wherever the
/// provider record says).
pub struct BoundSecret {
    /// The secret.
    pub sealed: Sealed,
    /// Its hosts.
    pub hosts: Vec<HostPattern>,
}

impl BoundSecret {
    /// Whether it, or what it signs, may be sent there.
    fn check(&self, url: &Url) -> Result<(), RequestError> {
        if self.hosts.is_empty() || self.hosts.iter().any(|h| h.matches(url)) {
            return Ok(());
        }
        Err(RequestError::SecretBound(
            url.origin().ascii_serialization(),
        ))
    }
}

/// What every request to a provider is made from.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// The provider record.
    pub provider: &'a Provider,
    /// What its preset says.
    pub description: &'a Description,
    /// Its variables.
    pub values: &'a Values,
    /// The client secret, if there is one.
    pub client_secret: Option<&'a BoundSecret>,
    /// The key of `private_key_jwt`, if there is one.
    pub client_key: Option<ClientKey<'a>>,
}

/// What the client's assertions are signed with, and when.
#[derive(Clone, Copy)]
pub struct ClientKey<'a> {
    /// A private key in PEM.
    pub secret: &'a BoundSecret,
    /// An assertion is good for a minute.
    pub clock: &'a dyn Clock,
    /// An assertion is good once.
    pub random: &'a dyn Random,
}

/// What is exchanged for tokens.
pub enum Exchange<'a> {
    /// RFC 6749 §4.1.3, with RFC 7636.
    Code {
        /// From the callback.
        code: &'a Secret,
        /// The PKCE verifier, if one was sent.
        verifier: Option<&'a Sealed>,
        /// As in the authorization request.
        redirect_uri: &'a str,
        /// RFC 8707, if one was asked for.
        resource: Option<&'a Url>,
    },
    /// RFC 6749 §6.
    Refresh {
        /// The connection's tokens.
        tokens: &'a Sealed,
        /// Which credential's.
        credential: &'a str,
        /// RFC 8707, if one was asked for.
        resource: Option<&'a Url>,
    },
    /// RFC 6749 §4.4.
    ClientCredentials(Target<'a>),
    /// RFC 8693 §2.1.
    TokenExchange {
        /// For whom.
        subject: Subject<'a>,
        /// For what.
        target: Target<'a>,
    },
    /// RFC 7523 §2.1.
    JwtBearer {
        /// For whom; none for the client's own assertion, which the provider's
        /// private key signs.
        subject: Option<Subject<'a>>,
        /// For what.
        target: Target<'a>,
    },
    /// RFC 8628 §3.4.
    DeviceCode {
        /// From the device authorization.
        device_code: &'a Sealed,
        /// RFC 8707, if one was asked for.
        resource: Option<&'a Url>,
    },
}

/// What a token is asked for.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// What it has to reach.
    pub scopes: &'a ScopeSet,
    /// RFC 8707, RFC 8693 §2.1.
    pub resource: Option<&'a Url>,
    /// RFC 8693 §2.1, or a vendor's.
    pub audience: Option<&'a str>,
}

/// On whose behalf a token is asked for.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    /// The host says so, in an assertion that it signs for that token endpoint
    /// alone (RFC 7523 §3).
    Host(HostAssertion<'a>),
    /// The caller's own token of his identity provider, which goes to that
    /// issuer's configured token endpoint and nowhere else.
    Caller(&'a CallerToken),
}

/// An assertion of the host's about one of its users.
#[derive(Clone, Copy)]
pub struct HostAssertion<'a> {
    /// As [`crate::jwt::HostKey`] made it.
    pub key: &'a Sealed,
    /// By which its public half is published.
    pub key_id: &'a str,
    /// Countersign's public URL.
    pub issuer: &'a str,
    /// The user.
    pub subject: &'a str,
    /// It is good for a minute from here on.
    pub now: Timestamp,
    /// Never used before.
    pub id: &'a str,
}

impl Exchange<'_> {
    /// The grant whose description applies.
    #[must_use]
    pub fn grant(&self) -> Grant {
        match self {
            Self::Code { .. } => Grant::AuthorizationCode,
            Self::Refresh { .. } => Grant::RefreshToken,
            Self::ClientCredentials(_) => Grant::ClientCredentials,
            Self::TokenExchange { .. } => Grant::TokenExchange,
            Self::JwtBearer { .. } => Grant::JwtBearer(Assertion {
                algorithm: String::new(),
                claims: Vec::new(),
                lifetime_seconds: 0,
            }),
            Self::DeviceCode { .. } => Grant::DeviceCode,
        }
    }
}

/// A connection's tokens, open (just obtained) or as the vault keeps them.
#[derive(Clone, Copy)]
pub enum TokensRef<'a> {
    /// Just obtained.
    Open(&'a TokenSet),
    /// From the vault.
    Sealed(&'a Sealed),
}

/// The scopes of one scope parameter of the authorization request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopesOfParameter {
    /// The parameter's name.
    pub name: String,
    /// What it is joined with.
    pub separator: String,
    /// The credential it is for.
    pub credential: Option<String>,
    /// Sent although empty.
    pub send_empty: bool,
    /// What to ask for.
    pub scopes: ScopeSet,
}

/// Sorts scopes into the parameters that carry them; what is not described
/// goes into the first. Empty if the provider takes no scopes.
#[must_use]
pub fn scope_parameters(description: &Description, scopes: &ScopeSet) -> Vec<ScopesOfParameter> {
    let described = description
        .authorization
        .as_ref()
        .map_or(&[][..], |a| &a.scope_parameters);
    let parameter_of = |scope: &str| {
        let known = description.scopes.iter().find(|s| {
            if s.prefix {
                scope.starts_with(&s.name)
            } else {
                s.name == scope
            }
        });
        let name = known.and_then(|s| s.parameter.as_deref());
        described
            .iter()
            .position(|p| Some(p.name.as_str()) == name)
            .unwrap_or(0)
    };
    let mut sorted: Vec<ScopesOfParameter> = described
        .iter()
        .map(|p| ScopesOfParameter {
            name: p.name.clone(),
            separator: p.separator.clone(),
            credential: p.credential.clone(),
            send_empty: p.send_empty,
            scopes: ScopeSet::default(),
        })
        .collect();
    for scope in scopes.iter() {
        if let Some(parameter) = sorted.get_mut(parameter_of(scope.as_str())) {
            parameter.scopes.insert(scope.clone());
        }
    }
    sorted
}

impl<'a> Asking<'a> {
    fn variables(&self) -> Variables<'a> {
        self.values.variables()
    }

    /// The authorization endpoint: the record's, else the preset's.
    ///
    /// # Errors
    /// [`RequestError::NoEndpoint`], [`RequestError::OffHost`] or a template's.
    pub fn authorization_endpoint(&self) -> Result<Url, RequestError> {
        let described = self
            .description
            .authorization
            .as_ref()
            .map(|a| a.endpoint.as_slice());
        self.pick(
            self.provider.authorization_endpoint.as_ref(),
            described,
            "authorization endpoint",
        )
    }

    /// The token endpoint for a grant: the record's, else the preset's.
    ///
    /// # Errors
    /// As [`Self::authorization_endpoint`].
    pub fn token_endpoint(&self, grant: &Grant) -> Result<Url, RequestError> {
        let own = self.described(grant).and_then(|t| t.endpoint.as_deref());
        let described = own.or(self.description.token_endpoint.as_deref());
        self.pick(
            self.provider.token_endpoint.as_ref(),
            described,
            "token endpoint",
        )
    }

    /// The device authorization endpoint (RFC 8628 §3.1): the record's, else
    /// the preset's.
    ///
    /// # Errors
    /// As [`Self::authorization_endpoint`].
    pub fn device_endpoint(&self) -> Result<Url, RequestError> {
        self.pick(
            self.provider.device_authorization_endpoint.as_ref(),
            self.description.device_authorization_endpoint.as_deref(),
            "device authorization endpoint",
        )
    }

    /// The first revocation's address without its secrets, if there is one.
    #[must_use]
    pub fn revocation_origin(&self) -> Option<String> {
        if let Some(url) = &self.provider.revocation_endpoint {
            return Some(url.origin().ascii_serialization());
        }
        let template = &self.description.revocation.first()?.request.url;
        let prefix: Vec<Part> = template
            .iter()
            .take_while(|p| !matches!(p, Part::Slot(_) | Part::Basic(_)))
            .cloned()
            .collect();
        let text = render_text(&prefix, self.variables()).ok()?;
        Url::parse(&text)
            .ok()
            .map(|u| u.origin().ascii_serialization())
    }

    fn pick(
        &self,
        record: Option<&Url>,
        described: Option<&[Part]>,
        what: &'static str,
    ) -> Result<Url, RequestError> {
        if let Some(url) = record {
            return if is_usable(url) {
                Ok(url.clone())
            } else {
                Err(TemplateError::BadUrl(url.origin().ascii_serialization()).into())
            };
        }
        let template = described
            .filter(|t| !t.is_empty())
            .ok_or(RequestError::NoEndpoint(what))?;
        let url = endpoint(template, self.variables())?;
        self.check_host(&url, false)?;
        Ok(url)
    }

    /// Whether the preset may send a request there.
    fn check_host(&self, url: &Url, audience_too: bool) -> Result<(), RequestError> {
        let variables = self.variables();
        let matches = |templates: &[Vec<Part>]| {
            templates
                .iter()
                .filter_map(|t| render_text(t, variables).ok())
                .filter_map(|text| HostPattern::parse(&text).ok())
                .any(|pattern| pattern.matches(url))
        };
        let record = [
            &self.provider.authorization_endpoint,
            &self.provider.token_endpoint,
            &self.provider.revocation_endpoint,
            &self.provider.device_authorization_endpoint,
        ];
        let good = matches(&self.description.authorization_hosts)
            || record
                .into_iter()
                .flatten()
                .any(|u| u.origin() == url.origin())
            || (audience_too && self.audience().iter().any(|p| p.matches(url)));
        if good {
            Ok(())
        } else {
            Err(RequestError::OffHost(url.origin().ascii_serialization()))
        }
    }

    /// Hosts the provider's tokens may go to: the record's, else the preset's.
    #[must_use]
    pub fn audience(&self) -> Vec<HostPattern> {
        if !self.provider.audience_hosts.is_empty() {
            return self.provider.audience_hosts.clone();
        }
        let templates = self.description.audience_hosts.iter();
        templates
            .filter_map(|t| render_text(t, self.variables()).ok())
            .filter_map(|text| HostPattern::parse(&text).ok())
            .collect()
    }

    fn described(&self, grant: &Grant) -> Option<&'a TokenRequest> {
        self.description
            .token_requests
            .iter()
            .find(|t| match (&t.grant, grant) {
                // What it says about the assertion is not what it is found by.
                (Grant::JwtBearer(_), Grant::JwtBearer(_)) => true,
                (described, grant) => described == grant,
            })
    }

    /// Opens the client secret for a request to `url`.
    fn open_secret(&self, url: &Url) -> Result<Option<Secret>, RequestError> {
        let Some(bound) = self.client_secret else {
            return Ok(None);
        };
        bound.check(url)?;
        bound
            .sealed
            .open()
            .map(Some)
            .map_err(|_| RequestError::Unreadable)
    }
}
