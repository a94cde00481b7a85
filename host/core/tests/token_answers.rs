//! Token answers as providers really give them (see `providers/quirks.md` D).

use std::time::Duration;

use base64::Engine as _;
use countersign_core::connection::{ReauthReason, TokenFacts};
use countersign_core::preset::*;
use countersign_core::refresh::{Failure, Meaning, Need, classify, need};
use countersign_core::request::SendError;
use countersign_core::scope::ScopeSet;
use countersign_core::secret::{SealKey, Sealed, Secret};
use countersign_core::time::Timestamp;
use countersign_core::token_answer::{Answer, AnswerError, Granted, Reading, masked_body, read};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

fn shape(credential: &str, prefix: &str) -> TokenShape {
    let pointer = |name: &str| vec![format!("{prefix}/{name}")];
    TokenShape {
        credential: credential.into(),
        when: vec![],
        optional: false,
        access_token: pointer("access_token"),
        refresh_token: pointer("refresh_token"),
        id_token: pointer("id_token"),
        expires: vec![Expiry::Lifetime(format!("{prefix}/expires_in"))],
        refresh_expires: vec![Expiry::Lifetime(format!(
            "{prefix}/refresh_token_expires_in"
        ))],
        scopes: pointer("scope"),
        scope_separators: vec![",".into(), " ".into()],
    }
}

fn scope_parameter(name: &str, credential: Option<&str>) -> ScopeParameter {
    ScopeParameter {
        name: name.into(),
        separator: " ".into(),
        credential: credential.map(Into::into),
        send_empty: false,
    }
}

fn description() -> Description {
    Description {
        name: "fake".into(),
        display_name: "Fake".into(),
        version: "1.0.0".into(),
        category: String::new(),
        documentation_url: String::new(),
        wants: Wants::default(),
        hooks: Hooks::default(),
        variables: vec![],
        variants: vec![],
        authorization_hosts: vec![],
        audience_hosts: vec![],
        authorization: Some(AuthorizationRequest {
            endpoint: vec![],
            parameters: vec![],
            incremental_parameters: vec![],
            suppress: vec![],
            scope_parameters: vec![scope_parameter("scope", None)],
            pkce: Pkce::Supported,
            offline: Offline::None,
        }),
        token_endpoint: None,
        device_authorization_endpoint: None,
        token_requests: vec![],
        token_answer: AnswerShape {
            success_codes: vec![],
            success_checks: vec![],
            error_code: vec!["/error".into()],
            error_description: vec![],
            may_be_form: false,
        },
        token_shapes: vec![shape("default", "")],
        metadata: vec![],
        grant_difference: GrantDifference::Accept,
        scopes: vec![],
        default_scopes: vec![],
        refresh: refresh(),
        revocation: vec![],
        follow_ups: vec![],
        identity: None,
        credentials: vec![],
        constant_headers: vec![],
        mcp_servers: vec![],
        error_advice: vec![],
    }
}

fn refresh() -> Refresh {
    Refresh {
        kind: RefreshKind::RefreshToken,
        rotation: Rotation::Sometimes,
        grace_seconds: 0,
        retry_after_lost_answer: false,
        ends_access_token: false,
        idle_days: Some(60),
        margin_percent: 10,
        permanent_errors: vec!["bad_refresh_token".into()],
        transient_errors: vec!["busy_now".into()],
    }
}

fn scopes(text: &str) -> ScopeSet {
    ScopeSet::split(text, &[])
}

fn read_as(
    description: &Description,
    status: u16,
    kind: &str,
    body: &str,
) -> Result<Granted, AnswerError> {
    let reading = Reading {
        description,
        shapes: None,
        asked: &scopes("asked:one asked:two"),
        now: NOW,
        client_secret: None,
        only: None,
    };
    read(
        &Answer::new(status, Some(kind), body.as_bytes().to_vec()),
        &reading,
    )
}

fn is(secret: &Secret, text: &str) -> bool {
    secret.matches(&Secret::from_text(text.into()))
}

fn refused(status: u16, code: Option<&str>) -> AnswerError {
    AnswerError::Refused {
        status,
        code: code.map(Into::into),
    }
}

