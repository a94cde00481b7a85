//! `/api/v1/providers/{name}/registration`: clients that registered themselves.

use axum::Json;
use axum::extract::{Path, State};
use countersign_core::provider::Provider;
use serde::Serialize;

use super::auth::Asking;
use super::{ApiState, Problem};
use crate::discovery::{ClientState, Looked};

/// How Countersign is a provider's client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(super) struct RegistrationFacts {
    /// The authorization server, as it writes itself.
    pub issuer: String,
    /// What an administrator asked about.
    pub discovered_from: String,
    /// `dynamic`, `metadata_document` or `manual`.
    #[schema(value_type = String)]
    pub client: countersign_core::provider::ClientKind,
    /// Where it is managed (RFC 7592).
    pub configuration: Option<String>,
    /// The secret that opens that.
    pub access_token_ref: Option<String>,
    /// RFC 3339 UTC; when the client secret ends.
    pub client_secret_expires_at: Option<String>,
    /// RFC 3339 UTC.
    pub registered_at: String,
}

/// A registration, looked at.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct RegistrationView {
    /// The provider.
    pub provider: String,
    /// The client's identifier now.
    pub client_id: String,
    /// `registered`, `forgotten`, `renewed`, `updated` or `unknown`.
    #[schema(value_type = String)]
    pub state: ClientState,
    /// None of providers that an administrator wrote down.
    pub registration: Option<RegistrationFacts>,
}

pub(super) fn facts(provider: &Provider) -> Option<RegistrationFacts> {
    let registration = provider.registration.as_ref()?;
    Some(RegistrationFacts {
        issuer: registration.issuer.clone(),
        discovered_from: registration.discovered_from.to_string(),
        client: registration.client,
        configuration: registration.configuration.as_ref().map(ToString::to_string),
        access_token_ref: registration
            .access_token_ref
            .as_ref()
            .map(ToString::to_string),
        client_secret_expires_at: registration.client_secret_expires_at.map(|t| t.to_string()),
        registered_at: registration.registered_at.to_string(),
    })
}

fn view(looked: &Looked) -> Json<RegistrationView> {
    Json(RegistrationView {
        provider: looked.provider.name.to_string(),
        client_id: looked.provider.client_id.clone(),
        state: looked.state,
        registration: facts(&looked.provider),
    })
}

/// Looks whether the authorization server still knows the client (RFC 7592;
/// `provider_get`).
#[utoipa::path(get, path = "/api/v1/providers/{name}/registration", tag = "providers", params(("name" = String, Path)),
    responses((status = 200, body = RegistrationView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<Json<RegistrationView>, Problem> {
    let looked = state.discoveries.look(&asking, &name).await;
    let looked = looked.map_err(|refusal| refusal.told_to(&asking.permissions))?;
    Ok(view(&looked))
}

/// Tells the authorization server the redirect URI and grants of now (RFC 7592;
/// `provider_update`).
#[utoipa::path(put, path = "/api/v1/providers/{name}/registration", tag = "providers", params(("name" = String, Path)),
    responses((status = 200, body = RegistrationView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn update(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<Json<RegistrationView>, Problem> {
    let looked = state.discoveries.update(&asking, &name).await;
    let looked = looked.map_err(|refusal| refusal.told_to(&asking.permissions))?;
    Ok(view(&looked))
}

/// Registers anew; its users are asked again (`provider_update`).
#[utoipa::path(post, path = "/api/v1/providers/{name}/registration", tag = "providers", params(("name" = String, Path)),
    responses((status = 200, body = RegistrationView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn renew(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<Json<RegistrationView>, Problem> {
    let looked = state.discoveries.renew(&asking, &name).await;
    let looked = looked.map_err(|refusal| refusal.told_to(&asking.permissions))?;
    Ok(view(&looked))
}
