use std::time::Duration;

use base64::Engine as _;
use countersign_core::connection::{ReauthReason, State};
use countersign_core::names::ProviderName;
use countersign_core::ports::{Kind, Records};
use countersign_core::preset::*;
use countersign_core::scope::ScopeSet;
use countersign_oauth::consent::{Begin, Callback, ConsentError, Outcome};
use serde_json::json;
use url::Url;

use crate::support::{Scripted, any_answer, literal, parameter, refused, stage, tokens, user};

#[tokio::test]
async fn a_consent_ends_in_a_connection() {
    let stage = stage().await;
    let url = stage.begin("ana").await;
    assert!(
        url.as_str()
            .starts_with(&format!("{}/authorize?tenant=7&", stage.base)),
        "{url}"
    );
    for (name, expected) in [
        ("response_type", "code"),
        ("client_id", "client-1"),
        ("redirect_uri", "https://cs.example.com/oauth/callback/fake"),
        ("scope", "read write"),
        ("access_type", "offline"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(parameter(&url, name).as_deref(), Some(expected), "{name}");
    }
    assert_eq!(parameter(&url, "state").unwrap().len(), 43);
    assert_eq!(parameter(&url, "include_granted_scopes"), None);

    let connection = stage
        .connected(
            "ana",
            tokens("access-token-1", Some("refresh-token-1"), Some(60)),
        )
        .await;
    assert_eq!(connection.account.as_ref().unwrap().id, "7");
    assert_eq!(connection.account.as_ref().unwrap().label, "octo");
    assert_eq!(connection.scopes(), ScopeSet::split("read write", &[]));
    assert_eq!(connection.origins.token, stage.base);
    assert_eq!(
        connection.origins.audience[0].to_string(),
        "api.example.com"
    );
    assert_eq!(
        (connection.generation, connection.state),
        (1, State::Connected)
    );

    let request = &stage.token_requests()[0];
    assert_eq!(
        request.field("grant_type").as_deref(),
        Some("authorization_code")
    );
    assert_eq!(request.field("code").as_deref(), Some("c0de-123456"));
    assert_eq!(
        request.field("redirect_uri").as_deref(),
        Some("https://cs.example.com/oauth/callback/fake")
    );
    let basic = base64::engine::general_purpose::STANDARD.encode("client-1:s3cr3t%2Fclient");
    assert_eq!(
        request.header("authorization"),
        Some(format!("Basic {basic}").as_str())
    );
    assert_eq!(request.header("accept"), Some("application/json"));
    assert!(
        request
            .header("user-agent")
            .unwrap()
            .starts_with("countersign/")
    );
    let identity = stage
        .script
        .seen()
        .into_iter()
        .find(|s| s.path == "/user")
        .unwrap();
    assert_eq!(
        identity.header("authorization"),
        Some("Bearer access-token-1")
    );
}

#[tokio::test]
async fn the_verifier_is_the_one_of_the_challenge() {
    let stage = stage().await;
    let url = stage.begin("ana").await;
    stage.script.token(tokens("access-token-1", None, None));
    let state = parameter(&url, "state").unwrap();
    stage
        .finish(stage.callback("ana", &format!("code=c0de&state={state}")))
        .await;
    let verifier = stage.token_requests()[0].field("code_verifier").unwrap();
    let verifier = oauth2::PkceCodeVerifier::new(verifier);
    let challenge = oauth2::PkceCodeChallenge::from_code_verifier_sha256(&verifier);
    assert_eq!(
        parameter(&url, "code_challenge").as_deref(),
        Some(challenge.as_str())
    );
}

#[tokio::test]
async fn a_state_is_good_once() {
    let stage = stage().await;
    let state = parameter(&stage.begin("ana").await, "state").unwrap();
    stage.script.token(tokens("access-token-1", None, None));
    let query = format!("code=c0de&state={state}");
    assert!(matches!(
        stage.finish(stage.callback("ana", &query)).await,
        Outcome::Connected { .. }
    ));
    assert_eq!(
        refused(stage.finish(stage.callback("ana", &query)).await),
        "state_unknown"
    );
    assert_eq!(stage.token_requests().len(), 1);
    for query in [
        "",
        "code=c0de",
        "state=",
        "state=made-up&code=c",
        "state=a&state=b&code=c",
    ] {
        assert_eq!(
            refused(stage.finish(stage.callback("ana", query)).await),
            "state_unknown",
            "{query}"
        );
    }
}

#[tokio::test]
async fn two_answers_at_once_use_a_state_once() {
    let stage = stage().await;
    let state = parameter(&stage.begin("ana").await, "state").unwrap();
    stage.script.token(tokens("access-token-1", None, None));
    let query = format!("code=c0de&state={state}");
    let (a, b) = tokio::join!(
        stage.finish(stage.callback("ana", &query)),
        stage.finish(stage.callback("ana", &query))
    );
    let connected = [&a, &b]
        .iter()
        .filter(|o| matches!(o, Outcome::Connected { .. }))
        .count();
    assert_eq!(connected, 1);
    assert_eq!(stage.token_requests().len(), 1);
}

#[tokio::test]
async fn another_user_browser_path_or_time_is_refused_and_nothing_is_asked() {
    type Change = fn(&mut Callback<'_>);
    let cases: [(&str, Change); 4] = [
        ("other_user", |c| c.user = user("eve")),
        ("other_browser", |c| c.session = "eve-browser".into()),
        ("mix_up", |c| {
            c.path_provider = Some(ProviderName::parse("other").unwrap())
        }),
        ("mix_up", |c| c.path_provider = None),
    ];
    let stage = stage().await;
    for (expected, change) in cases {
        let state = parameter(&stage.begin("ana").await, "state").unwrap();
        let query = format!("code=c0de&state={state}");
        let mut callback = stage.callback("ana", &query);
        change(&mut callback);
        assert_eq!(refused(stage.finish(callback).await), expected);
        // Used up all the same.
        assert_eq!(
            refused(stage.finish(stage.callback("ana", &query)).await),
            "state_unknown"
        );
    }
    let state = parameter(&stage.begin("ana").await, "state").unwrap();
    stage.clock.advance(Duration::from_secs(601));
    let late = stage
        .finish(stage.callback("ana", &format!("code=c0de&state={state}")))
        .await;
    assert_eq!(refused(late), "expired");
    assert_eq!(stage.token_requests().len(), 0);
    assert_eq!(stage.oauth.list(&user("ana")).await.unwrap(), []);
}

#[tokio::test]
async fn the_bare_callback_is_for_flows_begun_with_it() {
    let stage = stage().await;
    let begin = Begin {
        bare_callback: true,
        ..stage.begin_as("ana")
    };
    let url = stage.oauth.begin(begin, &stage.party()).await.unwrap();
    assert_eq!(
        parameter(&url, "redirect_uri").as_deref(),
        Some("https://cs.example.com/oauth/callback")
    );
    stage.script.token(tokens("access-token-1", None, None));
    let query = format!("code=c0de&state={}", parameter(&url, "state").unwrap());
    let callback = Callback {
        path_provider: None,
        ..stage.callback("ana", &query)
    };
    assert!(matches!(
        stage.finish(callback).await,
        Outcome::Connected { .. }
    ));
}

#[tokio::test]
async fn an_answer_of_another_issuer_is_a_mix_up() {
    for (advertised, iss, expected) in [
        (false, "", None),
        (false, "&iss=https://idp.example.com", None),
        (false, "&iss=https://evil.example.com", Some("mix_up")),
        (true, "", Some("mix_up")),
        (true, "&iss=https://idp.example.com", None),
        (true, "&iss=https://idp.example.com/", Some("mix_up")),
    ] {
        let mut stage = stage().await;
        stage
            .provider
            .settings
            .insert("issuer".into(), "https://idp.example.com".into());
        let key = "authorization_response_iss_parameter_supported";
        stage
            .provider
            .settings
            .insert(key.into(), advertised.into());
        let state = parameter(&stage.begin("ana").await, "state").unwrap();
        stage.script.token(tokens("access-token-1", None, None));
        let outcome = stage
            .finish(stage.callback("ana", &format!("code=c&state={state}{iss}")))
            .await;
        match (expected, outcome) {
            (None, Outcome::Connected { .. }) => {}
            (Some(expected), Outcome::Refused { code, .. }) => assert_eq!(code, expected),
            (_, other) => panic!("{advertised} {iss}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_providers_refusal_is_put_into_words_and_never_repeated() {
    let stage = stage().await;
    for (error, expected, words) in [
        (
            "access_denied",
            "access_denied",
            "Ask the owner of the workspace.",
        ),
        (
            "temporarily_unavailable",
            "temporarily_unavailable",
            "Try again later.",
        ),
        (
            "%3Cscript%3Ealert(1)%3C/script%3E",
            "provider_error",
            "The provider refused.",
        ),
    ] {
        let state = parameter(&stage.begin("ana").await, "state").unwrap();
        let query = format!("error={error}&error_description=secret+words&state={state}");
        let Outcome::Refused { code, advice, .. } =
            stage.finish(stage.callback("ana", &query)).await
        else {
            panic!("it was connected")
        };
        assert_eq!(code, expected);
        assert!(advice.contains(words), "{advice}");
    }
    assert!(!stage.audited().contains("secret words"));
    assert_eq!(stage.token_requests().len(), 0);
}

#[tokio::test]
async fn a_token_endpoint_that_fails_leaves_nothing_and_the_next_consent_works() {
    let cases = [
        (
            Scripted::Json(200, json!({"error": "bad_verification_code"})),
            "bad_verification_code",
        ),
        (
            Scripted::Json(
                400,
                json!({"error": "invalid_grant", "error_description": "x"}),
            ),
            "invalid_grant",
        ),
        (
            Scripted::Json(401, json!({"error": "invalid_client"})),
            "invalid_client",
        ),
        (Scripted::Json(302, json!({})), "provider_error"),
        (
            Scripted::Raw(500, "text/plain", b"oops".to_vec()),
            "provider_error",
        ),
        (
            Scripted::Raw(200, "text/html", b"<html></html>".to_vec()),
            "provider_error",
        ),
        (
            Scripted::Raw(200, "application/json", vec![b'['; 100_000]),
            "provider_error",
        ),
        (
            Scripted::Raw(200, "application/json", vec![b' '; 2 << 20]),
            "provider_unavailable",
        ),
        (Scripted::Broken, "provider_unavailable"),
    ];
    let stage = stage().await;
    for (answer, expected) in cases {
        stage.script.then("/token", answer);
        let state = parameter(&stage.begin("ana").await, "state").unwrap();
        let outcome = stage
            .finish(stage.callback("ana", &format!("code=c0de&state={state}")))
            .await;
        assert_eq!(refused(outcome), expected);
        assert_eq!(stage.oauth.list(&user("ana")).await.unwrap(), []);
    }
    stage
        .connected("ana", tokens("access-token-1", None, None))
        .await;
    assert!(stage.audited().contains("connection.refused"));
}

#[tokio::test]
async fn a_token_endpoint_that_hangs_is_given_up() {
    let mut stage = stage().await;
    stage.provider.request_timeout = Duration::from_millis(50);
    stage.script.then("/token", Scripted::Hang);
    let state = parameter(&stage.begin("ana").await, "state").unwrap();
    let outcome = stage
        .finish(stage.callback("ana", &format!("code=c0de&state={state}")))
        .await;
    assert_eq!(refused(outcome), "provider_unavailable");
}

#[tokio::test]
async fn an_unknown_account_is_no_reason_to_refuse() {
    for answer in [
        Scripted::Raw(500, "text/plain", vec![]),
        Scripted::Json(200, json!({"id": null})),
    ] {
        let stage = stage().await;
        stage.script.token(tokens("access-token-1", None, None));
        stage.script.then("/user", answer);
        let state = parameter(&stage.begin("ana").await, "state").unwrap();
        let outcome = stage
            .finish(stage.callback("ana", &format!("code=c&state={state}")))
            .await;
        let Outcome::Connected { connection, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(connection.account, None);
    }
}

#[tokio::test]
async fn an_account_that_repeats_the_token_is_not_kept() {
    let stage = stage().await;
    stage.script.token(tokens("access-token-1", None, None));
    stage.script.then(
        "/user",
        Scripted::Json(200, json!({"id": "access-token-1", "login": "x"})),
    );
    let state = parameter(&stage.begin("ana").await, "state").unwrap();
    let outcome = stage
        .finish(stage.callback("ana", &format!("code=c&state={state}")))
        .await;
    let Outcome::Connected { connection, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(connection.account, None);
}

#[tokio::test]
async fn an_account_made_by_the_preset_comes_of_an_answer_without_secrets() {
    let mut stage = stage().await;
    stage.description.hooks.identity = true;
    stage.script.token(tokens("access-token-1", None, None));
    let answer = b"<me>Ada</me><t>access-token-1</t>".to_vec();
    stage
        .script
        .then("/user", Scripted::Raw(200, "application/xml", answer));
    let state = parameter(&stage.begin("ana").await, "state").unwrap();
    let outcome = stage
        .finish(stage.callback("ana", &format!("code=c&state={state}")))
        .await;
    let Outcome::Connected { connection, .. } = outcome else {
        panic!("{outcome:?}")
    };
    let account = connection.account.unwrap();
    assert_eq!(account.id, "acme/made-by-hook");
    assert_eq!(account.label, "<me>Ada</me><t>**************</t>");
}

#[tokio::test]
async fn a_reconnect_updates_in_place() {
    let stage = stage().await;
    let first = stage
        .connected(
            "ana",
            tokens("access-token-1", Some("refresh-token-1"), Some(60)),
        )
        .await;
    let begin = Begin {
        scopes: ScopeSet::split("admin", &[]),
        ..stage.begin_as("ana")
    };
    let url = stage.oauth.begin(begin, &stage.party()).await.unwrap();
    // The provider adds it to what it granted.
    assert_eq!(parameter(&url, "scope").as_deref(), Some("admin"));
    assert_eq!(
        parameter(&url, "include_granted_scopes").as_deref(),
        Some("true")
    );
    let second = stage
        .connected("ana", tokens("access-token-2", None, Some(60)))
        .await;
    assert_eq!((second.id, second.generation), (first.id, 2));
    assert_eq!(second.created_at, first.created_at);
    assert_eq!(stage.oauth.list(&user("ana")).await.unwrap().len(), 1);
    assert!(stage.audited().contains("connection.reconnected"));
}

#[tokio::test]
async fn a_suspended_connection_comes_back_with_the_same_account_only() {
    let stage = stage().await;
    stage
        .connected("ana", tokens("access-token-1", None, None))
        .await;
    assert_eq!(stage.oauth.suspend_all(&user("ana")).await, Ok(1));
    assert_eq!(stage.held("ana").await.connection.state, State::Suspended);
    let attempt = async |account: serde_json::Value| {
        stage.script.token(tokens("access-token-2", None, None));
        stage.script.then("/user", Scripted::Json(200, account));
        let state = parameter(&stage.begin("ana").await, "state").unwrap();
        stage
            .finish(stage.callback("ana", &format!("code=c&state={state}")))
            .await
    };
    assert_eq!(refused(attempt(json!({"id": 8})).await), "other_account");
    assert_eq!(refused(attempt(json!({})).await), "other_account");
    let why = ReauthReason::Revoked;
    stage.oauth.reject(&stage.key("ana"), 1, why).await.unwrap();
    assert_eq!(stage.held("ana").await.connection.state, State::Suspended);
    assert!(matches!(
        attempt(json!({"id": 7})).await,
        Outcome::Connected { .. }
    ));
    assert_eq!(stage.held("ana").await.connection.state, State::Connected);
}

#[tokio::test]
async fn a_grant_that_differs_is_refused_warned_of_or_accepted() {
    for (difference, expected) in [
        (GrantDifference::Accept, Some("")),
        (GrantDifference::Warn, Some("write")),
        (GrantDifference::Refuse, None),
    ] {
        let mut stage = stage().await;
        stage.description.grant_difference = difference;
        let outcome = stage
            .connect(
                "ana",
                json!({"access_token": "access-token-1", "scope": "read"}),
            )
            .await;
        match (expected, outcome) {
            (Some(expected), Outcome::Connected { missing, .. }) => {
                assert_eq!(missing.join(" "), expected)
            }
            (None, Outcome::Refused { code, .. }) => assert_eq!(code, "grant_differs"),
            (_, other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn scopes_go_into_the_parameters_that_carry_them() {
    let mut stage = stage().await;
    let authorization = stage.description.authorization.as_mut().unwrap();
    let parameter_named = |name: &str, separator: &str| ScopeParameter {
        name: name.into(),
        separator: separator.into(),
        credential: None,
        send_empty: false,
    };
    authorization.scope_parameters = vec![
        parameter_named("scope", ","),
        parameter_named("user_scope", ","),
    ];
    authorization.offline = Offline::Scope("offline_access".into());
    stage.description.scopes = vec![ScopeInfo {
        name: "write".into(),
        title: String::new(),
        implies: vec![],
        parameter: Some("user_scope".into()),
        prefix: false,
    }];
    let url = stage.begin("ana").await;
    assert_eq!(
        parameter(&url, "scope").as_deref(),
        Some("offline_access,read")
    );
    assert_eq!(parameter(&url, "user_scope").as_deref(), Some("write"));

    let authorization = stage.description.authorization.as_mut().unwrap();
    authorization.scope_parameters = vec![];
    let url = stage.begin("ana").await;
    assert_eq!(
        parameter(&url, "scope"),
        None,
        "a provider that takes no scopes is asked for none"
    );
}

#[tokio::test]
async fn parameters_are_added_and_suppressed_but_reserved_ones_are_refused() {
    let mut stage = stage().await;
    stage.provider.audience = Some("api".into());
    stage.provider.resource = Some(Url::parse("https://mcp.example.com/mcp").unwrap());
    stage.description.variables = vec![Variable {
        name: "region".into(),
        title: String::new(),
        source: Source::Setting("region".into()),
        kind: ValueKind::Label,
        default_value: Some("eu".into()),
        required: true,
    }];
    let authorization = stage.description.authorization.as_mut().unwrap();
    authorization.parameters = vec![Parameter {
        name: "region".into(),
        value: vec![Part::Variable("region".into())],
    }];
    authorization.suppress = vec!["response_type".into(), "state".into()];
    let url = stage.begin("ana").await;
    for (name, expected) in [
        ("region", Some("eu")),
        ("audience", Some("api")),
        ("resource", Some("https://mcp.example.com/mcp")),
        ("tenant", Some("7")),
        ("response_type", None),
    ] {
        assert_eq!(parameter(&url, name).as_deref(), expected, "{name}");
    }
    assert!(
        parameter(&url, "state").is_some(),
        "state cannot be suppressed"
    );

    let refused = async |stage: &crate::support::Stage| {
        stage
            .oauth
            .begin(stage.begin_as("ana"), &stage.party())
            .await
            .err()
    };
    stage.description.hooks.authorize_parameters = true;
    assert_eq!(
        refused(&stage).await,
        Some(ConsentError::Reserved("state".into()))
    );
    stage.description.hooks.authorize_parameters = false;
    let authorization = stage.description.authorization.as_mut().unwrap();
    authorization.parameters = vec![Parameter {
        name: "redirect_uri".into(),
        value: literal("x"),
    }];
    assert_eq!(
        refused(&stage).await,
        Some(ConsentError::Reserved("redirect_uri".into()))
    );
    let authorization = stage.description.authorization.as_mut().unwrap();
    authorization.parameters = vec![Parameter {
        name: "x".into(),
        value: vec![Part::Slot(Slot::ClientSecret)],
    }];
    assert!(
        refused(&stage).await.is_some(),
        "no secret stands in an authorization URL"
    );
    assert_eq!(stage.records.list(Kind::Flow, None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn pkce_is_sent_as_the_preset_and_the_record_say() {
    for (pkce, require, expected) in [
        (Pkce::Required, false, Some(true)),
        (Pkce::Supported, true, Some(true)),
        (Pkce::Unsupported, false, Some(false)),
        (Pkce::Unsupported, true, None),
    ] {
        let mut stage = stage().await;
        stage.description.authorization.as_mut().unwrap().pkce = pkce;
        stage.provider.require_pkce = require;
        let url = stage
            .oauth
            .begin(stage.begin_as("ana"), &stage.party())
            .await;
        match (expected, url) {
            (Some(sent), Ok(url)) => assert_eq!(parameter(&url, "code_challenge").is_some(), sent),
            (None, Err(error)) => assert_eq!(error, ConsentError::NoPkce("fake".into())),
            (_, other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_provider_edited_during_a_consent_gets_no_code() {
    let mut stage = stage().await;
    let state = parameter(&stage.begin("ana").await, "state").unwrap();
    stage.provider.client_id = "client-2".into();
    let outcome = stage
        .finish(stage.callback("ana", &format!("code=c&state={state}")))
        .await;
    assert_eq!(refused(outcome), "provider_changed");
    let state = parameter(&stage.begin("ana").await, "state").unwrap();
    let elsewhere = stage.base.replace("127.0.0.1", "localhost");
    stage.provider.token_endpoint = Some(Url::parse(&format!("{elsewhere}/token")).unwrap());
    let outcome = stage
        .finish(stage.callback("ana", &format!("code=c&state={state}")))
        .await;
    assert_eq!(refused(outcome), "provider_changed");
    stage.provider.enabled = false;
    let disabled = stage
        .oauth
        .begin(stage.begin_as("ana"), &stage.party())
        .await;
    assert_eq!(disabled.err(), Some(ConsentError::Disabled("fake".into())));
    assert_eq!(stage.token_requests().len(), 0);
}

#[tokio::test]
async fn follow_ups_capture_the_account_host_and_later_requests_use_it() {
    let mut stage = stage().await;
    let bearer = Header {
        name: "Authorization".into(),
        value: vec![
            Part::Literal("Bearer ".into()),
            Part::Slot(Slot::AccessToken),
        ],
    };
    stage.description.follow_ups = vec![FollowUp {
        name: "accounts".into(),
        request: Request {
            method: "GET".into(),
            url: literal(&format!("{}/userinfo", stage.base)),
            headers: vec![bearer],
            body: Body::None,
            client_authentication: None,
            answer: any_answer(),
        },
    }];
    stage.description.variables = vec![Variable {
        name: "api".into(),
        title: "API host".into(),
        source: Source::FollowUp(FollowUpValue {
            follow_up: "accounts".into(),
            selection: Some(Selection {
                items: "/accounts".into(),
                pick: Pick::WhereEqual("/is_default".into(), "true".into()),
            }),
            pointer: "/base_uri".into(),
        }),
        kind: ValueKind::Origin(vec![".docs.example.net".into()]),
        default_value: None,
        required: true,
    }];
    stage.description.audience_hosts = vec![vec![Part::Variable("api".into())]];
    let accounts = |host: &str| {
        json!({"accounts": [
            {"is_default": false, "base_uri": "https://a.docs.example.net"},
            {"is_default": true, "base_uri": host},
        ]})
    };
    stage.script.then(
        "/userinfo",
        Scripted::Json(200, accounts("https://na3.docs.example.net")),
    );
    let connection = stage
        .connected("ana", tokens("access-token-1", None, None))
        .await;
    assert_eq!(
        connection.facts,
        [("api".to_owned(), "na3.docs.example.net".to_owned())]
    );
    assert_eq!(
        connection.origins.audience[0].to_string(),
        "na3.docs.example.net"
    );

    stage.script.then(
        "/userinfo",
        Scripted::Json(200, accounts("https://evil.example.com")),
    );
    assert_eq!(
        refused(
            stage
                .connect("ana", tokens("access-token-2", None, None))
                .await
        ),
        "provider_error"
    );
    assert_eq!(stage.held("ana").await.connection.generation, 1);
}

#[tokio::test]
async fn a_callback_parameter_may_decide_a_host_only_within_its_suffixes() {
    let mut stage = stage().await;
    stage.description.variables = vec![Variable {
        name: "site".into(),
        title: "Site".into(),
        source: Source::CallbackParameter("site".into()),
        kind: ValueKind::Host(vec![".dog.example.com".into()]),
        default_value: None,
        required: true,
    }];
    for (site, good) in [
        ("us5.dog.example.com", true),
        ("evil.com", false),
        ("", false),
    ] {
        let state = parameter(&stage.begin("ana").await, "state").unwrap();
        if good {
            stage.script.token(tokens("access-token-1", None, None));
        }
        let query = format!("code=c0de&state={state}&site={site}");
        let outcome = stage.finish(stage.callback("ana", &query)).await;
        assert_eq!(
            matches!(outcome, Outcome::Connected { .. }),
            good,
            "{site}: {outcome:?}"
        );
    }
}
