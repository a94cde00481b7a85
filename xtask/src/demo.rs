//! `cargo xtask demo`: the whole story on this machine, with nothing faked.
//!
//! An authorization server and a notes server stand for a vendor; Countersign
//! stands in front; two people let the same kind of agent work for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};

use self::child::{Serving, get};
use self::report::Report;
use crate::setup::{self, Ready, Wanted, say};

mod child;
mod report;

/// How to run it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Ends after the transcript; the exit status says whether all was right.
    #[arg(long)]
    once: bool,
}

/// Somebody who has an account here and one at the vendor.
struct Person {
    name: &'static str,
    account: &'static str,
    agent: &'static str,
    era: &'static str,
    note: &'static str,
}

const PEOPLE: [Person; 2] = [
    Person {
        name: "ada",
        account: "ada.lovelace",
        agent: "agents/agent-ts-v2.mjs",
        era: "2026-07-28",
        note: "the engine weaves algebraic patterns",
    },
    Person {
        name: "grace",
        account: "grace.hopper",
        agent: "agents/agent-ts-v1.mjs",
        era: "2025-11-25",
        note: "a ship in port is safe",
    },
];

/// What the demo stands on while it runs.
struct Stage {
    folder: PathBuf,
    config: PathBuf,
    url: String,
    admin: Value,
    vendor: Serving,
    notes: Serving,
    host: Serving,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for serving in [&mut self.host, &mut self.notes, &mut self.vendor] {
            serving.stop();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs the demo.
pub(crate) fn run(options: &Options) -> Result<()> {
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stopped))?;
    }
    let ready = setup::run(Wanted::default())?;
    let programs = build()?;
    let stage = set_up(&ready, &programs)?;
    let mut report = Report::default();
    let all = transcript(&ready, &programs, &stage, &mut report);
    if stopped.load(Ordering::Relaxed) {
        bail!("stopped");
    }
    all?;
    ensure!(
        report.failed() == 0,
        "{} of the checks above failed; the host's log:\n{}",
        report.failed(),
        stage.host.log_tail(40)
    );
    if !options.once {
        keep_serving(&stage, &stopped);
    }
    Ok(())
}

/// Host, example and presets, built as the tests build them.
fn build() -> Result<PathBuf> {
    say("building the host and the example server (the first time takes some minutes)");
    let output = Command::new(countersign_toolchain::cargo())
        .args([
            "build",
            "--locked",
            "-p",
            "countersign",
            "-p",
            "countersign-example-notes",
        ])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(crate::repository())
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "the host does not build");
    // Cargo says where the program is, whatever target folder is configured.
    let host = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "countersign")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built no program named countersign")?;
    say("building the presets");
    crate::presets::run(&crate::presets::Options::default())?;
    Ok(host.parent().unwrap_or(Path::new(".")).to_path_buf())
}

