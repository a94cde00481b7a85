//! Renewing tokens: on demand before they end, once at a time for each
//! connection, and never using a token whose successor is not stored yet.
//!
//! When nothing is due, [`Oauth::fresh`] takes no lock and reads nothing. What
//! a failure means is decided by [`countersign_core::refresh`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::connection::{ConnectionKey, ReauthReason, State, TokenFacts};
use countersign_core::error::CallError;
use countersign_core::names::ConnectionId;
use countersign_core::ports::StoreError;
use countersign_core::refresh::{Need, need};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use crate::observe::Occasion;
use crate::service::{Held, Oauth, Party, lock};

pub(crate) mod lease;
mod renew;

/// A renewal that goes on although its callers may be gone.
pub(crate) type Flight = Shared<BoxFuture<'static, Result<(), FreshError>>>;

/// A connection and one of its credentials.
pub(crate) type FlightKey = (ConnectionId, String);

/// A renewal that may wait is not tried again for so long after a failure.
const REST: Duration = Duration::from_secs(10);
/// An upstream's 401 forces one renewal in this time.
const FORCE_WINDOW: Duration = Duration::from_secs(60);

/// Why there is no fresh token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FreshError {
    /// What the caller is told.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What one renewal is for.
#[derive(Clone)]
pub(crate) struct Errand {
    pub(crate) key: ConnectionKey,
    pub(crate) party: Party,
    pub(crate) credential: String,
    /// Why.
    pub(crate) occasion: Occasion,
    /// The facts of a token that an upstream refused, or that is renewed ahead
    /// of time: renew unless it was renewed since.
    pub(crate) since: Option<TokenFacts>,
}

impl Errand {
    pub(crate) fn ended(&self, reason: ReauthReason) -> FreshError {
        CallError::NeedsReauth {
            provider: self.party.provider.display_name.clone(),
            reason,
        }
        .into()
    }

    pub(crate) fn gone(&self) -> FreshError {
        CallError::NeedsConnection {
            provider: self.party.provider.display_name.clone(),
        }
        .into()
    }

    pub(crate) fn unavailable(&self, detail: impl Into<String>) -> FreshError {
        let provider = self.party.provider.display_name.clone();
        CallError::ProviderUnavailable {
            provider,
            detail: detail.into(),
        }
        .into()
    }

    /// Whether there is something to do for this connection as it is now.
    pub(crate) fn need(&self, held: &Held, oauth: &Oauth) -> Result<Need, FreshError> {
        match held.connection.state {
            State::Connected => {}
            State::NeedsReauth { reason } => return Err(self.ended(reason)),
            State::Suspended => return Err(self.ended(ReauthReason::Suspended)),
        }
        let facts = held.connection.credential(Some(&self.credential));
        let facts = facts.ok_or_else(|| self.ended(ReauthReason::Expired))?;
        let refresh = &self.party.preset.description().refresh;
        let now = oauth.world.clock.now();
        match &self.since {
            Some(since) if since.issued_at == facts.issued_at => {
                // As if it had ended.
                let ended = TokenFacts {
                    expires_at: Some(now),
                    ..facts.clone()
                };
                return match need(&ended, refresh, now) {
                    Need::Now => Ok(Need::Now),
                    // It is good yet; its end will be its own.
                    _ if self.occasion == Occasion::Background => Ok(Need::Fresh),
                    _ => Err(self.ended(ReauthReason::UpstreamUnauthorized)),
                };
            }
            _ => {}
        }
        match need(facts, refresh, now) {
            Need::Hopeless => Err(self.ended(facts.why_ended())),
            found => Ok(found),
        }
    }
}

impl Oauth {
    /// The connection with an access token that is good to send. `credential`
    /// is the one to be used; the first when absent.
    ///
    /// # Errors
    /// [`FreshError`]; nothing can be sent.
    pub async fn fresh(
        self: &Arc<Self>,
        held: Held,
        party: &Party,
        credential: Option<&str>,
    ) -> Result<Held, FreshError> {
        let now = self.world.clock.now();
        let refresh = &party.preset.description().refresh;
        let state = match (
            held.connection.state,
            held.connection.credential(credential),
        ) {
            (State::Connected, Some(facts)) => need(facts, refresh, now),
            _ => Need::Now,
        };
        // Where a renewal ends the old token, it is not used once one is under
        // way.
        let is_being_replaced = || {
            let credential = held.connection.credential(credential);
            let flight = credential.map(|c| (held.connection.id.clone(), c.credential.clone()));
            refresh.ends_access_token
                && flight.is_some_and(|f| lock(&self.flights).contains_key(&f))
        };
        if state == Need::Fresh && !is_being_replaced() {
            return Ok(held);
        }
        // Seldom, and large: not in the future of every call.
        Box::pin(self.renewed(held, party, credential)).await
    }

