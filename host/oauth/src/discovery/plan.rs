//! How Countersign becomes a client of an authorization server: by its own
//! metadata document, by registering itself, or by an administrator's hand.

use countersign_core::address::{is_public, literal};
use countersign_core::hosts::is_loopback;
use countersign_core::provider::TokenAuthMethod;
use countersign_core::registration::{ClientMetadata, Registered, RegistrationError, read};
use countersign_core::request::registration_request;
use url::Url;

use super::{AuthorizationServer, Discovery, DiscoveryError, PATIENCE, Step, shown};

/// Where Countersign's own metadata document is, below its public URL.
pub const DOCUMENT_PATH: &str = "/.well-known/oauth-client";

/// How it is going to be a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientPlan {
    /// An administrator registered it.
    Given,
    /// Its client id is the address of its metadata document.
    Document(Url),
    /// It registers itself there (RFC 7591).
    Register {
        /// Where.
        endpoint: Url,
        /// How it is going to prove who it is.
        method: TokenAuthMethod,
    },
    /// An administrator has to; this is why.
    ByHand(&'static str),
}

/// What a client is made of, beside what the server says.
pub struct ClientWish<'a> {
    /// Countersign's own address.
    pub public_url: &'a Url,
    /// Whether an administrator gave a client id.
    pub is_given: bool,
}

impl ClientPlan {
    /// Chooses, in the order that MCP wants: what is registered already, the
    /// document, registration, an administrator.
    ///
    /// The document is of use only if the authorization server can read it: at
    /// a public address, by https. It proves nothing but who Countersign is, so
    /// a server that takes no public clients is registered with instead.
    #[must_use]
    pub fn choose(server: &AuthorizationServer, wish: &ClientWish<'_>) -> Self {
        if wish.is_given {
            return Self::Given;
        }
        let methods = &server.token_endpoint_auth_methods;
        let takes_document = server.client_id_metadata_documents
            && methods.contains(&TokenAuthMethod::None)
            && is_readable(wish.public_url);
        if takes_document && let Ok(document) = wish.public_url.join(DOCUMENT_PATH) {
            return Self::Document(document);
        }
        match (&server.registration_endpoint, methods.first()) {
            (Some(endpoint), Some(method)) => Self::Register {
                endpoint: endpoint.clone(),
                method: *method,
            },
            (Some(_), None) => Self::ByHand(
                "it wants clients to prove who they are in a way that is not known here",
            ),
            (None, _) if server.client_id_metadata_documents => Self::ByHand(
                "it reads clients' metadata documents, but this host's public URL is not a public https address, \
                 and it registers no clients",
            ),
            (None, _) => Self::ByHand("it registers no clients by themselves"),
        }
    }
}

/// Whether somebody on the internet can read what is below this address.
fn is_readable(public_url: &Url) -> bool {
    public_url.scheme() == "https"
        && !is_loopback(public_url)
        && literal(public_url).is_none_or(is_public)
}

impl Discovery<'_> {
    /// Registers Countersign (RFC 7591 §3).
    ///
    /// # Errors
    /// [`DiscoveryError`]; if the answer was lost, a registration that nobody
    /// uses may be left there.
    pub async fn register(
        &mut self,
        endpoint: &Url,
        metadata: &ClientMetadata,
    ) -> Result<Registered, DiscoveryError> {
        let failed = |why: String| DiscoveryError::BadDocument {
            document: endpoint.clone(),
            why,
        };
        let trust = self.trust(endpoint);
        let request = registration_request(endpoint, metadata);
        let answer = self.guard.send_as(request, trust, PATIENCE).await;
        let said = match &answer {
            Ok(answer) => answer.status().to_string(),
            Err(error) => error.to_string(),
        };
        self.steps.push(Step {
            request: format!("POST {}", shown(endpoint)),
            answer: said,
        });
        let answer = answer.map_err(|error| DiscoveryError::Unreachable {
            url: endpoint.clone(),
            error,
        })?;
        let registered = read(&answer).map_err(|error| failed(in_words(&error)))?;
        check(&registered, metadata).map_err(|why| failed(why.to_owned()))?;
        if let Some(configuration) = &registered.configuration {
            // Its access token goes nowhere but where it came from.
            if configuration.origin() != endpoint.origin() {
                return Err(failed(
                    "it manages its registrations (registration_client_uri) at another origin"
                        .into(),
                ));
            }
        }
        Ok(registered)
    }
}

