//! Faults of presets on their way from calls, consents and renewals to the
//! catalog, which may go back from a version that fails for everybody. Nobody
//! waits for it.

use std::sync::{Arc, Mutex, PoisonError};

use countersign_core::names::UserName;
use countersign_core::preset::PresetFault;
use countersign_oauth::{AnswerHook, Party, Witness};
use countersign_presets::{ConsentHook, FaultReport};
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::wiring::App;

mod witnessed;

pub(crate) use witnessed::witnessed;

/// Reports that may wait; more are dropped, since those that wait say the same.
const WAITING: usize = 64;

/// Where calls leave their reports.
pub struct Faults {
    sender: Sender<FaultReport>,
    receiver: Mutex<Option<Receiver<FaultReport>>>,
}

impl Default for Faults {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }
}

impl Faults {
    /// A preset failed in a call, a consent or a renewal.
    pub fn report(&self, report: FaultReport) {
        // Full or closed: then others told the same, or the host ends.
        let _ = self.sender.try_send(report);
    }
}

impl Witness for Faults {
    fn hook_failed(&self, party: &Party, user: &UserName, hook: AnswerHook, fault: &PresetFault) {
        self.report(FaultReport {
            provider: party.provider.name.clone(),
            digest: party.preset.digest(),
            user: user.clone(),
            tool: None,
            hook: Some(match hook {
                AnswerHook::TokenAnswer => ConsentHook::TokenAnswer,
                AnswerHook::RefreshError => ConsentHook::RefreshError,
            }),
            fault: fault.clone(),
        });
    }
}

/// Takes the reports to the catalog, one by one, for as long as the host runs.
pub async fn follow(app: Arc<App>) {
    let receiver = app
        .faults
        .receiver
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(mut reports) = receiver else { return };
    while let Some(report) = reports.recv().await {
        let catalog = Arc::clone(&app.catalog);
        // It runs both versions.
        let looked = tokio::task::spawn_blocking(move || catalog.suspect(&report));
        if let Err(error) = looked.await {
            tracing::error!("looking into a preset's fault failed: {error}");
        }
    }
}
