//! `/admin/presets/{name}`: one preset, its versions, and what it may do for
//! each provider.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, OriginalUri, Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use countersign_core::names::PresetName;
use countersign_identity::BrowserSession;
use countersign_pages::Page;
use countersign_pages::parts::{self, Look, Tone};
use countersign_presets::{PermissionDifference, PermissionSet};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;

use super::presets::{component, draining, reasons, signed_by, state_badge};
use super::{incomplete, not_allowed};
use crate::http::connections::viewer;
use crate::registry::{BindingView, OriginView, PresetView, Refusal, WaitingView};
use crate::replay::Replay;
use crate::wiring::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/admin/presets/{name}", get(show))
        .route("/admin/presets/{name}/{act}", post(act))
}

async fn show(
    State(app): State<Arc<App>>,
    OriginalUri(uri): OriginalUri,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let session = match app.identity.require_session(&headers, &uri).await {
        Ok(session) => session,
        Err(redirect) => return redirect,
    };
    let told = uri.query().and_then(|query| {
        let said = query.strip_prefix("done=")?;
        DONE.iter().find(|(word, _)| *word == said)
    });
    let notice = told.map(|(_, text)| (Tone::Good, (*text).to_owned()));
    page(&app, &session, &name, notice, StatusCode::OK).await
}

/// What was done, by the word that the address says.
const DONE: [(&str, &str); 6] = [
    ("enable", "The preset is enabled."),
    (
        "disable",
        "The preset is disabled: calls of its providers fail until it is enabled again.",
    ),
    ("approve", "Approved."),
    (
        "rollback",
        "Gone back. The provider stays on this version until you let it follow the newest again.",
    ),
    (
        "unpin",
        "The provider follows the newest approved version again.",
    ),
    ("revoke", "Revoked: this component never serves again."),
];

async fn page(
    app: &App,
    session: &BrowserSession,
    name: &str,
    notice: Option<(Tone, String)>,
    status: StatusCode,
) -> Response {
    if let Err(missing) = session.caller.permissions.demand("preset_get", Some(name)) {
        return not_allowed(&missing);
    }
    let versions: Vec<PresetView> = app
        .registry
        .presets()
        .into_iter()
        .rev()
        .filter(|p| p.name == name)
        .collect();
    let Ok(preset) = PresetName::parse(name) else {
        return not_found();
    };
    if versions.is_empty() {
        return not_found();
    }
    let on = On {
        session,
        preset: &preset,
    };
    let bindings = app.registry.preset_bindings(&preset);
    let mut tried = BTreeMap::new();
    for binding in &bindings {
        if let Some(replay) = try_out(app, session, binding).await {
            tried.insert(binding.provider.clone(), replay);
        }
    }
    let enabled = versions.iter().any(|v| v.enabled);
    let rules = app.registry.snapshot().rules(&preset);
    let inspection = app.registry.preset(name).map(|(_, inspection)| inspection);
    let body = html! {
        p.soft { a href="/admin/presets" { "All presets" } }
        @if let Some((tone, text)) = &notice { (parts::notice(*tone, text)) }
        @if let Some(problem) = app.trust.problem() { (parts::notice(Tone::Bad, &problem)) }
        @for binding in &bindings { (on.provider(binding, tried.get(&binding.provider))) }
        @if bindings.is_empty() {
            (parts::empty("No provider uses it", "Register one with `countersign provider create`; what it may do is approved for each provider.", None))
        }
        h2 { "Versions" }
        (parts::state_card(
            name,
            if enabled { Tone::Good } else { Tone::Info },
            if enabled { "Enabled" } else { "Disabled" },
            html! {
                (parts::table(&["Version", "State", "Signed by", "Component", ""], versions.iter().map(|v| on.version(v)).collect()))
                @if let Some(floor) = &rules.floor { p.hint { "No version older than " (floor) " serves." } }
                @if !rules.revoked.is_empty() { p.hint { (rules.revoked.len()) " digests are revoked." } }
                @if on.may("preset_enable") {
                    (parts::actions(on.form(
                        if enabled { "disable" } else { "enable" },
                        html! {},
                        if enabled { Look::Danger } else { Look::Primary },
                        if enabled { "Disable" } else { "Enable" },
                    )))
                }
            },
        ))
        @if let Some(set) = inspection.and_then(|i| i.permissions) {
            h2 { "What the newest version may do by itself" }
            (parts::card("", permissions(&set)))
        }
    };
    Page::new(format!("Preset {name}"))
        .viewer(viewer(session))
        .status(status)
        .body(body)
        .into_response()
}

fn not_found() -> Response {
    countersign_pages::message(
        StatusCode::NOT_FOUND,
        "No such preset",
        "It is not in the catalog directory any more, or never was.",
    )
}

