//! Exchanging the preset under load: a swap should make no call fail, and none
//! slow.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use countersign_tests::Host;

/// Between two swaps; each compiles a component anew.
const PAUSE: Duration = Duration::from_millis(400);

/// Puts ever new builds of a preset into a host's catalog.
pub(crate) struct Swaps {
    file: PathBuf,
    original: Vec<u8>,
    put: u8,
}

impl Swaps {
    /// Of the `generic` preset.
    pub(crate) fn of(host: &Host) -> Result<Self> {
        let file = host.install("generic")?;
        let original = std::fs::read(&file)?;
        Ok(Self {
            file,
            original,
            put: 0,
        })
    }

    /// Goes on until it is dropped.
    pub(crate) async fn go_on(&mut self) -> Result<()> {
        loop {
            self.put = self.put.wrapping_add(1);
            let draft = self.file.with_extension("draft");
            std::fs::write(&draft, self.build())?;
            std::fs::rename(draft, &self.file)?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The same component with other bytes: a custom section tells builds apart.
    fn build(&self) -> Vec<u8> {
        let mut bytes = self.original.clone();
        bytes.extend([0, 6, 4, b'm', b'a', b'r', b'k', self.put]);
        bytes
    }
}

/// How often the host has swapped so far, by its audit log.
pub(crate) async fn swapped(host: &Host) -> Result<usize> {
    Ok(host.audit("action = \"preset.swapped\"").await?.len())
}
