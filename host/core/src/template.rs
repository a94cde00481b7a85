//! Templates of a preset, and the variables and slots that fill them.
//!
//! Variables are public and checked against their declared kind each time they
//! are used. Slots are secrets: only this crate can fill them.

use base64::Engine as _;
use url::Url;
use zeroize::{Zeroize as _, Zeroizing};

use crate::preset::{Basic, Description, Part, Slot, Source, ValueKind, Variable};
use crate::secret::Secret;

/// Why a template or a variable could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template names a variable that has no value.
    #[error("the variable {0:?} has no value: set it in the provider's settings, or connect again")]
    NoValue(String),
    /// A value does not fit the variable's declared kind.
    #[error("the variable {name:?} does not hold what the preset declares: {rule}")]
    WrongKind {
        /// The variable.
        name: String,
        /// What it may hold.
        rule: String,
    },
    /// The template wants a secret that is not there.
    #[error(
        "the request needs the {0}, and there is none: add it to the provider, or connect again"
    )]
    NoSecret(&'static str),
    /// The template puts a secret where none may stand.
    #[error("the preset puts the {0} where no secret may stand")]
    SlotForbidden(&'static str),
    /// The rendered text is not an address a credential may be sent to.
    #[error(
        "{0:?} is not a usable address: write an https URL without userinfo and fragment (http only for loopback)"
    )]
    BadUrl(String),
}

/// The word for a slot in messages.
#[must_use]
pub fn slot_name(slot: &Slot) -> &'static str {
    match slot {
        Slot::AccessToken => "access token",
        Slot::RefreshToken => "refresh token",
        Slot::IdToken => "ID token",
        Slot::ApiKey => "API key",
        Slot::ClientId => "client id",
        Slot::ClientSecret => "client secret",
        Slot::Extra(_) => "extra secret",
    }
}

/// Checks `value` against what a variable or a piece of metadata may hold, and
/// returns it as it is kept (of an origin only the host).
///
/// # Errors
/// The rule, in words; never the value, which may be a secret in disguise.
pub fn check(kind: &ValueKind, value: &str) -> Result<String, String> {
    match kind {
        ValueKind::Identifier => {
            let good = (1..=128).contains(&value.len())
                && value
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
                && !value.bytes().all(|b| b == b'.');
            if good {
                Ok(value.to_owned())
            } else {
                Err("1 to 128 letters, digits and - _ . :".into())
            }
        }
        ValueKind::Label => {
            if is_label(value) {
                Ok(value.to_ascii_lowercase())
            } else {
                Err("one DNS label: letters, digits and hyphens, at most 63".into())
            }
        }
        ValueKind::Host(suffixes) => host(value, suffixes),
        ValueKind::Origin(suffixes) => match value.strip_prefix("https://") {
            Some(rest) => host(rest.strip_suffix('/').unwrap_or(rest), suffixes),
            None => host(value, suffixes),
        },
        ValueKind::Enumeration(choices) => {
            if choices.iter().any(|c| c.value == value) {
                Ok(value.to_owned())
            } else {
                let values: Vec<&str> = choices.iter().map(|c| c.value.as_str()).collect();
                Err(format!("one of {}", values.join(", ")))
            }
        }
    }
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A host name, without port, that is or ends in one of the suffixes.
fn host(value: &str, suffixes: &[String]) -> Result<String, String> {
    let name = value.to_ascii_lowercase();
    let good = name.len() <= 253
        && name.split('.').all(is_label)
        && suffixes.iter().any(|suffix| {
            let suffix = suffix.to_ascii_lowercase();
            match suffix.strip_prefix('.') {
                Some(_) => name.len() > suffix.len() && name.ends_with(&suffix),
                None => name == suffix,
            }
        });
    if good {
        Ok(name)
    } else {
        Err(format!(
            "a host name that ends in one of {}",
            suffixes.join(", ")
        ))
    }
}

/// Values of variables, by name: those of the connection, then those of the
/// provider's settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Variables<'a> {
    /// Captured at sign-in.
    pub connection: &'a [(String, String)],
    /// From the provider's settings.
    pub provider: &'a [(String, String)],
}

