//! Several hosts on one PostgreSQL database, and what may happen to it.

mod support;

use std::sync::Arc;
use std::time::Duration;

use countersign_core::ports::{Expect, Kind, Records as _, SecretChange, StoreError};
use countersign_vault::error::OpenError;
use countersign_vault::store::postgres::{Database, DatabaseError, PostgresOptions, PostgresStore};
use countersign_vault::store::{Op, Row, Store as _};
use countersign_vault::vault::Vault;
use support::postgres::{Cluster, PASSWORD};
use support::*;

async fn vault(address: &str) -> Vault {
    open(Arc::new(open_postgres(address).await)).await.unwrap()
}

fn sql(address: &str, text: &str) -> String {
    with_cluster(|cluster| cluster.sql(address, text).unwrap())
}

/// Ends the connections that are as `condition` says.
fn cut(address: &str, condition: &str) -> String {
    let name = address.rsplit('/').next().unwrap();
    let text = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE datname = '{name}' AND pid <> pg_backend_pid() AND {condition}"
    );
    sql(address, &text)
}

fn put(key: &[u8], expect: Option<u64>, revision: u64) -> Vec<Op> {
    vec![Op {
        key: key.to_vec(),
        expect,
        put: Some(Row {
            revision,
            expires_at: None,
            body: vec![7; 100],
        }),
    }]
}

async fn opening(address: &str) -> DatabaseError {
    let database = Database::parse(address).unwrap();
    let clock = Arc::new(RealClock::new());
    let options = PostgresOptions::default();
    PostgresStore::open(database, clock, Arc::new(OsRandom), options)
        .await
        .err()
        .unwrap()
}

