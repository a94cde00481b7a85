//! `/api/v1/connections`: one's own. Nobody reads another user's.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::connection::{Account, Connection, ReauthReason, Status};
use countersign_core::names::{ProviderName, ServerName, TeamName, UserName};
use countersign_core::provider::Provider;
use countersign_core::scope::{Scope, ScopeSet};
use countersign_core::server::{ConnectionUse, Server, Target};
use countersign_core::upkeep::reconnect_by;
use countersign_core::user_key::UserKey;
use countersign_oauth::links::LinkRequest;
use serde::{Deserialize, Serialize};

use super::auth::Asking;
use super::body::Body;
use super::list::{List, ListQuery, Listing, Query, invalid};
use super::{ApiState, Problem};
use crate::http::connections::{servers_of, standing};
use crate::registry::Refusal;

/// What to connect.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectInput {
    /// The provider.
    #[schema(value_type = String)]
    provider: ProviderName,
    /// The server, where servers have connections of their own.
    #[schema(value_type = Option<String>)]
    server: Option<ServerName>,
    /// In which of one's teams; the token's if absent.
    #[schema(value_type = Option<String>)]
    team: Option<TeamName>,
    /// Scopes to ask for beside those that provider and server need.
    #[serde(default)]
    scopes: Vec<String>,
}

/// Where the user has to go.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ConnectLink {
    /// To open in a browser, signed in as the same user. Works once.
    pub authorize_url: String,
    /// Whether a code that is typed at the provider does it, too
    /// (`/api/v1/connections/device`).
    pub device_flow: bool,
    /// What will be connected.
    pub provider: String,
    /// In which team.
    pub team: String,
    /// For which server, if it has connections of its own.
    pub resource: Option<String>,
}

/// The account at the provider.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct AccountView {
    /// The provider's identifier.
    pub id: String,
    /// For people.
    pub label: String,
}

impl From<&Account> for AccountView {
    fn from(account: &Account) -> Self {
        Self {
            id: account.id.clone(),
            label: account.label.clone(),
        }
    }
}

/// A connection. Never a token.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ConnectionView {
    /// To revoke it by.
    pub id: String,
    /// At which provider; none for a key of a server without one.
    pub provider: Option<String>,
    /// For which server, if it is a key of one's own.
    pub server: Option<String>,
    /// In which team.
    pub team: String,
    /// The server's address, if it is for that server only.
    pub resource: Option<String>,
    /// Who the user is there.
    pub account: Option<AccountView>,
    /// Granted scopes.
    pub scopes: Vec<String>,
    /// `connected`, `needs_scopes`, `needs_reauth` or `suspended`.
    #[schema(value_type = String)]
    pub status: Status,
    /// Why it needs a new authorization.
    #[schema(value_type = Option<String>)]
    pub reason: Option<ReauthReason>,
    /// RFC 3339 UTC.
    pub expires_at: Option<String>,
    /// Whether it can be renewed without the user.
    pub refresh_token_present: bool,
    /// RFC 3339 UTC.
    pub refresh_token_expires_at: Option<String>,
    /// The access ends then and cannot be prolonged: connect again before.
    /// Absent while that is far off. RFC 3339 UTC.
    pub reconnect_by: Option<String>,
    /// Scopes that a scope upgrade asked for and that were not granted; calls
    /// do not ask for them again.
    pub withheld_scopes: Vec<String>,
    /// RFC 3339 UTC.
    pub last_used_at: Option<String>,
    /// When its user last agreed to it at the provider. RFC 3339 UTC.
    pub consented_at: String,
    /// RFC 3339 UTC.
    pub created_at: String,
}

/// Whose connection.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Whose {
    /// Another user's, with `connection_revoke_any`; one's own if absent.
    user: Option<String>,
}

