//! Who waits for a connection to stand, in this process.

use std::collections::HashMap;
use std::sync::Mutex;

use countersign_core::connection::ConnectionKey;
use tokio::sync::watch;

use crate::service::lock;

/// One channel for each key that somebody waits for.
#[derive(Default)]
pub(crate) struct Waiters(Mutex<HashMap<ConnectionKey, watch::Sender<()>>>);

impl Waiters {
    /// Changes from now on are seen by the receiver.
    pub(crate) fn subscribe(&self, key: &ConnectionKey) -> watch::Receiver<()> {
        let mut waiters = lock(&self.0);
        waiters.retain(|_, sender| sender.receiver_count() > 0);
        waiters
            .entry(key.clone())
            .or_insert_with(|| watch::channel(()).0)
            .subscribe()
    }

    /// Wakes everybody who waits for this key.
    pub(crate) fn notify(&self, key: &ConnectionKey) {
        if let Some(sender) = lock(&self.0).get(key) {
            sender.send_replace(());
        }
    }

    /// Wakes everybody.
    pub(crate) fn notify_all(&self) {
        for sender in lock(&self.0).values() {
            sender.send_replace(());
        }
    }
}
