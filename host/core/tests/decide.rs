//! What is let through, with what credential, and where to.

use std::sync::Arc;

use countersign_core::caller::{Caller, Permissions};
use countersign_core::connection::{Connection, Origins, ReauthReason, State, TokenFacts};
use countersign_core::decide::{Attachment, Permit, Unusable};
use countersign_core::error::CallError;
use countersign_core::hosts::HostPattern;
use countersign_core::inject::{InjectError, Plan, Request, Vaulted};
use countersign_core::names::{
    ClientId, ConnectionId, Digest, ProviderName, ServerName, TeamName, UserName,
};
use countersign_core::policy::Rules;
use countersign_core::preset::{
    AccountFacts, AnswerShape, Call, Credential, Description, GrantDifference, GrantFacts, Header,
    Hooks, McpServer, Part, Preset, PresetFault, Redaction, Refresh, RefreshKind, Registration,
    Rotation, Rule, ScopeInfo, SigV4, Slot, Source, TokenShape, Tool, ValueKind, Variable, Verdict,
    Wants,
};
use countersign_core::provider::Provider;
use countersign_core::scope::ScopeSet;
use countersign_core::secret::{SealKey, Sealed, Secret};
use countersign_core::server::{
    AuthMode, ConnectionUse, Injection, Server, ServerAuth, Target, ToolFilter,
};
use countersign_core::signing::{
    Algorithm, Key, Recipe, SignatureText, SignedHeader, SignedPart, Step, Unsigned,
};
use countersign_core::time::Timestamp;
use countersign_core::tokens::{CredentialTokens, TokenSet};
use countersign_core::user_key::UserKey;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

type Sign = fn(&Unsigned) -> Result<Recipe, PresetFault>;

struct FakePreset {
    description: Description,
    verdict: Result<Verdict, PresetFault>,
    recipe: Option<Sign>,
}

impl Preset for FakePreset {
    fn digest(&self) -> Digest {
        Digest::of(b"fake")
    }
    fn description(&self) -> &Description {
        &self.description
    }
    fn evaluate(&self, _: &Call<'_>, _: &GrantFacts<'_>) -> Result<Verdict, PresetFault> {
        self.verdict.clone()
    }
    fn authorize_parameters(&self, _: &ScopeSet) -> Result<Vec<(String, String)>, PresetFault> {
        Ok(Vec::new())
    }
    fn token_answer(&self, _: u16, _: &str) -> Result<Option<Vec<TokenShape>>, PresetFault> {
        Ok(None)
    }
    fn refresh_error(&self, _: u16, _: Option<&str>, _: &str) -> Result<Option<bool>, PresetFault> {
        Ok(None)
    }
    fn filter_tools(
        &self,
        _: &[String],
        _: &GrantFacts<'_>,
    ) -> Result<Option<Vec<String>>, PresetFault> {
        Ok(None)
    }
    fn sign(&self, request: &Unsigned) -> Result<Option<Recipe>, PresetFault> {
        self.recipe.as_ref().map(|f| f(request)).transpose()
    }
    fn identity(&self, _: &str) -> Result<Option<AccountFacts>, PresetFault> {
        Ok(None)
    }
    fn redact(&self, _: &Call<'_>, _: &str) -> Result<Option<Vec<Redaction>>, PresetFault> {
        Ok(None)
    }
}

fn bearer() -> Rule {
    Rule::SetHeader(Header {
        name: "Authorization".into(),
        value: vec![
            Part::Literal("Bearer ".into()),
            Part::Slot(Slot::AccessToken),
        ],
    })
}

