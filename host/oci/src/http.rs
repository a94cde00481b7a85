//! The one way to a registry: where a request may go, with which credentials,
//! and how much of an answer is read.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_core::address::{is_public, literal};
use countersign_core::hosts::is_loopback;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RANGE,
};
use reqwest::{Method, Response, StatusCode};
use url::Url;
use zeroize::Zeroizing;

use crate::auth::{Challenge, Credentials, TokenAnswer};
use crate::error::{OciError, What};
use crate::reference::Reference;

/// Longest error text or token answer that is read, in bytes.
const LARGEST_ANSWER: u64 = 64 << 10;
/// A body is sent in pieces of so many bytes.
const PIECE: usize = 64 << 10;
/// Redirects that one download may take.
const MOST_REDIRECTS: usize = 3;
/// Until a connection stands.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two pieces of an answer; what is sent must have gone by then, too.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Told how many bytes of a component are there, or on their way.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// How a registry is asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// By plain http; only for a registry on this machine.
    pub plain_http: bool,
}

/// A repository of a registry, and who asks.
pub struct Registry {
    pub(crate) reference: Reference,
    base: Url,
    credentials: Credentials,
    client: reqwest::Client,
    /// For addresses that the registry names: never private ones.
    outside: reqwest::Client,
    authorization: Mutex<Option<HeaderValue>>,
}

/// A request, before it is known who asks.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) what: What,
    pub(crate) accept: &'a str,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) from: u64,
    /// Told how much of the body is on its way.
    progress: Option<Progress>,
    /// `pull` or `pull,push`.
    pub(crate) right: &'static str,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(method: Method, url: Url, what: What) -> Self {
        let right = if method == Method::GET || method == Method::HEAD {
            "pull"
        } else {
            "pull,push"
        };
        Self {
            method,
            url,
            what,
            accept: "*/*",
            content_type: None,
            body: None,
            from: 0,
            progress: None,
            right,
        }
    }

    pub(crate) fn accept(self, accept: &'a str) -> Self {
        Self { accept, ..self }
    }

    pub(crate) fn body(self, content_type: &'a str, body: &'a [u8]) -> Self {
        Self {
            content_type: Some(content_type),
            body: Some(body),
            ..self
        }
    }

    pub(crate) fn telling(self, progress: &Progress) -> Self {
        Self {
            progress: Some(Arc::clone(progress)),
            ..self
        }
    }

    pub(crate) fn for_push(self) -> Self {
        Self {
            right: "pull,push",
            ..self
        }
    }
}

impl Registry {
    /// Prepares to ask; nothing is sent yet.
    ///
    /// # Errors
    /// [`OciError`] if plain http is meant for another machine.
    pub fn new(
        reference: Reference,
        credentials: Credentials,
        options: Options,
    ) -> Result<Self, OciError> {
        let scheme = if options.plain_http { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2/", reference.registry());
        let base = Url::parse(&base).map_err(|e| OciError::Client(e.to_string()))?;
        if options.plain_http && !is_loopback(&base) {
            return Err(OciError::PlainHttp(reference.registry().to_owned()));
        }
        Ok(Self {
            reference,
            client: client(None, is_loopback(&base))?,
            outside: client(Some(PublicOnly), false)?,
            base,
            credentials,
            authorization: Mutex::new(None),
        })
    }

    /// What is asked for.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The address of something in the repository.
    pub(crate) fn address(&self, tail: &str) -> Result<Url, OciError> {
        let path = format!("{}/{tail}", self.reference.repository());
        self.base
            .join(&path)
            .map_err(|e| OciError::Client(e.to_string()))
    }

    /// Asks, signs in if that is demanded, follows a download's redirects, and
    /// makes an error of every answer that is none of `good`.
    pub(crate) async fn ask(
        &self,
        ask: &Ask<'_>,
        good: &[StatusCode],
    ) -> Result<Response, OciError> {
        let mut response = self.send(ask).await?;
        if response.status() == StatusCode::UNAUTHORIZED && self.sign_in(&response, ask).await? {
            response = self.send(ask).await?;
        }
        let mut hops = 0;
        while ask.method == Method::GET && response.status().is_redirection() {
            hops += 1;
            let to = self.location(&response)?;
            if hops > MOST_REDIRECTS {
                return Err(self.elsewhere(&to, "it sends on and on"));
            }
            response = self
                .send(&Ask {
                    url: to,
                    ..Ask::of(ask)
                })
                .await?;
        }
        if good.contains(&response.status()) {
            return Ok(response);
        }
        Err(self.in_words(response, ask).await)
    }

    /// Credentials go to the registry's own origin and nowhere else.
    async fn send(&self, ask: &Ask<'_>) -> Result<Response, OciError> {
        let own = ask.url.origin() == self.base.origin();
        let client = if own { &self.client } else { &self.outside };
        if !own {
            self.may_go(&ask.url)?;
        }
        let mut request = client
            .request(ask.method.clone(), ask.url.clone())
            .header(ACCEPT, ask.accept);
        let authorization = self.known();
        if let Some(header) = authorization.filter(|_| own) {
            request = request.header(AUTHORIZATION, header);
        }
        if ask.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", ask.from));
        }
        if let (Some(content_type), Some(body)) = (ask.content_type, ask.body) {
            request = request
                .header(CONTENT_TYPE, content_type)
                .header(CONTENT_LENGTH, body.len())
                .body(in_pieces(body, ask.progress.clone()));
        }
        request.send().await.map_err(|e| self.unreachable(&e))
    }

