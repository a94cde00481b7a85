//! Renewal: does it survive what providers do, and end only when it must?

use std::time::Duration;

use countersign_core::connection::{ReauthReason, Status};
use countersign_core::error::CallError;
use countersign_core::preset::{RefreshKind, TokenShape};
use countersign_core::refresh::counts_uses;
use countersign_core::request::SendError;
use countersign_core::scope::{Implications, ScopeSet};
use countersign_oauth::refresh::FreshError;
use serde_json::Value;

use super::answers::{refreshed, said};
use super::box_provider::Reply;
use super::report::Group;
use super::samples::{self, LIFETIME, Tokens};
use super::stage::{Stage, asked, status_of};
use super::table::{Meaning, Sample};
use super::{KitError, Subject};

const REFRESH: &str = "see `refresh` in src/lib.rs: rotation, permanent_errors, transient_errors";

/// What became of a renewal.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    /// New tokens are stored.
    Renewed,
    /// The grant is over, and the tokens are gone.
    Ended,
    /// Nothing new, and the old tokens are kept.
    Kept(String),
}

impl Became {
    fn words(&self) -> String {
        match self {
            Self::Renewed => "new tokens".into(),
            Self::Ended => "the connection has ended".into(),
            Self::Kept(why) => format!("the tokens are kept ({why})"),
        }
    }
}

pub(super) async fn check(subject: &Subject) -> Result<Group, KitError> {
    let mut group = Group::new("Refresh");
    let d = subject.description();
    let Some(shape) = samples::shapes(d, None)
        .into_iter()
        .find(|s| !s.refresh_token.is_empty())
    else {
        group.skip("tokens are renewed", "its answers hold no refresh token");
        return Ok(group);
    };
    if d.authorization.is_none() || d.refresh.kind != RefreshKind::RefreshToken {
        group.skip(
            "tokens are renewed",
            "it describes no refresh by refresh tokens",
        );
        return Ok(group);
    }
    if let Err(error) = Stage::new(&subject.party).await?.connect().await {
        group.skip(
            "tokens are renewed",
            format!("the sign-in itself fails: {error}"),
        );
        return Ok(group);
    }
    for rotates in [true, false] {
        chain(&mut group, subject, shape, rotates).await?;
    }
    failures(&mut group, subject, shape).await?;
    clocks(&mut group, subject, shape).await?;
    for sample in subject.table.answers.iter().filter(|s| s.refresh) {
        written(&mut group, subject, shape, sample).await?;
    }
    Ok(group)
}

/// A connected stage whose access token has ended.
async fn lapsed(subject: &Subject) -> Result<Stage, KitError> {
    let stage = Stage::new(&subject.party).await?;
    stage.connect().await.map_err(KitError::Setup)?;
    stage.vendor.take_seen();
    stage.clock.advance(Duration::from_secs(LIFETIME * 2));
    Ok(stage)
}

/// Renews as a call would: because the token has ended, or, where nobody says
/// when, because the upstream answered 401.
async fn renew(stage: &Stage, shape: &TokenShape, reply: Reply) -> Result<Became, KitError> {
    let gone = || KitError::Setup("the connection is gone".into());
    let held = stage.held().await.ok_or_else(gone)?;
    let before = held
        .connection
        .credential(Some(&shape.credential))
        .map(|c| c.issued_at);
    let ends = held
        .connection
        .credential(Some(&shape.credential))
        .is_some_and(|c| c.expires_at.is_some());
    stage.vendor.will_answer([reply]);
    let result = if ends {
        stage
            .oauth
            .fresh(held, &stage.party, Some(&shape.credential))
            .await
    } else {
        // One renewal a minute is forced at most.
        stage.clock.advance(Duration::from_secs(120));
        stage
            .oauth
            .force_once(held, &stage.party, Some(&shape.credential))
            .await
    };
    let now = stage.held().await;
    let facts = now
        .as_ref()
        .and_then(|h| h.connection.credential(Some(&shape.credential)));
    let still = now.as_ref().is_some_and(|h| h.sealed.is_some());
    let status = now.as_ref().map(|h| {
        h.connection
            .status(stage.now(), &ScopeSet::default(), &Implications::default())
            .0
    });
    Ok(match result {
        Ok(_) if facts.map(|f| f.issued_at) != before => Became::Renewed,
        Ok(_) => Became::Kept("the old token is used on".into()),
        Err(_) if !still || facts.is_none() || status == Some(Status::NeedsReauth) => Became::Ended,
        Err(FreshError::Call(CallError::NeedsReauth { reason, .. })) => {
            Became::Kept(reason.word().into())
        }
        Err(error) => Became::Kept(error.to_string()),
    })
}

