//! The page that tells a user that a server no longer acts with his account.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, OriginalUri, Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::server::Server;
use countersign_identity::BrowserSession;
use countersign_pages::Page;
use countersign_pages::parts::{self, Look, Tone};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;

use crate::http::connect::refuse;
use crate::http::connections::{is_open, server_named, viewer};
use crate::mode_changes::{change_of, keep};
use crate::wiring::App;

/// `/connections/changes/{server}`.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/connections/changes/{server}", get(show).post(go_on))
}

/// Where a user reads of it.
pub(crate) fn page_of(app: &App, server: &Server) -> String {
    let base = app.public_url.as_str().trim_end_matches('/');
    format!("{base}/connections/changes/{}", server.name)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    csrf: String,
}

#[expect(
    clippy::result_large_err,
    reason = "the error is the whole answer, made once"
)]
fn server_of(app: &App, session: &BrowserSession, name: &str) -> Result<Server, Response> {
    let snapshot = app.registry.current();
    server_named(&snapshot, name)
        .filter(|s| change_of(s).is_some() && is_open(s, &session.caller))
        .cloned()
        .ok_or_else(|| {
            refuse(
                session,
                StatusCode::NOT_FOUND,
                "Nothing has changed",
                "There is no server of this name whose account was changed.",
            )
        })
}

async fn show(
    State(app): State<Arc<App>>,
    Path(server): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let session = match app.identity.require_session(&headers, &uri).await {
        Ok(session) => session,
        Err(redirect) => return redirect,
    };
    let server = match server_of(&app, &session, &server) {
        Ok(server) => server,
        Err(page) => return page,
    };
    let mut rows = vec![
        ("Signed in as", html! { (session.user.as_str()) }),
        ("Server", html! { (server.display_name) }),
        ("Before", html! { "your own account" }),
        (
            "Now",
            html! { "one account of your organisation, for everybody" },
        ),
    ];
    if let Some(change) = change_of(&server) {
        rows.push(("Since", parts::time(change.at)));
    }
    let body = html! {
        p { "An administrator changed whose account " (server.display_name) " is used with. What your agents do there is "
            "no longer done as you; the audit log of Countersign still says that it was you who asked." }
        (parts::facts(rows))
        p.hint { "Your own account is not used there any more. You can disconnect it on the page of connections." }
        (parts::form(uri.path(), &session.csrf, parts::actions(html! {
            (parts::link_button(Look::Plain, "Not now", "/connections"))
            (parts::button(Look::Primary, "Go on"))
        })))
    };
    Page::new(format!("{} has changed", server.display_name))
        .viewer(viewer(&session))
        .narrow()
        .body(parts::card("", body))
        .into_response()
}

async fn go_on(
    State(app): State<Arc<App>>,
    Path(server): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    form: Result<Form<Word>, axum::extract::rejection::FormRejection>,
) -> Response {
    let session = match app.identity.require_session(&headers, &uri).await {
        Ok(session) => session,
        Err(redirect) => return redirect,
    };
    let Ok(Form(form)) = form else {
        return refuse(
            &session,
            StatusCode::BAD_REQUEST,
            "That form is not complete",
            "Go back and try again.",
        );
    };
    if let Err(page) = app.identity.check_form(&session, &headers, &form.csrf) {
        return page;
    }
    let server = match server_of(&app, &session, &server) {
        Ok(server) => server,
        Err(page) => return page,
    };
    let team = &session.caller.team;
    if let Err(error) = keep(&app.world, &session.user, team, &server).await {
        return crate::http::store_failed(&error);
    }
    let mut event = AuditEvent::new(
        app.world.clock.now(),
        "server.change_accepted",
        Outcome::Allowed,
    )
    .by(&session.user)
    .on(format!("server:{}", server.name))
    .detail("from user-delegated to service-account");
    event.team = Some(team.to_string());
    match app.world.audit.record(event).await {
        Ok(()) => Redirect::to("/connections").into_response(),
        Err(error) => crate::http::store_failed(&error),
    }
}

/// The card of such a server on the page of connections.
pub(super) fn card(server: &Server) -> Markup {
    parts::state_card(
        &server.display_name,
        Tone::Warning,
        "Changed",
        html! {
            p { "This server is no longer used with your own account, but with one of your organisation's for everybody. "
                "Your agents wait until you have seen that." }
            (parts::actions(parts::link_button(
                Look::Primary,
                "See what changed",
                &format!("/connections/changes/{}", server.name),
            )))
        },
    )
}
