//! Agents as OAuth clients: registered, by metadata document, or the command
//! line.

use countersign_core::names::ClientId;
use countersign_core::ports::{Kind, RecordKey, StoreError, load};
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::OAuthError;
use super::redirect;
use crate::audience::Audience;
use crate::service::Identity;

/// The command line's own client: registered from the start, allowed the REST
/// API, and nothing else is.
pub(crate) const COMMAND_LINE: &str = "countersign-cli";

/// What is known of a client, and stored of a registered one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Client {
    pub(crate) id: ClientId,
    /// As it calls itself; shown, never believed.
    pub(crate) name: String,
    pub(crate) redirect_uris: Vec<String>,
    /// Whether it asked for refresh tokens.
    pub(crate) refresh: bool,
    pub(crate) registered_at: Timestamp,
    /// Whether a user ever let it in; else it is swept after a day.
    pub(crate) known: bool,
}

pub(crate) fn client_key(id: &ClientId) -> RecordKey {
    RecordKey::new(Kind::Client, id.as_str())
}

impl Client {
    fn command_line(now: Timestamp) -> Option<Self> {
        Some(Self {
            id: ClientId::parse(COMMAND_LINE).ok()?,
            name: "Countersign command line".into(),
            redirect_uris: vec![
                "http://127.0.0.1/callback".into(),
                "http://[::1]/callback".into(),
            ],
            refresh: true,
            registered_at: now,
            known: true,
        })
    }

    /// Whether a code may be sent there.
    pub(crate) fn may_redirect_to(&self, redirect_uri: &str) -> bool {
        self.redirect_uris
            .iter()
            .any(|registered| redirect::matches(registered, redirect_uri))
    }

    /// The command line gets the REST API, agents get MCP.
    pub(crate) fn may_ask_for(&self, audience: &Audience) -> bool {
        (self.id.as_str() == COMMAND_LINE) == (*audience == Audience::Api)
    }
}

/// A client's own name, fit to be shown: printable, without characters that
/// reorder or hide text, at most 100 characters.
pub(crate) fn presentable(name: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{00ad}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{180e}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    name.trim()
        .chars()
        .filter(|c| !hidden(*c))
        .take(100)
        .collect()
}

impl Identity {
    /// Finds a client by its id; fetches its document if the id is a URL.
    pub(crate) async fn client(&self, id: &str) -> Result<Client, OAuthError> {
        let unknown = || {
            OAuthError::new(
                "invalid_client",
                "this client is not registered here; register it again",
            )
        };
        let id = ClientId::parse(id).map_err(|_| unknown())?;
        if id.as_str() == COMMAND_LINE {
            return Client::command_line(self.now()).ok_or_else(unknown);
        }
        if id.as_str().starts_with("https://") {
            return self.client_by_document(id).await;
        }
        self.registered_client(&id).await?.ok_or_else(unknown)
    }

    /// Whether tokens may (still) be given to this client. Documents are not
    /// fetched again for that: they were when the user agreed.
    pub(crate) async fn client_stands(&self, id: &ClientId) -> Result<bool, StoreError> {
        if id.as_str() == COMMAND_LINE || id.as_str().starts_with("https://") {
            return Ok(true);
        }
        Ok(self.registered_client(id).await?.is_some())
    }

    async fn registered_client(&self, id: &ClientId) -> Result<Option<Client>, StoreError> {
        Ok(load(&*self.0.world.records, &client_key(id))
            .await?
            .map(|(client, _)| client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_hide_or_reorder_text() {
        assert_eq!(presentable(" Good\u{202e}tnegA\u{200b}\n "), "GoodtnegA");
        assert_eq!(presentable(&"x".repeat(500)).len(), 100);
    }
}
