//! A backup shows one moment, is of use to nobody without the key, is refused
//! if anything about it is wrong, and becomes a store again on any database.

mod support;

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use countersign_core::ports::{Expect, Kind, RecordKey, Records as _, SecretChange, delete};
use countersign_core::time::Timestamp;
use countersign_vault::backup::{
    self, Adjusted, BackupError, Mode, Old, Origin, Restored, Summary,
};
use countersign_vault::error::OpenError;
use countersign_vault::keys::KeyRing;
use countersign_vault::store::memory::MemoryStore;
use countersign_vault::store::sled::SledStore;
use countersign_vault::store::{Op, Row, Store};
use countersign_vault::vault::{OpenOptions, Vault};
use support::faults::{Fault, FaultStore};
use support::*;

async fn taken(vault: &Vault) -> Vec<u8> {
    let (pieces, mut receiver) = tokio::sync::mpsc::channel(2);
    let making = vault.backup(Timestamp::from_secs(1_795_000_000), pieces);
    let reading = async {
        let mut bytes = Vec::new();
        while let Some(piece) = receiver.recv().await {
            bytes.extend(piece);
        }
        bytes
    };
    let (made, bytes) = tokio::join!(making, reading);
    made.unwrap();
    bytes
}

fn verify(bytes: &[u8], ring: &KeyRing) -> Result<Summary, BackupError> {
    backup::verify(Cursor::new(bytes), ring, Arc::new(OsRandom))
}

async fn restore(
    bytes: &[u8],
    target: &dyn Store,
    old: Option<Old<'_>>,
    mode: Mode,
    ring: &KeyRing,
) -> Result<Restored, BackupError> {
    let open = || Ok(Cursor::new(bytes));
    let random = (ring, Arc::new(OsRandom) as _);
    let mark = |kind, origin, document: &[u8]| match (kind, origin) {
        (Kind::Connection, Origin::Backup) => Adjusted::Change([document, b" again"].concat()),
        _ => Adjusted::Keep,
    };
    let extra = [(RecordKey::new(Kind::Meta, "epoch"), b"{}".to_vec())];
    let made = backup::restore(&open, (target, old, false), mode, random, &mark, &extra);
    made.await.map(|(_, made)| made)
}

fn user(name: &str) -> RecordKey {
    RecordKey::new(Kind::User, name)
}

/// Two records that are always written together, until told to stop.
async fn keep_twins_equal(vault: &Vault, stop: &AtomicBool) {
    let mut n = 0u64;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let text = n.to_string();
        let twins = ["a", "b"].map(|name| set(user(name), Expect::Anything, &text, fresh(&text)));
        vault.write(twins.into()).await.unwrap();
        // And something that comes and goes.
        let brief = user(&format!("brief {}", n % 7));
        let w = match n % 2 {
            0 => set(brief, Expect::Anything, &text, SecretChange::Keep),
            _ => delete(brief, Expect::Anything),
        };
        write(vault, w).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_shows_one_moment_and_restores_on_every_store() {
    on_every_store(|store| async move {
        let vault = open(store).await.unwrap();
        let mut writes = Vec::new();
        for n in 0..600 {
            let k = RecordKey::new(Kind::Provider, format!("{n}"));
            writes.push(set(k, Expect::Absent, &n.to_string(), fresh("s")));
            if writes.len() == 100 {
                vault.write(std::mem::take(&mut writes)).await.unwrap();
            }
        }
        let stop = AtomicBool::new(false);
        let backing = async {
            let mut all = Vec::new();
            for _ in 0..2 {
                all.push(taken(&vault).await);
            }
            stop.store(true, Ordering::Relaxed);
            all
        };
        let (backups, ()) = tokio::join!(backing, keep_twins_equal(&vault, &stop));
        vault.close().await;
        for bytes in backups {
            let told = verify(&bytes, &ring()).unwrap();
            assert!(told.is_complete && told.damaged == 0, "{told:?}");
            let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
            restore(&bytes, &*memory, None, Mode::Empty, &ring())
                .await
                .unwrap();
            // And from there on to another kind of store.
            let vault = open(memory).await.unwrap();
            let again = taken(&vault).await;
            let dir = tempfile::tempdir().unwrap();
            let sled: Arc<dyn Store> = Arc::new(SledStore::open(dir.path()).unwrap());
            restore(&again, &*sled, None, Mode::Empty, &ring())
                .await
                .unwrap();
            let vault = open(sled).await.unwrap();
            assert_eq!(vault.damage(), vec![]);
            assert_eq!(vault.list(Kind::Provider, None).await.unwrap().len(), 600);
            let twin = |name| read_user(&vault, name);
            assert_eq!(twin("a").await, twin("b").await);
            vault.close().await;
        }
    })
    .await;
}

async fn read_user(vault: &Vault, name: &str) -> Option<(String, u64, Option<bool>)> {
    read(vault, &user(name)).await.unwrap()
}

async fn small() -> (Arc<dyn Store>, Vec<u8>) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let vault = open(store.clone()).await.unwrap();
    for n in 0..30 {
        let w = set(user(&n.to_string()), Expect::Absent, "{}", fresh("hush"));
        write(&vault, w).await.unwrap();
    }
    let bytes = taken(&vault).await;
    vault.close().await;
    (store, bytes)
}

