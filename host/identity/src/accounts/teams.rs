//! Teams and their members. Membership is kept with the user, so that a team
//! may have any number.

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::caller::Caller;
use countersign_core::names::{TeamName, UserName};
use countersign_core::ports::{
    Expect, Kind, RecordKey, StoreError, Write, delete, load, parse, put,
};
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::AdminError;
use crate::service::{AccountChange, Identity};

/// A team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Team {
    /// Unique.
    pub name: TeamName,
    /// For people.
    pub display_name: String,
    /// When.
    pub created_at: Timestamp,
}

fn team_key(name: &TeamName) -> RecordKey {
    RecordKey::new(Kind::Team, name.as_str())
}

pub(crate) fn team_write(
    name: TeamName,
    display_name: String,
    now: Timestamp,
) -> Result<(Team, Write), StoreError> {
    let team = Team {
        name,
        display_name,
        created_at: now,
    };
    let write = put(team_key(&team.name), Expect::Absent, &team)?;
    Ok((team, write))
}

impl Identity {
    /// Creates a team without members.
    ///
    /// # Errors
    /// [`AdminError`]: permission `team_create`, name taken.
    pub async fn create_team(
        &self,
        actor: &Caller,
        name: TeamName,
        display_name: String,
    ) -> Result<Team, AdminError> {
        let resource = format!("team:{name}");
        let act = async {
            actor.permissions.demand("team_create", None)?;
            let (team, write) = team_write(name, display_name, self.now())?;
            self.0
                .world
                .records
                .write(vec![write])
                .await
                .map_err(AdminError::exists("team", &team.name))?;
            self.audit_team(actor, "team.create", &team.name, "created")
                .await?;
            Ok(team)
        };
        self.concluded(actor, "team.create", resource, act).await
    }

    /// All teams, by name.
    ///
    /// # Errors
    /// [`AdminError`]: permission `team_list`.
    pub async fn teams(&self, actor: &Caller) -> Result<Vec<Team>, AdminError> {
        actor.permissions.demand("team_list", None)?;
        let records = self.0.world.records.list(Kind::Team, None).await?;
        let mut teams = records
            .iter()
            .map(parse::<Team>)
            .collect::<Result<Vec<_>, _>>()?;
        teams.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(teams)
    }

    /// One team with its members' names.
    ///
    /// # Errors
    /// [`AdminError`]: permission `team_get`, unknown team.
    pub async fn team(
        &self,
        actor: &Caller,
        name: &TeamName,
    ) -> Result<(Team, Vec<UserName>), AdminError> {
        actor.permissions.demand("team_get", Some(name.as_str()))?;
        let team = self.existing_team(name).await?;
        Ok((team, self.members(name).await?))
    }

    /// Deletes a team that has no members.
    ///
    /// # Errors
    /// [`AdminError`]: permission `team_delete`, unknown team, members left,
    /// the team `default`.
    pub async fn delete_team(&self, actor: &Caller, name: &TeamName) -> Result<(), AdminError> {
        let resource = format!("team:{name}");
        let act = async {
            actor
                .permissions
                .demand("team_delete", Some(name.as_str()))?;
            if *name == TeamName::default_team() {
                return Err(AdminError::InUse(
                    "the team \"default\" always exists".into(),
                ));
            }
            self.existing_team(name).await?;
            let members = self.members(name).await?.len();
            if members > 0 {
                return Err(AdminError::InUse(format!(
                    "the team {name} still has {members} members; remove them first"
                )));
            }
            self.0
                .world
                .records
                .write(vec![delete(team_key(name), Expect::Anything)])
                .await?;
            self.audit_team(actor, "team.delete", name, "deleted").await
        };
        self.concluded(actor, "team.delete", resource, act).await
    }

    /// Adds a member.
    ///
    /// # Errors
    /// [`AdminError`]: permission `team_update` on the team (a team-admin has it
    /// on his own), unknown team or user.
    pub async fn add_member(
        &self,
        actor: &Caller,
        team: &TeamName,
        user: &UserName,
    ) -> Result<(), AdminError> {
        let resource = format!("team:{team}");
        let act = async {
            actor
                .permissions
                .demand("team_update", Some(team.as_str()))?;
            self.existing_team(team).await?;
            let (mut member, revision) = self.existing_user(user).await?;
            if member.teams.insert(team.clone()) {
                self.store_user(member, revision).await?;
            }
            self.audit_team(actor, "team.add_member", team, &format!("user {user}"))
                .await
        };
        self.concluded(actor, "team.add_member", resource, act)
            .await
    }

    /// Removes a member: his tokens for this team end, and its connections go.
    ///
    /// # Errors
    /// [`AdminError`]: as [`Self::add_member`]; not a member; his last team.
    pub async fn remove_member(
        &self,
        actor: &Caller,
        team: &TeamName,
        user: &UserName,
    ) -> Result<(), AdminError> {
        let resource = format!("team:{team}");
        let act = async {
            actor
                .permissions
                .demand("team_update", Some(team.as_str()))?;
            let (mut member, revision) = self.existing_user(user).await?;
            if !member.teams.remove(team) {
                return Err(AdminError::not_found("member", user));
            }
            if member.teams.is_empty() {
                return Err(AdminError::InUse(format!(
                    "{team} is the last team of {user}; add another first, or disable the user"
                )));
            }
            self.0
                .accounts
                .changed(&member.name, AccountChange::LeftTeam(team.clone()))
                .await?;
            let ended = self
                .grants_of(&member.name)
                .await?
                .into_iter()
                .filter(|g| g.team == *team);
            let writes: Vec<Write> = ended.flat_map(|g| g.removal()).collect();
            if !writes.is_empty() {
                self.0.world.records.write(writes).await?;
            }
            self.store_user(member, revision).await?;
            self.audit_team(actor, "team.remove_member", team, &format!("user {user}"))
                .await
        };
        self.concluded(actor, "team.remove_member", resource, act)
            .await
    }

    pub(crate) async fn existing_team(&self, name: &TeamName) -> Result<Team, AdminError> {
        let found = load::<Team>(&*self.0.world.records, &team_key(name)).await?;
        found
            .map(|(team, _)| team)
            .ok_or_else(|| AdminError::not_found("team", name))
    }

    async fn members(&self, team: &TeamName) -> Result<Vec<UserName>, AdminError> {
        let users = self.all_users().await?;
        let mut names: Vec<UserName> = users
            .into_iter()
            .filter(|u| u.teams.contains(team))
            .map(|u| u.name)
            .collect();
        names.sort();
        Ok(names)
    }

    async fn audit_team(
        &self,
        actor: &Caller,
        action: &str,
        team: &TeamName,
        detail: &str,
    ) -> Result<(), AdminError> {
        let event = AuditEvent::new(self.now(), action, Outcome::Allowed)
            .by(&actor.user)
            .on(format!("team:{team}"))
            .detail(detail);
        Ok(self.audit(event).await?)
    }
}
