//! A call's arguments as they are judged, shown and recognised: numbers stay
//! the text they came as, so that two readers never see two different ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::value::RawValue;

/// Deeper arguments are not looked into.
const DEEPEST: usize = 128;

/// JSON with members in order of name and numbers as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// As it was written.
    Number(String),
    /// Without escapes.
    Text(String),
    /// In order.
    List(Vec<Tree>),
    /// By name.
    Object(BTreeMap<String, Tree>),
}

impl Tree {
    /// Reads a JSON text; none if it is not one, holds a member twice, or is
    /// nested beyond all reason.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::at_depth(serde_json::from_str::<&RawValue>(text).ok()?, 0)
    }

    fn at_depth(raw: &RawValue, depth: usize) -> Option<Self> {
        if depth > DEEPEST {
            return None;
        }
        let text = raw.get();
        Some(match text.as_bytes().first()? {
            b'n' => Self::Null,
            b't' => Self::Bool(true),
            b'f' => Self::Bool(false),
            b'"' => Self::Text(serde_json::from_str(text).ok()?),
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                let items = items
                    .into_iter()
                    .map(|item| Self::at_depth(item, depth + 1));
                Self::List(items.collect::<Option<_>>()?)
            }
            b'{' => {
                let members: Members<'_> = serde_json::from_str(text).ok()?;
                let mut object = BTreeMap::new();
                for (name, value) in members.0 {
                    let value = Self::at_depth(value, depth + 1)?;
                    if object.insert(name, value).is_some() {
                        return None;
                    }
                }
                Self::Object(object)
            }
            _ => Self::Number(text.to_owned()),
        })
    }

    /// What an RFC 6901 pointer, already split and unescaped, points to.
    #[must_use]
    pub fn at(&self, path: &[String]) -> Option<&Self> {
        path.iter().try_fold(self, |at, name| match at {
            Self::Object(members) => members.get(name),
            Self::List(items) => {
                let canonical = name == "0" || !name.starts_with(['0', '+']);
                items.get(name.parse::<usize>().ok().filter(|_| canonical)?)
            }
            _ => None,
        })
    }

    /// One text for one value, whatever the order of members and the blanks
    /// between them were.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, None);
        out
    }

    /// For people: indented by two blanks.
    #[must_use]
    pub fn pretty(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, Some(0));
        out
    }

    fn write(&self, out: &mut String, indent: Option<usize>) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => {
                let _ = write!(out, "{value}");
            }
            Self::Number(text) => out.push_str(text),
            Self::Text(text) => out.push_str(&quoted(text)),
            Self::List(items) => between(out, indent, ['[', ']'], items, |out, item, indent| {
                item.write(out, indent);
            }),
            Self::Object(members) => {
                between(
                    out,
                    indent,
                    ['{', '}'],
                    members,
                    |out, (name, value), indent| {
                        out.push_str(&quoted(name));
                        out.push_str(if indent.is_some() { ": " } else { ":" });
                        value.write(out, indent);
                    },
                );
            }
        }
    }
}

/// Writes items between brackets, each on a line of its own if there is an
/// indentation.
fn between<T>(
    out: &mut String,
    indent: Option<usize>,
    [open, close]: [char; 2],
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut String, T, Option<usize>),
) {
    let inner = indent.map(|n| n + 1);
    let new_line = |out: &mut String, indent: Option<usize>| {
        if let Some(n) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", n));
        }
    };
    out.push(open);
    let mut any = false;
    for item in items {
        if any {
            out.push(',');
        }
        any = true;
        new_line(out, inner);
        write(out, item, inner);
    }
    if any {
        new_line(out, indent);
    }
    out.push(close);
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An object's members, also those that are there twice.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> serde::de::Visitor<'de> for Reader {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_one_text_and_numbers_keep_theirs() {
        let one = Tree::parse(r#"{ "b":[1, 2.50,{"y":null,"x":"\u00e9"}], "a":1e400 }"#).unwrap();
        let two = Tree::parse(r#"{"a":1e400,"b":[1,2.50,{"x":"é","y":null}]}"#).unwrap();
        assert_eq!(one, two);
        assert_eq!(
            one.canonical(),
            r#"{"a":1e400,"b":[1,2.50,{"x":"é","y":null}]}"#
        );
        let big = |text: &str| Tree::parse(text).unwrap().canonical();
        assert_ne!(big("123456789012345678901"), big("123456789012345678902"));
        assert_eq!(big("{}"), "{}");
    }

    #[test]
    fn what_two_readers_could_understand_differently_is_no_tree() {
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            "",
            "{",
            "x",
            "1 2",
            r#""\ud800""#,
            &deep,
        ] {
            assert_eq!(Tree::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn people_see_every_member_on_a_line_of_its_own() {
        let tree = Tree::parse(r#"{"to":["a","b"],"body":"x\n<b>","empty":{}}"#).unwrap();
        assert_eq!(
            tree.pretty(),
            "{\n  \"body\": \"x\\n<b>\",\n  \"empty\": {},\n  \"to\": [\n    \"a\",\n    \"b\"\n  ]\n}"
        );
    }

    proptest::proptest! {
        #[test]
        fn a_tree_reads_back_from_both_of_its_texts(text in ".{0,200}") {
            if let Some(tree) = Tree::parse(&text) {
                proptest::prop_assert_eq!(Tree::parse(&tree.canonical()), Some(tree.clone()));
                proptest::prop_assert_eq!(Tree::parse(&tree.pretty()), Some(tree));
            }
        }
    }
}
