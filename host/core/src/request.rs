//! Requests that Countersign makes to a provider on its own account: token,
//! revocation and identity requests.
//!
//! Their secrets (client secret, code, verifier, refresh token) are filled in
//! here; what comes out is an [`Outgoing`], which only a [`Sender`] consumes.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::Url;
use zeroize::Zeroizing;

use crate::hosts::HostPattern;
use crate::ports::BoxFuture;
use crate::preset::{
    Body, BodyFormat, ClientAuthentication, Description, Grant, Header, Parameter, Part, Request, Rule,
    Slot, TokenRequest,
};
use crate::provider::{Provider, TokenAuthMethod};
use crate::scope::ScopeSet;
use crate::secret::{Sealed, Secret};
use crate::template::{
    Encoding, Slots, TemplateError, Values, Variables, basic_credentials, concat, endpoint, fill, is_usable,
    render_text,
};
use crate::token_answer::Answer;
use crate::tokens::{CredentialTokens, TokenSet};

/// Why a request to the provider could not be made. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Neither the provider record nor the preset says where.
    #[error("the provider has no {0}: set it with `provider update`")]
    NoEndpoint(&'static str),
    /// The address is on none of the hosts that may be asked.
    #[error("the preset sends a request to {0}, which is not among its authorization hosts")]
    OffHost(String),
    /// A template could not be filled.
    #[error("{0}")]
    Template(#[from] TemplateError),
    /// A header name or value is not allowed.
    #[error("the preset sets the header {0:?}, which is not allowed here")]
    BadHeader(String),
    /// The provider record asks for something this version cannot do.
    #[error("{0} is not supported in this version")]
    Unsupported(&'static str),
    /// A stored secret cannot be opened.
    #[error("a stored secret cannot be opened; the account must be connected again")]
    Unreadable,
}

/// Why no answer came. Never holds anything the provider sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The address may not be called.
    #[error("the address is not allowed: {0}")]
    Refused(String),
    /// No connection could be made; the request was not sent.
    #[error("it cannot be reached")]
    Unreachable,
    /// It took too long.
    #[error("it did not answer in time")]
    Timeout,
    /// The connection ended before the answer did.
    #[error("its answer broke off")]
    Dropped,
    /// The answer is larger than is read.
    #[error("its answer is too large")]
    TooLarge,
}

impl SendError {
    /// Whether the provider may have acted on the request.
    #[must_use]
    pub fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Timeout | Self::Dropped | Self::TooLarge)
    }
}

/// Sends requests to providers: guarded, without redirects, with a cap on the
/// answer. The only consumer of [`Outgoing`].
pub trait Sender: Send + Sync {
    /// Sends it once and reads the answer.
    fn send(&self, request: Outgoing, timeout: Duration) -> BoxFuture<'_, Result<Answer, SendError>>;
}

/// A request with its secrets filled in. It has no `Debug`.
pub struct Outgoing {
    method: http::Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
}

/// An [`Outgoing`] taken apart, for a [`Sender`] and for nobody else: the URL
/// and the body may hold secrets.
pub struct OutgoingParts {
    /// The method.
    pub method: http::Method,
    /// May hold a secret: never log it.
    pub url: Url,
    /// Those that carry secrets are marked sensitive.
    pub headers: HeaderMap,
    /// Zeroized when the last reference is dropped.
    pub body: Option<Bytes>,
}

impl Outgoing {
    /// Takes it apart, to send it.
    #[must_use]
    pub fn into_parts(self) -> OutgoingParts {
        OutgoingParts { method: self.method, url: self.url, headers: self.headers, body: self.body }
    }

    /// Where it goes, without path and query.
    #[must_use]
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// What every request to a provider is made from.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// The provider record.
    pub provider: &'a Provider,
    /// What its preset says.
    pub description: &'a Description,
    /// Its variables.
    pub values: &'a Values,
    /// The client secret, if there is one.
    pub client_secret: Option<&'a Sealed>,
}

