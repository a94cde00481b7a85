//! Fetching a key's bytes without leaving copies of them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::KeyError;

/// More than a hundred keys; anything longer is no key.
const LONGEST: u64 = 8192;
const COMMAND_TIME: Duration = Duration::from_secs(30);

pub(super) fn read_file(path: &Path, private: bool) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |cause| KeyError::File {
        path: path.to_owned(),
        cause,
    };
    // Asked before opening too: opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(KeyError::NotRegular {
            path: path.to_owned(),
        });
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() {
        return Err(KeyError::NotRegular {
            path: path.to_owned(),
        });
    }
    let mode = facts.permissions().mode() & 0o7777;
    if private && mode & 0o077 != 0 {
        return Err(KeyError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    // Full capacity from the start: a growing buffer would leave copies.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize + 1));
    file.take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > LONGEST {
        return Err(KeyError::Malformed("it is longer than 8 KiB"));
    }
    Ok(bytes)
}

pub(super) async fn run(argv: &[String]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let program = argv.first().cloned().unwrap_or_default();
    let failed = |cause: String| KeyError::Command {
        program: program.clone(),
        cause,
    };
    if program.is_empty() {
        return Err(failed(
            "the list is empty; give program and arguments".into(),
        ));
    }
    let mut child = tokio::process::Command::new(&program)
        .args(argv.get(1..).unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // It would be in the host's log, and nobody knows what a key service
        // writes there.
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    let stdout = child
        .stdout
        .take()
        .ok_or_else(|| failed("it has no output".into()))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize + 1));
    let work = async {
        stdout.take(LONGEST + 1).read_to_end(&mut bytes).await?;
        child.wait().await
    };
    let status = tokio::time::timeout(COMMAND_TIME, work)
        .await
        .map_err(|_| failed("it did not end within 30 s".into()))?
        .map_err(|e| failed(e.to_string()))?;
    if !status.success() {
        return Err(failed(format!(
            "it ended with {status}; what it said is kept out of the log: run it by hand"
        )));
    }
    if bytes.len() as u64 > LONGEST {
        return Err(KeyError::Malformed("it is longer than 8 KiB"));
    }
    Ok(bytes)
}
