//! `/api/v1/backup`: everything in the store at this moment, sealed.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use countersign_core::audit::{AuditEvent, Outcome};
use futures_util::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::auth::Asking;
use super::{ApiState, Problem};

/// Pieces that may wait for a slow reader, up to about 64 KiB each.
const WAITING: usize = 8;

/// Streams a backup of the store (`backup_create`): sealed under the host's
/// key, of use only with it. It has come whole if `countersign backup verify`
/// says so.
#[utoipa::path(post, path = "/api/v1/backup", tag = "backup",
    responses((status = 200, content_type = "application/octet-stream"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(state): State<ApiState>,
    asking: Asking,
) -> Result<Response, Problem> {
    asking.permissions.demand("backup_create", None)?;
    let now = state.world.clock.now();
    let by = asking.user.to_string();
    let event = AuditEvent::new(now, "backup.create", Outcome::Allowed).by(&by);
    state.world.audit.record(event).await?;
    let (pieces, receiver) = tokio::sync::mpsc::channel(WAITING);
    let (failed, failure) = tokio::sync::oneshot::channel();
    let vault = Arc::clone(state.sealing.vault());
    tokio::spawn(async move {
        let made = vault.backup(now, pieces).await;
        let (outcome, detail) = match &made {
            Ok(summary) => (
                Outcome::Allowed,
                format!("{} records, backup {}", summary.records, summary.id),
            ),
            Err(error) => (Outcome::Failed, error.to_string()),
        };
        if let Err(error) = made {
            tracing::error!(%error, "a backup was not finished");
            let _ = failed.send(std::io::Error::other(error.to_string()));
        }
        let event = AuditEvent::new(state.world.clock.now(), "backup.created", outcome);
        if let Err(error) = state.world.audit.record(event.by(by).detail(detail)).await {
            tracing::error!(%error, "the end of a backup could not be written down");
        }
    });
    // A failure breaks the answer off, so that nobody takes it for whole.
    let end = futures_util::stream::once(failure)
        .filter_map(|failure| std::future::ready(failure.ok().map(Err)));
    let body = ReceiverStream::new(receiver).map(Ok).chain(end);
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}
