//! Taking out of an input what is somebody's, and leaving what may decide.
//!
//! A text is kept if the component itself contains it: then the preset may
//! compare with it, and it is nobody's secret. Every other text becomes a
//! placeholder, the same for the same text within one server, so that equal
//! texts stay equal. Numbers keep their sign and size. Nothing else is kept.

use std::collections::HashMap;
use std::sync::Arc;

use countersign_core::names::{Digest, hex};
use countersign_core::secret::SealKey;
use serde_json::{Map, Number, Value};

/// Longest text that is kept; a longer one is somebody's words.
const LONGEST_KEPT: usize = 64;
/// Shortest; a few letters are in every component by chance.
const SHORTEST_KEPT: usize = 4;
/// Largest arguments that are kept, in bytes of JSON.
const LONGEST_ARGUMENTS: usize = 3 * 1024;

/// All that a component contains of readable text.
pub(super) struct Words(String);

impl Words {
    /// Of a component; of none, if it is not there any more.
    pub(super) fn of(component: &[u8]) -> Self {
        let mut text = String::new();
        let mut run = String::new();
        for byte in component.iter().chain([&0]) {
            if byte.is_ascii_graphic() || *byte == b' ' {
                run.push(char::from(*byte));
                continue;
            }
            if run.len() >= SHORTEST_KEPT {
                text.push_str(&run);
                text.push('\n');
            }
            run.clear();
        }
        Self(text)
    }

    fn contain(&self, text: &str) -> bool {
        (SHORTEST_KEPT..=LONGEST_KEPT).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
            // Tables of digits are in every component, too.
            && text.bytes().any(|b| b.is_ascii_alphabetic())
            && self.0.contains(text)
    }
}

/// Redacts for one server.
pub(super) struct Redactor<'a> {
    pub(super) key: &'a SealKey,
    pub(super) words: &'a Words,
}

impl Redactor<'_> {
    /// A text as it is kept.
    pub(super) fn text(&self, text: &str) -> String {
        if self.words.contain(text) {
            return text.to_owned();
        }
        format!("~{}", hex(&self.key.mac(&[text.as_bytes()])[..6]))
    }

    /// A tool's name is kept: it is the server's. Anything that looks like more
    /// than a name is not, and neither is a resource's address.
    pub(super) fn name(&self, method: &str, name: &str) -> String {
        let plain = (1..=128).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b));
        if plain && method != "resources/read" {
            return name.to_owned();
        }
        match name.split_once("://") {
            Some((scheme, rest)) if scheme.len() <= 32 && plain_word(scheme) => {
                format!("{scheme}://{}", self.text(rest))
            }
            _ => self.text(name),
        }
    }

    /// Arguments as they are kept; none if they are too large or no JSON.
    pub(super) fn arguments(&self, text: &str) -> Option<String> {
        let value: Value = serde_json::from_str(text).ok()?;
        let kept = self.value(&value).to_string();
        (kept.len() <= LONGEST_ARGUMENTS).then_some(kept)
    }

    fn value(&self, value: &Value) -> Value {
        match value {
            Value::Null | Value::Bool(_) => value.clone(),
            Value::Number(number) => Value::Number(size_of(number)),
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.iter().map(|v| self.value(v)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(name, value)| (self.text(name), self.value(value)))
                .collect::<Map<_, _>>()
                .into(),
        }
    }
}

fn plain_word(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// Small numbers as they are; larger ones as their power of ten.
fn size_of(number: &Number) -> Number {
    match number.as_i64() {
        Some(n) if (-100..=100).contains(&n) => number.clone(),
        Some(n) => {
            let power = 10_i64.pow(n.unsigned_abs().ilog10().min(18));
            Number::from(if n < 0 { -power } else { power })
        }
        None => Number::from(0),
    }
}

/// The words of components, read once each.
#[derive(Default)]
pub(super) struct Known(HashMap<Digest, Arc<Words>>);

impl Known {
    /// The words of a component, which `read` gets if it is new.
    pub(super) fn words(
        &mut self,
        digest: Digest,
        read: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Arc<Words> {
        if self.0.len() > 64 {
            self.0.clear();
        }
        let words = self.0.entry(digest);
        Arc::clone(words.or_insert_with(|| Arc::new(Words::of(&read().unwrap_or_default()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_component_contains_is_kept() {
        let words = Words::of(b"\0asm\x01\0delete_repo\0private\x02owner\0visibility\0public\0");
        let key = SealKey::new([7; 32]);
        let redactor = Redactor {
            key: &key,
            words: &words,
        };
        let arguments = r#"{"owner":"ada","visibility":"public","token":"ghp_SECRET","private":true,
            "n":7,"amount":123456,"list":["ada","x"],"note":"call me at 555-0100"}"#;
        let kept = redactor.arguments(arguments).unwrap();
        for gone in ["ada\"", "ghp_SECRET", "token", "123456", "555", "\"x\""] {
            assert!(!kept.contains(gone), "{gone} in {kept}");
        }
        let kept: Value = serde_json::from_str(&kept).unwrap();
        assert_eq!(kept["visibility"], "public");
        assert_eq!(kept["private"], true);
        // The same text is the same placeholder: comparisons still hold.
        let list = kept.as_object().unwrap().values().find(|v| v.is_array());
        assert_eq!(list.unwrap()[0], kept["owner"]);
        let numbers: Vec<i64> = kept
            .as_object()
            .unwrap()
            .values()
            .filter_map(Value::as_i64)
            .collect();
        assert_eq!(numbers, [7, 100_000]);
        assert_eq!(redactor.arguments("no json"), None);
        let long = format!("[{}]", vec!["\"abcdef\""; 2000].join(","));
        assert_eq!(redactor.arguments(&long), None);
    }

    #[test]
    fn names_of_tools_are_kept_and_addresses_are_not() {
        let words = Words::of(b"");
        let key = SealKey::new([7; 32]);
        let redactor = Redactor {
            key: &key,
            words: &words,
        };
        assert_eq!(redactor.name("tools/call", "create_issue"), "create_issue");
        let kept = redactor.name("resources/read", "file:///home/ada/notes?key=s3cret");
        assert!(
            kept.starts_with("file://~") && !kept.contains("ada"),
            "{kept}"
        );
        let kept = redactor.name("tools/call", "please delete ada@example.com");
        assert!(kept.starts_with('~'), "{kept}");
    }
}