fn answer(
    stage: &Stage,
    shape: &TokenShape,
    scopes: &ScopeSet,
    round: u32,
    rotates: bool,
) -> Value {
    refreshed(&Tokens {
        description: stage.description(),
        scopes,
        round,
        only: Some(&shape.credential),
        rotates,
        with_expiry: true,
        now: stage.now(),
    })
}

/// Two renewals: the second must use what the first left.
async fn chain(
    group: &mut Group,
    subject: &Subject,
    shape: &TokenShape,
    rotates: bool,
) -> Result<(), KitError> {
    let name = if rotates {
        "a rotated refresh token is used from then on"
    } else {
        "an answer without a refresh token keeps the one there was"
    };
    let stage = lapsed(subject).await?;
    let scopes = asked(subject.description());
    let mut sent = Vec::new();
    for round in [2, 3] {
        let body = answer(&stage, shape, &scopes, round, rotates);
        let became = renew(&stage, shape, stage.good(&body)).await?;
        let seen = stage.vendor.take_seen();
        let request = seen
            .iter()
            .find(|r| r.grant_type() == Some("refresh_token"))
            .or(seen.first());
        sent.push(
            request
                .and_then(|r| r.field("refresh_token"))
                .unwrap_or("none")
                .to_owned(),
        );
        if became != Became::Renewed {
            group.fail(name, "new tokens", became.words(), REFRESH);
            return Ok(());
        }
        stage.clock.advance(Duration::from_secs(LIFETIME * 2));
    }
    let second = if rotates { 2 } else { 1 };
    let expected = [1, second].map(|round| samples::refresh_token(shape, round));
    group.equal(
        name,
        expected.join(", then "),
        sent.join(", then "),
        REFRESH,
    );
    Ok(())
}

async fn failures(
    group: &mut Group,
    subject: &Subject,
    shape: &TokenShape,
) -> Result<(), KitError> {
    let d = subject.description();
    let refusal =
        |status, code: &str| Reply::json(status, &samples::refusal(&d.token_answer, code));
    let good = status_of(&d.token_answer.success_codes);
    let kept = [
        (
            "status 503 keeps the tokens",
            refusal(503, "temporarily_unavailable"),
        ),
        (
            "an HTML page with status 502 keeps the tokens",
            Reply::html(502),
        ),
        (
            "an unreachable provider keeps the tokens",
            Reply::Silence(SendError::Unreachable),
        ),
        ("status 429 keeps the tokens", refusal(429, "slow_down")),
        (
            "a refused client keeps the tokens",
            refusal(401, "invalid_client"),
        ),
    ];
    for (name, reply) in kept {
        let became = renew(&lapsed(subject).await?, shape, reply).await?;
        match became {
            Became::Kept(_) => group.pass(name),
            other => group.fail(name, "the tokens are kept", other.words(), REFRESH),
        }
    }
    lost_answers(group, subject, shape, good).await?;
    let ends = [
        (
            "invalid_grant ends the connection",
            refusal(400, "invalid_grant"),
        ),
        (
            "invalid_grant with status 200, too",
            refusal(good, "invalid_grant"),
        ),
    ];
    for (name, reply) in ends {
        let became = renew(&lapsed(subject).await?, shape, reply).await?;
        group.equal(name, Became::Ended.words(), became.words(), REFRESH);
    }
    let listed = [
        (
            &d.refresh.permanent_errors,
            "its permanent errors end the connection",
            true,
        ),
        (
            &d.refresh.transient_errors,
            "its transient errors keep the tokens",
            false,
        ),
    ];
    for (codes, name, ends) in listed {
        if codes.is_empty() {
            group.skip(name, "it names none");
            continue;
        }
        let mut wrong = Vec::new();
        for code in codes {
            let became = renew(&lapsed(subject).await?, shape, refusal(400, code)).await?;
            if (became == Became::Ended) != ends {
                wrong.push(format!("{code}: {}", became.words()));
            }
        }
        group.none(format!("{name} ({})", codes.join(", ")), &wrong, REFRESH);
    }
    Ok(())
}

