//! The body of an answer: JSON or a form, zeroized, and masked for hooks.

use std::time::Duration;

use serde_json::Value;
use zeroize::{Zeroize as _, Zeroizing};

use super::error_code;
use crate::preset::Pointer;
use crate::time::Timestamp;

/// An HTTP answer of a provider. It has no `Debug`.
pub struct Answer {
    pub(super) status: u16,
    is_form: bool,
    body: Zeroizing<Vec<u8>>,
    retry_after: Option<String>,
}

impl Answer {
    /// Takes an answer over.
    #[must_use]
    pub fn new(status: u16, content_type: Option<&str>, body: Vec<u8>) -> Self {
        let is_form = content_type
            .and_then(|t| t.split(';').next())
            .is_some_and(|t| {
                t.trim()
                    .eq_ignore_ascii_case("application/x-www-form-urlencoded")
            });
        Self {
            status,
            is_form,
            body: Zeroizing::new(body),
            retry_after: None,
        }
    }

    /// With its `Retry-After` (RFC 9110 §10.2.3).
    #[must_use]
    pub fn telling_to_wait(self, retry_after: Option<&str>) -> Self {
        let retry_after = retry_after.filter(|text| text.len() <= 64);
        Self {
            retry_after: retry_after.map(str::to_owned),
            ..self
        }
    }

    /// For how long it asks to be left alone; nothing beyond a day.
    #[must_use]
    pub fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        const LONGEST: Duration = Duration::from_secs(86_400);
        let text = self.retry_after.as_deref()?.trim();
        let wait = match text.parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => {
                let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
                Timestamp::from_millis(date.as_millisecond()).since(now)
            }
        };
        (!wait.is_zero()).then(|| wait.min(LONGEST))
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The body, if it is text.
    pub(super) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok()
    }

    pub(crate) fn tree(&self, may_be_form: bool) -> Option<Tree> {
        match serde_json::from_slice::<Strict>(&self.body) {
            Ok(Strict(value)) => Some(Tree(value)),
            Err(_) if self.is_form || may_be_form => self.form(),
            Err(_) => None,
        }
    }

    fn form(&self) -> Option<Tree> {
        // HTML and other prose is not a form.
        let text = std::str::from_utf8(&self.body).ok()?;
        if text.is_empty() || !text.contains('=') || text.contains(['<', '{', '\n', ' ']) {
            return None;
        }
        let mut members = serde_json::Map::new();
        for (name, value) in url::form_urlencoded::parse(&self.body) {
            members.insert(name.into_owned(), Value::String(value.into_owned()));
        }
        Some(Tree(Value::Object(members)))
    }
}

/// A parsed body, zeroized on drop.
pub(crate) struct Tree(pub(crate) Value);

impl Drop for Tree {
    fn drop(&mut self) {
        fn wipe(value: &mut Value) {
            match value {
                Value::String(text) => text.zeroize(),
                Value::Array(items) => items.iter_mut().for_each(wipe),
                Value::Object(members) => members.values_mut().for_each(wipe),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        wipe(&mut self.0);
    }
}

impl Tree {
    pub(super) fn first(&self, pointers: &[Pointer]) -> Option<&Value> {
        pointers
            .iter()
            .filter_map(|p| self.0.pointer(p))
            .find(|v| !v.is_null())
    }

    pub(super) fn first_text(&self, pointers: &[Pointer]) -> Option<&str> {
        pointers
            .iter()
            .filter_map(|p| self.0.pointer(p))
            .filter_map(Value::as_str)
            .find(|text| !text.is_empty())
    }
}

/// A JSON value in which no object names a member twice.
struct Strict(Value);

impl<'de> serde::Deserialize<'de> for Strict {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Strict;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON without duplicate members")
            }
            fn visit_unit<E>(self) -> Result<Strict, E> {
                Ok(Strict(Value::Null))
            }
            fn visit_bool<E>(self, v: bool) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_str<E>(self, v: &str) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Strict, A::Error> {
                let mut items = Vec::new();
                while let Some(Strict(item)) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Strict(Value::Array(items)))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Strict, A::Error> {
                let mut members = serde_json::Map::new();
                while let Some((name, Strict(value))) = map.next_entry::<String, Strict>()? {
                    if members.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a member appears twice"));
                    }
                }
                Ok(Strict(Value::Object(members)))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Whether a text is words and cannot be a token: a preset that names a token's
/// place as that of an error description gets it masked like all others.
fn is_prose(text: &str) -> bool {
    text.len() <= 400 && text.contains(' ') && text.split(' ').all(|word| word.len() <= 20)
}

/// The body for a hook: every string leaf as `****` and its length, but for
/// error codes and descriptions in words at `keep`. `{}` for what is neither
/// JSON nor a form.
#[must_use]
pub fn masked_body(answer: &Answer, may_be_form: bool, keep: &[Pointer]) -> String {
    fn mask(value: &Value, path: &str, keep: &[Pointer]) -> Value {
        match value {
            Value::String(text)
                if keep.iter().any(|k| k == path)
                    && (is_prose(text) || error_code(text, &[]).is_some()) =>
            {
                value.clone()
            }
            Value::String(text) => format!("****{}", text.len()).into(),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(i, v)| mask(v, &format!("{path}/{i}"), keep))
                .collect(),
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(name, v)| {
                        let step = name.replace('~', "~0").replace('/', "~1");
                        (name.clone(), mask(v, &format!("{path}/{step}"), keep))
                    })
                    .collect(),
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
    answer.tree(may_be_form).map_or_else(
        || "{}".to_owned(),
        |tree| mask(&tree.0, "", keep).to_string(),
    )
}
