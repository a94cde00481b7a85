//! Secrets and passwords: from standard input or a file, never an argument.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::CliError;

/// Nothing that is set here is longer.
const LONGEST: u64 = 64 * 1024;

/// Reads it, without the one line break at its end that editors and `echo` add.
pub(super) fn secret(what: &str, file: Option<&Path>) -> Result<Zeroizing<String>, CliError> {
    let mut text = Zeroizing::new(String::new());
    let read = match file {
        Some(path) => {
            std::fs::File::open(path).and_then(|f| f.take(LONGEST + 1).read_to_string(&mut text))
        }
        None => {
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                eprintln!("Enter the {what}, then Enter and Ctrl-D (it is shown as you type):");
            }
            stdin.lock().take(LONGEST + 1).read_to_string(&mut text)
        }
    };
    read.map_err(|e| CliError(format!("the {what} cannot be read: {e}")))?;
    if text.len() as u64 > LONGEST {
        return Err(CliError(format!(
            "the {what} is longer than {LONGEST} bytes"
        )));
    }
    let kept = text
        .strip_suffix('\n')
        .map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t))
        .len();
    text.truncate(kept);
    if text.is_empty() {
        return Err(CliError(format!(
            "the {what} is empty; give it on standard input, for example with < FILE"
        )));
    }
    Ok(text)
}
