//! Keys go over to others while the vault is in use, and nothing is lost on
//! the way.

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use countersign_core::ports::{Expect, Kind, Random as _, Records as _, SecretChange};
use countersign_vault::error::OpenError;
use countersign_vault::keys::KeyRing;
use countersign_vault::store::Store;
use countersign_vault::store::sled::SledStore;
use countersign_vault::vault::{OpenOptions, Progress, RotateError, Vault};
use support::*;

const OLD: [u8; 32] = [7; 32];
const NEW: [u8; 32] = [8; 32];

async fn open_with(store: Arc<dyn Store>, ring: KeyRing) -> Result<Vault, OpenError> {
    Vault::open(store, ring, Arc::new(OsRandom), OpenOptions::default()).await
}

fn both() -> KeyRing {
    KeyRing::of(NEW, &[OLD])
}

async fn fill(vault: &Vault, count: usize) {
    for n in 0..count {
        let secret = if n % 4 == 0 {
            SecretChange::Keep
        } else {
            fresh(&format!("secret {n}"))
        };
        let w = set(
            key(&format!("{n}")),
            Expect::Anything,
            &format!("{n}"),
            secret,
        );
        write(vault, w).await.unwrap();
    }
}

#[tokio::test]
async fn a_rotation_ends_wholly_on_the_new_key_and_no_revision_changes() {
    on_every_store(|store| async move {
        let vault = open_with(store.clone(), KeyRing::single(OLD))
            .await
            .unwrap();
        fill(&vault, 300).await;
        vault.close().await;
        // Configured, but not rotated: everything stays on the old key.
        let vault = open_with(store.clone(), both()).await.unwrap();
        fill(&vault, 301).await;
        let uses = vault.key_uses().await.unwrap();
        let told: Vec<_> = uses
            .iter()
            .map(|u| (u.is_current, u.seals, u.wraps_root, u.records))
            .collect();
        assert_eq!(told, [(true, false, false, 0), (false, true, true, 225)]);
        assert!(!vault.rotation_is_unfinished().await.unwrap());
        let seen = std::sync::Mutex::new(Vec::new());
        let tell = |p: Progress| seen.lock().unwrap().push((p.done, p.total));
        let rotated = vault.rotate(both(), &tell).await.unwrap();
        assert!(rotated.is_complete);
        assert_eq!(rotated.records, 225);
        let seen = seen.into_inner().unwrap();
        assert_eq!(
            (seen.first(), seen.last()),
            (Some(&(0, 225)), Some(&(225, 225)))
        );
        let uses = vault.key_uses().await.unwrap();
        let told: Vec<_> = uses
            .iter()
            .map(|u| (u.is_current, u.seals, u.wraps_root, u.records))
            .collect();
        assert_eq!(told, [(true, true, true, 225), (false, false, false, 0)]);
        vault.close().await;
        // The old key opens nothing any more, and nothing needs it.
        let said = open_with(store.clone(), KeyRing::single(OLD)).await.err();
        assert!(matches!(said, Some(OpenError::WrongKey { .. })), "{said:?}");
        let vault = open_with(store, KeyRing::single(NEW)).await.unwrap();
        assert_eq!(vault.damage(), vec![]);
        for n in 0..300 {
            let stored = read(&vault, &key(&format!("{n}"))).await.unwrap();
            let secret = (n % 4 != 0).then_some(true);
            assert_eq!(stored, Some((n.to_string(), 2, secret)));
        }
        // Nothing is left to do.
        let again = vault.rotate(KeyRing::single(NEW), &|_| {}).await.unwrap();
        assert!(again.is_complete && again.records == 0);
    })
    .await;
}

#[tokio::test]
async fn a_store_does_not_open_without_a_key_that_it_still_uses() {
    on_every_store(|store| async move {
        let vault = open_with(store.clone(), KeyRing::single(OLD))
            .await
            .unwrap();
        fill(&vault, 200).await;
        vault.close().await;
        // A rotation that is interrupted after its first records.
        let vault = Arc::new(open_with(store.clone(), both()).await.unwrap());
        let begun = Arc::new(tokio::sync::Notify::new());
        let task = tokio::spawn({
            let (vault, begun) = (vault.clone(), begun.clone());
            async move {
                let tell = |p: Progress| {
                    if p.done > 0 {
                        begun.notify_one();
                    }
                };
                vault.rotate(both(), &tell).await.map(|_| ())
            }
        });
        begun.notified().await;
        task.abort();
        let _ = task.await;
        let unfinished = vault.rotation_is_unfinished().await.unwrap();
        Arc::into_inner(vault).unwrap().close().await;
        if !unfinished {
            // It was faster than its end.
            return;
        }
        for (ring, needed) in [(NEW, OLD), (OLD, NEW)] {
            let said = open_with(store.clone(), KeyRing::single(ring)).await.err();
            let Some(OpenError::MissingKey { needed: told }) = said else {
                panic!("{said:?}");
            };
            assert_eq!(told, KeyRing::single(needed).current_id().to_string());
        }
        let vault = open_with(store.clone(), both()).await.unwrap();
        assert!(vault.rotation_is_unfinished().await.unwrap());
        let refused = vault.rotate(KeyRing::single(NEW), &|_| {}).await;
        assert!(matches!(refused, Err(RotateError::MissingKey { .. })));
        assert!(vault.rotate(both(), &|_| {}).await.unwrap().is_complete);
        vault.close().await;
        let vault = open_with(store, KeyRing::single(NEW)).await.unwrap();
        assert_eq!(vault.list(Kind::Connection, None).await.unwrap().len(), 200);
    })
    .await;
}

