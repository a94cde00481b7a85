//! The one way out to providers: no redirects, no proxies from the
//! environment, a deadline, a cap on the answer, and no private address unless
//! the operator named it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::address::{PrivateAllowlist, is_public, literal};
use countersign_core::hosts::is_loopback;
use countersign_core::ports::BoxFuture;
use countersign_core::request::{Outgoing, SendError, Sender};
use countersign_core::token_answer::Answer;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

mod look;

pub use look::{Look, Looked};

/// Longest answer that is read, in bytes.
pub const ANSWER_LIMIT: usize = 1024 * 1024;

/// Where an address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// An administrator wrote it: the operator's allowlist applies.
    Operator,
    /// An agent, an upstream or metadata said it: never a private address.
    Outside,
}

/// What the guard must know.
#[derive(Debug, Clone, Default)]
pub struct GuardOptions {
    /// `network.allow_private_upstreams`.
    pub allow_private: PrivateAllowlist,
    /// Where Countersign itself listens, and its public URL: never called.
    pub own: Vec<Url>,
}

/// The guarded client cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be set up: {0}")]
pub struct GuardError(String);

/// The guarded HTTP client. Cloning shares its connections.
#[derive(Clone)]
pub struct Guard {
    public: reqwest::Client,
    named_by_operator: reqwest::Client,
    options: Arc<GuardOptions>,
}

impl Guard {
    /// Sets up TLS (ring; the platform's roots, or the built-in ones where
    /// there are none) and the two clients.
    ///
    /// # Errors
    /// [`GuardError`] if TLS cannot be set up.
    pub fn new(options: GuardOptions) -> Result<Self, GuardError> {
        let tls = tls_config()?;
        let client = |resolver: Option<PublicOnly>| {
            #[expect(clippy::disallowed_methods, reason = "this is the guarded client")]
            let builder = reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(Duration::from_secs(10))
                .pool_idle_timeout(Duration::from_secs(30));
            let builder = match resolver {
                Some(resolver) => builder.dns_resolver(Arc::new(resolver)),
                None => builder,
            };
            builder.build().map_err(|e| GuardError(e.to_string()))
        };
        Ok(Self {
            public: client(Some(PublicOnly))?,
            named_by_operator: client(None)?,
            options: Arc::new(options),
        })
    }

    /// Reads a small JSON document with `GET` (client ID metadata, discovery).
    ///
    /// # Errors
    /// [`FetchError`]; none of the answer is repeated.
    pub async fn fetch_json(
        &self,
        url: &Url,
        trust: Trust,
        limit: usize,
        timeout: Duration,
    ) -> Result<serde_json::Value, FetchError> {
        let bytes = self.fetch(url, trust, limit, timeout).await?;
        serde_json::from_slice(&bytes).map_err(|_| FetchError::NotJson)
    }

    /// [`Self::fetch_json`], unparsed.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch(
        &self,
        url: &Url,
        trust: Trust,
        limit: usize,
        timeout: Duration,
    ) -> Result<Vec<u8>, FetchError> {
        let client = self.client_for(url, trust)?;
        let request = client
            .get(url.clone())
            .header("accept", "application/json")
            .timeout(timeout);
        let response = request.send().await.map_err(|e| send_error(&e))?;
        if response.status() != 200 {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        Ok(read_capped(response, limit.min(ANSWER_LIMIT)).await?)
    }

    fn client_for(&self, url: &Url, trust: Trust) -> Result<&reqwest::Client, SendError> {
        let refused = |why: &str| Err(SendError::Refused(why.to_owned()));
        if self.is_own(url) {
            return refused("it is Countersign's own");
        }
        let private = self.options.allow_private.allows(url);
        if private && trust == Trust::Outside {
            // Whoever names such a place from outside may not have it called.
            return refused("it is a private address, which only an administrator may name");
        }
        let allowed = private;
        match url.scheme() {
            "https" => {}
            "http" if allowed && is_loopback(url) => {}
            _ => {
                return refused(
                    "it is not https (http only for loopback that the operator allows)",
                );
            }
        }
        if allowed {
            return Ok(&self.named_by_operator);
        }
        if literal(url).is_some_and(|ip| !is_public(ip)) {
            return refused(
                "it is a private address that network.allow_private_upstreams does not name",
            );
        }
        Ok(&self.public)
    }

    /// Countersign's own addresses, by name and by port on this machine.
    fn is_own(&self, url: &Url) -> bool {
        let port = url.port_or_known_default();
        self.options.own.iter().any(|own| {
            port == own.port_or_known_default()
                && (own.host_str() == url.host_str()
                    || (is_this_machine(url) && (is_this_machine(own) || literal(own).is_some())))
        })
    }
}

fn is_this_machine(url: &Url) -> bool {
    is_loopback(url) || literal(url).is_some_and(|ip| ip.is_unspecified() || is_mapped_loopback(ip))
}

fn is_mapped_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip
            .to_ipv4_mapped()
            .is_some_and(|ip| ip.is_loopback() || ip.is_unspecified()),
    }
}

/// Why a document could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No answer.
    #[error("{0}")]
    Send(#[from] SendError),
    /// An answer other than 200.
    #[error("it answered with HTTP status {0}")]
    Status(u16),
    /// Not JSON.
    #[error("its answer is not JSON")]
    NotJson,
}

