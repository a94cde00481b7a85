//! `/oauth2/revoke` (RFC 7009): an agent gives its tokens back.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use countersign_core::audit::{AuditEvent, Outcome};
use http::{HeaderMap, StatusCode};

use super::error::OAuthError;
use super::token::client_id;
use crate::params::Params;
use crate::service::Identity;
use crate::tokens::GrantFor;

pub(super) async fn revoke(
    State(identity): State<Identity>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match identity.revoke(&headers, &body).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => error.into_response(),
    }
}

impl Identity {
    /// Either token of a pair ends both (RFC 7009 §2.1); an unknown one is
    /// already as revoked as it can be (§2.2).
    async fn revoke(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), OAuthError> {
        let params = Params::form(headers, body)?;
        let client = client_id(headers, &params)?;
        let token = params
            .find("token")
            .ok_or_else(|| OAuthError::request("token is missing"))?;
        let Some((record, _)) = self.find_token(token).await? else {
            return Ok(());
        };
        let Some((grant, _)) = self.find_grant(&record.user, &record.grant).await? else {
            return Ok(());
        };
        let GrantFor::Agent { client: owner, .. } = &grant.subject else {
            return Err(OAuthError::new(
                "unsupported_token_type",
                "an API token is revoked by its owner, not here",
            ));
        };
        if *owner != client {
            return Err(OAuthError::grant("the token belongs to another client"));
        }
        self.end_grant(&grant.user, &grant.id).await?;
        let mut event = AuditEvent::new(self.now(), "token.revoke", Outcome::Allowed)
            .by(&grant.user)
            .on(format!("grant:{}", grant.id));
        event.client = Some(client.to_string());
        Ok(self.audit(event).await?)
    }
}
