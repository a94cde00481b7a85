//! A small client of the host's own REST API.

use std::time::Duration;

use countersign_core::hosts::is_loopback;
use serde_json::{Map, Value};
use url::Url;
use zeroize::Zeroizing;

use super::session::Sessions;
use super::{CliError, Global};
use crate::config::Config;

const TIMEOUT: Duration = Duration::from_secs(60);
/// For what is as long as the store is large.
const STREAM_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const PAGE: usize = 500;

/// Talks to one host with one token. The token is never printed.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Zeroizing<String>,
}

/// An HTTP client for the operator's own host: no redirects, and TLS by ring.
pub(super) fn http() -> Result<reqwest::Client, CliError> {
    // A second call finds it installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    #[expect(
        clippy::disallowed_methods,
        reason = "the command line talks to the one host its user named; the guarded client is for hosts that others name"
    )]
    let builder = reqwest::Client::builder();
    builder
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .user_agent(concat!("countersign-cli/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| CliError(format!("the HTTP client does not start: {e}")))
}

/// The host to talk to: as given, or of the configuration, or where the user
/// signed in.
pub(super) fn host_url(global: &Global) -> Result<Url, CliError> {
    if let Some(text) = &global.url {
        return checked(text);
    }
    if global.config.exists() {
        let config = Config::load(&global.config).map_err(CliError::new)?;
        return Ok(config.server.public_url);
    }
    match Sessions::load()?.only_host() {
        Some(url) => checked(&url),
        None => Err(CliError(
            "which host? Give --url or COUNTERSIGN_URL, or --config with the host's countersign.toml".into(),
        )),
    }
}

fn checked(text: &str) -> Result<Url, CliError> {
    let url = Url::parse(text).map_err(|_| {
        CliError(format!("{text:?} is not a URL; write the host's public URL, like https://countersign.example.com"))
    })?;
    if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)) {
        return Ok(url);
    }
    Err(CliError(format!(
        "{text:?}: a token is only sent by https, or by http to this machine itself"
    )))
}

impl Client {
    pub(super) async fn of(global: &Global) -> Result<Self, CliError> {
        let base = host_url(global)?;
        let http = http()?;
        let token = match &global.token {
            Some(token) => Zeroizing::new(token.trim().to_owned()),
            None => super::login::kept_token(&http, &base).await?,
        };
        if !token.bytes().all(|b| b.is_ascii_graphic()) || token.is_empty() {
            return Err(CliError(
                "the token holds characters that no token has; copy it again".into(),
            ));
        }
        Ok(Self { http, base, token })
    }

    pub(super) async fn get(&self, path: &[&str]) -> Result<Value, CliError> {
        self.send(reqwest::Method::GET, path, &[], None).await
    }

