//! What a description may not say: it is refused when the file is loaded, or
//! when a provider is bound to it.

use serde_json::{Value, json};

use crate::fixture::{Fixture, description};
use crate::street::{Street, line};

/// The description with this changed.
fn saying(change: impl FnOnce(&mut Value)) -> Fixture {
    let mut said = description();
    change(&mut said);
    Fixture::described(said)
}

fn member(name: &'static str, value: Value) -> Fixture {
    saying(|said| said[name] = value)
}

fn literal(text: &str) -> Value {
    json!([{ "literal": text }])
}

/// With one more rule for its credential.
fn rule(rule: Value) -> Fixture {
    saying(|said| {
        if let Some(rules) = said["credentials"][0]["rules"].as_array_mut() {
            rules.push(rule);
        }
    })
}

fn header(name: &str, value: Value) -> Fixture {
    rule(json!({"set-header": {"name": name, "value": value}}))
}

fn query(name: &str, value: Value) -> Fixture {
    rule(json!({"set-query": {"name": name, "value": value}}))
}

fn authorize(parameter: &str, value: Value) -> Fixture {
    saying(|said| {
        said["authorization"]["parameters"] = json!([{"name": parameter, "value": value}]);
    })
}

fn refusals(subject: &str, cases: Vec<(String, Fixture)>) -> String {
    let mut street = Street::new(subject);
    cases
        .into_iter()
        .map(|(what, fixture)| line(&what, &street.refusal(&what, &fixture.bytes())))
        .collect()
}

fn named(cases: Vec<(&str, Fixture)>) -> Vec<(String, Fixture)> {
    cases
        .into_iter()
        .map(|(what, fixture)| (what.to_owned(), fixture))
        .collect()
}

#[test]
fn headers_that_are_not_a_presets_to_set() {
    let mut cases: Vec<_> = [
        "Host",
        "Cookie",
        "Set-Cookie",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Proxy-Authorization",
        "Content-Length",
        "Mcp-Session-Id",
        "MCP-Protocol-Version",
        "Mcp-Method",
        "X-Forwarded-Host",
        "Sec-Fetch-Site",
        "",
        "x y",
    ]
    .into_iter()
    .map(|name| (format!("the header {name:?}"), header(name, literal("x"))))
    .collect();
    cases.extend(named(vec![
        (
            "a line break in a header's value",
            header("x-ok", literal("a\r\nx-evil: b")),
        ),
        (
            "a line break in a header's name",
            header("x-ok\r\nx-evil", literal("b")),
        ),
        (
            "a line break in a constant header",
            member(
                "constant-headers",
                json!([{"name": "x-ok", "value": literal("a\nb")}]),
            ),
        ),
        (
            "Host as a constant header",
            member(
                "constant-headers",
                json!([{"name": "host", "value": literal("evil.example")}]),
            ),
        ),
    ]));
    insta::assert_snapshot!("headers", refusals("headers", cases));
}

#[test]
fn secrets_where_none_may_stand() {
    let slot = |slot: &str| json!([{ "slot": slot }]);
    let cases = named(vec![
        ("the token in a query", query("t", slot("access-token"))),
        (
            "the client's secret to an MCP server",
            header("x-key", slot("client-secret")),
        ),
        (
            "the refresh token to an MCP server",
            header("x-key", slot("refresh-token")),
        ),
        (
            "the client's secret through the browser",
            authorize("s", slot("client-secret")),
        ),
        (
            "the refresh token through the browser",
            authorize("s", slot("refresh-token")),
        ),
        (
            "the token in an audience host",
            member("audience-hosts", json!([slot("access-token")])),
        ),
        (
            "the client's secret in the address of the token endpoint",
            member(
                "token-endpoint",
                json!([{"literal": "https://login.example.com/"}, {"slot": "client-secret"}]),
            ),
        ),
    ]);
    insta::assert_snapshot!("secrets", refusals("secrets", cases));
}

