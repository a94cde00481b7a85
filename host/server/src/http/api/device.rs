//! `/api/v1/connections/device`: connecting one's own account by a code that is
//! typed at the provider (RFC 8628).

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use countersign_core::names::ProviderName;
use countersign_oauth::consent::{AskedBy, Begin, ReturnTo};
use countersign_oauth::device::{Shown, Standing};
use serde::{Deserialize, Serialize};

use super::auth::Asking;
use super::body::Body;
use super::connections::{AccountView, ConnectInput, wanted};
use super::list::invalid;
use super::{ApiState, Problem};
use crate::http::connections::indicator_of;

/// Who may go on with it: the user whose token it is, with any of his tokens.
const BY_API: &str = "api";

/// Where it stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct DeviceView {
    /// To look and to decide by.
    pub id: String,
    /// `waiting`, `found`, `connected` or `refused`.
    pub status: &'static str,
    /// What to type at the provider.
    pub user_code: Option<String>,
    /// Where.
    pub verification_uri: Option<String>,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// When the code ends; RFC 3339 UTC.
    pub expires_at: Option<String>,
    /// Seconds between two looks.
    pub interval: Option<u64>,
    /// The account that was found, if the provider tells.
    pub account: Option<AccountView>,
    /// What was granted.
    pub scopes: Vec<String>,
    /// Why it was refused, in a word.
    pub reason: Option<String>,
    /// What the person can do.
    pub advice: Option<String>,
}

/// The user's word.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DecisionInput {
    /// Whether the account that was found is one's own.
    is_mine: bool,
}

/// Asks the provider for a code.
#[utoipa::path(post, path = "/api/v1/connections/device", tag = "connections", request_body = ConnectInput,
    responses((status = 201, body = DeviceView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(state): State<ApiState>,
    asking: Asking,
    Body(input): Body<ConnectInput>,
) -> Result<(StatusCode, Json<DeviceView>), Problem> {
    let wanted = wanted(&state, &asking, input).await?;
    let party = state.registry.party(&wanted.provider.name).ok_or_else(|| {
        Problem::new(
            409,
            "preset-unavailable",
            "the provider's preset is not loaded or not approved; an administrator can see why with `countersign preset list`",
        )
    })?;
    let begin = Begin {
        indicator: indicator_of(&state.registry, &wanted.provider, wanted.resource.as_ref()),
        user: asking.user.clone(),
        team: wanted.team,
        session: BY_API.to_owned(),
        resource: wanted.resource,
        scopes: wanted.scopes,
        return_to: ReturnTo::Connections,
        bare_callback: false,
        asked_by: AskedBy::default(),
    };
    let begun = state.oauth.begin_device(begin, &party).await;
    let (id, shown) = begun.map_err(|e| invalid("provider", e))?;
    Ok((StatusCode::CREATED, Json(waiting(id, &shown))))
}

/// Looks where it stands; the provider is asked at most as often as it wants.
#[utoipa::path(get, path = "/api/v1/connections/device/{id}", tag = "connections", params(("id" = String, Path)),
    responses((status = 200, body = DeviceView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<ApiState>,
    asking: Asking,
    Path(id): Path<String>,
) -> Result<Json<DeviceView>, Problem> {
    let party = |name: &ProviderName| state.registry.party(name);
    let standing = state
        .oauth
        .look_device(&id, &asking.user, BY_API, party)
        .await
        .map_err(|e| invalid("id", e))?;
    Ok(Json(view(id, standing)))
}

/// Says whether the account that was found is one's own. Only then it is
/// connected; what is not wanted is given back.
#[utoipa::path(post, path = "/api/v1/connections/device/{id}", tag = "connections", params(("id" = String, Path)),
    request_body = DecisionInput,
    responses((status = 200, body = DeviceView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn decide(
    State(state): State<ApiState>,
    asking: Asking,
    Path(id): Path<String>,
    Body(input): Body<DecisionInput>,
) -> Result<Json<DeviceView>, Problem> {
    let party = |name: &ProviderName| state.registry.party(name);
    let decided = state
        .oauth
        .decide_device(&id, &asking.user, BY_API, input.is_mine, party)
        .await
        .map_err(|e| invalid("id", e))?;
    Ok(Json(match decided {
        Ok(connection) => DeviceView {
            status: "connected",
            account: connection.account.as_ref().map(AccountView::from),
            scopes: connection
                .scopes()
                .iter()
                .map(ToString::to_string)
                .collect(),
            ..empty(id)
        },
        Err(standing) => view(id, standing),
    }))
}

fn empty(id: String) -> DeviceView {
    DeviceView {
        id,
        status: "waiting",
        user_code: None,
        verification_uri: None,
        verification_uri_complete: None,
        expires_at: None,
        interval: None,
        account: None,
        scopes: Vec::new(),
        reason: None,
        advice: None,
    }
}

fn waiting(id: String, shown: &Shown) -> DeviceView {
    DeviceView {
        user_code: Some(shown.user_code.clone()),
        verification_uri: Some(shown.verification_uri.to_string()),
        verification_uri_complete: shown
            .verification_uri_complete
            .as_ref()
            .map(ToString::to_string),
        expires_at: Some(shown.expires_at.to_string()),
        interval: Some(shown.interval.as_secs()),
        ..empty(id)
    }
}

fn view(id: String, standing: Standing) -> DeviceView {
    match standing {
        Standing::Waiting(shown) => waiting(id, &shown),
        Standing::Found { account, scopes } => DeviceView {
            status: "found",
            account: account.as_ref().map(AccountView::from),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            ..empty(id)
        },
        Standing::Refused { code, advice } => DeviceView {
            status: "refused",
            reason: Some(code),
            advice: Some(advice),
            ..empty(id)
        },
    }
}
