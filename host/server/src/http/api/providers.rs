//! `/api/v1/providers`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use countersign_core::provider::Provider;
use serde::Serialize;

use super::auth::Asking;
use super::body::{Body, Object};
use super::list::{List, ListQuery, Listing, Query, invalid};
use super::registrations::{RegistrationFacts, facts};
use super::{ApiState, Problem};
use crate::discovery::{Options, Report};
use crate::registry::{ProviderInput, Usage};

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
    /// How it was found, and how Countersign became its client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration: Option<RegistrationFacts>,
    /// In the answer to a creation only: what was found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Report>,
}

/// How far a creation goes.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Creation {
    /// Also where something that is there already serves the purpose.
    #[serde(default)]
    pub(super) force: bool,
    /// Only find out and say what would be created.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// The issuer, where several are found or none.
    pub(super) issuer: Option<String>,
}

impl Creation {
    /// Where nothing is found out, these say nothing.
    pub(super) fn only_discovering(&self, needs: &str) -> Result<(), Problem> {
        let given = [
            ("force", self.force),
            ("dry_run", self.dry_run),
            ("issuer", self.issuer.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(invalid(
                name,
                format!("is for creating by discovery; give {needs}, too"),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn options(self) -> Options {
        Options {
            force: self.force,
            dry_run: self.dry_run,
            issuer: self.issuer.filter(|issuer| !issuer.is_empty()),
        }
    }
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

/// What went with a provider.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Deleted {
    /// Servers that fail until they get another provider.
    pub servers_without_provider: Vec<String>,
    /// Connections that were erased.
    pub connections_erased: usize,
    /// Of these, how many the provider confirmed to have revoked.
    pub connections_revoked: usize,
}

/// How long a deletion waits for the provider to revoke.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

fn view(state: &ApiState, provider: &Provider, connections: usize) -> ProviderView {
    ProviderView {
        input: ProviderInput::from(provider),
        created_at: provider.created_at.to_string(),
        updated_at: provider.updated_at.to_string(),
        callback_url: state.url(&format!("/oauth/callback/{}", provider.name)),
        connections,
        approval_pending: state.registry.is_waiting(&provider.name),
        registration: facts(provider),
        discovery: None,
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
/// it refers to). With `discover`, what is not given is found out, and
/// Countersign registers itself there as a client. A dry run is answered with
/// status 200 and what was found out.
#[utoipa::path(post, path = "/api/v1/providers", tag = "providers", params(Creation), request_body = ProviderInput,
    responses((status = 201, body = ProviderView), (status = 200, body = Report), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(state): State<ApiState>,
    asking: Asking,
    Query(creation): Query<Creation>,
    Body(input): Body<ProviderInput>,
) -> Result<Response, Problem> {
    if input.discover.is_none() {
        creation.only_discovering("discover")?;
        let provider = state.registry.create_provider(&asking, input).await?;
        return Ok((StatusCode::CREATED, Json(one(&state, &provider).await?)).into_response());
    }
    let made = state
        .discoveries
        .create_provider(&asking, input, &creation.options())
        .await
        .map_err(|refusal| refusal.told_to(&asking.permissions))?;
    let Some(provider) = made.record else {
        return Ok(Json(made.report).into_response());
    };
    let mut view = one(&state, &provider).await?;
    view.discovery = Some(made.report);
    Ok((StatusCode::CREATED, Json(view)).into_response())
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
/// Then its connections are revoked at the provider, as far as it answers soon,
/// and erased, and the answer names the servers that fail from now on.
#[utoipa::path(delete, path = "/api/v1/providers/{name}", tag = "providers", params(("name" = String, Path), Deletion),
    responses((status = 200, body = Deleted), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Query(deletion): Query<Deletion>,
) -> Result<Json<Deleted>, Problem> {
    let ended = state.registry.find_provider(&name).ok();
    // Who may not is refused, and told so in the log, by the deletion itself.
    let usage = match deletion.force {
        true => state.registry.usage_of_provider(&asking, &name).await,
        false => Ok(Usage::default()),
    };
    let mut deleted = Deleted {
        servers_without_provider: Vec::new(),
        connections_erased: 0,
        connections_revoked: 0,
    };
    if let Ok(Usage {
        servers,
        connections,
    }) = usage
    {
        let provider = state.registry.find_provider(&name)?;
        let party = state.registry.party(&provider.name);
        deleted.connections_erased = connections.len();
        deleted.connections_revoked = state
            .oauth
            .disconnect_all(connections, party.as_ref(), PATIENCE)
            .await;
        // Of service accounts and token exchange.
        if let Some(party) = &party {
            state.oauth.revoke_obtained(party, PATIENCE).await?;
        }
        deleted.servers_without_provider = servers;
    }
    state
        .registry
        .delete_provider(&asking, &name, deletion.force)
        .await?;
    if let Some(provider) = ended {
        state.discoveries.ended(&provider).await;
    }
    Ok(Json(deleted))
}
