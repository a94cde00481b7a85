//! What is wrong with an installation, and what to do about it.
//!
//! [`outside`] looks at what surrounds the store and needs no running host;
//! [`inside`] looks into the store: in the host when it runs, in `doctor`
//! itself when it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use countersign_core::ports::{Kind, Records, StoreError, World, parse};
use countersign_core::provider::Provider;
use countersign_core::server::Server;
use countersign_core::time::Timestamp;
use countersign_vault::audit::{AuditFilter, AuditLog, AuditPage};
use countersign_vault::damage::Damage;
use countersign_vault::vault::Vault;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::{Config, Signatures};
use crate::epoch::Epoch;
use crate::keys::KeyView;

/// How long a name may take to resolve, and the public URL to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Less free disk than this is a problem, in bytes.
const NO_SPACE: u64 = 128 << 20;
/// Less than this is worth a word, in bytes.
const LITTLE_SPACE: u64 = 1 << 30;
/// Clocks that differ more than this break sign-ins.
const SKEW: Duration = Duration::from_secs(60);

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// In order.
    Ok,
    /// It works, but somebody should know.
    Warning,
    /// Something does not work, or soon will not.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub check: String,
    /// How it is.
    pub status: Health,
    /// What was found.
    pub detail: String,
    /// What to do; empty if nothing is to be done.
    pub advice: String,
}

impl Finding {
    /// In order.
    pub fn ok(check: &str, detail: impl Into<String>) -> Self {
        Self::new(check, Health::Ok, detail, "")
    }

    /// Worth a word.
    pub fn warning(check: &str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(check, Health::Warning, detail, advice)
    }

    /// Not in order.
    pub fn problem(check: &str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(check, Health::Problem, detail, advice)
    }

    fn new(
        check: &str,
        status: Health,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            check: check.to_owned(),
            status,
            detail: detail.into(),
            advice: advice.into(),
        }
    }
}

/// What can be seen without the store: folders, disk, addresses, trust.
/// `http` asks the public URL, if the host runs.
pub async fn outside(
    config: &Config,
    now: Timestamp,
    http: Option<&reqwest::Client>,
) -> Vec<Finding> {
    let mut found = vec![folder(config), disk(config), trust(config)];
    found.extend(address(config, http, now).await);
    found
}

fn folder(config: &Config) -> Finding {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = &config.server.data_dir;
    match std::fs::metadata(folder) {
        Err(cause) => Finding::problem(
            "data folder",
            format!("{}: {cause}", folder.display()),
            "run `countersign init`, or set [server] data_dir",
        ),
        Ok(facts) if facts.permissions().mode() & 0o077 != 0 => Finding::warning(
            "data folder",
            format!(
                "{} is open to others (mode {:04o})",
                folder.display(),
                facts.permissions().mode() & 0o7777
            ),
            format!("chmod 700 {}", folder.display()),
        ),
        Ok(_) => Finding::ok("data folder", folder.display().to_string()),
    }
}

fn disk(config: &Config) -> Finding {
    let folder = &config.server.data_dir;
    let free = match rustix::fs::statvfs(folder) {
        Ok(facts) => facts.f_bavail.saturating_mul(facts.f_frsize),
        Err(cause) => {
            return Finding::problem(
                "free disk",
                format!("{}: {cause}", folder.display()),
                "check that the disk is there",
            );
        }
    };
    let detail = format!("{} MiB free below {}", free >> 20, folder.display());
    let advice = "free some space: when the disk is full, writes fail and the host is not ready";
    match free {
        ..NO_SPACE => Finding::problem("free disk", detail, advice),
        NO_SPACE..LITTLE_SPACE => Finding::warning("free disk", detail, advice),
        _ => Finding::ok("free disk", detail),
    }
}

fn trust(config: &Config) -> Finding {
    let publishers = config.presets.trust.publishers.len();
    match (config.presets.signatures, publishers) {
        (Signatures::Off, _) => Finding::warning(
            "trust",
            "signatures of presets are not looked at",
            "write [presets] signatures = \"require\", and trust a publisher",
        ),
        (Signatures::Require, 0) => Finding::problem(
            "trust",
            "only signed presets are loaded, and no publisher is trusted: none is",
            "`countersign preset trust`, see `countersign preset keygen` to vouch for presets yourself",
        ),
        (_, count) => Finding::ok("trust", format!("{count} trusted publishers")),
    }
}

