//! When a connection is looked after although nobody calls: renewed ahead of
//! time, kept from dying of idleness, its user warned. Pure: what is due is
//! kept in the store (see `countersign-oauth`, `upkeep`), so that its cost
//! grows with what is due.

use std::time::Duration;

use crate::connection::{Connection, State, TokenFacts};
use crate::preset::{Refresh, RefreshKind, Rotation};
use crate::time::Timestamp;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// How well connections are looked after: the operator's `[refresh]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Care {
    /// Whether tokens are renewed in the background at all. Calls renew them
    /// in any case.
    pub background: bool,
    /// A connection used within this time always has a good access token.
    pub active: Duration,
    /// One that was not used for so long is no longer kept from dying.
    pub keep_alive: Duration,
    /// So long before a refresh token lapses its user is warned.
    pub warning: Duration,
    /// Renewals at one provider at the same time.
    pub concurrency: usize,
}

impl Default for Care {
    fn default() -> Self {
        Self {
            background: true,
            active: DAY * 7,
            keep_alive: DAY * 365,
            warning: DAY * 3,
            concurrency: 8,
        }
    }
}

/// A share of a span, drawn anew for every appointment so that many do not
/// fall on one moment: from 0 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jitter(pub u8);

impl Jitter {
    /// This share of `span`.
    #[must_use]
    pub fn of(self, span: Duration) -> Duration {
        span * u32::from(self.0) / 256
    }
}

/// What there is to do for a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chores {
    /// Credentials to be renewed now.
    pub renew: Vec<String>,
    /// Warn the user now: the connection ends then.
    pub warn: Option<Timestamp>,
    /// When to look again if all of this is done; never if absent.
    pub next: Option<Timestamp>,
}

/// Says what there is to do for a connection now, and when to look again.
#[must_use]
pub fn chores(
    connection: &Connection,
    refresh: &Refresh,
    care: &Care,
    now: Timestamp,
    jitter: Jitter,
) -> Chores {
    let mut chores = Chores::default();
    if connection.state != State::Connected {
        return chores;
    }
    let mut soonest = |at: Timestamp| {
        chores.next = Some(chores.next.map_or(at, |next: Timestamp| next.min(at)));
    };
    for facts in &connection.credentials {
        for at in renewals(connection, facts, refresh, care, now, jitter) {
            if at > now {
                soonest(at);
            } else if !chores.renew.contains(&facts.credential) {
                chores.renew.push(facts.credential.clone());
            }
        }
    }
    if let Some((end, from)) = warning(connection, care)
        && connection.warned_of != Some(end)
    {
        if from > now {
            soonest(from);
        } else {
            chores.warn = Some(end);
        }
    }
    chores
}

/// When a credential is to be renewed, past or future.
fn renewals(
    connection: &Connection,
    facts: &TokenFacts,
    refresh: &Refresh,
    care: &Care,
    now: Timestamp,
    jitter: Jitter,
) -> Vec<Timestamp> {
    if !care.background || refresh.kind == RefreshKind::None || !facts.can_renew(now) {
        return Vec::new();
    }
    let used = connection.used_at();
    let is_active = now.since(used) <= care.active;
    let mut all = Vec::new();
    // Ahead of the moment from which calls would wait for it.
    if let Some(expires_at) = facts.expires_at {
        let margin = facts.margin(expires_at, refresh.margin_percent);
        let lifetime = expires_at.since(facts.issued_at);
        let ahead = (margin + margin / 2 + jitter.of(margin / 2)).min(lifetime * 3 / 4);
        let at = expires_at.minus(ahead);
        if at > now || is_active {
            all.push(at);
        }
    }
    if now.since(used) > care.keep_alive {
        return all;
    }
    // At two thirds of the way to its death. What dies within hours is kept
    // alive only while it is used.
    let mut keep = |life: Duration| {
        let interval = life * 2 / 3;
        let interval = interval.saturating_sub(jitter.of(interval / 10));
        if interval >= DAY || (is_active && interval >= MINUTE) {
            all.push(facts.issued_at.plus(interval));
        }
    };
    if let Some(days) = refresh.idle_days {
        keep(DAY * days);
    }
    if let Some(end) = facts.refresh_token_expires_at
        && refresh.rotation != Rotation::Never
        && !facts.refresh_token_end_is_fixed
    {
        keep(end.since(facts.issued_at));
    }
    all
}

