//! Roles: the built-in ones, and those an administrator made.

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::caller::{Caller, Permissions, Role};
use countersign_core::names::RoleName;
use countersign_core::ports::{Expect, Kind, RecordKey, StoreError, delete, load, parse, put};

use super::AdminError;
use crate::service::Identity;

fn role_key(name: &RoleName) -> RecordKey {
    RecordKey::new(Kind::Role, name.as_str())
}

fn built_in(name: &RoleName) -> Option<Role> {
    Role::built_in().into_iter().find(|r| r.name == *name)
}

impl Identity {
    /// Creates a role.
    ///
    /// # Errors
    /// [`AdminError`]: permission `role_create`, name taken, a role beyond the
    /// creator's own permissions.
    pub async fn create_role(&self, actor: &Caller, role: Role) -> Result<Role, AdminError> {
        let resource = format!("role:{}", role.name);
        let act = async {
            actor.permissions.demand("role_create", None)?;
            within(actor, &role)?;
            if built_in(&role.name).is_some() {
                return Err(AdminError::Exists {
                    what: "role",
                    name: role.name.to_string(),
                });
            }
            let write = put(role_key(&role.name), Expect::Absent, &role)?;
            self.0
                .world
                .records
                .write(vec![write])
                .await
                .map_err(AdminError::exists("role", &role.name))?;
            self.audit_role(actor, "role.create", &role).await?;
            Ok(role)
        };
        self.concluded(actor, "role.create", resource, act).await
    }

    /// All roles, the built-in ones first.
    ///
    /// # Errors
    /// [`AdminError`]: permission `role_list`.
    pub async fn roles(&self, actor: &Caller) -> Result<Vec<Role>, AdminError> {
        actor.permissions.demand("role_list", None)?;
        let mut roles = Role::built_in();
        let records = self.0.world.records.list(Kind::Role, None).await?;
        let mut own = records
            .iter()
            .map(parse::<Role>)
            .collect::<Result<Vec<_>, _>>()?;
        own.sort_by(|a, b| a.name.cmp(&b.name));
        roles.extend(own);
        Ok(roles)
    }

    /// One role.
    ///
    /// # Errors
    /// [`AdminError`]: permission `role_get`, unknown role.
    pub async fn role(&self, actor: &Caller, name: &RoleName) -> Result<Role, AdminError> {
        actor.permissions.demand("role_get", Some(name.as_str()))?;
        self.load_role(name)
            .await?
            .ok_or_else(|| AdminError::not_found("role", name))
    }

    /// Replaces what a role allows.
    ///
    /// # Errors
    /// [`AdminError`]: permission `role_update`; a built-in role; beyond the
    /// actor's own permissions, before or after.
    pub async fn update_role(&self, actor: &Caller, role: Role) -> Result<Role, AdminError> {
        let resource = format!("role:{}", role.name);
        let act = async {
            actor
                .permissions
                .demand("role_update", Some(role.name.as_str()))?;
            within(actor, &role)?;
            let revision = self.own_role(actor, &role.name).await?;
            let write = put(role_key(&role.name), Expect::At(revision), &role)?;
            self.0.world.records.write(vec![write]).await?;
            self.0.cache.void();
            self.audit_role(actor, "role.update", &role).await?;
            Ok(role)
        };
        self.concluded(actor, "role.update", resource, act).await
    }

    /// Deletes a role nobody has.
    ///
    /// # Errors
    /// [`AdminError`]: permission `role_delete`; a built-in role; still in use.
    pub async fn delete_role(&self, actor: &Caller, name: &RoleName) -> Result<(), AdminError> {
        let resource = format!("role:{name}");
        let act = async {
            actor
                .permissions
                .demand("role_delete", Some(name.as_str()))?;
            let revision = self.own_role(actor, name).await?;
            let users = self
                .all_users()
                .await?
                .iter()
                .filter(|u| u.roles.contains(name))
                .count();
            if users > 0 {
                return Err(AdminError::InUse(format!(
                    "the role {name} is still given to {users} users; take it from them first"
                )));
            }
            self.0
                .world
                .records
                .write(vec![delete(role_key(name), Expect::At(revision))])
                .await?;
            self.0.cache.void();
            let event = AuditEvent::new(self.now(), "role.delete", Outcome::Allowed)
                .by(&actor.user)
                .on(format!("role:{name}"));
            Ok(self.audit(event).await?)
        };
        self.concluded(actor, "role.delete", resource, act).await
    }

    pub(crate) async fn load_role(&self, name: &RoleName) -> Result<Option<Role>, StoreError> {
        if let Some(role) = built_in(name) {
            return Ok(Some(role));
        }
        Ok(load(&*self.0.world.records, &role_key(name))
            .await?
            .map(|(role, _)| role))
    }

    /// The revision of a role that is not built in and within the actor's reach.
    async fn own_role(
        &self,
        actor: &Caller,
        name: &RoleName,
    ) -> Result<countersign_core::ports::Revision, AdminError> {
        if built_in(name).is_some() {
            return Err(AdminError::InUse(format!(
                "the role {name} is built in and stays as it is; create your own"
            )));
        }
        let found = load::<Role>(&*self.0.world.records, &role_key(name)).await?;
        let (role, revision) = found.ok_or_else(|| AdminError::not_found("role", name))?;
        within(actor, &role)?;
        Ok(revision)
    }

    async fn audit_role(
        &self,
        actor: &Caller,
        action: &str,
        role: &Role,
    ) -> Result<(), AdminError> {
        let allow: Vec<String> = role.allow.iter().cloned().map(String::from).collect();
        let event = AuditEvent::new(self.now(), action, Outcome::Allowed)
            .by(&actor.user)
            .on(format!("role:{}", role.name))
            .detail(format!("allows {}", allow.join(", ")));
        Ok(self.audit(event).await?)
    }
}

fn within(actor: &Caller, role: &Role) -> Result<(), AdminError> {
    if actor.permissions.cover(&Permissions::from_roles([role])) {
        Ok(())
    } else {
        Err(AdminError::Beyond(format!(
            "the role {} allows more than you may do yourself",
            role.name
        )))
    }
}
