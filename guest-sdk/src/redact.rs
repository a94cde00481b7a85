//! Help for the hook `redact`.

use miniserde::json::{self, Value};

use crate::hooks::Redaction;

impl Redaction {
    /// Removes the member or element there.
    pub fn drop_at(pointer: &str) -> Self {
        Self::Drop(pointer.into())
    }

    /// Masks the string there.
    pub fn mask_at(pointer: &str) -> Self {
        Self::Mask(pointer.into())
    }

    /// Masks a range of bytes of the string there, as `str::find` and its like
    /// give them.
    pub fn range_at(pointer: &str, range: core::ops::Range<usize>) -> Self {
        let edge = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self::MaskRange((pointer.into(), edge(range.start), edge(range.end)))
    }
}

/// Every string of a result, with the pointer that names it: in `content` as
/// well as in `structuredContent`.
pub fn strings(content: &str) -> Result<Vec<(String, String)>, String> {
    let value: Value = json::from_str(content).map_err(|_| "the result is no JSON".to_string())?;
    let mut found = Vec::new();
    // Not by recursion: a guest's stack is small.
    let mut open = vec![(String::new(), value)];
    while let Some((pointer, value)) = open.pop() {
        match value {
            Value::String(text) => found.push((pointer, text)),
            Value::Array(items) => {
                let items = items.into_iter().enumerate().rev();
                open.extend(
                    items.map(|(at, item)| ([&pointer, "/", &at.to_string()].concat(), item)),
                );
            }
            Value::Object(members) => {
                for (name, member) in members {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    open.push(([&pointer, "/", &name].concat(), member));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_is_found_with_the_pointer_that_names_it() {
        let mut found =
            strings(r#"{"content":[{"text":"a"},{"text":"b"}],"x/y":{"~":"c"},"n":1}"#).unwrap();
        found.sort();
        let expected = [
            ("/content/0/text", "a"),
            ("/content/1/text", "b"),
            ("/x~1y/~0", "c"),
        ];
        let expected = expected.map(|(p, t)| (p.to_string(), t.to_string()));
        assert_eq!(found, expected);
        assert!(strings("<html>").is_err());
    }

    #[test]
    fn a_range_is_what_finding_gives() {
        assert_eq!(
            Redaction::range_at("/a", 3..7),
            Redaction::MaskRange(("/a".into(), 3, 7))
        );
    }
}
