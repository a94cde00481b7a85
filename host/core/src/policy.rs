//! Policies: what an organisation forbids, or wants a person's word for,
//! beyond what servers and presets say. A policy only ever narrows: nothing in
//! here can let a call through that something else refuses.
//!
//! [`Policy`] is the record, [`Rules`] are all that are in force, and
//! [`Rules::look_at`] is a pure function of a call.

use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use serde_json::{Map, Value};

use crate::names::{Digest, PolicyName, PresetName, ServerName};
use crate::preset::{Call, GrantFacts, PresetFault};
use crate::server::glob;
use crate::time::Timestamp;

pub mod arguments;
mod condition;
mod rules;

pub use condition::{Condition, Operator};
pub use rules::{Objection, Reason, Rule, Rules, Ruling};

/// Methods for which a user can be asked: those that can wait for him.
pub const METHODS_THAT_WAIT: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];

/// Whom a policy is about. An empty list is about everybody; several lists must
/// all name the caller. Patterns with `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Who {
    /// Names of users; upper and lower case are the same.
    pub users: Vec<String>,
    /// The team in which the caller acts.
    pub teams: Vec<String>,
    /// One of the caller's roles.
    pub roles: Vec<String>,
    /// Ids of agents: OAuth clients, or `token:NAME:…` for API tokens.
    pub clients: Vec<String>,
}

/// Which calls a policy is not about although all else fits: one entry that
/// fits is enough.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Except {
    /// Names of users.
    pub users: Vec<String>,
    /// The team in which the caller acts.
    pub teams: Vec<String>,
    /// One of the caller's roles.
    pub roles: Vec<String>,
    /// Ids of agents.
    pub clients: Vec<String>,
    /// Names of servers.
    pub servers: Vec<String>,
    /// Names of tools.
    pub tools: Vec<String>,
}

/// What a policy does to a call that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// It is refused.
    Deny {
        /// A short, stable word for the agent.
        code: String,
        /// For the user.
        message: String,
    },
    /// The user is asked first.
    NeedApproval {
        /// Why he is asked.
        message: String,
    },
    /// A component judges it.
    Component {
        /// The component.
        name: PresetName,
        /// The content that was approved, with these settings; no other runs.
        digest: Digest,
        /// Passed on to it.
        settings: Map<String, Value>,
    },
}

/// A call with all that a component may be told.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The call.
    pub asked: Asked<'a>,
    /// What the user's connection stands for.
    pub grant: GrantFacts<'a>,
}

/// What a component says to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It does not mind.
    Allow,
    /// No.
    Deny {
        /// A short, stable word.
        code: String,
        /// For the user.
        message: String,
    },
    /// Ask the user first.
    NeedApproval {
        /// Why.
        message: String,
    },
}

/// A component under one policy's settings.
pub trait Judge: Send + Sync {
    /// Digest of the component.
    fn digest(&self) -> Digest;

    /// Judges one call in a fresh sandbox.
    ///
    /// # Errors
    /// A [`PresetFault`]; the call must not be sent.
    fn judge(&self, subject: &Subject<'_>) -> Result<Judgement, PresetFault>;
}

/// A policy, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Unique.
    pub name: PolicyName,
    /// For people.
    pub display_name: String,
    /// Lower ones are looked at first; equal ones in order of name.
    pub order: u32,
    /// Whom it is about.
    pub who: Who,
    /// Names of servers; empty means all.
    pub servers: Vec<String>,
    /// MCP methods; empty means `tools/call`.
    pub methods: Vec<String>,
    /// Names of tools (of prompts, addresses of resources); empty means all.
    pub tools: Vec<String>,
    /// Which calls it is not about after all.
    pub except: Except,
    /// Conditions on the arguments; all must hold.
    pub when: Vec<Condition>,
    /// What it does.
    pub effect: Effect,
    /// Whether it is in force.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A condition that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("when[{index}]: {problem}")]
pub struct BadCondition {
    /// Which, from 0.
    pub index: usize,
    /// What to write instead.
    pub problem: String,
}

/// A call as policies see it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who calls.
    pub caller: &'a Caller,
    /// Which server.
    pub server: &'a ServerName,
    /// What is called.
    pub call: &'a Call<'a>,
}

impl Policy {
    /// Whether any call of this server can be meant.
    fn is_about_server(&self, server: &ServerName) -> bool {
        (self.servers.is_empty() || any(&self.servers, server.as_str()))
            && !any(&self.except.servers, server.as_str())
    }
}

impl Who {
    fn differs_by(&self, caller: &Caller) -> Option<&'static str> {
        let fits = |patterns: &[String], fits: bool| patterns.is_empty() || fits;
        if !fits(&self.users, any_user(&self.users, caller)) {
            Some("who.users")
        } else if !fits(&self.teams, any(&self.teams, caller.team.as_str())) {
            Some("who.teams")
        } else if !fits(&self.roles, any_role(&self.roles, caller)) {
            Some("who.roles")
        } else if !fits(&self.clients, any(&self.clients, caller.client.as_str())) {
            Some("who.clients")
        } else {
            None
        }
    }
}

impl Except {
    fn fits_by(&self, asked: &Asked<'_>) -> Option<&'static str> {
        let caller = asked.caller;
        if any_user(&self.users, caller) {
            Some("except.users")
        } else if any(&self.teams, caller.team.as_str()) {
            Some("except.teams")
        } else if any_role(&self.roles, caller) {
            Some("except.roles")
        } else if any(&self.clients, caller.client.as_str()) {
            Some("except.clients")
        } else if any(&self.servers, asked.server.as_str()) {
            Some("except.servers")
        } else if asked.call.name.is_some_and(|name| any(&self.tools, name)) {
            Some("except.tools")
        } else {
            None
        }
    }
}

fn any(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|p| glob(p, text))
}

/// `Alice` and `alice` are one person.
fn any_user(patterns: &[String], caller: &Caller) -> bool {
    let name = || caller.user.as_str().to_ascii_lowercase();
    !patterns.is_empty()
        && patterns
            .iter()
            .any(|p| glob(&p.to_ascii_lowercase(), &name()))
}

fn any_role(patterns: &[String], caller: &Caller) -> bool {
    caller.roles.iter().any(|role| any(patterns, role.as_str()))
}
