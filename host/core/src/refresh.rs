//! When tokens are renewed, and what a failed renewal means. A pure state
//! machine: `countersign-oauth` does what it says.

use std::time::Duration;

use crate::connection::{Connection, ReauthReason, TokenFacts};
use crate::preset::{Refresh, RefreshKind, Rotation};
use crate::request::SendError;
use crate::secret::Sealed;
use crate::time::Timestamp;
use crate::token_answer::{AnswerError, Granted};
use crate::tokens::{TokenSet, TokensUnreadable};

/// Ends that lie no further apart are the same end, told twice.
const SAME_END: Duration = Duration::from_secs(60);

/// Whether a credential's access token has to be renewed before use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is good.
    Fresh,
    /// It is good for a while yet: renew, but if that fails use it on.
    Soon,
    /// It has ended: renew, or nothing can be sent.
    Now,
    /// It has ended and cannot be renewed.
    Hopeless,
}

/// Judges one credential.
#[must_use]
pub fn need(facts: &TokenFacts, refresh: &Refresh, now: Timestamp) -> Need {
    let renewable = refresh.kind != RefreshKind::None && facts.can_renew(now);
    match (facts.has_lapsed(now), renewable) {
        (true, true) => Need::Now,
        (true, false) => Need::Hopeless,
        (false, true) if facts.is_due(now, refresh.margin_percent) => Need::Soon,
        (false, _) => Need::Fresh,
    }
}

/// How long a token is taken to be good that was obtained without a consent and
/// whose answer names no end: asking anew costs little.
const UNSTATED: Duration = Duration::from_secs(3600);

/// Judges a token that Countersign obtained by itself and can obtain again.
#[must_use]
pub fn need_again(facts: &TokenFacts, refresh: &Refresh, now: Timestamp) -> Need {
    let stated = TokenFacts {
        expires_at: Some(
            facts
                .expires_at
                .unwrap_or_else(|| facts.issued_at.plus(UNSTATED)),
        ),
        ..facts.clone()
    };
    if stated.has_lapsed(now) {
        Need::Now
    } else if stated.is_due(now, refresh.margin_percent) {
        Need::Soon
    } else {
        Need::Fresh
    }
}

/// How a renewal failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No answer.
    Unsent(SendError),
    /// An answer without tokens.
    Answer(AnswerError),
}

/// What a failed renewal means for the stored tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// The grant has ended: the tokens are deleted.
    Final(ReauthReason),
    /// The provider refuses, but perhaps not the grant (a rotated client
    /// secret): the tokens are kept, and a later call tries again.
    Refused(ReauthReason),
    /// Nothing is known: the tokens are kept, and a later call tries again.
    Passing(String),
}

/// Whether a refresh token whose use got no answer must not be sent again: the
/// provider takes each one once, and may end the grant of who sends it twice.
/// `Some` is for how long it forgives that.
#[must_use]
pub fn counts_uses(refresh: &Refresh) -> Option<Duration> {
    let strict = refresh.rotation == Rotation::Always && !refresh.retry_after_lost_answer;
    strict.then(|| Duration::from_secs(refresh.grace_seconds.into()))
}

/// Whether a failure leaves open if the provider has renewed.
#[must_use]
pub fn was_answer_lost(failure: &Failure) -> bool {
    match failure {
        Failure::Unsent(error) => error.may_have_arrived(),
        Failure::Answer(AnswerError::Unreadable { status, .. }) => (200..300).contains(status),
        Failure::Answer(AnswerError::Refused { .. }) => false,
    }
}

