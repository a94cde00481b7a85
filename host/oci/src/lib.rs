//! Puts components into OCI registries and gets them from there.
//!
//! The layout is the one of CNCF TAG Runtime for WebAssembly: an OCI image
//! manifest whose config is `application/vnd.wasm.config.v0+json` and whose one
//! layer is the component as `application/wasm`, so that `wkg`, `oras` and the
//! like read it. What else belongs to a preset (its signature) travels in the
//! manifest's annotations: one layer is all that the layout allows, and an
//! annotation arrives together with the component, through every registry and
//! every copying tool.
//!
//! A registry is not trusted: its answers are capped, digests are checked over
//! what arrived, credentials go to the registry (and to the token server it
//! names) by https only, redirects take no credentials along and never lead to
//! a private address. That is why this is not `oci-client`: it follows
//! redirects anywhere, sends credentials to any realm, and reads manifests
//! without a cap.

mod artifact;
mod auth;
mod error;
mod http;
mod pull;
mod push;
mod reference;

pub use artifact::{
    Artifact, CONFIG_TYPE, Descriptor, LARGEST_LAYER, LARGEST_MANIFEST, LAYER_TYPE, MANIFEST_TYPE,
    Manifest, TITLE, WasmConfig, WasmInterfaces,
};
pub use auth::Credentials;
pub use error::{OciError, What};
pub use http::{Options, Progress, Registry};
pub use pull::Found;
pub use push::Pushed;
pub use reference::{Reference, ReferenceError};
