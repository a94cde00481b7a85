//! `/admin/presets`: the catalog.

use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use countersign_pages::Page;
use countersign_pages::parts::{self, Tone};
use http::HeaderMap;
use maud::{Markup, html};

use super::not_allowed;
use crate::http::connections::viewer;
use crate::registry::PresetView;
use crate::wiring::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/admin/presets", get(show))
}

async fn show(
    State(app): State<Arc<App>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let session = match app.identity.require_session(&headers, &uri).await {
        Ok(session) => session,
        Err(redirect) => return redirect,
    };
    if let Err(missing) = session.caller.permissions.demand("preset_list", None) {
        return not_allowed(&missing);
    }
    let presets = app.registry.presets();
    let waiting: usize = presets.iter().map(|p| p.waiting.len()).sum();
    let body = html! {
        p.soft { "What the host knows of each provider, from the catalog directory. A version serves once it is enabled and approved." }
        @if waiting > 0 {
            (parts::notice(Tone::Warning, &match waiting {
                1 => "One version waits for an approval.".to_owned(),
                n => format!("{n} versions wait for an approval."),
            }))
        }
        @if presets.is_empty() {
            (parts::empty(
                "The catalog is empty",
                "Put NAME-VERSION.wasm files into the host's catalog directory; they appear here at once.",
                None,
            ))
        } @else {
            (parts::card("", parts::table(
                &["Preset", "State", "Used by", "Component"],
                presets.iter().map(row).collect(),
            )))
        }
    };
    Page::new("Presets")
        .viewer(viewer(&session))
        .body(body)
        .into_response()
}

fn row(preset: &PresetView) -> Vec<Markup> {
    let (tone, word) = state_badge(preset);
    vec![
        html! {
            a href=(format!("/admin/presets/{}", preset.name)) { strong { (preset.name) } }
            @if let Some(version) = &preset.version { " " (version) }
        },
        html! {
            (parts::badge(tone, word))
            @for reason in reasons(preset) { p.hint { (reason) } }
        },
        html! {
            @if preset.providers.is_empty() { span.soft { "nobody" } }
            @for provider in &preset.providers {
                div {
                    (provider)
                    @if preset.serving.contains(provider) { " " (parts::badge(Tone::Good, "serves")) }
                    @if preset.waiting.contains(provider) { " " (parts::badge(Tone::Warning, "waits")) }
                }
            }
        },
        component(preset),
    ]
}

/// The digest, short; pointing at it shows the whole.
pub(super) fn component(preset: &PresetView) -> Markup {
    let short = preset
        .digest
        .as_deref()
        .and_then(|d| d.strip_prefix("sha256:"))
        .and_then(|d| d.get(..12));
    html! {
        @match short {
            Some(short) => span.nowrap title=[preset.digest.as_deref()] { (parts::code(short)) },
            None => span.soft { "none" },
        }
    }
}

/// In one word, how a version stands.
pub(super) fn state_badge(preset: &PresetView) -> (Tone, &'static str) {
    match preset.state.as_str() {
        "refused" => (Tone::Bad, "Refused"),
        "revoked" => (Tone::Bad, "Revoked"),
        "below_floor" => (Tone::Bad, "Too old"),
        "draining" => (Tone::Info, "Draining"),
        _ if !preset.enabled => (Tone::Info, "Disabled"),
        _ if !preset.waiting.is_empty() => (Tone::Warning, "Waits for approval"),
        "kept" => (Tone::Warning, "File is gone"),
        _ if !preset.serving.is_empty() => (Tone::Good, "Serves"),
        "needs_settings" => (Tone::Info, "Needs settings"),
        _ => (Tone::Good, "Ready"),
    }
}

/// Why a version is refused, or does not serve somebody.
pub(super) fn reasons(preset: &PresetView) -> Vec<String> {
    let own = preset.reason.iter().cloned();
    let over = preset
        .passed_over
        .iter()
        .map(|over| format!("Not for {}: {}", over.provider, over.reason));
    own.chain(over).collect()
}
