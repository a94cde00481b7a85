//! Connect links: what a call that needs its user hands out. Made for one
//! user, good for one start of a consent, of no use to anybody else.

use std::time::Duration;

use countersign_core::names::{Digest, ProviderName, ServerName, TeamName, UserName};
use countersign_core::ports::{
    Expect, Kind, RecordKey, StoreError, delete, load, put_until, random_token,
};
use countersign_core::scope::ScopeSet;
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::service::Oauth;

/// How long a link is good.
pub const LINK_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// What the page behind a link shows, and what its button starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The only user it is for.
    pub user: UserName,
    /// In which team.
    pub team: TeamName,
    /// What is to be connected.
    pub provider: ProviderName,
    /// For which resource, if dedicated.
    pub resource: Option<Url>,
    /// The server the call was for.
    pub server: Option<ServerName>,
    /// The agent that asked, for people.
    pub client_name: Option<String>,
    /// What to ask for.
    pub scopes: ScopeSet,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What a link is made from.
#[derive(Debug, Clone)]
pub struct LinkRequest {
    /// The only user it is for.
    pub user: UserName,
    /// In which team.
    pub team: TeamName,
    /// What is to be connected.
    pub provider: ProviderName,
    /// For which resource, if dedicated.
    pub resource: Option<Url>,
    /// The server the call was for.
    pub server: Option<ServerName>,
    /// The agent that asked, for people.
    pub client_name: Option<String>,
    /// What to ask for.
    pub scopes: ScopeSet,
}

/// Why a link does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Used, ended, or never made.
    #[error(
        "this link has been used or has ended: ask your agent to try again, or connect from the Connections page"
    )]
    Unknown,
    /// Made for somebody else; nothing was stored.
    #[error("this link was made for another user: sign in as the user whose agent asked")]
    OtherUser,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The id is kept only as a digest: who reads the store cannot use it.
fn key(id: &str) -> RecordKey {
    RecordKey::new(Kind::ConnectLink, Digest::of(id.as_bytes()).to_string())
}

impl Oauth {
    /// Makes a link: CONTRACT's `authorize_url`.
    ///
    /// # Errors
    /// The store's.
    pub async fn make_link(&self, request: LinkRequest) -> Result<Url, StoreError> {
        let id = random_token::<32>(&*self.world.random);
        let mut url = self.public_url.clone();
        url.set_path(&format!("/connect/{}", request.provider));
        url.set_query(Some(&format!("link={id}")));
        let expires_at = self.world.clock.now().plus(LINK_LIFETIME);
        let LinkRequest {
            user,
            team,
            provider,
            resource,
            server,
            client_name,
            scopes,
        } = request;
        let link = Link {
            user,
            team,
            provider,
            resource,
            server,
            client_name,
            scopes,
            expires_at,
        };
        let write = put_until(key(&id), Expect::Absent, &link, Some(expires_at))?;
        self.world.records.write(vec![write]).await?;
        Ok(url)
    }

    /// What the link is for, to show it. It stays good.
    ///
    /// # Errors
    /// [`LinkError`]; another user learns nothing of what it is for.
    pub async fn peek_link(&self, id: &str, user: &UserName) -> Result<Link, LinkError> {
        let (link, _) = load::<Link>(&*self.world.records, &key(id))
            .await?
            .ok_or(LinkError::Unknown)?;
        self.check(link, user)
    }

    /// Uses the link up, to start its consent.
    ///
    /// # Errors
    /// [`LinkError`]; another user's attempt does not use it up.
    pub async fn take_link(&self, id: &str, user: &UserName) -> Result<Link, LinkError> {
        let key = key(id);
        let (link, revision) = load::<Link>(&*self.world.records, &key)
            .await?
            .ok_or(LinkError::Unknown)?;
        let link = self.check(link, user)?;
        match self
            .world
            .records
            .write(vec![delete(key, Expect::At(revision))])
            .await
        {
            Ok(_) => Ok(link),
            Err(StoreError::Conflict) => Err(LinkError::Unknown),
            Err(error) => Err(error.into()),
        }
    }

    fn check(&self, link: Link, user: &UserName) -> Result<Link, LinkError> {
        if link.user != *user {
            return Err(LinkError::OtherUser);
        }
        if link.expires_at <= self.world.clock.now() {
            return Err(LinkError::Unknown);
        }
        Ok(link)
    }
}
