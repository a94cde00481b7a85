//! Consent by a code that the user types at the provider (RFC 8628), for
//! whoever has no browser here that could be sent back.
//!
//! Such a code is bound to no browser: whoever types it may be somebody else.
//! So a provider has to be set up for it, and what is found at the end, the
//! account, is shown to the signed-in user, who says whether it is his. Only
//! then there is a connection.
//!
//! Nothing runs in the background: whoever waits looks, on a page or with the
//! command line, and the provider is asked at most as often as it wants to be.
//! What nobody looks at any more ends by itself.

use std::time::Duration;

use countersign_core::audit::Outcome as AuditOutcome;
use countersign_core::connection::{Account, Connection, Origins, TokenFacts};
use countersign_core::names::{Digest, ProviderName, UserName};
use countersign_core::ports::{
    Change, Expect, Kind, RecordKey, Revision, SecretChange, StoreError, Write, delete, parse,
    random_token,
};
use countersign_core::preset::{Grant, Offline};
use countersign_core::provider::GrantType;
use countersign_core::request::{Asking, Exchange, Target, device_request, token_request};
use countersign_core::scope::{Scope, ScopeSet};
use countersign_core::secret::Sealed;
use countersign_core::template::Values;
use countersign_core::time::Timestamp;
use countersign_core::token_answer::{Granted, read_device_grant, refusal_of};
use countersign_core::tokens::{TokenSet, reopened};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::callback::Stop;
use crate::callback::checks::{judge_difference, keep, refusal};
use crate::consent::{Begin, ConsentError, Flow, scopes_to_ask};
use crate::revoke::can_revoke;
use crate::service::{Oauth, Party};

/// RFC 8628 §3.5: how much longer to wait after `slow_down`.
const SLOWER: Duration = Duration::from_secs(5);
/// Longest time between two looks at a provider that does not answer.
const LONGEST: Duration = Duration::from_secs(60);
/// Who looks has this much longer than the request may take before another may.
const SLACK: Duration = Duration::from_secs(15);
/// How long the user may take to say whether the account is his.
const DECIDE: Duration = Duration::from_secs(600);

/// What the user is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// What he types.
    pub user_code: String,
    /// Where.
    pub verification_uri: Url,
    /// The same with the code in it.
    pub verification_uri_complete: Option<Url>,
    /// When the code ends.
    pub expires_at: Timestamp,
    /// How often to look, at most.
    pub interval: Duration,
}

/// Where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The user has not typed the code yet.
    Waiting(Shown),
    /// Somebody allowed it: is this the account?
    Found {
        /// Who it is, if the provider tells.
        account: Option<Account>,
        /// What was granted.
        scopes: ScopeSet,
    },
    /// Nothing comes of it any more.
    Refused {
        /// A short, stable word.
        code: String,
        /// What the person can do.
        advice: String,
    },
}

/// The public half of the record; the secret half is the device code, and then
/// the tokens until the user has decided.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pending {
    flow: Flow,
    shown: Shown,
    next_look: Timestamp,
    found: Option<Found>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Found {
    credentials: Vec<TokenFacts>,
    facts: Vec<(String, String)>,
    account: Option<Account>,
    origins: Origins,
}

/// A pending one as read.
struct Read {
    pending: Pending,
    revision: Revision,
    sealed: Option<Sealed>,
    key: RecordKey,
}

fn key_of(id: &str) -> RecordKey {
    RecordKey::new(Kind::DeviceFlow, Digest::of(id.as_bytes()).to_string())
}

/// Whether accounts of this provider may be connected by a code.
#[must_use]
pub fn is_on(party: &Party) -> bool {
    let provider = &party.provider;
    provider.grant_types.contains(&GrantType::DeviceCode)
        && (provider.device_authorization_endpoint.is_some()
            || party
                .preset
                .description()
                .device_authorization_endpoint
                .is_some())
}

