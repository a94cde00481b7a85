//! The page of a user's own connections and agents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, OriginalUri, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use countersign_core::caller::Caller;
use countersign_core::connection::{Connection, ConnectionKey, ReauthReason, Status};
use countersign_core::names::{ClientId, ProviderName, TeamName};
use countersign_core::origins::Standing;
use countersign_core::provider::Provider;
use countersign_core::scope::{Implications, ScopeSet};
use countersign_core::server::{AuthMode, ConnectionUse, Server, Target};
use countersign_core::time::Timestamp;
use countersign_core::upkeep::reconnect_by;
use countersign_identity::BrowserSession;
use countersign_identity::tokens::AgentView;
use countersign_pages::parts::{self, Look, Tone};
use countersign_pages::{Page, Viewer};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;
use url::Url;

use crate::mode_changes::{change_of, is_news};
use crate::registry::{Registry, Snapshot};
use crate::user_keys::takes_keys;
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
        admin: session.caller.permissions.allow("preset_list", None),
    }
}

/// One connection that servers ask of a user.
pub(crate) struct Need {
    pub(crate) provider: Arc<Provider>,
    pub(crate) resource: Option<Url>,
    pub(crate) servers: Vec<String>,
    /// What its consent asks for.
    pub(crate) scopes: ScopeSet,
    /// What calls need of it. Providers may leave others (`openid`) out of
    /// what they say they granted.
    required: ScopeSet,
}

/// The resource part of the connection that this server uses.
pub(crate) fn resource_of(server: &Server) -> Option<Url> {
    match (server.connection, &server.target) {
        (ConnectionUse::Dedicated, Target::Url(url)) => Some(url.clone()),
        _ => None,
    }
}

/// The servers that use this connection of a provider.
pub(crate) fn servers_of<'s>(
    snapshot: &'s Snapshot,
    provider: &ProviderName,
    resource: Option<&Url>,
) -> Vec<&'s Server> {
    let attached = snapshot.attached(provider).into_iter();
    attached
        .map(|server| &**server)
        .filter(|s| s.enabled && s.auth.mode == AuthMode::UserDelegated)
        .filter(|s| resource_of(s).as_ref() == resource)
        .collect()
}

/// What the tokens of a connection are asked for (RFC 8707): as the server says
/// that it is for, or the provider.
pub(crate) fn indicator_of(
    registry: &Registry,
    provider: &Provider,
    resource: Option<&Url>,
) -> Option<Url> {
    let snapshot = registry.current();
    let servers = servers_of(&snapshot, &provider.name, resource);
    match servers.first() {
        Some(server) => server.indicator(provider).cloned(),
        None => provider.resource.as_ref().or(resource).cloned(),
    }
}

/// How a connection stands towards what its servers need.
pub(crate) fn standing(
    registry: &Registry,
    connection: &Connection,
    required: &ScopeSet,
    now: Timestamp,
) -> (Status, Option<ReauthReason>) {
    let snapshot = registry.current();
    let provider = snapshot.provider(&connection.provider);
    let description = provider.and_then(|p| registry.description_of(p));
    let (Some(provider), Some(description)) = (provider, description) else {
        return connection.status(now, required, &Implications::default());
    };
    let mut implications = Implications::default();
    for scope in &description.scopes {
        implications.add(&scope.name, scope.prefix, &scope.implies);
    }
    let servers = servers_of(&snapshot, &provider.name, connection.resource.as_ref());
    let standing = Standing {
        provider,
        description: &description,
        servers: &servers,
        required,
        implications: &implications,
    };
    let asked_again = || {
        let consented = connection.consented_at();
        servers.iter().any(|s| s.auth.asks_again(consented))
    };
    match standing.of(connection, now) {
        (Status::Connected, _) if asked_again() => {
            (Status::NeedsReauth, Some(ReauthReason::ProviderChanged))
        }
        standing => standing,
    }
}

/// The server of this name.
pub(crate) fn server_named<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Server> {
    let mut servers = snapshot.servers.values().map(|s| &*s.value);
    servers.find(|s| s.name.as_str() == name)
}

pub(super) fn is_open(server: &Server, caller: &Caller) -> bool {
    server.enabled && (server.teams.is_empty() || server.teams.contains(&caller.team))
}

