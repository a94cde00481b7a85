//! Who is calling, and what he may do.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::names::{ClientId, RoleName, TeamName, UserName};

/// Verified identity of one request. Made by `identity` from a token; the
/// token itself stops there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The human, or the service account.
    pub user: UserName,
    /// In which team he acts.
    pub team: TeamName,
    /// The agent: an OAuth client, or the API token's name.
    pub client: ClientId,
    /// The agent's name, for people.
    pub client_name: String,
    /// His roles, for policies.
    pub roles: BTreeSet<RoleName>,
    /// What he may administer.
    pub permissions: Permissions,
    /// Servers this token is limited to; none means all.
    pub servers: Option<BTreeSet<String>>,
    /// Whether he can open a connect link: people of an external issuer
    /// without a sign-in here cannot.
    pub has_browser_identity: bool,
}

/// A permission by its CONTRACT name (`provider_create`), on everything or on
/// one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Permission {
    name: String,
    resource: Option<String>,
}

/// Resources that have the five ordinary permissions.
pub const RESOURCES: [&str; 9] = [
    "provider", "server", "preset", "secret", "user", "team", "role", "token", "policy",
];
/// The five ordinary permissions.
pub const VERBS: [&str; 5] = ["create", "get", "list", "update", "delete"];
/// Permissions outside the grid.
pub const SPECIAL: [&str; 10] = [
    "provider_attach",
    "secret_attach",
    "preset_enable",
    "preset_approve",
    "audit_read",
    "connection_revoke_any",
    "key_list",
    "key_rotate",
    "backup_create",
    "doctor_run",
];

impl Permission {
    /// Parses `NAME` or `NAME:RESOURCE`.
    ///
    /// # Errors
    /// A sentence that lists the names there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, resource) = match text.split_once(':') {
            Some((name, resource)) if !resource.is_empty() => (name, Some(resource.to_owned())),
            Some(_) => return Err(format!("{text:?} names no resource after the colon")),
            None => (text, None),
        };
        let known = SPECIAL.contains(&name)
            || name
                .rsplit_once('_')
                .is_some_and(|(r, v)| RESOURCES.contains(&r) && VERBS.contains(&v));
        if known {
            Ok(Self {
                name: name.to_owned(),
                resource,
            })
        } else {
            Err(format!(
                "{name:?} is not a permission: there are {{{}}}_{{{}}} and {}",
                RESOURCES.join(","),
                VERBS.join(","),
                SPECIAL.join(", ")
            ))
        }
    }
}

impl TryFrom<String> for Permission {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Permission> for String {
    fn from(permission: Permission) -> String {
        match permission.resource {
            Some(resource) => format!("{}:{resource}", permission.name),
            None => permission.name,
        }
    }
}

/// A refused permission; the text is CONTRACT's `missing_permission`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("permission {0} is missing")]
pub struct MissingPermission(pub String);

/// All that a caller's roles allow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions(BTreeSet<Permission>);

impl Permissions {
    /// Collects from roles.
    pub fn from_roles<'a>(roles: impl IntoIterator<Item = &'a Role>) -> Self {
        Self(
            roles
                .into_iter()
                .flat_map(|r| r.allow.iter().cloned())
                .collect(),
        )
    }

    /// Whether `name` is allowed on `resource`.
    #[must_use]
    pub fn allow(&self, name: &str, resource: Option<&str>) -> bool {
        self.0
            .iter()
            .any(|p| p.name == name && (p.resource.is_none() || p.resource.as_deref() == resource))
    }

    /// [`Self::allow`], or the error to answer with.
    ///
    /// # Errors
    /// [`MissingPermission`] with the permission's name.
    pub fn demand(&self, name: &str, resource: Option<&str>) -> Result<(), MissingPermission> {
        if self.allow(name, resource) {
            return Ok(());
        }
        Err(MissingPermission(match resource {
            Some(resource) => format!("{name}:{resource}"),
            None => name.to_owned(),
        }))
    }

    /// Whether this covers all of `other`: nobody hands out more than he has.
    #[must_use]
    pub fn cover(&self, other: &Self) -> bool {
        other
            .0
            .iter()
            .all(|p| self.allow(&p.name, p.resource.as_deref()))
    }
}

/// A named set of permissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Unique.
    pub name: RoleName,
    /// What it allows.
    pub allow: Vec<Permission>,
}

impl Role {
    /// The roles every installation has.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        let grid = |resources: &[&str], verbs: &[&str]| -> Vec<String> {
            resources
                .iter()
                .flat_map(|r| verbs.iter().map(move |v| format!("{r}_{v}")))
                .collect()
        };
        let read = ["get", "list"];
        let mut admin = grid(&RESOURCES, &VERBS);
        admin.extend(SPECIAL.map(str::to_owned));
        let mut provider_editor = grid(&["provider"], &VERBS);
        provider_editor.extend(grid(&["preset", "secret"], &read));
        let mut server_editor = grid(&["server"], &VERBS);
        server_editor.extend(grid(&["provider", "preset", "secret", "team"], &read));
        let mut auditor = grid(
            &["provider", "server", "preset", "policy", "role", "team"],
            &read,
        );
        auditor.push("audit_read".into());
        let team_admin = grid(&["team", "server", "user"], &read);
        let roles = [
            ("admin", admin),
            ("team-admin", team_admin),
            ("provider-editor", provider_editor),
            ("server-editor", server_editor),
            ("auditor", auditor),
            ("user", grid(&["server"], &["list"])),
        ];
        roles
            .into_iter()
            .filter_map(|(name, allow)| {
                Some(Self {
                    name: RoleName::parse(name).ok()?,
                    allow: allow
                        .iter()
                        .filter_map(|p| Permission::parse(p).ok())
                        .collect(),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_role_parses_whole() {
        let roles = Role::built_in();
        assert_eq!(roles.len(), 6);
        assert_eq!(
            roles[0].allow.len(),
            RESOURCES.len() * VERBS.len() + SPECIAL.len()
        );
    }

    #[test]
    fn attach_is_a_permission_of_its_own() {
        let roles = Role::built_in();
        let editor =
            Permissions::from_roles(roles.iter().filter(|r| r.name.as_str() == "server-editor"));
        assert!(editor.allow("server_create", None));
        let refused = editor
            .demand("provider_attach", Some("github"))
            .unwrap_err();
        assert_eq!(refused.0, "provider_attach:github");
    }

    #[test]
    fn a_permission_on_one_resource_is_not_one_on_all() {
        let one = Role {
            name: RoleName::parse("x").unwrap(),
            allow: vec![Permission::parse("provider_attach:github").unwrap()],
        };
        let permissions = Permissions::from_roles([&one]);
        assert!(permissions.allow("provider_attach", Some("github")));
        assert!(!permissions.allow("provider_attach", Some("slack")));
        assert!(!permissions.allow("provider_attach", None));
        assert!(Permission::parse("fly_high").is_err());
    }
}
