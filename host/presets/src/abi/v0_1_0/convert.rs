//! From the bindings' types to the host's own.

use countersign_core::preset as host;

use super::description as d;
use super::provider as p;
use super::types as t;
use crate::abi::Described;

fn each<A, B>(items: Vec<A>, convert: impl FnMut(A) -> B) -> Vec<B> {
    items.into_iter().map(convert).collect()
}

pub(super) fn grant(facts: &host::GrantFacts<'_>) -> p::Grant {
    p::Grant {
        scopes: facts.scopes.iter().map(|s| s.as_str().to_owned()).collect(),
        account: facts.account.map(str::to_owned),
        facts: facts
            .facts
            .iter()
            .map(|(name, value)| t::Fact {
                name: name.clone(),
                value: value.clone(),
            })
            .collect(),
    }
}

pub(super) fn verdict(verdict: p::Verdict) -> host::Verdict {
    match verdict {
        p::Verdict::Allow(a) => host::Verdict::Allow {
            credential: a.credential,
            rules: each(a.rules, rule),
        },
        p::Verdict::Deny(r) => host::Verdict::Deny {
            code: r.code,
            message: r.message,
        },
        p::Verdict::NeedScopes(scopes) => host::Verdict::NeedScopes(scopes),
    }
}

pub(super) fn slot(slot: t::Slot) -> host::Slot {
    match slot {
        t::Slot::AccessToken => host::Slot::AccessToken,
        t::Slot::RefreshToken => host::Slot::RefreshToken,
        t::Slot::IdToken => host::Slot::IdToken,
        t::Slot::ApiKey => host::Slot::ApiKey,
        t::Slot::ClientId => host::Slot::ClientId,
        t::Slot::ClientSecret => host::Slot::ClientSecret,
        t::Slot::Extra(name) => host::Slot::Extra(name),
    }
}

fn part(part: t::Part) -> host::Part {
    match part {
        t::Part::Literal(text) => host::Part::Literal(text),
        t::Part::Slot(s) => host::Part::Slot(slot(s)),
        t::Part::Variable(name) => host::Part::Variable(name),
        t::Part::Basic(b) => host::Part::Basic(host::Basic {
            user: slot(b.user),
            password: b.password.map(slot),
        }),
    }
}

fn template(parts: t::Template) -> host::Template {
    each(parts, part)
}

fn header(h: t::Header) -> host::Header {
    host::Header {
        name: h.name,
        value: template(h.value),
    }
}

fn parameter(p: t::Parameter) -> host::Parameter {
    host::Parameter {
        name: p.name,
        value: template(p.value),
    }
}

fn rule(rule: t::Rule) -> host::Rule {
    match rule {
        t::Rule::SetHeader(h) => host::Rule::SetHeader(header(h)),
        t::Rule::SetQuery(p) => host::Rule::SetQuery(parameter(p)),
    }
}

fn kind(kind: d::ValueKind) -> host::ValueKind {
    match kind {
        d::ValueKind::Identifier => host::ValueKind::Identifier,
        d::ValueKind::Label => host::ValueKind::Label,
        d::ValueKind::Host(suffixes) => host::ValueKind::Host(suffixes),
        d::ValueKind::Origin(suffixes) => host::ValueKind::Origin(suffixes),
        d::ValueKind::Enumeration(choices) => {
            host::ValueKind::Enumeration(each(choices, |c| host::Choice {
                value: c.value,
                title: c.title,
                sets: c.sets,
            }))
        }
    }
}

fn source(source: d::Source) -> host::Source {
    match source {
        d::Source::Setting(key) => host::Source::Setting(key),
        d::Source::TokenAnswer(pointer) => host::Source::TokenAnswer(pointer),
        d::Source::CallbackParameter(name) => host::Source::CallbackParameter(name),
        d::Source::FollowUp(value) => host::Source::FollowUp(host::FollowUpValue {
            follow_up: value.follow_up,
            selection: value.selection.map(|s| host::Selection {
                items: s.items,
                pick: match s.pick {
                    d::Pick::Only => host::Pick::Only,
                    d::Pick::First => host::Pick::First,
                    d::Pick::WhereEqual((pointer, value)) => host::Pick::WhereEqual(pointer, value),
                    d::Pick::AskUser(pointer) => host::Pick::AskUser(pointer),
                },
            }),
            pointer: value.pointer,
        }),
    }
}