/// All connections that the servers open to this user need, by provider.
pub(crate) fn needs_of(snapshot: &Snapshot, caller: &Caller) -> Vec<Need> {
    let mut needs: BTreeMap<(ProviderName, Option<String>), Need> = BTreeMap::new();
    let mut servers: Vec<_> = snapshot.servers.values().map(|s| &s.value).collect();
    servers.sort_by(|a, b| a.name.cmp(&b.name));
    for server in servers {
        if !is_open(server, caller) || server.auth.mode != AuthMode::UserDelegated {
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
            required: ScopeSet::default(),
        });
        need.servers.push(server.display_name.clone());
        need.scopes = need.scopes.union(&server.auth.required_scopes);
        need.required = need.required.union(&server.auth.required_scopes);
    }
    needs.into_values().collect()
}

/// Of the servers open to this user those that are such, by name.
fn open_to<'a>(
    snapshot: &'a Snapshot,
    caller: &Caller,
    such: impl Fn(&Server) -> bool,
) -> Vec<&'a Server> {
    let all = snapshot.servers.values().map(|s| &*s.value);
    let mut open: Vec<&Server> = all.filter(|s| is_open(s, caller) && such(s)).collect();
    open.sort_by(|a, b| a.name.cmp(&b.name));
    open
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
    let snapshot = app.registry.current();
    let needs = needs_of(&snapshot, &session.caller);
    let mut cards = Vec::new();
    for need in &needs {
        let at = connections.iter().position(|c| {
            c.provider == need.provider.name
                && c.resource == need.resource
                && c.team == session.caller.team
        });
        let connection = at.map(|at| connections.remove(at));
        let team = &session.caller.team;
        cards.push(card(&app, &session, need, team, connection.as_ref()));
    }
    // What he connected for another of his teams, its servers use.
    let others: BTreeSet<TeamName> = connections
        .iter()
        .map(|c| c.team.clone())
        .filter(|team| *team != session.caller.team)
        .collect();
    for team in others {
        let caller = Caller {
            team,
            ..Caller::clone(&session.caller)
        };
        for need in &needs_of(&snapshot, &caller) {
            let at = connections.iter().position(|c| {
                c.provider == need.provider.name
                    && c.resource == need.resource
                    && c.team == caller.team
            });
            if let Some(at) = at {
                let connection = connections.remove(at);
                let of_team = card(&app, &session, need, &caller.team, Some(&connection));
                cards.push(of_team);
            }
        }
    }
    let (user, team) = (&session.user, &session.caller.team);
    for server in open_to(&snapshot, &session.caller, takes_keys) {
        match app.keys.find(user, team, &server.name).await {
            Ok(found) => cards.push(super::keys::card(&session, server, found.as_ref())),
            Err(error) => return crate::http::store_failed(&error),
        }
    }
    match app.keys.list(user).await {
        Ok(keys) => cards.extend(
            keys.iter()
                .filter(|key| key.team == *team)
                .filter(|key| snapshot.server(&key.server).is_none_or(|s| !takes_keys(s)))
                .map(|key| super::keys::unneeded(&session, key)),
        ),
        Err(error) => return crate::http::store_failed(&error),
    }
    for server in open_to(&snapshot, &session.caller, |s| change_of(s).is_some()) {
        match is_news(&app.world, &app.oauth, user, team, server).await {
            Ok(true) => cards.push(super::changes::card(server)),
            Ok(false) => {}
            Err(error) => return crate::http::store_failed(&error),
        }
    }
    let rest: Vec<Markup> = connections
        .iter()
        .map(|c| unneeded(&session, &snapshot, c))
        .collect();
    let open = open_servers(&snapshot, &session.caller, &app.public_url);
    let body = html! {
        p.soft { "The accounts that your agents may use for you. Nobody else can see or use them." }
        @if cards.is_empty() && rest.is_empty() {
            (parts::empty(
                "Nothing to connect yet",
                "When an administrator attaches a server that needs one of your accounts, you connect it here.",
                None,
            ))
        }
        @for card in &cards { (card) }
        @for card in &rest { (card) }
        h2 { "Agents" }
        @if agents.is_empty() { (no_agent(&open)) } @else {
            (parts::card("", parts::table(&["Agent", ""], agents.iter().map(|agent| vec![
                html! {
                    strong { @if agent.name.is_empty() { "An agent without a name" } @else { (agent.name) } }
                    p.hint { "May use " (reach(agent, &snapshot, &app.public_url)) ". Last used " (parts::time(agent.last_used_at)) "." }
                },
                parts::form("/connections/agents/revoke", &session.csrf, html! {
                    (parts::hidden("client", agent.client.as_str()))
                    (parts::button(Look::Danger, "Remove"))
                }),
            ]).collect())))
        }
    };
    Page::new("Connections")
        .viewer(viewer(&session))
        .body(body)
        .into_response()
}

