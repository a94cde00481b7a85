//! Walks JSON once and refuses what two readers could understand differently:
//! duplicate member names at any depth, lone surrogates, numbers no reader can
//! hold, nesting without end.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

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
        Self {
            names: Vec::with_capacity(24),
            max_depth,
            fault: None,
        }
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
        let Some(name) = map.next_key_seed(Text)? else {
            return Ok(None);
        };
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
            if names
                .windows(2)
                .any(|pair| matches!(pair, [a, b] if a == b))
            {
                return Err(self.stop(Refusal::DuplicateMember));
            }
        }
        self.names.truncate(mark);
        Ok(())
    }

    /// A member's raw text, walked as well.
    pub(crate) fn raw<A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
        depth: usize,
    ) -> Result<&'de str, A::Error> {
        let raw = map.next_value::<&'de RawValue>()?.get();
        let mut json = serde_json::Deserializer::from_str(raw);
        Any {
            walk: self,
            depth,
            take: &mut Nothing,
        }
        .deserialize(&mut json)
        .map_err(|_| A::Error::custom("refused"))?;
        Ok(raw)
    }

    /// A member's value, if it is a string.
    pub(crate) fn text<A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
        depth: usize,
    ) -> Result<Option<Cow<'de, str>>, A::Error> {
        let mut text = MaybeText::default();
        map.next_value_seed(Any {
            walk: self,
            depth,
            take: &mut text,
        })?;
        Ok(text.0)
    }
}

/// Checks a whole text.
pub(crate) fn check(text: &str, max_depth: usize) -> Result<(), Refusal> {
    let mut walk = Walk::new(max_depth);
    let mut json = serde_json::Deserializer::from_str(text);
    let outcome = Any {
        walk: &mut walk,
        depth: 0,
        take: &mut Nothing,
    }
    .deserialize(&mut json)
    .and_then(|()| json.end());
    outcome.map_err(|error| walk.fault.unwrap_or_else(|| Refusal::not_json(&error)))
}

/// What is kept of a value while it is walked. The defaults keep nothing.
pub(crate) trait Take<'de> {
    /// A member of an object; must consume its value.
    fn member<A: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut A,
        walk: &mut Walk<'de>,
        depth: usize,
    ) -> Result<(), A::Error> {
        let _ = name;
        map.next_value_seed(Any {
            walk,
            depth,
            take: &mut Nothing,
        })
    }
    /// A string; `borrowed` is there if it has no escapes.
    fn text(&mut self, text: &str, borrowed: Option<&'de str>) {
        let _ = (text, borrowed);
        self.other();
    }
    /// Anything that is neither an object nor a string.
    fn other(&mut self) {}
}

/// Keeps nothing.
pub(crate) struct Nothing;
impl Take<'_> for Nothing {}

/// Keeps a string; stays empty for any other type.
#[derive(Default)]
pub(crate) struct MaybeText<'de>(pub(crate) Option<Cow<'de, str>>);

impl<'de> Take<'de> for MaybeText<'de> {
    fn text(&mut self, text: &str, borrowed: Option<&'de str>) {
        self.0 = Some(borrowed.map_or_else(|| Cow::Owned(text.to_owned()), Cow::Borrowed));
    }
}

/// A value of any type, walked.
pub(crate) struct Any<'w, 'de, T> {
    pub(crate) walk: &'w mut Walk<'de>,
    /// How many containers it is in.
    pub(crate) depth: usize,
    pub(crate) take: &'w mut T,
}

impl<'de, T: Take<'de>> DeserializeSeed<'de> for Any<'_, 'de, T> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, T: Take<'de>> Visitor<'de> for Any<'_, 'de, T> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        self.take.other();
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.take.other();
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.take.other();
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.take.other();
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.take.other();
        Ok(())
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.take.text(text, Some(text));
        Ok(())
    }
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.take.text(text, None);
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { walk, depth, take } = self;
        walk.enter::<A::Error>(depth)?;
        take.other();
        while seq
            .next_element_seed(Any {
                walk,
                depth: depth + 1,
                take: &mut Nothing,
            })?
            .is_some()
        {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { walk, depth, take } = self;
        let mark = walk.enter::<A::Error>(depth)?;
        while let Some(name) = walk.name(&mut map, mark)? {
            take.member(&name, &mut map, walk, depth + 1)?;
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
        for good in [
            r#"{"a":{"a":{"a":1}},"b":{"a":1}}"#,
            r#"[{"a":1},{"a":1}]"#,
            "{}",
            "[]",
            " 1 ",
        ] {
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
        assert_eq!(
            check(&nested(101), 100),
            Err(Refusal::TooDeep { limit: 100 })
        );
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
