//! The published keys of external issuers: fetched when they are needed first,
//! kept for an hour, and fetched again when a token names one that is not among
//! them, once in a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::issuer::KeySet;
use countersign_core::ports::{BoxFuture, Clock};
use countersign_core::time::Timestamp;
use countersign_identity::IssuerKeys;
use countersign_oauth::http::{Guard, Trust};
use tokio::sync::Mutex;
use url::Url;

use crate::config::Issuer;

/// Keys are believed for so long.
const GOOD_FOR: Duration = Duration::from_secs(3600);
/// While newer ones cannot be had, at most for so long.
const AT_MOST: Duration = Duration::from_secs(86_400);
/// An issuer is asked once in this time, whatever is presented.
const REST: Duration = Duration::from_secs(30);
/// Longest document, in bytes.
const LIMIT: usize = 256 * 1024;
/// Longest time for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gets them over the guarded client.
pub struct PublishedKeys {
    guard: Guard,
    clock: Arc<dyn Clock>,
    issuers: HashMap<String, Published>,
}

struct Published {
    jwks_uri: Url,
    /// Held while they are fetched: nobody asks a second time meanwhile.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    keys: Option<(Timestamp, Arc<KeySet>)>,
    asked: Option<Timestamp>,
}

impl PublishedKeys {
    /// For these issuers.
    #[must_use]
    pub fn new(guard: Guard, clock: Arc<dyn Clock>, issuers: &[Issuer]) -> Self {
        let published = |issuer: &Issuer| Published {
            jwks_uri: issuer.jwks_uri.clone(),
            known: Mutex::default(),
        };
        let issuers = issuers
            .iter()
            .map(|i| (i.issuer.clone(), published(i)))
            .collect();
        Self {
            guard,
            clock,
            issuers,
        }
    }

    async fn current(&self, issuer: &str, anew: bool) -> Option<Arc<KeySet>> {
        let published = self.issuers.get(issuer)?;
        let mut known = published.known.lock().await;
        let now = self.clock.now();
        let fresh = |at: Timestamp, within: Duration| now.since(at) < within;
        let is_good = known
            .keys
            .as_ref()
            .is_some_and(|(at, _)| fresh(*at, GOOD_FOR));
        let was_asked = known.asked.is_some_and(|at| fresh(at, REST));
        if (!is_good || anew) && !was_asked {
            known.asked = Some(now);
            let uri = &published.jwks_uri;
            let fetched = self
                .guard
                .fetch(uri, Trust::Operator, LIMIT, PATIENCE)
                .await;
            match fetched.map_err(|e| e.to_string()).and_then(|document| {
                KeySet::parse(&document).ok_or_else(|| "it is no JWK set".to_owned())
            }) {
                Ok(keys) => known.keys = Some((now, Arc::new(keys))),
                Err(why) => {
                    tracing::warn!(issuer, %uri, why, "an issuer's keys cannot be had");
                }
            }
        }
        let (at, keys) = known.keys.as_ref()?;
        fresh(*at, AT_MOST).then(|| Arc::clone(keys))
    }
}

impl IssuerKeys for PublishedKeys {
    fn keys<'a>(&'a self, issuer: &'a str, anew: bool) -> BoxFuture<'a, Option<Arc<KeySet>>> {
        Box::pin(self.current(issuer, anew))
    }
}
