//! The REST API under `/api/v1`.
//!
//! One file per resource; each handler parses, asks one service, and answers.
//! Permissions are demanded by the services for changes, and here for reads.
//! The OpenAPI document is made from the same routes and types that serve.

use std::sync::Arc;

use axum::Router;
use axum::response::IntoResponse as _;
use countersign_core::ports::World;
use countersign_identity::Identity;
use countersign_oauth::Oauth;
use countersign_vault::audit::AuditLog;
use url::Url;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::registry::Registry;
use crate::user_keys::UserKeys;

mod audit;
mod auth;
mod backup;
mod body;
mod connections;
mod decisions;
mod device;
mod doctor;
mod filter;
mod key_encryption;
mod keys;
mod list;
mod policies;
mod presets;
mod problem;
mod providers;
mod registrations;
mod roles;
mod secrets;
mod servers;
mod teams;
mod tokens;
mod users;

pub use list::{List, ListQuery};
pub use problem::Problem;

/// Largest request body, in bytes. No record takes more than 8 KiB.
const LONGEST_BODY: usize = 64 * 1024;

/// What the handlers work on.
#[derive(Clone)]
pub struct ApiState {
    /// Clock, randomness, records.
    pub world: World,
    /// Providers, servers, secrets, presets.
    pub registry: Arc<Registry>,
    /// Whether what the configuration says of presets now can be used.
    pub trust: Arc<crate::trust::Standing>,
    /// Users, teams, roles, tokens; and who is asking.
    pub identity: Identity,
    /// Connections.
    pub oauth: Arc<Oauth>,
    /// Users' own keys for servers.
    pub keys: UserKeys,
    /// What is found out and registered.
    pub discoveries: Arc<crate::discovery::Discoveries>,
    /// What decisions were made by.
    pub recorder: Arc<crate::replay::Recorder>,
    /// The audit log, for reading.
    pub audit: Arc<AuditLog>,
    /// The key-encryption keys.
    pub sealing: Arc<crate::keys::HostKeys>,
    /// Countersign's own origin.
    pub public_url: Url,
    /// What is refused to callers whom nobody knows.
    pub strangers: Arc<super::strangers::Strangers>,
}

impl ApiState {
    /// An address below the public URL; the path begins with a slash.
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.public_url.as_str().trim_end_matches('/'))
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Countersign",
        description = "Administration of Countersign. Send `Authorization: Bearer cs_api_…`, or the session cookie \
                       of a signed-in browser with its `x-csrf-token`. Errors are RFC 9457 problem documents.",
        license(name = "Apache-2.0")
    ),
    modifiers(&BearerToken),
    security(("api_token" = []))
)]
struct Document;

struct BearerToken;

impl utoipa::Modify for BearerToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("api_token", scheme);
    }
}

/// All routes of the API, whole paths, with their state.
pub fn router(state: ApiState) -> Router {
    let (router, document) = routes().split_for_parts();
    let document = axum::Json(document);
    let openapi = axum::routing::get(move || async move { document.into_response() });
    let api = router
        .route("/api/v1/openapi.json", openapi)
        .route("/api/v1/{*rest}", axum::routing::any(unknown_path))
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::extract::DefaultBodyLimit::max(LONGEST_BODY));
    api.with_state(state)
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(providers::list, providers::create))
        .routes(routes!(
            providers::get,
            providers::update,
            providers::delete
        ))
        .routes(routes!(
            registrations::get,
            registrations::update,
            registrations::renew
        ))
        .routes(routes!(servers::list, servers::create))
        .routes(routes!(servers::get, servers::update, servers::delete))
        .routes(routes!(secrets::list))
        .routes(routes!(secrets::get, secrets::put, secrets::delete))
        .routes(routes!(presets::list))
        .routes(routes!(presets::get, presets::update))
        .routes(routes!(presets::approve))
        .routes(routes!(presets::pin))
        .routes(routes!(presets::rollback))
        .routes(routes!(presets::revoke))
        .routes(routes!(decisions::replay))
        .routes(routes!(decisions::list, decisions::forget))
        .routes(routes!(users::whoami))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::get, users::update, users::delete))
        .routes(routes!(teams::list, teams::create))
        .routes(routes!(teams::get, teams::delete))
        .routes(routes!(teams::add_member))
        .routes(routes!(teams::remove_member))
        .routes(routes!(roles::list, roles::create))
        .routes(routes!(roles::get, roles::update, roles::delete))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::delete))
        .routes(routes!(connections::list, connections::create))
        .routes(routes!(connections::get, connections::delete))
        .routes(routes!(keys::put, keys::delete))
        .routes(routes!(device::create))
        .routes(routes!(device::get, device::decide))
        .routes(routes!(policies::list, policies::create))
        .routes(routes!(policies::preview))
        .routes(routes!(policies::get, policies::update, policies::delete))
        .routes(routes!(audit::list))
        .routes(routes!(backup::create))
        .routes(routes!(doctor::look))
        .routes(routes!(key_encryption::list))
        .routes(routes!(key_encryption::rotation, key_encryption::rotate))
}

async fn unknown_path(uri: axum::http::Uri) -> Problem {
    Problem::new(
        404,
        "not-found",
        format!(
            "there is nothing at {}; see /api/v1/openapi.json",
            uri.path()
        ),
    )
}

async fn wrong_method(method: axum::http::Method) -> Problem {
    Problem::new(
        405,
        "method-not-allowed",
        format!("{method} is not possible here; see /api/v1/openapi.json"),
    )
}

#[cfg(test)]
mod tests;
