//! From traits to a component's exports.

use crate::data::{Description, Hooks};
use crate::provider::Provider;
use crate::settings::Settings;

/// What the host gets to see for these settings: parsed strictly, described,
/// and completed. For native tests.
pub fn describe<P: Provider>(settings: &str) -> Result<Description, String> {
    describe_as::<P>(settings, "", Hooks::empty())
}

/// The body of the exported `describe`.
#[doc(hidden)]
pub fn describe_as<P: Provider>(
    settings: &str,
    version: &str,
    hooks: Hooks,
) -> Result<Description, String> {
    let mut settings = Settings::parse(settings)?;
    let description = P::describe(&mut settings)?;
    settings.refuse_unknown()?;
    Ok(description.complete(version, hooks))
}

/// Exports a preset: `export_preset!(Acme)`, or with the hooks that it
/// implements: `export_preset!(Acme: FilterTools, Redact)`. The version is
/// that of the author's crate; of hooks, all exported ones are used unless the
/// description names some.
///
/// In native builds it only checks the traits, so that tests need no
/// WebAssembly.
#[macro_export]
macro_rules! export_preset {
    ($preset:ty $(: $($hook:ident),+ $(,)?)?) => {
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn provider<P: $crate::Provider>() {}
            provider::<$preset>();
            $($({
                fn hook<P: $crate::hooks::$hook>() {}
                hook::<$preset>();
            })+)?
        };

        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, clippy::all)]
        const _: () = {
            use $crate::bindings::preset::exports::countersign::preset::provider as wit;

            struct Exported;

            impl wit::Guest for Exported {
                fn describe(
                    settings: ::std::string::String,
                ) -> ::core::result::Result<wit::Description, ::std::string::String> {
                    let hooks = $crate::data::Hooks::empty()
                        $($(.union($crate::__hook_flag!($hook)))+)?;
                    $crate::export::describe_as::<$preset>(
                        &settings,
                        ::core::env!("CARGO_PKG_VERSION"),
                        hooks,
                    )
                }

                fn evaluate(
                    call: wit::Call,
                    grant: wit::Grant,
                ) -> ::core::result::Result<wit::Verdict, ::std::string::String> {
                    // The instance ends with this call: freeing what it was
                    // given would be work for nothing.
                    let call = ::core::mem::ManuallyDrop::new(call);
                    let grant = ::core::mem::ManuallyDrop::new(grant);
                    <$preset as $crate::Provider>::evaluate(&call, &grant)
                }
            }

            $crate::bindings::preset::export_provider!(
                Exported with_types_in $crate::bindings::preset
            );
            $($($crate::__export_hook!($hook, $preset, Exported);)+)?
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __hook_flag {
    (AuthorizeParameters) => {
        $crate::data::Hooks::AUTHORIZE_PARAMETERS
    };
    (TokenAnswer) => {
        $crate::data::Hooks::TOKEN_ANSWER
    };
    (RefreshError) => {
        $crate::data::Hooks::REFRESH_ERROR
    };
    (Sign) => {
        $crate::data::Hooks::SIGN
    };
    (Identity) => {
        $crate::data::Hooks::IDENTITY
    };
    (FilterTools) => {
        $crate::data::Hooks::FILTER_TOOLS
    };
    (Redact) => {
        $crate::data::Hooks::REDACT
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_hook {
    (AuthorizeParameters, $preset:ty, $exported:ident) => {
        impl $crate::bindings::authorize_parameters::exports::countersign::preset::authorize_parameters::Guest for $exported {
            fn authorize_parameters(
                settings: ::std::string::String,
                scopes: ::std::vec::Vec<::std::string::String>,
            ) -> ::core::result::Result<
                ::std::vec::Vec<(::std::string::String, ::std::string::String)>,
                ::std::string::String,
            > {
                <$preset as $crate::hooks::AuthorizeParameters>::authorize_parameters(
                    &settings, &scopes,
                )
            }
        }
        $crate::bindings::authorize_parameters::export_authorize_parameters!(
            $exported with_types_in $crate::bindings::authorize_parameters
        );
    };
    (TokenAnswer, $preset:ty, $exported:ident) => {
        impl $crate::bindings::token_answer::exports::countersign::preset::token_answer::Guest for $exported {
            fn token_answer(
                status: u16,
                masked_body: ::std::string::String,
            ) -> ::core::result::Result<
                ::std::vec::Vec<$crate::data::TokenShape>,
                ::std::string::String,
            > {
                <$preset as $crate::hooks::TokenAnswer>::token_answer(status, &masked_body)
            }
        }
        $crate::bindings::token_answer::export_token_answer!(
            $exported with_types_in $crate::bindings::token_answer
        );
    };
    (RefreshError, $preset:ty, $exported:ident) => {
        impl $crate::bindings::refresh_error::exports::countersign::preset::refresh_error::Guest for $exported {
            fn refresh_error(
                status: u16,
                code: ::core::option::Option<::std::string::String>,
                masked_body: ::std::string::String,
            ) -> ::core::result::Result<$crate::hooks::Outcome, ::std::string::String> {
                <$preset as $crate::hooks::RefreshError>::refresh_error(
                    status, code.as_deref(), &masked_body,
                )
            }
        }
        $crate::bindings::refresh_error::export_refresh_error!(
            $exported with_types_in $crate::bindings::refresh_error
        );
    };
    (Sign, $preset:ty, $exported:ident) => {
        impl $crate::bindings::sign::exports::countersign::preset::sign::Guest for $exported {
            fn sign(
                outgoing: $crate::hooks::Outgoing,
                key: &$crate::bindings::sign::countersign::preset::signing::Key,
            ) -> ::core::result::Result<
                ::std::vec::Vec<$crate::bindings::sign::exports::countersign::preset::sign::SignedHeader>,
                ::std::string::String,
            > {
                let key = $crate::hooks::Key::lent(key);
                <$preset as $crate::hooks::Sign>::sign(&outgoing, &key).map($crate::sign::exported)
            }
        }
        $crate::bindings::sign::export_sign!($exported with_types_in $crate::bindings::sign);
    };
    (Identity, $preset:ty, $exported:ident) => {
        impl $crate::bindings::identity::exports::countersign::preset::identity::Guest for $exported {
            fn identity(
                body: ::std::string::String,
            ) -> ::core::result::Result<$crate::hooks::Account, ::std::string::String> {
                <$preset as $crate::hooks::Identity>::identity(&body)
            }
        }
        $crate::bindings::identity::export_identity!(
            $exported with_types_in $crate::bindings::identity
        );
    };
    (FilterTools, $preset:ty, $exported:ident) => {
        impl $crate::bindings::filter_tools::exports::countersign::preset::filter_tools::Guest for $exported {
            fn filter_tools(
                tools: ::std::vec::Vec<::std::string::String>,
                grant: $crate::data::Grant,
            ) -> ::core::result::Result<
                ::std::vec::Vec<::std::string::String>,
                ::std::string::String,
            > {
                <$preset as $crate::hooks::FilterTools>::filter_tools(tools, &grant)
            }
        }
        $crate::bindings::filter_tools::export_filter_tools!(
            $exported with_types_in $crate::bindings::filter_tools
        );
    };
    (Redact, $preset:ty, $exported:ident) => {
        impl $crate::bindings::redact::exports::countersign::preset::redact::Guest for $exported {
            fn redact(
                call: $crate::data::Call,
                content: ::std::string::String,
            ) -> ::core::result::Result<
                ::std::vec::Vec<$crate::hooks::Redaction>,
                ::std::string::String,
            > {
                <$preset as $crate::hooks::Redact>::redact(&call, &content)
            }
        }
        $crate::bindings::redact::export_redact!(
            $exported with_types_in $crate::bindings::redact
        );
    };
}
