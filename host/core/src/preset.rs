//! What a preset says, in the host's own types.
//!
//! These mirror the newest WIT world (`wit/v0.1.0`), one name for one thing;
//! every supported ABI version is converted into them at the edge. The
//! meaning of each field is documented in the WIT.

use serde::Serialize;

use crate::names::Digest;
use crate::signing::{Recipe, Unsigned};

/// A JSON pointer (RFC 6901).
pub type Pointer = String;
/// Parts, joined without a separator.
pub type Template = Vec<Part>;

macro_rules! data {
    ($($(#[$doc:meta])* $kind:ident $name:ident { $($body:tt)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs, reason = "each field is documented in wit/v0.1.0")]
        pub $kind $name { $($body)* }
    )*};
}

data! {
    /// A place that only the host can fill.
    enum Slot { AccessToken, RefreshToken, IdToken, ApiKey, ClientId, ClientSecret, Extra(String) }
    /// HTTP Basic credentials made of slots.
    struct Basic { pub user: Slot, pub password: Option<Slot> }
    /// One piece of a template.
    enum Part { Literal(String), Slot(Slot), Variable(String), Basic(Basic) }
    /// A header to set.
    struct Header { pub name: String, pub value: Template }
    /// A query or body parameter.
    struct Parameter { pub name: String, pub value: Template }
    /// What a verdict does to the upstream request.
    enum Rule { SetHeader(Header), SetQuery(Parameter) }

    /// One allowed value of a variable.
    struct Choice { pub value: String, pub title: String, pub sets: Vec<(String, String)> }
    /// What a variable may hold.
    enum ValueKind { Identifier, Label, Host(Vec<String>), Origin(Vec<String>), Enumeration(Vec<Choice>) }
    /// Which entry of a list a capture takes.
    enum Pick { Only, First, WhereEqual(Pointer, String), AskUser(Pointer) }
    /// A list inside an answer, and the entry to read from.
    struct Selection { pub items: Pointer, pub pick: Pick }
    /// A value inside a follow-up's answer.
    struct FollowUpValue { pub follow_up: String, pub selection: Option<Selection>, pub pointer: Pointer }
    /// Where a variable's value comes from.
    enum Source { Setting(String), TokenAnswer(Pointer), CallbackParameter(String), FollowUp(FollowUpValue) }
    /// A named, public value.
    struct Variable {
        pub name: String, pub title: String, pub source: Source, pub kind: ValueKind,
        pub default_value: Option<String>, pub required: bool,
    }

    /// A scope and what is known of it.
    struct ScopeInfo {
        pub name: String, pub title: String, pub implies: Vec<String>,
        pub parameter: Option<String>, pub prefix: bool,
    }
    /// A parameter of the authorization request that carries scopes.
    struct ScopeParameter {
        pub name: String, pub separator: String, pub credential: Option<String>, pub send_empty: bool,
    }
    /// What to do when the provider grants something else.
    enum GrantDifference { Accept, Warn, Refuse }

    /// How a body is written.
    enum BodyFormat { Form, Json }
    /// How the client proves who it is.
    enum ClientAuthentication { ClientSecretBasic, ClientSecretPost, None, PrivateKeyJwt, Custom(Vec<Rule>) }
    /// When `redirect_uri` is sent to the token endpoint.
    enum RedirectUriUse { Always, WhenSeveral, Never }
    /// Claims of an assertion that the host signs.
    struct Assertion { pub algorithm: String, pub claims: Vec<Parameter>, pub lifetime_seconds: u32 }
    /// The ways to obtain a credential.
    enum Grant {
        AuthorizationCode, RefreshToken, DeviceCode, ClientCredentials, TokenExchange,
        JwtBearer(Assertion), SelfSigned(Assertion), Other(String),
    }
    /// One kind of token request, where it differs from RFC 6749.
    struct TokenRequest {
        pub grant: Grant, pub endpoint: Option<Template>, pub body: BodyFormat,
        pub client_authentication: Vec<ClientAuthentication>, pub headers: Vec<Header>,
        pub parameters: Vec<Parameter>, pub suppress: Vec<String>, pub redirect_uri: RedirectUriUse,
    }
    /// Proof Key for Code Exchange (RFC 7636).
    enum Pkce { Required, Supported, Unsupported }
    /// How long-lived access is asked for.
    enum Offline { None, Scope(String), Parameters(Vec<Parameter>), AppSetting(String) }
    /// The authorization request, where it differs from RFC 6749.
    struct AuthorizationRequest {
        pub endpoint: Template, pub parameters: Vec<Parameter>, pub incremental_parameters: Vec<Parameter>,
        pub suppress: Vec<String>, pub scope_parameters: Vec<ScopeParameter>, pub pkce: Pkce,
        pub offline: Offline,
    }
    /// The body of a plain request.
    enum Body { None, Form(Vec<Parameter>), Json(Vec<Parameter>) }
    /// A request the host makes on its own account.
    struct Request {
        pub method: String, pub url: Template, pub headers: Vec<Header>, pub body: Body,
        pub client_authentication: Option<ClientAuthentication>, pub answer: AnswerShape,
    }
    /// A request made after sign-in whose answer feeds variables.
    struct FollowUp { pub name: String, pub request: Request }

    /// A test on a JSON body.
    enum Check { Equals(Pointer, String), Present(Pointer), Absent(Pointer) }
    /// How an answer says that it worked.
    struct AnswerShape {
        pub success_codes: Vec<u16>, pub success_checks: Vec<Check>, pub error_code: Vec<Pointer>,
        pub error_description: Vec<Pointer>, pub may_be_form: bool,
    }
    /// How an absolute time is written.
    enum TimeFormat { UnixSeconds, UnixMilliseconds, Rfc3339 }
    /// When a token ends.
    enum Expiry { Lifetime(Pointer), Absolute(Pointer, TimeFormat), JwtClaim, Introspection, Constant(u32), Never }
    /// Where one credential's tokens stand in a token answer.
    struct TokenShape {
        pub credential: String, pub when: Vec<Check>, pub optional: bool, pub access_token: Vec<Pointer>,
        pub refresh_token: Vec<Pointer>, pub id_token: Vec<Pointer>, pub expires: Vec<Expiry>,
        pub refresh_expires: Vec<Expiry>, pub scopes: Vec<Pointer>, pub scope_separators: Vec<String>,
    }
    /// Something to remember of an answer.
    struct Metadata { pub name: String, pub pointer: Pointer, pub kind: ValueKind }
    /// A refusal of the provider, put into words.
    struct ErrorAdvice { pub code: String, pub advice: String }

    /// How tokens are renewed.
    enum RefreshKind { None, RefreshToken, MintAgain }
    /// Whether the refresh token changes.
    enum Rotation { Never, Sometimes, Always }
    /// What is known of refreshing.
    struct Refresh {
        pub kind: RefreshKind, pub rotation: Rotation, pub grace_seconds: u32,
        pub retry_after_lost_answer: bool, pub ends_access_token: bool, pub idle_days: Option<u32>,
        pub margin_percent: u8, pub permanent_errors: Vec<String>, pub transient_errors: Vec<String>,
    }
    /// What a revocation ends.
    enum RevocationEffect { Token, Grant, Installation, AccountLink }
    /// How to revoke.
    struct Revocation { pub request: Request, pub effect: RevocationEffect, pub note: String }
    /// Who the account is.
    struct Identity { pub request: Request, pub id: Pointer, pub label: Vec<Pointer>, pub tenant: Option<Pointer> }

    /// Something a redactor takes out of a result.
    enum Redaction { Drop(Pointer), Mask(Pointer), MaskRange(Pointer, u32, u32) }
    /// An account as the hook `identity` makes it out.
    struct AccountFacts { pub id: String, pub label: String, pub tenant: Option<String> }

    /// AWS Signature Version 4, computed by the host.
    struct SigV4 { pub service: Template, pub region: Template }
    /// A kind of credential the provider knows, and how it is sent.
    struct Credential {
        pub name: String, pub title: String, pub hosts: Vec<Template>, pub rules: Vec<Rule>,
        pub sigv4: Option<SigV4>,
    }
    /// What a tool needs: every group, and of each group any one scope.
    struct Tool { pub name: String, pub needs: Vec<Vec<String>>, pub broad: bool }
    /// Whether clients can register themselves.
    enum Registration { Open, PreRegistered, ApprovedClients, Closed }
    /// The vendor's own MCP server.
    struct McpServer {
        pub url: Template, pub title: String, pub tools: Vec<Tool>, pub own_authorization_server: bool,
        pub registration: Registration, pub as_of: String,
    }
    /// A generation of the provider's endpoints.
    struct VariantInfo { pub name: String, pub title: String, pub selected: bool, pub ends_on: Option<String> }
}

/// Optional interfaces the preset exports and wants called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Hooks {
    /// See the WIT interface `authorize-parameters`.
    pub authorize_parameters: bool,
    /// See the WIT interface `token-answer`.
    pub token_answer: bool,
    /// See the WIT interface `refresh-error`.
    pub refresh_error: bool,
    /// See the WIT interface `sign`.
    pub sign: bool,
    /// See the WIT interface `identity`.
    pub identity: bool,
    /// See the WIT interface `filter-tools`.
    pub filter_tools: bool,
    /// See the WIT interface `redact`.
    pub redact: bool,
}

