//! The vocabulary of `wit/v0.1.0`, under names that do not collide. Each type
//! is described there; the builder methods are added in this crate.

pub use crate::bindings::preset::countersign::preset::description::{
    AnswerShape, Assertion, AuthorizationRequest, Body, BodyFormat, Check, Choice,
    ClientAuthentication, Credential, Description, ErrorAdvice, Expiry, FollowUp, FollowUpValue,
    Grant as GrantType, GrantDifference, Hooks, Identity as IdentityRequest, McpServer, Metadata,
    Offline, Pick, Pkce, RedirectUriUse, Refresh, RefreshKind, Registration, Request, Revocation,
    RevocationEffect, Rotation, Scope, ScopeParameter, Selection, Sigv4, Source, TimeFormat,
    TokenRequest, TokenShape, Tool, ValueKind, Variable, VariantInfo, Wants,
};
pub use crate::bindings::preset::countersign::preset::types::{
    Basic, Call, Fact, Grant, Header, Parameter, Part, Rule, Slot, Template,
};
pub use crate::bindings::preset::exports::countersign::preset::provider::{
    Allowance, Refusal, Verdict,
};
