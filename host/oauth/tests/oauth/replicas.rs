//! Several processes that renew one connection, and what becomes of it when
//! one of them is paused or killed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_core::connection::{ReauthReason, State};
use countersign_core::ports::fakes::MemoryRecords;
use countersign_core::ports::{
    BoxFuture, Kind, Record, RecordKey, Records, Revision, StoreError, World, Write,
};
use countersign_core::preset::Rotation;
use countersign_core::time::Timestamp;
use countersign_oauth::refresh::FreshError;
use countersign_oauth::{Held, Oauth};
use url::Url;

use crate::support::{Stage, stage, tokens};

const HOUR: u64 = 3600;

type Before = BoxFuture<'static, ()>;

/// The records as one of several processes has them.
struct Process {
    name: &'static str,
    inner: Arc<MemoryRecords>,
    /// Processes that run no more, or seem to.
    ended: Arc<Mutex<HashSet<String>>>,
    /// Happens before this process writes its lease for the second time.
    before_sending: Mutex<(usize, Option<Before>)>,
}

impl Records for Process {
    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        self.inner.get(key)
    }
    fn write(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Revision>, StoreError>> {
        Box::pin(async move {
            let is_lease = writes.iter().all(|w| w.key.kind == Kind::Lease);
            let before = {
                let mut state = self.before_sending.lock().unwrap();
                state.0 += usize::from(is_lease);
                if state.0 == 2 { state.1.take() } else { None }
            };
            if let Some(before) = before {
                before.await;
            }
            self.inner.write(writes).await
        })
    }
    fn list<'a>(
        &'a self,
        kind: Kind,
        partition: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        self.inner.list(kind, partition)
    }
    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        self.inner.due(now, limit)
    }
    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.inner.sweep(now)
    }
    fn is_ready(&self) -> bool {
        true
    }
    fn process(&self) -> &str {
        self.name
    }
    fn is_running<'a>(&'a self, process: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        let runs = !self.ended.lock().unwrap().contains(process);
        Box::pin(std::future::ready(Ok(runs)))
    }
}

/// A connection whose token has lapsed, and who may have ended.
async fn lapsed() -> (Stage, Arc<Mutex<HashSet<String>>>) {
    let stage = stage().await;
    let first = tokens("access-token-1", Some("refresh-token-1"), Some(HOUR));
    stage.connected("ana", first).await;
    stage.clock.advance(Duration::from_secs(HOUR + 1));
    (stage, Arc::default())
}

fn process(
    stage: &Stage,
    name: &'static str,
    ended: &Arc<Mutex<HashSet<String>>>,
    before_sending: Option<Before>,
) -> Arc<Oauth> {
    let records = Process {
        name,
        inner: stage.records.clone(),
        ended: ended.clone(),
        before_sending: Mutex::new((0, before_sending)),
    };
    let world = World {
        records: Arc::new(records),
        ..stage.world.clone()
    };
    let url = Url::parse("https://cs.example.com").unwrap();
    Oauth::new(world, Arc::new(stage.guard.clone()), url)
}

async fn held(oauth: &Oauth, stage: &Stage) -> Held {
    oauth.load(&stage.key("ana")).await.unwrap().unwrap()
}

async fn fresh(oauth: &Arc<Oauth>, stage: &Stage) -> Result<Held, FreshError> {
    let held = held(oauth, stage).await;
    oauth.fresh(held, &stage.party(), None).await
}

fn refresh_tokens(stage: &Stage) -> Vec<String> {
    let sent = stage.token_requests();
    sent.iter()
        .filter_map(|r| r.field("refresh_token"))
        .collect()
}

#[tokio::test]
async fn who_was_paused_until_the_lease_was_lost_sends_nothing() {
    let (stage, ended) = lapsed().await;
    let (stage, second) = (Arc::new(stage), Some("refresh-token-2"));
    stage
        .script
        .token(tokens("access-token-2", second, Some(HOUR)));
    // While the first has the lease and is paused, it is taken for ended, and
    // another renews.
    let other = process(&stage, "other", &ended, None);
    let (at, gone) = (stage.clone(), ended.clone());
    let meanwhile: Before = Box::pin(async move {
        gone.lock().unwrap().insert("paused".into());
        fresh(&other, &at).await.map(drop).unwrap();
    });
    let paused = process(&stage, "paused", &ended, Some(meanwhile));
    let after = fresh(&paused, &stage).await.unwrap();
    assert_eq!(after.connection.state, State::Connected);
    assert_eq!(refresh_tokens(&stage), ["refresh-token-1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_that_went_out_is_not_sent_again_and_its_late_answer_still_counts() {
    let (stage, ended) = lapsed().await;
    let gate = stage.script.hold();
    let second = Some("refresh-token-2");
    stage
        .script
        .token(tokens("access-token-2", second, Some(HOUR)));
    let (slow, other) = (
        process(&stage, "slow", &ended, None),
        process(&stage, "other", &ended, None),
    );
    let (oauth, before, party) = (slow.clone(), held(&slow, &stage).await, stage.party());
    let answered = tokio::spawn(async move { oauth.fresh(before, &party, None).await.map(drop) });
    while refresh_tokens(&stage).is_empty() {
        tokio::task::yield_now().await;
    }
    ended.lock().unwrap().insert("slow".into());
    let reason = ReauthReason::ProviderError;
    assert!(fresh(&other, &stage).await.is_err());
    let now = held(&other, &stage).await;
    assert_eq!(now.connection.state, State::NeedsReauth { reason });
    assert!(now.sealed.is_some(), "the answer may come yet");
    assert!(stage.audited().contains("connection.refresh_failed"));
    assert_eq!(refresh_tokens(&stage), ["refresh-token-1"]);

    gate.add_permits(10);
    answered.await.unwrap().unwrap();
    let now = held(&other, &stage).await;
    assert_eq!(now.connection.state, State::Connected);
    assert!(fresh(&other, &stage).await.is_ok());
    assert_eq!(refresh_tokens(&stage), ["refresh-token-1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_that_never_changes_is_sent_again() {
    let (mut stage, ended) = lapsed().await;
    stage.description.refresh.rotation = Rotation::Never;
    let gate = stage.script.hold();
    for access in ["access-token-2", "access-token-3"] {
        stage.script.token(tokens(access, None, Some(HOUR)));
    }
    let (slow, other) = (
        process(&stage, "slow", &ended, None),
        process(&stage, "other", &ended, None),
    );
    let (oauth, before, party) = (slow.clone(), held(&slow, &stage).await, stage.party());
    let killed = tokio::spawn(async move { oauth.fresh(before, &party, None).await.map(drop) });
    while refresh_tokens(&stage).is_empty() {
        tokio::task::yield_now().await;
    }
    ended.lock().unwrap().insert("slow".into());
    gate.add_permits(10);
    assert!(fresh(&other, &stage).await.is_ok());
    killed.await.unwrap().unwrap();
    let now = held(&other, &stage).await;
    assert_eq!(now.connection.state, State::Connected);
}
