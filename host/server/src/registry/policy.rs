//! Policies as they are written and read.

use countersign_core::policy::{Condition, Effect, Policy};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod check;

pub(super) use check::{Known, check};

/// A policy as somebody writes it: `POST` takes it, `PATCH` merges into it
/// (RFC 7396), `null` or absence means the default. In lists of names, `*`
/// stands for any run of characters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyInput {
    /// Lower-case letters, digits and hyphens; immutable.
    #[schema(pattern = "^[a-z][a-z0-9-]{0,62}$", example = "no-deletes")]
    pub name: String,
    /// For people; the name if absent.
    pub display_name: Option<String>,
    /// Lower ones are looked at first; 100 if absent.
    pub order: Option<u32>,
    /// Whom it is about; everybody if absent.
    pub who: Option<WhoInput>,
    /// Servers; all if empty.
    pub servers: Option<Vec<String>>,
    /// MCP methods; `tools/call` if empty.
    pub methods: Option<Vec<String>>,
    /// Tools (names of prompts, addresses of resources); all if empty.
    pub tools: Option<Vec<String>>,
    /// Which calls it is not about after all.
    pub except: Option<ExceptInput>,
    /// Conditions on the arguments; all must hold.
    pub when: Option<Vec<ConditionInput>>,
    /// What it does; one of the members.
    pub effect: Option<EffectInput>,
    /// Whether it is in force; true if absent.
    pub enabled: Option<bool>,
}

/// Whom a policy is about: each list that is not empty must name the caller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WhoInput {
    /// Names of users.
    pub users: Vec<String>,
    /// The team in which the caller acts.
    pub teams: Vec<String>,
    /// One of the caller's roles.
    pub roles: Vec<String>,
    /// Ids of agents: OAuth clients, `token:NAME:…` for API tokens.
    pub clients: Vec<String>,
}

/// Which calls a policy is not about: one entry that fits is enough.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExceptInput {
    /// Names of users.
    pub users: Vec<String>,
    /// The team in which the caller acts.
    pub teams: Vec<String>,
    /// One of the caller's roles.
    pub roles: Vec<String>,
    /// Ids of agents.
    pub clients: Vec<String>,
    /// Servers.
    pub servers: Vec<String>,
    /// Tools.
    pub tools: Vec<String>,
}

/// One condition on the arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConditionInput {
    /// A JSON pointer (RFC 6901) into the arguments.
    #[schema(example = "/amount")]
    pub pointer: String,
    /// `equals`, `not_equals`, `in`, `not_in`, `matches`, `not_matches`,
    /// `present`, `absent`, `less_than`, `at_most`, `greater_than`, `at_least`
    /// or `longer_than`.
    #[schema(example = "greater_than")]
    pub operator: String,
    /// What it is compared with: a value, a list for `in` and `not_in`, a
    /// pattern or a list of them for `matches` and `not_matches`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[schema(value_type = Object)]
    pub value: Value,
}

/// What a policy does; one of the members.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EffectInput {
    /// The call is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny: Option<DenyInput>,
    /// The user is asked first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub need_approval: Option<NeedApprovalInput>,
    /// A component of the organisation's own judges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<PolicyComponentInput>,
}

/// Which component judges, and how it is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyComponentInput {
    /// `NAME` of its file `catalog/policies/NAME-VERSION.wasm`.
    pub name: String,
    /// The content that is approved; the newest version's if absent.
    pub digest: Option<String>,
    /// Passed on to it.
    #[schema(value_type = Option<Object>)]
    pub settings: Option<Map<String, Value>>,
}

/// How a call is refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DenyInput {
    /// A short, stable word for the agent; `policy` if absent.
    pub code: Option<String>,
    /// For the user.
    pub message: Option<String>,
}

/// How the user is asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NeedApprovalInput {
    /// Why he is asked.
    pub message: Option<String>,
}

impl From<&Policy> for PolicyInput {
    fn from(p: &Policy) -> Self {
        let effect = match &p.effect {
            Effect::Deny { code, message } => EffectInput {
                deny: Some(DenyInput {
                    code: Some(code.clone()),
                    message: Some(message.clone()),
                }),
                ..EffectInput::default()
            },
            Effect::NeedApproval { message } => EffectInput {
                need_approval: Some(NeedApprovalInput {
                    message: Some(message.clone()),
                }),
                ..EffectInput::default()
            },
            Effect::Component {
                name,
                digest,
                settings,
            } => EffectInput {
                component: Some(PolicyComponentInput {
                    name: name.to_string(),
                    digest: Some(digest.to_string()),
                    settings: Some(settings.clone()),
                }),
                ..EffectInput::default()
            },
        };
        let condition = |c: &Condition| ConditionInput {
            pointer: c.pointer.clone(),
            operator: c.operator.name().to_owned(),
            value: c.value.clone(),
        };
        Self {
            name: p.name.to_string(),
            display_name: Some(p.display_name.clone()),
            order: Some(p.order),
            who: Some(WhoInput {
                users: p.who.users.clone(),
                teams: p.who.teams.clone(),
                roles: p.who.roles.clone(),
                clients: p.who.clients.clone(),
            }),
            servers: Some(p.servers.clone()),
            methods: Some(p.methods.clone()),
            tools: Some(p.tools.clone()),
            except: Some(ExceptInput {
                users: p.except.users.clone(),
                teams: p.except.teams.clone(),
                roles: p.except.roles.clone(),
                clients: p.except.clients.clone(),
                servers: p.except.servers.clone(),
                tools: p.except.tools.clone(),
            }),
            when: Some(p.when.iter().map(condition).collect()),
            effect: Some(effect),
            enabled: Some(p.enabled),
        }
    }
}
