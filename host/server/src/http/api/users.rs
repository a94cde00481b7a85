//! `/api/v1/users`, and who is asking.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use countersign_core::names::{RoleName, UserName};
use countersign_identity::accounts::{AccountKind, NewUser, UserPatch, UserView};
use countersign_identity::{ForeignIdentity, Password};
use serde::{Deserialize, Serialize};

use super::auth::Asking;
use super::body::Body;
use super::list::{List, ListQuery, Listing};
use super::{ApiState, Problem};

/// A user as created.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserInput {
    /// Letters, digits and `. _ @ + -`; unique whatever its case.
    #[schema(value_type = String)]
    name: UserName,
    /// For people; never used to recognise anybody.
    email: Option<String>,
    /// `human` (if absent) or `service`; never changes.
    #[schema(value_type = Option<String>)]
    kind: Option<AccountKind>,
    /// Names of roles; `user` if absent.
    #[schema(value_type = Option<Vec<String>>)]
    roles: Option<BTreeSet<RoleName>>,
    /// Works once, for choosing another one.
    #[schema(format = Password, write_only)]
    password: Option<String>,
    /// One of the configured external issuers, with `subject`: whose tokens are
    /// this user's. Never changes.
    issuer: Option<String>,
    /// Who he is there, as its tokens say.
    subject: Option<String>,
}

/// What can be changed of a user.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserChange {
    /// An empty text removes it.
    email: Option<String>,
    /// All roles.
    #[schema(value_type = Option<Vec<String>>)]
    roles: Option<BTreeSet<RoleName>>,
    /// Switching off ends sessions and tokens for good.
    enabled: Option<bool>,
    /// Works once, for choosing another one. Ends sessions, tokens and agents,
    /// and suspends connections.
    #[schema(format = Password, write_only)]
    password: Option<String>,
}

/// A user as it is read.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct UserDocument {
    /// Unique.
    pub name: String,
    /// For people.
    pub email: Option<String>,
    /// `human` or `service`.
    #[schema(value_type = String)]
    pub kind: AccountKind,
    /// Names of roles.
    pub roles: Vec<String>,
    /// Names of teams.
    pub teams: Vec<String>,
    /// Whether it may act.
    pub enabled: bool,
    /// Whether an administrator set the password.
    pub must_choose_password: bool,
    /// The external issuer whose tokens are his.
    pub issuer: Option<String>,
    /// Who he is there.
    pub subject: Option<String>,
    /// RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub updated_at: String,
}

/// Who is asking, and with what.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Whoami {
    /// The account.
    #[serde(flatten)]
    pub user: UserDocument,
    /// In which team the token or session acts.
    pub team: String,
    /// The token's or client's name.
    pub client: String,
}

impl From<UserView> for UserDocument {
    fn from(user: UserView) -> Self {
        let (issuer, subject) = match user.foreign {
            Some(foreign) => (Some(foreign.issuer), Some(foreign.subject)),
            None => (None, None),
        };
        Self {
            issuer,
            subject,
            name: user.name.to_string(),
            email: user.email,
            kind: user.kind,
            roles: user.roles.iter().map(ToString::to_string).collect(),
            teams: user.teams.iter().map(ToString::to_string).collect(),
            enabled: user.enabled,
            must_choose_password: user.must_choose_password,
            created_at: user.created_at.to_string(),
            updated_at: user.updated_at.to_string(),
        }
    }
}

/// Tells who is asking.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "users",
    responses((status = 200, body = Whoami), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn whoami(
    State(state): State<ApiState>,
    asking: Asking,
) -> Result<Json<Whoami>, Problem> {
    let user = state.identity.user(&asking, &asking.user).await?;
    Ok(Json(Whoami {
        user: user.into(),
        team: asking.team.to_string(),
        client: asking.client_name.clone(),
    }))
}

/// Lists users (`user_list`).
#[utoipa::path(get, path = "/api/v1/users", tag = "users", params(ListQuery),
    responses((status = 200, body = List<UserDocument>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<ApiState>,
    asking: Asking,
    Listing(query): Listing,
) -> Result<Json<List<UserDocument>>, Problem> {
    let users = state.identity.users(&asking).await?;
    query
        .apply(users.into_iter().map(UserDocument::from).collect(), "name")
        .map(Json)
}

/// Reads a user (`user_get`; everybody may read himself).
#[utoipa::path(get, path = "/api/v1/users/{name}", tag = "users", params(("name" = String, Path)),
    responses((status = 200, body = UserDocument), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<Json<UserDocument>, Problem> {
    let user = state
        .identity
        .user(&asking, &UserName::parse(&name)?)
        .await?;
    Ok(Json(user.into()))
}

/// Creates a user (`user_create`; no more roles than the maker's own).
#[utoipa::path(post, path = "/api/v1/users", tag = "users", request_body = UserInput,
    responses((status = 201, body = UserDocument), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(state): State<ApiState>,
    asking: Asking,
    Body(input): Body<UserInput>,
) -> Result<(StatusCode, Json<UserDocument>), Problem> {
    let roles = match input.roles {
        Some(roles) => roles,
        None => BTreeSet::from([RoleName::parse("user")?]),
    };
    let foreign = match (input.issuer, input.subject) {
        (None, None) => None,
        (Some(issuer), Some(subject)) => Some(ForeignIdentity { issuer, subject }),
        _ => {
            let why = "issuer and subject belong together: give both, or neither";
            return Err(Problem::new(400, "invalid", why));
        }
    };
    let new = NewUser {
        foreign,
        name: input.name,
        email: input.email,
        kind: input.kind.unwrap_or(AccountKind::Human),
        roles,
        password: input.password.map(Password::new),
    };
    let user = state.identity.create_user(&asking, new).await?;
    Ok((StatusCode::CREATED, Json(user.into())))
}

/// Changes a user, or resets the password (`user_update`).
#[utoipa::path(patch, path = "/api/v1/users/{name}", tag = "users", params(("name" = String, Path)), request_body = UserChange,
    responses((status = 200, body = UserDocument), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn update(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
    Body(change): Body<UserChange>,
) -> Result<Json<UserDocument>, Problem> {
    let name = UserName::parse(&name)?;
    if let Some(password) = change.password {
        state
            .identity
            .reset_password(&asking, &name, Password::new(password))
            .await?;
    }
    let patch = UserPatch {
        email: change.email,
        roles: change.roles,
        enabled: change.enabled,
    };
    let user = match patch == UserPatch::default() {
        true => state.identity.user(&asking, &name).await?,
        false => state.identity.update_user(&asking, &name, patch).await?,
    };
    Ok(Json(user.into()))
}

/// Deletes a user with all that is his (`user_delete`).
#[utoipa::path(delete, path = "/api/v1/users/{name}", tag = "users", params(("name" = String, Path)),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<ApiState>,
    asking: Asking,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    state
        .identity
        .delete_user(&asking, &UserName::parse(&name)?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
