//! The page of consent: what is about to be connected. What came of it is
//! [`super::connected`].

use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, OriginalUri, Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use countersign_core::caller::Caller;
use countersign_core::connection::ConnectionKey;
use countersign_core::names::{ProviderName, TeamName};
use countersign_core::provider::GrantType;
use countersign_core::scope::ScopeSet;
use countersign_core::template::{self, Values};
use countersign_identity::BrowserSession;
use countersign_oauth::Party;
use countersign_oauth::consent::{AskedBy, Begin, ReturnTo};
use countersign_oauth::device;
use countersign_oauth::links::{Link, LinkError};
use countersign_pages::Page;
use countersign_pages::parts::{self, Look};
use http::{HeaderMap, StatusCode};
use maud::html;
use serde::Deserialize;
use url::Url;

use crate::http::connections::{indicator_of, needs_of, server_named, viewer};
use crate::wiring::App;

/// `/connect/{provider}`.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/connect/{provider}", get(show).post(start))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ConnectQuery {
    #[serde(default)]
    link: Option<String>,
    #[serde(default)]
    team: Option<String>,
    #[serde(default)]
    resource: Option<String>,
}

/// What the page's button sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectForm {
    pub(super) csrf: String,
    #[serde(default)]
    pub(super) link: Option<String>,
    #[serde(default)]
    team: Option<String>,
    #[serde(default)]
    resource: Option<String>,
}

/// What is about to be connected.
pub(super) struct Wish {
    team: TeamName,
    resource: Option<Url>,
    scopes: ScopeSet,
    asked_by: AskedBy,
}

impl From<Link> for Wish {
    fn from(link: Link) -> Self {
        Self {
            team: link.team,
            resource: link.resource,
            scopes: link.scopes,
            asked_by: AskedBy {
                server: link.server,
                client_name: link.client_name,
            },
        }
    }
}

async fn show(
    State(app): State<Arc<App>>,
    Path(provider): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let session = match app.identity.require_session(&headers, &uri).await {
        Ok(session) => session,
        Err(redirect) => return redirect,
    };
    let Ok(query) = axum::extract::Query::<ConnectQuery>::try_from_uri(&uri) else {
        return refuse(
            &session,
            StatusCode::BAD_REQUEST,
            "This link is not complete",
            "Open it again from where you got it.",
        );
    };
    let party = match party(&app, &provider, &session) {
        Ok(party) => party,
        Err(page) => return page,
    };
    let wish = match query.link.as_deref() {
        Some(id) => match app.oauth.peek_link(id, &session.user).await {
            Ok(link) if link.provider == party.provider.name => Wish::from(link),
            Ok(_) => return link_refused(&session, &LinkError::Unknown),
            Err(error) => return link_refused(&session, &error),
        },
        None => match own_wish(
            &app,
            &session,
            &party,
            query.team.as_deref(),
            query.resource.as_deref(),
        )
        .await
        {
            Ok(wish) => wish,
            Err(page) => return page,
        },
    };
    page(&app, &session, &party, &wish, query.link.as_deref()).await
}

/// Shows agent, server, team and scopes, with one button.
async fn page(
    app: &App,
    session: &BrowserSession,
    party: &Party,
    wish: &Wish,
    link: Option<&str>,
) -> Response {
    let name = &party.provider.display_name;
    let key = ConnectionKey {
        user: session.user.clone(),
        team: wish.team.clone(),
        provider: party.provider.name.clone(),
        resource: wish.resource.clone(),
    };
    let existing = match app.oauth.load(&key).await {
        Ok(held) => held.map(|h| h.connection),
        Err(error) => return crate::http::store_failed(&error),
    };
    let mut rows = vec![("Signed in as", html! { (session.user.as_str()) })];
    if let Some(agent) = &wish.asked_by.client_name {
        rows.push(("Asked for by", html! { (agent) }));
    }
    let server = wish.asked_by.server.as_ref();
    if let Some(server) = server.map(|name| server_title(app, name.as_str())) {
        rows.push(("For", html! { (server) }));
    }
    if wish.team != TeamName::default_team() {
        rows.push(("Team", html! { (wish.team.as_str()) }));
    }
    if let Some(account) = existing.as_ref().and_then(|c| c.account.as_ref()) {
        rows.push(("Connected as", html! { (account.label) }));
    }
    rows.push(("Permissions", permissions(party, &wish.scopes)));
    let label = if existing.is_some() {
        "Reconnect"
    } else {
        "Connect"
    };
    let of = html! {
        @if let Some(link) = link { (parts::hidden("link", link)) }
        @else {
            (parts::hidden("team", wish.team.as_str()))
            @if let Some(resource) = &wish.resource { (parts::hidden("resource", resource.as_str())) }
        }
    };
    let browser = party
        .provider
        .grant_types
        .contains(&GrantType::AuthorizationCode);
    let by_redirect = format!("/connect/{}", party.provider.name);
    let by_code = format!("{by_redirect}/device");
    let body = html! {
        p { "Let your agents use your " (name) " account, through Countersign. "
            "You sign in at " (name) " itself: no agent sees your password or the key that " (name) " hands out." }
        (parts::facts(rows))
        (parts::form(if browser { &by_redirect } else { &by_code }, &session.csrf, html! {
            (of)
            (parts::actions(html! {
                (parts::link_button(Look::Plain, "Not now", "/connections"))
                (parts::button(Look::Primary, label))
            }))
        }))
        @if browser && device::is_on(party) {
            (parts::form(&by_code, &session.csrf, html! {
                (of)
                p { "If you are signed in to " (name) " on another device only, a code that you type there does it, too." }
                (parts::actions(parts::button(Look::Plain, "Use a code")))
            }))
        }
    };
    let mut page = Page::new(format!("{label} {name}"))
        .viewer(viewer(session))
        .narrow()
        .body(parts::card("", body));
    for target in targets(party) {
        page = page.form_target(target);
    }
    page.into_response()
}

