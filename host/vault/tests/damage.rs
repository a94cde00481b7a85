//! Damage is refused or reported, never passed over, and costs no more than
//! what is damaged.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_core::ports::{Expect, Kind, RecordKey, Records, SecretChange, StoreError, delete};
use countersign_vault::damage::Damage;
use countersign_vault::error::OpenError;
use countersign_vault::keys::KeyRing;
use countersign_vault::store::memory::MemoryStore;
use countersign_vault::store::sled::SledStore;
use countersign_vault::store::{Op, Row, Store};
use countersign_vault::vault::{OpenOptions, Vault};
use support::*;

const RECORDS: usize = 40;

fn name(n: usize) -> RecordKey {
    key(&format!("record {n}"))
}

async fn fill(store: Arc<dyn Store>) {
    let vault = open(store).await.unwrap();
    for n in 0..RECORDS {
        let w = set(
            name(n),
            Expect::Absent,
            &format!("document {n}"),
            fresh("secret"),
        );
        write(&vault, w).await.unwrap();
    }
    vault.close().await;
}

async fn filled() -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    fill(store.clone()).await;
    store
}

async fn rows(store: &dyn Store, kind: Kind) -> Vec<(Vec<u8>, Row)> {
    store.scan(&[kind as u8], &[], 1000).await.unwrap().rows
}

/// Replaces a row behind the vault's back.
async fn replace(store: &dyn Store, key: &[u8], put: Option<Row>) {
    let expect = store.get(key).await.unwrap().map(|r| r.revision);
    store
        .commit(vec![Op {
            key: key.to_vec(),
            expect,
            put,
        }])
        .await
        .unwrap();
}

async fn accept(store: Arc<dyn Store>) -> Result<Vault, OpenError> {
    Vault::open(
        store,
        ring(),
        Arc::new(OsRandom),
        OpenOptions {
            accept_damage: true,
        },
    )
    .await
}

