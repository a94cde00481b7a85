//! Records in a vault, on every store.

mod support;

use std::sync::Arc;

use countersign_core::ports::{
    Expect, Kind, RecordKey, Records, Reread, Revision, SecretChange, StoreError, delete,
};
use countersign_core::time::Timestamp;
use countersign_vault::store::Store;
use countersign_vault::vault::LONGEST_RECORD;
use support::*;

const KEEP: SecretChange = SecretChange::Keep;

/// Every byte a store holds.
async fn dump(store: &dyn Store) -> Vec<u8> {
    let mut out = Vec::new();
    let mut from = Some(Vec::new());
    while let Some(at) = from {
        let page = store.scan(&[], &at, 100).await.unwrap();
        for (key, row) in page.rows {
            out.extend(key);
            out.extend(row.body);
        }
        from = page.next;
    }
    out
}

fn holds(hay: &[u8], needle: &str) -> bool {
    hay.windows(needle.len()).any(|w| w == needle.as_bytes())
}

#[tokio::test]
async fn a_record_is_read_back_with_its_secret_and_nothing_of_it_is_readable_in_the_store() {
    on_every_store(|store| async move {
        let vault = open(store.clone()).await.unwrap();
        let k = key("default/github/");
        let w = set(
            k.clone(),
            Expect::Absent,
            "{\"scopes\":\"repo\"}",
            fresh("gho_canary"),
        );
        assert_eq!(write(&vault, w).await, Ok(Revision(1)));
        assert_eq!(
            read(&vault, &k).await.unwrap(),
            Some(("{\"scopes\":\"repo\"}".into(), 1, Some(true)))
        );
        let record = vault.get(&k).await.unwrap().unwrap();
        assert_eq!(record.key, k);
        let stored = dump(&*store).await;
        for visible in ["alice", "github", "repo", "scopes", "gho_canary"] {
            assert!(!holds(&stored, visible), "{visible}");
        }
        vault.close().await;
        let again = open(store).await.unwrap();
        assert!(again.damage().is_empty());
        assert_eq!(
            read(&again, &k).await.unwrap().map(|r| r.2),
            Some(Some(true))
        );
    })
    .await;
}

#[tokio::test]
async fn a_kept_secret_survives_revisions_and_a_removed_one_is_gone() {
    on_every_store(|store| async move {
        let vault = open(store.clone()).await.unwrap();
        let k = key("c");
        write(&vault, set(k.clone(), Expect::Absent, "1", fresh("s")))
            .await
            .unwrap();
        for n in 2..5u64 {
            let w = set(k.clone(), Expect::At(Revision(n - 1)), &n.to_string(), KEEP);
            assert_eq!(write(&vault, w).await, Ok(Revision(n)));
            assert_eq!(
                read(&vault, &k).await.unwrap(),
                Some((n.to_string(), n, Some(true)))
            );
        }
        write(
            &vault,
            set(k.clone(), Expect::Anything, "x", SecretChange::Remove),
        )
        .await
        .unwrap();
        assert_eq!(read(&vault, &k).await.unwrap(), Some(("x".into(), 5, None)));
        write(&vault, set(k.clone(), Expect::Anything, "y", KEEP))
            .await
            .unwrap();
        assert_eq!(read(&vault, &k).await.unwrap(), Some(("y".into(), 6, None)));
        vault.close().await;
        assert!(open(store).await.unwrap().damage().is_empty());
    })
    .await;
}

