//! Finding out how an MCP server is protected, and by which authorization
//! server: 401 challenge, RFC 9728, RFC 8414 or OpenID Connect Discovery.
//!
//! Nothing found is believed because it was found: what a server says of itself
//! must name that server, metadata must name the issuer it was asked for, and
//! an address from outside is called only if it is public. What cannot be found
//! is an error with its reason, never "no authorization needed".

use std::time::Duration;

use countersign_core::hosts::is_loopback;
use countersign_core::request::SendError;
use countersign_core::scope::ScopeSet;
use http::Method;
use serde::Serialize;
use url::Url;

use crate::http::{Guard, Look, Looked, Trust};

mod metadata;
mod plan;
mod probe;
mod protected;

pub use metadata::AuthorizationServer;
pub use plan::{ClientPlan, ClientWish, DOCUMENT_PATH, check as check_registered};
pub use protected::ProtectedResource;

/// Longest document that is read, in bytes.
const DOCUMENT_LIMIT: usize = 256 * 1024;
/// For each request.
const PATIENCE: Duration = Duration::from_secs(10);

/// One request, and what came of it: the administrator sees them all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Method and address.
    pub request: String,
    /// In the host's own words.
    pub answer: String,
}

/// Why nothing was found out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// The address itself does not answer.
    #[error("{url} cannot be asked: {error}")]
    Unreachable {
        /// Which.
        url: Url,
        /// Why.
        error: SendError,
    },
    /// It answers, but not as an MCP server does.
    #[error("{url} neither answers as an MCP server nor asks for credentials: {what}")]
    NotMcp {
        /// Which.
        url: Url,
        /// What it does.
        what: String,
    },
    /// It wants credentials, and no OAuth ones.
    #[error(
        "{url} asks for credentials, but not for OAuth ones ({what}); if it takes a key, use `--auth static`"
    )]
    NoBearer {
        /// Which.
        url: Url,
        /// What it does.
        what: String,
    },
    /// It wants credentials, and nothing says from whom.
    #[error(
        "{url} asks for credentials, and publishes nothing of where to get them: {tried}. Register the \
         provider by hand with its endpoints, or, if it takes a key, use `--auth static`"
    )]
    NoMetadata {
        /// Which.
        url: Url,
        /// What was tried.
        tried: String,
    },
    /// What it publishes is about another server (RFC 9728 §3.3).
    #[error(
        "{document} says that it is about {said}, and not about {url}: it is not used (RFC 9728 §3.3)"
    )]
    OtherResource {
        /// Where it was read.
        document: Box<Url>,
        /// What it claims.
        said: String,
        /// What was asked for.
        url: Box<Url>,
    },
    /// Metadata of another issuer (RFC 8414 §3.3).
    #[error(
        "{document} is metadata of the issuer {said}, and not of {issuer}: it is not used (RFC 8414 §3.3). \
         If {said} is right, discover that"
    )]
    OtherIssuer {
        /// Where it was read.
        document: Box<Url>,
        /// What it claims.
        said: String,
        /// What was asked for.
        issuer: String,
    },
    /// No metadata of the issuer.
    #[error("the authorization server {issuer} publishes no metadata: {tried}")]
    NoIssuer {
        /// Which.
        issuer: String,
        /// What was tried.
        tried: String,
    },
    /// A document names an address that may not be called.
    #[error("{document} names {address} as {what}: {why}")]
    BadAddress {
        /// Where it was read.
        document: Box<Url>,
        /// What it names.
        address: String,
        /// As what.
        what: &'static str,
        /// Why it is not used.
        why: String,
    },
    /// A document that is not what it should be.
    #[error("{document} cannot be used: {why}")]
    BadDocument {
        /// Where it was read.
        document: Url,
        /// What is wrong.
        why: String,
    },
    /// The authorization server signs no users in.
    #[error("the authorization server {issuer} cannot be used: {why}")]
    Unsuitable {
        /// Which.
        issuer: String,
        /// What it lacks.
        why: &'static str,
    },
    /// Neither an MCP server nor an issuer.
    #[error("{url} is neither: as an MCP server, {server}; as an issuer, {issuer}")]
    Neither {
        /// Which.
        url: Box<Url>,
        /// What is wrong with it as a server.
        server: String,
        /// What is wrong with it as an issuer.
        issuer: String,
    },
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It answered MCP requests without any credentials.
    Open,
    /// It is protected by this.
    Protected(Box<Discovered>),
}

