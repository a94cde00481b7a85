use countersign_guest_sdk::describe;
use countersign_guest_sdk::prelude::*;

use super::Slack;

fn described(settings: &str) -> Description {
    describe::<Slack>(settings).unwrap_or_else(|error| panic!("{settings}: {error}"))
}

#[test]
fn bot_and_user_are_asked_for_apart_and_found_apart() {
    let description = described("{}");
    let parameters = description.authorization.unwrap().scope_parameters;
    let asked: Vec<_> = parameters
        .iter()
        .map(|p| {
            (
                p.name.as_str(),
                p.separator.as_str(),
                p.credential.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        asked,
        [
            ("scope", ",", Some("bot")),
            ("user_scope", ",", Some("user"))
        ]
    );
    let found: Vec<_> = description
        .token_shapes
        .iter()
        .map(|s| {
            (
                s.credential.as_str(),
                s.access_token[0].as_str(),
                s.when.as_slice(),
            )
        })
        .collect();
    let bot = [Check::is("/token_type", "bot")];
    let user = [Check::is("/token_type", "user")];
    assert_eq!(
        found,
        [
            ("bot", "/access_token", &bot[..]),
            ("user", "/authed_user/access_token", &[]),
            ("user", "/access_token", &user[..]),
        ]
    );
}

#[test]
fn a_scope_goes_into_the_parameter_of_its_owner() {
    let table = [
        ("{}", "chat:write", "scope"),
        ("{}", "search:read.im", "user_scope"),
        (
            r#"{"user_scopes":["chat:write"]}"#,
            "chat:write",
            "user_scope",
        ),
        (r#"{"user_scopes":["chat:write"]}"#, "team:read", "scope"),
        (
            r#"{"user_scopes":["admin.teams:read"]}"#,
            "admin.teams:read",
            "user_scope",
        ),
    ];
    for (settings, scope, parameter) in table {
        let scopes = described(settings).scopes;
        let found: Vec<_> = scopes.iter().filter(|found| found.name == scope).collect();
        assert_eq!(found.len(), 1, "{settings} {scope}");
        assert_eq!(
            found[0].parameter.as_deref(),
            Some(parameter),
            "{settings} {scope}"
        );
    }
}

#[test]
fn slacks_own_mcp_server_gets_the_user_token() {
    let grant = Grant {
        scopes: vec![],
        account: None,
        facts: vec![],
    };
    let verdict = |host: &str| {
        let call = Call {
            method: "tools/list".into(),
            name: None,
            arguments: None,
            host: host.into(),
            settings: None,
        };
        Slack::evaluate(&call, &grant).unwrap()
    };
    assert_eq!(verdict("mcp.slack.com"), Verdict::allow_as("user"));
    assert_eq!(verdict("slack.com"), Verdict::allow());
    let description = described("{}");
    let bot = description
        .credentials
        .iter()
        .find(|c| c.name == "bot")
        .unwrap();
    assert!(!bot.hosts.contains(&template("mcp.slack.com")));
}

#[test]
fn the_user_only_endpoints_know_no_bot() {
    let description = described(r#"{"endpoints":"v2_user"}"#);
    assert_eq!(description.credentials.len(), 1);
    assert!(
        description
            .token_shapes
            .iter()
            .all(|shape| shape.credential == "user")
    );
    assert!(
        description
            .variants
            .iter()
            .any(|v| v.name == "v2_user" && v.selected)
    );
}

#[test]
fn an_answer_counts_as_success_only_with_ok() {
    let description = described("{}");
    let ok = [Check::is("/ok", "true")];
    assert_eq!(description.token_answer.success_checks, ok);
    assert_eq!(description.revocation[0].request.answer.success_checks, ok);
    assert_eq!(
        description.identity.unwrap().request.answer.success_checks,
        ok
    );
}

#[test]
fn who_acts_by_default_is_the_first_credential() {
    for (settings, first) in [
        ("{}", "bot"),
        (r#"{"act_as":"user"}"#, "user"),
        (r#"{"endpoints":"v2_user"}"#, "user"),
    ] {
        assert_eq!(described(settings).credentials[0].name, first, "{settings}");
    }
}

#[test]
fn bad_settings_are_refused() {
    for settings in [
        r#"{"act_as":"admin"}"#,
        r#"{"endpoints":"v1"}"#,
        r#"{"endpoints":"v2_user","act_as":"bot"}"#,
        r#"{"team":"T1&scope=admin"}"#,
        r#"{"user_scope":["chat:write"]}"#,
    ] {
        assert!(describe::<Slack>(settings).is_err(), "{settings}");
    }
}
