//! Policies in force: a pure function of a call.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::condition::{Arguments, Condition, Test};
use super::{Asked, BadCondition, Effect, Judge, Judgement, Policy, Subject, any};
use crate::caller::Caller;
use crate::names::{PolicyName, ServerName};
use crate::preset::{Call, PresetFault};

/// A policy that was understood.
#[derive(Clone)]
pub struct Rule {
    policy: Arc<Policy>,
    tests: Vec<Test>,
    judge: Option<Arc<dyn Judge>>,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rule")
            .field("policy", &self.policy)
            .field("judge", &self.judge.as_ref().map(|j| j.digest()))
            .finish_non_exhaustive()
    }
}

impl Rule {
    /// Understands a policy.
    ///
    /// # Errors
    /// [`BadCondition`].
    pub fn new(policy: Arc<Policy>) -> Result<Self, BadCondition> {
        let compile = |(index, condition): (usize, &Condition)| {
            condition
                .compile()
                .map_err(|problem| BadCondition { index, problem })
        };
        let tests = policy
            .when
            .iter()
            .enumerate()
            .map(compile)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            policy,
            tests,
            judge: None,
        })
    }

    /// With the component that judges. Without it every call that the policy is
    /// about is refused.
    #[must_use]
    pub fn with_judge(mut self, judge: Option<Arc<dyn Judge>>) -> Self {
        self.judge = judge;
        self
    }

    /// The record.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Whether the policy is about this call, by all but its arguments.
    fn is_about(&self, asked: &Asked<'_>) -> bool {
        self.differs_by(asked).is_none()
    }

    /// The first of its fields that does not fit this call, by all but its
    /// conditions.
    fn differs_by(&self, asked: &Asked<'_>) -> Option<&'static str> {
        let policy = &*self.policy;
        let name = asked.call.name;
        let method = match policy.methods.as_slice() {
            [] => asked.call.method == "tools/call",
            methods => any(methods, asked.call.method),
        };
        let tool = policy.tools.is_empty() || name.is_some_and(|n| any(&policy.tools, n));
        if !(policy.servers.is_empty() || any(&policy.servers, asked.server.as_str())) {
            Some("servers")
        } else if !method {
            Some("methods")
        } else if !tool {
            Some("tools")
        } else {
            let who = policy.who.differs_by(asked.caller);
            who.or_else(|| policy.except.fits_by(asked))
        }
    }

    /// Why the policy is not about this call: its first field that does not
    /// fit; none if it is.
    #[must_use]
    pub fn misses(&self, asked: &Asked<'_>) -> Option<String> {
        if let Some(field) = self.differs_by(asked) {
            return Some(field.to_owned());
        }
        let arguments = Arguments::of(asked.call.arguments);
        let missed = self.tests.iter().position(|test| !test.holds(&arguments));
        missed.map(|index| format!("when[{index}]"))
    }

    fn holds(&self, arguments: &mut Lazy<'_>) -> bool {
        self.tests.is_empty() || {
            let arguments = arguments.get();
            self.tests.iter().all(|test| test.holds(arguments))
        }
    }
}

/// Arguments are read for the first rule that has conditions, if there is one.
struct Lazy<'a> {
    text: Option<&'a str>,
    read: Option<Arguments>,
}

impl Lazy<'_> {
    fn get(&mut self) -> &Arguments {
        let text = self.text;
        self.read.get_or_insert_with(|| Arguments::of(text))
    }
}

/// Policies in force, in order.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

/// What the rules make of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling<'r> {
    /// None of them minds.
    Pass,
    /// The first that refuses.
    Deny {
        /// Which.
        policy: &'r PolicyName,
        /// Its word.
        code: &'r str,
        /// For the user.
        message: &'r str,
    },
    /// All that want the user's word, in order.
    Ask(Vec<Reason>),
}

/// Why a component stops a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objection {
    /// It said no.
    Denied {
        /// Which policy.
        policy: PolicyName,
        /// Its word.
        code: String,
        /// For the user.
        message: String,
    },
    /// It could not judge.
    Failed {
        /// Which policy.
        policy: PolicyName,
        /// How it failed.
        fault: PresetFault,
    },
}

/// Why a user is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The policy that wants his word.
    pub policy: PolicyName,
    /// What it says.
    pub message: String,
}