/// What is exchanged for tokens.
pub enum Exchange<'a> {
    /// RFC 6749 §4.1.3, with RFC 7636.
    Code {
        /// From the callback.
        code: &'a Secret,
        /// The PKCE verifier, if one was sent.
        verifier: Option<&'a Sealed>,
        /// As in the authorization request.
        redirect_uri: &'a str,
        /// RFC 8707, if one was asked for.
        resource: Option<&'a Url>,
    },
    /// RFC 6749 §6.
    Refresh {
        /// The connection's tokens.
        tokens: &'a Sealed,
        /// Which credential's.
        credential: &'a str,
        /// RFC 8707, if one was asked for.
        resource: Option<&'a Url>,
    },
}

/// A connection's tokens, open (just obtained) or as the vault keeps them.
#[derive(Clone, Copy)]
pub enum TokensRef<'a> {
    /// Just obtained.
    Open(&'a TokenSet),
    /// From the vault.
    Sealed(&'a Sealed),
}

/// The scopes of one scope parameter of the authorization request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopesOfParameter {
    /// The parameter's name.
    pub name: String,
    /// What it is joined with.
    pub separator: String,
    /// The credential it is for.
    pub credential: Option<String>,
    /// Sent although empty.
    pub send_empty: bool,
    /// What to ask for.
    pub scopes: ScopeSet,
}

/// Sorts scopes into the parameters that carry them; what is not described
/// goes into the first. Empty if the provider takes no scopes.
#[must_use]
pub fn scope_parameters(description: &Description, scopes: &ScopeSet) -> Vec<ScopesOfParameter> {
    let described = description.authorization.as_ref().map_or(&[][..], |a| &a.scope_parameters);
    let parameter_of = |scope: &str| {
        let known = description.scopes.iter().find(|s| {
            if s.prefix { scope.starts_with(&s.name) } else { s.name == scope }
        });
        let name = known.and_then(|s| s.parameter.as_deref());
        described.iter().position(|p| Some(p.name.as_str()) == name).unwrap_or(0)
    };
    let mut sorted: Vec<ScopesOfParameter> = described
        .iter()
        .map(|p| ScopesOfParameter {
            name: p.name.clone(),
            separator: p.separator.clone(),
            credential: p.credential.clone(),
            send_empty: p.send_empty,
            scopes: ScopeSet::default(),
        })
        .collect();
    for scope in scopes.iter() {
        if let Some(parameter) = sorted.get_mut(parameter_of(scope.as_str())) {
            parameter.scopes.insert(scope.clone());
        }
    }
    sorted
}

impl<'a> Asking<'a> {
    fn variables(&self) -> Variables<'a> {
        self.values.variables()
    }

    /// The authorization endpoint: the record's, else the preset's.
    ///
    /// # Errors
    /// [`RequestError::NoEndpoint`], [`RequestError::OffHost`] or a template's.
    pub fn authorization_endpoint(&self) -> Result<Url, RequestError> {
        let described = self.description.authorization.as_ref().map(|a| a.endpoint.as_slice());
        self.pick(self.provider.authorization_endpoint.as_ref(), described, "authorization endpoint")
    }

    /// The token endpoint for a grant: the record's, else the preset's.
    ///
    /// # Errors
    /// As [`Self::authorization_endpoint`].
    pub fn token_endpoint(&self, grant: &Grant) -> Result<Url, RequestError> {
        let own = self.described(grant).and_then(|t| t.endpoint.as_deref());
        let described = own.or(self.description.token_endpoint.as_deref());
        self.pick(self.provider.token_endpoint.as_ref(), described, "token endpoint")
    }

    /// The first revocation's address without its secrets, if there is one.
    #[must_use]
    pub fn revocation_origin(&self) -> Option<String> {
        if let Some(url) = &self.provider.revocation_endpoint {
            return Some(url.origin().ascii_serialization());
        }
        let template = &self.description.revocation.first()?.request.url;
        let prefix: Vec<Part> =
            template.iter().take_while(|p| !matches!(p, Part::Slot(_) | Part::Basic(_))).cloned().collect();
        let text = render_text(&prefix, self.variables()).ok()?;
        Url::parse(&text).ok().map(|u| u.origin().ascii_serialization())
    }

    fn pick(
        &self,
        record: Option<&Url>,
        described: Option<&[Part]>,
        what: &'static str,
    ) -> Result<Url, RequestError> {
        if let Some(url) = record {
            return if is_usable(url) {
                Ok(url.clone())
            } else {
                Err(TemplateError::BadUrl(url.origin().ascii_serialization()).into())
            };
        }
        let template = described.filter(|t| !t.is_empty()).ok_or(RequestError::NoEndpoint(what))?;
        let url = endpoint(template, self.variables())?;
        self.check_host(&url, false)?;
        Ok(url)
    }

    /// Whether the preset may send a request there.
    fn check_host(&self, url: &Url, audience_too: bool) -> Result<(), RequestError> {
        let variables = self.variables();
        let matches = |templates: &[Vec<Part>]| {
            templates
                .iter()
                .filter_map(|t| render_text(t, variables).ok())
                .filter_map(|text| HostPattern::parse(&text).ok())
                .any(|pattern| pattern.matches(url))
        };
        let record = [
            &self.provider.authorization_endpoint,
            &self.provider.token_endpoint,
            &self.provider.revocation_endpoint,
        ];
        let good = matches(&self.description.authorization_hosts)
            || record.into_iter().flatten().any(|u| u.origin() == url.origin())
            || (audience_too && self.audience().iter().any(|p| p.matches(url)));
        if good { Ok(()) } else { Err(RequestError::OffHost(url.origin().ascii_serialization())) }
    }

    /// Hosts the provider's tokens may go to: the record's, else the preset's.
    #[must_use]
    pub fn audience(&self) -> Vec<HostPattern> {
        if !self.provider.audience_hosts.is_empty() {
            return self.provider.audience_hosts.clone();
        }
        let templates = self.description.audience_hosts.iter();
        templates
            .filter_map(|t| render_text(t, self.variables()).ok())
            .filter_map(|text| HostPattern::parse(&text).ok())
            .collect()
    }

    fn described(&self, grant: &Grant) -> Option<&'a TokenRequest> {
        self.description.token_requests.iter().find(|t| t.grant == *grant)
    }

    fn open_secret(&self) -> Result<Option<Secret>, RequestError> {
        self.client_secret.map(|s| s.open().map_err(|_| RequestError::Unreadable)).transpose()
    }
}

