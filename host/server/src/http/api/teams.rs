//! `/api/v1/teams`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use countersign_core::names::{TeamName, UserName};
use countersign_identity::accounts::Team;
use serde::{Deserialize, Serialize};

use super::auth::Asking;
use super::body::Body;
use super::list::{List, ListQuery, Listing};
use super::{ApiState, Problem};

/// A team as created.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TeamInput {
    /// Lower-case letters, digits and hyphens.
    #[schema(value_type = String)]
    name: TeamName,
    /// For people; the name if absent.
    display_name: Option<String>,
}

/// Who to add.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberInput {
    /// The user's name.
    #[schema(value_type = String)]
    user: UserName,
}

/// A team as it is read.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TeamView {
    /// Unique.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// Names of its users; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<String>>,
}

fn view(team: Team, members: Option<Vec<UserName>>) -> TeamView {
    TeamView {
        name: team.name.to_string(),
        display_name: team.display_name,
        created_at: team.created_at.to_string(),
        members: members.map(|m| m.iter().map(ToString::to_string).collect()),
    }
}

async fn one(state: &ApiState, asking: &Asking, name: &TeamName) -> Result<TeamView, Problem> {
    let (team, members) = state.identity.team(asking, name).await?;
    Ok(view(team, Some(members)))
}

/// Lists teams (`team_list`).
#[utoipa::path(get, path = "/api/v1/teams", tag = "teams", params(ListQuery),
    responses((status = 200, body = List<TeamView>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<ApiState>,
    asking: Asking,
    Listing(query): Listing,
) -> Result<Json<List<TeamView>>, Problem> {
    let teams = state.identity.teams(&asking).await?;
    query
        .apply(teams.into_iter().map(|t| view(t, None)).collect(), "name")
        .map(Json)
}

/// Reads a team with its members (`team_get`).
#[utoipa::path(get, path = "/api/v1/teams/{name}", tag = "teams", params(("name" = String, Path)),
    responses((status = 200, body = TeamView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<Json<TeamView>, Problem> {
    one(&state, &asking, &TeamName::parse(&name)?)
        .await
        .map(Json)
}

/// Creates a team (`team_create`).
#[utoipa::path(post, path = "/api/v1/teams", tag = "teams", request_body = TeamInput,
    responses((status = 201, body = TeamView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(state): State<ApiState>,
    asking: Asking,
    Body(input): Body<TeamInput>,
) -> Result<(StatusCode, Json<TeamView>), Problem> {
    let display_name = input.display_name.unwrap_or_else(|| input.name.to_string());
    let team = state
        .identity
        .create_team(&asking, input.name, display_name)
        .await?;
    Ok((StatusCode::CREATED, Json(view(team, Some(Vec::new())))))
}

/// Deletes a team without members (`team_delete`).
#[utoipa::path(delete, path = "/api/v1/teams/{name}", tag = "teams", params(("name" = String, Path)),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    state
        .identity
        .delete_team(&asking, &TeamName::parse(&name)?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Adds a member (`team_update` on the team).
#[utoipa::path(post, path = "/api/v1/teams/{name}/members", tag = "teams", params(("name" = String, Path)), request_body = MemberInput,
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn add_member(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Body(input): Body<MemberInput>,
) -> Result<StatusCode, Problem> {
    state
        .identity
        .add_member(&asking, &TeamName::parse(&name)?, &input.user)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a member: his tokens for this team end, and its connections go
/// (`team_update` on the team).
#[utoipa::path(delete, path = "/api/v1/teams/{name}/members/{user}", tag = "teams",
    params(("name" = String, Path), ("user" = String, Path)),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn remove_member(
    State(state): State<ApiState>,
    asking: Asking,
    Path((name, user)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    state
        .identity
        .remove_member(&asking, &TeamName::parse(&name)?, &UserName::parse(&user)?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
