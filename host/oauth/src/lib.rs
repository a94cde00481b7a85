//! Client of OAuth providers: consent (by redirect or by code), refresh, revocation, tokens obtained
//! without a consent, the keys that the host signs with, and the guarded HTTP
//! client that all of it goes through.
//!
//! Which parts of the `oauth2` crate are used: PKCE, `state` and the
//! authorization URL. Token, refresh and revocation requests are made by
//! [`countersign_core::request`] instead, for two reasons: providers differ
//! from RFC 6749 in more ways than the crate can be told (bodies in JSON,
//! errors with status 200, nested tokens, other client authentication), and a
//! secret must not leave the core as a plain string, which the crate's request
//! types would need.
#![forbid(unsafe_code)]

pub mod callback;
pub mod connections;
pub mod consent;
pub mod device;
pub mod discovery;
mod health;
pub mod http;
pub mod links;
pub mod observe;
pub mod obtain;
pub mod refresh;
pub mod revoke;
mod service;
pub mod signers;
pub mod upkeep;
mod waiters;

pub use service::{AnswerHook, ClientKeeper, Held, Oauth, Party, Witness};
