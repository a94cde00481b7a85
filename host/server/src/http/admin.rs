//! Pages of administration. Each is for people who have its permission; what a
//! button does is asked of the registry, which asks for permissions again.

use std::sync::Arc;

use axum::Router;
use axum::response::{Redirect, Response};
use axum::routing::get;
use countersign_core::caller::MissingPermission;
use http::StatusCode;

use crate::wiring::App;

mod preset;
mod presets;

/// `/admin/…`.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/admin", get(|| async { Redirect::to("/admin/presets") }))
        .merge(presets::routes())
        .merge(preset::routes())
}

/// The page for somebody who may not see this.
fn not_allowed(missing: &MissingPermission) -> Response {
    countersign_pages::message(
        StatusCode::FORBIDDEN,
        "Not for you",
        &format!("{missing}. Ask an administrator for a role that has it."),
    )
}

/// The page for a form that was not filled in by ours.
fn incomplete() -> Response {
    countersign_pages::message(
        StatusCode::BAD_REQUEST,
        "That form is not complete",
        "Go back and try again.",
    )
}
