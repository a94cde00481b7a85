//! Who is asking the API.

use std::ops::Deref;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::Response;
use countersign_core::caller::Caller;
use countersign_identity::{Audience, ClientAddress, Principal};

use super::ApiState;

/// The holder of a token of kind `api`, or of a browser session.
pub(super) struct Asking(pub(super) Principal);

impl Deref for Asking {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.0.caller
    }
}

impl FromRequestParts<ApiState> for Asking {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Response> {
        match state
            .identity
            .principal(&parts.method, &parts.headers)
            .await
        {
            Ok(principal) => Ok(Self(principal)),
            Err(error) => {
                if let Some(reason) = error.word() {
                    let Ok(address) = ClientAddress::from_request_parts(parts, state).await;
                    let (audit, now) = (&*state.world.audit, state.world.clock.now());
                    state
                        .strangers
                        .refused(audit, now, reason, address.0, "api".into());
                }
                Err(state.identity.challenge(&error, &Audience::Api))
            }
        }
    }
}
