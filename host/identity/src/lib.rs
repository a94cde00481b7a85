//! Who is calling: users, teams, roles, browser sign-in, the embedded
//! authorization server, and the tokens it and the API hand out.
//!
//! - [`Identity`] is the service; [`routes`] are its pages and endpoints.
//! - The proxy asks [`Identity::authenticate`]; REST asks
//!   [`Identity::principal`]; pages ask [`Identity::require_session`] and
//!   [`Identity::check_form`].
//! - Where to look: what is stored ([`accounts`], [`tokens`]), what people see
//!   (`web`), what agents speak (`oauth`).
//!
//! Tokens, codes and cookies are opaque random values. The store only ever
//! has their keyed fingerprints, so whoever reads it can sign in as nobody.
#![forbid(unsafe_code)]

pub mod accounts;
mod audience;
mod authenticate;
mod bootstrap;
mod cache;
mod external;
mod oauth;
mod params;
mod password;
mod service;
mod session;
mod settings;
mod throttle;
pub mod tokens;
mod web;

pub use audience::{Audience, SCOPE_API, SCOPE_MCP};
pub use authenticate::{AuthError, Principal, bearer};
pub use bootstrap::Bootstrap;
pub use external::{ExternalIssuer, ForeignIdentity, IssuerKeys};
pub use oauth::metadata_document::{FetchError, MetadataFetcher};
pub use password::{OneTime, Password, PasswordCost, WeakPassword};
pub use service::{AccountChange, AccountEvents, Identity, Parts, Resources, ServerFacts};
pub use session::BrowserSession;
pub use settings::{Admission, InvalidPublicUrl, PublicUrl, Settings};
pub use throttle::neighbourhood;
pub use web::{ClientAddress, routes};
