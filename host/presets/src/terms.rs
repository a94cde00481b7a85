//! What administrators decided about the versions of a preset.

use std::collections::BTreeSet;

use countersign_core::names::Digest;

use crate::approval::Approval;
use crate::catalog::compare_versions;

/// Which versions may serve a provider. The server keeps it; the catalog takes
/// the newest version that all of it allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// What was approved for the provider, oldest first.
    pub approvals: Vec<Approval>,
    /// The one version that was chosen for it, as file names say it; none
    /// follows the newest.
    pub pinned: Option<String>,
    /// No version older than this serves anybody.
    pub floor: Option<String>,
    /// Contents that serve nobody, ever.
    pub revoked: BTreeSet<Digest>,
    /// Contents that were gone back from after faults: not for this provider,
    /// until somebody says otherwise.
    pub set_aside: BTreeSet<Digest>,
}

impl Terms {
    /// Why this content may not serve, whatever was approved.
    #[must_use]
    pub fn forbid(&self, version: &str, digest: &Digest) -> Option<String> {
        if self.revoked.contains(digest) {
            return Some("its digest is revoked".into());
        }
        if let Some(floor) = &self.floor
            && compare_versions(version, floor).is_lt()
        {
            return Some(format!("it is older than the floor {floor}"));
        }
        if let Some(pinned) = &self.pinned
            && compare_versions(version, pinned).is_ne()
        {
            return Some(format!("the provider is pinned to {pinned}"));
        }
        self.set_aside.contains(digest).then(|| {
            "it was gone back from after repeated faults; `preset unpin` tries it again".into()
        })
    }
}

impl From<&[Approval]> for Terms {
    fn from(approvals: &[Approval]) -> Self {
        Self {
            approvals: approvals.to_vec(),
            ..Self::default()
        }
    }
}

impl<const N: usize> From<&[Approval; N]> for Terms {
    fn from(approvals: &[Approval; N]) -> Self {
        approvals.as_slice().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_decision_keeps_a_version_from_serving() {
        let (good, bad) = (Digest::of(b"good"), Digest::of(b"bad"));
        let terms = |change: fn(&mut Terms, Digest)| {
            let mut terms = Terms::default();
            change(&mut terms, Digest::of(b"bad"));
            terms
        };
        let revoked = terms(|t, bad| t.revoked = [bad].into());
        let set_aside = terms(|t, bad| t.set_aside = [bad].into());
        let floor = terms(|t, _| t.floor = Some("1.2.0".into()));
        let pinned = terms(|t, _| t.pinned = Some("1.10.0".into()));
        let cases = [
            (&revoked, "2.0.0", bad, true),
            (&revoked, "2.0.0", good, false),
            (&set_aside, "2.0.0", bad, true),
            (&set_aside, "2.0.0", good, false),
            (&floor, "1.1.9", good, true),
            (&floor, "1.2.0-rc.1", good, true),
            (&floor, "1.2.0", good, false),
            (&floor, "1.10.0", good, false),
            (&pinned, "1.10.0", good, false),
            (&pinned, "1.9.0", good, true),
            (&pinned, "2.0.0", good, true),
        ];
        for (terms, version, digest, forbidden) in cases {
            let why = terms.forbid(version, &digest);
            assert_eq!(why.is_some(), forbidden, "{version} {terms:?}: {why:?}");
        }
    }
}
