//! Remembered verdicts, where the operator wants them.
//!
//! A preset has no clock, no randomness and no I/O, so a verdict is a function
//! of component, settings and what `evaluate` was given. One value of
//! [`Remembering`] stands for one component under one provider's settings and
//! one version of its record; the rest of the input is the key, whole. A swap
//! or an edit makes another value, and a changed grant is another key: neither
//! is ever answered from here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_core::names::Digest;
use countersign_core::preset::{
    AccountFacts, Call, Description, GrantFacts, Preset, PresetFault, Redaction, TokenShape,
    Verdict,
};
use countersign_core::scope::ScopeSet;
use countersign_core::signing::{Recipe, Unsigned};

/// Verdicts kept for one preset; when they are too many all are forgotten.
const KEPT: usize = 4096;

/// All that a verdict of a preset which does not want arguments depends on.
#[derive(PartialEq, Eq, Hash)]
struct Asked {
    method: String,
    name: Option<String>,
    host: String,
    scopes: ScopeSet,
    account: Option<String>,
    facts: Vec<(String, String)>,
}

impl Asked {
    fn new(call: &Call<'_>, grant: &GrantFacts<'_>) -> Self {
        Self {
            method: call.method.to_owned(),
            name: call.name.map(str::to_owned),
            host: call.host.to_owned(),
            scopes: grant.scopes.clone(),
            account: grant.account.map(str::to_owned),
            facts: grant.facts.to_vec(),
        }
    }
}

/// A preset that is asked the same thing once.
pub(crate) struct Remembering {
    preset: Arc<dyn Preset>,
    verdicts: Mutex<HashMap<Asked, Verdict>>,
}

impl Remembering {
    /// Wraps a preset whose verdicts may be remembered; one that wants a
    /// call's arguments or imports WASI is left as it is.
    pub(crate) fn wrap(preset: Arc<dyn Preset>) -> Arc<dyn Preset> {
        if preset.description().wants.arguments || preset.imports_wasi() {
            return preset;
        }
        Arc::new(Self {
            preset,
            verdicts: Mutex::default(),
        })
    }
}

impl Preset for Remembering {
    fn digest(&self) -> Digest {
        self.preset.digest()
    }

    fn description(&self) -> &Description {
        self.preset.description()
    }

    fn evaluate(&self, call: &Call<'_>, grant: &GrantFacts<'_>) -> Result<Verdict, PresetFault> {
        let asked = Asked::new(call, grant);
        let verdicts = || self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = verdicts().get(&asked) {
            return Ok(known.clone());
        }
        // A fault is not remembered: the next call tries again.
        let verdict = self.preset.evaluate(call, grant)?;
        let mut verdicts = verdicts();
        if verdicts.len() >= KEPT {
            verdicts.clear();
        }
        verdicts.insert(asked, verdict.clone());
        Ok(verdict)
    }

    fn authorize_parameters(
        &self,
        scopes: &ScopeSet,
    ) -> Result<Vec<(String, String)>, PresetFault> {
        self.preset.authorize_parameters(scopes)
    }

    fn token_answer(
        &self,
        status: u16,
        masked_body: &str,
    ) -> Result<Option<Vec<TokenShape>>, PresetFault> {
        self.preset.token_answer(status, masked_body)
    }

    fn refresh_error(
        &self,
        status: u16,
        code: Option<&str>,
        masked_body: &str,
    ) -> Result<Option<bool>, PresetFault> {
        self.preset.refresh_error(status, code, masked_body)
    }

    fn filter_tools(
        &self,
        tools: &[String],
        grant: &GrantFacts<'_>,
    ) -> Result<Option<Vec<String>>, PresetFault> {
        self.preset.filter_tools(tools, grant)
    }

    fn sign(&self, request: &Unsigned) -> Result<Option<Recipe>, PresetFault> {
        self.preset.sign(request)
    }

    fn identity(&self, covered_body: &str) -> Result<Option<AccountFacts>, PresetFault> {
        self.preset.identity(covered_body)
    }

