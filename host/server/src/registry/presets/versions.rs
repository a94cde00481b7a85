//! Which version serves: floors, revoked digests, pins, and the way back.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_core::caller::Caller;
use countersign_core::names::{Digest, PresetName};
use countersign_core::ports::{Expect, Kind, RecordKey, StoreError, Write, put};
use countersign_core::provider::Provider;
use countersign_presets::{FileState, Proposal, Terms, compare_versions, is_version};
use serde::Serialize;

use crate::registry::text::cut;
use crate::registry::{Choice, Enablement, Refusal, Registry, Snapshot};

/// Revoked digests of one preset: they are kept in one record.
const MOST_REVOKED: usize = 64;

/// Which version serves a provider from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Chosen {
    /// Which provider.
    pub provider: String,
    /// What served before.
    pub from: Option<String>,
    /// What serves now.
    pub to: Option<String>,
    /// The version that was chosen; absent if it follows the newest.
    pub pinned: Option<String>,
}

/// What holds for every provider of a preset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Rules {
    /// No version older than this serves anybody.
    pub floor: Option<String>,
    /// Contents that serve nobody, ever.
    #[schema(value_type = Vec<String>)]
    pub revoked: BTreeSet<Digest>,
}

impl Rules {
    /// The state and the reason of a version that these keep from serving.
    pub(super) fn against(&self, version: &str, digest: &Digest) -> Option<(&'static str, String)> {
        let terms = Terms {
            floor: self.floor.clone(),
            revoked: self.revoked.clone(),
            ..Terms::default()
        };
        let why = terms.forbid(version, digest)?;
        let word = if self.revoked.contains(digest) {
            "revoked"
        } else {
            "below_floor"
        };
        Some((word, why))
    }
}

impl Snapshot {
    /// What holds for every provider of a preset.
    #[must_use]
    pub fn rules(&self, preset: &PresetName) -> Rules {
        self.enablements
            .get(preset)
            .map_or_else(Rules::default, |e| Rules {
                floor: e.value.floor.clone(),
                revoked: e.value.revoked.clone(),
            })
    }
}

