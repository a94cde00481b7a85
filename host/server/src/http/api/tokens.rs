//! `/api/v1/tokens`: API tokens, shown once.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use countersign_core::names::{ServerName, TeamName, UserName};
use countersign_core::provider::duration_text;
use countersign_identity::tokens::{NewToken, TokenKind, TokenView};
use serde::{Deserialize, Serialize};

use super::auth::Asking;
use super::body::Body;
use super::list::{List, ListQuery, invalid};
use super::{ApiState, Problem};

/// A token as asked for.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenInput {
    /// For people: letters, digits, `.`, `_`, `-`; at most 64.
    name: String,
    /// `mcp` for agents, `api` for REST and the command line.
    #[schema(value_type = String)]
    kind: TokenKind,
    /// Limits a token of kind `mcp` to these servers.
    #[schema(value_type = Option<Vec<String>>)]
    servers: Option<BTreeSet<ServerName>>,
    /// In which team it acts; `default` if absent.
    #[schema(value_type = Option<String>)]
    team: Option<TeamName>,
    /// At most `366d`; `90d` if absent.
    #[schema(example = "30d")]
    expires_in: Option<String>,
    /// A service account; oneself if absent.
    #[schema(value_type = Option<String>)]
    user: Option<UserName>,
}

/// A token as listed. Never the token.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TokenDocument {
    /// To revoke it by.
    pub id: String,
    /// For people.
    pub name: String,
    /// `mcp` or `api`.
    #[schema(value_type = String)]
    pub kind: TokenKind,
    /// Whose.
    pub user: String,
    /// In which team it acts.
    pub team: String,
    /// The servers it is limited to.
    pub servers: Option<Vec<String>>,
    /// RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub expires_at: String,
}

/// A new token: the only time that it is shown.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct NewTokenDocument {
    /// What is known of it later on.
    #[serde(flatten)]
    pub facts: TokenDocument,
    /// Keep it; it is not shown again.
    pub token: String,
}

/// Whose tokens, and the usual parameters of lists.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TokenQuery {
    /// Another user's, with `token_list`; one's own if absent.
    user: Option<String>,
    /// As for every list.
    filter: Option<String>,
    /// As for every list.
    order_by: Option<String>,
    /// As for every list.
    page_size: Option<usize>,
    /// As for every list.
    page_token: Option<String>,
}

/// Whose token.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Whose {
    /// Another user's, with `token_delete`; one's own if absent.
    user: Option<String>,
}

impl From<TokenView> for TokenDocument {
    fn from(token: TokenView) -> Self {
        Self {
            id: token.id,
            name: token.name,
            kind: token.kind,
            user: token.user.to_string(),
            team: token.team.to_string(),
            servers: token
                .servers
                .map(|s| s.iter().map(ToString::to_string).collect()),
            created_at: token.created_at.to_string(),
            expires_at: token.expires_at.to_string(),
        }
    }
}

fn user(name: Option<&str>) -> Result<Option<UserName>, Problem> {
    Ok(name.map(UserName::parse).transpose()?)
}

/// Lists API tokens, one's own or (`token_list`) another user's.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", params(TokenQuery),
    responses((status = 200, body = List<TokenDocument>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<ApiState>,
    asking: Asking,
    super::list::Query(query): super::list::Query<TokenQuery>,
) -> Result<Json<List<TokenDocument>>, Problem> {
    let tokens = state
        .identity
        .tokens(&asking, user(query.user.as_deref())?.as_ref())
        .await?;
    let TokenQuery {
        filter,
        order_by,
        page_size,
        page_token,
        ..
    } = query;
    let query = ListQuery {
        filter,
        order_by,
        page_size,
        page_token,
    };
    query
        .apply(tokens.into_iter().map(TokenDocument::from).collect(), "id")
        .map(Json)
}

/// Creates an API token: for oneself after a fresh sign-in, or for a service
/// account (`token_create`). Never for another human.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = TokenInput,
    responses((status = 201, body = NewTokenDocument), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(state): State<ApiState>,
    asking: Asking,
    Body(input): Body<TokenInput>,
) -> Result<(StatusCode, Json<NewTokenDocument>), Problem> {
    let expires_in = match input.expires_in.as_deref() {
        Some(text) => Some(duration_text::parse(text).ok_or_else(|| {
            invalid(
                "expires_in",
                format!("{text:?} is not a time; write one like \"30d\" or \"12h\""),
            )
        })?),
        None => None,
    };
    let new = NewToken {
        name: input.name,
        kind: input.kind,
        servers: input.servers,
        team: input.team,
        expires_in,
        user: input.user,
    };
    let (token, secret) = state.identity.create_token(&asking.0, new).await?;
    let document = NewTokenDocument {
        facts: token.into(),
        token: secret.reveal(),
    };
    Ok((StatusCode::CREATED, Json(document)))
}

/// Revokes an API token; in force at once.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path), Whose),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<ApiState>,
    asking: Asking,
    Path(id): Path<String>,
    super::list::Query(whose): super::list::Query<Whose>,
) -> Result<StatusCode, Problem> {
    state
        .identity
        .revoke_token(&asking, user(whose.user.as_deref())?.as_ref(), &id)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
