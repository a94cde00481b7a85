//! `WWW-Authenticate`, as far as it says what to do next.

use http::{HeaderMap, header};

/// The parts of an upstream's `Bearer` challenge (RFC 6750 §3) that decide
/// what the host does. They are never shown to a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Challenge {
    /// `error`, for example `invalid_token` or `insufficient_scope`.
    pub error: Option<String>,
    /// `scope`: separated by spaces.
    pub scope: Option<String>,
    /// `resource_metadata` (RFC 9728 §5.1).
    pub resource_metadata: Option<String>,
}

impl Challenge {
    /// Reads the first `Bearer` challenge; empty if there is none.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        Self::find(headers).unwrap_or_default()
    }

    /// The first `Bearer` challenge, if there is one.
    #[must_use]
    pub fn find(headers: &HeaderMap) -> Option<Self> {
        let values = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|v| v.to_str().ok());
        values.into_iter().find_map(Self::parse)
    }

    /// Whether the upstream says that the token lacks scopes (RFC 6750 §3.1).
    #[must_use]
    pub fn is_insufficient_scope(&self) -> bool {
        self.error.as_deref() == Some("insufficient_scope")
    }

    fn parse(value: &str) -> Option<Self> {
        let mut rest = bearer(value)?;
        let mut challenge = Self::default();
        while let Some((name, value, after)) = parameter(rest) {
            if name.eq_ignore_ascii_case("error") {
                challenge.error.get_or_insert(value);
            } else if name.eq_ignore_ascii_case("scope") {
                challenge.scope.get_or_insert(value);
            } else if name.eq_ignore_ascii_case("resource_metadata") {
                challenge.resource_metadata.get_or_insert(value);
            }
            rest = after;
        }
        Some(challenge)
    }
}

/// What follows the scheme `Bearer`, which may not be the first one named.
fn bearer(value: &str) -> Option<&str> {
    let mut quoted = false;
    let mut at_word = true;
    for (at, c) in value.char_indices() {
        if at_word && !quoted {
            let (word, rest) = value
                .get(at..)
                .and_then(|v| v.split_at_checked(6))
                .unwrap_or_default();
            if word.eq_ignore_ascii_case("bearer") && (rest.is_empty() || rest.starts_with(' ')) {
                return Some(rest);
            }
        }
        if c == '"' {
            quoted = !quoted;
        }
        at_word = matches!(c, ' ' | ',' | '\t');
    }
    None
}

/// `name=token` or `name="quoted"`, and what follows it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (name, rest) = text.split_once('=')?;
    let name = name.trim_end();
    // A blank inside the name: another scheme begins here.
    if name.is_empty() || name.contains([' ', ',', '"']) {
        return None;
    }
    let rest = rest.trim_start();
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find([',', ' ']).unwrap_or(rest.len());
        let (value, after) = rest.split_at_checked(end)?;
        return Some((name, value.to_owned(), after));
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((name, value, quoted.get(at + 1..)?)),
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn error_and_scope_are_read_from_every_usual_spelling() {
        let cases = [
            (
                r#"Bearer error="insufficient_scope", scope="a b""#,
                Some("insufficient_scope"),
                Some("a b"),
            ),
            (
                r"bearer error=invalid_token,scope=a",
                Some("invalid_token"),
                Some("a"),
            ),
            (
                r#"Basic realm="x, Bearer y", Bearer realm="\"q\"" , error="e""#,
                Some("e"),
                None,
            ),
            (
                r#"Bearer realm="x", resource_metadata="https://a/b?c=d", scope="s""#,
                None,
                Some("s"),
            ),
            (
                r#"Bearer error="first", error="second""#,
                Some("first"),
                None,
            ),
            ("Bearer", None, None),
            ("Basic realm=x", None, None),
            (r#"Bearer error="open"#, None, None),
            ("", None, None),
        ];
        for (value, error, scope) in cases {
            let headers =
                HeaderMap::from_iter([(header::WWW_AUTHENTICATE, HeaderValue::from_static(value))]);
            let challenge = Challenge::read(&headers);
            assert_eq!(
                (challenge.error.as_deref(), challenge.scope.as_deref()),
                (error, scope),
                "{value}"
            );
            let metadata = value
                .contains("resource_metadata")
                .then_some("https://a/b?c=d");
            assert_eq!(challenge.resource_metadata.as_deref(), metadata, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_challenge_makes_it_panic(value in "(Bearer )?[ -~é]{0,40}") {
            let _ = Challenge::parse(&value);
        }
    }
}
