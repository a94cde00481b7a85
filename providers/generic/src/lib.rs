//! The custom provider: an OAuth 2 provider described by its record alone.
//!
//! Endpoints, audience, scopes and the way the client proves itself come from
//! the provider record. What the record has no field for can be said in its
//! settings; what is not said is as the RFCs have it.

mod checks;

use checks::{header_name, https_url, one_line, parameter_names, reserved};
use countersign_guest_sdk::prelude::*;
use countersign_guest_sdk::text::literal;

struct Generic;

impl Provider for Generic {
    fn describe(settings: &mut Settings) -> Result<Description, String> {
        let mut description = Description::oauth2("generic", "OAuth 2 provider")
            .category("Custom")
            .revocation(Revocation::rfc7009(""));
        description = authorization(settings, description)?;
        description = tokens(settings, description)?;
        description = sending(settings, description)?;
        identity(settings, description)
    }
}

export_preset!(Generic);

fn authorization(
    settings: &mut Settings,
    mut description: Description,
) -> Result<Description, String> {
    // For the host, which compares the answer's `iss` (RFC 9207).
    settings.text("issuer")?;
    settings.flag("authorization_response_iss_parameter_supported")?;
    let separator = settings.text("scope_separator")?;
    if separator.as_deref() == Some("") {
        return Err("setting `scope_separator` must not be empty".into());
    }
    let parameter = settings.text("scope_parameter")?;
    if let Some(name) = parameter
        .as_deref()
        .filter(|name| reserved(name) && *name != "scope")
    {
        return Err(["setting `scope_parameter` must not be ", name].concat());
    }
    if settings.flag("send_scopes")? == Some(false) {
        description = description.without_scopes();
    } else {
        description = description.scope_parameters([(
            parameter.as_deref().unwrap_or("scope"),
            separator.as_deref().unwrap_or(" "),
            "user",
        )]);
    }
    let extra = settings.map("authorize_parameters")?;
    parameter_names("authorize_parameters", &extra)?;
    for (name, value) in extra {
        if reserved(&name) {
            return Err([
                "setting `authorize_parameters` must not hold `",
                &name,
                "`, which the gateway sets",
            ]
            .concat());
        }
        description = description.authorize_parameter(&name, literal(value));
    }
    let pkce = [
        ("required", Pkce::Required),
        ("supported", Pkce::Supported),
        ("unsupported", Pkce::Unsupported),
    ];
    if let Some(pkce) = settings.choice("pkce", &pkce)? {
        description = description.pkce(pkce);
    }
    if let Some(scope) = settings.text("offline_scope")? {
        description = description.offline(Offline::Scope(scope));
    }
    Ok(description)
}

