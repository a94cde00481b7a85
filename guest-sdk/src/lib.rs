//! Writing a provider preset: a WebAssembly component that tells Countersign
//! how a provider speaks OAuth, and judges each call an agent makes with a
//! user's account there.
//!
//! A preset that is pure data takes about ten lines:
//!
//! ```
//! use countersign_guest_sdk::prelude::*;
//!
//! struct Acme;
//! impl Provider for Acme {
//!     fn describe(_: &mut Settings) -> Result<Description, String> {
//!         Ok(Description::oauth2("acme", "Acme")
//!             .authorize("https://acme.com/oauth/authorize")
//!             .token("https://acme.com/oauth/token")
//!             .scopes(["files:read", "files:write"])
//!             .default_scopes(["files:read"])
//!             .audience(["api.acme.com", "mcp.acme.com"]))
//!     }
//! }
//! export_preset!(Acme);
//! # assert!(countersign_guest_sdk::describe::<Acme>("{}").is_ok());
//! ```
//!
//! Where data cannot say it, [`Provider::evaluate`] decides call by call, and
//! the traits of [`hooks`] do the rest; name them in [`export_preset!`].
//!
//! A preset is *blind*: it never holds a token. Where one belongs it writes a
//! [`Slot`](data::Slot), in text `{$access-token}` (see [`text`]), which the
//! host fills in after the last decision. It has no clock, no randomness, no
//! network, and an instance lives for one call, so that nothing can be kept.
//!
//! All of it runs natively as well: test with plain `cargo test`, calling
//! [`describe`] and [`Provider::evaluate`].

#[cfg(target_family = "wasm")]
mod allocator;
#[doc(hidden)]
pub mod bindings;
pub mod data;
mod description;
pub mod export;
pub mod hooks;
pub mod log;
mod parts;
pub mod policy;
mod provider;
mod redact;
mod requests;
mod settings;
#[doc(hidden)]
pub mod sign;
pub mod text;

pub use export::describe;
pub use provider::{Arguments, Provider, is_granted};
pub use settings::Settings;

/// What nearly every preset needs, for one glob import.
pub mod prelude {
    pub use crate::data::*;
    pub use crate::export_preset;
    pub use crate::provider::{Arguments, Provider, is_granted};
    pub use crate::settings::Settings;
    pub use crate::text::{Text, basic, bearer, template};
}
