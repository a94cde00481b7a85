//! Tokens that another issuer has signed: the keys it publishes (RFC 7517), and
//! what it says in a token about who calls (RFC 7519, RFC 9068).
//!
//! Nothing of a token is believed before its signature has been verified, but
//! for which issuer it claims to be of: that decides whose keys are asked.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use crate::jwt::Algorithm;
use crate::secret::Secret;
use crate::time::Timestamp;

/// Longest token that is looked at, in bytes.
pub const LONGEST: usize = 16 * 1024;
/// Keys of one issuer that are looked at.
const MOST_KEYS: usize = 64;
/// Clocks of issuers may be so far ahead.
const AHEAD: Duration = Duration::from_secs(60);

/// Why a token is not believed. Never holds any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts, not JSON, too long, or with extensions that have to be
    /// understood (RFC 7515 §4.1.11).
    #[error("it is not a signed token that can be read")]
    Malformed,
    /// `none`, a shared secret, or one that is not known here.
    #[error("it is signed in a way that is not taken")]
    Algorithm,
    /// None of the issuer's keys is the one it names.
    #[error("the issuer publishes no key of its name")]
    UnknownKey,
    /// It was changed, or signed by somebody else.
    #[error("its signature does not hold")]
    Signature,
    /// Of another issuer.
    #[error("it is of another issuer")]
    Issuer,
    /// It has ended, or has no end.
    #[error("it has ended, or says not when it ends")]
    Ended,
    /// It is not good yet.
    #[error("it is not good yet")]
    Early,
    /// It is bound to a key whose proof is not asked for here, or is a statement
    /// to a client about a sign-in (OpenID Connect), not an access token.
    #[error("it is bound to a key, or no access token")]
    Unfit,
}

enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    material: Material,
}

/// The keys that an issuer publishes; those that verify nothing are left out.
pub struct KeySet(Vec<Key>);

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    used_for: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a JWK set (RFC 7517 §5). None if it is not one.
    #[must_use]
    pub fn parse(document: &[u8]) -> Option<Self> {
        let set: RawSet = serde_json::from_slice(document).ok()?;
        let keys = set.keys.into_iter().take(MOST_KEYS);
        Some(Self(keys.filter_map(Key::read).collect()))
    }

    /// The keys that may have made this signature.
    fn named<'a>(&'a self, id: Option<&str>) -> Vec<&'a Key> {
        let named = |key: &&Key| id.is_none() || key.id.as_deref() == id;
        self.0.iter().filter(named).collect()
    }
}

fn decoded(text: Option<&str>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}

impl Key {
    /// None for what is for encryption, or not known here.
    fn read(value: Value) -> Option<Self> {
        let raw: RawKey = serde_json::from_value(value).ok()?;
        if raw.used_for.as_deref().is_some_and(|used| used != "sig") {
            return None;
        }
        let point = |size: usize| {
            let (x, y) = (decoded(raw.x.as_deref())?, decoded(raw.y.as_deref())?);
            // SEC 1 §2.3.3.
            (x.len() == size && y.len() == size).then(|| [&[4][..], &x, &y].concat())
        };
        let material = match (raw.kty.as_str(), raw.crv.as_deref()) {
            ("RSA", _) => Material::Rsa {
                n: decoded(raw.n.as_deref())?,
                e: decoded(raw.e.as_deref())?,
            },
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(decoded(raw.x.as_deref())?),
            _ => return None,
        };
        Some(Self {
            id: raw.kid,
            algorithm: raw.alg,
            material,
        })
    }

    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if self
            .algorithm
            .as_deref()
            .is_some_and(|own| own != algorithm.word())
        {
            return false;
        }
        let good =
            match (&self.material, algorithm) {
                (Material::Rsa { n, e }, Algorithm::Rs256) => RsaPublicKeyComponents { n, e }
                    .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
                (Material::Rsa { n, e }, Algorithm::Ps256) => RsaPublicKeyComponents { n, e }
                    .verify(&RSA_PSS_2048_8192_SHA256, message, signature),
                (Material::P256(point), Algorithm::Es256) => {
                    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                        .verify(message, signature)
                }
                (Material::P384(point), Algorithm::Es384) => {
                    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
                        .verify(message, signature)
                }
                (Material::Ed25519(point), Algorithm::EdDsa) => {
                    UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
                }
                _ => return false,
            };
        good.is_ok()
    }
}

