//! What every store promises the vault. A new store is added to
//! `support::on_every_store`.

mod support;

use std::sync::Arc;

use countersign_core::ports::StoreError;
use countersign_vault::store::sled::SledStore;
use countersign_vault::store::{LONGEST_BODY, Op, Row, Store, Which};
use support::on_every_store;

fn row(revision: u64) -> Row {
    Row {
        revision,
        expires_at: None,
        body: format!("body {revision}").into_bytes(),
    }
}

fn put(key: &[u8], expect: Option<u64>, revision: u64) -> Op {
    Op {
        key: key.to_vec(),
        expect,
        put: Some(row(revision)),
    }
}

async fn revision(store: &dyn Store, key: &[u8]) -> Option<u64> {
    store.get(key).await.unwrap().map(|r| r.revision)
}

#[tokio::test]
async fn a_row_reads_back_as_it_was_put() {
    on_every_store(|store| async move {
        for body in [vec![], vec![0], vec![0xFF; LONGEST_BODY]] {
            for expires_at in [None, Some(0), Some(-5), Some(1_795_000_000_000)] {
                let key = format!("{}{expires_at:?}", body.len()).into_bytes();
                let row = Row {
                    revision: u64::MAX,
                    expires_at,
                    body: body.clone(),
                };
                let op = Op {
                    key: key.clone(),
                    expect: None,
                    put: Some(row.clone()),
                };
                store.commit(vec![op]).await.unwrap();
                assert_eq!(store.get(&key).await, Ok(Some(row)));
            }
        }
        assert_eq!(store.get(b"none").await, Ok(None));
    })
    .await;
}

