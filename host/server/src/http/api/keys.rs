//! `/api/v1/connections/keys`: one's own keys for servers that take one from
//! each user. They go in and never come out.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use countersign_core::connection::{ReauthReason, Status};
use countersign_core::names::TeamName;
use countersign_core::secret::Secret;
use countersign_core::user_key::UserKey;
use serde::Deserialize;

use super::auth::Asking;
use super::body::Body;
use super::connections::{ConnectionView, team};
use super::list::{Query, invalid};
use super::{ApiState, Problem};
use crate::user_keys::{KeyRefused, takes_keys};

/// A key.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyInput {
    /// The key itself; never read back.
    #[schema(write_only)]
    value: String,
    /// In which of one's teams; the token's if absent.
    #[schema(value_type = Option<String>)]
    team: Option<TeamName>,
}

/// In which team.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct InTeam {
    /// One of one's teams; the token's if absent.
    #[param(value_type = Option<String>)]
    team: Option<TeamName>,
}

/// Sets one's own key for a server.
#[utoipa::path(put, path = "/api/v1/connections/keys/{server}", tag = "connections", params(("server" = String, Path)),
    request_body = KeyInput,
    responses((status = 200, body = ConnectionView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn put(
    State(state): State<ApiState>,
    asking: Asking,
    Path(server): Path<String>,
    Body(input): Body<KeyInput>,
) -> Result<Json<ConnectionView>, Problem> {
    let value = Secret::from_text(input.value);
    let team = team(&state, &asking, input.team).await?;
    let server = state
        .registry
        .find_server(&server)
        .map_err(|refusal| refusal.told_to(&asking.permissions))?;
    if !server.teams.is_empty() && !server.teams.contains(&team) {
        return Err(invalid(
            "server",
            format!("{} is not open to your team {team}", server.name),
        ));
    }
    let kept = state.keys.set(&asking.user, &team, &server, value).await;
    match kept {
        Ok(key) => Ok(Json(view(&state, &key))),
        Err(KeyRefused::Store(error)) => Err(error.into()),
        Err(error @ KeyRefused::NotTaken(_)) => Err(invalid("server", error)),
        Err(error @ (KeyRefused::Empty | KeyRefused::TooLong)) => Err(invalid("value", error)),
    }
}

/// Destroys one's own key for a server.
#[utoipa::path(delete, path = "/api/v1/connections/keys/{server}", tag = "connections",
    params(("server" = String, Path), InTeam),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<ApiState>,
    asking: Asking,
    Path(server): Path<String>,
    Query(within): Query<InTeam>,
) -> Result<StatusCode, Problem> {
    let team = within.team.unwrap_or_else(|| asking.team.clone());
    let server = server.parse()?;
    state.keys.delete(&asking.user, &team, &server).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// As one's connections are shown.
pub(super) fn view(state: &ApiState, key: &UserKey) -> ConnectionView {
    let snapshot = state.registry.current();
    let server = snapshot.server(&key.server);
    let is_used = server.is_some_and(|server| takes_keys(server) && key.is_for(server));
    let (status, reason) = if is_used {
        (Status::Connected, None)
    } else {
        (Status::NeedsReauth, Some(ReauthReason::ProviderChanged))
    };
    ConnectionView {
        id: key.id.to_string(),
        provider: server
            .and_then(|s| s.auth.provider.as_ref())
            .map(ToString::to_string),
        server: Some(key.server.to_string()),
        team: key.team.to_string(),
        resource: Some(key.origin.clone()),
        account: None,
        scopes: Vec::new(),
        status,
        reason,
        expires_at: None,
        refresh_token_present: false,
        refresh_token_expires_at: None,
        reconnect_by: None,
        withheld_scopes: Vec::new(),
        last_used_at: None,
        consented_at: key.created_at.to_string(),
        created_at: key.created_at.to_string(),
    }
}
