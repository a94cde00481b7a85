//! Consent, refresh and revocation against a small authorization server that
//! answers as it is told. The real ones are in the workspace's `tests`.

mod consent;
mod device;
mod links;
mod refresh;
mod replicas;
mod revoke;
mod support;
mod upkeep;
mod wire;