/// Whether agents reach the host where its public URL says.
async fn address(config: &Config, http: Option<&reqwest::Client>, now: Timestamp) -> Vec<Finding> {
    let (url, listen) = (&config.server.public_url, config.server.listen);
    let mut found = Vec::new();
    let is_local = countersign_core::hosts::is_loopback(url);
    if is_local && url.port_or_known_default() != Some(listen.port()) {
        found.push(Finding::problem(
            "public URL",
            format!("{url} is on this machine, but the host listens on {listen}"),
            "give [server] listen and public_url the same port",
        ));
    }
    let Some(http) = http else {
        found.push(Finding::ok(
            "public URL",
            format!("{url} (not asked: the host does not run)"),
        ));
        return found;
    };
    let unreachable = |why: String| {
        Finding::problem(
            "public URL",
            format!("{url} cannot be reached from here: {why}"),
            "check the proxy in front of the host, its certificate, and the name's address",
        )
    };
    let asked = match url.join("/readyz") {
        Ok(ready) => http.get(ready).timeout(PATIENCE).send().await,
        Err(error) => return vec![unreachable(error.to_string())],
    };
    let answer = match asked {
        Ok(answer) => answer,
        Err(error) => {
            let why = std::error::Error::source(&error).map_or_else(
                || "it did not answer".to_owned(),
                std::string::ToString::to_string,
            );
            found.push(unreachable(why));
            return found;
        }
    };
    let date = answer.headers().get("date").cloned();
    found.extend(date.and_then(|date| clock(date.to_str().ok()?, now)));
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap_or_default();
    found.push(match status {
        200 if text.trim() == "ready" => {
            Finding::ok("public URL", format!("{url} answers and is ready"))
        }
        503 => Finding::problem(
            "public URL",
            format!("{url} answers, but is not ready: {}", text.trim()),
            "see the host's log",
        ),
        _ => unreachable(format!("something else answers there (status {status})")),
    });
    found
}

/// This machine's clock beside the one of whoever answers for the public URL.
fn clock(date: &str, now: Timestamp) -> Option<Finding> {
    let there = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    let there = Timestamp::from_millis(there.as_millisecond());
    let apart = now.since(there).max(there.since(now));
    let detail = format!("{now} here, {there} at the public URL");
    Some(if apart > SKEW {
        Finding::problem(
            "clock",
            detail,
            "set the clock (NTP): tokens end too early or too late by as much",
        )
    } else {
        Finding::ok("clock", detail)
    })
}

/// What the store's parts are seen through.
pub struct Inside<'a> {
    /// Clock and records.
    pub world: &'a World,
    /// Their vault.
    pub vault: &'a Vault,
    /// The audit log.
    pub audit: &'a AuditLog,
    /// Whether a preset serves this provider; none if that is not known.
    pub serves: Option<&'a (dyn Fn(&Provider) -> bool + Send + Sync)>,
}

