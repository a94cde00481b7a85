//! The versions of the interface that this host understands.
//!
//! One file per released world; each turns its guests into the same
//! [`Guest`]. The version is read from the name of the export.

use std::sync::Arc;

use countersign_core::preset::{
    AccountFacts, Call, Description, GrantFacts, Hooks, PresetFault, Redaction, TokenShape, Verdict,
};
use countersign_core::signing::{Recipe, Unsigned};
use wasmtime::component::Component;

use crate::engine::{EngineConfig, SizeClass};
use crate::host::PresetLog;

pub(crate) mod v0_1_0;

/// The package all interfaces belong to.
pub(crate) const PACKAGE: &str = "countersign:preset/";

/// A released world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// `wit/v0.1.0`
    V0_1_0,
}

impl Version {
    /// The newest one, for messages.
    pub(crate) const NEWEST: &'static str = v0_1_0::PROVIDER;

    /// The version whose `provider` interface has this name.
    pub(crate) fn of_export(name: &str) -> Option<Self> {
        (name == v0_1_0::PROVIDER).then_some(Self::V0_1_0)
    }
}

/// What `describe` answered.
pub(crate) struct Described {
    pub(crate) description: Description,
    /// Tools whose arguments `evaluate` wants; empty means every call's.
    pub(crate) arguments_of: Vec<String>,
}

/// A compiled preset of any version. Each call runs in a fresh sandbox.
pub(crate) trait Guest: Send + Sync {
    /// Hooks that the component exports, whether or not it wants them called.
    fn exported_hooks(&self) -> Hooks;

    fn describe(&self, settings: &str) -> Result<Described, PresetFault>;

    fn evaluate(
        &self,
        call: &Call<'_>,
        settings: Option<&str>,
        grant: &GrantFacts<'_>,
    ) -> Result<Verdict, PresetFault>;

    /// Bytes of linear memory after one `evaluate`.
    fn memory_of(
        &self,
        call: &Call<'_>,
        settings: Option<&str>,
        grant: &GrantFacts<'_>,
    ) -> Result<usize, PresetFault>;

    /// `evaluate` again and again in one sandbox; only for measuring.
    fn kept(
        &self,
        rounds: u32,
        call: &Call<'_>,
        settings: Option<&str>,
        grant: &GrantFacts<'_>,
        after: &mut dyn FnMut(),
    ) -> Result<(), PresetFault>;

    fn authorize_parameters(
        &self,
        settings: &str,
        scopes: Vec<String>,
    ) -> Result<Vec<(String, String)>, PresetFault>;

    fn token_answer(&self, status: u16, masked_body: &str) -> Result<Vec<TokenShape>, PresetFault>;

    /// Whether the refusal is final.
    fn refresh_error(
        &self,
        status: u16,
        code: Option<&str>,
        masked_body: &str,
    ) -> Result<bool, PresetFault>;

    fn filter_tools(
        &self,
        tools: &[String],
        grant: &GrantFacts<'_>,
    ) -> Result<Vec<String>, PresetFault>;

    fn sign(&self, request: &Unsigned) -> Result<Recipe, PresetFault>;

    fn identity(&self, body: &str) -> Result<AccountFacts, PresetFault>;

    fn redact(
        &self,
        call: &Call<'_>,
        settings: Option<&str>,
        content: &str,
    ) -> Result<Vec<Redaction>, PresetFault>;
}

/// What a guest is prepared from.
pub(crate) struct Compiled {
    pub(crate) component: Component,
    pub(crate) class: Arc<SizeClass>,
    pub(crate) log: Arc<PresetLog>,
    pub(crate) config: EngineConfig,
    /// Whether the component imports `signing`.
    pub(crate) signing: bool,
}

/// Links a component for its version.
pub(crate) fn prepare(version: Version, compiled: Compiled) -> Result<Box<dyn Guest>, String> {
    match version {
        Version::V0_1_0 => match v0_1_0::Prepared::new(compiled) {
            Ok(guest) => Ok(Box::new(guest)),
            Err(error) => Err(format!("{error:#}")),
        },
    }
}
