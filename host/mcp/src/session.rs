//! Session ids towards clients of 2025: sealed capsules, so that any replica
//! serves them and nobody else's is worth anything.
//!
//! A capsule is not an authentication: it opens only for the user, team, client
//! and server it was made for, and those come from the caller's token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::names::{ClientId, TeamName, UserName};
use countersign_core::ports::{Random, random_bytes, random_token};
use countersign_core::secret::SealKey;
use countersign_core::time::Timestamp;
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::envelope::Request;
use crate::headers::{SESSION_ID, single};
use crate::json::Members;
use crate::refusal::Refusal;
use crate::revision::Revision;

/// For whom something was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding<'a> {
    /// The human, or the service account.
    pub user: &'a UserName,
    /// In which team he acts.
    pub team: &'a TeamName,
    /// The agent.
    pub client: &'a ClientId,
    /// The server's name; empty for the endpoint of all servers.
    pub server: &'a str,
}

impl Binding<'_> {
    /// As additional authenticated data; no two bindings have the same.
    pub(crate) fn aad(&self, purpose: &str) -> Vec<u8> {
        let parts = [
            purpose,
            self.user.as_str(),
            self.team.as_str(),
            self.client.as_str(),
            self.server,
        ];
        let mut aad = Vec::with_capacity(128);
        for part in parts {
            aad.extend_from_slice(&(part.len() as u64).to_le_bytes());
            aad.extend_from_slice(part.as_bytes());
        }
        aad
    }
}

/// What a session of a 2025-era client consists of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Capsule {
    /// Random; the upstream session is stored under it.
    #[serde(rename = "i")]
    pub id: String,
    /// As negotiated.
    #[serde(rename = "v")]
    pub revision: Revision,
    /// The client's declared capabilities.
    #[serde(rename = "c")]
    pub capabilities: Box<RawValue>,
    /// The client's `clientInfo`.
    #[serde(rename = "n")]
    pub client_info: Box<RawValue>,
    /// When it ends.
    #[serde(rename = "e", with = "millis")]
    pub expires_at: Timestamp,
}

mod millis {
    use countersign_core::time::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_i64(time.as_millis())
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(json: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(json).map(Timestamp::from_millis)
    }
}

/// Longer declarations are cut down to what matters, so that the session id
/// stays a header that everything in between accepts.
const LONGEST_PART: usize = 1024;

impl Capsule {
    /// For a client's `initialize`. Oversized capabilities are reduced to the
    /// standard ones, an oversized `clientInfo` to name, title and version.
    #[must_use]
    pub fn of_initialize(
        request: &Request<'_>,
        revision: Revision,
        expires_at: Timestamp,
        random: &dyn Random,
    ) -> Self {
        let params = &request.params;
        Self {
            id: random_token::<16>(random),
            revision,
            capabilities: reduced(params.capabilities, &["elicitation", "sampling", "roots"]),
            client_info: reduced(params.client_info, &["name", "title", "version"]),
            expires_at,
        }
    }

    /// Whether the client takes URL elicitations.
    #[must_use]
    pub fn url_elicitation(&self) -> bool {
        declares_url_elicitation(Some(self.capabilities.get()))
    }
}