/// The secrets a request may draw from.
struct Fillings<'a> {
    client_id: &'a str,
    client_secret: Option<&'a Secret>,
    tokens: Option<&'a CredentialTokens>,
    with_access_token: bool,
}

impl Slots for Fillings<'_> {
    fn bytes(&self, slot: &Slot) -> Option<&[u8]> {
        match slot {
            Slot::ClientId => Some(self.client_id.as_bytes()),
            Slot::ClientSecret => self.client_secret.map(Secret::expose),
            Slot::RefreshToken => self.tokens?.refresh_token.as_ref().map(Secret::expose),
            Slot::IdToken => self.tokens?.id_token.as_ref().map(Secret::expose),
            Slot::AccessToken if self.with_access_token => Some(self.tokens?.access_token.expose()),
            Slot::AccessToken | Slot::ApiKey | Slot::Extra(_) => None,
        }
    }
}

/// Makes the request that exchanges a code or a refresh token for tokens.
///
/// # Errors
/// [`RequestError`]; nothing was sent.
pub fn token_request(asking: &Asking<'_>, exchange: &Exchange<'_>) -> Result<Outgoing, RequestError> {
    let grant = match exchange {
        Exchange::Code { .. } => Grant::AuthorizationCode,
        Exchange::Refresh { .. } => Grant::RefreshToken,
    };
    let described = asking.described(&grant);
    let url = asking.token_endpoint(&grant)?;
    let secret = asking.open_secret()?;
    let opened = match exchange {
        Exchange::Refresh { tokens, .. } => {
            Some(TokenSet::open(tokens).map_err(|_| RequestError::Unreadable)?)
        }
        Exchange::Code { .. } => None,
    };
    let tokens = match exchange {
        Exchange::Refresh { credential, .. } => {
            opened.as_ref().and_then(|set| set.credential(Some(credential)))
        }
        Exchange::Code { .. } => None,
    };
    let fillings = Fillings {
        client_id: &asking.provider.client_id,
        client_secret: secret.as_ref(),
        tokens,
        with_access_token: false,
    };
    let mut form = Form::default();
    match exchange {
        Exchange::Code { code, verifier, redirect_uri, resource } => {
            form.add("grant_type", b"authorization_code");
            form.add("code", code.expose());
            if described.is_none_or(|d| d.redirect_uri != crate::preset::RedirectUriUse::Never) {
                form.add("redirect_uri", redirect_uri.as_bytes());
            }
            if let Some(verifier) = verifier {
                let verifier = verifier.open().map_err(|_| RequestError::Unreadable)?;
                form.add("code_verifier", verifier.expose());
            }
            form.add_resource(*resource);
        }
        Exchange::Refresh { resource, .. } => {
            let token = tokens.and_then(|t| t.refresh_token.as_ref());
            form.add("grant_type", b"refresh_token");
            form.add("refresh_token", token.ok_or(TemplateError::NoSecret("refresh token"))?.expose());
            form.add_resource(*resource);
        }
    }
    let mut headers = plain_headers();
    authenticate(asking, described, &fillings, &mut headers, &mut form)?;
    if let Some(described) = described {
        form.0.retain(|(name, _)| !described.suppress.contains(name));
        form.add_all(&described.parameters, asking.variables(), &fillings)?;
        set_headers(&mut headers, &described.headers, asking.variables(), &fillings)?;
    }
    let body = form.encode(described.map_or(BodyFormat::Form, |d| d.body.clone()), &mut headers)?;
    Ok(Outgoing { method: http::Method::POST, url, headers, body: Some(body) })
}

