//! The page of a user's own connections and agents.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, OriginalUri, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use countersign_core::caller::Caller;
use countersign_core::connection::{Connection, ConnectionKey, ReauthReason, Status};
use countersign_core::names::{ClientId, ProviderName, TeamName};
use countersign_core::provider::Provider;
use countersign_core::scope::{Implications, ScopeSet};
use countersign_core::server::{AuthMode, ConnectionUse, Server, Target};
use countersign_identity::BrowserSession;
use countersign_pages::parts::{self, Look, Tone};
use countersign_pages::{Page, Viewer};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;
use url::Url;

use crate::registry::Snapshot;
use crate::wiring::App;

/// `/connections` and what its buttons do.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(|| async { Redirect::to("/connections") }))
        .route("/connections", get(show))
        .route("/connections/disconnect", post(disconnect))
        .route("/connections/agents/revoke", post(revoke_agent))
}

/// The bar at the top for this session.
pub(crate) fn viewer(session: &BrowserSession) -> Viewer<'_> {
    Viewer {
        name: session.user.as_str(),
        csrf: &session.csrf,
        admin: session.caller.permissions.allow("provider_list", None),
    }
}

/// One connection that servers ask of a user.
pub(crate) struct Need {
    pub(crate) provider: Arc<Provider>,
    pub(crate) resource: Option<Url>,
    pub(crate) servers: Vec<String>,
    pub(crate) scopes: ScopeSet,
}

/// The resource part of the connection that this server uses.
pub(crate) fn resource_of(server: &Server) -> Option<Url> {
    match (server.connection, &server.target) {
        (ConnectionUse::Dedicated, Target::Url(url)) => Some(url.clone()),
        _ => None,
    }
}

/// All connections that the servers open to this user need, by provider.
pub(crate) fn needs_of(snapshot: &Snapshot, caller: &Caller) -> Vec<Need> {
    let mut needs: BTreeMap<(ProviderName, Option<String>), Need> = BTreeMap::new();
    let mut servers: Vec<_> = snapshot.servers.values().map(|s| &s.value).collect();
    servers.sort_by(|a, b| a.name.cmp(&b.name));
    for server in servers {
        let open =
            server.enabled && (server.teams.is_empty() || server.teams.contains(&caller.team));
        if !open || server.auth.mode != AuthMode::UserDelegated {
            continue;
        }
        let Some(provider) = server
            .auth
            .provider
            .as_ref()
            .and_then(|p| snapshot.provider(p))
        else {
            continue;
        };
        let resource = resource_of(server);
        let key = (provider.name.clone(), resource.as_ref().map(Url::to_string));
        let need = needs.entry(key).or_insert_with(|| Need {
            provider: Arc::clone(provider),
            resource,
            servers: Vec::new(),
            scopes: provider.scopes.clone(),
        });
        need.servers.push(server.display_name.clone());
        need.scopes = need.scopes.union(&server.auth.required_scopes);
    }
    needs.into_values().collect()
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
    let mut connections = match app.oauth.list(&session.user).await {
        Ok(connections) => connections,
        Err(error) => return crate::http::store_failed(&error),
    };
    let agents = match app.identity.agents(&session.user).await {
        Ok(agents) => agents,
        Err(error) => return crate::http::store_failed(&error),
    };
    let needs = needs_of(&app.registry.current(), &session.caller);
    let mut cards = Vec::new();
    for need in &needs {
        let at = connections.iter().position(|c| {
            c.provider == need.provider.name
                && c.resource == need.resource
                && c.team == session.caller.team
        });
        let connection = at.map(|at| connections.remove(at));
        cards.push(card(&app, &session, need, connection.as_ref()));
    }
    let rest: Vec<Markup> = connections.iter().map(|c| unneeded(&session, c)).collect();
    let body = html! {
        h1 { "Connections" }
        p.muted { "The accounts that your agents may use for you. Nobody else can see or use them." }
        @if cards.is_empty() && rest.is_empty() {
            (parts::empty(
                "Nothing to connect yet",
                "When an administrator attaches a server that needs one of your accounts, it appears here.",
                None,
            ))
        }
        @for card in &cards { (card) }
        @for card in &rest { (card) }
        h2 { "Agents" }
        @if agents.is_empty() {
            (parts::empty(
                "No agent is signed in",
                &format!("Point an MCP client at {}mcp/SERVER; it appears here once you allow it.", app.public_url),
                None,
            ))
        } @else {
            (parts::table(&["Agent", "Since", ""], agents.iter().map(|agent| vec![
                html! { (agent.name) },
                html! { (agent.since.to_string()) },
                parts::form("/connections/agents/revoke", &session.csrf, html! {
                    (parts::hidden("client", agent.client.as_str()))
                    (parts::button(Look::Danger, "Sign out"))
                }),
            ]).collect()))
        }
    };
    Page::new("Connections")
        .viewer(viewer(&session))
        .body(body)
        .into_response()
}

