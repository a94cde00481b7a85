//! The agents a user let in, for his connections page.

use std::collections::BTreeMap;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::caller::Caller;
use countersign_core::names::{ClientId, UserName};
use countersign_core::ports::{Expect, Kind, StoreError, Write, delete, parse};
use countersign_core::time::Timestamp;
use serde::Serialize;

use super::record::GrantFor;
use crate::accounts::AdminError;
use crate::oauth::consent::Remembered;
use crate::service::Identity;

/// An agent with live tokens of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AgentView {
    /// To revoke it by.
    pub client: ClientId,
    /// As it calls itself.
    pub name: String,
    /// Resource URLs it may call.
    pub resources: Vec<String>,
    /// The first consent that still stands.
    pub since: Timestamp,
    /// Its last refresh, or its sign-in.
    pub last_used_at: Timestamp,
}

impl Identity {
    /// The user's agents, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn agents(&self, user: &UserName) -> Result<Vec<AgentView>, StoreError> {
        let Some((user, _)) = self.load_user(user).await? else {
            return Ok(Vec::new());
        };
        let mut agents: BTreeMap<ClientId, AgentView> = BTreeMap::new();
        for grant in self
            .grants_of(&user.name)
            .await?
            .into_iter()
            .filter(|g| g.epoch == user.epoch)
        {
            let GrantFor::Agent {
                client,
                client_name,
                audience,
            } = grant.subject
            else {
                continue;
            };
            let resource = audience.resource(&self.0.settings.public_url);
            let used = grant.last_used_at.unwrap_or(grant.created_at);
            let agent = agents.entry(client.clone()).or_insert_with(|| AgentView {
                client,
                name: client_name,
                resources: Vec::new(),
                since: grant.created_at,
                last_used_at: used,
            });
            if !agent.resources.contains(&resource) {
                agent.resources.push(resource);
            }
            agent.since = agent.since.min(grant.created_at);
            agent.last_used_at = agent.last_used_at.max(used);
        }
        let mut agents: Vec<AgentView> = agents.into_values().collect();
        agents.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.client.cmp(&b.client)));
        Ok(agents)
    }

    /// Ends all that the caller gave to this agent, remembered consents
    /// included. In force when this returns.
    ///
    /// # Errors
    /// [`AdminError`]: no such agent.
    pub async fn revoke_agent(&self, actor: &Caller, client: &ClientId) -> Result<(), AdminError> {
        let grants = self.grants_of(&actor.user).await?.into_iter();
        let theirs = grants
            .filter(|g| matches!(&g.subject, GrantFor::Agent { client: c, .. } if c == client));
        let mut writes: Vec<Write> = theirs.flat_map(|g| g.removal()).collect();
        for record in self
            .0
            .world
            .records
            .list(Kind::AgentConsent, Some(actor.user.as_str()))
            .await?
        {
            if parse::<Remembered>(&record)?.client == *client {
                writes.push(delete(record.key, Expect::Anything));
            }
        }
        if writes.is_empty() {
            return Err(AdminError::not_found("agent", client));
        }
        self.0.world.records.write(writes).await?;
        self.0.cache.void();
        let event = AuditEvent::new(self.now(), "agent.revoke", Outcome::Allowed)
            .by(&actor.user)
            .on(format!("client:{client}"));
        Ok(self.audit(event).await?)
    }
}
