//! Files that are there whole or not at all.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::cli::CliError;

/// The file of this name and a suffix.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Writes a file under another name, makes it durable, and gives it its name: a
/// host that watches the folder sees it whole.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), CliError> {
    write_with(path, content, None)
}

/// [`write`] over a file that is there; who may read it stays.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), CliError> {
    let cannot = |e: std::io::Error| CliError(format!("{} cannot be written: {e}", path.display()));
    // A link goes on being one.
    let path = std::fs::canonicalize(path).map_err(cannot)?;
    let permissions = std::fs::metadata(&path).map_err(cannot)?.permissions();
    write_with(&path, content, Some(permissions))
}

fn write_with(
    path: &Path,
    content: &[u8],
    permissions: Option<Permissions>,
) -> Result<(), CliError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let temporary = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let written = std::fs::File::create(&temporary).and_then(|mut file| {
        file.write_all(content)?;
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    });
    written.map_err(|error| {
        // What cannot be removed either is a hidden file that nothing reads.
        let _ = std::fs::remove_file(&temporary);
        CliError(format!("{} cannot be written: {error}", path.display()))
    })
}

/// Reads a file of at most `most` bytes.
pub(super) fn read(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path)?
        .take(most + 1)
        .read_to_end(&mut bytes)?;
    match u64::try_from(read) {
        Ok(size) if size <= most => Ok(bytes),
        _ => Err(std::io::Error::other(format!(
            "it has more than {most} bytes"
        ))),
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), CliError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(CliError(format!(
            "{} cannot be removed: {e}",
            path.display()
        ))),
        _ => Ok(()),
    }
}
