//! Why a call could not go through, and the one place where that becomes a
//! word, a JSON-RPC code and an HTTP status.

use std::time::Duration;

use serde::Serialize;

use crate::approval::ApprovalId;
use crate::connection::ReauthReason;
use crate::names::{CallId, PolicyName, ProviderName, ServerName};
use crate::policy::Objection;
use crate::preset::PresetFault;
use crate::scope::ScopeSet;

/// Each variant says whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The user has not connected an account.
    #[error("You have not connected your {provider} account yet.")]
    NeedsConnection {
        /// Where.
        provider: String,
    },
    /// The connection lacks scopes.
    #[error("Your {provider} connection lacks permission: {}.", missing.join(", "))]
    NeedsScopes {
        /// Where.
        provider: String,
        /// What is missing.
        missing: ScopeSet,
    },
    /// The connection has ended.
    #[error("Your {provider} connection has ended ({}).", reason.word())]
    NeedsReauth {
        /// Where.
        provider: String,
        /// Why.
        reason: ReauthReason,
    },
    /// The operator's rules or the preset refused.
    #[error("{message}")]
    Denied {
        /// A short, stable word.
        code: String,
        /// For the user.
        message: String,
    },
    /// A policy refused.
    #[error("{message}")]
    PolicyDenied {
        /// Which one.
        policy: PolicyName,
        /// A short, stable word.
        code: String,
        /// For the user.
        message: String,
    },
    /// A policy's component could not judge.
    #[error("The policy {policy} could not judge this call: {}.", in_words(fault))]
    PolicyFailed {
        /// Which one.
        policy: PolicyName,
        /// How it failed.
        fault: PresetFault,
    },
    /// A policy wants the user's word first.
    #[error("{message}")]
    ApprovalRequired {
        /// Which one; of several, the first.
        policy: PolicyName,
        /// What is asked.
        message: String,
        /// Where the user answers; none if he has no browser sign-in here.
        page: Option<ApprovalId>,
    },
    /// The preset failed.
    #[error("{0}")]
    Preset(PresetFault),
    /// The preset could not look through the answer. It may have been the answer
    /// to a call that was carried out, so nobody should repeat it blindly.
    #[error(
        "The server answered, but its answer is withheld because the preset could not look through it: {0}. The call itself may have been carried out."
    )]
    Withheld(PresetFault),
    /// Too many at once.
    #[error("Countersign is busy; try again in {} s.", retry_after.as_secs())]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// Too many from this caller.
    #[error("Too many requests; try again in {} s.", retry_after.as_secs())]
    RateLimited {
        /// When to try again.
        retry_after: Duration,
    },
    /// The provider's authorization server does not work right now.
    #[error("{provider} cannot renew the connection right now ({detail}); try again later.")]
    ProviderUnavailable {
        /// Which.
        provider: String,
        /// Without anything the provider sent.
        detail: String,
    },
    /// The provider's authorization server gives this installation no access.
    #[error("{provider} gives no access: {detail}. An administrator can mend that.")]
    ProviderRefused {
        /// Which.
        provider: String,
        /// Without anything the provider sent but a known error code.
        detail: String,
    },
    /// The MCP server cannot be reached, or does not speak MCP.
    #[error("The server does not answer as an MCP server should: {detail}.")]
    UpstreamUnavailable {
        /// Without anything the upstream sent.
        detail: String,
    },
    /// The MCP server took too long.
    #[error("The server did not answer in time.")]
    UpstreamTimeout,
}

/// A fault of a component that is no preset.
fn in_words(fault: &PresetFault) -> String {
    fault.to_string().replacen("the preset", "its component", 1)
}

impl From<Objection> for CallError {
    fn from(objection: Objection) -> Self {
        match objection {
            Objection::Denied {
                policy,
                code,
                message,
            } => Self::PolicyDenied {
                policy,
                code,
                message,
            },
            Objection::Failed { policy, fault } => Self::PolicyFailed { policy, fault },
        }
    }
}

impl ScopeSet {
    fn words(&self) -> Vec<String> {
        self.iter().map(ToString::to_string).collect()
    }
}