/// Whose page it is, and of what.
struct On<'a> {
    session: &'a BrowserSession,
    preset: &'a PresetName,
}

impl On<'_> {
    fn may(&self, permission: &str) -> bool {
        let permissions = &self.session.caller.permissions;
        permissions.allow(permission, Some(self.preset.as_str()))
    }

    fn form(&self, act: &str, fields: Markup, look: Look, label: &str) -> Markup {
        let action = format!("/admin/presets/{}/{act}", self.preset);
        let body = html! { (fields) (parts::button(look, label)) };
        parts::form(&action, &self.session.csrf, body)
    }

    fn version(&self, version: &PresetView) -> Vec<Markup> {
        let (tone, word) = state_badge(version);
        vec![
            html! {
                strong { (version.version.as_deref().unwrap_or(&version.file)) }
                @if !version.serving.is_empty() { p.hint { "serves " (version.serving.join(", ")) } }
            },
            html! {
                (parts::badge(tone, word))
                @if let Some(calls) = draining(version) { p.hint { (calls) } }
                @for reason in reasons(version) { p.hint { (reason) } }
            },
            signed_by(version.origin.as_ref(), version.providers.is_empty()),
            component(version.digest.as_deref()),
            html! {
                @if let Some(digest) = version.digest.as_deref().filter(|_| version.state != "revoked" && self.may("preset_approve")) {
                    (self.form("revoke", parts::hidden("content", digest), Look::Danger, "Revoke"))
                }
            },
        ]
    }

    fn provider(&self, binding: &BindingView, tried: Option<&Replay>) -> Markup {
        let (tone, word) = match (&binding.waiting, &binding.version) {
            (Some(_), _) => (Tone::Warning, "Waits for approval".to_owned()),
            (None, Some(version)) => (Tone::Good, format!("{version} serves")),
            (None, None) => (Tone::Bad, "Nothing serves".to_owned()),
        };
        let mut rows = Vec::new();
        rows.push((
            "Serves",
            html! { @match &binding.version { Some(version) => (version), None => "no version: its calls fail until one may" } },
        ));
        if let Some(origin) = &binding.origin {
            rows.push(("Signed by", signed_by(Some(origin), true)));
            rows.extend(origin_rows(origin));
        }
        let follows = match (&binding.pinned, binding.auto_update) {
            (Some(version), _) => format!("pinned to {version}"),
            (None, true) => "follows the newest; one that asks for no more swaps by itself".into(),
            (None, false) => "asks about every new version".into(),
        };
        rows.push(("Updates", html! { (follows) }));
        for line in &binding.set_aside {
            rows.push(("Gone back from", html! { (line) }));
        }
        for line in &binding.refusals {
            rows.push(("Not serving", html! { (line) }));
        }
        let provider = || parts::hidden("provider", &binding.provider);
        let held = binding.pinned.is_some() || !binding.set_aside.is_empty();
        parts::state_card(
            &binding.display_name,
            tone,
            &word,
            html! {
                (parts::facts(rows))
                @if let Some(waiting) = &binding.waiting { (self.waiting(binding, waiting, tried)) }
                @if let Some(set) = &binding.permissions {
                    details { summary { "What it may do now" } (permissions(set)) }
                }
                @if self.may("preset_approve") && (binding.version.is_some() || held) {
                    (parts::actions(html! {
                        @if binding.version.is_some() { (self.form("rollback", provider(), Look::Plain, "Go back a version")) }
                        @if held { (self.form("unpin", provider(), Look::Plain, "Follow the newest")) }
                    }))
                }
            },
        )
    }

    /// What waits, and the button that approves just that.
    fn waiting(
        &self,
        binding: &BindingView,
        waiting: &WaitingView,
        tried: Option<&Replay>,
    ) -> Markup {
        html! {
            h3 { "Version " (waiting.version) " asks for an approval" }
            @if binding.version.is_some() {
                p { "Compared with what serves now:" }
            } @else if !waiting.difference.is_all_new() {
                p { "Compared with what was approved last:" }
            }
            (difference(&waiting.difference))
            (parts::facts(
                std::iter::once(("Signed by", signed_by(Some(&waiting.origin), true)))
                    .chain(origin_rows(&waiting.origin))
                    .collect(),
            ))
            @if let Some(replay) = tried { (replayed(replay)) }
            details { summary { "All that it may do then" } (permissions(&waiting.permissions)) }
            p.hint { "Component " (parts::code(&waiting.digest)) }
            p.hint { "Approval " (parts::code(&waiting.hash)) }
            @if self.may("preset_approve") {
                (parts::actions(self.form("approve", html! {
                    (parts::hidden("provider", &binding.provider))
                    (parts::hidden("hash", &waiting.hash))
                }, Look::Primary, "Approve")))
            } @else {
                p.hint { "Approving it takes the permission preset_approve." }
            }
        }
    }
}

