//! Building the requests: what is sent, and how the client proves itself.

use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use url::Url;

use super::wire::{Form, form_encode, header_value, set_headers};
use super::{Asking, Exchange, Outgoing, RequestError, TokensRef};
use crate::preset::{
    Body, BodyFormat, ClientAuthentication, Grant, Part, RedirectUriUse, Request, Rule, Slot,
    TokenRequest,
};
use crate::provider::TokenAuthMethod;
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

/// Makes the request that exchanges a code or a refresh token for tokens.
///
/// # Errors
/// [`RequestError`]; nothing was sent.
pub fn token_request(
    asking: &Asking<'_>,
    exchange: &Exchange<'_>,
) -> Result<Outgoing, RequestError> {
    let grant = match exchange {
        Exchange::Code { .. } => Grant::AuthorizationCode,
        Exchange::Refresh { .. } => Grant::RefreshToken,
    };
    let described = asking.described(&grant);
    let url = asking.token_endpoint(&grant)?;
    let secret = asking.open_secret(&url)?;
    let opened = match exchange {
        Exchange::Refresh { tokens, .. } => {
            Some(TokenSet::open(tokens).map_err(|_| RequestError::Unreadable)?)
        }
        Exchange::Code { .. } => None,
    };
    let tokens = match exchange {
        Exchange::Refresh { credential, .. } => opened
            .as_ref()
            .and_then(|set| set.credential(Some(credential))),
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
    }
    let mut headers = plain_headers();
    authenticate(asking, described, &fillings, &mut headers, &mut form)?;
    if let Some(described) = described {
        form.0
            .retain(|(name, _)| !described.suppress.contains(name));
        form.add_all(&described.parameters, asking.variables(), &fillings)?;
        set_headers(
            &mut headers,
            &described.headers,
            asking.variables(),
            &fillings,
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
    let with_secret = uses_client_secret(request);
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
        apply(authentication, asking, &fillings, &mut headers, &mut form)?;
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
            let works =
                |m: &&ClientAuthentication| has_secret || matches!(m, ClientAuthentication::None);
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
            return Err(RequestError::Unsupported("private_key_jwt"));
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
