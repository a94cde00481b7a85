//! The sandbox that has answered, on threads that clear it later.
//!
//! Clearing a sandbox takes about as long as what it did, and nobody waits for
//! it. A thread that has asked for that keeps its last one until it has nothing
//! else to do: as a rule while the upstream works on the call. None is used
//! again, and each still takes its place in the pool. A thread that always has
//! something else to do clears at once, while the sandbox is in its caches.

use std::cell::RefCell;

use wasmtime::Store;

use crate::engine::Seat;
use crate::host::HostState;

/// How many are cleared at once after a thread was too busy for one.
const BUSY: u8 = 100;

struct Spent {
    // Dropped before the seat is given back.
    _store: Store<HostState>,
    _seat: Seat,
}

enum Later {
    /// The thread has not asked for it.
    Never,
    /// None is kept; so many more are cleared at once.
    After(u8),
    Kept(#[expect(dead_code, reason = "it is there to be dropped")] Spent),
}

thread_local! {
    static LATER: RefCell<Later> = const { RefCell::new(Later::Never) };
}

/// From now on this thread keeps its last sandbox until [`clear_spent`].
pub fn keep_spent() {
    LATER.with_borrow_mut(|later| {
        if matches!(later, Later::Never) {
            *later = Later::After(0);
        }
    });
}

/// Clears what this thread has kept: call it where nothing else is to be done.
pub fn clear_spent() {
    clear_before(0);
}

/// Clears it because the thread goes on: the next takes its place in the pool,
/// which is warm.
pub(crate) fn clear_for_next() {
    clear_before(BUSY);
}

fn clear_before(at_once: u8) {
    LATER.with_borrow_mut(|later| {
        if matches!(later, Later::Kept(_)) {
            *later = Later::After(at_once);
        }
    });
}

/// Clears a sandbox, later if this thread does so.
pub(crate) fn done_with(store: Store<HostState>, seat: Seat) {
    let spent = Spent {
        _store: store,
        _seat: seat,
    };
    LATER.with_borrow_mut(|later| match later {
        Later::Never => {}
        Later::After(0) | Later::Kept(_) => *later = Later::Kept(spent),
        Later::After(n) => *n -= 1,
    });
}
