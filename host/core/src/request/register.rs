//! Requests about the client itself: RFC 7591 and RFC 7592.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use url::Url;

use super::build::plain_headers;
use super::wire::header_value;
use super::{BoundSecret, Outgoing, RequestError};
use crate::registration::ClientMetadata;
use crate::secret::Secret;

/// What is done with a registration (RFC 7592 §2).
#[derive(Clone, Copy)]
pub enum Manage<'a> {
    /// Look at it.
    Read,
    /// Replace what it says.
    Replace {
        /// As it was given out.
        client_id: &'a str,
        /// The new document.
        metadata: &'a ClientMetadata,
    },
    /// End it.
    Delete,
}

/// Asks to be registered (RFC 7591 §3.1). Nothing in it is secret.
#[must_use]
pub fn registration_request(endpoint: &Url, metadata: &ClientMetadata) -> Outgoing {
    let mut headers = plain_headers();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Outgoing {
        method: http::Method::POST,
        url: endpoint.clone(),
        headers,
        body: Some(Bytes::from(metadata.document().to_string())),
    }
}

/// Manages a registration with its access token (RFC 7592 §2).
///
/// # Errors
/// [`RequestError`]; nothing was sent.
pub fn management_request(
    configuration: &Url,
    access_token: &BoundSecret,
    manage: Manage<'_>,
) -> Result<Outgoing, RequestError> {
    if !access_token.hosts.iter().any(|h| h.matches(configuration)) {
        return Err(RequestError::SecretBound(
            configuration.origin().ascii_serialization(),
        ));
    }
    let token = access_token
        .sealed
        .open()
        .map_err(|_| RequestError::Unreadable)?;
    let mut bearer = Vec::with_capacity(7 + token.len());
    bearer.extend_from_slice(b"Bearer ");
    bearer.extend_from_slice(token.expose());
    let mut headers = plain_headers();
    let value = header_value(AUTHORIZATION.as_str(), &Secret::new(bearer))?;
    headers.insert(AUTHORIZATION, value);
    let (method, body) = match manage {
        Manage::Read => (http::Method::GET, None),
        Manage::Delete => (http::Method::DELETE, None),
        Manage::Replace {
            client_id,
            metadata,
        } => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let mut document = metadata.document();
            document["client_id"] = Value::String(client_id.to_owned());
            (http::Method::PUT, Some(Bytes::from(document.to_string())))
        }
    };
    Ok(Outgoing {
        method,
        url: configuration.clone(),
        headers,
        body,
    })
}
