//! `/api/v1/presets`.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::auth::Asking;
use super::body::Body;
use super::list::{List, ListQuery, Listing};
use super::{ApiState, Problem};
use crate::registry::{Approved, PresetView, Refusal};

/// A preset, looked at closely.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct PresetInspection {
    /// As it is listed.
    #[serde(flatten)]
    pub preset: PresetView,
    /// Host interfaces that it imports.
    pub imports: Vec<String>,
    /// Hooks that it exports.
    pub hooks: Vec<String>,
    /// All that it says of itself, if it does so without settings.
    #[schema(value_type = Option<Object>)]
    pub description: Option<Value>,
}

/// What can be changed of a preset.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PresetPatch {
    /// Whether providers may use it.
    enabled: bool,
}

/// What to approve.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalInput {
    /// Only for this provider; for all that use the preset if absent.
    provider: Option<String>,
}

/// What was approved.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Approvals {
    /// One for each provider; empty if nothing waited.
    pub approved: Vec<Approved>,
}

/// Lists the catalog (`preset_list`): one item for each file.
#[utoipa::path(get, path = "/api/v1/presets", tag = "presets", params(ListQuery),
    responses((status = 200, body = List<PresetView>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<ApiState>,
    asking: Asking,
    Listing(query): Listing,
) -> Result<Json<List<PresetView>>, Problem> {
    asking.permissions.demand("preset_list", None)?;
    query.apply(state.registry.presets(), "file").map(Json)
}

/// Inspects a preset, by its name or its file (`preset_get`).
#[utoipa::path(get, path = "/api/v1/presets/{name}", tag = "presets", params(("name" = String, Path)),
    responses((status = 200, body = PresetInspection), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<Json<PresetInspection>, Problem> {
    asking.permissions.demand("preset_get", Some(&name))?;
    inspection(&state, &name).map(Json)
}

/// Enables or disables a preset (`preset_enable`).
#[utoipa::path(patch, path = "/api/v1/presets/{name}", tag = "presets", params(("name" = String, Path)), request_body = PresetPatch,
    responses((status = 200, body = PresetInspection), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn update(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Body(patch): Body<PresetPatch>,
) -> Result<Json<PresetInspection>, Problem> {
    if patch.enabled {
        state.registry.enable_preset(&asking, &name).await?;
    } else {
        state.registry.disable_preset(&asking, &name).await?;
    }
    inspection(&state, &name).map(Json)
}

/// Approves what waits: digest, settings and permission set, for one provider or
/// for all that use the preset (`preset_approve`).
#[utoipa::path(post, path = "/api/v1/presets/{name}/approve", tag = "presets", params(("name" = String, Path)), request_body = ApprovalInput,
    responses((status = 200, body = Approvals), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn approve(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Body(input): Body<ApprovalInput>,
) -> Result<Json<Approvals>, Problem> {
    let approved = state
        .registry
        .approve_preset(&asking, &name, input.provider.as_deref())
        .await?;
    Ok(Json(Approvals { approved }))
}

fn inspection(state: &ApiState, name: &str) -> Result<PresetInspection, Problem> {
    let (preset, inspection) = state
        .registry
        .preset(name)
        .ok_or_else(|| Refusal::NotFound {
            what: "preset",
            name: name.chars().take(80).collect(),
            known: state.registry.catalog_names(),
        })?;
    Ok(PresetInspection {
        preset,
        imports: inspection.imports,
        hooks: inspection.hooks,
        description: inspection
            .description
            .and_then(|d| serde_json::to_value(d).ok()),
    })
}
