//! Servers that used each user's own account and now act for everybody as one:
//! whoever had connected his account is told, and asked, before the next call.

use countersign_core::connection::ConnectionKey;
use countersign_core::names::{TeamName, UserName};
use countersign_core::ports::{Expect, Kind, RecordKey, StoreError, World, load, put};
use countersign_core::server::{AuthMode, ModeChange, Server};
use countersign_core::time::Timestamp;
use countersign_oauth::Oauth;
use serde::{Deserialize, Serialize};

/// A user's word that he knows of a change: which one.
#[derive(Serialize, Deserialize)]
struct Known {
    changed_at: Timestamp,
}

/// The change that users have to know of, if the server made one.
#[must_use]
pub fn change_of(server: &Server) -> Option<&ModeChange> {
    let change = server.auth.changed.as_ref()?;
    let told =
        change.from == AuthMode::UserDelegated && server.auth.mode == AuthMode::ServiceAccount;
    told.then_some(change)
}

fn place(user: &UserName, team: &TeamName, server: &Server) -> RecordKey {
    let name = format!("{team}/{}", server.name);
    RecordKey::within(Kind::KnownChange, user.as_str(), name)
}

/// Whether this user had an account connected for the server and has not said
/// yet that he knows of the change.
///
/// # Errors
/// The store's.
pub async fn is_news(
    world: &World,
    oauth: &Oauth,
    user: &UserName,
    team: &TeamName,
    server: &Server,
) -> Result<bool, StoreError> {
    let Some(change) = change_of(server) else {
        return Ok(false);
    };
    let known: Option<(Known, _)> = load(&*world.records, &place(user, team, server)).await?;
    if known.is_some_and(|(known, _)| known.changed_at == change.at) {
        return Ok(false);
    }
    let Some(provider) = change.provider.clone() else {
        return Ok(false);
    };
    let key = ConnectionKey {
        user: user.clone(),
        team: team.clone(),
        provider,
        resource: change.resource.clone(),
    };
    let held = oauth.load(&key).await?;
    Ok(held.is_some_and(|held| held.connection.consented_at() <= change.at))
}

/// Keeps a user's word that he knows.
///
/// # Errors
/// The store's.
pub async fn keep(
    world: &World,
    user: &UserName,
    team: &TeamName,
    server: &Server,
) -> Result<(), StoreError> {
    let Some(change) = change_of(server) else {
        return Ok(());
    };
    let known = Known {
        changed_at: change.at,
    };
    let write = put(place(user, team, server), Expect::Anything, &known)?;
    world.records.write(vec![write]).await.map(drop)
}
