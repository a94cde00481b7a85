//! Conditions on a call's arguments.
//!
//! A policy only ever narrows, so a condition that cannot tell holds: a text
//! where a number is expected, an object where a text is.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::arguments::Tree;
use crate::server::glob;

/// How an argument is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// It is this value; of a list, one of its items is.
    Equals,
    /// It is missing, or something else.
    NotEquals,
    /// It is one of these values.
    In,
    /// It is missing, or none of these values.
    NotIn,
    /// It fits one of these patterns (`*` for any run of characters).
    Matches,
    /// It is missing, or fits none of these patterns.
    NotMatches,
    /// It is there.
    Present,
    /// It is missing, or null.
    Absent,
    /// A number below.
    LessThan,
    /// A number not above.
    AtMost,
    /// A number above.
    GreaterThan,
    /// A number not below.
    AtLeast,
    /// A text of more characters, or a list of more items.
    LongerThan,
}

impl Operator {
    /// All, in order of their description.
    pub const ALL: [Self; 13] = [
        Self::Equals,
        Self::NotEquals,
        Self::In,
        Self::NotIn,
        Self::Matches,
        Self::NotMatches,
        Self::Present,
        Self::Absent,
        Self::LessThan,
        Self::AtMost,
        Self::GreaterThan,
        Self::AtLeast,
        Self::LongerThan,
    ];

    /// Its name in JSON and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Equals => "equals",
            Self::NotEquals => "not_equals",
            Self::In => "in",
            Self::NotIn => "not_in",
            Self::Matches => "matches",
            Self::NotMatches => "not_matches",
            Self::Present => "present",
            Self::Absent => "absent",
            Self::LessThan => "less_than",
            Self::AtMost => "at_most",
            Self::GreaterThan => "greater_than",
            Self::AtLeast => "at_least",
            Self::LongerThan => "longer_than",
        }
    }

    /// The operator of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.name() == name)
    }
}

/// One condition, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// A JSON pointer (RFC 6901) into the arguments.
    pub pointer: String,
    /// How it is looked at.
    pub operator: Operator,
    /// What it is compared with; none for `present` and `absent`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub value: Value,
}

/// A condition that was understood.
#[derive(Debug, Clone)]
pub(super) struct Test {
    path: Vec<String>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    AnyOf(Vec<Tree>),
    NoneOf(Vec<Tree>),
    Fits(Vec<String>),
    FitsNone(Vec<String>),
    Present,
    Absent,
    Compared(Ordering, bool, Number),
    LongerThan(u64),
}

impl Condition {
    /// Understands it, or says what to write instead.
    pub(super) fn compile(&self) -> Result<Test, String> {
        let name = self.operator.name();
        let needs = |what: &str| format!("operator {name} needs {what} as its value");
        let kind = match self.operator {
            Operator::Equals => Kind::AnyOf(vec![tree(&self.value)]),
            Operator::NotEquals => Kind::NoneOf(vec![tree(&self.value)]),
            Operator::In => Kind::AnyOf(self.items().ok_or_else(|| needs("a list"))?),
            Operator::NotIn => Kind::NoneOf(self.items().ok_or_else(|| needs("a list"))?),
            Operator::Matches => Kind::Fits(
                self.patterns()
                    .ok_or_else(|| needs("a pattern or a list of them"))?,
            ),
            Operator::NotMatches => Kind::FitsNone(
                self.patterns()
                    .ok_or_else(|| needs("a pattern or a list of them"))?,
            ),
            Operator::Present | Operator::Absent if !self.value.is_null() => {
                return Err(format!("operator {name} takes no value"));
            }
            Operator::Present => Kind::Present,
            Operator::Absent => Kind::Absent,
            Operator::LessThan => Kind::Compared(Ordering::Less, false, self.number()?),
            Operator::AtMost => Kind::Compared(Ordering::Less, true, self.number()?),
            Operator::GreaterThan => Kind::Compared(Ordering::Greater, false, self.number()?),
            Operator::AtLeast => Kind::Compared(Ordering::Greater, true, self.number()?),
            Operator::LongerThan => Kind::LongerThan(
                self.value
                    .as_u64()
                    .ok_or_else(|| needs("a whole number, 0 or more"))?,
            ),
        };
        Ok(Test {
            path: path(&self.pointer)?,
            kind,
        })
    }

