//! Debian's OCI registry, only its program: installed as a package it would
//! also be a service, on port 5000, from then on.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{cached, is_root, on_path, point, say, succeeds};

const PROGRAM: &str = "docker-registry";

/// Brings it, unless there is one on the path: as a link beside the other
/// counterparts, where the tests look for it.
pub(super) fn bring(counterparts: &Path) -> Result<()> {
    let link = counterparts.join(PROGRAM);
    if on_path(PROGRAM).is_some() || link.is_file() {
        return Ok(());
    }
    let advice = "on anything but Debian, put CNCF Distribution on the path as docker-registry";
    ensure!(
        on_path("apt-get").is_some(),
        "{PROGRAM} is missing; {advice}"
    );
    let unpacked = cached(PROGRAM, &[], |staging| {
        say("fetching docker-registry (apt-get download; it is not installed)");
        let packages = staging.join("packages");
        fs::create_dir(&packages)?;
        let download = || {
            succeeds(
                Command::new("apt-get")
                    .args(["-o", "Acquire::Retries=3", "--quiet", "download", PROGRAM])
                    // The account that apt would change to cannot write here.
                    .args(["-o", "APT::Sandbox::User=root"])
                    .current_dir(&packages),
            )
        };
        // What apt knows may be too old.
        let is_there = download() || is_root() && update() && download();
        if !is_there {
            bail!("apt-get could not download {PROGRAM}; as root: apt-get update. {advice}");
        }
        for package in fs::read_dir(&packages)? {
            let mut unpack = Command::new("dpkg");
            unpack.arg("-x").arg(package?.path()).arg(staging);
            ensure!(succeeds(&mut unpack), "dpkg could not unpack {PROGRAM}");
        }
        fs::remove_dir_all(&packages).context("cannot remove what was downloaded")
    })?;
    point(&link, &unpacked.join("usr/bin").join(PROGRAM))
}

fn update() -> bool {
    succeeds(Command::new("apt-get").args(["--quiet", "update"]))
}
