//! Judges what the hooks answer.
//!
//! Like a verdict, an answer may use less than what `describe` declared and an
//! administrator approved, never more.

use countersign_core::preset::{AccountFacts, Description, PresetFault, Redaction};
use countersign_core::signing::{Recipe, SignedPart};

use super::is_reserved_at_authorization;
use super::verdict::{Declared, bad, few, text};

/// Longest name of an account, of its owner or of its tenant, in characters.
const LONGEST_ACCOUNT: usize = 128;
/// Most redactions of one result.
const MOST_REDACTIONS: usize = 4096;

/// Checks what the hook `authorize-parameters` adds.
///
/// # Errors
/// [`PresetFault::BadOutput`]; the consent must not begin.
pub(crate) fn check_authorize_parameters(
    parameters: &[(String, String)],
    d: &Description,
) -> Result<(), PresetFault> {
    few("parameters", parameters.len())?;
    let scope_parameters = d.authorization.iter().flat_map(|a| &a.scope_parameters);
    for (name, value) in parameters {
        let is_scope = scope_parameters.clone().any(|p| p.name == *name);
        if name.is_empty() || is_scope || is_reserved_at_authorization(name) {
            return Err(bad(format!(
                "the authorization parameter {name:?} is the host's own"
            )));
        }
        text("a parameter's name", name)?;
        text("a parameter's value", value)?;
    }
    Ok(())
}

/// Checks how the hook `sign` wants a request signed.
///
/// # Errors
/// [`PresetFault::BadOutput`]; the request must not be sent.
pub(crate) fn check_recipe(recipe: &Recipe, declared: &Declared) -> Result<(), PresetFault> {
    recipe.check().map_err(bad)?;
    for header in &recipe.headers {
        few("parts of a signed header", header.value.len())?;
        if !declared.header(&header.name) {
            return Err(bad(format!(
                "the header {:?} is not one that describe declares: declare it as a rule without a value",
                header.name
            )));
        }
        for part in &header.value {
            if let SignedPart::Slot(slot) = part
                && !declared.slot(slot)
            {
                return Err(bad(format!(
                    "the header {:?} carries a secret that describe does not declare",
                    header.name
                )));
            }
        }
    }
    Ok(())
}

/// Checks what the hook `identity` makes of an answer.
///
/// # Errors
/// [`PresetFault::BadOutput`]; nothing is stored.
pub(crate) fn check_account(account: &AccountFacts) -> Result<(), PresetFault> {
    let tenant = account.tenant.as_ref().map(|tenant| ("tenant", tenant));
    let named = [("id", &account.id), ("label", &account.label)];
    for (what, value) in named.into_iter().chain(tenant) {
        let good = (1..=LONGEST_ACCOUNT).contains(&value.chars().count())
            && value.chars().all(crate::faults::is_harmless);
        if !good {
            return Err(bad(format!(
                "the account's {what} is not 1 to {LONGEST_ACCOUNT} visible characters"
            )));
        }
    }
    Ok(())
}

/// Checks the form of what the hook `redact` answers; whether it fits the
/// result is seen when it is applied.
///
/// # Errors
/// [`PresetFault::BadOutput`]; the result is withheld.
pub(crate) fn check_redactions(redactions: &[Redaction]) -> Result<(), PresetFault> {
    if redactions.len() > MOST_REDACTIONS {
        return Err(bad(format!(
            "{} redactions, and at most {MOST_REDACTIONS} are taken",
            redactions.len()
        )));
    }
    Ok(())
}
