//! The part of AIP-160 that lists understand: comparisons joined by `AND`.

use std::cmp::Ordering;

use serde_json::Value;

/// A parsed filter; the empty one lets everything through.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Filter(pub(super) Vec<Term>);

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Term {
    pub(super) field: String,
    pub(super) operator: Operator,
    pub(super) value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Holds,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const OPERATORS: [(&str, Operator); 7] = [
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("=", Operator::Equal),
    (":", Operator::Holds),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

impl Filter {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const LONGEST: usize = 2000;
        if text.len() > LONGEST {
            return Err(format!("is longer than {LONGEST} bytes"));
        }
        let mut terms = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (term, after) = Term::parse(rest)?;
            terms.push(term);
            rest = after.trim_start();
            if rest.is_empty() {
                break;
            }
            rest = rest
                .strip_prefix("AND")
                .filter(|r| r.starts_with(char::is_whitespace))
                .ok_or_else(|| format!("expected AND before {:?}", cut(rest)))?
                .trim_start();
            if rest.is_empty() {
                return Err("ends with AND".into());
            }
        }
        Ok(Self(terms))
    }

    pub(super) fn matches(&self, item: &Value) -> Result<bool, String> {
        for term in &self.0 {
            if !term.matches(field(item, &term.field)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Term {
    fn parse(text: &str) -> Result<(Self, &str), String> {
        let end = text
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.')
            .unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let rest = rest.trim_start();
        let operator = OPERATORS.iter().find(|(sign, _)| rest.starts_with(sign));
        let (Some((sign, operator)), false) = (operator, name.is_empty()) else {
            return Err(format!(
                "{:?} is not of the form: field = \"value\"",
                cut(text)
            ));
        };
        let rest = rest[sign.len()..].trim_start();
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        if value.is_empty() && !rest.starts_with('"') && !text.contains('"') {
            return Err(format!("{name} is compared with nothing"));
        }
        Ok((
            Self {
                field: name.to_owned(),
                operator: *operator,
                value,
            },
            rest,
        ))
    }

    fn matches(&self, found: &Value) -> bool {
        let ordering = compare_text(found, &self.value);
        match self.operator {
            Operator::Equal => ordering == Some(Ordering::Equal),
            Operator::NotEqual => ordering != Some(Ordering::Equal),
            Operator::Less => ordering == Some(Ordering::Less),
            Operator::LessOrEqual => ordering.is_some_and(Ordering::is_le),
            Operator::Greater => ordering == Some(Ordering::Greater),
            Operator::GreaterOrEqual => ordering.is_some_and(Ordering::is_ge),
            Operator::Holds => holds(found, &self.value),
        }
    }
}

/// Reads up to the closing quote; `\"` and `\\` stand for themselves.
fn unquote(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                _ => return Err("a backslash stands only before a quote or a backslash".into()),
            },
            c => value.push(c),
        }
    }
    Err("a quote is not closed".into())
}

/// A field by its dotted path.
pub(super) fn field<'a>(item: &'a Value, path: &str) -> Result<&'a Value, String> {
    let mut at = item;
    for name in path.split('.') {
        match at {
            Value::Null => return Ok(&Value::Null),
            Value::Object(members) => {
                at = members.get(name).ok_or_else(|| {
                    let known: Vec<_> = members.keys().map(String::as_str).collect();
                    format!(
                        "there is no field {:?}; there are {}",
                        cut(path),
                        known.join(", ")
                    )
                })?;
            }
            _ => return Err(format!("there is no field {:?}", cut(path))),
        }
    }
    Ok(at)
}

fn holds(found: &Value, value: &str) -> bool {
    match found {
        Value::Null => false,
        Value::Array(items) => {
            value == "*" && !items.is_empty() || items.iter().any(|i| is(i, value))
        }
        Value::Object(members) => {
            value == "*" && !members.is_empty() || members.contains_key(value)
        }
        Value::String(text) => value == "*" || text.to_lowercase().contains(&value.to_lowercase()),
        other => value == "*" || is(other, value),
    }
}

fn is(found: &Value, value: &str) -> bool {
    compare_text(found, value) == Some(Ordering::Equal)
}

fn compare_text(found: &Value, value: &str) -> Option<Ordering> {
    match found {
        Value::String(text) => Some(text.as_str().cmp(value)),
        Value::Bool(b) => value.parse::<bool>().ok().map(|v| b.cmp(&v)),
        Value::Number(n) => n.as_f64()?.partial_cmp(&value.parse::<f64>().ok()?),
        Value::Null => (value == "null").then_some(Ordering::Equal),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// An order over all JSON values, for sorting: nothing comes first.
pub(super) fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |v: &Value| match v {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    };
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a
            .as_f64()
            .partial_cmp(&b.as_f64())
            .unwrap_or(Ordering::Equal),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
            a.to_string().cmp(&b.to_string())
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_filter_lets_through_what_it_says() {
        let item = json!({
            "name": "github", "enabled": true, "connections": 12, "scopes": ["repo", "user"],
            "auth": {"mode": "static", "provider": null}, "note": "a \"quoted\" word",
        });
        let cases = [
            ("", true),
            ("name = \"github\"", true),
            ("name=github", true),
            ("name = \"slack\"", false),
            ("name != slack", true),
            ("name : \"hub\"", true),
            ("name : \"HUB\"", true),
            ("scopes : \"repo\"", true),
            ("scopes : \"rep\"", false),
            ("enabled = true", true),
            ("enabled = false", false),
            ("connections > 5", true),
            ("connections >= 12 AND connections <= 12", true),
            ("connections < 5", false),
            ("auth.mode = static", true),
            ("auth.provider = null", true),
            ("auth.provider : *", false),
            ("scopes : *", true),
            ("name = \"github\" AND enabled = true", true),
            ("name = \"github\" AND enabled = false", false),
            (r#"note : "\"quoted\"""#, true),
        ];
        for (text, expected) in cases {
            assert_eq!(
                Filter::parse(text).unwrap().matches(&item),
                Ok(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in [
            "name",
            "= x",
            "name ~ x",
            "name = \"x",
            "name = x OR name = y",
            "name = x AND",
            "name =",
            "(a=b)",
        ] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,80}") {
            let _ = Filter::parse(&text);
        }

        #[test]
        fn a_quoted_value_is_read_as_it_was_meant(value in ".{0,40}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let filter = Filter::parse(&format!("name = \"{quoted}\"")).unwrap();
            prop_assert_eq!(&filter.0[0].value, &value);
        }
    }
}
