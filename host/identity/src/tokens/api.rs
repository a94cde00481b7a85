//! API tokens: `cs_mcp_…` for agents that can't do OAuth, `cs_api_…` for REST
//! and the command line.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::caller::Caller;
use countersign_core::names::{ServerName, TeamName, UserName, hex};
use countersign_core::ports::{Expect, Kind, RecordKey, Write, put_until, random_token};
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{Grant, GrantFor, TokenRecord, TokenState, grant_key};
use crate::accounts::{AccountKind, AdminError, User};
use crate::authenticate::Principal;
use crate::password::OneTime;
use crate::service::Identity;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// When nothing was said.
const USUAL_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
const LONGEST_LIFETIME: Duration = Duration::from_secs(366 * 24 * 3600);

/// What an API token is for; never interchangeable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// `/mcp` and `/mcp/{server}`.
    Mcp,
    /// REST and the command line.
    Api,
}

impl TokenKind {
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Mcp => "cs_mcp_",
            Self::Api => "cs_api_",
        }
    }
}

/// An API token to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// For people: letters, digits, `.`, `_`, `-`; at most 64.
    pub name: String,
    /// What for.
    pub kind: TokenKind,
    /// Limits a token of kind `mcp` to these servers.
    pub servers: Option<BTreeSet<ServerName>>,
    /// In which of the user's teams it acts; `default`, or his first, if not said.
    pub team: Option<TeamName>,
    /// At most 366 days; 90 days if not said.
    pub expires_in: Option<Duration>,
    /// A service account; oneself if not said.
    pub user: Option<UserName>,
}

/// An API token as listed. Never the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenView {
    /// To revoke it by.
    pub id: String,
    /// For people.
    pub name: String,
    /// What for.
    pub kind: TokenKind,
    /// Whose.
    pub user: UserName,
    /// In which team it acts.
    pub team: TeamName,
    /// The servers it is limited to.
    pub servers: Option<BTreeSet<ServerName>>,
    /// When.
    pub created_at: Timestamp,
    /// When.
    pub expires_at: Timestamp,
}

impl TokenView {
    fn of(grant: Grant) -> Option<Self> {
        let GrantFor::ApiToken {
            name,
            kind,
            servers,
            ..
        } = grant.subject
        else {
            return None;
        };
        Some(Self {
            id: grant.id,
            name,
            kind,
            user: grant.user,
            team: grant.team,
            servers,
            created_at: grant.created_at,
            expires_at: grant.expires_at,
        })
    }
}