impl Description {
    /// Whether requests with this credential are signed, by the host or by the
    /// hook `sign`. Then there is no token header that could be replaced.
    #[must_use]
    pub fn signs(&self) -> bool {
        self.hooks.sign || self.credentials.iter().any(|c| c.sigv4.is_some())
    }
}

/// What `evaluate` wants to be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Wants {
    /// The call's arguments.
    pub arguments: bool,
    /// The provider's settings.
    pub settings: bool,
    /// The account's identifier.
    pub account: bool,
    /// Metadata and captured variables.
    pub facts: bool,
}

data! {
    /// All that `describe` said.
    struct Description {
        pub name: String, pub display_name: String, pub version: String, pub category: String,
        pub documentation_url: String, pub wants: Wants, pub hooks: Hooks, pub variables: Vec<Variable>,
        pub variants: Vec<VariantInfo>, pub authorization_hosts: Vec<Template>,
        pub audience_hosts: Vec<Template>, pub authorization: Option<AuthorizationRequest>,
        pub token_endpoint: Option<Template>, pub device_authorization_endpoint: Option<Template>,
        pub token_requests: Vec<TokenRequest>, pub token_answer: AnswerShape,
        pub token_shapes: Vec<TokenShape>, pub metadata: Vec<Metadata>,
        pub grant_difference: GrantDifference, pub scopes: Vec<ScopeInfo>,
        pub default_scopes: Vec<String>, pub refresh: Refresh, pub revocation: Vec<Revocation>,
        pub follow_ups: Vec<FollowUp>, pub identity: Option<Identity>, pub credentials: Vec<Credential>,
        pub constant_headers: Vec<Header>, pub mcp_servers: Vec<McpServer>,
        pub error_advice: Vec<ErrorAdvice>,
    }
}

