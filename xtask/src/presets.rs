//! `cargo xtask presets`: from crates to components.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use wit_component::{ComponentEncoder, DecodedWasm};

use crate::languages;
use crate::toolchain::Toolchain;

/// What to build.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Which presets; all when none is named.
    pub(crate) names: Vec<String>,

    /// Builds the components that tests run the host against, into
    /// `tests/fixtures/presets/out`, in place of the catalogue's.
    #[arg(long)]
    pub(crate) fixtures: bool,

    /// Builds the examples in Rust, C, JavaScript and Python, into
    /// `examples/presets/out`, in place of the catalogue's.
    #[arg(long, conflicts_with = "fixtures")]
    pub(crate) examples: bool,
}

/// A crate that becomes a component.
struct Preset {
    name: String,
    version: String,
    /// Where cargo leaves the core module, below the target's folder.
    module: String,
}

/// Builds, encodes, and puts into place what has changed.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.examples {
        return languages::build(&options.names);
    }
    let repository = crate::repository();
    let (workspace, destination) = if options.fixtures {
        let fixtures = repository.join("tests/fixtures/presets");
        (fixtures.clone(), fixtures.join("out"))
    } else {
        (repository.join("providers"), repository.join("catalog"))
    };

    let toolchain = Toolchain::find()?;
    let presets = select(list(&workspace)?, &options.names)?;
    let target = target_folder(&repository, options.fixtures);
    let modules = toolchain.build(
        &repository,
        &workspace,
        &target,
        &presets
            .iter()
            .map(|preset| preset.name.as_str())
            .collect::<Vec<_>>(),
    )?;

    fs::create_dir_all(&destination)
        .with_context(|| format!("cannot create {}", destination.display()))?;
    for preset in &presets {
        let module = modules.join(&preset.module);
        let component = encode(&module)
            .with_context(|| format!("cannot make a component of {}", preset.name))?;
        let file = destination.join(format!("{}-{}.wasm", preset.name, preset.version));
        let written = put(&file, &component)?;
        report((&preset.name, &preset.version), &component, written)?;
    }
    Ok(())
}

/// The workspace's crates, as cargo knows them.
fn list(workspace: &Path) -> Result<Vec<Preset>> {
    let manifest = workspace.join("Cargo.toml");
    let output = Command::new(cargo())
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--manifest-path",
        ])
        .arg(&manifest)
        .output()
        .context("cannot run cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed for {}:\n{}",
        manifest.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let mut presets = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let module = package["targets"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|target| {
                target["crate_types"]
                    .as_array()
                    .is_some_and(|types| types.iter().any(|t| t == "cdylib"))
            });
        if let (Some(name), Some(version), Some(module)) = (
            package["name"].as_str(),
            package["version"].as_str(),
            module.and_then(|target| target["name"].as_str()),
        ) {
            presets.push(Preset {
                name: name.into(),
                version: version.into(),
                module: format!("{}.wasm", module.replace('-', "_")),
            });
        }
    }
    presets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(presets)
}

fn select(all: Vec<Preset>, names: &[String]) -> Result<Vec<Preset>> {
    if let Some(unknown) = names
        .iter()
        .find(|name| all.iter().all(|preset| preset.name != **name))
    {
        let known = all
            .iter()
            .map(|preset| preset.name.as_str())
            .collect::<Vec<_>>();
        bail!(
            "there is no preset `{unknown}`; there are {}",
            known.join(", ")
        );
    }
    Ok(all
        .into_iter()
        .filter(|p| names.is_empty() || names.contains(&p.name))
        .collect())
}

/// Beside the host's own build, and below `CARGO_TARGET_DIR` if that is set.
pub(crate) fn target_folder(repository: &Path, fixtures: bool) -> PathBuf {
    let base = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repository.join("target"), PathBuf::from);
    base.join(if fixtures {
        "preset-fixtures"
    } else {
        "presets"
    })
}

/// Makes a component of a core module. Without adapters, so that a WASI import
/// is an error here and not a surprise in the host.
pub(crate) fn encode(module: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    ComponentEncoder::default()
        .validate(true)
        .module(&bytes)?
        .encode()
}

/// Writes by renaming, so that a host that watches the folder never sees half
/// a file. Leaves an equal file alone.
pub(crate) fn put(file: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(file).is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    // Not `.wasm`: the watcher must not take it for a component.
    let temporary = file.with_extension(format!("tmp-{}", std::process::id()));
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, file))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(true)
}

/// Says what there is now.
pub(crate) fn report((name, version): (&str, &str), component: &[u8], written: bool) -> Result<()> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component)? else {
        bail!("{name} is not a component");
    };
    let names = |items: Vec<String>| {
        if items.is_empty() {
            "none".to_string()
        } else {
            items.join(", ")
        }
    };
    let world = &resolve.worlds[world];
    let imports = world
        .imports
        .keys()
        .map(|key| resolve.name_world_key(key))
        .collect();
    let exports = world
        .exports
        .keys()
        .map(|key| resolve.name_world_key(key))
        .collect();
    println!(
        "{} {}  {}  {:.1} kB\n  sha256   {}\n  imports  {}\n  exports  {}",
        name,
        version,
        if written { "written" } else { "up to date" },
        component.len() as f64 / 1000.0,
        hex(&Sha256::digest(component)),
        names(imports),
        names(exports),
    );
    Ok(())
}

/// The cargo that runs this.
pub(crate) fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
