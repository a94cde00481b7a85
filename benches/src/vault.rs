//! What the vault costs on each store, side by side: reads, durable writes, a
//! storm of renewals, sweeps, and the start with very many connections.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use countersign_core::ports::{
    Change, Clock, Expect, Kind, Random, RecordKey, Records, SecretChange, Write,
};
use countersign_core::secret::Secret;
use countersign_core::time::Timestamp;
use countersign_tests::postgres::Cluster;
use countersign_vault::keys::KeyRing;
use countersign_vault::store::Store;
use countersign_vault::store::postgres::{Database, PostgresOptions, PostgresStore};
use countersign_vault::store::sled::SledStore;
use countersign_vault::vault::{OpenOptions, Vault};
use serde_json::{Map, Value, json};

/// Durable writes of one row.
const WRITES: usize = 2_000;
/// Reads of one row.
const READS: usize = 200_000;
/// Connections that are read from.
const READ_FROM: usize = 1_000;
/// Renewals that fall due within a minute.
const STORM: usize = 10_000;
/// How many of them are under way at once.
const AT_ONCE: usize = 64;
/// Records written in one batch while a store is filled.
const BATCH: usize = 50;

/// What `vault` takes.
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// How many connections there are when sweeps and starts are measured
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 1_000_000])]
    connections: Vec<usize>,
    /// Writes the figures as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

struct Now(Instant);

impl Clock for Now {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_000_000)
    }
    fn monotonic_micros(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
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

/// Where a store is opened again and again.
enum Place {
    Sled(tempfile::TempDir),
    Postgres { cluster: Cluster, address: String },
}

impl Place {
    fn name(&self) -> &'static str {
        match self {
            Self::Sled(_) => "sled",
            Self::Postgres { .. } => "PostgreSQL",
        }
    }

    fn sled() -> Result<Self> {
        Ok(Self::Sled(tempfile::tempdir()?))
    }

    fn postgres() -> Result<Self> {
        let cluster = Cluster::start().context("PostgreSQL")?;
        let address = Cluster::with_password(&cluster.database()?);
        Ok(Self::Postgres { cluster, address })
    }

    async fn store(&self) -> Result<Arc<dyn Store>> {
        Ok(match self {
            Self::Sled(folder) => sled(folder.path()).await?,
            Self::Postgres { address, .. } => {
                let (clock, random) = (Arc::new(Now(Instant::now())), Arc::new(Os));
                let database = Database::parse(address)?;
                let options = PostgresOptions::default();
                Arc::new(PostgresStore::open(database, clock, random, options).await?)
            }
        })
    }

    async fn open(&self) -> Result<Arc<Vault>> {
        let ring = KeyRing::single([7; 32]);
        let store = self.store().await?;
        let vault = Vault::open(store, ring, Arc::new(Os), OpenOptions::default()).await?;
        Ok(Arc::new(vault))
    }

    /// Lets the database settle, as it would by itself in the background.
    fn settle(&self) -> Result<()> {
        if let Self::Postgres { cluster, address } = self {
            cluster.sql(address, "VACUUM ANALYZE")?;
        }
        Ok(())
    }
}

async fn sled(folder: &Path) -> Result<Arc<dyn Store>> {
    let folder = folder.join("vault");
    let store = tokio::task::spawn_blocking(move || SledStore::open(&folder)).await??;
    Ok(Arc::new(store))
}

async fn close(vault: Arc<Vault>) -> Result<()> {
    let vault = Arc::into_inner(vault).context("the vault is still in use")?;
    vault.close().await;
    Ok(())
}

fn key(n: usize) -> RecordKey {
    RecordKey::within(Kind::Connection, format!("user{}", n / 3), format!("c{n}"))
}

/// About as large as a connection with its tokens is.
fn connection(n: usize, revision: usize) -> Write {
    let document = format!(
        "{{\"provider\":\"github\",\"user\":\"user{}\",\"revision\":{revision},\"scopes\":\"{}\"}}",
        n / 3,
        "repo read:user ".repeat(20)
    );
    let tokens = format!("{n}-{revision}-").repeat(1) + &"t".repeat(400);
    Write {
        key: key(n),
        expect: Expect::Anything,
        change: Some(Change {
            document: document.into_bytes(),
            secret: SecretChange::Set(Secret::from_text(tokens)),
            expires_at: None,
        }),
    }
}

fn lease(n: usize) -> Write {
    Write {
        key: RecordKey::new(Kind::Lease, format!("c{n}")),
        expect: Expect::Anything,
        change: Some(Change {
            document: b"{\"holder\":\"a\",\"fence\":1,\"until\":1}".to_vec(),
            secret: SecretChange::Keep,
            expires_at: Some(Timestamp::from_secs(2_000_000)),
        }),
    }
}

