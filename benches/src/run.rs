//! Puts the parts together, measures each in turn and prints the table.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use countersign_tests::{Agent, Era, Host, HostOptions, Setup, World, target_folder};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::stages::{self, Stage};
use crate::swaps::{Swaps, swapped};

/// How long, how often, and where to.
#[derive(Args)]
pub(crate) struct Run {
    /// Measured seconds for each row.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Rounds; the median is shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Writes the figures as JSON too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder with the built presets.
    #[arg(long, default_value = "catalog")]
    catalog: PathBuf,
}

/// A process whose CPU time is counted.
struct Part {
    child: Child,
    address: String,
}

impl Part {
    async fn start(arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let address = BufReader::new(stdout)
            .lines()
            .next_line()
            .await?
            .context("it did not start")?;
        Ok(Self { child, address })
    }

    fn pid(&self) -> Result<u32> {
        self.child.id().context("it has ended")
    }
}

/// What is measured: where to call, and whose CPU time to count.
struct Subject<'a> {
    name: &'a str,
    url: String,
    pid: Option<u32>,
    token: Option<&'a str>,
}

impl Run {
    pub(crate) async fn run(self) -> Result<()> {
        let upstream = Part::start(&["upstream"]).await?;
        let proxy = Part::start(&["proxy", "--to", &upstream.address]).await?;
        let catalog = self.catalog.to_string_lossy().into_owned();
        let floor =
            Part::start(&["floor", "--to", &upstream.address, "--catalog", &catalog]).await?;
        let mut world = attach(&upstream.address).await?;
        let (_person, mut agent) = world.connected("bench", Era::PerRequest).await?;
        let started = first_call(&mut world, &mut agent).await?;
        let pid = world.host.pid().context("the host has ended")?;
        let idle = memory(pid)?;
        let token = agent.token.clone();
        let subjects = [
            Subject {
                name: "direct",
                url: at(&upstream.address),
                pid: None,
                token: None,
            },
            Subject {
                name: "bare proxy",
                url: at(&proxy.address),
                pid: Some(proxy.pid()?),
                token: None,
            },
            Subject {
                name: "second floor",
                url: at(&floor.address),
                pid: Some(floor.pid()?),
                token: None,
            },
            Subject {
                name: "countersign",
                url: world.host.at("/mcp/notes"),
                pid: Some(pid),
                token: Some(&token),
            },
        ];
        let mut rows = Vec::new();
        for concurrency in [1, 32] {
            for subject in &subjects {
                rows.push(self.measure(subject, concurrency, upstream.pid()?).await?);
            }
        }
        let memory_after = memory(pid)?;
        let (row, swaps) = self
            .swapping(&world.host, &subjects, upstream.pid()?)
            .await?;
        rows.push(row);
        rows.extend(self.remembered(&mut world, &token, upstream.pid()?).await?);
        let stages = stages::measure(&self.catalog).await?;
        report(&rows, started, idle, memory_after);
        tell_swaps(&rows, swaps);
        where_it_goes(&rows, &stages);
        if let Some(file) = &self.json {
            let all = json!({
                "rows": rows,
                "stages_us": stages.iter().map(|s| (s.name, s.micros)).collect::<std::collections::BTreeMap<_, _>>(),
                "first_call_ms": started,
                "swaps": swaps,
                "idle_rss_mib": idle, "rss_after_mib": memory_after,
            });
            std::fs::write(file, serde_json::to_string_pretty(&all)?)?;
        }
        Ok(())
    }

    /// The same host while its preset is exchanged over and over, and how often
    /// that was.
    async fn swapping(
        &self,
        host: &Host,
        subjects: &[Subject<'_>],
        upstream: u32,
    ) -> Result<(Value, usize)> {
        let own = subjects.last().context("no subject")?;
        let subject = Subject {
            name: "… swapping",
            url: own.url.clone(),
            ..*own
        };
        let mut swaps = Swaps::of(host)?;
        let row = tokio::select! {
            row = self.measure(&subject, 32, upstream) => row?,
            ended = swaps.go_on() => { ended?; anyhow::bail!("the swaps ended") }
        };
        Ok((row, swapped(host).await?))
    }

    /// The same host with verdicts remembered (`[presets] remember_verdicts`).
    async fn remembered(
        &self,
        world: &mut World,
        token: &str,
        upstream: u32,
    ) -> Result<Vec<Value>> {
        world.host.stop().await?;
        world.host.configure(|config| {
            if let Some(presets) = config.get_mut("presets").and_then(|p| p.as_table_mut()) {
                presets.insert("remember_verdicts".into(), true.into());
            }
        })?;
        world.host.serve().await?;
        let url = world.host.at("/mcp/notes");
        let pid = world.host.pid();
        let mut rows = Vec::new();
        for concurrency in [1, 32] {
            let subject = Subject {
                name: "… remembered",
                url: url.clone(),
                pid,
                token: Some(token),
            };
            rows.push(self.measure(&subject, concurrency, upstream).await?);
        }
        Ok(rows)
    }

    /// The median of the rounds by requests per second.
    async fn measure(
        &self,
        subject: &Subject<'_>,
        concurrency: usize,
        upstream: u32,
    ) -> Result<Value> {
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            let before = (cpu(subject.pid)?, cpu(Some(upstream))?);
            let mut figures = self.load(subject, concurrency).await?;
            let after = (cpu(subject.pid)?, cpu(Some(upstream))?);
            // Warm-up requests are counted by both: they cost the same.
            let requests = figures["all_requests"].as_f64().unwrap_or(1.0);
            figures["cpu_us"] = json!((after.0 - before.0) * 1e6 / requests);
            figures["upstream_cpu_us"] = json!((after.1 - before.1) * 1e6 / requests);
            rounds.push(figures);
        }
        rounds.sort_by(|a, b| {
            let speed = |v: &Value| v["per_second"].as_f64().unwrap_or_default();
            speed(a).total_cmp(&speed(b))
        });
        let mut row = rounds.swap_remove(rounds.len() / 2);
        row["name"] = json!(subject.name);
        row["concurrency"] = json!(concurrency);
        Ok(row)
    }