/// CONTRACT's machine-readable object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorFacts {
    /// The word.
    pub error: &'static str,
    /// Whose authorization is at stake.
    pub provider: Option<String>,
    /// The server called.
    pub server: String,
    /// Missing scopes; those that will be asked for, where nothing is connected.
    pub scopes: Vec<String>,
    /// A finer word.
    pub reason: Option<String>,
    /// Where the user has to go.
    pub authorize_url: Option<String>,
    /// Under which the audit log has it.
    pub call_id: String,
}

impl CallError {
    /// The word of CONTRACT.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NeedsConnection { .. } => "oauth_connection_required",
            Self::NeedsScopes { .. } => "scope_upgrade_required",
            Self::NeedsReauth { .. } => "oauth_token_expired",
            Self::Denied { .. } | Self::PolicyDenied { .. } => "denied",
            Self::ApprovalRequired { .. } => "approval_required",
            Self::Preset(fault) | Self::Withheld(fault) | Self::PolicyFailed { fault, .. } => {
                match fault {
                    PresetFault::Deadline => "preset_timeout",
                    PresetFault::Unavailable(_) => "preset_unavailable",
                    PresetFault::Busy => "busy",
                    _ => "preset_failed",
                }
            }
            Self::Busy { .. } => "busy",
            Self::RateLimited { .. } => "rate_limited",
            Self::ProviderUnavailable { .. } | Self::ProviderRefused { .. } => {
                "provider_unavailable"
            }
            Self::UpstreamUnavailable { .. } => "upstream_unavailable",
            Self::UpstreamTimeout => "upstream_timeout",
        }
    }

    /// The JSON-RPC code where it is carried as an error.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self.word() {
            "denied" => -31002,
            "preset_failed" => -31003,
            "preset_timeout" => -31004,
            "preset_unavailable" => -31005,
            "busy" | "rate_limited" => -31006,
            "provider_unavailable" => -31007,
            "upstream_unavailable" => -31008,
            "upstream_timeout" => -31009,
            _ => -31001,
        }
    }

    /// The HTTP status of the answer, and after how long to try again.
    #[must_use]
    pub fn http_status(&self) -> (u16, Option<Duration>) {
        match self {
            Self::RateLimited { retry_after } => (429, Some(*retry_after)),
            Self::Busy { retry_after } => (503, Some(*retry_after)),
            Self::Preset(PresetFault::Busy)
            | Self::PolicyFailed {
                fault: PresetFault::Busy,
                ..
            } => (503, Some(Duration::from_secs(1))),
            _ => (200, None),
        }
    }

    /// Whether the user can mend it by opening a page.
    #[must_use]
    pub fn wants_user(&self) -> bool {
        matches!(
            self,
            Self::NeedsConnection { .. }
                | Self::NeedsScopes { .. }
                | Self::NeedsReauth { .. }
                | Self::ApprovalRequired { .. }
        )
    }

    /// The code, if somebody said no for good.
    #[must_use]
    pub fn denial(&self) -> Option<&str> {
        match self {
            Self::Denied { code, .. } | Self::PolicyDenied { code, .. } => Some(code),
            _ => None,
        }
    }

    fn reason(&self) -> Option<String> {
        match self {
            Self::NeedsReauth { reason, .. } => Some(reason.word().to_owned()),
            Self::Denied { code, .. } | Self::PolicyDenied { code, .. } => Some(code.clone()),
            Self::ApprovalRequired { page: None, .. } => {
                Some(ReauthReason::NoBrowserIdentity.word().to_owned())
            }
            _ => None,
        }
    }

    /// The object that goes into `data.countersign` or `_meta.countersign`.
    #[must_use]
    pub fn facts(
        &self,
        server: &ServerName,
        provider: Option<&ProviderName>,
        authorize_url: Option<String>,
        call_id: &CallId,
    ) -> ErrorFacts {
        let scopes = match self {
            Self::NeedsScopes { missing, .. } => missing.words(),
            _ => Vec::new(),
        };
        ErrorFacts {
            error: self.word(),
            provider: provider.map(ToString::to_string),
            server: server.to_string(),
            scopes,
            reason: self.reason(),
            authorize_url,
            call_id: call_id.to_string(),
        }
    }
}
