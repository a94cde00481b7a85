//! Notices changes of the directory.
//!
//! The system's notifications make it quick; looking at the whole directory
//! every few seconds makes it sure (network file systems, full watch tables,
//! editors that write in odd ways).

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::Catalog;

/// Between two looks without any notification.
const RESCAN: Duration = Duration::from_secs(2);
/// Quiet time after a notification before the files are read.
const QUIET: Duration = Duration::from_millis(60);
/// Between two looks while a file may be half-written.
const SETTLING: Duration = Duration::from_millis(400);
/// Notifications waited out at most; then the files are read anyway.
const MOST_WAITS: usize = 16;

/// Ends the thread when dropped.
pub(super) struct Watcher {
    _notifications: Option<RecommendedWatcher>,
    _alive: mpsc::Sender<Vec<String>>,
}

/// Starts watching. Never fails: without notifications it looks now and then,
/// without a thread it only looks when asked.
pub(super) fn start(catalog: &Arc<Catalog>) -> Watcher {
    let (alive, changes) = mpsc::channel::<Vec<String>>();
    let notifications = notifications(catalog, alive.clone())
        .inspect_err(|error| tracing::warn!(%error, "no notifications for the catalog directory; looking every two seconds"))
        .ok();
    let weak = Arc::downgrade(catalog);
    let thread = std::thread::Builder::new()
        .name("preset-catalog".into())
        .spawn(move || run(&weak, &changes));
    if let Err(error) = thread {
        tracing::error!(%error, "no thread to watch the catalog; changes take effect at the next start");
    }
    Watcher {
        _notifications: notifications,
        _alive: alive,
    }
}

fn notifications(
    catalog: &Catalog,
    changes: mpsc::Sender<Vec<String>>,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        // Our own reading is an access, too.
        let is_read = matches!(event.kind, EventKind::Access(kind) if kind != notify::event::AccessKind::Close(notify::event::AccessMode::Write));
        if !is_read {
            let names = event
                .paths
                .iter()
                .filter_map(|p| Some(p.file_name()?.to_str()?.to_owned()));
            // Nobody listens any more when the catalog is being dropped.
            let _ = changes.send(names.collect());
        }
    })?;
    watcher.watch(&catalog.dir, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

fn run(catalog: &Weak<Catalog>, changes: &mpsc::Receiver<Vec<String>>) {
    let mut pause = RESCAN;
    loop {
        let mut changed = match changes.recv_timeout(pause) {
            Ok(names) => names,
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if !changed.is_empty() {
            for _ in 0..MOST_WAITS {
                match changes.recv_timeout(QUIET) {
                    Ok(names) => changed.extend(names),
                    Err(_) => break,
                }
            }
        }
        let Some(catalog) = catalog.upgrade() else {
            return;
        };
        let unsettled = catalog.scan(&changed, true);
        pause = if unsettled { SETTLING } else { RESCAN };
    }
}
