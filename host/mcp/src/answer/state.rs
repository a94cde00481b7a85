//! `requestState` of 2026-07-28: what a retry has to bring back, sealed for
//! the user, team, client, server and parameters it was given out for.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use countersign_core::names::Digest;
use countersign_core::ports::{Random, random_bytes};
use countersign_core::secret::SealKey;
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Action, INPUT_KEY};
use crate::envelope::Request;
use crate::json::{Members, canonical};
use crate::refusal::{Refusal, Refused};
use crate::session::Binding;

/// How long a user may take over the page.
pub const LIFETIME: Duration = Duration::from_secs(3600);
/// What the upstream's part may be long; beyond it the upstream asks anew.
const LONGEST_UPSTREAM_PART: usize = 48 << 10;
const PURPOSE: &str = "mcp request state 1";

#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(rename = "r")]
    round: u8,
    #[serde(rename = "t")]
    issued_millis: i64,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    upstream_state: Option<String>,
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    upstream_responses: Option<String>,
}

/// A retry, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// How often the user was asked before.
    pub rounds: u8,
    /// What he did the last time.
    pub action: Option<Action>,
    /// What goes upstream: the request without our part, with the upstream's
    /// own restored. Parse it again before judging it.
    pub body: Bytes,
}

/// Seals and opens request states.
pub struct States {
    key: SealKey,
    tag: String,
}

impl States {
    /// With a key derived from the installation's.
    #[must_use]
    pub fn new(key: &SealKey) -> Self {
        let key = key.derive(PURPOSE);
        // The tag tells our states from an upstream's, which may be another
        // Countersign's.
        let mac = key.mac(&[b"tag"]);
        let tag = format!(
            "cs1.{}.",
            URL_SAFE_NO_PAD.encode(mac.get(..6).unwrap_or_default())
        );
        Self { key, tag }
    }

    /// A state for the answer to `request`, which asked its user `rounds`
    /// times before. What `request` carried for the upstream is kept in it.
    #[must_use]
    pub fn seal(
        &self,
        request: &Request<'_>,
        rounds: u8,
        binding: &Binding<'_>,
        now: Timestamp,
        random: &dyn Random,
    ) -> String {
        let state = request.params.request_state.as_deref();
        let responses = request.params.input_responses;
        let size = state.map_or(0, str::len) + responses.map_or(0, str::len);
        let fits = size <= LONGEST_UPSTREAM_PART;
        let sealed = Sealed {
            round: rounds.saturating_add(1),
            issued_millis: now.as_millis(),
            upstream_state: state.filter(|_| fits).map(str::to_owned),
            upstream_responses: responses.filter(|_| fits).map(str::to_owned),
        };
        let plain = serde_json::to_vec(&sealed).unwrap_or_default();
        let sealed = self
            .key
            .seal(random_bytes(random), &aad(request, binding), &plain);
        format!("{}{}", self.tag, URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Reads a retry. None if nothing in it is ours: then the request goes on
    /// as it came. Otherwise parse [`Resumed::body`] and go on with that.
    ///
    /// # Errors
    /// [`Refusal::BadState`] for a state that was changed, has lapsed, or was
    /// given out to anybody else or for another call.
    pub fn resume(
        &self,
        request: &Request<'_>,
        binding: &Binding<'_>,
        now: Timestamp,
    ) -> Result<Option<Resumed>, Refused> {
        let params = &request.params;
        let ours = params
            .request_state
            .as_deref()
            .and_then(|state| state.strip_prefix(self.tag.as_str()));
        let refuse = |why| Refusal::BadState(why).of(Some(request.id.raw()));
        let responses = params
            .input_responses
            .map(Members::parse)
            .transpose()
            .map_err(|_| refuse("malformed"))?;
        let response = responses
            .as_ref()
            .and_then(|r| r.get(INPUT_KEY))
            .map(str::to_owned);
        let Some(ours) = ours else {
            let Some(mut responses) = responses.filter(|_| response.is_some()) else {
                return Ok(None);
            };
            responses.remove(INPUT_KEY);
            let body = rewritten(request, params.request_state.as_deref(), &responses)?;
            return Ok(Some(Resumed {
                rounds: 0,
                action: None,
                body,
            }));
        };
        let sealed = URL_SAFE_NO_PAD
            .decode(ours)
            .map_err(|_| refuse("damaged"))?;
        let plain = self
            .key
            .open(&aad(request, binding), &sealed)
            .map_err(|_| refuse("damaged, or given out for another call"))?;
        let state: Sealed = serde_json::from_slice(&plain).map_err(|_| refuse("damaged"))?;
        if now.since(Timestamp::from_millis(state.issued_millis)) > LIFETIME {
            return Err(refuse("too old"));
        }
        let kept = state.upstream_responses.unwrap_or_else(|| "{}".to_owned());
        let mut merged = Members::parse(&kept)?;
        for name in responses
            .iter()
            .flat_map(Members::names)
            .filter(|n| *n != INPUT_KEY)
        {
            if let Some(value) = responses.as_ref().and_then(|r| r.get(name)) {
                merged.set(name, value.to_owned());
            }
        }
        let body = rewritten(request, state.upstream_state.as_deref(), &merged)?;
        let action = response.as_deref().and_then(Action::read);
        Ok(Some(Resumed {
            rounds: state.round,
            action,
            body,
        }))
    }
}

fn rewritten(
    request: &Request<'_>,
    state: Option<&str>,
    responses: &Members<'_>,
) -> Result<Bytes, Refused> {
    let mut message = Members::parse(request.raw)?;
    let raw = message.get("params").unwrap_or("{}").to_owned();
    let mut params = Members::parse(&raw)?;
    match state {
        Some(state) => params.set("requestState", Value::from(state).to_string()),
        None => params.remove("requestState"),
    }
    if responses.is_empty() {
        params.remove("inputResponses");
    } else {
        params.set("inputResponses", responses.to_string());
    }
    message.set("params", params.to_string());
    Ok(message.to_string().into())
}

/// Binds to everything but the time: user, team, client, server, method and
/// parameters (apart from what a retry has to change).
fn aad(request: &Request<'_>, binding: &Binding<'_>) -> Vec<u8> {
    let mut params = serde_json::from_str::<Value>(request.raw)
        .ok()
        .and_then(|mut message| message.get_mut("params").map(Value::take))
        .unwrap_or_default();
    if let Some(params) = params.as_object_mut() {
        for changing in ["_meta", "requestState", "inputResponses"] {
            params.shift_remove(changing);
        }
    }
    let mut aad = binding.aad(PURPOSE);
    let digest = Digest::of(format!("{}\n{}", request.method, canonical(&params)).as_bytes());
    aad.extend_from_slice(digest.as_bytes());
    aad
}
