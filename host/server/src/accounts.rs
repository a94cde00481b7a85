//! What happens to a user's connections when something happens to the user.

use std::sync::Arc;

use countersign_core::names::{ProviderName, TeamName, UserName};
use countersign_core::ports::{BoxFuture, StoreError};
use countersign_identity::{AccountChange, AccountEvents};
use countersign_oauth::Oauth;

use crate::registry::Registry;
use crate::user_keys::UserKeys;

/// Follows account changes, before they take effect.
pub struct ConnectionKeeper {
    /// The connections.
    pub oauth: Arc<Oauth>,
    /// For revocation at their providers.
    pub registry: Arc<Registry>,
    /// Their own keys for servers.
    pub keys: UserKeys,
}

impl AccountEvents for ConnectionKeeper {
    fn changed<'a>(
        &'a self,
        user: &'a UserName,
        change: AccountChange,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            match change {
                AccountChange::Reset => {
                    self.forget(user, None).await?;
                    self.oauth.suspend_all(user).await.map(drop)
                }
                // Its tokens and sessions no longer work, so nothing reaches
                // its connections; they stay for when it is enabled again.
                AccountChange::Disabled => Ok(()),
                AccountChange::Deleted => self.erase(user, None).await,
                AccountChange::LeftTeam(team) => self.erase(user, Some(&team)).await,
            }
        })
    }
}

impl ConnectionKeeper {
    /// What nothing could tell to be his again: keys that he gave, and what was
    /// obtained in exchange for the host's word about him.
    async fn forget(&self, user: &UserName, team: Option<&TeamName>) -> Result<(), StoreError> {
        self.keys.forget(user, team).await?;
        let party = |provider: &ProviderName| self.registry.party(provider);
        self.oauth
            .retire_obtained(user, team, party)
            .await
            .map(drop)
    }

    async fn erase(&self, user: &UserName, team: Option<&TeamName>) -> Result<(), StoreError> {
        self.forget(user, team).await?;
        for connection in self.oauth.list(user).await? {
            if team.is_none_or(|t| *t == connection.team) {
                let party = self.registry.party(&connection.provider);
                // Nobody waits for so many providers: they are asked afterwards.
                self.oauth.retire(&connection.key(), party.as_ref()).await?;
            }
        }
        Ok(())
    }
}