/// A server that this user's agents may call.
struct Open {
    title: String,
    endpoint: String,
}

fn open_servers(snapshot: &Snapshot, caller: &Caller, public_url: &Url) -> Vec<Open> {
    let mut open: Vec<Open> = snapshot
        .servers
        .values()
        .map(|s| &s.value)
        .filter(|s| is_open(s, caller))
        .map(|s| Open {
            title: s.display_name.clone(),
            endpoint: format!("{public_url}mcp/{}", s.name),
        })
        .collect();
    open.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    open
}

/// What an agent was let in to, in words.
fn reach(agent: &AgentView, snapshot: &Snapshot, public_url: &Url) -> String {
    let title = |resource: &String| match resource.strip_prefix(public_url.as_str()) {
        Some("mcp") => "all servers".to_owned(),
        Some("api") => "Countersign itself, as you".to_owned(),
        Some(path) => path
            .strip_prefix("mcp/")
            .and_then(|name| server_named(snapshot, name))
            .map_or_else(|| resource.clone(), |s| s.display_name.clone()),
        None => resource.clone(),
    };
    let titles: Vec<String> = agent.resources.iter().map(title).collect();
    titles.join(", ")
}

fn no_agent(open: &[Open]) -> Markup {
    if open.is_empty() {
        return parts::empty(
            "No agent is signed in",
            "Agents appear here once an administrator has attached a server and you let them in.",
            None,
        );
    }
    let rows = open
        .iter()
        .map(|o| (o.title.as_str(), parts::code(&o.endpoint)));
    parts::empty(
        "No agent is signed in",
        "Give one of these addresses to your MCP client. It sends you here to allow it.",
        Some(parts::facts(rows.collect())),
    )
}

fn card(
    app: &App,
    session: &BrowserSession,
    need: &Need,
    team: &TeamName,
    connection: Option<&Connection>,
) -> Markup {
    let mut implications = Implications::default();
    if let Some(party) = app.registry.party(&need.provider.name) {
        for scope in &party.preset.description().scopes {
            implications.add(&scope.name, scope.prefix, &scope.implies);
        }
    }
    let now = app.world.clock.now();
    let (status, reason) = connection.map_or((Status::NotConnected, None), |c| {
        standing(&app.registry, c, &need.required, now)
    });
    let (mut tone, mut word) = badge(status);
    let ending = connection.and_then(|c| reconnect_by(c, app.oauth.care(), now));
    if ending.is_some() && status == Status::Connected {
        (tone, word) = (Tone::Warning, "Ends soon");
    }
    let withheld = connection.map_or_else(ScopeSet::default, |c| {
        let not_granted = implications.missing(&c.scopes(), &c.withheld);
        not_granted
            .iter()
            .filter(|s| need.scopes.contains(s))
            .cloned()
            .collect()
    });
    let mut rows = vec![("Used by", html! { (need.servers.join(", ")) })];
    let missing = connection.map_or_else(ScopeSet::default, |c| {
        implications.missing(&c.scopes(), &need.required)
    });
    match connection {
        Some(connection) => {
            rows.extend(facts(connection));
            if status == Status::NeedsScopes {
                rows.push(("Still needed", scope_chips(&missing)));
            }
            rows.extend(upkeep(connection, status));
        }
        None => rows.push(("Permissions", scope_chips(&need.scopes))),
    }
    let mut href = format!("/connect/{}?team={team}", need.provider.name);
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
    let look = if status == Status::Connected && ending.is_none() {
        Look::Plain
    } else {
        Look::Primary
    };
    parts::state_card(
        &need.provider.display_name,
        tone,
        word,
        html! {
            @if let Some(text) = advice(status, reason, &need.provider.display_name) { p { (text) } }
            @if let (Some(end), Some(connection)) = (ending, connection) {
                (ends_soon(&need.provider.display_name, end, connection))
            }
            @if !withheld.is_empty() {
                p { (need.provider.display_name) " did not grant what was asked for here, so calls that need it are refused. "
                    "Reconnect to allow it after all." }
                (scope_chips(&withheld))
            }
            (parts::facts(rows))
            (parts::actions(html! {
                (parts::link_button(look, label, &href))
                @if let Some(connection) = connection { (disconnect_form(session, connection)) }
            }))
        },
    )
}

