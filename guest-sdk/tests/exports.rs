//! A preset as an author writes it, tested without WebAssembly.

use countersign_guest_sdk::prelude::*;
use countersign_guest_sdk::{describe, hooks};

struct Acme;

impl Provider for Acme {
    fn describe(settings: &mut Settings) -> Result<Description, String> {
        let tenant = settings
            .text("tenant")?
            .ok_or("setting `tenant` is missing")?;
        Ok(Description::oauth2("acme", "Acme")
            .variable(Variable::setting("tenant", "Tenant", ValueKind::Label).or(&tenant))
            .authorize("https://{tenant}.acme.com/oauth/authorize?from=gateway")
            .token("https://login.acme.com/oauth/token")
            .scopes(["files:read", "files:write"])
            .audience(["api.acme.com"])
            .revocation(Revocation::rfc7009("https://login.acme.com/oauth/revoke"))
            .identity(IdentityRequest::new(
                Request::get("https://id.acme.com/me").with_token(),
                "/id",
                ["/name"],
            )))
    }

    fn evaluate(call: &Call, grant: &Grant) -> Result<Verdict, String> {
        Ok(match call.tool() {
            Some("write") if !is_granted(grant, &["files:write"]) => Verdict::need(["files:write"]),
            _ => Verdict::allow(),
        })
    }
}

impl hooks::FilterTools for Acme {
    fn filter_tools(tools: Vec<String>, grant: &Grant) -> Result<Vec<String>, String> {
        let writes = is_granted(grant, &["files:write"]);
        Ok(tools
            .into_iter()
            .filter(|tool| writes || tool != "write")
            .collect())
    }
}

export_preset!(Acme: FilterTools);

fn grant(scopes: &[&str]) -> Grant {
    let scopes = scopes.iter().map(|scope| scope.to_string()).collect();
    Grant {
        scopes,
        account: None,
        facts: vec![],
    }
}

#[test]
fn the_hosts_of_described_urls_are_authorization_hosts_once_each() {
    let description = describe::<Acme>(r#"{"tenant":"blue"}"#).unwrap();
    let expected = ["{tenant}.acme.com", "login.acme.com", "id.acme.com"].map(template);
    assert_eq!(description.authorization_hosts, expected);
    assert_eq!(description.audience_hosts, [template("api.acme.com")]);
}

#[test]
fn settings_that_no_reader_asked_for_refuse_the_whole() {
    assert_eq!(
        describe::<Acme>(r#"{"tenant":"blue","tennant":"red"}"#).unwrap_err(),
        "unknown setting `tennant`; this preset knows tenant"
    );
    assert_eq!(
        describe::<Acme>("{}").unwrap_err(),
        "setting `tenant` is missing"
    );
    assert_eq!(
        describe::<Acme>("[]").unwrap_err(),
        "settings must be a JSON object"
    );
}

#[test]
fn decisions_and_hooks_are_plain_functions() {
    let call = Call {
        method: "tools/call".into(),
        name: Some("write".into()),
        arguments: None,
        host: "api.acme.com".into(),
        settings: None,
    };
    assert_eq!(
        Acme::evaluate(&call, &grant(&[])),
        Ok(Verdict::need(["files:write"]))
    );
    assert_eq!(
        Acme::evaluate(&call, &grant(&["files:write"])),
        Ok(Verdict::allow())
    );
    let tools = || vec!["read".to_string(), "write".to_string()];
    let filter = <Acme as hooks::FilterTools>::filter_tools;
    assert_eq!(filter(tools(), &grant(&[])).unwrap(), ["read"]);
    assert_eq!(filter(tools(), &grant(&["files:write"])).unwrap(), tools());
}

#[test]
fn a_preset_for_a_static_key_signs_nobody_in() {
    let rule = Rule::header("x-api-key", "{$api-key}");
    let description = Description::api_key("keyed", "Keyed", rule.clone());
    assert_eq!(description.authorization, None);
    assert!(description.token_shapes.is_empty());
    assert_eq!(description.credentials[0].rules, [rule]);
    assert_eq!(description.refresh.kind, RefreshKind::None);
}