#[tokio::test]
async fn a_backup_that_was_changed_cut_or_added_to_is_refused_before_anything_is_written() {
    let (_, bytes) = small().await;
    assert_eq!(verify(&bytes, &ring()).unwrap().records, 30);
    let target = MemoryStore::new();
    let mut wrong: Vec<Vec<u8>> = Vec::new();
    for at in (0..bytes.len()).step_by(bytes.len() / 150) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        wrong.push(flipped);
        wrong.push(bytes[..at].to_vec());
    }
    wrong.push([&bytes[..], b"x"].concat());
    for bytes in wrong {
        assert!(verify(&bytes, &ring()).is_err());
        assert!(
            restore(&bytes, &target, None, Mode::Empty, &ring())
                .await
                .is_err()
        );
    }
    assert!(target.scan(&[], &[], 9).await.unwrap().rows.is_empty());
    // The last chunk of another backup of the same store is none of this one.
    let (store, first) = small().await;
    let vault = open(store).await.unwrap();
    let second = taken(&vault).await;
    let end = |bytes: &[u8]| bytes.len() - 400;
    let mixed = [&first[..end(&first)], &second[end(&second)..]].concat();
    assert!(verify(&mixed, &ring()).is_err());
}

#[tokio::test]
async fn a_backup_shows_nothing_and_opens_only_with_its_key() {
    let (_, bytes) = small().await;
    for text in ["hush", "alice", "user"] {
        assert!(!bytes.windows(text.len()).any(|w| w == text.as_bytes()));
    }
    let said = verify(&bytes, &KeyRing::single([9; 32])).unwrap_err();
    let needed = ring().current_id().to_string();
    assert!(matches!(said, BackupError::WrongKey { .. }));
    assert!(said.to_string().contains(&needed), "{said}");
    // A backup from before a rotation is read with the key from then.
    let later = KeyRing::of([9; 32], &[[7; 32]]);
    assert_eq!(verify(&bytes, &later).unwrap().records, 30);
}

