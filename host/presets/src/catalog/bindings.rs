//! Which version serves which provider.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use countersign_core::names::{Digest, PresetName, ProviderName};
use countersign_core::preset::Preset as _;
use countersign_core::provider::Provider;

use super::files::{Candidate, compare_versions};
use super::report::PassedOver;
use super::{BindError, BindingStatus, CatalogEvent, Proposal, Serving};
use crate::approval::Approval;
use crate::bound::Bound;
use crate::load::SharedLoaded;
use crate::permissions::PermissionSet;
use crate::terms::Terms;

/// All bound providers.
#[derive(Default)]
pub(super) struct Bindings(HashMap<ProviderName, Binding>);

struct Binding {
    provider: Provider,
    terms: Terms,
    /// Swaps that nobody was asked about, because an approval covers them.
    automatic: Vec<Approval>,
    serving: Option<Served>,
    pending: Option<Proposal>,
    /// Versions newer than the one that serves, and why they do not.
    passed_over: Vec<PassedOver>,
}

#[derive(Clone)]
struct Served {
    file: String,
    bound: Arc<Bound>,
}

impl Bindings {
    /// Sets record and terms of a provider and decides.
    pub(super) fn set(
        &mut self,
        provider: &Provider,
        terms: Terms,
        candidates: &[Candidate],
        report: &mut impl FnMut(CatalogEvent),
    ) {
        let old = self
            .0
            .remove(&provider.name)
            .filter(|old| old.provider.preset == provider.preset);
        let (serving, mut automatic) =
            old.map_or((None, vec![]), |old| (old.serving, old.automatic));
        // What an approval that was taken back had let in goes with it.
        automatic.retain(|swap| terms.approvals.iter().any(|a| a.allows_update_to(swap)));
        let mut binding = Binding {
            provider: provider.clone(),
            terms,
            automatic,
            serving,
            pending: None,
            passed_over: Vec::new(),
        };
        binding.decide(candidates, false, report);
        self.0.insert(provider.name.clone(), binding);
    }

    pub(super) fn remove(&mut self, provider: &ProviderName) {
        self.0.remove(provider);
    }

    /// What serves somebody, with the files it came from.
    pub(super) fn served(&self) -> Vec<(String, SharedLoaded)> {
        let served = self.0.values().filter_map(|b| b.serving.as_ref());
        served
            .map(|s| (s.file.clone(), Arc::clone(s.bound.loaded())))
            .collect()
    }

    /// The presets that somebody is bound to.
    pub(super) fn presets(&self) -> BTreeSet<PresetName> {
        self.0.values().map(|b| b.provider.preset.clone()).collect()
    }

