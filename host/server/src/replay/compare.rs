//! Two versions over the same recorded inputs.

use std::collections::BTreeMap;

use countersign_core::preset::Preset;
use serde::{Deserialize, Serialize};

use super::input::{Recorded, Said};

/// Examples that are shown of each change.
const EXAMPLES: usize = 3;

/// What a new version would decide differently.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Replay {
    /// Inputs that both versions were asked about.
    pub calls: usize,
    /// Of these, those that they decide differently.
    pub changed: usize,
    /// The differences, the commonest first.
    pub changes: Vec<Change>,
    /// Inputs that were left out: redacted, the version that judged them
    /// decides them differently.
    pub unfaithful: usize,
    /// Of `calls`, those for which the new version wants to see what was not
    /// recorded, because the version that judged did not.
    pub unseen: usize,
}

/// One kind of difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Change {
    /// What would be decided, in words (`denied (archived)`, `need repo:write`).
    pub to: String,
    /// How many calls.
    pub count: usize,
    /// Some of them: method, name, host, and what was decided before.
    pub examples: Vec<String>,
}

/// Asks both versions about every input. Blocks for as long as the calls would.
#[must_use]
pub fn replay(old: &dyn Preset, new: &dyn Preset, inputs: &[Recorded]) -> Replay {
    let mut report = Replay::default();
    let mut changes: BTreeMap<Said, Change> = BTreeMap::new();
    for input in inputs {
        if !input.faithful {
            report.unfaithful += 1;
            continue;
        }
        report.calls += 1;
        if input.lacks_for(new) {
            report.unseen += 1;
        }
        let (before, after) = (input.ask(old), input.ask(new));
        if before == after {
            continue;
        }
        report.changed += 1;
        let change = changes.entry(after.clone()).or_insert_with(|| Change {
            to: after.in_words(),
            count: 0,
            examples: Vec::new(),
        });
        change.count += 1;
        let name = input.name.as_deref().unwrap_or_default();
        let example = format!(
            "{} {name} at {}: {} before",
            input.method,
            input.host,
            before.in_words()
        );
        if change.examples.len() < EXAMPLES && !change.examples.contains(&example) {
            change.examples.push(example);
        }
    }
    report.changes = changes.into_values().collect();
    report.changes.sort_by_key(|c| std::cmp::Reverse(c.count));
    report
}

impl Said {
    /// For people.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Allow {
                credential,
                rules: None,
            } => match credential {
                Some(credential) => format!("allowed with {credential}"),
                None => "allowed".into(),
            },
            Self::Allow { .. } => "allowed with other headers".into(),
            Self::Deny { code } => format!("denied ({code})"),
            Self::NeedScopes { scopes } => format!("need {}", scopes.join(" ")),
            Self::Fault { class } => format!("failed ({class})"),
        }
    }
}

impl Replay {
    /// `17 of 2,000 calls: 3 denied (archived), 14 need repo:write`, and what
    /// the figures leave out.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut text = if self.calls == 0 {
            "No recorded call to try it on.".to_owned()
        } else if self.changed == 0 {
            format!(
                "{} recorded calls: all decided as before.",
                grouped(self.calls)
            )
        } else {
            let changes: Vec<String> = self
                .changes
                .iter()
                .map(|c| format!("{} {}", grouped(c.count), c.to))
                .collect();
            format!(
                "{} of {} calls: {}.",
                grouped(self.changed),
                grouped(self.calls),
                changes.join(", ")
            )
        };
        if self.unfaithful > 0 {
            text.push_str(&format!(
                " {} more cannot be replayed: what they were decided by is not kept.",
                grouped(self.unfaithful)
            ));
        }
        if self.unseen > 0 {
            text.push_str(&format!(
                " In {} of them the new version wants to see what was not recorded.",
                grouped(self.unseen)
            ));
        }
        text
    }
}

/// `2000` as `2,000`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_a_sentence() {
        let change = |to: &str, count| Change {
            to: to.into(),
            count,
            examples: Vec::new(),
        };
        let report = Replay {
            calls: 2000,
            changed: 17,
            changes: vec![
                change("need repo:write", 14),
                change("denied (archived)", 3),
            ],
            unfaithful: 1,
            unseen: 0,
        };
        assert_eq!(
            report.in_words(),
            "17 of 2,000 calls: 14 need repo:write, 3 denied (archived). 1 more cannot be replayed: \
             what they were decided by is not kept."
        );
        assert_eq!(
            Replay::default().in_words(),
            "No recorded call to try it on."
        );
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }
}
