//! The parts of a running host, put together once.

use std::net::IpAddr;
use std::sync::Arc;

use countersign_core::address::PrivateAllowlist;
use countersign_core::error::CallError;
use countersign_core::ports::World;
use countersign_core::preset::PresetFault;
use countersign_identity::{FetchError, Identity, MetadataFetcher, Parts, PublicUrl, Settings};
use countersign_mcp::answer::state::States;
use countersign_mcp::envelope::Limits;
use countersign_mcp::session::Capsules;
use countersign_mcp::upstream::{HttpUpstream, UpstreamConfig};
use countersign_oauth::Oauth;
use countersign_oauth::http::{Guard, GuardOptions, Trust};
use countersign_presets::{Catalog, CompileCache, EngineConfig};
use countersign_vault::audit::AuditLog;
use countersign_vault::vault::Vault;
use http::HeaderMap;
use url::Url;

use crate::accounts::ConnectionKeeper;
use crate::approvals::Approvals;
use crate::attachments::Attachments;
use crate::call::held::HeldCalls;
use crate::call::sessions::SessionCache;
use crate::config::Config;
use crate::discovery::Discoveries;
use crate::issuers::PublishedKeys;
use crate::opening::{Opened, OpeningError};
use crate::registry::Registry;
use crate::user_keys::UserKeys;

/// Everything a request may need.
pub struct App {
    /// What the operator wrote.
    pub config: Config,
    /// What the host is called from outside.
    pub public_url: Url,
    /// Clock, randomness, records, audit.
    pub world: World,
    /// The records, as the vault.
    pub vault: Arc<Vault>,
    /// The key-encryption keys.
    pub sealing: Arc<crate::keys::HostKeys>,
    /// The audit log, for reading.
    pub audit: Arc<AuditLog>,
    /// Providers, servers, secrets, approvals.
    pub registry: Arc<Registry>,
    /// Presets.
    pub catalog: Arc<Catalog>,
    /// Whether what the configuration says of them now can be used.
    pub trust: Arc<crate::trust::Standing>,
    /// Who is calling.
    pub identity: Identity,
    /// The client of providers.
    pub oauth: Arc<Oauth>,
    /// Users' own keys for servers.
    pub keys: UserKeys,
    /// What is found out and registered.
    pub discoveries: Arc<Discoveries>,
    /// Servers as calls meet them.
    pub attachments: Attachments,
    /// The transport to MCP servers.
    pub upstream: HttpUpstream,
    /// Session ids towards clients with sessions.
    pub capsules: Capsules,
    /// `requestState` of calls that wait for the user.
    pub states: States,
    /// Calls that are held open for the user.
    pub held: HeldCalls,
    /// What users are asked before a call, and what they answered.
    pub approvals: Approvals,
    /// Upstream sessions that were used lately.
    pub sessions: SessionCache,
    /// When the use of a connection was last noted.
    pub noted: std::sync::Mutex<
        std::collections::HashMap<
            countersign_core::names::ConnectionId,
            countersign_core::time::Timestamp,
        >,
    >,
    /// What is refused to callers whom nobody knows.
    pub strangers: Arc<crate::http::strangers::Strangers>,
    /// Names for calls.
    pub(crate) calls: crate::call::ids::CallIds,
    /// What is counted.
    pub metrics: Arc<crate::metrics::Metrics>,
    /// Faults of presets, on their way to the catalog.
    pub faults: Arc<crate::faults::Faults>,
    /// What decisions were made by, where a server records it.
    pub recorder: Arc<crate::replay::Recorder>,
    /// How large and deep a message may be.
    pub limits: Limits,
    /// The origins a browser may call from.
    pub origins: Vec<String>,
    /// Recognises equal arguments in the audit log without keeping them.
    pub arguments_key: countersign_core::secret::MacKey,
}

/// Why the host does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Opening(#[from] OpeningError),
    /// A part that is made from the configuration.
    #[error("{0}")]
    Part(String),
}

fn part(error: impl std::fmt::Display) -> StartError {
    StartError::Part(error.to_string())
}

