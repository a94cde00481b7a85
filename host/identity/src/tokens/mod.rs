//! Tokens: what is stored of them, API tokens, and a user's agents.
//!
//! A *grant* is what tokens descend from: a user's word to an agent, or an API
//! token. Its record is the switch: when it is gone, so are all its tokens.

mod agents;
mod api;
mod record;

pub use agents::AgentView;
pub use api::{NewToken, TokenKind, TokenView};
pub(crate) use record::{
    ACCESS, CODE, Grant, GrantFor, REFRESH, SESSION, TokenRecord, TokenState, grant_key, record_key,
};
