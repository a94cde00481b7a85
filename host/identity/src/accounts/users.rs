//! Creating and changing users.

use std::collections::BTreeSet;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::caller::Caller;
use countersign_core::names::{RoleName, TeamName, UserName};
use countersign_core::ports::{
    Expect, Kind, Revision, Write, delete, load, parse, put, random_token,
};

use super::AdminError;
use super::user::{AccountKind, PasswordState, User, UserView, user_key};
use crate::external::ForeignIdentity;
use crate::password::Password;
use crate::service::{AccountChange, Identity};

/// A user to be.
pub struct NewUser {
    /// Unique.
    pub name: UserName,
    /// For people.
    pub email: Option<String>,
    /// Never changes.
    pub kind: AccountKind,
    /// Roles; all must exist and be within what the creator may do himself.
    pub roles: BTreeSet<RoleName>,
    /// For humans: works once, for choosing a new one.
    pub password: Option<Password>,
    /// For humans: who he is at an external issuer. Nobody else has it, and it
    /// stays: else it would be a way to another person's account.
    pub foreign: Option<ForeignIdentity>,
}

/// What to change of a user; `None` leaves it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserPatch {
    /// An empty text removes it.
    #[serde(default)]
    pub email: Option<String>,
    /// All roles.
    #[serde(default)]
    pub roles: Option<BTreeSet<RoleName>>,
    /// Whether it may act. Switching off ends sessions and tokens for good.
    #[serde(default)]
    pub enabled: Option<bool>,
}

impl Identity {
    /// Creates a user in the team `default`.
    ///
    /// # Errors
    /// [`AdminError`]: permission `user_create`, name taken, unknown role, a
    /// role beyond the creator's own permissions, weak password.
    pub async fn create_user(&self, actor: &Caller, new: NewUser) -> Result<UserView, AdminError> {
        let resource = format!("user:{}", new.name);
        let act = async {
            actor.permissions.demand("user_create", None)?;
            self.check_roles(actor, &new.roles).await?;
            let password = match (new.kind, new.password) {
                (AccountKind::Service, Some(_)) => {
                    return Err(AdminError::Invalid(
                        "a service account has no password; create a token for it".into(),
                    ));
                }
                (_, None) => PasswordState::None,
                (AccountKind::Human, Some(password)) => {
                    password.check(new.name.as_str())?;
                    PasswordState::ChooseNew(
                        self.0.hasher.hash(password, &*self.0.world.random).await?,
                    )
                }
            };
            let mut user = self.new_user(
                new.name,
                checked_email(new.email)?,
                new.kind,
                new.roles,
                password,
            );
            user.foreign = new.foreign;
            let mut writes = vec![put(user_key(&user.name), Expect::Absent, &user)?];
            if let Some(foreign) = &user.foreign {
                writes.push(self.linked(foreign, &user).await?);
            }
            self.0
                .world
                .records
                .write(writes)
                .await
                .map_err(AdminError::exists("user", &user.name))?;
            self.audit_user(actor, "user.create", &user.name, &summary(&user))
                .await?;
            Ok(user.into())
        };
        self.concluded(actor, "user.create", resource, act).await
    }

    /// The write by which a person of an external issuer is this user.
    async fn linked(&self, foreign: &ForeignIdentity, user: &User) -> Result<Write, AdminError> {
        if user.kind == AccountKind::Service {
            return Err(AdminError::Invalid(
                "a service account is nobody at an external issuer; create a token for it".into(),
            ));
        }
        foreign
            .check(&self.0.settings.issuers)
            .map_err(AdminError::Invalid)?;
        let records = &*self.0.world.records;
        if let Some((other, _)) = load::<UserName>(records, &foreign.key()).await? {
            return Err(AdminError::Invalid(format!(
                "that subject of the issuer is the user {other} already"
            )));
        }
        Ok(put(foreign.key(), Expect::Absent, &user.name)?)
    }

    pub(crate) fn new_user(
        &self,
        name: UserName,
        email: Option<String>,
        kind: AccountKind,
        roles: BTreeSet<RoleName>,
        password: PasswordState,
    ) -> User {
        let now = self.now();
        User {
            name,
            email,
            kind,
            roles,
            teams: BTreeSet::from([TeamName::default_team()]),
            enabled: true,
            password,
            foreign: None,
            epoch: self.new_epoch(),
            created_at: now,
            updated_at: now,
        }
    }

