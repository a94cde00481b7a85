//! Presets.
mod abi;
mod engine;
mod faults;
mod host;
mod limits;
