//! Templates by where they stand: which slots, which headers, which hosts.

use countersign_core::inject::is_forbidden_header;
use countersign_core::preset::{
    AuthorizationRequest, Body, ClientAuthentication, Description, Grant, Header, Offline,
    Parameter, Part, Request, Rule, Template, TokenRequest,
};

use countersign_core::signing::AWS_SIGNATURE_HEADERS;

use super::places::{
    ACCOUNT, ACCOUNT_URL, AUTHORIZATION_OWN, Allowed, NEVER_SUPPRESSED, NONE, PUBLIC, Place,
    REFRESH_REQUEST, REVOCATION, REVOCATION_URL, TOKEN_OWN, TOKEN_REQUEST, UPSTREAM, allow,
    carries_client_secret, is_forbidden_at_provider, is_host_pattern,
};
use super::{CheckError, at, cut, header_uses};
use crate::symbols::{SymbolError, Symbols, covers, host_of};

/// Checks every template.
pub(super) fn check(d: &Description, symbols: &Symbols<'_>) -> Result<(), CheckError> {
    let this = Checker { symbols, d };
    let authorization = this.hosts("authorization-hosts", &d.authorization_hosts)?;
    let audience = this.hosts("audience-hosts", &d.audience_hosts)?;
    let both: Vec<String> = authorization.iter().chain(&audience).cloned().collect();

    this.upstream()?;
    if let Some(request) = &d.authorization {
        this.authorization(request, &authorization)?;
    }
    for (name, endpoint) in [
        ("token-endpoint", &d.token_endpoint),
        (
            "device-authorization-endpoint",
            &d.device_authorization_endpoint,
        ),
    ] {
        if let Some(url) = endpoint {
            this.url(Place { name, slots: NONE }, url, &authorization)?;
        }
    }
    for request in &d.token_requests {
        this.token_request(request, &authorization)?;
    }
    for revocation in &d.revocation {
        this.request(
            "revocation",
            &revocation.request,
            (REVOCATION_URL, REVOCATION),
            &authorization,
            &both,
        )?;
    }
    for follow_up in &d.follow_ups {
        this.request(
            "follow-ups",
            &follow_up.request,
            (ACCOUNT_URL, ACCOUNT),
            &authorization,
            &both,
        )?;
    }
    if let Some(identity) = &d.identity {
        this.request(
            "identity",
            &identity.request,
            (ACCOUNT_URL, ACCOUNT),
            &authorization,
            &both,
        )?;
    }
    for server in &d.mcp_servers {
        this.url(
            Place {
                name: "mcp-servers",
                slots: NONE,
            },
            &server.url,
            &[],
        )?;
    }
    Ok(())
}

struct Checker<'a> {
    symbols: &'a Symbols<'a>,
    d: &'a Description,
}

