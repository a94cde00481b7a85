//! Where a call's time goes: processor time of each step by itself, in this
//! process, with the same functions that the host calls.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use countersign_core::audit::{AuditEvent, CallRecord, Outcome};
use countersign_core::caller::{Caller, Permissions};
use countersign_core::connection::{Connection, Origins, State, TokenFacts};
use countersign_core::decide::Attachment;
use countersign_core::hosts::HostPattern;
use countersign_core::inject::{Plan, Request, Vaulted};
use countersign_core::names::{ClientId, ConnectionId, Digest, TeamName, UserName};
use countersign_core::policy::Rules as Policies;
use countersign_core::ports::{
    AuditSink as _, Change, Clock, Expect, Kind, Random, RecordKey, Records, Reread, SecretChange,
    Write,
};
use countersign_core::preset::{Call, GrantFacts, Preset};
use countersign_core::scope::ScopeSet;
use countersign_core::secret::Secret;
use countersign_core::server::Server;
use countersign_core::time::Timestamp;
use countersign_core::tokens::{CredentialTokens, TokenSet};
use countersign_mcp::envelope::{Limits, parse};
use countersign_presets::{Catalog, EngineConfig};
use countersign_vault::audit::{AuditLog, AuditOptions};
use countersign_vault::keys::KeyRing;
use countersign_vault::store::sled::SledStore;
use countersign_vault::vault::{OpenOptions, Vault};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::floor;

/// Of each step.
const TIMES: u32 = 20_000;

/// One step and what it costs, in microseconds of processor time.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) micros: f64,
}

struct Now;
impl Clock for Now {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_000_000)
    }
    fn monotonic_micros(&self) -> u64 {
        0
    }
}

struct Os;
impl Random for Os {
    fn fill(&self, buffer: &mut [u8]) {
        if getrandom::fill(buffer).is_err() {
            std::process::abort();
        }
    }
}

/// Processor time of the whole process: the audit log writes on threads of its
/// own.
fn used() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

fn stage(name: &'static str, mut step: impl FnMut() -> Result<()>) -> Result<Stage> {
    for _ in 0..TIMES / 20 {
        step()?;
    }
    let before = used();
    for _ in 0..TIMES {
        step()?;
    }
    Ok(Stage {
        name,
        micros: (used() - before).as_secs_f64() * 1e6 / f64::from(TIMES),
    })
}

/// Measures every step.
pub(crate) async fn measure(catalog: &Path) -> Result<Vec<Stage>> {
    let catalog = Catalog::open(catalog, EngineConfig::default())?;
    let preset = floor::bind(&catalog)?;
    let dir = tempfile::tempdir()?;
    let random: Arc<dyn Random> = Arc::new(Os);
    let store = Arc::new(SledStore::open(dir.path())?);
    let ring = KeyRing::single([7; 32]);
    let vault = Arc::new(Vault::open(store, ring, random, OpenOptions::default()).await?);

    let mut stages = vec![parsing()?, verdict(&*preset)?];
    stages.extend(credential(&vault, preset).await?);
    stages.push(audit(&vault).await?);
    Ok(stages)
}

fn parsing() -> Result<Stage> {
    let body = crate::load::body("search_issues", 7);
    let limits = Limits::default();
    stage("parse the message strictly", || {
        black_box(parse(body.as_bytes(), &limits)?);
        Ok(())
    })
}

fn verdict(preset: &dyn Preset) -> Result<Stage> {
    let scopes = ScopeSet::default();
    stage("verdict in a fresh sandbox", || {
        black_box(preset.evaluate(&call(), &facts(&scopes))?);
        Ok(())
    })
}

fn call() -> Call<'static> {
    Call {
        method: "tools/call",
        name: Some("search_issues"),
        arguments: None,
        host: "127.0.0.1",
    }
}

fn facts(scopes: &ScopeSet) -> GrantFacts<'_> {
    GrantFacts {
        scopes,
        account: None,
        facts: &[],
    }
}