#[tokio::test]
async fn compare_and_set_refuses_what_was_not_expected_and_the_whole_batch_with_it() {
    on_every_store(|store| async move {
        let vault = open(store).await.unwrap();
        let (a, b) = (key("a"), key("b"));
        write(&vault, set(a.clone(), Expect::Absent, "1", KEEP))
            .await
            .unwrap();
        for wrong in [
            Expect::Absent,
            Expect::At(Revision(2)),
            Expect::At(Revision(0)),
        ] {
            let batch = vec![
                set(b.clone(), Expect::Absent, "1", KEEP),
                set(a.clone(), wrong, "2", KEEP),
            ];
            assert_eq!(vault.write(batch).await.err(), Some(StoreError::Conflict));
            assert_eq!(read(&vault, &b).await.unwrap(), None);
            assert_eq!(
                vault.write(vec![delete(a.clone(), wrong)]).await.err(),
                Some(StoreError::Conflict)
            );
        }
        let batch = vec![
            set(b.clone(), Expect::Absent, "1", KEEP),
            set(b.clone(), Expect::At(Revision(1)), "2", KEEP),
            delete(a.clone(), Expect::At(Revision(1))),
        ];
        assert_eq!(
            vault.write(batch).await,
            Ok(vec![Revision(1), Revision(2), Revision(1)])
        );
        assert_eq!(read(&vault, &a).await.unwrap(), None);
        assert_eq!(
            read(&vault, &b).await.unwrap().map(|r| r.0),
            Some("2".into())
        );
        // Gone and back within one batch, and never there at all.
        let batch = vec![
            delete(b.clone(), Expect::Anything),
            set(b.clone(), Expect::Absent, "3", KEEP),
        ];
        vault.write(batch).await.unwrap();
        vault
            .write(vec![delete(key("never"), Expect::Anything)])
            .await
            .unwrap();
        assert_eq!(read(&vault, &b).await.unwrap(), Some(("3".into(), 1, None)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_increments_lose_nothing() {
    on_every_store(|store| async move {
        let vault = Arc::new(open(store).await.unwrap());
        let k = key("counter");
        write(&vault, set(k.clone(), Expect::Absent, "0", fresh("s")))
            .await
            .unwrap();
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (vault, k) = (vault.clone(), k.clone());
                tokio::spawn(async move {
                    for _ in 0..10 {
                        loop {
                            let (n, revision, secret) = read(&vault, &k).await.unwrap().unwrap();
                            assert_eq!(secret, Some(true));
                            let next = (n.parse::<u64>().unwrap() + 1).to_string();
                            let w = set(k.clone(), Expect::At(Revision(revision)), &next, KEEP);
                            if write(&vault, w).await.is_ok() {
                                break;
                            }
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(
            read(&vault, &k).await.unwrap(),
            Some(("80".into(), 81, Some(true)))
        );
    })
    .await;
}

#[tokio::test]
async fn a_list_holds_the_kind_or_the_partition_and_nothing_else() {
    on_every_store(|store| async move {
        let vault = open(store).await.unwrap();
        let mut batch = Vec::new();
        for kind in [Kind::Connection, Kind::Session] {
            for user in ["alice", "bob", ""] {
                for n in 0..300 {
                    let k = RecordKey::within(kind, user, n.to_string());
                    batch.push(set(k, Expect::Absent, user, KEEP));
                }
            }
        }
        vault.write(batch).await.unwrap();
        for (partition, count) in [
            (None, 900),
            (Some("alice"), 300),
            (Some(""), 300),
            (Some("eve"), 0),
        ] {
            let list = vault.list(Kind::Connection, partition).await.unwrap();
            let names: std::collections::BTreeSet<_> = list
                .iter()
                .map(|r| (r.key.partition.clone(), r.key.name.clone()))
                .collect();
            assert_eq!(names.len(), count);
            for record in list {
                assert_eq!(record.key.kind, Kind::Connection);
                assert_eq!(record.document, record.key.partition.as_bytes());
                assert!(partition.is_none_or(|p| p == record.key.partition));
            }
        }
        assert!(vault.list(Kind::Policy, None).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_is_remembered_of_a_record_never_outlives_its_version() {
    on_every_store(|store| async move {
        let vault = open(store).await.unwrap();
        let put = |text: &'static str| set(key("k"), Expect::Anything, text, fresh("s"));
        write(&vault, put("one")).await.unwrap();
        let first = vault.get(&key("k")).await.unwrap().unwrap();
        let again = vault.reread(&key("k"), first.version).await.unwrap();
        assert!(matches!(again, Reread::Same(Some(sealed)) if sealed.is_sound()));

        write(&vault, put("two")).await.unwrap();
        let changed = vault.reread(&key("k"), first.version).await.unwrap();
        let Reread::Other(Some(second)) = changed else {
            panic!("a changed record passed for the old one");
        };
        assert_eq!(second.document, b"two");

        write(&vault, delete(key("k"), Expect::Anything))
            .await
            .unwrap();
        let gone = vault.reread(&key("k"), second.version).await.unwrap();
        assert!(matches!(gone, Reread::Other(None)));

        // Its revisions begin anew; the version tells them apart.
        write(&vault, put("three")).await.unwrap();
        let other = vault.reread(&key("k"), first.version).await.unwrap();
        let Reread::Other(Some(third)) = other else {
            panic!("a record that was deleted and made anew passed for the old one");
        };
        assert_eq!(
            (third.revision, &*third.document),
            (first.revision, &b"three"[..])
        );
    })
    .await;
}

#[tokio::test]
async fn an_expired_record_is_read_until_it_is_swept() {
    on_every_store(|store| async move {
        let vault = open(store.clone()).await.unwrap();
        let mut batch = Vec::new();
        for n in 0..700i64 {
            let at = Timestamp::from_secs(n);
            batch.push(set_until(
                key(&n.to_string()),
                Expect::Absent,
                "x",
                fresh("s"),
                Some(at),
            ));
        }
        let last = Timestamp::from_millis(i64::MAX);
        batch.push(set_until(
            key("last"),
            Expect::Absent,
            "x",
            KEEP,
            Some(last),
        ));
        batch.push(set(key("stays"), Expect::Absent, "x", KEEP));
        vault.write(batch).await.unwrap();
        assert!(vault.get(&key("0")).await.unwrap().is_some());
        assert_eq!(vault.sweep(Timestamp::from_secs(649)).await, Ok(650));
        assert_eq!(vault.sweep(Timestamp::from_secs(649)).await, Ok(0));
        assert!(vault.get(&key("649")).await.unwrap().is_none());
        assert_eq!(vault.list(Kind::Connection, None).await.unwrap().len(), 52);
        vault.close().await;
        let again = open(store).await.unwrap();
        assert!(again.damage().is_empty());
        assert!(again.get(&key("last")).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn what_falls_due_is_found_soonest_first_and_never_swept() {
    on_every_store(|store| async move {
        let vault = open(store.clone()).await.unwrap();
        let due = |name: &str, at| {
            set_until(
                RecordKey::new(Kind::Due, name),
                Expect::Anything,
                name,
                KEEP,
                Some(Timestamp::from_secs(at)),
            )
        };
        let other = set_until(
            key("other"),
            Expect::Absent,
            "x",
            KEEP,
            Some(Timestamp::from_secs(1)),
        );
        let batch = vec![due("late", 90), due("second", 20), due("first", 10), other];
        vault.write(batch).await.unwrap();
        let names = async |now| {
            let found = vault.due(Timestamp::from_secs(now), 9).await.unwrap();
            found.into_iter().map(|r| r.key.name).collect::<Vec<_>>()
        };
        assert_eq!(names(9).await, Vec::<String>::new());
        assert_eq!(names(20).await, ["first", "second"]);
        assert_eq!(vault.sweep(Timestamp::from_secs(100)).await, Ok(1));
        assert_eq!(names(100).await, ["first", "second", "late"]);
        vault.write(vec![due("first", 95)]).await.unwrap();
        assert_eq!(names(100).await, ["second", "late", "first"]);
        vault.close().await;
        let again = open(store).await.unwrap();
        assert_eq!(
            again.due(Timestamp::from_secs(100), 2).await.unwrap().len(),
            2
        );
    })
    .await;
}

#[tokio::test]
async fn a_record_may_be_eight_kibibytes_and_not_more() {
    on_every_store(|store| async move {
        let vault = open(store).await.unwrap();
        let names = key("k").partition.len() + 1;
        let fits = "x".repeat(LONGEST_RECORD - names - 1000);
        let w = set(key("k"), Expect::Absent, &fits, fresh(&"s".repeat(1000)));
        write(&vault, w).await.unwrap();
        assert_eq!(
            read(&vault, &key("k")).await.unwrap().map(|r| r.2),
            Some(Some(true))
        );
        let too_large = Err(StoreError::TooLarge {
            limit: LONGEST_RECORD,
        });
        let w = set(
            key("k"),
            Expect::Anything,
            &format!("{fits}x"),
            fresh(&"s".repeat(1000)),
        );
        assert_eq!(write(&vault, w).await, too_large);
        let w = set(key("k"), Expect::Anything, &format!("{fits}x"), KEEP);
        assert_eq!(write(&vault, w).await, too_large);
        let w = set(
            RecordKey::new(Kind::Meta, "n".repeat(70_000)),
            Expect::Anything,
            "x",
            KEEP,
        );
        assert_eq!(write(&vault, w).await, too_large);
    })
    .await;
}
