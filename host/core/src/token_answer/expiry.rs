//! When a token ends.

use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;
use zeroize::Zeroizing;

use super::body::Tree;
use crate::preset::{Expiry, TimeFormat};
use crate::time::Timestamp;

/// The first source of an end that has a value. Ten years at most.
pub(super) fn ends(
    tree: &Tree,
    sources: &[Expiry],
    token: &str,
    now: Timestamp,
) -> Option<Timestamp> {
    const LONGEST: u64 = 10 * 366 * 86_400;
    let after = |secs: u64| now.plus(Duration::from_secs(secs.min(LONGEST)));
    // A token that has ended when it is handed out is one of another clock.
    // Without a known end it is used until it is refused, and then renewed.
    let ahead = |end: &Timestamp| *end > now;
    for source in sources {
        let found = match source {
            // Zero means "no end" where it occurs (Keycloak's offline tokens).
            Expiry::Lifetime(pointer) => tree
                .0
                .pointer(pointer)
                .and_then(number)
                .filter(|n| *n >= 1.0)
                .map(|n| after(n as u64)),
            Expiry::Absolute(pointer, format) => tree
                .0
                .pointer(pointer)
                .and_then(|v| match format {
                    TimeFormat::UnixSeconds => number(v).map(|n| Timestamp::from_secs(n as i64)),
                    TimeFormat::UnixMilliseconds => {
                        number(v).map(|n| Timestamp::from_millis(n as i64))
                    }
                    TimeFormat::Rfc3339 => v.as_str().and_then(Timestamp::parse),
                })
                .filter(ahead),
            Expiry::JwtClaim => jwt_end(token).filter(ahead),
            // RFC 7662 introspection is not asked in this version: the token
            // counts as without a known end, and a 401 renews it.
            Expiry::Introspection => None,
            Expiry::Constant(secs) => Some(after(u64::from(*secs))),
            Expiry::Never => return None,
        };
        if let Some(end) = found {
            return Some(end.min(after(LONGEST)));
        }
    }
    None
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(n) => n.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (number.is_finite() && number > 0.0).then_some(number)
}

/// The `exp` claim, unverified: it only says when to renew (RFC 7519 §4.1.4).
fn jwt_end(token: &str) -> Option<Timestamp> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: f64,
    }
    let payload = token.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload.trim_end_matches('='))
        .ok()?;
    let claims: Claims = serde_json::from_slice(&Zeroizing::new(bytes)).ok()?;
    (claims.exp.is_finite() && claims.exp > 0.0).then(|| Timestamp::from_secs(claims.exp as i64))
}
