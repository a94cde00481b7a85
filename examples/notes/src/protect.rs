//! Who may come in: bearer tokens, checked at the authorization server.

use std::sync::Arc;

use anyhow::Context;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

/// Where RFC 9728 puts the metadata of `/mcp`.
pub(crate) const METADATA_PATH: &str = "/.well-known/oauth-protected-resource/mcp";

/// More than any introspection answer needs, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Whom a token was issued to.
#[derive(Clone)]
pub(crate) struct Subject {
    /// The user, by the authorization server's name.
    pub(crate) name: String,
    /// The OAuth client that obtained the token.
    pub(crate) client: String,
    /// What was granted.
    pub(crate) scopes: Vec<String>,
}

/// The check itself.
pub(crate) struct Gate {
    resource: String,
    issuer: String,
    challenge: HeaderValue,
    introspection: http::Uri,
    credentials: HeaderValue,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// RFC 7662 §2.2, as far as it is used.
#[derive(Deserialize)]
struct Introspection {
    active: bool,
    sub: Option<String>,
    client_id: Option<String>,
    scope: Option<String>,
    #[serde(default)]
    aud: Value,
}

impl Gate {
    /// For `{origin}/mcp`.
    pub(crate) fn new(
        origin: &str,
        issuer: &Url,
        introspection: &Url,
        client_id: &str,
        client_secret: &str,
    ) -> anyhow::Result<Self> {
        // RFC 6749 §2.3.1: both halves are form-encoded first.
        let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", encode(client_id), encode(client_secret));
        let mut credentials =
            HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair)))?;
        credentials.set_sensitive(true);
        Ok(Self {
            resource: format!("{origin}/mcp"),
            issuer: issuer.as_str().trim_end_matches('/').into(),
            challenge: HeaderValue::try_from(format!(
                "Bearer resource_metadata=\"{origin}{METADATA_PATH}\""
            ))?,
            introspection: introspection
                .as_str()
                .parse()
                .context("the introspection endpoint is no address")?,
            credentials,
            client: Client::builder(TokioExecutor::new()).build_http(),
        })
    }

    /// The protected resource's identifier: its address.
    pub(crate) fn resource(&self) -> &str {
        &self.resource
    }

    /// RFC 9728 §2.
    pub(crate) fn metadata(&self) -> Value {
        json!({
            "resource": self.resource,
            "authorization_servers": [self.issuer],
            "scopes_supported": ["notes:read", "notes:write"],
            "bearer_methods_supported": ["header"],
            "resource_name": "Example notes",
        })
    }

    /// Whose token this is; `None` for one that opens nothing here.
    async fn subject(&self, token: &str) -> anyhow::Result<Option<Subject>> {
        let form = Serializer::new(String::new())
            .append_pair("token", token)
            .finish();
        let request = http::Request::post(self.introspection.clone())
            .header(AUTHORIZATION, self.credentials.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)))?;
        let answer = self.client.request(request).await?;
        anyhow::ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(anyhow::Error::from_boxed)?
            .to_bytes();
        let answer: Introspection = serde_json::from_slice(&body)?;
        let meant_for_us = match &answer.aud {
            Value::String(one) => *one == self.resource,
            Value::Array(many) => many.iter().any(|one| *one == self.resource),
            _ => false,
        };
        Ok(match answer.sub {
            Some(name) if answer.active && meant_for_us => Some(Subject {
                name,
                client: answer.client_id.unwrap_or_default(),
                scopes: answer
                    .scope
                    .unwrap_or_default()
                    .split_whitespace()
                    .map(Into::into)
                    .collect(),
            }),
            _ => None,
        })
    }
}

/// Lets a request through with its [`Subject`], or answers 401 with the
/// challenge of RFC 9728 §5.1.
pub(crate) async fn guard(
    State(gate): State<Arc<Gate>>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned());
    let subject = match token {
        None => None,
        Some(token) => match gate.subject(&token).await {
            Ok(subject) => subject,
            Err(error) => {
                eprintln!("the authorization server can't be asked: {error:#}");
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
        },
    };
    match subject {
        Some(subject) => {
            request.extensions_mut().insert(subject);
            next.run(request).await
        }
        None => (
            StatusCode::UNAUTHORIZED,
            [(WWW_AUTHENTICATE, gate.challenge.clone())],
        )
            .into_response(),
    }
}
