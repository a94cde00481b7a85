//! The public keys of what Countersign signs (RFC 7517 §5).

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::json;

use crate::wiring::App;

/// `/.well-known/jwks.json`.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/.well-known/jwks.json", get(show))
}

async fn show(State(app): State<Arc<App>>) -> Response {
    match app.oauth.published_keys().await {
        Ok(keys) => (
            // A new key is published a day before it signs.
            [
                (CACHE_CONTROL, "public, max-age=3600"),
                (CONTENT_TYPE, "application/jwk-set+json"),
            ],
            Json(json!({ "keys": keys })),
        )
            .into_response(),
        Err(error) => crate::http::store_failed(&error),
    }
}
