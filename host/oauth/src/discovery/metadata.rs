//! Authorization Server Metadata (RFC 8414) and OpenID Connect Discovery.

use countersign_core::provider::{GrantType, TokenAuthMethod};
use countersign_core::scope::{Scope, ScopeSet};
use serde::Deserialize;
use url::Url;

use super::{Discovery, DiscoveryError, NoDocument, printable};

/// Longest lists that are taken.
const MOST: usize = 512;

/// What an authorization server says of itself (RFC 8414 §2), as far as it is
/// used, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationServer {
    /// Exactly as it writes itself.
    pub issuer: String,
    /// Where users sign in.
    pub authorization_endpoint: Url,
    /// Where tokens come from.
    pub token_endpoint: Url,
    /// RFC 7009.
    pub revocation_endpoint: Option<Url>,
    /// RFC 8628.
    pub device_authorization_endpoint: Option<Url>,
    /// RFC 7591.
    pub registration_endpoint: Option<Url>,
    /// Scopes it knows.
    pub scopes_supported: ScopeSet,
    /// Whether it renews tokens.
    pub renews: bool,
    /// How clients may prove who they are, of the ways that are known here.
    pub token_endpoint_auth_methods: Vec<TokenAuthMethod>,
    /// Whether it says that it checks PKCE with S256.
    pub pkce_s256: bool,
    /// Whether its answers name it (RFC 9207).
    pub names_itself: bool,
    /// Whether a URL can be a client id (client ID metadata documents).
    pub client_id_metadata_documents: bool,
    /// Where this was read.
    pub source: Url,
}

#[derive(Deserialize)]
struct Raw {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    registration_endpoint: Option<String>,
    #[serde(default)]
    scopes_supported: Vec<String>,
    response_types_supported: Option<Vec<String>>,
    grant_types_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    code_challenge_methods_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    client_id_metadata_document_supported: bool,
}

impl AuthorizationServer {
    /// What an administrator should know of it.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.pkce_s256 {
            warnings.push(
                "the authorization server does not say that it checks PKCE with S256: sign-ins are sent with it \
                 all the same, but perhaps nobody looks"
                    .to_owned(),
            );
        }
        if !self.renews {
            warnings.push(
                "the authorization server does not renew tokens: users have to connect again whenever theirs end"
                    .to_owned(),
            );
        }
        warnings
    }

    /// The grants that a sign-in of users needs.
    #[must_use]
    pub fn grant_types(&self) -> Vec<GrantType> {
        let mut grants = vec![GrantType::AuthorizationCode];
        if self.renews {
            grants.push(GrantType::RefreshToken);
        }
        grants
    }
}

/// Finds the metadata of an issuer.
pub(super) async fn find(
    discovery: &mut Discovery<'_>,
    issuer: &str,
) -> Result<AuthorizationServer, DiscoveryError> {
    let typed = discovery.typed.clone();
    let url = discovery.address(&typed, "its authorization server", issuer)?;
    if url.query().is_some() {
        return Err(DiscoveryError::BadAddress {
            document: Box::new(typed),
            address: printable(issuer),
            what: "its authorization server",
            why: "an issuer has no query (RFC 8414 §2)".into(),
        });
    }
    let before = discovery.steps.len();
    for place in well_known(&url) {
        match discovery.document(&place).await {
            Ok(bytes) => return read(discovery, &place, &bytes, issuer),
            Err(NoDocument::Absent) => {}
            Err(NoDocument::Unsent(error)) => {
                return Err(DiscoveryError::Unreachable { url: place, error });
            }
        }
    }
    let tried = discovery.steps.iter().skip(before);
    let tried: Vec<String> = tried
        .map(|s| format!("{} — {}", s.request, s.answer))
        .collect();
    Err(DiscoveryError::NoIssuer {
        issuer: printable(issuer),
        tried: tried.join("; "),
    })
}

