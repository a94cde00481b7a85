//! What a preset gets to see, in words.

use std::collections::BTreeSet;

use countersign_core::preset::{Description, Pick, Selection, Source, ValueKind};

use super::{ARGUMENTS_OF, EVERY_CALL};

/// What `evaluate` is told, and what the host reads out of answers for it and
/// keeps as facts of the connection.
pub(super) fn of(d: &Description, arguments_of: &[String]) -> BTreeSet<String> {
    let mut sees = BTreeSet::new();
    if d.wants.arguments {
        match arguments_of {
            [] => {
                sees.insert(EVERY_CALL.to_owned());
            }
            tools => sees.extend(tools.iter().map(|tool| format!("{ARGUMENTS_OF}{tool}"))),
        }
    }
    for (wanted, what) in [
        (d.wants.account, "account identifier"),
        (d.wants.facts, "facts of the connection"),
        (d.wants.settings, "settings of the provider"),
    ] {
        if wanted {
            sees.insert(what.to_owned());
        }
    }
    for metadata in &d.metadata {
        let (at, kind, name) = (&metadata.pointer, kind_of(&metadata.kind), &metadata.name);
        sees.insert(format!("token answer at {at} as {kind} (fact {name})"));
    }
    for variable in &d.variables {
        let from = match &variable.source {
            // A setting is the administrator's own word.
            Source::Setting(_) => continue,
            Source::TokenAnswer(at) => format!("token answer at {at}"),
            Source::CallbackParameter(name) => format!("callback parameter {name}"),
            Source::FollowUp(value) => format!(
                "answer of follow-up {} at {}{}",
                value.follow_up,
                value.selection.as_ref().map_or_else(String::new, selected),
                value.pointer
            ),
        };
        let (kind, name) = (kind_of(&variable.kind), &variable.name);
        sees.insert(format!("{from} as {kind} (variable {name})"));
    }
    if let Some(identity) = &d.identity {
        sees.insert(format!(
            "identity answer at {} (account identifier)",
            identity.id
        ));
        for label in &identity.label {
            sees.insert(format!("identity answer at {label} (account name)"));
        }
        if let Some(tenant) = &identity.tenant {
            sees.insert(format!("identity answer at {tenant} (account tenant)"));
        }
    }
    sees
}

fn selected(selection: &Selection) -> String {
    let items = &selection.items;
    match &selection.pick {
        Pick::Only => format!("{items}/(the only one)"),
        Pick::First => format!("{items}/(the first)"),
        Pick::WhereEqual(at, value) => format!("{items}/(where {at} is {value})"),
        Pick::AskUser(title) => format!("{items}/(the user chooses by {title})"),
    }
}

fn kind_of(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Identifier => "identifier",
        ValueKind::Label => "label",
        ValueKind::Host(_) => "host",
        ValueKind::Origin(_) => "origin",
        ValueKind::Enumeration(_) => "one of a list",
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::preset::{Metadata, Variable, Wants};

    use super::*;

    #[test]
    fn nothing_is_seen_that_the_set_does_not_say() {
        let mut d = crate::permissions::tests::plain();
        assert!(of(&d, &[]).is_empty());
        d.wants = Wants {
            arguments: true,
            settings: true,
            account: true,
            facts: true,
        };
        d.metadata = vec![Metadata {
            name: "bot".into(),
            pointer: "/authed_user/bot_key".into(),
            kind: ValueKind::Identifier,
        }];
        d.variables = vec![Variable {
            name: "shop".into(),
            title: "Shop".into(),
            source: Source::CallbackParameter("shop".into()),
            kind: ValueKind::Host(vec![".shops.example".into()]),
            default_value: None,
            required: true,
        }];
        let every: Vec<String> = of(&d, &[]).into_iter().collect();
        assert_eq!(
            every,
            [
                "account identifier",
                "arguments of every call",
                "callback parameter shop as host (variable shop)",
                "facts of the connection",
                "settings of the provider",
                "token answer at /authed_user/bot_key as identifier (fact bot)",
            ]
        );
        let some = of(&d, &["search".into(), "get".into()]);
        assert!(some.contains("arguments of search") && !some.contains(EVERY_CALL));
    }
}
