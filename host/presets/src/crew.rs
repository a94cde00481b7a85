//! A few hands for many components: reading and compiling them side by side.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Components that are compiled side by side at most: each compiler works on
/// several functions at once by itself.
const WORKERS: usize = 4;
/// Files between two lines of progress.
const PROGRESS: usize = 10;

/// Does each piece of work, a few at a time; the outcomes are in the order of
/// the pieces, whichever is done first. `what` is for the log.
pub(crate) fn side_by_side<W: Sync, T: Send>(
    what: &str,
    work: &[W],
    each: impl Fn(&W) -> T + Sync,
) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = cores.min(WORKERS).min(work.len());
    if workers < 2 {
        return work.iter().map(each).collect();
    }
    let next = AtomicUsize::new(0);
    let (done, outcomes) = mpsc::channel();
    let mut all: Vec<Option<T>> = work.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (next, done, each) = (&next, done.clone(), &each);
            scope.spawn(move || {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(piece) = work.get(place) else {
                        return;
                    };
                    // Read to the end below.
                    let _ = done.send((place, each(piece)));
                }
            });
        }
        drop(done);
        for (count, (place, outcome)) in outcomes.iter().enumerate() {
            if (count + 1) % PROGRESS == 0 && count + 1 < work.len() {
                tracing::info!("{what}: looked at {} of {}", count + 1, work.len());
            }
            if let Some(slot) = all.get_mut(place) {
                *slot = Some(outcome);
            }
        }
    });
    if work.len() >= PROGRESS {
        tracing::info!("{what}: looked at all {}", work.len());
    }
    // Every piece has its outcome: a worker that panicked has ended this, too.
    all.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_in_the_order_of_the_work() {
        let work: Vec<usize> = (0..50).collect();
        let found = side_by_side("numbers", &work, |n| {
            std::thread::yield_now();
            n * 2
        });
        assert_eq!(found, (0..50).map(|n| n * 2).collect::<Vec<_>>());
        assert!(side_by_side("nothing", &[0; 0], |n| *n).is_empty());
    }
}
