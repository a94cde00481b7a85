//! Builds presets: from a crate to a component.
//!
//! 1. [`Toolchain::find`] finds a compiler for `wasm32-unknown-unknown`, or
//!    gets one.
//! 2. [`crates`] says what a workspace builds; [`Toolchain::build`] compiles it
//!    so that the same sources give the same bytes in any folder ([`wrapper`]).
//! 3. [`encode`] makes a component of a core module, [`put`] writes it.
//!
//! `cargo xtask presets` and `countersign preset build` both go through here.
#![forbid(unsafe_code)]

mod compile;
mod component;
mod debian;
mod error;
pub mod wrapper;

pub use compile::{Order, PresetCrate, Toolchain, cargo, crates};
pub use component::{Component, encode, put};
pub use debian::cache_folder;
pub use error::BuildError;

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