#[tokio::test]
async fn a_store_in_use_is_not_overwritten_and_an_interrupted_restore_is_no_store() {
    let (used, bytes) = small().await;
    let said = restore(&bytes, &*used, None, Mode::Empty, &ring()).await;
    assert!(matches!(said, Err(BackupError::NotEmpty)));
    let mut interrupted = 0;
    for broken in 0..8 {
        for fault in [Fault::Before, Fault::After] {
            let target: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let faulty = FaultStore::new(target.clone(), move |n| (n == broken).then_some(fault));
            let first = restore(&bytes, &faulty, None, Mode::Empty, &ring()).await;
            match open(target.clone()).await {
                Ok(vault) => {
                    // Nothing was begun, or all was done.
                    let users = vault.list(Kind::User, None).await.unwrap().len();
                    assert!(users == 30 || (users == 0 && first.is_err()));
                    vault.close().await;
                    continue;
                }
                Err(said) => assert!(matches!(said, OpenError::RestoreUnfinished), "{said}"),
            }
            interrupted += 1;
            restore(&bytes, &*target, None, Mode::Empty, &ring())
                .await
                .unwrap();
            let vault = open(target).await.unwrap();
            assert_eq!(vault.list(Kind::User, None).await.unwrap().len(), 30);
            assert_eq!(vault.damage(), vec![]);
        }
    }
    assert!(interrupted > 0);
}

#[tokio::test]
async fn a_restore_begins_a_new_epoch() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let vault = open(store).await.unwrap();
    for kind in Kind::ALL {
        let w = set(RecordKey::new(kind, "x"), Expect::Absent, "{}", fresh("s"));
        write(&vault, w).await.unwrap();
    }
    let bytes = taken(&vault).await;
    let target: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let made = restore(&bytes, &*target, None, Mode::Empty, &ring())
        .await
        .unwrap();
    assert_eq!(made.voided, 14);
    let vault = open(target).await.unwrap();
    for kind in Kind::ALL {
        let found = read(&vault, &RecordKey::new(kind, "x")).await.unwrap();
        use Kind::{
            AgentConsent, Approval, Code, ConnectLink, DeviceFlow, Elicited, Ending, Flow, Grant,
            Lease, Obtained, Session, Token, UpstreamSession,
        };
        let expected = match kind {
            Flow | Code | Token | Session | UpstreamSession | Lease | AgentConsent
            | ConnectLink | Grant | Approval | Ending | Elicited | Obtained | DeviceFlow => None,
            Kind::Connection => Some(("{} again".to_owned(), 2, Some(true))),
            _ => Some(("{}".to_owned(), 1, Some(true))),
        };
        assert_eq!(found, expected, "{kind:?}");
    }
    let epoch = read(&vault, &RecordKey::new(Kind::Meta, "epoch")).await;
    assert_eq!(epoch, Ok(Some(("{}".to_owned(), 1, None))));
}

async fn damage(store: &dyn Store, kind: Kind, count: usize) {
    let rows = store.scan(&[kind as u8], &[], count).await.unwrap().rows;
    for (key, row) in rows {
        let mut body = row.body.clone();
        body[50] ^= 1;
        let put = Some(Row {
            body,
            ..row.clone()
        });
        let expect = Some(row.revision);
        store.commit(vec![Op { key, expect, put }]).await.unwrap();
    }
}

