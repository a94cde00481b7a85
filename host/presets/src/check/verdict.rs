//! Judges what `evaluate` answers.
//!
//! What an administrator approved is what `describe` declared. An answer may
//! use less of it, never more.

use std::collections::BTreeSet;

use countersign_core::preset::{Description, Part, PresetFault, Rule, Slot, Template, Verdict};
use countersign_core::scope::Scope;

use super::header_uses;
use crate::faults::{is_harmless, plain};
use crate::symbols::slot_text;

/// Most entries of any list in an answer.
const MOST: usize = 256;
/// Longest text in an answer, in bytes.
const LONGEST: usize = 4096;

/// What a description lets its verdicts use.
pub(crate) struct Declared {
    credentials: BTreeSet<String>,
    headers: BTreeSet<String>,
    queries: BTreeSet<String>,
    slots: BTreeSet<String>,
    variables: BTreeSet<String>,
}

impl Declared {
    /// Whether a request may carry this header.
    pub(super) fn header(&self, name: &str) -> bool {
        self.headers.contains(&name.to_ascii_lowercase())
    }

    /// Whether a request may carry this secret.
    pub(super) fn slot(&self, slot: &Slot) -> bool {
        self.slots.contains(&slot_text(slot))
    }

    pub(crate) fn of(d: &Description) -> Self {
        use countersign_core::preset::ValueKind;
        let mut this = Self {
            credentials: d.credentials.iter().map(|c| c.name.clone()).collect(),
            headers: d
                .constant_headers
                .iter()
                .map(|h| h.name.to_ascii_lowercase())
                .collect(),
            queries: BTreeSet::new(),
            slots: BTreeSet::new(),
            variables: d.variables.iter().map(|v| v.name.clone()).collect(),
        };
        for variable in &d.variables {
            if let ValueKind::Enumeration(choices) = &variable.kind {
                this.variables.extend(
                    choices
                        .iter()
                        .flat_map(|c| &c.sets)
                        .map(|(name, _)| name.clone()),
                );
            }
        }
        for (name, is_header, slots) in header_uses(d.credentials.iter().flat_map(|c| &c.rules)) {
            if is_header {
                this.headers.insert(name.to_ascii_lowercase());
            } else {
                this.queries.insert(name.to_owned());
            }
            this.slots.extend(slots.into_iter().map(slot_text));
        }
        this
    }
}

/// Checks a verdict.
///
/// # Errors
/// [`PresetFault::BadOutput`]; the call must not be sent.
pub(crate) fn check_verdict(verdict: &Verdict, declared: &Declared) -> Result<(), PresetFault> {
    match verdict {
        Verdict::Allow { credential, rules } => {
            if let Some(name) = credential
                && !declared.credentials.contains(name)
            {
                return Err(bad(format!(
                    "the credential {name:?} is not one that describe declares"
                )));
            }
            few("rules", rules.len())?;
            rules.iter().try_for_each(|rule| check_rule(rule, declared))
        }
        Verdict::Deny { code, message } => {
            let good_code = (1..=64).contains(&code.len())
                && code
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
            if !good_code {
                return Err(bad(format!(
                    "the refusal's code {code:?} is not a short word"
                )));
            }
            text("the refusal's message", message)
        }
        Verdict::NeedScopes(scopes) => {
            few("scopes", scopes.len())?;
            if scopes.is_empty() {
                return Err(bad("need-scopes names no scope".into()));
            }
            match scopes.iter().find(|s| Scope::parse(s).is_err()) {
                Some(scope) => Err(bad(format!("{scope:?} is not a scope"))),
                None => Ok(()),
            }
        }
    }
}

fn check_rule(rule: &Rule, declared: &Declared) -> Result<(), PresetFault> {
    for (name, is_header, slots) in header_uses(std::iter::once(rule)) {
        if is_header {
            let lower = name.to_ascii_lowercase();
            if countersign_core::inject::is_forbidden_header(&lower) {
                return Err(bad(format!(
                    "the header {name:?} is not one that a preset may set"
                )));
            }
            if !declared.headers.contains(&lower) {
                return Err(bad(format!(
                    "the header {name:?} is not one that describe declares"
                )));
            }
        } else if !declared.queries.contains(name) {
            return Err(bad(format!(
                "the query parameter {name:?} is not one that describe declares"
            )));
        } else if !slots.is_empty() {
            return Err(bad(format!(
                "the query parameter {name:?} carries a secret"
            )));
        }
        for slot in slots.into_iter().map(slot_text) {
            if !declared.slots.contains(&slot) {
                return Err(bad(format!(
                    "the slot {slot} is not one that describe declares"
                )));
            }
        }
    }
    match rule {
        Rule::SetHeader(header) => template(&header.value, declared),
        Rule::SetQuery(parameter) => template(&parameter.value, declared),
    }
}

fn template(parts: &Template, declared: &Declared) -> Result<(), PresetFault> {
    few("template parts", parts.len())?;
    for part in parts {
        match part {
            Part::Literal(literal) => text("a literal", literal)?,
            Part::Variable(name) if !declared.variables.contains(name) => {
                return Err(bad(format!(
                    "the variable {name:?} is not one that describe declares"
                )));
            }
            Part::Variable(_) | Part::Slot(_) | Part::Basic(_) => {}
        }
    }
    Ok(())
}

pub(super) fn few(what: &str, count: usize) -> Result<(), PresetFault> {
    if count > MOST {
        Err(bad(format!("{count} {what}, and at most {MOST} are taken")))
    } else {
        Ok(())
    }
}

pub(super) fn text(what: &str, text: &str) -> Result<(), PresetFault> {
    if text.len() > LONGEST || !text.chars().all(is_harmless) {
        Err(bad(format!(
            "{what} is longer than {LONGEST} bytes, or holds a line break or another character that controls or hides"
        )))
    } else {
        Ok(())
    }
}

pub(super) fn bad(what: String) -> PresetFault {
    PresetFault::BadOutput(plain(&what))
}
