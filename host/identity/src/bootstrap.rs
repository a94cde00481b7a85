//! The first account.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::names::{RoleName, TeamName, UserName};
use countersign_core::ports::{Expect, Kind, RecordKey, put};

use crate::accounts::{AccountKind, AdminError, PasswordState, team_write, user_key};
use crate::password::{OneTime, Password};
use crate::service::Identity;
use crate::tokens::{NewToken, TokenKind};

/// What `init` prints once.
pub struct Bootstrap {
    /// The first administrator.
    pub user: UserName,
    /// His password; he may keep it.
    pub password: OneTime,
    /// An API token of kind `api`, good for 90 days. For its first hour it counts
    /// as a fresh sign-in, so that an installation can be set up by script.
    pub token: OneTime,
}

const TOKEN_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
const COUNTS_AS_FRESH: Duration = Duration::from_secs(3600);

impl Identity {
    /// Creates the first administrator and the team `default`. Once only: the
    /// marker is written in the same batch.
    ///
    /// # Errors
    /// [`AdminError::Exists`] if it was done before.
    pub async fn bootstrap(&self, user: UserName) -> Result<Bootstrap, AdminError> {
        let (password, shown) = Password::generate(&*self.0.world.random);
        let hash = self.0.hasher.hash(password, &*self.0.world.random).await?;
        let roles = BTreeSet::from([RoleName::parse("admin")?]);
        let user = self.new_user(
            user,
            None,
            AccountKind::Human,
            roles,
            PasswordState::Chosen(hash),
        );
        let new = NewToken {
            name: "init".into(),
            kind: TokenKind::Api,
            servers: None,
            team: None,
            expires_in: None,
            user: None,
        };
        let fresh_until = self.now().plus(COUNTS_AS_FRESH);
        let (_, token, mut writes) =
            self.api_token(&user, new, TOKEN_LIFETIME, Some(fresh_until))?;
        writes.push(put(
            RecordKey::new(Kind::Meta, "identity-bootstrap"),
            Expect::Absent,
            &self.now(),
        )?);
        writes.push(put(user_key(&user.name), Expect::Absent, &user)?);
        writes.push(team_write(TeamName::default_team(), "Default".into(), self.now())?.1);
        self.0
            .world
            .records
            .write(writes)
            .await
            .map_err(AdminError::exists("user", &user.name))?;
        let event = AuditEvent::new(self.now(), "user.create", Outcome::Allowed)
            .on(format!("user:{}", user.name))
            .detail("the first administrator, by init");
        self.audit(event).await?;
        Ok(Bootstrap {
            user: user.name,
            password: shown,
            token,
        })
    }
}
