//! `preset pull`: from a registry or a folder into a catalog, whole or not at
//! all.

use std::path::{Path, PathBuf};

use clap::Args;
use countersign_core::names::Digest;
use countersign_core::ports::Clock as _;
use countersign_oci::{Found, Reference};
use countersign_presets::signature::{
    ORIGIN_SUFFIX, Pulled, SIGNATURE_SUFFIX, SignatureFile, Trust, judge,
};
use countersign_presets::{EngineConfig, LARGEST_COMPONENT};
use serde_json::{Value, json};

use super::registry::{RegistryArgs, SIGNATURE, is_path, progress_bar};
use super::{carried, files};
use crate::cli::CliError;
use crate::cli::output::Printer;
use crate::config::Config;
use crate::surroundings::SystemClock;

#[derive(Debug, Args)]
pub(in crate::cli) struct PullArgs {
    /// A reference like registry.example.com/presets/github:1.2.0 (or …@sha256:…), a component, or a
    /// folder of them
    #[arg(value_name = "REFERENCE|FILE|DIR")]
    from: String,
    /// Where to put it [default: the configuration's catalog_dir (policies: the folder in it) if there is a
    /// configuration, else this folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The file's name, for artifacts that do not say NAME-VERSION.wasm
    #[arg(long = "as", value_name = "FILE")]
    file: Option<String>,
    /// Replace other content of the same name
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// What came, and from where.
struct Arrived {
    file: String,
    signature: Option<SignatureFile>,
    pulled: Pulled,
    /// Where the component lies until it gets its name.
    part: PathBuf,
}

pub(super) async fn run(args: PullArgs, config: &Path, printer: &Printer) -> Result<(), CliError> {
    let config = match config.exists() {
        true => Some(Config::load(config).map_err(CliError::new)?),
        false => None,
    };
    let dir = match (&args.dir, &config) {
        (Some(dir), _) => dir.clone(),
        (None, Some(config)) => config.server.catalog_dir.clone(),
        (None, None) => PathBuf::from("."),
    };
    std::fs::create_dir_all(&dir).map_err(|e| CliError(format!("{}: {e}", dir.display())))?;
    let arrived = if is_path(&args.from) {
        from_folder(&args, &dir)?
    } else {
        vec![from_registry(&args, &dir).await?]
    };
    let into_host = args.dir.is_none() && config.is_some();
    let trust = config.map(|config| config.presets.trust);
    let mut done = Vec::new();
    for one in arrived {
        // A host looks for policies in a folder of their own.
        let own = match into_host && is_policy(&one.part).await? {
            true => dir.join("policies"),
            false => dir.clone(),
        };
        if own != dir {
            std::fs::create_dir_all(&own)
                .map_err(|e| CliError(format!("{}: {e}", own.display())))?;
            carried::demand_same(&own.join(&one.file), one.pulled.component, args.replace)?;
        }
        done.push(keep(one, &own, trust.as_ref())?);
    }
    let list = json!({"items": done, "next_page_token": "", "total_size": done.len()});
    printer.value(&list, || {
        let texts: Vec<String> = done.iter().map(in_words).collect();
        texts.join("\n\n")
    })
}

/// Whether a component is a policy's, if it is one at all.
async fn is_policy(part: &Path) -> Result<bool, CliError> {
    let bytes = files::read(part, LARGEST_COMPONENT)
        .map_err(|e| CliError(format!("{}: {e}", part.display())))?;
    // Compiling blocks.
    let looked = tokio::task::spawn_blocking(move || {
        countersign_presets::interfaces_of(&bytes, EngineConfig::default())
    });
    let interfaces = looked.await.map_err(CliError::new)?;
    Ok(interfaces.is_ok_and(|i| {
        i.exports
            .iter()
            .any(|name| name.starts_with("countersign:policy/"))
    }))
}

async fn from_registry(args: &PullArgs, dir: &Path) -> Result<Arrived, CliError> {
    let reference = Reference::parse(&args.from).map_err(CliError::new)?;
    let registry = args.registry.open(reference)?;
    let found = registry.find().await.map_err(CliError::new)?;
    let signature = found
        .manifest
        .annotations
        .get(SIGNATURE)
        .map(String::as_bytes);
    let file = name_of(&found, args.file.as_deref())?;
    // Before the download: a signature that does not fit saves it.
    let signature = carried::fitting(&file, found.component.digest, signature)?;
    carried::demand_same(&dir.join(&file), found.component.digest, args.replace)?;
    let part = dir.join(format!(".{file}.{}.part", found.component.digest.short()));
    let bar = progress_bar(found.component.size);
    let fetched = registry
        .fetch(&found, &part, &|have| bar.set_position(have))
        .await;
    bar.finish_and_clear();
    fetched.map_err(|e| match std::fs::metadata(&part) {
        Ok(there) if there.len() > 0 => CliError(format!(
            "{e}\n  What came so far is kept; run the same command again to go on."
        )),
        _ => {
            // An empty file that nobody needs.
            let _ = std::fs::remove_file(&part);
            CliError::new(e)
        }
    })?;
    Ok(Arrived {
        pulled: Pulled {
            reference: registry.reference().to_string(),
            manifest: found.digest,
            component: found.component.digest,
            at: SystemClock::default().now(),
        },
        file,
        signature,
        part,
    })
}

/// NAME-VERSION.wasm, as it was said here, else in the artifact.
fn name_of(found: &Found, said: Option<&str>) -> Result<String, CliError> {
    let name = said.or_else(|| found.title()).unwrap_or_default();
    match countersign_presets::is_component_name(name) {
        true => Ok(name.to_owned()),
        false => Err(CliError(format!(
            "{:?} is not named NAME-VERSION.wasm, like github-1.2.0.wasm; give --as NAME-VERSION.wasm",
            name.chars().take(80).collect::<String>()
        ))),
    }
}

/// One component, or all of a folder.
fn from_folder(args: &PullArgs, dir: &Path) -> Result<Vec<Arrived>, CliError> {
    let from = Path::new(&args.from);
    let cannot = |e: std::io::Error| CliError(format!("{} cannot be read: {e}", from.display()));
    let from = std::fs::canonicalize(from).map_err(cannot)?;
    let paths = if from.is_dir() {
        let mut paths = Vec::new();
        for item in std::fs::read_dir(&from).map_err(cannot)? {
            let path = item.map_err(cannot)?.path();
            let name = path.file_name().and_then(|n| n.to_str());
            if name.is_some_and(countersign_presets::is_component_name) {
                paths.push(path);
            }
        }
        paths.sort();
        if paths.is_empty() {
            return Err(CliError(format!(
                "{} holds no component named NAME-VERSION.wasm",
                from.display()
            )));
        }
        paths
    } else {
        vec![from]
    };
    paths.iter().map(|path| copied(path, dir, args)).collect()
}

fn copied(path: &Path, dir: &Path, args: &PullArgs) -> Result<Arrived, CliError> {
    let (component, signature) = carried::read(path)?;
    let own = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    let file = args.file.as_deref().unwrap_or(own).to_owned();
    if !countersign_presets::is_component_name(&file) {
        return Err(CliError(format!(
            "{file:?} is not named NAME-VERSION.wasm, like github-1.2.0.wasm; give --as NAME-VERSION.wasm"
        )));
    }
    let digest = Digest::of(&component);
    carried::demand_same(&dir.join(&file), digest, args.replace)?;
    let part = dir.join(format!(".{file}.{}.part", digest.short()));
    files::write(&part, &component)?;
    Ok(Arrived {
        file,
        signature,
        pulled: Pulled {
            reference: path.display().to_string(),
            manifest: digest,
            component: digest,
            at: SystemClock::default().now(),
        },
        part,
    })
}

/// Gives what arrived its names: the signature first, the component last, so
/// that a host which watches the folder never sees the one without the other.
fn keep(arrived: Arrived, dir: &Path, trust: Option<&Trust>) -> Result<Value, CliError> {
    let Arrived {
        file,
        signature,
        pulled,
        part,
    } = arrived;
    let target = dir.join(&file);
    let text = signature.as_ref().map(SignatureFile::to_text);
    let beside = files::beside(&target, SIGNATURE_SUFFIX);
    match &text {
        Some(text) => files::write(&beside, text.as_bytes())?,
        None => files::remove(&beside)?,
    }
    files::write(
        &files::beside(&target, ORIGIN_SUFFIX),
        pulled.to_text().as_bytes(),
    )?;
    std::fs::rename(&part, &target)
        .map_err(|e| CliError(format!("{} cannot be written: {e}", target.display())))?;
    let signed = text.as_deref().map(str::as_bytes);
    let verdict = trust.map(|trust| judge(trust, &file, pulled.component, signed));
    let (used, note) = match verdict {
        None => (Value::Null, None),
        Some(Ok(origin)) => (true.into(), origin.warning),
        Some(Err(why)) => (false.into(), Some(why.to_string())),
    };
    Ok(json!({
        "file": target.display().to_string(),
        "reference": pulled.reference,
        "manifest": pulled.manifest,
        "digest": pulled.component,
        "publisher": signature.as_ref().map(|s| &s.manifest.publisher),
        "key": signature.as_ref().map(|s| s.key),
        "signed_at": signature.as_ref().map(|s| s.manifest.created),
        "permissions": signature.as_ref().map(|s| &s.manifest.permissions),
        "may_be_used": used,
        "note": note,
    }))
}

fn in_words(done: &Value) -> String {
    let field = |name: &str| done.get(name).and_then(Value::as_str).unwrap_or_default();
    let signed = match done.get("publisher").and_then(Value::as_str) {
        Some(publisher) => format!("signed by {publisher} with {}", field("key")),
        None => "not signed".into(),
    };
    let mut lines = vec![format!(
        "Pulled {}\n  from    {}\n  digest  {}\n  {signed}",
        field("file"),
        field("reference"),
        field("digest"),
    )];
    match (
        done.get("may_be_used").and_then(Value::as_bool),
        field("note"),
    ) {
        (Some(true), "") => lines.push("  The host's configuration trusts it.".into()),
        (Some(true), note) => lines.push(format!("  The host will use it with a warning: {note}")),
        (Some(false), note) => lines.push(format!("  The host will refuse it: {note}")),
        (None, _) => {}
    }
    lines.join("\n")
}
