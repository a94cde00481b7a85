//! The host's log. Lines carry the preset's name; the host limits their number
//! and their length. Do not log arguments: they are the user's.

pub use crate::bindings::preset::countersign::preset::log::Level;

/// Writes one line. In native tests it goes to standard error.
pub fn write(level: Level, message: &str) {
    #[cfg(target_family = "wasm")]
    crate::bindings::preset::countersign::preset::log::log(level, message);
    #[cfg(not(target_family = "wasm"))]
    eprintln!("{level:?}: {message}");
}

/// For whoever debugs the preset.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// Worth knowing.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Something is odd, and handled.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Something went wrong.
pub fn error(message: &str) {
    write(Level::Error, message);
}
