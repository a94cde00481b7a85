//! Errors as RFC 9457 problem documents.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_core::caller::MissingPermission;
use countersign_core::names::InvalidName;
use countersign_core::ports::StoreError;
use countersign_identity::accounts::AdminError;
use serde::Serialize;

use crate::registry::Refusal;

/// An RFC 9457 problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// `urn:countersign:problem:` and a stable word.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: Box<str>,
    /// The same for all problems of this type.
    #[schema(value_type = String)]
    pub title: Box<str>,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong this time, and what to do next.
    #[schema(value_type = String)]
    pub detail: Box<str>,
    /// The field that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub field: Option<Box<str>>,
    /// The permission that the caller lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub missing_permission: Option<Box<str>>,
}

impl Problem {
    /// A problem with its stable word.
    pub fn new(status: u16, word: &str, detail: impl Into<Box<str>>) -> Self {
        Self {
            kind: format!("urn:countersign:problem:{word}").into(),
            title: title(word).into(),
            status,
            detail: detail.into(),
            field: None,
            missing_permission: None,
        }
    }
}

/// `already-exists` becomes `Already exists`.
fn title(word: &str) -> String {
    let mut text = word.replace('-', " ");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let mut problem = Self::new(refusal.status(), refusal.word(), refusal.to_string());
        problem.field = refusal.field().map(Box::from);
        if let Refusal::Permission(MissingPermission(name)) = refusal {
            problem.missing_permission = Some(name.into());
        }
        problem
    }
}

impl From<MissingPermission> for Problem {
    fn from(missing: MissingPermission) -> Self {
        Refusal::from(missing).into()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Refusal::from(error).into()
    }
}

impl From<InvalidName> for Problem {
    fn from(error: InvalidName) -> Self {
        Self::new(400, "invalid", error.to_string())
    }
}

impl From<AdminError> for Problem {
    fn from(error: AdminError) -> Self {
        if let AdminError::Missing(missing) = error {
            return missing.into();
        }
        let word = match &error {
            AdminError::Missing(_) | AdminError::Beyond(_) => "permission-missing",
            AdminError::NotFresh => "fresh-sign-in-needed",
            AdminError::NotFound { .. } => "not-found",
            AdminError::Exists { .. } => "already-exists",
            AdminError::InUse(_) => "in-use",
            AdminError::Invalid(_) => "invalid",
            AdminError::Busy => "busy",
            AdminError::Store(StoreError::Conflict) => "conflict",
            AdminError::Store(_) => "store-unavailable",
        };
        Self::new(error.status().as_u16(), word, error.to_string())
    }
}