    fn items(&self) -> Option<Vec<Tree>> {
        let items = self.value.as_array().filter(|items| !items.is_empty())?;
        Some(items.iter().map(tree).collect())
    }

    fn patterns(&self) -> Option<Vec<String>> {
        match &self.value {
            Value::String(one) => Some(vec![one.clone()]),
            Value::Array(several) if !several.is_empty() => several
                .iter()
                .map(|p| p.as_str().map(str::to_owned))
                .collect(),
            _ => None,
        }
    }

    fn number(&self) -> Result<Number, String> {
        match &self.value {
            Value::Number(number) => Number::parse(&number.to_string()),
            _ => None,
        }
        .ok_or_else(|| {
            format!(
                "operator {} needs a number as its value",
                self.operator.name()
            )
        })
    }
}

/// Splits an RFC 6901 pointer.
fn path(pointer: &str) -> Result<Vec<String>, String> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let Some(rest) = pointer.strip_prefix('/') else {
        return Err(format!(
            "pointer {:?} does not begin with a slash; write it like /amount or /to/0 (RFC 6901)",
            pointer.chars().take(80).collect::<String>()
        ));
    };
    rest.split('/')
        .map(|token| {
            let unescaped = token.replace("~1", "/").replace("~0", "~");
            let tildes = token.matches('~').count();
            let known = token.matches("~0").count() + token.matches("~1").count();
            if tildes == known {
                Ok(unescaped)
            } else {
                Err("in a pointer, ~ is written ~0 and / in a name ~1 (RFC 6901)".to_owned())
            }
        })
        .collect()
}

fn tree(value: &Value) -> Tree {
    // Written by serde_json and read again at once: it cannot fail.
    Tree::parse(&value.to_string()).unwrap_or(Tree::Null)
}

impl Test {
    /// Whether it holds; it does for arguments that cannot be read.
    pub(super) fn holds(&self, arguments: &Arguments) -> bool {
        let found = match arguments {
            Arguments::Unreadable => return true,
            Arguments::None => None,
            Arguments::Read(tree) => tree.at(&self.path),
        };
        let Some(found) = found else {
            return matches!(
                self.kind,
                Kind::NoneOf(_) | Kind::FitsNone(_) | Kind::Absent
            );
        };
        match &self.kind {
            Kind::Present => true,
            Kind::Absent => *found == Tree::Null,
            Kind::AnyOf(values) => values.iter().any(|v| same(found, v) || item_is(found, v)),
            Kind::NoneOf(values) => match found {
                Tree::List(items) if values.iter().all(|v| !matches!(v, Tree::List(_))) => items
                    .iter()
                    .any(|item| !values.iter().any(|v| same(item, v))),
                other => !values.iter().any(|v| same(other, v)),
            },
            Kind::Fits(patterns) => each(found, &|text| patterns.iter().any(|p| glob(p, text))),
            Kind::FitsNone(patterns) => {
                each(found, &|text| !patterns.iter().any(|p| glob(p, text)))
            }
            Kind::Compared(wanted, or_equal, limit) => match found {
                Tree::Number(text) => match Number::parse(text).and_then(|n| n.compare(*limit)) {
                    Some(ordering) => {
                        ordering == *wanted || (*or_equal && ordering == Ordering::Equal)
                    }
                    None => true,
                },
                _ => true,
            },
            Kind::LongerThan(limit) => {
                let length = match found {
                    Tree::Text(text) => text.chars().count(),
                    Tree::List(items) => items.len(),
                    _ => return true,
                };
                u64::try_from(length).is_ok_and(|n| n > *limit)
            }
        }
    }
}

