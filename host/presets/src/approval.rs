//! What an administrator agreed to, and what follows from it.

use countersign_core::names::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::permissions::PermissionSet;

/// What an administrator approved: this component, under these settings, with
/// these permissions. The server keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Of the component.
    pub digest: Digest,
    /// Of the provider's settings, in canonical form.
    pub settings: Digest,
    /// What was shown and agreed to.
    pub permissions: PermissionSet,
}

/// The digest of an [`Approval`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApprovalHash(pub Digest);

impl std::fmt::Display for ApprovalHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Approval {
    /// Changes with any of the three.
    #[must_use]
    pub fn hash(&self) -> ApprovalHash {
        let mut bytes = Vec::with_capacity(96);
        for digest in [self.digest, self.settings, self.permissions.digest()] {
            bytes.extend_from_slice(digest.as_bytes());
        }
        ApprovalHash(Digest::of(&bytes))
    }

    /// Whether it also allows `other` to replace it without being asked: the
    /// same settings and no permission more.
    #[must_use]
    pub fn allows_update_to(&self, other: &Self) -> bool {
        self.settings == other.settings && other.permissions.is_same_or_narrower(&self.permissions)
    }
}

/// Settings as text, with members in order of name: the same settings are the
/// same text, and that is what the guest gets and what is hashed.
#[must_use]
pub fn canonical_settings(settings: &Map<String, Value>) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let mut names: Vec<&String> = members.keys().collect();
                names.sort();
                names
                    .into_iter()
                    .filter_map(|name| {
                        members
                            .get(name)
                            .map(|member| (name.clone(), sorted(member)))
                    })
                    .collect::<Map<_, _>>()
                    .into()
            }
            Value::Array(items) => items.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    sorted(&Value::Object(settings.clone())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_scopes(scopes: &[&str]) -> PermissionSet {
        PermissionSet {
            scopes: scopes.iter().map(ToString::to_string).collect(),
            ..PermissionSet::default()
        }
    }

    #[test]
    fn an_approval_changes_with_component_settings_and_permissions() {
        let base = Approval {
            digest: Digest::of(b"1"),
            settings: Digest::of(b"2"),
            permissions: with_scopes(&["a"]),
        };
        let others = [
            Approval {
                digest: Digest::of(b"x"),
                ..base.clone()
            },
            Approval {
                settings: Digest::of(b"x"),
                ..base.clone()
            },
            Approval {
                permissions: with_scopes(&["b"]),
                ..base.clone()
            },
        ];
        for other in others {
            assert_ne!(base.hash(), other.hash());
        }
        assert_ne!(
            with_scopes(&["ab"]).digest(),
            with_scopes(&["a", "b"]).digest()
        );
    }

    #[test]
    fn settings_are_the_same_text_in_any_order() {
        let parse = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let one = canonical_settings(&parse(r#"{"b":1,"a":{"d":2,"c":[{"y":1,"x":2}]}}"#));
        let two = canonical_settings(&parse(r#"{"a":{"c":[{"x":2,"y":1}],"d":2},"b":1}"#));
        assert_eq!(one, two);
    }
}
