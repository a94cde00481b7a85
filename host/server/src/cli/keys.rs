//! `key …`

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use countersign_vault::keys::KeyRing;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::client::Client;
use super::output::{Printer, cell};
use super::{CliError, Global};
use crate::surroundings::OsRandom;

/// How often the host is asked how far it is.
const ASK: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the keys, and what each one is used for
    #[command(visible_alias = "status")]
    List,
    /// Go over to the current key of [keys] in the host's configuration
    ///
    /// Needs no restart: the host reads [keys] anew. Give the new key as source and the one
    /// before it under old; on several hosts, in the configuration of each of them first.
    Rotate(Rotate),
    /// Write a new random key into a new file that only you can read
    New(New),
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// Only begin: the host goes on by itself, `key rotate` looks again
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
pub(super) struct New {
    /// Where to; never overwritten
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Verb {
    pub(super) async fn run(self, global: &Global, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::List => list(&Client::of(global).await?, printer).await,
            Self::Rotate(args) => args.run(&Client::of(global).await?, printer).await,
            Self::New(args) => args.run(printer).await,
        }
    }
}

async fn list(client: &Client, printer: &Printer) -> Result<(), CliError> {
    let keys = client.get(&["keys"]).await?;
    let columns = [
        ("KEY", "id"),
        ("ROLE", "role"),
        ("SOURCE", "source"),
        ("SEALS", "seals"),
        ("REQUIRED", "required"),
        ("RECORDS", "records"),
        ("WHAT TO DO", "advice"),
    ];
    printer.list(&keys, &columns, "")
}

impl Rotate {
    async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        let mut now = client.post(&["keys", "rotation"], Map::new()).await?;
        let mut shown = Shown::new(printer);
        while !self.no_wait && cell(&now, "state") == "running" {
            shown.tell(&now);
            tokio::time::sleep(ASK).await;
            now = client.get(&["keys", "rotation"]).await?;
        }
        shown.end(&now);
        if cell(&now, "state") == "failed" {
            return Err(CliError(cell(&now, "detail")));
        }
        printer.value(&now, || match cell(&now, "state").as_str() {
            "running" => format!(
                "Key {}: begun. `countersign key rotate` looks again, `countersign key list` tells the rest.",
                cell(&now, "key")
            ),
            _ => format!("Key {}: {}.", cell(&now, "key"), cell(&now, "detail")),
        })
    }
}

impl New {
    async fn run(self, printer: &Printer) -> Result<(), CliError> {
        KeyRing::generate_file(&self.file, &OsRandom).map_err(CliError::new)?;
        let source = countersign_vault::keys::KeySource::File(self.file.clone());
        let ring = KeyRing::load(&source).await.map_err(CliError::new)?;
        let (file, id) = (
            self.file.display().to_string(),
            ring.current_id().to_string(),
        );
        printer.value(&json!({"file": file, "id": id}), || {
            format!(
                "Wrote key {id} to {file}. Keep a copy elsewhere.\n\
                 To go over to it, write into countersign.toml:\n\n\
                 [keys]\n\
                 source = {{ file = \"{file}\" }}\n\
                 old = [{{ … what source was before … }}]\n\n\
                 and run: countersign key rotate"
            )
        })
    }
}

/// Progress: a bar on a terminal, lines elsewhere, JSON lines for programs; on
/// standard error, so that standard output holds the result alone.
struct Shown {
    bar: Option<ProgressBar>,
    is_json: bool,
    last: Option<(u64, u64)>,
}

impl Shown {
    fn new(printer: &Printer) -> Self {
        let bar = (!printer.is_json() && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} records  {eta}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self {
            bar,
            is_json: printer.is_json(),
            last: None,
        }
    }

    fn tell(&mut self, now: &Value) {
        let number = |name: &str| now.get(name).and_then(Value::as_u64).unwrap_or(0);
        let at = (number("done"), number("total"));
        match &self.bar {
            Some(bar) => {
                bar.set_length(at.1);
                bar.set_position(at.0);
            }
            None if self.last == Some(at) || at.1 == 0 => {}
            None if self.is_json => eprintln!("{now}"),
            None => eprintln!("{} of {} records", at.0, at.1),
        }
        self.last = Some(at);
    }

    fn end(&mut self, now: &Value) {
        self.tell(now);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