    /// All users, by name.
    ///
    /// # Errors
    /// [`AdminError`]: permission `user_list`.
    pub async fn users(&self, actor: &Caller) -> Result<Vec<UserView>, AdminError> {
        actor.permissions.demand("user_list", None)?;
        let mut users: Vec<UserView> = self
            .all_users()
            .await?
            .into_iter()
            .map(UserView::from)
            .collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(users)
    }

    pub(crate) async fn all_users(&self) -> Result<Vec<User>, AdminError> {
        let records = self.0.world.records.list(Kind::User, None).await?;
        Ok(records
            .iter()
            .map(parse::<User>)
            .collect::<Result<_, _>>()?)
    }

    /// One user; everybody may see himself.
    ///
    /// # Errors
    /// [`AdminError`]: permission `user_get`, unknown user.
    pub async fn user(&self, actor: &Caller, name: &UserName) -> Result<UserView, AdminError> {
        if actor.user != *name {
            actor.permissions.demand("user_get", Some(name.as_str()))?;
        }
        Ok(self.existing_user(name).await?.0.into())
    }

    /// Changes e-mail, roles or enablement. Every other sign-in, token and
    /// agent of a disabled user ends.
    ///
    /// # Errors
    /// [`AdminError`]: permission `user_update`; the user, before or after, may
    /// more than the actor; disabling or re-roling oneself.
    pub async fn update_user(
        &self,
        actor: &Caller,
        name: &UserName,
        patch: UserPatch,
    ) -> Result<UserView, AdminError> {
        let resource = format!("user:{name}");
        let act = async {
            let (mut user, revision) = self.user_within(actor, "user_update", name).await?;
            let oneself = actor.user == user.name;
            if let Some(email) = patch.email {
                user.email = checked_email(Some(email))?;
            }
            if let Some(roles) = patch.roles {
                if oneself {
                    return Err(AdminError::Beyond(
                        "nobody changes his own roles; ask another administrator".into(),
                    ));
                }
                self.check_roles(actor, &roles).await?;
                user.roles = roles;
            }
            if let Some(enabled) = patch.enabled {
                if oneself && !enabled {
                    return Err(AdminError::Beyond(
                        "nobody disables himself; ask another administrator".into(),
                    ));
                }
                if user.enabled && !enabled {
                    self.0
                        .accounts
                        .changed(&user.name, AccountChange::Disabled)
                        .await?;
                    user.epoch = self.new_epoch();
                }
                user.enabled = enabled;
            }
            let user = self.store_user(user, revision).await?;
            self.audit_user(actor, "user.update", &user.name, &summary(&user))
                .await?;
            Ok(user.into())
        };
        self.concluded(actor, "user.update", resource, act).await
    }

    /// Sets a password that works once, for choosing a new one. All the user's
    /// sessions, tokens and agents end, and his connections are suspended.
    ///
    /// # Errors
    /// [`AdminError`]: permission `user_update`; a user who may more than the
    /// actor; a service account; weak password.
    pub async fn reset_password(
        &self,
        actor: &Caller,
        name: &UserName,
        password: Password,
    ) -> Result<(), AdminError> {
        let resource = format!("user:{name}");
        let act = async {
            let (mut user, revision) = self.user_within(actor, "user_update", name).await?;
            if user.kind == AccountKind::Service {
                return Err(AdminError::Invalid(
                    "a service account has no password; create a token for it".into(),
                ));
            }
            password.check(user.name.as_str())?;
            let hash = self.0.hasher.hash(password, &*self.0.world.random).await?;
            self.0
                .accounts
                .changed(&user.name, AccountChange::Reset)
                .await?;
            user.password = PasswordState::ChooseNew(hash);
            user.epoch = self.new_epoch();
            let user = self.store_user(user, revision).await?;
            self.0
                .by_user
                .forget(&user.name.as_str().to_ascii_lowercase());
            self.audit_user(
                actor,
                "user.reset_password",
                &user.name,
                "sessions, tokens and agents ended",
            )
            .await
        };
        self.concluded(actor, "user.reset_password", resource, act)
            .await
    }