    async fn load(&self, subject: &Subject<'_>, concurrency: usize) -> Result<Value> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["load", "--url", &subject.url])
            .args(["--concurrency", &concurrency.to_string()])
            .args(["--seconds", &self.seconds.to_string()]);
        let file = tempfile::NamedTempFile::new()?;
        if let Some(token) = subject.token {
            std::fs::write(file.path(), token)?;
            command.arg("--token-file").arg(file.path());
        }
        let output = command.stderr(Stdio::inherit()).output().await?;
        ensure!(
            output.status.success(),
            "{}: the load was not answered",
            subject.name
        );
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// A host with the bench's upstream attached, on the real authorization server.
async fn attach(upstream: &str) -> Result<World> {
    let server_record = json!({ "url": at(upstream), "auth": { "required_scopes": [] } });
    let host = HostOptions {
        log: "warn".into(),
        ..HostOptions::default()
    };
    World::with(Setup {
        // Tokens that outlive the run: renewal is measured elsewhere.
        provider: &["--access-ttl", "36000"],
        provider_record: json!({ "resource": null }),
        server_record,
        host,
        ..Setup::default()
    })
    .await
}

/// Milliseconds from starting the program anew to its first answered call.
async fn first_call(world: &mut World, agent: &mut Agent) -> Result<f64> {
    world.host.stop().await?;
    let began = Instant::now();
    world.host.serve().await?;
    agent.call("search_issues", json!({})).await?;
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}

fn at(address: &str) -> String {
    format!("http://{address}/mcp")
}

/// CPU seconds of a process so far, user and system.
fn cpu(pid: Option<u32>) -> Result<f64> {
    let Some(pid) = pid else { return Ok(0.0) };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold blanks.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .context("stat")?
        .1
        .split_whitespace()
        .collect();
    let ticks = |n: usize| {
        fields
            .get(n)
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or_default()
    };
    Ok((ticks(11) + ticks(12)) / 100.0)
}

/// Resident memory in MiB.
fn memory(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .context("VmRSS")?;
    let kib = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<f64>().ok());
    Ok(kib.context("VmRSS")? / 1024.0)
}

fn report(rows: &[Value], started: f64, idle: f64, after: f64) {
    let figure = |row: &Value, name: &str| row[name].as_f64().unwrap_or_default();
    println!("tools/call of 2026-07-28; a fresh sandbox and a decryption for every call; audit on");
    println!("built in {}\n", target_folder().display());
    println!(
        "{:>4}  {:<13} {:>10} {:>9} {:>9} {:>8} {:>10} {:>9} {:>12}",
        "conc",
        "",
        "requests/s",
        "p50 µs",
        "p99 µs",
        "CPU µs",
        "upstream µs",
        "of direct",
        "of 2nd floor"
    );
    for row in rows {
        let of = |name: &str| {
            let other = rows
                .iter()
                .find(|r| r["name"] == name && r["concurrency"] == row["concurrency"])
                .map_or(1.0, |r| figure(r, "per_second"));
            figure(row, "per_second") / other
        };
        println!(
            "{:>4}  {:<13} {:>10.0} {:>9.0} {:>9.0} {:>8.1} {:>10.1} {:>9.2} {:>12.2}",
            row["concurrency"],
            row["name"].as_str().unwrap_or_default(),
            figure(row, "per_second"),
            figure(row, "p50_us"),
            figure(row, "p99_us"),
            figure(row, "cpu_us"),
            figure(row, "upstream_cpu_us"),
            of("direct"),
            of("second floor"),
        );
    }
    println!(
        "\nfirst call answered {started:.0} ms after start; idle RSS {idle:.0} MiB, {after:.0} MiB after the run"
    );
}

/// What swaps cost those who call meanwhile. A load that gets an error ends the
/// bench, so none of its calls failed.
fn tell_swaps(rows: &[Value], swaps: usize) {
    let p99 = |name: &str| {
        rows.iter()
            .find(|r| r["name"] == name && r["concurrency"] == 32)
            .and_then(|r| r["p99_us"].as_f64())
            .unwrap_or_default()
    };
    println!(
        "{swaps} swaps under load: no call failed; p99 {:.2} of that without",
        p99("… swapping") / p99("countersign")
    );
}

/// What a call's CPU time at concurrency 32 is made of: measured steps, and
/// differences between the rows.
fn where_it_goes(rows: &[Value], stages: &[Stage]) {
    let cpu = |name: &str| {
        rows.iter()
            .find(|r| r["name"] == name && r["concurrency"] == 32)
            .and_then(|r| r["cpu_us"].as_f64())
            .unwrap_or_default()
    };
    let (bare, whole) = (cpu("bare proxy"), cpu("countersign"));
    println!("\nwhere {whole:.1} µs of CPU go (each step measured by itself, in one thread)");
    println!("{bare:>8.1}  receive, send and pass on, as the bare proxy does");
    for stage in stages {
        println!("{:>8.1}  {}", stage.micros, stage.name);
    }
    let rest = whole - bare - stages.iter().map(|s| s.micros).sum::<f64>();
    println!(
        "{rest:>8.1}  the rest: who is calling, headers, timers, metrics; and steps that cost more \
         when two threads share caches and the allocator"
    );
}
