//! Threads that serve connections, each with an event loop of its own.
//!
//! A call is passed on by one thread from the first byte to the last: the
//! client's connection, the upstream's and the timers between them live on the
//! lane that the client's connection was given to. Nothing of it has to wake
//! another thread, which on a small machine costs more than all that is decided
//! about a call. What is not about one connection (housekeeping, the vault's
//! writer, the audit log) runs elsewhere.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// More would share caches and pools without need.
const MOST: usize = 64;

struct Lane {
    handle: Handle,
    busy: Arc<AtomicUsize>,
    // Dropping it ends the lane.
    _open: oneshot::Sender<()>,
}

/// All lanes.
pub(crate) struct Lanes(Vec<Lane>);

impl Lanes {
    /// One lane for each processor that this process may use.
    ///
    /// # Errors
    /// If a thread or its event loop cannot be made.
    pub(crate) fn open() -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        (0..count.min(MOST))
            .map(open)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Runs a connection on the lane that has the fewest. What `begin` makes is
    /// made there.
    pub(crate) fn run<F>(&self, begin: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let fewest = |lane: &&Lane| lane.busy.load(Ordering::Relaxed);
        let Some(lane) = self.0.iter().min_by_key(fewest) else {
            return;
        };
        let place = Place::take(&lane.busy);
        lane.handle.spawn(async move {
            let _place = place;
            begin().await;
        });
    }
}

fn open(number: usize) -> io::Result<Lane> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_park(countersign_presets::clear_spent)
        .build()?;
    let handle = runtime.handle().clone();
    let (open, closed) = oneshot::channel();
    std::thread::Builder::new()
        .name(format!("lane-{number}"))
        .spawn(move || {
            countersign_presets::keep_spent();
            // It ends with an error, by design: the sender is dropped.
            let _ = runtime.block_on(closed);
        })?;
    Ok(Lane {
        handle,
        busy: Arc::default(),
        _open: open,
    })
}

/// One connection on a lane.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(busy: &Arc<AtomicUsize>) -> Self {
        busy.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(busy))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::mpsc;

    #[test]
    fn connections_are_spread_over_all_lanes() {
        let lanes = Lanes((0..3).map(|n| open(n).unwrap()).collect());
        let (tell, told) = mpsc::channel();
        let (_hold, held) = tokio::sync::watch::channel(());
        for _ in 0..6 {
            let (tell, mut held) = (tell.clone(), held.clone());
            lanes.run(move || async move {
                let name = std::thread::current().name().map(str::to_owned);
                tell.send(name).unwrap();
                let _ = held.changed().await;
            });
        }
        let seen: Vec<_> = told.iter().take(6).collect();
        let lanes: HashSet<_> = seen.iter().collect();
        assert_eq!(lanes.len(), 3, "{seen:?}");
    }

    #[test]
    fn a_connection_that_ended_makes_room() {
        let lanes = Lanes(vec![open(0).unwrap()]);
        let (tell, told) = mpsc::channel();
        lanes.run(move || async move { tell.send(()).unwrap() });
        told.recv().unwrap();
        while lanes.0[0].busy.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
    }
}
