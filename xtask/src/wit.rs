//! The guard over the frozen interfaces.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use countersign_toolchain::hex;

/// A digest over names and contents, in the order of names.
fn digest(folder: &Path) -> String {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").file_name())
        .collect();
    names.sort();
    let mut sum = Sha256::new();
    for name in names {
        let content = fs::read(folder.join(&name)).expect("the file can be read");
        // Lengths, so that no content can pass for another file's name.
        for piece in [name.as_encoded_bytes(), &content] {
            sum.update((piece.len() as u64).to_le_bytes());
            sum.update(piece);
        }
    }
    hex(&sum.finalize())
}

#[test]
fn the_frozen_interfaces_are_unchanged() {
    let wit = crate::repository().join("wit");
    for name in ["v0.1.0", "policy-v0.1.0"] {
        let frozen = fs::read_to_string(wit.join(format!("{name}.sha256"))).unwrap_or_default();
        let found = digest(&wit.join(name));
        assert_eq!(
            frozen.trim(),
            found,
            "wit/{name} is a released interface and has changed: components built against it would \
             break. Put the change into a new folder; only before the first release, write the new \
             digest into wit/{name}.sha256"
        );
    }
}
