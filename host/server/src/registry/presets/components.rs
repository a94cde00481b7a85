//! Policy components as administrators see them.

use countersign_core::names::Digest;
use countersign_core::policy::{Effect, Policy};
use countersign_presets::PolicyFile;
use serde::Serialize;

use super::OriginView;
use crate::registry::Registry;

/// A policy component, and who is judged by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct PolicyComponentView {
    /// Its name; the file's if that says none.
    pub name: String,
    /// As the file name says.
    pub version: Option<String>,
    /// SHA-256 of the component: what an approval names.
    pub digest: Option<String>,
    /// The file in `policies` of the catalog; empty if it is gone.
    pub file: String,
    /// `judges`, `ready`, `waiting` (a policy is judged by another version of
    /// it), `refused`; `kept` if it judges although its file is gone, `missing`
    /// if a policy refuses its calls because no file has its content.
    pub state: String,
    /// Why it is refused, or missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who vouches for it; absent if it may not judge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginView>,
    /// Policies that are judged by this content.
    pub policies: Vec<String>,
    /// Policies that are judged by another version of the component.
    pub waiting: Vec<String>,
}

/// A policy, and the component that judges for it.
struct Judged<'a> {
    policy: &'a Policy,
    name: &'a str,
    digest: Digest,
}

impl Registry {
    /// Every file of the folder of policy components, by name; then contents
    /// that policies name and no file has.
    #[must_use]
    pub fn policy_components(&self) -> Vec<PolicyComponentView> {
        let Some(folder) = self.presets.policies() else {
            return Vec::new();
        };
        let snapshot = self.snapshot();
        let judged: Vec<Judged<'_>> = snapshot
            .policies
            .values()
            .filter_map(|stored| judged(&stored.value))
            .collect();
        let files = folder.list();
        let gone = judged
            .iter()
            .filter(|j| !files.iter().any(|f| f.digest == Some(j.digest)));
        let gone: Vec<_> = gone
            .map(|j| {
                let Effect::Component { settings, .. } = &j.policy.effect else {
                    return without_a_file(j, None);
                };
                let bound = folder.bind(j.name, j.digest, settings);
                without_a_file(j, bound.err().map(|why| why.to_string()))
            })
            .collect();
        let mut views: Vec<_> = files.into_iter().map(|f| view(f, &judged)).collect();
        views.extend(gone);
        views
    }
}

fn judged(policy: &Policy) -> Option<Judged<'_>> {
    match &policy.effect {
        Effect::Component { name, digest, .. } => Some(Judged {
            policy,
            name: name.as_str(),
            digest: *digest,
        }),
        _ => None,
    }
}

fn view(file: PolicyFile, judged: &[Judged<'_>]) -> PolicyComponentView {
    let of_name = || {
        let name = file.name.as_ref().map(|name| name.as_str());
        judged.iter().filter(move |j| Some(j.name) == name)
    };
    let names = |these: &mut dyn Iterator<Item = &Judged<'_>>| -> Vec<String> {
        these.map(|j| j.policy.name.to_string()).collect()
    };
    let is_this = |j: &&Judged<'_>| Some(j.digest) == file.digest;
    let policies = names(&mut of_name().filter(is_this));
    let waiting = match file.refused {
        Some(_) => Vec::new(),
        None => names(&mut of_name().filter(|j| !is_this(j))),
    };
    let state = match (&file.refused, policies.is_empty(), waiting.is_empty()) {
        (Some(_), ..) => "refused",
        (None, false, _) => "judges",
        (None, true, false) => "waiting",
        (None, true, true) => "ready",
    };
    PolicyComponentView {
        state: state.into(),
        policies,
        waiting,
        name: file
            .name
            .map_or_else(|| file.file.clone(), |name| name.to_string()),
        version: file.version,
        digest: file.digest.map(|d| d.to_string()),
        reason: file.refused,
        origin: file.origin.map(OriginView::from),
        file: file.file,
    }
}

fn without_a_file(judged: &Judged<'_>, missing: Option<String>) -> PolicyComponentView {
    let state = if missing.is_some() { "missing" } else { "kept" };
    PolicyComponentView {
        name: judged.name.to_owned(),
        version: None,
        digest: Some(judged.digest.to_string()),
        file: String::new(),
        state: state.into(),
        reason: missing,
        origin: None,
        policies: vec![judged.policy.name.to_string()],
        waiting: Vec::new(),
    }
}
