use countersign_guest_sdk::describe;
use countersign_guest_sdk::prelude::*;

use super::GitHub;

fn described(settings: &str) -> Description {
    describe::<GitHub>(settings).unwrap_or_else(|error| panic!("{settings}: {error}"))
}

fn verdict(method: &str, name: &str, arguments: Option<&str>, scopes: &[&str]) -> Verdict {
    let call = Call {
        method: method.into(),
        name: Some(name.into()),
        arguments: arguments.map(Into::into),
        host: "api.githubcopilot.com".into(),
        settings: None,
    };
    let scopes = scopes.iter().map(|scope| scope.to_string()).collect();
    GitHub::evaluate(
        &call,
        &Grant {
            scopes,
            account: None,
            facts: vec![],
        },
    )
    .unwrap()
}

#[test]
fn creating_a_repository_needs_what_its_visibility_asks_for() {
    let public = Some(r#"{"name":"x","private":false}"#);
    let private = Some(r#"{"name":"x","private":true}"#);
    let unsaid = Some(r#"{"name":"x"}"#);
    let text = Some(r#"{"private":"false"}"#);
    let repo = || Verdict::need(["repo"]);
    let table = [
        (public, &["public_repo"][..], Verdict::allow()),
        (public, &["repo"], Verdict::allow()),
        (public, &[], Verdict::need(["public_repo"])),
        (private, &["public_repo"], repo()),
        (private, &["repo"], Verdict::allow()),
        (unsaid, &["public_repo"], repo()),
        (text, &["public_repo"], repo()),
        (None, &["public_repo"], repo()),
    ];
    for tool in ["create_repository", "fork_repository"] {
        for (arguments, scopes, expected) in &table {
            let found = verdict("tools/call", tool, *arguments, scopes);
            assert_eq!(found, *expected, "{tool} {arguments:?} {scopes:?}");
        }
    }
}

#[test]
fn other_calls_are_left_to_the_described_table() {
    assert_eq!(
        verdict("tools/call", "list_issues", None, &[]),
        Verdict::allow()
    );
    assert_eq!(
        verdict("prompts/get", "create_repository", None, &[]),
        Verdict::allow()
    );
}

#[test]
fn the_tool_table_is_whole() {
    let description = described("{}");
    let tools = &description.mcp_servers[0].tools;
    let needs = |name: &str| {
        let mut found = tools.iter().filter(|tool| tool.name == name);
        let needs = found
            .next()
            .unwrap_or_else(|| panic!("{name} is missing"))
            .needs
            .clone();
        assert!(found.next().is_none(), "{name} is there twice");
        needs
    };
    assert_eq!(tools.len(), 90);
    assert_eq!(needs("list_issues"), [["repo"]]);
    assert_eq!(needs("get_me"), Vec::<Vec<String>>::new());
    assert_eq!(needs("delete_repository"), [["delete_repo"], ["repo"]]);
    assert_eq!(needs("list_issue_types"), [["repo", "read:org"]]);
    assert!(
        tools
            .iter()
            .any(|tool| tool.name == "create_repository" && tool.broad)
    );
}

#[test]
fn every_scope_that_is_named_is_described() {
    let description = described("{}");
    let known = |scope: &String| description.scopes.iter().any(|known| known.name == *scope);
    let implied = description.scopes.iter().flat_map(|scope| &scope.implies);
    let needed = description.mcp_servers[0]
        .tools
        .iter()
        .flat_map(|tool| tool.needs.iter().flatten());
    for scope in implied.chain(needed).chain(&description.default_scopes) {
        assert!(known(scope), "{scope}");
    }
}

#[test]
fn each_kind_of_site_has_its_own_hosts() {
    let table: [(&str, &[&str], &str, usize); 3] = [
        (
            "{}",
            &["{host}", "api.github.com"],
            "https://api.github.com/user",
            1,
        ),
        (
            r#"{"host":"acme.ghe.com"}"#,
            &["{host}", "api.{host}"],
            "https://api.{host}/user",
            0,
        ),
        (
            r#"{"host":"git.acme.com"}"#,
            &["{host}"],
            "https://{host}/api/v3/user",
            0,
        ),
    ];
    for (settings, hosts, user, servers) in table {
        let description = described(settings);
        let hosts: Vec<_> = hosts.iter().map(|host| template(host)).collect();
        assert_eq!(description.authorization_hosts, hosts, "{settings}");
        assert_eq!(
            description.identity.unwrap().request.url,
            template(user),
            "{settings}"
        );
        assert_eq!(description.mcp_servers.len(), servers, "{settings}");
    }
}

#[test]
fn bad_settings_are_refused() {
    for settings in [
        r#"{"host":"https://git.acme.com"}"#,
        r#"{"host":"git.acme.com/x"}"#,
        r#"{"host":"localhost"}"#,
        r#"{"host":""}"#,
        r#"{"api_version":"v3\r\n"}"#,
        r#"{"hots":"x.y"}"#,
    ] {
        assert!(describe::<GitHub>(settings).is_err(), "{settings}");
    }
}

#[test]
fn a_refusal_with_status_200_is_no_success() {
    let answer = described("{}").token_answer;
    assert!(answer.may_be_form);
    assert_eq!(answer.success_checks, [Check::Absent("/error".into())]);
}