fn card(
    app: &App,
    session: &BrowserSession,
    need: &Need,
    connection: Option<&Connection>,
) -> Markup {
    let mut implications = Implications::default();
    if let Some(party) = crate::party::of(&app.registry, &app.catalog, &need.provider.name) {
        for scope in &party.preset.description().scopes {
            implications.add(&scope.name, scope.prefix, &scope.implies);
        }
    }
    let now = app.world.clock.now();
    let (status, reason) = connection.map_or((Status::NotConnected, None), |c| {
        c.status(now, &need.scopes, &implications)
    });
    let (tone, word) = badge(status);
    let mut rows = vec![("Used by", html! { (need.servers.join(", ")) })];
    if let Some(connection) = connection {
        rows.extend(facts(connection));
    } else {
        rows.push(("Permissions", html! { (need.scopes.join(", ")) }));
    }
    let mut href = format!(
        "/connect/{}?team={}",
        need.provider.name, session.caller.team
    );
    if let Some(resource) = &need.resource {
        href.push_str("&resource=");
        href.extend(url::form_urlencoded::byte_serialize(
            resource.as_str().as_bytes(),
        ));
    }
    let label = if connection.is_some() {
        "Reconnect"
    } else {
        "Connect"
    };
    let look = if status == Status::Connected {
        Look::Plain
    } else {
        Look::Primary
    };
    parts::card(
        &need.provider.display_name,
        html! {
            p { (parts::badge(tone, word)) }
            @if let Some(text) = advice(status, reason, &need.provider.display_name) { (parts::notice(tone, &text)) }
            (parts::facts(rows))
            div.actions {
                (parts::link_button(look, label, &href))
                @if let Some(connection) = connection { (disconnect_form(session, connection)) }
            }
        },
    )
}

/// A connection that no server needs any more: it can only be ended.
fn unneeded(session: &BrowserSession, connection: &Connection) -> Markup {
    let mut rows = vec![("Used by", html! { "no server any more" })];
    rows.extend(facts(connection));
    parts::card(
        connection.provider.as_str(),
        html! { (parts::facts(rows)) div.actions { (disconnect_form(session, connection)) } },
    )
}

fn facts(connection: &Connection) -> Vec<(&'static str, Markup)> {
    let mut rows = Vec::new();
    if let Some(account) = &connection.account {
        rows.push(("Account", html! { (account.label) }));
    }
    if connection.team != TeamName::default_team() {
        rows.push(("Team", html! { (connection.team.as_str()) }));
    }
    let scopes = connection.scopes();
    rows.push(("Permissions", html! { @if scopes.is_empty() { "as the provider grants by default" } @else { (scopes.join(", ")) } }));
    let first = connection.credentials.first();
    let renewal = match first {
        Some(c) if c.refresh_token_present => "by itself".to_owned(),
        Some(c) => c.expires_at.map_or("not needed".to_owned(), |t| {
            format!("not possible; ends {t}")
        }),
        None => "not possible".to_owned(),
    };
    rows.push(("Renewal", html! { (renewal) }));
    if let Some(ends) = first.and_then(|c| c.refresh_token_expires_at) {
        rows.push((
            "Has to be renewed by you before",
            html! { (ends.to_string()) },
        ));
    }
    if let Some(used) = connection.last_used_at {
        rows.push(("Last used", html! { (used.to_string()) }));
    }
    rows
}

