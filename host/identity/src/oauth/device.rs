//! The device flow (RFC 8628), for `countersign login` where no browser of the
//! same machine is at hand.
//!
//! Only the command line has it. A code that is typed on another machine is
//! what phishers love: an agent that anybody registered gets none, and the page
//! says who asks, from where, and that the code must be on one's own terminal.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Of;
use axum::response::{IntoResponse as _, Response};
use countersign_core::names::{ClientId, TeamName, UserName, hex};
use countersign_core::ports::{
    Expect, Kind, RecordKey, Revision, StoreError, Write, load, put_until, random_bytes,
    random_token,
};
use countersign_core::time::Timestamp;
use http::HeaderMap;
use http::header::CACHE_CONTROL;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::COMMAND_LINE;
use super::error::OAuthError;
use super::token::{Issued, client_id};
use crate::audience::Audience;
use crate::params::Params;
use crate::service::Identity;
use crate::throttle::neighbourhood;
use crate::tokens::{Grant, GrantFor, grant_key};
use crate::web::ClientAddress;

mod page;

pub(super) use page::{decide, show};

/// The grant type (RFC 8628 §3.4).
pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Prefix of device codes.
const DEVICE: &str = "cs_dc_";
/// How long the user may take.
const LIFETIME: Duration = Duration::from_secs(600);
/// How long a used code is remembered, so that its replay is noticed.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// How often the program may ask (RFC 8628 §3.5).
const INTERVAL: Duration = Duration::from_secs(5);
/// What a hurried poll may be early by, and what `slow_down` adds.
const SLACK: Duration = Duration::from_secs(1);
/// Letters of user codes: no vowels, so no words; nothing that looks like
/// another (RFC 8628 §6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters in a code: about 34 bits, against ten guesses.
const LENGTH: usize = 8;
/// Polls remembered.
const MOST_POLLS: usize = 10_000;

/// The stored record, by the device code's fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Device {
    client: ClientId,
    /// Shown to the user, who knows whether that is his terminal.
    asked_from: String,
    asked_at: Timestamp,
    expires_at: Timestamp,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// The user has not answered yet.
    Pending,
    /// The user said no.
    Denied,
    /// The user said yes; the program has not asked again yet.
    Allowed {
        user: UserName,
        epoch: String,
        team: TeamName,
        fresh_until: Timestamp,
    },
    /// Exchanged; seeing it again is the sign of a theft.
    Used { user: UserName, grant: String },
}

/// By the user code's fingerprint: the name of the device's record.
#[derive(Serialize, Deserialize)]
struct Pointer {
    device: String,
}

fn device_key(name: &str) -> RecordKey {
    RecordKey::within(Kind::Code, "device", name)
}

fn pointer_key(fingerprint: &[u8; 32]) -> RecordKey {
    RecordKey::within(Kind::Code, "user code", hex(fingerprint))
}

/// When each code was last asked for.
#[derive(Default)]
pub(crate) struct Polls(Mutex<HashMap<String, (Timestamp, Duration)>>);

impl Polls {
    /// Counts a poll; whether it came too soon, which makes the wait longer.
    fn is_hasty(&self, device: &str, now: Timestamp) -> bool {
        let mut polls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if polls.len() >= MOST_POLLS {
            polls.retain(|_, (last, _)| now.since(*last) < LIFETIME);
        }
        let Some((last, wait)) = polls.get_mut(device) else {
            polls.insert(device.to_owned(), (now, INTERVAL));
            return false;
        };
        let hasty = now.since(*last) + SLACK < *wait;
        if hasty {
            *wait += INTERVAL;
        }
        *last = now;
        hasty
    }
}

/// A user code as typed: letters of any case, with or without what separates.
fn normal(code: &str) -> Option<String> {
    let letters: String = code
        .chars()
        .take(64)
        .filter(|c| !c.is_whitespace() && *c != '-')
        .map(|c| c.to_ascii_uppercase())
        .collect();
    let good = letters.len() == LENGTH && letters.bytes().all(|b| LETTERS.contains(&b));
    good.then_some(letters)
}

