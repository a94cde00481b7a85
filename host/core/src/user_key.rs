//! A user's own key for one server: the public half. The key itself is sealed
//! beside it.

use serde::{Deserialize, Serialize};

use crate::names::{ConnectionId, ServerName, TeamName, UserName};
use crate::server::{Server, Target};
use crate::time::Timestamp;

/// The stored record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserKey {
    /// Stable until the user takes it away.
    pub id: ConnectionId,
    /// Whose it is.
    pub user: UserName,
    /// In which team.
    pub team: TeamName,
    /// For which server.
    pub server: ServerName,
    /// Where that server was when the key was given: it goes nowhere else.
    pub origin: String,
    /// Counts the keys that were given.
    pub generation: u64,
    /// When the first was.
    pub created_at: Timestamp,
    /// When this one was.
    pub updated_at: Timestamp,
}

impl UserKey {
    /// Where a server's keys go, if it is one that takes them.
    #[must_use]
    pub fn origin_of(server: &Server) -> Option<String> {
        match &server.target {
            Target::Url(url) => Some(url.origin().ascii_serialization()),
            Target::Command(_) => None,
        }
    }

    /// Whether it was given for this server, where that is now.
    #[must_use]
    pub fn is_for(&self, server: &Server) -> bool {
        self.server == server.name && Self::origin_of(server).as_ref() == Some(&self.origin)
    }
}
