//! `preset keygen`: a publisher's key pair.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use countersign_core::names::PublisherName;
use countersign_presets::signature::PrivateKey;
use serde_json::json;

use crate::cli::CliError;
use crate::cli::output::Printer;
use crate::surroundings::OsRandom;

#[derive(Debug, Args)]
pub(in crate::cli) struct KeygenArgs {
    /// Who will sign: lower-case letters, digits and hyphens
    publisher: PublisherName,
    /// Where PUBLISHER.key and PUBLISHER.pub are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

pub(super) fn run(args: &KeygenArgs, printer: &Printer) -> Result<(), CliError> {
    let file = |suffix: &str| args.dir.join(format!("{}.{suffix}", args.publisher));
    let (private, public) = (file("key"), file("pub"));
    std::fs::create_dir_all(&args.dir)
        .map_err(|e| CliError(format!("{} cannot be made: {e}", args.dir.display())))?;
    let key = PrivateKey::generate(&OsRandom);
    let pem = key.to_pem().map_err(CliError::new)?;
    write_new(&private, pem.as_bytes(), 0o600)?;
    let line = format!("{} {}\n", args.publisher, key.public());
    write_new(&public, line.as_bytes(), 0o644)?;
    let made = json!({
        "publisher": args.publisher,
        "key": key.public(),
        "private_key_file": private.display().to_string(),
        "public_key_file": public.display().to_string(),
    });
    printer.value(&made, || {
        format!(
            "Private key  {private}  (only you can read it; keep a copy, and give it to nobody)\n\
             Public key   {public}  {key}\n\n\
             Sign with:   countersign preset sign FILE --key {private}\n\
             Who runs a host trusts it with:  countersign preset trust {public}",
            private = private.display(),
            public = public.display(),
            key = key.public(),
        )
    })
}

/// Writes a file that must not be there yet.
fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), CliError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CliError(format!(
            "{} exists already and is not overwritten: use it, or choose another --dir",
            path.display()
        )),
        _ => CliError(format!("{} cannot be written: {error}", path.display())),
    })
}
