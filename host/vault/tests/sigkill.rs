//! A process that is killed at any moment has lost nothing it acknowledged.
//!
//! The test starts itself as a child that writes from several tasks and says
//! what was acknowledged, kills it, opens the vault and compares.
//! `COUNTERSIGN_KILLS` says how often (200).

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::ports::{Expect, Random as _, Records as _, SecretChange};
use support::*;

const FOLDER: &str = "COUNTERSIGN_KILL_FOLDER";
const TASKS: usize = 6;
const KEYS: u64 = 16;

/// The child. Record `task/slot` holds the number of its last write, so that
/// the parent only has to remember the highest one acknowledged.
#[test]
#[ignore = "the child of the test below"]
fn writes_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let vault = Arc::new(open_sled(Path::new(&folder)).await);
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| tokio::spawn(write_on(vault.clone(), task)))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn write_on(vault: Arc<countersign_vault::vault::Vault>, task: usize) {
    let mut last = 0;
    for slot in 0..KEYS {
        let stored = read(&vault, &key(&format!("{task}/{slot}"))).await.unwrap();
        last = last.max(stored.map_or(0, |(n, ..)| n.trim().parse().unwrap()));
    }
    for n in last + 1.. {
        let slot = n % KEYS;
        let k = key(&format!("{task}/{slot}"));
        // Of every kind: with a fresh secret, with a kept one, anew after a
        // delete; two records in one batch.
        let document = format!("{n}{}", " ".repeat((n % 7) as usize * 60));
        let secret = if n % 3 == 0 {
            SecretChange::Keep
        } else {
            fresh(&"t".repeat(300))
        };
        let twin = set(
            key(&format!("twin {task}/{slot}")),
            Expect::Anything,
            &document,
            SecretChange::Keep,
        );
        vault
            .write(vec![set(k, Expect::Anything, &document, secret), twin])
            .await
            .unwrap();
        // One write to the pipe: lines of several tasks don't mix.
        std::io::stdout()
            .lock()
            .write_all(format!("\nACK {task} {slot} {n}\n").as_bytes())
            .unwrap();
    }
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_when_the_process_is_killed() {
    let kills: u32 = std::env::var("COUNTERSIGN_KILLS").map_or(200, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let mut writes = 0u64;
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "writes_until_it_is_killed",
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
            let mut acks = Vec::new();
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let mut words = line.split(' ');
                if let (Some("ACK"), Some(task), Some(slot), Some(n)) =
                    (words.next(), words.next(), words.next(), words.next())
                    && let Ok(n) = n.parse::<u64>()
                {
                    acks.push((format!("{task}/{slot}"), n));
                    let _ = first.send(());
                }
            }
            acks
        });
        // Sometimes while it is still opening, mostly while it writes.
        if kill % 5 != 0 {
            let _ = begun.recv_timeout(Duration::from_secs(20));
        }
        let mut byte = [0];
        OsRandom.fill(&mut byte);
        std::thread::sleep(Duration::from_micros(u64::from(byte[0]) * 400));
        child.kill().unwrap();
        child.wait().unwrap();
        for (key, n) in reader.join().unwrap() {
            writes += 1;
            acknowledged.insert(key, n);
        }
        let vault = open_sled(dir.path()).await;
        assert_eq!(vault.damage(), vec![], "kill {kill}");
        for (name, n) in &acknowledged {
            for k in [key(name), key(&format!("twin {name}"))] {
                let stored = read(&vault, &k).await.unwrap();
                let stored = stored.map_or(0, |(text, ..)| text.trim().parse::<u64>().unwrap());
                assert!(
                    stored >= *n,
                    "kill {kill}: {name} is at {stored}, {n} was acknowledged"
                );
            }
        }
        vault.close().await;
    }
    assert!(
        writes > u64::from(kills),
        "the child hardly wrote: {writes}"
    );
    println!("{kills} kills under {writes} acknowledged writes");
}
