//! Taking over what other hosts on the same store have changed.
//!
//! Records themselves are always read as they are. What is here is what this
//! process has made of them and remembers: the registry's snapshot, verified
//! tokens, upstream sessions, and who waits for what.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::ports::{Kind, StoreError};
use countersign_vault::store::Changes;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::wiring::App;

/// Changes come in crowds: so long is waited for the next before acting.
const GATHER: Duration = Duration::from_millis(10);
/// When the store did not answer.
const AGAIN: Duration = Duration::from_millis(500);
/// How often it is asked whether changes are still heard of.
const DOUBT: Duration = Duration::from_millis(200);

const REGISTERED: [Kind; 5] = [
    Kind::Provider,
    Kind::Server,
    Kind::Secret,
    Kind::Preset,
    Kind::Policy,
];
const IDENTITY: [Kind; 8] = [
    Kind::User,
    Kind::Team,
    Kind::Role,
    Kind::Client,
    Kind::Token,
    Kind::Session,
    Kind::Grant,
    Kind::AgentConsent,
];

/// Runs for as long as the host does; ends at once where there can be no other.
pub(crate) async fn follow(app: Arc<App>) {
    let Some(mut changes) = app.vault.changes() else {
        return;
    };
    tokio::join!(doubt(&app), take_over_changes(&app, &mut changes));
}

/// While nothing is heard of other hosts, nothing is remembered that one of
/// them may have revoked.
async fn doubt(app: &App) {
    loop {
        tokio::time::sleep(DOUBT).await;
        if !app.vault.is_current() {
            app.identity.forget_verified();
            app.sessions.forget();
        }
    }
}

async fn take_over_changes(app: &App, changes: &mut Receiver<Changes>) {
    // Since the parts were opened something may have changed.
    let mut said = false;
    let mut pending = Changes::all();
    loop {
        if pending.is_empty() {
            pending = match changes.recv().await {
                Ok(changed) => changed,
                Err(RecvError::Lagged(_)) => Changes::all(),
                Err(RecvError::Closed) => return,
            };
            tokio::time::sleep(GATHER).await;
        }
        loop {
            match changes.try_recv() {
                Ok(more) => pending = pending.and(more),
                Err(TryRecvError::Lagged(_)) => pending = Changes::all(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        match take_over(app, pending).await {
            Ok(()) => {
                pending = Changes::default();
                said = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::error!(%error, "what other hosts changed cannot be read yet");
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn take_over(app: &App, changed: Changes) -> Result<(), StoreError> {
    let any = |kinds: &[Kind]| kinds.iter().any(|kind| changed.has(*kind));
    // First what takes something away.
    if any(&IDENTITY) {
        app.identity.forget_verified();
    }
    if changed.has(Kind::UpstreamSession) {
        app.sessions.forget();
    }
    if any(&REGISTERED) {
        app.registry.follow_others().await?;
        app.attachments.forget_outdated();
    }
    if changed.has(Kind::Connection) {
        app.oauth.connections_changed();
    }
    if changed.has(Kind::Approval) {
        app.approvals.changed();
    }
    if changed.has(Kind::Elicited) {
        app.held.hear(&app.world).await?;
    }
    Ok(())
}
