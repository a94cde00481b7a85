//! What Countersign itself answers for a server that cannot be asked yet,
//! because its user has not connected an account.

use bytes::Bytes;
use countersign_core::names::{ProviderName, ServerName};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::complete;
use crate::envelope::Request;
use crate::refusal::{json_response, result_body};
use crate::revision::{Era, Revision};

/// How long a 2026-era client may keep what is said here: the user may
/// connect any moment.
const TTL_MILLIS: u64 = 5_000;

/// A server whose user has to connect first.
#[derive(Debug, Clone, Copy)]
pub struct Unconnected<'a> {
    /// The server.
    pub server: &'a ServerName,
    /// Its name for people.
    pub display_name: &'a str,
    /// Where an account is missing.
    pub provider: &'a ProviderName,
    /// That name for people.
    pub provider_display_name: &'a str,
}

impl Unconnected<'_> {
    /// The one tool there is.
    #[must_use]
    pub fn tool_name(&self) -> String {
        format!("connect_{}", self.provider)
    }

    fn instructions(&self) -> String {
        format!(
            "The user has not connected an account at {} yet. Call the tool {} to get the address of the \
             page where the user can do so; afterwards the server's own tools appear.",
            self.provider_display_name,
            self.tool_name()
        )
    }

    fn server_info(&self) -> Value {
        json!({
            "name": self.server.as_str(),
            "title": self.display_name,
            "version": env!("CARGO_PKG_VERSION"),
        })
    }

    fn answer(&self, id: &str, mut result: Value, revision: Revision) -> Response<Bytes> {
        complete(&mut result, revision);
        if revision.era() == Era::PerRequest {
            result["ttlMs"] = TTL_MILLIS.into();
            result["cacheScope"] = "private".into();
            result["_meta"] = json!({ "io.modelcontextprotocol/serverInfo": self.server_info() });
        }
        json_response(StatusCode::OK, result_body(id, &result.to_string()))
    }

    /// The answer to `initialize` (2025).
    #[must_use]
    pub fn initialize(&self, request: &Request<'_>, revision: Revision) -> Response<Bytes> {
        let result = json!({
            "protocolVersion": revision.as_str(),
            "capabilities": { "tools": { "listChanged": true } },
            "serverInfo": self.server_info(),
            "instructions": self.instructions(),
        });
        json_response(
            StatusCode::OK,
            result_body(request.id.raw(), &result.to_string()),
        )
    }

    /// The answer to `server/discover` (2026-07-28).
    #[must_use]
    pub fn discover(&self, request: &Request<'_>) -> Response<Bytes> {
        let result = json!({
            "supportedVersions": [Revision::V2026_07_28.as_str()],
            "capabilities": { "tools": { "listChanged": true } },
            "instructions": self.instructions(),
        });
        self.answer(request.id.raw(), result, Revision::V2026_07_28)
    }

    /// The answer to `tools/list`: one tool, `connect_{provider}`.
    #[must_use]
    pub fn tools_list(&self, request: &Request<'_>, revision: Revision) -> Response<Bytes> {
        let result = json!({ "tools": [{
            "name": self.tool_name(),
            "title": format!("Connect {}", self.provider_display_name),
            "description": self.instructions(),
            "inputSchema": { "type": "object", "properties": {}, "additionalProperties": false },
        }] });
        self.answer(request.id.raw(), result, revision)
    }

    /// The answer to a call of that tool once the account is connected.
    #[must_use]
    pub fn connected(&self, request: &Request<'_>, revision: Revision) -> Response<Bytes> {
        let text = format!(
            "The account at {} is connected. List the tools again: the server's own are there now.",
            self.provider_display_name
        );
        let mut result = json!({ "content": [{ "type": "text", "text": text }] });
        complete(&mut result, revision);
        json_response(
            StatusCode::OK,
            result_body(request.id.raw(), &result.to_string()),
        )
    }
}