/// The server's title; its name, if it is gone by now.
fn server_title(app: &App, name: &str) -> String {
    let snapshot = app.registry.current();
    server_named(&snapshot, name).map_or_else(|| name.to_owned(), |s| s.display_name.clone())
}

/// Where the form may lead: the provider's authorization endpoint, and whatever
/// https address that passes the browser on to.
fn targets(party: &Party) -> Vec<String> {
    let (provider, description) = (&party.provider, party.preset.description());
    let endpoint = provider.authorization_endpoint.clone().or_else(|| {
        let values = Values::resolve(description, &provider.settings, &[]).ok()?;
        let template = &description.authorization.as_ref()?.endpoint;
        template::endpoint(template, values.variables()).ok()
    });
    let origin = endpoint.map(|e| e.origin().ascii_serialization());
    origin.into_iter().chain(["https:".to_owned()]).collect()
}

fn permissions(party: &Party, scopes: &ScopeSet) -> maud::Markup {
    if scopes.is_empty() {
        return html! { "what the provider grants by default" };
    }
    let known = &party.preset.description().scopes;
    let meaning = |scope: &str| {
        let of_preset = known.iter().find(|k| k.name == scope);
        let title = of_preset.map(|k| k.title.as_str());
        title
            .filter(|t| !t.is_empty())
            .or_else(|| common_meaning(scope))
    };
    parts::scopes(scopes.iter().map(|s| (s.as_str(), meaning(s.as_str()))))
}

/// Scopes that mean the same everywhere (OpenID Connect Core §5.4 and §11).
fn common_meaning(scope: &str) -> Option<&'static str> {
    Some(match scope {
        "openid" => "Know which account it is",
        "profile" => "See your name and picture",
        "email" => "See your e-mail address",
        "offline_access" => "Stay connected while you are away",
        _ => return None,
    })
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
    let party = match party(&app, &provider, &session) {
        Ok(party) => party,
        Err(page) => return page,
    };
    // A client that the provider has forgotten would only be refused there.
    let known = app.discoveries.assure(&party.provider).await;
    let party = Party {
        provider: known,
        ..party
    };
    let wish = match wish_of(&app, &session, &party, &form).await {
        Ok(wish) => wish,
        Err(page) => return page,
    };
    let begin = begin_of(&app, &party, &session, wish, form.link.is_some());
    match app.oauth.begin(begin, &party).await {
        Ok(url) => Redirect::to(url.as_str()).into_response(),
        Err(error) => {
            tracing::warn!(provider = %provider, %error, "a consent could not begin");
            refuse(
                &session,
                StatusCode::BAD_GATEWAY,
                "This account cannot be connected now",
                &error.to_string(),
            )
        }
    }
}

/// What the form is for; a link is used up.
pub(super) async fn wish_of(
    app: &App,
    session: &BrowserSession,
    party: &Party,
    form: &ConnectForm,
) -> Result<Wish, Response> {
    let Some(id) = form.link.as_deref() else {
        let (team, resource) = (form.team.as_deref(), form.resource.as_deref());
        return own_wish(app, session, party, team, resource).await;
    };
    match app.oauth.take_link(id, &session.user).await {
        Ok(link) if link.provider == party.provider.name => Ok(Wish::from(link)),
        Ok(_) => Err(link_refused(session, &LinkError::Unknown)),
        Err(error) => Err(link_refused(session, &error)),
    }
}

/// What a consent in this browser begins with.
pub(super) fn begin_of(
    app: &App,
    party: &Party,
    session: &BrowserSession,
    wish: Wish,
    from_link: bool,
) -> Begin {
    Begin {
        indicator: indicator_of(&app.registry, &party.provider, wish.resource.as_ref()),
        user: session.user.clone(),
        team: wish.team,
        session: session.id.clone(),
        resource: wish.resource,
        scopes: wish.scopes,
        return_to: if from_link {
            ReturnTo::Agent
        } else {
            ReturnTo::Connections
        },
        bare_callback: false,
        asked_by: wish.asked_by,
    }
}

