//! What a preset would say of a call, without a permit: for comparing versions
//! over calls that were recorded.

use crate::needs::{Tools, implications_of};
use crate::preset::{Call, GrantFacts, Preset, PresetFault, Verdict};
use crate::scope::ScopeSet;

/// Asks a preset as [`crate::decide`] does: its table of tools first, then
/// `evaluate`. What operators and policies say is left out: it is the same for
/// every version. `connected` says that the call was made with a user's
/// connection, which the table is about.
///
/// # Errors
/// The preset's fault.
pub fn rehearse(
    preset: &dyn Preset,
    call: &Call<'_>,
    grant: &GrantFacts<'_>,
    connected: bool,
) -> Result<Verdict, PresetFault> {
    if let (Some(tool), true) = (call.name, connected && call.method == "tools/call") {
        let description = preset.description();
        let implications = implications_of(description);
        let missing =
            Tools::of(description).missing(tool, grant.scopes, &ScopeSet::default(), &implications);
        if !missing.is_empty() {
            return Ok(Verdict::NeedScopes(
                missing.iter().map(ToString::to_string).collect(),
            ));
        }
    }
    preset.evaluate(call, grant)
}
