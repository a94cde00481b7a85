//! The look of every page: one layout, one style sheet, a few components.
//!
//! Markup is made with maud, so text is escaped by construction. There is no
//! inline script and no inline style, so the content security policy allows
//! neither; every page works without JavaScript.
#![forbid(unsafe_code)]

mod assets;
mod page;
pub mod parts;

pub use assets::assets;
pub use page::{Page, Viewer, message};
