//! What a power cut leaves: everything up to the last sync, and of what was
//! written after it any sectors, in any order, or none.
//!
//! The test keeps the database file as it is after each sync. A cut between
//! two syncs is the first of the two files with some of the sectors that
//! differ in the second.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use countersign_core::ports::Random as _;
use countersign_core::ports::fakes::CountingRandom;

use super::super::{Op, Row, Store as _};
use super::{SledStore, files};

/// What a disk writes at once.
const SECTOR: usize = 512;

fn contents(file: &File) -> Vec<u8> {
    let length = file.metadata().unwrap().len();
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The pair of rows that commit `n` writes; one of them was deleted and made
/// anew now and then.
fn pair(n: u64) -> Vec<Op> {
    // From a few bytes to most of what a row may be.
    let length = usize::try_from(n * 613 % 7800).unwrap();
    let put = |key: &[u8]| Op {
        key: key.to_vec(),
        expect: (n > 1).then(|| n - 1),
        put: Some(Row {
            revision: n,
            expires_at: None,
            body: vec![n as u8; length],
        }),
    };
    let mut ops = vec![put(b"a"), put(b"b")];
    // And a trail, so that the file grows.
    ops.push(Op {
        key: format!("trail {n}").into_bytes(),
        expect: None,
        put: put(b"").put,
    });
    ops
}

/// `before` with some of the sectors that differ in `after`.
fn cut(before: &[u8], after: &[u8], random: &CountingRandom, share: u8) -> Vec<u8> {
    let mut left = before.to_vec();
    left.resize(before.len().max(after.len()), 0);
    for (left, new) in left.chunks_mut(SECTOR).zip(after.chunks(SECTOR)) {
        let mut chance = [0];
        random.fill(&mut chance);
        if left[..new.len()] != *new && chance[0] < share {
            left[..new.len()].copy_from_slice(new);
        }
    }
    left
}

async fn opened_after_a_cut(folder: &Path, database: &[u8], noted: u64, at_least: u64) {
    std::fs::write(folder.join("sled/db"), database).unwrap();
    // It is not synced, so it may lag behind; it never leads.
    std::fs::write(folder.join("acknowledged"), files::note(noted)).unwrap();
    let store = SledStore::open(folder).unwrap();
    let [a, b] = [b"a", b"b"].map(|key| key.as_slice());
    let (a, b) = (store.get(a).await.unwrap(), store.get(b).await.unwrap());
    let revision = a.as_ref().map_or(0, |row| row.revision);
    assert_eq!(a, b, "half a commit");
    assert!(
        revision == at_least || revision == at_least + 1,
        "{at_least} was acknowledged, {revision} is there"
    );
    let trail = store.scan(b"trail ", b"", 1000).await.unwrap();
    assert!(trail.holes.is_empty());
    assert_eq!(trail.rows.len() as u64, revision);
    // And it goes on from there.
    store.commit(pair(revision + 1)).await.unwrap();
}

#[tokio::test]
async fn a_power_cut_loses_nothing_acknowledged_and_leaves_nothing_half_done() {
    const COMMITS: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    drop(SledStore::open(dir.path()).unwrap());
    let database = dir.path().join("sled/db");
    let synced = Arc::new(Mutex::new(vec![std::fs::read(&database).unwrap()]));
    let hook = {
        let synced = Arc::clone(&synced);
        Box::new(move |file: &File| {
            file.sync_all()?;
            synced.lock().unwrap().push(contents(file));
            Ok(())
        })
    };
    let store = SledStore::open_with(dir.path(), false, hook).unwrap();
    for n in 1..=COMMITS {
        store.commit(pair(n)).await.unwrap();
    }
    let synced = std::mem::take(&mut *synced.lock().unwrap());
    assert_eq!(synced.len() as u64, COMMITS + 1);
    let random = CountingRandom::default();
    let mut changed = 0;
    for (n, states) in synced.windows(2).enumerate() {
        let (before, after) = (&states[0], &states[1]);
        changed += usize::from(before != after);
        for share in [0, 64, 128, 255] {
            // A copy of the other files, which do not change here.
            let copy = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(copy.path().join("sled")).unwrap();
            let config = "sled/conf";
            std::fs::copy(dir.path().join(config), copy.path().join(config)).unwrap();
            let state = cut(before, after, &random, share);
            let noted = (n as u64).saturating_sub(u64::from(share % 3));
            opened_after_a_cut(copy.path(), &state, noted, n as u64).await;
        }
    }
    assert!(changed > 50, "the file hardly changed between syncs");
}

#[tokio::test]
async fn a_store_whose_disk_lies_about_syncs_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    drop(SledStore::open(dir.path()).unwrap());
    let durable = std::fs::read(dir.path().join("sled/db")).unwrap();
    // Says that it synced, and did not.
    let store = SledStore::open_with(dir.path(), false, Box::new(|_| Ok(()))).unwrap();
    for n in 1..=5 {
        store.commit(pair(n)).await.unwrap();
    }
    let noted = std::fs::read(dir.path().join("acknowledged")).unwrap();
    drop(store);
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(copy.path().join("sled")).unwrap();
    let config = "sled/conf";
    std::fs::copy(dir.path().join(config), copy.path().join(config)).unwrap();
    std::fs::write(copy.path().join("sled/db"), durable).unwrap();
    std::fs::write(copy.path().join("acknowledged"), noted).unwrap();
    let said = SledStore::open(copy.path()).err().unwrap().to_string();
    assert!(said.contains("5 were acknowledged"), "{said}");
}
