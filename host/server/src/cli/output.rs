//! Printing: aligned tables for people, JSON for programs.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use countersign_core::time::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{CliError, OutputFormat};

/// Prints results to standard output.
pub(super) struct Printer {
    format: OutputFormat,
    differs: AtomicBool,
}

impl Printer {
    pub(super) fn new(format: OutputFormat) -> Self {
        Self {
            format,
            differs: AtomicBool::new(false),
        }
    }

    /// What was compared differs: the command ends with 3.
    pub(super) fn differs(&self) {
        self.differs.store(true, Ordering::Relaxed);
    }

    /// The exit code of a command that did its work.
    pub(super) fn exit_code(&self) -> ExitCode {
        if self.differs.load(Ordering::Relaxed) {
            ExitCode::from(3)
        } else {
            ExitCode::SUCCESS
        }
    }

    /// How results are printed.
    pub(super) fn format(&self) -> OutputFormat {
        self.format
    }

    /// A text that is the same in every format.
    pub(super) fn text(&self, text: &str) -> Result<(), CliError> {
        write(text)
    }

    /// One result: as JSON, or in words.
    pub(super) fn value(
        &self,
        value: &impl Serialize,
        words: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        match self.format {
            OutputFormat::Json => {
                write(&serde_json::to_string_pretty(value).map_err(CliError::new)?)
            }
            OutputFormat::Table => write(&words()),
        }
    }

    /// Whether programs read it.
    pub(super) fn is_json(&self) -> bool {
        self.format == OutputFormat::Json
    }

    /// Rows below their heads, for people.
    pub(super) fn table(&self, heads: &[&str], rows: &[Vec<String>]) -> String {
        table(heads, rows)
    }

    /// One result as a list of its fields.
    pub(super) fn fields(&self, value: &Value) -> Result<(), CliError> {
        self.value(value, || {
            let mut rows = Vec::new();
            flatten("", value, &mut rows);
            table(&[], &rows)
        })
    }

    /// A list document: chosen columns, or what to do when it is empty.
    pub(super) fn list(
        &self,
        list: &Value,
        columns: &[(&str, &str)],
        empty: &str,
    ) -> Result<(), CliError> {
        let heads: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
        let row = |item: &Value| columns.iter().map(|(_, path)| cell(item, path)).collect();
        self.rows(list, &heads, row, empty)
    }

    /// A list document with cells that are made of each item.
    pub(super) fn rows(
        &self,
        list: &Value,
        heads: &[&str],
        row: impl Fn(&Value) -> Vec<String>,
        empty: &str,
    ) -> Result<(), CliError> {
        self.value(list, || {
            let rows: Vec<Vec<String>> = items(list).iter().map(row).collect();
            if rows.is_empty() {
                return empty.to_owned();
            }
            table(heads, &rows)
        })
    }

    /// A short confirmation; JSON output stays silent but for `{}`.
    pub(super) fn done(&self, words: &str) -> Result<(), CliError> {
        self.value(&serde_json::json!({}), || words.to_owned())
    }
}

fn write(text: &str) -> Result<(), CliError> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        // The reader (`| head`) has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(CliError::new),
    }
}

/// The items of a list document.
pub(super) fn items(list: &Value) -> &[Value] {
    let items = list.get("items").and_then(Value::as_array);
    items.map_or(&[][..], Vec::as_slice)
}

/// The cell of the member at this dotted path.
pub(super) fn cell(item: &Value, path: &str) -> String {
    text(at(item, path))
}

/// A member by its dotted path.
fn at<'a>(item: &'a Value, path: &str) -> &'a Value {
    path.split('.')
        .fold(item, |at, name| at.get(name).unwrap_or(&Value::Null))
}

/// Fields with their dotted paths; what is empty inside is left out.
fn flatten(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let inner = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                flatten(&inner, value, rows);
            }
        }
        other if path.contains('.') && text(other) == "-" => {}
        other => rows.push(vec![path.to_owned(), text(other)]),
    }
}

/// One cell.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        // Control characters of a stored text must not reach the terminal.
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => match moment(text) {
            Some(shorter) => shorter,
            None => text
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect(),
        },
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A time of the host, to the second; `--since` takes it like this, too.
fn moment(text: &str) -> Option<String> {
    let at = Timestamp::parse(text)?;
    let (day, rest) = text.split_once('T')?;
    let (second, _) = rest.split_once('.')?;
    (at.to_string() == text).then(|| format!("{day} {second}Z"))
}

/// Columns aligned by their longest cell, two spaces between.
fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let columns = rows
        .iter()
        .map(Vec::len)
        .max()
        .unwrap_or(0)
        .max(heads.len());
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|r| r.get(column))
            .map(|c| c.chars().count());
        cells
            .chain(heads.get(column).map(|h| h.chars().count()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = Vec::with_capacity(rows.len() + 1);
    if !heads.is_empty() {
        lines.push(line(&mut heads.iter().copied()));
    }
    lines.extend(
        rows.iter()
            .map(|row| line(&mut row.iter().map(String::as_str))),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows = vec![
            vec!["github".into(), "GitHub".into()],
            vec!["a".into(), "Ä wider name".into()],
        ];
        assert_eq!(
            table(&["NAME", "TITLE"], &rows),
            "NAME    TITLE\ngithub  GitHub\na       Ä wider name"
        );
    }

    #[test]
    fn a_cell_cannot_move_the_cursor() {
        assert_eq!(text(&serde_json::json!("a\u{1b}[2Jb\nc")), "a [2Jb c");
        assert_eq!(text(&serde_json::json!(["x", "y"])), "x, y");
        assert_eq!(text(&serde_json::json!(null)), "-");
    }

    #[test]
    fn a_time_is_shown_to_the_second_and_can_be_given_back() {
        let shown = text(&serde_json::json!("2026-11-21T07:25:26.681Z"));
        assert_eq!(shown, "2026-11-21 07:25:26Z");
        assert!(Timestamp::parse(&shown).is_some());
        assert_eq!(text(&serde_json::json!("2026-11-21T07")), "2026-11-21T07");
    }
}