impl Checker<'_> {
    /// Host templates, as patterns.
    fn hosts(&self, name: &str, templates: &[Template]) -> Result<Vec<String>, CheckError> {
        let mut hosts = Vec::new();
        for template in templates {
            self.template(Place { name, slots: NONE }, template)?;
            for host in self.symbols.hosts(template).map_err(|e| at(name, e))? {
                if !is_host_pattern(&host) {
                    return Err(CheckError::Host {
                        place: name.to_owned(),
                        host: cut(&host),
                    });
                }
                hosts.push(host);
            }
        }
        Ok(hosts)
    }

    fn upstream(&self) -> Result<(), CheckError> {
        for credential in &self.d.credentials {
            self.hosts("credentials.hosts", &credential.hosts)?;
            for rule in &credential.rules {
                self.rule("credentials.rules", rule, UPSTREAM, is_forbidden_header)?;
            }
            if let Some(sigv4) = &credential.sigv4 {
                let names = header_uses(credential.rules.iter());
                if let Some((name, ..)) = names.iter().find(|(name, is_header, slots)| {
                    *is_header
                        && (AWS_SIGNATURE_HEADERS.contains(&name.to_ascii_lowercase().as_str())
                            || !slots.is_empty())
                }) {
                    return Err(CheckError::Header {
                        place: "credentials.rules (the credential is signed by sigv4)".into(),
                        name: cut(name),
                    });
                }
                self.template(
                    Place {
                        name: "credentials.sigv4",
                        slots: NONE,
                    },
                    &sigv4.service,
                )?;
                self.template(
                    Place {
                        name: "credentials.sigv4",
                        slots: NONE,
                    },
                    &sigv4.region,
                )?;
            }
        }
        for header in &self.d.constant_headers {
            // Left out where the host writes the header itself.
            self.header(
                Place {
                    name: "constant-headers",
                    slots: NONE,
                },
                header,
                is_forbidden_at_provider,
            )?;
        }
        Ok(())
    }

    fn authorization(
        &self,
        request: &AuthorizationRequest,
        hosts: &[String],
    ) -> Result<(), CheckError> {
        if !request.endpoint.is_empty() {
            self.url(
                Place {
                    name: "authorization.endpoint",
                    slots: NONE,
                },
                &request.endpoint,
                hosts,
            )?;
        }
        let offline: &[Parameter] = match &request.offline {
            Offline::Parameters(parameters) => parameters,
            Offline::None | Offline::Scope(_) | Offline::AppSetting(_) => &[],
        };
        let place = Place {
            name: "authorization.parameters",
            slots: PUBLIC,
        };
        for parameter in request
            .parameters
            .iter()
            .chain(&request.incremental_parameters)
            .chain(offline)
        {
            let is_scope = request
                .scope_parameters
                .iter()
                .any(|s| s.name == parameter.name);
            self.parameter(place, parameter, &AUTHORIZATION_OWN)?;
            if is_scope || parameter.name == "scope" {
                return Err(own(place.name, &parameter.name));
            }
        }
        for scopes in &request.scope_parameters {
            if AUTHORIZATION_OWN.contains(&scopes.name.as_str()) {
                return Err(own("authorization.scope-parameters", &scopes.name));
            }
        }
        match request
            .suppress
            .iter()
            .find(|s| NEVER_SUPPRESSED.contains(&s.as_str()))
        {
            Some(name) => Err(own("authorization.suppress", name)),
            None => Ok(()),
        }
    }

    fn token_request(&self, request: &TokenRequest, hosts: &[String]) -> Result<(), CheckError> {
        let slots = if request.grant == Grant::RefreshToken {
            REFRESH_REQUEST
        } else {
            TOKEN_REQUEST
        };
        let place = Place {
            name: "token-requests",
            slots,
        };
        if let Some(endpoint) = request.endpoint.as_ref().filter(|e| !e.is_empty()) {
            self.url(
                Place {
                    name: "token-requests.endpoint",
                    slots: NONE,
                },
                endpoint,
                hosts,
            )?;
        }
        for header in &request.headers {
            self.header(place, header, is_forbidden_at_provider)?;
        }
        for parameter in &request.parameters {
            self.parameter(place, parameter, &TOKEN_OWN)?;
        }
        for method in &request.client_authentication {
            self.client_authentication(method)?;
        }
        match request
            .suppress
            .iter()
            .find(|s| s.as_str() == "code_verifier")
        {
            Some(name) => Err(own("token-requests.suppress", name)),
            None => Ok(()),
        }
    }

    fn client_authentication(&self, method: &ClientAuthentication) -> Result<(), CheckError> {
        if let ClientAuthentication::Custom(rules) = method {
            for rule in rules {
                self.rule(
                    "client-authentication",
                    rule,
                    TOKEN_REQUEST,
                    is_forbidden_at_provider,
                )?;
            }
        }
        Ok(())
    }

    fn request(
        &self,
        name: &str,
        request: &Request,
        (url_slots, slots): (&[Allowed], &[Allowed]),
        authorization: &[String],
        both: &[String],
    ) -> Result<(), CheckError> {
        if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&request.method.as_str()) {
            return Err(CheckError::Method {
                place: name.to_owned(),
                method: cut(&request.method),
            });
        }
        let place = Place { name, slots };
        for header in &request.headers {
            self.header(place, header, is_forbidden_at_provider)?;
        }
        let parameters: &[Parameter] = match &request.body {
            Body::None => &[],
            Body::Form(parameters) | Body::Json(parameters) => parameters,
        };
        for parameter in parameters {
            self.parameter(place, parameter, &[])?;
        }
        if let Some(method) = &request.client_authentication {
            self.client_authentication(method)?;
        }
        if request.url.is_empty() {
            return Ok(());
        }
        // The client's own secret goes to authorization hosts only.
        let hosts = if carries_client_secret(request) {
            authorization
        } else {
            both
        };
        self.url(
            Place {
                name,
                slots: url_slots,
            },
            &request.url,
            hosts,
        )
    }

    /// An address; `hosts` empty means any (the provider record's endpoints
    /// and hosts decide).
    fn url(
        &self,
        place: Place<'_>,
        template: &Template,
        hosts: &[String],
    ) -> Result<(), CheckError> {
        self.template(place, template)?;
        for url in self.symbols.urls(template).map_err(|e| at(place.name, e))? {
            let bad = || CheckError::Url {
                place: place.name.to_owned(),
                url: cut(&url),
            };
            let host = host_of(&url).ok_or_else(bad)?.to_ascii_lowercase();
            if !is_host_pattern(&host) || url.contains('#') || url.contains(char::is_whitespace) {
                return Err(bad());
            }
            if !hosts.is_empty() && !hosts.iter().any(|pattern| covers(pattern, &host)) {
                return Err(CheckError::OffHost {
                    place: place.name.to_owned(),
                    host,
                });
            }
        }
        Ok(())
    }

    fn rule(
        &self,
        name: &str,
        rule: &Rule,
        slots: &[Allowed],
        forbidden: fn(&str) -> bool,
    ) -> Result<(), CheckError> {
        match rule {
            Rule::SetHeader(header) => self.header(Place { name, slots }, header, forbidden),
            Rule::SetQuery(parameter) => {
                self.parameter(Place { name, slots: NONE }, parameter, &[])
            }
        }
    }

    fn header(
        &self,
        place: Place<'_>,
        header: &Header,
        forbidden: fn(&str) -> bool,
    ) -> Result<(), CheckError> {
        if http::HeaderName::from_bytes(header.name.as_bytes()).is_err() || forbidden(&header.name)
        {
            return Err(CheckError::Header {
                place: place.name.to_owned(),
                name: cut(&header.name),
            });
        }
        self.template(place, &header.value)
    }

    fn parameter(
        &self,
        place: Place<'_>,
        parameter: &Parameter,
        own_names: &[&str],
    ) -> Result<(), CheckError> {
        if parameter.name.is_empty() || parameter.name.len() > super::LONGEST_NAME {
            return Err(CheckError::BadName {
                place: place.name.to_owned(),
                name: cut(&parameter.name),
            });
        }
        if own_names.contains(&parameter.name.as_str()) {
            return Err(own(place.name, &parameter.name));
        }
        self.template(place, &parameter.value)
    }

    fn template(&self, place: Place<'_>, template: &Template) -> Result<(), CheckError> {
        for part in template {
            match part {
                Part::Literal(_) => {}
                Part::Variable(name) => {
                    if !self.d.variables.iter().any(|v| v.name == *name) && !self.is_set(name) {
                        return Err(at(place.name, SymbolError::Unknown(cut(name))));
                    }
                }
                Part::Slot(slot) => allow(place, slot)?,
                Part::Basic(basic) => {
                    allow(place, &basic.user)?;
                    if let Some(password) = &basic.password {
                        allow(place, password)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the choice of an enumeration sets this variable.
    fn is_set(&self, name: &str) -> bool {
        use countersign_core::preset::ValueKind;
        self.d.variables.iter().any(|v| match &v.kind {
            ValueKind::Enumeration(choices) => choices
                .iter()
                .any(|c| c.sets.iter().any(|(n, _)| n == name)),
            _ => false,
        })
    }
}

fn own(place: &str, name: &str) -> CheckError {
    CheckError::Parameter {
        place: place.to_owned(),
        name: cut(name),
    }
}
