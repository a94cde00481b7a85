//! The worked lines of `docs/quirks.md`: each compiles, and does what the
//! guide says.

use countersign_guest_sdk::prelude::*;

fn plain() -> Description {
    Description::oauth2("acme", "Acme")
        .authorize("https://auth.acme.com/oauth/authorize")
        .token("https://auth.acme.com/oauth/token")
        .scopes(["files:read", "files:write"])
        .audience(["api.acme.com"])
}

fn request(description: &Description) -> &AuthorizationRequest {
    description.authorization.as_ref().unwrap()
}

fn shape(description: &Description) -> &TokenShape {
    &description.token_shapes[0]
}

#[test]
fn where_things_live() {
    let description = plain();
    let d = description
        .variable(Variable::setting("tenant", "Tenant", ValueKind::Label))
        .authorize("https://{tenant}.acme.com/oauth/authorize")
        .audience(["{tenant}.acme.com"]);
    assert_eq!(d.audience_hosts[0][0], Part::Variable("tenant".into()));

    let description = plain();
    let d = description
        .variable(Variable::setting(
            "region",
            "Region",
            ValueKind::Enumeration(vec![
                Choice {
                    value: "us".into(),
                    title: "United States".into(),
                    sets: vec![("api".into(), "api.acme.com".into())],
                },
                Choice {
                    value: "eu".into(),
                    title: "Europe".into(),
                    sets: vec![("api".into(), "api.eu.acme.com".into())],
                },
            ]),
        ))
        .audience(["{api}"]);
    assert!(matches!(&d.variables[0].kind, ValueKind::Enumeration(choices) if choices.len() == 2));

    let description = plain();
    let d = description
        .variable(Variable::new(
            "instance",
            "Instance",
            ValueKind::Origin(vec![".acme.com".into()]),
            Source::TokenAnswer("/instance_url".into()),
        ))
        .audience(["{instance}"]);
    assert_eq!(
        d.variables[0].source,
        Source::TokenAnswer("/instance_url".into())
    );

    let description = plain();
    let d = description
        .follow_up(FollowUp {
            name: "accounts".into(),
            request: Request::get("https://api.acme.com/accounts").with_token(),
        })
        .variable(Variable::new(
            "account",
            "Account",
            ValueKind::Identifier,
            Source::FollowUp(FollowUpValue {
                follow_up: "accounts".into(),
                selection: Some(Selection {
                    items: "/accounts".into(),
                    pick: Pick::WhereEqual(("/is_default".into(), "true".into())),
                }),
                pointer: "/id".into(),
            }),
        ));
    assert_eq!(d.follow_ups.len(), 1);
}

#[test]
fn the_authorization_request() {
    let description = plain();
    let d = description
        .scope_separator(",")
        .token_shapes([TokenShape::default().scope_separators([",", " "])]);
    assert_eq!(request(&d).scope_parameters[0].separator, ",");

    let description = plain();
    let d = description.without_scopes();
    assert!(request(&d).scope_parameters.is_empty());

    let description = plain();
    let d = description
        .credentials([
            Credential::bearer("bot", "Bot token"),
            Credential::bearer("user", "User token"),
        ])
        .scope_parameters([("scope", ",", "bot"), ("user_scope", ",", "user")])
        .token_shapes([
            TokenShape::below("bot", ""),
            TokenShape::below("user", "/authed_user").optional(),
        ]);
    assert_eq!(request(&d).scope_parameters[1].name, "user_scope");

    let description = plain();
    let d = description.offline(Offline::Scope("offline_access".into()));
    assert_eq!(request(&d).offline, Offline::Scope("offline_access".into()));

    let description = plain();
    let d = description.offline(Offline::by_parameters([
        ("access_type", "offline"),
        ("prompt", "consent"),
    ]));
    assert!(matches!(&request(&d).offline, Offline::Parameters(list) if list.len() == 2));

    let description = plain();
    let d = description.authorize_parameter("audience", "api.acme.com");
    assert_eq!(request(&d).parameters[0].name, "audience");

    let description = plain();
    let d =
        description.authorization_request(|request| request.suppress.push("response_type".into()));
    assert_eq!(request(&d).suppress, ["response_type"]);

    let description = plain();
    let d = description.pkce(Pkce::Unsupported);
    assert_eq!(request(&d).pkce, Pkce::Unsupported);
}

#[test]
fn the_token_request() {
    let description = plain();
    let d = description.token_request(
        TokenRequest::new(GrantType::AuthorizationCode)
            .client_authentication([ClientAuthentication::ClientSecretPost]),
    );
    assert_eq!(d.token_requests[0].client_authentication.len(), 1);

    let description = plain();
    let d = description
        .token_request(TokenRequest::new(GrantType::AuthorizationCode).json())
        .token_request(TokenRequest::new(GrantType::RefreshToken).json());
    assert!(d.token_requests.iter().all(|r| r.body == BodyFormat::Json));

    let description = plain();
    let d = description.token_request(
        TokenRequest::new(GrantType::AuthorizationCode)
            .header("user-agent", "Countersign")
            .parameter("request", "token"),
    );
    assert_eq!(d.token_requests[0].headers[0].name, "user-agent");
}

