//! `/api/v1/providers`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use countersign_core::provider::Provider;
use serde::Serialize;

use super::auth::Asking;
use super::body::{Body, Object};
use super::list::{List, ListQuery, Listing, Query};
use super::{ApiState, Problem};
use crate::registry::ProviderInput;

/// A provider as it is read: what was written, and what follows from it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ProviderView {
    /// What was written.
    #[serde(flatten)]
    pub input: ProviderInput,
    /// RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub updated_at: String,
    /// The redirect URI to register at the provider.
    pub callback_url: String,
    /// How many users are connected.
    pub connections: usize,
    /// Whether a version of its preset waits for `preset approve`.
    pub approval_pending: bool,
}

/// What a deletion may do.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Deletion {
    /// Delete although something depends on it.
    #[serde(default)]
    pub(super) force: bool,
}

fn view(state: &ApiState, provider: &Provider, connections: usize) -> ProviderView {
    ProviderView {
        input: ProviderInput::from(provider),
        created_at: provider.created_at.to_string(),
        updated_at: provider.updated_at.to_string(),
        callback_url: state.url(&format!("/oauth/callback/{}", provider.name)),
        connections,
        approval_pending: state.registry.is_waiting(&provider.name),
    }
}

async fn one(state: &ApiState, provider: &Provider) -> Result<ProviderView, Problem> {
    let counts = state.registry.connection_counts().await?;
    Ok(view(
        state,
        provider,
        counts.get(&provider.name).copied().unwrap_or_default(),
    ))
}

/// Lists providers (`provider_list`).
#[utoipa::path(get, path = "/api/v1/providers", tag = "providers", params(ListQuery),
    responses((status = 200, body = List<ProviderView>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<ApiState>,
    asking: Asking,
    Listing(query): Listing,
) -> Result<Json<List<ProviderView>>, Problem> {
    asking.permissions.demand("provider_list", None)?;
    let counts = state.registry.connection_counts().await?;
    let snapshot = state.registry.snapshot();
    let views = snapshot.providers.values().map(|p| {
        view(
            &state,
            &p.value,
            counts.get(&p.value.name).copied().unwrap_or_default(),
        )
    });
    query.apply(views.collect(), "name").map(Json)
}

/// Reads a provider (`provider_get`).
#[utoipa::path(get, path = "/api/v1/providers/{name}", tag = "providers", params(("name" = String, Path)),
    responses((status = 200, body = ProviderView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<Json<ProviderView>, Problem> {
    asking.permissions.demand("provider_get", Some(&name))?;
    let provider = state
        .registry
        .find_provider(&name)
        .map_err(|refusal| refusal.told_to(&asking.permissions))?;
    one(&state, &provider).await.map(Json)
}

/// Registers a provider (`provider_create`, and `secret_attach` on the secrets
/// it refers to).
#[utoipa::path(post, path = "/api/v1/providers", tag = "providers", request_body = ProviderInput,
    responses((status = 201, body = ProviderView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(state): State<ApiState>,
    asking: Asking,
    Body(input): Body<ProviderInput>,
) -> Result<(StatusCode, Json<ProviderView>), Problem> {
    let provider = state.registry.create_provider(&asking, input).await?;
    Ok((StatusCode::CREATED, Json(one(&state, &provider).await?)))
}

/// Changes a provider by a JSON merge patch (`provider_update`).
#[utoipa::path(patch, path = "/api/v1/providers/{name}", tag = "providers", params(("name" = String, Path)), request_body = ProviderInput,
    responses((status = 200, body = ProviderView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn update(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Object(patch): Object,
) -> Result<Json<ProviderView>, Problem> {
    let provider = state
        .registry
        .update_provider(&asking, &name, patch)
        .await?;
    one(&state, &provider).await.map(Json)
}

/// Deletes a provider (`provider_delete`); refused while used, unless forced.
#[utoipa::path(delete, path = "/api/v1/providers/{name}", tag = "providers", params(("name" = String, Path), Deletion),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Query(deletion): Query<Deletion>,
) -> Result<StatusCode, Problem> {
    state
        .registry
        .delete_provider(&asking, &name, deletion.force)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