/// Reading the connection, deciding, and filling in its token.
async fn credential(vault: &Arc<Vault>, preset: Arc<dyn Preset>) -> Result<Vec<Stage>> {
    let key = RecordKey::within(Kind::Connection, "ada", "default/floor/");
    let named = &preset.description().credentials;
    let name = named
        .first()
        .context("the preset has no credential")?
        .name
        .as_str();
    let connection = connection(name)?;
    let tokens = TokenSet {
        credentials: vec![CredentialTokens {
            credential: name.to_owned(),
            access_token: Secret::from_text("x".repeat(64)),
            refresh_token: Some(Secret::from_text("y".repeat(64))),
            id_token: None,
        }],
    };
    let write = Write {
        key: key.clone(),
        expect: Expect::Absent,
        change: Some(Change {
            document: serde_json::to_vec(&connection)?,
            secret: SecretChange::Set(tokens.into_secret()),
            expires_at: None,
        }),
    };
    vault.write(vec![write]).await?;
    let known = vault.get(&key).await?.context("the connection")?;

    let read = stage("read the connection from the vault", || {
        let again = ready(vault.reread(&key, known.version))?;
        anyhow::ensure!(matches!(black_box(again), Ok(Reread::Same(Some(_)))));
        Ok(())
    })?;
    let attachment = Arc::new(Attachment::new(
        Arc::new(server()?),
        Some(Arc::new(floor::provider()?)),
        Some(Arc::clone(&preset)),
        &Policies::default(),
    )?);
    let caller = caller()?;
    let now = Now.now();
    let decide = |fill: bool| -> Result<()> {
        let permit = attachment
            .admit(&caller, call())?
            .connected(Some(&connection), now)?
            .judge()?
            .agreed(None)?;
        if fill {
            let plan = Plan::new(permit, Some(&connection))?;
            let vaulted = Vaulted {
                tokens: known.secret.as_ref(),
                api_key: None,
            };
            let request = Request {
                method: http::Method::POST,
                headers: http::HeaderMap::new(),
                body: bytes::Bytes::new(),
            };
            black_box(plan.fill(&vaulted, request, now)?.into_parts().headers);
        }
        Ok(())
    };
    let judged = stage("", || decide(false))?;
    let filled = stage("", || decide(true))?;
    let alone = verdict(&*preset)?;
    Ok(vec![
        read,
        Stage {
            name: "decide around the verdict",
            micros: judged.micros - alone.micros,
        },
        Stage {
            name: "open the token and fill it in",
            micros: filled.micros - judged.micros,
        },
    ])
}

/// The vault answers reads at once.
fn ready<T>(future: impl Future<Output = T>) -> Result<T> {
    let future = std::pin::pin!(future);
    match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(value) => Ok(value),
        std::task::Poll::Pending => anyhow::bail!("a read of the vault had to wait"),
    }
}

/// An event from its making to its being durable, with those beside it.
async fn audit(vault: &Arc<Vault>) -> Result<Stage> {
    let records: Arc<dyn Records> = vault.clone();
    let log = AuditLog::open(records, Arc::new(Now), AuditOptions::default()).await?;
    let digest = Digest::of(b"preset");
    let before = used();
    // As fast as the host at its fastest, not faster than the log writes.
    for _ in 0..TIMES / 500 {
        for _ in 0..500 {
            log.enqueue(event(digest));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    log.flush().await?;
    let micros = (used() - before).as_secs_f64() * 1e6 / f64::from(TIMES);
    anyhow::ensure!(log.dropped() == 0, "the log could not follow");
    log.close().await;
    Ok(Stage {
        name: "audit event, made durable in batches",
        micros,
    })
}

fn event(preset: Digest) -> AuditEvent {
    let mut event = AuditEvent::new(Now.now(), "call", Outcome::Allowed)
        .by("ada")
        .on("server:notes");
    event.team = Some("default".into());
    event.client = Some("client_0123456789abcdef".into());
    event.call = Some(CallRecord {
        call_id: "call_0123456789abcdefghijkl".into(),
        method: "tools/call".into(),
        name: Some("search_issues".into()),
        arguments_hash: Some("0123456789abcdef01234567".into()),
        decided_by: "preset".into(),
        error: None,
        preset: Some(preset),
        connection: Some("conn_0123456789abcdef".into()),
        upstream_status: Some(200),
        latency_us: 321,
    });
    event
}

fn caller() -> Result<Caller> {
    Ok(Caller {
        user: UserName::parse("ada")?,
        team: TeamName::parse("default")?,
        client: ClientId::parse("bench")?,
        client_name: "Bench".into(),
        roles: std::collections::BTreeSet::new(),
        permissions: Permissions::default(),
        servers: None,
        has_browser_identity: true,
    })
}

fn server() -> Result<Server> {
    Ok(serde_json::from_value(json!({
        "name": "notes", "display_name": "Notes", "url": "http://127.0.0.1:1/mcp",
        "auth": {
            "mode": "user-delegated", "provider": "floor", "required_scopes": [],
        },
        "connection": "shared", "wait": "45s", "enabled": true,
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
    }))?)
}

fn connection(credential: &str) -> Result<Connection> {
    let now = Now.now();
    Ok(Connection {
        id: ConnectionId::parse("conn_0123456789abcdef")?,
        user: UserName::parse("ada")?,
        team: TeamName::parse("default")?,
        provider: countersign_core::names::ProviderName::parse("floor")?,
        resource: None,
        account: None,
        credentials: vec![TokenFacts {
            credential: credential.to_owned(),
            scopes: ScopeSet::default(),
            issued_at: now,
            expires_at: None,
            refresh_token_present: true,
            refresh_token_expires_at: None,
            refresh_token_end_is_fixed: false,
            renewal_lost_at: None,
        }],
        facts: Vec::new(),
        origins: Origins {
            token: "http://127.0.0.1:1".into(),
            revocation: None,
            audience: vec![HostPattern::parse("127.0.0.1:*")?],
            resource: None,
        },
        client_id: "floor".into(),
        preset_digest: Digest::of(b"preset"),
        state: State::Connected,
        generation: 1,
        created_at: now,
        updated_at: now,
        consented_at: None,
        last_used_at: Some(now),
        warned_of: None,
        withheld: ScopeSet::default(),
    })
}
