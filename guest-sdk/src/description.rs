//! The description, which is its own builder.

use crate::data::{
    AnswerShape, AuthorizationRequest, Credential, Description, ErrorAdvice, FollowUp,
    GrantDifference, Hooks, IdentityRequest, McpServer, Metadata, Offline, Pkce, Refresh,
    RefreshKind, Revocation, Rotation, Rule, Scope, ScopeParameter, Template, TokenRequest,
    TokenShape, Variable, VariantInfo, Wants,
};
use crate::text::{Text, header, host_of, parameter, template};

/// The name of the only credential, unless a preset describes several.
pub(crate) const DEFAULT_CREDENTIAL: &str = "user";

pub(crate) fn scope_parameter(name: &str, separator: &str) -> ScopeParameter {
    ScopeParameter {
        name: name.into(),
        separator: separator.into(),
        credential: None,
        send_empty: false,
    }
}

fn templates<T: Text>(list: impl IntoIterator<Item = T>) -> Vec<Template> {
    list.into_iter().map(Text::into_template).collect()
}

impl Description {
    /// A provider that does what the RFCs say. Endpoints and audience are the
    /// provider record's until they are said.
    pub fn oauth2(name: &str, display_name: &str) -> Self {
        Self {
            authorization: Some(AuthorizationRequest::rfc6749()),
            token_shapes: vec![TokenShape::default()],
            credentials: vec![Credential::bearer(DEFAULT_CREDENTIAL, "Access token")],
            ..Self::blank(name, display_name)
        }
    }

    /// A provider without sign-in: a static key, sent by this rule. The key
    /// itself is `{$api-key}`.
    pub fn api_key(name: &str, display_name: &str, rule: Rule) -> Self {
        Self::keyed(
            name,
            display_name,
            Credential::new("key", "API key", [rule]),
        )
    }

    /// A provider without sign-in, whose stored key is used like this: sent by
    /// rules, or to sign with.
    pub fn keyed(name: &str, display_name: &str, credential: Credential) -> Self {
        Self {
            credentials: vec![credential],
            refresh: Refresh {
                kind: RefreshKind::None,
                ..Refresh::default()
            },
            ..Self::blank(name, display_name)
        }
    }

    fn blank(name: &str, display_name: &str) -> Self {
        Self {
            name: name.into(),
            display_name: display_name.into(),
            version: String::new(),
            category: String::new(),
            documentation_url: String::new(),
            wants: Wants::empty(),
            arguments_of: Vec::new(),
            hooks: Hooks::empty(),
            variables: Vec::new(),
            variants: Vec::new(),
            authorization_hosts: Vec::new(),
            audience_hosts: Vec::new(),
            authorization: None,
            token_endpoint: None,
            device_authorization_endpoint: None,
            token_requests: Vec::new(),
            token_answer: AnswerShape::rfc6749(),
            token_shapes: Vec::new(),
            metadata: Vec::new(),
            grant_difference: GrantDifference::Accept,
            scopes: Vec::new(),
            default_scopes: Vec::new(),
            refresh: Refresh::default(),
            revocation: Vec::new(),
            follow_ups: Vec::new(),
            identity: None,
            credentials: Vec::new(),
            constant_headers: Vec::new(),
            mcp_servers: Vec::new(),
            error_advice: Vec::new(),
        }
    }

    // ---- what it is ------------------------------------------------------

    /// A heading of the catalogue, such as `Code & Dev`.
    pub fn category(mut self, category: &str) -> Self {
        self.category = category.into();
        self
    }

    /// Where the provider documents its OAuth.
    pub fn documentation(mut self, url: &str) -> Self {
        self.documentation_url = url.into();
        self
    }

    /// Adds a variable.
    pub fn variable(mut self, variable: Variable) -> Self {
        self.variables.push(variable);
        self
    }

    /// Adds a generation of endpoints.
    pub fn variant(mut self, variant: VariantInfo) -> Self {
        self.variants.push(variant);
        self
    }

    // ---- endpoints -------------------------------------------------------

