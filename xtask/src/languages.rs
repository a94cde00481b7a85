//! `cargo xtask presets --examples`: the same small preset in four languages.
//!
//! Slow to make (a JavaScript engine and a Python interpreter go into theirs)
//! and seldom changed: each is made anew only when a file it comes from is
//! another one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use countersign_toolchain::{Component, Order, Toolchain, encode, hex, put};
use sha2::{Digest, Sha256};
use wit_bindgen_core::wit_parser::Resolve;

use crate::presets;
use crate::setup::{self, say};

/// The version of every example.
const VERSION: &str = "0.1.0";
/// What the C preset needs, by the programs' names.
pub(crate) const C_TOOLS: [&str; 2] = ["clang", "wasm-ld"];

/// A language, its folder below `examples/presets`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Rust,
    C,
    JavaScript,
    Python,
}

impl Language {
    const ALL: [Self; 4] = [Self::Rust, Self::C, Self::JavaScript, Self::Python];

    fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::C => "c",
            Self::JavaScript => "javascript",
            Self::Python => "python",
        }
    }
}

/// Where things are.
struct Places {
    repository: PathBuf,
    examples: PathBuf,
    wit: PathBuf,
    /// For what comes between source and component.
    work: PathBuf,
}

/// Builds those that are not up to date; all, or those named `acme-LANGUAGE`.
pub(crate) fn build(names: &[String]) -> Result<()> {
    let repository = crate::repository();
    let places = Places {
        examples: repository.join("examples/presets"),
        wit: repository.join("wit/v0.1.0"),
        work: presets::target_folder(&repository, false).join("examples"),
        repository,
    };
    let full = |language: &Language| format!("acme-{}", language.name());
    if let Some(unknown) = names.iter().find(|name| {
        !Language::ALL
            .iter()
            .any(|language| full(language) == **name)
    }) {
        let known: Vec<String> = Language::ALL.iter().map(full).collect();
        bail!(
            "there is no example `{unknown}`; there are {}",
            known.join(", ")
        );
    }
    for language in Language::ALL {
        if names.is_empty() || names.contains(&full(&language)) {
            one(&places, language)
                .with_context(|| format!("cannot build the example in {}", language.name()))?;
        }
    }
    Ok(())
}

fn one(places: &Places, language: Language) -> Result<()> {
    let name = language.name();
    let source = places.examples.join(name);
    let out = places.examples.join("out");
    let file = out.join(format!("acme-{name}-{VERSION}.wasm"));
    // Beside it, the digest of all it was made of.
    let mark = out.join(format!("acme-{name}-{VERSION}.inputs"));
    let mut folders = vec![source.clone(), places.wit.clone()];
    if language == Language::Rust {
        folders.push(places.repository.join("guest-sdk"));
    }
    let inputs = digest(&folders)?;
    let up_to_date = file.exists() && fs::read_to_string(&mark).is_ok_and(|known| known == inputs);
    if !up_to_date {
        fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
        let work = places.work.join(name);
        fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
        let component = match language {
            Language::Rust => rust(places, &source, &work),
            Language::C => c(places, &source, &work),
            Language::JavaScript => javascript(places, &source, &work),
            Language::Python => python(places, &source, &work),
        }?;
        put(&file, &component)?;
        fs::write(&mark, inputs)?;
    }
    let name = format!("acme-{name}");
    let component = Component::of(&name, fs::read(&file)?)?;
    presets::report((&name, VERSION), &component, !up_to_date);
    Ok(())
}

/// A digest over the files of these folders, but for what is installed there.
fn digest(folders: &[PathBuf]) -> Result<String> {
    let mut files = Vec::new();
    let mut folders = folders.to_vec();
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
        {
            let path = entry?.path();
            let skipped = ["node_modules", "venv", "target", "__pycache__"]
                .iter()
                .any(|name| path.ends_with(name));
            match path {
                _ if skipped => {}
                path if path.is_dir() => folders.push(path),
                path => files.push(path),
            }
        }
    }
    files.sort();
    let mut sum = Sha256::new();
    for file in files {
        let content = fs::read(&file)?;
        for piece in [file.as_os_str().as_encoded_bytes(), &content] {
            sum.update((piece.len() as u64).to_le_bytes());
            sum.update(piece);
        }
    }
    Ok(hex(&sum.finalize()))
}

fn rust(places: &Places, source: &Path, work: &Path) -> Result<Vec<u8>> {
    let modules = Toolchain::find()?.build(&Order {
        workspace: source,
        sources: &places.repository,
        target: work,
        packages: &["acme-rust"],
        locked: true,
    })?;
    Ok(encode(&modules.join("acme_rust.wasm"))?.bytes)
}

/// Bindings by wit-bindgen, one clang, and no library at all.
fn c(places: &Places, source: &Path, work: &Path) -> Result<Vec<u8>> {
    setup::c_tools()?;
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(&places.wit)?;
    let world = resolve.select_world(&[package], Some("preset"))?;
    let mut files = wit_bindgen_core::Files::default();
    wit_bindgen_c::Opts::default()
        .build()
        .generate(&mut resolve, world, &mut files)?;
    for (name, content) in files.iter() {
        fs::write(work.join(name), content)?;
    }
    let module = work.join("acme.wasm");
    run(Command::new("clang")
        .args([
            "--target=wasm32",
            "-std=c17",
            "-Oz",
            "-flto",
            "-Wall",
            "-Wextra",
            "-Werror",
        ])
        .args([
            "-ffreestanding",
            "-nostdlib",
            "-Wl,--no-entry",
            "-Wl,--strip-debug",
        ])
        // Stack, data and what is allocated share few pages: an instance is
        // made for every call.
        .arg("-Wl,-z,stack-size=16384")
        .arg("-isystem")
        .arg(source.join("freestanding"))
        .arg("-isystem")
        .arg(work)
        .arg(source.join("acme.c"))
        .arg(source.join("freestanding/memory.c"))
        .arg(work.join("preset.c"))
        .arg(work.join("preset_component_type.o"))
        .arg("-o")
        .arg(&module))?;
    Ok(encode(&module)?.bytes)
}

fn javascript(places: &Places, source: &Path, work: &Path) -> Result<Vec<u8>> {
    let node = setup::javascript(source)?;
    let out = work.join("acme.wasm");
    say("building acme-javascript (a JavaScript engine goes into it)");
    run(Command::new(node)
        .arg("build.mjs")
        .args([&places.wit, &out])
        .current_dir(source))?;
    Ok(fs::read(&out)?)
}

fn python(places: &Places, source: &Path, work: &Path) -> Result<Vec<u8>> {
    let environment = setup::python(source)?;
    let out = work.join("acme.wasm");
    say("building acme-python (a Python interpreter goes into it)");
    run(Command::new(environment.join("bin/componentize-py"))
        .arg("--wit-path")
        .arg(&places.wit)
        .args(["--world", "preset", "componentize", "acme"])
        // What is imported of WASI otherwise (sockets, too), nobody needs.
        .arg("--stub-wasi")
        .arg("--python-path")
        .arg(source)
        .arg("--output")
        .arg(&out)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(work))?;
    Ok(fs::read(&out)?)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