impl Identity {
    /// Creates an API token and shows it this once.
    ///
    /// For oneself it needs a fresh interactive sign-in: a browser session or
    /// `countersign login` of the last minutes. The token that `init` prints
    /// counts as such for its first hour, so that an installation can be set up
    /// by script. For a service account it needs `token_create`, and no more
    /// power in the account than the maker has. Never for another human.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn create_token(
        &self,
        principal: &Principal,
        new: NewToken,
    ) -> Result<(TokenView, OneTime), AdminError> {
        let resource = format!(
            "user:{}",
            new.user.as_ref().unwrap_or(&principal.caller.user)
        );
        let act = async {
            let actor = &*principal.caller;
            let user = match new.user.as_ref().filter(|u| **u != actor.user) {
                None => {
                    if principal
                        .fresh_until
                        .is_none_or(|until| until <= self.now())
                    {
                        return Err(AdminError::NotFresh);
                    }
                    self.existing_user(&actor.user).await?.0
                }
                Some(other) => self.service_account(actor, other).await?,
            };
            self.check_token(&new, &user).await?;
            let expires_in = new.expires_in.unwrap_or(USUAL_LIFETIME);
            let (grant, token, writes) = self.api_token(&user, new, expires_in, None)?;
            self.0.world.records.write(writes).await?;
            let event = AuditEvent::new(self.now(), "token.create", Outcome::Allowed)
                .by(&actor.user)
                .on(format!("token:{}", grant.id))
                .detail(format!("for {}, until {}", grant.user, grant.expires_at));
            self.audit(event).await?;
            let view = TokenView::of(grant)
                .ok_or_else(|| AdminError::Invalid("not an API token".into()))?;
            Ok((view, token))
        };
        self.concluded(&principal.caller, "token.create", resource, act)
            .await
    }

    /// The records of a new API token.
    pub(crate) fn api_token(
        &self,
        user: &User,
        new: NewToken,
        expires_in: Duration,
        fresh_until: Option<Timestamp>,
    ) -> Result<(Grant, OneTime, Vec<Write>), AdminError> {
        let now = self.now();
        let token = self.new_token(new.kind.prefix());
        let record_name = hex(&self.fingerprint(&token));
        let team = new.team.or_else(|| {
            let default = TeamName::default_team();
            user.teams
                .get(&default)
                .or_else(|| user.teams.first())
                .cloned()
        });
        let grant = Grant {
            id: random_token::<12>(&*self.0.world.random),
            user: user.name.clone(),
            epoch: user.epoch.clone(),
            team: team.ok_or_else(|| {
                AdminError::Invalid(format!("{} is in no team; add one first", user.name))
            })?,
            subject: GrantFor::ApiToken {
                name: new.name,
                kind: new.kind,
                servers: new.servers,
                token: record_name.clone(),
            },
            created_at: now,
            expires_at: now.plus(expires_in),
            fresh_until,
            last_used_at: None,
        };
        let record = TokenRecord {
            user: user.name.clone(),
            grant: grant.id.clone(),
            state: TokenState::Api(new.kind),
            expires_at: grant.expires_at,
        };
        let until = Some(grant.expires_at);
        let writes = vec![
            put_until(
                grant_key(&grant.user, &grant.id),
                Expect::Absent,
                &grant,
                until,
            )?,
            put_until(
                RecordKey::new(Kind::Token, record_name),
                Expect::Absent,
                &record,
                until,
            )?,
        ];
        Ok((grant, OneTime::new(token), writes))
    }

    /// One's own API tokens, or another's with permission `token_list`.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn tokens(
        &self,
        actor: &Caller,
        user: Option<&UserName>,
    ) -> Result<Vec<TokenView>, AdminError> {
        let user = user.unwrap_or(&actor.user);
        if *user != actor.user {
            actor
                .permissions
                .demand("token_list", Some(user.as_str()))?;
        }
        let user = self.existing_user(user).await?.0;
        let grants = self
            .grants_of(&user.name)
            .await?
            .into_iter()
            .filter(|g| g.epoch == user.epoch);
        let mut views: Vec<TokenView> = grants.filter_map(TokenView::of).collect();
        views.sort_by_key(|v| v.created_at);
        Ok(views)
    }

    /// Revokes an API token, one's own, or another's with permission
    /// `token_delete`. In force when this returns.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn revoke_token(
        &self,
        actor: &Caller,
        user: Option<&UserName>,
        id: &str,
    ) -> Result<(), AdminError> {
        let resource = format!("token:{id}");
        let act = async {
            let user = user.unwrap_or(&actor.user);
            if *user != actor.user {
                actor
                    .permissions
                    .demand("token_delete", Some(user.as_str()))?;
            }
            let found = self
                .find_grant(user, id)
                .await?
                .filter(|(g, _)| matches!(g.subject, GrantFor::ApiToken { .. }));
            let (grant, _) = found.ok_or_else(|| AdminError::not_found("token", id))?;
            self.end_grant(&grant.user, &grant.id).await?;
            let event = AuditEvent::new(self.now(), "token.revoke", Outcome::Allowed)
                .by(&actor.user)
                .on(format!("token:{id}"))
                .detail(format!("of {}", grant.user));
            Ok(self.audit(event).await?)
        };
        self.concluded(actor, "token.revoke", resource, act).await
    }

    async fn service_account(&self, actor: &Caller, name: &UserName) -> Result<User, AdminError> {
        actor
            .permissions
            .demand("token_create", Some(name.as_str()))?;
        let (user, _) = self.existing_user(name).await?;
        if user.kind == AccountKind::Human {
            return Err(AdminError::Beyond(format!(
                "{name} is a person, and nobody mints a token for another person"
            )));
        }
        if !actor
            .permissions
            .cover(&self.permissions_of(&user.roles, &user.teams).await?)
        {
            return Err(AdminError::Beyond(format!(
                "{name} has permissions that you lack"
            )));
        }
        Ok(user)
    }

    async fn check_token(&self, new: &NewToken, user: &User) -> Result<(), AdminError> {
        let invalid = |text: String| Err(AdminError::Invalid(text));
        let plain = new
            .name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !plain || !(1..=64).contains(&new.name.len()) {
            return invalid(
                "a token's name is 1 to 64 letters, digits, dots, underscores and hyphens".into(),
            );
        }
        if !user.enabled {
            return invalid(format!("{} is disabled", user.name));
        }
        if new
            .expires_in
            .is_some_and(|e| e > LONGEST_LIFETIME || e.is_zero())
        {
            return invalid(format!(
                "a token lives at most {} days",
                LONGEST_LIFETIME.as_secs() / DAY.as_secs()
            ));
        }
        if let Some(team) = &new.team
            && !user.teams.contains(team)
        {
            return invalid(format!("{} is not a member of the team {team}", user.name));
        }
        let Some(servers) = &new.servers else {
            return Ok(());
        };
        if new.kind == TokenKind::Api || servers.is_empty() || servers.len() > 64 {
            return invalid("servers limit a token of kind mcp, and are 1 to 64".into());
        }
        for server in servers {
            if self.0.resources.server(server).await?.is_none() {
                return Err(AdminError::not_found("server", server));
            }
        }
        Ok(())
    }
}
