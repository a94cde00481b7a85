//! A user as stored, and as shown.

use std::collections::BTreeSet;

use countersign_core::caller::{Caller, Permission, Permissions, Role};
use countersign_core::names::{ClientId, RoleName, TeamName, UserName};
use countersign_core::ports::{Kind, RecordKey, Revision, StoreError, load};
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::external::ForeignIdentity;
use crate::password::PasswordHash;
use crate::service::Identity;

/// What an account is. Never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountKind {
    /// A person, who signs in.
    Human,
    /// A program; it only has API tokens, and nobody can sign in as it.
    Service,
}

/// What a user's password is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "hash")]
pub(crate) enum PasswordState {
    /// There is none.
    None,
    /// Set by an administrator: good for choosing a new one, once.
    ChooseNew(PasswordHash),
    /// Chosen by the user.
    Chosen(PasswordHash),
}

/// The stored record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) name: UserName,
    pub(crate) email: Option<String>,
    pub(crate) kind: AccountKind,
    pub(crate) roles: BTreeSet<RoleName>,
    pub(crate) teams: BTreeSet<TeamName>,
    pub(crate) enabled: bool,
    pub(crate) password: PasswordState,
    /// Who he is at an external issuer, if he comes from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) foreign: Option<ForeignIdentity>,
    /// Random; sessions, codes and tokens of another epoch are void. Random, not
    /// counted, so that an account created anew under an old name revives nothing.
    pub(crate) epoch: String,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

/// A user, as shown to administrators and to himself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserView {
    /// Unique, whatever its upper and lower case.
    pub name: UserName,
    /// For people; never used to recognise anybody.
    pub email: Option<String>,
    /// Human or service.
    pub kind: AccountKind,
    /// Names of roles.
    pub roles: BTreeSet<RoleName>,
    /// Names of teams.
    pub teams: BTreeSet<TeamName>,
    /// Whether it may act.
    pub enabled: bool,
    /// Whether the password is one that an administrator set.
    pub must_choose_password: bool,
    /// Who he is at an external issuer, if he comes from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign: Option<ForeignIdentity>,
    /// When.
    pub created_at: Timestamp,
    /// When.
    pub updated_at: Timestamp,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            must_choose_password: matches!(user.password, PasswordState::ChooseNew(_)),
            foreign: user.foreign,
            name: user.name,
            email: user.email,
            kind: user.kind,
            roles: user.roles,
            teams: user.teams,
            enabled: user.enabled,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

/// `Alice` and `alice` are one person.
pub(crate) fn user_key(name: &UserName) -> RecordKey {
    RecordKey::new(Kind::User, name.as_str().to_ascii_lowercase())
}

impl Identity {
    pub(crate) async fn load_user(
        &self,
        name: &UserName,
    ) -> Result<Option<(User, Revision)>, StoreError> {
        load(&*self.0.world.records, &user_key(name)).await
    }

    /// The user, if he exists, is enabled and still is the one meant.
    pub(crate) async fn live_user(
        &self,
        name: &UserName,
        epoch: &str,
    ) -> Result<Option<User>, StoreError> {
        let user = self.load_user(name).await?.map(|(user, _)| user);
        Ok(user.filter(|u| u.enabled && u.epoch == epoch))
    }

    /// All that the user's roles allow. A team-admin may also change the
    /// members of his own teams.
    pub(crate) async fn permissions_of(
        &self,
        roles: &BTreeSet<RoleName>,
        teams: &BTreeSet<TeamName>,
    ) -> Result<Permissions, StoreError> {
        let mut found = Vec::new();
        for name in roles {
            if let Some(role) = self.load_role(name).await? {
                found.push(role);
            }
            if name.as_str() == "team-admin" {
                let allow = teams
                    .iter()
                    .filter_map(|t| Permission::parse(&format!("team_update:{t}")).ok());
                found.push(Role {
                    name: name.clone(),
                    allow: allow.collect(),
                });
            }
        }
        Ok(Permissions::from_roles(&found))
    }

    /// A caller in one of the user's teams: the named one, else `default`, else
    /// any. None if he is not in the named team.
    pub(crate) async fn caller(
        &self,
        user: &User,
        team: Option<&TeamName>,
        client: ClientId,
        client_name: String,
    ) -> Result<Option<Caller>, StoreError> {
        let default = TeamName::default_team();
        let team = match team {
            Some(team) => user.teams.get(team),
            None => user.teams.get(&default).or_else(|| user.teams.first()),
        };
        let Some(team) = team else { return Ok(None) };
        Ok(Some(Caller {
            user: user.name.clone(),
            team: team.clone(),
            client,
            client_name,
            roles: user.roles.clone(),
            permissions: self.permissions_of(&user.roles, &user.teams).await?,
            servers: None,
            // Of another issuer's people some have no password here.
            has_browser_identity: user.kind == AccountKind::Human
                && (user.foreign.is_none() || user.password != PasswordState::None),
        }))
    }
}
