//! What the kit found, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

/// Everything that was checked.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The preset's name.
    pub preset: String,
    /// As the file name says.
    pub version: String,
    /// Of the component.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// The table it was held against; none if there was none.
    pub table: Option<String>,
    /// By subject.
    pub groups: Vec<Group>,
}

/// Checks of one subject.
#[derive(Debug, Serialize)]
pub struct Group {
    /// For people.
    pub title: &'static str,
    /// In order.
    pub checks: Vec<Check>,
}

/// One promise and whether it holds.
#[derive(Debug, Serialize)]
pub struct Check {
    /// The promise.
    pub name: String,
    /// How it stands.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a promise stands.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not.
    Failed {
        /// What should have been.
        expected: String,
        /// What was.
        found: String,
        /// What the author can do.
        advice: String,
    },
    /// There is nothing to hold.
    Skipped {
        /// Why.
        reason: String,
    },
}

impl Group {
    pub(super) fn new(title: &'static str) -> Self {
        Self {
            title,
            checks: Vec::new(),
        }
    }

    pub(super) fn pass(&mut self, name: impl Into<String>) {
        self.put(name, Outcome::Passed);
    }

    pub(super) fn skip(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        let reason = reason.into();
        self.put(name, Outcome::Skipped { reason });
    }

    pub(super) fn fail(
        &mut self,
        name: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let outcome = Outcome::Failed {
            expected: expected.into(),
            found: found.into(),
            advice: advice.into(),
        };
        self.put(name, outcome);
    }

    /// Holds if there is nothing wrong.
    pub(super) fn none<T: AsRef<str>>(
        &mut self,
        name: impl Into<String>,
        wrong: &[T],
        advice: &str,
    ) {
        if wrong.is_empty() {
            self.pass(name);
        } else {
            let wrong: Vec<&str> = wrong.iter().map(AsRef::as_ref).collect();
            self.fail(name, "nothing to find fault with", wrong.join("\n"), advice);
        }
    }

    /// Holds if both are the same.
    pub(super) fn equal(
        &mut self,
        name: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        advice: &str,
    ) {
        let (expected, found) = (expected.into(), found.into());
        if expected == found {
            self.pass(name);
        } else {
            self.fail(name, expected, found, advice);
        }
    }

    fn put(&mut self, name: impl Into<String>, outcome: Outcome) {
        let name = name.into();
        self.checks.push(Check { name, outcome });
    }
}

impl Report {
    /// Passed, failed, skipped.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for check in self.groups.iter().flat_map(|g| &g.checks) {
            match check.outcome {
                Outcome::Passed => counts.0 += 1,
                Outcome::Failed { .. } => counts.1 += 1,
                Outcome::Skipped { .. } => counts.2 += 1,
            }
        }
        counts
    }

    /// Whether nothing failed.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.counts().1 == 0
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let table = self.table.as_deref().unwrap_or("no table");
        let mut out = format!(
            "{} {}  {:.1} kB  {}  {table}\n",
            self.preset,
            self.version,
            self.size as f64 / 1000.0,
            short(&self.digest),
        );
        for group in &self.groups {
            let _ = writeln!(out, "\n{}", group.title);
            for check in &group.checks {
                let _ = match &check.outcome {
                    Outcome::Passed => writeln!(out, "  ✓ {}", check.name),
                    Outcome::Skipped { reason } => writeln!(out, "  – {}: {reason}", check.name),
                    Outcome::Failed {
                        expected,
                        found,
                        advice,
                    } => writeln!(
                        out,
                        "  ✗ {}\n      expected  {}\n      came      {}\n      do        {}",
                        check.name,
                        indented(expected),
                        indented(found),
                        indented(advice)
                    ),
                };
            }
        }
        let (passed, failed, skipped) = self.counts();
        let _ = write!(out, "\n{passed} passed, {failed} failed");
        if skipped > 0 {
            let _ = write!(out, ", {skipped} with nothing to check");
        }
        out
    }

    /// Its suites, as JUnit has them: one for each group.
    fn suites(&self, out: &mut String) {
        let name = match &self.table {
            Some(table) => format!("{} {} {table}", self.preset, self.version),
            None => format!("{} {}", self.preset, self.version),
        };
        for group in &self.groups {
            let count = |wanted: fn(&Outcome) -> bool| {
                group.checks.iter().filter(|c| wanted(&c.outcome)).count()
            };
            let _ = writeln!(
                out,
                "  <testsuite name=\"{}: {}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\">",
                escaped(&name),
                escaped(group.title),
                group.checks.len(),
                count(|o| matches!(o, Outcome::Failed { .. })),
                count(|o| matches!(o, Outcome::Skipped { .. }))
            );
            for check in &group.checks {
                let class = escaped(&format!("{}.{}", self.preset, group.title));
                let _ = write!(
                    out,
                    "    <testcase classname=\"{class}\" name=\"{}\"",
                    escaped(&check.name)
                );
                let _ = match &check.outcome {
                    Outcome::Passed => writeln!(out, "/>"),
                    Outcome::Skipped { reason } => {
                        writeln!(
                            out,
                            "><skipped message=\"{}\"/></testcase>",
                            escaped(reason)
                        )
                    }
                    Outcome::Failed {
                        expected,
                        found,
                        advice,
                    } => writeln!(
                        out,
                        "><failure message=\"{}\">expected: {}\ncame: {}</failure></testcase>",
                        escaped(advice),
                        escaped(expected),
                        escaped(found)
                    ),
                };
            }
            out.push_str("  </testsuite>\n");
        }
    }
}

/// All reports as JUnit reads them.
#[must_use]
pub fn junit(reports: &[Report]) -> String {
    let (passed, failed, skipped) = reports
        .iter()
        .map(Report::counts)
        .fold((0, 0, 0), |(passed, failed, skipped), (p, f, s)| {
            (passed + p, failed + f, skipped + s)
        });
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"countersign preset test\" tests=\"{}\" failures=\"{failed}\" skipped=\"{skipped}\">\n",
        passed + failed + skipped
    );
    for report in reports {
        report.suites(&mut out);
    }
    out.push_str("</testsuites>");
    out
}

/// The first twelve digits of `sha256:…`.
pub(crate) fn short(digest: &str) -> &str {
    let hex = digest.split(':').next_back().unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

/// Further lines under the first.
fn indented(text: &str) -> String {
    text.replace('\n', "\n                ")
}

/// For XML text and attributes; characters that XML does not know become
/// spaces.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut consent = Group::new("Consent");
        consent.pass("it begins");
        consent.fail("a <scope> & more", "a\nb", "c", "say \"a\"");
        consent.skip("PKCE", "the preset says it is unsupported");
        Report {
            preset: "acme".into(),
            version: "0.1.0".into(),
            digest: "sha256:0123456789abcdef".into(),
            size: 151_234,
            table: Some("scopes.toml".into()),
            groups: vec![consent],
        }
    }

    #[test]
    fn people_see_what_was_expected_what_came_and_what_to_do() {
        insta::assert_snapshot!(report().text());
    }

    #[test]
    fn junit_is_escaped() {
        insta::assert_snapshot!(junit(&[report()]));
    }
}