impl Oauth {
    /// Begins: asks the provider for a code. Returns the id to look with. Call
    /// it only from a page's own `POST`, or for the bearer of an API token.
    ///
    /// # Errors
    /// [`ConsentError`]; nothing was begun.
    pub async fn begin_device(
        &self,
        begin: Begin,
        party: &Party,
    ) -> Result<(String, Shown), ConsentError> {
        let (provider, description) = (&*party.provider, party.preset.description());
        if !provider.enabled {
            return Err(ConsentError::Disabled(provider.name.to_string()));
        }
        if !is_on(party) {
            return Err(ConsentError::NoDeviceFlow(provider.name.to_string()));
        }
        let values = Values::resolve(description, &provider.settings, &[])?;
        let keys = self.client_keys(provider).await?;
        let asking = self.asking(party, &values, &keys);
        let mut flow = Flow {
            redirect_uri: String::new(),
            bare_callback: false,
            provider: provider.name.clone(),
            client_id: provider.client_id.clone(),
            token_origin: Some(
                asking
                    .token_endpoint(&Grant::DeviceCode)?
                    .origin()
                    .ascii_serialization(),
            ),
            indicator: begin.indicator,
            course: Some(provider.course()),
            expires_at: self.world.clock.now(),
            asked: ScopeSet::default(),
            held: ScopeSet::default(),
            user: begin.user,
            team: begin.team,
            session: begin.session,
            resource: begin.resource,
            return_to: begin.return_to,
            asked_by: begin.asked_by,
        };
        let held = self.load(&flow.connection_key()).await?;
        let granted = held.map(|h| h.connection.scopes()).unwrap_or_default();
        flow.asked = scopes_to_ask(&begin.scopes, provider, description, &granted);
        let mut wanted = flow.asked.clone();
        let offline = description.authorization.as_ref().map(|a| &a.offline);
        if let Some(Offline::Scope(scope)) = offline
            && let Ok(scope) = Scope::parse(scope)
        {
            wanted.insert(scope);
        }
        let target = Target {
            scopes: &wanted,
            resource: flow.indicator.as_ref(),
            audience: provider.audience.as_deref(),
        };
        let request = device_request(&asking, target)?;
        let answer = self
            .sender
            .send(request, provider.request_timeout)
            .await
            .map_err(|e| ConsentError::Unanswered(e.to_string()))?;
        let grant = read_device_grant(&answer, description)
            .map_err(|e| ConsentError::Unanswered(e.to_string()))?;
        let now = self.world.clock.now();
        let shown = Shown {
            user_code: grant.user_code,
            verification_uri: grant.verification_uri,
            verification_uri_complete: grant.verification_uri_complete,
            expires_at: now.plus(grant.lifetime),
            interval: grant.interval,
        };
        flow.expires_at = shown.expires_at;
        let pending = Pending {
            next_look: now.plus(grant.interval),
            flow,
            shown: shown.clone(),
            found: None,
        };
        let id = random_token::<32>(&*self.world.random);
        let write = write_of(
            key_of(&id),
            Expect::Absent,
            &pending,
            SecretChange::Set(grant.device_code),
        )?;
        self.world.records.write(vec![write]).await?;
        Ok((id, shown))
    }

