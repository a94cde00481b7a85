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

impl hooks::Sign for Acme {
    fn sign(
        outgoing: &hooks::Outgoing,
        key: &hooks::Key<'_>,
    ) -> Result<Vec<hooks::SignedHeader>, String> {
        let day = key.hmac(hooks::Algorithm::HmacSha256, outgoing.time.to_string());
        let signature = day.hmac(hooks::Algorithm::HmacSha256, &outgoing.body_sha256);
        Ok(vec![hooks::SignedHeader::new(
            "x-signature",
            ["v1=".into(), signature.hex()],
        )])
    }
}

impl hooks::Redact for Acme {
    fn redact(_: &Call, content: &str) -> Result<Vec<hooks::Redaction>, String> {
        Ok(hooks::strings(content)?
            .into_iter()
            .filter_map(|(pointer, text)| {
                let start = text.find("secret ")?;
                Some(hooks::Redaction::range_at(&pointer, start..start + 6))
            })
            .collect())
    }
}

impl hooks::Identity for Acme {
    fn identity(body: &str) -> Result<hooks::Account, String> {
        let id = body
            .split_once("<id>")
            .and_then(|(_, rest)| rest.split_once("</id>"))
            .map(|(id, _)| id.to_string());
        let id = id.ok_or("there is no id")?;
        Ok(hooks::Account {
            label: id.clone(),
            id,
            tenant: None,
        })
    }
}

export_preset!(Acme: FilterTools, Sign, Redact, Identity);

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
fn a_signature_is_tested_by_the_formula_it_is_made_by() {
    let outgoing = hooks::Outgoing {
        method: "POST".into(),
        host: "api.acme.com".into(),
        path: "/mcp".into(),
        query: vec![],
        headers: vec![],
        body_sha256: "ab12".into(),
        time: 7,
    };
    let name = "key".to_string();
    let key = hooks::Key::named(&name);
    let headers = <Acme as hooks::Sign>::sign(&outgoing, &key).unwrap();
    let hooks::SignedPart::Signature(signature, hooks::Encoding::Hex) = &headers[0].value[1] else {
        panic!("{headers:?}");
    };
    assert_eq!(
        format!("{signature:?}"),
        r#"Signature("hmac-sha256(hmac-sha256(key, \"7\"), \"ab12\")")"#
    );
    assert_eq!(headers[0].value[0], "v1=".into());
}

#[test]
fn redactor_and_identity_are_plain_functions_too() {
    let call = Call {
        method: "tools/call".into(),
        name: None,
        arguments: None,
        host: "api.acme.com".into(),
        settings: None,
    };
    let redact = <Acme as hooks::Redact>::redact;
    assert_eq!(
        redact(&call, r#"{"content":[{"text":"a secret word"}]}"#),
        Ok(vec![hooks::Redaction::range_at("/content/0/text", 2..8)])
    );
    let account = <Acme as hooks::Identity>::identity("<me><id>7</id></me>").unwrap();
    assert_eq!((account.id.as_str(), account.tenant), ("7", None));
    assert!(<Acme as hooks::Identity>::identity("{}").is_err());
}

#[test]
fn a_preset_for_aws_needs_a_service_and_a_region() {
    let credential = Credential::sigv4("aws", "AWS key", "execute-api", "{region}");
    let description = Description::keyed("aws", "AWS", credential);
    let sigv4 = description.credentials[0].sigv4.clone().unwrap();
    assert_eq!(sigv4.region, template("{region}"));
    assert_eq!(description.authorization, None);
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