/// What the user wants who comes from the connections page.
async fn own_wish(
    app: &App,
    session: &BrowserSession,
    party: &Party,
    team: Option<&str>,
    resource: Option<&str>,
) -> Result<Wish, Response> {
    let bad = |text: &str| {
        refuse(
            session,
            StatusCode::BAD_REQUEST,
            "This link is not complete",
            text,
        )
    };
    let team = match team {
        Some(team) => TeamName::parse(team).map_err(|e| bad(&e.to_string()))?,
        None => session.caller.team.clone(),
    };
    // A first connection for another team (that he may not even be in) is made
    // by its agents' links; who leaves a team loses what he had there.
    let is_known = team == session.caller.team || {
        let his = app.oauth.list(&session.user).await;
        let his = his.map_err(|error| crate::http::store_failed(&error))?;
        let provider = &party.provider.name;
        his.iter()
            .any(|c| c.team == team && c.provider == *provider)
    };
    if !is_known {
        return Err(refuse(
            session,
            StatusCode::FORBIDDEN,
            "Not your team",
            "You act in another team here. Open the Connections page and start from there.",
        ));
    }
    let resource = match resource.filter(|r| !r.is_empty()) {
        Some(text) => Some(Url::parse(text).map_err(|_| bad("The resource is not an address."))?),
        None => None,
    };
    let caller = Caller {
        team: team.clone(),
        ..Caller::clone(&session.caller)
    };
    let needs = needs_of(&app.registry.current(), &caller);
    let need = needs
        .into_iter()
        .find(|n| {
            n.provider.name == party.provider.name && (resource.is_none() || n.resource == resource)
        })
        .ok_or_else(|| {
            refuse(
                session,
                StatusCode::NOT_FOUND,
                "Nothing to connect",
                "No server that you may use needs this account.",
            )
        })?;
    Ok(Wish {
        team,
        resource: need.resource,
        scopes: need.scopes,
        asked_by: AskedBy::default(),
    })
}

#[expect(
    clippy::result_large_err,
    reason = "the error is the whole answer, made once"
)]
pub(super) fn party(
    app: &Arc<App>,
    provider: &str,
    session: &BrowserSession,
) -> Result<Party, Response> {
    let unknown = || {
        refuse(
            session,
            StatusCode::NOT_FOUND,
            "No such provider",
            "It may have been removed. Your connections are listed on the Connections page.",
        )
    };
    let name = ProviderName::parse(provider).map_err(|_| unknown())?;
    let snapshot = app.registry.current();
    let record = snapshot.provider(&name).ok_or_else(unknown)?;
    if !record.enabled {
        return Err(refuse(
            session,
            StatusCode::FORBIDDEN,
            "This provider is switched off",
            "An administrator has to enable it before accounts can be connected.",
        ));
    }
    let found = app.registry.party(&name);
    let found = found.map(|party| crate::faults::witnessed(app, party, &session.user));
    found.ok_or_else(|| {
        refuse(
            session,
            StatusCode::SERVICE_UNAVAILABLE,
            "This provider cannot be used yet",
            "Its preset is not loaded or not approved. An administrator can see why with `countersign preset list`.",
        )
    })
}

fn link_refused(session: &BrowserSession, error: &LinkError) -> Response {
    let (status, title) = match error {
        LinkError::Unknown => (StatusCode::GONE, "This link has ended"),
        LinkError::OtherUser => return other_user(session),
        LinkError::Store(error) => return crate::http::store_failed(error),
    };
    refuse(session, status, title, &error.to_string())
}

fn other_user(session: &BrowserSession) -> Response {
    let body = html! {
        p { "It was made for another user, and you are signed in as " strong { (session.user) } ". Nothing was done." }
        p { "If that account is yours, too: sign out, sign in with it, and open the link again." }
        (parts::form("/logout", &session.csrf, parts::actions(html! {
            (parts::link_button(Look::Plain, "Connections", "/connections"))
            (parts::button(Look::Primary, "Sign out"))
        })))
    };
    Page::new("This link is not for you")
        .viewer(viewer(session))
        .narrow()
        .status(StatusCode::FORBIDDEN)
        .body(parts::card("", body))
        .into_response()
}

pub(super) fn refuse(
    session: &BrowserSession,
    status: StatusCode,
    title: &str,
    text: &str,
) -> Response {
    let mut text = text.to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if !text.ends_with(['.', '?', '!']) {
        text.push('.');
    }
    let body = html! {
        p { (text) }
        (parts::actions(parts::link_button(Look::Primary, "Go to your connections", "/connections")))
    };
    Page::new(title)
        .viewer(viewer(session))
        .narrow()
        .status(status)
        .body(parts::card("", body))
        .into_response()
}