    async fn renewed(
        self: &Arc<Self>,
        held: Held,
        party: &Party,
        credential: Option<&str>,
    ) -> Result<Held, FreshError> {
        let now = self.world.clock.now();
        let errand = errand(&held, party, credential, Occasion::Call)?;
        let may_wait = match errand.need(&held, self)? {
            Need::Fresh | Need::Soon => true,
            Need::Hopeless => return Err(errand.ended(ReauthReason::Expired)),
            Need::Now => false,
        };
        let id = held.connection.id.clone();
        if may_wait
            && lock(&self.resting)
                .get(&id)
                .is_some_and(|until| *until > now)
        {
            return Ok(held);
        }
        let key = errand.key.clone();
        match self
            .fly(&(id.clone(), errand.credential.clone()), errand.clone())
            .await
        {
            Ok(()) => {
                lock(&self.resting).remove(&id);
                self.load(&key).await?.ok_or_else(|| errand.gone())
            }
            Err(FreshError::Call(CallError::NeedsConnection { .. })) => Err(errand.gone()),
            Err(error) if may_wait => {
                // The old token is good yet, unless the grant has ended.
                let Some(held) = self.load(&key).await? else {
                    return Err(errand.gone());
                };
                match errand.need(&held, self)? {
                    Need::Fresh | Need::Soon => {
                        let mut resting = lock(&self.resting);
                        resting.retain(|_, until| *until > now);
                        resting.insert(id, now.plus(REST));
                        Ok(held)
                    }
                    Need::Now | Need::Hopeless => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// After an upstream answered 401 to the token of `held`: renews it once,
    /// unless that was done already. The request may then be sent once more;
    /// after a second 401 call [`Oauth::reject`].
    ///
    /// # Errors
    /// [`FreshError`]; `upstream_unauthorized` if it cannot be renewed or was
    /// within the last minute.
    pub async fn force_once(
        self: &Arc<Self>,
        held: Held,
        party: &Party,
        credential: Option<&str>,
    ) -> Result<Held, FreshError> {
        let errand = errand(&held, party, credential, Occasion::Refused)?;
        let current = self.load(&errand.key).await?.ok_or_else(|| errand.gone())?;
        if current.connection.generation != held.connection.generation
            || errand.need(&current, self)? == Need::Fresh
        {
            return Ok(current);
        }
        let (id, now) = (held.connection.id.clone(), self.world.clock.now());
        let flight = (id.clone(), errand.credential.clone());
        // A renewal under way is joined; it is not a second one.
        // Nor is one that was due anyway: the token has ended on its way.
        let ended = |facts: &TokenFacts| facts.may_have_lapsed(now);
        if !lock(&self.flights).contains_key(&flight) && !errand.since.as_ref().is_some_and(ended) {
            let mut forced = lock(&self.forced);
            forced.retain(|_, at| now.since(*at) < FORCE_WINDOW);
            if forced.insert(id.clone(), now).is_some() {
                return Err(errand.ended(ReauthReason::UpstreamUnauthorized));
            }
        }
        if let Err(error) = self.fly(&flight, errand.clone()).await {
            // A provider that does not work says nothing about the token.
            if matches!(
                error,
                FreshError::Call(CallError::ProviderUnavailable { .. })
            ) {
                lock(&self.forced).remove(&id);
            }
            return Err(error);
        }
        self.load(&errand.key).await?.ok_or_else(|| errand.gone())
    }

    /// Joins the renewal under way for this connection, or starts it. It runs
    /// as a task of its own: a caller who goes away does not stop it.
    pub(crate) async fn fly(
        self: &Arc<Self>,
        id: &FlightKey,
        errand: Errand,
    ) -> Result<(), FreshError> {
        let flight = {
            let mut flights = lock(&self.flights);
            match flights.get(id) {
                Some(flight) => flight.clone(),
                None => self.start(&mut flights, id, errand),
            }
        };
        flight.await
    }

    fn start(
        self: &Arc<Self>,
        flights: &mut HashMap<FlightKey, Flight>,
        id: &FlightKey,
        errand: Errand,
    ) -> Flight {
        let (this, own_id) = (self.clone(), id.clone());
        let failed = errand.unavailable("the renewal was interrupted");
        let task = tokio::spawn(async move {
            let result = this.renew_once(&errand).await;
            lock(&this.flights).remove(&own_id);
            result
        });
        let this = self.clone();
        let own_id = id.clone();
        let flight = async move {
            task.await.unwrap_or_else(|_| {
                lock(&this.flights).remove(&own_id);
                Err(failed)
            })
        };
        let flight = flight.boxed().shared();
        flights.insert(id.clone(), flight.clone());
        flight
    }
}

pub(crate) fn errand(
    held: &Held,
    party: &Party,
    credential: Option<&str>,
    occasion: Occasion,
) -> Result<Errand, FreshError> {
    let mut errand = Errand {
        key: held.connection.key(),
        party: party.clone(),
        credential: String::new(),
        occasion,
        since: None,
    };
    let facts = held.connection.credential(credential);
    let facts = facts.ok_or_else(|| match held.connection.state {
        State::NeedsReauth { reason } => errand.ended(reason),
        State::Suspended => errand.ended(ReauthReason::Suspended),
        State::Connected => errand.ended(ReauthReason::Expired),
    })?;
    errand.credential.clone_from(&facts.credential);
    errand.since = (occasion != Occasion::Call).then(|| facts.clone());
    Ok(errand)
}