/// The key of a signature, and where a component was pulled from.
fn origin_rows(origin: &OriginView) -> Vec<(&'static str, Markup)> {
    let mut rows = Vec::new();
    if let Some(key) = &origin.key {
        rows.push(("Key", parts::code(key)));
    }
    if let Some(at) = &origin.signed_at {
        rows.push(("Signed at", html! { (at) }));
    }
    if let Some(from) = &origin.pulled_from {
        rows.push((
            "Pulled from",
            html! {
                (parts::code(from))
                @if let Some(at) = &origin.pulled_at { " at " (at) }
            },
        ));
    }
    rows
}

fn difference(difference: &PermissionDifference) -> Markup {
    if difference.is_empty() {
        return html! { p { "It may do the same as before." } };
    }
    html! {
        ul.difference {
            @for (_, word, entry) in difference.lines() {
                @let tone = match word { "added" => Tone::Bad, "widened" => Tone::Warning, _ => Tone::Good };
                li { (parts::badge(tone, word)) " " span { (entry) } }
            }
        }
    }
}

/// What waits, tried on what the provider's servers recorded; none if nothing
/// waits, nothing serves or nothing was recorded.
async fn try_out(app: &App, session: &BrowserSession, binding: &BindingView) -> Option<Replay> {
    let waiting = binding.waiting.as_ref()?;
    binding.version.as_ref()?;
    session.caller.permissions.demand("audit_read", None).ok()?;
    let provider = app.registry.find_provider(&binding.provider).ok()?;
    let records = app.world.records.as_ref();
    let mut inputs = Vec::new();
    for server in app.registry.snapshot().attached(&provider.name) {
        inputs.extend(app.recorder.recorded(records, &server.name).await.ok()?);
    }
    if inputs.is_empty() {
        return None;
    }
    let new = Some(waiting.file.clone());
    app.registry.replay(&provider, None, new, inputs).await.ok()
}

fn replayed(replay: &Replay) -> Markup {
    html! {
        h3 { "Tried on recorded calls" }
        p { (replay.in_words()) }
        @for change in &replay.changes {
            details {
                summary { (change.count) " " (change.to) }
                ul { @for example in &change.examples { li { (example) } } }
            }
        }
    }
}

/// Every kind that has entries.
fn permissions(set: &PermissionSet) -> Markup {
    let kinds: Vec<_> = set.kinds().filter(|(_, e)| !e.is_empty()).collect();
    if kinds.is_empty() {
        return html! { p.soft { "Nothing." } };
    }
    let rows = kinds.into_iter().map(|(kind, entries)| {
        let entries = entries.iter().map(|e| (e.as_str(), None));
        (kind, parts::scopes(entries))
    });
    parts::facts(rows.collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActForm {
    csrf: String,
    provider: Option<String>,
    hash: Option<String>,
    content: Option<String>,
}

async fn act(
    State(app): State<Arc<App>>,
    OriginalUri(uri): OriginalUri,
    Path((name, act)): Path<(String, String)>,
    headers: HeaderMap,
    form: Result<Form<ActForm>, axum::extract::rejection::FormRejection>,
) -> Response {
    let session = match app.identity.require_session(&headers, &uri).await {
        Ok(session) => session,
        Err(redirect) => return redirect,
    };
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    if let Err(page) = app.identity.check_form(&session, &headers, &form.csrf) {
        return page;
    }
    let (registry, caller) = (&app.registry, &session.caller);
    let provider = form.provider.as_deref();
    let done = match (act.as_str(), provider, &form.hash, &form.content) {
        ("enable", None, None, None) => registry.enable_preset(caller, &name).await.map(|_| ()),
        ("disable", None, None, None) => registry.disable_preset(caller, &name).await.map(|_| ()),
        ("approve", Some(_), Some(hash), None) => registry
            .approve_preset(caller, &name, provider, Some(hash))
            .await
            .map(|_| ()),
        ("rollback", Some(_), hash, None) => registry
            .rollback_preset(caller, &name, provider, None, hash.as_deref())
            .await
            .map(|_| ()),
        ("unpin", Some(_), None, None) => registry
            .unpin_preset(caller, &name, provider)
            .await
            .map(|_| ()),
        ("revoke", None, None, Some(content)) => registry
            .revoke_preset(caller, &name, content, false)
            .await
            .map(|_| ()),
        _ => return incomplete(),
    };
    match done {
        Ok(()) => Redirect::to(&format!("/admin/presets/{name}?done={act}")).into_response(),
        Err(Refusal::Permission(missing)) => not_allowed(&missing),
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.status());
            let notice = Some((Tone::Bad, refusal.to_string()));
            page(
                &app,
                &session,
                &name,
                notice,
                status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            )
            .await
        }
    }
}