fn disconnect_form(session: &BrowserSession, connection: &Connection) -> Markup {
    parts::form(
        "/connections/disconnect",
        &session.csrf,
        html! {
            (parts::hidden("provider", connection.provider.as_str()))
            (parts::hidden("team", connection.team.as_str()))
            @if let Some(resource) = &connection.resource { (parts::hidden("resource", resource.as_str())) }
            (parts::button(Look::Danger, "Disconnect"))
        },
    )
}

fn badge(status: Status) -> (Tone, &'static str) {
    match status {
        Status::NotConnected => (Tone::Info, "Not connected"),
        Status::Connected => (Tone::Good, "Connected"),
        Status::NeedsScopes => (Tone::Warning, "Needs more permissions"),
        Status::NeedsReauth => (Tone::Warning, "Needs to be connected again"),
        Status::Suspended => (Tone::Warning, "Suspended"),
    }
}

fn advice(status: Status, reason: Option<ReauthReason>, provider: &str) -> Option<String> {
    Some(match (status, reason?) {
        (Status::Suspended, _) => format!("Your password was reset. Connect again with the same {provider} account to go on."),
        (_, ReauthReason::Revoked) => format!("{provider} says that access was withdrawn."),
        (_, ReauthReason::Expired) => "The access has ended and cannot be renewed.".to_owned(),
        (_, ReauthReason::Idle) => format!("It went unused for longer than {provider} allows."),
        (_, ReauthReason::ClientRejected) => format!("{provider} does not accept Countersign's client; an administrator has to look at it."),
        (_, ReauthReason::ProviderError) => format!("{provider} refuses to renew the access."),
        (_, ReauthReason::ProviderChanged) => "An administrator changed the provider's or server's address; nothing is sent there until you connect again.".to_owned(),
        (_, ReauthReason::UpstreamUnauthorized) => "The server no longer accepts the token.".to_owned(),
        (_, ReauthReason::Suspended | ReauthReason::NoBrowserIdentity) => return None,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DisconnectForm {
    csrf: String,
    provider: String,
    team: String,
    #[serde(default)]
    resource: Option<String>,
}

async fn disconnect(
    State(app): State<Arc<App>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    form: Result<Form<DisconnectForm>, axum::extract::rejection::FormRejection>,
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
    let (Ok(provider), Ok(team)) = (
        ProviderName::parse(&form.provider),
        TeamName::parse(&form.team),
    ) else {
        return incomplete();
    };
    let resource = match form.resource.as_deref().map(Url::parse).transpose() {
        Ok(resource) => resource,
        Err(_) => return incomplete(),
    };
    let key = ConnectionKey {
        user: session.user.clone(),
        team,
        provider,
        resource,
    };
    let party = crate::party::of(&app.registry, &app.catalog, &key.provider);
    match app.oauth.disconnect(&key, party.as_ref()).await {
        Ok(_) => Redirect::to("/connections").into_response(),
        Err(error) => crate::http::store_failed(&error),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentForm {
    csrf: String,
    client: String,
}

async fn revoke_agent(
    State(app): State<Arc<App>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    form: Result<Form<AgentForm>, axum::extract::rejection::FormRejection>,
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
    let Ok(client) = ClientId::parse(&form.client) else {
        return incomplete();
    };
    match app.identity.revoke_agent(&session.caller, &client).await {
        Ok(_) => Redirect::to("/connections").into_response(),
        Err(error) => crate::http::failed(&error.to_string()),
    }
}

fn incomplete() -> Response {
    countersign_pages::message(
        StatusCode::BAD_REQUEST,
        "That form is not complete",
        "Go back and try again.",
    )
}
