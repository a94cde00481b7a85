//! Reading the log, newest first.

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::ports::{Kind, Records, StoreError, parse};
use countersign_core::time::Timestamp;

use super::batch::{block_start, partition};

/// Partitions read for one page: a search that finds little answers with what
/// it has, and says where to go on.
const BLOCKS: usize = 1024;
const LARGEST_PAGE: usize = 1000;

/// What to look for; the default is everything.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// This user exactly.
    pub user: Option<String>,
    /// This team exactly.
    pub team: Option<String>,
    /// This agent exactly.
    pub client: Option<String>,
    /// This resource exactly (`provider:github`).
    pub resource: Option<String>,
    /// This action exactly, or what begins with it and a dot (`provider`).
    pub action: Option<String>,
    /// This outcome.
    pub outcome: Option<Outcome>,
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

impl AuditFilter {
    fn fits(&self, event: &AuditEvent) -> bool {
        let is = |want: &Option<String>, have: &Option<String>| want.is_none() || want == have;
        is(&self.user, &event.user)
            && is(&self.team, &event.team)
            && is(&self.client, &event.client)
            && is(&self.resource, &event.resource)
            && self.outcome.is_none_or(|o| o == event.outcome)
            && self.since.is_none_or(|t| event.time >= t)
            && self.until.is_none_or(|t| event.time < t)
            && self.action.as_ref().is_none_or(|want| {
                let rest = event.action.strip_prefix(want.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
    }
}

/// Which part of the answer.
#[derive(Debug, Clone, Copy)]
pub struct AuditPage {
    /// Only events below this sequence number: [`AuditList::next`].
    pub before: Option<u64>,
    /// Most events; at most 1,000.
    pub size: usize,
}

impl Default for AuditPage {
    fn default() -> Self {
        Self {
            before: None,
            size: 50,
        }
    }
}

/// A part of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditList {
    /// Newest first. May be fewer than asked for although there are more.
    pub events: Vec<AuditEvent>,
    /// For the next page; `None` at the end.
    pub next: Option<u64>,
}

pub(super) async fn run(
    records: &dyn Records,
    filter: &AuditFilter,
    page: &AuditPage,
    next_sequence: u64,
) -> Result<AuditList, StoreError> {
    let size = page.size.clamp(1, LARGEST_PAGE);
    let mut before = page.before.unwrap_or(next_sequence).min(next_sequence);
    let mut found = Vec::new();
    for _ in 0..BLOCKS {
        let Some(newest) = before.checked_sub(1) else {
            return Ok(AuditList {
                events: found,
                next: None,
            });
        };
        let mut block: Vec<AuditEvent> = Vec::new();
        for record in records.list(Kind::Audit, Some(&partition(newest))).await? {
            block.extend(parse::<Vec<AuditEvent>>(&record)?);
        }
        block.retain(|e| e.sequence < before && filter.fits(e));
        block.sort_unstable_by_key(|e| std::cmp::Reverse(e.sequence));
        let room = size - found.len();
        let full = block.len() >= room;
        found.extend(block.into_iter().take(room));
        if full {
            let next = found.last().map(|e| e.sequence);
            return Ok(AuditList {
                events: found,
                next,
            });
        }
        before = block_start(newest);
    }
    Ok(AuditList {
        events: found,
        next: Some(before).filter(|b| *b > 0),
    })
}
