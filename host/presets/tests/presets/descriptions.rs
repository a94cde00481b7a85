//! A description that could do harm is refused, each with its own sentence.

use serde_json::{Value, json};

use crate::fixture::{Fixture, description};
use crate::house::{House, provider};

fn refusal(change: impl FnOnce(&mut Value)) -> String {
    let mut said = description();
    change(&mut said);
    let house = House::empty();
    house.put("probe-1.0.0.wasm", &Fixture::described(said).bytes());
    house.reason("probe-1.0.0.wasm")
}

fn literal(text: &str) -> Value {
    json!([{"literal": text}])
}

fn rule(name: &str, value: Value) -> Value {
    json!({"name": "user", "rules": [{"set-header": {"name": name, "value": [value]}}]})
}

#[test]
fn every_harmful_description_is_refused_with_its_own_sentence() {
    let variable = |kind: Value| json!([{"name": "v", "source": {"setting": "v"}, "kind": kind}]);
    let request = |url: Value| json!({"method": "POST", "url": url});
    let long = "x".repeat(5000);
    #[rustfmt::skip]
    let cases: Vec<(&str, &str, Value, &str)> = vec![
        ("another name", "name", json!("other"), "\"probe\""),
        ("a line break", "display-name", json!("a\nb"), "a line break or another character"),
        ("a long text", "documentation-url", json!(long), "longer than"),
        ("twins", "credentials", json!([{"name": "user"}, {"name": "user"}]), "there twice"),
        ("no name", "credentials", json!([{"name": ""}, {"name": "user"}]), "is empty or longer"),
        ("an unknown credential", "token-shapes", json!([{"credential": "bot", "access-token": ["/t"]}]), "names \"bot\""),
        ("an unknown variable", "audience-hosts", json!([[{"variable": "x"}]]), "variable \"x\""),
        ("a client secret upstream", "credentials", json!([rule("Authorization", json!({"slot": "client-secret"}))]), "slot <client-secret>"),
        ("a hidden client secret upstream", "credentials", json!([rule("Authorization", json!({"basic": {"user": "client-id", "password": "client-secret"}}))]), "slot <client-secret>"),
        ("a refresh token upstream", "credentials", json!([rule("Authorization", json!({"slot": "refresh-token"}))]), "slot <refresh-token>"),
        ("a token in an upstream query", "credentials", json!([{"name": "user", "rules": [{"set-query": {"name": "t", "value": [{"slot": "access-token"}]}}]}]), "slot <access-token>"),
        ("a token in a constant header", "constant-headers", json!([{"name": "x-a", "value": [{"slot": "access-token"}]}]), "slot <access-token>"),
        ("a secret in the authorization request", "authorization", json!({"endpoint": literal("https://login.example.com/a"), "parameters": [{"name": "s", "value": [{"slot": "client-secret"}]}]}), "slot <client-secret>"),
        ("a token in an endpoint", "token-endpoint", json!([{"literal": "https://login.example.com/"}, {"slot": "access-token"}]), "slot <access-token>"),
        ("a refresh token with a code", "token-requests", json!([{"grant": "authorization-code", "parameters": [{"name": "r", "value": [{"slot": "refresh-token"}]}]}]), "slot <refresh-token>"),
        ("a client secret in a revocation URL", "revocation", json!([{"request": request(json!([{"literal": "https://login.example.com/"}, {"slot": "client-secret"}]))}]), "slot <client-secret>"),
        ("a token as host", "revocation", json!([{"request": request(json!([{"literal": "https://"}, {"slot": "access-token"}, {"literal": ".example.com/"}]))}]), "not an https address"),
        ("the header host", "credentials", json!([rule("Host", json!({"literal": "x"}))]), "header \"Host\""),
        ("an MCP header", "credentials", json!([rule("mcp-session-id", json!({"literal": "x"}))]), "header \"mcp-session-id\""),
        ("a forwarding header", "credentials", json!([rule("X-Forwarded-For", json!({"literal": "x"}))]), "header \"X-Forwarded-For\""),
        ("no header", "credentials", json!([rule("a b", json!({"literal": "x"}))]), "header \"a b\""),
        ("a header with a line break", "credentials", json!([rule("x-a", json!({"literal": "x\r\nHost: y"}))]), "a line break or another character"),
        ("a cookie to the provider", "token-requests", json!([{"headers": [{"name": "Cookie", "value": []}]}]), "header \"Cookie\""),
        ("state", "authorization", json!({"endpoint": literal("https://login.example.com/a"), "parameters": [{"name": "state", "value": []}]}), "parameter \"state\""),
        ("redirect_uri when incremental", "authorization", json!({"endpoint": literal("https://login.example.com/a"), "incremental-parameters": [{"name": "redirect_uri", "value": []}]}), "parameter \"redirect_uri\""),
        ("no state", "authorization", json!({"endpoint": literal("https://login.example.com/a"), "suppress": ["state"]}), "parameter \"state\""),
        ("the code", "token-requests", json!([{"parameters": [{"name": "code", "value": []}]}]), "parameter \"code\""),
        ("no pointer", "metadata", json!([{"name": "m", "pointer": "team"}]), "not a JSON pointer"),
        ("a pointer at the token", "metadata", json!([{"name": "m", "pointer": "/access_token"}]), "leads to a token"),
        ("a pointer around the token", "metadata", json!([{"name": "m", "pointer": ""}]), "leads to a token"),
        ("a variable that is the refresh token", "variables", json!([{"name": "v", "source": {"token-answer": "/refresh_token"}}]), "leads to a token"),
        ("an error that is the token", "token-answer", json!({"error-description": ["/access_token"]}), "leads to a token"),
        ("an account that is the token", "identity", json!({"request": {"method": "GET", "url": literal("https://api.example.com/me")}, "id": "/token"}), "leads to a token"),
        ("no host", "audience-hosts", json!([literal("https://api.example.com/")]), "not a host name"),
        ("every host", "audience-hosts", json!([literal(".com")]), "not a host name"),
        ("a variable for every host", "audience-hosts", json!([[{"variable": "v"}]]), "variable \"v\""),
        ("http", "token-endpoint", literal("http://login.example.com/token"), "not an https address"),
        ("userinfo", "token-endpoint", literal("https://u:p@login.example.com/token"), "not an https address"),
        ("javascript", "token-endpoint", literal("javascript:alert(1)"), "not an https address"),
        ("another token host", "token-endpoint", literal("https://evil.example.net/token"), "\"evil.example.net\""),
        ("a token host that only looks right", "token-endpoint", literal("https://login.example.com.evil.net/"), "evil.net"),
        ("the client secret to the audience", "identity", json!({"request": {"method": "POST", "url": literal("https://api.example.com/me"), "client-authentication": "client-secret-basic"}, "id": "/id"}), "\"api.example.com\""),
        ("another method", "revocation", json!([{"request": {"method": "CONNECT", "url": literal("https://login.example.com/")}}]), "\"CONNECT\""),
        ("no scope", "default-scopes", json!(["a b"]), "not a scope"),
        ("a default of the wrong kind", "variables", json!([{"name": "v", "source": {"setting": "v"}, "kind": "label", "default-value": "a.b"}]), "default"),
        ("an unknown follow-up", "variables", json!([{"name": "v", "source": {"follow-up": {"follow-up": "f", "pointer": "/id"}}}]), "names \"f\""),
    ];
    for (what, field, value, words) in cases {
        let reason = refusal(|said| said[field] = value);
        assert!(reason.contains(words), "{what}: {reason}");
    }
    let reason = refusal(|said| {
        said["variables"] = variable(json!("identifier"));
        said["audience-hosts"] = json!([[{"variable": "v"}, {"literal": ".example.com"}]]);
    });
    assert!(
        reason.contains("may not be part of a host name"),
        "{reason}"
    );
    let reason = refusal(|said| {
        said["variables"] = variable(json!("label"));
        said["audience-hosts"] = json!([[{"variable": "v"}, {"literal": ".com"}]]);
    });
    assert!(reason.contains("not a host name"), "{reason}");
}

