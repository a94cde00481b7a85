//! The crate from outside, with components made on the spot.
#![allow(unreachable_pub, missing_docs, reason = "a test binary")]

mod descriptions;
mod faults;
mod fixture;
mod hooks;
mod house;
mod life;
mod refusals;
mod signatures;
mod swaps;
mod trust;
