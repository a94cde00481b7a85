//! MCP as Countersign speaks it: envelopes, headers, sessions and streams of
//! every supported protocol revision, and the transport to upstream servers.
//! Nothing in here knows OAuth, and nothing decides what may pass.
//!
//! Where to look, in the order of a call:
//! - what the client sent: [`headers`] and [`envelope`] (one strict parse),
//!   [`revision`] (which rules apply), [`session`] (whose session it is),
//!   [`batch`] (2025-03-26 only);
//! - what goes upstream: [`headers::Outgoing`], [`lazy`] (a session begun late),
//!   [`upstream`] (the pooled, guarded client);
//! - what comes back: [`body`], [`sse`], [`relay`] (looked at, unbuffered),
//!   [`rewrite`] (filtered lists, refused URLs), [`redact`] (what a preset takes
//!   out of a result);
//! - what is said instead when the call cannot go through: [`answer`] and
//!   [`refusal`].
#![forbid(unsafe_code)]

pub mod answer;
pub mod batch;
pub mod body;
pub mod envelope;
pub mod headers;
pub mod json;
pub mod lazy;
pub mod redact;
pub mod refusal;
pub mod relay;
pub mod revision;
pub mod rewrite;
pub mod session;
pub mod sse;
mod strict;
pub mod upstream;