/// Judges a failure. Only `invalid_grant`, a code the preset calls permanent,
/// or the preset's hook (`hook`: whether it says the refusal is final) end a
/// grant; a code the preset calls transient, or a hook that says so, keeps it.
#[must_use]
pub fn classify(
    failure: &Failure,
    refresh: &Refresh,
    hook: Option<bool>,
    facts: &TokenFacts,
    last_used: Option<Timestamp>,
    now: Timestamp,
) -> Meaning {
    let (status, code) = match failure {
        Failure::Unsent(error) => return Meaning::Passing(error.to_string()),
        Failure::Answer(AnswerError::Unreadable { status, .. }) => {
            return Meaning::Passing(format!(
                "its answer, with HTTP status {status}, cannot be read"
            ));
        }
        Failure::Answer(AnswerError::Refused { status, code }) => (*status, code.as_deref()),
    };
    let passing = || Meaning::Passing(format!("it answered with HTTP status {status}"));
    let listed = |codes: &[String]| code.is_some_and(|code| codes.iter().any(|c| c == code));
    if listed(&refresh.transient_errors) || hook == Some(false) {
        return passing();
    }
    if hook == Some(true) || listed(&refresh.permanent_errors) || code == Some("invalid_grant") {
        return Meaning::Final(why_ended(refresh, facts, last_used, now));
    }
    if status >= 500 || status == 429 || status == 408 {
        return passing();
    }
    match code {
        Some("invalid_client" | "unauthorized_client") => {
            Meaning::Refused(ReauthReason::ClientRejected)
        }
        Some("server_error" | "temporarily_unavailable" | "slow_down") | None => passing(),
        Some(_) => Meaning::Refused(ReauthReason::ProviderError),
    }
}

fn why_ended(
    refresh: &Refresh,
    facts: &TokenFacts,
    last_used: Option<Timestamp>,
    now: Timestamp,
) -> ReauthReason {
    const DAY: Duration = Duration::from_secs(86_400);
    if facts.refresh_token_expires_at.is_some_and(|end| end <= now) {
        return ReauthReason::Expired;
    }
    let touched = last_used.map_or(facts.issued_at, |used| used.max(facts.issued_at));
    match refresh.idle_days {
        Some(days) if now.since(touched) >= DAY * days => ReauthReason::Idle,
        _ => ReauthReason::Revoked,
    }
}

/// What to store after a renewal: the new tokens over the old ones. A refresh
/// token that the answer omits is kept, as are other credentials.
///
/// # Errors
/// [`TokensUnreadable`] if the old ones cannot be opened.
pub fn renewed(
    held: &Sealed,
    connection: &Connection,
    granted: &Granted,
) -> Result<(TokenSet, Vec<TokenFacts>), TokensUnreadable> {
    let mut set = TokenSet::open(held)?;
    let mut facts = connection.credentials.clone();
    for (new, new_facts) in granted.tokens.credentials.iter().zip(&granted.facts) {
        let (mut new, mut new_facts) = (new.duplicate(), new_facts.clone());
        let Some(slot) = set
            .credentials
            .iter_mut()
            .find(|c| c.credential == new.credential)
        else {
            set.credentials.push(new);
            facts.push(new_facts);
            continue;
        };
        let old_facts = facts.iter_mut().find(|f| f.credential == new.credential);
        if new.refresh_token.is_none() {
            new.refresh_token = slot.refresh_token.take();
            new_facts.refresh_token_present = new.refresh_token.is_some();
            new_facts.refresh_token_expires_at = old_facts
                .as_ref()
                .and_then(|old| old.refresh_token_expires_at);
        }
        if new.id_token.is_none() {
            new.id_token = slot.id_token.take();
        }
        new_facts.refresh_token_end_is_fixed = old_facts.as_ref().is_some_and(|old| {
            let ends = new_facts
                .refresh_token_expires_at
                .zip(old.refresh_token_expires_at);
            ends.is_some_and(|(new, old)| new <= old.plus(SAME_END))
        });
        *slot = new;
        if let Some(old) = old_facts {
            *old = new_facts;
        }
    }
    Ok((set, facts))
}

/// What is left after one credential's grant has ended.
///
/// # Errors
/// [`TokensUnreadable`] if the tokens cannot be opened.
pub fn without(held: &Sealed, credential: &str) -> Result<TokenSet, TokensUnreadable> {
    let mut set = TokenSet::open(held)?;
    set.credentials.retain(|c| c.credential != credential);
    Ok(set)
}