/// `/oauth2/device_authorization` (RFC 8628 §3.1).
pub(super) async fn begin(
    Of(identity): Of<Identity>,
    address: ClientAddress,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match identity.begin_device(address, &headers, &body).await {
        Ok(answer) => ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response(),
        Err(error) => error.into_response(),
    }
}

impl Identity {
    async fn begin_device(
        &self,
        address: ClientAddress,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<serde_json::Value, OAuthError> {
        let params = Params::form(headers, body)?;
        let client = client_id(headers, &params)?;
        if client.as_str() != COMMAND_LINE {
            return Err(OAuthError::new(
                "unauthorized_client",
                "only the command line signs in by a code; agents use the authorization endpoint",
            ));
        }
        let resource = Audience::Api.resource(&self.settings().public_url);
        if params.find("resource").is_some_and(|r| r != resource) {
            return Err(OAuthError::new(
                "invalid_target",
                format!("the only resource here is {resource}"),
            ));
        }
        let now = self.now();
        let place = neighbourhood(address.0);
        if let Err(wait) = self.0.devices.begin(&place, now) {
            let seconds = wait.as_secs().max(1);
            return Err(OAuthError::new(
                "slow_down",
                format!("too many sign-ins by code; try again in {seconds} s"),
            ));
        }
        let text = self.new_token(DEVICE);
        let name = hex(&self.fingerprint(&text));
        let code = self.new_user_code();
        let device = Device {
            client,
            asked_from: address.0.to_string(),
            asked_at: now,
            expires_at: now.plus(LIFETIME),
            state: State::Pending,
        };
        let pointer = Pointer {
            device: name.clone(),
        };
        let writes = vec![
            write_device(&name, Expect::Absent, &device)?,
            put_until(
                pointer_key(&self.fingerprint(&code)),
                Expect::Absent,
                &pointer,
                Some(device.expires_at),
            )?,
        ];
        self.0.world.records.write(writes).await?;
        let issuer = self.issuer();
        let shown = format!("{}-{}", &code[..LENGTH / 2], &code[LENGTH / 2..]);
        Ok(json!({
            "device_code": text,
            "user_code": shown,
            "verification_uri": format!("{issuer}/device"),
            "verification_uri_complete": format!("{issuer}/device?user_code={shown}"),
            "expires_in": LIFETIME.as_secs(),
            "interval": INTERVAL.as_secs(),
        }))
    }

    /// Each letter equally likely.
    fn new_user_code(&self) -> String {
        let mut code = String::with_capacity(LENGTH);
        while code.len() < LENGTH {
            let fair = random_bytes::<32>(&*self.0.world.random)
                .into_iter()
                .filter(|byte| usize::from(*byte) < 256 / LETTERS.len() * LETTERS.len());
            let letters = fair.filter_map(|b| LETTERS.get(usize::from(b) % LETTERS.len()));
            code.extend(letters.take(LENGTH - code.len()).map(|b| char::from(*b)));
        }
        code
    }

    /// The program asks whether the user has answered (RFC 8628 §3.4, §3.5).
    pub(super) async fn by_device(
        &self,
        client: &ClientId,
        params: &Params,
    ) -> Result<Issued, OAuthError> {
        let unknown = || OAuthError::grant("the device code is unknown; sign in again");
        let text = params
            .find("device_code")
            .ok_or_else(|| OAuthError::request("device_code is missing"))?;
        if !text.starts_with(DEVICE) {
            return Err(unknown());
        }
        let name = hex(&self.fingerprint(text));
        let (device, revision) = self.device(&name).await?.ok_or_else(unknown)?;
        if device.client != *client {
            return Err(unknown());
        }
        if let State::Used { user, grant } = &device.state {
            let why = "a device code was used twice";
            return Err(self.stolen(user, grant, client, why).await?);
        }
        let now = self.now();
        if device.expires_at <= now {
            let text = "nobody answered in time; sign in again";
            return Err(OAuthError::polling("expired_token", text));
        }
        if self.0.polls.is_hasty(&name, now) {
            let text = "asked too soon; wait five seconds longer each time";
            return Err(OAuthError::polling("slow_down", text));
        }
        match device.state.clone() {
            State::Pending => Err(OAuthError::polling(
                "authorization_pending",
                "the user has not answered yet",
            )),
            State::Denied => Err(OAuthError::polling("access_denied", "the user said no")),
            State::Used { .. } => Err(unknown()),
            State::Allowed {
                user,
                epoch,
                team,
                fresh_until,
            } => {
                self.check_still_allowed(client, &user, &epoch).await?;
                let grant = Grant {
                    id: random_token::<12>(&*self.0.world.random),
                    user,
                    epoch,
                    team,
                    subject: GrantFor::Agent {
                        client: client.clone(),
                        client_name: "Countersign command line".into(),
                        audience: Audience::Api,
                    },
                    created_at: now,
                    expires_at: now.plus(self.settings().grant_lifetime),
                    fresh_until: Some(fresh_until),
                    last_used_at: None,
                };
                self.exchange(&name, device, revision, &grant).await
            }
        }
    }

    /// Tokens, and the code used up, in one write.
    async fn exchange(
        &self,
        name: &str,
        mut device: Device,
        revision: Revision,
        grant: &Grant,
    ) -> Result<Issued, OAuthError> {
        let client = device.client.clone();
        let (issued, mut writes) = self.issue(grant, Audience::Api, true)?;
        device.state = State::Used {
            user: grant.user.clone(),
            grant: grant.id.clone(),
        };
        writes.push(write_device(name, Expect::At(revision), &device)?);
        writes.push(put_until(
            grant_key(&grant.user, &grant.id),
            Expect::Absent,
            grant,
            Some(grant.expires_at),
        )?);
        match self.0.world.records.write(writes).await {
            Ok(_) => {}
            // Somebody exchanged the same code a moment before: both are out.
            Err(StoreError::Conflict) => {
                let used = self.device(name).await?.map(|(device, _)| device.state);
                let why = "a device code was used twice";
                return Err(match used {
                    Some(State::Used { user, grant }) => {
                        self.stolen(&user, &grant, &client, why).await?
                    }
                    _ => OAuthError::grant("the device code is unknown; sign in again"),
                });
            }
            Err(error) => return Err(error.into()),
        }
        self.audit_issue("token.issue", grant, &client).await?;
        Ok(issued)
    }

    async fn device(&self, name: &str) -> Result<Option<(Device, Revision)>, StoreError> {
        load::<Device>(&*self.0.world.records, &device_key(name)).await
    }
}

fn write_device(name: &str, expect: Expect, device: &Device) -> Result<Write, StoreError> {
    let until = Some(device.expires_at.plus(REMEMBERED));
    put_until(device_key(name), expect, device, until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        for typed in ["BCDF-GHJK", "bcdfghjk", " bcdf ghjk ", "BCDF--GHJK"] {
            assert_eq!(normal(typed).as_deref(), Some("BCDFGHJK"), "{typed}");
        }
        for bad in [
            "",
            "BCDF-GHJ",
            "BCDF-GHJKL",
            "AEIO-UYAE",
            "BCDF-GHJ1",
            "ßßßßßßßß",
        ] {
            assert_eq!(normal(bad), None, "{bad}");
        }
    }

    #[test]
    fn who_asks_too_soon_waits_longer() {
        let polls = Polls::default();
        let mut now = Timestamp::from_secs(1_000);
        assert!(!polls.is_hasty("a", now));
        now = now.plus(Duration::from_secs(2));
        assert!(polls.is_hasty("a", now));
        assert!(!polls.is_hasty("b", now), "another's patience is his own");
        now = now.plus(INTERVAL);
        assert!(polls.is_hasty("a", now), "ten seconds now");
        now = now.plus(INTERVAL * 3);
        assert!(!polls.is_hasty("a", now));
    }
}
