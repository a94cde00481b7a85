//! What the demo and the tests need from outside: Node packages, a Python
//! environment, a browser, a database.
//!
//! Everything that is downloaded goes into a cache folder, in a subfolder named
//! by the hash of the lock file it came from: a second clone finds it there,
//! and a changed lock file brings a new one.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use countersign_toolchain::cache_folder;
use countersign_toolchain::hex;

mod registry;

/// What is wanted; the counterparts' Node packages always are.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wanted {
    /// The Python SDK's agent.
    pub(crate) python: bool,
    /// Chromium and what drives it.
    pub(crate) browser: bool,
    /// Debian's OCI registry.
    pub(crate) registry: bool,
    /// PostgreSQL, whose programs tests run on a cluster of their own.
    pub(crate) postgres: bool,
}

/// What there is now.
pub(crate) struct Ready {
    /// `tests/counterparts`.
    pub(crate) counterparts: PathBuf,
    /// The Node that everything runs on.
    pub(crate) node: PathBuf,
    /// Chromium, if it was wanted.
    pub(crate) chromium: Option<PathBuf>,
}

const CHROMIUM: &str = "COUNTERSIGN_CHROMIUM";
const POSTGRES: &str = "postgresql";
const BROWSERS: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// Brings what is missing and says so; quick and silent when nothing is.
pub(crate) fn run(wanted: Wanted) -> Result<Ready> {
    install_debian_packages(&missing(wanted))?;

    let tests = crate::repository().join("tests");
    let counterparts = tests.join("counterparts");
    node_packages(&counterparts)?;
    if wanted.python {
        python_environment(&counterparts)?;
    }
    if wanted.browser {
        node_packages(&tests.join("browser"))?;
    }
    if wanted.registry {
        registry::bring(&counterparts)?;
    }
    let node = counterparts.join("node_modules/.bin/node");
    ensure!(
        succeeds(Command::new(&node).arg("--version")),
        "the npm package `node` did not bring its program: its install script has to run \
         (npm config ignore-scripts=false), then remove {} and try again",
        fs::canonicalize(counterparts.join("node_modules"))?.display()
    );
    let chromium = wanted.browser.then(browser).flatten();
    ensure!(
        chromium.is_some() || !wanted.browser,
        "there is no Chromium; name one in {CHROMIUM}"
    );
    Ok(Ready {
        counterparts,
        node,
        chromium,
    })
}

// ---- Debian --------------------------------------------------------------

/// The Debian packages that would bring what is missing.
fn missing(wanted: Wanted) -> Vec<&'static str> {
    let mut packages = Vec::new();
    if on_path("npm").is_none() {
        packages.extend(["nodejs", "npm"]);
    }
    if wanted.python && interpreter().is_none() {
        packages.extend(["python3", "python3-venv"]);
    }
    if wanted.browser && browser().is_none() {
        packages.push("chromium");
    }
    if wanted.postgres && postgres().is_none() {
        packages.push(POSTGRES);
    }
    packages
}

