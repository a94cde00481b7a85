//! Making, changing, deleting and trying out policies.

use std::sync::Arc;

use countersign_core::caller::{Caller, Role};
use countersign_core::error::CallError;
use countersign_core::names::{Digest, PolicyName, RoleName};
use countersign_core::policy::{Asked, Effect, Policy, Rule, Rules, Ruling, Subject};
use countersign_core::ports::{Expect, Kind, RecordKey, StoreError, delete, put};
use countersign_core::preset::GrantFacts;
use countersign_core::scope::ScopeSet;
use serde::Serialize;
use serde_json::{Map, Value};

use super::policy::{Known, PolicyInput, check};
use super::snapshot::judge_of;
use super::{Refusal, Registry, Snapshot, changed_fields, patch};

/// More would not make anybody safer, and each is looked at in every call.
const MOST_POLICIES: usize = 500;

/// What policies would make of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Preview {
    /// `pass`, `deny` or `need_approval`.
    pub outcome: String,
    /// The code of a refusal.
    pub code: Option<String>,
    /// What the user is told.
    pub message: Option<String>,
    /// The policies that decide: one that refuses, or all that want to ask.
    pub decided_by: Vec<String>,
    /// Each policy, in order.
    pub policies: Vec<PreviewedPolicy>,
}

/// What one policy makes of the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct PreviewedPolicy {
    /// Which.
    pub name: String,
    /// Where it stands.
    pub order: u32,
    /// `deny`, `need_approval` or `component`.
    pub effect: String,
    /// Whether it is about the call.
    pub applies: bool,
    /// Its first field that does not fit (`who.users`, `when[0]` …).
    pub misses: Option<String>,
}

impl Preview {
    fn refused(&mut self, policy: &PolicyName, code: &str, message: String) {
        self.outcome = "deny".into();
        self.code = Some(code.to_owned());
        self.message = Some(message);
        self.decided_by = vec![policy.to_string()];
    }
}

