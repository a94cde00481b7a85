//! The redirect URIs of consents, and the page that says what came of one.
//!
//! The redirect's query holds code and state: they are of no use any more, but
//! belong into no history and no screenshot. So the browser is sent on to
//! `/connected`, which knows from the session what to show.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{OriginalUri, Path, RawQuery, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use countersign_core::names::ProviderName;
use countersign_core::ports::{Expect, Kind, RecordKey, StoreError, load, put_until};
use countersign_core::scope::ScopeSet;
use countersign_identity::BrowserSession;
use countersign_oauth::callback::{Callback, Outcome};
use countersign_oauth::consent::ReturnTo;
use countersign_pages::Page;
use countersign_pages::parts::{self, Look, Tone};
use http::{HeaderMap, StatusCode};
use maud::html;
use serde::{Deserialize, Serialize};
use url::Url;

use super::connect::refuse;
use crate::http::connections::viewer;
use crate::wiring::App;

const CONNECTIONS: &str = "/connections";
/// How long what came of a consent can be looked at again.
const SHOWN: Duration = Duration::from_secs(15 * 60);

/// The redirect URIs, and where they lead.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/oauth/callback", get(callback_bare))
        .route("/oauth/callback/{provider}", get(callback_of))
        .route("/connected", get(show))
}

/// What came of a consent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ending {
    Connected {
        provider: String,
        account: Option<String>,
        missing: ScopeSet,
        /// Calls do not ask for what is missing again.
        is_final: bool,
    },
    Refused {
        advice: String,
        /// A path of ours.
        again: String,
    },
    Failed(String),
}

/// Where what came of a session's last consent is kept: any host may be asked
/// to show it.
fn ending_key(session: &str) -> RecordKey {
    RecordKey::new(Kind::Ending, session)
}

async fn keep(app: &App, session: &str, ending: &Ending) -> Result<(), StoreError> {
    let until = app.world.clock.now().plus(SHOWN);
    let write = put_until(ending_key(session), Expect::Anything, ending, Some(until))?;
    app.world.records.write(vec![write]).await.map(drop)
}

async fn callback_bare(
    state: State<Arc<App>>,
    query: RawQuery,
    uri: OriginalUri,
    headers: HeaderMap,
) -> Response {
    callback(state.0, None, query.0, &uri.0, &headers).await
}

async fn callback_of(
    state: State<Arc<App>>,
    Path(provider): Path<String>,
    query: RawQuery,
    uri: OriginalUri,
    headers: HeaderMap,
) -> Response {
    let Ok(provider) = ProviderName::parse(&provider) else {
        let text = "There is nothing at this address.";
        return countersign_pages::message(StatusCode::NOT_FOUND, "Not found", text);
    };
    callback(state.0, Some(provider), query.0, &uri.0, &headers).await
}

async fn callback(
    app: Arc<App>,
    path_provider: Option<ProviderName>,
    query: Option<String>,
    uri: &http::Uri,
    headers: &HeaderMap,
) -> Response {
    let session = match app.identity.require_session(headers, uri).await {
        Ok(session) => session,
        Err(redirect) => return redirect,
    };
    let callback = Callback {
        path_provider,
        query: query.as_deref().unwrap_or_default(),
        user: session.user.clone(),
        session: session.id.clone(),
    };
    let lookup = |name: &ProviderName| {
        let party = app.registry.party(name)?;
        Some(crate::faults::witnessed(&app, party, &session.user))
    };
    let result = match app.oauth.finish(callback, lookup).await {
        Ok(Outcome::Connected {
            return_to: ReturnTo::Connections,
            missing,
            connection,
            ..
        }) if missing.is_empty() && connection.withheld.is_empty() => {
            return Redirect::to(CONNECTIONS).into_response();
        }
        Ok(Outcome::Connected {
            connection,
            missing,
            ..
        }) => Ending::Connected {
            is_final: !connection.withheld.is_empty(),
            provider: app
                .registry
                .current()
                .provider(&connection.provider)
                .map_or_else(
                    || connection.provider.to_string(),
                    |p| p.display_name.clone(),
                ),
            account: connection.account.map(|account| account.label),
            // Told whatever the preset says: calls are refused for it.
            missing: missing.union(&connection.withheld),
        },
        Ok(Outcome::Refused {
            advice,
            provider,
            again,
            ..
        }) => {
            let again = match again {
                // What an agent asked for is begun again by a link like the first.
                Some(request) => match app.oauth.make_link(*request).await {
                    Ok(link) => path_of(&link),
                    Err(error) => return super::store_failed(&error),
                },
                None => provider.map_or_else(|| CONNECTIONS.into(), |p| format!("/connect/{p}")),
            };
            Ending::Refused { advice, again }
        }
        Err(error) => {
            tracing::warn!(%error, "a consent did not finish");
            Ending::Failed(error.to_string())
        }
    };
    if let Err(error) = keep(&app, &session.id, &result).await {
        return super::store_failed(&error);
    }
    Redirect::to("/connected").into_response()
}

/// The part of an address of ours behind the origin.
fn path_of(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
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
    let kept = load::<Ending>(&*app.world.records, &ending_key(&session.id)).await;
    let ending = match kept {
        Ok(kept) => kept.map(|(ending, _)| ending),
        Err(error) => return super::store_failed(&error),
    };
    match ending {
        Some(Ending::Connected {
            provider,
            account,
            missing,
            is_final,
        }) => connected(&session, &provider, account.as_deref(), &missing, is_final),
        Some(Ending::Refused { advice, again }) => refused(&session, &advice, &again),
        Some(Ending::Failed(why)) => {
            refuse(&session, StatusCode::BAD_REQUEST, "Not connected", &why)
        }
        None => Redirect::to(CONNECTIONS).into_response(),
    }
}

fn refused(session: &BrowserSession, advice: &str, again: &str) -> Response {
    let body = html! {
        (parts::notice(Tone::Warning, advice))
        p { "Nothing was stored." }
        (parts::actions(html! {
            (parts::link_button(Look::Plain, "Connections", CONNECTIONS))
            (parts::link_button(Look::Primary, "Try again", again))
        }))
    };
    Page::new("Not connected")
        .viewer(viewer(session))
        .narrow()
        .status(StatusCode::BAD_REQUEST)
        .body(parts::card("", body))
        .into_response()
}

fn connected(
    session: &BrowserSession,
    provider: &str,
    account: Option<&str>,
    missing: &ScopeSet,
    is_final: bool,
) -> Response {
    let body = html! {
        @match account {
            Some(account) => (parts::notice(Tone::Good, &format!("Your {provider} account {account} is connected."))),
            None => (parts::notice(Tone::Good, &format!("Your {provider} account is connected."))),
        }
        @if !missing.is_empty() {
            p {
                (provider) " did not grant these permissions. "
                @if is_final {
                    "Calls that need them are refused from now on. To allow them after all, press Reconnect on the Connections page."
                } @else {
                    "Calls that need them will ask once more."
                }
            }
            (parts::scopes(missing.iter().map(|s| (s.as_str(), None))))
        }
        p { "You can close this page and go back to your agent. A call that is waiting goes on by itself." }
        (parts::actions(html! { (parts::link_button(Look::Plain, "All connections", CONNECTIONS)) }))
    };
    Page::new("Connected")
        .viewer(viewer(session))
        .narrow()
        .body(parts::card("", body))
        .into_response()
}