    /// Does what the challenge demands. False if there is nothing to do it
    /// with.
    async fn sign_in(&self, response: &Response, ask: &Ask<'_>) -> Result<bool, OciError> {
        // A second refusal with the same credentials is final.
        let given = self.known();
        let found = match Challenge::of(response.headers()) {
            None => None,
            Some(Challenge::Basic) => self.credentials.header(),
            Some(Challenge::Bearer { realm, service }) => match &self.credentials {
                Credentials::Bearer(_) => self.credentials.header(),
                _ => self.token(realm, service.as_deref(), ask.right).await?,
            },
        };
        let new = found.is_some() && found != given;
        if new {
            *self
                .authorization
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = found;
        }
        Ok(new)
    }

    /// A token from the server that the registry names, for this repository
    /// alone.
    async fn token(
        &self,
        mut realm: Url,
        service: Option<&str>,
        right: &str,
    ) -> Result<Option<HeaderValue>, OciError> {
        let own = realm.origin() == self.base.origin();
        // A registry on this machine may have its token server beside it.
        let beside = is_loopback(&self.base) && is_loopback(&realm);
        if !own && !beside {
            self.may_go(&realm)?;
        }
        let scope = format!("repository:{}:{right}", self.reference.repository());
        let client = if own || beside {
            &self.client
        } else {
            &self.outside
        };
        let service = service.map(|service| ("service", service));
        let request = match &self.credentials {
            // RFC 6749 §6, as the distribution specification's token servers take it.
            Credentials::Identity(token) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.extend_pairs([
                    ("grant_type", "refresh_token"),
                    ("client_id", "countersign"),
                    ("scope", &scope),
                    ("refresh_token", token),
                ]);
                form.extend_pairs(service);
                let form = Zeroizing::new(form.finish());
                let body = reqwest::Body::from(form.as_bytes().to_vec());
                let kind = "application/x-www-form-urlencoded";
                client.post(realm).header(CONTENT_TYPE, kind).body(body)
            }
            credentials => {
                realm.query_pairs_mut().append_pair("scope", &scope);
                realm.query_pairs_mut().extend_pairs(service);
                let request = client.get(realm);
                match credentials.header() {
                    Some(header) => request.header(AUTHORIZATION, header),
                    None => request,
                }
            }
        };
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(None),
            status => return Err(self.status(What::Token, status, String::new())),
        }
        let bytes = self.capped(response, What::Token, LARGEST_ANSWER).await?;
        let answer: Option<TokenAnswer> = serde_json::from_slice(&bytes).ok();
        Ok(answer.and_then(TokenAnswer::header))
    }

    fn known(&self) -> Option<HeaderValue> {
        self.authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether an address that the registry named is one to go to.
    fn may_go(&self, url: &Url) -> Result<(), OciError> {
        if url.scheme() != "https" {
            return Err(self.elsewhere(url, "it is not https"));
        }
        if is_loopback(url) || literal(url).is_some_and(|ip| !is_public(ip)) {
            return Err(self.elsewhere(url, "it is a private address"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(self.elsewhere(url, "it carries credentials"));
        }
        Ok(())
    }

    /// The absolute address that an answer names.
    pub(crate) fn location(&self, response: &Response) -> Result<Url, OciError> {
        let text = response
            .headers()
            .get(LOCATION)
            .and_then(|v| v.to_str().ok());
        text.and_then(|text| response.url().join(text).ok())
            .ok_or_else(|| self.elsewhere(response.url(), "it does not say where to"))
    }

    fn elsewhere(&self, to: &Url, why: &'static str) -> OciError {
        OciError::Redirect {
            registry: self.reference.registry().to_owned(),
            to: to.host_str().unwrap_or("nowhere").to_owned(),
            why,
        }
    }

    /// Reads an answer of at most `most` bytes.
    pub(crate) async fn capped(
        &self,
        mut response: Response,
        what: What,
        most: u64,
    ) -> Result<Vec<u8>, OciError> {
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|e| self.unreachable(&e))? {
            bytes.extend_from_slice(&piece);
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if size > most {
                return Err(OciError::TooLarge { what, size, most });
            }
        }
        Ok(bytes)
    }

    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> OciError {
        let why = if error.is_timeout() {
            "it did not answer in time".to_owned()
        } else {
            // The innermost cause: the others repeat the address.
            let mut cause: &dyn std::error::Error = error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            let cause = plain(&cause.to_string());
            if cause.contains("UnknownIssuer") {
                format!(
                    "{cause}; if its certificate is of an authority of your own, put that into the system's store or \
                     name its file in SSL_CERT_FILE"
                )
            } else if is_loopback(&self.base) && self.base.scheme() == "https" {
                format!("{cause}; if it speaks plain http, give --plain-http")
            } else {
                cause
            }
        };
        OciError::Unreachable {
            registry: self.reference.registry().to_owned(),
            why,
        }
    }

    fn status(&self, what: What, status: StatusCode, said: String) -> OciError {
        OciError::Status {
            registry: self.reference.registry().to_owned(),
            what,
            status: status.as_u16(),
            said,
        }
    }

    async fn in_words(&self, response: Response, ask: &Ask<'_>) -> OciError {
        let registry = self.reference.registry().to_owned();
        match response.status() {
            StatusCode::UNAUTHORIZED => OciError::Unauthorized {
                registry,
                with: self.credentials.is_some(),
            },
            StatusCode::FORBIDDEN => OciError::Forbidden {
                registry,
                repository: self.reference.repository().to_owned(),
                right: if ask.right == "pull" { "pull" } else { "push" },
            },
            StatusCode::NOT_FOUND => OciError::NotFound(self.reference.to_string()),
            StatusCode::TOO_MANY_REQUESTS => OciError::RateLimited(registry),
            status => {
                let said = self.capped(response, ask.what, LARGEST_ANSWER).await;
                self.status(
                    ask.what,
                    status,
                    said.map_or_else(|_| String::new(), |b| first_message(&b)),
                )
            }
        }
    }
}

impl<'a> Ask<'a> {
    fn of(other: &'a Ask<'a>) -> Self {
        Self {
            method: other.method.clone(),
            url: other.url.clone(),
            what: other.what,
            accept: other.accept,
            content_type: other.content_type,
            body: other.body,
            from: other.from,
            progress: other.progress.clone(),
            right: other.right,
        }
    }
}

/// A body that says how far it is.
fn in_pieces(body: &[u8], progress: Option<Progress>) -> reqwest::Body {
    let Some(progress) = progress else {
        return reqwest::Body::from(body.to_vec());
    };
    let pieces: Vec<Vec<u8>> = body.chunks(PIECE).map(<[u8]>::to_vec).collect();
    let mut sent = 0;
    let told = pieces.into_iter().map(move |piece| {
        sent += u64::try_from(piece.len()).unwrap_or_default();
        progress(sent);
        Ok::<_, Infallible>(piece)
    });
    reqwest::Body::wrap_stream(futures_util::stream::iter(told))
}

/// The first message of a registry's error document, after a colon.
fn first_message(bytes: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    match value.pointer("/errors/0/message").and_then(|m| m.as_str()) {
        Some(message) => format!(": {}", plain(message)),
        None => String::new(),
    }
}

/// One short line without control characters.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect()
}

fn client(
    resolver: Option<PublicOnly>,
    on_this_machine: bool,
) -> Result<reqwest::Client, OciError> {
    // A second call finds it installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    #[expect(
        clippy::disallowed_methods,
        reason = "the registry is the one that the author named; what it names itself goes through the rules above"
    )]
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(PATIENCE)
        .read_timeout(LONGEST_WAIT)
        .user_agent(concat!("countersign-cli/", env!("CARGO_PKG_VERSION")));
    if let Some(resolver) = resolver {
        builder = builder.dns_resolver(Arc::new(resolver));
    }
    if on_this_machine {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|e| OciError::Client(e.to_string()))
}

/// Resolves names to public addresses only.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|a| is_public(a.ip())).collect();
            if public.is_empty() {
                return Err("it has no public address".into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}
