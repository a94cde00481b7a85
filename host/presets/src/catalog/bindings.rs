//! Which version serves which provider.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use countersign_core::names::{PresetName, ProviderName};
use countersign_core::preset::Preset as _;
use countersign_core::provider::Provider;

use super::files::{Candidate, compare_versions};
use super::{BindError, BindingStatus, CatalogEvent, Proposal, Serving};
use crate::approval::Approval;
use crate::bound::Bound;
use crate::permissions::PermissionSet;

/// All bound providers.
#[derive(Default)]
pub(super) struct Bindings(HashMap<ProviderName, Binding>);

struct Binding {
    provider: Provider,
    approvals: Vec<Approval>,
    /// Swaps that nobody was asked about, because an approval covers them.
    automatic: Vec<Approval>,
    serving: Option<Served>,
    pending: Option<Proposal>,
    refusal: Option<String>,
}

#[derive(Clone)]
struct Served {
    file: String,
    bound: Arc<Bound>,
}

impl Bindings {
    /// Sets record and approvals of a provider and decides.
    pub(super) fn set(
        &mut self,
        provider: &Provider,
        approvals: &[Approval],
        candidates: Vec<Candidate>,
        report: &mut impl FnMut(CatalogEvent),
    ) {
        let old = self
            .0
            .remove(&provider.name)
            .filter(|old| old.provider.preset == provider.preset);
        let (serving, mut automatic) =
            old.map_or((None, vec![]), |old| (old.serving, old.automatic));
        // What an approval that was taken back had let in goes with it.
        automatic.retain(|swap| approvals.iter().any(|a| a.allows_update_to(swap)));
        let mut binding = Binding {
            provider: provider.clone(),
            approvals: approvals.to_vec(),
            automatic,
            serving,
            pending: None,
            refusal: None,
        };
        binding.decide(&candidates, false, report);
        self.0.insert(provider.name.clone(), binding);
    }

    pub(super) fn remove(&mut self, provider: &ProviderName) {
        self.0.remove(provider);
    }

    /// The presets that somebody is bound to.
    pub(super) fn presets(&self) -> BTreeSet<PresetName> {
        self.0.values().map(|b| b.provider.preset.clone()).collect()
    }

    /// Decides anew for all providers of a preset, after files changed.
    pub(super) fn refresh(
        &mut self,
        preset: &PresetName,
        candidates: &[Candidate],
        report: &mut impl FnMut(CatalogEvent),
    ) {
        for binding in self.0.values_mut().filter(|b| b.provider.preset == *preset) {
            binding.decide(candidates, true, report);
        }
    }

    /// What serves whom.
    pub(super) fn serving(&self) -> HashMap<ProviderName, Arc<Bound>> {
        self.0
            .iter()
            .filter_map(|(name, b)| Some((name.clone(), Arc::clone(&b.serving.as_ref()?.bound))))
            .collect()
    }

    pub(super) fn outcome(&self, provider: &ProviderName) -> Option<Result<Arc<Bound>, BindError>> {
        let binding = self.0.get(provider)?;
        let preset = binding.provider.preset.clone();
        Some(
            match (&binding.serving, &binding.pending, &binding.refusal) {
                (Some(served), _, _) => Ok(Arc::clone(&served.bound)),
                (None, Some(proposal), _) => {
                    Err(BindError::NeedsApproval(Box::new(proposal.clone())))
                }
                (None, None, Some(reason)) => Err(BindError::Refused {
                    preset,
                    reason: reason.clone(),
                }),
                (None, None, None) => Err(BindError::Unknown(preset)),
            },
        )
    }

    pub(super) fn status(&self, provider: &ProviderName) -> Option<BindingStatus> {
        let binding = self.0.get(provider)?;
        Some(BindingStatus {
            preset: binding.provider.preset.clone(),
            serving: binding.serving.as_ref().map(|served| Serving {
                version: served.bound.loaded().version.clone(),
                digest: served.bound.digest(),
                permissions: served.bound.approval().permissions.clone(),
            }),
            pending: binding.pending.clone(),
            refusal: binding.refusal.clone(),
        })
    }
}

