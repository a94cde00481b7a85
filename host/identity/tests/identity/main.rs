//! What identity promises, told through its routes.

mod admin;
mod api_tokens;
mod authenticate;
mod authorize;
mod browser;
mod consent;
mod device;
mod documents;
mod refresh;
mod register;
mod sessions;
mod sign_in;
mod slow;
mod support;
mod token;
