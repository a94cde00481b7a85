//! What may be written into a policy, checked before it is stored.

use std::collections::BTreeSet;

use countersign_core::names::{
    Digest, PolicyName, PresetName, RoleName, ServerName, TeamName, UserName,
};
use countersign_core::policy::{
    Condition, Effect, Except, METHODS_THAT_WAIT, Operator, Policy, Rule, Who,
};
use countersign_core::time::Timestamp;
use countersign_presets::{Policies, PolicyBindError};

use super::{ConditionInput, EffectInput, PolicyComponentInput, PolicyInput};
use crate::registry::{Refusal, text};

/// Where a policy stands that does not say it.
const USUAL_ORDER: u32 = 100;
const MOST_PATTERNS: usize = 50;
const MOST_CONDITIONS: usize = 20;
const LONGEST_MESSAGE: usize = 500;

/// Names that there are. One that a policy writes out and that does not exist
/// would protect nothing, silently.
pub(in crate::registry) struct Known {
    pub(in crate::registry) users: BTreeSet<String>,
    pub(in crate::registry) teams: BTreeSet<TeamName>,
    pub(in crate::registry) roles: BTreeSet<RoleName>,
    pub(in crate::registry) servers: BTreeSet<ServerName>,
}

/// Looks up and tries out components.
pub(in crate::registry) type Components<'a> = Option<&'a Policies>;

/// Parses and checks every field, alone and beside the others.
pub(in crate::registry) fn check(
    input: PolicyInput,
    known: &Known,
    components: Components<'_>,
    created_at: Timestamp,
    now: Timestamp,
) -> Result<Policy, Refusal> {
    let name = PolicyName::parse(&input.name).map_err(|e| Refusal::name("name", &e))?;
    // Its address would be that of the action.
    if name.as_str() == "preview" {
        return Err(Refusal::invalid(
            "name",
            "\"preview\" is taken; choose another",
        ));
    }
    let who = input.who.unwrap_or_default();
    let except = input.except.unwrap_or_default();
    let methods = patterns("methods", input.methods.unwrap_or_default())?;
    let effect = effect(input.effect.unwrap_or_default(), &methods, components)?;
    let policy = Policy {
        display_name: text::display_name(input.display_name.as_deref(), &input.name)?,
        order: input.order.unwrap_or(USUAL_ORDER),
        who: Who {
            users: known.users("who.users", who.users)?,
            teams: known.teams("who.teams", who.teams)?,
            roles: known.roles("who.roles", who.roles)?,
            clients: patterns("who.clients", who.clients)?,
        },
        servers: known.servers("servers", input.servers.unwrap_or_default())?,
        methods,
        tools: patterns("tools", input.tools.unwrap_or_default())?,
        except: Except {
            users: known.users("except.users", except.users)?,
            teams: known.teams("except.teams", except.teams)?,
            roles: known.roles("except.roles", except.roles)?,
            clients: patterns("except.clients", except.clients)?,
            servers: known.servers("except.servers", except.servers)?,
            tools: patterns("except.tools", except.tools)?,
        },
        when: conditions(input.when.unwrap_or_default())?,
        effect,
        enabled: input.enabled.unwrap_or(true),
        created_at,
        updated_at: now,
        name,
    };
    Rule::new(std::sync::Arc::new(policy.clone()))
        .map_err(|e| Refusal::invalid(format!("when[{}]", e.index), e.problem))?;
    Ok(policy)
}

fn effect(
    given: EffectInput,
    methods: &[String],
    components: Components<'_>,
) -> Result<Effect, Refusal> {
    let message = |field: &str, given: Option<String>, usual: &str| {
        let given = text::line(field, given.as_deref().unwrap_or_default(), LONGEST_MESSAGE)?;
        Ok::<_, Refusal>(if given.is_empty() {
            usual.to_owned()
        } else {
            given
        })
    };
    match (given.deny, given.need_approval, given.component) {
        (Some(deny), None, None) => Ok(Effect::Deny {
            code: code(deny.code.as_deref().unwrap_or("policy"))?,
            message: message(
                "effect.deny.message",
                deny.message,
                "A policy of your organisation does not allow this.",
            )?,
        }),
        (None, Some(asks), None) => {
            if let Some(method) = methods
                .iter()
                .find(|m| !METHODS_THAT_WAIT.contains(&m.as_str()))
            {
                return Err(Refusal::invalid(
                    "methods",
                    format!(
                        "{:?} cannot wait for an approval; with need_approval there are {}",
                        text::cut(method),
                        METHODS_THAT_WAIT.join(", ")
                    ),
                ));
            }
            Ok(Effect::NeedApproval {
                message: message(
                    "effect.need_approval.message",
                    asks.message,
                    "A policy of your organisation wants your approval for this call.",
                )?,
            })
        }
        (None, None, Some(given)) => component(given, components),
        (None, None, None) => Err(Refusal::invalid(
            "effect",
            "is required: deny, with a code and a message; need_approval, with a message; or component, with a name",
        )),
        _ => Err(Refusal::invalid(
            "effect",
            "is one of deny, need_approval and component; set the others to null",
        )),
    }
}