/// Tries until it is so.
async fn soon(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..400 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_that_start_at_once_on_an_empty_database_make_one_root_key() {
    let address = database();
    let (one, two) = tokio::join!(vault(&address), vault(&address));
    let secret = set(key("k"), Expect::Absent, "{}", fresh("s"));
    write(&one, secret).await.unwrap();
    assert_eq!(
        read(&two, &key("k")).await.unwrap(),
        Some(("{}".into(), 1, Some(true)))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_write_at_once_lose_nothing_and_keep_the_head_right() {
    let address = database();
    let hosts = [
        Arc::new(vault(&address).await),
        Arc::new(vault(&address).await),
    ];
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let host = Arc::clone(&hosts[task % 2]);
            tokio::spawn(async move {
                let mut done = 0;
                for n in 0..25 {
                    // One that is the task's own, and one that all fight for.
                    let own = key(&format!("{task}/{n}"));
                    let own = set(own, Expect::Absent, "own", fresh("s"));
                    write(&host, own).await.unwrap();
                    loop {
                        let now = read(&host, &key("all")).await.unwrap();
                        let (count, expect) = match now {
                            Some((count, revision, _)) => (
                                count.parse::<u64>().unwrap(),
                                Expect::At(countersign_core::ports::Revision(revision)),
                            ),
                            None => (0, Expect::Absent),
                        };
                        let more = (count + 1).to_string();
                        match write(&host, set(key("all"), expect, &more, SecretChange::Keep)).await
                        {
                            Ok(_) => break,
                            Err(StoreError::Conflict) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    // Verifies every record, and the head.
    let third = vault(&address).await;
    assert!(third.damage().is_empty());
    let all = read(&third, &key("all")).await.unwrap().unwrap();
    assert_eq!(all.0, done.to_string());
    let records = third.list(Kind::Connection, Some("alice")).await.unwrap();
    assert_eq!(records.len(), done + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_sees_what_another_wrote_also_when_it_cannot_listen_and_prints_how_soon() {
    let address = database();
    let (one, two) = (vault(&address).await, vault(&address).await);
    let mut changes = two.changes().unwrap();
    for round in 0..6u64 {
        let expect = Expect::Anything;
        write(&one, set(key("k"), expect, "x", SecretChange::Keep))
            .await
            .unwrap();
        if round % 2 == 1 {
            cut(&address, "query LIKE 'SELECT c.change, c.batch%'");
        }
        let start = RealClock::new();
        soon("it is not seen", async || {
            let seen = read(&two, &key("k")).await.unwrap();
            seen.is_some_and(|(_, revision, _)| revision == round + 1)
        })
        .await;
        let micros = countersign_core::ports::Clock::monotonic_micros(&start);
        println!("round {round}: seen after {micros} µs");
        soon("nobody is told", async || {
            changes
                .try_recv()
                .is_ok_and(|changes| changes.has(Kind::Connection))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_paused_in_a_batch_holds_nobody_up_for_long_and_writes_nothing_late() {
    let address = database();
    let (one, two) = (open_postgres(&address).await, open_postgres(&address).await);
    let paused = one.begin(vec![b"k".to_vec()]).await.unwrap();
    assert_eq!(paused.get(b"k"), Ok(None));
    two.commit(put(b"k", None, 1)).await.unwrap();
    paused.commit(put(b"k", None, 9)).await.unwrap_err();
    assert_eq!(two.get(b"k").await.unwrap().map(|r| r.revision), Some(1));
    one.commit(put(b"k", Some(1), 2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_made_once_whatever_happens_to_its_connection() {
    let address = database();
    let store = Arc::new(open_postgres(&address).await);
    store.commit(put(b"k", None, 0)).await.unwrap();
    let writer = Arc::clone(&store);
    let task = tokio::spawn(async move {
        let mut revision = 0;
        let mut failures = 0;
        while revision < 100 {
            match writer.commit(put(b"k", Some(revision), revision + 1)).await {
                Ok(()) => revision += 1,
                // Said not to be made: then it is not.
                Err(StoreError::Failed(_)) => failures += 1,
                Err(other) => panic!("after {revision}: {other}"),
            }
        }
        failures
    });
    while !task.is_finished() {
        let cutting = address.clone();
        tokio::task::spawn_blocking(move || {
            cut(&cutting, "query NOT LIKE 'SELECT c.change, c.batch%'")
        })
        .await
        .unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    task.await.unwrap();
    let revision = store.get(b"k").await.unwrap().map(|r| r.revision);
    assert_eq!(revision, Some(100));
}

#[tokio::test]
async fn a_record_that_was_put_back_removed_or_added_in_the_database_is_noticed() {
    for change in [
        "UPDATE countersign_row SET revision = o.revision, body = o.body FROM old o \
         WHERE countersign_row.key = o.key",
        "DELETE FROM countersign_row WHERE key IN (SELECT key FROM old)",
        "INSERT INTO countersign_row SELECT set_byte(key, 20, get_byte(key, 20) # 1), \
         revision, expires_at, body FROM old",
    ] {
        let address = database();
        let vault = vault(&address).await;
        let first = set(key("k"), Expect::Absent, "old", fresh("s"));
        write(&vault, first).await.unwrap();
        sql(
            &address,
            "CREATE TABLE old AS SELECT * FROM countersign_row WHERE get_byte(key, 0) = 5",
        );
        let second = set(key("k"), Expect::Anything, "new", SecretChange::Keep);
        write(&vault, second).await.unwrap();
        vault.close().await;
        sql(&address, change);
        let said = open(Arc::new(open_postgres(&address).await)).await.err();
        // What is added lies where it does not belong, and so does not open.
        let noticed = match said {
            Some(OpenError::HeadMismatch { .. }) => true,
            None => change.starts_with("INSERT"),
            Some(_) => false,
        };
        assert!(noticed, "{change}");
    }
}

#[tokio::test]
async fn what_keeps_a_database_from_being_used_is_said_without_its_password() {
    let address = database();
    let said = opening(&address.replace(PASSWORD, "wrong")).await;
    assert!(said.to_string().contains("check the password"), "{said}");

    let missing = address.replace("/test", "/nosuch");
    let said = opening(&missing).await;
    assert!(said.to_string().contains("createdb"), "{said}");

    let said = opening("postgres://u:hunter2@127.0.0.1:1/c").await;
    let said = said.to_string();
    assert!(
        said.contains("c at 127.0.0.1:1") && said.contains("refused") && !said.contains("hunter2"),
        "{said}"
    );

    let said = opening(&format!("{address}?sslmode=verify-full")).await;
    assert!(said.to_string().contains("TLS"), "{said}");

    open_postgres(&address).await;
    sql(
        &address,
        "INSERT INTO countersign_schema (version) VALUES (9)",
    );
    let said = opening(&address).await;
    assert!(
        matches!(said, DatabaseError::SchemaTooNew { found: 9, .. }),
        "{said}"
    );

    let read_only = database();
    let name = read_only.rsplit('/').next().unwrap();
    sql(
        &read_only,
        &format!("ALTER DATABASE {name} SET default_transaction_read_only = on"),
    );
    let said = opening(&read_only).await;
    assert!(said.to_string().contains("replica"), "{said}");
}

#[tokio::test]
async fn the_servers_certificate_is_judged_as_sslmode_says() {
    let start = || {
        let cluster = Cluster::start().unwrap();
        let certificate = cluster.enable_tls().unwrap();
        (cluster, certificate)
    };
    let (cluster, certificate) = tokio::task::spawn_blocking(start).await.unwrap();
    let plain = Cluster::with_password(&cluster.database().unwrap());
    let named = plain.replace("127.0.0.1", "localhost");
    let trusted = format!("sslrootcert={}", certificate.display());
    for (address, mode, good) in [
        (&named, format!("verify-full&{trusted}"), true),
        (&plain, format!("verify-full&{trusted}"), false),
        (&named, "verify-full".into(), false),
        (&plain, format!("verify-ca&{trusted}"), true),
        (&plain, "verify-ca".into(), false),
        (&plain, "require".into(), true),
        (&plain, "prefer".into(), true),
        (&plain, "disable".into(), true),
    ] {
        let address = format!("{address}?sslmode={mode}");
        if !good {
            let said = opening(&address).await.to_string();
            assert!(said.contains("certificate"), "{mode}: {said}");
            continue;
        }
        let store = open_postgres(&address).await;
        let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                         WHERE ssl AND application_name = 'countersign'";
        let name = plain.rsplit('/').next().unwrap();
        let count = cluster.sql(name, encrypted).unwrap();
        assert_eq!(count == "0", mode == "disable", "{mode}: {count}");
        drop(store);
        soon("it stays connected", async || {
            let all =
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'countersign'";
            cluster.sql(name, all).unwrap() == "0"
        })
        .await;
    }
}

#[tokio::test]
async fn a_role_that_may_make_no_tables_is_told_what_it_needs_and_needs_nothing_later() {
    let address = database();
    let name = address.rsplit('/').next().unwrap();
    let role = format!("role_{name}");
    sql(
        &address,
        &format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'"),
    );
    let as_role = address.replace("postgres:", &format!("{role}:"));
    let as_role = as_role.replacen(&format!("{role}://"), "postgres://", 1);
    let said = opening(&as_role).await;
    assert!(said.to_string().contains("GRANT CREATE"), "{said}");
    open_postgres(&address).await;
    sql(
        &address,
        &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"),
    );
    let store = open_postgres(&as_role).await;
    store.commit(put(b"k", None, 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_makes_the_store_unready_until_it_is_back() {
    // Its own server: the other tests need theirs.
    let cluster = tokio::task::spawn_blocking(Cluster::start)
        .await
        .unwrap()
        .unwrap();
    let address = Cluster::with_password(&cluster.database().unwrap());
    let vault = vault(&address).await;
    write(&vault, set(key("k"), Expect::Absent, "1", fresh("s")))
        .await
        .unwrap();
    assert!(vault.is_ready());
    let cluster = tokio::task::spawn_blocking(move || {
        let mut cluster = cluster;
        cluster.kill().unwrap();
        cluster
    })
    .await
    .unwrap();
    soon("it stays ready", async || !vault.is_ready()).await;
    let refused = write(&vault, set(key("k"), Expect::Anything, "2", fresh("s"))).await;
    assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
    assert!(
        vault.get(&key("k")).await.is_err(),
        "an old row is not good"
    );
    let _cluster = tokio::task::spawn_blocking(move || {
        let mut cluster = cluster;
        cluster.again().unwrap();
        cluster
    })
    .await
    .unwrap();
    soon("it does not become ready", async || vault.is_ready()).await;
    write(&vault, set(key("k"), Expect::Anything, "3", fresh("s")))
        .await
        .unwrap();
    assert_eq!(
        read(&vault, &key("k")).await.unwrap().map(|(d, ..)| d),
        Some("3".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_lost_acknowledged_changes_empties_what_is_remembered() {
    let address = database();
    let store = open_postgres(&address).await;
    let mut changes = store.changes().unwrap();
    store.commit(put(b"k", None, 1)).await.unwrap();
    store.commit(put(b"k", Some(1), 2)).await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap().map(|r| r.revision), Some(2));
    // As after a failover to a server that had not heard of the second one,
    // and went on from there.
    sql(
        &address,
        "UPDATE countersign_row SET revision = 1; \
         DELETE FROM countersign_change WHERE change = 2; \
         INSERT INTO countersign_change (change, batch, host, keys) VALUES \
             (2, '\\x01010101010101010101010101010101', '\\x00', '{}'), \
             (3, '\\x02020202020202020202020202020202', '\\x00', '{}'); \
         UPDATE countersign_clock SET change = 3, batch = '\\x02020202020202020202020202020202'",
    );
    soon("it is not forgotten", async || {
        store.get(b"k").await.unwrap().map(|r| r.revision) == Some(1)
    })
    .await;
    soon("nobody is told", async || {
        changes
            .try_recv()
            .is_ok_and(|changes| changes.has(Kind::Token))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_is_known_to_run_until_it_ends() {
    let address = database();
    let (one, two) = (vault(&address).await, vault(&address).await);
    assert_ne!(one.process(), two.process());
    assert!(one.is_running(two.process()).await.unwrap());
    assert!(one.is_running(one.process()).await.unwrap());
    let gone = two.process().to_owned();
    two.close().await;
    soon("it runs for ever", async || {
        !one.is_running(&gone).await.unwrap()
    })
    .await;
}