#[test]
fn settings_are_checked_against_the_declared_kind_and_fill_the_permissions() {
    let mut said = description();
    said["variables"] = json!([
        {"name": "tenant", "title": "Tenant", "source": {"setting": "tenant"}, "kind": "label", "required": true},
        {"name": "region", "source": {"setting": "region"}, "kind": {"enumeration": [
            {"value": "eu", "sets": [["api", "api-eu.example.com"]]},
            {"value": "us", "sets": [["api", "api-us.example.com"]]},
        ]}},
        {"name": "instance", "source": {"token-answer": "/instance_url"}, "kind": {"origin": [".example.org"]}},
    ]);
    said["authorization-hosts"] = json!([[{"variable": "tenant"}, {"literal": ".example.com"}]]);
    said["audience-hosts"] = json!([[{"variable": "api"}], [{"variable": "instance"}]]);
    said["authorization"] = json!({"endpoint": [{"literal": "https://"}, {"variable": "tenant"}, {"literal": ".example.com/a"}]});
    said["token-endpoint"] =
        json!([{"literal": "https://"}, {"variable": "tenant"}, {"literal": ".example.com/t"}]);
    let house = House::empty();
    house.put("probe-1.0.0.wasm", &Fixture::described(said).bytes());

    let mut provider = provider();
    let error = |provider: &_| house.catalog.bind(provider, &[]).err().unwrap().to_string();
    assert!(
        error(&provider).contains("the setting \"tenant\" is missing"),
        "{}",
        error(&provider)
    );
    provider
        .settings
        .insert("tenant".into(), "evil.net/".into());
    assert!(
        error(&provider).contains("one DNS label"),
        "{}",
        error(&provider)
    );
    provider.settings.insert("tenant".into(), "acme".into());

    let permissions = |provider: &_| {
        house.catalog.bind(provider, &[]).err().unwrap();
        house.proposed().permissions
    };
    let open = permissions(&provider);
    assert_eq!(
        open.authorization_hosts.iter().collect::<Vec<_>>(),
        ["acme.example.com"]
    );
    let audience: Vec<_> = open.audience_hosts.iter().collect();
    assert_eq!(
        audience,
        ["*.example.org", "api-eu.example.com", "api-us.example.com"]
    );
    assert!(
        open.endpoints.contains("token https://acme.example.com/t"),
        "{:?}",
        open.endpoints
    );
    assert_eq!(open.headers.iter().collect::<Vec<_>>(), ["authorization"]);
    assert_eq!(open.slots.iter().collect::<Vec<_>>(), ["<access-token>"]);

    provider.settings.insert("region".into(), "eu".into());
    let narrow = permissions(&provider);
    assert!(narrow.is_same_or_narrower(&open) && !open.is_same_or_narrower(&narrow));

    // The record's own hosts take the place of the preset's.
    provider.audience_hosts = vec!["mcp.acme.internal".parse_host()];
    let own = permissions(&provider);
    assert_eq!(
        own.audience_hosts.iter().collect::<Vec<_>>(),
        ["mcp.acme.internal"]
    );
}

trait ParseHost {
    fn parse_host(&self) -> countersign_core::hosts::HostPattern;
}

impl ParseHost for str {
    fn parse_host(&self) -> countersign_core::hosts::HostPattern {
        countersign_core::hosts::HostPattern::parse(self).unwrap()
    }
}