#[test]
fn hosts_off_the_audience() {
    let audience = |host: &str| member("audience-hosts", json!([literal(host)]));
    let request = |url: &str| {
        json!({
            "method": "GET",
            "url": literal(url),
            "headers": [{"name": "Authorization", "value": [{"slot": "access-token"}]}],
        })
    };
    let mut cases: Vec<_> = [
        "*",
        "*.com",
        ".",
        "",
        "https://evil.example/x",
        "evil.example/api.example.com",
        "api.example.com@evil.example",
        "api.example.com#.evil.example",
        "api.example.com evil.example",
        "äpi.example.com",
    ]
    .into_iter()
    .map(|host| (format!("the audience {host:?}"), audience(host)))
    .collect();
    cases.extend(named(vec![
        (
            "a token endpoint elsewhere",
            member("token-endpoint", literal("https://evil.example/token")),
        ),
        (
            "a token endpoint without TLS",
            member("token-endpoint", literal("http://login.example.com/token")),
        ),
        (
            "a token endpoint behind a name and password",
            member(
                "token-endpoint",
                literal("https://login.example.com@evil.example/token"),
            ),
        ),
        (
            "a token endpoint with a backslash",
            member(
                "token-endpoint",
                literal("https://evil.example\\.login.example.com/token"),
            ),
        ),
        (
            "a revocation elsewhere",
            member(
                "revocation",
                json!([{"request": request("https://evil.example/revoke"), "effect": "token"}]),
            ),
        ),
        (
            "an identity elsewhere",
            member(
                "identity",
                json!({"request": request("https://evil.example/me"), "id": "/id"}),
            ),
        ),
        (
            "a follow-up elsewhere",
            member(
                "follow-ups",
                json!([{"name": "f", "request": request("https://evil.example/f")}]),
            ),
        ),
        (
            "an authorization page of another scheme",
            saying(|said| {
                said["authorization"]["endpoint"] =
                    literal("javascript:alert(1)//login.example.com");
            }),
        ),
        (
            "a host made of what the provider answers",
            saying(|said| {
                said["variables"] = json!([{
                    "name": "where", "title": "Where", "kind": "identifier",
                    "source": {"token-answer": "/where"},
                }]);
                said["audience-hosts"] = json!([[{"variable": "where"}]]);
            }),
        ),
    ]));
    insta::assert_snapshot!("hosts", refusals("hosts", cases));
}

#[test]
fn parameters_that_are_the_hosts_own() {
    let mut cases: Vec<_> = [
        "client_id",
        "redirect_uri",
        "response_type",
        "state",
        "code_challenge",
        "code_challenge_method",
        "scope",
        "nonce",
        "request_uri",
        "request",
        "",
    ]
    .into_iter()
    .map(|name| {
        (
            format!("the authorization parameter {name:?}"),
            authorize(name, literal("x")),
        )
    })
    .collect();
    cases.extend(named(vec![
        (
            "PKCE suppressed",
            saying(|said| said["authorization"]["suppress"] = json!(["code_challenge"])),
        ),
        (
            "state suppressed",
            saying(|said| said["authorization"]["suppress"] = json!(["state"])),
        ),
        (
            "the verifier of PKCE replaced",
            member(
                "token-requests",
                json!([{
                    "grant": "authorization-code",
                    "parameters": [{"name": "code_verifier", "value": literal("x")}],
                }]),
            ),
        ),
        (
            "a line break in a parameter",
            authorize("hint", literal("a\r\nb")),
        ),
        (
            "scopes in the place of state",
            saying(|said| {
                said["authorization"]["scope-parameters"] =
                    json!([{"name": "state", "separator": " "}]);
            }),
        ),
    ]));
    insta::assert_snapshot!("parameters", refusals("parameters", cases));
}

#[test]
fn pointers_at_tokens_and_to_nowhere() {
    let metadata = |pointer: &str| {
        member(
            "metadata",
            json!([{"name": "m", "pointer": pointer, "kind": "identifier"}]),
        )
    };
    let shape = |pointers: &[&str]| {
        member(
            "token-shapes",
            json!([{"credential": "user", "access-token": pointers}]),
        )
    };
    let mut cases: Vec<_> = [
        "access_token",
        "/a~2b",
        "#/id",
        "",
        "/access_token",
        "/access_token/0",
        "/deep/down/refresh_token",
        "/deep/Client_Secret",
    ]
    .into_iter()
    .map(|pointer| (format!("metadata at {pointer:?}"), metadata(pointer)))
    .collect();
    cases.extend(named(vec![
        ("a token at no pointer", shape(&["token"])),
        ("a token that is the whole answer", shape(&[""])),
        (
            "a variable at the token",
            member(
                "variables",
                json!([{
                    "name": "v", "title": "V", "kind": "identifier",
                    "source": {"token-answer": "/access_token"},
                }]),
            ),
        ),
        (
            "an error's text at the token",
            member(
                "token-answer",
                json!({"error-description": ["/access_token"]}),
            ),
        ),
        (
            "an account's name at the token",
            member(
                "identity",
                json!({
                    "request": {"method": "GET", "url": literal("https://login.example.com/me")},
                    "id": "/id",
                    "label": ["/access_token"],
                }),
            ),
        ),
        (
            "a variable of a follow-up that is not there",
            member(
                "variables",
                json!([{
                    "name": "v", "title": "V", "kind": "identifier",
                    "source": {"follow-up": {"follow-up": "none", "pointer": "/id"}},
                }]),
            ),
        ),
        (
            "a token of a credential that is not there",
            member(
                "token-shapes",
                json!([{"credential": "nobody", "access-token": ["/access_token"]}]),
            ),
        ),
    ]));
    insta::assert_snapshot!("pointers", refusals("pointers", cases));
}

