//! Templates, written as text.
//!
//! | text | part |
//! |---|---|
//! | `https://acme.com/` | literal |
//! | `{tenant}` | the variable `tenant` |
//! | `{$access-token}` | a slot: `access-token`, `refresh-token`, `id-token`, `api-key`, `client-id`, `client-secret` |
//! | `{$installation}` | any other name: the named secret `installation` |
//!
//! A `{` that is never closed is a literal. HTTP Basic credentials are made by
//! [`basic`].

use crate::data::{Basic, Header, Parameter, Part, Slot, Template};

/// What can be read as a template.
pub trait Text {
    /// The template's parts.
    fn into_template(self) -> Template;
}

impl Text for &str {
    fn into_template(self) -> Template {
        template(self)
    }
}

impl Text for String {
    fn into_template(self) -> Template {
        template(&self)
    }
}

impl Text for &String {
    fn into_template(self) -> Template {
        template(self)
    }
}

impl Text for Template {
    fn into_template(self) -> Template {
        self
    }
}

impl Text for Part {
    fn into_template(self) -> Template {
        vec![self]
    }
}

/// Reads a text as a template.
pub fn template(text: &str) -> Template {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((literal, (name, after))) = rest
        .split_once('{')
        .and_then(|(before, tail)| Some((before, tail.split_once('}')?)))
    {
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        parts.push(match name.strip_prefix('$') {
            Some(name) => Part::Slot(slot(name)),
            None => Part::Variable(name.into()),
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.into()));
    }
    parts
}

/// A text without any placeholder, whatever characters it holds. For values
/// that come from settings.
pub fn literal(text: impl Into<String>) -> Template {
    let text = text.into();
    if text.is_empty() {
        Vec::new()
    } else {
        vec![Part::Literal(text)]
    }
}

/// `Bearer` and the access token.
pub fn bearer() -> Template {
    vec![
        Part::Literal("Bearer ".into()),
        Part::Slot(Slot::AccessToken),
    ]
}

/// HTTP Basic credentials; without a password the user name stands alone
/// before the colon.
pub fn basic(user: Slot, password: Option<Slot>) -> Template {
    vec![Part::Basic(Basic { user, password })]
}

/// A header.
pub fn header(name: &str, value: impl Text) -> Header {
    Header {
        name: name.into(),
        value: value.into_template(),
    }
}

/// A parameter.
pub fn parameter(name: &str, value: impl Text) -> Parameter {
    Parameter {
        name: name.into(),
        value: value.into_template(),
    }
}

fn slot(name: &str) -> Slot {
    match name {
        "access-token" => Slot::AccessToken,
        "refresh-token" => Slot::RefreshToken,
        "id-token" => Slot::IdToken,
        "api-key" => Slot::ApiKey,
        "client-id" => Slot::ClientId,
        "client-secret" => Slot::ClientSecret,
        other => Slot::Extra(other.into()),
    }
}

/// The `HOST` of `https://HOST/…`, if the template is such a URL.
pub(crate) fn host_of(url: &Template) -> Option<Template> {
    let mut parts = url.iter();
    let Some(Part::Literal(first)) = parts.next() else {
        return None;
    };
    let mut host = Vec::new();
    let mut literal = first.strip_prefix("https://")?;
    loop {
        let end = literal.find(['/', '?']);
        let piece = &literal[..end.unwrap_or(literal.len())];
        if !piece.is_empty() {
            host.push(Part::Literal(piece.into()));
        }
        if end.is_some() {
            return Some(host);
        }
        loop {
            match parts.next() {
                Some(Part::Literal(next)) => {
                    literal = next;
                    break;
                }
                Some(other) => host.push(other.clone()),
                None => return Some(host),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lit(text: &str) -> Part {
        Part::Literal(text.into())
    }

    #[test]
    fn text_becomes_literals_variables_and_slots() {
        let table: [(&str, Vec<Part>); 7] = [
            ("", vec![]),
            ("plain", vec![lit("plain")]),
            ("{host}", vec![Part::Variable("host".into())]),
            (
                "a{b}c",
                vec![lit("a"), Part::Variable("b".into()), lit("c")],
            ),
            (
                "{$client-id}/{$key}",
                vec![
                    Part::Slot(Slot::ClientId),
                    lit("/"),
                    Part::Slot(Slot::Extra("key".into())),
                ],
            ),
            ("open {brace", vec![lit("open {brace")]),
            ("close} brace", vec![lit("close} brace")]),
        ];
        for (text, parts) in table {
            assert_eq!(template(text), parts, "{text}");
        }
    }

    #[test]
    fn the_host_of_a_url_ends_at_its_path_or_query() {
        let table = [
            ("https://acme.com/oauth", Some("acme.com")),
            ("https://acme.com", Some("acme.com")),
            ("https://acme.com?x=/", Some("acme.com")),
            ("https://{tenant}.acme.com/a/{b}", Some("{tenant}.acme.com")),
            ("https://{host}/a", Some("{host}")),
            ("https://{host}", Some("{host}")),
            ("http://acme.com/", None),
            ("{url}/path", None),
            ("", None),
        ];
        for (url, host) in table {
            assert_eq!(host_of(&template(url)), host.map(template), "{url}");
        }
    }
}
