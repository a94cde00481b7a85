//! What a preset would say of a call, without a permit: for comparing versions
//! over calls that were recorded.

use crate::preset::{Call, GrantFacts, Preset, PresetFault, Verdict};
use crate::scope::{Implications, Scope, ScopeSet};

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
        let missing = missing_for_tool(preset, tool, grant.scopes);
        if !missing.is_empty() {
            return Ok(Verdict::NeedScopes(missing));
        }
    }
    preset.evaluate(call, grant)
}

/// Of each group of alternatives that none is granted of, the first.
fn missing_for_tool(preset: &dyn Preset, tool: &str, granted: &ScopeSet) -> Vec<String> {
    let description = preset.description();
    let mut implications = Implications::default();
    for scope in &description.scopes {
        implications.add(&scope.name, scope.prefix, &scope.implies);
    }
    let covered =
        |name: &String| Scope::parse(name).is_ok_and(|scope| implications.covers(granted, &scope));
    let servers = description.mcp_servers.iter();
    // Of two servers that list the tool, the last counts, as in a call.
    let listed = servers
        .flat_map(|server| &server.tools)
        .rfind(|t| t.name == tool && !t.broad);
    let mut missing: Vec<String> = listed
        .map_or(&[][..], |t| t.needs.as_slice())
        .iter()
        .filter(|group| !group.iter().any(covered))
        .filter_map(|group| {
            let group: ScopeSet = group.iter().filter_map(|s| Scope::parse(s).ok()).collect();
            group.iter().next().map(ToString::to_string)
        })
        .collect();
    missing.sort();
    missing.dedup();
    missing
}