/// A call's arguments, as far as they could be read.
#[derive(Debug)]
pub(super) enum Arguments {
    /// The call has none.
    None,
    /// There are some, and they are no JSON that all would read alike.
    Unreadable,
    /// Here they are.
    Read(Tree),
}

impl Arguments {
    pub(super) fn of(text: Option<&str>) -> Self {
        match text.map(Tree::parse) {
            None => Self::None,
            Some(None) => Self::Unreadable,
            Some(Some(tree)) => Self::Read(tree),
        }
    }
}

/// Whether the text, or one of the texts in a list, is as wanted. Numbers and
/// truth values are looked at as they are written; an object is never told
/// apart, so it is.
fn each(found: &Tree, wanted: &dyn Fn(&str) -> bool) -> bool {
    match found {
        Tree::Text(text) | Tree::Number(text) => wanted(text),
        Tree::Bool(value) => wanted(if *value { "true" } else { "false" }),
        Tree::Null => wanted(""),
        Tree::List(items) => items.iter().any(|item| each(item, wanted)),
        Tree::Object(_) => true,
    }
}

fn item_is(found: &Tree, value: &Tree) -> bool {
    matches!(found, Tree::List(items) if items.iter().any(|item| same(item, value)))
}

/// Equal values; numbers by what they say, not how.
fn same(a: &Tree, b: &Tree) -> bool {
    match (a, b) {
        (Tree::Number(a), Tree::Number(b)) => {
            let both = Number::parse(a).zip(Number::parse(b));
            both.and_then(|(a, b)| a.compare(b)) == Some(Ordering::Equal)
        }
        (Tree::List(a), Tree::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Tree::Object(a), Tree::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((m, a), (n, b))| m == n && same(a, b))
        }
        _ => a == b,
    }
}