impl Registry {
    /// Sets or lifts the oldest version that may serve.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn set_preset_floor(
        &self,
        caller: &Caller,
        name: &str,
        floor: Option<String>,
    ) -> Result<PresetName, Refusal> {
        if let Some(floor) = floor.as_deref().filter(|v| !is_version(v)) {
            return Err(Refusal::invalid(
                "floor",
                format!("{:?} is not a version like 1.2.0", cut(floor)),
            ));
        }
        let detail = match &floor {
            Some(floor) => format!("nothing older than {floor}"),
            None => "no floor any more".into(),
        };
        self.change_rules(caller, name, "preset.floor", detail, |document| {
            document.floor = floor;
            Ok(())
        })
        .await
    }

    /// Revokes a content, or takes that back: a digest, or the version or file
    /// that has it now.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn revoke_preset(
        &self,
        caller: &Caller,
        name: &str,
        content: &str,
        undo: bool,
    ) -> Result<PresetName, Refusal> {
        let digest = self.digest_of(name, content)?;
        let word = if undo { "no longer revoked" } else { "revoked" };
        let detail = format!("{digest} {word}");
        self.change_rules(caller, name, "preset.revoke", detail, |document| {
            if undo {
                document.revoked.remove(&digest);
            } else if document.revoked.len() >= MOST_REVOKED {
                return Err(Refusal::invalid(
                    "content",
                    format!(
                        "is one more than {MOST_REVOKED} revoked digests; set a floor above them instead, and take old ones back"
                    ),
                ));
            } else {
                document.revoked.insert(digest);
            }
            Ok(())
        })
        .await
    }

    fn digest_of(&self, name: &str, content: &str) -> Result<Digest, Refusal> {
        if let Ok(digest) = Digest::try_from(content.to_owned()) {
            return Ok(digest);
        }
        let (_, preset) = self.catalog_entry(name)?;
        let entries = self.presets.list();
        let of_preset = || {
            entries
                .iter()
                .filter(|e| e.preset.as_ref() == Some(&preset))
        };
        let found = of_preset()
            .find(|e| e.file == content || e.version.as_deref() == Some(content))
            .and_then(|e| e.digest);
        found.ok_or_else(|| Refusal::Unknown {
            field: "content".into(),
            what: "version",
            name: cut(content),
            known: of_preset().filter_map(|e| e.version.clone()).collect(),
        })
    }

    async fn change_rules(
        &self,
        caller: &Caller,
        name: &str,
        action: &str,
        detail: String,
        change: impl FnOnce(&mut Enablement) -> Result<(), Refusal>,
    ) -> Result<PresetName, Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("preset:{}", cut(name));
        let work = async {
            let preset = self.known_preset(name)?;
            caller
                .permissions
                .demand("preset_approve", Some(preset.as_str()))?;
            self.store_enablement(caller, &preset, change).await?;
            self.bind_those_of(&preset).await;
            Ok((preset, detail))
        };
        let result = work.await;
        self.conclude(caller, action, resource, result).await
    }

    /// A preset of the catalog, or one that something was decided about.
    pub(super) fn known_preset(&self, name: &str) -> Result<PresetName, Refusal> {
        let decided = PresetName::parse(name)
            .ok()
            .filter(|n| self.snapshot().enablements.contains_key(n));
        match decided {
            Some(preset) => Ok(preset),
            None => Ok(self.catalog_entry(name)?.1),
        }
    }

    /// Writes whether a preset may be used, and what holds for all of its
    /// providers.
    pub(super) async fn store_enablement(
        &self,
        caller: &Caller,
        preset: &PresetName,
        change: impl FnOnce(&mut Enablement) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let snapshot = self.snapshot();
        let existing = snapshot.enablements.get(preset);
        let mut document = existing.map_or_else(
            || Enablement {
                preset: preset.clone(),
                enabled: false,
                floor: None,
                revoked: BTreeSet::new(),
                by: caller.user.clone(),
                at: self.world.clock.now(),
            },
            |e| Enablement::clone(&e.value),
        );
        change(&mut document)?;
        document.by = caller.user.clone();
        document.at = self.world.clock.now();
        let expect = existing.map_or(Expect::Absent, |e| Expect::At(e.revision));
        let key = RecordKey::new(Kind::Preset, preset.as_str());
        self.store(vec![put(key, expect, &document)?]).await?;
        self.refresh().await?;
        Ok(())
    }

    /// Chooses the version that serves a provider, or all providers of the
    /// preset. `hash` approves it too, if it names what would serve.
    ///
    /// # Errors
    /// [`Refusal`]; [`Refusal::NotApproved`] says the hash.
    pub async fn pin_preset(
        &self,
        caller: &Caller,
        name: &str,
        provider: Option<&str>,
        version: &str,
        hash: Option<&str>,
    ) -> Result<Vec<Chosen>, Refusal> {
        self.choose(caller, name, provider, "preset.pin", |provider, _| {
            let (version, hash) = (version.to_owned(), hash.map(str::to_owned));
            Box::pin(async move {
                let proposal = self.propose(&provider, Some(version)).await?;
                self.pinned_to(caller, &provider, proposal, hash.as_deref())
            })
        })
        .await
    }

    /// Lets providers follow the newest approved version again, also one that
    /// was gone back from after faults.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn unpin_preset(
        &self,
        caller: &Caller,
        name: &str,
        provider: Option<&str>,
    ) -> Result<Vec<Chosen>, Refusal> {
        self.choose(caller, name, provider, "preset.unpin", |provider, _| {
            let write = self.choice_write(&provider, |choice| {
                choice.version = None;
                choice.set_aside.clear();
            });
            Box::pin(async move { Ok(vec![write?]) })
        })
        .await
    }

    /// Goes back to the version before the one that serves (the newest older
    /// one that is approved), or to the one that is named, and stays there.
    ///
    /// # Errors
    /// [`Refusal`]; [`Refusal::NotApproved`] says the hash.
    pub async fn rollback_preset(
        &self,
        caller: &Caller,
        name: &str,
        provider: Option<&str>,
        version: Option<&str>,
        hash: Option<&str>,
    ) -> Result<Vec<Chosen>, Refusal> {
        self.choose(
            caller,
            name,
            provider,
            "preset.rollback",
            |provider, snapshot| {
                let (version, hash) = (version.map(str::to_owned), hash.map(str::to_owned));
                Box::pin(async move {
                    let proposal = match version {
                        Some(version) => self.propose(&provider, Some(version)).await?,
                        None => self.version_before(&provider, &snapshot).await?,
                    };
                    self.pinned_to(caller, &provider, proposal, hash.as_deref())
                })
            },
        )
        .await
    }

    /// The newest approved version that is older than the one that serves; if
    /// none is approved, the newest older one.
    async fn version_before(
        &self,
        provider: &Provider,
        snapshot: &Snapshot,
    ) -> Result<Proposal, Refusal> {
        let serving = self.presets.binding(&provider.name).and_then(|b| b.serving);
        let Some(serving) = serving else {
            return Err(Refusal::invalid(
                "version",
                format!("is needed: no version serves {} now", provider.name),
            ));
        };
        let terms = snapshot.terms_of(provider);
        let mut older: Vec<_> = self
            .presets
            .list()
            .into_iter()
            .filter(|e| e.preset.as_ref() == Some(&provider.preset))
            .filter(|e| matches!(e.state, FileState::Loaded | FileState::NeedsSettings { .. }))
            .filter_map(|e| Some((e.version?, e.file, e.digest?)))
            .filter(|(version, _, digest)| {
                let unpinned = Terms {
                    pinned: None,
                    ..terms.clone()
                };
                compare_versions(version, &serving.version).is_lt()
                    && unpinned.forbid(version, digest).is_none()
            })
            .collect();
        older.sort_by(|(a, ..), (b, ..)| compare_versions(b, a));
        let mut newest = None;
        for (_, file, _) in older {
            let Ok(proposal) = self.propose(provider, Some(file)).await else {
                continue;
            };
            if terms.approvals.contains(&proposal.approval) {
                return Ok(proposal);
            }
            newest.get_or_insert(proposal);
        }
        newest.ok_or_else(|| {
            Refusal::invalid(
                "version",
                format!(
                    "there is nothing older than {} that may serve {}: put an older version into the catalog \
                     directory, or disable the preset",
                    serving.version, provider.name
                ),
            )
        })
    }

    /// The writes that pin a provider to what is proposed, with its approval
    /// if `hash` names it.
    fn pinned_to(
        &self,
        caller: &Caller,
        provider: &Provider,
        proposal: Proposal,
        hash: Option<&str>,
    ) -> Result<Vec<Write>, Refusal> {
        let snapshot = self.snapshot();
        let terms = Terms {
            pinned: None,
            set_aside: BTreeSet::new(),
            ..snapshot.terms_of(provider)
        };
        let digest = proposal.approval.digest;
        if let Some(reason) = terms.forbid(&proposal.version, &digest) {
            return Err(Refusal::invalid(
                "version",
                format!("{} may not serve: {reason}", proposal.version),
            ));
        }
        let mut writes = vec![self.choice_write(provider, |choice| {
            choice.version = Some(proposal.version.clone());
            choice.set_aside.retain(|s| s.digest != digest);
        })?];
        if !terms.approvals.contains(&proposal.approval) {
            self.remember_shown(&proposal);
            let now = proposal.approval.hash().to_string();
            match hash {
                Some(hash) if hash == now => writes.extend(self.approve_writes(
                    caller,
                    provider,
                    &proposal.approval,
                    &snapshot,
                )?),
                Some(hash) => return Err(self.changed_since(hash, &[proposal])),
                None => {
                    let lines: Vec<String> = proposal
                        .difference
                        .lines()
                        .map(|(_, word, entry)| format!("{word} {entry}"))
                        .collect();
                    let lines = if lines.is_empty() {
                        "it asks for what serves now has, too".into()
                    } else {
                        lines.join("; ")
                    };
                    return Err(Refusal::NotApproved(format!(
                        "{} {} is not approved for {} as it would be now ({lines}); to approve it with this, \
                         give its hash {now}",
                        proposal.preset, proposal.version, provider.name
                    )));
                }
            }
        }
        Ok(writes)
    }

    /// The write that changes what was chosen for a provider.
    pub(super) fn choice_write(
        &self,
        provider: &Provider,
        change: impl FnOnce(&mut Choice),
    ) -> Result<Write, StoreError> {
        let snapshot = self.snapshot();
        let stored = snapshot.choices.get(&provider.name);
        let old = snapshot.choice(&provider.name, &provider.preset);
        let mut choice = old.cloned().unwrap_or_else(|| Choice {
            provider: provider.name.clone(),
            preset: provider.preset.clone(),
            version: None,
            set_aside: Vec::new(),
            at: self.world.clock.now(),
        });
        change(&mut choice);
        choice.at = self.world.clock.now();
        let expect = stored.map_or(Expect::Absent, |s| Expect::At(s.revision));
        put(Choice::key(&provider.name), expect, &choice)
    }

    /// Changes what was chosen for one provider or for all of a preset: all of
    /// them, or none if one is refused.
    async fn choose<'a>(
        &'a self,
        caller: &'a Caller,
        name: &str,
        only: Option<&str>,
        action: &str,
        writes: impl Fn(Arc<Provider>, Arc<Snapshot>) -> Writes<'a>,
    ) -> Result<Vec<Chosen>, Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("preset:{}", cut(name));
        let work = async {
            let preset = self.known_preset(name)?;
            caller
                .permissions
                .demand("preset_approve", Some(preset.as_str()))?;
            let snapshot = self.snapshot();
            self.demand_usable(&preset, &snapshot)?;
            let providers = self.providers_of(&preset, only, &snapshot)?;
            if providers.is_empty() {
                return Err(Refusal::invalid(
                    "provider",
                    format!("no provider uses the preset {preset} yet"),
                ));
            }
            let mut all = Vec::new();
            let mut chosen = Vec::new();
            for provider in &providers {
                all.extend(writes(Arc::clone(provider), Arc::clone(&snapshot)).await?);
                chosen.push((Arc::clone(provider), self.version_of(provider)));
            }
            self.store(all).await?;
            self.refresh().await?;
            let snapshot = self.snapshot();
            let mut done = Vec::new();
            for (provider, from) in chosen {
                self.bind(&provider, &snapshot).await;
                let choice = snapshot.choice(&provider.name, &provider.preset);
                done.push(Chosen {
                    provider: provider.name.to_string(),
                    from,
                    to: self.version_of(&provider),
                    pinned: choice.and_then(|c| c.version.clone()),
                });
            }
            let detail: Vec<String> = done.iter().map(in_words).collect();
            Ok((done, detail.join("; ")))
        };
        let result = work.await;
        self.conclude(caller, action, resource, result).await
    }

    fn version_of(&self, provider: &Provider) -> Option<String> {
        let status = self.presets.binding(&provider.name)?;
        Some(status.serving?.version)
    }
}

/// The writes for one provider.
type Writes<'a> = countersign_core::ports::BoxFuture<'a, Result<Vec<Write>, Refusal>>;

fn in_words(chosen: &Chosen) -> String {
    let version = |v: &Option<String>| v.clone().unwrap_or_else(|| "none".into());
    format!(
        "{} from {} to {}",
        chosen.provider,
        version(&chosen.from),
        version(&chosen.to)
    )
}
