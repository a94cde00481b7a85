//! `/api/v1/presets`.

use axum::Json;
use axum::extract::{Path, State};
use countersign_presets::PermissionSet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::auth::Asking;
use super::body::Body;
use super::list::{List, ListQuery, Listing, Query};
use super::{ApiState, Problem};
use crate::registry::{Approved, BindingView, Chosen, PolicyComponentView, PresetView, Refusal};

/// The catalog.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct PresetList {
    /// A page of its files.
    #[serde(flatten)]
    pub presets: List<PresetView>,
    /// All policy components beside the presets; they are on every page.
    pub policy_components: Vec<PolicyComponentView>,
    /// What an operator should know: a configuration that cannot be used.
    pub notices: Vec<String>,
}

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
    /// No version older than this serves anybody.
    pub floor: Option<String>,
    /// Digests that serve nobody, ever.
    pub revoked: Vec<String>,
    /// How each provider that uses it stands.
    pub bindings: Vec<BindingView>,
    /// What it may do: for the provider that was asked about, or for one that
    /// adds nothing of its own. Absent if it says so only under settings.
    #[schema(value_type = Option<Object>)]
    pub permissions: Option<PermissionSet>,
    /// All that it says of itself, if it does so without settings.
    #[schema(value_type = Option<Object>)]
    pub description: Option<Value>,
}

/// For whom.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct For {
    /// Resolve the permissions for this provider's record.
    provider: Option<String>,
}

/// What can be changed of a preset; what is absent stays.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PresetPatch {
    /// Whether providers may use it (`preset_enable`).
    enabled: Option<bool>,
    /// No version older than this serves anybody; `null` lifts it
    /// (`preset_approve`).
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "1.2.0")]
    floor: Option<Option<String>>,
}

/// Tells `null` from absence.
fn given<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// What to approve.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalInput {
    /// Only for this provider; for all that use the preset if absent.
    provider: Option<String>,
    /// Only what has this hash: what was looked at. Whatever waits if absent.
    hash: Option<String>,
}

/// Which version is to serve.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChoiceInput {
    /// Only for this provider; for all that use the preset if absent.
    provider: Option<String>,
    /// As the file name says, or the file's name. Absent, a pin is taken away
    /// and a rollback goes to the version before.
    version: Option<String>,
    /// Approves the version, too, if it is what has this hash.
    hash: Option<String>,
}

/// Which version serves now.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Choices {
    /// One for each provider.
    pub chosen: Vec<Chosen>,
}

/// What to revoke.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevocationInput {
    /// A digest, or the version or file that has it now.
    content: String,
    /// Takes a revocation back.
    #[serde(default)]
    undo: bool,
}

/// What was approved.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Approvals {
    /// One for each provider; empty if nothing waited.
    pub approved: Vec<Approved>,
}

/// Lists the catalog (`preset_list`): one item for each file, and the policy
/// components.
#[utoipa::path(get, path = "/api/v1/presets", tag = "presets", params(ListQuery),
    responses((status = 200, body = PresetList), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<ApiState>,
    asking: Asking,
    Listing(query): Listing,
) -> Result<Json<PresetList>, Problem> {
    asking.permissions.demand("preset_list", None)?;
    Ok(Json(PresetList {
        presets: query.apply(state.registry.presets(), "file")?,
        policy_components: state.registry.policy_components(),
        notices: state.trust.problem().into_iter().collect(),
    }))
}

/// Inspects a preset, by its name or its file (`preset_get`).
#[utoipa::path(get, path = "/api/v1/presets/{name}", tag = "presets", params(("name" = String, Path), For),
    responses((status = 200, body = PresetInspection), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Query(query): Query<For>,
) -> Result<Json<PresetInspection>, Problem> {
    asking.permissions.demand("preset_get", Some(&name))?;
    let mut inspection = inspection(&state, &name)?;
    if let Some(provider) = query.provider {
        asking.permissions.demand("provider_get", Some(&provider))?;
        let provider = state.registry.find_provider(&provider)?;
        let file = inspection.preset.file.clone();
        let proposal = state.registry.propose(&provider, Some(file)).await?;
        inspection.permissions = Some(proposal.approval.permissions);
    }
    Ok(Json(inspection))
}

