//! `/api/v1/audit`.

use axum::Json;
use axum::extract::State;
use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::time::Timestamp;
use countersign_vault::audit::{AuditFilter, AuditPage};
use serde_json::Value;

use super::auth::Asking;
use super::filter::{Filter, Operator, Term};
use super::list::{List, ListQuery, Listing, invalid};
use super::{ApiState, Problem};

/// Lists audit events, newest first (`audit_read`). `filter` takes `user`,
/// `team`, `client`, `resource`, `action` and `outcome` with `=`, and `time`
/// with `>=` and `<`. `total_size` is exact on the last page and a lower bound
/// before it.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(ListQuery),
    responses((status = 200, body = List<Object>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<ApiState>,
    asking: Asking,
    Listing(query): Listing,
) -> Result<Json<List<AuditEvent>>, Problem> {
    asking.permissions.demand("audit_read", None)?;
    if query
        .order_by
        .as_deref()
        .is_some_and(|o| !o.is_empty() && o != "time desc")
    {
        return Err(invalid(
            "order_by",
            "audit events come newest first; leave it out, or write \"time desc\"",
        ));
    }
    let filter = audit_filter(query.filter.as_deref().unwrap_or_default())
        .map_err(|p| invalid("filter", p))?;
    let position = query
        .page_token
        .as_deref()
        .filter(|t| !t.is_empty())
        .map(position)
        .transpose()?;
    let (before, shown) = position.map_or((None, 0), |(before, shown)| (Some(before), shown));
    let page = AuditPage {
        before,
        size: query.size()?,
    };
    let found = state.audit.events(&filter, &page).await?;
    let shown = found.events.len().saturating_add(shown);
    let total_size = shown.saturating_add(usize::from(found.next.is_some()));
    let next_page_token = found
        .next
        .map_or_else(String::new, |next| format!("{next}.{shown}"));
    Ok(Json(List {
        items: found.events,
        next_page_token,
        total_size,
    }))
}

/// A page token: the sequence to go on before, and how many were shown.
fn position(token: &str) -> Result<(u64, usize), Problem> {
    token
        .split_once('.')
        .and_then(|(before, shown)| Some((before.parse().ok()?, shown.parse().ok()?)))
        .ok_or_else(|| invalid("page_token", "is not one of this list"))
}

fn audit_filter(text: &str) -> Result<AuditFilter, String> {
    let mut filter = AuditFilter::default();
    for Term {
        field,
        operator,
        value,
    } in Filter::parse(text)?.0
    {
        if field == "time" {
            let time = Timestamp::parse(&value).ok_or("time is compared with an RFC 3339 time")?;
            match operator {
                Operator::GreaterOrEqual => filter.since = Some(time),
                Operator::Less => filter.until = Some(time),
                _ => return Err("time is compared with >= or <".into()),
            }
            continue;
        }
        if operator != Operator::Equal {
            return Err(format!("{field} is compared with ="));
        }
        match field.as_str() {
            "user" => filter.user = Some(value),
            "team" => filter.team = Some(value),
            "client" => filter.client = Some(value),
            "resource" => filter.resource = Some(value),
            "action" => filter.action = Some(value),
            "outcome" => {
                let outcome: Result<Outcome, _> = serde_json::from_value(Value::String(value));
                filter.outcome =
                    Some(outcome.map_err(|_| "outcome is allowed, denied, pending or failed")?);
            }
            _ => {
                return Err(format!(
                    "audit events are not filtered by {field:?}; use user, team, client, resource, action, \
                     outcome, time"
                ));
            }
        }
    }
    Ok(filter)
}
