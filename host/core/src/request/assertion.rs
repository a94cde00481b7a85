//! Assertions: what the client or the host signs about itself or a user.

use std::time::Duration;

use serde_json::{Map, Value, json};
use url::Url;

use super::build::scope_texts;
use super::{Asking, HostAssertion, RequestError, Target};
use crate::jwt::{Algorithm, KeyError, PrivateKey, open_host_key};
use crate::ports::random_token;
use crate::preset::{Grant, TokenRequest};
use crate::secret::Secret;
use crate::template::render_text;
use crate::time::Timestamp;

/// How long an assertion is good: it is used at once, and clocks differ.
const LIFETIME: Duration = Duration::from_secs(60);
/// Longest lifetime a preset may ask for.
const LONGEST: Duration = Duration::from_secs(3600);

impl HostAssertion<'_> {
    /// The signed token, for this token endpoint and no other.
    pub(super) fn token(&self, endpoint: &Url) -> Result<Secret, RequestError> {
        let mut claims = times(self.now, LIFETIME);
        claims.insert("iss".into(), self.issuer.into());
        claims.insert("sub".into(), self.subject.into());
        claims.insert("aud".into(), endpoint.as_str().into());
        claims.insert("jti".into(), self.id.into());
        let key = open_host_key(self.key)?;
        Ok(key.token(None, Some(self.key_id), &claims)?)
    }
}

impl Asking<'_> {
    /// The client's proof for a request to `url` (RFC 7523 §3): for the token
    /// endpoint, also where it is shown to another of the same server's
    /// (OpenID Connect Core §9).
    pub(super) fn client_assertion(&self, url: &Url) -> Result<Secret, RequestError> {
        let audience = self
            .token_endpoint(&Grant::RefreshToken)
            .unwrap_or_else(|_| url.clone());
        let mut claims = self.own_claims(LIFETIME)?;
        claims.insert("aud".into(), audience.as_str().into());
        self.sign(url, self.provider.token_endpoint_auth_signing_alg, &claims)
    }

    /// The grant assertion of the client itself (RFC 7523 §2.1), with the
    /// claims that its preset describes in place of or beside the usual ones.
    pub(super) fn own_assertion(
        &self,
        described: Option<&TokenRequest>,
        url: &Url,
        target: &Target<'_>,
    ) -> Result<Secret, RequestError> {
        let assertion = described.and_then(|d| match &d.grant {
            Grant::JwtBearer(assertion) => Some(assertion),
            _ => None,
        });
        let lifetime = assertion.map_or(0, |a| a.lifetime_seconds);
        let lifetime = match lifetime {
            0 => LIFETIME,
            seconds => Duration::from_secs(seconds.into()).min(LONGEST),
        };
        let mut claims = self.own_claims(lifetime)?;
        claims.insert("aud".into(), url.as_str().into());
        for (name, text) in scope_texts(self, target.scopes) {
            claims.insert(name, text.into());
        }
        for claim in assertion.iter().flat_map(|a| &a.claims) {
            let value = render_text(&claim.value, self.variables())?;
            let ours = matches!(&*claim.name, "iss" | "exp" | "iat" | "nbf" | "jti");
            // Some want their name there in place of the endpoint's address.
            let elsewhere = claim.name == "aud" && host_of(&value) != url.host_str();
            if ours || elsewhere {
                return Err(RequestError::Claim(claim.name.clone()));
            }
            claims.insert(claim.name.clone(), value.into());
        }
        let named = assertion.map(|a| a.algorithm.as_str()).unwrap_or_default();
        let algorithm = match named {
            "" => self.provider.token_endpoint_auth_signing_alg,
            named => Some(
                serde_json::from_value::<Algorithm>(named.into())
                    .map_err(|_| RequestError::Key(KeyError::Unsupported))?,
            ),
        };
        self.sign(url, algorithm, &claims)
    }

    fn own_claims(&self, lifetime: Duration) -> Result<Map<String, Value>, RequestError> {
        let key = self.client_key.ok_or(RequestError::NoKey)?;
        let mut claims = times(key.clock.now(), lifetime);
        for name in ["iss", "sub"] {
            claims.insert(name.into(), self.provider.client_id.as_str().into());
        }
        claims.insert("jti".into(), random_token::<16>(key.random).into());
        Ok(claims)
    }

    fn sign(
        &self,
        url: &Url,
        algorithm: Option<Algorithm>,
        claims: &Map<String, Value>,
    ) -> Result<Secret, RequestError> {
        let key = self.client_key.ok_or(RequestError::NoKey)?;
        key.secret.check(url)?;
        let pair = PrivateKey::open(&key.secret.sealed)?;
        Ok(pair.token(algorithm, self.provider.private_key_id.as_deref(), claims)?)
    }
}

/// The host of an address, or of the bare name that some write.
fn host_of(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("https://").unwrap_or(text);
    rest.split(['/', ':', '?', '#']).next()
}

fn times(now: Timestamp, lifetime: Duration) -> Map<String, Value> {
    let mut claims = Map::new();
    claims.insert("iat".into(), json!(now.as_secs()));
    claims.insert("exp".into(), json!(now.plus(lifetime).as_secs()));
    claims
}
