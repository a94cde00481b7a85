//! Printing: aligned tables for people, JSON for programs.

use std::io::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::{CliError, OutputFormat};

/// Prints results to standard output.
pub(super) struct Printer {
    format: OutputFormat,
}

impl Printer {
    pub(super) fn new(format: OutputFormat) -> Self {
        Self { format }
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
        self.value(list, || {
            let items = list
                .get("items")
                .and_then(Value::as_array)
                .map_or(&[][..], Vec::as_slice);
            if items.is_empty() {
                return empty.to_owned();
            }
            let rows: Vec<Vec<String>> = items
                .iter()
                .map(|item| {
                    columns
                        .iter()
                        .map(|(_, path)| text(at(item, path)))
                        .collect()
                })
                .collect();
            let heads: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
            table(&heads, &rows)
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
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        // Control characters of a stored text must not reach the terminal.
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect(),
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
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
}
