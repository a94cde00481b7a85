//! Writing a policy: a component of an organisation's own that judges calls
//! beside the declarative rules, and can only narrow what they let through.
//!
//! ```
//! use countersign_guest_sdk::policy::prelude::*;
//!
//! struct NoInterns;
//! impl Policy for NoInterns {
//!     fn describe(_: &mut Settings) -> Result<Description, String> {
//!         Ok(Description::new("no-interns", "Nothing for interns"))
//!     }
//!     fn judge(caller: &Caller, _: &Call, _: &Grant, _: &mut Settings) -> Result<Judgement, String> {
//!         Ok(match caller.roles.iter().any(|role| role == "intern") {
//!             true => Judgement::deny("intern", "Ask your mentor."),
//!             false => Judgement::Allow,
//!         })
//!     }
//! }
//! export_policy!(NoInterns);
//! # assert!(countersign_guest_sdk::policy::describe::<NoInterns>("{}").is_ok());
//! ```
//!
//! As a preset, it has no clock, no randomness, no network, and an instance
//! lives for one call. All of it runs natively as well: test with plain `cargo
//! test`, calling [`describe`] and [`judge`].

pub use crate::bindings::policy::countersign::policy::types::{
    Call, Caller, Description, Grant, Judgement, Refusal, Wants,
};
use crate::settings::Settings;

/// What nearly every policy needs, for one glob import.
pub mod prelude {
    pub use super::{Call, Caller, Description, Grant, Judgement, Policy, Wants};
    pub use crate::export_policy;
    pub use crate::provider::Arguments;
    pub use crate::settings::Settings;
}

/// An organisation's policy.
pub trait Policy {
    /// Says what it is and wants to be told under these settings. Settings that
    /// are not read are refused by the SDK; an error is a sentence for the
    /// administrator.
    fn describe(settings: &mut Settings) -> Result<Description, String>;

    /// Judges one call. Must depend on nothing but its arguments; an error
    /// refuses the call.
    fn judge(
        caller: &Caller,
        call: &Call,
        grant: &Grant,
        settings: &mut Settings,
    ) -> Result<Judgement, String>;
}

impl Description {
    /// A policy that wants nothing but the call's method and name, and the
    /// caller's team and roles.
    pub fn new(name: &str, display_name: &str) -> Self {
        Self {
            name: name.into(),
            display_name: display_name.into(),
            documentation_url: String::new(),
            wants: Wants::empty(),
        }
    }

    /// Where an administrator can read what it does.
    pub fn documentation(mut self, url: &str) -> Self {
        self.documentation_url = url.into();
        self
    }

    /// It wants these as well.
    pub fn wants(mut self, wants: Wants) -> Self {
        self.wants |= wants;
        self
    }
}

impl Judgement {
    /// No. The code is a short, stable word; the message is for the user.
    pub fn deny(code: &str, message: &str) -> Self {
        Self::Deny(Refusal {
            code: code.into(),
            message: message.into(),
        })
    }

    /// Ask the user first, with this reason.
    pub fn ask(reason: &str) -> Self {
        Self::NeedApproval(reason.into())
    }
}

/// What the host gets to see for these settings.
pub fn describe<P: Policy>(settings: &str) -> Result<Description, String> {
    let mut settings = Settings::parse(settings)?;
    let description = P::describe(&mut settings)?;
    settings.refuse_unknown()?;
    Ok(description)
}

/// Judges as the host does.
pub fn judge<P: Policy>(
    caller: &Caller,
    call: &Call,
    grant: &Grant,
    settings: &str,
) -> Result<Judgement, String> {
    P::judge(caller, call, grant, &mut Settings::parse(settings)?)
}

/// Exports a policy: `export_policy!(SqlGuard)`. In native builds it only
/// checks the trait, so that tests need no WebAssembly.
#[macro_export]
macro_rules! export_policy {
    ($policy:ty) => {
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn policy<P: $crate::policy::Policy>() {}
            policy::<$policy>();
        };

        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, clippy::all)]
        const _: () = {
            use $crate::bindings::policy::exports::countersign::policy::judge as wit;

            struct Exported;

            impl wit::Guest for Exported {
                fn describe(
                    settings: ::std::string::String,
                ) -> ::core::result::Result<wit::Description, ::std::string::String> {
                    $crate::policy::describe::<$policy>(&settings)
                }

                fn judge(
                    caller: wit::Caller,
                    call: wit::Call,
                    grant: wit::Grant,
                    settings: ::std::string::String,
                ) -> ::core::result::Result<wit::Judgement, ::std::string::String> {
                    $crate::policy::judge::<$policy>(&caller, &call, &grant, &settings)
                }
            }

            $crate::bindings::policy::export_judge!(
                Exported with_types_in $crate::bindings::policy
            );
        };
    };
}
