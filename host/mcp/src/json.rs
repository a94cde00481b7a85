//! Edits JSON objects member by member and leaves every other byte as it came.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::refusal::Refusal;
use crate::strict::Text;

/// An object's members in their order, values untouched.
#[derive(Debug, Clone)]
pub struct Members<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'a> Members<'a> {
    /// Splits an object.
    ///
    /// # Errors
    /// [`Refusal::BadMessage`] if the text is not one JSON object.
    pub fn parse(raw: &'a str) -> Result<Self, Refusal> {
        struct Split;
        impl<'de> Visitor<'de> for Split {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some(name) = map.next_key_seed(Text)? {
                    members.push((name, Cow::Borrowed(map.next_value::<&'de RawValue>()?)));
                }
                Ok(Members(members))
            }
        }
        let mut json = serde_json::Deserializer::from_str(raw);
        let members = json.deserialize_map(Split).ok();
        members
            .filter(|_| json.end().is_ok())
            .ok_or(Refusal::BadMessage("a JSON object was expected"))
    }

    /// The raw text of a member.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.get())
    }

    /// A member's text, if it is a string.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?).ok()
    }

    /// The names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Replaces a member where it stands, or adds it at the end. What is not
    /// JSON is left out: callers pass what they serialised themselves.
    pub fn set(&mut self, name: &'a str, json: String) {
        let Ok(value) = RawValue::from_string(json) else {
            return;
        };
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = Cow::Owned(value),
            None => self.0.push((Cow::Borrowed(name), Cow::Owned(value))),
        }
    }

    /// Takes a member out.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }
}

impl fmt::Display for Members<'_> {
    /// The object as JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, (name, value)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let name = serde_json::to_string(name).map_err(|_| fmt::Error)?;
            write!(f, "{comma}{name}:{}", value.get())?;
        }
        f.write_str("}")
    }
}

/// A JSON value's text with object members in order of name: equal for equal
/// values, however they were written.
#[must_use]
pub fn canonical(value: &serde_json::Value) -> String {
    fn sorted(value: &serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(members) => {
                let mut members: Vec<_> = members
                    .iter()
                    .map(|(k, v)| (k.clone(), sorted(v)))
                    .collect();
                members.sort_by(|a, b| a.0.cmp(&b.0));
                serde_json::Value::Object(members.into_iter().collect())
            }
            serde_json::Value::Array(items) => items.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    sorted(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_leaves_every_other_byte_as_it_came() {
        let raw = r#"{"big":123456789012345678901234567890,"f":1e5,"s":"\u00e9","x":{ "a" : 1 }}"#;
        let mut members = Members::parse(raw).unwrap();
        assert_eq!(members.to_string(), raw);
        members.set("s", "2".into());
        members.set("new", "[]".into());
        members.remove("f");
        assert_eq!(
            members.to_string(),
            r#"{"big":123456789012345678901234567890,"s":2,"x":{ "a" : 1 },"new":[]}"#
        );
    }

    #[test]
    fn order_and_spelling_do_not_change_the_canonical_form() {
        let a: serde_json::Value =
            serde_json::from_str(r#"{"b":[1,{"y":1,"x":"\u0061"}],"a":1}"#).unwrap();
        let b: serde_json::Value =
            serde_json::from_str(r#"{ "a":1, "b":[1,{"x":"a","y":1}]}"#).unwrap();
        assert_eq!(canonical(&a), canonical(&b));
    }
}