#[test]
fn the_token_answer() {
    let description = plain();
    let d = description.token_answer(
        AnswerShape::rfc6749()
            .success_when(Check::is_true("/ok"))
            .errors_at(["/error"], []),
    );
    assert_eq!(d.token_answer.success_checks, [Check::is("/ok", "true")]);

    let description = plain();
    let d = description.token_answer(AnswerShape::rfc6749().or_form());
    assert!(d.token_answer.may_be_form);

    let description = plain();
    let d = description
        .token_shapes([TokenShape::default().access_token_at(["/data/token", "/access_token"])]);
    assert_eq!(shape(&d).access_token.len(), 2);

    let description = plain();
    let d = description.token_shapes([TokenShape::default().expires([
        Expiry::Lifetime("/expires_in".into()),
        Expiry::JwtClaim,
        Expiry::Constant(3600),
    ])]);
    assert_eq!(shape(&d).expires.len(), 3);

    let description = plain();
    let d = description.token_shapes([TokenShape::default().expires([Expiry::Absolute((
        "/expires_at".into(),
        TimeFormat::Rfc3339,
    ))])]);
    assert_eq!(shape(&d).expires.len(), 1);

    let description = plain();
    let d = description.token_shapes([TokenShape::default().scopes_at(["/scopes", "/scope"])]);
    assert_eq!(shape(&d).scopes, ["/scopes", "/scope"]);

    let description = plain();
    let d = description.metadata(Metadata::new(
        "workspace",
        "/team/id",
        ValueKind::Identifier,
    ));
    assert_eq!(d.metadata.len(), 1);
}

#[test]
fn refresh_and_revocation() {
    let description = plain();
    let d = description.refresh(|refresh| {
        refresh.rotation = Rotation::Always;
        refresh.retry_after_lost_answer = false;
        refresh.permanent_errors = vec!["token_revoked".into()];
    });
    assert_eq!(d.refresh.rotation, Rotation::Always);

    let description = plain();
    let d = description.refresh(|refresh| refresh.kind = RefreshKind::None);
    assert_eq!(d.refresh.kind, RefreshKind::None);

    let description = plain();
    let d = description.refresh(|refresh| refresh.idle_days = Some(60));
    assert_eq!(d.refresh.idle_days, Some(60));

    let description = plain();
    let d = description.revocation([Revocation::new(
        Request::delete("https://api.acme.com/applications/{$client-id}/grant")
            .with_client()
            .json([("access_token", "{$access-token}")]),
        RevocationEffect::Grant,
        "Ends the access of every device.",
    )]);
    assert_eq!(d.revocation[0].request.method, "DELETE");
}

#[test]
fn sending_the_credential() {
    let description = plain();
    let d = description.credentials([Credential::new(
        "user",
        "Access token",
        [Rule::header("authorization", "Token {$access-token}")],
    )]);
    assert_eq!(d.credentials[0].rules.len(), 1);

    let description = plain();
    let d = description.constant_header("acme-version", "2026-01-01");
    assert_eq!(d.constant_headers.len(), 1);

    let description = plain();
    let d = description.identity(IdentityRequest::new(
        Request::post("https://api.acme.com/users/current").with_token(),
        "/account_id",
        ["/email", "/name"],
    ));
    assert_eq!(d.identity.unwrap().request.method, "POST");

    let description = plain();
    let d = description.mcp_server(
        McpServer::new("https://mcp.acme.com/mcp", "Acme MCP", "2026-11-21")
            .tools([Tool::broad("execute")]),
    );
    assert!(d.mcp_servers[0].tools[0].broad);

    let description = plain();
    let d = description.advise(
        "app_not_installed",
        "Ask an administrator of your workspace to install the app.",
    );
    assert_eq!(d.error_advice.len(), 1);
}

#[test]
fn every_worked_line_of_the_guide_is_one_of_these() {
    // Line breaks, and the commas that come with them, are for the reader.
    let squeezed = |text: &str| {
        let text: String = text.split_whitespace().collect();
        [",)", ",]", ",}"]
            .iter()
            .fold(text, |text, closing| text.replace(closing, &closing[1..]))
    };
    let here = squeezed(include_str!("quirks.rs"));
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/quirks.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let blocks: Vec<&str> = guide
        .split("```rust\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(blocks.len() >= 20, "{}", blocks.len());
    for block in blocks {
        assert!(
            here.contains(&squeezed(block)),
            "not compiled here:\n{block}"
        );
    }
}