/// An upstream request as a preset sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<'a> {
    /// The MCP method.
    pub method: &'a str,
    /// `params.name` or `params.uri`.
    pub name: Option<&'a str>,
    /// The arguments as JSON text; passed on only to presets that want them.
    pub arguments: Option<&'a str>,
    /// The server's host.
    pub host: &'a str,
}

/// What a connection stands for, as a preset sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantFacts<'a> {
    /// Granted scopes.
    pub scopes: &'a crate::scope::ScopeSet,
    /// The account's identifier.
    pub account: Option<&'a str>,
    /// Metadata and captured variables.
    pub facts: &'a [(String, String)],
}

/// The preset's answer to one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Let it through with this credential; empty rules mean "as described".
    Allow {
        /// A name from the description's credentials; the first when absent.
        credential: Option<String>,
        /// Rules that replace the described ones.
        rules: Vec<Rule>,
    },
    /// Refuse it.
    Deny {
        /// A short, stable word.
        code: String,
        /// For the user.
        message: String,
    },
    /// Ask for these scopes first.
    NeedScopes(Vec<String>),
}

/// How a preset failed. Each class has its own message and, in
/// [`crate::error`], its own code. Before the send, all fail closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresetFault {
    /// The guest trapped (unreachable, out of bounds, stack overflow …).
    #[error("the preset crashed: {0}")]
    Trap(String),
    /// It ran past its deadline.
    #[error("the preset did not answer in time")]
    Deadline,
    /// It asked for more memory, table space or instances than it may have.
    #[error("the preset asked for more memory than it may have")]
    Memory,
    /// It answered with something the host refuses.
    #[error("the preset answered with something that is not allowed: {0}")]
    BadOutput(String),
    /// It answered with an error of its own.
    #[error("the preset reported an error: {0}")]
    Reported(String),
    /// No usable version is loaded, enabled and approved.
    #[error("the preset is not available: {0}")]
    Unavailable(String),
    /// All sandboxes are in use.
    #[error("all sandboxes are in use")]
    Busy,
}

