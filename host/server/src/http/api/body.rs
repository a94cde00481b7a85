//! Request bodies: JSON objects, strictly.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Problem;
use crate::registry::{from_json, strict_json};

/// A JSON object without duplicate members.
pub(super) struct Object(pub(super) Map<String, Value>);

/// A JSON object that is a `T`: unknown fields are refused by name.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync> FromRequest<S> for Object {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("");
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !["application/json", "application/merge-patch+json"]
            .contains(&essence.to_ascii_lowercase().as_str())
        {
            return Err(Problem::new(
                415,
                "unsupported-media-type",
                "send JSON, with Content-Type: application/json",
            ));
        }
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|e| Problem::new(e.status().as_u16(), "unreadable-body", e.body_text()))?;
        Ok(Self(strict_json(&bytes)?))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Object(map) = Object::from_request(request, state).await?;
        Ok(Self(from_json(map)?))
    }
}
