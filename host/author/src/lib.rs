//! The author's side of presets: works offline, without a host.
//!
//! - [`project`]: new projects, and building them;
//! - [`kit`]: the conformance kit, a provider in a box;
//! - [`bench`]: what one call costs.
#![forbid(unsafe_code)]

pub mod bench;
pub mod kit;
pub mod project;
