//! `/api/v1/servers`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use countersign_core::server::Server;
use serde::Serialize;

use super::auth::Asking;
use super::body::{Body, Object};
use super::list::{List, ListQuery, Listing, Query};
use super::providers::{Creation, Deletion};
use super::{ApiState, Problem};
use crate::discovery::Report;
use crate::registry::ServerInput;

/// A server as it is read: what was written, and what follows from it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ServerView {
    /// What was written.
    #[serde(flatten)]
    pub input: ServerInput,
    /// RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub updated_at: String,
    /// Where agents find it.
    pub endpoint: String,
    /// In the answer to a creation only: what was found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Report>,
}

fn view(state: &ApiState, server: &Server) -> ServerView {
    ServerView {
        input: ServerInput::from(server),
        created_at: server.created_at.to_string(),
        updated_at: server.updated_at.to_string(),
        endpoint: state.url(&format!("/mcp/{}", server.name)),
        discovery: None,
    }
}

/// Lists servers (`server_list`).
#[utoipa::path(get, path = "/api/v1/servers", tag = "servers", params(ListQuery),
    responses((status = 200, body = List<ServerView>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<ApiState>,
    asking: Asking,
    Listing(query): Listing,
) -> Result<Json<List<ServerView>>, Problem> {
    asking.permissions.demand("server_list", None)?;
    let snapshot = state.registry.snapshot();
    query
        .apply(
            snapshot
                .servers
                .values()
                .map(|s| view(&state, &s.value))
                .collect(),
            "name",
        )
        .map(Json)
}

/// Reads a server (`server_get`).
#[utoipa::path(get, path = "/api/v1/servers/{name}", tag = "servers", params(("name" = String, Path)),
    responses((status = 200, body = ServerView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<Json<ServerView>, Problem> {
    asking.permissions.demand("server_get", Some(&name))?;
    let server = state
        .registry
        .find_server(&name)
        .map_err(|refusal| refusal.told_to(&asking.permissions))?;
    Ok(Json(view(&state, &server)))
}

/// Attaches a server (`server_create`, `provider_attach` on its provider,
/// `secret_attach` on its secret). Without `auth` it is found out how the server
/// is protected, and a provider is registered for it if there is none
/// (`provider_create`). A dry run is answered with status 200 and what was found
/// out.
#[utoipa::path(post, path = "/api/v1/servers", tag = "servers", params(Creation), request_body = ServerInput,
    responses((status = 201, body = ServerView), (status = 200, body = Report), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(state): State<ApiState>,
    asking: Asking,
    Query(creation): Query<Creation>,
    Body(input): Body<ServerInput>,
) -> Result<Response, Problem> {
    let by_address = input.is_address_alone();
    if !by_address {
        creation.only_discovering("a url and no auth")?;
        let server = state.registry.create_server(&asking, input).await?;
        return Ok((StatusCode::CREATED, Json(view(&state, &server))).into_response());
    }
    let made = state
        .discoveries
        .create_server(&asking, input, &creation.options())
        .await
        .map_err(|refusal| refusal.told_to(&asking.permissions))?;
    let Some(server) = made.record else {
        return Ok(Json(made.report).into_response());
    };
    let mut view = view(&state, &server);
    view.discovery = Some(made.report);
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// Changes a server by a JSON merge patch (`server_update`).
#[utoipa::path(patch, path = "/api/v1/servers/{name}", tag = "servers", params(("name" = String, Path)), request_body = ServerInput,
    responses((status = 200, body = ServerView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn update(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Object(patch): Object,
) -> Result<Json<ServerView>, Problem> {
    let server = state.registry.update_server(&asking, &name, patch).await?;
    Ok(Json(view(&state, &server)))
}

/// Detaches a server (`server_delete`); refused while users have connections of
/// its own, unless forced: then they are erased, and revoked at the provider
/// afterwards. What was recorded of its decisions goes, too.
#[utoipa::path(delete, path = "/api/v1/servers/{name}", tag = "servers", params(("name" = String, Path), Deletion),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Query(deletion): Query<Deletion>,
) -> Result<StatusCode, Problem> {
    // Who may not is refused, and told so in the log, by the deletion itself.
    if deletion.force
        && let Ok(usage) = state.registry.usage_of_server(&asking, &name).await
    {
        for key in &usage.connections {
            let party = state.registry.party(&key.provider);
            state.oauth.retire(key, party.as_ref()).await?;
        }
    }
    let server = state.registry.find_server(&name).map(|s| s.name.clone());
    state
        .registry
        .delete_server(&asking, &name, deletion.force)
        .await?;
    if let Ok(server) = server {
        let records = state.world.records.as_ref();
        state.recorder.forget(records, &server).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}
