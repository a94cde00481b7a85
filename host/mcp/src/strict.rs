//! Walks JSON once and refuses what two readers could understand differently:
//! duplicate member names at any depth, lone surrogates, numbers no reader can
//! hold, nesting without end.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::refusal::Refusal;

/// Up to this many names are compared pairwise while they come; beyond it an
/// object's names are sorted when it ends, so that no input costs n².
const PAIRWISE: usize = 16;

/// With `raw_value`, `serde_json::Value` gives members of this name a meaning
/// of their own; other readers do not.
const RESERVED: &str = "$serde_json::private::";

/// What a walk carries along.
pub(crate) struct Walk<'de> {
    names: Vec<Cow<'de, str>>,
    max_depth: usize,
    /// Why the walk stopped, unless it was the JSON itself.
    pub(crate) fault: Option<Refusal>,
}

impl<'de> Walk<'de> {
    pub(crate) fn new(max_depth: usize) -> Self {
        Self { names: Vec::with_capacity(24), max_depth, fault: None }
    }

    /// Stops the walk for this reason.
    pub(crate) fn stop<E: serde::de::Error>(&mut self, why: Refusal) -> E {
        self.fault.get_or_insert(why);
        E::custom("refused")
    }

    /// Enters an object; give the mark back to [`Walk::leave`].
    pub(crate) fn enter<E: serde::de::Error>(&mut self, depth: usize) -> Result<usize, E> {
        if depth >= self.max_depth {
            let limit = self.max_depth;
            return Err(self.stop(Refusal::TooDeep { limit }));
        }
        Ok(self.names.len())
    }

    /// The next member's name, if it is new.
    pub(crate) fn name<A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
        mark: usize,
    ) -> Result<Option<Cow<'de, str>>, A::Error> {
        let Some(name) = map.next_key_seed(Text)? else { return Ok(None) };
        if name.starts_with(RESERVED) {
            return Err(self.stop(Refusal::ReservedMember));
        }
        let known = self.names.get(mark..).unwrap_or_default();
        if known.len() < PAIRWISE && known.contains(&name) {
            return Err(self.stop(Refusal::DuplicateMember));
        }
        self.names.push(name.clone());
        Ok(Some(name))
    }

    /// Leaves an object.
    pub(crate) fn leave<E: serde::de::Error>(&mut self, mark: usize) -> Result<(), E> {
        let names = self.names.get_mut(mark..).unwrap_or_default();
        if names.len() > PAIRWISE {
            names.sort_unstable();
            if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
                return Err(self.stop(Refusal::DuplicateMember));
            }
        }
        self.names.truncate(mark);
        Ok(())
    }

    /// Walks a piece of already tokenised JSON at this depth.
    pub(crate) fn piece<E: serde::de::Error>(&mut self, raw: &'de str, depth: usize) -> Result<(), E> {
        // Most pieces are a number, a word or a short string without escapes.
        let mut json = serde_json::Deserializer::from_str(raw);
        Value { walk: self, depth }.deserialize(&mut json).map_err(|_| E::custom("refused"))
    }
}

/// Checks a whole text.
pub(crate) fn check(text: &str, max_depth: usize) -> Result<(), Refusal> {
    let mut walk = Walk::new(max_depth);
    let mut json = serde_json::Deserializer::from_str(text);
    let outcome = Value { walk: &mut walk, depth: 0 }.deserialize(&mut json).and_then(|()| json.end());
    outcome.map_err(|error| walk.fault.unwrap_or_else(|| Refusal::not_json(&error)))
}

/// Any value, looked at and dropped.
pub(crate) struct Value<'w, 'de> {
    pub(crate) walk: &'w mut Walk<'de>,
    pub(crate) depth: usize,
}

impl<'de> DeserializeSeed<'de> for Value<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { walk, depth } = self;
        walk.enter::<A::Error>(depth)?;
        while seq.next_element_seed(Value { walk, depth: depth + 1 })?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { walk, depth } = self;
        let mark = walk.enter::<A::Error>(depth)?;
        while walk.name(&mut map, mark)?.is_some() {
            map.next_value_seed(Value { walk, depth: depth + 1 })?;
        }
        walk.leave(mark)
    }
}

/// A string, borrowed where it has no escapes.
pub(crate) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Cow<'de, str>, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// A string, or none if the value is of another type (then it was walked).
pub(crate) struct MaybeText<'w, 'de> {
    pub(crate) walk: &'w mut Walk<'de>,
    pub(crate) depth: usize,
}

impl<'de> DeserializeSeed<'de> for MaybeText<'_, 'de> {
    type Value = Option<Cow<'de, str>>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MaybeText<'_, 'de> {
    type Value = Option<Cow<'de, str>>;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        Value { walk: self.walk, depth: self.depth }.visit_seq(seq).map(|()| None)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Value { walk: self.walk, depth: self.depth }.visit_map(map).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_name_is_refused_at_every_depth_and_however_it_is_written() {
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"[[{"x":{"y":[{"k":1,"k":1}]}}]]"#,
            r#"{"":1,"":1}"#,
        ] {
            assert_eq!(check(bad, 100), Err(Refusal::DuplicateMember), "{bad}");
        }
        for good in [r#"{"a":{"a":{"a":1}},"b":{"a":1}}"#, r#"[{"a":1},{"a":1}]"#, "{}", "[]", " 1 "] {
            assert_eq!(check(good, 100), Ok(()), "{good}");
        }
    }

    #[test]
    fn a_duplicate_name_among_many_is_found() {
        let many = |last: &str| {
            let names: Vec<String> = (0..1000).map(|n| format!("\"k{n}\":0")).collect();
            format!("{{{},\"{last}\":1}}", names.join(","))
        };
        assert_eq!(check(&many("k500"), 100), Err(Refusal::DuplicateMember));
        assert_eq!(check(&many("k3"), 100), Err(Refusal::DuplicateMember));
        assert_eq!(check(&many("fresh"), 100), Ok(()));
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(check(&nested(100), 100), Ok(()));
        assert_eq!(check(&nested(101), 100), Err(Refusal::TooDeep { limit: 100 }));
        assert!(check(&nested(100_000), 100).is_err());
    }

    #[test]
    fn what_readers_disagree_on_is_refused() {
        for bad in [
            "\"\\ud800\"",
            "1e999",
            "{\"$serde_json::private::RawValue\":\"[]\"}",
            "{\"a\":1} x",
            "{'a':1}",
            "NaN",
            "01",
            "\"\n\"",
            "",
        ] {
            assert!(check(bad, 100).is_err(), "{bad}");
        }
    }
}
