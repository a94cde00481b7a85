//! A deadline in the guest's own time.
//!
//! Epochs count the clock on the wall. On a machine that has more to do than it
//! can, a thread may stand still for longer than a whole deadline, and a guest
//! that did nothing wrong would fail. So the epoch only asks; what counts is
//! the processor time of the thread, which costs a system call, and is read
//! only for guests that have already taken half of their deadline.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

use crate::engine::TICK;

/// Looked at whenever a running guest's epoch has passed.
pub(crate) struct Meter {
    half: Duration,
    /// Processor time of this thread when half of the deadline was over.
    mark: Option<Duration>,
}

impl Meter {
    pub(crate) fn new(deadline: Duration) -> Self {
        Self {
            half: deadline / 2,
            mark: None,
        }
    }

    /// Ticks until the first look.
    pub(crate) fn first(&self) -> u64 {
        ticks(self.half)
    }

    /// Goes on, or ends the guest.
    pub(crate) fn look(&mut self) -> UpdateDeadline {
        self.judge(processor_time())
    }

    fn judge(&mut self, now: Duration) -> UpdateDeadline {
        let mark = *self.mark.get_or_insert(now);
        match self.half.checked_sub(now.saturating_sub(mark)) {
            None | Some(Duration::ZERO) => UpdateDeadline::Interrupt,
            Some(left) => UpdateDeadline::Continue(ticks(left)),
        }
    }
}

/// Processor time that this thread has used. No clock in the sense of the
/// house: it decides nothing but how long a guest may run.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Ticks that are at least this long: one more than fit, because the first may
/// come at once.
fn ticks(time: Duration) -> u64 {
    let ticks = time.as_micros().div_ceil(TICK.as_micros());
    u64::try_from(ticks)
        .unwrap_or(u64::MAX - 1)
        .saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_deadline_is_never_shorter_than_asked() {
        for (time, expected) in [(0, 1), (1, 2), (5, 2), (6, 3), (50, 11)] {
            assert_eq!(ticks(millis(time)), expected, "{time}");
        }
    }

    #[test]
    fn only_time_that_the_guest_ran_counts() {
        let mut meter = Meter::new(millis(50));
        assert!(matches!(
            meter.judge(millis(1000)),
            UpdateDeadline::Continue(6)
        ));
        // Long ago on the wall, 10 ms for the guest.
        assert!(matches!(
            meter.judge(millis(1010)),
            UpdateDeadline::Continue(4)
        ));
        assert!(matches!(
            meter.judge(millis(1024)),
            UpdateDeadline::Continue(2)
        ));
        assert!(matches!(
            meter.judge(millis(1025)),
            UpdateDeadline::Interrupt
        ));
    }
}