fn client_authentication(method: d::ClientAuthentication) -> host::ClientAuthentication {
    match method {
        d::ClientAuthentication::ClientSecretBasic => host::ClientAuthentication::ClientSecretBasic,
        d::ClientAuthentication::ClientSecretPost => host::ClientAuthentication::ClientSecretPost,
        d::ClientAuthentication::None => host::ClientAuthentication::None,
        d::ClientAuthentication::PrivateKeyJwt => host::ClientAuthentication::PrivateKeyJwt,
        d::ClientAuthentication::Custom(rules) => {
            host::ClientAuthentication::Custom(each(rules, rule))
        }
    }
}

fn assertion(a: d::Assertion) -> host::Assertion {
    host::Assertion {
        algorithm: a.algorithm,
        claims: each(a.claims, parameter),
        lifetime_seconds: a.lifetime_seconds,
    }
}

fn token_request(request: d::TokenRequest) -> host::TokenRequest {
    host::TokenRequest {
        grant: match request.grant {
            d::Grant::AuthorizationCode => host::Grant::AuthorizationCode,
            d::Grant::RefreshToken => host::Grant::RefreshToken,
            d::Grant::DeviceCode => host::Grant::DeviceCode,
            d::Grant::ClientCredentials => host::Grant::ClientCredentials,
            d::Grant::TokenExchange => host::Grant::TokenExchange,
            d::Grant::JwtBearer(a) => host::Grant::JwtBearer(assertion(a)),
            d::Grant::SelfSigned(a) => host::Grant::SelfSigned(assertion(a)),
            d::Grant::Other(name) => host::Grant::Other(name),
        },
        endpoint: request.endpoint.map(template),
        body: match request.body {
            d::BodyFormat::Form => host::BodyFormat::Form,
            d::BodyFormat::Json => host::BodyFormat::Json,
        },
        client_authentication: each(request.client_authentication, client_authentication),
        headers: each(request.headers, header),
        parameters: each(request.parameters, parameter),
        suppress: request.suppress,
        redirect_uri: match request.redirect_uri {
            d::RedirectUriUse::Always => host::RedirectUriUse::Always,
            d::RedirectUriUse::WhenSeveral => host::RedirectUriUse::WhenSeveral,
            d::RedirectUriUse::Never => host::RedirectUriUse::Never,
        },
    }
}

fn authorization(request: d::AuthorizationRequest) -> host::AuthorizationRequest {
    host::AuthorizationRequest {
        endpoint: template(request.endpoint),
        parameters: each(request.parameters, parameter),
        incremental_parameters: each(request.incremental_parameters, parameter),
        suppress: request.suppress,
        scope_parameters: each(request.scope_parameters, |s| host::ScopeParameter {
            name: s.name,
            separator: s.separator,
            credential: s.credential,
            send_empty: s.send_empty,
        }),
        pkce: match request.pkce {
            d::Pkce::Required => host::Pkce::Required,
            d::Pkce::Supported => host::Pkce::Supported,
            d::Pkce::Unsupported => host::Pkce::Unsupported,
        },
        offline: match request.offline {
            d::Offline::None => host::Offline::None,
            d::Offline::Scope(scope) => host::Offline::Scope(scope),
            d::Offline::Parameters(parameters) => {
                host::Offline::Parameters(each(parameters, parameter))
            }
            d::Offline::AppSetting(text) => host::Offline::AppSetting(text),
        },
    }
}

fn request(request: d::Request) -> host::Request {
    host::Request {
        method: request.method,
        url: template(request.url),
        headers: each(request.headers, header),
        body: match request.body {
            d::Body::None => host::Body::None,
            d::Body::Form(parameters) => host::Body::Form(each(parameters, parameter)),
            d::Body::Json(parameters) => host::Body::Json(each(parameters, parameter)),
        },
        client_authentication: request.client_authentication.map(client_authentication),
        answer: answer_shape(request.answer),
    }
}

