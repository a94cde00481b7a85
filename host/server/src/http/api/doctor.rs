//! `/api/v1/doctor`: what is wrong inside a running host.

use axum::Json;
use axum::extract::State;
use countersign_core::provider::Provider;

use super::auth::Asking;
use super::list::List;
use super::{ApiState, Problem};
use crate::doctor::{Finding, Inside};

/// Looks into the store: damage, keys, providers, servers (`doctor_run`).
#[utoipa::path(get, path = "/api/v1/doctor", tag = "doctor",
    responses((status = 200, body = List<Finding>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn look(
    State(state): State<ApiState>,
    asking: Asking,
) -> Result<Json<List<Finding>>, Problem> {
    asking.permissions.demand("doctor_run", None)?;
    let serves = |provider: &Provider| state.registry.party(&provider.name).is_some();
    let inside = Inside {
        world: &state.world,
        vault: state.sealing.vault(),
        audit: &state.audit,
        serves: Some(&serves),
    };
    let mut items = inside.look().await?;
    let dropped = state.audit.dropped();
    if dropped > 0 {
        items.push(Finding::warning(
            "audit log",
            format!("{dropped} events were lost since the host was started"),
            "the store was too slow or failed; see the host's log",
        ));
    }
    Ok(Json(List {
        total_size: items.len(),
        items,
        next_page_token: String::new(),
    }))
}
