//! Parameters of queries and forms: each at most once (RFC 6749 §3.1).

use std::collections::BTreeMap;

/// Parsed parameters. Empty values count as left out (RFC 6749 §3.1). There is
/// no `Debug`: forms carry passwords and codes.
pub(crate) struct Params(BTreeMap<String, String>);

/// Why parameters were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadParams {
    /// Given more than once.
    #[error("the parameter {0:?} is given more than once")]
    Twice(String),
    /// Too many.
    #[error("there are too many parameters")]
    TooMany,
    /// Not a form.
    #[error("the body must be application/x-www-form-urlencoded")]
    NoForm,
}

const MOST: usize = 64;

impl Params {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, BadParams> {
        let mut found = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text) {
            if found.len() >= MOST {
                return Err(BadParams::TooMany);
            }
            let name = name.into_owned();
            if found.contains_key(&name) {
                return Err(BadParams::Twice(name.chars().take(40).collect()));
            }
            found.insert(name, value.into_owned());
        }
        found.retain(|_, value| !value.is_empty());
        Ok(Self(found))
    }

    /// Parses a POST body, which must say that it is a form.
    pub(crate) fn form(headers: &http::HeaderMap, body: &[u8]) -> Result<Self, BadParams> {
        let kind = headers
            .get(http::header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("");
        let kind = kind.split(';').next().unwrap_or("").trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(BadParams::NoForm);
        }
        Self::parse(body)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_parameter_counts_once_and_never_empty() {
        let params = Params::parse(b"a=1&b=&c=x+y%21").ok().unwrap();
        assert_eq!(
            (params.find("a"), params.find("b"), params.find("c")),
            (Some("1"), None, Some("x y!"))
        );
        for twice in [&b"a=1&a=1"[..], b"a=&a=1", b"a&a", b"%61=1&a=2"] {
            assert_eq!(
                Params::parse(twice).err(),
                Some(BadParams::Twice("a".into()))
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_panics(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Params::parse(&text);
        }
    }
}