impl Variables<'_> {
    /// One value.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut all = self.connection.iter().chain(self.provider);
        all.find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A piece of a template whose variables are filled and whose slots are open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text.
    Text(String),
    /// A secret still to come.
    Slot(Slot),
    /// HTTP Basic credentials still to come.
    Basic(Basic),
}

/// A template whose variables are filled and whose slots are open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered(pub Vec<Piece>);

impl Rendered {
    /// Every slot in it, in order.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter().flat_map(|piece| {
            let (first, second) = match piece {
                Piece::Text(_) => (None, None),
                Piece::Slot(slot) => (Some(slot), None),
                Piece::Basic(basic) => (Some(&basic.user), basic.password.as_ref()),
            };
            first.into_iter().chain(second)
        })
    }
}

/// Fills the variables of a template; its slots stay open.
///
/// # Errors
/// [`TemplateError::NoValue`] for a variable without a value.
pub fn render(template: &[Part], variables: Variables<'_>) -> Result<Rendered, TemplateError> {
    let piece = |part: &Part| {
        Ok(match part {
            Part::Literal(text) => Piece::Text(text.clone()),
            Part::Variable(name) => Piece::Text(
                variables
                    .value(name)
                    .ok_or_else(|| TemplateError::NoValue(name.clone()))?
                    .to_owned(),
            ),
            Part::Slot(slot) => Piece::Slot(slot.clone()),
            Part::Basic(basic) => Piece::Basic(basic.clone()),
        })
    };
    template
        .iter()
        .map(piece)
        .collect::<Result<_, _>>()
        .map(Rendered)
}

/// Fills a template that holds no slot.
///
/// # Errors
/// [`TemplateError::SlotForbidden`] if it holds one; else as [`render`].
pub fn render_text(template: &[Part], variables: Variables<'_>) -> Result<String, TemplateError> {
    let rendered = render(template, variables)?;
    if let Some(slot) = rendered.slots().next() {
        return Err(TemplateError::SlotForbidden(slot_name(slot)));
    }
    let text = rendered.0.into_iter().map(|piece| match piece {
        Piece::Text(text) => text,
        Piece::Slot(_) | Piece::Basic(_) => String::new(),
    });
    Ok(text.collect())
}

/// Checked values of a description's variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values(Vec<(String, String)>);

impl Values {
    /// Values that the provider's settings and the defaults decide, and those
    /// captured at sign-in (the connection's `facts`), checked anew.
    ///
    /// # Errors
    /// [`TemplateError::WrongKind`] for the first value that does not fit. A
    /// variable without any value is an error only where a template names it.
    pub fn resolve(
        description: &Description,
        settings: &serde_json::Map<String, serde_json::Value>,
        facts: &[(String, String)],
    ) -> Result<Self, TemplateError> {
        let mut values = Self::default();
        for variable in &description.variables {
            let given = match &variable.source {
                Source::Setting(key) => settings.get(key).and_then(scalar_text),
                _ => facts
                    .iter()
                    .find(|(name, _)| *name == variable.name)
                    .map(|(_, value)| value.clone()),
            };
            if let Some(value) = given.as_deref().or(variable.default_value.as_deref()) {
                values.put(description, variable, value)?;
            }
        }
        Ok(values)
    }

    /// Checks and sets one variable, and what its value decides.
    ///
    /// # Errors
    /// [`TemplateError::WrongKind`] if the value does not fit.
    pub fn put(
        &mut self,
        description: &Description,
        variable: &Variable,
        value: &str,
    ) -> Result<(), TemplateError> {
        let checked = checked(variable, value)?;
        if let ValueKind::Enumeration(choices) = &variable.kind {
            for (name, decided) in choices
                .iter()
                .filter(|c| c.value == checked)
                .flat_map(|c| &c.sets)
            {
                let decided = match description.variables.iter().find(|v| v.name == *name) {
                    Some(other) => self::checked(other, decided)?,
                    None => decided.clone(),
                };
                self.set(name, decided);
            }
        }
        self.set(&variable.name, checked);
        Ok(())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// For rendering templates.
    #[must_use]
    pub fn variables(&self) -> Variables<'_> {
        Variables {
            connection: &[],
            provider: &self.0,
        }
    }
}