fn answer_shape(shape: d::AnswerShape) -> host::AnswerShape {
    host::AnswerShape {
        success_codes: shape.success_codes,
        success_checks: each(shape.success_checks, check),
        error_code: shape.error_code,
        error_description: shape.error_description,
        may_be_form: shape.may_be_form,
    }
}

fn check(check: d::Check) -> host::Check {
    match check {
        d::Check::Equals((pointer, value)) => host::Check::Equals(pointer, value),
        d::Check::Present(pointer) => host::Check::Present(pointer),
        d::Check::Absent(pointer) => host::Check::Absent(pointer),
    }
}

fn expiry(expiry: d::Expiry) -> host::Expiry {
    match expiry {
        d::Expiry::Lifetime(pointer) => host::Expiry::Lifetime(pointer),
        d::Expiry::Absolute((pointer, format)) => host::Expiry::Absolute(
            pointer,
            match format {
                d::TimeFormat::UnixSeconds => host::TimeFormat::UnixSeconds,
                d::TimeFormat::UnixMilliseconds => host::TimeFormat::UnixMilliseconds,
                d::TimeFormat::Rfc3339 => host::TimeFormat::Rfc3339,
            },
        ),
        d::Expiry::JwtClaim => host::Expiry::JwtClaim,
        d::Expiry::Introspection => host::Expiry::Introspection,
        d::Expiry::Constant(seconds) => host::Expiry::Constant(seconds),
        d::Expiry::Never => host::Expiry::Never,
    }
}

pub(super) fn token_shape(shape: d::TokenShape) -> host::TokenShape {
    host::TokenShape {
        credential: shape.credential,
        when: each(shape.when, check),
        optional: shape.optional,
        access_token: shape.access_token,
        refresh_token: shape.refresh_token,
        id_token: shape.id_token,
        expires: each(shape.expires, expiry),
        refresh_expires: each(shape.refresh_expires, expiry),
        scopes: shape.scopes,
        scope_separators: shape.scope_separators,
    }
}

fn refresh(refresh: d::Refresh) -> host::Refresh {
    host::Refresh {
        kind: match refresh.kind {
            d::RefreshKind::None => host::RefreshKind::None,
            d::RefreshKind::RefreshToken => host::RefreshKind::RefreshToken,
            d::RefreshKind::MintAgain => host::RefreshKind::MintAgain,
        },
        rotation: match refresh.rotation {
            d::Rotation::Never => host::Rotation::Never,
            d::Rotation::Sometimes => host::Rotation::Sometimes,
            d::Rotation::Always => host::Rotation::Always,
        },
        grace_seconds: refresh.grace_seconds,
        retry_after_lost_answer: refresh.retry_after_lost_answer,
        ends_access_token: refresh.ends_access_token,
        idle_days: refresh.idle_days,
        margin_percent: refresh.margin_percent,
        permanent_errors: refresh.permanent_errors,
        transient_errors: refresh.transient_errors,
    }
}

fn revocation(revocation: d::Revocation) -> host::Revocation {
    host::Revocation {
        request: request(revocation.request),
        effect: match revocation.effect {
            d::RevocationEffect::Token => host::RevocationEffect::Token,
            d::RevocationEffect::Grant => host::RevocationEffect::Grant,
            d::RevocationEffect::Installation => host::RevocationEffect::Installation,
            d::RevocationEffect::AccountLink => host::RevocationEffect::AccountLink,
        },
        note: revocation.note,
    }
}

fn credential(credential: d::Credential) -> host::Credential {
    host::Credential {
        name: credential.name,
        title: credential.title,
        hosts: each(credential.hosts, template),
        rules: each(credential.rules, rule),
        sigv4: credential.sigv4.map(|s| host::SigV4 {
            service: template(s.service),
            region: template(s.region),
        }),
    }
}

