//! Versions that fail where the one before does not.
//!
//! A call that fails says little: its arguments are the agent's, and an agent
//! that could make a preset fail at will could undo a security fix. So a fault
//! only counts if the version also fails on calls that the host makes up
//! itself, while the version it would go back to does not, and only when calls
//! of several users met it. Terms (floor, revoked digests, pins) bind here as
//! everywhere.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use countersign_core::names::{Digest, ProviderName, UserName};
use countersign_core::preset::{Call, GrantFacts, Preset as _, PresetFault};
use countersign_core::scope::{Scope, ScopeSet};

use super::{Catalog, CatalogEvent, lock};
use crate::bound::Bound;

/// Users whose calls must have met the fault.
const USERS: usize = 3;
/// Versions that are watched at once; more are forgotten.
const MOST: usize = 256;
/// A tool that no server has.
const NO_TOOL: &str = "countersign_probe";
/// RFC 6749 §5.1, as a hook sees it.
const MASKED_ANSWER: &str = r#"{"access_token":"********","token_type":"******","expires_in":3600,"refresh_token":"********"}"#;
/// RFC 6749 §5.2, as a hook sees it.
const MASKED_REFUSAL: &str = r#"{"error":"*************"}"#;

/// A preset failed in a call.
#[derive(Debug, Clone)]
pub struct FaultReport {
    /// The provider it judged for.
    pub provider: ProviderName,
    /// Of the component.
    pub digest: Digest,
    /// Whose call it was.
    pub user: UserName,
    /// The tool, if one was called.
    pub tool: Option<String>,
    /// The hook that failed outside of calls; none for all that a call asks.
    pub hook: Option<ConsentHook>,
    /// How it failed.
    pub fault: PresetFault,
}

/// A hook that is asked while a user connects an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsentHook {
    /// Before he is sent to the provider.
    AuthorizeParameters,
    /// When he comes back, or tokens are renewed.
    TokenAnswer,
    /// When renewing is refused.
    RefreshError,
    /// When the provider has told who he is.
    Identity,
}

/// Users who met a confirmed fault, by version.
#[derive(Default)]
pub(super) struct Suspects(HashMap<(ProviderName, Digest), BTreeSet<UserName>>);

impl Suspects {
    /// Notes one more; true once they are enough.
    fn note(&mut self, report: &FaultReport) -> bool {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        let key = (report.provider.clone(), report.digest);
        let users = self.0.entry(key).or_default();
        users.insert(report.user.clone());
        users.len() >= USERS
    }

    fn clear(&mut self, report: &FaultReport) {
        self.0.remove(&(report.provider.clone(), report.digest));
    }
}

impl Catalog {
    /// Takes note of a fault in a call, and goes back to the newest older
    /// version that was approved if this one fails for several users whatever
    /// they ask. Runs both versions, and so blocks for some milliseconds.
    /// Returns whether it went back.
    pub fn suspect(&self, report: &FaultReport) -> bool {
        if matches!(
            report.fault,
            PresetFault::Busy | PresetFault::Unavailable(_)
        ) {
            return false;
        }
        let Some((served, back)) = self.way_back(report) else {
            return false;
        };
        let fault = match report.hook {
            None => fails_alone(&served, &back, report.tool.as_deref()),
            Some(hook) => fails_at(hook, &served, &back),
        };
        let Some(fault) = fault else {
            return false;
        };
        if !lock(&self.suspects).note(report) {
            return false;
        }
        lock(&self.suspects).clear(report);
        let version = served.loaded().version.clone();
        let reason = format!(
            "{fault}, for {USERS} users and whatever they ask; {} does not fail so",
            back.loaded().version
        );
        let mut bindings = lock(&self.bindings);
        let Some(preset) = bindings.preset_of(&report.provider) else {
            return false;
        };
        let candidates = lock(&self.files).candidates(&preset);
        let mut reporter = self.reporter();
        reporter(CatalogEvent::RolledBack {
            provider: report.provider.clone(),
            from: report.digest,
            version,
            reason,
        });
        bindings.set_aside(&report.provider, report.digest, &candidates, &mut reporter);
        self.serving.store(Arc::new(bindings.serving()));
        true
    }

    fn way_back(&self, report: &FaultReport) -> Option<(Arc<Bound>, Arc<Bound>)> {
        let bindings = lock(&self.bindings);
        let preset = bindings.preset_of(&report.provider)?;
        let candidates = lock(&self.files).candidates(&preset);
        bindings.way_back(&report.provider, report.digest, &candidates)
    }
}

/// Something that a version is asked.
type Ask<'a> = dyn Fn(&Bound) -> Result<(), PresetFault> + 'a;

/// How `new` fails on a made-up call that `old` judges without failing.
fn fails_alone(new: &Bound, old: &Bound, tool: Option<&str>) -> Option<PresetFault> {
    let described = |bound: &Bound, tool: &str| {
        let servers = &bound.description().mcp_servers;
        servers
            .iter()
            .any(|s| s.tools.iter().any(|t| t.name == tool))
    };
    // Only a name that its author wrote, never one that an agent made up.
    let known = tool.filter(|tool| described(new, tool) || described(old, tool));
    let granted: ScopeSet = new
        .description()
        .default_scopes
        .iter()
        .filter_map(|s| Scope::parse(s).ok())
        .collect();
    let calls = [("tools/list", None), ("tools/call", Some(NO_TOOL))]
        .into_iter()
        .chain(known.map(|tool| ("tools/call", Some(tool))));
    for (method, name) in calls {
        for scopes in [&ScopeSet::default(), &granted] {
            let call = Call {
                method,
                name,
                arguments: name.map(|_| "{}"),
                host: "self-test.invalid",
            };
            let grant = GrantFacts {
                scopes,
                account: None,
                facts: &[],
            };
            let tools = [NO_TOOL.to_owned()];
            // All that a call may ask of a preset, but for signatures: those are
            // over a request, which only a call has.
            let asked: [&Ask<'_>; 3] = [
                &|bound| bound.evaluate(&call, &grant).map(drop),
                &|bound| bound.filter_tools(&tools, &grant).map(drop),
                &|bound| bound.redact(&call, "{}").map(drop),
            ];
            for ask in asked {
                if let Some(fault) = only_new_fails(new, old, ask) {
                    return Some(fault);
                }
            }
        }
    }
    None
}

/// How a hook of `new` fails on what every provider might answer, where that of
/// `old` does not.
fn fails_at(hook: ConsentHook, new: &Bound, old: &Bound) -> Option<PresetFault> {
    only_new_fails(new, old, &|bound| match hook {
        ConsentHook::AuthorizeParameters => {
            bound.authorize_parameters(&ScopeSet::default()).map(drop)
        }
        ConsentHook::TokenAnswer => bound.token_answer(200, MASKED_ANSWER).map(drop),
        ConsentHook::RefreshError => bound
            .refresh_error(400, Some("invalid_grant"), MASKED_REFUSAL)
            .map(drop),
        ConsentHook::Identity => bound.identity("{}").map(drop),
    })
}

fn only_new_fails(new: &Bound, old: &Bound, ask: &Ask<'_>) -> Option<PresetFault> {
    let fault = ask(new).err().filter(|f| *f != PresetFault::Busy)?;
    ask(old).is_ok().then_some(fault)
}
