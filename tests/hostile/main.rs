//! Hostile presets: components that do what presets must not do, each with the
//! sentence it is refused with, and a neighbour that must not notice.
//!
//! Most run against the catalog itself, a few through the built host. The
//! components are made on the spot (`fixture`), so that they can be as hostile
//! as WebAssembly text allows. While each does its worst, a well-behaved preset
//! of another provider is asked again and again; how long it took is printed,
//! never asserted.
#![allow(unreachable_pub, missing_docs, reason = "a test binary")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests are an edge: they look at a real clock to show latencies"
)]

mod calls;
mod descriptions;
mod files;
mod hooks;
mod host;
mod policies;
mod policy;
mod rollback;
mod street;
mod upgrade;
mod wasi;

#[allow(dead_code, reason = "shared with the crate's own tests")]
#[path = "../../host/presets/tests/presets/fixture.rs"]
mod fixture;
#[allow(dead_code, reason = "shared with the crate's own tests")]
#[path = "../../host/presets/tests/presets/house.rs"]
mod house;
