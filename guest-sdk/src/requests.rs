//! Requests the host makes, and the shape of their answers.

use crate::data::{
    AnswerShape, AuthorizationRequest, Body, BodyFormat, Check, ClientAuthentication, Expiry,
    GrantType, IdentityRequest, Offline, Pkce, RedirectUriUse, Request, Revocation,
    RevocationEffect, Slot, TokenRequest, TokenShape,
};
use crate::description::{DEFAULT_CREDENTIAL, scope_parameter};
use crate::text::{Text, basic, bearer, header, parameter};

fn pointers<'a>(list: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    list.into_iter().map(Into::into).collect()
}

impl Request {
    /// A request without headers and body.
    pub fn new(method: &str, url: impl Text) -> Self {
        Self {
            method: method.into(),
            url: url.into_template(),
            headers: Vec::new(),
            body: Body::None,
            client_authentication: None,
            answer: AnswerShape::rfc6749(),
        }
    }

    /// A GET.
    pub fn get(url: impl Text) -> Self {
        Self::new("GET", url)
    }

    /// A POST.
    pub fn post(url: impl Text) -> Self {
        Self::new("POST", url)
    }

    /// A DELETE.
    pub fn delete(url: impl Text) -> Self {
        Self::new("DELETE", url)
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl Text) -> Self {
        self.headers.push(header(name, value));
        self
    }

    /// Authenticated by the access token, as a bearer.
    pub fn with_token(self) -> Self {
        self.header("authorization", bearer())
    }

    /// Authenticated by the client's identifier and secret (HTTP Basic).
    pub fn with_client(self) -> Self {
        self.header(
            "authorization",
            basic(Slot::ClientId, Some(Slot::ClientSecret)),
        )
    }

    /// A form body.
    pub fn form<'a, T: Text>(mut self, fields: impl IntoIterator<Item = (&'a str, T)>) -> Self {
        self.body = Body::Form(fields.into_iter().map(|(n, v)| parameter(n, v)).collect());
        self
    }

    /// A JSON body: one flat object of strings.
    pub fn json<'a, T: Text>(mut self, fields: impl IntoIterator<Item = (&'a str, T)>) -> Self {
        self.body = Body::Json(fields.into_iter().map(|(n, v)| parameter(n, v)).collect());
        self
    }

    /// How the client proves itself.
    pub fn client_authentication(mut self, method: ClientAuthentication) -> Self {
        self.client_authentication = Some(method);
        self
    }

    /// How the answer says that it worked.
    pub fn answer(mut self, answer: AnswerShape) -> Self {
        self.answer = answer;
        self
    }
}

impl AnswerShape {
    /// Success by HTTP status; `error` and `error_description` in JSON.
    pub fn rfc6749() -> Self {
        Self {
            success_codes: Vec::new(),
            success_checks: Vec::new(),
            error_code: vec!["/error".into()],
            error_description: vec!["/error_description".into()],
            may_be_form: false,
        }
    }

    /// Success needs this too, whatever the status says.
    pub fn success_when(mut self, check: Check) -> Self {
        self.success_checks.push(check);
        self
    }

    /// Success is one of these statuses.
    pub fn success_codes(mut self, codes: impl IntoIterator<Item = u16>) -> Self {
        self.success_codes = codes.into_iter().collect();
        self
    }

    /// Where the error's code and its description stand.
    pub fn errors_at<'a>(
        mut self,
        code: impl IntoIterator<Item = &'a str>,
        description: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        self.error_code = pointers(code);
        self.error_description = pointers(description);
        self
    }

    /// The answer may be form-encoded.
    pub fn or_form(mut self) -> Self {
        self.may_be_form = true;
        self
    }
}

impl Check {
    /// The member is `true`.
    pub fn is_true(pointer: &str) -> Self {
        Self::is(pointer, "true")
    }

    /// The member is this scalar, as text.
    pub fn is(pointer: &str, value: &str) -> Self {
        Self::Equals((pointer.into(), value.into()))
    }

    /// There is such a member.
    pub fn has(pointer: &str) -> Self {
        Self::Present(pointer.into())
    }

    /// There is no such member.
    pub fn lacks(pointer: &str) -> Self {
        Self::Absent(pointer.into())
    }
}

impl TokenShape {
    /// One credential's tokens, where RFC 6749 has them.
    pub fn rfc6749(credential: &str) -> Self {
        Self::below(credential, "")
    }

    /// The same members inside the object at this pointer.
    pub fn below(credential: &str, object: &str) -> Self {
        let at = |member: &str| vec![[object, member].concat()];
        Self {
            credential: credential.into(),
            when: Vec::new(),
            optional: false,
            access_token: at("/access_token"),
            refresh_token: at("/refresh_token"),
            id_token: at("/id_token"),
            expires: vec![Expiry::Lifetime([object, "/expires_in"].concat())],
            refresh_expires: Vec::new(),
            scopes: at("/scope"),
            scope_separators: vec![" ".into()],
        }
    }