/// Writes connections from number `from` on, until there are `to`.
async fn fill(vault: &Arc<Vault>, from: usize, to: usize) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(from));
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (vault, next) = (Arc::clone(vault), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let first = next.fetch_add(BATCH, Ordering::Relaxed);
                    if first >= to {
                        return Ok::<_, anyhow::Error>(());
                    }
                    let last = (first + BATCH).min(to);
                    let batch = (first..last).map(|n| connection(n, 0)).collect();
                    vault.write(batch).await?;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    Ok(())
}

/// One after the other, by so many writers; how long all of it took.
async fn writes(vault: &Arc<Vault>, writers: usize, count: usize) -> Result<Duration> {
    let start = Instant::now();
    let workers: Vec<_> = (0..writers)
        .map(|writer| {
            let vault = Arc::clone(vault);
            tokio::spawn(async move {
                for n in 0..count / writers {
                    vault.write(vec![connection(writer, n)]).await?;
                }
                Ok::<_, anyhow::Error>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    Ok(start.elapsed())
}

/// What the vault does for each renewal: the lease, the word that the token
/// goes out, and the new tokens with the lease given back.
async fn storm(vault: &Arc<Vault>) -> Result<Duration> {
    let start = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (vault, next) = (Arc::clone(vault), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= STORM {
                        return Ok::<_, anyhow::Error>(());
                    }
                    vault.get(&key(n)).await?;
                    vault.write(vec![lease(n)]).await?;
                    vault.write(vec![lease(n)]).await?;
                    vault.write(vec![connection(n, 1), lease(n)]).await?;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    Ok(start.elapsed())
}

async fn reads(vault: &Vault) -> Result<Duration> {
    let start = Instant::now();
    for n in 0..READS {
        let found = vault.get(&key(n % READ_FROM)).await?;
        ensure!(found.is_some_and(|r| r.secret.is_some()), "it is not there");
    }
    Ok(start.elapsed())
}

fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

impl Bench {
    /// Measures, and prints the table.
    pub(crate) async fn run(self) -> Result<()> {
        let mut columns = Vec::new();
        for make in [Place::sled, Place::postgres] {
            let place = tokio::task::spawn_blocking(make).await??;
            eprintln!("· {}", place.name());
            columns.push((place.name(), self.measure(&place).await?));
        }
        println!("\n| the vault | {} | {} |", columns[0].0, columns[1].0);
        println!("|---|---:|---:|");
        let (first, second) = (&columns[0].1, &columns[1].1);
        for ((name, a, _), (_, b, _)) in first.iter().zip(second) {
            println!("| {name} | {a} | {b} |");
        }
        if let Some(file) = &self.json {
            let mut all = Map::new();
            for (store, rows) in &columns {
                let rows: Map<String, Value> = rows
                    .iter()
                    .map(|(name, _, seconds)| (name.clone(), json!(seconds)))
                    .collect();
                all.insert((*store).to_owned(), rows.into());
            }
            std::fs::write(file, serde_json::to_string_pretty(&all)?)?;
        }
        Ok(())
    }

    async fn measure(&self, place: &Place) -> Result<Vec<(String, String, f64)>> {
        let mut rows = Vec::new();
        let mut row = |name: String, shown: String, time: f64| {
            eprintln!("  {name}: {shown}");
            rows.push((name, shown, time));
        };
        let vault = place.open().await?;
        fill(&vault, 0, STORM.max(READ_FROM)).await?;
        let each = reads(&vault).await?.as_secs_f64() / READS as f64;
        row("sealed read".into(), format!("{:.1} µs", each * 1e6), each);
        for writers in [1, 32] {
            let count = WRITES * if writers == 1 { 1 } else { 10 };
            let each = writes(&vault, writers, count).await?.as_secs_f64() / count as f64;
            row(
                format!(
                    "durable write, {writers} writer{}",
                    if writers == 1 { "" } else { "s" }
                ),
                format!("{:.0} µs ({:.0} a second)", each * 1e6, 1.0 / each),
                each,
            );
        }
        let time = storm(&vault).await?;
        row(
            format!("the vault's part of {STORM} renewals"),
            seconds(time),
            time.as_secs_f64(),
        );
        close(vault).await?;
        let mut there = STORM;
        for &connections in &self.connections {
            let vault = place.open().await?;
            fill(&vault, there, connections).await?;
            there = there.max(connections);
            place.settle()?;
            let start = Instant::now();
            ensure!(vault.sweep(Timestamp::from_secs(1_000_000)).await? == 0);
            let time = start.elapsed();
            row(
                format!("sweep over {connections} connections, none due"),
                seconds(time),
                time.as_secs_f64(),
            );
            close(vault).await?;
            let start = Instant::now();
            let vault = place.open().await?;
            let time = start.elapsed();
            ensure!(vault.damage().is_empty());
            row(
                format!("start with {connections} connections"),
                seconds(time),
                time.as_secs_f64(),
            );
            close(vault).await?;
        }
        Ok(rows)
    }
}