/// Makes a request that a preset describes: revocation, identity, follow-up.
/// `fallback` is the address if the template has none.
///
/// # Errors
/// [`RequestError`]; nothing was sent.
pub fn described_request(
    asking: &Asking<'_>,
    request: &Request,
    tokens: TokensRef<'_>,
    credential: Option<&str>,
    fallback: Option<&Url>,
) -> Result<Outgoing, RequestError> {
    let secret = asking.open_secret()?;
    let opened;
    let set = match tokens {
        TokensRef::Open(set) => set,
        TokensRef::Sealed(sealed) => {
            opened = TokenSet::open(sealed).map_err(|_| RequestError::Unreadable)?;
            &opened
        }
    };
    let fillings = Fillings {
        client_id: &asking.provider.client_id,
        client_secret: secret.as_ref(),
        tokens: set.credential(credential),
        with_access_token: true,
    };
    let url = if request.url.is_empty() {
        fallback.cloned().filter(is_usable).ok_or(RequestError::NoEndpoint("revocation endpoint"))?
    } else {
        let text = fill(&request.url, asking.variables(), &fillings, Encoding::UrlSlots)?;
        let bad = || TemplateError::BadUrl("the address of a request of the preset".into());
        let url = text.expose_text().and_then(|t| Url::parse(t).ok()).filter(is_usable).ok_or_else(bad)?;
        // The client secret stays with the authorization hosts.
        asking.check_host(&url, !uses_client_secret(request))?;
        url
    };
    let method = http::Method::from_bytes(request.method.to_ascii_uppercase().as_bytes())
        .map_err(|_| RequestError::BadHeader(request.method.clone()))?;
    let mut headers = plain_headers();
    let mut form = Form::default();
    if let Some(authentication) = &request.client_authentication {
        apply(authentication, asking, &fillings, &mut headers, &mut form)?;
    }
    set_headers(&mut headers, &request.headers, asking.variables(), &fillings)?;
    let format = match &request.body {
        Body::None => (!form.0.is_empty()).then_some(BodyFormat::Form),
        Body::Form(parameters) => {
            form.add_all(parameters, asking.variables(), &fillings)?;
            Some(BodyFormat::Form)
        }
        Body::Json(parameters) => {
            form.add_all(parameters, asking.variables(), &fillings)?;
            Some(BodyFormat::Json)
        }
    };
    let body = format.map(|format| form.encode(format, &mut headers)).transpose()?;
    Ok(Outgoing { method, url, headers, body })
}