    /// Deletes a user with his sessions, tokens, agents and connections.
    ///
    /// # Errors
    /// [`AdminError`]: permission `user_delete`; a user who may more than the
    /// actor; oneself.
    pub async fn delete_user(&self, actor: &Caller, name: &UserName) -> Result<(), AdminError> {
        let resource = format!("user:{name}");
        let act = async {
            let (user, revision) = self.user_within(actor, "user_delete", name).await?;
            if actor.user == user.name {
                return Err(AdminError::Beyond(
                    "nobody deletes himself; ask another administrator".into(),
                ));
            }
            self.0
                .accounts
                .changed(&user.name, AccountChange::Deleted)
                .await?;
            let mut writes = vec![delete(user_key(&user.name), Expect::At(revision))];
            if let Some(foreign) = &user.foreign {
                writes.push(delete(foreign.key(), Expect::Anything));
            }
            for kind in [Kind::Grant, Kind::AgentConsent] {
                let records = self
                    .0
                    .world
                    .records
                    .list(kind, Some(user.name.as_str()))
                    .await?;
                writes.extend(records.into_iter().map(|r| delete(r.key, Expect::Anything)));
            }
            self.0.world.records.write(writes).await?;
            self.0.cache.void();
            self.audit_user(actor, "user.delete", &user.name, "deleted")
                .await
        };
        self.concluded(actor, "user.delete", resource, act).await
    }

    pub(crate) fn new_epoch(&self) -> String {
        random_token::<12>(&*self.0.world.random)
    }

    pub(crate) async fn existing_user(
        &self,
        name: &UserName,
    ) -> Result<(User, Revision), AdminError> {
        self.load_user(name)
            .await?
            .ok_or_else(|| AdminError::not_found("user", name))
    }

    /// The user, if the actor has the permission and the user may no more than
    /// the actor: else a reset would be a way to somebody's greater power.
    async fn user_within(
        &self,
        actor: &Caller,
        permission: &str,
        name: &UserName,
    ) -> Result<(User, Revision), AdminError> {
        actor.permissions.demand(permission, Some(name.as_str()))?;
        let (user, revision) = self.existing_user(name).await?;
        let theirs = self.permissions_of(&user.roles, &user.teams).await?;
        if actor.permissions.cover(&theirs) {
            Ok((user, revision))
        } else {
            Err(AdminError::Beyond(format!(
                "{name} has permissions that you lack"
            )))
        }
    }

    async fn check_roles(
        &self,
        actor: &Caller,
        roles: &BTreeSet<RoleName>,
    ) -> Result<(), AdminError> {
        for name in roles {
            let role = self
                .load_role(name)
                .await?
                .ok_or_else(|| AdminError::not_found("role", name))?;
            if !actor
                .permissions
                .cover(&countersign_core::caller::Permissions::from_roles([&role]))
            {
                return Err(AdminError::Beyond(format!(
                    "the role {name} allows more than you may do yourself"
                )));
            }
        }
        Ok(())
    }

    pub(crate) async fn store_user(
        &self,
        mut user: User,
        revision: Revision,
    ) -> Result<User, AdminError> {
        user.updated_at = self.now();
        let write = put(user_key(&user.name), Expect::At(revision), &user)?;
        self.0.world.records.write(vec![write]).await?;
        self.0.cache.void();
        Ok(user)
    }

    pub(crate) async fn audit_user(
        &self,
        actor: &Caller,
        action: &str,
        user: &UserName,
        detail: &str,
    ) -> Result<(), AdminError> {
        let event = AuditEvent::new(self.now(), action, Outcome::Allowed)
            .by(&actor.user)
            .on(format!("user:{user}"))
            .detail(detail);
        Ok(self.audit(event).await?)
    }
}

fn summary(user: &User) -> String {
    let roles: Vec<&str> = user.roles.iter().map(RoleName::as_str).collect();
    let from = user.foreign.as_ref();
    let from = from.map_or_else(String::new, |f| format!(", {} at {}", f.subject, f.issuer));
    format!(
        "kind {:?}, roles [{}], enabled {}{from}",
        user.kind,
        roles.join(", "),
        user.enabled
    )
}

fn checked_email(email: Option<String>) -> Result<Option<String>, AdminError> {
    let Some(email) = email.filter(|e| !e.is_empty()) else {
        return Ok(None);
    };
    let plain = email.len() <= 254 && !email.chars().any(|c| c.is_control() || c.is_whitespace());
    let parts = email
        .rsplit_once('@')
        .is_some_and(|(local, host)| !local.is_empty() && !host.is_empty());
    if plain && parts {
        Ok(Some(email))
    } else {
        Err(AdminError::Invalid(
            "the e-mail address must look like name@host, without spaces".into(),
        ))
    }
}
