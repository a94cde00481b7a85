//! A provider: whom users authorize, as an administrator registered it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::hosts::HostPattern;
use crate::jwt::Algorithm;
use crate::names::{PresetName, ProviderName, SecretName};
use crate::scope::ScopeSet;
use crate::time::Timestamp;

/// How the client proves who it is to the token endpoint (RFC 8414 names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenAuthMethod {
    /// HTTP Basic.
    ClientSecretBasic,
    /// Parameters in the body.
    ClientSecretPost,
    /// A JWT signed with the provider record's private key.
    PrivateKeyJwt,
    /// A public client, protected by PKCE alone.
    None,
}

/// A grant the provider is used with (RFC 7591 names).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GrantType {
    /// Browser consent.
    #[serde(rename = "authorization_code")]
    AuthorizationCode,
    /// Renewal.
    #[serde(rename = "refresh_token")]
    RefreshToken,
    /// RFC 8628.
    #[serde(
        rename = "urn:ietf:params:oauth:grant-type:device_code",
        alias = "device_code"
    )]
    DeviceCode,
    /// A service account.
    #[serde(rename = "client_credentials")]
    ClientCredentials,
    /// RFC 8693.
    #[serde(
        rename = "urn:ietf:params:oauth:grant-type:token-exchange",
        alias = "token_exchange"
    )]
    TokenExchange,
    /// RFC 7523.
    #[serde(
        rename = "urn:ietf:params:oauth:grant-type:jwt-bearer",
        alias = "jwt_bearer"
    )]
    JwtBearer,
}

/// How Countersign became the provider's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientKind {
    /// It registered itself (RFC 7591).
    Dynamic,
    /// By the address of its metadata document.
    MetadataDocument,
    /// An administrator registered it.
    Manual,
}

/// How the provider was found, and how Countersign became its client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The authorization server, exactly as it writes itself.
    pub issuer: String,
    /// What an administrator asked about.
    pub discovered_from: url::Url,
    /// How Countersign became its client.
    pub client: ClientKind,
    /// Where clients register (RFC 7591).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<url::Url>,
    /// Where this one is managed (RFC 7592).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<url::Url>,
    /// Where the key to that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token_ref: Option<SecretName>,
    /// When the client secret ends, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_expires_at: Option<Timestamp>,
    /// When Countersign became its client.
    pub registered_at: Timestamp,
}

/// The stored record. Fields as CONTRACT names them; secrets only by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provider {
    /// Immutable.
    pub name: ProviderName,
    /// For people.
    pub display_name: String,
    /// The preset that carries the knowledge.
    pub preset: PresetName,
    /// Overrides the preset's.
    pub authorization_endpoint: Option<url::Url>,
    /// Overrides the preset's.
    pub token_endpoint: Option<url::Url>,
    /// RFC 7009; overrides the preset's way.
    pub revocation_endpoint: Option<url::Url>,
    /// RFC 8628.
    pub device_authorization_endpoint: Option<url::Url>,
    /// What it is used for.
    pub grant_types: Vec<GrantType>,
    /// Overrides the preset's preference.
    pub token_endpoint_auth_method: Option<TokenAuthMethod>,
    /// Registered at the provider.
    pub client_id: String,
    /// Where the client secret is kept.
    pub client_secret_ref: Option<SecretName>,
    /// Where the private key for `private_key_jwt` is kept.
    pub private_key_ref: Option<SecretName>,
    /// By which the provider knows that key (`kid`, RFC 7515 §4.1.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key_id: Option<String>,
    /// What it signs with, where the key leaves a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint_auth_signing_alg: Option<Algorithm>,
    /// Scopes that connections ask for at least.
    pub scopes: ScopeSet,
    /// Refuse to go on without PKCE.
    pub require_pkce: bool,
    /// Hosts tokens may go to; narrows the preset's, or says them for
    /// `generic`.
    pub audience_hosts: Vec<HostPattern>,
    /// RFC 8707 `resource`.
    pub resource: Option<url::Url>,
    /// A vendor's `audience` parameter.
    pub audience: Option<String>,
    /// Of each request to the provider.
    #[serde(with = "duration_text")]
    pub request_timeout: Duration,
    /// Of requests that may be repeated.
    pub max_retries: u8,
    /// Swap to a new preset version by itself if it asks for no more.
    pub auto_update: bool,
    /// A disabled provider starts no consent and sends nothing.
    pub enabled: bool,
    /// The preset's settings, a JSON object.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// How it was found; none of those that an administrator wrote down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Durations as text (`"30s"`, `"500ms"`, `"5m"`, `"1h"`, `"30d"`).
pub mod duration_text {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes the shortest exact form.
    ///
    /// # Errors
    /// None of its own.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format(*duration))
    }

    /// Reads one number and one unit.
    ///
    /// # Errors
    /// A sentence with an example.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "{text:?} is not a duration: write \"30s\", \"5m\" or \"2h\""
            ))
        })
    }

    /// The shortest exact form.
    #[must_use]
    pub fn format(duration: Duration) -> String {
        let millis = duration.as_millis();
        for (unit, size) in [
            ("d", 86_400_000),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1000),
        ] {
            if millis >= size && millis.is_multiple_of(size) {
                return format!("{}{unit}", millis / size);
            }
        }
        if millis == 0 {
            "0s".into()
        } else {
            format!("{millis}ms")
        }
    }

    /// One number and one of `ms`, `s`, `m`, `h`, `d`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Duration> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().ok()?;
        let size = match &text[digits..] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        number.checked_mul(size).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::duration_text::{format, parse};

    #[test]
    fn a_duration_reads_back_as_it_was_written() {
        for text in ["30s", "5m", "2h", "30d", "250ms", "90s", "0s"] {
            assert_eq!(parse(text).map(format).as_deref(), Some(text));
        }
        for bad in ["", "s", "5", "5 s", "-1s", "1w", "99999999999999999999d"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
