use countersign_guest_sdk::describe;
use countersign_guest_sdk::prelude::*;

use super::Generic;

fn described(settings: &str) -> Description {
    describe::<Generic>(settings).unwrap_or_else(|error| panic!("{settings}: {error}"))
}

#[test]
fn without_settings_everything_is_the_records_or_the_rfcs() {
    let description = described("{}");
    let request = description.authorization.unwrap();
    assert_eq!(request.endpoint, vec![]);
    assert_eq!(description.token_endpoint, None);
    assert_eq!(description.revocation[0].request.url, vec![]);
    assert!(description.authorization_hosts.is_empty());
    assert!(description.audience_hosts.is_empty());
    assert!(description.token_requests.is_empty());
    assert_eq!(request.scope_parameters[0].separator, " ");
    assert_eq!(description.token_shapes, [TokenShape::rfc6749("user")]);
    assert_eq!(
        description.credentials[0].rules,
        [Rule::header("authorization", bearer())]
    );
}

#[test]
fn each_setting_changes_what_it_names() {
    type Test = fn(Description) -> bool;
    let table: [(&str, Test); 15] = [
        (r#"{"scope_separator":","}"#, |d| {
            d.authorization.unwrap().scope_parameters[0].separator == ","
        }),
        (r#"{"scope_parameter":"user_scope"}"#, |d| {
            d.authorization.unwrap().scope_parameters[0].name == "user_scope"
        }),
        (r#"{"send_scopes":false}"#, |d| {
            d.authorization.unwrap().scope_parameters.is_empty()
        }),
        (r#"{"authorize_parameters":{"audience":"api {x}"}}"#, |d| {
            d.authorization.unwrap().parameters[0].value == [Part::Literal("api {x}".into())]
        }),
        (r#"{"pkce":"required"}"#, |d| {
            d.authorization.unwrap().pkce == Pkce::Required
        }),
        (r#"{"offline_scope":"offline_access"}"#, |d| {
            d.authorization.unwrap().offline == Offline::Scope("offline_access".into())
        }),
        (r#"{"token_body":"json"}"#, |d| {
            d.token_requests.len() == 5
                && d.token_requests
                    .iter()
                    .all(|request| request.body == BodyFormat::Json)
        }),
        (r#"{"refresh_parameters":{"scope":"x"}}"#, |d| {
            d.token_requests.len() == 1 && d.token_requests[0].parameters[0].name == "scope"
        }),
        (r#"{"service_parameters":{"tenant":"t"}}"#, |d| {
            d.token_requests.len() == 1 && d.token_requests[0].grant == GrantType::ClientCredentials
        }),
        (
            r#"{"exchange_parameters":{"requested_token_use":"on_behalf_of"}}"#,
            |d| {
                d.token_requests.len() == 2
                    && d.token_requests
                        .iter()
                        .all(|request| request.parameters[0].name == "requested_token_use")
            },
        ),
        (r#"{"expires_in":600}"#, |d| {
            d.token_shapes[0].expires
                == [
                    Expiry::Lifetime("/expires_in".into()),
                    Expiry::Constant(600),
                ]
        }),
        (r#"{"header_name":"x-token","header_prefix":""}"#, |d| {
            d.credentials[0].rules == [Rule::header("x-token", "{$access-token}")]
        }),
        (r#"{"header_prefix":"token"}"#, |d| {
            d.credentials[0].rules == [Rule::header("authorization", "token {$access-token}")]
        }),
        (r#"{"headers":{"accept-version":"2"}}"#, |d| {
            d.constant_headers.len() == 1
        }),
        (r#"{"userinfo_endpoint":"https://id.acme.com/me"}"#, |d| {
            d.authorization_hosts == [template("id.acme.com")] && d.identity.unwrap().id == "/sub"
        }),
    ];
    for (settings, holds) in table {
        assert!(holds(described(settings)), "{settings}");
    }
}

#[test]
fn bad_settings_are_refused_with_a_sentence_that_names_them() {
    let table = [
        (
            r#"{"scope_seperator":","}"#,
            "unknown setting `scope_seperator`; this preset knows ",
        ),
        (
            r#"{"scope_separator":""}"#,
            "setting `scope_separator` must not be empty",
        ),
        (
            r#"{"scope_parameter":"state"}"#,
            "setting `scope_parameter` must not be state",
        ),
        (
            r#"{"authorize_parameters":{"state":"x"}}"#,
            "setting `authorize_parameters` must not hold",
        ),
        (
            r#"{"authorize_parameters":{"a b":"x"}}"#,
            "setting `authorize_parameters`: `a b` is no",
        ),
        (
            r#"{"authorize_parameters":["x"]}"#,
            "setting `authorize_parameters` must be an object",
        ),
        (
            r#"{"token_body":"xml"}"#,
            "setting `token_body` must be one of form, json",
        ),
        (
            r#"{"header_name":"a:b"}"#,
            "setting `header_name`: `a:b` is no name for a header",
        ),
        (
            r#"{"header_prefix":"a\r\nb"}"#,
            "setting `header_prefix` must be one line",
        ),
        (
            r#"{"headers":{"a":"\u0000"}}"#,
            "setting `headers` must be one line",
        ),
        (
            r#"{"expires_in":0}"#,
            "setting `expires_in` must be at least one second",
        ),
        (
            r#"{"expires_in":"soon"}"#,
            "setting `expires_in` must be a whole number",
        ),
        (
            r#"{"scope_pointer":"scope"}"#,
            "setting `scope_pointer` must be a JSON pointer",
        ),
        (
            r#"{"userinfo_endpoint":"http://a.b/"}"#,
            "setting `userinfo_endpoint` must be an https",
        ),
        (
            r#"{"userinfo_endpoint":"https://u@a.b/"}"#,
            "setting `userinfo_endpoint` must be an",
        ),
        (
            r#"{"userinfo_id_pointer":"/id"}"#,
            "settings `userinfo_id_pointer` and",
        ),
    ];
    for (settings, sentence) in table {
        let error = describe::<Generic>(settings).expect_err(settings);
        assert!(error.starts_with(sentence), "{settings}: {error}");
    }
}
