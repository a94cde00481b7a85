//! `preset sign`: a publisher's signature beside a component.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use countersign_core::names::PublisherName;
use countersign_core::ports::Clock as _;
use countersign_core::time::Timestamp;
use countersign_presets::EngineConfig;
use countersign_presets::signature::{
    PrivateKey, SIGNATURE_SUFFIX, SignError, SignatureFile, signature_of,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::files;
use crate::cli::CliError;
use crate::cli::output::{Printer, text};
use crate::surroundings::SystemClock;

/// No private key's file is larger.
const LARGEST_KEY: u64 = 16 * 1024;

#[derive(Debug, Args)]
pub(in crate::cli) struct SignArgs {
    /// Components, named NAME-VERSION.wasm
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The private key, as `preset keygen` wrote it
    #[arg(long, value_name = "KEYFILE")]
    key: PathBuf,
    /// In whose name [default: the key file's name]
    #[arg(long, value_name = "NAME")]
    publisher: Option<PublisherName>,
    /// When it is said to be signed; for signatures that come out the same each time [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    created: Option<Timestamp>,
    /// Replace a signature that somebody else made
    #[arg(long)]
    replace: bool,
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .ok_or_else(|| "write an RFC 3339 time, like 2027-01-15T08:00:00Z".to_owned())
}

pub(super) async fn run(args: SignArgs, printer: &Printer) -> Result<(), CliError> {
    // Compiling blocks.
    let signed = tokio::task::spawn_blocking(move || all(&args));
    let signed = signed.await.map_err(CliError::new)??;
    let items: Vec<Value> = signed
        .iter()
        .map(|(path, file)| {
            json!({
                "file": path.display().to_string(),
                "key": file.key,
                "manifest": file.manifest,
            })
        })
        .collect();
    let list = json!({"items": items, "next_page_token": "", "total_size": items.len()});
    printer.value(&list, || {
        let texts: Vec<String> = signed.iter().map(|(p, f)| in_words(p, f)).collect();
        texts.join("\n\n")
    })
}

fn all(args: &SignArgs) -> Result<Vec<(PathBuf, SignatureFile)>, CliError> {
    let key = private_key(&args.key)?;
    let publisher = match &args.publisher {
        Some(publisher) => publisher.clone(),
        None => publisher_of(&args.key)?,
    };
    let created = args.created.unwrap_or_else(|| SystemClock::default().now());
    let mut signed = Vec::new();
    for path in &args.files {
        let beside = files::beside(path, SIGNATURE_SUFFIX);
        let signature = signature_of(
            path,
            publisher.clone(),
            created,
            &key,
            EngineConfig::default(),
        )
        .map_err(|error: SignError| CliError::new(error))?;
        if !args.replace {
            demand_own(&beside, &signature)?;
        }
        files::write(&beside, signature.to_text().as_bytes())?;
        signed.push((beside, signature));
    }
    Ok(signed)
}

/// Reads a private key that nobody else can read.
fn private_key(path: &Path) -> Result<PrivateKey, CliError> {
    let unreadable =
        |e: std::io::Error| CliError(format!("the key {} cannot be read: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(CliError(format!(
                "the key {path} can be read or changed by others (mode {mode:03o}): run chmod 600 {path}, and \
                 make a new key if somebody may have copied it",
                path = path.display(),
                mode = mode & 0o777
            )));
        }
    }
    let mut text = Zeroizing::new(String::new());
    file.take(LARGEST_KEY)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    PrivateKey::from_pem(&text).map_err(|e| CliError(format!("{}: {e}", path.display())))
}

fn publisher_of(key: &Path) -> Result<PublisherName, CliError> {
    let stem = key.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    PublisherName::parse(stem).map_err(|e| {
        CliError(format!(
            "in whose name? {e}; give --publisher NAME, since the key file's name is none"
        ))
    })
}

/// Somebody else's signature is not replaced by accident.
fn demand_own(path: &Path, ours: &SignatureFile) -> Result<(), CliError> {
    let Ok(bytes) = std::fs::read(path) else {
        return Ok(());
    };
    match SignatureFile::parse(&bytes) {
        Ok(there) if there.manifest.publisher == ours.manifest.publisher => Ok(()),
        Ok(there) => Err(CliError(format!(
            "{} holds the signature of {}; give --replace to put yours in its place",
            path.display(),
            there.manifest.publisher
        ))),
        Err(error) => Err(CliError(format!(
            "{} is there already: {error}\n  Give --replace to put yours in its place.",
            path.display()
        ))),
    }
}

fn in_words(path: &Path, file: &SignatureFile) -> String {
    let manifest = &file.manifest;
    let mut lines = vec![format!(
        "Signed {} {} as {}: {}\n  digest  {}\n  key     {}\n  It asks for:",
        manifest.name,
        manifest.version,
        manifest.publisher,
        path.display(),
        manifest.digest,
        file.key,
    )];
    for (kind, entries) in &manifest.permissions {
        // Nothing a component says moves the cursor.
        let entries: Vec<String> = entries.iter().map(|e| text(&e.as_str().into())).collect();
        let kind = text(&kind.replace('_', " ").into());
        lines.push(format!("    {kind}: {}", entries.join(", ")));
    }
    lines.join("\n")
}