fn good(result: Result<Granted, AnswerError>) -> Granted {
    result.unwrap_or_else(|e| panic!("{e}"))
}

fn bad(result: Result<Granted, AnswerError>) -> AnswerError {
    result.err().unwrap_or_else(|| panic!("it was read"))
}

#[test]
fn githubs_form_answer_is_read() {
    let mut github = description();
    github.token_answer.may_be_form = true;
    for kind in [FORM, "text/plain"] {
        let body = "access_token=gho_abc%2Bdef&scope=repo%2Cgist&token_type=bearer";
        let granted = good(read_as(&github, 200, kind, body));
        assert!(is(
            &granted.tokens.credentials[0].access_token,
            "gho_abc+def"
        ));
        assert_eq!(granted.facts[0].scopes, scopes("gist repo"));
        assert_eq!(granted.facts[0].expires_at, None);
    }
}

#[test]
fn an_error_with_status_200_is_an_error() {
    let body =
        r#"{"error":"bad_verification_code","error_description":"gho_secret","error_uri":"x"}"#;
    assert_eq!(
        bad(read_as(&description(), 200, JSON, body)),
        refused(200, Some("bad_verification_code"))
    );
    let mut github = description();
    github.token_answer.may_be_form = true;
    let body = "error=bad_verification_code&error_description=The+code";
    assert_eq!(
        bad(read_as(&github, 200, FORM, body)),
        refused(200, Some("bad_verification_code"))
    );
}

fn slack() -> Description {
    let mut slack = description();
    slack.token_answer.success_checks = vec![Check::Equals("/ok".into(), "true".into())];
    let mut bot = shape("bot", "");
    bot.optional = true;
    let mut user = shape("user", "/authed_user");
    user.optional = true;
    slack.token_shapes = vec![bot, user];
    if let Some(authorization) = &mut slack.authorization {
        authorization.scope_parameters = vec![
            scope_parameter("scope", Some("bot")),
            scope_parameter("user_scope", Some("user")),
        ];
    }
    slack.scopes = vec![ScopeInfo {
        name: "asked:two".into(),
        title: String::new(),
        implies: vec![],
        parameter: Some("user_scope".into()),
        prefix: false,
    }];
    slack.metadata = vec![Metadata {
        name: "team_id".into(),
        pointer: "/team/id".into(),
        kind: ValueKind::Identifier,
    }];
    slack
}

#[test]
fn slacks_bot_and_user_tokens_are_two_credentials() {
    let body = r#"{"ok":true,"access_token":"xoxb-1","token_type":"bot","scope":"chat:write,commands",
        "expires_in":43200,"refresh_token":"xoxe-1","team":{"id":"T012","name":"x"},
        "authed_user":{"id":"U1","scope":"search:read","access_token":"xoxp-1","token_type":"user"}}"#;
    let granted = good(read_as(&slack(), 200, JSON, body));
    let [bot, user] = &granted.facts[..] else {
        panic!("two")
    };
    assert_eq!(
        (bot.credential.as_str(), user.credential.as_str()),
        ("bot", "user")
    );
    assert_eq!(bot.scopes, scopes("chat:write commands"));
    assert_eq!(user.scopes, scopes("search:read"));
    assert_eq!(bot.expires_at, Some(NOW.plus(Duration::from_secs(43200))));
    assert!(bot.refresh_token_present && !user.refresh_token_present);
    assert!(is(&granted.tokens.credentials[1].access_token, "xoxp-1"));
    assert_eq!(
        granted.captured,
        [("team_id".to_owned(), "T012".to_owned())]
    );
}

