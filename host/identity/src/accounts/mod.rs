//! Users, teams and roles, and who may change them.

mod roles;
mod teams;
mod user;
mod users;

use std::future::Future;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::caller::{Caller, MissingPermission};
use countersign_core::names::InvalidName;
use countersign_core::ports::StoreError;
use http::StatusCode;

use crate::password::{HasherBusy, WeakPassword};
use crate::service::Identity;

pub use teams::Team;
pub(crate) use teams::team_write;
pub use user::{AccountKind, UserView};
pub(crate) use user::{PasswordState, User, user_key};
pub use users::{NewUser, UserPatch};

/// Why an administrative request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The caller may not.
    #[error(transparent)]
    Missing(#[from] MissingPermission),
    /// It would give somebody more than the caller has, or touch somebody who has more.
    #[error("permission denied: {0}")]
    Beyond(String),
    /// There is no such thing.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// `user`, `team` …
        what: &'static str,
        /// What was asked for.
        name: String,
    },
    /// It exists already.
    #[error("the {what} {name:?} exists already; choose another name, or change it")]
    Exists {
        /// `user`, `team` …
        what: &'static str,
        /// The name.
        name: String,
    },
    /// It is still needed.
    #[error("{0}")]
    InUse(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// An API token for oneself needs a recent sign-in.
    #[error(
        "creating a token needs a fresh sign-in: sign in again (`countersign login`, or the browser) and retry"
    )]
    NotFresh,
    /// Too much at once.
    #[error("Countersign is busy; try again in a moment")]
    Busy,
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AdminError {
    pub(crate) fn not_found(what: &'static str, name: impl ToString) -> Self {
        Self::NotFound {
            what,
            name: name.to_string(),
        }
    }

    pub(crate) fn exists(
        what: &'static str,
        name: impl ToString,
    ) -> impl FnOnce(StoreError) -> Self {
        let name = name.to_string();
        move |error| match error {
            StoreError::Conflict => Self::Exists { what, name },
            other => Self::Store(other),
        }
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing(_) | Self::Beyond(_) | Self::NotFresh => StatusCode::FORBIDDEN,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Exists { .. } | Self::InUse(_) | Self::Store(StoreError::Conflict) => {
                StatusCode::CONFLICT
            }
            Self::Invalid(_) | Self::Store(StoreError::TooLarge { .. }) => StatusCode::BAD_REQUEST,
            Self::Busy | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// CONTRACT's `missing_permission`.
    #[must_use]
    pub fn missing_permission(&self) -> Option<&str> {
        match self {
            Self::Missing(MissingPermission(name)) => Some(name),
            _ => None,
        }
    }
}

impl Identity {
    /// Does an administrative act, and writes down if it was refused to the
    /// actor: what was done writes its own event, a slip of the pen writes none.
    pub(crate) async fn concluded<T>(
        &self,
        actor: &Caller,
        action: &str,
        resource: String,
        act: impl Future<Output = Result<T, AdminError>>,
    ) -> Result<T, AdminError> {
        let error = match act.await {
            Err(error) if error.status() == StatusCode::FORBIDDEN => error,
            other => return other,
        };
        let mut event = AuditEvent::new(self.now(), action, Outcome::Denied)
            .by(&actor.user)
            .on(resource)
            .detail(error.to_string());
        event.team = Some(actor.team.to_string());
        event.client = Some(actor.client.to_string());
        self.audit(event).await?;
        Err(error)
    }
}

impl From<WeakPassword> for AdminError {
    fn from(weak: WeakPassword) -> Self {
        Self::Invalid(weak.to_string())
    }
}

impl From<InvalidName> for AdminError {
    fn from(invalid: InvalidName) -> Self {
        Self::Invalid(invalid.to_string())
    }
}

impl From<HasherBusy> for AdminError {
    fn from(_: HasherBusy) -> Self {
        Self::Busy
    }
}