/// The access cannot be prolonged without its user.
fn ends_soon(provider: &str, end: Timestamp, connection: &Connection) -> Markup {
    let renews = connection
        .credentials
        .iter()
        .any(|c| c.refresh_token_present);
    html! {
        p {
            (provider) " ends this access at " (parts::time(end)) ". "
            @if renews { "Reconnect before then, and nothing is interrupted." }
            @else { "It cannot be renewed without you: reconnect when it has ended, or before." }
        }
    }
}

/// A connection that no server needs any more: it can only be ended.
fn unneeded(session: &BrowserSession, snapshot: &Snapshot, connection: &Connection) -> Markup {
    let title = snapshot
        .provider(&connection.provider)
        .map_or(connection.provider.as_str(), |p| p.display_name.as_str());
    parts::state_card(
        title,
        Tone::Info,
        "Not used",
        html! {
            p { "No server that you may use needs this account any more." }
            (parts::facts(facts(connection)))
            (parts::actions(disconnect_form(session, connection)))
        },
    )
}

/// What is connected.
fn facts(connection: &Connection) -> Vec<(&'static str, Markup)> {
    let mut rows = Vec::new();
    if let Some(account) = &connection.account {
        rows.push(("Account", html! { (account.label) }));
    }
    if connection.team != TeamName::default_team() {
        rows.push(("Team", html! { (connection.team.as_str()) }));
    }
    rows.push(("Permissions", scope_chips(&connection.scopes())));
    rows
}

pub(super) fn scope_chips(scopes: &ScopeSet) -> Markup {
    if scopes.is_empty() {
        return html! { "what the provider grants by default" };
    }
    parts::scopes(scopes.iter().map(|s| (s.as_str(), None)))
}

/// How long it goes on, and when it was used. An ended connection has no future.
fn upkeep(connection: &Connection, status: Status) -> Vec<(&'static str, Markup)> {
    let mut rows = Vec::new();
    let lasting = matches!(status, Status::Connected | Status::NeedsScopes);
    if let Some(first) = connection.credentials.first().filter(|_| lasting) {
        let end = if first.refresh_token_present {
            first.refresh_token_expires_at
        } else {
            first.expires_at
        };
        let lasts = match end {
            Some(end) => html! { "until " (parts::time(end)) ", then connect again" },
            None => html! { "until you or the provider ends it" },
        };
        rows.push(("Lasts", lasts));
    }
    if let Some(used) = connection.last_used_at {
        rows.push(("Last used", parts::time(used)));
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
        Status::NeedsReauth => (Tone::Warning, "Reconnect needed"),
        Status::Suspended => (Tone::Warning, "Suspended"),
    }
}

fn advice(status: Status, reason: Option<ReauthReason>, provider: &str) -> Option<String> {
    Some(match (status, reason?) {
        (Status::Suspended, _) => format!("Your password was reset. Connect again with the same {provider} account to go on."),
        (_, ReauthReason::Revoked) => format!("{provider} says that the access was withdrawn. Reconnect to give it again."),
        (_, ReauthReason::Expired) => "The access has ended and cannot be renewed. Reconnect to go on.".to_owned(),
        (_, ReauthReason::Idle) => format!("It went unused for longer than {provider} allows. Reconnect to go on."),
        (_, ReauthReason::ClientRejected) => format!("{provider} does not accept Countersign at the moment. Tell your administrator: the client id or secret has to be checked."),
        (_, ReauthReason::ProviderError) => format!("{provider} did not renew the access, or its answer was lost on the way. Reconnect to go on."),
        (_, ReauthReason::ProviderChanged) => "An administrator changed the provider's or server's address, or whose account the server is used with; nothing is sent there until you connect again.".to_owned(),
        (_, ReauthReason::UpstreamUnauthorized) => "The server no longer accepts this access. Reconnect to go on.".to_owned(),
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
    let party = app.registry.party(&key.provider);
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
