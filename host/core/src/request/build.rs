//! Building the requests: what is sent, and how the client proves itself.

use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use url::Url;

use super::wire::{Form, form_encode, header_value, set_headers};
use super::{
    Asking, Exchange, Outgoing, RequestError, Subject, Target, TokensRef, scope_parameters,
};
use crate::preset::{
    Body, BodyFormat, ClientAuthentication, Grant, Part, RedirectUriUse, Request, Rule, Slot,
    TokenRequest,
};
use crate::provider::TokenAuthMethod;
use crate::scope::ScopeSet;
use crate::secret::{Sealed, Secret};
use crate::template::{Encoding, Slots, TemplateError, basic_credentials, fill, is_usable};
use crate::tokens::{CredentialTokens, TokenSet};

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

/// Makes the request that exchanges something (a code, a refresh token, the
/// client's own word, an assertion) for tokens.
///
/// # Errors
/// [`RequestError`]; nothing was sent.
pub fn token_request(
    asking: &Asking<'_>,
    exchange: &Exchange<'_>,
) -> Result<Outgoing, RequestError> {
    let grant = exchange.grant();
    let described = asking.described(&grant);
    let url = asking.token_endpoint(&grant)?;
    let secret = asking.open_secret(&url)?;
    let opened = match exchange {
        Exchange::Refresh { tokens, .. } => {
            Some(TokenSet::open(tokens).map_err(|_| RequestError::Unreadable)?)
        }
        _ => None,
    };
    let tokens = match exchange {
        Exchange::Refresh { credential, .. } => opened
            .as_ref()
            .and_then(|set| set.credential(Some(credential))),
        _ => None,
    };
    let fillings = Fillings {
        client_id: &asking.provider.client_id,
        client_secret: secret.as_ref(),
        tokens,
        with_access_token: false,
    };
    let mut form = Form::default();
    add_grant(asking, exchange, &url, tokens, &mut form)?;
    finish(asking, described, url, &fillings, form)
}

/// Makes the device authorization request (RFC 8628 §3.1).
///
/// # Errors
/// [`RequestError`]; nothing was sent.
pub fn device_request(asking: &Asking<'_>, target: Target<'_>) -> Result<Outgoing, RequestError> {
    let url = asking.device_endpoint()?;
    let secret = asking.open_secret(&url)?;
    let fillings = Fillings {
        client_id: &asking.provider.client_id,
        client_secret: secret.as_ref(),
        tokens: None,
        with_access_token: false,
    };
    let mut form = Form::default();
    form.add("client_id", fillings.client_id.as_bytes());
    add_target(asking, &target, &mut form);
    finish(asking, None, url, &fillings, form)
}

