//! What the operator decides about identity, and the host's own address.

use std::time::Duration;

use countersign_core::hosts::is_loopback;
use url::Url;

use crate::external::ExternalIssuer;
use crate::password::PasswordCost;

/// The host's own address: `https`, or loopback `http`; no path. It is the
/// issuer (RFC 8414 §2), written without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    issuer: String,
    loopback: bool,
}

/// The text can't be the host's public address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "public_url {0:?} must be https (http only for 127.0.0.1, [::1] or localhost), with a host and without path, query or user: write for example https://countersign.example.com"
)]
pub struct InvalidPublicUrl(String);

impl PublicUrl {
    /// Parses the address; one slash at the end is dropped.
    ///
    /// # Errors
    /// [`InvalidPublicUrl`] says what to write instead.
    pub fn parse(text: &str) -> Result<Self, InvalidPublicUrl> {
        let invalid = || InvalidPublicUrl(text.chars().take(200).collect());
        let url = Url::parse(text).map_err(|_| invalid())?;
        let loopback = is_loopback(&url);
        let plain = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let scheme = url.scheme() == "https" || (url.scheme() == "http" && loopback);
        if !plain || !scheme || url.host_str().is_none() {
            return Err(invalid());
        }
        Ok(Self {
            issuer: url.origin().ascii_serialization(),
            loopback,
        })
    }

    /// The issuer identifier and origin, without a slash at the end.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether cookies can be `Secure`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.issuer.starts_with("https:")
    }

    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }
}

/// Who may register an agent by RFC 7591.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Anybody; a registered agent can do nothing without a user's consent.
    Open,
    /// Nobody: agents bring a client ID metadata document.
    Closed,
}

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The host's own address.
    pub public_url: PublicUrl,
    /// Who may register an agent. Open on loopback, closed elsewhere.
    pub admission: Admission,
    /// What a password hash costs.
    pub password_cost: PasswordCost,
    /// How long an access token lives.
    pub access_token_lifetime: Duration,
    /// How long a refresh token lives unused.
    pub refresh_token_lifetime: Duration,
    /// How long a consent's tokens live in all, however often refreshed.
    pub grant_lifetime: Duration,
    /// How long a browser session lives unused.
    pub session_idle: Duration,
    /// How long a browser session lives in all.
    pub session_lifetime: Duration,
    /// How recent a sign-in must be to mint an API token.
    pub fresh_sign_in: Duration,
    /// How long a verified token may be believed without asking the store:
    /// the longest that a revocation on another replica goes unnoticed.
    pub cache_for: Duration,
    /// Issuers whose tokens are taken beside our own.
    pub issuers: Vec<ExternalIssuer>,
}

impl Settings {
    /// The defaults for this address.
    #[must_use]
    pub fn new(public_url: PublicUrl) -> Self {
        const MINUTE: u64 = 60;
        const DAY: u64 = 24 * 60 * MINUTE;
        let admission = if public_url.is_loopback() {
            Admission::Open
        } else {
            Admission::Closed
        };
        Self {
            public_url,
            admission,
            password_cost: PasswordCost::default(),
            access_token_lifetime: Duration::from_secs(15 * MINUTE),
            refresh_token_lifetime: Duration::from_secs(30 * DAY),
            grant_lifetime: Duration::from_secs(180 * DAY),
            session_idle: Duration::from_secs(8 * 60 * MINUTE),
            session_lifetime: Duration::from_secs(7 * DAY),
            fresh_sign_in: Duration::from_secs(10 * MINUTE),
            cache_for: Duration::from_secs(10),
            issuers: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_https_or_loopback_and_nothing_but_an_origin() {
        for (text, issuer) in [
            ("https://cs.example.com", "https://cs.example.com"),
            (
                "https://cs.example.com:8443/",
                "https://cs.example.com:8443",
            ),
            ("http://127.0.0.1:8700", "http://127.0.0.1:8700"),
            ("http://localhost:8700/", "http://localhost:8700"),
            ("http://[::1]:8700", "http://[::1]:8700"),
        ] {
            let parsed = PublicUrl::parse(text).unwrap();
            assert_eq!(parsed.issuer(), issuer);
        }
        for bad in [
            "",
            "cs.example.com",
            "http://cs.example.com",
            "https://cs.example.com/x",
            "https://u:p@cs.example.com",
            "https://cs.example.com?x",
            "ftp://127.0.0.1",
        ] {
            assert!(PublicUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