#[test]
fn names_that_collide() {
    let twice = |value: Value| json!([value.clone(), value]);
    let variable = |name: &str| {
        json!({
            "name": name, "title": name, "kind": "identifier",
            "source": {"setting": name}, "default-value": "x",
        })
    };
    let choosing = |sets: &str| {
        json!({
            "name": "region", "title": "Region", "default-value": "eu",
            "source": {"setting": "region"},
            "kind": {"enumeration": [{"value": "eu", "title": "EU", "sets": [[sets, "x"]]}]},
        })
    };
    let cases = named(vec![
        ("another preset's name", member("name", json!("github"))),
        ("a name in capitals", member("name", json!("Probe"))),
        (
            "two credentials of one name",
            saying(|said| said["credentials"] = twice(said["credentials"][0].clone())),
        ),
        (
            "two scopes of one name",
            member("scopes", twice(json!({"name": "read", "title": "Read"}))),
        ),
        (
            "two variables of one name",
            member("variables", twice(variable("tenant"))),
        ),
        (
            "two metadata of one name",
            member(
                "metadata",
                twice(json!({"name": "team", "pointer": "/team", "kind": "identifier"})),
            ),
        ),
        (
            "a variable and metadata of one name",
            saying(|said| {
                said["variables"] = json!([variable("team")]);
                said["metadata"] =
                    json!([{"name": "team", "pointer": "/team", "kind": "identifier"}]);
            }),
        ),
        (
            "a choice that sets its own variable",
            member("variables", json!([choosing("region")])),
        ),
        (
            "two follow-ups of one name",
            member(
                "follow-ups",
                twice(json!({
                    "name": "f",
                    "request": {"method": "GET", "url": literal("https://login.example.com/f")},
                })),
            ),
        ),
        (
            "two scope parameters of one name",
            saying(|said| {
                said["authorization"]["scope-parameters"] =
                    twice(json!({"name": "scope", "separator": " "}));
            }),
        ),
        (
            "two tools of one name",
            member(
                "mcp-servers",
                json!([{
                    "url": literal("https://api.example.com/mcp"), "title": "T", "as-of": "2026-11-21",
                    "tools": twice(json!({"name": "read", "needs": []})),
                }]),
            ),
        ),
    ]);
    insta::assert_snapshot!("names", refusals("names", cases));
}

#[test]
fn descriptions_without_end() {
    let scopes = |count: usize| -> Value {
        (0..count)
            .map(|n| json!({"name": format!("s{n}"), "title": "S"}))
            .collect()
    };
    let cases = named(vec![
        ("five thousand scopes", member("scopes", scopes(5000))),
        (
            "a title of 100 KB",
            member("display-name", json!("t".repeat(100_000))),
        ),
        (
            "a title that turns the page around",
            member("display-name", json!("safe\u{202e}live")),
        ),
        (
            "a title with a line break",
            member(
                "display-name",
                json!("Probe\nApproved by your administrator"),
            ),
        ),
        (
            "9 MB of text",
            member(
                "error-advice",
                (0..2300)
                    .map(|n| json!({"code": format!("c{n}"), "advice": "a".repeat(4000)}))
                    .collect(),
            ),
        ),
        (
            "a template with a million meanings",
            saying(|said| {
                let choices: Vec<Value> = (0..100)
                    .map(|n| json!({"value": format!("v{n}"), "title": "V"}))
                    .collect();
                let variable = |name: &str| {
                    json!({
                        "name": name, "title": name, "kind": {"enumeration": choices},
                        "source": {"setting": name},
                    })
                };
                said["variables"] = json!([variable("a"), variable("b"), variable("c")]);
                said["audience-hosts"] = json!([[
                    {"variable": "a"}, {"literal": "."}, {"variable": "b"}, {"literal": "."},
                    {"variable": "c"}, {"literal": ".example.com"},
                ]]);
            }),
        ),
    ]);
    insta::assert_snapshot!("endless", refusals("descriptions without end", cases));
}