fn mcp_server(server: d::McpServer) -> host::McpServer {
    host::McpServer {
        url: template(server.url),
        title: server.title,
        tools: each(server.tools, |tool| host::Tool {
            name: tool.name,
            needs: tool.needs,
            broad: tool.broad,
        }),
        own_authorization_server: server.own_authorization_server,
        registration: match server.registration {
            d::Registration::Open => host::Registration::Open,
            d::Registration::PreRegistered => host::Registration::PreRegistered,
            d::Registration::ApprovedClients => host::Registration::ApprovedClients,
            d::Registration::Closed => host::Registration::Closed,
        },
        as_of: server.as_of,
    }
}

fn hooks(hooks: d::Hooks) -> host::Hooks {
    host::Hooks {
        authorize_parameters: hooks.contains(d::Hooks::AUTHORIZE_PARAMETERS),
        token_answer: hooks.contains(d::Hooks::TOKEN_ANSWER),
        refresh_error: hooks.contains(d::Hooks::REFRESH_ERROR),
        sign: hooks.contains(d::Hooks::SIGN),
        identity: hooks.contains(d::Hooks::IDENTITY),
        filter_tools: hooks.contains(d::Hooks::FILTER_TOOLS),
        redact: hooks.contains(d::Hooks::REDACT),
    }
}

fn wants(wants: d::Wants) -> host::Wants {
    host::Wants {
        arguments: wants.contains(d::Wants::ARGUMENTS),
        settings: wants.contains(d::Wants::SETTINGS),
        account: wants.contains(d::Wants::ACCOUNT),
        facts: wants.contains(d::Wants::FACTS),
    }
}

pub(super) fn description(said: d::Description) -> Described {
    let description = host::Description {
        name: said.name,
        display_name: said.display_name,
        version: said.version,
        category: said.category,
        documentation_url: said.documentation_url,
        wants: wants(said.wants),
        hooks: hooks(said.hooks),
        variables: each(said.variables, |v| host::Variable {
            name: v.name,
            title: v.title,
            source: source(v.source),
            kind: kind(v.kind),
            default_value: v.default_value,
            required: v.required,
        }),
        variants: each(said.variants, |v| host::VariantInfo {
            name: v.name,
            title: v.title,
            selected: v.selected,
            ends_on: v.ends_on,
        }),
        authorization_hosts: each(said.authorization_hosts, template),
        audience_hosts: each(said.audience_hosts, template),
        authorization: said.authorization.map(authorization),
        token_endpoint: said.token_endpoint.map(template),
        device_authorization_endpoint: said.device_authorization_endpoint.map(template),
        token_requests: each(said.token_requests, token_request),
        token_answer: answer_shape(said.token_answer),
        token_shapes: each(said.token_shapes, token_shape),
        metadata: each(said.metadata, |m| host::Metadata {
            name: m.name,
            pointer: m.pointer,
            kind: kind(m.kind),
        }),
        grant_difference: match said.grant_difference {
            d::GrantDifference::Accept => host::GrantDifference::Accept,
            d::GrantDifference::Warn => host::GrantDifference::Warn,
            d::GrantDifference::Refuse => host::GrantDifference::Refuse,
        },
        scopes: each(said.scopes, |s| host::ScopeInfo {
            name: s.name,
            title: s.title,
            implies: s.implies,
            parameter: s.parameter,
            prefix: s.prefix,
        }),
        default_scopes: said.default_scopes,
        refresh: refresh(said.refresh),
        revocation: each(said.revocation, revocation),
        follow_ups: each(said.follow_ups, |f| host::FollowUp {
            name: f.name,
            request: request(f.request),
        }),
        identity: said.identity.map(|i| host::Identity {
            request: request(i.request),
            id: i.id,
            label: i.label,
            tenant: i.tenant,
        }),
        credentials: each(said.credentials, credential),
        constant_headers: each(said.constant_headers, header),
        mcp_servers: each(said.mcp_servers, mcp_server),
        error_advice: each(said.error_advice, |e| host::ErrorAdvice {
            code: e.code,
            advice: e.advice,
        }),
    };
    Described {
        description,
        arguments_of: said.arguments_of,
    }
}