fn description() -> Description {
    let credential = |name: &str| Credential {
        name: name.into(),
        title: name.into(),
        hosts: Vec::new(),
        rules: vec![bearer()],
        sigv4: None,
    };
    Description {
        name: "fake".into(),
        display_name: "Fake".into(),
        version: "1.0.0".into(),
        category: "Test".into(),
        documentation_url: String::new(),
        wants: Wants::default(),
        hooks: Hooks::default(),
        variables: Vec::new(),
        variants: Vec::new(),
        authorization_hosts: Vec::new(),
        audience_hosts: vec![vec![Part::Literal("mcp.example.com".into())]],
        authorization: None,
        token_endpoint: None,
        device_authorization_endpoint: None,
        token_requests: Vec::new(),
        token_answer: AnswerShape {
            success_codes: Vec::new(),
            success_checks: Vec::new(),
            error_code: Vec::new(),
            error_description: Vec::new(),
            may_be_form: false,
        },
        token_shapes: Vec::new(),
        metadata: Vec::new(),
        grant_difference: GrantDifference::Accept,
        scopes: vec![ScopeInfo {
            name: "repo".into(),
            title: String::new(),
            implies: vec!["public_repo".into()],
            parameter: None,
            prefix: false,
        }],
        default_scopes: Vec::new(),
        refresh: Refresh {
            kind: RefreshKind::RefreshToken,
            rotation: Rotation::Always,
            grace_seconds: 0,
            retry_after_lost_answer: false,
            ends_access_token: false,
            idle_days: None,
            margin_percent: 10,
            permanent_errors: Vec::new(),
            transient_errors: Vec::new(),
        },
        revocation: Vec::new(),
        follow_ups: Vec::new(),
        identity: None,
        credentials: vec![credential("user"), credential("bot")],
        constant_headers: Vec::new(),
        mcp_servers: vec![McpServer {
            url: vec![Part::Literal("https://mcp.example.com/mcp".into())],
            title: "Fake".into(),
            tools: vec![Tool {
                name: "read_alerts".into(),
                needs: vec![vec!["security_events".into(), "repo".into()]],
                broad: false,
            }],
            own_authorization_server: false,
            registration: Registration::Open,
            as_of: "2026-08-21".into(),
        }],
        error_advice: Vec::new(),
    }
}

fn provider() -> Provider {
    Provider {
        name: ProviderName::parse("fake").unwrap(),
        display_name: "Fake".into(),
        preset: countersign_core::names::PresetName::parse("fake").unwrap(),
        authorization_endpoint: None,
        token_endpoint: None,
        revocation_endpoint: None,
        device_authorization_endpoint: None,
        grant_types: Vec::new(),
        token_endpoint_auth_method: None,
        client_id: "client".into(),
        client_secret_ref: None,
        private_key_ref: None,
        private_key_id: None,
        token_endpoint_auth_signing_alg: None,
        scopes: ScopeSet::default(),
        require_pkce: true,
        audience_hosts: Vec::new(),
        resource: None,
        audience: None,
        request_timeout: std::time::Duration::from_secs(30),
        max_retries: 3,
        auto_update: false,
        registration: None,
        enabled: true,
        settings: serde_json::Map::new(),
        created_at: NOW,
        updated_at: NOW,
    }
}

