//! `preset new` and `preset build`.

use std::fs;
use std::path::{Path, PathBuf};

use countersign_core::names::{InvalidName, PresetName};
use countersign_toolchain::{
    BuildError, Component, Order, PresetCrate, Toolchain, crates, encode, put,
};
use serde::Serialize;

pub use countersign_toolchain::wrapper::run_if_called as run_if_called_as_rustc;

/// The SDK and the interface, as paths below the repository and contents.
const SDK: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
/// Versions that the SDK was tried with.
const LOCK: &str = include_str!("../../../providers/Cargo.lock");

/// What a new project begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// Pure data: addresses, scopes, tools.
    Data,
    /// Decides by a call's arguments, too.
    Code,
}

impl Template {
    /// Files of the project, by path, with places to fill in.
    fn files(self) -> [(&'static str, &'static str); 6] {
        let (lib, tests, scopes) = match self {
            Self::Data => (
                include_str!("../templates/data/lib.rs.in"),
                include_str!("../templates/data/tests.rs.in"),
                include_str!("../templates/data/scopes.toml.in"),
            ),
            Self::Code => (
                include_str!("../templates/code/lib.rs.in"),
                include_str!("../templates/code/tests.rs.in"),
                include_str!("../templates/code/scopes.toml.in"),
            ),
        };
        [
            ("Cargo.toml", include_str!("../templates/Cargo.toml.in")),
            (".gitignore", include_str!("../templates/gitignore.in")),
            ("README.md", include_str!("../templates/README.md.in")),
            ("src/lib.rs", lib),
            ("src/tests.rs", tests),
            ("scopes.toml", scopes),
        ]
    }
}

/// Why there is no new project.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// It will be the preset's name, and part of its file's.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Somebody's work is there.
    #[error(
        "{0} is there already, and nothing is ever overwritten: choose another name, or `--dir` another place"
    )]
    Exists(PathBuf),
    /// The disk refused.
    #[error("{path} cannot be written: {error}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

/// A project that was made.
#[derive(Debug, Serialize)]
pub struct NewProject {
    /// The preset's name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The files to look at, the SDK's aside.
    pub files: Vec<String>,
}

/// Writes a new project into `dir/NAME`. `today` dates what is said of the
/// vendor (`2026-11-21`).
///
/// # Errors
/// [`NewError`]; nothing that was there is changed.
pub fn create(
    name: &str,
    template: Template,
    dir: &Path,
    today: &str,
) -> Result<NewProject, NewError> {
    let name = PresetName::parse(name)?;
    let folder = dir.join(name.as_str());
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| NewError::Io { path, error }
    };
    fs::create_dir_all(dir).map_err(io(dir))?;
    match fs::create_dir(&folder) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(NewError::Exists(folder));
        }
        Err(error) => {
            return Err(NewError::Io {
                path: folder,
                error,
            });
        }
    }
    let fill = |text: &str| {
        text.replace("{{name}}", name.as_str())
            .replace("{{title}}", &title(name.as_str()))
            .replace("{{today}}", today)
    };
    let own = template
        .files()
        .map(|(path, text)| (path.to_owned(), fill(text)));
    let sdk = SDK
        .iter()
        .map(|(path, text)| (format!("sdk/{path}"), standalone(path, text)));
    let lock = ("Cargo.lock".to_owned(), lock_file(name.as_str()));
    let files = own.iter().map(|(path, _)| path.clone()).collect();
    for (path, text) in own.into_iter().chain(sdk).chain([lock]) {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io(parent))?;
        }
        fs::write(&path, text).map_err(io(&path))?;
    }
    Ok(NewProject {
        name: name.as_str().to_owned(),
        folder,
        files,
    })
}

/// `acme-crm` for people: `Acme Crm`.
fn title(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| {
            first.to_uppercase().chain(letters).collect()
        })
    };
    let words: Vec<String> = name
        .split('-')
        .filter(|w| !w.is_empty())
        .map(word)
        .collect();
    words.join(" ")
}

/// The SDK's own manifest takes these from its workspace, which stays here.
fn standalone(path: &str, text: &str) -> String {
    if !path.ends_with("Cargo.toml") {
        return text.to_owned();
    }
    let without_lints = text.split("\n[lints]").next().unwrap_or(text).to_owned() + "\n";
    [
        ("edition.workspace = true", "edition = \"2024\""),
        (
            "rust-version.workspace = true",
            concat!("rust-version = \"", env!("CARGO_PKG_RUST_VERSION"), "\""),
        ),
        (
            "license.workspace = true",
            concat!("license = \"", env!("CARGO_PKG_LICENSE"), "\""),
        ),
        ("publish.workspace = true", "publish = false"),
        (
            "version.workspace = true",
            concat!("version = \"", env!("CARGO_PKG_VERSION"), "\""),
        ),
    ]
    .iter()
    // Whole lines: `version` is a part of `rust-version`.
    .fold(without_lints, |text, (from, to)| {
        text.replace(&format!("\n{from}\n"), &format!("\n{to}\n"))
    })
}