/// What every grant sends of its own.
fn add_grant(
    asking: &Asking<'_>,
    exchange: &Exchange<'_>,
    url: &Url,
    tokens: Option<&CredentialTokens>,
    form: &mut Form,
) -> Result<(), RequestError> {
    let described = asking.described(&exchange.grant());
    match exchange {
        Exchange::Code {
            code,
            verifier,
            redirect_uri,
            resource,
        } => {
            form.add("grant_type", b"authorization_code");
            form.add("code", code.expose());
            if described.is_none_or(|d| d.redirect_uri != RedirectUriUse::Never) {
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
            form.add(
                "refresh_token",
                token
                    .ok_or(TemplateError::NoSecret("refresh token"))?
                    .expose(),
            );
            form.add_resource(*resource);
        }
        Exchange::ClientCredentials(target) => {
            form.add("grant_type", b"client_credentials");
            add_target(asking, target, form);
        }
        Exchange::TokenExchange { subject, target } => {
            form.add(
                "grant_type",
                b"urn:ietf:params:oauth:grant-type:token-exchange",
            );
            add_subject(subject, "subject_token", url, form)?;
            // RFC 8693 §3.
            form.add(
                "subject_token_type",
                match subject {
                    Subject::Host(_) => b"urn:ietf:params:oauth:token-type:jwt".as_slice(),
                    Subject::Caller(_) => b"urn:ietf:params:oauth:token-type:access_token",
                },
            );
            form.add(
                "requested_token_type",
                b"urn:ietf:params:oauth:token-type:access_token",
            );
            add_target(asking, target, form);
        }
        Exchange::JwtBearer { subject, target } => {
            form.add("grant_type", b"urn:ietf:params:oauth:grant-type:jwt-bearer");
            match subject {
                Some(subject) => add_subject(subject, "assertion", url, form)?,
                None => {
                    let token = asking.own_assertion(described, url, target)?;
                    form.add("assertion", token.expose());
                }
            }
            add_target(asking, target, form);
        }
        Exchange::DeviceCode {
            device_code,
            resource,
        } => {
            let code = device_code.open().map_err(|_| RequestError::Unreadable)?;
            form.add(
                "grant_type",
                b"urn:ietf:params:oauth:grant-type:device_code",
            );
            form.add("device_code", code.expose());
            form.add_resource(*resource);
        }
    }
    Ok(())
}

/// Who it is for: the host's word about him, or his own issuer's, which that
/// issuer alone is shown.
fn add_subject(
    subject: &Subject<'_>,
    name: &str,
    url: &Url,
    form: &mut Form,
) -> Result<(), RequestError> {
    match subject {
        Subject::Host(assertion) => form.add(name, assertion.token(url)?.expose()),
        Subject::Caller(own) if own.token_endpoint == *url => form.add(name, own.token.expose()),
        Subject::Caller(_) => {
            let there = url.origin().ascii_serialization();
            return Err(RequestError::ElsewhereThanIssuer(there));
        }
    }
    Ok(())
}

/// Scopes, resource and audience, as the provider takes them.
fn add_target(asking: &Asking<'_>, target: &Target<'_>, form: &mut Form) {
    for (name, value) in scope_texts(asking, target.scopes) {
        form.add(&name, value.as_bytes());
    }
    form.add_resource(target.resource);
    if let Some(audience) = target.audience {
        form.add("audience", audience.as_bytes());
    }
}

/// Scope parameters and their values; RFC 6749's one where the preset describes
/// no authorization request that would say otherwise.
pub(super) fn scope_texts(asking: &Asking<'_>, scopes: &ScopeSet) -> Vec<(String, String)> {
    if asking.description.authorization.is_none() {
        return (!scopes.is_empty())
            .then(|| ("scope".to_owned(), scopes.join(" ")))
            .into_iter()
            .collect();
    }
    scope_parameters(asking.description, scopes)
        .into_iter()
        .filter(|parameter| !parameter.scopes.is_empty())
        .map(|parameter| {
            let separator = match parameter.separator.as_str() {
                "" => " ",
                separator => separator,
            };
            (parameter.name, parameter.scopes.join(separator))
        })
        .collect()
}

/// The client's proof, what the preset adds and takes away, and the encoding.
fn finish(
    asking: &Asking<'_>,
    described: Option<&TokenRequest>,
    url: Url,
    fillings: &Fillings<'_>,
    mut form: Form,
) -> Result<Outgoing, RequestError> {
    let mut headers = plain_headers();
    authenticate(asking, described, fillings, &url, &mut headers, &mut form)?;
    if let Some(described) = described {
        form.0
            .retain(|(name, _)| !described.suppress.contains(name));
        form.add_all(&described.parameters, asking.variables(), fillings)?;
        set_headers(
            &mut headers,
            &described.headers,
            asking.variables(),
            fillings,
        )?;
    }
    let body = form.encode(
        described.map_or(BodyFormat::Form, |d| d.body.clone()),
        &mut headers,
    )?;
    Ok(Outgoing {
        method: http::Method::POST,
        url,
        headers,
        body: Some(body),
    })
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
    let opened;
    let set = match tokens {
        TokensRef::Open(set) => set,
        TokensRef::Sealed(sealed) => {
            opened = TokenSet::open(sealed).map_err(|_| RequestError::Unreadable)?;
            &opened
        }
    };
    let mut fillings = Fillings {
        client_id: &asking.provider.client_id,
        client_secret: None,
        tokens: set.credential(credential),
        with_access_token: true,
    };
    // RFC 7009 §2.1: the client proves who it is as it does for tokens.
    let as_for_tokens = request.url.is_empty() && request.client_authentication.is_none();
    let with_secret = as_for_tokens || uses_client_secret(request);
    let url = if request.url.is_empty() {
        fallback
            .cloned()
            .filter(is_usable)
            .ok_or(RequestError::NoEndpoint("revocation endpoint"))?
    } else {
        let text = fill(
            &request.url,
            asking.variables(),
            &fillings,
            Encoding::UrlSlots,
        )?;
        let bad = || TemplateError::BadUrl("the address of a request of the preset".into());
        let url = text
            .expose_text()
            .and_then(|t| Url::parse(t).ok())
            .filter(is_usable)
            .ok_or_else(bad)?;
        // The client secret stays with the authorization hosts.
        asking.check_host(&url, !with_secret)?;
        url
    };
    let secret = if with_secret {
        asking.open_secret(&url)?
    } else {
        None
    };
    fillings.client_secret = secret.as_ref();
    let method = http::Method::from_bytes(request.method.to_ascii_uppercase().as_bytes())
        .map_err(|_| RequestError::BadHeader(request.method.clone()))?;
    let mut headers = plain_headers();
    let mut form = Form::default();
    if let Some(authentication) = &request.client_authentication {
        apply(
            authentication,
            asking,
            &fillings,
            &url,
            &mut headers,
            &mut form,
        )?;
    } else if as_for_tokens {
        let described = asking.described(&Grant::RefreshToken);
        authenticate(asking, described, &fillings, &url, &mut headers, &mut form)?;
    }
    set_headers(
        &mut headers,
        &request.headers,
        asking.variables(),
        &fillings,
    )?;
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
    let body = format
        .map(|format| form.encode(format, &mut headers))
        .transpose()?;
    Ok(Outgoing {
        method,
        url,
        headers,
        body,
    })
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
    let url = url
        .filter(is_usable)
        .ok_or(RequestError::NoEndpoint("revocation endpoint"))?;
    let secret = asking.open_secret(&url)?;
    let set = TokenSet::open(tokens).map_err(|_| RequestError::Unreadable)?;
    let held = set
        .credential(Some(credential))
        .ok_or(TemplateError::NoSecret("access token"))?;
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
    authenticate(
        asking,
        asking.described(&Grant::RefreshToken),
        &fillings,
        &url,
        &mut headers,
        &mut form,
    )?;
    let body = form.encode(BodyFormat::Form, &mut headers)?;
    Ok(Outgoing {
        method: http::Method::POST,
        url,
        headers,
        body: Some(body),
    })
}

/// An address never holds the client secret: it is filled without one.
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
    !matches!(
        request.client_authentication,
        None | Some(ClientAuthentication::None)
    ) || request.headers.iter().any(|h| holds(&h.value))
        || body.iter().any(|p| holds(&p.value))
}

