//! `/api/v1/secrets`. Values go in and never come out.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use countersign_core::names::SecretName;
use countersign_core::secret::Secret;
use serde::{Deserialize, Serialize};

use super::auth::Asking;
use super::body::Body;
use super::list::{List, ListQuery, Listing, Query};
use super::providers::Deletion;
use super::{ApiState, Problem};
use crate::registry::{Refusal, SecretFacts, Snapshot};

/// A secret as it is set.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretInput {
    /// Never read back. At most 6 KiB.
    #[schema(format = Password, write_only)]
    value: String,
    /// Hosts it may be sent to; unchanged if absent, any if empty.
    hosts: Option<Vec<String>>,
}

/// What is known of a secret besides its value.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct SecretView {
    /// Its name.
    pub name: String,
    /// Hosts it may be sent to; any if empty.
    pub hosts: Vec<String>,
    /// RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// RFC 3339 UTC; when its value or hosts were last set.
    #[schema(format = DateTime)]
    pub updated_at: String,
    /// What refers to it.
    pub used_by: Vec<String>,
}

fn view(snapshot: &Snapshot, facts: &SecretFacts) -> SecretView {
    SecretView {
        name: facts.name.to_string(),
        hosts: facts.hosts.iter().map(ToString::to_string).collect(),
        created_at: facts.created_at.to_string(),
        updated_at: facts.updated_at.to_string(),
        used_by: snapshot.users_of(&facts.name),
    }
}

/// Lists secrets, without values (`secret_list`).
#[utoipa::path(get, path = "/api/v1/secrets", tag = "secrets", params(ListQuery),
    responses((status = 200, body = List<SecretView>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<ApiState>,
    asking: Asking,
    Listing(query): Listing,
) -> Result<Json<List<SecretView>>, Problem> {
    asking.permissions.demand("secret_list", None)?;
    let snapshot = state.registry.snapshot();
    query
        .apply(
            snapshot
                .secrets
                .values()
                .map(|s| view(&snapshot, &s.value))
                .collect(),
            "name",
        )
        .map(Json)
}

/// Reads what is known of a secret, not its value (`secret_get`).
#[utoipa::path(get, path = "/api/v1/secrets/{name}", tag = "secrets", params(("name" = String, Path)),
    responses((status = 200, body = SecretView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<Json<SecretView>, Problem> {
    asking.permissions.demand("secret_get", Some(&name))?;
    let snapshot = state.registry.snapshot();
    let parsed = SecretName::parse(&name).map_err(|e| Refusal::name("name", &e))?;
    let found = snapshot
        .secrets
        .get(&parsed)
        .ok_or_else(|| Refusal::NotFound {
            what: "secret",
            name,
            known: snapshot.secrets.keys().map(ToString::to_string).collect(),
        })
        .map_err(|refusal| refusal.told_to(&asking.permissions))?;
    Ok(Json(view(&snapshot, &found.value)))
}

/// Sets a secret (`secret_create` or `secret_update`).
#[utoipa::path(put, path = "/api/v1/secrets/{name}", tag = "secrets", params(("name" = String, Path)), request_body = SecretInput,
    responses((status = 200, body = SecretView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn put(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Body(input): Body<SecretInput>,
) -> Result<Json<SecretView>, Problem> {
    let value = Secret::from_text(input.value);
    let facts = state
        .registry
        .set_secret(&asking, &name, value, input.hosts.as_deref())
        .await?;
    Ok(Json(view(&state.registry.snapshot(), &facts)))
}

/// Deletes a secret (`secret_delete`); refused while used, unless forced.
#[utoipa::path(delete, path = "/api/v1/secrets/{name}", tag = "secrets", params(("name" = String, Path), Deletion),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Query(deletion): Query<Deletion>,
) -> Result<StatusCode, Problem> {
    state
        .registry
        .delete_secret(&asking, &name, deletion.force)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
