//! Whatever the database does, an acknowledged write is there, a refused one
//! is not, and one that was not answered is there wholly or not at all.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::ports::{Expect, Random as _, Records as _, StoreError};
use countersign_vault::store::Store;
use countersign_vault::store::memory::MemoryStore;
use countersign_vault::store::sled::SledStore;
use support::faults::{Fault, FaultStore};
use support::*;

fn byte() -> u8 {
    let mut byte = [0];
    OsRandom.fill(&mut byte);
    byte[0]
}

/// Writes pairs until the store fails; what became of each.
async fn write_until_it_fails(
    store: Arc<dyn Store>,
    known: &mut BTreeMap<String, u64>,
) -> Option<(String, u64)> {
    let vault = open(store).await.ok()?;
    let mut open_question = None;
    for _ in 0..40 {
        let name = format!("{}", byte() % 5);
        let next = known.get(&name).copied().unwrap_or(0) + 1;
        let text = next.to_string();
        let pair = ["left", "right"].map(|side| {
            set(
                key(&format!("{side} {name}")),
                Expect::Anything,
                &text,
                fresh(&text),
            )
        });
        match vault.write(pair.into()).await {
            Ok(_) => {
                known.insert(name, next);
            }
            Err(StoreError::Failed(_)) => {
                open_question = Some((name, next));
                break;
            }
            Err(StoreError::Conflict) => {}
            Err(other) => panic!("{other}"),
        }
    }
    if open_question.is_some() {
        assert!(!vault.is_ready(), "it goes on after a failed write");
    }
    vault.close().await;
    open_question
}

async fn stored(store: &Arc<dyn Store>, side: &str, name: &str) -> u64 {
    let vault = open(store.clone()).await.unwrap();
    assert_eq!(vault.damage(), vec![]);
    let found = read(&vault, &key(&format!("{side} {name}"))).await.unwrap();
    vault.close().await;
    found.map_or(0, |(text, _, secret)| {
        assert_eq!(secret, Some(true));
        text.parse().unwrap()
    })
}

async fn survives_faults(store: Arc<dyn Store>) {
    let mut known = BTreeMap::new();
    for round in 0..25usize {
        let when = usize::from(byte() % 30);
        let fault = if round % 2 == 0 {
            Fault::Before
        } else {
            Fault::After
        };
        let faulty = Arc::new(FaultStore::new(store.clone(), move |n| match n {
            n if n == when => Some(fault),
            n if n % 7 == 3 => Some(Fault::Conflict),
            n if n % 11 == 5 => Some(Fault::Slow(Duration::from_millis(1))),
            _ => None,
        }));
        let open_question = write_until_it_fails(faulty, &mut known).await;
        for (name, n) in known.clone() {
            let (left, right) = (
                stored(&store, "left", &name).await,
                stored(&store, "right", &name).await,
            );
            assert_eq!(left, right, "half a batch");
            let may_be_next = open_question
                .as_ref()
                .is_some_and(|q| *q == (name.clone(), n + 1));
            assert!(
                left == n || (may_be_next && left == n + 1),
                "{left}, not {n}"
            );
            known.insert(name, left);
        }
    }
    assert!(known.values().sum::<u64>() > 50);
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_nothing_is_half_applied_whatever_the_store_does() {
    survives_faults(Arc::new(MemoryStore::new())).await;
    let dir = tempfile::tempdir().unwrap();
    survives_faults(Arc::new(SledStore::open(dir.path()).unwrap())).await;
}
