//! The hot path: whose bearer token is this, and is it for here?

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use countersign_core::caller::Caller;
use countersign_core::issuer::CallerToken;
use countersign_core::names::{ClientId, ServerName};
use countersign_core::ports::StoreError;
use countersign_core::time::Timestamp;
use http::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode};

use crate::audience::Audience;
use crate::service::Identity;
use crate::tokens::{ACCESS, Grant, GrantFor, TokenKind, TokenState};

/// Longest bearer token looked at, in bytes; ours are far shorter.
const LONGEST: usize = 128;

/// Why a request has no caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token came with it.
    #[error("sign in first: the request carries no bearer token")]
    Missing,
    /// More than one, or not `Bearer`.
    #[error("the request must carry exactly one Authorization header of the form: Bearer TOKEN")]
    Malformed,
    /// Unknown, expired, revoked, of another kind or for another resource; it
    /// is not said which.
    #[error("the token is unknown, expired, revoked, or for another resource; sign in again")]
    Invalid,
    /// The token is good, but limited to other servers.
    #[error("the token is limited to other servers")]
    InsufficientScope,
    /// A browser's request that did not come from one of our pages.
    #[error("the request did not come from this site; send the header x-csrf-token from its page")]
    ForeignOrigin,
    /// It can't be checked right now.
    #[error("sign-in can't be checked right now; try again in a moment")]
    Unavailable,
}

impl From<StoreError> for AuthError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a token could not be checked");
        Self::Unavailable
    }
}