fn server(url: &str) -> Server {
    Server {
        name: ServerName::parse("notes").unwrap(),
        display_name: "Notes".into(),
        target: Target::Url(url::Url::parse(url).unwrap()),
        auth: ServerAuth {
            mode: AuthMode::UserDelegated,
            provider: Some(ProviderName::parse("fake").unwrap()),
            required_scopes: ScopeSet::default(),
            secret_ref: None,
            injection: None,
            per_user: false,
            resource: None,
            audience: None,
            changed: None,
        },
        connection: ConnectionUse::Shared,
        wait: std::time::Duration::from_secs(45),
        timeout: std::time::Duration::from_secs(300),
        tools: ToolFilter::default(),
        teams: Vec::new(),
        record_decisions: false,
        resource: None,
        enabled: true,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn connection(scopes: &str) -> Connection {
    let facts = |name: &str| TokenFacts {
        credential: name.into(),
        scopes: ScopeSet::split(scopes, &[]),
        issued_at: NOW,
        expires_at: None,
        refresh_token_present: true,
        refresh_token_expires_at: None,
        refresh_token_end_is_fixed: false,
        renewal_lost_at: None,
    };
    Connection {
        id: ConnectionId::parse("c1").unwrap(),
        user: UserName::parse("ann").unwrap(),
        team: TeamName::default_team(),
        provider: ProviderName::parse("fake").unwrap(),
        resource: None,
        account: None,
        credentials: vec![facts("user"), facts("bot")],
        facts: Vec::new(),
        origins: Origins {
            token: "https://id.example.com".into(),
            revocation: None,
            audience: vec![HostPattern::parse("mcp.example.com").unwrap()],
            resource: None,
        },
        client_id: "client".into(),
        preset_digest: Digest::of(b"fake"),
        state: State::Connected,
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
        consented_at: None,
        last_used_at: None,
        warned_of: None,
        withheld: ScopeSet::default(),
    }
}

fn caller() -> Caller {
    Caller {
        user: UserName::parse("ann").unwrap(),
        team: TeamName::default_team(),
        client: ClientId::parse("agent").unwrap(),
        client_name: "Agent".into(),
        roles: Default::default(),
        permissions: Permissions::default(),
        servers: None,
        has_browser_identity: true,
    }
}

struct Case {
    server: Server,
    provider: Provider,
    caller: Caller,
    connection: Option<Connection>,
    verdict: Result<Verdict, PresetFault>,
    tool: &'static str,
    policies: Rules,
    description: Description,
    sign: Option<Sign>,
}

fn case() -> Case {
    Case {
        server: server("https://mcp.example.com/mcp"),
        provider: provider(),
        caller: caller(),
        connection: Some(connection("read")),
        verdict: Ok(Verdict::Allow {
            credential: None,
            rules: Vec::new(),
        }),
        tool: "anything",
        policies: Rules::default(),
        description: description(),
        sign: None,
    }
}

impl Case {
    fn decide(&self) -> Result<Permit, CallError> {
        let preset: Arc<dyn Preset> = Arc::new(FakePreset {
            description: self.description.clone(),
            verdict: self.verdict.clone(),
            recipe: self.sign,
        });
        let attachment = Attachment::new(
            Arc::new(self.server.clone()),
            Some(Arc::new(self.provider.clone())),
            Some(preset),
            &self.policies,
        )
        .unwrap();
        let attachment = Arc::new(attachment);
        let call = Call {
            method: "tools/call",
            name: Some(self.tool),
            arguments: None,
            host: attachment.host(),
        };
        attachment
            .admit(&self.caller, call)?
            .connected(self.connection.as_ref(), NOW)?
            .judge()?
            .agreed(None)
    }

    fn refused(&self) -> CallError {
        match self.decide() {
            Ok(_) => panic!("it was let through"),
            Err(error) => error,
        }
    }

    fn headers(&self) -> Result<http::HeaderMap, InjectError> {
        let permit = self.decide().unwrap_or_else(|e| panic!("{e}"));
        let plan = Plan::new(permit, self.connection.as_ref())?;
        let tokens = |name: &str| CredentialTokens {
            credential: name.into(),
            access_token: Secret::from_text(format!("CANARY-{name}")),
            refresh_token: None,
            id_token: None,
        };
        let set = TokenSet {
            credentials: vec![tokens("user"), tokens("bot")],
        };
        let key = SealKey::new([9; 32]);
        let bytes = set.into_secret().seal(&key, [1; 24], b"here");
        let sealed = Sealed::new(key, b"here".to_vec(), bytes);
        let vaulted = Vaulted {
            tokens: Some(&sealed),
            api_key: None,
        };
        let mut headers = http::HeaderMap::new();
        headers.insert("mcp-session-id", "session".parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        let request = Request {
            method: http::Method::POST,
            headers,
            body: "{}".into(),
        };
        Ok(plan.fill(&vaulted, request, NOW)?.into_parts().headers)
    }
}

fn denied(code: &str) -> impl Fn(&CallError) -> bool {
    move |e| matches!(e, CallError::Denied { code: c, .. } if c == code)
}

#[test]
fn the_operators_rules_come_before_the_preset() {
    let mut disabled = case();
    disabled.server.enabled = false;
    assert!(denied("server_disabled")(&disabled.refused()));

    let mut paused = case();
    paused.provider.enabled = false;
    assert!(denied("provider_disabled")(&paused.refused()));

    let mut team = case();
    team.server.teams = vec![TeamName::parse("ops").unwrap()];
    assert!(denied("team_not_allowed")(&team.refused()));

    let mut token = case();
    token.caller.servers = Some(["other".to_owned()].into());
    assert!(denied("server_not_in_token")(&token.refused()));

    let mut tool = case();
    tool.server.tools.deny = vec!["any*".into()];
    assert!(denied("tool_not_allowed")(&tool.refused()));
}

#[test]
fn without_a_usable_connection_the_user_is_told_what_to_do() {
    let none = Case {
        connection: None,
        ..case()
    };
    assert_eq!(none.refused().word(), "oauth_connection_required");

    let mut ended = case();
    ended.connection.as_mut().unwrap().state = State::NeedsReauth {
        reason: ReauthReason::Revoked,
    };
    assert_eq!(ended.refused().word(), "oauth_token_expired");

    let mut lapsed = case();
    for c in &mut lapsed.connection.as_mut().unwrap().credentials {
        c.expires_at = Some(Timestamp::from_secs(1));
        c.refresh_token_present = false;
    }
    assert!(matches!(
        lapsed.refused(),
        CallError::NeedsReauth {
            reason: ReauthReason::Expired,
            ..
        }
    ));
}

#[test]
fn a_server_moved_after_consent_gets_no_token() {
    let mut moved = case();
    moved.server.target = Target::Url(url::Url::parse("https://evil.example.net/mcp").unwrap());
    moved.provider.audience_hosts = vec![HostPattern::parse("evil.example.net").unwrap()];
    assert!(matches!(
        moved.refused(),
        CallError::NeedsReauth {
            reason: ReauthReason::ProviderChanged,
            ..
        }
    ));

    let mut other_client = case();
    other_client.provider.client_id = "another".into();
    assert!(matches!(
        other_client.refused(),
        CallError::NeedsReauth {
            reason: ReauthReason::ProviderChanged,
            ..
        }
    ));
}

/// The preset's token endpoint is at a host that a variable decides.
fn templated(source: Source) -> Case {
    let text = |text: &str| Part::Literal(text.into());
    let mut case = case();
    case.description.variables = vec![Variable {
        name: "tenant".into(),
        title: "Tenant".into(),
        source,
        kind: ValueKind::Identifier,
        default_value: None,
        required: true,
    }];
    case.description.authorization_hosts = vec![vec![text(".example.com")]];
    case.description.token_endpoint = Some(vec![
        text("https://"),
        Part::Variable("tenant".into()),
        text(".example.com/token"),
    ]);
    let facts = vec![("tenant".to_owned(), "id".to_owned())];
    if let (Some(connection), Source::TokenAnswer(_)) =
        (&mut case.connection, &case.description.variables[0].source)
    {
        connection.facts = facts;
    }
    case.provider.settings.insert("tenant".into(), "id".into());
    case
}

#[test]
fn whatever_leads_requests_elsewhere_ends_what_the_user_consented_to() {
    let url = |text: &str| url::Url::parse(text).unwrap();
    type Edit = fn(&mut Case, fn(&str) -> url::Url);
    let parse: fn(&str) -> url::Url = |text| url::Url::parse(text).unwrap();
    // What is edited, whether calls go on.
    let edits: [(&str, Edit, bool); 9] = [
        ("nothing", |_, _| {}, true),
        (
            "the same origin, another path",
            |c, url| c.provider.token_endpoint = Some(url("https://id.example.com/v2/token")),
            true,
        ),
        (
            "token endpoint",
            |c, url| c.provider.token_endpoint = Some(url("https://evil.example/token")),
            false,
        ),
        (
            "another port",
            |c, url| c.provider.token_endpoint = Some(url("https://id.example.com:8443/token")),
            false,
        ),
        (
            "a revocation endpoint beside the token endpoint",
            |c, url| c.provider.revocation_endpoint = Some(url("https://id.example.com/revoke")),
            true,
        ),
        (
            "a revocation endpoint elsewhere",
            |c, url| c.provider.revocation_endpoint = Some(url("https://evil.example/revoke")),
            false,
        ),
        (
            "resource",
            |c, url| c.provider.resource = Some(url("https://bank.example/mcp")),
            false,
        ),
        (
            "authorization endpoint",
            |c, url| c.provider.authorization_endpoint = Some(url("https://evil.example/auth")),
            true,
        ),
        (
            "a setting that decides the host",
            |c, _| {
                c.provider.settings.insert("tenant".into(), "evil".into());
            },
            false,
        ),
    ];
    for (what, edit, goes_on) in edits {
        let mut case = templated(Source::Setting("tenant".into()));
        edit(&mut case, parse);
        match case.decide() {
            Ok(_) => assert!(goes_on, "{what}"),
            Err(CallError::NeedsReauth { reason, .. }) => {
                assert!(!goes_on, "{what}");
                assert_eq!(reason, ReauthReason::ProviderChanged, "{what}");
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
    // What a sign-in decided is the connection's own.
    let mut own = templated(Source::TokenAnswer("/tenant".into()));
    assert!(own.decide().is_ok());
    own.provider.token_endpoint = Some(url("https://evil.example/token"));
    assert!(matches!(own.refused(), CallError::NeedsReauth { .. }));
}

#[test]
fn scopes_are_asked_for_only_where_nothing_granted_implies_them() {
    let mut server_scopes = case();
    server_scopes.server.auth.required_scopes = ScopeSet::split("public_repo read", &[]);
    let CallError::NeedsScopes { missing, .. } = server_scopes.refused() else {
        panic!()
    };
    assert_eq!(missing.join(" "), "public_repo");
    server_scopes.connection = Some(connection("repo read"));
    assert!(server_scopes.decide().is_ok());

    let table = Case {
        tool: "read_alerts",
        ..case()
    };
    assert_eq!(table.refused().word(), "scope_upgrade_required");
    assert!(
        Case {
            tool: "read_alerts",
            connection: Some(connection("repo")),
            ..case()
        }
        .decide()
        .is_ok()
    );

    let verdict = Case {
        verdict: Ok(Verdict::NeedScopes(vec!["write".into()])),
        ..case()
    };
    assert_eq!(verdict.refused().word(), "scope_upgrade_required");
}

#[test]
fn what_was_asked_for_and_not_granted_is_said_and_not_asked_for_again() {
    let withheld = |granted: &str, withheld: &str| Connection {
        withheld: ScopeSet::split(withheld, &[]),
        ..connection(granted)
    };
    let server_wants = |scopes: &str, connection| {
        let mut case = case();
        case.server.auth.required_scopes = ScopeSet::split(scopes, &[]);
        case.connection = Some(connection);
        case
    };
    let tool = |connection| Case {
        tool: "read_alerts",
        connection: Some(connection),
        ..case()
    };
    let verdict = |connection| Case {
        verdict: Ok(Verdict::NeedScopes(vec!["write".into()])),
        connection: Some(connection),
        ..case()
    };
    let asked_first = "scope_upgrade_required";
    let cases = [
        (
            server_wants("read write", withheld("read", "")),
            asked_first,
        ),
        (
            server_wants("read write", withheld("read", "write")),
            "denied",
        ),
        (
            server_wants("read write", withheld("read", "admin")),
            asked_first,
        ),
        (verdict(withheld("read", "write")), "denied"),
        (verdict(withheld("read", "admin")), asked_first),
        // One of two alternatives was refused: the other one is asked for.
        (tool(withheld("read", "security_events")), asked_first),
    ];
    for (case, expected) in cases {
        let refused = case.refused();
        assert_eq!(refused.word(), expected, "{refused}");
        if expected == "denied" {
            assert_eq!(refused.denial(), Some("scopes_not_granted"));
            let said = refused.to_string();
            assert!(said.contains("was asked for write"), "{said}");
            assert!(said.contains("Connections page"), "{said}");
        }
    }
}

#[test]
fn every_preset_fault_fails_closed() {
    let faults = [
        (PresetFault::Trap("x".into()), "preset_failed"),
        (PresetFault::Deadline, "preset_timeout"),
        (PresetFault::Memory, "preset_failed"),
        (PresetFault::BadOutput("x".into()), "preset_failed"),
        (PresetFault::Reported("x".into()), "preset_failed"),
        (PresetFault::Unavailable("x".into()), "preset_unavailable"),
        (PresetFault::Busy, "busy"),
    ];
    for (fault, word) in faults {
        assert_eq!(
            Case {
                verdict: Err(fault),
                ..case()
            }
            .refused()
            .word(),
            word
        );
    }
    let empty = Case {
        verdict: Ok(Verdict::NeedScopes(Vec::new())),
        ..case()
    };
    assert_eq!(empty.refused().word(), "preset_failed");
    let unknown = Case {
        verdict: Ok(Verdict::Allow {
            credential: Some("root".into()),
            rules: vec![],
        }),
        ..case()
    };
    assert_eq!(unknown.refused().word(), "preset_failed");
}

#[test]
fn the_chosen_credentials_token_is_injected() {
    let headers = case().headers().unwrap();
    assert_eq!(headers["authorization"], "Bearer CANARY-user");
    assert!(headers["authorization"].is_sensitive());

    let verdict = Ok(Verdict::Allow {
        credential: Some("bot".into()),
        rules: Vec::new(),
    });
    assert_eq!(
        Case { verdict, ..case() }.headers().unwrap()["authorization"],
        "Bearer CANARY-bot"
    );
}

#[test]
fn a_servers_injection_replaces_only_the_access_token_rule() {
    let mut own = case();
    own.server.auth.injection = Some(Injection {
        header_name: "X-Api-Key".into(),
        header_prefix: String::new(),
    });
    let headers = own.headers().unwrap();
    assert_eq!(headers["x-api-key"], "CANARY-user");
    assert!(!headers.contains_key("authorization"));
}

#[test]
fn a_preset_cannot_set_what_is_not_its_to_set() {
    let header = |name: &str, value: &str| {
        Rule::SetHeader(Header {
            name: name.into(),
            value: vec![Part::Literal(value.into())],
        })
    };
    let cases = [
        header("Host", "evil"),
        header("Cookie", "a=b"),
        header("Mcp-Session-Id", "x"),
        header("X-Forwarded-For", "1.2.3.4"),
        header("Transfer-Encoding", "chunked"),
        header("X-Fine", "a\r\nX-Evil: b"),
        header("bad name", "x"),
        Rule::SetHeader(Header {
            name: "X-S".into(),
            value: vec![Part::Slot(Slot::ClientSecret)],
        }),
        Rule::SetHeader(Header {
            name: "X-S".into(),
            value: vec![Part::Slot(Slot::RefreshToken)],
        }),
        Rule::SetHeader(Header {
            name: "X-S".into(),
            value: vec![Part::Slot(Slot::Extra("x".into()))],
        }),
        Rule::SetHeader(Header {
            name: "X-V".into(),
            value: vec![Part::Variable("none".into())],
        }),
        Rule::SetQuery(countersign_core::preset::Parameter {
            name: "token".into(),
            value: vec![Part::Slot(Slot::AccessToken)],
        }),
    ];
    for rule in cases {
        let shown = format!("{rule:?}");
        let verdict = Ok(Verdict::Allow {
            credential: None,
            rules: vec![bearer(), rule],
        });
        let refused = Case { verdict, ..case() }.headers();
        assert!(
            matches!(refused, Err(InjectError::Preset(PresetFault::BadOutput(_)))),
            "{shown}"
        );
    }
}

#[test]
fn no_token_leaves_for_a_host_off_the_audience() {
    let mut off = case();
    off.server.target = Target::Url(url::Url::parse("https://other.example.com/mcp").unwrap());
    // Even if the connection was sealed with that host.
    off.connection.as_mut().unwrap().origins.audience =
        vec![HostPattern::parse("other.example.com").unwrap()];
    assert!(matches!(off.headers(), Err(InjectError::OffAudience(_))));
}

/// Signs with the day, then with the request, and says what it was shown.
fn chained(shown: &Unsigned) -> Result<Recipe, PresetFault> {
    let step = |key, data: &str| Step {
        key,
        algorithm: Algorithm::HmacSha256,
        data: data.as_bytes().to_vec(),
    };
    Ok(Recipe {
        steps: vec![
            step(Key::Credential, "day"),
            step(Key::Made(0), &shown.body_sha256),
        ],
        headers: vec![
            SignedHeader {
                name: "X-Signature".into(),
                value: vec![SignedPart::Signature(Key::Made(1), SignatureText::Hex)],
            },
            SignedHeader {
                name: "X-Shown".into(),
                value: vec![SignedPart::Literal(
                    format!("{shown:?}").replace(|c: char| !(' '..='~').contains(&c), "?"),
                )],
            },
        ],
    })
}

fn signing(sign: Sign) -> Case {
    let mut case = case();
    case.description.hooks.sign = true;
    let place = Rule::SetHeader(Header {
        name: "X-Signature".into(),
        value: Vec::new(),
    });
    case.description.credentials[0].rules.push(place);
    case.sign = Some(sign);
    case
}

#[test]
fn a_preset_signs_without_seeing_the_key_or_the_token() {
    let headers = signing(chained).headers().unwrap();
    // HMAC(HMAC("CANARY-user", "day"), sha256("{}")), from another implementation.
    assert_eq!(
        headers["x-signature"],
        "2c905d940d63b92a7e2a2f212a692d7dc7a30f969831c30d31584371e1774ab6"
    );
    assert!(headers["x-signature"].is_sensitive());
    assert_eq!(headers["authorization"], "Bearer CANARY-user");
    let shown = headers["x-shown"].to_str().unwrap();
    assert!(
        shown.contains("content-type") && !shown.contains("CANARY"),
        "{shown}"
    );
    assert!(!shown.contains("mcp-session-id"), "{shown}");
}

#[test]
fn a_place_for_a_signature_that_is_not_made_is_left_out() {
    let headers = signing(|_| Ok(Recipe::default())).headers().unwrap();
    assert!(!headers.contains_key("x-signature"));
}

#[test]
fn a_signer_that_fails_or_says_nothing_stops_the_call() {
    let failed = signing(|_| Err(PresetFault::Deadline)).headers();
    assert_eq!(failed, Err(InjectError::Preset(PresetFault::Deadline)));
    let silent = Case {
        sign: None,
        ..signing(chained)
    };
    assert!(matches!(
        silent.headers(),
        Err(InjectError::Preset(PresetFault::BadOutput(_)))
    ));
    let key_itself = signing(|_| {
        Ok(Recipe {
            steps: vec![],
            headers: vec![SignedHeader {
                name: "x-signature".into(),
                value: vec![SignedPart::Signature(Key::Credential, SignatureText::Hex)],
            }],
        })
    });
    assert!(matches!(
        key_itself.headers(),
        Err(InjectError::Preset(PresetFault::BadOutput(_)))
    ));
}

#[test]
fn a_signed_request_too_keeps_to_the_audience() {
    for mut off in [signing(chained), aws()] {
        // Nothing but the signature comes of the credential.
        off.description.credentials[0].rules.clear();
        off.server.target = Target::Url(url::Url::parse("https://other.example.com/mcp").unwrap());
        off.connection.as_mut().unwrap().origins.audience =
            vec![HostPattern::parse("other.example.com").unwrap()];
        assert!(matches!(off.headers(), Err(InjectError::OffAudience(_))));
    }
}

fn aws() -> Case {
    let mut case = case();
    let literal = |text: &str| vec![Part::Literal(text.into())];
    case.description.credentials[0].rules.clear();
    case.description.credentials[0].sigv4 = Some(SigV4 {
        service: literal("execute-api"),
        region: literal("eu-west-1"),
    });
    case
}

#[test]
fn what_is_no_aws_key_signs_nothing() {
    // The connection's token is CANARY-user.
    assert_eq!(aws().headers(), Err(InjectError::NotAwsKeys));
    let mut nowhere = aws();
    nowhere.description.credentials[0].sigv4 = Some(SigV4 {
        service: vec![Part::Literal("EXECUTE API".into())],
        region: vec![Part::Variable("none".into())],
    });
    assert!(matches!(
        nowhere.headers(),
        Err(InjectError::Preset(PresetFault::BadOutput(_)))
    ));
}

#[test]
fn a_preset_that_signs_refuses_an_injection() {
    for case in [signing(chained), aws()] {
        let mut server = case.server.clone();
        server.auth.injection = Some(Injection {
            header_name: "X-Api-Key".into(),
            header_prefix: String::new(),
        });
        let preset: Arc<dyn Preset> = Arc::new(FakePreset {
            description: case.description.clone(),
            verdict: case.verdict.clone(),
            recipe: case.sign,
        });
        let made = Attachment::new(
            Arc::new(server),
            Some(Arc::new(case.provider.clone())),
            Some(preset),
            &case.policies,
        );
        assert_eq!(made.err(), Some(Unusable::Injection));
    }
}

fn obtained(mode: AuthMode, scopes: &str) -> Case {
    let mut case = case();
    case.server.auth.mode = mode;
    case.connection = Some(connection(scopes));
    case
}

#[test]
fn what_the_servers_own_credential_does_not_reach_is_for_an_administrator() {
    for mode in [AuthMode::ServiceAccount, AuthMode::TokenExchange] {
        assert!(obtained(mode, "read").decide().is_ok());

        let mut required = obtained(mode, "read");
        required.server.auth.required_scopes = ScopeSet::split("read admin", &[]);
        assert!(denied("scopes_missing")(&required.refused()), "{mode:?}");

        let mut preset = obtained(mode, "read");
        preset.verdict = Ok(Verdict::NeedScopes(vec!["write".into()]));
        let refused = preset.refused();
        assert!(denied("scopes_missing")(&refused), "{mode:?}: {refused}");
        assert!(refused.to_string().contains("write"), "{refused}");
        assert!(!refused.wants_user(), "a user could do nothing about it");

        let mut none = obtained(mode, "read");
        none.connection = None;
        assert_eq!(none.refused().word(), "provider_unavailable");

        let mut elsewhere = obtained(mode, "read");
        elsewhere.server.target = Target::Url("https://evil.example.net/mcp".parse().unwrap());
        assert_eq!(elsewhere.refused().word(), "provider_unavailable");
    }
}

fn own_key(origin: &str) -> UserKey {
    UserKey {
        id: ConnectionId::parse("key_1").unwrap(),
        user: UserName::parse("ann").unwrap(),
        team: TeamName::default_team(),
        server: ServerName::parse("notes").unwrap(),
        origin: origin.into(),
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
    }
}

#[test]
fn a_users_own_key_goes_only_where_it_was_given_for() {
    let mut case = case();
    case.server.auth = ServerAuth {
        per_user: true,
        ..ServerAuth::new(AuthMode::Static)
    };
    let attachment =
        Attachment::new(Arc::new(case.server.clone()), None, None, &case.policies).unwrap();
    let attachment = Arc::new(attachment);
    let judge = |key: Option<&UserKey>| {
        let call = Call {
            method: "tools/call",
            name: Some("anything"),
            arguments: None,
            host: attachment.host(),
        };
        let admitted = attachment.admit(&case.caller, call)?;
        admitted.keyed(key)?.judge()?.agreed(None).map(drop)
    };
    let word = |result: Result<(), CallError>| result.map_err(|e| e.word());
    assert_eq!(word(judge(None)), Err("oauth_connection_required"));
    let here = own_key("https://mcp.example.com");
    assert_eq!(word(judge(Some(&here))), Ok(()));
    let before = own_key("https://old.example.com");
    assert_eq!(word(judge(Some(&before))), Err("oauth_token_expired"));
    let others = UserKey {
        user: UserName::parse("bob").unwrap(),
        ..here
    };
    assert_eq!(word(judge(Some(&others))), Err("oauth_connection_required"));

    // Whoever forgets that there is a key of one's own gets no permit.
    let call = Call {
        method: "tools/call",
        name: Some("anything"),
        arguments: None,
        host: attachment.host(),
    };
    let admitted = attachment.admit(&case.caller, call).unwrap();
    assert!(admitted.connected(None, NOW).is_err());
}
