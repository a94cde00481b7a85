//! `/oauth2/token`: codes and refresh tokens become access tokens.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::names::{ClientId, UserName};
use countersign_core::ports::{Expect, Kind, StoreError, Write, load, put_until};
use http::HeaderMap;
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use serde_json::json;

use super::code::{Code, CodeState, proves};
use super::device;
use super::error::OAuthError;
use crate::audience::Audience;
use crate::params::Params;
use crate::service::Identity;
use crate::tokens::{
    ACCESS, CODE, Grant, GrantFor, REFRESH, TokenRecord, TokenState, grant_key, record_key,
};

/// Fresh tokens, on their way to their agent only.
pub(super) struct Issued {
    access: String,
    refresh: Option<String>,
    audience: Audience,
}

pub(super) async fn token(
    State(identity): State<Identity>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match identity.token(&headers, &body).await {
        Ok(issued) => {
            let mut answer = json!({
                "access_token": issued.access,
                "token_type": "Bearer",
                "expires_in": identity.settings().access_token_lifetime.as_secs(),
                "scope": issued.audience.scope(),
            });
            if let Some(refresh) = issued.refresh {
                answer["refresh_token"] = json!(refresh);
            }
            ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// The client that speaks: public, so it says its id and proves nothing.
pub(super) fn client_id(headers: &HeaderMap, params: &Params) -> Result<ClientId, OAuthError> {
    if headers.contains_key(AUTHORIZATION)
        || params.find("client_secret").is_some()
        || params.find("client_assertion").is_some()
    {
        return Err(OAuthError::new(
            "invalid_client",
            "clients have no secret here (token_endpoint_auth_method none): send only client_id",
        ));
    }
    let id = params
        .find("client_id")
        .ok_or_else(|| OAuthError::request("client_id is missing"))?;
    ClientId::parse(id)
        .map_err(|_| OAuthError::new("invalid_client", "this client is not registered here"))
}

impl Identity {
    async fn token(&self, headers: &HeaderMap, body: &[u8]) -> Result<Issued, OAuthError> {
        let params = Params::form(headers, body)?;
        let grant_type = params
            .find("grant_type")
            .ok_or_else(|| OAuthError::request("grant_type is missing"))?;
        let client = client_id(headers, &params)?;
        match grant_type {
            "authorization_code" => self.by_code(&client, &params).await,
            "refresh_token" => self.by_refresh(&client, &params).await,
            device::GRANT_TYPE => self.by_device(&client, &params).await,
            _ => Err(OAuthError::new(
                "unsupported_grant_type",
                "grant_type must be authorization_code or refresh_token; the command line may use device_code too",
            )),
        }
    }

    /// `resource` and `scope` may be repeated at the token endpoint, and must
    /// then be what the user agreed to (RFC 8707 §2.2).
    fn check_repeated(&self, params: &Params, audience: &Audience) -> Result<(), OAuthError> {
        let resource = audience.resource(&self.settings().public_url);
        if params
            .find("resource")
            .is_some_and(|asked| asked != resource)
        {
            return Err(OAuthError::new(
                "invalid_target",
                "resource is not the one that was agreed to",
            ));
        }
        if params.find("scope").is_some_and(|s| {
            s.split(' ')
                .any(|scope| !scope.is_empty() && scope != audience.scope())
        }) {
            return Err(OAuthError::new(
                "invalid_scope",
                "scope is more than was agreed to",
            ));
        }
        Ok(())
    }

    async fn by_code(&self, client: &ClientId, params: &Params) -> Result<Issued, OAuthError> {
        let demand = |name: &str| {
            params
                .find(name)
                .ok_or_else(|| OAuthError::request(format!("{name} is missing")))
        };
        let (text, verifier, redirect_uri) = (
            demand("code")?,
            demand("code_verifier")?,
            demand("redirect_uri")?,
        );
        let unknown =
            || OAuthError::grant("the code is unknown or expired; start the sign-in again");
        if !text.starts_with(CODE) {
            return Err(unknown());
        }
        let fingerprint = self.fingerprint(text);
        let key = record_key(Kind::Code, &fingerprint);
        let (mut code, revision) = load::<Code>(&*self.0.world.records, &key)
            .await?
            .ok_or_else(unknown)?;
        if code.client != *client {
            return Err(unknown());
        }
        if code.state == CodeState::Used {
            return Err(self
                .stolen(
                    &code.user,
                    &code.grant,
                    client,
                    "an authorization code was used twice",
                )
                .await?);
        }
        let now = self.now();
        if code.expires_at <= now {
            return Err(unknown());
        }
        if code.redirect_uri != redirect_uri {
            return Err(OAuthError::grant(
                "redirect_uri is not the one of the authorization request",
            ));
        }
        if !proves(verifier, &code.challenge) {
            return Err(OAuthError::grant(
                "code_verifier does not match the code_challenge",
            ));
        }
        self.check_repeated(params, &code.audience)?;
        self.check_still_allowed(client, &code.user, &code.epoch)
            .await?;
        let grant = Grant {
            id: code.grant.clone(),
            user: code.user.clone(),
            epoch: code.epoch.clone(),
            team: code.team.clone(),
            subject: GrantFor::Agent {
                client: code.client.clone(),
                client_name: code.client_name.clone(),
                audience: code.audience.clone(),
            },
            created_at: now,
            expires_at: now.plus(self.settings().grant_lifetime),
            fresh_until: Some(code.fresh_until),
            last_used_at: None,
        };
        let (issued, mut writes) = self.issue(&grant, code.audience.clone(), code.refresh)?;
        code.state = CodeState::Used;
        writes.push(code.write(&fingerprint, Expect::At(revision))?);
        writes.push(put_until(
            grant_key(&grant.user, &grant.id),
            Expect::Absent,
            &grant,
            Some(grant.expires_at),
        )?);
        match self.0.world.records.write(writes).await {
            // Somebody exchanged the same code a moment before.
            Err(StoreError::Conflict) => {
                return Err(self
                    .stolen(
                        &code.user,
                        &code.grant,
                        client,
                        "an authorization code was used twice",
                    )
                    .await?);
            }
            other => other?,
        };
        self.audit_issue("token.issue", &grant, client).await?;
        Ok(issued)
    }

    async fn by_refresh(&self, client: &ClientId, params: &Params) -> Result<Issued, OAuthError> {
        let text = params
            .find("refresh_token")
            .ok_or_else(|| OAuthError::request("refresh_token is missing"))?;
        let unknown =
            || OAuthError::grant("the refresh token is unknown, expired or revoked; sign in again");
        if !text.starts_with(REFRESH) {
            return Err(unknown());
        }
        let (record, revision) = self.find_token(text).await?.ok_or_else(unknown)?;
        let (mut grant, grant_revision) = self
            .find_grant(&record.user, &record.grant)
            .await?
            .ok_or_else(unknown)?;
        let GrantFor::Agent {
            client: owner,
            audience,
            ..
        } = &grant.subject
        else {
            return Err(unknown());
        };
        if owner != client {
            return Err(unknown());
        }
        let audience = audience.clone();
        match record.state {
            TokenState::Refresh => {}
            TokenState::SpentRefresh => {
                return Err(self
                    .stolen(
                        &grant.user,
                        &grant.id,
                        client,
                        "a refresh token was used twice",
                    )
                    .await?);
            }
            TokenState::Access | TokenState::Api(_) => return Err(unknown()),
        }
        let now = self.now();
        if record.expires_at <= now || grant.expires_at <= now {
            return Err(unknown());
        }
        self.check_repeated(params, &audience)?;
        self.check_still_allowed(client, &grant.user, &grant.epoch)
            .await?;
        grant.last_used_at = Some(now);
        let (issued, mut writes) = self.issue(&grant, audience, true)?;
        let spent = TokenRecord {
            state: TokenState::SpentRefresh,
            ..record
        };
        let old = record_key(Kind::Token, &self.fingerprint(text));
        // Kept as long as the grant, so that its reuse is noticed whenever it comes.
        writes.push(put_until(
            old,
            Expect::At(revision),
            &spent,
            Some(grant.expires_at),
        )?);
        writes.push(put_until(
            grant_key(&grant.user, &grant.id),
            Expect::At(grant_revision),
            &grant,
            Some(grant.expires_at),
        )?);
        match self.0.world.records.write(writes).await {
            // The same token was used at the same time, or the grant just ended.
            Err(StoreError::Conflict) => {
                return Err(self
                    .stolen(
                        &grant.user,
                        &grant.id,
                        client,
                        "a refresh token was used twice",
                    )
                    .await?);
            }
            other => other?,
        };
        self.audit_issue("token.refresh", &grant, client).await?;
        Ok(issued)
    }

    pub(super) async fn check_still_allowed(
        &self,
        client: &ClientId,
        user: &UserName,
        epoch: &str,
    ) -> Result<(), OAuthError> {
        if !self.client_stands(client).await? {
            return Err(OAuthError::new(
                "invalid_client",
                "this client is not registered here; register it again",
            ));
        }
        match self.live_user(user, epoch).await? {
            Some(_) => Ok(()),
            None => Err(OAuthError::grant(
                "the user's sign-in has ended; sign in again",
            )),
        }
    }

    /// Fresh tokens and the writes that store their fingerprints.
    pub(super) fn issue(
        &self,
        grant: &Grant,
        audience: Audience,
        with_refresh: bool,
    ) -> Result<(Issued, Vec<Write>), OAuthError> {
        let (now, settings) = (self.now(), self.settings());
        let mut writes = Vec::with_capacity(4);
        let mut mint = |prefix, state, lifetime| -> Result<String, OAuthError> {
            let text = self.new_token(prefix);
            let expires_at = now.plus(lifetime).min(grant.expires_at);
            let record = TokenRecord {
                user: grant.user.clone(),
                grant: grant.id.clone(),
                state,
                expires_at,
            };
            let key = record_key(Kind::Token, &self.fingerprint(&text));
            writes.push(put_until(key, Expect::Absent, &record, Some(expires_at))?);
            Ok(text)
        };
        let access = mint(ACCESS, TokenState::Access, settings.access_token_lifetime)?;
        let refresh = if with_refresh {
            Some(mint(
                REFRESH,
                TokenState::Refresh,
                settings.refresh_token_lifetime,
            )?)
        } else {
            None
        };
        Ok((
            Issued {
                access,
                refresh,
                audience,
            },
            writes,
        ))
    }

    /// Ends all tokens of a grant, and gives the error to answer with.
    pub(super) async fn stolen(
        &self,
        user: &UserName,
        grant: &str,
        client: &ClientId,
        why: &str,
    ) -> Result<OAuthError, OAuthError> {
        self.end_grant(user, grant).await?;
        let mut event = AuditEvent::new(self.now(), "token.reuse", Outcome::Denied)
            .by(user)
            .detail(format!("{why}; all its tokens were revoked"));
        event.client = Some(client.to_string());
        self.audit(event).await?;
        Ok(OAuthError::grant(
            "it was used before, so all its tokens are revoked; sign in again",
        ))
    }

    pub(super) async fn audit_issue(
        &self,
        action: &str,
        grant: &Grant,
        client: &ClientId,
    ) -> Result<(), OAuthError> {
        let mut event = AuditEvent::new(self.now(), action, Outcome::Allowed)
            .by(&grant.user)
            .on(format!("grant:{}", grant.id));
        event.client = Some(client.to_string());
        event.team = Some(grant.team.to_string());
        Ok(self.audit(event).await?)
    }
}