    fn redact(
        &self,
        call: &Call<'_>,
        covered_result: &str,
    ) -> Result<Option<Vec<Redaction>>, PresetFault> {
        self.preset.redact(call, covered_result)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use countersign_core::preset::{
        AnswerShape, GrantDifference, Hooks, Refresh, RefreshKind, Rotation, Wants,
    };

    use super::*;

    /// Counts how often it is asked; fails the first time if told so.
    struct Counting {
        description: Description,
        asked: AtomicUsize,
        fails_first: bool,
    }

    impl Counting {
        fn new(arguments: bool, fails_first: bool) -> Arc<Self> {
            Arc::new(Self {
                description: description(arguments),
                asked: AtomicUsize::new(0),
                fails_first,
            })
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    impl Preset for Counting {
        fn digest(&self) -> Digest {
            Digest::of(b"counting")
        }
        fn description(&self) -> &Description {
            &self.description
        }
        fn evaluate(&self, _: &Call<'_>, _: &GrantFacts<'_>) -> Result<Verdict, PresetFault> {
            if self.asked.fetch_add(1, Ordering::Relaxed) == 0 && self.fails_first {
                return Err(PresetFault::Deadline);
            }
            Ok(Verdict::Allow {
                credential: None,
                rules: Vec::new(),
            })
        }
        fn authorize_parameters(&self, _: &ScopeSet) -> Result<Vec<(String, String)>, PresetFault> {
            Ok(Vec::new())
        }
        fn token_answer(&self, _: u16, _: &str) -> Result<Option<Vec<TokenShape>>, PresetFault> {
            Ok(None)
        }
        fn refresh_error(
            &self,
            _: u16,
            _: Option<&str>,
            _: &str,
        ) -> Result<Option<bool>, PresetFault> {
            Ok(None)
        }
        fn filter_tools(
            &self,
            _: &[String],
            _: &GrantFacts<'_>,
        ) -> Result<Option<Vec<String>>, PresetFault> {
            Ok(None)
        }
        fn sign(&self, _: &Unsigned) -> Result<Option<Recipe>, PresetFault> {
            Ok(None)
        }
        fn identity(&self, _: &str) -> Result<Option<AccountFacts>, PresetFault> {
            Ok(None)
        }
        fn redact(&self, _: &Call<'_>, _: &str) -> Result<Option<Vec<Redaction>>, PresetFault> {
            Ok(None)
        }
    }

    fn ask(preset: &dyn Preset, name: &str, scopes: &str) -> Result<Verdict, PresetFault> {
        let scopes = ScopeSet::split(scopes, &[]);
        preset.evaluate(
            &Call {
                method: "tools/call",
                name: Some(name),
                arguments: None,
                host: "h",
            },
            &GrantFacts {
                scopes: &scopes,
                account: None,
                facts: &[],
            },
        )
    }

    #[test]
    fn the_same_question_is_asked_once_and_a_changed_grant_or_tool_anew() {
        let counting = Counting::new(false, false);
        let preset = Remembering::wrap(counting.clone());
        for _ in 0..3 {
            assert!(ask(&*preset, "a", "read").is_ok());
        }
        assert_eq!(counting.asked(), 1);
        assert!(ask(&*preset, "a", "read write").is_ok());
        assert!(ask(&*preset, "b", "read").is_ok());
        assert_eq!(counting.asked(), 3);
        // Another version, another settings: another value, which knows nothing.
        assert!(ask(&*Remembering::wrap(counting.clone()), "a", "read").is_ok());
        assert_eq!(counting.asked(), 4);
    }

    #[test]
    fn a_fault_is_not_remembered_and_arguments_are_never_guessed() {
        let counting = Counting::new(false, true);
        let preset = Remembering::wrap(counting.clone());
        assert!(ask(&*preset, "a", "").is_err());
        assert!(ask(&*preset, "a", "").is_ok());

        let curious = Counting::new(true, false);
        let preset = Remembering::wrap(curious.clone());
        for _ in 0..2 {
            assert!(ask(&*preset, "a", "").is_ok());
        }
        assert_eq!(curious.asked(), 2);
    }

    fn description(arguments: bool) -> Description {
        Description {
            name: "fake".into(),
            display_name: "Fake".into(),
            version: "1.0.0".into(),
            category: "Test".into(),
            documentation_url: String::new(),
            wants: Wants {
                arguments,
                ..Wants::default()
            },
            hooks: Hooks::default(),
            variables: Vec::new(),
            variants: Vec::new(),
            authorization_hosts: Vec::new(),
            audience_hosts: Vec::new(),
            authorization: None,
            token_endpoint: None,
            device_authorization_endpoint: None,
            token_requests: Vec::new(),
            token_answer: AnswerShape {
                success_codes: Vec::new(),
                success_checks: Vec::new(),
                error_code: Vec::new(),
                error_description: Vec::new(),
                may_be_form: false,
            },
            token_shapes: Vec::new(),
            metadata: Vec::new(),
            grant_difference: GrantDifference::Accept,
            scopes: Vec::new(),
            default_scopes: Vec::new(),
            refresh: Refresh {
                kind: RefreshKind::RefreshToken,
                rotation: Rotation::Always,
                grace_seconds: 0,
                retry_after_lost_answer: false,
                ends_access_token: false,
                idle_days: None,
                margin_percent: 10,
                permanent_errors: Vec::new(),
                transient_errors: Vec::new(),
            },
            revocation: Vec::new(),
            follow_ups: Vec::new(),
            identity: None,
            credentials: Vec::new(),
            constant_headers: Vec::new(),
            mcp_servers: Vec::new(),
            error_advice: Vec::new(),
        }
    }
}
