//! Optional interfaces. Implement one and name it in
//! [`export_preset!`](crate::export_preset), and the host calls it.

use crate::bindings;
use crate::data::{Call, Grant, TokenShape};

pub use crate::redact::strings;
pub use crate::sign::{Key, Signature, SignedHeader, SignedPart};
pub use bindings::identity::exports::countersign::preset::identity::Account;
pub use bindings::redact::exports::countersign::preset::redact::Redaction;
pub use bindings::refresh_error::exports::countersign::preset::refresh_error::Outcome;
pub use bindings::sign::countersign::preset::signing::{Algorithm, Encoding};
pub use bindings::sign::exports::countersign::preset::sign::Outgoing;

/// Adds parameters to the authorization request that data cannot say.
pub trait AuthorizeParameters {
    /// The provider's settings as JSON, and the scopes that are asked for. A
    /// parameter that is the flow's own (`state`, `scope`, `redirect_uri` …)
    /// refuses the whole.
    fn authorize_parameters(
        settings: &str,
        scopes: &[String],
    ) -> Result<Vec<(String, String)>, String>;
}

/// Finds the tokens in an answer that no pointer list can describe.
pub trait TokenAnswer {
    /// Every string in the body is masked: `****12` stands for twelve bytes.
    fn token_answer(status: u16, masked_body: &str) -> Result<Vec<TokenShape>, String>;
}

/// Tells whether a refused refresh is final.
pub trait RefreshError {
    /// The strings of the body are masked but for the error. An error of this
    /// hook counts as transient: the connection is kept.
    fn refresh_error(status: u16, code: Option<&str>, masked_body: &str)
    -> Result<Outcome, String>;
}

/// Signs a request with keys the preset cannot read.
///
/// The key is the connection's access token, or the key of a server whose mode
/// is `static`. A header that carries a signature is described without a value
/// ([`Rule::signed`](crate::data::Rule::signed)), so that an administrator sees
/// it before he approves; one that is not signed after all is left out.
pub trait Sign {
    /// Answers with the headers that carry the signature. The request is final:
    /// each attempt to send it is signed anew.
    fn sign(outgoing: &Outgoing, key: &Key<'_>) -> Result<Vec<SignedHeader>, String>;
}

/// Makes an account out of an identity answer that no pointer can describe.
pub trait Identity {
    /// The answer's body: JSON, or whatever text the provider answers with.
    /// Secrets in it are asterisks. Id, label and tenant have 1 to 128
    /// characters; an error refuses the sign-in.
    fn identity(body: &str) -> Result<Account, String>;
}

/// Hides tools from `tools/list`.
pub trait FilterTools {
    /// Answers with the names to keep.
    fn filter_tools(tools: Vec<String>, grant: &Grant) -> Result<Vec<String>, String>;
}

/// Takes things out of the results of `tools/call`, `resources/read` and
/// `prompts/get`, of at most 1 MiB.
pub trait Redact {
    /// The call, and its result as JSON, in which the credential is asterisks.
    /// All pointers are about the result as it is given, whatever else is
    /// dropped. One that leads nowhere, a mask on what is no string and an error
    /// withhold the result. A JSON-RPC error in its place comes as
    /// `{"error": …}`, with pointers like `/error/message`.
    fn redact(call: &Call, content: &str) -> Result<Vec<Redaction>, String>;
}
