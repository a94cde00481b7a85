//! End to end: every module is a subject, every test a claim about the built
//! host beside real counterparts.

mod agents;
mod attacks;
mod author;
mod bad_input;
mod canary;
mod conformance;
mod consent;
mod devices;
mod discovery;
mod exchange;
mod grants;
mod hooks;
mod issuers;
mod keys;
mod kill;
mod pages;
mod policies;
mod policy_components;
mod presets;
mod publish;
mod records;
mod redirects;
mod refresh;
mod register;
mod replicas;
mod restore;
mod rmcp_client;
mod signing;
mod steps;
mod swap;
mod trust;
mod upkeep;
mod user_keys;