fn reduced(raw: Option<&str>, keep: &[&str]) -> Box<RawValue> {
    let raw = raw.unwrap_or("{}");
    let mut text = raw.to_owned();
    if raw.len() > LONGEST_PART
        && let Ok(mut members) = Members::parse(raw)
    {
        let dropped: Vec<String> = members
            .names()
            .filter(|n| !keep.contains(n) || members.get(n).is_some_and(|v| v.len() > 200))
            .map(str::to_owned)
            .collect();
        dropped.iter().for_each(|name| members.remove(name));
        text = members.to_string();
    }
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Whether capabilities (raw JSON) declare `elicitation.url`.
#[must_use]
pub fn declares_url_elicitation(capabilities: Option<&str>) -> bool {
    #[derive(Deserialize)]
    struct Declared {
        elicitation: Option<Modes>,
    }
    #[derive(Deserialize)]
    struct Modes {
        url: Option<serde::de::IgnoredAny>,
    }
    capabilities
        .and_then(|raw| serde_json::from_str::<Declared>(raw).ok())
        .and_then(|declared| declared.elicitation)
        .is_some_and(|modes| modes.url.is_some())
}

/// Seals and opens capsules.
pub struct Capsules(SealKey);

const PURPOSE: &str = "mcp session capsule 1";

impl Capsules {
    /// With a key derived from the installation's.
    #[must_use]
    pub fn new(key: &SealKey) -> Self {
        Self(key.derive(PURPOSE))
    }

    /// The session id to give to the client.
    #[must_use]
    pub fn seal(
        &self,
        capsule: &Capsule,
        binding: &Binding<'_>,
        random: &dyn Random,
    ) -> HeaderValue {
        let plain = serde_json::to_vec(capsule).unwrap_or_default();
        let sealed = self
            .0
            .seal(random_bytes(random), &binding.aad(PURPOSE), &plain);
        HeaderValue::from_str(&URL_SAFE_NO_PAD.encode(sealed))
            .unwrap_or(HeaderValue::from_static("-"))
    }

    /// The client's session, if it names one.
    ///
    /// # Errors
    /// [`Refusal::UnknownSession`] (404) if it has ended, was damaged, or was
    /// made for anybody else.
    pub fn open(
        &self,
        headers: &HeaderMap,
        binding: &Binding<'_>,
        now: Timestamp,
    ) -> Result<Option<Capsule>, Refusal> {
        let Some(text) = single(headers, &SESSION_ID).map_err(|_| Refusal::UnknownSession)? else {
            return Ok(None);
        };
        let sealed = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| Refusal::UnknownSession)?;
        let plain = self
            .0
            .open(&binding.aad(PURPOSE), &sealed)
            .map_err(|_| Refusal::UnknownSession)?;
        let capsule: Capsule =
            serde_json::from_slice(&plain).map_err(|_| Refusal::UnknownSession)?;
        if capsule.expires_at <= now {
            Err(Refusal::UnknownSession)
        } else {
            Ok(Some(capsule))
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::ports::fakes::CountingRandom;

    use super::*;
    use crate::envelope::{Incoming, Limits, Message, parse};

    struct Who(UserName, TeamName, ClientId);

    fn who(user: &str, team: &str, client: &str) -> Who {
        Who(
            UserName::parse(user).unwrap(),
            TeamName::parse(team).unwrap(),
            ClientId::parse(client).unwrap(),
        )
    }

    impl Who {
        fn at<'a>(&'a self, server: &'a str) -> Binding<'a> {
            Binding {
                user: &self.0,
                team: &self.1,
                client: &self.2,
                server,
            }
        }
    }

    fn initialize(capabilities: &str, info: &str) -> Capsule {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"2025-11-25","capabilities":{capabilities},"clientInfo":{info}}}}}"#
        );
        let Incoming::Single(Message::Request(request)) =
            parse(body.as_bytes(), &Limits::default()).unwrap()
        else {
            panic!()
        };
        Capsule::of_initialize(
            &request,
            Revision::V2025_11_25,
            Timestamp::from_secs(100),
            &CountingRandom::default(),
        )
    }

    fn header(value: HeaderValue) -> HeaderMap {
        HeaderMap::from_iter([(SESSION_ID.clone(), value)])
    }

    #[test]
    fn a_session_opens_for_its_own_user_team_client_and_server_only() {
        let capsules = Capsules::new(&SealKey::new([1; 32]));
        let anna = who("anna", "blue", "agent-1");
        let capsule = initialize(
            r#"{"elicitation":{"url":{}}}"#,
            r#"{"name":"a","version":"1"}"#,
        );
        let random = CountingRandom::default();
        let sealed = capsules.seal(&capsule, &anna.at("notes"), &random);
        assert!(sealed.as_bytes().iter().all(u8::is_ascii_graphic));
        let headers = header(sealed);
        let now = Timestamp::from_secs(99);
        let opened = capsules
            .open(&headers, &anna.at("notes"), now)
            .unwrap()
            .unwrap();
        assert_eq!(opened.id, capsule.id);
        assert!(opened.url_elicitation());
        assert_eq!(opened.client_info.get(), r#"{"name":"a","version":"1"}"#);

        let others = [
            (who("bert", "blue", "agent-1"), "notes"),
            (who("anna", "red", "agent-1"), "notes"),
            (who("anna", "blue", "agent-2"), "notes"),
            (who("anna", "blue", "agent-1"), "other"),
            // The same bytes, cut elsewhere.
            (who("annab", "lue", "agent-1"), "notes"),
        ];
        for (other, server) in &others {
            let refused = capsules.open(&headers, &other.at(server), now).unwrap_err();
            assert_eq!(refused.status().as_u16(), 404);
        }
        let late = capsules.open(&headers, &anna.at("notes"), Timestamp::from_secs(100));
        assert_eq!(late.unwrap_err(), Refusal::UnknownSession);
        let other_key = Capsules::new(&SealKey::new([2; 32]));
        assert!(other_key.open(&headers, &anna.at("notes"), now).is_err());
    }

    #[test]
    fn a_damaged_or_doubled_session_id_is_unknown() {
        let capsules = Capsules::new(&SealKey::new([1; 32]));
        let anna = who("anna", "blue", "agent-1");
        let now = Timestamp::from_secs(0);
        for text in ["", "x", "AAAA", "not base64!", "../../etc"] {
            let headers = header(HeaderValue::from_str(text).unwrap());
            let opened = capsules.open(&headers, &anna.at("notes"), now);
            assert_eq!(opened.unwrap_err(), Refusal::UnknownSession, "{text}");
        }
        let capsule = initialize("{}", r#"{"name":"a","version":"1"}"#);
        let sealed = capsules.seal(&capsule, &anna.at("notes"), &CountingRandom::default());
        let mut headers = header(sealed.clone());
        headers.append(SESSION_ID.clone(), sealed);
        assert!(capsules.open(&headers, &anna.at("notes"), now).is_err());
        assert!(
            capsules
                .open(&HeaderMap::new(), &anna.at("notes"), now)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn an_oversized_declaration_is_cut_to_what_matters() {
        let icon = "x".repeat(20_000);
        let info = format!(r#"{{"name":"a","version":"1","icons":[{{"src":"data:{icon}"}}]}}"#);
        let capabilities =
            format!(r#"{{"elicitation":{{"url":{{}}}},"experimental":{{"x":{{"y":"{icon}"}}}}}}"#);
        let capsule = initialize(&capabilities, &info);
        assert_eq!(capsule.client_info.get(), r#"{"name":"a","version":"1"}"#);
        assert_eq!(capsule.capabilities.get(), r#"{"elicitation":{"url":{}}}"#);
        let anna = who("anna", "blue", "agent-1");
        let sealed = Capsules::new(&SealKey::new([1; 32])).seal(
            &capsule,
            &anna.at("notes"),
            &CountingRandom::default(),
        );
        assert!(sealed.len() < 1024, "{}", sealed.len());
    }

    #[test]
    fn url_elicitation_counts_only_where_it_is_declared() {
        let cases = [
            (Some(r#"{"elicitation":{"url":{}}}"#), true),
            (Some(r#"{"elicitation":{"form":{},"url":{"x":1}}}"#), true),
            (Some(r#"{"elicitation":{}}"#), false),
            (Some(r#"{"elicitation":{"form":{}}}"#), false),
            (Some(r#"{"elicitation":{"url":null}}"#), false),
            (Some(r#"{"url":{}}"#), false),
            (Some("{}"), false),
            (None, false),
        ];
        for (raw, declared) in cases {
            assert_eq!(declares_url_elicitation(raw), declared, "{raw:?}");
        }
    }
}
