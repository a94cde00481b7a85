//! What is left of a damaged database.

use std::path::Path;

use super::SledStore;
use crate::error::OpenError;

impl SledStore {
    /// Opens a copy of whatever is in `folder`, made in `scratch`, however
    /// damaged it is; the folder itself is not touched. Blocks.
    ///
    /// sled's snapshots only make opening faster: where they are what is
    /// damaged, the copy is opened without them.
    ///
    /// # Errors
    /// [`OpenError`] if sled can make nothing of it.
    pub fn open_remains(folder: &Path, scratch: &Path) -> Result<Self, OpenError> {
        copy(folder, scratch)?;
        let first = match Self::open_accepting_loss(scratch) {
            Err(error @ OpenError::Unreadable { .. }) => error,
            other => return other,
        };
        std::fs::remove_dir_all(scratch).map_err(|e| unusable(scratch, &e))?;
        copy(folder, scratch)?;
        let inside = scratch.join("sled");
        let entries = std::fs::read_dir(&inside).map_err(|e| unusable(&inside, &e))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                let path = entry.path();
                std::fs::remove_file(&path).map_err(|e| unusable(&path, &e))?;
            }
        }
        Self::open_accepting_loss(scratch).map_err(|_| first)
    }
}

fn unusable(path: &Path, cause: &std::io::Error) -> OpenError {
    OpenError::Unusable {
        path: path.to_owned(),
        cause: cause.to_string(),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(to);
    made.map_err(|e| unusable(to, &e))?;
    for entry in std::fs::read_dir(from).map_err(|e| unusable(from, &e))? {
        let entry = entry.map_err(|e| unusable(from, &e))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        // `file_type` does not follow links: none is ours.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy(&path, &target)?,
            Ok(kind) if kind.is_file() && entry.file_name() != "lock" => {
                std::fs::copy(&path, &target).map_err(|e| unusable(&path, &e))?;
            }
            Ok(_) => {}
            Err(e) => return Err(unusable(&path, &e)),
        }
    }
    Ok(())
}
