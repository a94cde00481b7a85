//! A provider's settings, read strictly: wrong types and unknown keys are
//! refused with a sentence that says which.

use miniserde::json::{self, Number, Object, Value};

/// The settings an administrator gave. Every reader remembers the key it was
/// asked for; what nobody asked for is unknown and refused after `describe`.
#[derive(Debug)]
pub struct Settings {
    values: Object,
    known: Vec<&'static str>,
}

impl Settings {
    /// Parses a JSON object. An empty text counts as an empty object.
    pub fn parse(text: &str) -> Result<Self, String> {
        let values = if text.trim().is_empty() {
            Object::new()
        } else {
            match json::from_str(text) {
                Ok(Value::Object(values)) => values,
                Ok(Value::Null) => Object::new(),
                Ok(_) => return Err("settings must be a JSON object".into()),
                Err(_) => return Err("settings are no JSON".into()),
            }
        };
        Ok(Self {
            values,
            known: Vec::new(),
        })
    }

    /// A text. An empty one counts as given.
    pub fn text(&mut self, key: &'static str) -> Result<Option<String>, String> {
        self.read(key, "a text", |value| match value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> Result<Option<bool>, String> {
        self.read(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A whole number.
    pub fn number(&mut self, key: &'static str) -> Result<Option<u32>, String> {
        self.read(
            key,
            "a whole number from 0 to 4294967295",
            |value| match value {
                Value::Number(Number::U64(number)) => u32::try_from(*number).ok(),
                _ => None,
            },
        )
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>, String> {
        self.read(key, "a list of texts", |value| match value {
            Value::Array(items) => items
                .iter()
                .map(|item| match item {
                    Value::String(text) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
            _ => None,
        })
    }

    /// An object of texts, sorted by name.
    pub fn map(&mut self, key: &'static str) -> Result<Vec<(String, String)>, String> {
        let map = self.read(key, "an object of texts", |value| match value {
            Value::Object(members) => members
                .iter()
                .map(|(name, member)| match member {
                    Value::String(text) => Some((name.clone(), text.clone())),
                    _ => None,
                })
                .collect(),
            _ => None,
        })?;
        Ok(map.unwrap_or_default())
    }

    /// One of several words, each with what it stands for.
    pub fn choice<T: Clone>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, String> {
        let Some(word) = self.text(key)? else {
            return Ok(None);
        };
        match choices.iter().find(|(name, _)| *name == word) {
            Some((_, meaning)) => Ok(Some(meaning.clone())),
            None => {
                let words = choices.iter().map(|(name, _)| *name).collect::<Vec<_>>();
                Err(["setting `", key, "` must be one of ", &words.join(", ")].concat())
            }
        }
    }

    /// A JSON pointer such as `/data/id`.
    pub fn pointer(&mut self, key: &'static str) -> Result<Option<String>, String> {
        match self.text(key)? {
            Some(pointer) if !pointer.starts_with('/') => Err([
                "setting `",
                key,
                "` must be a JSON pointer such as /data/id",
            ]
            .concat()),
            pointer => Ok(pointer),
        }
    }

    /// An error if there is a setting that nobody asked for.
    pub(crate) fn refuse_unknown(&self) -> Result<(), String> {
        let Some(unknown) = self
            .values
            .keys()
            .find(|key| !self.known.contains(&key.as_str()))
        else {
            return Ok(());
        };
        let advice = if self.known.is_empty() {
            "this preset has no settings".to_string()
        } else {
            let mut known = self.known.clone();
            known.sort_unstable();
            ["this preset knows ", &known.join(", ")].concat()
        };
        Err(["unknown setting `", unknown, "`; ", &advice].concat())
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        what: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(["setting `", key, "` must be ", what].concat()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_types_are_refused_with_the_key_and_what_it_must_be() {
        let mut settings = Settings::parse(
            r#"{"t":1,"f":"yes","n":-1,"l":["a",2],"m":{"a":{}},"p":"id","c":"x"}"#,
        )
        .unwrap();
        assert_eq!(
            settings.text("t").unwrap_err(),
            "setting `t` must be a text"
        );
        assert_eq!(
            settings.flag("f").unwrap_err(),
            "setting `f` must be true or false"
        );
        assert!(
            settings
                .number("n")
                .unwrap_err()
                .starts_with("setting `n` must be a whole")
        );
        assert_eq!(
            settings.texts("l").unwrap_err(),
            "setting `l` must be a list of texts"
        );
        assert_eq!(
            settings.map("m").unwrap_err(),
            "setting `m` must be an object of texts"
        );
        assert!(settings.pointer("p").unwrap_err().contains("JSON pointer"));
        assert_eq!(
            settings.choice("c", &[("a", 1), ("b", 2)]).unwrap_err(),
            "setting `c` must be one of a, b"
        );
    }

    #[test]
    fn what_nobody_asked_for_is_unknown() {
        let mut settings = Settings::parse(r#"{"host":"a","hots":"b"}"#).unwrap();
        assert_eq!(
            settings.refuse_unknown().unwrap_err(),
            "unknown setting `host`; this preset has no settings"
        );
        assert_eq!(settings.text("host").unwrap().as_deref(), Some("a"));
        assert_eq!(settings.text("tenant").unwrap(), None);
        assert_eq!(
            settings.refuse_unknown().unwrap_err(),
            "unknown setting `hots`; this preset knows host, tenant"
        );
    }

    #[test]
    fn only_an_object_is_settings() {
        for empty in ["", " ", "{}", "null"] {
            assert!(Settings::parse(empty).is_ok(), "{empty}");
        }
        for bad in ["[]", "1", "\"x\"", "{", "{} {}"] {
            assert!(Settings::parse(bad).is_err(), "{bad}");
        }
    }
}