/// When the connection ends for want of a refresh token that lives on, and
/// from when on its user is warned; none if it goes on by itself or has ended.
#[must_use]
pub fn warning(connection: &Connection, care: &Care) -> Option<(Timestamp, Timestamp)> {
    if connection.state != State::Connected {
        return None;
    }
    // It lives as long as its longest-lived credential.
    let mut last: Option<(Timestamp, Timestamp)> = None;
    for facts in &connection.credentials {
        let end = match (facts.refresh_token_present, facts.refresh_token_expires_at) {
            (true, Some(end)) => end.max(facts.expires_at.unwrap_or(end)),
            (true, None) => return None,
            (false, _) => facts.expires_at?,
        };
        let life = end.since(facts.issued_at);
        let window = match facts.refresh_token_end_is_fixed {
            true => care.warning,
            // As a rule the next renewal moves the end.
            false => care.warning.min(life / 4),
        };
        let this = (end, end.minus(window));
        if last.is_none_or(|(known, _)| end > known) {
            last = Some(this);
        }
    }
    // What ends within hours as a rule is no news to anybody.
    last.filter(|(end, from)| end.since(*from) >= HOUR)
}

/// When the user has to have connected again, if that is soon.
#[must_use]
pub fn reconnect_by(connection: &Connection, care: &Care, now: Timestamp) -> Option<Timestamp> {
    let (end, from) = warning(connection, care)?;
    (from <= now && now < end).then_some(end)
}

