//! `/api/v1/policies`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use countersign_core::caller::{Caller, Permissions};
use countersign_core::names::{ClientId, ServerName, TeamName, UserName};
use countersign_core::policy::{Asked, Policy};
use countersign_core::preset::Call;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::auth::Asking;
use super::body::{Body, Object};
use super::list::{List, ListQuery, Listing, invalid};
use super::{ApiState, Problem};
use crate::registry::{PolicyInput, Preview};

/// A policy as it is read.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct PolicyView {
    /// What was written.
    #[serde(flatten)]
    pub input: PolicyInput,
    /// RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub updated_at: String,
    /// A newer version of its component, which waits for an approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
}

/// A component that nobody has approved.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Waiting {
    /// From its file name.
    pub version: String,
    /// What an approval names.
    pub digest: String,
}

fn view(state: &ApiState, policy: &Policy) -> PolicyView {
    let newer = state.registry.newer_component(policy);
    PolicyView {
        input: PolicyInput::from(policy),
        created_at: policy.created_at.to_string(),
        updated_at: policy.updated_at.to_string(),
        waiting: newer.map(|(version, digest)| Waiting {
            version,
            digest: digest.to_string(),
        }),
    }
}

/// A call to try policies on. Nothing is called.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PreviewInput {
    /// Only this policy, be it in force or not.
    policy: Option<String>,
    /// Who calls.
    user: String,
    /// In which team; his `default`, or his first, if absent.
    team: Option<String>,
    /// The agent's id; `preview` if absent.
    client: Option<String>,
    /// Which server.
    server: String,
    /// The MCP method; `tools/call` if absent.
    method: Option<String>,
    /// The tool, prompt or resource.
    tool: Option<String>,
    /// The arguments, as the agent would send them.
    #[schema(value_type = Option<Object>)]
    arguments: Option<Value>,
}

/// Lists policies (`policy_list`).
#[utoipa::path(get, path = "/api/v1/policies", tag = "policies", params(ListQuery),
    responses((status = 200, body = List<PolicyView>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<ApiState>,
    asking: Asking,
    Listing(query): Listing,
) -> Result<Json<List<PolicyView>>, Problem> {
    asking.permissions.demand("policy_list", None)?;
    let snapshot = state.registry.snapshot();
    let policies = snapshot.policies.values();
    let views = policies.map(|s| view(&state, &s.value));
    // As they are looked at, unless another order is asked for.
    let mut query = query;
    query.order_by.get_or_insert_with(|| "order".to_owned());
    query.apply(views.collect(), "name").map(Json)
}

/// Reads a policy (`policy_get`).
#[utoipa::path(get, path = "/api/v1/policies/{name}", tag = "policies", params(("name" = String, Path)),
    responses((status = 200, body = PolicyView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<Json<PolicyView>, Problem> {
    asking.permissions.demand("policy_get", Some(&name))?;
    let policy = state.registry.find_policy(&name)?;
    Ok(Json(view(&state, &policy)))
}

/// Makes a policy (`policy_create`, `preset_approve` on its component). It is in
/// force at once.
#[utoipa::path(post, path = "/api/v1/policies", tag = "policies", request_body = PolicyInput,
    responses((status = 201, body = PolicyView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(state): State<ApiState>,
    asking: Asking,
    Body(input): Body<PolicyInput>,
) -> Result<(StatusCode, Json<PolicyView>), Problem> {
    let policy = state.registry.create_policy(&asking, input).await?;
    Ok((StatusCode::CREATED, Json(view(&state, &policy))))
}

/// Changes a policy by a JSON merge patch (`policy_update`, `preset_approve` on
/// its component if that is changed).
#[utoipa::path(patch, path = "/api/v1/policies/{name}", tag = "policies", params(("name" = String, Path)), request_body = PolicyInput,
    responses((status = 200, body = PolicyView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn update(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Object(patch): Object,
) -> Result<Json<PolicyView>, Problem> {
    let policy = state.registry.update_policy(&asking, &name, patch).await?;
    Ok(Json(view(&state, &policy)))
}

/// Deletes a policy (`policy_delete`).
#[utoipa::path(delete, path = "/api/v1/policies/{name}", tag = "policies", params(("name" = String, Path)),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    state.registry.delete_policy(&asking, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells what policies would make of a call (`policy_list`, `user_get` on the
/// user). Nothing is called, and nobody is asked.
#[utoipa::path(post, path = "/api/v1/policies/preview", tag = "policies", request_body = PreviewInput,
    responses((status = 200, body = Preview), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn preview(
    State(state): State<ApiState>,
    asking: Asking,
    Body(input): Body<PreviewInput>,
) -> Result<Json<Preview>, Problem> {
    asking.permissions.demand("policy_list", None)?;
    let caller = caller_of(&state, &asking, &input).await?;
    let server = ServerName::parse(&input.server).map_err(|e| invalid("server", e))?;
    state.registry.find_server(server.as_str())?;
    let arguments = input.arguments.map(|a| a.to_string());
    let call = Call {
        method: input.method.as_deref().unwrap_or("tools/call"),
        name: input.tool.as_deref(),
        arguments: arguments.as_deref(),
        host: "",
    };
    let asked = Asked {
        caller: &caller,
        server: &server,
        call: &call,
    };
    let only = input.policy.as_deref();
    Ok(Json(state.registry.preview_policies(only, &asked)?))
}

/// The user as he would call.
async fn caller_of(
    state: &ApiState,
    asking: &Caller,
    input: &PreviewInput,
) -> Result<Caller, Problem> {
    let name = UserName::parse(&input.user).map_err(|e| invalid("user", e))?;
    let user = state.identity.user(asking, &name).await?;
    let default = TeamName::default_team();
    let team = match &input.team {
        Some(text) => {
            let team = TeamName::parse(text).map_err(|e| invalid("team", e))?;
            if !user.teams.contains(&team) {
                return Err(invalid("team", format!("{name} is not in the team {team}")));
            }
            team
        }
        None if user.teams.contains(&default) => default,
        None => user.teams.first().cloned().unwrap_or(default),
    };
    let client = input.client.as_deref().unwrap_or("preview");
    Ok(Caller {
        user: user.name,
        team,
        client: ClientId::parse(client).map_err(|e| invalid("client", e))?,
        client_name: client.to_owned(),
        roles: user.roles,
        permissions: Permissions::default(),
        servers: None,
        has_browser_identity: true,
    })
}
