//! `backup …` and `restore`.

use std::fs::File;
use std::io::{BufReader, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use countersign_core::ports::Clock as _;
use countersign_vault::backup::{self, Mode, Summary};
use futures_util::StreamExt as _;

use super::client::Client;
use super::output::Printer;
use super::{CliError, Global};
use crate::config::Config;
use crate::opening::Opened;
use crate::restore::{self, Report};
use crate::surroundings::{OsRandom, SystemClock};

/// Pieces that may wait for a slow disk.
const WAITING: usize = 8;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Backup {
    #[command(subcommand)]
    verb: Option<BackupVerb>,
    /// Where to; never overwritten. `-` is standard output
    #[arg(value_name = "FILE", required = true)]
    file: Option<PathBuf>,
    /// Read the store itself: only while the host is stopped
    #[arg(long)]
    offline: bool,
}

#[derive(Debug, Subcommand)]
enum BackupVerb {
    /// Read a backup to its end and open every record in it
    Verify {
        /// The backup
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace a store that is in use: settings become what they were in the backup; people, their
    /// connections, secrets and the audit log stay as they are, and what was deleted stays deleted
    #[arg(long, conflicts_with = "salvage")]
    force: bool,
    /// Replace a damaged store: what can be read of it stays, the rest becomes what it was in the
    /// backup. The damaged one is kept beside it
    #[arg(long)]
    salvage: bool,
}

impl Backup {
    pub(super) async fn run(self, global: &Global, printer: &Printer) -> Result<(), CliError> {
        if let Some(BackupVerb::Verify { file }) = self.verb {
            return verify(global, &file, printer).await;
        }
        let file = self.file.unwrap_or_default();
        if file.as_os_str() == "-" {
            let stdout = std::io::stdout();
            if stdout.is_terminal() {
                return Err(CliError(
                    "a backup is not for a terminal: give a FILE, or send standard output somewhere".into(),
                ));
            }
            return fetch(global, self.offline, stdout.lock()).await.map(drop);
        }
        // Under its own name only when it is whole, and never over another one.
        let mut partial = file.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        if file.exists() {
            return Err(CliError(format!(
                "{} exists already and is not overwritten",
                file.display()
            )));
        }
        let out = new_file(&partial)?;
        let made = match fetch(global, self.offline, &out).await {
            Ok(()) => finish(&out, &partial, &file),
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            let _ = std::fs::remove_file(&partial);
            return Err(error);
        }
        let size = std::fs::metadata(&file).map_or(0, |m| m.len());
        let words = format!(
            "Wrote {} ({size} bytes), sealed under the host's key: keep that key elsewhere, a backup \
             is of no use without it.\nCheck it: countersign backup verify {}",
            file.display(),
            file.display()
        );
        let made = serde_json::json!({"file": file.display().to_string(), "bytes": size});
        printer.value(&made, || words)
    }
}

fn new_file(path: &Path) -> Result<File, CliError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.map_err(|e| CliError(format!("cannot write {}: {e}", path.display())))
}

fn finish(out: &File, partial: &Path, file: &Path) -> Result<(), CliError> {
    let failed = |e: std::io::Error| CliError(format!("cannot write {}: {e}", file.display()));
    out.sync_all().map_err(failed)?;
    std::fs::hard_link(partial, file).map_err(failed)?;
    std::fs::remove_file(partial).map_err(failed)
}

async fn fetch(global: &Global, offline: bool, mut out: impl Write) -> Result<(), CliError> {
    if offline {
        return from_store(global, out).await;
    }
    let client = Client::of(global).await?;
    let mut pieces = client.post_for_bytes(&["backup"]).await?;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| {
            CliError("the host broke the backup off; its log and audit log say why".into())
        })?;
        out.write_all(&piece).map_err(CliError::new)?;
    }
    out.flush().map_err(CliError::new)
}

