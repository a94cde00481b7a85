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
use crate::registry::{OriginView, PolicyComponentView, PresetView};
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
    let components = app.registry.policy_components();
    let waiting: usize = presets.iter().map(|p| p.waiting.len()).sum();
    let body = html! {
        p.soft { "What the host knows of each provider, from the catalog directory. A version serves once it is enabled and approved." }
        @if let Some(problem) = app.trust.problem() { (parts::notice(Tone::Bad, &problem)) }
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
                &["Preset", "State", "Signed by", "Used by", "Component"],
                presets.iter().map(row).collect(),
            )))
        }
        @if !components.is_empty() {
            h2 { "Policy components" }
            p.soft { "An organisation's own judges, from " code { "policies" } " in the catalog directory. One judges once a policy names it." }
            (parts::card("", parts::table(
                &["Component", "State", "Signed by", "Policies", "Digest"],
                components.iter().map(judge).collect(),
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
            @if let Some(calls) = draining(preset) { p.hint { (calls) } }
            @for reason in reasons(preset) { p.hint { (reason) } }
        },
        signed_by(preset.origin.as_ref(), false),
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
        component(preset.digest.as_deref()),
    ]
}

fn judge(component: &PolicyComponentView) -> Vec<Markup> {
    let (tone, word) = match component.state.as_str() {
        "judges" => (Tone::Good, "Judges"),
        "kept" => (Tone::Warning, "File is gone"),
        "waiting" => (Tone::Warning, "Waits for approval"),
        "refused" => (Tone::Bad, "Refused"),
        "missing" => (Tone::Bad, "Missing"),
        _ => (Tone::Info, "Not used"),
    };
    vec![
        html! {
            strong { (component.name) }
            @if let Some(version) = &component.version { " " (version) }
        },
        html! {
            (parts::badge(tone, word))
            @if let Some(reason) = &component.reason { p.hint { (reason) } }
        },
        signed_by(component.origin.as_ref(), false),
        html! {
            @if component.policies.is_empty() && component.waiting.is_empty() { span.soft { "none" } }
            @for policy in &component.policies { div { (policy) } }
            @for policy in &component.waiting { div { (policy) " " (parts::badge(Tone::Warning, "another version")) } }
        },
        self::component(component.digest.as_deref()),
    ]
}

/// Who vouches for a component, and how much that is worth; the warning in full,
/// or only where somebody points.
pub(super) fn signed_by(origin: Option<&OriginView>, in_full: bool) -> Markup {
    let Some(origin) = origin else {
        return html! { span.soft { "–" } };
    };
    let publisher = origin.publisher.as_deref().unwrap_or("somebody");
    let warning = origin.warning.as_deref();
    html! {
        span title=[warning] {
            @match origin.signature.as_str() {
                "trusted" => { strong { (publisher) } },
                "untrusted" => { (publisher) " " (parts::badge(Tone::Warning, "not trusted")) },
                "unsigned" => { (parts::badge(Tone::Warning, "unsigned")) },
                "unchecked" => { span.soft { "not checked" } },
                _ => { (parts::badge(Tone::Bad, "refused")) },
            }
        }
        @if let Some(warning) = warning.filter(|_| in_full) { p.hint { (warning) } }
    }
}

/// How many calls still run on a version that serves nobody any more.
pub(super) fn draining(preset: &PresetView) -> Option<String> {
    match preset.calls {
        _ if !preset.serving.is_empty() => None,
        0 => (preset.state == "draining").then(|| "no call on it any more".into()),
        1 => Some("one call finishes on it".into()),
        calls => Some(format!("{calls} calls finish on it")),
    }
}

/// The digest, short; pointing at it shows the whole.
pub(super) fn component(digest: Option<&str>) -> Markup {
    let short = digest
        .and_then(|d| d.strip_prefix("sha256:"))
        .and_then(|d| d.get(..12));
    html! {
        @match short {
            Some(short) => span.nowrap title=[digest] { (parts::code(short)) },
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
