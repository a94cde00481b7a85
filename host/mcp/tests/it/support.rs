//! What several tests need.

use countersign_core::names::{ClientId, TeamName, UserName};
use countersign_mcp::envelope::{Incoming, Limits, Message, Request, parse};
use countersign_mcp::session::Binding;

/// One request.
pub(crate) fn request(json: &str) -> Request<'_> {
    match parse(json.as_bytes(), &Limits::default()) {
        Ok(Incoming::Single(Message::Request(request))) => request,
        other => panic!("{json}: {other:?}"),
    }
}

/// Somebody.
pub(crate) struct Who(
    pub(crate) UserName,
    pub(crate) TeamName,
    pub(crate) ClientId,
);

impl Who {
    pub(crate) fn named(user: &str, team: &str, client: &str) -> Self {
        Self(
            UserName::parse(user).unwrap(),
            TeamName::parse(team).unwrap(),
            ClientId::parse(client).unwrap(),
        )
    }

    pub(crate) fn at<'a>(&'a self, server: &'a str) -> Binding<'a> {
        Binding {
            user: &self.0,
            team: &self.1,
            client: &self.2,
            server,
        }
    }
}
