//! What a preset's tables say of scopes: which include others, and which a tool
//! needs.

use std::collections::HashMap;

use crate::preset::Description;
use crate::scope::{Implications, Scope, ScopeSet};

/// What includes what.
#[must_use]
pub(crate) fn implications_of(description: &Description) -> Implications {
    let mut implications = Implications::default();
    for scope in &description.scopes {
        implications.add(&scope.name, scope.prefix, &scope.implies);
    }
    implications
}

/// Tools by name, each with groups of alternatives. Those whose name says
/// nothing are left out; of two servers that list a tool, the last counts.
#[derive(Default)]
pub(crate) struct Tools(HashMap<String, Vec<ScopeSet>>);

impl Tools {
    pub(crate) fn of(description: &Description) -> Self {
        let tools = description.mcp_servers.iter().flat_map(|s| &s.tools);
        let told = tools.filter(|tool| !tool.broad);
        Self(
            told.map(|tool| {
                let groups = tool.needs.iter().map(|group| scopes(group)).collect();
                (tool.name.clone(), groups)
            })
            .collect(),
        )
    }

    /// What the tool needs and `granted` lacks: of each group of alternatives,
    /// the first that was not refused before.
    pub(crate) fn missing(
        &self,
        tool: &str,
        granted: &ScopeSet,
        withheld: &ScopeSet,
        implications: &Implications,
    ) -> ScopeSet {
        let groups = self.0.get(tool).map_or(&[][..], Vec::as_slice);
        groups
            .iter()
            .filter(|group| !group.iter().any(|s| implications.covers(granted, s)))
            .filter_map(|group| {
                let open = group.iter().find(|s| !withheld.contains(s));
                open.or_else(|| group.iter().next()).cloned()
            })
            .collect()
    }
}

/// Those that are scopes.
pub(crate) fn scopes(names: &[String]) -> ScopeSet {
    names.iter().filter_map(|s| Scope::parse(s).ok()).collect()
}
