//! The real clock and the real randomness: the one place where both are read.

use std::time::Instant;

use countersign_core::ports::{Clock, Random};
use countersign_core::time::Timestamp;

/// The machine's clocks.
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the clock that everything else takes"
        )]
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the clock that everything else takes"
        )]
        Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
    }

    fn monotonic_micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, buffer: &mut [u8]) {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the source that everything else takes"
        )]
        let filled = getrandom::fill(buffer);
        // Going on with predictable bytes would be worse than stopping.
        assert!(filled.is_ok(), "the operating system gives no randomness");
    }
}
