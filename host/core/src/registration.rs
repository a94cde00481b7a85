//! Being a client that registered itself: what is asked of an authorization
//! server (RFC 7591), and what it answers (RFC 7591 §3.2.1, RFC 7592 §3).

use serde_json::{Value, json};
use url::Url;

use crate::provider::{GrantType, TokenAuthMethod};
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::token_answer::Answer;

/// Longest client id that is kept, in characters.
const LONGEST_ID: usize = 512;

/// Errors of RFC 7591 §3.2.2 and RFC 6750 §3.1; others are not repeated.
const CODES: [&str; 7] = [
    "invalid_redirect_uri",
    "invalid_client_metadata",
    "invalid_software_statement",
    "unapproved_software_statement",
    "invalid_token",
    "access_denied",
    "invalid_request",
];

/// What Countersign says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientMetadata {
    /// Shown on the provider's consent page.
    pub client_name: String,
    /// Countersign's own address.
    pub client_uri: Url,
    /// Where the user may be sent back to.
    pub redirect_uris: Vec<String>,
    /// What it is used for.
    pub grant_types: Vec<GrantType>,
    /// How it wants to prove who it is.
    pub token_endpoint_auth_method: TokenAuthMethod,
}

impl ClientMetadata {
    /// The document of RFC 7591 §2. No `scope`: what is registered would bound
    /// what users can be asked for later.
    #[must_use]
    pub fn document(&self) -> Value {
        let browser = self.grant_types.contains(&GrantType::AuthorizationCode);
        let response_types: &[&str] = if browser { &["code"] } else { &[] };
        json!({
            "client_name": self.client_name,
            "client_uri": self.client_uri,
            "redirect_uris": self.redirect_uris,
            "grant_types": self.grant_types,
            "response_types": response_types,
            "token_endpoint_auth_method": self.token_endpoint_auth_method,
        })
    }
}

/// A registration as the authorization server keeps it. It has no `Debug`.
pub struct Registered {
    /// The client's identifier.
    pub client_id: String,
    /// None for public clients.
    pub client_secret: Option<Secret>,
    /// When that ends; none if it does not.
    pub client_secret_expires_at: Option<Timestamp>,
    /// Opens [`Self::configuration`] (RFC 7592).
    pub access_token: Option<Secret>,
    /// Where the registration is managed (RFC 7592).
    pub configuration: Option<Url>,
    /// How the client proves who it is, if the answer says.
    pub token_endpoint_auth_method: Option<TokenAuthMethod>,
    /// Where the user may be sent back to, if the answer says.
    pub redirect_uris: Vec<String>,
}

/// Why there is no registration in an answer. Never repeats any of it but a
/// known error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// The server refused.
    #[error(
        "it refused (HTTP status {status}{})",
        code.as_ref().map_or_else(String::new, |c| format!(", {c}"))
    )]
    Refused {
        /// The HTTP status.
        status: u16,
        /// A known error code.
        code: Option<String>,
    },
    /// The answer is not what RFC 7591 says.
    #[error("its answer (HTTP status {status}) is no registration: {what}")]
    Unreadable {
        /// The HTTP status.
        status: u16,
        /// Which part, in the host's own words.
        what: &'static str,
    },
}

impl RegistrationError {
    /// Whether the server no longer knows the client (RFC 7592 §2.1: 401; many
    /// answer 403 or 404).
    #[must_use]
    pub fn says_unknown(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                status: 401 | 403 | 404,
                ..
            }
        )
    }
}