fn in_words(error: &RegistrationError) -> String {
    match error {
        RegistrationError::Refused {
            status: 401 | 403, ..
        } => format!("{error}: it registers only clients that bring a token of its own"),
        other => other.to_string(),
    }
}

/// Whether what was registered can be used.
pub fn check(registered: &Registered, metadata: &ClientMetadata) -> Result<(), &'static str> {
    let method = registered
        .token_endpoint_auth_method
        .unwrap_or(metadata.token_endpoint_auth_method);
    if method == TokenAuthMethod::PrivateKeyJwt {
        return Err("it registered a client that signs (private_key_jwt), without a key");
    }
    if method != TokenAuthMethod::None && registered.client_secret.is_none() {
        return Err("it gave out no client_secret, yet wants one");
    }
    let theirs = &registered.redirect_uris;
    let all = metadata
        .redirect_uris
        .iter()
        .all(|uri| theirs.contains(uri));
    if !theirs.is_empty() && !all {
        return Err("it registered other redirect URIs than it was asked for");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use countersign_core::scope::ScopeSet;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn server(
        documents: bool,
        registers: bool,
        methods: &[TokenAuthMethod],
    ) -> AuthorizationServer {
        AuthorizationServer {
            issuer: "https://as.example".into(),
            authorization_endpoint: url("https://as.example/a"),
            token_endpoint: url("https://as.example/t"),
            revocation_endpoint: None,
            device_authorization_endpoint: None,
            registration_endpoint: registers.then(|| url("https://as.example/r")),
            scopes_supported: ScopeSet::default(),
            renews: true,
            token_endpoint_auth_methods: methods.to_vec(),
            pkce_s256: true,
            names_itself: true,
            client_id_metadata_documents: documents,
            source: url("https://as.example/.well-known/x"),
        }
    }

    #[test]
    fn the_document_goes_before_registration_where_it_can_be_read() {
        use TokenAuthMethod as M;
        let public = "https://cs.example.com";
        let register = |method| ClientPlan::Register {
            endpoint: url("https://as.example/r"),
            method,
        };
        let document = ClientPlan::Document(url("https://cs.example.com/.well-known/oauth-client"));
        let both = &[M::ClientSecretBasic, M::None][..];
        let cases = [
            (public, server(true, true, both), document),
            (
                public,
                server(true, true, &[M::ClientSecretPost]),
                register(M::ClientSecretPost),
            ),
            (
                public,
                server(false, true, both),
                register(M::ClientSecretBasic),
            ),
            (
                "http://127.0.0.1:8700",
                server(true, true, both),
                register(M::ClientSecretBasic),
            ),
            (
                "https://10.0.0.1",
                server(true, true, &[M::None]),
                register(M::None),
            ),
        ];
        for (public_url, server, expected) in cases {
            let wish = ClientWish {
                public_url: &url(public_url),
                is_given: false,
            };
            assert_eq!(ClientPlan::choose(&server, &wish), expected, "{public_url}");
        }
        let by_hand = |server, public_url| {
            let wish = ClientWish {
                public_url: &url(public_url),
                is_given: false,
            };
            matches!(ClientPlan::choose(&server, &wish), ClientPlan::ByHand(_))
        };
        assert!(by_hand(server(false, false, both), public));
        assert!(by_hand(server(false, true, &[]), public));
        assert!(by_hand(server(true, false, both), "http://127.0.0.1:8700"));
    }
}