/// RFC 8414 §3.1 and §5, OpenID Connect Discovery §4.1.
fn well_known(issuer: &Url) -> Vec<Url> {
    let path = issuer.path().trim_end_matches('/').to_owned();
    let mut paths = vec![
        format!("/.well-known/oauth-authorization-server{path}"),
        format!("/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        paths.push(format!("{path}/.well-known/openid-configuration"));
    }
    let at = |path: String| {
        let mut place = issuer.clone();
        place.set_path(&path);
        place
    };
    paths.into_iter().map(at).collect()
}

fn read(
    discovery: &Discovery<'_>,
    source: &Url,
    bytes: &[u8],
    issuer: &str,
) -> Result<AuthorizationServer, DiscoveryError> {
    let bad = |why: String| DiscoveryError::BadDocument {
        document: source.clone(),
        why,
    };
    let raw: Raw = serde_json::from_slice(bytes)
        .map_err(|_| bad("it is no authorization server metadata (RFC 8414 §2)".into()))?;
    if !is_issuer(&raw.issuer, issuer, &discovery.typed) {
        return Err(DiscoveryError::OtherIssuer {
            document: Box::new(source.clone()),
            said: printable(&raw.issuer),
            issuer: printable(issuer),
        });
    }
    let lists = [
        &raw.response_types_supported,
        &raw.grant_types_supported,
        &raw.token_endpoint_auth_methods_supported,
    ];
    let long = lists.into_iter().flatten().any(|l| l.len() > MOST);
    if long || raw.scopes_supported.len() > MOST {
        return Err(bad(format!(
            "one of its lists has more than {MOST} entries"
        )));
    }
    let unsuitable = |why| DiscoveryError::Unsuitable {
        issuer: printable(&raw.issuer),
        why,
    };
    let has = |list: &Option<Vec<String>>, what: &str| {
        list.as_ref()
            .is_none_or(|list| list.iter().any(|l| l == what))
    };
    if !has(&raw.response_types_supported, "code")
        || !has(&raw.grant_types_supported, "authorization_code")
    {
        return Err(unsuitable(
            "it does not let users sign in with the authorization code flow",
        ));
    }
    let endpoint = |what: &'static str, text: &Option<String>| {
        text.as_deref()
            .map(|text| discovery.address(source, what, text))
            .transpose()
    };
    let authorization = endpoint("authorization_endpoint", &raw.authorization_endpoint)?;
    let token = endpoint("token_endpoint", &raw.token_endpoint)?;
    Ok(AuthorizationServer {
        authorization_endpoint: authorization
            .ok_or_else(|| unsuitable("its metadata names no authorization_endpoint"))?,
        token_endpoint: token.ok_or_else(|| unsuitable("its metadata names no token_endpoint"))?,
        revocation_endpoint: endpoint("revocation_endpoint", &raw.revocation_endpoint)?,
        device_authorization_endpoint: endpoint(
            "device_authorization_endpoint",
            &raw.device_authorization_endpoint,
        )?,
        registration_endpoint: endpoint("registration_endpoint", &raw.registration_endpoint)?,
        scopes_supported: raw
            .scopes_supported
            .iter()
            .filter_map(|s| Scope::parse(s).ok())
            .collect(),
        // RFC 8414 §2: absent means authorization_code and implicit; few that
        // leave it out mean it.
        renews: has(&raw.grant_types_supported, "refresh_token"),
        token_endpoint_auth_methods: methods(raw.token_endpoint_auth_methods_supported.as_deref()),
        pkce_s256: raw
            .code_challenge_methods_supported
            .iter()
            .any(|m| m == "S256"),
        names_itself: raw.authorization_response_iss_parameter_supported,
        client_id_metadata_documents: raw.client_id_metadata_document_supported,
        source: source.clone(),
        issuer: raw.issuer,
    })
}

/// Exactly (RFC 8414 §3.3). Only what an administrator typed, or was made of
/// that, may lack the slash of an empty path: no server spelled it so.
fn is_issuer(said: &str, asked: &str, typed: &Url) -> bool {
    let same_root = || {
        let (Ok(said), Ok(asked)) = (Url::parse(said), Url::parse(asked)) else {
            return false;
        };
        asked.origin() == typed.origin() && said == asked && said.path() == "/"
    };
    said == asked || same_root()
}

/// Of the ways it lists those that are known here, in the order they are
/// preferred in. RFC 8414 §2: Basic, if none is listed.
fn methods(listed: Option<&[String]>) -> Vec<TokenAuthMethod> {
    let known = [
        ("client_secret_basic", TokenAuthMethod::ClientSecretBasic),
        ("client_secret_post", TokenAuthMethod::ClientSecretPost),
        ("none", TokenAuthMethod::None),
    ];
    let is_listed = |name: &str| match listed {
        None => name == "client_secret_basic",
        Some(listed) => listed.iter().any(|l| l == name),
    };
    known
        .into_iter()
        .filter(|(name, _)| is_listed(name))
        .map(|(_, method)| method)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_well_known_places_of_an_issuer_are_looked_at() {
        let cases = [
            (
                "https://as.example",
                &[
                    "https://as.example/.well-known/oauth-authorization-server",
                    "https://as.example/.well-known/openid-configuration",
                ][..],
            ),
            (
                "https://as.example/tenant/1/",
                &[
                    "https://as.example/.well-known/oauth-authorization-server/tenant/1",
                    "https://as.example/.well-known/openid-configuration/tenant/1",
                    "https://as.example/tenant/1/.well-known/openid-configuration",
                ],
            ),
        ];
        for (issuer, expected) in cases {
            let places: Vec<String> = well_known(&Url::parse(issuer).unwrap())
                .iter()
                .map(Url::to_string)
                .collect();
            assert_eq!(places, expected, "{issuer}");
        }
    }

    #[test]
    fn an_issuer_is_itself_to_the_letter() {
        let typed = Url::parse("https://mcp.example/mcp").unwrap();
        let cases = [
            ("https://as.example", "https://as.example", true),
            ("https://as.example/", "https://as.example", false),
            ("https://as.example", "https://as.example/", false),
            ("https://AS.example", "https://as.example", false),
            ("https://as.example/x", "https://as.example", false),
            ("https://evil.example", "https://as.example", false),
        ];
        for (said, asked, expected) in cases {
            assert_eq!(is_issuer(said, asked, &typed), expected, "{said} {asked}");
        }
        let typed = Url::parse("https://as.example").unwrap();
        assert!(is_issuer(
            "https://as.example",
            "https://as.example/",
            &typed
        ));
        assert!(!is_issuer(
            "https://as.example/x",
            "https://as.example/",
            &typed
        ));
    }

    #[test]
    fn the_way_to_prove_oneself_is_one_that_is_offered() {
        use TokenAuthMethod as M;
        let listed = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            methods(Some(&names))
        };
        assert_eq!(methods(None), [M::ClientSecretBasic]);
        assert_eq!(
            listed(&["none", "client_secret_post"]),
            [M::ClientSecretPost, M::None]
        );
        assert_eq!(listed(&["tls_client_auth"]), []);
    }
}
