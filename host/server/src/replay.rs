//! Trying versions of a preset on decisions that were made.
//!
//! A preset has no clock, randomness, network or files, so a decision is a
//! function of component, settings, call and grant. A server that is told to
//! (`record_decisions`) records these inputs, redacted; a new version is then
//! asked the same.
//!
//! What redaction may change is checked, not assumed: the version that judged
//! a call is asked again on what is kept, and an input that it now decides
//! differently is marked and left out of every comparison.

pub mod compare;
pub mod input;
mod recorder;
mod redact;

pub use compare::{Replay, replay};
pub use input::{Recorded, Said};
pub use recorder::{Recorder, follow};
