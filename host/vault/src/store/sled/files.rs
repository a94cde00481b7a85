//! The vault's folder: `lock`, `acknowledged`, `sled/`, `set-aside/`.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use super::frame;
use crate::error::OpenError;

pub(super) struct Opened {
    pub(super) db: ::sled::Db,
    pub(super) file: File,
    pub(super) acknowledged: File,
    pub(super) lock: File,
    pub(super) commits: u64,
    /// Acknowledged commits that are not in it.
    pub(super) lost: u64,
}

/// Pages kept in memory.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

pub(super) fn open(folder: &Path, accept_loss: bool) -> Result<Opened, OpenError> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |e: io::Error| OpenError::Unusable {
            path,
            cause: e.to_string(),
        }
    };
    let inside = folder.join("sled");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&inside)
        .map_err(unusable(folder))?;
    let lock = own_file(&folder.join("lock")).map_err(unusable(&folder.join("lock")))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::InUse {
                path: folder.to_owned(),
            });
        }
        Err(TryLockError::Error(e)) => return Err(unusable(folder)(e)),
    }
    set_aside_torn_snapshots(folder, &inside).map_err(unusable(folder))?;
    let db = open_sled(folder, &inside)?;
    let unreadable = |cause: String| OpenError::Unreadable {
        path: folder.to_owned(),
        cause,
    };
    let found = super::guarded(|| db.get(frame::COMMITS))
        .map_err(|e| unreadable(e.to_string()))?
        .map_err(|e| unreadable(e.to_string()))?;
    if let Err(error) = super::guarded(|| index(&db)).flatten() {
        // Nothing that is missing in it is lost: it is only swept later.
        tracing::error!(%error, "the index by expiry could not be made; the next start tries again");
    }
    let commits = match found.as_deref().map(<[u8; 8]>::try_from) {
        None => 0,
        Some(Ok(bytes)) => u64::from_be_bytes(bytes),
        Some(Err(_)) => return Err(unreadable("the number of commits is not a number".into())),
    };
    let path = folder.join("acknowledged");
    let file = own_file(&path).map_err(unusable(&path))?;
    let acknowledged = read_note(&file);
    if acknowledged > commits && !accept_loss {
        return Err(OpenError::LostWrites {
            path: folder.to_owned(),
            found: commits,
            acknowledged,
        });
    }
    file.write_all_at(&note(commits), 0)
        .map_err(unusable(&path))?;
    let database = inside.join("db");
    let handle = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&database)
        .map_err(unusable(&database))?;
    // A new database's names have to be durable too.
    for each in [&handle, &file] {
        each.sync_all().map_err(unusable(folder))?;
    }
    for each in [inside.as_path(), folder, folder.parent().unwrap_or(folder)] {
        let each = if each.as_os_str().is_empty() {
            Path::new(".")
        } else {
            each
        };
        File::open(each)
            .and_then(|f| f.sync_all())
            .map_err(unusable(each))?;
    }
    Ok(Opened {
        db,
        file: handle,
        acknowledged: file,
        lock,
        commits,
        lost: acknowledged.saturating_sub(commits),
    })
}

/// Makes the index by expiry in a database of an earlier version.
fn index(db: &::sled::Db) -> Result<(), countersign_core::ports::StoreError> {
    const BATCH: usize = 1000;
    if db.contains_key(frame::INDEXED).map_err(super::failed)? {
        return Ok(());
    }
    let mut batch = ::sled::Batch::default();
    let mut waiting = 0;
    for found in db.range(frame::row_key(&[])..) {
        let (key, bytes) = found.map_err(super::failed)?;
        let Some(key) = frame::user_key(&key) else {
            break;
        };
        let Some((revision, Some(expires_at))) = frame::header(&bytes) else {
            continue;
        };
        batch.insert(frame::index_key(key, expires_at), &revision.to_be_bytes());
        waiting += 1;
        if waiting == BATCH {
            db.apply_batch(std::mem::take(&mut batch))
                .map_err(super::failed)?;
            waiting = 0;
        }
    }
    batch.insert(frame::INDEXED, &[1]);
    db.apply_batch(batch).map_err(super::failed)?;
    db.flush().map_err(super::failed).map(drop)
}

