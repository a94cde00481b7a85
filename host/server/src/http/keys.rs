//! The page on which a user gives his own key for a server.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, OriginalUri, Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use countersign_core::secret::Secret;
use countersign_core::server::Server;
use countersign_core::user_key::UserKey;
use countersign_identity::BrowserSession;
use countersign_pages::Page;
use countersign_pages::parts::{self, Field, Look, Tone};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;

use crate::http::connect::refuse;
use crate::http::connections::{is_open, server_named, viewer};
use crate::user_keys::{Found, KeyRefused, takes_keys};
use crate::wiring::App;

/// `/connections/keys/{server}`.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/connections/keys/{server}", get(show).post(set))
        .route("/connections/keys/{server}/delete", post(remove))
}

/// Where a user gives his key for this server.
pub(crate) fn page_of(app: &App, server: &Server) -> String {
    let base = app.public_url.as_str().trim_end_matches('/');
    format!("{base}/connections/keys/{}", server.name)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyForm {
    csrf: String,
    key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveForm {
    csrf: String,
}

async fn show(
    State(app): State<Arc<App>>,
    Path(server): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let session = match app.identity.require_fresh_session(&headers, &uri).await {
        Ok(session) => session,
        Err(redirect) => return redirect,
    };
    match server_of(&app, &session, &server) {
        Ok(server) => page(&app, &session, &server, None).await,
        Err(page) => page,
    }
}

/// Only a server that is open to the user, and takes keys.
#[expect(
    clippy::result_large_err,
    reason = "the error is the whole answer, made once"
)]
fn server_of(app: &App, session: &BrowserSession, name: &str) -> Result<Server, Response> {
    let snapshot = app.registry.current();
    server_named(&snapshot, name)
        .filter(|s| takes_keys(s) && is_open(s, &session.caller))
        .cloned()
        .ok_or_else(|| {
            refuse(
                session,
                StatusCode::NOT_FOUND,
                "No key is needed here",
                "There is no server of this name that you may use and that takes a key of yours.",
            )
        })
}

async fn page(
    app: &App,
    session: &BrowserSession,
    server: &Server,
    problem: Option<&str>,
) -> Response {
    let found = app
        .keys
        .find(&session.user, &session.caller.team, &server.name)
        .await;
    let found = match found {
        Ok(found) => found,
        Err(error) => return crate::http::store_failed(&error),
    };
    let (status, label) = (
        problem.map_or(StatusCode::OK, |_| StatusCode::BAD_REQUEST),
        if found.is_some() {
            "Reconnect"
        } else {
            "Connect"
        },
    );
    let host = UserKey::origin_of(server).unwrap_or_default();
    let mut rows = vec![
        ("Signed in as", html! { (session.user.as_str()) }),
        ("For", html! { (server.display_name) }),
        ("Sent to", parts::code(&host)),
    ];
    if let Some(found) = &found {
        rows.push(("Key given", parts::time(found.key.updated_at)));
    }
    let field = Field::password("Key", "key")
        .autocomplete("off")
        .hint("It is stored encrypted and never shown again, not even to you.");
    let body = html! {
        p { "Give the key that " (server.display_name) " handed out to you. Your agents can then use the server as "
            "you; no agent sees the key, and it is sent nowhere else." }
        @if let Some(problem) = problem { (parts::notice(Tone::Bad, problem)) }
        (parts::facts(rows))
        (parts::form(&format!("/connections/keys/{}", server.name), &session.csrf, html! {
            (parts::field(&field))
            (parts::actions(html! {
                (parts::link_button(Look::Plain, "Not now", "/connections"))
                (parts::button(Look::Primary, label))
            }))
        }))
    };
    Page::new(format!("{label} {}", server.display_name))
        .viewer(viewer(session))
        .narrow()
        .status(status)
        .body(parts::card("", body))
        .into_response()
}

