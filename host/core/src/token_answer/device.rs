//! The answer to a device authorization request (RFC 8628 §3.2).

use std::time::Duration;

use url::Url;

use super::{Answer, AnswerError, judge};
use crate::preset::Description;
use crate::secret::Secret;
use crate::template::is_usable;

/// RFC 8628 §3.2: where the answer says nothing.
const USUAL_INTERVAL: u64 = 5;
const SHORTEST_INTERVAL: u64 = 1;
const LONGEST_INTERVAL: u64 = 60;
/// A code may live so long; who takes longer begins anew.
const LONGEST_LIFE: u64 = 1800;
/// Longest code that a person types.
const LONGEST_CODE: usize = 64;

/// A device authorization.
pub struct DeviceGrant {
    /// For the token endpoint alone.
    pub device_code: Secret,
    /// What the user types there.
    pub user_code: String,
    /// Where he types it.
    pub verification_uri: Url,
    /// The same with the code in it.
    pub verification_uri_complete: Option<Url>,
    /// How long the codes are good.
    pub lifetime: Duration,
    /// Shortest time between two looks.
    pub interval: Duration,
}

/// Reads it.
///
/// # Errors
/// [`AnswerError`]; the answer is not repeated.
pub fn read_device_grant(
    answer: &Answer,
    description: &Description,
) -> Result<DeviceGrant, AnswerError> {
    let tree = judge(
        answer,
        &description.token_answer,
        &description.known_codes(),
    )?;
    let lacks = |what: &str| AnswerError::Unreadable {
        status: answer.status(),
        what: format!("it lacks a usable {what}"),
    };
    let text = |name: &str| tree.0.get(name).and_then(serde_json::Value::as_str);
    let number = |name: &str| {
        let value = tree.0.get(name)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    };
    let address = |name: &str| {
        let url = Url::parse(text(name)?).ok()?;
        is_usable(&url).then_some(url)
    };
    let device_code = text("device_code")
        .filter(|code| !code.is_empty())
        .ok_or_else(|| lacks("device code"))?;
    let user_code = text("user_code")
        .filter(|code| {
            (1..=LONGEST_CODE).contains(&code.len())
                && code.bytes().all(|b| matches!(b, b' '..=b'~'))
                // What is shown to people must not be the secret half.
                && !device_code.contains(*code)
        })
        .ok_or_else(|| lacks("user code"))?;
    // Google's is named so.
    let verification_uri = address("verification_uri")
        .or_else(|| address("verification_url"))
        .ok_or_else(|| lacks("verification address"))?;
    let complete = address("verification_uri_complete")
        .filter(|url| url.origin() == verification_uri.origin())
        .filter(|url| !url.as_str().contains(device_code));
    let interval = number("interval").unwrap_or(USUAL_INTERVAL);
    let lifetime = number("expires_in").ok_or_else(|| lacks("lifetime"))?;
    Ok(DeviceGrant {
        device_code: Secret::from_text(device_code.to_owned()),
        user_code: user_code.to_owned(),
        verification_uri,
        verification_uri_complete: complete,
        lifetime: Duration::from_secs(lifetime.min(LONGEST_LIFE)),
        interval: Duration::from_secs(interval.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL)),
    })
}