/// Makes the RFC 7009 §2.1 request to the provider record's endpoint: the
/// refresh token if there is one, else the access token.
///
/// # Errors
/// [`RequestError`]; nothing was sent.
pub fn revocation_request(
    asking: &Asking<'_>,
    tokens: &Sealed,
    credential: &str,
) -> Result<Outgoing, RequestError> {
    let url = asking.provider.revocation_endpoint.clone();
    let url = url.filter(is_usable).ok_or(RequestError::NoEndpoint("revocation endpoint"))?;
    let secret = asking.open_secret()?;
    let set = TokenSet::open(tokens).map_err(|_| RequestError::Unreadable)?;
    let held = set.credential(Some(credential)).ok_or(TemplateError::NoSecret("access token"))?;
    let fillings = Fillings {
        client_id: &asking.provider.client_id,
        client_secret: secret.as_ref(),
        tokens: Some(held),
        with_access_token: false,
    };
    let mut form = Form::default();
    let (token, hint) = match &held.refresh_token {
        Some(token) => (token, "refresh_token"),
        None => (&held.access_token, "access_token"),
    };
    form.add("token", token.expose());
    form.add("token_type_hint", hint.as_bytes());
    let mut headers = plain_headers();
    authenticate(asking, asking.described(&Grant::RefreshToken), &fillings, &mut headers, &mut form)?;
    let body = form.encode(BodyFormat::Form, &mut headers)?;
    Ok(Outgoing { method: http::Method::POST, url, headers, body: Some(body) })
}

fn uses_client_secret(request: &Request) -> bool {
    let is_secret = |slot: &Slot| *slot == Slot::ClientSecret;
    let holds = |template: &[Part]| {
        template.iter().any(|part| match part {
            Part::Slot(slot) => is_secret(slot),
            Part::Basic(b) => is_secret(&b.user) || b.password.as_ref().is_some_and(is_secret),
            Part::Literal(_) | Part::Variable(_) => false,
        })
    };
    let body = match &request.body {
        Body::None => &[][..],
        Body::Form(parameters) | Body::Json(parameters) => parameters,
    };
    !matches!(request.client_authentication, None | Some(ClientAuthentication::None))
        || holds(&request.url)
        || request.headers.iter().any(|h| holds(&h.value))
        || body.iter().any(|p| holds(&p.value))
}

/// `Accept: application/json`: some providers answer with a form without it.
fn plain_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers
}

/// Picks the way the client proves who it is: the record's, else the first of
/// the preset's that there is a secret for, else Basic or nothing.
fn authenticate(
    asking: &Asking<'_>,
    described: Option<&TokenRequest>,
    fillings: &Fillings<'_>,
    headers: &mut HeaderMap,
    form: &mut Form,
) -> Result<(), RequestError> {
    let has_secret = fillings.client_secret.is_some();
    let method = match asking.provider.token_endpoint_auth_method {
        Some(TokenAuthMethod::ClientSecretBasic) => ClientAuthentication::ClientSecretBasic,
        Some(TokenAuthMethod::ClientSecretPost) => ClientAuthentication::ClientSecretPost,
        Some(TokenAuthMethod::PrivateKeyJwt) => ClientAuthentication::PrivateKeyJwt,
        Some(TokenAuthMethod::None) => ClientAuthentication::None,
        None => {
            let listed = described.map_or(&[][..], |d| &d.client_authentication);
            let works = |m: &&ClientAuthentication| {
                has_secret || matches!(m, ClientAuthentication::None)
            };
            let default = if has_secret {
                ClientAuthentication::ClientSecretBasic
            } else {
                ClientAuthentication::None
            };
            listed.iter().find(works).cloned().unwrap_or(default)
        }
    };
    apply(&method, asking, fillings, headers, form)
}