fn checked(variable: &Variable, value: &str) -> Result<String, TemplateError> {
    check(&variable.kind, value).map_err(|rule| TemplateError::WrongKind {
        name: variable.name.clone(),
        rule,
    })
}

/// A JSON scalar as text; none for null, arrays and objects.
pub(crate) fn scalar_text(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Where the secrets of a request come from.
pub(crate) trait Slots {
    /// The bytes for a slot; none if there are none.
    fn bytes(&self, slot: &Slot) -> Option<&[u8]>;
}

/// How what is filled in is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As it is: header values, form and JSON values.
    Plain,
    /// Slots are percent-encoded, for a URL.
    UrlSlots,
}

/// Fills a template whole. With one slot in it the result is a secret, so it
/// always is one.
pub(crate) fn fill(
    template: &[Part],
    variables: Variables<'_>,
    slots: &dyn Slots,
    encoding: Encoding,
) -> Result<Secret, TemplateError> {
    fill_rendered(&render(template, variables)?, slots, encoding)
}

/// Fills the slots of a template whose variables are filled.
pub(crate) fn fill_rendered(
    rendered: &Rendered,
    slots: &dyn Slots,
    encoding: Encoding,
) -> Result<Secret, TemplateError> {
    let find = |slot: &Slot| {
        slots
            .bytes(slot)
            .ok_or(TemplateError::NoSecret(slot_name(slot)))
    };
    let mut pieces: Vec<Zeroizing<Vec<u8>>> = Vec::with_capacity(rendered.0.len());
    for piece in &rendered.0 {
        pieces.push(Zeroizing::new(match piece {
            Piece::Text(text) => text.clone().into_bytes(),
            Piece::Slot(slot) if encoding == Encoding::UrlSlots => percent_encode(find(slot)?),
            Piece::Slot(slot) => find(slot)?.to_vec(),
            Piece::Basic(basic) => {
                let password = basic.password.as_ref().map(find).transpose()?;
                basic_credentials(find(&basic.user)?, password.unwrap_or_default())
            }
        }));
    }
    Ok(concat(&pieces))
}

/// `Basic base64(user:password)` (RFC 7617 §2).
pub(crate) fn basic_credentials(user: &[u8], password: &[u8]) -> Vec<u8> {
    let mut pair = Zeroizing::new(Vec::with_capacity(user.len() + password.len() + 1));
    pair.extend_from_slice(user);
    pair.push(b':');
    pair.extend_from_slice(password);
    let mut encoded = base64::engine::general_purpose::STANDARD.encode(&*pair);
    let mut out = Vec::with_capacity(6 + encoded.len());
    out.extend_from_slice(b"Basic ");
    out.extend_from_slice(encoded.as_bytes());
    encoded.zeroize();
    out
}