#[test]
fn slacks_user_token_alone_is_enough_and_its_scopes_are_as_asked() {
    let body = r#"{"ok":true,"authed_user":{"access_token":"xoxp-1"}}"#;
    let granted = good(read_as(&slack(), 200, JSON, body));
    assert_eq!(granted.facts.len(), 1);
    assert_eq!(granted.facts[0].scopes, scopes("asked:two"));
    let neither = bad(read_as(&slack(), 200, JSON, r#"{"ok":true}"#));
    assert!(matches!(neither, AnswerError::Unreadable { .. }));
}

#[test]
fn slacks_ok_false_is_an_error() {
    let body = r#"{"ok":false,"error":"invalid_code"}"#;
    assert_eq!(
        bad(read_as(&slack(), 200, JSON, body)),
        refused(200, Some("invalid_code"))
    );
    assert_eq!(
        bad(read_as(&slack(), 200, JSON, r#"{"ok":false}"#)),
        refused(200, None)
    );
}

#[test]
fn a_refresh_of_a_nested_token_answers_flat() {
    let slack = slack();
    let asked = scopes("search:read");
    let reading = Reading {
        description: &slack,
        shapes: None,
        asked: &asked,
        now: NOW,
        client_secret: None,
        only: Some("user"),
    };
    let body =
        br#"{"ok":true,"access_token":"xoxe.xoxp-2","refresh_token":"xoxe-2","expires_in":43200}"#;
    let granted = good(read(&Answer::new(200, Some(JSON), body.to_vec()), &reading));
    assert_eq!(granted.facts[0].credential, "user");
    assert_eq!(granted.facts[0].scopes, asked);
    assert!(granted.facts[0].refresh_token_present);
}

#[test]
fn a_shape_counts_only_when_its_checks_hold() {
    let mut description = description();
    let on = |credential: &str| {
        let mut shape = shape(credential, "");
        shape.when = vec![Check::Equals("/token_type".into(), credential.into())];
        shape
    };
    description.token_shapes = vec![on("bot"), on("user")];
    let body = r#"{"access_token":"a","token_type":"user"}"#;
    let granted = good(read_as(&description, 200, JSON, body));
    assert_eq!(granted.facts.len(), 1);
    assert_eq!(granted.facts[0].credential, "user");
    let neither = bad(read_as(&description, 200, JSON, r#"{"access_token":"a"}"#));
    assert!(matches!(neither, AnswerError::Unreadable { .. }));
}

#[test]
fn googles_answer_without_refresh_token_and_scopes_is_as_asked() {
    let granted = good(read_as(
        &description(),
        200,
        JSON,
        r#"{"access_token":"ya29.a","expires_in":3599}"#,
    ));
    assert!(!granted.facts[0].refresh_token_present);
    assert_eq!(granted.facts[0].scopes, scopes("asked:one asked:two"));
}

#[test]
fn each_source_of_an_end_is_understood() {
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"exp":1000600}"#);
    let jwt = format!("e30.{payload}.sig");
    let at = |secs: i64| Some(Timestamp::from_secs(secs));
    let cases = [
        (vec![Expiry::Lifetime("/t".into())], r#"600"#, at(1_000_600)),
        (
            vec![Expiry::Lifetime("/t".into())],
            r#""600""#,
            at(1_000_600),
        ),
        (vec![Expiry::Lifetime("/t".into())], "0", None),
        (vec![Expiry::Lifetime("/t".into())], "-5", None),
        (vec![Expiry::Lifetime("/t".into())], r#""soon""#, None),
        (
            vec![Expiry::Lifetime("/t".into())],
            "1e300",
            at(1_000_000 + 10 * 366 * 86_400),
        ),
        (
            vec![Expiry::Lifetime("/none".into()), Expiry::Constant(60)],
            "1",
            at(1_000_060),
        ),
        (
            vec![Expiry::Lifetime("/none".into()), Expiry::JwtClaim],
            "1",
            at(1_000_600),
        ),
        (
            vec![Expiry::Absolute("/t".into(), TimeFormat::UnixSeconds)],
            "1000700",
            at(1_000_700),
        ),
        (
            vec![Expiry::Absolute("/t".into(), TimeFormat::UnixMilliseconds)],
            r#""1000700000""#,
            at(1_000_700),
        ),
        (
            vec![Expiry::Absolute("/t".into(), TimeFormat::Rfc3339)],
            r#""1970-01-12T13:48:20Z""#,
            at(1_000_100),
        ),
        (vec![Expiry::Never, Expiry::Constant(1)], "1", None),
        (vec![], "1", None),
    ];
    for (expires, value, expected) in cases {
        let mut description = description();
        description.token_shapes[0].expires = expires.clone();
        let body = format!(r#"{{"access_token":"{jwt}","t":{value}}}"#);
        let granted = good(read_as(&description, 200, JSON, &body));
        assert_eq!(granted.facts[0].expires_at, expected, "{expires:?} {value}");
    }
}

#[test]
fn alternates_are_tried_in_order_and_scopes_may_be_an_array() {
    let mut description = description();
    description.token_shapes[0].access_token = vec!["/data/token".into(), "/access_token".into()];
    description.token_shapes[0].scopes = vec!["/scopes".into(), "/scope".into()];
    let granted = good(read_as(
        &description,
        200,
        JSON,
        r#"{"access_token":"a","scopes":["x","y"],"scope":"z"}"#,
    ));
    assert_eq!(granted.facts[0].scopes, scopes("x y"));
    let granted = good(read_as(
        &description,
        200,
        JSON,
        r#"{"data":{"token":"b"},"access_token":"a"}"#,
    ));
    assert!(is(&granted.tokens.credentials[0].access_token, "b"));
}

#[test]
fn a_status_beside_the_described_ones_is_refused() {
    let mut sentry = description();
    sentry.token_answer.success_codes = vec![201];
    assert!(read_as(&sentry, 201, JSON, r#"{"access_token":"a"}"#).is_ok());
    assert_eq!(
        bad(read_as(&sentry, 200, JSON, r#"{"access_token":"a"}"#)),
        refused(200, None)
    );
}

#[test]
fn what_is_no_token_answer_is_unreadable() {
    let mut forms_too = description();
    forms_too.token_answer.may_be_form = true;
    for (status, kind, body) in [
        (
            200,
            "text/html",
            "<!doctype html><a href='x?a=b'>Sign in</a>",
        ),
        (502, "text/html", "<html>Bad Gateway</html>"),
        (200, JSON, ""),
        (200, JSON, r#"{"access_token":"a""#),
        (200, JSON, r#"{"access_token":"a","access_token":"b"}"#),
        (200, JSON, r#"["access_token"]"#),
        (200, JSON, r#"{"access_token":7}"#),
        (200, JSON, r#"{"access_token":""}"#),
        (200, JSON, r#"{"access_token":null}"#),
        (200, FORM, "nothing"),
    ] {
        for description in [&description(), &forms_too] {
            let error = bad(read_as(description, status, kind, body));
            assert!(
                matches!(error, AnswerError::Unreadable { .. }),
                "{body}: {error:?}"
            );
        }
    }
}

#[test]
fn nothing_that_is_a_piece_of_a_secret_is_captured() {
    let mut description = description();
    let metadata = |name: &str, pointer: &str| Metadata {
        name: name.into(),
        pointer: pointer.into(),
        kind: ValueKind::Identifier,
    };
    description.metadata = vec![
        metadata("stolen", "/access_token"),
        metadata("piece", "/hint"),
        metadata("client", "/client"),
        metadata("long", "/long"),
        metadata("good", "/team"),
    ];
    let key = || SealKey::new([1; 32]);
    let sealed = Secret::from_text("client-secret-1".into()).seal(&key(), [2; 24], b"x");
    let client_secret = Sealed::new(key(), b"x".to_vec(), sealed);
    let body = format!(
        r#"{{"access_token":"tok_0123456789","hint":"0123456789","client":"client-secret-1","long":"{}","team":"T1"}}"#,
        "a".repeat(200)
    );
    let asked = ScopeSet::default();
    let reading = Reading {
        description: &description,
        shapes: None,
        asked: &asked,
        now: NOW,
        client_secret: Some(&client_secret),
        only: None,
    };
    let granted = good(read(
        &Answer::new(200, Some(JSON), body.into_bytes()),
        &reading,
    ));
    assert_eq!(granted.captured, [("good".to_owned(), "T1".to_owned())]);
}

#[test]
fn a_required_variable_must_be_in_the_answer() {
    let mut description = description();
    description.variables = vec![Variable {
        name: "host".into(),
        title: "Host".into(),
        source: Source::TokenAnswer("/instance_url".into()),
        kind: ValueKind::Origin(vec![".my.example.com".into()]),
        default_value: None,
        required: true,
    }];
    let body = r#"{"access_token":"00D-token","instance_url":"https://acme.my.example.com"}"#;
    let granted = good(read_as(&description, 200, JSON, body));
    assert_eq!(
        granted.captured,
        [("host".to_owned(), "acme.my.example.com".to_owned())]
    );
    for url in [
        "https://evil.com",
        "https://my.example.com.evil.com",
        "https://u@acme.my.example.com",
    ] {
        let body = format!(r#"{{"access_token":"00D-token","instance_url":"{url}"}}"#);
        assert!(read_as(&description, 200, JSON, &body).is_err(), "{url}");
    }
}

#[test]
fn a_masked_body_shows_lengths_and_what_was_named() {
    let body = br#"{"ok":true,"n":1,"error":"x_y","a":{"access_token":"secret"},"l":["abc"]}"#;
    let answer = Answer::new(200, Some(JSON), body.to_vec());
    assert_eq!(
        masked_body(&answer, false, &["/error".into()]),
        r#"{"ok":true,"n":1,"error":"x_y","a":{"access_token":"****6"},"l":["****3"]}"#
    );
    let keep = [
        "/error".to_owned(),
        "/error_description".into(),
        "/access_token".into(),
    ];
    let body = br#"{"error":"x_y","error_description":"The code is wrong.","access_token":"gho_0123456789abcdef"}"#;
    let answer = Answer::new(400, Some(JSON), body.to_vec());
    assert_eq!(
        masked_body(&answer, false, &keep),
        r#"{"error":"x_y","error_description":"The code is wrong.","access_token":"****20"}"#,
        "a token stays masked even where a preset calls it a description"
    );
    assert_eq!(
        masked_body(&Answer::new(500, None, b"<html>".to_vec()), true, &[]),
        "{}"
    );
}

#[test]
fn an_error_code_is_never_a_providers_prose() {
    for (given, expected) in [
        ("invalid_grant", Some("invalid_grant")),
        ("bad_refresh_token", Some("bad_refresh_token")),
        ("gho_16C7e42F292c6912E7710c838347Ae178B4a", None),
        ("The code passed is incorrect", None),
        ("abcdefghijklmnopqrstuvwxyz", None),
        ("<script>", None),
    ] {
        let body = format!(r#"{{"error":"{given}"}}"#);
        assert_eq!(
            bad(read_as(&description(), 400, JSON, &body)),
            refused(400, expected),
            "{given}"
        );
    }
}

fn facts(expires: Option<i64>, refresh_token: bool) -> TokenFacts {
    TokenFacts {
        credential: "default".into(),
        scopes: ScopeSet::default(),
        issued_at: NOW,
        expires_at: expires.map(Timestamp::from_secs),
        refresh_token_present: refresh_token,
        refresh_token_expires_at: None,
        refresh_token_end_is_fixed: false,
        renewal_lost_at: None,
    }
}

#[test]
fn only_what_ends_the_grant_is_final() {
    use Meaning::{Final, Refused};
    let answered = |status, code| Failure::Answer(refused(status, code));
    let cases = [
        (
            answered(400, Some("invalid_grant")),
            None,
            Some(Final(ReauthReason::Revoked)),
        ),
        (
            answered(200, Some("invalid_grant")),
            None,
            Some(Final(ReauthReason::Revoked)),
        ),
        (
            answered(400, Some("bad_refresh_token")),
            None,
            Some(Final(ReauthReason::Revoked)),
        ),
        (
            answered(400, Some("invalid_request")),
            Some(true),
            Some(Final(ReauthReason::Revoked)),
        ),
        (
            answered(401, Some("invalid_client")),
            None,
            Some(Refused(ReauthReason::ClientRejected)),
        ),
        (
            answered(400, Some("unauthorized_client")),
            None,
            Some(Refused(ReauthReason::ClientRejected)),
        ),
        (
            answered(400, Some("invalid_request")),
            None,
            Some(Refused(ReauthReason::ProviderError)),
        ),
        (answered(400, Some("invalid_grant")), Some(false), None),
        (answered(400, Some("busy_now")), None, None),
        (answered(400, None), None, None),
        (answered(429, Some("rate_limited")), None, None),
        (answered(500, Some("server_error")), None, None),
        (answered(503, Some("invalid_client")), None, None),
        (
            Failure::Answer(AnswerError::Unreadable {
                status: 200,
                what: String::new(),
            }),
            None,
            None,
        ),
        (Failure::Unsent(SendError::Timeout), None, None),
        (Failure::Unsent(SendError::Unreachable), None, None),
        (Failure::Unsent(SendError::Dropped), None, None),
        (Failure::Unsent(SendError::TooLarge), None, None),
        (
            Failure::Unsent(SendError::Refused(String::new())),
            None,
            None,
        ),
    ];
    for (failure, hook, expected) in cases {
        let meaning = classify(&failure, &refresh(), hook, &facts(None, true), None, NOW);
        match expected {
            Some(expected) => assert_eq!(meaning, expected, "{failure:?}"),
            None => assert!(
                matches!(meaning, Meaning::Passing(_)),
                "{failure:?}: {meaning:?}"
            ),
        }
    }
}

#[test]
fn a_grant_that_ended_says_why() {
    let failure = Failure::Answer(refused(400, Some("invalid_grant")));
    let later = NOW.plus(Duration::from_secs(61 * 86_400));
    let judge = |facts: &TokenFacts, used| classify(&failure, &refresh(), None, facts, used, later);
    assert_eq!(
        judge(&facts(None, true), None),
        Meaning::Final(ReauthReason::Idle)
    );
    assert_eq!(
        judge(&facts(None, true), Some(later)),
        Meaning::Final(ReauthReason::Revoked)
    );
    let ended = TokenFacts {
        refresh_token_expires_at: Some(NOW),
        refresh_token_end_is_fixed: false,
        renewal_lost_at: None,
        ..facts(None, true)
    };
    assert_eq!(judge(&ended, None), Meaning::Final(ReauthReason::Expired));
}

#[test]
fn a_token_is_renewed_only_when_it_is_due_and_can_be() {
    let at = |secs: i64| Timestamp::from_secs(1_000_000 + secs);
    let hour = |refresh_token| facts(Some(1_003_600), refresh_token);
    for (facts, now, expected) in [
        (hour(true), at(0), Need::Fresh),
        (hour(true), at(3500), Need::Soon),
        (hour(true), at(3600), Need::Now),
        (hour(false), at(3500), Need::Fresh),
        (hour(false), at(3600), Need::Hopeless),
        (facts(None, true), at(i32::MAX.into()), Need::Fresh),
        (
            TokenFacts {
                refresh_token_expires_at: Some(at(10)),
                refresh_token_end_is_fixed: false,
                renewal_lost_at: None,
                ..hour(true)
            },
            at(3600),
            Need::Hopeless,
        ),
    ] {
        assert_eq!(need(&facts, &refresh(), now), expected, "{facts:?} {now}");
    }
    let none = Refresh {
        kind: RefreshKind::None,
        ..refresh()
    };
    assert_eq!(need(&hour(true), &none, at(3600)), Need::Hopeless);
}

proptest! {
    #[test]
    fn no_answer_makes_the_reader_panic(status in 100u16..600, body in prop::collection::vec(any::<u8>(), 0..300), form: bool) {
        let mut description = slack();
        description.token_answer.may_be_form = form;
        let asked = ScopeSet::default();
        let reading = Reading { description: &description, shapes: None, asked: &asked, now: NOW, client_secret: None, only: None };
        let answer = Answer::new(status, Some(FORM), body);
        let _ = read(&answer, &reading);
        let _ = masked_body(&answer, form, &[]);
    }

    #[test]
    fn no_end_is_beyond_ten_years(seconds in any::<f64>()) {
        let body = format!(r#"{{"access_token":"a","expires_in":"{seconds}"}}"#);
        let granted = good(read_as(&description(), 200, JSON, &body));
        let latest = NOW.plus(Duration::from_secs(10 * 366 * 86_400));
        prop_assert!(granted.facts[0].expires_at.is_none_or(|t| t > NOW && t <= latest));
    }
}
