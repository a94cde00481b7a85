//! `/api/v1/keys`: what the key-encryption keys are used for. Never a key.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::auth::Asking;
use super::list::List;
use super::{ApiState, Problem};
use crate::keys::{KeyView, KeysError, Rotation};

impl From<KeysError> for Problem {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Store(error) => error.into(),
            other => Self::new(409, "keys-unusable", other.to_string()),
        }
    }
}

/// Lists the keys that are configured or in use (`key_list`). Reads the whole
/// store to count.
#[utoipa::path(get, path = "/api/v1/keys", tag = "keys",
    responses((status = 200, body = List<KeyView>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<ApiState>,
    asking: Asking,
) -> Result<Json<List<KeyView>>, Problem> {
    asking.permissions.demand("key_list", None)?;
    let items = state.sealing.list().await?;
    Ok(Json(List {
        total_size: items.len(),
        items,
        next_page_token: String::new(),
    }))
}

/// How far the last rotation is (`key_list`).
#[utoipa::path(get, path = "/api/v1/keys/rotation", tag = "keys",
    responses((status = 200, body = Rotation), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn rotation(
    State(state): State<ApiState>,
    asking: Asking,
) -> Result<Json<Rotation>, Problem> {
    asking.permissions.demand("key_list", None)?;
    Ok(Json(state.sealing.rotation()))
}

/// Goes over to the current key of `[keys]`, as the configuration file has it
/// now (`key_rotate`). It runs in the host; ask for `/api/v1/keys/rotation`.
#[utoipa::path(post, path = "/api/v1/keys/rotation", tag = "keys",
    responses((status = 202, body = Rotation), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn rotate(
    State(state): State<ApiState>,
    asking: Asking,
) -> Result<(StatusCode, Json<Rotation>), Problem> {
    asking.permissions.demand("key_rotate", None)?;
    let rotation = state.sealing.rotate(asking.user.as_str()).await?;
    Ok((StatusCode::ACCEPTED, Json(rotation)))
}