#[tokio::test]
async fn a_vault_that_did_not_rotate_follows_the_one_that_did() {
    let store: Arc<dyn Store> = Arc::new(countersign_vault::store::memory::MemoryStore::new());
    let first = open_with(store.clone(), KeyRing::single(OLD))
        .await
        .unwrap();
    fill(&first, 20).await;
    let second = open_with(store.clone(), KeyRing::single(OLD))
        .await
        .unwrap();
    first.rotate(both(), &|_| {}).await.unwrap();
    assert_eq!(second.keys_have_changed().await.ok(), None);
    // What it cannot open yet is not damaged.
    assert!(read(&second, &key("1")).await.is_err());
    assert_eq!(second.damage(), vec![]);
    assert!(second.adopt(KeyRing::single(OLD)).await.is_err());
    second.adopt(both()).await.unwrap();
    assert_eq!(second.keys_have_changed().await, Ok(false));
    assert!(read(&second, &key("1")).await.unwrap().is_some());
    fill(&second, 40).await;
    let uses = first.key_uses().await.unwrap();
    assert_eq!(uses.iter().map(|u| u.records).collect::<Vec<_>>(), [30, 0]);
}

const FOLDER: &str = "COUNTERSIGN_ROTATION_FOLDER";
const TASKS: usize = 4;

/// The child: writes from several tasks while it goes over to the key that the
/// folder's file `ring` names first.
#[test]
#[ignore = "the child of the test below"]
fn rotates_and_writes_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let folder = Path::new(&folder);
        let store = Arc::new(SledStore::open(&folder.join("vault")).unwrap());
        let vault = Arc::new(open_with(store, both()).await.unwrap());
        let rotated = AtomicBool::new(false);
        let writers = (0..TASKS).map(|task| {
            let (vault, rotated) = (vault.clone(), &rotated);
            async move {
                let place = key(&format!("writer {task}"));
                let last = read(&vault, &place).await.unwrap();
                let mut n: u64 = last.map_or(0, |(text, ..)| text.parse().unwrap());
                while !rotated.load(Ordering::Relaxed) {
                    n += 1;
                    let w = set(place.clone(), Expect::Anything, &n.to_string(), fresh("t"));
                    write(&vault, w).await.unwrap();
                    say(&format!("ACK {task} {n}"));
                }
            }
        });
        let rotation = async {
            assert!(vault.rotate(both(), &|_| {}).await.unwrap().is_complete);
            rotated.store(true, Ordering::Relaxed);
        };
        tokio::join!(futures(writers.collect()), rotation);
        Arc::into_inner(vault).unwrap().close().await;
        say("DONE 0 0");
    });
}

async fn futures<F: Future<Output = ()>>(all: Vec<F>) {
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|f| f.as_mut().poll(context).is_pending());
        match all.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

/// One write to the pipe: lines of several tasks don't mix.
fn say(line: &str) {
    let line = format!("\n{line}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

#[tokio::test]
async fn a_rotation_that_is_killed_again_and_again_loses_nothing_and_ends() {
    const RECORDS: usize = 1500;
    let dir = tempfile::tempdir().unwrap();
    let vault = dir.path().join("vault");
    let opened = open_with(
        Arc::new(SledStore::open(&vault).unwrap()),
        KeyRing::single(OLD),
    )
    .await;
    let opened = opened.unwrap();
    let mut writes = Vec::new();
    for n in 0..RECORDS {
        writes.push(set(
            key(&format!("{n}")),
            Expect::Absent,
            &n.to_string(),
            fresh("s"),
        ));
        if writes.len() == 100 {
            opened.write(std::mem::take(&mut writes)).await.unwrap();
        }
    }
    opened.close().await;
    let mut acknowledged = [0u64; TASKS];
    let (mut kills, mut ended) = (0, false);
    while !ended {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "rotates_and_writes_until_it_is_killed",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env(FOLDER, dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (first, begun) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut said = Vec::new();
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let words: Vec<&str> = line.split(' ').collect();
                if let [what @ ("ACK" | "DONE"), task, n] = words[..]
                    && let (Ok(task), Ok(n)) = (task.parse::<usize>(), n.parse::<u64>())
                {
                    said.push((what == "DONE", task, n));
                    let _ = first.send(());
                }
            }
            said
        });
        // The later ones get more time, so that it ends on any machine.
        let _ = begun.recv_timeout(Duration::from_secs(20));
        let mut byte = [0];
        OsRandom.fill(&mut byte);
        let patience = u64::from(byte[0]) * 100 * (1 + kills);
        std::thread::sleep(Duration::from_micros(patience));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        for (done, task, n) in reader.join().unwrap() {
            ended |= done;
            if !done {
                acknowledged[task] = n;
            }
        }
        let store = Arc::new(SledStore::open(&vault).unwrap());
        let ring = if ended { KeyRing::single(NEW) } else { both() };
        let opened = open_with(store, ring).await.unwrap();
        assert_eq!(opened.damage(), vec![], "kill {kills}");
        for (task, n) in acknowledged.iter().enumerate() {
            let stored = read(&opened, &key(&format!("writer {task}")))
                .await
                .unwrap();
            let stored = stored.map_or(0, |(text, ..)| text.parse::<u64>().unwrap());
            assert!(
                stored >= *n,
                "kill {kills}: {stored} is stored, {n} was acknowledged"
            );
        }
        for n in 0..RECORDS {
            let stored = read(&opened, &key(&n.to_string())).await.unwrap();
            assert_eq!(stored, Some((n.to_string(), 1, Some(true))), "kill {kills}");
        }
        opened.close().await;
    }
    println!("{kills} kills");
}