impl AuthError {
    /// A word for the audit log, unless the request was just the beginning of a
    /// sign-in, or the fault is not the caller's.
    #[must_use]
    pub fn word(&self) -> Option<&'static str> {
        match self {
            Self::Missing | Self::Unavailable => None,
            Self::Malformed => Some("malformed_token"),
            Self::Invalid => Some("invalid_token"),
            Self::InsufficientScope => Some("insufficient_scope"),
            Self::ForeignOrigin => Some("foreign_origin"),
        }
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::Invalid => StatusCode::UNAUTHORIZED,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::InsufficientScope | Self::ForeignOrigin => StatusCode::FORBIDDEN,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Who asks the REST API.
#[derive(Debug, Clone)]
pub struct Principal {
    /// Who.
    pub caller: Arc<Caller>,
    /// Until when the sign-in behind it counts as fresh.
    pub fresh_until: Option<Timestamp>,
}

/// A token that was found good.
pub(crate) struct Verified {
    pub(crate) caller: Arc<Caller>,
    pub(crate) reach: Reach,
    pub(crate) fresh_until: Option<Timestamp>,
    /// The token itself, if its issuer exchanges it for others.
    pub(crate) presented: Option<Arc<CallerToken>>,
    pub(crate) expires_at: Timestamp,
}

/// Where a token may be used.
pub(crate) enum Reach {
    /// An access token: just there.
    One(Audience),
    /// A token of an external issuer: at each of these.
    Named(BTreeSet<Audience>),
    /// An API token of kind `mcp`.
    Mcp(Option<BTreeSet<ServerName>>),
    /// An API token of kind `api`.
    Api,
}

impl Reach {
    fn admits(&self, audience: &Audience) -> Result<(), AuthError> {
        match (self, audience) {
            (Self::One(own), asked) if own == asked => Ok(()),
            (Self::Named(own), asked) if own.contains(asked) => Ok(()),
            (Self::Mcp(_), Audience::McpAll)
            | (Self::Mcp(None), Audience::Mcp(_))
            | (Self::Api, Audience::Api) => Ok(()),
            (Self::Mcp(Some(servers)), Audience::Mcp(server)) if servers.contains(server) => Ok(()),
            (Self::Mcp(Some(_)), Audience::Mcp(_)) => Err(AuthError::InsufficientScope),
            _ => Err(AuthError::Invalid),
        }
    }
}

/// The one bearer token of a request (RFC 6750 §2.1; other ways of carrying it
/// are not taken).
///
/// # Errors
/// [`AuthError::Missing`] and [`AuthError::Malformed`].
pub fn bearer(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Malformed);
    }
    let text = value.to_str().map_err(|_| AuthError::Malformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(AuthError::Malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() {
        Ok(token.trim())
    } else {
        Err(AuthError::Malformed)
    }
}

impl Identity {
    /// Who holds this token, if it is good for `audience`.
    ///
    /// A verified token is believed for [`crate::Settings::cache_for`] without
    /// asking the store; revocations in this process are in force at once.
    ///
    /// # Errors
    /// [`AuthError`]; answer with [`Self::challenge`].
    pub async fn authenticate(
        &self,
        bearer: &str,
        audience: &Audience,
    ) -> Result<Arc<Caller>, AuthError> {
        Ok(self.recognise(bearer, audience).await?.0)
    }

    /// [`Self::authenticate`]; and the token itself where it is an external
    /// issuer's that may be shown to that issuer again.
    ///
    /// # Errors
    /// As there.
    pub async fn recognise(
        &self,
        bearer: &str,
        audience: &Audience,
    ) -> Result<(Arc<Caller>, Option<Arc<CallerToken>>), AuthError> {
        let verified = self.verified(bearer).await?;
        verified.reach.admits(audience)?;
        Ok((verified.caller.clone(), verified.presented.clone()))
    }

    /// Who asks the REST API: the holder of a token of kind `api`, or a browser
    /// session. A session's changing requests must come from our own pages and
    /// carry the session's CSRF token in `x-csrf-token`.
    ///
    /// # Errors
    /// [`AuthError`]; answer with [`Self::challenge`] and [`Audience::Api`].
    pub async fn principal(
        &self,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Principal, AuthError> {
        if headers.contains_key(AUTHORIZATION) {
            let verified = self.verified(bearer(headers)?).await?;
            verified.reach.admits(&Audience::Api)?;
            return Ok(Principal {
                caller: verified.caller.clone(),
                fresh_until: verified.fresh_until,
            });
        }
        let session = self.session(headers).await?.ok_or(AuthError::Missing)?;
        if !method.is_safe() {
            let sent = headers
                .get("x-csrf-token")
                .and_then(|v| v.to_str().ok())
                .unwrap_or("");
            if !self.is_same_origin(headers) || !session.csrf_matches(sent) {
                return Err(AuthError::ForeignOrigin);
            }
        }
        let fresh_until = Some(session.signed_in_at.plus(self.0.settings.fresh_sign_in));
        Ok(Principal {
            caller: session.caller,
            fresh_until,
        })
    }

    /// The answer to a request without a caller: 401 with a pointer to the
    /// resource's metadata (RFC 9728 §5.1), or 403 (RFC 6750 §3.1).
    #[must_use]
    pub fn challenge(&self, error: &AuthError, audience: &Audience) -> Response {
        let metadata = self.metadata_url(audience);
        let scope = audience.scope();
        let challenge = match error {
            AuthError::Missing => format!("Bearer scope=\"{scope}\""),
            AuthError::Malformed => {
                format!("Bearer error=\"invalid_request\", error_description=\"{error}\"")
            }
            AuthError::Invalid => format!(
                "Bearer error=\"invalid_token\", error_description=\"{error}\", scope=\"{scope}\""
            ),
            AuthError::InsufficientScope => {
                format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"")
            }
            AuthError::ForeignOrigin | AuthError::Unavailable => String::new(),
        };
        let body = serde_json::json!({
            "type": "about:blank",
            "title": error.status().canonical_reason(),
            "status": error.status().as_u16(),
            "detail": error.to_string(),
        });
        let plain = [
            (http::header::CONTENT_TYPE, "application/problem+json"),
            (CACHE_CONTROL, "no-store"),
        ];
        let mut response = (error.status(), plain, body.to_string()).into_response();
        if !challenge.is_empty() {
            let challenge = match metadata {
                Some(url) => format!("{challenge}, resource_metadata=\"{url}\""),
                None => challenge,
            };
            if let Ok(value) = http::HeaderValue::from_str(&challenge) {
                response.headers_mut().insert(WWW_AUTHENTICATE, value);
            }
        }
        response
    }

    /// The address of a resource's metadata; the REST API has none.
    pub(crate) fn metadata_url(&self, audience: &Audience) -> Option<String> {
        let issuer = self.issuer();
        match audience {
            Audience::McpAll => Some(format!("{issuer}/.well-known/oauth-protected-resource/mcp")),
            Audience::Mcp(server) => Some(format!(
                "{issuer}/.well-known/oauth-protected-resource/mcp/{server}"
            )),
            Audience::Api => None,
        }
    }

    async fn verified(&self, bearer: &str) -> Result<Arc<Verified>, AuthError> {
        let ours = [ACCESS, TokenKind::Mcp.prefix(), TokenKind::Api.prefix()];
        let is_ours =
            bearer.len() <= LONGEST && ours.iter().any(|prefix| bearer.starts_with(prefix));
        if !is_ours && !self.may_be_external(bearer) {
            return Err(AuthError::Invalid);
        }
        let now = self.now();
        let fingerprint = self.fingerprint(bearer);
        if let Some(verified) = self.0.cache.find(&fingerprint, now) {
            return Ok(verified);
        }
        let generation = self.0.cache.generation();
        let verified = match is_ours {
            true => self.load_verified(bearer, now).await?,
            false => Box::pin(self.load_external(bearer, now)).await?,
        };
        let verified = Arc::new(verified);
        self.0
            .cache
            .keep(fingerprint, generation, now, verified.clone());
        Ok(verified)
    }

    async fn load_verified(&self, bearer: &str, now: Timestamp) -> Result<Verified, AuthError> {
        let (token, _) = self.find_token(bearer).await?.ok_or(AuthError::Invalid)?;
        let (grant, _) = self
            .find_grant(&token.user, &token.grant)
            .await?
            .ok_or(AuthError::Invalid)?;
        if token.expires_at <= now || grant.expires_at <= now {
            return Err(AuthError::Invalid);
        }
        let user = self
            .live_user(&grant.user, &grant.epoch)
            .await?
            .ok_or(AuthError::Invalid)?;
        let Grant {
            id,
            subject,
            team,
            fresh_until,
            ..
        } = grant;
        let (reach, client, client_name) = match (token.state, subject) {
            (
                TokenState::Access,
                GrantFor::Agent {
                    client,
                    client_name,
                    audience,
                },
            ) => (Reach::One(audience), client, client_name),
            (
                TokenState::Api(token_kind),
                GrantFor::ApiToken {
                    name,
                    kind,
                    servers,
                    ..
                },
            ) if token_kind == kind => {
                let reach = match kind {
                    TokenKind::Mcp => Reach::Mcp(servers),
                    TokenKind::Api => Reach::Api,
                };
                let client = ClientId::parse(&format!("token:{name}:{id}"))
                    .map_err(|_| AuthError::Invalid)?;
                (reach, client, name)
            }
            _ => return Err(AuthError::Invalid),
        };
        let caller = self.caller(&user, Some(&team), client, client_name).await?;
        let mut caller = caller.ok_or(AuthError::Invalid)?;
        caller.servers = match &reach {
            Reach::One(Audience::Mcp(server)) => Some(BTreeSet::from([server.to_string()])),
            Reach::Mcp(Some(servers)) => Some(servers.iter().map(ToString::to_string).collect()),
            Reach::One(_) | Reach::Named(_) | Reach::Mcp(None) | Reach::Api => None,
        };
        Ok(Verified {
            caller: Arc::new(caller),
            reach,
            fresh_until,
            presented: None,
            expires_at: token.expires_at.min(grant.expires_at),
        })
    }
}
