//! What wit-bindgen makes of `wit/v0.1.0`: the only module with `unsafe` code
//! besides the allocator. One world a hook, so that a component exports just
//! what its author named; wit-component merges them again.
#![allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    unused_imports,
    clippy::all
)]

pub mod preset {
    wit_bindgen::generate!({
        path: "../wit/v0.1.0",
        world: "preset",
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_provider",
        default_bindings_module: "$crate::bindings::preset",
    });
}

/// What it makes of `wit/policy-v0.1.0`.
pub mod policy {
    wit_bindgen::generate!({
        path: "../wit/policy-v0.1.0",
        world: "policy",
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_judge",
        default_bindings_module: "$crate::bindings::policy",
    });
}

/// The bindings of one hook's world, on the types of the preset's own world.
macro_rules! hook {
    ($module:ident, $world:literal, $export:literal, $bindings:literal, $($with:tt)*) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../wit/v0.1.0",
                world: $world,
                with: { $($with)* },
                generate_all,
                additional_derives: [PartialEq],
                pub_export_macro: true,
                export_macro_name: $export,
                default_bindings_module: $bindings,
            });
        }
    };
}

hook!(
    authorize_parameters,
    "authorize-parameters-hook",
    "export_authorize_parameters",
    "$crate::bindings::authorize_parameters",
);
hook!(
    token_answer,
    "token-answer-hook",
    "export_token_answer",
    "$crate::bindings::token_answer",
    "countersign:preset/types@0.1.0": crate::bindings::preset::countersign::preset::types,
    "countersign:preset/description@0.1.0":
        crate::bindings::preset::countersign::preset::description,
);
hook!(
    refresh_error,
    "refresh-error-hook",
    "export_refresh_error",
    "$crate::bindings::refresh_error",
);
pub mod sign {
    // `key` is a resource, for which equality makes no sense.
    wit_bindgen::generate!({
        path: "../wit/v0.1.0",
        world: "sign-hook",
        with: {
            "countersign:preset/types@0.1.0": crate::bindings::preset::countersign::preset::types,
        },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_sign",
        default_bindings_module: "$crate::bindings::sign",
    });
}
hook!(
    identity,
    "identity-hook",
    "export_identity",
    "$crate::bindings::identity",
);
hook!(
    filter_tools,
    "filter-tools-hook",
    "export_filter_tools",
    "$crate::bindings::filter_tools",
    "countersign:preset/types@0.1.0": crate::bindings::preset::countersign::preset::types,
);
hook!(
    redact,
    "redact-hook",
    "export_redact",
    "$crate::bindings::redact",
    "countersign:preset/types@0.1.0": crate::bindings::preset::countersign::preset::types,
);