impl App {
    /// Opens the store, the catalog and everything above them.
    ///
    /// # Errors
    /// [`StartError`] says what to mend; nothing is served.
    pub async fn open(config: Config) -> Result<Arc<Self>, StartError> {
        let opened = Opened::new(&config).await?;
        for damage in opened.vault.damage() {
            tracing::error!(%damage, "a stored record is damaged");
        }
        let world = opened.world.clone();
        let public_url = config.server.public_url.clone();
        let cache = CompileCache::new(
            &config.server.data_dir.join("compiled"),
            &opened.key("compiled presets").map_err(OpeningError::from)?,
        );
        let catalog = open_catalog(&config, cache).await?;
        let registry = Registry::open(world.clone(), &config, catalog.clone())
            .await
            .map_err(OpeningError::from)?;
        crate::epoch::settle(&world, &registry)
            .await
            .map_err(OpeningError::from)?;
        let allow = allowlist(&config)?;
        let guard = Guard::new(GuardOptions {
            allow_private: allow.clone(),
            own: own_urls(&config),
        })
        .map_err(part)?;
        let metrics = Arc::new(crate::metrics::Metrics::default());
        let oauth = Oauth::caring(
            world.clone(),
            Arc::new(guard.clone()),
            public_url.clone(),
            config.refresh,
            metrics.clone(),
        );
        let faults = Arc::new(crate::faults::Faults::default());
        oauth.tell_faults(faults.clone());
        let discoveries = Discoveries::new(
            Arc::clone(&registry),
            Arc::clone(&oauth),
            guard.clone(),
            public_url.clone(),
            world.clone(),
        );
        let key = |purpose: &str| {
            opened
                .key(purpose)
                .map_err(|e| StartError::Opening(e.into()))
        };
        let key_of_epoch = |purpose: &str| {
            opened
                .key_of_epoch(purpose)
                .map_err(|e| StartError::Opening(e.into()))
        };
        let keeper = ConnectionKeeper {
            oauth: Arc::clone(&oauth),
            registry: Arc::clone(&registry),
            keys: UserKeys::new(world.clone()),
        };
        let identity = Identity::new(Parts {
            world: world.clone(),
            key: key("identity")?,
            settings: Settings {
                issuers: config.identity.issuers.iter().map(Into::into).collect(),
                ..Settings::new(PublicUrl::parse(public_url.as_str()).map_err(part)?)
            },
            resources: registry.clone(),
            accounts: Arc::new(keeper),
            issuer_keys: Some(Arc::new(PublishedKeys::new(
                guard.clone(),
                Arc::clone(&world.clock),
                &config.identity.issuers,
            ))),
            metadata: Some(Arc::new(ClientDocuments(guard))),
        });
        let upstream = HttpUpstream::new(
            UpstreamConfig::default(),
            Arc::new(UpstreamGuard {
                private: allow,
                own: config.server.listen,
            }),
        )
        .map_err(part)?;
        Ok(Arc::new(Self {
            attachments: Attachments::new(
                Arc::clone(&registry),
                Arc::clone(&catalog),
                config.presets.remember_verdicts,
            ),
            upstream,
            capsules: Capsules::new(&key_of_epoch("mcp sessions")?),
            states: States::new(&key_of_epoch("mcp request state")?),
            held: HeldCalls::default(),
            approvals: Approvals::new(
                world.clone(),
                key_of_epoch("approvals")?,
                public_url.clone(),
            ),
            keys: UserKeys::new(world.clone()),
            sessions: SessionCache::default(),
            noted: std::sync::Mutex::default(),
            strangers: Arc::default(),
            calls: crate::call::ids::CallIds::new(&*world.random),
            metrics,
            faults,
            recorder: Arc::new(crate::replay::Recorder::new(key("recorded decisions")?)),
            limits: Limits::default(),
            origins: vec![public_url.origin().ascii_serialization()],
            arguments_key: key("audit arguments")?.for_macs(),
            sealing: crate::keys::HostKeys::new(
                world.clone(),
                Arc::clone(&opened.vault),
                config.file.clone(),
            ),
            vault: opened.vault,
            audit: opened.audit,
            config,
            public_url,
            world,
            registry,
            catalog,
            trust: Arc::default(),
            identity,
            oauth,
            discoveries,
        }))
    }

    /// Where a request comes from: the peer, or whom a trusted proxy names.
    #[must_use]
    pub fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        crate::http::address::of(&self.config.server.trusted_proxies, peer, headers)
    }

    /// A request of somebody unknown was refused.
    pub(crate) fn refused_stranger(
        &self,
        reason: &'static str,
        peer: IpAddr,
        headers: &HeaderMap,
        resource: impl Into<String>,
    ) {
        let address = self.client_address(peer, headers);
        let (audit, now) = (&*self.world.audit, self.world.clock.now());
        self.strangers
            .refused(audit, now, reason, address, resource.into());
    }

    /// Whether calls can be answered: store and keys, and the presets of all
    /// enabled providers.
    #[must_use]
    pub fn readiness(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.world.records.is_ready() {
            missing.push("store: writes are not acknowledged; see the log".to_owned());
        }
        missing
    }
}

