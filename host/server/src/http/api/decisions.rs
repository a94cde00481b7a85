//! `/api/v1/servers/{name}/decisions`, and versions tried on them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use countersign_core::audit::{AuditEvent, Outcome};
use serde::{Deserialize, Serialize};

use super::auth::Asking;
use super::body::Body;
use super::{ApiState, Problem};
use crate::registry::Refusal;
use crate::replay::{Recorded, Replay};

/// What a server's decisions were made by.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Decisions {
    /// Oldest first; about 2,000 at most, for 30 days.
    pub items: Vec<Recorded>,
}

/// Which versions, on what.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayInput {
    /// Under whose record.
    provider: String,
    /// As the file name says, or the file's name; what serves if absent.
    old: Option<String>,
    /// The same; the newest if absent.
    new: Option<String>,
    /// Only on what this server recorded; on all of the provider's if absent.
    server: Option<String>,
}

/// What a version would decide differently.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ReplayView {
    /// In a sentence.
    pub summary: String,
    /// In figures.
    #[serde(flatten)]
    pub replay: Replay,
}

/// Exports the redacted inputs of a server's decisions (`audit_read`).
#[utoipa::path(get, path = "/api/v1/servers/{name}/decisions", tag = "servers", params(("name" = String, Path)),
    responses((status = 200, body = Decisions), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<Json<Decisions>, Problem> {
    asking.permissions.demand("audit_read", None)?;
    let server = state.registry.find_server(&name)?;
    let records = state.world.records.as_ref();
    let items = state.recorder.recorded(records, &server.name).await?;
    Ok(Json(Decisions { items }))
}

/// Forgets what a server recorded (`server_update`).
#[utoipa::path(delete, path = "/api/v1/servers/{name}/decisions", tag = "servers", params(("name" = String, Path)),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn forget(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    asking.permissions.demand("server_update", Some(&name))?;
    let server = state.registry.find_server(&name)?;
    let records = state.world.records.as_ref();
    state.recorder.forget(records, &server.name).await?;
    let event = AuditEvent::new(
        state.world.clock.now(),
        "server.decisions_forgotten",
        Outcome::Allowed,
    )
    .by(&asking.user)
    .on(format!("server:{}", server.name));
    state.world.audit.record(event).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tries a version on recorded decisions (`preset_get`, `audit_read`).
#[utoipa::path(post, path = "/api/v1/presets/{name}/replay", tag = "presets", params(("name" = String, Path)), request_body = ReplayInput,
    responses((status = 200, body = ReplayView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn replay(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Body(input): Body<ReplayInput>,
) -> Result<Json<ReplayView>, Problem> {
    asking.permissions.demand("preset_get", Some(&name))?;
    asking.permissions.demand("audit_read", None)?;
    let provider = state.registry.find_provider(&input.provider)?;
    if provider.preset.as_str() != name {
        let problem = format!(
            "{} uses the preset {}, not {name}",
            provider.name, provider.preset
        );
        return Err(Refusal::invalid("provider", problem).into());
    }
    let snapshot = state.registry.snapshot();
    let servers = match &input.server {
        Some(server) => vec![state.registry.find_server(server)?],
        None => snapshot
            .attached(&provider.name)
            .into_iter()
            .cloned()
            .collect(),
    };
    let mut inputs = Vec::new();
    for server in servers {
        let records = state.world.records.as_ref();
        inputs.extend(state.recorder.recorded(records, &server.name).await?);
    }
    let replay = state
        .registry
        .replay(&provider, input.old, input.new, inputs)
        .await?;
    Ok(Json(ReplayView {
        summary: replay.in_words(),
        replay,
    }))
}
