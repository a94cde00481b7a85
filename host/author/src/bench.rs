//! `preset bench`: what one call of a component costs.

use std::path::Path;
use std::time::Duration;

use countersign_core::preset::{Call, GrantFacts, Preset};
use countersign_core::scope::ScopeSet;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::kit::{Case, KitError, Subject, Table};

/// Calls that are not counted.
const WARM_UP: u32 = 200;
/// Calls of one kept sandbox: its deadline is one call's.
const KEPT: u32 = 200;

/// What was measured. Times are nanoseconds.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// The preset's name.
    pub preset: String,
    /// As the file name says.
    pub version: String,
    /// Of the component.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// Processor time of compiling it and of everything else until it serves.
    pub load: u64,
    /// What was called.
    pub call: String,
    /// In a fresh sandbox, as the host runs it.
    pub fresh: Times,
    /// In one that is kept, as no host does; for comparison.
    pub kept: Times,
    /// Linear memory after one call, in bytes.
    pub memory: usize,
}

/// How long calls took.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Times {
    /// How many.
    pub calls: u32,
    /// Processor time of one, on average.
    pub mean: u64,
    /// Of the clock on the wall.
    pub p50: u64,
    /// Of the clock on the wall.
    pub p99: u64,
}

/// Measures the table's first case, or `tools/list`.
///
/// # Errors
/// [`KitError`]: it cannot be loaded, or fails on the call.
pub fn run(component: &Path, table: Table, calls: u32) -> Result<Figures, KitError> {
    let begun = process_time();
    let subject = Subject::open(component, table)?;
    let load = nanos(process_time().saturating_sub(begun));
    let fault = |e: countersign_core::preset::PresetFault| {
        KitError::Setup(format!("the call that is measured fails: {e}"))
    };

    let case = subject.table.cases.first();
    let host = case
        .and_then(|c| c.host.clone())
        .unwrap_or_else(|| "api.example".into());
    let call = Call {
        method: case.map_or("tools/list", |c| &c.method),
        name: case.and_then(|c| c.name.as_deref()),
        arguments: case.and_then(|c| c.arguments.as_deref()),
        host: &host,
    };
    let none = ScopeSet::default();
    let grant = GrantFacts {
        scopes: case.map_or(&none, |c| &c.granted),
        account: None,
        facts: &[],
    };
    let preset = &*subject.party.preset;
    let fresh = fresh(preset, &call, &grant, calls.max(1)).map_err(fault)?;
    let mut samples = Vec::new();
    let mut used = Duration::ZERO;
    while samples.len() < calls.max(1) as usize {
        let begun = thread_time();
        let mut last = wall();
        let mut after = || {
            let now = wall();
            samples.push(nanos(now.saturating_sub(last)));
            last = now;
        };
        subject
            .trial
            .kept(KEPT, &call, &grant, &mut after)
            .map_err(fault)?;
        used += thread_time().saturating_sub(begun);
    }
    Ok(Figures {
        preset: subject.workbench.name().to_string(),
        version: subject.workbench.version().to_owned(),
        digest: preset.digest().to_string(),
        size: subject
            .workbench
            .inspection()
            .entry
            .size
            .unwrap_or_default(),
        load,
        call: name(case),
        fresh,
        kept: times(samples, used),
        memory: subject.trial.memory_of(&call, &grant).map_err(fault)?,
    })
}

fn name(case: Option<&Case>) -> String {
    case.map_or_else(
        || "tools/list".into(),
        |c| c.name.clone().unwrap_or_else(|| c.method.clone()),
    )
}

fn fresh(
    preset: &dyn Preset,
    call: &Call<'_>,
    grant: &GrantFacts<'_>,
    calls: u32,
) -> Result<Times, countersign_core::preset::PresetFault> {
    for _ in 0..WARM_UP {
        preset.evaluate(call, grant)?;
    }
    let mut samples = Vec::with_capacity(calls as usize);
    let begun = thread_time();
    for _ in 0..calls {
        let start = wall();
        preset.evaluate(call, grant)?;
        samples.push(nanos(wall().saturating_sub(start)));
    }
    let used = thread_time().saturating_sub(begun);
    Ok(times(samples, used))
}

fn times(mut samples: Vec<u64>, used: Duration) -> Times {
    samples.sort_unstable();
    let count = u64::try_from(samples.len()).unwrap_or(1).max(1);
    let at = |percent: usize| {
        let index = samples.len().saturating_sub(1) * percent / 100;
        samples.get(index).copied().unwrap_or_default()
    };
    Times {
        calls: u32::try_from(samples.len()).unwrap_or(u32::MAX),
        mean: nanos(used) / count,
        p50: at(50),
        p99: at(99),
    }
}

impl Figures {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let row = |what: &str, t: &Times| {
            format!("  {what:<16}{:>10}{:>10}{:>10}\n", t.p50, t.p99, t.mean)
        };
        format!(
            "{} {}  {:.1} kB  {}\n\n\
             One call of {} ({} times)\n  {:<16}{:>10}{:>10}{:>10}\n{}{}  {:<16}{:>10}\n\n\
             Memory of one call  {} KiB\nLoading             {:.0} ms of processor time\n\n\
             Times are nanoseconds. The host runs every call in a fresh sandbox; a kept one is for\n\
             comparison only. A component has no native figure.",
            self.preset,
            self.version,
            self.size as f64 / 1000.0,
            crate::kit::report::short(&self.digest),
            self.call,
            self.fresh.calls,
            "",
            "p50",
            "p99",
            "cpu",
            row("fresh sandbox", &self.fresh),
            row("kept sandbox", &self.kept),
            "native",
            "n/a",
            self.memory >> 10,
            self.load as f64 / 1e6,
        )
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Processor time of this thread.
pub(crate) fn thread_time() -> Duration {
    read(ClockId::ThreadCPUTime)
}

fn process_time() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn wall() -> Duration {
    read(ClockId::Monotonic)
}

/// For measuring only: it decides nothing.
fn read(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_from_the_sorted_samples() {
        let times = times((1..=100).rev().collect(), Duration::from_nanos(5050));
        assert_eq!(
            (times.calls, times.mean, times.p50, times.p99),
            (100, 50, 50, 99)
        );
    }
}