fn apply(
    method: &ClientAuthentication,
    asking: &Asking<'_>,
    fillings: &Fillings<'_>,
    headers: &mut HeaderMap,
    form: &mut Form,
) -> Result<(), RequestError> {
    let secret = || fillings.client_secret.ok_or(TemplateError::NoSecret("client secret"));
    match method {
        ClientAuthentication::ClientSecretBasic => {
            // RFC 6749 §2.3.1: both are form-encoded first.
            let id = form_encode(fillings.client_id.as_bytes());
            let value = basic_credentials(&id, &form_encode(secret()?.expose()));
            headers.insert(AUTHORIZATION, header_value(AUTHORIZATION.as_str(), &Secret::new(value))?);
        }
        ClientAuthentication::ClientSecretPost => {
            form.add("client_id", fillings.client_id.as_bytes());
            form.add("client_secret", secret()?.expose());
        }
        ClientAuthentication::None => form.add("client_id", fillings.client_id.as_bytes()),
        ClientAuthentication::PrivateKeyJwt => return Err(RequestError::Unsupported("private_key_jwt")),
        ClientAuthentication::Custom(rules) => {
            for rule in rules {
                match rule {
                    Rule::SetHeader(header) => {
                        set_headers(headers, std::slice::from_ref(header), asking.variables(), fillings)?;
                    }
                    Rule::SetQuery(parameter) => {
                        form.add_all(std::slice::from_ref(parameter), asking.variables(), fillings)?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn set_headers(
    headers: &mut HeaderMap,
    described: &[Header],
    variables: Variables<'_>,
    slots: &dyn Slots,
) -> Result<(), RequestError> {
    const OURS: [&str; 7] = [
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "transfer-encoding",
        "upgrade",
    ];
    for header in described {
        let bad = || RequestError::BadHeader(header.name.clone());
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| bad())?;
        if OURS.contains(&name.as_str()) || name.as_str().starts_with("proxy-") {
            return Err(bad());
        }
        let value = fill(&header.value, variables, slots, Encoding::Plain)?;
        headers.insert(name, header_value(&header.name, &value)?);
    }
    Ok(())
}

fn header_value(name: &str, value: &Secret) -> Result<HeaderValue, RequestError> {
    let bad = || RequestError::BadHeader(name.to_owned());
    if !value.expose().iter().all(|b| matches!(b, b'\t' | b' '..=b'~')) {
        return Err(bad());
    }
    let mut value = HeaderValue::from_bytes(value.expose()).map_err(|_| bad())?;
    value.set_sensitive(true);
    Ok(value)
}

/// One value of `application/x-www-form-urlencoded`, without a reallocation.
fn form_encode(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len() * 3));
    for piece in url::form_urlencoded::byte_serialize(bytes) {
        out.extend_from_slice(piece.as_bytes());
    }
    out
}

/// Parameters of a body, in order.
#[derive(Default)]
struct Form(Vec<(String, Secret)>);

impl Form {
    fn add(&mut self, name: &str, value: &[u8]) {
        self.0.retain(|(n, _)| n != name);
        self.0.push((name.to_owned(), Secret::new(value.to_vec())));
    }

    fn add_resource(&mut self, resource: Option<&Url>) {
        if let Some(resource) = resource {
            self.add("resource", resource.as_str().as_bytes());
        }
    }

    fn add_all(
        &mut self,
        parameters: &[Parameter],
        variables: Variables<'_>,
        slots: &dyn Slots,
    ) -> Result<(), RequestError> {
        for parameter in parameters {
            let value = fill(&parameter.value, variables, slots, Encoding::Plain)?;
            self.0.retain(|(n, _)| *n != parameter.name);
            self.0.push((parameter.name.clone(), value));
        }
        Ok(())
    }

    fn encode(self, format: BodyFormat, headers: &mut HeaderMap) -> Result<Bytes, RequestError> {
        let (content_type, body) = match format {
            BodyFormat::Form => ("application/x-www-form-urlencoded", self.encode_form()),
            BodyFormat::Json => ("application/json", self.encode_json()?),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(Bytes::from_owner(body.into_zeroizing()))
    }

    fn encode_form(&self) -> Secret {
        let mut pieces = Vec::with_capacity(self.0.len() * 4);
        for (i, (name, value)) in self.0.iter().enumerate() {
            if i > 0 {
                pieces.push(Zeroizing::new(b"&".to_vec()));
            }
            pieces.push(form_encode(name.as_bytes()));
            pieces.push(Zeroizing::new(b"=".to_vec()));
            pieces.push(form_encode(value.expose()));
        }
        concat(&pieces)
    }

    fn encode_json(&self) -> Result<Secret, RequestError> {
        let string = |text: &str| {
            let mut out = Zeroizing::new(Vec::with_capacity(text.len() * 6 + 2));
            serde_json::to_writer(&mut *out, text).map(|()| out).map_err(|_| RequestError::Unreadable)
        };
        let mut pieces = vec![Zeroizing::new(b"{".to_vec())];
        for (i, (name, value)) in self.0.iter().enumerate() {
            if i > 0 {
                pieces.push(Zeroizing::new(b",".to_vec()));
            }
            pieces.push(string(name)?);
            pieces.push(Zeroizing::new(b":".to_vec()));
            pieces.push(string(value.expose_text().ok_or(RequestError::Unreadable)?)?);
        }
        pieces.push(Zeroizing::new(b"}".to_vec()));
        Ok(concat(&pieces))
    }
}
