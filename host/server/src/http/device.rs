//! Connecting an account by a code that is typed at the provider (RFC 8628):
//! the page that shows the code, and the question whether the account that was
//! found is the user's.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, OriginalUri, Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use countersign_core::names::ProviderName;
use countersign_identity::BrowserSession;
use countersign_oauth::device::{Shown, Standing};
use countersign_pages::Page;
use countersign_pages::parts::{self, Look};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;
use url::Url;

use crate::http::connect::{ConnectForm, begin_of, party, refuse, wish_of};
use crate::http::connections::{scope_chips, viewer};
use crate::wiring::App;

/// How often the page looks again, in seconds.
const AGAIN: &str = "5";

/// `/connect/{provider}/device`.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/connect/{provider}/device", post(start))
        .route("/connect/{provider}/device/{id}", get(show).post(decide))
}

async fn start(
    State(app): State<Arc<App>>,
    Path(provider): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    form: Result<Form<ConnectForm>, axum::extract::rejection::FormRejection>,
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
    let party = match party(&app, &provider, &session) {
        Ok(party) => party,
        Err(page) => return page,
    };
    let wish = match wish_of(&app, &session, &party, &form).await {
        Ok(wish) => wish,
        Err(page) => return page,
    };
    let begin = begin_of(&app, &party, &session, wish, form.link.is_some());
    match app.oauth.begin_device(begin, &party).await {
        Ok((id, _)) => {
            Redirect::to(&format!("/connect/{}/device/{id}", party.provider.name)).into_response()
        }
        Err(error) => {
            tracing::warn!(provider = %provider, %error, "a device authorization could not begin");
            refuse(
                &session,
                StatusCode::BAD_GATEWAY,
                "This account cannot be connected now",
                &error.to_string(),
            )
        }
    }
}

async fn show(
    State(app): State<Arc<App>>,
    Path((provider, id)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let session = match app.identity.require_session(&headers, &uri).await {
        Ok(session) => session,
        Err(redirect) => return redirect,
    };
    let title = title_of(&app, &provider);
    let look = |name: &ProviderName| app.registry.party(name);
    let standing = app
        .oauth
        .look_device(&id, &session.user, &session.id, look)
        .await;
    match standing {
        Ok(Standing::Waiting(shown)) => waiting(&session, &title, &shown),
        Ok(Standing::Found { account, scopes }) => {
            let mut rows = vec![("Signed in as", html! { (session.user.as_str()) })];
            match &account {
                Some(account) => {
                    rows.push(("Account", html! { strong { (account.label) } }));
                    if account.label != account.id {
                        rows.push(("Its number there", parts::code(&account.id)));
                    }
                }
                None => rows.push(("Account", html! { (title) " does not say which one it is" })),
            }
            rows.push(("Permissions", scope_chips(&scopes)));
            let body = html! {
                p { "Somebody typed the code at " (title) " and allowed the access. "
                    "Connect it only if the account is yours and it was you who did that." }
                (parts::facts(rows))
                (parts::form(uri.path(), &session.csrf, parts::actions(html! {
                    (parts::button_named(Look::Danger, "Not mine", "decision", "no"))
                    (parts::button_named(Look::Primary, "Connect", "decision", "yes"))
                })))
            };
            page(&session, &format!("Is this your {title} account?"), body)
        }
        Ok(Standing::Refused { advice, .. }) => {
            refuse(&session, StatusCode::GONE, "Not connected", &advice)
        }
        Err(error) => crate::http::failed(&error.to_string()),
    }
}

/// Shows the code, and looks again by itself.
fn waiting(session: &BrowserSession, title: &str, shown: &Shown) -> Response {
    let to = shown
        .verification_uri_complete
        .as_ref()
        .unwrap_or(&shown.verification_uri);
    let body = html! {
        p { "Open " (outside(to, shown.verification_uri.as_str())) " in any browser, sign in to " (title)
            ", and type this code:" }
        p.code { (parts::code(&shown.user_code)) }
        p.hint { "Type it only if you began this yourself just now. This page goes on by itself when you are done; "
            "the code is good until " (parts::time(shown.expires_at)) "." }
        (parts::actions(parts::link_button(Look::Plain, "Not now", "/connections")))
    };
    let mut response = page(session, &format!("Connect {title}"), body);
    response.headers_mut().insert(
        HeaderName::from_static("refresh"),
        HeaderValue::from_static(AGAIN),
    );
    response
}

/// A link to the provider: its own address, which is http or https.
fn outside(to: &Url, text: &str) -> Markup {
    html! { a href=(to.as_str()) target="_blank" rel="noreferrer noopener" { (text) } }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    csrf: String,
    decision: String,
}

async fn decide(
    State(app): State<Arc<App>>,
    Path((_, id)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    form: Result<Form<Decision>, axum::extract::rejection::FormRejection>,
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
    let is_mine = match form.decision.as_str() {
        "yes" => true,
        "no" => false,
        _ => return incomplete(&session),
    };
    let party = |name: &ProviderName| app.registry.party(name);
    let decided = app
        .oauth
        .decide_device(&id, &session.user, &session.id, is_mine, party)
        .await;
    match decided {
        Ok(Ok(_)) => Redirect::to("/connections").into_response(),
        Ok(Err(Standing::Refused { advice, .. })) => {
            refuse(&session, StatusCode::OK, "Not connected", &advice)
        }
        Ok(Err(Standing::Waiting(_) | Standing::Found { .. })) => {
            Redirect::to(uri.path()).into_response()
        }
        Err(error) => crate::http::failed(&error.to_string()),
    }
}

fn page(session: &BrowserSession, title: &str, body: Markup) -> Response {
    Page::new(title)
        .viewer(viewer(session))
        .narrow()
        .body(parts::card("", body))
        .into_response()
}

fn title_of(app: &App, provider: &str) -> String {
    let known = app.registry.find_provider(provider);
    known.map_or_else(|_| "the provider".to_owned(), |p| p.display_name.clone())
}

fn incomplete(session: &BrowserSession) -> Response {
    refuse(
        session,
        StatusCode::BAD_REQUEST,
        "That form is not complete",
        "Go back and try again.",
    )
}
