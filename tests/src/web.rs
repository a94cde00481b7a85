//! HTTP, without following redirects or keeping cookies.

use std::sync::Once;
use std::time::Duration;

use anyhow::Result;
use http::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

/// A client that trusts nobody to follow redirects for it.
#[derive(Clone)]
pub struct Web(Client);

/// An answer that was read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub text: String,
}

impl Answer {
    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// A header's text; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// Installs the one crypto provider; everything here is plain HTTP, but the
/// client wants to know.
pub(crate) fn crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

impl Web {
    /// A new client, with its own connections.
    ///
    /// # Errors
    /// If it cannot be set up.
    pub fn new() -> Result<Self> {
        crypto();
        Ok(Self(
            Client::builder()
                .redirect(Policy::none())
                .timeout(Duration::from_secs(120))
                .no_proxy()
                .build()?,
        ))
    }

    /// The client itself.
    pub fn client(&self) -> &Client {
        &self.0
    }

    /// A request to be filled.
    pub fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.0.request(method, url)
    }

    /// Sends it and reads the answer.
    ///
    /// # Errors
    /// Of the transport; every status is an answer.
    pub async fn send(request: RequestBuilder) -> Result<Answer> {
        let response = request.send().await?;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await?,
        })
    }

    /// `GET`.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn get(&self, url: &str) -> Result<Answer> {
        Self::send(self.0.get(url)).await
    }

    /// `POST` with JSON.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn post_json(&self, url: &str, body: &Value) -> Result<Answer> {
        Self::send(self.0.post(url).json(body)).await
    }

    /// `POST` with a form.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn post_form(&self, url: &str, form: &[(&str, &str)]) -> Result<Answer> {
        Self::send(self.0.post(url).form(form)).await
    }
}
