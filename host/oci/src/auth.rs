//! Who asks: a user and password, or a token, and what a registry makes of it
//! (distribution-spec's token authentication; RFC 9110 §11).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

/// What a person gives. No `Debug`, `Display`, `Clone` or `Serialize`.
pub enum Credentials {
    /// Nobody in particular.
    Anonymous,
    /// A user, and a password or access token.
    Basic {
        /// The user.
        user: String,
        /// What only the user knows.
        password: Zeroizing<String>,
    },
    /// A token that the registry takes as it is.
    Bearer(Zeroizing<String>),
    /// What `docker login` keeps where a registry gave it a refresh token (an
    /// identity token): only ever for the registry's token server.
    Identity(Zeroizing<String>),
}

impl Credentials {
    pub(crate) fn is_some(&self) -> bool {
        !matches!(self, Self::Anonymous)
    }

    /// As `Authorization` says it; none if there is nothing, or what there is
    /// cannot stand in a header.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let text = match self {
            Self::Anonymous | Self::Identity(_) => return None,
            Self::Basic { user, password } => {
                let pair = Zeroizing::new(format!("{user}:{}", password.as_str()));
                Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
            }
            Self::Bearer(token) => bearer(token),
        };
        sensitive(&text)
    }
}

pub(crate) fn bearer(token: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("Bearer {token}"))
}

/// A header that no log shows.
pub(crate) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a registry demands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// The credentials themselves.
    Basic,
    /// A token from this address.
    Bearer { realm: Url, service: Option<String> },
}

impl Challenge {
    /// The first challenge that is understood.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(Self::parse)
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameter = |name: &str| {
            parameters(rest)
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        Some(Self::Bearer {
            realm: Url::parse(&parameter("realm")?).ok()?,
            service: parameter("service"),
        })
    }
}

/// `name="value"` pairs; a quoted value may hold commas.
fn parameters(text: &str) -> impl Iterator<Item = (String, String)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_matches([' ', ',']).to_owned();
        let after = after.trim_start();
        let value = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, after) = quoted.split_once('"')?;
                rest = after;
                value
            }
            None => {
                let (value, after) = after.split_once(',').unwrap_or((after, ""));
                rest = after;
                value.trim()
            }
        };
        Some((name, value.to_owned()))
    })
}

/// What a token server answers.
#[derive(Deserialize)]
pub(crate) struct TokenAnswer {
    token: Option<Zeroizing<String>>,
    access_token: Option<Zeroizing<String>>,
}

impl TokenAnswer {
    pub(crate) fn header(self) -> Option<HeaderValue> {
        let token = self.token.or(self.access_token)?;
        sensitive(&bearer(&token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_read_whatever_its_order() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: Url::parse(realm).unwrap(),
                service: service.map(str::to_owned),
            })
        };
        for (text, expected) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://a.example/token\",service=\"r, s\",scope=\"repository:a:pull\"",
                bearer("https://a.example/token", Some("r, s")),
            ),
            (
                "bearer service=r, realm=https://a.example/token",
                bearer("https://a.example/token", Some("r")),
            ),
            ("Bearer service=\"r\"", None),
            ("Bearer realm=\"nowhere\"", None),
            ("Bearer realm=\"https://a.example", None),
            ("Negotiate", None),
        ] {
            assert_eq!(Challenge::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn credentials_are_marked_as_what_no_log_shows() {
        let basic = Credentials::Basic {
            user: "ada".into(),
            password: Zeroizing::new("secret".into()),
        };
        let header = basic.header().unwrap();
        assert!(header.is_sensitive());
        assert_eq!(header, "Basic YWRhOnNlY3JldA==");
        assert!(
            Credentials::Bearer(Zeroizing::new("a\nb".into()))
                .header()
                .is_none()
        );
    }
}