impl Registry {
    /// Makes a policy.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn create_policy(
        &self,
        caller: &Caller,
        input: PolicyInput,
    ) -> Result<Arc<Policy>, Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("policy:{}", super::text::cut(&input.name));
        let work = async {
            caller
                .permissions
                .demand("policy_create", Some(&input.name))?;
            let snapshot = self.snapshot();
            let now = self.world.clock.now();
            let known = self.known(&snapshot).await?;
            let policy = check(input, &known, self.presets.policies(), now, now)?;
            demand_approval(caller, None, &policy)?;
            if snapshot.policies.contains_key(&policy.name) {
                return Err(Refusal::Exists {
                    what: "policy",
                    name: policy.name.to_string(),
                });
            }
            if snapshot.policies.len() >= MOST_POLICIES {
                return Err(Refusal::invalid(
                    "name",
                    format!("there are {MOST_POLICIES} policies already; delete one first"),
                ));
            }
            self.write_policy(&policy, Expect::Absent).await?;
            let detail = summary(&policy);
            Ok((Arc::new(policy), detail))
        };
        let result = work.await;
        self.conclude(caller, "policy.create", resource, result)
            .await
    }

    /// One policy.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] with those there are.
    pub fn find_policy(&self, name: &str) -> Result<Arc<Policy>, Refusal> {
        find(&self.snapshot(), name).map(|stored| Arc::clone(&stored.value))
    }

    /// Changes a policy by a JSON merge patch.
    ///
    /// # Errors
    /// [`Refusal`]; the name is immutable.
    pub async fn update_policy(
        &self,
        caller: &Caller,
        name: &str,
        patch: Map<String, Value>,
    ) -> Result<Arc<Policy>, Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("policy:{}", super::text::cut(name));
        let work = async {
            caller.permissions.demand("policy_update", Some(name))?;
            let snapshot = self.snapshot();
            let existing = find(&snapshot, name)?;
            let old = &existing.value;
            let input = patch::merged(&PolicyInput::from(old.as_ref()), patch)?;
            if input.name != old.name.as_str() {
                return Err(Refusal::Immutable {
                    what: "policy",
                    field: "name",
                });
            }
            let now = self.world.clock.now();
            let known = self.known(&snapshot).await?;
            let components = self.presets.policies();
            let policy = check(input, &known, components, old.created_at, now)?;
            demand_approval(caller, Some(old), &policy)?;
            let detail = changed_fields(old.as_ref(), &policy);
            self.write_policy(&policy, Expect::At(existing.revision))
                .await?;
            Ok((Arc::new(policy), detail))
        };
        let result = work.await;
        self.conclude(caller, "policy.update", resource, result)
            .await
    }

    /// Deletes a policy.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn delete_policy(&self, caller: &Caller, name: &str) -> Result<(), Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("policy:{}", super::text::cut(name));
        let work = async {
            caller.permissions.demand("policy_delete", Some(name))?;
            let snapshot = self.snapshot();
            let existing = find(&snapshot, name)?;
            let key = RecordKey::new(Kind::Policy, existing.value.name.as_str());
            self.store(vec![delete(key, Expect::At(existing.revision))])
                .await?;
            self.refresh().await?;
            Ok(((), summary(&existing.value)))
        };
        let result = work.await;
        self.conclude(caller, "policy.delete", resource, result)
            .await
    }

    /// What the policies in force would make of a call, or one of them alone,
    /// be it in force or not.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is no such policy.
    pub fn preview_policies(
        &self,
        only: Option<&str>,
        asked: &Asked<'_>,
    ) -> Result<Preview, Refusal> {
        let snapshot = self.snapshot();
        let rules = match only {
            None => Rules::clone(&snapshot.rules),
            Some(name) => {
                let mut policy = Policy::clone(&find(&snapshot, name)?.value);
                policy.enabled = true;
                let judge = judge_of(&policy, self.presets.policies());
                let rule = Rule::new(Arc::new(policy))
                    .map_err(|e| Refusal::invalid(format!("when[{}]", e.index), e.problem))?;
                Rules::new([rule.with_judge(judge)])
            }
        };
        let policies = rules.iter().map(|rule| {
            let (policy, misses) = (rule.policy(), rule.misses(asked));
            PreviewedPolicy {
                name: policy.name.to_string(),
                order: policy.order,
                effect: effect_name(&policy.effect).to_owned(),
                applies: misses.is_none(),
                misses,
            }
        });
        let mut preview = Preview {
            outcome: "pass".into(),
            code: None,
            message: None,
            decided_by: Vec::new(),
            policies: policies.collect(),
        };
        let mut reasons = match rules.look_at(asked) {
            Ruling::Pass => Vec::new(),
            Ruling::Deny {
                policy,
                code,
                message,
            } => {
                preview.refused(policy, code, message.to_owned());
                return Ok(preview);
            }
            Ruling::Ask(reasons) => reasons,
        };
        // Nobody's connection is looked into for a preview.
        let subject = Subject {
            asked: *asked,
            grant: GrantFacts {
                scopes: &ScopeSet::default(),
                account: None,
                facts: &[],
            },
        };
        match rules.ask_components(&subject) {
            Ok(more) => reasons.extend(more),
            Err(objection) => {
                let error = CallError::from(objection);
                let (policy, code) = match &error {
                    CallError::PolicyDenied { policy, code, .. } => (policy, code.as_str()),
                    CallError::PolicyFailed { policy, .. } => (policy, error.word()),
                    _ => return Ok(preview),
                };
                preview.refused(policy, code, error.to_string());
                return Ok(preview);
            }
        }
        if !reasons.is_empty() {
            let messages: Vec<_> = reasons.iter().map(|r| r.message.as_str()).collect();
            preview.outcome = "need_approval".into();
            preview.message = Some(messages.join(" "));
            preview.decided_by = reasons.iter().map(|r| r.policy.to_string()).collect();
        }
        Ok(preview)
    }

    /// A newer version of the component that judges for a policy; it judges once
    /// somebody approves it.
    #[must_use]
    pub fn newer_component(&self, policy: &Policy) -> Option<(String, Digest)> {
        let Effect::Component { name, digest, .. } = &policy.effect else {
            return None;
        };
        let newest = self.presets.policies()?.newest(name.as_str())?;
        (newest.1 != *digest).then_some(newest)
    }

    async fn write_policy(&self, policy: &Policy, expect: Expect) -> Result<(), Refusal> {
        let key = RecordKey::new(Kind::Policy, policy.name.as_str());
        self.store(vec![put(key, expect, policy)?]).await?;
        Ok(self.refresh().await?)
    }

    async fn known(&self, snapshot: &Snapshot) -> Result<Known, StoreError> {
        let records = &self.world.records;
        let users = records.list(Kind::User, None).await?;
        let roles = records.list(Kind::Role, None).await?;
        let made = roles
            .iter()
            .filter_map(|r| RoleName::parse(&r.key.name).ok());
        let built_in = Role::built_in().into_iter().map(|r| r.name);
        Ok(Known {
            users: users.into_iter().map(|r| r.key.name).collect(),
            teams: self.teams().await?,
            roles: made.chain(built_in).collect(),
            servers: snapshot.servers.keys().cloned().collect(),
        })
    }
}

fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a super::Stored<Policy>, Refusal> {
    let parsed = PolicyName::parse(name).map_err(|e| Refusal::name("name", &e))?;
    snapshot
        .policies
        .get(&parsed)
        .ok_or_else(|| Refusal::NotFound {
            what: "policy",
            name: super::text::cut(name),
            known: snapshot.policies.keys().map(ToString::to_string).collect(),
        })
}

/// Whoever lets a component judge, or lets it judge otherwise, approves it.
fn demand_approval(caller: &Caller, old: Option<&Policy>, new: &Policy) -> Result<(), Refusal> {
    if let Effect::Component { name, .. } = &new.effect
        && old.map(|p| &p.effect) != Some(&new.effect)
    {
        caller
            .permissions
            .demand("preset_approve", Some(name.as_str()))?;
    }
    Ok(())
}

fn effect_name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Deny { .. } => "deny",
        Effect::NeedApproval { .. } => "need_approval",
        Effect::Component { .. } => "component",
    }
}

fn summary(policy: &Policy) -> String {
    let all = |names: &[String], what: &str| {
        if names.is_empty() {
            what.to_owned()
        } else {
            names.join(", ")
        }
    };
    format!(
        "{}: {} of {}",
        effect_name(&policy.effect),
        all(&policy.tools, "every tool"),
        all(&policy.servers, "every server"),
    )
}