/// Of a header, what decides how a token is verified (RFC 7515 §4.1).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
    b64: Option<Value>,
}

/// Whether a bearer token looks like a signed one.
#[must_use]
pub fn looks_signed(token: &str) -> bool {
    token.len() <= LONGEST && token.starts_with("eyJ") && token.split('.').count() == 3
}

/// The issuer that a token claims to be of: to choose the keys by, and good for
/// nothing else.
#[must_use]
pub fn claimed_issuer(token: &str) -> Option<String> {
    let claims = decoded(token.split('.').nth(1))?;
    let claims: Map<String, Value> = serde_json::from_slice(&claims).ok()?;
    Some(claims.get("iss")?.as_str()?.to_owned())
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// When it ends.
    pub expires_at: Timestamp,
    /// Whom it is for (`aud`), to the letter.
    pub audiences: Vec<String>,
    /// The client it was given to (`client_id`, else `azp`).
    pub client: Option<String>,
    all: Map<String, Value>,
}

impl Claims {
    /// The text of a claim; none if it is absent, empty or something else.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// RFC 7519 §2: seconds, of which some issuers tell fractions.
    fn time(all: &Map<String, Value>, name: &str) -> Option<Timestamp> {
        let Value::Number(seconds) = all.get(name)? else {
            return None;
        };
        let text = seconds.to_string();
        let whole = text.split('.').next()?.parse().ok()?;
        Some(Timestamp::from_secs(whole))
    }

    fn read(all: Map<String, Value>, issuer: &str, now: Timestamp) -> Result<Self, TokenError> {
        if all.get("iss").and_then(Value::as_str) != Some(issuer) {
            return Err(TokenError::Issuer);
        }
        // RFC 7800: whoever has a copy of it cannot use it elsewhere, and must
        // not be able to here. An ID token is no word to us.
        if ["cnf", "at_hash", "c_hash", "nonce"]
            .iter()
            .any(|c| all.contains_key(*c))
        {
            return Err(TokenError::Unfit);
        }
        let expires_at = Self::time(&all, "exp").ok_or(TokenError::Ended)?;
        if expires_at <= now {
            return Err(TokenError::Ended);
        }
        for begin in ["nbf", "iat"] {
            let Some(value) = all.get(begin) else {
                continue;
            };
            if value.is_null() {
                continue;
            }
            let at = Self::time(&all, begin).ok_or(TokenError::Malformed)?;
            if at > now.plus(AHEAD) {
                return Err(TokenError::Early);
            }
        }
        let audiences = match all.get("aud") {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(many)) => many
                .iter()
                .filter_map(|a| a.as_str().map(str::to_owned))
                .collect(),
            _ => Vec::new(),
        };
        let client = ["client_id", "azp"]
            .iter()
            .find_map(|name| all.get(*name)?.as_str())
            .map(str::to_owned);
        Ok(Self {
            expires_at,
            audiences,
            client,
            all,
        })
    }
}