/// Percent-encodes all but the unreserved characters (RFC 3986 §2.3).
pub(crate) fn percent_encode(bytes: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(bytes.len() * 3);
    for &b in bytes {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(b);
        } else {
            out.extend([b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        }
    }
    out
}

/// Joins without a reallocation, which would leave copies behind.
pub(crate) fn concat(pieces: &[Zeroizing<Vec<u8>>]) -> Secret {
    let mut out = Vec::with_capacity(pieces.iter().map(|p| p.len()).sum());
    for piece in pieces {
        out.extend_from_slice(piece);
    }
    Secret::new(out)
}

/// Fills a template of an endpoint, and checks the address.
///
/// # Errors
/// [`TemplateError::BadUrl`] and those of [`render_text`].
pub fn endpoint(template: &[Part], variables: Variables<'_>) -> Result<Url, TemplateError> {
    let text = render_text(template, variables)?;
    Url::parse(&text)
        .ok()
        .filter(is_usable)
        .ok_or(TemplateError::BadUrl(text))
}

/// Whether a credential may be sent to this address at all: https (http for
/// loopback), a host, no userinfo, no fragment.
#[must_use]
pub fn is_usable(url: &Url) -> bool {
    let scheme =
        url.scheme() == "https" || (url.scheme() == "http" && crate::hosts::is_loopback(url));
    scheme
        && url.host_str().is_some_and(|h| !h.is_empty())
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::Choice;

    struct One;
    impl Slots for One {
        fn bytes(&self, slot: &Slot) -> Option<&[u8]> {
            match slot {
                Slot::AccessToken => Some(b"to/ken"),
                Slot::ClientId => Some(b"id"),
                _ => None,
            }
        }
    }

    #[test]
    fn a_value_must_fit_its_kind() {
        let suffixes = vec![".example.com".to_owned(), "whole.org".to_owned()];
        let region = ValueKind::Enumeration(vec![Choice {
            value: "eu".into(),
            title: String::new(),
            sets: vec![],
        }]);
        let cases = [
            (ValueKind::Identifier, "T01:a_b-c.d", Some("T01:a_b-c.d")),
            (ValueKind::Identifier, "..", None),
            (ValueKind::Identifier, "a/b", None),
            (ValueKind::Identifier, "", None),
            (ValueKind::Label, "Acme", Some("acme")),
            (ValueKind::Label, "a.b", None),
            (
                ValueKind::Host(suffixes.clone()),
                "x.example.com",
                Some("x.example.com"),
            ),
            (ValueKind::Host(suffixes.clone()), "example.com", None),
            (ValueKind::Host(suffixes.clone()), "evilexample.com", None),
            (ValueKind::Host(suffixes.clone()), "x.example.com:1", None),
            (ValueKind::Host(suffixes.clone()), "u@x.example.com", None),
            (
                ValueKind::Host(suffixes.clone()),
                "whole.org",
                Some("whole.org"),
            ),
            (ValueKind::Host(suffixes.clone()), "a.whole.org", None),
            (
                ValueKind::Origin(suffixes.clone()),
                "https://x.example.com/",
                Some("x.example.com"),
            ),
            (
                ValueKind::Origin(suffixes.clone()),
                "http://x.example.com",
                None,
            ),
            (
                ValueKind::Origin(suffixes),
                "https://x.example.com/path",
                None,
            ),
            (region.clone(), "eu", Some("eu")),
            (region, "us", None),
        ];
        for (kind, value, expected) in cases {
            assert_eq!(
                check(&kind, value).ok().as_deref(),
                expected,
                "{kind:?} {value}"
            );
        }
    }

    #[test]
    fn slots_are_filled_and_percent_encoded_in_urls() {
        let template = vec![Part::Literal("a/".into()), Part::Slot(Slot::AccessToken)];
        let none = Variables::default();
        let plain = fill(&template, none, &One, Encoding::Plain).unwrap();
        assert_eq!(plain.expose(), b"a/to/ken");
        let url = fill(&template, none, &One, Encoding::UrlSlots).unwrap();
        assert_eq!(url.expose(), b"a/to%2Fken");
        let basic = vec![Part::Basic(Basic {
            user: Slot::ClientId,
            password: None,
        })];
        assert_eq!(
            fill(&basic, none, &One, Encoding::Plain).unwrap().expose(),
            b"Basic aWQ6"
        );
    }

    #[test]
    fn a_missing_secret_and_a_forbidden_slot_are_errors() {
        let none = Variables::default();
        let secret = vec![Part::Slot(Slot::ClientSecret)];
        assert_eq!(
            fill(&secret, none, &One, Encoding::Plain).err(),
            Some(TemplateError::NoSecret("client secret"))
        );
        assert_eq!(
            render_text(&secret, none),
            Err(TemplateError::SlotForbidden("client secret"))
        );
        let variable = vec![Part::Variable("tenant".into())];
        assert_eq!(
            render_text(&variable, none),
            Err(TemplateError::NoValue("tenant".into()))
        );
    }

    #[test]
    fn an_endpoint_is_https_or_loopback() {
        for (text, good) in [
            ("https://a.example.com/token", true),
            ("http://127.0.0.1:9/token", true),
            ("http://a.example.com/token", false),
            ("https://u@a.example.com/", false),
            ("https://a.example.com/#x", false),
            ("javascript:alert(1)", false),
        ] {
            let template = vec![Part::Literal(text.into())];
            assert_eq!(
                endpoint(&template, Variables::default()).is_ok(),
                good,
                "{text}"
            );
        }
    }
}
