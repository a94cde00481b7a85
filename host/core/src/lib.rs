//! The pure heart of Countersign.
//!
//! Everything here is a function of its arguments: no clock, no randomness, no
//! I/O and no async runtime. The crates around it meet in [`ports`].
//!
//! Where to look:
//! - what things are: [`names`], [`scope`], [`provider`], [`server`],
//!   [`connection`] and its [`origins`], [`registration`], [`user_key`], [`caller`],
//!   [`issuer`] (tokens that others have signed), [`preset`];
//! - what must stay secret: [`secret`], [`tokens`], and [`veil`] before guests;
//! - what is decided: [`policy`], [`approval`] (the user's word), [`decide`]
//!   (the only maker of a [`decide::Permit`]), [`inject`] (the only reader of a
//!   token), [`signing`], [`jwt`], [`refresh`], [`token_answer`];
//! - what is said when it fails: [`error`]; what is kept of it: [`audit`].
#![forbid(unsafe_code)]

pub mod address;
pub mod approval;
pub mod audit;
pub mod caller;
pub mod challenge;
pub mod connection;
pub mod decide;
pub mod error;
pub mod hosts;
pub mod inject;
pub mod issuer;
pub mod jwt;
pub mod names;
mod needs;
pub mod origins;
pub mod policy;
pub mod ports;
pub mod preset;
pub mod provider;
pub mod refresh;
pub mod registration;
pub mod rehearse;
pub mod request;
pub mod scope;
pub mod secret;
pub mod server;
pub mod signing;
pub mod template;
pub mod time;
pub mod token_answer;
pub mod tokens;
pub mod upkeep;
pub mod user_key;
pub mod veil;
