//! `[refresh]`: how well connections are looked after while nobody calls.

use std::time::Duration;

use countersign_core::provider::duration_text;
use countersign_core::upkeep::Care;
use serde::Deserialize;
use toml::Spanned;

use super::Fault;

/// Of `concurrency`.
const MOST: i64 = 256;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RefreshRaw {
    background: Option<bool>,
    active: Option<Spanned<String>>,
    keep_alive: Option<Spanned<String>>,
    warning: Option<Spanned<String>>,
    concurrency: Option<Spanned<i64>>,
}

fn duration(text: Option<&Spanned<String>>, default: Duration) -> Result<Duration, Fault> {
    let Some(text) = text else {
        return Ok(default);
    };
    duration_text::parse(text.get_ref()).ok_or_else(|| {
        Fault::at(
            text,
            format!("{:?} is not a duration", text.get_ref()),
            format!(
                "Write a number and one of s, m, h, d: {:?}.",
                duration_text::format(default)
            ),
        )
    })
}

/// `[refresh]`, checked.
pub(super) fn checked(raw: &RefreshRaw) -> Result<Care, Fault> {
    let default = Care::default();
    let care = Care {
        background: raw.background.unwrap_or(default.background),
        active: duration(raw.active.as_ref(), default.active)?,
        keep_alive: duration(raw.keep_alive.as_ref(), default.keep_alive)?,
        warning: duration(raw.warning.as_ref(), default.warning)?,
        concurrency: match &raw.concurrency {
            None => default.concurrency,
            Some(given) => usize::try_from(*given.get_ref())
                .ok()
                .filter(|_| (1..=MOST).contains(given.get_ref()))
                .ok_or_else(|| {
                    Fault::at(
                        given,
                        format!("{} renewals at a time are not possible", given.get_ref()),
                        format!("Write a number from 1 to {MOST}."),
                    )
                })?,
        },
    };
    if let (Some(keep_alive), true) = (&raw.keep_alive, care.keep_alive < care.active) {
        return Err(Fault::at(
            keep_alive,
            "an active connection would not be kept alive",
            "Write a keep_alive that is at least as long as active.",
        ));
    }
    Ok(care)
}