fn tokens(settings: &mut Settings, mut description: Description) -> Result<Description, String> {
    let json = settings.choice("token_body", &[("form", false), ("json", true)])?;
    let code = settings.map("token_parameters")?;
    let refresh = settings.map("refresh_parameters")?;
    let service = settings.map("service_parameters")?;
    let exchange = settings.map("exchange_parameters")?;
    // What the host signs is as the RFC has it.
    let assertion = Assertion {
        algorithm: String::new(),
        claims: Vec::new(),
        lifetime_seconds: 0,
    };
    let bearer = GrantType::JwtBearer(assertion);
    for (grant, key, extra) in [
        (GrantType::AuthorizationCode, "token_parameters", code),
        (GrantType::RefreshToken, "refresh_parameters", refresh),
        (GrantType::ClientCredentials, "service_parameters", service),
        (
            GrantType::TokenExchange,
            "exchange_parameters",
            exchange.clone(),
        ),
        (bearer, "exchange_parameters", exchange),
    ] {
        parameter_names(key, &extra)?;
        if json != Some(true) && extra.is_empty() {
            continue;
        }
        let mut request = TokenRequest::new(grant);
        if json == Some(true) {
            request = request.json();
        }
        for (name, value) in extra {
            request = request.parameter(&name, literal(value));
        }
        description = description.token_request(request);
    }

    let mut shape = TokenShape::default();
    if let Some(pointer) = settings.pointer("access_token_pointer")? {
        shape = shape.access_token_at([pointer.as_str()]);
    }
    if let Some(pointer) = settings.pointer("scope_pointer")? {
        shape = shape.scopes_at([pointer.as_str()]);
    }
    if let Some(separator) = settings.text("answer_scope_separator")? {
        if separator.is_empty() {
            return Err("setting `answer_scope_separator` must not be empty".into());
        }
        shape = shape.scope_separators([separator.as_str()]);
    }
    if let Some(pointer) = settings.pointer("expires_in_pointer")? {
        shape.expires = vec![Expiry::Lifetime(pointer)];
    }
    let expiry = [
        ("jwt", Expiry::JwtClaim),
        ("introspection", Expiry::Introspection),
        ("never", Expiry::Never),
    ];
    // Both are for answers that say nothing themselves, so they come last.
    if let Some(source) = settings.choice("expiry", &expiry)? {
        shape.expires.push(source);
    }
    match settings.number("expires_in")? {
        Some(0) => return Err("setting `expires_in` must be at least one second".into()),
        Some(seconds) => shape.expires.push(Expiry::Constant(seconds)),
        None => {}
    }
    description = description.token_shapes([shape]);

    let rotation = [
        ("never", Rotation::Never),
        ("sometimes", Rotation::Sometimes),
        ("always", Rotation::Always),
    ];
    let rotation = settings.choice("rotation", &rotation)?;
    let permanent = settings.texts("permanent_errors")?;
    Ok(description.refresh(|refresh| {
        refresh.rotation = rotation.unwrap_or(refresh.rotation);
        refresh.permanent_errors = permanent.unwrap_or_default();
    }))
}

fn sending(settings: &mut Settings, mut description: Description) -> Result<Description, String> {
    let name = settings.text("header_name")?;
    let prefix = settings.text("header_prefix")?;
    if name.is_some() || prefix.is_some() {
        let name = name.unwrap_or_else(|| "authorization".into());
        header_name("header_name", &name)?;
        let prefix = prefix.unwrap_or_else(|| "Bearer".into());
        one_line("header_prefix", &prefix)?;
        let prefix = prefix.trim_end();
        // An empty prefix sends the bare token.
        let mut value = if prefix.is_empty() {
            Vec::new()
        } else {
            literal([prefix, " "].concat())
        };
        value.push(Part::Slot(Slot::AccessToken));
        description = description.credentials([Credential::new(
            "user",
            "Access token",
            [Rule::header(&name, value)],
        )]);
    }
    for (name, value) in settings.map("headers")? {
        header_name("headers", &name)?;
        one_line("headers", &value)?;
        description = description.constant_header(&name, literal(value));
    }
    Ok(description)
}

fn identity(settings: &mut Settings, description: Description) -> Result<Description, String> {
    let endpoint = settings.text("userinfo_endpoint")?;
    let id = settings.pointer("userinfo_id_pointer")?;
    let label = settings.pointer("userinfo_label_pointer")?;
    let Some(endpoint) = endpoint else {
        return if id.is_some() || label.is_some() {
            Err(
                "settings `userinfo_id_pointer` and `userinfo_label_pointer` need \
                 `userinfo_endpoint`"
                    .into(),
            )
        } else {
            Ok(description)
        };
    };
    https_url("userinfo_endpoint", &endpoint)?;
    let label = label.as_deref().map_or(
        vec!["/preferred_username", "/email", "/name", "/sub"],
        |pointer| vec![pointer],
    );
    Ok(description.identity(IdentityRequest::new(
        Request::get(literal(endpoint)).with_token(),
        id.as_deref().unwrap_or("/sub"),
        label,
    )))
}

#[cfg(test)]
mod tests;