#[tokio::test]
async fn what_can_be_read_of_a_damaged_store_is_kept_and_the_rest_comes_from_the_backup() {
    const NEW: [u8; 32] = [8; 32];
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let vault = open(store.clone()).await.unwrap();
    for n in 0..20 {
        write(
            &vault,
            set(key(&n.to_string()), Expect::Absent, "old", fresh("s")),
        )
        .await
        .unwrap();
    }
    let bytes = taken(&vault).await;
    // After the backup: some change, some go, some come; and the key is another.
    for n in 0..5 {
        write(&vault, delete(key(&n.to_string()), Expect::Anything))
            .await
            .unwrap();
    }
    for n in 5..30 {
        let w = set(
            key(&n.to_string()),
            Expect::Anything,
            "new",
            SecretChange::Keep,
        );
        write(&vault, w).await.unwrap();
    }
    let both = KeyRing::of(NEW, &[[7; 32]]);
    vault.rotate(both.clone(), &|_| {}).await.unwrap();
    vault.close().await;
    damage(&*store, Kind::Connection, 6).await;
    let target: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let old = || Old {
        store: &*store,
        lost_writes: false,
    };
    // Without the newer key nothing is begun.
    let said = restore(&bytes, &*target, Some(old()), Mode::Salvage, &ring()).await;
    assert!(said.is_err());
    assert!(target.scan(&[], &[], 9).await.unwrap().rows.is_empty());
    let made = restore(&bytes, &*target, Some(old()), Mode::Salvage, &both)
        .await
        .unwrap();
    assert_eq!((made.kept, made.deleted), (19, 5));
    assert_eq!(made.from_backup + made.lost.len() as u64, 6);
    assert_eq!(made.perhaps_deleted, 0);
    let open_both = |store: Arc<dyn Store>| {
        let ring = KeyRing::of(NEW, &[[7; 32]]);
        Vault::open(store, ring, Arc::new(OsRandom), OpenOptions::default())
    };
    let vault = open_both(target.clone()).await.unwrap();
    assert_eq!(vault.damage(), vec![]);
    let (mut new, mut again, mut none) = (0, 0, 0);
    for n in 0..30 {
        match read(&vault, &key(&n.to_string())).await.unwrap() {
            Some((text, ..)) if text == "new" => new += 1,
            Some((text, _, Some(true))) if text == "old again" => again += 1,
            Some(other) => panic!("{other:?}"),
            None => none += 1,
        }
    }
    assert_eq!((new, again as u64), (19, made.from_backup));
    assert_eq!(none, 5 + made.lost.len());
    // What is lost is told by name, and its bytes are kept.
    let aside = target.scan(&[0xFE], &[], 99).await.unwrap().rows;
    assert_eq!(aside.len(), made.lost.len());
    // Rotation goes on in the new store.
    assert!(vault.rotate(both, &|_| {}).await.unwrap().is_complete);
    vault.close().await;
    // Another installation's backup does not mix with this store.
    let (_, strange) = small().await;
    let empty = MemoryStore::new();
    let said = restore(&strange, &empty, Some(old()), Mode::Salvage, &open_ring()).await;
    assert!(matches!(said, Err(BackupError::Stranger)), "{said:?}");
}

fn open_ring() -> KeyRing {
    KeyRing::of([8; 32], &[[7; 32]])
}

#[tokio::test]
async fn taking_settings_back_takes_nothing_back_that_was_withdrawn() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let vault = open(store.clone()).await.unwrap();
    let provider = RecordKey::new(Kind::Provider, "p");
    let secret = RecordKey::new(Kind::Secret, "S");
    for k in [
        provider.clone(),
        secret.clone(),
        user("ada"),
        user("eve"),
        key("c"),
    ] {
        write(&vault, set(k, Expect::Absent, "old", fresh("s")))
            .await
            .unwrap();
    }
    let bytes = taken(&vault).await;
    for k in [provider.clone(), secret.clone(), user("ada")] {
        write(&vault, set(k, Expect::Anything, "new", fresh("t")))
            .await
            .unwrap();
    }
    for k in [user("eve"), key("c")] {
        write(&vault, delete(k, Expect::Anything)).await.unwrap();
    }
    let later = RecordKey::new(Kind::Server, "later");
    write(
        &vault,
        set(later.clone(), Expect::Absent, "new", SecretChange::Keep),
    )
    .await
    .unwrap();
    vault.close().await;
    let target: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let old = Old {
        store: &*store,
        lost_writes: false,
    };
    let made = restore(&bytes, &*target, Some(old), Mode::Force, &ring())
        .await
        .unwrap();
    assert_eq!((made.deleted, made.taken_back), (2, 1));
    let vault = open(target).await.unwrap();
    for (k, text) in [
        (provider, Some("old")),
        (secret, Some("new")),
        (user("ada"), Some("new")),
        (user("eve"), None),
        (key("c"), None),
        (later, None),
    ] {
        let found = read(&vault, &k).await.unwrap().map(|(text, ..)| text);
        assert_eq!(found.as_deref(), text, "{k:?}");
    }
}