/// The component is tried out under its settings before it is approved.
fn component(given: PolicyComponentInput, components: Components<'_>) -> Result<Effect, Refusal> {
    let field = |name: &str| format!("effect.component.{name}");
    let name = PresetName::parse(&given.name).map_err(|e| Refusal::name(field("name"), &e))?;
    let unknown = || Refusal::Unknown {
        field: field("name"),
        what: "policy component",
        name: name.to_string(),
        known: components.map_or_else(Vec::new, |c| {
            let usable = c.list().into_iter().filter(|f| f.refused.is_none());
            usable
                .filter_map(|f| f.name)
                .map(|n| n.to_string())
                .collect()
        }),
    };
    let components = components.ok_or_else(unknown)?;
    let digest = match given.digest {
        Some(text) => Digest::try_from(text).map_err(|e| Refusal::name(field("digest"), &e))?,
        None => match components.newest(name.as_str()) {
            Some((_, digest)) => digest,
            None => {
                let refused = components.list().into_iter().find_map(|f| {
                    let reason = f.refused.filter(|_| f.name.as_ref() == Some(&name))?;
                    Some(Refusal::invalid(
                        field("name"),
                        format!("{}: {reason}", f.file),
                    ))
                });
                return Err(refused.unwrap_or_else(unknown));
            }
        },
    };
    let settings = given.settings.unwrap_or_default();
    components
        .bind(name.as_str(), digest, &settings)
        .map_err(|e| {
            let name = match e {
                PolicyBindError::Unknown(_) => "digest",
                _ => "settings",
            };
            Refusal::invalid(field(name), e.to_string())
        })?;
    Ok(Effect::Component {
        name,
        digest,
        settings,
    })
}

fn code(given: &str) -> Result<String, Refusal> {
    let good = given.len() <= 64
        && given.starts_with(|c: char| c.is_ascii_lowercase())
        && given
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if good {
        return Ok(given.to_owned());
    }
    Err(Refusal::invalid(
        "effect.deny.code",
        format!(
            "{:?} is not a code: use lower-case letters, digits and underscores, beginning with a letter, at most 64",
            text::cut(given)
        ),
    ))
}

fn conditions(given: Vec<ConditionInput>) -> Result<Vec<Condition>, Refusal> {
    if given.len() > MOST_CONDITIONS {
        return Err(Refusal::invalid(
            "when",
            format!("holds more than {MOST_CONDITIONS} conditions"),
        ));
    }
    let parse = |(index, condition): (usize, ConditionInput)| {
        let operator = Operator::named(&condition.operator).ok_or_else(|| {
            let names: Vec<_> = Operator::ALL.iter().map(|o| o.name()).collect();
            Refusal::invalid(
                format!("when[{index}].operator"),
                format!(
                    "{:?} is not an operator; there are {}",
                    text::cut(&condition.operator),
                    names.join(", ")
                ),
            )
        })?;
        Ok(Condition {
            pointer: condition.pointer,
            operator,
            value: condition.value,
        })
    };
    given.into_iter().enumerate().map(parse).collect()
}

fn patterns(field: &str, given: Vec<String>) -> Result<Vec<String>, Refusal> {
    if given.len() > MOST_PATTERNS {
        return Err(Refusal::invalid(
            field,
            format!("holds more than {MOST_PATTERNS} names; make two policies of it"),
        ));
    }
    let bad = given
        .iter()
        .find(|g| g.is_empty() || g.len() > 256 || g.chars().any(char::is_control));
    match bad {
        Some(bad) => Err(Refusal::invalid(
            field,
            format!(
                "{:?} is not a name or pattern (1 to 256 characters, * for any run)",
                text::cut(bad)
            ),
        )),
        None => Ok(given),
    }
}

impl Known {
    fn users(&self, field: &str, given: Vec<String>) -> Result<Vec<String>, Refusal> {
        let known = |name: &str| {
            UserName::parse(name).is_ok() && self.users.contains(&name.to_ascii_lowercase())
        };
        // Who the users are is nobody's business who may only write policies.
        existing(field, "user", given, known, Vec::new)
    }