#[tokio::test]
async fn a_batch_is_done_wholly_or_not_at_all() {
    on_every_store(|store| async move {
        store
            .commit(vec![put(b"a", None, 1), put(b"b", None, 1)])
            .await
            .unwrap();
        for stale in [
            vec![put(b"a", Some(1), 2), put(b"b", Some(9), 2)],
            vec![put(b"a", Some(1), 2), put(b"b", None, 2)],
            vec![put(b"a", Some(1), 2), put(b"c", Some(1), 2)],
            vec![
                put(b"a", Some(1), 2),
                Op {
                    key: b"b".to_vec(),
                    expect: Some(2),
                    put: None,
                },
            ],
        ] {
            assert_eq!(store.commit(stale).await, Err(StoreError::Conflict));
            assert_eq!(revision(&*store, b"a").await, Some(1));
        }
        let gone = Op {
            key: b"b".to_vec(),
            expect: Some(1),
            put: None,
        };
        store
            .commit(vec![put(b"a", Some(1), 2), gone])
            .await
            .unwrap();
        assert_eq!(revision(&*store, b"a").await, Some(2));
        assert_eq!(revision(&*store, b"b").await, None);
        // Free again, with any revision.
        store.commit(vec![put(b"b", None, 7)]).await.unwrap();
        assert_eq!(revision(&*store, b"b").await, Some(7));
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_before_anything_is_done() {
    on_every_store(|store| async move {
        let long = Row {
            revision: 1,
            expires_at: None,
            body: vec![0; LONGEST_BODY + 1],
        };
        let batch = vec![
            put(b"a", None, 1),
            Op {
                key: b"b".to_vec(),
                expect: None,
                put: Some(long),
            },
        ];
        assert_eq!(
            store.commit(batch).await,
            Err(StoreError::TooLarge {
                limit: LONGEST_BODY
            })
        );
        assert_eq!(revision(&*store, b"a").await, None);
        assert!(store.is_ready());
    })
    .await;
}

#[tokio::test]
async fn a_scan_gives_every_key_with_the_prefix_once_and_in_order() {
    on_every_store(|store| async move {
        let mut all: Vec<Vec<u8>> = (0..50u8).map(|n| vec![5, n / 10, n]).collect();
        all.extend([
            vec![4, 0xFF],
            vec![5],
            vec![5, 0xFF, 0xFF],
            vec![6],
            vec![0xFF, 0xFF],
        ]);
        all.sort();
        store
            .commit(all.iter().rev().map(|k| put(k, None, 1)).collect())
            .await
            .unwrap();
        for prefix in [&[][..], &[5], &[5, 2], &[5, 0xFF], &[0xFF], &[7], &[4]] {
            for limit in [1, 3, 7, 1000] {
                let mut found = Vec::new();
                let mut from = Some(Vec::new());
                while let Some(at) = from {
                    let page = store.scan(prefix, &at, limit).await.unwrap();
                    assert!(page.rows.len() <= limit && page.holes.is_empty());
                    found.extend(page.rows.into_iter().map(|(k, _)| k));
                    from = page.next;
                }
                let wanted: Vec<_> = all
                    .iter()
                    .filter(|k| k.starts_with(prefix))
                    .cloned()
                    .collect();
                assert_eq!(found, wanted, "{prefix:?} by {limit}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_expired_is_found_and_nothing_else() {
    on_every_store(|store| async move {
        for (key, expires_at) in [
            (b"a", Some(10)),
            (b"b", Some(11)),
            (b"c", None),
            (b"d", Some(3)),
        ] {
            let row = Row {
                expires_at,
                ..row(4)
            };
            store
                .commit(vec![Op {
                    key: key.to_vec(),
                    expect: None,
                    put: Some(row),
                }])
                .await
                .unwrap();
        }
        let due = async |which, now, limit| {
            let mut due = store.expired(which, now, limit).await.unwrap();
            due.sort();
            due
        };
        let all = Which::AllBut(b'x');
        assert_eq!(due(all, 2, 9).await, vec![]);
        assert_eq!(
            due(all, 10, 9).await,
            vec![(b"a".to_vec(), 4), (b"d".to_vec(), 4)]
        );
        assert_eq!(due(all, i64::MAX, 9).await.len(), 3);
        assert_eq!(due(all, i64::MAX, 2).await.len(), 2);
        let but_a = due(Which::AllBut(b'a'), 10, 9).await;
        assert_eq!(but_a, vec![(b"d".to_vec(), 4)]);
        let only_a = due(Which::Only(b'a'), 10, 9).await;
        assert_eq!(only_a, vec![(b"a".to_vec(), 4)]);
        assert_eq!(due(Which::Only(b'c'), i64::MAX, 9).await, vec![]);
    })
    .await;
}

#[tokio::test]
async fn of_one_first_byte_the_soonest_comes_first_as_it_was_last_put() {
    on_every_store(|store| async move {
        let at = |revision, expires_at| Row {
            expires_at,
            ..row(revision)
        };
        let commit = async |key: &[u8], expect, put| {
            let key = key.to_vec();
            store.commit(vec![Op { key, expect, put }]).await.unwrap();
        };
        commit(b"q1", None, Some(at(1, Some(-7)))).await;
        commit(b"q2", None, Some(at(1, Some(5)))).await;
        commit(b"q3", None, Some(at(1, Some(1)))).await;
        commit(b"q4", None, Some(at(1, Some(2)))).await;
        commit(b"q5", None, Some(at(1, None))).await;
        // Later, sooner, never, gone, and at the same time in a new revision.
        commit(b"q1", Some(1), Some(at(2, Some(9)))).await;
        commit(b"q2", Some(1), Some(at(2, Some(5)))).await;
        commit(b"q3", Some(1), Some(at(2, None))).await;
        commit(b"q4", Some(1), None).await;
        commit(b"q5", Some(1), Some(at(2, Some(3)))).await;
        let due = store.expired(Which::Only(b'q'), 100, 9).await.unwrap();
        let expected = [&b"q5"[..], b"q2", b"q1"].map(|key| (key.to_vec(), 2));
        assert_eq!(due, expected);
        let first = store.expired(Which::Only(b'q'), 5, 1).await.unwrap();
        assert_eq!(first, expected[..1]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_set_the_same_revision_one_succeeds() {
    on_every_store(|store| async move {
        store.commit(vec![put(b"k", None, 0)]).await.unwrap();
        for round in 0..20 {
            let tasks: Vec<_> = (0..8)
                .map(|_| {
                    let store = Arc::clone(&store);
                    tokio::spawn(async move {
                        store.commit(vec![put(b"k", Some(round), round + 1)]).await
                    })
                })
                .collect();
            let mut done = 0;
            for task in tasks {
                match task.await.unwrap() {
                    Ok(()) => done += 1,
                    Err(e) => assert_eq!(e, StoreError::Conflict),
                }
            }
            assert_eq!(done, 1);
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..10u64 {
        let store = SledStore::open(dir.path()).unwrap();
        for key in 0..round {
            assert_eq!(revision(&store, &key.to_be_bytes()).await, Some(key));
        }
        store
            .commit(vec![put(&round.to_be_bytes(), None, round)])
            .await
            .unwrap();
    }
}