    /// One thing, looked at in some way.
    pub(super) async fn get_with(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Value, CliError> {
        self.send(reqwest::Method::GET, path, query, None).await
    }

    /// All pages of a list as one list document.
    pub(super) async fn list(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Value, CliError> {
        let mut items = Vec::new();
        let mut token = String::new();
        loop {
            let mut query = query.to_vec();
            query.push(("page_size", PAGE.to_string()));
            if !token.is_empty() {
                query.push(("page_token", token));
            }
            let mut page = self.send(reqwest::Method::GET, path, &query, None).await?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            token = page
                .get("next_page_token")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            if token.is_empty() {
                // What else the list says is the same on every page.
                let mut list = page.as_object().cloned().unwrap_or_default();
                list.insert("total_size".into(), items.len().into());
                list.insert("items".into(), items.into());
                list.insert("next_page_token".into(), "".into());
                return Ok(list.into());
            }
        }
    }

    /// One page of a list.
    pub(super) async fn page(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Value, CliError> {
        self.get_with(path, query).await
    }

    pub(super) async fn post(
        &self,
        path: &[&str],
        body: Map<String, Value>,
    ) -> Result<Value, CliError> {
        self.send(reqwest::Method::POST, path, &[], Some(body))
            .await
    }

    /// [`Self::post`], in some way.
    pub(super) async fn post_with(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        body: Map<String, Value>,
    ) -> Result<Value, CliError> {
        self.send(reqwest::Method::POST, path, query, Some(body))
            .await
    }

    pub(super) async fn patch(
        &self,
        path: &[&str],
        body: Map<String, Value>,
    ) -> Result<Value, CliError> {
        self.send(reqwest::Method::PATCH, path, &[], Some(body))
            .await
    }

    pub(super) async fn put(
        &self,
        path: &[&str],
        body: Map<String, Value>,
    ) -> Result<Value, CliError> {
        self.send(reqwest::Method::PUT, path, &[], Some(body)).await
    }

    pub(super) async fn delete(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Value, CliError> {
        self.send(reqwest::Method::DELETE, path, query, None).await
    }

    /// What the host streams in answer to a `POST`.
    pub(super) async fn post_for_bytes(
        &self,
        path: &[&str],
    ) -> Result<impl futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + use<>, CliError>
    {
        let request = self.request(reqwest::Method::POST, path, &[]);
        let answer = request
            .timeout(STREAM_TIMEOUT)
            .send()
            .await
            .map_err(|e| unreachable_host(&self.base, &e))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.bytes_stream());
        }
        let text = answer.text().await.unwrap_or_default();
        match serde_json::from_str(&text) {
            Ok(problem) => Err(in_words(status.as_u16(), &problem)),
            Err(_) => Err(CliError(format!(
                "{} answered {status}, but not as Countersign does; is --url right?",
                self.base
            ))),
        }
    }

    fn request(
        &self,
        method: reqwest::Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, value);
        }
        self.http
            .request(method, url)
            .bearer_auth(self.token.as_str())
    }

    async fn send(
        &self,
        method: reqwest::Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<Map<String, Value>>,
    ) -> Result<Value, CliError> {
        let mut request = self.request(method, path, query);
        if let Some(body) = body {
            request = request.json(&Value::Object(body));
        }
        let answer = request
            .send()
            .await
            .map_err(|e| unreachable_host(&self.base, &e))?;
        let status = answer.status();
        let is_json = answer
            .headers()
            .get(reqwest::header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|t| t.contains("json"));
        let text = answer
            .text()
            .await
            .map_err(|e| unreachable_host(&self.base, &e))?;
        let value: Option<Value> = if is_json {
            serde_json::from_str(&text).ok()
        } else {
            None
        };
        match (status.is_success(), value) {
            (true, Some(value)) => Ok(value),
            (true, None) if text.is_empty() => Ok(Value::Null),
            (false, Some(problem)) => Err(in_words(status.as_u16(), &problem)),
            _ => Err(CliError(format!(
                "{} answered {status}, but not as Countersign does; is --url right?",
                self.base
            ))),
        }
    }
}

/// What the host said, and what to do about it.
fn in_words(status: u16, problem: &Value) -> CliError {
    let field = |name: &str| problem.get(name).and_then(Value::as_str);
    let detail = field("detail")
        .or_else(|| field("title"))
        .unwrap_or("the host refused");
    let mut text: String = detail
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if status == 401 {
        text.push_str("\n  Run `countersign login`, or give a token of kind api with --token or COUNTERSIGN_TOKEN.");
    }
    CliError(text)
}

pub(super) fn unreachable_host(base: &Url, error: &reqwest::Error) -> CliError {
    let why = if error.is_timeout() {
        "it did not answer in time".to_owned()
    } else if error.is_connect() {
        "no connection; is it running (`countersign serve`), and is --url right?".to_owned()
    } else {
        // Only the cause: the error's own text repeats the address.
        std::error::Error::source(error)
            .map_or_else(|| "the answer broke off".into(), ToString::to_string)
    };
    CliError(format!("{base} cannot be reached: {why}"))
}