    fn teams(&self, field: &str, given: Vec<String>) -> Result<Vec<String>, Refusal> {
        let known = |name: &str| self.teams.iter().any(|t| t.as_str() == name);
        existing(field, "team", given, known, || words(&self.teams))
    }

    fn roles(&self, field: &str, given: Vec<String>) -> Result<Vec<String>, Refusal> {
        let known = |name: &str| self.roles.iter().any(|r| r.as_str() == name);
        existing(field, "role", given, known, || words(&self.roles))
    }

    fn servers(&self, field: &str, given: Vec<String>) -> Result<Vec<String>, Refusal> {
        let known = |name: &str| self.servers.iter().any(|s| s.as_str() == name);
        existing(field, "server", given, known, || words(&self.servers))
    }
}

fn words(names: &BTreeSet<impl ToString>) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Patterns, of which those without a star must exist.
fn existing(
    field: &str,
    what: &'static str,
    given: Vec<String>,
    known: impl Fn(&str) -> bool,
    all: impl Fn() -> Vec<String>,
) -> Result<Vec<String>, Refusal> {
    let given = patterns(field, given)?;
    match given
        .iter()
        .find(|name| !name.contains('*') && !known(name))
    {
        Some(name) if all().is_empty() => Err(Refusal::invalid(
            field,
            format!("there is no {what} {:?}", text::cut(name)),
        )),
        Some(name) => Err(Refusal::Unknown {
            field: field.to_owned(),
            what,
            name: text::cut(name),
            known: all(),
        }),
        None => Ok(given),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn checked(change: Value) -> Result<Policy, Refusal> {
        let mut input = json!({ "name": "p", "effect": { "deny": {} } });
        for (name, value) in change.as_object().unwrap() {
            input[name] = value.clone();
        }
        let known = Known {
            users: ["ann".to_owned()].into(),
            teams: [TeamName::default_team()].into(),
            roles: ["admin".parse().unwrap()].into(),
            servers: ["notes".parse().unwrap()].into(),
        };
        check(
            serde_json::from_value(input).unwrap(),
            &known,
            None,
            NOW,
            NOW,
        )
    }

    #[test]
    fn what_a_policy_leaves_out_has_a_usual_value() {
        let policy = checked(json!({})).unwrap();
        assert_eq!((policy.order, policy.enabled), (100, true));
        let Effect::Deny { code, message } = &policy.effect else {
            panic!("{policy:?}");
        };
        assert_eq!(code, "policy");
        assert!(message.contains("does not allow"));
        // What is read can be written again.
        let read = PolicyInput::from(&policy);
        let known = serde_json::to_value(&read).unwrap();
        assert_eq!(serde_json::from_value::<PolicyInput>(known).unwrap(), read);
        let names = json!({"who": {"users": ["ANN", "b*"]}, "servers": ["notes", "x*"]});
        assert!(checked(names).is_ok());
    }

    #[test]
    fn what_would_protect_nothing_or_make_no_sense_is_refused_by_its_field() {
        let cases = [
            (json!({"name": "Not a name"}), "name"),
            (json!({"name": "preview"}), "name"),
            (json!({"effect": {}}), "effect"),
            (
                json!({"effect": {"deny": {}, "need_approval": {}}}),
                "effect",
            ),
            (
                json!({"effect": {"component": {"name": "x"}}}),
                "effect.component.name",
            ),
            (
                json!({"effect": {"deny": {"code": "No Way"}}}),
                "effect.deny.code",
            ),
            (
                json!({"effect": {"deny": {"message": "a\nb"}}}),
                "effect.deny.message",
            ),
            (
                json!({"effect": {"need_approval": {}}, "methods": ["tools/list"]}),
                "methods",
            ),
            (
                json!({"effect": {"need_approval": {}}, "methods": ["*"]}),
                "methods",
            ),
            (json!({"servers": ["nots"]}), "servers"),
            (json!({"who": {"users": ["anna"]}}), "who.users"),
            (json!({"who": {"teams": ["sales"]}}), "who.teams"),
            (json!({"except": {"roles": ["root"]}}), "except.roles"),
            (json!({"tools": [""]}), "tools"),
            (json!({"tools": vec!["t"; 51]}), "tools"),
            (
                json!({"when": [{"pointer": "/a", "operator": "like"}]}),
                "when[0].operator",
            ),
            (
                json!({"when": [{"pointer": "/a", "operator": "present"},
                             {"pointer": "a", "operator": "present"}]}),
                "when[1]",
            ),
        ];
        for (change, field) in cases {
            let refusal = checked(change.clone()).expect_err(&change.to_string());
            assert_eq!(refusal.field(), Some(field), "{change}: {refusal}");
        }
    }
}