impl Inside<'_> {
    /// Looks into the store.
    ///
    /// # Errors
    /// The store's.
    pub async fn look(&self) -> Result<Vec<Finding>, StoreError> {
        let records = &*self.world.records;
        let mut found = self.damage();
        found.extend(self.keys().await?);
        found.extend(self.time().await?);
        if let Some(epoch) = Epoch::of(records).await?
            && !epoch.is_settled
        {
            found.push(Finding::warning(
                "epoch",
                "the store was restored, and its connections have not been looked at yet",
                "start the host: it does so before it serves",
            ));
        }
        found.extend(self.registered(records).await?);
        Ok(found)
    }

    fn damage(&self) -> Vec<Finding> {
        let damage = self.vault.damage();
        if damage.is_empty() {
            return vec![Finding::ok(
                "store",
                "every record opens, nothing is missing",
            )];
        }
        let check = |damage: &Damage| match damage {
            Damage::Record { .. } => "damaged record",
            Damage::Hole { .. } => "hole in the database",
            Damage::Head { .. } => "head",
        };
        let advice = "stop the host and run `countersign restore BACKUP --salvage`: what can be read \
                      stays, the rest comes from the backup";
        let problem = |each: &Damage| Finding::problem(check(each), each.to_string(), advice);
        damage.iter().map(problem).collect()
    }

    async fn keys(&self) -> Result<Vec<Finding>, StoreError> {
        let keys = self.vault.key_uses().await?.into_iter().map(KeyView::from);
        let found = keys.map(|key| {
            let source = key.source.as_deref().unwrap_or("no source");
            let detail = format!(
                "{} {} ({source}): {} records{}",
                key.role,
                key.id,
                key.records,
                if key.seals { ", seals" } else { "" }
            );
            match (key.role, key.seals) {
                ("current", true) => Finding::ok("key", detail),
                ("missing", _) => Finding::problem("key", detail, key.advice),
                _ => Finding::warning("key", detail, key.advice),
            }
        });
        Ok(found.collect())
    }

    /// Whether the clock has gone back behind what was written.
    async fn time(&self) -> Result<Option<Finding>, StoreError> {
        let now = self.world.clock.now();
        let page = AuditPage {
            before: None,
            size: 1,
        };
        let newest = self.audit.events(&AuditFilter::default(), &page).await?;
        let ahead = newest.events.first().filter(|e| e.time.since(now) > SKEW);
        Ok(ahead.map(|event| {
            Finding::problem(
                "clock",
                format!("it is {now}, but the audit log goes up to {}", event.time),
                "set the clock (NTP): it has gone back",
            )
        }))
    }

    async fn registered(&self, records: &dyn Records) -> Result<Vec<Finding>, StoreError> {
        let mut found = Vec::new();
        let mut secrets = BTreeSet::new();
        for record in records.list(Kind::Secret, None).await? {
            secrets.insert(record.key.name);
        }
        let mut providers: BTreeMap<String, Provider> = BTreeMap::new();
        for record in records.list(Kind::Provider, None).await? {
            let provider: Provider = parse(&record)?;
            providers.insert(provider.name.to_string(), provider);
        }
        for provider in providers.values().filter(|p| p.enabled) {
            self.provider(provider, &secrets, &mut found).await;
        }
        for record in records.list(Kind::Server, None).await? {
            let server: Server = parse(&record)?;
            if server.enabled {
                found.extend(server_problems(&server, &providers, &secrets));
            }
        }
        Ok(found)
    }

    async fn provider(
        &self,
        provider: &Provider,
        secrets: &BTreeSet<String>,
        found: &mut Vec<Finding>,
    ) {
        let check = format!("provider {}", provider.name);
        let before = found.len();
        let references = [&provider.client_secret_ref, &provider.private_key_ref];
        for name in references.into_iter().flatten() {
            if !secrets.contains(name.as_str()) {
                found.push(Finding::problem(
                    &check,
                    format!("its secret {name} is not set"),
                    format!("countersign secret set {name} < FILE"),
                ));
            }
        }
        if self.serves.is_some_and(|serves| !serves(provider)) {
            found.push(Finding::problem(
                &check,
                format!("no version of its preset {} serves it", provider.preset),
                "`countersign preset list` says why, and what to do",
            ));
        }
        let endpoints = [
            &provider.authorization_endpoint,
            &provider.token_endpoint,
            &provider.revocation_endpoint,
            &provider.device_authorization_endpoint,
        ];
        let mut asked = BTreeSet::new();
        for url in endpoints.into_iter().flatten() {
            if let Some(host) = url.host_str()
                && asked.insert(host.to_owned())
                && let Err(why) = resolves(url).await
            {
                found.push(Finding::problem(
                    &check,
                    format!("its host {host} does not resolve: {why}"),
                    "check the endpoint's spelling, and this machine's name service",
                ));
            }
        }
        if found.len() == before {
            found.push(Finding::ok(&check, "secrets and hosts are there"));
        }
    }
}

fn server_problems(
    server: &Server,
    providers: &BTreeMap<String, Provider>,
    secrets: &BTreeSet<String>,
) -> Vec<Finding> {
    let check = format!("server {}", server.name);
    let mut found = Vec::new();
    if let Some(name) = &server.auth.provider {
        match providers.get(name.as_str()) {
            None => found.push(Finding::problem(
                &check,
                format!("its provider {name} does not exist"),
                format!("countersign provider create {name} …, or give the server another one"),
            )),
            Some(provider) if !provider.enabled => found.push(Finding::problem(
                &check,
                format!("its provider {name} is disabled: no call gets through"),
                format!("countersign provider update {name} --enabled, or disable the server"),
            )),
            Some(_) => {}
        }
    }
    if let Some(name) = &server.auth.secret_ref
        && !secrets.contains(name.as_str())
    {
        found.push(Finding::problem(
            &check,
            format!("its secret {name} is not set"),
            format!("countersign secret set {name} < FILE"),
        ));
    }
    found
}

async fn resolves(url: &Url) -> Result<(), String> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(443);
    let name = host.trim_matches(['[', ']']);
    match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name, port))).await {
        Err(_) => Err("no answer in time".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(mut addresses)) => match addresses.next() {
            Some(_) => Ok(()),
            None => Err("it has no address".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_differs_from_the_public_urls_is_told() {
        let now = Timestamp::parse("2026-11-21T12:00:00Z").unwrap();
        let health = |date| clock(date, now).map(|found| found.status);
        assert_eq!(health("Sat, 21 Nov 2026 12:00:05 GMT"), Some(Health::Ok));
        assert_eq!(
            health("Sat, 21 Nov 2026 12:30:00 GMT"),
            Some(Health::Problem)
        );
        assert_eq!(health("yesterday"), None);
    }

    #[tokio::test]
    async fn a_host_that_does_not_resolve_is_told_and_one_that_does_is_not() {
        let resolved = |text: &str| {
            let url = Url::parse(text).unwrap();
            async move { resolves(&url).await }
        };
        assert_eq!(resolved("http://127.0.0.1:1/x").await, Ok(()));
        assert_eq!(resolved("http://[::1]/x").await, Ok(()));
        assert!(resolved("https://nobody.invalid/x").await.is_err());
    }
}