async fn open_catalog(config: &Config, cache: CompileCache) -> Result<Arc<Catalog>, StartError> {
    let folder = config.server.catalog_dir.clone();
    let trust = config.presets.trust.clone();
    // Compiling takes some milliseconds a preset.
    tokio::task::spawn_blocking(move || {
        Catalog::open_with(&folder, EngineConfig::default(), trust, Some(cache))
    })
    .await
    .map_err(part)?
    .map_err(part)
}

fn allowlist(config: &Config) -> Result<PrivateAllowlist, StartError> {
    let entries: Vec<String> = config
        .network
        .allow_private_upstreams
        .iter()
        .map(ToString::to_string)
        .collect();
    PrivateAllowlist::parse(&entries).map_err(part)
}

/// Addresses of Countersign itself: never called on anybody's behalf.
fn own_urls(config: &Config) -> Vec<Url> {
    let listen = Url::parse(&format!("http://{}", config.server.listen)).ok();
    listen
        .into_iter()
        .chain([config.server.public_url.clone()])
        .collect()
}

/// Which addresses MCP servers may be at.
struct UpstreamGuard {
    private: PrivateAllowlist,
    own: std::net::SocketAddr,
}

impl countersign_mcp::upstream::Guard for UpstreamGuard {
    fn permits(&self, host: &str, address: std::net::SocketAddr) -> bool {
        let named = || {
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.to_owned()
            };
            let url = Url::parse(&format!("http://{host}:{}", address.port()));
            url.is_ok_and(|url| self.private.allows(&url))
        };
        let public = countersign_core::address::is_public(address.ip());
        !self.is_own(address) && (public || named())
    }
}

impl UpstreamGuard {
    /// Countersign itself, however the address is written; one that listens
    /// everywhere is at every loopback address, too.
    fn is_own(&self, address: std::net::SocketAddr) -> bool {
        let (ip, own) = (address.ip().to_canonical(), self.own.ip().to_canonical());
        address.port() == self.own.port()
            && (ip == own || ip.is_unspecified() || (own.is_unspecified() && ip.is_loopback()))
    }
}

/// Fetches client ID metadata documents of agents.
struct ClientDocuments(Guard);

impl MetadataFetcher for ClientDocuments {
    fn fetch<'a>(
        &'a self,
        url: &'a Url,
    ) -> countersign_core::ports::BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        Box::pin(async move {
            self.0
                .fetch(
                    url,
                    Trust::Outside,
                    64 * 1024,
                    std::time::Duration::from_secs(5),
                )
                .await
                .map_err(|e| FetchError(e.to_string()))
        })
    }
}

/// The error for a store that does not answer in the middle of a call.
#[must_use]
pub fn store_error(error: &countersign_core::ports::StoreError) -> CallError {
    tracing::error!(%error, "the store failed in a call");
    match error {
        countersign_core::ports::StoreError::Damaged(_) => CallError::Preset(
            PresetFault::Unavailable("a stored record is damaged; see the log".into()),
        ),
        _ => CallError::Busy {
            retry_after: std::time::Duration::from_secs(1),
        },
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::address::PrivateAllowlist;
    use countersign_mcp::upstream::Guard as _;

    use super::UpstreamGuard;

    #[test]
    fn an_upstream_is_never_countersign_itself_nor_a_private_address_unless_named() {
        let guard = |own: &str| UpstreamGuard {
            private: PrivateAllowlist::parse(&["127.0.0.1:*", "[::1]:*"]).unwrap(),
            own: own.parse().unwrap(),
        };
        let cases = [
            ("127.0.0.1:8700", "127.0.0.1", "127.0.0.1:8700", false),
            (
                "127.0.0.1:8700",
                "localhost",
                "[::ffff:127.0.0.1]:8700",
                false,
            ),
            ("0.0.0.0:8700", "127.0.0.1", "127.0.0.1:8700", false),
            ("0.0.0.0:8700", "::1", "[::1]:8700", false),
            ("[::]:8700", "localhost", "127.0.0.1:8700", false),
            ("127.0.0.1:8700", "127.0.0.1", "127.0.0.1:9000", true),
            ("127.0.0.1:8700", "::1", "[::1]:9000", true),
            ("127.0.0.1:8700", "evil.example", "127.0.0.1:9000", false),
            (
                "127.0.0.1:8700",
                "evil.example",
                "[::ffff:10.0.0.1]:443",
                false,
            ),
            ("127.0.0.1:8700", "mcp.example", "1.1.1.1:443", true),
        ];
        for (own, host, address, expected) in cases {
            let permits = guard(own).permits(host, address.parse().unwrap());
            assert_eq!(permits, expected, "{own} {host} {address}");
        }
    }
}