/// The lock file of the first-party presets, with this project in their place:
/// what it depends on is what they depend on.
fn lock_file(name: &str) -> String {
    const OURS: [&str; 4] = ["generic", "github", "google", "slack"];
    let (head, packages) = LOCK.split_once("[[package]]\n").unwrap_or((LOCK, ""));
    let is_ours = |package: &&str| {
        OURS.iter()
            .any(|ours| package.starts_with(&format!("name = \"{ours}\"\n")))
    };
    let own = format!(
        "name = \"{name}\"\nversion = \"0.1.0\"\ndependencies = [\n \"countersign-guest-sdk\",\n]\n\n"
    );
    let mut packages: Vec<String> = packages
        .split("[[package]]\n")
        .filter(|package| !is_ours(package))
        .map(|package| package.trim_end().to_owned() + "\n\n")
        .chain([own])
        .collect();
    packages.sort();
    let all: String = packages
        .iter()
        .map(|p| format!("[[package]]\n{p}"))
        .collect();
    format!("{head}{}\n", all.trim_end())
}

/// A preset that was built.
#[derive(Debug, Serialize)]
pub struct Built {
    /// As its `Cargo.toml` says.
    pub name: String,
    /// As its `Cargo.toml` says.
    pub version: String,
    /// The crate's folder.
    #[serde(skip)]
    pub folder: PathBuf,
    /// The component.
    pub file: PathBuf,
    /// False if the same bytes were there already.
    pub written: bool,
    /// In bytes.
    pub size: usize,
    /// SHA-256, lower-case hexadecimal.
    pub digest: String,
    /// Interfaces it imports.
    pub imports: Vec<String>,
    /// Interfaces it exports.
    pub exports: Vec<String>,
}

/// Builds every preset of the workspace at `folder` into `out`, or into the
/// folder's `dist`.
///
/// # Errors
/// [`BuildError`]; the compiler's own words are on standard error.
pub fn build(folder: &Path, out: Option<&Path>) -> Result<Vec<Built>, BuildError> {
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |error| BuildError::Io { what, path, error }
    };
    let folder = folder.canonicalize().map_err(io("cannot find", folder))?;
    let found = crates(&folder)?;
    if found.is_empty() {
        return Err(BuildError::NoPreset(folder));
    }
    let names: Vec<&str> = found.iter().map(|c| c.name.as_str()).collect();
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), PathBuf::from);
    let modules = Toolchain::find()?.build(&Order {
        workspace: &folder,
        sources: &folder,
        target: &target.join("preset"),
        packages: &names,
        // A lock file that does not suit is mended, as cargo does it.
        locked: false,
    })?;
    let out = out.map_or_else(|| folder.join("dist"), Path::to_path_buf);
    fs::create_dir_all(&out).map_err(io("cannot create", &out))?;
    let place = |preset: PresetCrate| {
        let Component {
            bytes,
            digest,
            imports,
            exports,
        } = encode(&modules.join(&preset.module))?;
        let file = out.join(preset.file_name());
        Ok(Built {
            written: put(&file, &bytes)?,
            file,
            size: bytes.len(),
            digest,
            imports,
            exports,
            name: preset.name,
            version: preset.version,
            folder: preset.folder,
        })
    };
    found.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(folder: &Path) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(contents(&path));
            } else {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
        found
    }

    #[test]
    fn nothing_in_a_new_project_is_left_to_fill_in_or_to_look_up_elsewhere() {
        for template in [Template::Data, Template::Code] {
            let place = tempfile::tempdir().unwrap();
            let project = create("acme-crm", template, place.path(), "2026-11-21").unwrap();
            for (path, text) in contents(&project.folder) {
                assert!(!text.contains("{{"), "{}", path.display());
                assert!(!text.contains("workspace = true"), "{}", path.display());
            }
            for file in [
                "sdk/guest-sdk/src/lib.rs",
                "sdk/wit/v0.1.0/types.wit",
                "Cargo.lock",
            ] {
                assert!(project.folder.join(file).is_file(), "{file}");
            }
            let lib = fs::read_to_string(project.folder.join("src/lib.rs")).unwrap();
            assert!(lib.contains("\"acme-crm\", \"Acme Crm\""));
            let found = crates(&project.folder).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].file_name(), "acme-crm-0.1.0.wasm");
        }
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("acme");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("Cargo.toml"), "mine").unwrap();
        let error = create("acme", Template::Data, place.path(), "2026-11-21").unwrap_err();
        assert!(error.to_string().contains("there already"), "{error}");
        assert_eq!(
            fs::read_to_string(folder.join("Cargo.toml")).unwrap(),
            "mine"
        );
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn a_name_that_a_catalog_could_not_hold_is_refused() {
        let place = tempfile::tempdir().unwrap();
        for name in [
            "", "Acme", "1acme", "acme_crm", "../acme", "a/b", "acme.crm",
        ] {
            let error = create(name, Template::Data, place.path(), "2026-11-21").unwrap_err();
            assert!(matches!(error, NewError::Name(_)), "{name}");
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_lock_file_holds_the_new_project_and_no_preset_of_ours() {
        let lock = lock_file("zeta");
        let names: Vec<&str> = lock
            .lines()
            .filter_map(|l| l.strip_prefix("name = "))
            .collect();
        assert!(names.is_sorted(), "{names:?}");
        assert!(names.contains(&"\"zeta\"") && names.contains(&"\"wit-bindgen\""));
        assert!(!names.contains(&"\"github\""));
        assert!(lock.starts_with("# This file"));
    }
}