/// Starts everything and registers the vendor.
fn set_up(ready: &Ready, programs: &Path) -> Result<Stage> {
    let folder = std::env::temp_dir().join(format!("countersign-demo-{}", std::process::id()));
    let port = child::port(8700)?;
    let url = format!("http://127.0.0.1:{port}");
    let listen = format!("127.0.0.1:{port}");

    say("starting the vendor: an authorization server and a notes server");
    let vendor = Serving::start(
        Command::new(&ready.node)
            .arg("authorization-server/server.mjs")
            .args(["--redirect-uri", &format!("{url}/oauth/callback/notes")])
            .current_dir(&ready.counterparts),
        "\"ready\":true",
    )?;
    let notes = Serving::start(
        Command::new(programs.join("example-notes"))
            .args(["--issuer", vendor.fact("issuer")])
            .args(["--introspection", vendor.fact("introspection_endpoint")])
            .env(
                "INTROSPECTION_CLIENT_SECRET",
                vendor.fact("introspection_client_secret"),
            ),
        "\"ready\":true",
    )?;

    say("countersign init, and serve");
    let countersign = programs.join("countersign");
    let output = Command::new(&countersign)
        .args([
            "--output",
            "json",
            "init",
            "--public-url",
            &url,
            "--listen",
            &listen,
            "--dir",
        ])
        .arg(&folder)
        .output()?;
    ensure!(
        output.status.success(),
        "countersign init: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let admin: Value = serde_json::from_slice(&output.stdout)?;
    let config = folder.join("countersign.toml");
    unsigned_presets(&config)?;
    copy_catalog(&folder.join("catalog"))?;
    let host = Serving::start(
        Command::new(&countersign)
            .arg("--config")
            .arg(&config)
            .arg("serve"),
        "Countersign serves",
    )?;
    let stage = Stage {
        folder,
        config,
        url,
        admin,
        vendor,
        notes,
        host,
    };
    register(&stage, &countersign)?;
    Ok(stage)
}

/// The demo's presets come from this clone: nobody signed them.
fn unsigned_presets(config: &Path) -> Result<()> {
    let text = std::fs::read_to_string(config)?;
    let changed: Vec<_> = text
        .lines()
        .map(|line| match line.split_once('=') {
            Some((key, _)) if key.trim() == "signatures" => "signatures = \"off\"",
            _ => line,
        })
        .collect();
    Ok(std::fs::write(config, changed.join("\n") + "\n")?)
}

fn copy_catalog(to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(crate::repository().join("catalog"))? {
        let file = entry?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "wasm")
        {
            std::fs::copy(&file, to.join(file.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// What an administrator does, by the command line.
fn register(stage: &Stage, countersign: &Path) -> Result<()> {
    let fact = |name: &str| stage.vendor.fact(name);
    let notes = stage.notes.fact("url");
    let cli = |arguments: &[&str], input: &str| {
        // Secrets are not among the arguments: they come by stdin.
        println!("  $ countersign {}", arguments.join(" "));
        stage.countersign(countersign, arguments, input)
    };
    println!("\nThe administrator attaches the vendor's server:\n");
    cli(&["preset", "enable", "generic"], "")?;
    cli(
        &["secret", "set", "NOTES_CLIENT_SECRET"],
        fact("client_secret"),
    )?;
    cli(
        &[
            "provider",
            "create",
            "--name",
            "notes",
            "--display-name",
            "Notes Inc.",
            "--preset",
            "generic",
            "--auth-endpoint",
            fact("authorization_endpoint"),
            "--token-endpoint",
            fact("token_endpoint"),
            "--revocation-endpoint",
            fact("revocation_endpoint"),
            "--client-id",
            fact("client_id"),
            "--client-secret-ref",
            "NOTES_CLIENT_SECRET",
            "--scopes",
            "notes:read,notes:write",
            "--audience-hosts",
            "127.0.0.1",
            "--resource",
            notes,
        ],
        "",
    )?;
    cli(
        &[
            "server",
            "create",
            "--name",
            "notes",
            "--endpoint",
            notes,
            "--auth",
            "user-delegated",
            "--user-oauth-provider",
            "notes",
            "--user-oauth-scopes",
            "notes:read,notes:write",
        ],
        "",
    )?;
    for person in &PEOPLE {
        let email = format!("{}@example.com", person.name);
        cli(
            &[
                "user",
                "create",
                person.name,
                "--email",
                &email,
                "--role",
                "user",
                "--password-stdin",
            ],
            &first_password(person),
        )?;
    }
    Ok(())
}

fn first_password(person: &Person) -> String {
    format!("{}-works-once", person.name)
}

/// What the person chose at the first sign-in.
fn password(person: &Person) -> String {
    format!("{}-chose-this", person.name)
}

/// Both agents at work, and what everybody saw of it.
fn transcript(ready: &Ready, programs: &Path, stage: &Stage, report: &mut Report) -> Result<()> {
    let mut outputs = String::new();
    for person in &PEOPLE {
        let lines = agent(ready, stage, person, &mut outputs)?;
        report.agent(person, &lines);
    }
    report.upstream(&stage.notes.lines());

    let audit = stage.countersign(
        &programs.join("countersign"),
        &["--output", "json", "audit", "list", "--limit", "500"],
        "",
    )?;
    report.audit(&audit)?;

    let mut seen = BTreeMap::new();
    seen.insert("what the agents saw", outputs);
    seen.insert("the host's log", stage.host.log());
    seen.insert("the audit log", audit);
    seen.insert(
        "the host's metrics",
        get(&format!("{}/metrics", stage.url))?,
    );
    let tokens = get(&format!("{}/tokens", stage.vendor.fact("control")))?;
    report.secrets(&serde_json::from_str(&tokens)?, &seen);
    Ok(())
}

/// Runs a person's agent through everything.
fn agent(
    ready: &Ready,
    stage: &Stage,
    person: &Person,
    outputs: &mut String,
) -> Result<Vec<Value>> {
    let note = serde_json::json!({ "text": person.note }).to_string();
    let output = Command::new(&ready.node)
        .arg(person.agent)
        .args(["--url", &format!("{}/mcp/notes", stage.url)])
        .args(["--era", person.era])
        .args(["--client-name", &format!("{}'s agent", person.name)])
        .args(["--username", person.name])
        .args(["--password", &first_password(person)])
        .args(["--new-password", &password(person)])
        .args(["--connect-username", person.account])
        .args(["--call", "whoami", "{}"])
        .args(["--call", "add_note", &note])
        .args(["--call", "list_notes", "{}"])
        .current_dir(&ready.counterparts)
        .output()
        .context("cannot run the agent")?;
    let text = String::from_utf8_lossy(&output.stdout);
    outputs.push_str(&text);
    outputs.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

impl Stage {
    /// A verb of the command line, as the administrator.
    fn countersign(&self, program: &Path, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(program);
        command
            .arg("--config")
            .arg(&self.config)
            .args(arguments)
            .env("COUNTERSIGN_URL", &self.url)
            .env(
                "COUNTERSIGN_TOKEN",
                self.admin["admin_token"].as_str().unwrap_or_default(),
            )
            .env("XDG_CONFIG_HOME", self.folder.join("user"));
        child::finish(&mut command, input)
    }
}

fn keep_serving(stage: &Stage, stopped: &AtomicBool) {
    println!("\nEverything goes on serving:\n");
    println!("  pages      {0}/connections, {0}/login", stage.url);
    for person in &PEOPLE {
        println!("             {} / {}", person.name, password(person));
    }
    println!(
        "             {} / {} (works once, for choosing another)",
        stage.admin["admin_user"].as_str().unwrap_or_default(),
        stage.admin["admin_password"].as_str().unwrap_or_default()
    );
    println!("  agents     {}/mcp/notes", stage.url);
    println!(
        "  vendor     {} (any name, any password)",
        stage.vendor.fact("issuer")
    );
    println!("  folder     {}", stage.folder.display());
    println!("\nCtrl-C ends it and removes the folder.");
    while !stopped.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(200));
    }
    println!();
}
