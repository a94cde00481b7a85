//! What is kept of a decision.

use countersign_core::names::Digest;
use countersign_core::preset::{Call, GrantFacts, Preset, PresetFault, Verdict};
use countersign_core::rehearse::rehearse;
use countersign_core::scope::{Scope, ScopeSet};
use serde::{Deserialize, Serialize};

/// The redacted input of one decision, and what was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// The MCP method.
    pub method: String,
    /// The tool, prompt or resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The server's host.
    pub host: String,
    /// Whether a user's connection was used.
    pub connected: bool,
    /// What was granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The account, if the preset wanted to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Facts of the connection, if the preset wanted to be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Vec<String>>)]
    pub facts: Vec<(String, String)>,
    /// The arguments as JSON text, if the preset wanted to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    /// The component that judged.
    #[schema(value_type = String)]
    pub preset: Digest,
    /// What it said of the real input.
    pub said: Said,
    /// Whether it says the same of what is kept here; if not, nothing can be
    /// learnt from replaying it.
    pub faithful: bool,
}

/// A verdict without what it would send.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Said {
    /// It may go.
    Allow {
        /// With this credential; the first if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<String>,
        /// Digest of the rules that replace the described ones.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>)]
        rules: Option<Digest>,
    },
    /// It may not.
    Deny {
        /// The preset's word.
        code: String,
    },
    /// These scopes first.
    NeedScopes {
        /// In order of name.
        scopes: Vec<String>,
    },
    /// The preset failed.
    Fault {
        /// How, in a word.
        class: String,
    },
}

impl From<Result<Verdict, PresetFault>> for Said {
    fn from(verdict: Result<Verdict, PresetFault>) -> Self {
        match verdict {
            Ok(Verdict::Allow { credential, rules }) => Self::Allow {
                credential,
                rules: (!rules.is_empty())
                    .then(|| Digest::of(&serde_json::to_vec(&rules).unwrap_or_default())),
            },
            Ok(Verdict::Deny { code, .. }) => Self::Deny { code },
            Ok(Verdict::NeedScopes(mut scopes)) => {
                scopes.sort();
                Self::NeedScopes { scopes }
            }
            Err(fault) => Self::Fault {
                class: match fault {
                    PresetFault::Trap(_) => "crashed",
                    PresetFault::Deadline => "timeout",
                    PresetFault::Memory => "memory",
                    PresetFault::BadOutput(_) => "bad_output",
                    PresetFault::Reported(_) => "reported",
                    PresetFault::Unavailable(_) | PresetFault::Busy => "unavailable",
                }
                .to_owned(),
            },
        }
    }
}

impl Recorded {
    /// What a preset says of it. Blocks for as long as a call would.
    #[must_use]
    pub fn ask(&self, preset: &dyn Preset) -> Said {
        let scopes: ScopeSet = self
            .scopes
            .iter()
            .filter_map(|s| Scope::parse(s).ok())
            .collect();
        let call = Call {
            method: &self.method,
            name: self.name.as_deref(),
            arguments: self.arguments.as_deref(),
            host: &self.host,
        };
        let grant = GrantFacts {
            scopes: &scopes,
            account: self.account.as_deref(),
            facts: &self.facts,
        };
        rehearse(preset, &call, &grant, self.connected).into()
    }

    /// Whether this preset wants more than what was recorded: then it judges
    /// with less than it would have in the call.
    #[must_use]
    pub fn lacks_for(&self, preset: &dyn Preset) -> bool {
        let wants = preset.description().wants;
        let call = Call {
            method: &self.method,
            name: self.name.as_deref(),
            arguments: None,
            host: &self.host,
        };
        (self.arguments.is_none() && self.name.is_some() && preset.wants_arguments(&call))
            || (self.connected && wants.account && self.account.is_none())
    }
}