    /// It may be missing.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Only if this holds.
    pub fn when(mut self, check: Check) -> Self {
        self.when.push(check);
        self
    }

    /// Where the access token ends, in order.
    pub fn expires(mut self, sources: impl IntoIterator<Item = Expiry>) -> Self {
        self.expires = sources.into_iter().collect();
        self
    }

    /// Where the refresh token ends, in order.
    pub fn refresh_expires(mut self, sources: impl IntoIterator<Item = Expiry>) -> Self {
        self.refresh_expires = sources.into_iter().collect();
        self
    }

    /// Where the access token stands, in order.
    pub fn access_token_at<'a>(mut self, places: impl IntoIterator<Item = &'a str>) -> Self {
        self.access_token = pointers(places);
        self
    }

    /// Where the granted scopes stand, in order.
    pub fn scopes_at<'a>(mut self, places: impl IntoIterator<Item = &'a str>) -> Self {
        self.scopes = pointers(places);
        self
    }

    /// What separates granted scopes.
    pub fn scope_separators<'a>(mut self, list: impl IntoIterator<Item = &'a str>) -> Self {
        self.scope_separators = pointers(list);
        self
    }
}

impl AuthorizationRequest {
    /// As RFC 6749 and RFC 7636 say; the endpoint is the provider record's.
    pub fn rfc6749() -> Self {
        Self {
            endpoint: Vec::new(),
            parameters: Vec::new(),
            incremental_parameters: Vec::new(),
            suppress: Vec::new(),
            scope_parameters: vec![scope_parameter("scope", " ")],
            pkce: Pkce::Supported,
            offline: Offline::None,
        }
    }
}

impl TokenRequest {
    /// A request of this kind, as the RFC says.
    pub fn new(grant: GrantType) -> Self {
        Self {
            grant,
            endpoint: None,
            body: BodyFormat::Form,
            client_authentication: Vec::new(),
            headers: Vec::new(),
            parameters: Vec::new(),
            suppress: Vec::new(),
            redirect_uri: RedirectUriUse::Always,
        }
    }

    /// Its own endpoint.
    pub fn endpoint(mut self, url: impl Text) -> Self {
        self.endpoint = Some(url.into_template());
        self
    }

    /// A flat JSON body in place of a form.
    pub fn json(mut self) -> Self {
        self.body = BodyFormat::Json;
        self
    }

    /// How the client proves itself, in order of preference.
    pub fn client_authentication(
        mut self,
        methods: impl IntoIterator<Item = ClientAuthentication>,
    ) -> Self {
        self.client_authentication = methods.into_iter().collect();
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl Text) -> Self {
        self.headers.push(header(name, value));
        self
    }

    /// Adds a parameter.
    pub fn parameter(mut self, name: &str, value: impl Text) -> Self {
        self.parameters.push(parameter(name, value));
        self
    }

    /// Leaves a parameter of the RFC out.
    pub fn suppress(mut self, name: &str) -> Self {
        self.suppress.push(name.into());
        self
    }
}

impl IdentityRequest {
    /// Who the account is: a request, the identifier, and labels to try.
    pub fn new<'a>(request: Request, id: &str, label: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            request,
            id: id.into(),
            label: pointers(label),
            tenant: None,
        }
    }

    /// Where the tenant's identifier stands.
    pub fn tenant(mut self, pointer: &str) -> Self {
        self.tenant = Some(pointer.into());
        self
    }
}

impl Revocation {
    /// A request, what it ends, and what a person should know of it.
    pub fn new(request: Request, effect: RevocationEffect, note: &str) -> Self {
        Self {
            request,
            effect,
            note: note.into(),
        }
    }

    /// RFC 7009: the refresh token, which ends the access token as well, or
    /// where there is none the access token. An empty URL is the provider
    /// record's.
    pub fn rfc7009(url: impl Text) -> [Self; 2] {
        let url = url.into_template();
        let refresh = Request::post(url.clone()).form([
            ("token", "{$refresh-token}"),
            ("token_type_hint", "refresh_token"),
        ]);
        let access = Request::post(url).form([
            ("token", "{$access-token}"),
            ("token_type_hint", "access_token"),
        ]);
        [
            Self::new(refresh, RevocationEffect::Grant, ""),
            Self::new(access, RevocationEffect::Token, ""),
        ]
    }
}

impl Default for TokenShape {
    fn default() -> Self {
        Self::rfc6749(DEFAULT_CREDENTIAL)
    }
}