fn own_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// The number and its complement: a torn note is none.
pub(super) fn note(commits: u64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&commits.to_le_bytes());
    out[8..].copy_from_slice(&(!commits).to_le_bytes());
    out
}

fn read_note(file: &File) -> u64 {
    let mut bytes = [0; 16];
    if file.read_exact_at(&mut bytes, 0).is_err() {
        return 0;
    }
    let commits = u64::from_le_bytes(std::array::from_fn(|i| bytes[i]));
    if note(commits) == bytes { commits } else { 0 }
}

/// With one of these in the folder sled refuses to open.
fn set_aside_torn_snapshots(folder: &Path, inside: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(inside)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text.starts_with("snap.") && text.ends_with(".generating") {
            let aside = folder.join("set-aside");
            std::fs::create_dir_all(&aside)?;
            std::fs::rename(entry.path(), aside.join(&name))?;
            tracing::warn!(file = %text, "moved a half-written snapshot aside");
        }
    }
    Ok(())
}

fn open_sled(folder: &Path, inside: &Path) -> Result<::sled::Db, OpenError> {
    // Our own lock is held, so a lock on sled's file is the end of an earlier
    // handle in this process, still being dropped.
    const TRIES: u32 = 100;
    let mut tries = 0;
    loop {
        let config = ::sled::Config::new()
            .path(inside)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let cause = match super::guarded(|| config.open()) {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        };
        if !cause.contains("acquire lock") {
            return Err(OpenError::Unreadable {
                path: folder.to_owned(),
                cause,
            });
        }
        tries += 1;
        if tries == TRIES {
            return Err(OpenError::InUse {
                path: folder.to_owned(),
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::super::SledStore;
    use super::*;
    use crate::store::{Op, Row, Store as _, Which};

    #[test]
    fn a_half_written_snapshot_is_moved_aside_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        drop(SledStore::open(dir.path()).unwrap());
        std::fs::write(
            dir.path().join("sled/snap.00000000000000FF.generating"),
            b"torn",
        )
        .unwrap();
        drop(SledStore::open(dir.path()).unwrap());
        let kept = dir
            .path()
            .join("set-aside/snap.00000000000000FF.generating");
        assert_eq!(std::fs::read(kept).unwrap(), b"torn");
    }

    #[tokio::test]
    async fn a_database_of_an_earlier_version_gets_its_index_at_open() {
        let dir = tempfile::tempdir().unwrap();
        let store = SledStore::open(dir.path()).unwrap();
        let put = |key: &[u8], expires_at| Op {
            key: key.to_vec(),
            expect: None,
            put: Some(Row {
                revision: 3,
                expires_at,
                body: vec![0; 20],
            }),
        };
        let batch = vec![put(b"a", Some(5)), put(b"b", None), put(b"c", Some(50))];
        store.commit(batch).await.unwrap();
        drop(store);
        let db = open_sled(dir.path(), &dir.path().join("sled")).unwrap();
        for found in db.scan_prefix(b"x").collect::<Vec<_>>() {
            db.remove(found.unwrap().0).unwrap();
        }
        db.remove(frame::INDEXED).unwrap();
        db.flush().unwrap();
        drop(db);
        let store = SledStore::open(dir.path()).unwrap();
        let due = store.expired(Which::AllBut(0), 10, 9).await.unwrap();
        assert_eq!(due, [(b"a".to_vec(), 3)]);
    }

    #[test]
    fn a_torn_note_counts_as_none() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(read_note(&file), 0);
        file.write_all_at(&note(7), 0).unwrap();
        assert_eq!(read_note(&file), 7);
        file.write_all_at(&[9], 0).unwrap();
        assert_eq!(read_note(&file), 0);
    }
}