fn install_debian_packages(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    let advice = format!(
        "missing: {list}. On Debian, as root:\n  apt-get update && apt-get install \
         --no-install-recommends ca-certificates {list}\nelsewhere: Node with npm, Python 3.11 or \
         newer with venv, Chromium, PostgreSQL 15 or newer"
    );
    ensure!(on_path("apt-get").is_some() && is_root(), advice);
    say(&format!("installing {list} with apt-get"));
    let apt = |arguments: &[&str]| {
        Command::new("apt-get")
            .args(["-o", "Acquire::Retries=3", "--quiet", "--yes"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let mut install = vec!["install", "--no-install-recommends", "ca-certificates"];
    install.extend(packages);
    // A list that cannot be brought up to date may still be good enough.
    let updated = apt(&["update"]);
    ensure!(
        apt(&install),
        "apt-get {} failed. {advice}",
        if updated { "install" } else { "update" }
    );
    if packages.contains(&POSTGRES) {
        // The package starts a server for the machine: nobody asked for one.
        for command in [
            &["service", "postgresql", "stop"][..],
            &["update-rc.d", "postgresql", "disable"],
        ] {
            succeeds(Command::new(command[0]).args(&command[1..]));
        }
    }
    Ok(())
}

/// PostgreSQL's server, which Debian puts beside the path.
fn postgres() -> Option<PathBuf> {
    on_path("postgres").or_else(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        versions
            .filter_map(|version| Some(version.ok()?.path().join("bin/postgres")))
            .find(|program| program.is_file())
    })
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// What the example in C needs.
pub(crate) fn c_tools() -> Result<()> {
    if crate::languages::C_TOOLS
        .iter()
        .all(|tool| on_path(tool).is_some())
    {
        return Ok(());
    }
    install_debian_packages(&["clang", "lld"])
}

/// Brings the packages of the example in JavaScript; answers with the Node to
/// run them on.
pub(crate) fn javascript(folder: &Path) -> Result<PathBuf> {
    let ready = run(Wanted::default())?;
    node_packages(folder)?;
    Ok(ready.node)
}

/// Brings the packages of the example in Python; answers with its environment.
pub(crate) fn python(folder: &Path) -> Result<PathBuf> {
    install_debian_packages(&missing(Wanted {
        python: true,
        ..Wanted::default()
    }))?;
    python_environment(folder)?;
    Ok(folder.join("venv"))
}

// ---- npm -----------------------------------------------------------------

/// The packages of this folder's lock file, as `node_modules` in it.
fn node_packages(folder: &Path) -> Result<()> {
    let lock = folder.join("package-lock.json");
    let link = folder.join("node_modules");
    if link.is_dir() && !link.is_symlink() {
        ensure!(
            same_packages(&lock, &link.join(".package-lock.json"))?,
            "{} was not installed from package-lock.json as it is now: remove it, or run npm ci \
             there",
            link.display()
        );
        return Ok(());
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let cached = cached(&format!("node-{name}"), &[&lock], |staging| {
        for file in ["package.json", "package-lock.json", ".npmrc"] {
            fs::copy(folder.join(file), staging.join(file))?;
        }
        say(&format!("installing the Node packages of {name} (npm ci)"));
        let status = Command::new("npm")
            .args(["ci", "--loglevel", "error"])
            .current_dir(staging)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("cannot run npm")?;
        ensure!(status.success(), "npm ci failed for {name}");
        Ok(())
    })?;
    point(&link, &cached.join("node_modules"))
}

/// Whether what npm says it installed is what the lock file asks for.
fn same_packages(lock: &Path, installed: &Path) -> Result<bool> {
    let read = |file: &Path| -> Result<Value> {
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(serde_json::from_slice(&text)?)
    };
    let (lock, installed) = (read(lock)?, read(installed)?);
    let Some(wanted) = lock["packages"].as_object() else {
        bail!("package-lock.json lists no packages");
    };
    // Optional ones for other platforms are in the lock file only.
    Ok(wanted.iter().all(|(name, package)| {
        let there = &installed["packages"][name];
        name.is_empty()
            || (there.is_null() && package["optional"] == true)
            || there["version"] == package["version"]
    }))
}

// ---- Python --------------------------------------------------------------

/// A Python that is new enough and can make environments.
fn interpreter() -> Option<PathBuf> {
    let python = on_path("python3")?;
    succeeds(Command::new(&python).args([
        "-c",
        "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))",
    ]))
    .then_some(python)
}

/// The packages of this folder's `requirements.txt`, as `venv` in it.
fn python_environment(folder: &Path) -> Result<()> {
    let requirements = folder.join("requirements.txt");
    let link = folder.join("venv");
    if link.is_dir() && !link.is_symlink() {
        return Ok(());
    }
    let python = interpreter().context("there is no Python 3.11 or newer with venv")?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let cached = cached("python", &[&requirements, &python], |staging| {
        say(&format!(
            "installing the Python packages of {name} into an environment of their own"
        ));
        let status = Command::new(&python)
            .args(["-m", "venv"])
            .arg(staging)
            .status()?;
        ensure!(status.success(), "python3 -m venv failed");
        let status = Command::new(staging.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(["--require-hashes", "-r"])
            .arg(&requirements)
            .stdin(Stdio::null())
            .status()?;
        ensure!(
            status.success(),
            "pip could not install {}",
            requirements.display()
        );
        Ok(())
    })?;
    point(&link, &cached)
}

// ---- Browser -------------------------------------------------------------

fn browser() -> Option<PathBuf> {
    env::var_os(CHROMIUM)
        .map(PathBuf::from)
        .or_else(|| BROWSERS.iter().find_map(on_path))
}

// ---- Cache ---------------------------------------------------------------

/// The folder made from these files. A mark in it says that it is whole: one
/// that a stopped run left behind is made again. (Making it elsewhere and moving
/// it would not do: an environment of Python knows its own path.)
fn cached(name: &str, files: &[&Path], make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let mut sum = Sha256::new();
    sum.update(env::consts::ARCH);
    for file in files {
        sum.update(fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    let cache = cache_folder()?;
    let digest = hex(&sum.finalize());
    let done = cache.join(format!("{name}-{}", digest.get(..16).unwrap_or(&digest)));
    let mark = done.join(".countersign-complete");
    if mark.exists() {
        return Ok(done);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let lock = fs::File::create(cache.join("install.lock"))?;
    lock.lock()?;
    if mark.exists() {
        return Ok(done);
    }
    if done.exists() {
        fs::remove_dir_all(&done)?;
    }
    fs::create_dir_all(&done).with_context(|| format!("cannot create {}", done.display()))?;
    make(&done)?;
    fs::write(&mark, "")?;
    Ok(done)
}

/// Makes `link` a symbolic link to `target`.
fn point(link: &Path, target: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|present| present == target) {
        return Ok(());
    }
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    symlink(target, link).with_context(|| format!("cannot create {}", link.display()))
}

// ---- Small parts ---------------------------------------------------------

fn on_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(name.as_ref()))
        .find(|file| file.is_file())
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A line about what takes a while.
pub(crate) fn say(what: &str) {
    eprintln!("· {what}");
}