async fn from_store(global: &Global, mut out: impl Write) -> Result<(), CliError> {
    let config = Config::load(&global.config).map_err(CliError::new)?;
    let opened = Opened::existing(&config).await.map_err(CliError::new)?;
    let (pieces, mut receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(WAITING);
    let now = SystemClock::default().now();
    let making = opened.vault.backup(now, pieces);
    let writing = async {
        while let Some(piece) = receiver.recv().await {
            out.write_all(&piece)?;
        }
        out.flush()
    };
    let (made, written) = tokio::join!(making, writing);
    opened.audit.close().await;
    written.map_err(CliError::new)?;
    made.map(drop).map_err(CliError::new)
}

async fn verify(global: &Global, file: &Path, printer: &Printer) -> Result<(), CliError> {
    let config = Config::load(&global.config).map_err(CliError::new)?;
    let ring = config.keys.load().await.map_err(CliError::new)?;
    let input =
        File::open(file).map_err(|e| CliError(format!("cannot read {}: {e}", file.display())))?;
    let summary =
        backup::verify(BufReader::new(input), &ring, Arc::new(OsRandom)).map_err(CliError::new)?;
    printer.value(&summary, || in_words(&summary))?;
    if summary.is_complete && summary.damaged == 0 {
        return Ok(());
    }
    Err(CliError(
        "the backup is sound, but the store was damaged when it was made: what is counted above as \
         damaged, or what could not be read, is not in it"
            .into(),
    ))
}

fn in_words(summary: &Summary) -> String {
    let mut text = format!(
        "Backup {} of {}: {} records, all of them open.",
        summary.id, summary.created_at, summary.records
    );
    for (kind, count) in &summary.kinds {
        text.push_str(&format!("\n  {count:>8}  {kind}"));
    }
    if summary.damaged > 0 {
        text.push_str(&format!("\n  {:>8}  of these damaged", summary.damaged));
    }
    text
}

impl Restore {
    pub(super) async fn run(self, global: &Global, printer: &Printer) -> Result<(), CliError> {
        let config = Config::load(&global.config).map_err(CliError::new)?;
        let mode = match (self.force, self.salvage) {
            (true, _) => Mode::Force,
            (_, true) => Mode::Salvage,
            _ => Mode::Empty,
        };
        let report = restore::run(&config, &self.file, mode)
            .await
            .map_err(CliError::new)?;
        printer.value(&report, || told(&report))
    }
}

fn told(report: &Report) -> String {
    let mut lines = vec![format!(
        "Restored from backup {} of {}.",
        report.backup.id, report.backup.created_at
    )];
    for (count, what) in [
        (report.kept, "kept from the store that was replaced"),
        (report.from_backup, "from the backup"),
        (
            report.deleted_since,
            "deleted since the backup, and not brought back",
        ),
        (report.taken_back, "settings made since, taken back"),
        (
            report.voided,
            "tokens, sessions, codes and approvals, now void",
        ),
        (report.lost.len() as u64, "lost: no version of them opens"),
    ] {
        if count > 0 {
            lines.push(format!("  {count:>8}  {what}"));
        }
    }
    lines.extend(report.lost.iter().map(|name| format!("            {name}")));
    if let Some(why) = &report.unreadable {
        lines.push(format!(
            "Nothing of the replaced store could be read: {why}"
        ));
    }
    if report.unreadable_parts > 0 || report.lost_writes || report.perhaps_deleted > 0 {
        lines.push(format!(
            "The replaced store could not be read to the end: {} records from the backup may have been \
             deleted or changed since. Look at users, connections and policies.",
            report.perhaps_deleted
        ));
    }
    if report.kept == 0 {
        lines.push(format!(
            "What was changed after {} is lost. Disable again whom you disabled since, and withdraw \
             again what you withdrew.",
            report.backup.created_at
        ));
    }
    if let Some(folder) = &report.replaced {
        lines.push(format!(
            "The replaced store is in {}; delete it when all is well.",
            folder.display()
        ));
    }
    lines.push(
        "Everybody signs in again, agents and API tokens are to be authorized anew. Connections \
         whose refresh tokens change with each use need a new authorization."
            .into(),
    );
    lines.join("\n")
}
