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
    use countersign_core::names::Digest;
    use countersign_core::preset::{
        Call, Description, GrantFacts, McpServer, PresetFault, Registration, TokenShape, Tool,
        Verdict,
    };
    use countersign_core::scope::ScopeSet;

    use countersign_core::preset::{AccountFacts, Redaction};
    use countersign_core::signing::{Recipe, Unsigned};

    use super::*;
    use crate::registry::testing::description;

    /// Says what it is told to.
    struct Saying(Description, fn(&Call<'_>) -> Result<Verdict, PresetFault>);

    impl Preset for Saying {
        fn digest(&self) -> Digest {
            Digest::of(b"saying")
        }
        fn description(&self) -> &Description {
            &self.0
        }
        fn evaluate(&self, call: &Call<'_>, _: &GrantFacts<'_>) -> Result<Verdict, PresetFault> {
            (self.1)(call)
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

    fn allow(_: &Call<'_>) -> Result<Verdict, PresetFault> {
        Ok(Verdict::Allow {
            credential: None,
            rules: Vec::new(),
        })
    }

    fn stricter(call: &Call<'_>) -> Result<Verdict, PresetFault> {
        match call.name {
            Some("archive") => Ok(Verdict::Deny {
                code: "archived".into(),
                message: "no".into(),
            }),
            _ => allow(call),
        }
    }

    fn input(name: &str, faithful: bool) -> Recorded {
        Recorded {
            method: "tools/call".into(),
            name: Some(name.into()),
            host: "api.example.com".into(),
            connected: true,
            scopes: vec!["repo:read".into()],
            account: None,
            facts: Vec::new(),
            arguments: None,
            preset: Digest::of(b"saying"),
            said: Said::Allow {
                credential: None,
                rules: None,
            },
            faithful,
        }
    }

    #[test]
    fn a_new_version_is_asked_what_the_old_one_was() {
        let mut table = description("acme", None);
        table.mcp_servers = vec![McpServer {
            url: Vec::new(),
            title: "Acme".into(),
            tools: vec![Tool {
                name: "push".into(),
                needs: vec![vec!["repo:write".into()]],
                broad: false,
            }],
            own_authorization_server: false,
            registration: Registration::Open,
            as_of: "2026".into(),
        }];
        table.wants.arguments = true;
        let old = Saying(description("acme", None), allow);
        let new = Saying(table, stricter);
        let mut inputs = vec![input("read", true); 5];
        inputs.extend(vec![input("archive", true); 3]);
        inputs.extend(vec![input("push", true); 14]);
        inputs.extend(vec![input("archive", false); 2]);
        let report = replay(&old, &new, &inputs);
        assert_eq!((report.calls, report.changed), (22, 17));
        assert_eq!((report.unfaithful, report.unseen), (2, 22));
        let said: Vec<(&str, usize)> = report
            .changes
            .iter()
            .map(|c| (c.to.as_str(), c.count))
            .collect();
        assert_eq!(said, [("need repo:write", 14), ("denied (archived)", 3)]);
        assert_eq!(
            report.changes[1].examples,
            ["tools/call archive at api.example.com: allowed before"]
        );
        assert_eq!(replay(&old, &old, &inputs).changed, 0);
    }

    #[test]
    fn a_recorded_decision_reads_back_as_it_was_written() {
        let line = serde_json::to_string(&input("read", true)).unwrap();
        let back: Recorded = serde_json::from_str(&line).unwrap();
        assert_eq!(back, input("read", true));
    }

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
