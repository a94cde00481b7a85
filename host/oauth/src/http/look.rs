//! Looking at an address that may be anything: status, headers and the
//! beginning of the body all tell something.

use std::time::Duration;

use countersign_core::request::SendError;
use http::{HeaderMap, Method};
use url::Url;

use super::{Guard, Trust, send_error};

/// A request that carries no secret.
pub struct Look<'a> {
    /// GET, POST or DELETE.
    pub method: Method,
    /// Where.
    pub url: &'a Url,
    /// Beside those of HTTP itself.
    pub headers: &'a [(&'static str, &'a str)],
    /// JSON.
    pub body: Option<String>,
    /// Longest body that is read, in bytes.
    pub limit: usize,
    /// For all of it.
    pub timeout: Duration,
}

/// What came back. The body is read of answers with status 200 only.
pub struct Looked {
    /// The HTTP status.
    pub status: u16,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// The body, or as much of it as was enough.
    pub body: Vec<u8>,
}

impl Looked {
    /// The media type without its parameters, in lower case.
    #[must_use]
    pub fn media_type(&self) -> String {
        let value = self.headers.get(http::header::CONTENT_TYPE);
        let text = value.and_then(|v| v.to_str().ok()).unwrap_or_default();
        let essence = text.split(';').next().unwrap_or_default().trim();
        essence.chars().take(60).collect::<String>().to_lowercase()
    }
}

impl Guard {
    /// Whether an address may be called at all, before it is: what its name
    /// resolves to is judged when it is.
    ///
    /// # Errors
    /// [`SendError::Refused`] with the reason.
    pub fn admits(&self, url: &Url, trust: Trust) -> Result<(), SendError> {
        self.client_for(url, trust).map(drop)
    }

    /// Sends it and reads the answer, until `enough` says that what was read
    /// suffices: a stream may never end.
    ///
    /// # Errors
    /// [`SendError`]; every status is an answer.
    pub async fn look(
        &self,
        look: Look<'_>,
        trust: Trust,
        enough: impl Fn(&[u8]) -> bool + Send,
    ) -> Result<Looked, SendError> {
        let client = self.client_for(look.url, trust)?;
        let mut request = client
            .request(look.method, look.url.clone())
            .timeout(look.timeout);
        for (name, value) in look.headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = look.body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let mut response = request.send().await.map_err(|e| send_error(&e))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        while status == 200 && !enough(&body) {
            let Some(chunk) = response.chunk().await.map_err(|e| send_error(&e))? else {
                break;
            };
            if body.len() + chunk.len() > look.limit {
                return Err(SendError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Looked {
            status,
            headers,
            body,
        })
    }
}