/// Lists one's own connections.
#[utoipa::path(get, path = "/api/v1/connections", tag = "connections", params(ListQuery),
    responses((status = 200, body = List<ConnectionView>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<ApiState>,
    asking: Asking,
    Listing(query): Listing,
) -> Result<Json<List<ConnectionView>>, Problem> {
    let connections = state.oauth.list(&asking.user).await?;
    let keys = state.keys.list(&asking.user).await?;
    let all = connections.iter().map(|c| view(&state, c));
    let all = all.chain(keys.iter().map(|k| super::keys::view(&state, k)));
    query.apply(all.collect(), "id").map(Json)
}

/// Reads one of one's own connections.
#[utoipa::path(get, path = "/api/v1/connections/{id}", tag = "connections", params(("id" = String, Path)),
    responses((status = 200, body = ConnectionView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<ApiState>,
    asking: Asking,
    Path(id): Path<String>,
) -> Result<Json<ConnectionView>, Problem> {
    if let Some(key) = key_of(&state, &asking.user, &id).await? {
        return Ok(Json(super::keys::view(&state, &key)));
    }
    let connection = find(&state, &asking.user, &id).await?;
    Ok(Json(view(&state, &connection)))
}

/// Makes a link with which the caller, and nobody else, can connect an account.
#[utoipa::path(post, path = "/api/v1/connections", tag = "connections", request_body = ConnectInput,
    responses((status = 201, body = ConnectLink), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(state): State<ApiState>,
    asking: Asking,
    Body(input): Body<ConnectInput>,
) -> Result<(StatusCode, Json<ConnectLink>), Problem> {
    if !asking.has_browser_identity {
        return Err(Problem::new(
            409,
            "no-browser-identity",
            "this account has no browser sign-in here, so it cannot open a connect link (no_browser_identity)",
        ));
    }
    let wanted = wanted(&state, &asking, input).await?;
    let device_flow = state
        .registry
        .party(&wanted.provider.name)
        .is_some_and(|party| countersign_oauth::device::is_on(&party));
    let url = state
        .oauth
        .make_link(LinkRequest {
            user: asking.user.clone(),
            team: wanted.team.clone(),
            provider: wanted.provider.name.clone(),
            resource: wanted.resource.clone(),
            server: wanted.server,
            client_name: Some(asking.client_name.clone()),
            scopes: wanted.scopes,
        })
        .await?;
    let link = ConnectLink {
        authorize_url: url.to_string(),
        device_flow,
        provider: wanted.provider.name.to_string(),
        team: wanted.team.to_string(),
        resource: wanted.resource.map(String::from),
    };
    Ok((StatusCode::CREATED, Json(link)))
}

/// What somebody wants to connect, checked.
pub(super) struct Wanted {
    pub(super) provider: std::sync::Arc<Provider>,
    pub(super) team: TeamName,
    pub(super) server: Option<ServerName>,
    pub(super) resource: Option<url::Url>,
    pub(super) scopes: ScopeSet,
}

pub(super) async fn wanted(
    state: &ApiState,
    asking: &Asking,
    input: ConnectInput,
) -> Result<Wanted, Problem> {
    let team = team(state, asking, input.team).await?;
    let provider = state
        .registry
        .find_provider(input.provider.as_str())
        .map_err(|refusal| refusal.told_to(&asking.permissions))?;
    if !provider.enabled {
        return Err(invalid(
            "provider",
            format!(
                "{} is disabled; ask an administrator to enable it",
                provider.name
            ),
        ));
    }
    let server = server(state, &provider, input.server.as_ref(), &team)?;
    let resource = server.as_deref().and_then(dedicated);
    let mut scopes: ScopeSet = provider.scopes.clone();
    if let Some(server) = &server {
        scopes = scopes.union(&server.auth.required_scopes);
    }
    for scope in &input.scopes {
        scopes.insert(Scope::parse(scope).map_err(|e| invalid("scopes", e))?);
    }
    Ok(Wanted {
        server: server.map(|s| s.name.clone()),
        provider,
        team,
        resource,
        scopes,
    })
}

/// Disconnects: revokes at the provider as far as it goes, and erases. One's
/// own, or with `connection_revoke_any` another user's.
#[utoipa::path(delete, path = "/api/v1/connections/{id}", tag = "connections", params(("id" = String, Path), Whose),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<ApiState>,
    asking: Asking,
    Path(id): Path<String>,
    Query(whose): Query<Whose>,
) -> Result<StatusCode, Problem> {
    let user = match whose.user.as_deref() {
        Some(name) => UserName::parse(name)?,
        None => asking.user.clone(),
    };
    if user != asking.user {
        asking
            .permissions
            .demand("connection_revoke_any", Some(user.as_str()))?;
    }
    if let Some(key) = key_of(&state, &user, &id).await? {
        state.keys.delete(&user, &key.team, &key.server).await?;
        note_other(
            &state,
            &asking,
            &user,
            &id,
            &format!("server {}", key.server),
        )
        .await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let connection = find(&state, &user, &id).await?;
    let party = state.registry.party(&connection.provider);
    let done = state
        .oauth
        .disconnect(&connection.key(), party.as_ref())
        .await?;
    note_other(&state, &asking, &user, &id, connection.provider.as_str()).await?;
    tracing::info!(connection = %connection.id, existed = done.existed, "disconnected");
    Ok(StatusCode::NO_CONTENT)
}

/// The disconnect itself is in the log; here it is who did it to somebody else.
async fn note_other(
    state: &ApiState,
    asking: &Asking,
    user: &UserName,
    id: &str,
    at: &str,
) -> Result<(), Problem> {
    if *user == asking.user {
        return Ok(());
    }
    let event = AuditEvent::new(
        state.world.clock.now(),
        "connection.revoke_any",
        Outcome::Allowed,
    )
    .by(&asking.user)
    .on(format!("connection:{id}"))
    .detail(format!("of {user} at {at}"));
    Ok(state.world.audit.record(event).await?)
}

/// A user's own key of this id.
async fn key_of(state: &ApiState, user: &UserName, id: &str) -> Result<Option<UserKey>, Problem> {
    if !id.starts_with("key_") {
        return Ok(None);
    }
    let keys = state.keys.list(user).await?;
    Ok(keys.into_iter().find(|key| key.id.as_str() == id))
}

async fn find(state: &ApiState, user: &UserName, id: &str) -> Result<Connection, Problem> {
    let connections = state.oauth.list(user).await?;
    let known = connections.iter().map(|c| c.id.to_string()).collect();
    connections
        .into_iter()
        .find(|c| c.id.as_str() == id)
        .ok_or_else(|| {
            Refusal::NotFound {
                what: "connection",
                name: id.chars().take(80).collect(),
                known,
            }
            .into()
        })
}

pub(super) async fn team(
    state: &ApiState,
    asking: &Asking,
    given: Option<TeamName>,
) -> Result<TeamName, Problem> {
    let Some(team) = given.filter(|t| *t != asking.team) else {
        return Ok(asking.team.clone());
    };
    let own: BTreeSet<TeamName> = state.identity.user(asking, &asking.user).await?.teams;
    if own.contains(&team) {
        return Ok(team);
    }
    let own: Vec<_> = own.iter().map(ToString::to_string).collect();
    Err(invalid(
        "team",
        format!("you are not a member of {team}; yours: {}", own.join(", ")),
    ))
}

/// The server that the connection is for: the one named, or the only one there
/// is where servers have connections of their own.
fn server(
    state: &ApiState,
    provider: &Provider,
    named: Option<&ServerName>,
    team: &TeamName,
) -> Result<Option<std::sync::Arc<Server>>, Problem> {
    let snapshot = state.registry.snapshot();
    let attached: Vec<_> = snapshot
        .attached(&provider.name)
        .into_iter()
        .filter(|s| s.teams.is_empty() || s.teams.contains(team))
        .collect();
    let names = || {
        attached
            .iter()
            .map(|s| s.name.to_string())
            .collect::<Vec<_>>()
    };
    if let Some(named) = named {
        let found = attached
            .iter()
            .find(|s| s.name == *named)
            .map(|s| Some(std::sync::Arc::clone(s)));
        return found.ok_or_else(|| {
            let (what, name) = ("server", named.to_string());
            Refusal::Unknown {
                field: "server".into(),
                what,
                name,
                known: names(),
            }
            .into()
        });
    }
    let mut own = attached
        .iter()
        .filter(|s| s.connection == ConnectionUse::Dedicated);
    match (attached.len(), own.next(), own.next()) {
        (1, Some(only), None) => Ok(Some(std::sync::Arc::clone(only))),
        (n, Some(_), _) if own.count() + 2 >= n && n > 1 => Err(invalid(
            "server",
            format!(
                "each server of {} has a connection of its own; say which: {}",
                provider.name,
                names().join(", ")
            ),
        )),
        _ => Ok(None),
    }
}

fn dedicated(server: &Server) -> Option<url::Url> {
    match (&server.target, server.connection) {
        (Target::Url(url), ConnectionUse::Dedicated) => Some(url.clone()),
        _ => None,
    }
}

fn view(state: &ApiState, connection: &Connection) -> ConnectionView {
    // As calls see it: a provider may answer fewer scopes than were asked.
    let snapshot = state.registry.current();
    let required = servers_of(
        &snapshot,
        &connection.provider,
        connection.resource.as_ref(),
    )
    .iter()
    .fold(ScopeSet::default(), |all, server| {
        all.union(&server.auth.required_scopes)
    });
    let now = state.world.clock.now();
    let (status, reason) = standing(&state.registry, connection, &required, now);
    let first = connection.credential(None);
    ConnectionView {
        id: connection.id.to_string(),
        provider: Some(connection.provider.to_string()),
        server: None,
        team: connection.team.to_string(),
        resource: connection.resource.as_ref().map(ToString::to_string),
        account: connection.account.as_ref().map(AccountView::from),
        scopes: connection
            .scopes()
            .iter()
            .map(ToString::to_string)
            .collect(),
        status,
        reason,
        expires_at: first.and_then(|c| c.expires_at).map(|t| t.to_string()),
        refresh_token_present: connection
            .credentials
            .iter()
            .any(|c| c.refresh_token_present),
        refresh_token_expires_at: first
            .and_then(|c| c.refresh_token_expires_at)
            .map(|t| t.to_string()),
        reconnect_by: reconnect_by(connection, state.oauth.care(), now).map(|t| t.to_string()),
        withheld_scopes: connection
            .withheld
            .iter()
            .map(ToString::to_string)
            .collect(),
        last_used_at: connection.last_used_at.map(|t| t.to_string()),
        consented_at: connection.consented_at().to_string(),
        created_at: connection.created_at.to_string(),
    }
}
