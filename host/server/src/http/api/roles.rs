//! `/api/v1/roles`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use countersign_core::caller::{Permission, Role};
use countersign_core::names::RoleName;
use serde::{Deserialize, Serialize};

use super::auth::Asking;
use super::body::Body;
use super::list::{List, ListQuery, Listing};
use super::{ApiState, Problem};

/// A role as written.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleInput {
    /// Lower-case letters, digits and hyphens.
    #[schema(value_type = String)]
    name: RoleName,
    /// `PERMISSION` or `PERMISSION:RESOURCE`.
    #[schema(value_type = Vec<String>)]
    allow: Vec<Permission>,
}

/// What can be changed of a role.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RolePatch {
    /// All that it allows.
    #[schema(value_type = Vec<String>)]
    allow: Vec<Permission>,
}

/// A role as it is read.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct RoleView {
    /// Unique.
    pub name: String,
    /// `PERMISSION` or `PERMISSION:RESOURCE`.
    pub allow: Vec<String>,
    /// Whether every installation has it; such a role stays as it is.
    pub built_in: bool,
}

impl From<Role> for RoleView {
    fn from(role: Role) -> Self {
        Self {
            built_in: Role::built_in().iter().any(|r| r.name == role.name),
            name: role.name.to_string(),
            allow: role.allow.into_iter().map(String::from).collect(),
        }
    }
}

/// Lists roles (`role_list`).
#[utoipa::path(get, path = "/api/v1/roles", tag = "roles", params(ListQuery),
    responses((status = 200, body = List<RoleView>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<ApiState>,
    asking: Asking,
    Listing(query): Listing,
) -> Result<Json<List<RoleView>>, Problem> {
    let roles = state.identity.roles(&asking).await?;
    query
        .apply(roles.into_iter().map(RoleView::from).collect(), "name")
        .map(Json)
}

/// Reads a role (`role_get`).
#[utoipa::path(get, path = "/api/v1/roles/{name}", tag = "roles", params(("name" = String, Path)),
    responses((status = 200, body = RoleView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<Json<RoleView>, Problem> {
    Ok(Json(
        state
            .identity
            .role(&asking, &RoleName::parse(&name)?)
            .await?
            .into(),
    ))
}

/// Creates a role (`role_create`; no more than the maker's own permissions).
#[utoipa::path(post, path = "/api/v1/roles", tag = "roles", request_body = RoleInput,
    responses((status = 201, body = RoleView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(state): State<ApiState>,
    asking: Asking,
    Body(input): Body<RoleInput>,
) -> Result<(StatusCode, Json<RoleView>), Problem> {
    let role = Role {
        name: input.name,
        allow: input.allow,
    };
    let role = state.identity.create_role(&asking, role).await?;
    Ok((StatusCode::CREATED, Json(role.into())))
}

/// Replaces what a role allows (`role_update`).
#[utoipa::path(patch, path = "/api/v1/roles/{name}", tag = "roles", params(("name" = String, Path)), request_body = RolePatch,
    responses((status = 200, body = RoleView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn update(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Body(patch): Body<RolePatch>,
) -> Result<Json<RoleView>, Problem> {
    let role = Role {
        name: RoleName::parse(&name)?,
        allow: patch.allow,
    };
    Ok(Json(
        state.identity.update_role(&asking, role).await?.into(),
    ))
}

/// Deletes a role that nobody has (`role_delete`).
#[utoipa::path(delete, path = "/api/v1/roles/{name}", tag = "roles", params(("name" = String, Path)),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    state
        .identity
        .delete_role(&asking, &RoleName::parse(&name)?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
