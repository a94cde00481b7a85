//! What is kept of every call and every administrative change.

use serde::{Deserialize, Serialize};

use crate::names::Digest;
use crate::time::Timestamp;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done.
    Allowed,
    /// Refused by a decision.
    Denied,
    /// Waits for the user.
    Pending,
    /// Went wrong.
    Failed,
}

/// One event. It never holds a token, a secret or the call's arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Rises by one for each event of this installation.
    #[serde(default)]
    pub sequence: u64,
    /// When.
    pub time: Timestamp,
    /// What (`call`, `provider.create`, `connection.connected` …).
    pub action: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The human or service account acted for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// His team.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub team: Option<String>,
    /// The agent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<String>,
    /// Where a sign-in, a registration or an unknown caller's request came from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    /// The server, provider, user … acted on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resource: Option<String>,
    /// Facts of a call.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub call: Option<CallRecord>,
    /// What changed or why it failed, in a sentence or as fields.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// What is kept of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    /// Shown to the user when it fails.
    pub call_id: String,
    /// The MCP method.
    pub method: String,
    /// The tool, prompt or resource.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// HMAC of the arguments: equal arguments can be recognised, not read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub arguments_hash: Option<String>,
    /// The rule that decided (`server.tools.deny`, `preset:github`, `scopes`).
    pub decided_by: String,
    /// CONTRACT's error word, if it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The preset that judged.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preset: Option<Digest>,
    /// The connection used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connection: Option<String>,
    /// The upstream's HTTP status.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub upstream_status: Option<u16>,
    /// From acceptance to the last byte's hand-over, in microseconds.
    pub latency_us: u64,
}

impl AuditEvent {
    /// An administrative event with just the necessary fields.
    #[must_use]
    pub fn new(time: Timestamp, action: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            sequence: 0,
            time,
            action: action.into(),
            outcome,
            user: None,
            team: None,
            client: None,
            address: None,
            resource: None,
            call: None,
            detail: None,
        }
    }

    /// Says who acted.
    #[must_use]
    pub fn by(mut self, user: impl ToString) -> Self {
        self.user = Some(user.to_string());
        self
    }

    /// Says where it came from.
    #[must_use]
    pub fn from_address(mut self, address: std::net::IpAddr) -> Self {
        self.address = Some(address.to_string());
        self
    }

    /// Says what was acted on (`provider:github`).
    #[must_use]
    pub fn on(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Says what changed.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}
