//! What the end-to-end tests are made of: the built host, its real
//! counterparts, an agent, a browser without a screen.
//!
//! ```text
//! World ── Host           the binary `countersign`, in a folder of its own
//!       ├─ Provider       oidc-provider: the vendor's authorization server
//!       ├─ Upstream       the vendor's MCP server
//!       ├─ Person         a user here: a browser, and a name at the vendor
//!       └─ Agent          speaks MCP with a token that the user allowed
//! ```
//!
//! A test takes what it needs from [`World`] and drops it: every process ends
//! with the value that stands for it. When a test panics, the end of the
//! host's log is printed.
#![expect(
    clippy::disallowed_methods,
    reason = "tests are an edge: they own a real clock and a client of their own"
)]

mod agents;
mod balancer;
mod browser;
mod host;
mod keys;
mod mcp;
mod pages;
pub mod postgres;
mod process;
mod registry;
mod sides;
mod trap;
mod web;
mod world;

pub use agents::{Live, Run, SDKS, Sdk};
pub use balancer::Balancer;
pub use browser::{Browser, Page, Person};
pub use host::{Admin, Host, HostOptions};
pub use keys::key_pair;
pub use mcp::{Agent, Consent, Era, Events, Reply};
pub use pages::in_chromium;
pub use process::{Log, built, free_port, repository, target_folder};
pub use registry::{DockerRegistry, REGISTRY_PASSWORD, REGISTRY_USER};
pub use sides::{Provider, Side, Upstream};
pub use trap::{Caught, Trap};
pub use web::{Answer, Web};
pub use world::{NOTES, Setup, World};
