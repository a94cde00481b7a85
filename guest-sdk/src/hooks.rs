//! Optional interfaces. Implement one and name it in
//! [`export_preset!`](crate::export_preset), and the host calls it.

use crate::bindings;
use crate::data::{Call, Grant, TokenShape};

pub use bindings::identity::exports::countersign::preset::identity::Account;
pub use bindings::redact::exports::countersign::preset::redact::Redaction;
pub use bindings::refresh_error::exports::countersign::preset::refresh_error::Outcome;
pub use bindings::sign::countersign::preset::signing::{Algorithm, Encoding, Key};
pub use bindings::sign::exports::countersign::preset::sign::{Outgoing, SignedHeader, SignedPart};

/// Adds parameters to the authorization request that data cannot say.
pub trait AuthorizeParameters {
    /// The provider's settings as JSON, and the scopes that are asked for.
    fn authorize_parameters(
        settings: &str,
        scopes: &[String],
    ) -> Result<Vec<(String, String)>, String>;
}

/// Finds the tokens in an answer that no pointer list can describe.
pub trait TokenAnswer {
    /// Every string in the body is masked.
    fn token_answer(status: u16, masked_body: &str) -> Result<Vec<TokenShape>, String>;
}

/// Tells whether a refused refresh is final.
pub trait RefreshError {
    /// The strings of the body are masked but for the error.
    fn refresh_error(status: u16, code: Option<&str>, masked_body: &str)
    -> Result<Outcome, String>;
}

/// Signs a request with keys the preset cannot read.
pub trait Sign {
    /// Answers with the headers that carry the signature.
    fn sign(outgoing: &Outgoing, key: &Key) -> Result<Vec<SignedHeader>, String>;
}

/// Makes an account out of an identity answer that no pointer can describe.
pub trait Identity {
    /// The answer's body.
    fn identity(body: &str) -> Result<Account, String>;
}

/// Hides tools from `tools/list`.
pub trait FilterTools {
    /// Answers with the names to keep.
    fn filter_tools(tools: Vec<String>, grant: &Grant) -> Result<Vec<String>, String>;
}

/// Takes things out of a result.
pub trait Redact {
    /// The call, and its result as JSON.
    fn redact(call: &Call, content: &str) -> Result<Vec<Redaction>, String>;
}
