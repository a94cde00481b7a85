//! Strict JSON in, and JSON merge patch (RFC 7396).

use std::fmt;

use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Number, Value};

use super::Refusal;

/// JSON without duplicate members. (`serde_json::Value` lets the last win, so
/// that two readers could see two different requests.)
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
                Ok(Value::Bool(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
                Ok(Value::Number(v.into()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
                Ok(Value::Number(v.into()))
            }
            fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
                Number::from_f64(v)
                    .map(Value::Number)
                    .ok_or_else(|| E::custom("not a number"))
            }
            fn visit_str<E>(self, v: &str) -> Result<Value, E> {
                Ok(Value::String(v.to_owned()))
            }
            fn visit_string<E>(self, v: String) -> Result<Value, E> {
                Ok(Value::String(v))
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(Strict(item)) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Value::Array(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut members = Map::new();
                while let Some(name) = map.next_key::<String>()? {
                    if members.contains_key(&name) {
                        let name: String = name.chars().take(80).collect();
                        return Err(A::Error::custom(format_args!(
                            "member {name:?} is given twice"
                        )));
                    }
                    let Strict(value) = map.next_value()?;
                    members.insert(name, value);
                }
                Ok(Value::Object(members))
            }
        }
        deserializer.deserialize_any(Reader).map(Strict)
    }
}

/// Parses a JSON object, refusing duplicate members at any depth.
///
/// # Errors
/// [`Refusal::Invalid`] with the place.
pub fn strict_json(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Strict(Value::Object(map))) => Ok(map),
        Ok(_) => Err(Refusal::invalid("body", "must be a JSON object")),
        Err(e) => Err(Refusal::invalid(
            "body",
            format!("is not acceptable JSON: {e}"),
        )),
    }
}

/// Reads an input type; the refusal names the field.
///
/// # Errors
/// [`Refusal::Invalid`].
pub fn from_json<T: DeserializeOwned>(map: Map<String, Value>) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(Value::Object(map)).map_err(|e| {
        let path = e.path().to_string();
        let problem = e.into_inner().to_string();
        // For an unknown field serde's path is the object's, its text the field's.
        let unknown = problem
            .strip_prefix("unknown field `")
            .and_then(|rest| rest.split_once('`'));
        match unknown {
            Some((field, rest)) => {
                let prefix = if path == "." {
                    String::new()
                } else {
                    format!("{path}.")
                };
                let prefix = prefix.strip_suffix(&format!("{field}.")).unwrap_or(&prefix);
                let known = rest
                    .trim_start_matches(", expected ")
                    .trim_start_matches("one of ");
                Refusal::invalid(
                    format!("{prefix}{field}"),
                    format!("is not a field here; there are {known}"),
                )
            }
            None => Refusal::invalid(if path == "." { "body".to_owned() } else { path }, problem),
        }
    })
}

/// Applies a merge patch to an input as it stands.
pub(super) fn merged<T: Serialize + DeserializeOwned>(
    current: &T,
    patch: Map<String, Value>,
) -> Result<T, Refusal> {
    let Ok(Value::Object(mut target)) = serde_json::to_value(current) else {
        return Err(Refusal::invalid("body", "cannot be merged"));
    };
    merge(&mut target, patch);
    from_json(target)
}

fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(&name);
            }
            Value::Object(patch) => {
                let slot = target
                    .entry(name)
                    .or_insert_with(|| Value::Object(Map::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(inner) = slot {
                    merge(inner, patch);
                }
            }
            value => {
                target.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_given_twice_is_refused_at_any_depth() {
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[{"b":1,"b":2}]}"#,
            "[]",
            "1",
            "{",
        ] {
            assert!(strict_json(bad.as_bytes()).is_err(), "{bad}");
        }
        let good = r#"{"a":[1,-2,0.5,"x",null,true,{"b":{}}]}"#;
        assert_eq!(
            serde_json::to_string(&strict_json(good.as_bytes()).unwrap()).unwrap(),
            good
        );
    }

    #[test]
    fn a_patch_merges_as_rfc_7396_says() {
        // RFC 7396, appendix A, the cases that are objects on both sides.
        let cases = [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (
                r#"{"a":{"b":"c"}}"#,
                r#"{"a":{"b":"d","c":null}}"#,
                r#"{"a":{"b":"d"}}"#,
            ),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ];
        for (target, patch, expected) in cases {
            let mut target = strict_json(target.as_bytes()).unwrap();
            merge(&mut target, strict_json(patch.as_bytes()).unwrap());
            assert_eq!(serde_json::to_string(&target).unwrap(), expected);
        }
    }
}
