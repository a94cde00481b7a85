//! Runs presets: the sandbox, its limits, the load pipeline and the catalog.
//!
//! A preset is a WebAssembly component that decides and never holds a secret.
//! This crate is the only one that links wasmtime. It turns files of a
//! directory into [`countersign_core::preset::Preset`]s:
//!
//! 1. [`Catalog`] watches the directory and takes each `NAME-VERSION.wasm`
//!    through the load pipeline; a refusal is a [`LoadError`], a sentence.
//! 2. [`Catalog::bind`] describes a component under one provider's settings
//!    and serves it once its [`PermissionSet`] is approved.
//! 3. Every call runs in a fresh sandbox with a deadline and limits
//!    ([`EngineConfig`]); each way to fail is its own
//!    [`countersign_core::preset::PresetFault`].
//!
//! Compiling and describing block for milliseconds to seconds: async callers
//! use a blocking thread for everything but [`Catalog::current`] and the
//! preset's own methods.

mod abi;
mod approval;
mod bound;
mod cache;
mod catalog;
mod check;
mod compiling;
mod crew;
mod deadline;
mod engine;
mod faults;
mod host;
mod interfaces;
mod keys;
mod limits;
mod load;
#[cfg(feature = "observe")]
pub mod observe;
mod outline;
mod permissions;
mod policies;
pub mod signature;
mod spent;
mod symbols;
mod terms;
mod wasi;
mod workbench;

pub use approval::{Approval, ApprovalHash, canonical_settings};
pub use cache::CompileCache;
pub use catalog::{
    BindError, BindingStatus, Catalog, CatalogEntry, CatalogEvent, ConsentHook, FaultReport,
    FileState, Inspection, OpenError, PassedOver, PolicyChange, Proposal, Serving,
    compare_versions, inspect_file, inspect_file_with, rehearse_file,
};
pub use check::CheckError;
pub use engine::{ClassConfig, EngineConfig, EngineError};
pub use interfaces::{Interfaces, interfaces_of};
pub use load::{LARGEST_COMPONENT, LoadError, is_component_name, is_version};
pub use permissions::{PermissionDifference, PermissionSet};
pub use policies::{Policies, PolicyBindError, PolicyDescription, PolicyFile};
pub use spent::{clear_spent, keep_spent};
pub use symbols::SymbolError;
pub use terms::Terms;
pub use workbench::{Trial, Workbench};