/// A loaded preset under one provider's settings, pinned for a call. A swap
/// does not touch it.
pub trait Preset: Send + Sync {
    /// Digest of the component.
    fn digest(&self) -> Digest;

    /// What `describe` said, checked.
    fn description(&self) -> &Description;

    /// Whether it imports WASI. What it finds there is empty and always the
    /// same; its verdicts are asked for anew all the same.
    fn imports_wasi(&self) -> bool {
        false
    }

    /// Decides one call in a fresh sandbox.
    ///
    /// # Errors
    /// A [`PresetFault`]; the call must not be sent.
    fn evaluate(&self, call: &Call<'_>, grant: &GrantFacts<'_>) -> Result<Verdict, PresetFault>;

    /// Whether `evaluate` is given this call's arguments.
    fn wants_arguments(&self, call: &Call<'_>) -> bool {
        let _ = call;
        self.description().wants.arguments
    }

    /// The hook `authorize-parameters`; empty if the preset has none.
    ///
    /// # Errors
    /// A [`PresetFault`]; the consent must not begin.
    fn authorize_parameters(
        &self,
        scopes: &crate::scope::ScopeSet,
    ) -> Result<Vec<(String, String)>, PresetFault>;

    /// The hook `token-answer` on a masked body; none if the preset has none.
    ///
    /// # Errors
    /// A [`PresetFault`]; nothing is stored.
    fn token_answer(
        &self,
        status: u16,
        masked_body: &str,
    ) -> Result<Option<Vec<TokenShape>>, PresetFault>;

    /// The hook `refresh-error`: whether the refusal is final. None if the
    /// preset has no such hook.
    ///
    /// # Errors
    /// A [`PresetFault`]; the refusal then counts as transient.
    fn refresh_error(
        &self,
        status: u16,
        code: Option<&str>,
        masked_body: &str,
    ) -> Result<Option<bool>, PresetFault>;

    /// The hook `filter-tools`: the names to keep. None if there is no hook.
    ///
    /// # Errors
    /// A [`PresetFault`]; the list is withheld.
    fn filter_tools(
        &self,
        tools: &[String],
        grant: &GrantFacts<'_>,
    ) -> Result<Option<Vec<String>>, PresetFault>;

    /// The hook `sign`: how this request is to be signed. None if there is no
    /// hook.
    ///
    /// # Errors
    /// A [`PresetFault`]; the request must not be sent.
    fn sign(&self, request: &Unsigned) -> Result<Option<Recipe>, PresetFault>;

    /// The hook `identity` on an answer in which secrets are covered. None if
    /// there is no hook.
    ///
    /// # Errors
    /// A [`PresetFault`]; nothing is stored.
    fn identity(&self, covered_body: &str) -> Result<Option<AccountFacts>, PresetFault>;

    /// The hook `redact` on a result in which secrets are covered: what to take
    /// out. None if there is no hook.
    ///
    /// # Errors
    /// A [`PresetFault`]; the result is withheld.
    fn redact(
        &self,
        call: &Call<'_>,
        covered_result: &str,
    ) -> Result<Option<Vec<Redaction>>, PresetFault>;
}
