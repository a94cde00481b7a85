//! Stands between cargo and rustc, so that a crate's identity does not depend
//! on the folder it lies in.
//!
//! cargo tells rustc a number for each crate, made among others of the path of
//! what lies outside the workspace. The number is part of every symbol, and
//! decides the order of functions: the same sources in two folders gave two
//! digests. This passes everything on and replaces that number by one made of
//! the crate's name, version, features and target.
//!
//! cargo wants a program for this. It is the running one, under another name:
//! `main` calls [`run_if_called`] first.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use sha2::{Digest as _, Sha256};

use crate::error::BuildError;
use crate::hex;

/// The name under which the running program is the wrapper.
const NAME: &str = "countersign-rustc";

/// Does the wrapper's work if the program was started as one.
#[must_use]
pub fn run_if_called() -> Option<ExitCode> {
    let mut arguments = env::args_os();
    let own = arguments.next()?;
    if Path::new(&own).file_name() != Some(OsStr::new(NAME)) {
        return None;
    }
    let Some(rustc) = arguments.next() else {
        eprintln!("{NAME} is started by cargo, with rustc as its first argument");
        return Some(ExitCode::from(2));
    };
    let package =
        [env::var("CARGO_PKG_NAME"), env::var("CARGO_PKG_VERSION")].map(Result::unwrap_or_default);
    let status = Command::new(&rustc)
        .args(rewritten(arguments.collect(), &package))
        .status();
    Some(match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => ExitCode::from(
            status
                .code()
                .and_then(|c| u8::try_from(c).ok())
                .unwrap_or(1),
        ),
        Err(error) => {
            eprintln!("{NAME} cannot run {}: {error}", rustc.display());
            ExitCode::FAILURE
        }
    })
}

/// The arguments with a number of our own, if they had one.
fn rewritten(mut arguments: Vec<OsString>, package: &[String; 2]) -> Vec<OsString> {
    let number = identity(&arguments, package);
    for argument in &mut arguments {
        if argument
            .to_str()
            .is_some_and(|a| a.starts_with("metadata="))
        {
            *argument = format!("metadata={number}").into();
        }
    }
    arguments
}

/// Name, kind, features and target of the crate, and its package.
fn identity(arguments: &[OsString], package: &[String; 2]) -> String {
    const TELLING: [&str; 4] = ["--crate-name", "--crate-type", "--cfg", "--target"];
    let mut sum = Sha256::new();
    let mut add = |text: &str| {
        sum.update((text.len() as u64).to_le_bytes());
        sum.update(text);
    };
    package.iter().for_each(|text| add(text));
    for pair in arguments.windows(2) {
        if let [option, value] = pair
            && let (Some(option), Some(value)) = (option.to_str(), value.to_str())
            && TELLING.contains(&option)
        {
            add(option);
            add(value);
        }
    }
    let digest = sum.finalize();
    hex(&digest)[..16].to_owned()
}

/// Puts the running program below `folder` under the wrapper's name.
pub(crate) fn install(folder: &Path) -> Result<PathBuf, BuildError> {
    let wrapper = folder.join(NAME);
    let program =
        env::current_exe().map_err(BuildError::io("cannot find", "the running program"))?;
    if std::fs::read_link(&wrapper).is_ok_and(|there| there == program) {
        return Ok(wrapper);
    }
    // Another build may put its own there at the same time: rename is atomic.
    let temporary = folder.join(format!("{NAME}.{}", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    std::os::unix::fs::symlink(&program, &temporary)
        .and_then(|()| std::fs::rename(&temporary, &wrapper))
        .map_err(BuildError::io("cannot write", &wrapper))?;
    Ok(wrapper)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arguments: &[&str], version: &str) -> Vec<String> {
        let package = ["sdk".to_owned(), version.to_owned()];
        let arguments = arguments.iter().map(OsString::from).collect();
        let rewritten = rewritten(arguments, &package);
        rewritten
            .iter()
            .map(|a| a.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn the_number_follows_name_version_and_features_and_not_the_folder() {
        let number = |number: &str, feature: &str, version: &str, source: &str| {
            let arguments = [
                "--crate-name",
                "sdk",
                source,
                "--cfg",
                feature,
                "-C",
                number,
                "-C",
                "extra-filename=-1",
            ];
            call(&arguments, version)[6].clone()
        };
        let one = number("metadata=1", "feature=\"a\"", "1.0.0", "/here/lib.rs");
        assert_ne!(one, "metadata=1");
        assert_eq!(
            one,
            number("metadata=2", "feature=\"a\"", "1.0.0", "/there/lib.rs")
        );
        assert_ne!(
            one,
            number("metadata=1", "feature=\"b\"", "1.0.0", "/here/lib.rs")
        );
        assert_ne!(
            one,
            number("metadata=1", "feature=\"a\"", "1.0.1", "/here/lib.rs")
        );
    }

    #[test]
    fn everything_else_is_passed_on() {
        let arguments = ["-vV"];
        assert_eq!(call(&arguments, "1"), arguments);
        let arguments = ["--crate-name", "x", "-C", "extra-filename=-1", "src/lib.rs"];
        assert_eq!(call(&arguments, "1"), arguments);
    }
}
