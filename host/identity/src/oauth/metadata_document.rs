//! Client ID metadata documents: a client whose id is the URL of its own
//! description (draft-ietf-oauth-client-id-metadata-document).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use countersign_core::names::ClientId;
use countersign_core::ports::BoxFuture;
use countersign_core::time::Timestamp;
use serde::Deserialize;
use url::Url;

use super::client::{Client, presentable};
use super::error::OAuthError;
use super::redirect;
use crate::service::Identity;

/// Why a document could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(
    /// A sentence without anything the other side sent.
    pub String,
);

/// Fetches a client's document. The implementation guards against requests to
/// private addresses (checked after resolution), follows no redirect, limits
/// time and size, and takes only a 200 with JSON.
pub trait MetadataFetcher: Send + Sync {
    /// The document's bytes.
    fn fetch<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<Vec<u8>, FetchError>>;
}

const KEEP: Duration = Duration::from_secs(300);
const CAPACITY: usize = 256;
const LARGEST: usize = 5 * 1024;

/// Documents fetched lately.
#[derive(Default)]
pub(crate) struct DocumentCache(Mutex<HashMap<ClientId, (Timestamp, Client)>>);

impl DocumentCache {
    fn find(&self, id: &ClientId, now: Timestamp) -> Option<Client> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache
            .get(id)
            .filter(|(until, _)| *until > now)
            .map(|(_, client)| client.clone())
    }

    fn keep(&self, client: Client, now: Timestamp) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CAPACITY {
            cache.retain(|_, (until, _)| *until > now);
        }
        if cache.len() >= CAPACITY {
            cache.clear();
        }
        cache.insert(client.id.clone(), (now.plus(KEEP), client));
    }
}

#[derive(Deserialize)]
struct Document {
    client_id: String,
    #[serde(default)]
    client_name: Option<String>,
    redirect_uris: Vec<String>,
    #[serde(default)]
    token_endpoint_auth_method: Option<String>,
    #[serde(default)]
    grant_types: Option<Vec<String>>,
    #[serde(default)]
    client_secret: Option<serde_json::Value>,
}

fn refused(why: impl Into<String>) -> OAuthError {
    OAuthError::new("invalid_client", why)
}

/// A client id that may be fetched: https, a path, and nothing that could be
/// read in two ways.
fn document_url(id: &ClientId) -> Result<Url, OAuthError> {
    let text = id.as_str();
    let url = Url::parse(text).map_err(|_| refused("the client id is not a URL"))?;
    let plain = url.scheme() == "https"
        && url.as_str() == text
        && url.path() != "/"
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if plain {
        Ok(url)
    } else {
        Err(refused(
            "a client id that is a URL must be plain https with a path, without user, fragment or dot segments",
        ))
    }
}

impl Identity {
    pub(crate) async fn client_by_document(&self, id: ClientId) -> Result<Client, OAuthError> {
        let Some(fetcher) = &self.0.metadata else {
            return Err(refused(
                "client ID metadata documents are not supported here; register the client instead",
            ));
        };
        let now = self.now();
        if let Some(client) = self.0.documents.find(&id, now) {
            return Ok(client);
        }
        let url = document_url(&id)?;
        let bytes = fetcher
            .fetch(&url)
            .await
            .map_err(|e| refused(format!("the client's document can't be fetched: {e}")))?;
        let client = read(&id, &bytes, now)?;
        self.0.documents.keep(client.clone(), now);
        Ok(client)
    }
}

fn read(id: &ClientId, bytes: &[u8], now: Timestamp) -> Result<Client, OAuthError> {
    if bytes.len() > LARGEST {
        return Err(refused("the client's document is larger than 5 KiB"));
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|_| {
        refused("the client's document is not one: it needs client_id and redirect_uris")
    })?;
    if document.client_id != id.as_str() {
        return Err(refused(
            "the client's document names another client_id than its own address",
        ));
    }
    let public = document
        .token_endpoint_auth_method
        .as_deref()
        .is_none_or(|m| m == "none");
    if !public || document.client_secret.is_some() {
        return Err(refused(
            "only public clients are supported: token_endpoint_auth_method must be none",
        ));
    }
    if !(1..=10).contains(&document.redirect_uris.len()) {
        return Err(refused(
            "the client's document must name 1 to 10 redirect_uris",
        ));
    }
    for uri in &document.redirect_uris {
        redirect::check(uri).map_err(refused)?;
    }
    let grants = document.grant_types.unwrap_or_default();
    Ok(Client {
        id: id.clone(),
        name: presentable(document.client_name.as_deref().unwrap_or_default()),
        redirect_uris: document.redirect_uris,
        refresh: grants.iter().any(|g| g == "refresh_token"),
        registered_at: now,
        known: true,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "https://agent.example/client.json";

    fn id(text: &str) -> ClientId {
        ClientId::parse(text).unwrap()
    }

    #[test]
    fn a_document_speaks_only_for_its_own_address() {
        let good = format!(
            r#"{{"client_id":"{ID}","client_name":"A","redirect_uris":["https://agent.example/cb"]}}"#
        );
        assert!(read(&id(ID), good.as_bytes(), Timestamp::from_secs(0)).is_ok());
        for bad in [
            good.replace(ID, "https://other.example/client.json"),
            good.replace("https://agent.example/cb", "http://agent.example/cb"),
            good.replace(
                "\"client_name\":\"A\"",
                "\"token_endpoint_auth_method\":\"client_secret_basic\"",
            ),
            good.replace("\"client_name\":\"A\"", "\"client_secret\":\"x\""),
            good.replace("[\"https://agent.example/cb\"]", "[]"),
            "<html>".into(),
            format!("{good}{}", " ".repeat(LARGEST)),
        ] {
            assert!(
                read(&id(ID), bad.as_bytes(), Timestamp::from_secs(0)).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_client_id_url_can_be_read_in_one_way_only() {
        assert!(document_url(&id(ID)).is_ok());
        for bad in [
            "https://agent.example",
            "https://agent.example/",
            "http://agent.example/c",
            "https://agent.example/a/../c",
            "https://u@agent.example/c",
            "https://agent.example/c#f",
            "https://AGENT.example/c",
            "https://agent.example:443/c",
        ] {
            assert!(document_url(&id(bad)).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_document_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&id(ID), &bytes, Timestamp::from_secs(0));
        }
    }
}
