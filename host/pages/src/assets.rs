//! The style sheet and the mark, compiled in.

use std::sync::LazyLock;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use countersign_core::names::Digest;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};

const STYLE: &str = include_str!("../assets/style.css");
const MARK: &str = include_str!("../assets/mark.svg");

static STYLE_HREF: LazyLock<String> = LazyLock::new(|| {
    format!(
        "/assets/style.css?v={}",
        Digest::of(STYLE.as_bytes()).short()
    )
});

/// The address of the style sheet; it changes with its content.
pub(crate) fn style_href() -> &'static str {
    &STYLE_HREF
}

/// The routes under `/assets/`. The query carries the content's hash, so the
/// answers may be cached for ever.
pub fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route(
            "/assets/style.css",
            get(|| async { file("text/css; charset=utf-8", STYLE) }),
        )
        .route(
            "/assets/mark.svg",
            get(|| async { file("image/svg+xml", MARK) }),
        )
}

fn file(content_type: &'static str, body: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, body).into_response()
}