/// Reads the answer to a registration, or to a look at one.
///
/// # Errors
/// [`RegistrationError`].
pub fn read(answer: &Answer) -> Result<Registered, RegistrationError> {
    let status = answer.status();
    let unreadable = |what| RegistrationError::Unreadable { status, what };
    let tree = answer.tree(false);
    if !matches!(status, 200 | 201) {
        let code = tree
            .as_ref()
            .and_then(|t| t.0.get("error").and_then(Value::as_str))
            .filter(|code| CODES.contains(code))
            .map(str::to_owned);
        return Err(RegistrationError::Refused { status, code });
    }
    let tree = tree.ok_or_else(|| unreadable("it is not JSON"))?;
    let text = |name: &str| {
        tree.0
            .get(name)
            .and_then(Value::as_str)
            .filter(|t| !t.is_empty())
    };
    let client_id = text("client_id")
        .filter(|id| id.chars().count() <= LONGEST_ID && !id.chars().any(char::is_control))
        .ok_or_else(|| unreadable("it lacks a usable client_id"))?
        .to_owned();
    let secret = |name: &str| text(name).map(|t| Secret::new(t.as_bytes().to_vec()));
    let configuration = text("registration_client_uri")
        .map(|uri| Url::parse(uri).map_err(|_| unreadable("registration_client_uri is no URL")))
        .transpose()?;
    let method = tree
        .0
        .get("token_endpoint_auth_method")
        .filter(|m| !m.is_null())
        .map(TokenAuthMethod::deserialize_from)
        .transpose()
        .map_err(|()| unreadable("its token_endpoint_auth_method is none that is known"))?;
    let redirect_uris = tree.0.get("redirect_uris").and_then(Value::as_array);
    let expires = tree
        .0
        .get("client_secret_expires_at")
        .and_then(Value::as_i64);
    let registered = Registered {
        client_id,
        client_secret: secret("client_secret"),
        client_secret_expires_at: expires.filter(|t| *t > 0).map(Timestamp::from_secs),
        access_token: secret("registration_access_token"),
        configuration,
        token_endpoint_auth_method: method,
        redirect_uris: redirect_uris
            .into_iter()
            .flatten()
            .filter_map(|uri| uri.as_str().map(str::to_owned))
            .collect(),
    };
    let public = [&registered.client_id]
        .into_iter()
        .chain(&registered.redirect_uris)
        .map(String::as_str)
        .chain(registered.configuration.iter().map(Url::as_str));
    let secrets = [&registered.client_secret, &registered.access_token];
    for text in public {
        // Such a server would make its secret public by every page we show.
        if secrets
            .into_iter()
            .flatten()
            .any(|s| s.len() >= 8 && s.overlaps(text))
        {
            return Err(unreadable("a public part of it holds a secret one"));
        }
    }
    Ok(registered)
}

impl TokenAuthMethod {
    fn deserialize_from(value: &Value) -> Result<Self, ()> {
        serde::Deserialize::deserialize(value).map_err(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer::new(status, Some("application/json"), body.as_bytes().to_vec())
    }

    #[test]
    fn a_registration_is_read_with_its_secrets_apart() {
        let body = r#"{"client_id":"abc","client_secret":"s3cret-s3cret","client_secret_expires_at":1800000000,
            "registration_access_token":"reg-token-1","registration_client_uri":"https://as.example/reg/abc",
            "token_endpoint_auth_method":"client_secret_post","redirect_uris":["https://cs.example/cb"]}"#;
        let read = read(&answer(201, body)).ok().unwrap();
        assert_eq!(read.client_id, "abc");
        assert!(
            read.client_secret
                .unwrap()
                .matches(&Secret::from_text("s3cret-s3cret".into()))
        );
        assert!(
            read.access_token
                .unwrap()
                .matches(&Secret::from_text("reg-token-1".into()))
        );
        assert_eq!(
            read.client_secret_expires_at,
            Some(Timestamp::from_secs(1_800_000_000))
        );
        assert_eq!(
            read.token_endpoint_auth_method,
            Some(TokenAuthMethod::ClientSecretPost)
        );
    }

    #[test]
    fn what_is_no_registration_is_refused_without_repeating_it() {
        let cases = [
            (
                400,
                r#"{"error":"invalid_redirect_uri"}"#,
                "invalid_redirect_uri",
            ),
            (
                400,
                r#"{"error":"tok_0123456789abcdef"}"#,
                "HTTP status 400)",
            ),
            (401, "", "HTTP status 401)"),
            (200, "<html>", "not JSON"),
            (201, "{}", "client_id"),
            (201, r#"{"client_id":"a\nb"}"#, "client_id"),
            (201, r#"{"client_id":"a","client_id":"b"}"#, "not JSON"),
            (
                201,
                r#"{"client_id":"a","token_endpoint_auth_method":"magic"}"#,
                "auth_method",
            ),
            (
                201,
                r#"{"client_id":"a","registration_client_uri":"nonsense"}"#,
                "no URL",
            ),
            (
                201,
                r#"{"client_id":"id-s3cret-s3cret","client_secret":"s3cret-s3cret"}"#,
                "holds a secret",
            ),
        ];
        for (status, body, says) in cases {
            let Err(error) = read(&answer(status, body)) else {
                panic!("{body}");
            };
            let said = error.to_string();
            assert!(said.contains(says), "{body}: {said}");
            assert!(!said.contains("tok_"), "{said}");
        }
    }
}