/// A protected server, or an authorization server alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// What the server says of itself; none if an issuer was asked about.
    pub resource: Option<ProtectedResource>,
    /// What it wants to begin with, as its challenge says (RFC 6750 §3).
    pub challenged: ScopeSet,
    /// Who issues the tokens.
    pub server: AuthorizationServer,
    /// What an administrator should know.
    pub warnings: Vec<String>,
}

/// One discovery, from the address that an administrator wrote.
pub struct Discovery<'g> {
    guard: &'g Guard,
    typed: Url,
    issuer: Option<String>,
    steps: Vec<Step>,
}

impl<'g> Discovery<'g> {
    /// Begins one. `issuer` is the one an administrator chose, if he did.
    #[must_use]
    pub fn new(guard: &'g Guard, typed: Url, issuer: Option<String>) -> Self {
        Self {
            guard,
            typed,
            issuer,
            steps: Vec::new(),
        }
    }

    /// All that was asked so far.
    #[must_use]
    pub fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    /// Looks at an MCP server.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub async fn server(&mut self) -> Result<Found, DiscoveryError> {
        match probe::run(self).await? {
            probe::Probed::Open => Ok(Found::Open),
            probe::Probed::Protected(challenge) => {
                let resource = protected::find(self, challenge.as_ref()).await?;
                let mut found = match (resource, self.issuer.clone()) {
                    (Some(resource), chosen) => self.issuer_of(resource, chosen.as_deref()).await?,
                    (None, Some(issuer)) => self.authorization_server(&issuer).await?,
                    (None, None) => self.without_resource().await?,
                };
                let scope = challenge.and_then(|c| c.scope).unwrap_or_default();
                found.challenged = ScopeSet::split(&scope, &[]);
                Ok(Found::Protected(Box::new(found)))
            }
        }
    }

    /// Looks at an address that is an MCP server's or an issuer's.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub async fn either(&mut self) -> Result<Found, DiscoveryError> {
        let as_server = match self.server().await {
            // An issuer may guard its front page, too.
            Err(
                error @ (DiscoveryError::NotMcp { .. }
                | DiscoveryError::NoBearer { .. }
                | DiscoveryError::NoMetadata { .. }),
            ) => error,
            // Nothing is behind it, or something that must not be believed.
            done => return done,
        };
        let issuer = self
            .issuer
            .clone()
            .unwrap_or_else(|| self.typed.to_string());
        match self.authorization_server(&issuer).await {
            Ok(found) => Ok(Found::Protected(Box::new(found))),
            Err(as_issuer @ DiscoveryError::NoIssuer { .. }) => Err(DiscoveryError::Neither {
                url: Box::new(self.typed.clone()),
                server: as_server.to_string(),
                issuer: as_issuer.to_string(),
            }),
            Err(error) => Err(error),
        }
    }

    /// The authorization server that the resource names, or that an
    /// administrator chose among those.
    async fn issuer_of(
        &mut self,
        resource: ProtectedResource,
        chosen: Option<&str>,
    ) -> Result<Discovered, DiscoveryError> {
        let listed = &resource.authorization_servers;
        let issuer = match (chosen, listed.first()) {
            (Some(chosen), _) => chosen.to_owned(),
            (None, Some(first)) => first.clone(),
            (None, None) => {
                let mut found = self.without_resource().await?;
                found.resource = Some(resource);
                return Ok(found);
            }
        };
        let mut warnings = Vec::new();
        if listed.len() > 1 && chosen.is_none() {
            warnings.push(format!(
                "it takes tokens of several issuers: {}; the first is used, choose another with --issuer",
                listed.join(", ")
            ));
        }
        if !listed.contains(&issuer) {
            warnings.push(format!(
                "it does not name {issuer} among those whose tokens it takes ({})",
                listed.join(", ")
            ));
        }
        let mut found = self.authorization_server(&issuer).await?;
        found.warnings.splice(0..0, warnings);
        if let Some(note) = resource.note(&self.typed) {
            found.warnings.push(note);
        }
        found.resource = Some(resource);
        Ok(found)
    }

    /// A server of before RFC 9728 is its own issuer (MCP 2025-03-26).
    async fn without_resource(&mut self) -> Result<Discovered, DiscoveryError> {
        let origin = self.typed.origin().ascii_serialization();
        match self.authorization_server(&origin).await {
            Err(DiscoveryError::NoIssuer { .. }) => Err(DiscoveryError::NoMetadata {
                url: self.typed.clone(),
                tried: self.tried(),
            }),
            done => done,
        }
    }

    async fn authorization_server(&mut self, issuer: &str) -> Result<Discovered, DiscoveryError> {
        let server = metadata::find(self, issuer).await?;
        Ok(Discovered {
            warnings: server.warnings(),
            resource: None,
            challenged: ScopeSet::default(),
            server,
        })
    }

    /// Sends one request and notes it.
    async fn look(
        &mut self,
        what: &str,
        look: Look<'_>,
        enough: impl Fn(&[u8]) -> bool + Send,
    ) -> Result<Looked, SendError> {
        let request = format!("{} {what}{}", look.method, shown(look.url));
        let trust = self.trust(look.url);
        let looked = self.guard.look(look, trust, enough).await;
        let answer = match &looked {
            Ok(looked) => in_words(looked),
            Err(error) => error.to_string(),
        };
        self.steps.push(Step { request, answer });
        looked
    }

    /// A JSON document, or in words why there is none.
    async fn document(&mut self, url: &Url) -> Result<Vec<u8>, NoDocument> {
        let look = Look {
            method: Method::GET,
            url,
            headers: &[("accept", "application/json")],
            body: None,
            limit: DOCUMENT_LIMIT,
            timeout: PATIENCE,
        };
        let looked = match self.look("", look, |_| false).await {
            Ok(looked) => looked,
            Err(error) => return Err(NoDocument::Unsent(error)),
        };
        let media = looked.media_type();
        let is_json = media == "application/json" || media.ends_with("+json");
        if looked.status == 200 && is_json {
            return Ok(looked.body);
        }
        Err(NoDocument::Absent)
    }

    /// Where an address comes from decides whether it may be private: one on
    /// the very machine that an administrator named is as good as his own word,
    /// as far as the operator allows the place.
    fn trust(&self, url: &Url) -> Trust {
        let same = url.host() == self.typed.host();
        let chosen = self
            .issuer
            .as_ref()
            .and_then(|issuer| Url::parse(issuer).ok())
            .is_some_and(|issuer| issuer.host() == url.host());
        if same || chosen || (is_loopback(url) && is_loopback(&self.typed)) {
            Trust::Operator
        } else {
            Trust::Outside
        }
    }

    /// An address out of a document, if it may be called.
    fn address(
        &self,
        document: &Url,
        what: &'static str,
        text: &str,
    ) -> Result<Url, DiscoveryError> {
        let bad = |why: String| DiscoveryError::BadAddress {
            document: Box::new(document.clone()),
            address: printable(text),
            what,
            why,
        };
        let url = Url::parse(text).map_err(|_| bad("it is no URL".into()))?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(bad("it has a user name or a fragment in it".into()));
        }
        self.guard
            .admits(&url, self.trust(&url))
            .map_err(|error| bad(error.to_string()))?;
        Ok(url)
    }

    /// The steps in one line.
    fn tried(&self) -> String {
        let one = |step: &Step| format!("{} — {}", step.request, step.answer);
        self.steps.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

/// Why there is no document.
enum NoDocument {
    /// The request was not answered.
    Unsent(SendError),
    /// Something else than a JSON document is there.
    Absent,
}

/// An address without its query: that is nobody's business.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

fn in_words(looked: &Looked) -> String {
    let media = looked.media_type();
    let mut words = looked.status.to_string();
    if (300..400).contains(&looked.status) {
        let target = looked.headers.get(http::header::LOCATION);
        let target = target.and_then(|v| v.to_str().ok()).unwrap_or("nowhere");
        words.push_str(&format!(
            ", a redirect to {}, which is not followed",
            printable(target)
        ));
    } else if !media.is_empty() {
        words.push(' ');
        words.push_str(&printable(&media));
    }
    words
}

/// Text from outside, for a sentence of ours.
fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(200).map(clean).collect()
}