    /// The authorization endpoint.
    pub fn authorize(self, url: impl Text) -> Self {
        let url = url.into_template();
        self.authorization_request(|request| request.endpoint = url)
    }

    /// The token endpoint.
    pub fn token(mut self, url: impl Text) -> Self {
        self.token_endpoint = Some(url.into_template());
        self
    }

    /// The device authorization endpoint (RFC 8628).
    pub fn device(mut self, url: impl Text) -> Self {
        self.device_authorization_endpoint = Some(url.into_template());
        self
    }

    /// Hosts the tokens may be sent to.
    pub fn audience<T: Text>(mut self, hosts: impl IntoIterator<Item = T>) -> Self {
        self.audience_hosts = templates(hosts);
        self
    }

    /// Hosts of the host's own requests. Only needed for what the described
    /// URLs do not show: theirs are added.
    pub fn authorization_hosts<T: Text>(mut self, hosts: impl IntoIterator<Item = T>) -> Self {
        self.authorization_hosts = templates(hosts);
        self
    }

    // ---- authorization request -------------------------------------------

    /// Changes the authorization request.
    pub fn authorization_request(mut self, change: impl FnOnce(&mut AuthorizationRequest)) -> Self {
        change(
            self.authorization
                .get_or_insert_with(AuthorizationRequest::rfc6749),
        );
        self
    }

    /// Adds a parameter.
    pub fn authorize_parameter(self, name: &str, value: impl Text) -> Self {
        self.authorization_request(|request| request.parameters.push(parameter(name, value)))
    }

    /// Adds a parameter for when scopes are asked on top of granted ones.
    pub fn incremental_parameter(self, name: &str, value: impl Text) -> Self {
        self.authorization_request(|request| {
            request.incremental_parameters.push(parameter(name, value));
        })
    }

    /// What the provider makes of PKCE. `Supported` unless said.
    pub fn pkce(self, pkce: Pkce) -> Self {
        self.authorization_request(|request| request.pkce = pkce)
    }

    /// How long-lived access is asked for.
    pub fn offline(self, offline: Offline) -> Self {
        self.authorization_request(|request| request.offline = offline)
    }

    /// What stands between scopes in the request. A space unless said.
    pub fn scope_separator(self, separator: &str) -> Self {
        self.authorization_request(|request| {
            for parameter in &mut request.scope_parameters {
                parameter.separator = separator.into();
            }
        })
    }

