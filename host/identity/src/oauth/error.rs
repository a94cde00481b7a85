//! Errors in the words of RFC 6749, RFC 7591 and RFC 8707.

use axum::Json;
use axum::response::{IntoResponse, Response};
use countersign_core::ports::StoreError;
use http::StatusCode;
use http::header::CACHE_CONTROL;

use crate::params::BadParams;

/// An error answered as JSON, or carried in a redirect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {description}")]
pub(crate) struct OAuthError {
    status: StatusCode,
    /// The RFC's word.
    pub(crate) code: &'static str,
    /// For the agent's developer; never anything secret.
    pub(crate) description: String,
}

impl OAuthError {
    pub(crate) fn new(code: &'static str, description: impl Into<String>) -> Self {
        let status = match code {
            "invalid_client" => StatusCode::UNAUTHORIZED,
            "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            "slow_down" => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::BAD_REQUEST,
        };
        Self {
            status,
            code,
            description: description.into(),
        }
    }

    /// The answer to a device that asks whether its user has answered, which has
    /// one status for all of them (RFC 8628 §3.5).
    pub(crate) fn polling(code: &'static str, description: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code,
            description: description.to_owned(),
        }
    }

    /// The request lacks something or has it wrong.
    pub(crate) fn request(description: impl Into<String>) -> Self {
        Self::new("invalid_request", description)
    }

    /// The code or refresh token is no good.
    pub(crate) fn grant(description: impl Into<String>) -> Self {
        Self::new("invalid_grant", description)
    }
}

impl From<BadParams> for OAuthError {
    fn from(bad: BadParams) -> Self {
        Self::request(bad.to_string())
    }
}

impl From<StoreError> for OAuthError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the authorization server can't reach the store");
        Self::new(
            "temporarily_unavailable",
            "the store does not answer; try again in a moment",
        )
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.code, "error_description": self.description });
        (self.status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
    }
}