impl Guard {
    /// Sends a request to a provider whose address comes from there.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send_as(
        &self,
        request: Outgoing,
        trust: Trust,
        timeout: Duration,
    ) -> Result<Answer, SendError> {
        let parts = request.into_parts();
        let client = self.client_for(&parts.url, trust)?;
        let mut request = client
            .request(parts.method, parts.url)
            .headers(parts.headers)
            .timeout(timeout);
        if let Some(body) = parts.body {
            request = request.body(body);
        }
        let response = request.send().await.map_err(|e| send_error(&e))?;
        let status = response.status().as_u16();
        let content_type = response.headers().get("content-type").cloned();
        let retry_after = response.headers().get("retry-after").cloned();
        let body = read_capped(response, ANSWER_LIMIT).await?;
        let text = |value: &Option<http::HeaderValue>| {
            let text = value.as_ref().and_then(|v| v.to_str().ok());
            text.map(str::to_owned)
        };
        let answer = Answer::new(status, text(&content_type).as_deref(), body);
        Ok(answer.telling_to_wait(text(&retry_after).as_deref()))
    }
}

impl Sender for Guard {
    fn send(
        &self,
        request: Outgoing,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Answer, SendError>> {
        Box::pin(self.send_as(request, Trust::Operator, timeout))
    }
}

async fn read_capped(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, SendError> {
    let announced = response
        .content_length()
        .and_then(|n| usize::try_from(n).ok());
    if announced.is_some_and(|n| n > limit) {
        return Err(SendError::TooLarge);
    }
    let mut body = Vec::with_capacity(announced.unwrap_or(4096));
    while let Some(chunk) = response.chunk().await.map_err(|e| send_error(&e))? {
        if body.len() + chunk.len() > limit {
            return Err(SendError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The class of a failure. The error's own text names the URL, which may hold
/// a secret, so it is not kept.
fn send_error(error: &reqwest::Error) -> SendError {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<NoPublicAddress>() {
            return SendError::Refused(NoPublicAddress.to_string());
        }
        source = cause.source();
    }
    if error.is_connect() {
        SendError::Unreachable
    } else if error.is_timeout() {
        SendError::Timeout
    } else {
        SendError::Dropped
    }
}

/// Resolves names to public addresses only, at connect time, so that a name
/// that changes between check and use gains nothing.
#[derive(Clone, Copy)]
struct PublicOnly;

#[derive(Debug, thiserror::Error)]
#[error("its name resolves to no public address")]
struct NoPublicAddress;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|a| is_public(a.ip())).collect();
            if public.is_empty() {
                return Err(NoPublicAddress.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

fn tls_config() -> Result<rustls::ClientConfig, GuardError> {
    use rustls_platform_verifier::BuilderVerifierExt as _;
    let builder = || {
        rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .map_err(|e| GuardError(e.to_string()))
    };
    let mut config = match builder()?.with_platform_verifier() {
        Ok(verified) => verified.with_no_client_auth(),
        Err(_) => {
            let roots: rustls::RootCertStore =
                webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
            builder()?
                .with_root_certificates(roots)
                .with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow: &[&str], own: &[&str]) -> Guard {
        Guard::new(GuardOptions {
            allow_private: PrivateAllowlist::parse(allow).unwrap(),
            own: own.iter().map(|u| Url::parse(u).unwrap()).collect(),
        })
        .unwrap()
    }

    fn verdict(guard: &Guard, url: &str, trust: Trust) -> bool {
        guard.client_for(&Url::parse(url).unwrap(), trust).is_ok()
    }

    #[test]
    fn a_private_address_is_refused_however_it_is_written() {
        let guard = guard(&[], &[]);
        for url in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://10.0.0.1/",
            "https://172.31.255.255/",
            "https://192.168.0.1/",
            "https://169.254.169.254/latest/meta-data/",
            "https://100.100.100.200/",
            "https://0.0.0.0/",
            "https://[::1]/",
            "https://[::]/",
            "https://[fd00:ec2::254]/",
            "https://[fe80::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:a9fe:a9fe]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:7f00:1::]/",
            "http://127.0.0.1/",
            "http://example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
        ] {
            assert!(!verdict(&guard, url, Trust::Operator), "{url}");
            assert!(!verdict(&guard, url, Trust::Outside), "{url}");
        }
        assert!(verdict(&guard, "https://example.com/", Trust::Outside));
        assert!(verdict(&guard, "https://140.82.112.3/", Trust::Outside));
    }

    #[test]
    fn the_operators_allowlist_applies_to_what_an_administrator_wrote_only() {
        let guard = guard(&["127.0.0.1:*", "10.0.0.7:443"], &[]);
        for url in [
            "http://127.0.0.1:9/",
            "http://localhost:9/",
            "https://10.0.0.7/",
        ] {
            assert!(verdict(&guard, url, Trust::Operator), "{url}");
            assert!(!verdict(&guard, url, Trust::Outside), "{url}");
        }
        assert!(!verdict(&guard, "http://10.0.0.7:443/", Trust::Operator));
        assert!(!verdict(&guard, "https://10.0.0.8/", Trust::Operator));
    }

    #[test]
    fn countersign_never_calls_itself() {
        let guard = guard(
            &["127.0.0.1:*"],
            &["http://127.0.0.1:8700", "https://cs.example.com"],
        );
        for url in [
            "http://127.0.0.1:8700/",
            "http://localhost:8700/",
            "http://127.0.0.2:8700/",
            "https://[::ffff:127.0.0.1]:8700/",
            "https://0.0.0.0:8700/",
            "https://cs.example.com/x",
        ] {
            assert!(!verdict(&guard, url, Trust::Operator), "{url}");
        }
        assert!(verdict(&guard, "http://127.0.0.1:8701/", Trust::Operator));
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_a_private_address_is_refused_after_resolution() {
        let guard = guard(&[], &[]);
        let url = Url::parse("https://localhost:9/").unwrap();
        let result = guard
            .fetch(&url, Trust::Outside, 100, Duration::from_secs(5))
            .await;
        assert!(
            matches!(result, Err(FetchError::Send(SendError::Refused(_)))),
            "{result:?}"
        );
    }
}