impl Binding {
    /// Takes the newest version that may serve. `same_record` says that the
    /// provider has not changed since the last decision.
    fn decide(
        &mut self,
        candidates: &[Candidate],
        same_record: bool,
        report: &mut impl FnMut(CatalogEvent),
    ) {
        let before = self.serving.take();
        let old_pending = self.pending.take();
        self.refusal = None;
        for candidate in self.with_last_good(candidates, before.as_ref()) {
            let reusable = before.as_ref().filter(|served| {
                same_record && Arc::ptr_eq(served.bound.loaded(), &candidate.loaded)
            });
            let bound = match reusable {
                Some(served) => Arc::clone(&served.bound),
                None => match Bound::new(&candidate.loaded, &self.provider) {
                    Ok(bound) => bound,
                    Err(error) => {
                        self.refusal
                            .get_or_insert_with(|| format!("{}: {error}", candidate.file));
                        continue;
                    }
                },
            };
            if let Some(automatic) = self.leave(bound.approval()) {
                self.serve(
                    Served {
                        file: candidate.file,
                        bound,
                    },
                    before.as_ref(),
                    automatic,
                    report,
                );
                break;
            }
            if self.pending.is_none() {
                self.pending = Some(self.propose(&candidate, &bound, before.as_ref()));
            }
        }
        if let Some(proposal) = self
            .pending
            .as_ref()
            .filter(|new| Some(*new) != old_pending.as_ref())
        {
            report(CatalogEvent::Pending {
                proposal: Box::new(proposal.clone()),
            });
        }
    }

    /// The candidates, newest first, with what serves now among them: after
    /// other content of its own file, before older versions. If its file is
    /// gone (somebody took the version back) it comes last.
    fn with_last_good(&self, candidates: &[Candidate], before: Option<&Served>) -> Vec<Candidate> {
        let mut all = candidates.to_vec();
        if let Some(served) = before {
            let good = Candidate {
                file: served.file.clone(),
                loaded: Arc::clone(served.bound.loaded()),
            };
            if !all.iter().any(|c| c.loaded.digest == good.loaded.digest) {
                let place = if all.iter().any(|c| c.file == good.file) {
                    all.iter().position(|c| {
                        compare_versions(&c.loaded.version, &good.loaded.version).is_lt()
                    })
                } else {
                    None
                };
                all.insert(place.unwrap_or(all.len()), good);
            }
        }
        all
    }

    /// Whether this may serve: `Some(false)` if it was approved, `Some(true)`
    /// if an approval of another version covers it.
    fn leave(&self, wanted: &Approval) -> Option<bool> {
        let known = || self.approvals.iter().chain(&self.automatic);
        if known().any(|a| a == wanted) {
            return Some(false);
        }
        (self.provider.auto_update && known().any(|a| a.allows_update_to(wanted))).then_some(true)
    }

    fn serve(
        &mut self,
        served: Served,
        before: Option<&Served>,
        automatic: bool,
        report: &mut impl FnMut(CatalogEvent),
    ) {
        let approval = served.bound.approval().clone();
        if automatic {
            self.automatic.push(approval.clone());
        }
        let same = before.is_some_and(|b| b.bound.approval() == &approval);
        if !same {
            report(CatalogEvent::Swapped {
                provider: self.provider.name.clone(),
                from: before.map(|b| b.bound.digest()),
                to: served.bound.digest(),
                automatic: automatic.then(|| Box::new(approval)),
            });
        }
        self.serving = Some(served);
    }

    fn propose(&self, candidate: &Candidate, bound: &Bound, before: Option<&Served>) -> Proposal {
        let approval = bound.approval().clone();
        let known = before
            .map(|b| &b.bound.approval().permissions)
            .or_else(|| self.approvals.last().map(|a| &a.permissions));
        Proposal {
            provider: self.provider.name.clone(),
            preset: self.provider.preset.clone(),
            file: candidate.file.clone(),
            version: candidate.loaded.version.clone(),
            difference: PermissionSet::difference(known, &approval.permissions),
            approval,
        }
    }
}