impl Rules {
    /// Policies that are enabled, in order.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        let mut rules: Vec<_> = rules.into_iter().filter(|r| r.policy.enabled).collect();
        rules.sort_by(|a, b| {
            let key = |r: &Rule| (r.policy.order, r.policy.name.clone());
            key(a).cmp(&key(b))
        });
        Self(rules)
    }

    /// Those that can be about calls of this server.
    #[must_use]
    pub fn of_server(&self, server: &ServerName) -> Self {
        let about = self.0.iter().filter(|r| r.policy.is_about_server(server));
        Self(about.cloned().collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// Judges one call. A refusal goes before a question, whatever their order:
    /// nobody is asked for what is not going to happen.
    #[must_use]
    pub fn look_at<'r>(&'r self, asked: &Asked<'r>) -> Ruling<'r> {
        let mut reasons = Vec::new();
        for rule in self.about(asked) {
            match &rule.policy.effect {
                Effect::Deny { code, message } => {
                    return Ruling::Deny {
                        policy: &rule.policy.name,
                        code,
                        message,
                    };
                }
                Effect::NeedApproval { message } => reasons.push(Reason {
                    policy: rule.policy.name.clone(),
                    message: message.clone(),
                }),
                // Asked later, by those who know the user's connection.
                Effect::Component { .. } => {}
            }
        }
        if reasons.is_empty() {
            Ruling::Pass
        } else {
            Ruling::Ask(reasons)
        }
    }

    /// Asks the components that are to judge this call, in order: why they want
    /// the user asked.
    ///
    /// # Errors
    /// [`Objection`] of the first that refuses or fails.
    pub fn ask_components(&self, subject: &Subject<'_>) -> Result<Vec<Reason>, Objection> {
        let mut reasons = Vec::new();
        if !self.has_components() {
            return Ok(reasons);
        }
        for rule in self.about(&subject.asked) {
            let Effect::Component { name, .. } = &rule.policy.effect else {
                continue;
            };
            let policy = || rule.policy.name.clone();
            let judged = match &rule.judge {
                Some(judge) => judge.judge(subject),
                None => Err(PresetFault::Unavailable(format!(
                    "the approved version of {name} is not in the catalog"
                ))),
            };
            match judged {
                Ok(Judgement::Allow) => {}
                Ok(Judgement::Deny { code, message }) => {
                    return Err(Objection::Denied {
                        policy: policy(),
                        code,
                        message,
                    });
                }
                Ok(Judgement::NeedApproval { message }) => reasons.push(Reason {
                    policy: policy(),
                    message,
                }),
                Err(fault) => {
                    return Err(Objection::Failed {
                        policy: policy(),
                        fault,
                    });
                }
            }
        }
        Ok(reasons)
    }

    /// Whether a component may have to be asked.
    fn has_components(&self) -> bool {
        let is_component = |r: &Rule| matches!(r.policy.effect, Effect::Component { .. });
        self.0.iter().any(is_component)
    }

    /// The rules that are about this call, in order.
    pub fn about<'r>(&'r self, asked: &Asked<'r>) -> impl Iterator<Item = &'r Rule> {
        let asked = *asked;
        let mut arguments = Lazy {
            text: asked.call.arguments,
            read: None,
        };
        self.0
            .iter()
            .filter(move |rule| rule.is_about(&asked) && rule.holds(&mut arguments))
    }

    /// Whether every call of this tool by this caller is refused, whatever its
    /// arguments: such a tool is not listed.
    #[must_use]
    pub fn always_deny(&self, caller: &Caller, server: &ServerName, tool: &str) -> bool {
        let call = Call {
            method: "tools/call",
            name: Some(tool),
            arguments: None,
            host: "",
        };
        let asked = Asked {
            caller,
            server,
            call: &call,
        };
        self.0.iter().any(|rule| {
            rule.tests.is_empty()
                && matches!(rule.policy.effect, Effect::Deny { .. })
                && rule.is_about(&asked)
        })
    }

    /// Whether a list of tools may have to be shortened.
    #[must_use]
    pub fn may_hide_tools(&self) -> bool {
        self.0
            .iter()
            .any(|r| r.tests.is_empty() && matches!(r.policy.effect, Effect::Deny { .. }))
    }
}
