//! `cargo xtask presets`: from crates to components.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use countersign_toolchain::{Component, Order, PresetCrate, Toolchain, crates, encode, put};

use crate::languages;

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
    let presets = select(crates(&workspace)?, &options.names)?;
    let names: Vec<&str> = presets.iter().map(|preset| preset.name.as_str()).collect();
    let modules = toolchain.build(&Order {
        workspace: &workspace,
        sources: &repository,
        target: &target_folder(&repository, options.fixtures),
        packages: &names,
        locked: true,
    })?;

    fs::create_dir_all(&destination)
        .with_context(|| format!("cannot create {}", destination.display()))?;
    for preset in &presets {
        let component = encode(&modules.join(&preset.module))?;
        let file = destination.join(preset.file_name());
        let written = put(&file, &component.bytes)?;
        report((&preset.name, &preset.version), &component, written);
    }
    Ok(())
}

fn select(all: Vec<PresetCrate>, names: &[String]) -> Result<Vec<PresetCrate>> {
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

/// Says what there is now.
pub(crate) fn report((name, version): (&str, &str), component: &Component, written: bool) {
    let names = |items: &[String]| {
        if items.is_empty() {
            "none".to_string()
        } else {
            items.join(", ")
        }
    };
    println!(
        "{} {}  {}  {:.1} kB\n  sha256   {}\n  imports  {}\n  exports  {}",
        name,
        version,
        if written { "written" } else { "up to date" },
        component.bytes.len() as f64 / 1000.0,
        component.digest,
        names(&component.imports),
        names(&component.exports),
    );
}