/// How long a provider or a piece of work is left alone after so many failures
/// in a row: from `least`, doubled each time, up to `most`, and a quarter more
/// or less by chance.
#[must_use]
pub fn back_off(failures: u32, least: Duration, most: Duration, jitter: Jitter) -> Duration {
    let doubled = least.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(20)));
    let base = doubled.min(most);
    base * 3 / 4 + jitter.of(base / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::tests::connection;

    const NOW: i64 = 1_795_000_000;
    const H: i64 = 3600;
    const D: i64 = 86_400;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(NOW + secs)
    }

    fn refresh() -> Refresh {
        Refresh {
            kind: RefreshKind::RefreshToken,
            rotation: Rotation::Sometimes,
            grace_seconds: 0,
            retry_after_lost_answer: false,
            ends_access_token: false,
            idle_days: None,
            margin_percent: 10,
            permanent_errors: vec![],
            transient_errors: vec![],
        }
    }

    /// One credential, issued and last used at these times; `ends` is the
    /// refresh token's.
    fn one(issued: i64, used: i64, expires: Option<i64>, ends: Option<i64>) -> Connection {
        let mut connection = connection();
        connection.created_at = at(issued.min(used));
        connection.last_used_at = Some(at(used));
        let facts = &mut connection.credentials[0];
        facts.issued_at = at(issued);
        facts.expires_at = expires.map(at);
        facts.refresh_token_present = true;
        facts.refresh_token_expires_at = ends.map(at);
        connection
    }

    fn of(connection: &Connection, refresh: &Refresh, now: i64) -> Chores {
        chores(connection, refresh, &Care::default(), at(now), Jitter(0))
    }

    #[test]
    fn an_active_connection_is_renewed_before_any_call_would_wait() {
        let used_now = one(0, 0, Some(H), None);
        let chores = of(&used_now, &refresh(), 10);
        assert_eq!(chores.next, Some(at(H - 450)));
        assert!(chores.renew.is_empty());
        assert_eq!(of(&used_now, &refresh(), H - 450).renew, ["default"]);
        // Calls wait from here on.
        assert!(used_now.credentials[0].is_due(at(H - 300), 10));
        let early = super::chores(&used_now, &refresh(), &Care::default(), at(0), Jitter(255));
        assert!(early.next < chores.next, "the chance only makes it earlier");
        assert!(early.next > Some(at(H - 601)));
    }

    #[test]
    fn what_is_due_and_when_it_is_looked_at_again() {
        let with = |change: fn(&mut Refresh)| {
            let mut refresh = refresh();
            change(&mut refresh);
            refresh
        };
        let idle = with(|r| r.idle_days = Some(60));
        let fixed = |mut c: Connection| {
            c.credentials[0].refresh_token_end_is_fixed = true;
            c
        };
        // What, connection, refresh, now; then: renew, warn, next.
        let cases = [
            (
                "ended while nothing ran, used lately",
                one(0, 0, Some(H), None),
                refresh(),
                D,
                true,
                None,
                None,
            ),
            (
                "unused for long: left to the next call",
                one(0, 0, Some(H), None),
                refresh(),
                30 * D,
                false,
                None,
                None,
            ),
            (
                "unused, but it would die of it",
                one(0, 0, Some(H), None),
                idle.clone(),
                30 * D,
                false,
                None,
                Some(40 * D),
            ),
            (
                "unused, and about to die of it",
                one(0, 0, Some(H), None),
                idle.clone(),
                41 * D,
                true,
                None,
                None,
            ),
            (
                "unused for longer than is cared for",
                one(380 * D, 0, Some(380 * D + H), None),
                idle.clone(),
                421 * D,
                false,
                None,
                None,
            ),
            (
                "a refresh token that a renewal prolongs",
                one(0, 0, Some(H), Some(180 * D)),
                refresh(),
                10 * D,
                false,
                None,
                Some(120 * D),
            ),
            (
                "the same, late",
                one(0, 0, Some(H), Some(180 * D)),
                refresh(),
                121 * D,
                true,
                None,
                Some(177 * D),
            ),
            (
                "one whose end is fixed: the user is warned",
                fixed(one(0, 0, Some(H), Some(30 * D))),
                refresh(),
                10 * D,
                false,
                None,
                Some(27 * D),
            ),
            (
                "and warned now",
                fixed(one(0, 0, Some(H), Some(30 * D))),
                refresh(),
                28 * D,
                false,
                Some(30 * D),
                None,
            ),
            (
                "dies within hours and is unused: left to die",
                one(8 * D, 0, Some(8 * D + 300), Some(8 * D + 1800)),
                refresh(),
                8 * D + 1300,
                false,
                None,
                None,
            ),
            (
                "dies within hours and is used: kept",
                one(0, 0, Some(300), Some(1800)),
                refresh(),
                1200,
                true,
                None,
                None,
            ),
            (
                "no refresh at all",
                one(0, 0, Some(H), None),
                with(|r| r.kind = RefreshKind::None),
                D,
                false,
                None,
                None,
            ),
        ];
        for (what, connection, refresh, now, renew, warn, next) in cases {
            let found = of(&connection, &refresh, now);
            assert_eq!(!found.renew.is_empty(), renew, "{what}");
            assert_eq!(found.warn, warn.map(at), "{what}");
            assert_eq!(found.next, next.map(at), "{what}");
        }
    }

    #[test]
    fn a_warning_is_given_once_for_each_end() {
        let mut connection = one(0, 0, Some(H), Some(30 * D));
        connection.credentials[0].refresh_token_end_is_fixed = true;
        assert_eq!(of(&connection, &refresh(), 29 * D).warn, Some(at(30 * D)));
        let care = Care::default();
        assert_eq!(
            reconnect_by(&connection, &care, at(29 * D)),
            Some(at(30 * D))
        );
        assert_eq!(reconnect_by(&connection, &care, at(20 * D)), None);
        connection.warned_of = Some(at(30 * D));
        assert_eq!(of(&connection, &refresh(), 29 * D).warn, None);
        assert_eq!(
            reconnect_by(&connection, &care, at(29 * D)),
            Some(at(30 * D))
        );
    }

    #[test]
    fn nothing_is_done_for_a_connection_that_has_ended_or_when_it_is_switched_off() {
        let mut connection = one(0, 0, Some(H), None);
        let off = Care {
            background: false,
            ..Care::default()
        };
        let none = chores(&connection, &refresh(), &off, at(D), Jitter(0));
        assert_eq!(none, Chores::default());
        connection.state = State::Suspended;
        assert_eq!(of(&connection, &refresh(), D), Chores::default());
    }

    #[test]
    fn a_back_off_doubles_up_to_its_most() {
        let (least, most) = (Duration::from_secs(10), Duration::from_secs(900));
        let after = |failures, jitter| back_off(failures, least, most, Jitter(jitter)).as_secs();
        assert_eq!(after(1, 128), 10);
        assert_eq!(after(2, 128), 20);
        assert_eq!(after(40, 128), 900);
        assert!(after(40, 255) < 900 * 5 / 4 && after(40, 0) == 675);
    }
}
