//! `preset publish`: into a registry, or a folder that others read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use countersign_core::names::Digest;
use countersign_core::ports::Clock as _;
use countersign_oci::{Artifact, Progress, Reference, WasmInterfaces};
use countersign_presets::EngineConfig;
use countersign_presets::signature::{SIGNATURE_SUFFIX, SignatureFile, look_into};
use serde_json::json;

use super::registry::{RegistryArgs, SIGNATURE, is_path, progress_bar};
use super::{carried, files};
use crate::cli::CliError;
use crate::cli::output::Printer;
use crate::surroundings::SystemClock;

#[derive(Debug, Args)]
pub(in crate::cli) struct PublishArgs {
    /// The component, named NAME-VERSION.wasm, with its signature beside it
    file: PathBuf,
    /// A registry and repository, like registry.example.com/presets/github (the tag is the version, if
    /// none is said), or a folder
    #[arg(value_name = "REFERENCE|DIR")]
    to: String,
    /// Publish it although nobody signed it
    #[arg(long)]
    unsigned: bool,
    /// Replace other content under the same tag or name
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// A component that may be published.
struct Ready {
    file: String,
    name: String,
    version: String,
    component: Vec<u8>,
    interfaces: WasmInterfaces,
    signature: Option<SignatureFile>,
}

pub(super) async fn run(args: PublishArgs, printer: &Printer) -> Result<(), CliError> {
    let (path, unsigned) = (args.file.clone(), args.unsigned);
    // Compiling blocks.
    let ready = tokio::task::spawn_blocking(move || ready(&path, unsigned));
    let ready = ready.await.map_err(CliError::new)??;
    if is_path(&args.to) {
        return into_folder(&ready, Path::new(&args.to), args.replace, printer);
    }
    into_registry(ready, &args, printer).await
}

/// What no host would use is not published.
fn ready(path: &Path, unsigned: bool) -> Result<Ready, CliError> {
    let config = EngineConfig::default();
    let shown = path.display();
    let refused = |error: &dyn std::fmt::Display| {
        CliError(format!(
            "{shown} is not published, because no host would use it: {error}"
        ))
    };
    let usable = look_into(path, config.clone()).map_err(|e| refused(&e))?;
    let (component, signature) = carried::read(path)?;
    if signature.is_none() && !unsigned {
        return Err(CliError(format!(
            "{shown} is not signed, and hosts refuse unsigned presets unless they are told not to: run `countersign \
             preset sign {shown} --key NAME.key`, or give --unsigned"
        )));
    }
    let names = countersign_presets::interfaces_of(&component, config).map_err(|e| refused(&e))?;
    Ok(Ready {
        file: path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        name: usable.name.to_string(),
        version: usable.version,
        component,
        interfaces: WasmInterfaces {
            exports: names.exports,
            imports: names.imports,
            target: None,
        },
        signature,
    })
}

fn into_folder(
    ready: &Ready,
    folder: &Path,
    replace: bool,
    printer: &Printer,
) -> Result<(), CliError> {
    std::fs::create_dir_all(folder).map_err(|e| CliError(format!("{}: {e}", folder.display())))?;
    let target = folder.join(&ready.file);
    carried::demand_same(&target, Digest::of(&ready.component), replace)?;
    let beside = files::beside(&target, SIGNATURE_SUFFIX);
    match &ready.signature {
        Some(signature) => files::write(&beside, signature.to_text().as_bytes())?,
        None => files::remove(&beside)?,
    }
    files::write(&target, &ready.component)?;
    let done = json!({
        "name": ready.name,
        "version": ready.version,
        "file": target.display().to_string(),
        "publisher": ready.signature.as_ref().map(|s| &s.manifest.publisher),
    });
    printer.value(&done, || {
        format!(
            "Published {} {} ({}): {}",
            ready.name,
            ready.version,
            carried::signed_by(ready.signature.as_ref()),
            target.display()
        )
    })
}

async fn into_registry(
    ready: Ready,
    args: &PublishArgs,
    printer: &Printer,
) -> Result<(), CliError> {
    let reference = Reference::parse(&args.to).map_err(CliError::new)?;
    if reference.digest().is_some() {
        return Err(CliError(
            "a digest cannot be published to; write a tag, or none for the version".into(),
        ));
    }
    let reference = match reference.tag() {
        Some(_) => reference,
        // SemVer's build part, as tags can say it.
        None => reference
            .with_tag(&ready.version.replace('+', "_"))
            .map_err(CliError::new)?,
    };
    let signed = carried::signed_by(ready.signature.as_ref());
    let publisher = ready
        .signature
        .as_ref()
        .map(|s| s.manifest.publisher.to_string());
    let created = match &ready.signature {
        Some(signature) => signature.manifest.created,
        None => SystemClock::default().now(),
    };
    let size = u64::try_from(ready.component.len()).unwrap_or_default();
    let artifact = Artifact::new(
        ready.component,
        &ready.file,
        created,
        publisher.clone(),
        ready.interfaces,
        annotations(
            &ready.name,
            &ready.version,
            &created.to_string(),
            ready.signature.as_ref(),
        ),
    );
    let registry = args.registry.open(reference)?;
    let bar = progress_bar(size);
    let shown = bar.clone();
    let progress: Progress = Arc::new(move |sent| shown.set_position(sent));
    let pushed = registry.push(&artifact, args.replace, &progress).await;
    bar.finish_and_clear();
    let pushed = pushed.map_err(CliError::new)?;
    let reference = registry.reference().to_string();
    let done = json!({
        "name": ready.name,
        "version": ready.version,
        "reference": reference,
        "digest": pushed.manifest,
        "publisher": publisher,
        "was_there": pushed.was_there,
    });
    printer.value(&done, || {
        let word = if pushed.was_there { "Was published already" } else { "Published" };
        format!(
            "{word}: {} {} ({signed})\n  {reference}\n  {digest}\n\nTo use it:  countersign preset pull {reference}@{digest}",
            ready.name,
            ready.version,
            digest = pushed.manifest,
        )
    })
}

fn annotations(
    name: &str,
    version: &str,
    created: &str,
    signature: Option<&SignatureFile>,
) -> BTreeMap<String, String> {
    let mut annotations: BTreeMap<String, String> = [
        ("org.opencontainers.image.title", name),
        ("org.opencontainers.image.version", version),
        ("org.opencontainers.image.created", created),
    ]
    .into_iter()
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .collect();
    if let Some(signature) = signature {
        let publisher = signature.manifest.publisher.to_string();
        annotations.insert("org.opencontainers.image.vendor".to_owned(), publisher);
        let text = serde_json::to_string(signature).unwrap_or_default();
        annotations.insert(SIGNATURE.to_owned(), text);
    }
    annotations
}