/// How many records read back as they were written.
async fn sound(vault: &Vault) -> usize {
    let mut sound = 0;
    for n in 0..RECORDS {
        match read(vault, &name(n)).await {
            Ok(Some(found)) => {
                assert_eq!(found, (format!("document {n}"), 1, Some(true)));
                sound += 1;
            }
            Ok(None) | Err(StoreError::Damaged(_) | StoreError::Failed(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    sound
}

fn bad_records(vault: &Vault) -> usize {
    vault
        .damage()
        .iter()
        .filter(|d| matches!(d, Damage::Record { .. }))
        .count()
}

#[tokio::test]
async fn another_key_is_refused_by_name_and_changes_nothing() {
    let store = filled().await;
    let other = KeyRing::single([8; 32]);
    let (configured, needed) = (
        other.current_id().to_string(),
        ring().current_id().to_string(),
    );
    let said = Vault::open(
        store.clone(),
        other,
        Arc::new(OsRandom),
        OpenOptions {
            accept_damage: true,
        },
    )
    .await
    .err()
    .unwrap();
    assert!(matches!(said, OpenError::WrongKey { .. }));
    assert!(
        said.to_string().contains(&configured) && said.to_string().contains(&needed),
        "{said}"
    );
    assert_eq!(sound(&open(store).await.unwrap()).await, RECORDS);
}

#[tokio::test]
async fn records_without_a_key_check_are_refused_and_one_lost_copy_is_mended() {
    let store = filled().await;
    let [first, last] = [b"\0key check".as_slice(), b"\xFDkey check"];
    let check = store.get(first).await.unwrap().unwrap();
    let mut torn = check.clone();
    *torn.body.last_mut().unwrap() ^= 1;
    for (one, other) in [(first, last), (last, first)] {
        for broken in [
            None,
            Some(torn.clone()),
            Some(Row {
                body: vec![],
                ..check.clone()
            }),
        ] {
            replace(&*store, one, broken.clone()).await;
            let vault = open(store.clone()).await.unwrap();
            assert_eq!(sound(&vault).await, RECORDS);
            vault.close().await;
            assert_eq!(store.get(one).await.unwrap().unwrap().body, check.body);
            replace(&*store, one, broken.clone()).await;
            replace(&*store, other, broken).await;
            assert!(matches!(
                open(store.clone()).await.err(),
                Some(OpenError::KeyCheckMissing { .. })
            ));
            assert!(matches!(
                accept(store.clone()).await.err(),
                Some(OpenError::KeyCheckMissing { .. })
            ));
            replace(&*store, one, Some(check.clone())).await;
            replace(&*store, other, Some(check.clone())).await;
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_anywhere_in_a_record_costs_that_record_only() {
    let store = filled().await;
    let (place, row) = rows(&*store, Kind::Connection).await.swap_remove(3);
    for at in 0..row.body.len() {
        let mut flipped = row.clone();
        flipped.body[at] ^= 1 << (at % 8);
        replace(&*store, &place, Some(flipped)).await;
        let vault = open(store.clone()).await.unwrap();
        assert_eq!(bad_records(&vault), 1, "byte {at}");
        let said = vault
            .damage()
            .iter()
            .map(ToString::to_string)
            .collect::<String>();
        assert!(said.contains("connection"), "{said}");
        assert_eq!(
            vault.list(Kind::Connection, None).await.unwrap().len(),
            RECORDS - 1
        );
        vault.close().await;
        if at % 40 == 0 {
            assert_eq!(
                sound(&open(store.clone()).await.unwrap()).await,
                RECORDS - 1
            );
        }
    }
    for changed in [
        Row {
            revision: 2,
            ..row.clone()
        },
        Row {
            expires_at: Some(1),
            ..row.clone()
        },
        Row {
            body: row.body[..row.body.len() - 1].to_vec(),
            ..row.clone()
        },
        Row {
            body: vec![],
            ..row.clone()
        },
    ] {
        replace(&*store, &place, Some(changed)).await;
        let vault = open(store.clone()).await.unwrap();
        assert_eq!(bad_records(&vault), 1);
        // Least of all is it swept for an expiry it never had.
        assert_eq!(
            vault
                .sweep(countersign_core::time::Timestamp::from_secs(1_000_000))
                .await,
            Ok(0)
        );
        assert!(store.get(&place).await.unwrap().is_some());
        vault.close().await;
    }
}

#[tokio::test]
async fn swapped_records_are_refused_and_so_is_an_old_revision_under_a_new_number() {
    let store = filled().await;
    let all = rows(&*store, Kind::Connection).await;
    let ((a, row_a), (b, row_b)) = (&all[0], &all[1]);
    replace(&*store, a, Some(row_b.clone())).await;
    replace(&*store, b, Some(row_a.clone())).await;
    let vault = open(store.clone()).await.unwrap();
    assert_eq!(bad_records(&vault), 2);
    assert_eq!(sound(&vault).await, RECORDS - 2);
    vault.close().await;

    let store = filled().await;
    let old = rows(&*store, Kind::Connection).await.swap_remove(5);
    let vault = open(store.clone()).await.unwrap();
    for n in 0..RECORDS {
        write(
            &vault,
            set(name(n), Expect::Anything, "newer", SecretChange::Keep),
        )
        .await
        .unwrap();
    }
    vault.close().await;
    replace(
        &*store,
        &old.0,
        Some(Row {
            revision: 2,
            ..old.1
        }),
    )
    .await;
    assert_eq!(bad_records(&open(store).await.unwrap()), 1);
}

#[tokio::test]
async fn the_secret_half_of_an_earlier_version_does_not_open_beside_a_new_document() {
    let store = filled().await;
    let (place, old) = rows(&*store, Kind::Connection).await.swap_remove(0);
    let vault = open(store.clone()).await.unwrap();
    let mut writes = Vec::new();
    for n in 0..RECORDS {
        // Deleted and made anew: the revision is 1 again.
        writes.push(delete(name(n), Expect::Anything));
        writes.push(set(
            name(n),
            Expect::Absent,
            &format!("document {n}"),
            fresh("second"),
        ));
    }
    vault.write(writes).await.unwrap();
    vault.close().await;
    let new = store.get(&place).await.unwrap().unwrap();
    assert_eq!(
        (new.revision, new.body.len()),
        (old.revision, old.body.len())
    );
    let halves = new.body.len() - 72 - 46;
    let body = [&new.body[..halves], &old.body[halves..]].concat();
    replace(&*store, &place, Some(Row { body, ..new })).await;
    assert_eq!(bad_records(&open(store).await.unwrap()), 1);
}

#[tokio::test]
async fn a_record_put_back_removed_or_added_whole_is_noticed() {
    let store = filled().await;
    let before = rows(&*store, Kind::Connection).await;
    let vault = open(store.clone()).await.unwrap();
    write(
        &vault,
        set(name(0), Expect::Anything, "newer", SecretChange::Keep),
    )
    .await
    .unwrap();
    write(&vault, delete(name(1), Expect::Anything))
        .await
        .unwrap();
    vault.close().await;
    let after = rows(&*store, Kind::Connection).await;
    for (place, old) in &before {
        let now = after
            .iter()
            .find(|(k, _)| k == place)
            .map(|(_, r)| r.clone());
        if now.as_ref() == Some(old) {
            continue;
        }
        replace(&*store, place, Some(old.clone())).await;
        let said = open(store.clone()).await.err().unwrap();
        assert!(matches!(said, OpenError::HeadMismatch { .. }), "{said}");
        replace(&*store, place, now).await;
    }
    let (place, row) = &after[7];
    replace(&*store, place, None).await;
    assert!(matches!(
        open(store.clone()).await.err(),
        Some(OpenError::HeadMismatch { .. })
    ));
    replace(&*store, place, Some(row.clone())).await;
    open(store.clone()).await.unwrap().close().await;
    // The head is no better: gone or old, it is noticed.
    let head = store.get(b"\0head").await.unwrap();
    let vault = open(store.clone()).await.unwrap();
    write(
        &vault,
        set(name(2), Expect::Anything, "newer", SecretChange::Keep),
    )
    .await
    .unwrap();
    vault.close().await;
    for wrong in [None, head] {
        replace(&*store, b"\0head", wrong).await;
        assert!(matches!(
            open(store.clone()).await.err(),
            Some(OpenError::HeadMismatch { .. })
        ));
    }
    let vault = accept(store.clone()).await.unwrap();
    assert!(matches!(vault.damage()[..], [Damage::Head { .. }]));
    vault.close().await;
    assert!(open(store).await.unwrap().damage().is_empty());
}

#[tokio::test]
async fn a_damaged_record_is_kept_aside_when_it_is_written_over_and_a_policy_never_skipped() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let vault = open(store.clone()).await.unwrap();
    let policy = RecordKey::new(Kind::Policy, "deny-all");
    for k in [name(0), policy.clone()] {
        write(&vault, set(k, Expect::Absent, "x", fresh("s")))
            .await
            .unwrap();
    }
    vault.close().await;
    let mut bodies = Vec::new();
    for kind in [Kind::Connection, Kind::Policy] {
        let (place, mut row) = rows(&*store, kind).await.swap_remove(0);
        row.body[60] ^= 4;
        bodies.push(row.body.clone());
        replace(&*store, &place, Some(row)).await;
    }
    let vault = open(store.clone()).await.unwrap();
    assert_eq!(bad_records(&vault), 2);
    assert!(matches!(
        vault.get(&name(0)).await.err(),
        Some(StoreError::Damaged(_))
    ));
    assert!(vault.list(Kind::Connection, None).await.unwrap().is_empty());
    assert!(matches!(
        vault.list(Kind::Policy, None).await.err(),
        Some(StoreError::Damaged(_))
    ));
    let keep = set(name(0), Expect::Anything, "y", SecretChange::Keep);
    assert!(matches!(
        write(&vault, keep).await,
        Err(StoreError::Damaged(_))
    ));
    assert_eq!(
        write(&vault, set(name(0), Expect::Absent, "y", fresh("t"))).await,
        Err(StoreError::Conflict)
    );
    write(&vault, set(name(0), Expect::Anything, "y", fresh("t")))
        .await
        .unwrap();
    write(&vault, delete(policy, Expect::Anything))
        .await
        .unwrap();
    assert_eq!(vault.damage(), vec![]);
    assert!(vault.list(Kind::Policy, None).await.unwrap().is_empty());
    vault.close().await;
    let aside = store.scan(&[0xFE], &[], 9).await.unwrap().rows;
    let aside: Vec<_> = aside.into_iter().map(|(_, row)| row.body).collect();
    assert!(aside.len() == 2 && bodies.iter().all(|b| aside.contains(b)));
    assert_eq!(open(store).await.unwrap().damage(), vec![]);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Opens a harmed copy of `folder`: whatever is missing is told.
async fn nothing_is_passed_over(
    folder: &Path,
    harm: impl Fn(PathBuf),
    what: &str,
) -> (usize, bool) {
    let dir = tempfile::tempdir().unwrap();
    copy(folder, dir.path());
    harm(dir.path().join("sled/db"));
    let store = match SledStore::open(dir.path()) {
        Ok(store) => store,
        Err(told) => {
            assert!(told.to_string().contains("restore"), "{what}: {told}");
            return (0, true);
        }
    };
    match open(Arc::new(store)).await {
        Err(told) => {
            assert!(
                !matches!(told, OpenError::WrongKey { .. }),
                "{what}: {told}"
            );
            (0, true)
        }
        Ok(vault) => {
            let sound = sound(&vault).await;
            let told = !vault.damage().is_empty();
            assert!(
                sound == RECORDS || told,
                "{what}: {sound} records and no word of it"
            );
            vault.close().await;
            (sound, false)
        }
    }
}

#[tokio::test]
async fn a_database_file_cut_short_anywhere_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    fill(Arc::new(SledStore::open(dir.path()).unwrap())).await;
    let length = std::fs::metadata(dir.path().join("sled/db")).unwrap().len();
    let mut refused = 0;
    for cut in 0..25 {
        let to = length * cut / 25;
        let harm = |db: PathBuf| {
            std::fs::File::options()
                .write(true)
                .open(db)
                .unwrap()
                .set_len(to)
                .unwrap()
        };
        refused += usize::from(
            nothing_is_passed_over(dir.path(), harm, &format!("cut to {to}"))
                .await
                .1,
        );
    }
    assert!(refused > 0);
    let harm = |db: PathBuf| {
        std::fs::remove_dir_all(db.parent().unwrap()).unwrap();
    };
    assert_eq!(
        nothing_is_passed_over(dir.path(), harm, "database gone").await,
        (0, true)
    );
}

#[tokio::test]
async fn a_bit_flipped_anywhere_in_the_database_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    fill(Arc::new(SledStore::open(dir.path()).unwrap())).await;
    let bytes = std::fs::read(dir.path().join("sled/db")).unwrap();
    let used = bytes.iter().rposition(|b| *b != 0).unwrap();
    for n in 0..120 {
        let at = used * n / 120;
        let harm = |db: PathBuf| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (n % 8);
            std::fs::write(db, bytes).unwrap();
        };
        nothing_is_passed_over(dir.path(), harm, &format!("bit {} of byte {at}", n % 8)).await;
    }
}

#[tokio::test]
async fn an_older_copy_of_the_database_is_refused_until_an_operator_accepts_it() {
    let dir = tempfile::tempdir().unwrap();
    fill(Arc::new(SledStore::open(dir.path()).unwrap())).await;
    let old = tempfile::tempdir().unwrap();
    copy(&dir.path().join("sled"), old.path());
    let vault = open_sled(dir.path()).await;
    write(&vault, delete(name(0), Expect::Anything))
        .await
        .unwrap();
    vault.close().await;
    std::fs::remove_dir_all(dir.path().join("sled")).unwrap();
    copy(old.path(), &dir.path().join("sled"));
    let said = SledStore::open(dir.path()).err().unwrap();
    assert!(matches!(said, OpenError::LostWrites { .. }), "{said}");
    let store = SledStore::open_accepting_loss(dir.path()).unwrap();
    let vault = open(Arc::new(store)).await.unwrap();
    assert_eq!(sound(&vault).await, RECORDS);
    vault.close().await;
    assert_eq!(sound(&open_sled(dir.path()).await).await, RECORDS);
}
