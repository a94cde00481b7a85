//! What an upstream's 403 means for its user.

use countersign_core::connection::Connection;
use countersign_core::decide::Attachment;
use countersign_core::error::CallError;
use countersign_core::preset::ScopeInfo;
use countersign_core::scope::ScopeSet;
use countersign_mcp::upstream::Challenge;

/// Scopes that an upstream may ask a user for at once: they are put before the
/// user and into the link's record, and are the upstream's word.
const MOST_SCOPES: usize = 32;

/// A scope upgrade, if it names scopes that the provider has; else a denial.
pub(super) fn by_upstream(
    attachment: &Attachment,
    connection: Option<&Connection>,
    challenge: &Challenge,
) -> CallError {
    let named = challenge
        .scope
        .as_deref()
        .map(|s| ScopeSet::split(s, &[]))
        .unwrap_or_default();
    let missing = match (attachment.provider(), attachment.preset()) {
        (Some(provider), Some(preset)) => {
            let required = &attachment.server().auth.required_scopes;
            let recorded = provider.scopes.union(required);
            known(&preset.description().scopes, &recorded, named)
        }
        _ => ScopeSet::default(),
    };
    if challenge.is_insufficient_scope() && (1..=MOST_SCOPES).contains(&missing.len()) {
        if attachment.server().auth.is_obtained() {
            return attachment.out_of_reach(&missing);
        }
        let granted = connection.map(Connection::scopes).unwrap_or_default();
        let missing = attachment.implications().missing(&granted, &missing);
        if !missing.is_empty() {
            return attachment.short_of(connection, missing);
        }
        // It has them: to ask for them again would change nothing.
    }
    CallError::Denied {
        code: "upstream_forbidden".into(),
        message: format!(
            "{} does not let your account do that.",
            attachment.server().display_name
        ),
    }
}

/// Of the scopes that an upstream names, those that the provider has: what it
/// names is put before the user and his agent. A preset that lists none, as
/// `generic`, knows any.
fn known(listed: &[ScopeInfo], recorded: &ScopeSet, named: ScopeSet) -> ScopeSet {
    if listed.is_empty() {
        return named;
    }
    let is_listed = |scope: &str| {
        listed.iter().any(|known| match known.prefix {
            true => scope.starts_with(&known.name),
            false => scope == known.name,
        })
    };
    named
        .iter()
        .filter(|scope| recorded.contains(scope) || is_listed(scope.as_str()))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_can_ask_for_no_scope_that_its_provider_does_not_have() {
        let info = |name: &str, prefix| ScopeInfo {
            name: name.into(),
            title: String::new(),
            implies: Vec::new(),
            parameter: None,
            prefix,
        };
        let listed = [info("repo", false), info("https://v.example/auth/", true)];
        let recorded = ScopeSet::split("team:custom", &[]);
        let cases = [
            ("repo gist", "repo"),
            ("repository", ""),
            ("https://v.example/auth/mail", "https://v.example/auth/mail"),
            ("https://v.example.evil/auth/mail", ""),
            ("team:custom call+0800-555", "team:custom"),
        ];
        for (named, expected) in cases {
            let known = known(&listed, &recorded, ScopeSet::split(named, &[]));
            assert_eq!(known.join(" "), expected, "{named}");
        }
        let any = known(&[], &recorded, ScopeSet::split("whatever", &[]));
        assert_eq!(any.join(" "), "whatever");
    }
}