async fn set(
    State(app): State<Arc<App>>,
    Path(server): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    form: Result<Form<KeyForm>, axum::extract::rejection::FormRejection>,
) -> Response {
    let session = match app.identity.require_fresh_session(&headers, &uri).await {
        Ok(session) => session,
        Err(redirect) => return redirect,
    };
    let Ok(Form(form)) = form else {
        return incomplete(&session);
    };
    let value = Secret::from_text(form.key);
    if let Err(page) = app.identity.check_form(&session, &headers, &form.csrf) {
        return page;
    }
    let server = match server_of(&app, &session, &server) {
        Ok(server) => server,
        Err(page) => return page,
    };
    let kept = app
        .keys
        .set(&session.user, &session.caller.team, &server, value)
        .await;
    match kept {
        Ok(_) => Redirect::to("/connections").into_response(),
        Err(KeyRefused::Store(error)) => crate::http::store_failed(&error),
        Err(error @ (KeyRefused::Empty | KeyRefused::TooLong | KeyRefused::NotTaken(_))) => {
            let mut said = error.to_string();
            if let Some(first) = said.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            page(&app, &session, &server, Some(&format!("{said}."))).await
        }
    }
}

async fn remove(
    State(app): State<Arc<App>>,
    Path(server): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    form: Result<Form<RemoveForm>, axum::extract::rejection::FormRejection>,
) -> Response {
    let session = match app.identity.require_session(&headers, &uri).await {
        Ok(session) => session,
        Err(redirect) => return redirect,
    };
    let Ok(Form(form)) = form else {
        return incomplete(&session);
    };
    if let Err(page) = app.identity.check_form(&session, &headers, &form.csrf) {
        return page;
    }
    let Ok(server) = server.parse() else {
        return incomplete(&session);
    };
    let (user, team) = (&session.user, &session.caller.team);
    match app.keys.delete(user, team, &server).await {
        Ok(_) => Redirect::to("/connections").into_response(),
        Err(error) => crate::http::store_failed(&error),
    }
}

fn incomplete(session: &BrowserSession) -> Response {
    refuse(
        session,
        StatusCode::BAD_REQUEST,
        "That form is not complete",
        "Go back and try again.",
    )
}

/// A key that its server takes no more: it can only be destroyed.
pub(super) fn unneeded(session: &BrowserSession, key: &UserKey) -> Markup {
    let remove = format!("/connections/keys/{}/delete", key.server);
    parts::state_card(
        key.server.as_str(),
        Tone::Info,
        "Not used",
        html! {
            p { "This server takes no key of yours any more." }
            (parts::facts(vec![("Key given", parts::time(key.updated_at))]))
            (parts::actions(parts::form(&remove, &session.csrf, parts::button(Look::Danger, "Disconnect"))))
        },
    )
}

/// The card of one server on the page of connections.
pub(super) fn card(session: &BrowserSession, server: &Server, found: Option<&Found>) -> Markup {
    let path = format!("/connections/keys/{}", server.name);
    let moved = found.is_some_and(|f| !f.key.is_for(server));
    let (tone, word) = match (found, moved) {
        (None, _) => (Tone::Info, "Not connected"),
        (Some(_), true) => (Tone::Warning, "Reconnect needed"),
        (Some(_), false) => (Tone::Good, "Connected"),
    };
    let mut rows = Vec::new();
    if let Some(found) = found {
        rows.push(("Key given", parts::time(found.key.updated_at)));
        rows.push(("Sent to", parts::code(&found.key.origin)));
    }
    let (look, label) = match found {
        Some(_) if !moved => (Look::Plain, "Reconnect"),
        Some(_) => (Look::Primary, "Reconnect"),
        None => (Look::Primary, "Connect"),
    };
    parts::state_card(
        &server.display_name,
        tone,
        word,
        html! {
            @if moved {
                p { "An administrator changed the server's address; your key is not sent there until you give it again." }
            } @else if found.is_none() {
                p { "This server takes a key of your own." }
            }
            (parts::facts(rows))
            (parts::actions(html! {
                (parts::link_button(look, label, &path))
                @if found.is_some() {
                    (parts::form(&format!("{path}/delete"), &session.csrf, parts::button(Look::Danger, "Disconnect")))
                }
            }))
        },
    )
}
