//! Why the registry did not do it. Every sentence says what to do next.

use countersign_core::caller::{MissingPermission, Permissions};
use countersign_core::names::InvalidName;
use countersign_core::ports::StoreError;

/// Why the registry did not do it. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field's value is not acceptable, by itself or beside another one.
    #[error("{field}: {problem}")]
    Invalid {
        /// CONTRACT's field name (`auth.provider`).
        field: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
    /// A field refers to something that does not exist.
    #[error("{field}: {what} {name} not found; {}", known_in_words(what, known))]
    Unknown {
        /// CONTRACT's field name.
        field: String,
        /// The kind of thing.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// What the request is about does not exist.
    #[error("{what} {name} not found; {}", known_in_words(what, known))]
    NotFound {
        /// The kind of thing.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// It does not exist, and the caller may not know what does.
    #[error("{}{what} {name} not found; who may see what there is has the permission {what}_list", field.as_ref().map_or_else(String::new, |f| format!("{f}: ")))]
    Unlisted {
        /// CONTRACT's field name, if a field refers to it.
        field: Option<String>,
        /// The kind of thing.
        what: &'static str,
        /// What was asked for.
        name: String,
    },
    /// The name is taken.
    #[error(
        "{what} {name} exists already; change it with `{what} update {name}` or choose another name"
    )]
    Exists {
        /// The kind of thing.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The field can't be changed after creation.
    #[error("{field} cannot be changed; delete the {what} and create another one")]
    Immutable {
        /// The kind of thing.
        what: &'static str,
        /// CONTRACT's field name.
        field: &'static str,
    },
    /// Something still depends on it.
    #[error("{what} {name} is in use by {}; {remedy}", by.join(", "))]
    InUse {
        /// The kind of thing.
        what: &'static str,
        /// The name.
        name: String,
        /// Who depends on it.
        by: Vec<String>,
        /// What to do.
        remedy: &'static str,
    },
    /// The preset is in the catalog, but an administrator has not enabled it.
    #[error("preset {0} is not enabled; run `countersign preset enable {0}` first")]
    PresetNotEnabled(String),
    /// What was looked at is not what there is now.
    #[error("{0}")]
    Changed(String),
    /// A version of a preset that nobody has approved as it is now.
    #[error("{0}")]
    NotApproved(String),
    /// What is at an address could not be found out.
    #[error("{field}: {problem}")]
    Undiscovered {
        /// CONTRACT's field name.
        field: &'static str,
        /// Why, and what to do.
        problem: String,
    },
    /// Something that is there already serves the purpose.
    #[error("{0}")]
    Reusable(String),
    /// The configuration forbids it.
    #[error("{0}")]
    Forbidden(String),
    /// The caller's roles do not allow it.
    #[error("{0}; ask an administrator for a role that has it")]
    Permission(MissingPermission),
    /// Somebody else wrote first.
    #[error("it was changed by somebody else meanwhile; read it again and repeat the change")]
    Conflict,
    /// The store failed; the change is not acknowledged.
    #[error("the store does not work: {0}")]
    Store(StoreError),
}

fn known_in_words(what: &str, known: &[String]) -> String {
    const SHOWN: usize = 12;
    match known.len() {
        0 => format!("there is no {what} yet"),
        n if n > SHOWN => format!(
            "there are {}, and {} more",
            known[..SHOWN].join(", "),
            n - SHOWN
        ),
        1 => format!("there is {}", known.join(", ")),
        _ => format!("there are {}", known.join(", ")),
    }
}

impl Refusal {
    /// A field's value is not acceptable.
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            problem: problem.into(),
        }
    }

    /// The same for somebody who may not list what there is: names tell what
    /// is attached, and where to aim.
    #[must_use]
    pub fn told_to(self, permissions: &Permissions) -> Self {
        let hidden = |what: &str| !permissions.allow(&format!("{what}_list"), None);
        match self {
            Self::Unknown {
                field, what, name, ..
            } if hidden(what) => Self::Unlisted {
                field: Some(field),
                what,
                name,
            },
            Self::NotFound { what, name, .. } if hidden(what) => Self::Unlisted {
                field: None,
                what,
                name,
            },
            Self::Reusable(_) if hidden("provider") => Self::Reusable(
                "there is a provider or a preset for its authorization server already; who may see which has the                  permission provider_list. With force another client is registered"
                    .into(),
            ),
            other => other,
        }
    }

    /// A name that breaks its rule.
    pub fn name(field: impl Into<String>, error: &InvalidName) -> Self {
        Self::invalid(
            field,
            format!(
                "{:?} is not a {}: use {}",
                error.value, error.what, error.rule
            ),
        )
    }

    /// The word of the problem document's type.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::Unknown { .. } | Self::Unlisted { field: Some(_), .. } => "unknown-reference",
            Self::NotFound { .. } | Self::Unlisted { field: None, .. } => "not-found",
            Self::Exists { .. } => "already-exists",
            Self::Immutable { .. } => "immutable",
            Self::InUse { .. } => "in-use",
            Self::PresetNotEnabled(_) => "preset-not-enabled",
            Self::Changed(_) => "changed",
            Self::NotApproved(_) => "not-approved",
            Self::Undiscovered { .. } => "discovery-failed",
            Self::Reusable(_) => "reusable-match",
            Self::Forbidden(_) => "forbidden-by-configuration",
            Self::Permission(_) => "permission-missing",
            Self::Conflict => "conflict",
            Self::Store(_) => "store-unavailable",
        }
    }

    /// The HTTP status it is answered with.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Invalid { .. }
            | Self::Unknown { .. }
            | Self::Unlisted { field: Some(_), .. }
            | Self::Immutable { .. } => 400,
            Self::Undiscovered { .. } => 422,
            Self::Permission(_) => 403,
            Self::NotFound { .. } | Self::Unlisted { field: None, .. } => 404,
            Self::Exists { .. }
            | Self::InUse { .. }
            | Self::PresetNotEnabled(_)
            | Self::Changed(_)
            | Self::NotApproved(_)
            | Self::Reusable(_)
            | Self::Forbidden(_)
            | Self::Conflict => 409,
            Self::Store(StoreError::TooLarge { .. }) => 400,
            Self::Store(_) => 503,
        }
    }

    /// The field it is about.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Invalid { field, .. } | Self::Unknown { field, .. } => Some(field),
            Self::Immutable { field, .. } | Self::Undiscovered { field, .. } => Some(field),
            Self::Unlisted { field, .. } => field.as_deref(),
            _ => None,
        }
    }
}

impl From<MissingPermission> for Refusal {
    fn from(missing: MissingPermission) -> Self {
        Self::Permission(missing)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::Conflict,
            other => Self::Store(other),
        }
    }
}