    /// Replaces the scope parameters, given as name, separator and credential.
    pub fn scope_parameters<'a>(
        self,
        list: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>,
    ) -> Self {
        self.authorization_request(|request| {
            request.scope_parameters = list
                .into_iter()
                .map(|(name, separator, credential)| {
                    scope_parameter(name, separator).credential(credential)
                })
                .collect();
        })
    }

    /// The provider knows no scope parameter.
    pub fn without_scopes(self) -> Self {
        self.authorization_request(|request| request.scope_parameters.clear())
    }

    // ---- scopes ----------------------------------------------------------

    /// Adds scopes: names, or [`Scope`]s.
    pub fn scopes<T: Into<Scope>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.scopes.extend(scopes.into_iter().map(Into::into));
        self
    }

    /// Asked for when nothing else is said.
    pub fn default_scopes<'a>(mut self, scopes: impl IntoIterator<Item = &'a str>) -> Self {
        self.default_scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// What to do when other scopes are granted than asked.
    pub fn grant_difference(mut self, what: GrantDifference) -> Self {
        self.grant_difference = what;
        self
    }

    // ---- tokens ----------------------------------------------------------

    /// Adds a token request that differs from the RFC.
    pub fn token_request(mut self, request: TokenRequest) -> Self {
        self.token_requests.push(request);
        self
    }

    /// How a token answer says that it worked.
    pub fn token_answer(mut self, answer: AnswerShape) -> Self {
        self.token_answer = answer;
        self
    }

    /// Where the tokens stand.
    pub fn token_shapes(mut self, shapes: impl IntoIterator<Item = TokenShape>) -> Self {
        self.token_shapes = shapes.into_iter().collect();
        self
    }

    /// Adds something to remember of the token answer.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata.push(metadata);
        self
    }

    /// Changes how tokens are refreshed.
    pub fn refresh(mut self, change: impl FnOnce(&mut Refresh)) -> Self {
        change(&mut self.refresh);
        self
    }

    /// Adds ways to revoke; the first that is possible is taken.
    pub fn revocation(mut self, ways: impl IntoIterator<Item = Revocation>) -> Self {
        self.revocation.extend(ways);
        self
    }

    /// Adds a request to make after sign-in.
    pub fn follow_up(mut self, follow_up: FollowUp) -> Self {
        self.follow_ups.push(follow_up);
        self
    }

    /// How the host learns whose account it is.
    pub fn identity(mut self, identity: IdentityRequest) -> Self {
        self.identity = Some(identity);
        self
    }

    // ---- calls -----------------------------------------------------------

    /// The credentials and how they are sent, the usual one first.
    pub fn credentials(mut self, credentials: impl IntoIterator<Item = Credential>) -> Self {
        self.credentials = credentials.into_iter().collect();
        self
    }

    /// Adds a header to every upstream request.
    pub fn constant_header(mut self, name: &str, value: impl Text) -> Self {
        self.constant_headers.push(header(name, value));
        self
    }

    /// Adds a vendor's MCP server.
    pub fn mcp_server(mut self, server: McpServer) -> Self {
        self.mcp_servers.push(server);
        self
    }

    /// Adds words for one of the provider's error codes.
    pub fn advise(mut self, code: &str, advice: &str) -> Self {
        self.error_advice.push(ErrorAdvice {
            code: code.into(),
            advice: advice.into(),
        });
        self
    }

    /// `evaluate` wants the arguments of these tools; of none named, of all.
    pub fn wants_arguments_of<'a>(mut self, tools: impl IntoIterator<Item = &'a str>) -> Self {
        self.wants |= Wants::ARGUMENTS;
        self.arguments_of.extend(tools.into_iter().map(Into::into));
        self
    }

    /// `evaluate` wants these as well.
    pub fn wants(mut self, wants: Wants) -> Self {
        self.wants |= wants;
        self
    }

    /// Adds what the SDK can tell by itself.
    pub(crate) fn complete(mut self, version: &str, hooks: Hooks) -> Self {
        if self.version.is_empty() {
            self.version = version.into();
        }
        if self.hooks.is_empty() {
            self.hooks = hooks;
        }
        let identity = self.identity.as_ref().map(|identity| &identity.request.url);
        let urls = self
            .authorization
            .as_ref()
            .map(|request| &request.endpoint)
            .into_iter()
            .chain(&self.token_endpoint)
            .chain(&self.device_authorization_endpoint)
            .chain(
                self.token_requests
                    .iter()
                    .filter_map(|request| request.endpoint.as_ref()),
            )
            .chain(
                self.revocation
                    .iter()
                    .map(|revocation| &revocation.request.url),
            )
            .chain(
                self.follow_ups
                    .iter()
                    .map(|follow_up| &follow_up.request.url),
            )
            .chain(identity);
        let mut hosts = self.authorization_hosts.clone();
        for host in urls.filter_map(host_of) {
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        self.authorization_hosts = hosts;
        self
    }
}

impl Default for Refresh {
    /// A refresh token that may be replaced at any time.
    fn default() -> Self {
        Self {
            kind: RefreshKind::RefreshToken,
            rotation: Rotation::Sometimes,
            grace_seconds: 0,
            retry_after_lost_answer: false,
            ends_access_token: false,
            idle_days: None,
            margin_percent: 10,
            permanent_errors: Vec::new(),
            transient_errors: Vec::new(),
        }
    }
}

impl Offline {
    /// Parameters that ask for it.
    pub fn by_parameters<'a>(list: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::Parameters(
            list.into_iter()
                .map(|(n, v)| parameter(n, template(v)))
                .collect(),
        )
    }
}