/// Nobody knows whether the provider has renewed: a refresh token that it takes
/// once is not sent again.
async fn lost_answers(
    group: &mut Group,
    subject: &Subject,
    shape: &TokenShape,
    good: u16,
) -> Result<(), KitError> {
    let strict = counts_uses(&subject.description().refresh) == Some(Duration::ZERO);
    for (what, reply) in [
        ("an HTML page with status 200", Reply::html(good)),
        ("a lost answer", Reply::Silence(SendError::Timeout)),
    ] {
        let became = renew(&lapsed(subject).await?, shape, reply).await?;
        // Where the access token goes on, the connection lives as long as it.
        let over = match &became {
            Became::Ended => true,
            Became::Kept(why) => why == ReauthReason::ProviderError.word(),
            Became::Renewed => false,
        };
        let kept = matches!(became, Became::Kept(_)) && !over;
        let (name, wanted, holds) = if strict {
            let name = format!("{what}: its refresh token is taken once, so it is not sent again");
            (name, "the refresh token is over", over)
        } else {
            (
                format!("{what} keeps the tokens"),
                "the tokens are kept",
                kept,
            )
        };
        if holds {
            group.pass(name);
        } else {
            group.fail(name, wanted, became.words(), REFRESH);
        }
    }
    Ok(())
}

/// Clocks that differ, and a token that is refused while it seems good.
async fn clocks(group: &mut Group, subject: &Subject, shape: &TokenShape) -> Result<(), KitError> {
    let scopes = asked(subject.description());
    let name = "an answer that has ended already by our clock is asked for once, not in a loop";
    let stage = lapsed(subject).await?;
    let late = {
        let now = stage.now().minus(Duration::from_secs(LIFETIME + 60));
        refreshed(&Tokens {
            now,
            ..tokens(&stage, shape, &scopes)
        })
    };
    renew(&stage, shape, stage.good(&late)).await?;
    let asked_for = stage.vendor.take_seen().len();
    group.equal(
        name,
        "1 request",
        format!(
            "{asked_for} request{}",
            if asked_for == 1 { "" } else { "s" }
        ),
        REFRESH,
    );

    let name = "a token refused by the server is renewed once, then reported";
    let stage = Stage::new(&subject.party).await?;
    stage.connect().await.map_err(KitError::Setup)?;
    stage.vendor.take_seen();
    let mut ends = Vec::new();
    for round in [2, 3] {
        stage.clock.advance(Duration::from_secs(5));
        let Some(held) = stage.held().await else {
            break;
        };
        let body = answer(&stage, shape, &scopes, round, true);
        stage.vendor.will_answer([stage.good(&body)]);
        let result = stage
            .oauth
            .force_once(held, &stage.party, Some(&shape.credential))
            .await;
        ends.push(if result.is_ok() {
            "renewed"
        } else {
            "reported"
        });
    }
    let requests = stage.vendor.take_seen().len();
    group.equal(
        name,
        "renewed, reported: 1 request",
        format!(
            "{}: {requests} request{}",
            ends.join(", "),
            if requests == 1 { "" } else { "s" }
        ),
        REFRESH,
    );
    Ok(())
}

fn tokens<'a>(stage: &'a Stage, shape: &'a TokenShape, scopes: &'a ScopeSet) -> Tokens<'a> {
    Tokens {
        only: Some(&shape.credential),
        ..stage.tokens(scopes, 2)
    }
}

/// An answer out of the vendor's documentation.
async fn written(
    group: &mut Group,
    subject: &Subject,
    shape: &TokenShape,
    sample: &Sample,
) -> Result<(), KitError> {
    let stage = lapsed(subject).await?;
    let reply = Reply::text(sample.status, &sample.content_type, sample.body.as_str());
    let became = renew(&stage, shape, reply).await?;
    let good = matches!(
        (&sample.expect, &became),
        (Meaning::Tokens(_), Became::Renewed)
            | (Meaning::Ended, Became::Ended)
            | (Meaning::Passing | Meaning::Refused(_), Became::Kept(_))
    );
    let file = subject.table.file.as_deref().unwrap_or_default();
    let name = format!("{file}:{} refresh: {}", sample.line, said(&sample.expect));
    if good {
        group.pass(name);
    } else {
        group.fail(name, said(&sample.expect), became.words(), REFRESH);
    }
    Ok(())
}