/// Enables or disables a preset (`preset_enable`), or sets its floor
/// (`preset_approve`).
#[utoipa::path(patch, path = "/api/v1/presets/{name}", tag = "presets", params(("name" = String, Path)), request_body = PresetPatch,
    responses((status = 200, body = PresetInspection), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn update(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Body(patch): Body<PresetPatch>,
) -> Result<Json<PresetInspection>, Problem> {
    if patch.enabled.is_none() && patch.floor.is_none() {
        return Err(
            Refusal::invalid("enabled", "is missing, and floor too: nothing to change").into(),
        );
    }
    if let Some(floor) = patch.floor {
        state
            .registry
            .set_preset_floor(&asking, &name, floor)
            .await?;
    }
    match patch.enabled {
        Some(true) => _ = state.registry.enable_preset(&asking, &name).await?,
        Some(false) => _ = state.registry.disable_preset(&asking, &name).await?,
        None => {}
    }
    inspection(&state, &name).map(Json)
}

/// Chooses the version that serves, or follows the newest again
/// (`preset_approve`).
#[utoipa::path(post, path = "/api/v1/presets/{name}/pin", tag = "presets", params(("name" = String, Path)), request_body = ChoiceInput,
    responses((status = 200, body = Choices), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn pin(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Body(input): Body<ChoiceInput>,
) -> Result<Json<Choices>, Problem> {
    let (registry, provider) = (&state.registry, input.provider.as_deref());
    let chosen = match input.version.as_deref() {
        Some(version) => {
            let hash = input.hash.as_deref();
            registry
                .pin_preset(&asking, &name, provider, version, hash)
                .await?
        }
        None => registry.unpin_preset(&asking, &name, provider).await?,
    };
    Ok(Json(Choices { chosen }))
}

/// Goes back to the version before, or to the one that is named, and stays
/// there (`preset_approve`).
#[utoipa::path(post, path = "/api/v1/presets/{name}/rollback", tag = "presets", params(("name" = String, Path)), request_body = ChoiceInput,
    responses((status = 200, body = Choices), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn rollback(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Body(input): Body<ChoiceInput>,
) -> Result<Json<Choices>, Problem> {
    let chosen = state
        .registry
        .rollback_preset(
            &asking,
            &name,
            input.provider.as_deref(),
            input.version.as_deref(),
            input.hash.as_deref(),
        )
        .await?;
    Ok(Json(Choices { chosen }))
}

/// Revokes a content: it never serves again, whoever approved it
/// (`preset_approve`).
#[utoipa::path(post, path = "/api/v1/presets/{name}/revoke", tag = "presets", params(("name" = String, Path)), request_body = RevocationInput,
    responses((status = 200, body = PresetInspection), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn revoke(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Body(input): Body<RevocationInput>,
) -> Result<Json<PresetInspection>, Problem> {
    state
        .registry
        .revoke_preset(&asking, &name, &input.content, input.undo)
        .await?;
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
        .approve_preset(
            &asking,
            &name,
            input.provider.as_deref(),
            input.hash.as_deref(),
        )
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
    let named = inspection.entry.preset.as_ref();
    let rules = named.map(|n| state.registry.snapshot().rules(n));
    let rules = rules.unwrap_or_default();
    Ok(PresetInspection {
        preset,
        floor: rules.floor,
        revoked: rules.revoked.iter().map(ToString::to_string).collect(),
        bindings: named.map_or_else(Vec::new, |n| state.registry.preset_bindings(n)),
        permissions: inspection.permissions,
        imports: inspection.imports,
        hooks: inspection.hooks,
        description: inspection
            .description
            .and_then(|d| serde_json::to_value(d).ok()),
    })
}
