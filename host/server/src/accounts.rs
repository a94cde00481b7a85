//! What happens to a user's connections when something happens to the user.

use std::sync::Arc;

use countersign_core::names::UserName;
use countersign_core::ports::{BoxFuture, StoreError};
use countersign_identity::{AccountChange, AccountEvents};
use countersign_oauth::Oauth;

use crate::registry::Registry;

/// Follows account changes, before they take effect.
pub struct ConnectionKeeper {
    /// The connections.
    pub oauth: Arc<Oauth>,
    /// For revocation at their providers.
    pub registry: Arc<Registry>,
}

impl AccountEvents for ConnectionKeeper {
    fn changed<'a>(
        &'a self,
        user: &'a UserName,
        change: AccountChange,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            match change {
                AccountChange::Reset => self.oauth.suspend_all(user).await.map(drop),
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
    async fn erase(
        &self,
        user: &UserName,
        team: Option<&countersign_core::names::TeamName>,
    ) -> Result<(), StoreError> {
        for connection in self.oauth.list(user).await? {
            if team.is_none_or(|t| *t == connection.team) {
                let party = self.registry.party(&connection.provider);
                self.oauth
                    .disconnect(&connection.key(), party.as_ref())
                    .await?;
            }
        }
        Ok(())
    }
}