    /// The preset that a provider is bound to.
    pub(super) fn preset_of(&self, provider: &ProviderName) -> Option<PresetName> {
        Some(self.0.get(provider)?.provider.preset.clone())
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
            match (
                &binding.serving,
                &binding.pending,
                binding.passed_over.first(),
            ) {
                (Some(served), _, _) => Ok(Arc::clone(&served.bound)),
                (None, Some(proposal), _) => {
                    Err(BindError::NeedsApproval(Box::new(proposal.clone())))
                }
                (None, None, Some(version)) => Err(BindError::Refused {
                    preset,
                    reason: version.to_string(),
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
                file: served.file.clone(),
                version: served.bound.loaded().version.clone(),
                digest: served.bound.digest(),
                origin: served.bound.loaded().standing.origin(),
                permissions: served.bound.approval().permissions.clone(),
            }),
            pending: binding.pending.clone(),
            passed_over: binding.passed_over.clone(),
        })
    }

    /// What one version would be approved for, whether or not it may serve.
    pub(super) fn propose(
        &self,
        provider: &Provider,
        candidate: &Candidate,
    ) -> Result<Proposal, BindError> {
        let bound = Bound::new(&candidate.loaded, provider).map_err(|e| BindError::Refused {
            preset: provider.preset.clone(),
            reason: format!("{}: {e}", candidate.file),
        })?;
        let known = self.0.get(&provider.name).and_then(Binding::known);
        Ok(propose(provider, candidate, &bound, known))
    }

    /// For a provider and one of its versions that failed: the newest other
    /// version that may serve, and the one that does.
    pub(super) fn way_back(
        &self,
        provider: &ProviderName,
        failed: Digest,
        candidates: &[Candidate],
    ) -> Option<(Arc<Bound>, Arc<Bound>)> {
        let binding = self.0.get(provider)?;
        let served = binding.serving.as_ref()?;
        if served.bound.digest() != failed || binding.terms.pinned.is_some() {
            return None;
        }
        let version = &served.bound.loaded().version;
        candidates
            .iter()
            .filter(|c| c.loaded.digest != failed)
            .filter(|c| compare_versions(&c.loaded.version, version).is_lt())
            .filter(|c| {
                let loaded = &c.loaded;
                binding
                    .terms
                    .forbid(&loaded.version, &loaded.digest)
                    .is_none()
            })
            .filter_map(|c| Bound::new(&c.loaded, &binding.provider).ok())
            .find(|bound| binding.leave(bound.approval()) == Some(false))
            .map(|back| (Arc::clone(&served.bound), back))
    }

    /// Takes a content out of a provider's choice and decides anew.
    pub(super) fn set_aside(
        &mut self,
        provider: &ProviderName,
        digest: Digest,
        candidates: &[Candidate],
        report: &mut impl FnMut(CatalogEvent),
    ) {
        if let Some(binding) = self.0.get_mut(provider) {
            binding.terms.set_aside.insert(digest);
            binding.decide(candidates, true, report);
        }
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
        let before_over = std::mem::take(&mut self.passed_over);
        for candidate in self.with_last_good(candidates, before.as_ref()) {
            let (version, digest) = (&candidate.loaded.version, candidate.loaded.digest);
            if let Some(reason) = self.terms.forbid(version, &digest) {
                self.pass_over(&candidate, reason);
                continue;
            }
            let reusable = before.as_ref().filter(|served| {
                same_record && Arc::ptr_eq(served.bound.loaded(), &candidate.loaded)
            });
            let bound = match reusable {
                Some(served) => Arc::clone(&served.bound),
                None => match Bound::new(&candidate.loaded, &self.provider) {
                    Ok(bound) => bound,
                    Err(error) => {
                        self.pass_over(&candidate, error.to_string());
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
                let known = before
                    .as_ref()
                    .map(|b| &b.bound.approval().permissions)
                    .or_else(|| self.approved_last());
                self.pending = Some(propose(&self.provider, &candidate, &bound, known));
            }
        }
        if let (Some(before), None) = (&before, &self.serving) {
            tracing::error!(provider = %self.provider.name, file = before.file, "no version serves the provider any more; its calls fail until one may");
        }
        for over in &self.passed_over {
            if !before_over.contains(over) {
                tracing::warn!(provider = %self.provider.name, file = over.file, reason = over.reason, "this version does not serve the provider");
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

    fn pass_over(&mut self, candidate: &Candidate, reason: String) {
        self.passed_over.push(PassedOver {
            file: candidate.file.clone(),
            version: candidate.loaded.version.clone(),
            digest: candidate.loaded.digest,
            reason,
        });
    }

    /// The candidates, newest first, with what serves now among them: after
    /// other content of its own file, before older versions. If its file is
    /// gone (somebody took the version back) it comes last. What nobody trusted
    /// vouches for any more is not good.
    fn with_last_good(&self, candidates: &[Candidate], before: Option<&Served>) -> Vec<Candidate> {
        let mut all = candidates.to_vec();
        if let Some(served) = before.filter(|served| served.bound.loaded().standing.is_good()) {
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
        let known = || self.terms.approvals.iter().chain(&self.automatic);
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

    /// What a proposal is compared with: what serves, or else what was
    /// approved last.
    fn known(&self) -> Option<&PermissionSet> {
        let serving = self.serving.as_ref();
        serving
            .map(|s| &s.bound.approval().permissions)
            .or_else(|| self.approved_last())
    }

    fn approved_last(&self) -> Option<&PermissionSet> {
        self.terms.approvals.last().map(|a| &a.permissions)
    }
}

fn propose(
    provider: &Provider,
    candidate: &Candidate,
    bound: &Bound,
    known: Option<&PermissionSet>,
) -> Proposal {
    let approval = bound.approval().clone();
    Proposal {
        provider: provider.name.clone(),
        preset: provider.preset.clone(),
        file: candidate.file.clone(),
        version: candidate.loaded.version.clone(),
        origin: candidate.loaded.standing.origin(),
        difference: PermissionSet::difference(known, &approval.permissions),
        approval,
    }
}