/// Verifies a token of this issuer.
///
/// # Errors
/// [`TokenError`]; after [`TokenError::UnknownKey`] the keys may have been
/// replaced meanwhile.
pub fn verify(
    token: &str,
    issuer: &str,
    keys: &KeySet,
    now: Timestamp,
) -> Result<Claims, TokenError> {
    if !looks_signed(token) {
        return Err(TokenError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let header = decoded(Some(header)).ok_or(TokenError::Malformed)?;
    let header: Header = serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
    if header.crit.is_some() || header.b64.is_some() {
        return Err(TokenError::Malformed);
    }
    // RFC 9068 §2.1; older issuers say JWT, or nothing.
    let typ = header.typ.as_deref().unwrap_or("JWT");
    let typ = typ.strip_prefix("application/").unwrap_or(typ);
    if !["jwt", "at+jwt"]
        .iter()
        .any(|known| typ.eq_ignore_ascii_case(known))
    {
        return Err(TokenError::Unfit);
    }
    let algorithm: Algorithm =
        serde_json::from_value(header.alg.into()).map_err(|_| TokenError::Algorithm)?;
    let signature = decoded(Some(signature)).ok_or(TokenError::Malformed)?;
    let candidates = keys.named(header.kid.as_deref());
    if candidates.is_empty() {
        return Err(TokenError::UnknownKey);
    }
    if !candidates
        .iter()
        .any(|key| key.verifies(algorithm, signed.as_bytes(), &signature))
    {
        return Err(TokenError::Signature);
    }
    let claims = decoded(Some(claims)).ok_or(TokenError::Malformed)?;
    let claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed)?;
    Claims::read(claims, issuer, now)
}

/// A verified token that a caller presented, and the one place that may see it:
/// its own issuer's token endpoint, to be exchanged there (RFC 8693).
pub struct CallerToken {
    pub(crate) token: Secret,
    /// As the operator configured it for the issuer.
    pub token_endpoint: Url,
}

impl CallerToken {
    /// Of a token that was verified.
    #[must_use]
    pub fn new(token: &str, token_endpoint: Url) -> Self {
        Self {
            token: Secret::from_text(token.to_owned()),
            token_endpoint,
        }
    }
}

impl fmt::Debug for CallerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerToken")
            .field("token_endpoint", &self.token_endpoint.as_str())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::jwt::{HostKey, PrivateKey, signed_for_tests};

    const ISSUER: &str = "https://idp.example.com";
    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn key() -> (PrivateKey, Value) {
        let key = HostKey::generate().unwrap_or_else(|e| panic!("{e}"));
        let public = serde_json::to_value(&key.public).unwrap_or_default();
        (signed_for_tests(&key), public)
    }

    fn keys(all: &[&Value]) -> KeySet {
        KeySet::parse(json!({ "keys": all }).to_string().as_bytes()).unwrap()
    }

    fn good() -> Value {
        json!({
            "iss": ISSUER, "sub": "ada", "aud": ["https://cs.example.com/mcp/notes"],
            "exp": 1_800_000_300, "iat": 1_800_000_000, "client_id": "agent",
        })
    }

    fn token(key: &PrivateKey, kid: &str, claims: &Value) -> String {
        let claims = claims.as_object().cloned().unwrap_or_default();
        let token = key.token(None, Some(kid), &claims);
        let token = token.unwrap_or_else(|e| panic!("{e}"));
        token.expose_text().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_token_of_the_issuer_is_believed_and_nothing_else_is() {
        let ((own, public), (foreign, theirs)) = (key(), key());
        let kid = public["kid"].as_str().unwrap_or_default();
        let set = keys(&[&theirs, &public]);
        let check = |text: &str| verify(text, ISSUER, &set, NOW);
        let claims = check(&token(&own, kid, &good())).unwrap();
        assert_eq!(claims.text("sub"), Some("ada"));
        assert_eq!(claims.audiences, ["https://cs.example.com/mcp/notes"]);
        assert_eq!(claims.client.as_deref(), Some("agent"));

        let with = |name: &str, value: Value| {
            let mut claims = good();
            claims[name] = value;
            token(&own, kid, &claims)
        };
        let cases = [
            (
                with("iss", json!("https://other.example.com")),
                TokenError::Issuer,
            ),
            (with("iss", Value::Null), TokenError::Issuer),
            (with("exp", json!(1_800_000_000)), TokenError::Ended),
            (with("exp", json!("soon")), TokenError::Ended),
            (with("exp", json!(1e300)), TokenError::Ended),
            (with("exp", Value::Null), TokenError::Ended),
            (with("nbf", json!(1_800_000_061)), TokenError::Early),
            (with("iat", json!("x")), TokenError::Malformed),
            (with("cnf", json!({ "jkt": "x" })), TokenError::Unfit),
            (with("nonce", json!("n")), TokenError::Unfit),
            // Another's signature under this key's name, and an unknown name.
            (token(&foreign, kid, &good()), TokenError::Signature),
            (token(&own, "another", &good()), TokenError::UnknownKey),
            ("a.b".into(), TokenError::Malformed),
            ("eyJ.b.c".into(), TokenError::Malformed),
        ];
        for (i, (text, expected)) in cases.into_iter().enumerate() {
            assert_eq!(check(&text), Err(expected), "{i}");
        }
    }

    #[test]
    fn a_header_decides_nothing_that_the_key_does_not_allow() {
        let (own, public) = key();
        let kid = public["kid"].as_str().unwrap_or_default();
        let set = keys(&[&public]);
        let whole = token(&own, kid, &good());
        let rest = whole
            .split_once('.')
            .map(|(_, rest)| rest)
            .unwrap_or_default();
        let headed = |header: Value| {
            let header = URL_SAFE_NO_PAD.encode(header.to_string());
            verify(&format!("{header}.{rest}"), ISSUER, &set, NOW)
        };
        let cases = [
            (json!({ "alg": "none" }), TokenError::Algorithm),
            (json!({ "alg": "HS256", "kid": kid }), TokenError::Algorithm),
            (json!({ "alg": "RS256", "kid": kid }), TokenError::Signature),
            (
                json!({ "alg": "ES256", "kid": kid, "x": 1 }),
                TokenError::Signature,
            ),
            (
                json!({ "alg": "ES256", "crit": ["b64"], "b64": false }),
                TokenError::Malformed,
            ),
            (
                json!({ "alg": "ES256", "typ": "logout+jwt" }),
                TokenError::Unfit,
            ),
        ];
        for (header, expected) in cases {
            assert_eq!(headed(header.clone()), Err(expected), "{header}");
        }
        // One letter of the claims.
        let mut changed = whole.clone().into_bytes();
        let at = whole.find('.').unwrap_or_default() + 20;
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap_or_default();
        assert_eq!(
            verify(&changed, ISSUER, &set, NOW),
            Err(TokenError::Signature)
        );
    }

    #[test]
    fn keys_for_encryption_and_of_unknown_kinds_verify_nothing() {
        let (own, mut public) = key();
        let kid = public["kid"].as_str().unwrap_or_default().to_owned();
        let text = token(&own, &kid, &good());
        public["use"] = "enc".into();
        let unknown = json!({ "kty": "oct", "k": "c2VjcmV0", "kid": kid });
        let set = keys(&[&public, &unknown]);
        assert_eq!(
            verify(&text, ISSUER, &set, NOW),
            Err(TokenError::UnknownKey)
        );
        assert!(KeySet::parse(b"{}").is_none());
        assert!(KeySet::parse(b"not json").is_none());
    }

    proptest! {
        #[test]
        fn no_token_makes_it_panic(text in ".{0,300}", parts in "eyJ[a-zA-Z0-9_-]{0,80}\\.[a-zA-Z0-9_-]{0,80}\\.[a-zA-Z0-9_-]{0,80}") {
            let set = KeySet(Vec::new());
            let _ = verify(&text, ISSUER, &set, NOW);
            let _ = verify(&parts, ISSUER, &set, NOW);
            let _ = claimed_issuer(&parts);
            let _ = KeySet::parse(text.as_bytes());
        }
    }
}
