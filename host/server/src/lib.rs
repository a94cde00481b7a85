//! The host: configuration, command line, REST API, pages, and the one flow
//! that carries a call.
#![forbid(unsafe_code)]

pub mod accounts;
pub mod approvals;
pub mod attachments;
mod call;
pub mod cli;
pub mod config;
pub mod discovery;
pub mod doctor;
pub mod epoch;
pub mod faults;
pub mod http;
pub mod in_flight;
pub mod init;
pub mod issuers;
pub mod keys;
mod lanes;
pub mod metrics;
pub mod mode_changes;
pub mod opening;
pub mod registry;
pub mod replay;
mod replicas;
pub mod restore;
pub mod serve;
pub mod surroundings;
pub mod trust;
pub mod user_keys;
mod verdicts;
pub mod wiring;