/// A number: whole ones are compared to the last digit.
#[derive(Debug, Clone, Copy)]
enum Number {
    Whole(i128),
    Real(f64),
}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        match text.parse::<i128>() {
            Ok(whole) => Some(Self::Whole(whole)),
            Err(_) => text.parse::<f64>().ok().map(Self::Real),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "only beside a number that is real anyway"
    )]
    fn real(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Real(real) => real,
        }
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(&b)),
            (a, b) => a.real().partial_cmp(&b.real()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(pointer: &str, operator: &str, value: Value, arguments: Option<&str>) -> bool {
        let condition = Condition {
            pointer: pointer.into(),
            operator: Operator::named(operator).unwrap(),
            value,
        };
        condition
            .compile()
            .unwrap()
            .holds(&Arguments::of(arguments))
    }

    #[test]
    fn every_operator_says_what_its_name_promises() {
        let arguments = r#"{"n":5,"big":9007199254740993,"s":"prod","b":true,"z":null,
            "to":["ann@corp.com","eve@evil.com"],"o":{"k":"v"},"e":[],"":{"a/b":{"m~n":1}}}"#;
        let cases = [
            ("/n", "equals", json!(5), true),
            ("/n", "equals", json!(5.0), true),
            ("/n", "equals", json!("5"), false),
            ("/s", "equals", json!("prod"), true),
            ("/o", "equals", json!({"k":"v"}), true),
            ("/to", "equals", json!("eve@evil.com"), true),
            (
                "/to",
                "equals",
                json!(["ann@corp.com", "eve@evil.com"]),
                true,
            ),
            ("/missing", "equals", json!(1), false),
            ("/n", "not_equals", json!(5), false),
            ("/n", "not_equals", json!(6), true),
            ("/missing", "not_equals", json!(6), true),
            ("/s", "in", json!(["prod", "staging"]), true),
            ("/s", "in", json!(["dev"]), false),
            ("/s", "not_in", json!(["dev"]), true),
            ("/s", "not_in", json!(["prod"]), false),
            ("/to", "not_in", json!(["ann@corp.com"]), true),
            (
                "/to",
                "not_in",
                json!(["ann@corp.com", "eve@evil.com"]),
                false,
            ),
            ("/e", "not_in", json!(["x"]), false),
            ("/missing", "not_in", json!(["x"]), true),
            ("/s", "matches", json!("pr*"), true),
            ("/s", "matches", json!(["x*", "*od"]), true),
            ("/to", "matches", json!("*@evil.com"), true),
            ("/to", "not_matches", json!("*@corp.com"), true),
            (
                "/to",
                "not_matches",
                json!(["*@corp.com", "*@evil.com"]),
                false,
            ),
            ("/n", "matches", json!("5"), true),
            ("/o", "matches", json!("anything"), true),
            ("/missing", "matches", json!("*"), false),
            ("/missing", "not_matches", json!("*"), true),
            ("/n", "present", Value::Null, true),
            ("/z", "present", Value::Null, true),
            ("/missing", "present", Value::Null, false),
            ("/n", "absent", Value::Null, false),
            ("/z", "absent", Value::Null, true),
            ("/missing", "absent", Value::Null, true),
            ("/n", "less_than", json!(5), false),
            ("/n", "at_most", json!(5), true),
            ("/n", "greater_than", json!(4.5), true),
            ("/n", "at_least", json!(6), false),
            (
                "/big",
                "greater_than",
                json!(9_007_199_254_740_992_u64),
                true,
            ),
            (
                "/big",
                "greater_than",
                json!(9_007_199_254_740_993_u64),
                false,
            ),
            // A text where a number is wanted: nobody knows what the server makes of it.
            ("/s", "greater_than", json!(4), true),
            ("/missing", "greater_than", json!(4), false),
            ("/s", "longer_than", json!(3), true),
            ("/s", "longer_than", json!(4), false),
            ("/to", "longer_than", json!(1), true),
            ("/to/0", "equals", json!("ann@corp.com"), true),
            ("/to/00", "present", Value::Null, false),
            ("//a~1b/m~0n", "equals", json!(1), true),
            ("", "present", Value::Null, true),
        ];
        for (pointer, operator, value, expected) in cases {
            let found = holds(pointer, operator, value.clone(), Some(arguments));
            assert_eq!(found, expected, "{pointer} {operator} {value}");
        }
    }

    #[test]
    fn what_cannot_be_read_fits_every_condition_and_nothing_at_all_only_the_negative_ones() {
        let value = |operator: Operator| match operator {
            Operator::In | Operator::NotIn => json!([1]),
            Operator::Matches | Operator::NotMatches => json!("x"),
            Operator::Present | Operator::Absent => Value::Null,
            _ => json!(1),
        };
        for operator in Operator::ALL {
            let name = operator.name();
            assert!(
                holds("/a", name, value(operator), Some(r#"{"a":1,"a":2}"#)),
                "{name}"
            );
            let negative = name.starts_with("not_") || name == "absent";
            assert_eq!(holds("/a", name, value(operator), None), negative, "{name}");
        }
    }

    #[test]
    fn a_condition_that_makes_no_sense_is_refused_with_what_to_write() {
        let cases = [
            ("amount", "equals", json!(1), "begin with a slash"),
            ("/a~2", "equals", json!(1), "~0"),
            ("/a", "in", json!("x"), "a list"),
            ("/a", "not_in", json!([]), "a list"),
            ("/a", "matches", json!([1]), "a pattern"),
            ("/a", "present", json!(true), "no value"),
            ("/a", "less_than", json!("1"), "a number"),
            ("/a", "longer_than", json!(-1), "whole number"),
        ];
        for (pointer, operator, value, says) in cases {
            let condition = Condition {
                pointer: pointer.into(),
                operator: Operator::named(operator).unwrap(),
                value,
            };
            let error = condition.compile().unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