/// `Accept: application/json`: some providers answer with a form without it.
pub(super) fn plain_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers
}

/// Picks the way the client proves who it is: the record's, else the first of
/// the preset's that there is a secret or key for, else the key, Basic or
/// nothing.
fn authenticate(
    asking: &Asking<'_>,
    described: Option<&TokenRequest>,
    fillings: &Fillings<'_>,
    url: &Url,
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
            let has_key = asking.client_key.is_some();
            let listed = described.map_or(&[][..], |d| &d.client_authentication);
            let works = |m: &&ClientAuthentication| match m {
                ClientAuthentication::None => true,
                ClientAuthentication::PrivateKeyJwt => has_key,
                _ => has_secret,
            };
            let default = if has_key {
                ClientAuthentication::PrivateKeyJwt
            } else if has_secret {
                ClientAuthentication::ClientSecretBasic
            } else {
                ClientAuthentication::None
            };
            listed.iter().find(works).cloned().unwrap_or(default)
        }
    };
    apply(&method, asking, fillings, url, headers, form)
}

fn apply(
    method: &ClientAuthentication,
    asking: &Asking<'_>,
    fillings: &Fillings<'_>,
    url: &Url,
    headers: &mut HeaderMap,
    form: &mut Form,
) -> Result<(), RequestError> {
    let secret = || {
        fillings
            .client_secret
            .ok_or(TemplateError::NoSecret("client secret"))
    };
    match method {
        ClientAuthentication::ClientSecretBasic => {
            // RFC 6749 §2.3.1: both are form-encoded first.
            let id = form_encode(fillings.client_id.as_bytes());
            let value = basic_credentials(&id, &form_encode(secret()?.expose()));
            headers.insert(
                AUTHORIZATION,
                header_value(AUTHORIZATION.as_str(), &Secret::new(value))?,
            );
        }
        ClientAuthentication::ClientSecretPost => {
            form.add("client_id", fillings.client_id.as_bytes());
            form.add("client_secret", secret()?.expose());
        }
        ClientAuthentication::None => form.add("client_id", fillings.client_id.as_bytes()),
        ClientAuthentication::PrivateKeyJwt => {
            // RFC 7523 §2.2.
            let token = asking.client_assertion(url)?;
            form.add("client_id", fillings.client_id.as_bytes());
            form.add(
                "client_assertion_type",
                b"urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            );
            form.add("client_assertion", token.expose());
        }
        ClientAuthentication::Custom(rules) => {
            for rule in rules {
                match rule {
                    Rule::SetHeader(header) => {
                        set_headers(
                            headers,
                            std::slice::from_ref(header),
                            asking.variables(),
                            fillings,
                        )?;
                    }
                    Rule::SetQuery(parameter) => {
                        form.add_all(
                            std::slice::from_ref(parameter),
                            asking.variables(),
                            fillings,
                        )?;
                    }
                }
            }
        }
    }
    Ok(())
}