    /// Looks where it stands, and asks the provider if it is time. Only for the
    /// user and the session that began it.
    ///
    /// # Errors
    /// [`ConsentError`] for what is not the user's to mend.
    pub async fn look_device(
        &self,
        id: &str,
        user: &UserName,
        session: &str,
        party: impl FnOnce(&ProviderName) -> Option<Party>,
    ) -> Result<Standing, ConsentError> {
        let Some(read) = self.pending(id, user, session).await? else {
            return Ok(unknown());
        };
        if let Some(found) = &read.pending.found {
            return Ok(standing(found));
        }
        let now = self.world.clock.now();
        let waiting = Standing::Waiting(read.pending.shown.clone());
        if read.pending.next_look > now {
            return Ok(waiting);
        }
        let Some(party) = party(&read.pending.flow.provider).filter(is_on_now) else {
            self.drop_pending(&read).await?;
            return Ok(changed());
        };
        // Whoever writes this asks; others wait.
        let mut claimed = read.pending.clone();
        claimed.next_look = now.plus(party.provider.request_timeout + SLACK);
        let write = write_of(
            read.key.clone(),
            Expect::At(read.revision),
            &claimed,
            SecretChange::Keep,
        )?;
        let revision = match self.world.records.write(vec![write]).await {
            Ok(revisions) => revisions.first().copied().unwrap_or(read.revision),
            Err(StoreError::Conflict) => return Ok(waiting),
            Err(error) => return Err(error.into()),
        };
        let read = Read { revision, ..read };
        match self.ask_device(&read, &party).await {
            Ok(Some(found)) => Ok(standing(&found)),
            Ok(None) => Ok(waiting),
            Err(Stop::Refused { code, advice }) => {
                self.drop_pending(&read).await?;
                let flow = &read.pending.flow;
                let (action, outcome) = ("connection.refused", AuditOutcome::Denied);
                self.note(flow, action, outcome, code.clone()).await;
                Ok(Standing::Refused { code, advice })
            }
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// The user's word: whether the account that was found is his. With it the
    /// connection stands; without it what was granted is given back.
    ///
    /// # Errors
    /// [`ConsentError`] for what is not the user's to mend; else what stands in
    /// the way, as [`Standing::Refused`].
    pub async fn decide_device(
        &self,
        id: &str,
        user: &UserName,
        session: &str,
        is_mine: bool,
        party: impl FnOnce(&ProviderName) -> Option<Party>,
    ) -> Result<Result<Connection, Standing>, ConsentError> {
        let Some(read) = self.pending(id, user, session).await? else {
            return Ok(Err(unknown()));
        };
        let Some(found) = read.pending.found.clone() else {
            return Ok(Err(Standing::Waiting(read.pending.shown)));
        };
        let flow = read.pending.flow.clone();
        let party = party(&flow.provider).filter(is_on_now);
        let same = |p: &Party| p.provider.client_id == flow.client_id;
        let party = party.filter(same);
        // Used up before anything else, so that it is good once. What is his is
        // not given back any more.
        let mut writes = vec![delete(read.key.clone(), Expect::At(read.revision))];
        if is_mine && party.is_some() {
            writes.push(delete(give_back_key(&read.key), Expect::Anything));
        }
        match self.world.records.write(writes).await {
            Ok(_) => {}
            Err(StoreError::Conflict) => return Ok(Err(unknown())),
            Err(error) => return Err(error.into()),
        }
        let (Some(party), Some(sealed)) = (party, read.sealed) else {
            return Ok(Err(changed()));
        };
        if !is_mine {
            self.give_back_grant(&read.key, &flow, &found, &sealed, &party)
                .await?;
            self.note(
                &flow,
                "connection.refused",
                AuditOutcome::Denied,
                "the user does not know the account".into(),
            )
            .await;
            return Ok(Err(Standing::Refused {
                code: "not_mine".into(),
                advice: "Nothing was connected, and the access was given back as far as the provider lets it."
                    .into(),
            }));
        }
        let tokens = reopened(&sealed).map_err(|e| StoreError::Damaged(e.to_string()))?;
        let granted = Granted {
            tokens,
            facts: found.credentials.clone(),
            captured: Vec::new(),
        };
        let stored = self
            .store(
                &flow,
                &party,
                granted,
                found.facts.clone(),
                found.account.clone(),
                found.origins.clone(),
            )
            .await;
        match stored {
            Ok((connection, reconnected)) => {
                self.concluded(&flow, &connection, reconnected).await;
                Ok(Ok(connection))
            }
            Err(Stop::Refused { code, advice }) => {
                self.give_back_grant(&read.key, &flow, &found, &sealed, &party)
                    .await?;
                Ok(Err(Standing::Refused { code, advice }))
            }
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    async fn pending(
        &self,
        id: &str,
        user: &UserName,
        session: &str,
    ) -> Result<Option<Read>, StoreError> {
        let key = key_of(id);
        let Some(record) = self.world.records.get(&key).await? else {
            return Ok(None);
        };
        let pending: Pending = parse(&record)?;
        let flow = &pending.flow;
        let his = flow.user == *user && flow.session == session;
        if !his || flow.expires_at <= self.world.clock.now() {
            return Ok(None);
        }
        Ok(Some(Read {
            pending,
            revision: record.revision,
            sealed: record.secret,
            key,
        }))
    }

    /// Ends it, unless somebody else has changed it meanwhile.
    async fn drop_pending(&self, read: &Read) -> Result<(), StoreError> {
        let write = delete(read.key.clone(), Expect::At(read.revision));
        match self.world.records.write(vec![write]).await {
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// One look at the token endpoint; the account if the user has allowed it.
    async fn ask_device(&self, read: &Read, party: &Party) -> Result<Option<Found>, Stop> {
        let (provider, description) = (&*party.provider, party.preset.description());
        let flow = &read.pending.flow;
        let values = Values::resolve(description, &provider.settings, &[])?;
        let keys = self.client_keys(provider).await?;
        let asking = self.asking(party, &values, &keys);
        let endpoint = asking.token_endpoint(&Grant::DeviceCode)?;
        let origin = endpoint.origin().ascii_serialization();
        let edited = flow.course.is_some_and(|begun| begun != provider.course());
        if flow.token_origin.as_ref() != Some(&origin)
            || edited
            || flow.client_id != provider.client_id
        {
            return Err(Stop::refused("provider_changed", CHANGED));
        }
        let code = read.sealed.as_ref().ok_or_else(|| {
            StoreError::Damaged("a device authorization lacks its code".to_owned())
        })?;
        let exchange = Exchange::DeviceCode {
            device_code: code,
            resource: flow.indicator.as_ref(),
        };
        let request = token_request(&asking, &exchange)?;
        let interval = read.pending.shown.interval;
        let answer = match self.sender.send(request, provider.request_timeout).await {
            Ok(answer) => answer,
            // RFC 8628 §3.5: a longer and longer wait.
            Err(_) => return self.wait_on(read, (interval * 2).min(LONGEST)).await,
        };
        let refused = refusal_of(&answer, description);
        match refused.as_deref() {
            Some("authorization_pending") => return self.wait_on(read, interval).await,
            Some("slow_down") => return self.wait_on(read, (interval + SLOWER).min(LONGEST)).await,
            _ if answer.status() >= 500 || answer.status() == 429 => {
                return self.wait_on(read, (interval * 2).min(LONGEST)).await;
            }
            Some("expired_token") => {
                return Err(Stop::refused(
                    "expired_token",
                    "The code has ended. Start again.",
                ));
            }
            Some("") => return Err(refusal(description, None)),
            Some(code) => return Err(refusal(description, Some(code))),
            None => {}
        }
        let granted = self.read_tokens(party, &answer, &flow.asked, &asking)?;
        let mut facts = Vec::new();
        keep(&mut facts, granted.captured.iter().cloned());
        self.follow_up(party, &asking, &granted.tokens, &mut facts)
            .await?;
        let values = Values::resolve(description, &provider.settings, &facts)?;
        let asking = Asking {
            values: &values,
            ..asking
        };
        let account = self.account(party, &asking, &granted.tokens).await?;
        judge_difference(description, &flow.asked, &granted)?;
        let found = Found {
            credentials: granted.facts,
            facts,
            account,
            origins: Origins::of(&asking, &endpoint, flow.indicator.as_ref()),
        };
        self.keep_found(read, party, &found, granted.tokens).await?;
        Ok(Some(found))
    }

    /// The code is used up: what it gave is kept, sealed, until the user has
    /// said whether the account is his. If he never says, it is given back.
    async fn keep_found(
        &self,
        read: &Read,
        party: &Party,
        found: &Found,
        tokens: TokenSet,
    ) -> Result<(), StoreError> {
        let mut pending = read.pending.clone();
        pending.found = Some(found.clone());
        pending.flow.expires_at = self.world.clock.now().plus(DECIDE);
        let mut writes = Vec::new();
        if can_revoke(party) && !self.is_in_use(&pending.flow, found).await? {
            writes.push(self.revocation_at(
                give_back_key(&read.key),
                &connection_of(&pending.flow, party, found, self.world.clock.now())?,
                0,
                pending.flow.expires_at.plus(SLACK),
                SecretChange::Set(tokens.framed()),
            )?);
        }
        writes.push(write_of(
            read.key.clone(),
            Expect::At(read.revision),
            &pending,
            SecretChange::Set(tokens.into_secret()),
        )?);
        self.world.records.write(writes).await.map(drop)
    }

    /// Whether the user's connection is with this very account: many vendors
    /// end all that an account has granted when one token of it is revoked.
    async fn is_in_use(&self, flow: &Flow, found: &Found) -> Result<bool, StoreError> {
        let held = self.load(&flow.connection_key()).await?;
        let his = held.and_then(|held| held.connection.account.clone());
        Ok(his.is_some_and(|his| found.account.as_ref().is_some_and(|a| a.id == his.id)))
    }

    async fn wait_on(&self, read: &Read, interval: Duration) -> Result<Option<Found>, Stop> {
        let mut pending = read.pending.clone();
        pending.shown.interval = interval;
        pending.next_look = self.world.clock.now().plus(interval);
        let write = write_of(
            read.key.clone(),
            Expect::At(read.revision),
            &pending,
            SecretChange::Keep,
        )?;
        match self.world.records.write(vec![write]).await {
            Ok(_) | Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Revokes what was granted and is not wanted: at once as far as the
    /// provider answers soon, else in the background.
    async fn give_back_grant(
        &self,
        key: &RecordKey,
        flow: &Flow,
        found: &Found,
        sealed: &Sealed,
        party: &Party,
    ) -> Result<(), StoreError> {
        let connection = connection_of(flow, party, found, self.world.clock.now())?;
        let place = give_back_key(key);
        let revoked = self.revoke_now(place, &connection, sealed, party).await?;
        tracing::info!(provider = %flow.provider, ?revoked, "what was granted and is not wanted was given back");
        Ok(())
    }
}

/// Where the revocation of a grant waits that its user says nothing about.
fn give_back_key(pending: &RecordKey) -> RecordKey {
    RecordKey::new(Kind::Due, format!("device/{}", pending.name))
}

/// The connection that would be.
fn connection_of(
    flow: &Flow,
    party: &Party,
    found: &Found,
    now: Timestamp,
) -> Result<Connection, StoreError> {
    let id = countersign_core::names::ConnectionId::parse("con_never")
        .map_err(|e| StoreError::Damaged(e.to_string()))?;
    Ok(Connection {
        id,
        user: flow.user.clone(),
        team: flow.team.clone(),
        provider: flow.provider.clone(),
        resource: flow.resource.clone(),
        account: found.account.clone(),
        credentials: found.credentials.clone(),
        facts: found.facts.clone(),
        origins: found.origins.clone(),
        client_id: flow.client_id.clone(),
        preset_digest: party.preset.digest(),
        state: countersign_core::connection::State::Connected,
        generation: 0,
        created_at: now,
        updated_at: now,
        consented_at: None,
        last_used_at: None,
        warned_of: None,
        withheld: ScopeSet::default(),
    })
}

const CHANGED: &str =
    "The provider was changed while you signed in. Start again from the Connections page.";

fn changed() -> Standing {
    Standing::Refused {
        code: "provider_changed".into(),
        advice: CHANGED.into(),
    }
}

fn unknown() -> Standing {
    Standing::Refused {
        code: "expired".into(),
        advice:
            "This sign-in has ended, was already used, or was begun by somebody else. Start again."
                .into(),
    }
}

fn standing(found: &Found) -> Standing {
    Standing::Found {
        account: found.account.clone(),
        scopes: found
            .credentials
            .iter()
            .flat_map(|c| c.scopes.iter().cloned())
            .collect(),
    }
}

fn is_on_now(party: &Party) -> bool {
    party.provider.enabled && is_on(party)
}

fn write_of(
    key: RecordKey,
    expect: Expect,
    pending: &Pending,
    secret: SecretChange,
) -> Result<Write, StoreError> {
    let document = serde_json::to_vec(pending).map_err(|e| StoreError::Damaged(e.to_string()))?;
    Ok(Write {
        key,
        expect,
        change: Some(Change {
            document,
            secret,
            expires_at: Some(pending.flow.expires_at),
        }),
    })
}
