//! What a guest can reach: a log, and keys it cannot read (see
//! [`crate::keys`]). Nothing else (the WASI of `crate::wasi` has nothing in it).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::deadline::Meter;
use crate::faults::is_harmless;
use crate::keys::KeyRing;
use crate::limits::Limiter;
use crate::wasi::Numbers;

/// Longest message that is logged, in characters.
const LONGEST: usize = 512;
/// Messages of one instance.
const PER_INSTANCE: u32 = 8;
/// Messages after which an instance is ended: nobody needs so many, and each
/// costs the host a crossing.
const TOO_MANY: u32 = 1000;
/// Messages of one preset in one second, all its instances together.
const PER_SECOND: u32 = 50;

/// What belongs to one sandbox and is dropped with it.
pub(crate) struct HostState {
    pub(crate) limiter: Limiter,
    pub(crate) meter: Meter,
    pub(crate) keys: KeyRing,
    /// The next random numbers of a guest that asks WASI for some.
    pub(crate) numbers: Numbers,
    log: Arc<PresetLog>,
    logged: u32,
}

impl HostState {
    pub(crate) fn new(limiter: Limiter, meter: Meter, log: Arc<PresetLog>) -> Self {
        Self {
            limiter,
            meter,
            keys: KeyRing::default(),
            numbers: Numbers::default(),
            log,
            logged: 0,
        }
    }

    /// Logs a guest's message unless it has said enough.
    ///
    /// # Errors
    /// If it goes on and on; the guest is ended.
    pub(crate) fn log(&mut self, level: Level, message: &str) -> wasmtime::Result<()> {
        self.logged = self.logged.saturating_add(1);
        if self.logged > TOO_MANY {
            return Err(wasmtime::format_err!(
                "it wrote more than {TOO_MANY} lines into the log in one call"
            ));
        }
        if self.logged <= PER_INSTANCE {
            self.log.write(level, message);
        } else {
            self.log.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// How loud a message is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// The log of one preset, shared by its instances.
pub(crate) struct PresetLog {
    tag: String,
    seconds: Arc<AtomicU64>,
    window: AtomicU64,
    written: AtomicU32,
    dropped: AtomicU32,
}

impl PresetLog {
    /// `seconds` counts up once a second.
    pub(crate) fn new(tag: String, seconds: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            tag,
            window: AtomicU64::new(seconds.load(Ordering::Relaxed)),
            seconds,
            written: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
        })
    }

    fn admits(&self) -> bool {
        let now = self.seconds.load(Ordering::Relaxed);
        if self.window.swap(now, Ordering::Relaxed) != now {
            self.written.store(0, Ordering::Relaxed);
        }
        self.written.fetch_add(1, Ordering::Relaxed) < PER_SECOND
    }

    fn write(&self, level: Level, message: &str) {
        if !self.admits() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let message: String = message
            .chars()
            .take(LONGEST)
            .map(|c| if is_harmless(c) { c } else { ' ' })
            .collect();
        let preset = self.tag.as_str();
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        match level {
            Level::Debug => {
                tracing::debug!(target: "countersign::preset", preset, dropped, "{message}")
            }
            Level::Info => {
                tracing::info!(target: "countersign::preset", preset, dropped, "{message}")
            }
            Level::Warn => {
                tracing::warn!(target: "countersign::preset", preset, dropped, "{message}")
            }
            Level::Error => {
                tracing::error!(target: "countersign::preset", preset, dropped, "{message}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_that_talks_too_much_is_cut_off_until_the_next_second() {
        let seconds = Arc::new(AtomicU64::new(7));
        let log = PresetLog::new("test".into(), Arc::clone(&seconds));
        let admitted = (0..1000).filter(|_| log.admits()).count();
        assert_eq!(admitted, PER_SECOND as usize);
        seconds.store(8, Ordering::Relaxed);
        assert!(log.admits());
    }

    #[test]
    fn one_instance_logs_only_so_many_lines() {
        let log = PresetLog::new("test".into(), Arc::default());
        let config = crate::engine::EngineConfig::default();
        let mut state = HostState::new(
            Limiter::new(&config.small),
            Meter::new(config.deadline),
            Arc::clone(&log),
        );
        for _ in 0..TOO_MANY {
            state.log(Level::Info, "hello").unwrap();
        }
        assert_eq!(log.dropped.load(Ordering::Relaxed), TOO_MANY - PER_INSTANCE);
        assert!(state.log(Level::Info, "hello").is_err());
    }
}
