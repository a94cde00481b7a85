//! `countersign restore`: from a backup to a store, with the host stopped.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::ports::{Clock, Random};
use countersign_core::time::Timestamp;
use countersign_vault::backup::{self, BackupError, Mode, Old, Restored, Summary};
use countersign_vault::error::OpenError;
use countersign_vault::keys::{KeyError, KeyRing};
use countersign_vault::store::Store;
use countersign_vault::store::sled::SledStore;
use serde::Serialize;

use crate::config::{Config, StoreUrl};
use crate::epoch::{self, Epoch};
use crate::opening::{self, Opened, OpeningError};
use crate::surroundings::{OsRandom, SystemClock};

/// What was done.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The backup.
    pub backup: Summary,
    /// The new epoch.
    pub epoch: String,
    /// Records of the replaced store that were kept.
    pub kept: u64,
    /// Records that came from the backup.
    pub from_backup: u64,
    /// Of these, records that may have been deleted since the backup: the
    /// replaced store could not be read to the end.
    pub perhaps_deleted: u64,
    /// Records that were deleted since the backup, and stay so.
    pub deleted_since: u64,
    /// Settings made since the backup that were taken back.
    pub taken_back: u64,
    /// Tokens, sessions, codes, approvals and the like, now void.
    pub voided: u64,
    /// Records that no version of could be opened.
    pub lost: Vec<String>,
    /// Parts of the replaced store that could not be read at all.
    pub unreadable_parts: u64,
    /// Whether the replaced store had lost acknowledged writes.
    pub lost_writes: bool,
    /// Why nothing of the replaced store could be read, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// Where the replaced store is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<PathBuf>,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The backup, or the target.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A store.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The restored store.
    #[error(transparent)]
    Opening(#[from] OpeningError),
    /// A file or folder.
    #[error("cannot use {}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        cause: std::io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> RestoreError + '_ {
    move |cause| RestoreError::File {
        path: path.to_owned(),
        cause,
    }
}

/// Restores this backup into the configured store.
///
/// # Errors
/// [`RestoreError`]; the store is as it was then, or says at its next opening
/// that a restore was interrupted.
pub async fn run(config: &Config, file: &Path, mode: Mode) -> Result<Report, RestoreError> {
    let ring = config.keys.load().await?;
    let clock = SystemClock::default();
    let job = Job {
        file,
        ring: &ring,
        mode,
        now: clock.now(),
    };
    // Before anything else: its summary goes into the new epoch.
    let summary = backup::verify(job.open()?, &ring, Arc::new(OsRandom))?;
    let mut report = match &config.store.url {
        StoreUrl::Sled(folder) => job.sled(folder, &summary).await?,
        url @ StoreUrl::Postgres { .. } => {
            let (clock, random): (Arc<dyn Clock>, Arc<dyn Random>) =
                (Arc::new(clock), Arc::new(OsRandom));
            let store = opening::open_store(url, &clock, &random).await?;
            let is_in_place = mode != Mode::Empty;
            let old = is_in_place.then_some(Old {
                store: &*store,
                lost_writes: false,
            });
            job.fill(&*store, old, is_in_place, &summary).await?
        }
    };
    report.lost.sort();
    // Opened as the host will open it: every record is verified once more.
    let opened = Opened::new(config).await?;
    let detail = format!(
        "from backup {} of {}: {} records from it, {} kept, {} lost",
        summary.id,
        summary.created_at,
        report.from_backup,
        report.kept,
        report.lost.len()
    );
    let event = AuditEvent::new(job.now, "store.restore", Outcome::Allowed);
    let recorded = opened.world.audit.record(event.detail(detail)).await;
    opened.audit.close().await;
    recorded.map_err(BackupError::from)?;
    Ok(report)
}

struct Job<'a> {
    file: &'a Path,
    ring: &'a KeyRing,
    mode: Mode,
    now: Timestamp,
}

impl Job<'_> {
    fn open(&self) -> Result<BufReader<File>, RestoreError> {
        File::open(self.file)
            .map(BufReader::new)
            .map_err(at(self.file))
    }

    /// Into an empty folder directly; else into one beside it, which then takes
    /// its place in one step. The replaced one is kept.
    async fn sled(&self, folder: &Path, summary: &Summary) -> Result<Report, RestoreError> {
        let is_there = folder.join("sled").exists();
        if !is_there || self.mode == Mode::Empty {
            let target = SledStore::open(folder)?;
            return self.fill(&target, None, false, summary).await;
        }
        // Nobody may be using what is replaced.
        let lock = File::options().write(true).open(folder.join("lock"));
        if let Ok(lock) = &lock
            && lock.try_lock().is_err()
        {
            return Err(OpenError::InUse {
                path: folder.to_owned(),
            }
            .into());
        }
        let beside = |what: &str| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            folder.with_file_name(format!("{name}.{what}"))
        };
        let (scratch, fresh) = (beside("remains"), beside("restored"));
        for leftover in [&scratch, &fresh] {
            if leftover.exists() {
                std::fs::remove_dir_all(leftover).map_err(at(leftover))?;
            }
        }
        let mut report = {
            let old = SledStore::open_remains(folder, &scratch);
            let target = SledStore::open(&fresh)?;
            let lost_writes = old.as_ref().is_ok_and(|old| old.lost_commits() > 0);
            let remains = old.as_ref().ok().map(|old| Old {
                store: old,
                lost_writes,
            });
            let mut report = self.fill(&target, remains, false, summary).await?;
            report.lost_writes = lost_writes;
            report.unreadable = old.err().map(|error| error.to_string());
            report
        };
        let stamp: String = self
            .now
            .to_string()
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        let kept = beside(&format!("before-{stamp}"));
        let here = rustix::fs::CWD;
        rustix::fs::renameat_with(
            here,
            &fresh,
            here,
            folder,
            rustix::fs::RenameFlags::EXCHANGE,
        )
        .map_err(|e| at(folder)(e.into()))?;
        std::fs::rename(&fresh, &kept).map_err(at(&kept))?;
        let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        File::open(parent)
            .and_then(|folder| folder.sync_all())
            .map_err(at(parent))?;
        std::fs::remove_dir_all(&scratch).map_err(at(&scratch))?;
        report.replaced = Some(kept);
        Ok(report)
    }

    async fn fill(
        &self,
        target: &dyn Store,
        old: Option<Old<'_>>,
        is_in_place: bool,
        summary: &Summary,
    ) -> Result<Report, RestoreError> {
        let random: Arc<dyn Random> = Arc::new(OsRandom);
        let epoch = Epoch::new(&*random, self.now, summary.id.clone(), summary.created_at);
        let document = serde_json::to_vec(&epoch)
            .map_err(|_| BackupError::Inconsistent("its epoch cannot be written"))?;
        let adjust = epoch::adjust(&OsRandom);
        let open = || File::open(self.file).map(BufReader::new);
        let (backup, made) = backup::restore(
            &open,
            (target, old, is_in_place),
            self.mode,
            (self.ring, random),
            &adjust,
            &[(Epoch::key(), document)],
        )
        .await?;
        let Restored {
            kept,
            from_backup,
            perhaps_deleted,
            deleted,
            voided,
            taken_back,
            lost,
            unreadable_parts,
        } = made;
        Ok(Report {
            backup,
            epoch: epoch.id,
            kept,
            from_backup,
            perhaps_deleted,
            deleted_since: deleted,
            taken_back,
            voided,
            lost,
            unreadable_parts,
            lost_writes: false,
            unreadable: None,
            replaced: None,
        })
    }
}
